//! `audit tail|query|export|stats|verify`: the log for people and for scripts. `audit_pull.rs` has `audit pull`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Subcommand;

use crate::audit_reader::{self, Filter, Show, export, prove, query, stats, tail};
use crate::config::{Config, Env};
use crate::domain::clock::{Clock as _, SystemClock, Timestamp};

use super::{ConfigArgument, audit_pull, complain, exit};

/// Read the audit log.
#[derive(Subcommand)]
pub enum Audit {
    /// Show the last records
    Tail {
        #[command(flatten)]
        log: Log,
        /// Go on with what is written from now on
        #[arg(short, long)]
        follow: bool,
        /// How many records
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        lines: usize,
    },
    /// Show the records that fit
    Query {
        #[command(flatten)]
        log: Log,
        #[command(flatten)]
        conditions: Box<Conditions>,
    },
    /// Write one user's records so that they can be verified alone, or any records as OCSF events
    Export {
        #[command(flatten)]
        log: Log,
        #[command(flatten)]
        conditions: Box<Conditions>,
        /// json: the lines as they are; ocsf: OCSF API Activity events
        #[arg(long, value_parser = ["json", "ocsf"], default_value = "json")]
        format: String,
    },
    /// Count calls, denials, errors and bytes per user and route
    Stats {
        #[command(flatten)]
        log: Log,
        #[command(flatten)]
        conditions: Box<Conditions>,
    },
    /// Fetch a shipped log from its volume and verify it; exit 1 if anything does not
    Pull(super::audit_pull::Pull),
    /// Prove that no record was changed, removed, added or moved; exit 1 if one was
    Verify {
        #[command(flatten)]
        log: Log,
        #[command(flatten)]
        claim: Claim,
    },
}

/// Which log, and how to show it.
#[derive(clap::Args)]
pub struct Log {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print the JSON lines themselves
    #[arg(long)]
    json: bool,
    /// The log files, rotated ones in any order; the configured log when left out
    files: Vec<PathBuf>,
}

/// All that are given must hold.
#[derive(clap::Args)]
pub struct Conditions {
    /// Subject or e-mail address
    #[arg(long)]
    user: Option<String>,
    /// Not before: a time such as 2026-11-23T10:00:00Z, or a span back from now such as 15m, 2h or 7d
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Before: likewise
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// The route's name
    #[arg(long)]
    route: Option<String>,
    /// An operation, or a family such as mlflow.*
    #[arg(long)]
    operation: Option<String>,
    /// type/id, or the id alone
    #[arg(long)]
    resource: Option<String>,
    /// allow or deny
    #[arg(long, value_parser = ["allow", "deny", "would_deny"])]
    decision: Option<String>,
    /// The reason of a refusal
    #[arg(long)]
    reason: Option<String>,
    /// The id of a call
    #[arg(long)]
    call: Option<String>,
    /// intent, outcome, denial, token_rejected, session_opened, …
    #[arg(long)]
    event: Option<String>,
}

/// What is to be proven.
#[derive(clap::Args)]
pub struct Claim {
    /// Trust this public key only: 64 hex digits (start log, /status), or a PEM file; may be repeated
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// A record noted elsewhere that must be there: audit.seq and audit.head of /status; may be repeated
    #[arg(long, value_name = "SEQ:HASH")]
    head: Vec<String>,
    /// The files are the export of this user (the subject)
    #[arg(long, value_name = "SUBJECT")]
    user: Option<String>,
    /// What came before the first record is not here
    #[arg(long)]
    partial: bool,
}

/// Runs one of the commands.
pub fn read(command: Audit, env: &Env) -> u8 {
    let done = match command {
        Audit::Tail { log, follow, lines } => show_tail(&log, follow, lines, env),
        Audit::Query { log, conditions } => query(&log, *conditions, env),
        Audit::Export {
            log,
            conditions,
            format,
        } => export(&log, *conditions, &format, env),
        Audit::Stats { log, conditions } => stats(&log, *conditions, env),
        Audit::Pull(pull) => audit_pull::pull(&pull, env),
        Audit::Verify { log, claim } => verify(&log, claim, env),
    };
    done.unwrap_or_else(|ended| ended.0)
}

/// Why a command ended early; what there was to say has been said.
pub(super) struct Ended(pub(super) u8);

impl From<io::Error> for Ended {
    fn from(fault: io::Error) -> Self {
        Self(match fault.kind() {
            // A reader that has gone (`| head`) has all it wants.
            io::ErrorKind::BrokenPipe => exit::GOOD,
            io::ErrorKind::NotFound => complain(&fault.to_string(), exit::USAGE),
            _ => complain(&fault.to_string(), exit::INTERNAL),
        })
    }
}

impl Log {
    fn files(&self, env: &Env) -> Result<Vec<PathBuf>, Ended> {
        if !self.files.is_empty() {
            return Ok(self.files.clone());
        }
        let config: Config = self.config.load(env).map_err(Ended)?;
        Ok(vec![config.audit.file])
    }

    fn show(&self) -> Show {
        if self.json {
            Show::Json
        } else {
            Show::Table {
                color: io::stdout().is_terminal(),
            }
        }
    }
}

fn show_tail(log: &Log, follow: bool, lines: usize, env: &Env) -> Result<u8, Ended> {
    let files = log.files(env)?;
    let [file] = files.as_slice() else {
        return Err(Ended(complain("tail shows one log", exit::USAGE)));
    };
    // Following ends with the process: nobody sends on this channel.
    let (_keep, stop) = std::sync::mpsc::channel();
    tail::tail(
        file,
        lines,
        log.show(),
        follow.then_some(&stop),
        &mut io::stdout().lock(),
    )?;
    Ok(exit::GOOD)
}

impl Conditions {
    fn filter(self) -> Result<Filter, Ended> {
        let now = SystemClock.now();
        let moment = |text: Option<String>| -> Result<Option<Timestamp>, Ended> {
            text.map(|text| audit_reader::parse_moment(&text, now))
                .transpose()
                .map_err(|message| Ended(complain(&message, exit::USAGE)))
        };
        Ok(Filter {
            since: moment(self.since)?,
            until: moment(self.until)?,
            user: self.user,
            route: self.route,
            operation: self.operation,
            resource: self.resource,
            decision: self.decision,
            reason: self.reason,
            call: self.call,
            event: self.event,
        })
    }
}

fn export(log: &Log, conditions: Conditions, format: &str, env: &Env) -> Result<u8, Ended> {
    let filter = conditions.filter()?;
    let format = match format {
        "ocsf" => export::Format::Ocsf,
        _ => export::Format::Json,
    };
    let files = audit_reader::files_of(&log.files(env)?)?;
    let done = match export::export(&files, &filter, format, &mut io::stdout().lock()) {
        Err(fault) if fault.kind() == io::ErrorKind::InvalidInput => {
            return Err(Ended(complain(&fault.to_string(), exit::USAGE)));
        }
        done => done?,
    };
    let mut told = format!("{} records", done.records);
    if let (Some(subject), Some((first, last))) = (&done.subject, done.span) {
        told = format!(
            "{told} of {subject:?}, user_seq {first} to {}; verify with: valetkey audit verify --user {subject:?} --head {}:{} FILE",
            last.seq, last.seq, last.hash
        );
    }
    if done.unreadable > 0 {
        told = format!(
            "{told}; {} lines are no records; see: valetkey audit verify",
            done.unreadable
        );
    }
    Ok(complain(&told, exit::GOOD))
}

fn stats(log: &Log, conditions: Conditions, env: &Env) -> Result<u8, Ended> {
    let filter = conditions.filter()?;
    let files = audit_reader::files_of(&log.files(env)?)?;
    let stats = stats::stats(&files, &filter)?;
    let out = &mut io::stdout().lock();
    if log.json {
        stats.json(out)?;
    } else {
        stats.table(out)?;
    }
    if stats.unreadable > 0 {
        let told = format!(
            "{} lines are no records; see: valetkey audit verify",
            stats.unreadable
        );
        complain(&told, exit::GOOD);
    }
    Ok(exit::GOOD)
}

fn query(log: &Log, conditions: Conditions, env: &Env) -> Result<u8, Ended> {
    let filter = conditions.filter()?;
    let files = audit_reader::files_of(&log.files(env)?)?;
    let count = query::query(&files, &filter, log.show(), &mut io::stdout().lock())?;
    if let Some((file, line)) = count.first_unreadable {
        complain(
            &format!(
                "{} lines are no records, the first at {}:{line}; see: valetkey audit verify",
                count.unreadable,
                file.display()
            ),
            exit::GOOD,
        );
    }
    Ok(exit::GOOD)
}

fn verify(log: &Log, claim: Claim, env: &Env) -> Result<u8, Ended> {
    let usage = |message: String| Ended(complain(&message, exit::USAGE));
    let keys = claim.key.iter().map(|key| prove::parse_key(key));
    let heads = claim.head.iter().map(|head| prove::parse_head(head));
    let claim = prove::Claim {
        keys: keys.collect::<Result<_, _>>().map_err(usage)?,
        heads: heads.collect::<Result<_, _>>().map_err(usage)?,
        user: claim.user,
        partial: claim.partial,
        json: log.json,
    };
    let files = audit_reader::files_of(&log.files(env)?)?;
    let good = prove::verify(&files, &claim, &mut io::stdout().lock())?;
    Ok(if good { exit::GOOD } else { exit::NO })
}

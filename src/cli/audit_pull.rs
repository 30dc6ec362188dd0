//! `audit pull`: a shipped log back from its volume, and verified.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::ship;
use crate::audit_pull::{self, Log};
use crate::audit_reader::{self, prove};
use crate::config::{Config, Env};
use crate::domain::clock::{Clock, SystemClock};
use crate::domain::volume::VolumePath;
use crate::runtime::metrics::Metrics;

use super::audit::Ended;
use super::serve::runtime;
use super::{ConfigArgument, complain, exit, report};

/// What to fetch, and what is to be proven of it.
#[derive(clap::Args)]
pub struct Pull {
    #[command(flatten)]
    config: ConfigArgument,
    /// A folder of a volume, such as /Volumes/main/ops/audit/valetkey; left out, that of audit.ship
    #[arg(long, value_name = "VOLUME_PATH")]
    from: Option<String>,
    /// Where to put the files: a folder for each log; what is here already is not fetched again
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only segments that arrived since: a time such as 2026-11-23T10:00:00Z, or a span back from now such as 15m, 2h or 7d
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Trust this public key only: 64 hex digits (start log, /status), or a PEM file; may be repeated
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// What came before the first record was never shipped, or is not there any more
    #[arg(long)]
    partial: bool,
    /// Print JSON, a line for each log
    #[arg(long)]
    json: bool,
}

/// Fetches, verifies, and says what came of it.
pub(super) fn pull(pull: &Pull, env: &Env) -> Result<u8, Ended> {
    let usage = |message: String| Ended(complain(&message, exit::USAGE));
    let config: Config = pull.config.load(env).map_err(Ended)?;
    let since = pull.since.as_deref();
    let since = since.map(|text| audit_reader::parse_moment(text, SystemClock.now()));
    let since = since.transpose().map_err(usage)?;
    let keys = pull.key.iter().map(|key| prove::parse_key(key));
    let claim = prove::Claim {
        keys: keys.collect::<Result<_, _>>().map_err(usage)?,
        partial: pull.partial || since.is_some(),
        json: pull.json,
        ..prove::Claim::default()
    };
    let from = match (&pull.from, &config.audit.ship) {
        (Some(path), _) => VolumePath::parse(path).ok_or_else(|| {
            usage(format!(
                "{path:?} is no folder of a volume, such as /Volumes/main/ops/audit/valetkey"
            ))
        })?,
        (None, Some(ship)) => ship.folder.clone(),
        (None, None) => {
            return Err(usage(
                "name the volume with --from, or set audit.ship".into(),
            ));
        }
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Metrics::new();
    let metrics = metrics.map_err(|fault| Ended(complain(&fault.to_string(), exit::INTERNAL)))?;
    let volumes = ship::volumes(&config, &clock, &metrics);
    let volumes = volumes.map_err(|problems| Ended(report(&problems)))?;
    let fetched = runtime()
        .map_err(Ended)?
        .block_on(Box::pin(audit_pull::fetch(
            &volumes, &from, &pull.to, since,
        )));
    let logs = fetched.map_err(|fault| Ended(complain(&fault.to_string(), exit::INTERNAL)))?;
    if logs.is_empty() {
        let message = format!("{from}: there are no audit segments there");
        return Err(Ended(complain(&message, exit::NO)));
    }
    let mut good = true;
    for log in &logs {
        good &= verify(log, &claim)?;
    }
    Ok(if good { exit::GOOD } else { exit::NO })
}

fn verify(log: &Log, claim: &prove::Claim) -> Result<bool, Ended> {
    let out = &mut io::stdout().lock();
    let Log {
        from,
        files,
        fetched,
        problems,
    } = log;
    let segments = files.len();
    if !claim.json {
        writeln!(
            out,
            "{from}: {segments} segments, {fetched} of them fetched now"
        )?;
        for problem in problems {
            writeln!(out, "broken  {problem}")?;
        }
        return Ok(prove::verify(files, claim, out)? && problems.is_empty());
    }
    let mut told = Vec::new();
    let good = prove::verify(files, claim, &mut told)? && problems.is_empty();
    let told: Value = serde_json::from_slice(&told).unwrap_or_default();
    let line = json!({
        "log": from, "segments": segments, "fetched": fetched, "good": good,
        "problems": problems, "verify": told,
    });
    writeln!(out, "{line}")?;
    Ok(good)
}

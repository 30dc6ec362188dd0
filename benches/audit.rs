//! What the audit log costs while it is written and how fast it is read: `cargo bench --bench audit`.
//!
//! Writes to a folder below `target`, so that `sync` meets a real disk. The first table is the writer alone: calls that make a
//! record before and after, against the same calls that make none. The second reads a log of many files that lies in the page
//! cache. How to read the numbers is in `benches/README.md`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use uuid::Uuid;
use valetkey::audit_reader::export::{Format, export};
use valetkey::audit_reader::prove::{Claim, verify};
use valetkey::audit_reader::query::query;
use valetkey::audit_reader::stats::stats;
use valetkey::audit_reader::{Filter, Show, files_of};
use valetkey::domain::audit::{self, Decision, Event, Identity, Record, Resource, Text};
use valetkey::domain::clock::SystemClock;
use valetkey::domain::identity::UserId;
use valetkey::runtime::audit_key;
use valetkey::runtime::audit_writer::{AuditSettings, AuditSync, AuditWriter, CheckpointSettings};
use valetkey::runtime::metrics::Metrics;

/// Each run is repeated so often, in turn, and the median counts.
const ROUNDS: usize = 5;
/// Users in the log that is read.
const USERS: u128 = 200;
/// Calls in that log: about 256 MiB.
const CALLS_READ: u128 = 240_000;

fn main() {
    let scratch =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the logs");
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut table = String::from(WRITING);
    for (tasks, each) in [(1, 2_000), (32, 500), (256, 400)] {
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); MODES.len()];
        for round in 0..=ROUNDS {
            for (mode, runs) in MODES.iter().zip(&mut runs) {
                // A flush for each call takes long when calls come one by one.
                let each = if mode.1 == Some(AuditSync::Record) {
                    each / 4
                } else {
                    each
                };
                let run = write(&runtime, scratch.path(), mode.1, (tasks, each));
                if round > 0 {
                    runs.push(run);
                }
            }
        }
        let none = runs.last().cloned().unwrap_or_default();
        for (mode, runs) in MODES.iter().zip(&runs) {
            table.push_str(&row(tasks, mode.0, runs, &none));
        }
    }
    table.push('\n');
    table.push_str(&reading(&runtime, scratch.path()));
    io::stdout()
        .write_all(table.as_bytes())
        .expect("the tables are printed");
}

const MODES: [(&str, Option<AuditSync>); 4] = [
    ("none", Some(AuditSync::None)),
    ("interval", Some(AuditSync::Interval)),
    ("record", Some(AuditSync::Record)),
    ("no audit", None),
];

const WRITING: &str = "\
| calls at once | sync | records/s | added p50 µs | added p99 µs | added CPU µs per call |
|--:|---|--:|--:|--:|--:|
";

#[derive(Clone)]
struct Run {
    records_per_second: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

fn row(tasks: usize, name: &str, runs: &[Run], none: &[Run]) -> String {
    let added = |figure: fn(&Run) -> f64| median(runs, figure) - median(none, figure);
    let records = median(runs, |run| run.records_per_second);
    format!(
        "| {tasks} | {name} | {records:.0} | {:.1} | {:.1} | {:.2} |\n",
        added(|run| run.p50),
        added(|run| run.p99),
        added(|run| run.cpu),
    )
}

fn median(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// `tasks` at once, each with `each` calls: an intent, a turn of the scheduler, an outcome.
fn write(
    runtime: &Runtime,
    scratch: &Path,
    sync: Option<AuditSync>,
    (tasks, each): (usize, usize),
) -> Run {
    let folder = tempfile::tempdir_in(scratch).expect("a directory for the log");
    let audit = sync.map(|sync| Arc::new(writer(folder.path(), sync)));
    let (begun, cpu) = (Instant::now(), cpu_now());
    let mut times = runtime.block_on(async {
        let mut calls = JoinSet::new();
        for task in 0..tasks {
            let audit = audit.clone();
            calls.spawn(async move { call_often(audit.as_deref(), task as u128, each).await });
        }
        calls.join_all().await.concat()
    });
    if let Some(audit) = &audit {
        runtime.block_on(audit.close()).expect("the log is whole");
    }
    let (took, cpu) = (begun.elapsed(), cpu_now() - cpu);
    let calls = times.len() as f64;
    times.sort_unstable();
    let at = |percent: usize| {
        let time = times.get((times.len() * percent / 100).min(times.len() - 1));
        time.copied().unwrap_or_default().as_secs_f64() * 1e6
    };
    Run {
        records_per_second: 2.0 * calls / took.as_secs_f64(),
        p50: at(50),
        p99: at(99),
        cpu: cpu * 1e6 / calls,
    }
}

async fn call_often(audit: Option<&AuditWriter>, user: u128, each: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(each);
    for _ in 0..each {
        let [intent, outcome] = records(user, Uuid::now_v7());
        let begun = Instant::now();
        match audit {
            Some(audit) => {
                let receipt = audit.intent(intent).await.expect("it is written");
                tokio::task::yield_now().await;
                audit.outcome(receipt, outcome);
            }
            None => tokio::task::yield_now().await,
        }
        times.push(begun.elapsed());
    }
    times
}

fn writer(folder: &Path, sync: AuditSync) -> AuditWriter {
    let key = audit_key::load(None).expect("a key");
    let settings = AuditSettings {
        sync,
        checkpoint: Some(CheckpointSettings::new(key)),
        ..AuditSettings::new(folder.join("audit.jsonl"))
    };
    let metrics = Metrics::new().expect("metrics");
    AuditWriter::start(&settings, Arc::new(SystemClock), metrics).expect("a writer")
}

/// Processor time of this process, in seconds.
fn cpu_now() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the usage");
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

/// What `benches/hop.rs` makes of a SQL statement.
fn records(user: u128, call: Uuid) -> [Record; 2] {
    let name = format!("user-{user}@example.com");
    let user = audit::User {
        sub: UserId::parse(&name).expect("a subject"),
        email: None,
        verified: true,
        client_id: None,
        token_id: Some("3f2c1b9e-0000-4000-8000-000000000001".to_owned().into()),
    };
    let mut intent = Record::new(Event::Intent);
    intent.call = Some(call);
    intent.request_id = Some(call.to_string().into());
    intent.session = Some("0193d2c8-7c1f-7000-8000-000000000002".to_owned().into());
    intent.user = Some(Arc::new(user));
    intent.identity = Some(Identity::User);
    intent.route = Some("user-sql".to_owned().into());
    intent.operation = Some("sql.statements.execute".to_owned().into());
    intent.resource = Some(Resource {
        kind: Text::Fixed("sql_warehouse"),
        id: "1234abcd".to_owned().into(),
    });
    intent.method = Some(Text::Fixed("POST"));
    intent.path = Some("/api/2.0/sql/statements".to_owned().into());
    intent.decision = Some(Decision::Allow);
    let mut outcome = intent.clone();
    outcome.event = Event::Outcome;
    outcome.status = Some(200);
    outcome.bytes_sent = Some(120);
    outcome.bytes_received = Some(1024);
    outcome.duration_ms = Some(42);
    [intent, outcome]
}

fn reading(runtime: &Runtime, scratch: &Path) -> String {
    let folder = scratch.join("read");
    let audit = writer(&folder, AuditSync::None);
    runtime.block_on(async {
        let mut owed = Vec::new();
        for call in 0..CALLS_READ {
            let [intent, outcome] = records(call % USERS, Uuid::from_u128(call));
            let receipt = audit.intent(intent).await.expect("it is written");
            owed.push((receipt, outcome));
            if owed.len() == 500 {
                owed.drain(..)
                    .for_each(|(receipt, outcome)| audit.outcome(receipt, outcome));
            }
        }
        owed.drain(..)
            .for_each(|(receipt, outcome)| audit.outcome(receipt, outcome));
        audit.close().await.expect("the log is whole");
    });
    let files = files_of(&[folder.join("audit.jsonl")]).expect("the log");
    let sizes = files
        .iter()
        .map(|path| std::fs::metadata(path).map_or(0, |about| about.len()));
    let bytes: u64 = sizes.sum();
    let mut table = format!(
        "{} MiB in {} files\n\n| reading | MB/s | CPU MB/s |\n|---|--:|--:|\n",
        bytes >> 20,
        files.len()
    );
    for (name, read) in readers() {
        let mut rates: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let (begun, cpu) = (Instant::now(), cpu_now());
                read(&files);
                let megabytes = bytes as f64 / 1e6;
                (
                    megabytes / begun.elapsed().as_secs_f64(),
                    megabytes / (cpu_now() - cpu),
                )
            })
            .collect();
        rates.sort_by(|a, b| f64::total_cmp(&a.0, &b.0));
        let (wall, cpu) = rates.get(ROUNDS / 2).copied().unwrap_or_default();
        table.push_str(&format!("| {name} | {wall:.0} | {cpu:.0} |\n"));
    }
    table
}

type Read = Box<dyn Fn(&[PathBuf])>;

fn readers() -> Vec<(&'static str, Read)> {
    let find = |name: &'static str, filter: Filter, show: Show| -> (&'static str, Read) {
        let read = move |files: &[PathBuf]| {
            query(files, &filter, show, &mut io::sink()).expect("the log is read");
        };
        (name, Box::new(read))
    };
    let user = || Some("user-7@example.com".to_owned());
    let by = |set: fn(&mut Filter)| {
        let mut filter = Filter::default();
        set(&mut filter);
        filter
    };
    let of_user = Filter {
        user: user(),
        ..Filter::default()
    };
    let table = Show::Table { color: false };
    vec![
        (
            "verify",
            Box::new(|files: &[PathBuf]| {
                assert!(
                    verify(files, &Claim::default(), &mut io::sink()).expect("the log is read")
                );
            }),
        ),
        find(
            "query --route none of them",
            by(|f| f.route = Some("no-such-route".into())),
            Show::Json,
        ),
        find(
            "query --decision deny",
            by(|f| f.decision = Some("deny".into())),
            Show::Json,
        ),
        find("query --user, one of 200", of_user.clone(), Show::Json),
        find(
            "query --event outcome, as a table",
            by(|f| f.event = Some("outcome".into())),
            table,
        ),
        find("query, all of it, as JSON", Filter::default(), Show::Json),
        (
            "export --user, one of 200",
            Box::new(move |files: &[PathBuf]| {
                export(files, &of_user, Format::Json, &mut io::sink()).expect("the log is read");
            }),
        ),
        (
            "export --format ocsf, all of it",
            Box::new(|files: &[PathBuf]| {
                export(files, &Filter::default(), Format::Ocsf, &mut io::sink())
                    .expect("the log is read");
            }),
        ),
        (
            "stats",
            Box::new(|files: &[PathBuf]| {
                stats(files, &Filter::default()).expect("the log is read");
            }),
        ),
    ]
}

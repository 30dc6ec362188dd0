//! `audit`: where the log is, when it is flushed, rotated, signed, and where else it goes.
//!
//! Read `sections.rs` for the sections around it.

use std::path::PathBuf;
use std::time::Duration;

use super::check::Checker;
use super::raw::{RawAudit, RawShip};
use super::read::Given;
use super::words::{AuditFormat, AuditSync, OnFailure};

const MIB: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `audit`.
#[derive(Debug, Clone)]
pub struct Audit {
    /// The file that is appended to.
    pub file: PathBuf,
    /// What happens to a call that cannot be recorded.
    pub on_failure: OnFailure,
    /// When the file is flushed to disk.
    pub sync: AuditSync,
    /// Size at which a new file is begun.
    pub rotate_bytes: u64,
    /// How many old files are kept.
    pub rotate_keep: usize,
    /// The form in which records go to the standard output too, if they do.
    pub stdout: Option<AuditFormat>,
    /// Where closed files are taken.
    pub ship: Option<Ship>,
    /// Records between two checkpoints.
    pub checkpoint_records: usize,
    /// The longest wait for a checkpoint.
    pub checkpoint_interval: Duration,
    /// The key that signs them; `None` makes one at each start.
    pub key_file: Option<PathBuf>,
}

/// `audit.ship`.
#[derive(Debug, Clone)]
pub struct Ship {
    /// CATALOG.SCHEMA.VOLUME.
    pub volume: String,
    /// How long a file may be written.
    pub every: Duration,
}

/// Checks the section. `has_app` says whether there is a credential of the app.
pub fn audit(raw: RawAudit, has_app: bool, c: &mut Checker<'_>) -> Audit {
    let rotate = raw.rotate.take();
    let checkpoint = raw.checkpoint.take();
    let stdout = raw.stdout.get().copied().unwrap_or(false);
    if raw.format.get().is_some() && !stdout {
        let problem = raw
            .format
            .problem("is the form of the copy on standard output, which is off");
        c.report(problem.hint(
            "set audit.stdout: true; for the file there is valetkey audit export --format ocsf",
        ));
    }
    if raw.ship.get().is_some() && !has_app {
        let problem = raw
            .ship
            .problem("the log is shipped as the app, which has no credential");
        c.report(problem.hint("set app.client_id and app.client_secret, or remove the key"));
    }
    let format = raw.format.get().copied().unwrap_or(AuditFormat::Json);
    Audit {
        file: c
            .path(&raw.file)
            .unwrap_or_else(|| "./audit/valetkey.jsonl".into()),
        on_failure: raw.on_failure.get().copied().unwrap_or(OnFailure::Refuse),
        sync: raw.sync.get().copied().unwrap_or(AuditSync::Interval),
        rotate_bytes: c.size(&rotate.size, 64 * MIB, MIB..=16 * 1024 * MIB),
        rotate_keep: c.count(&rotate.keep, 14, 1..=10_000),
        stdout: stdout.then_some(format),
        ship: ship(&raw.ship, c),
        checkpoint_records: c.count(&checkpoint.records, 1_000, 1..=1_000_000),
        checkpoint_interval: c.duration(&checkpoint.interval, MINUTE, SECOND..=DAY),
        key_file: c.path(&raw.key_file),
    }
}

fn ship(given: &Given<RawShip>, c: &mut Checker<'_>) -> Option<Ship> {
    const HINT: &str = "write CATALOG.SCHEMA.VOLUME, such as main.ops.audit";
    let raw = given.get()?;
    let every = c.duration(&raw.every, 5 * MINUTE, SECOND..=DAY);
    let Some(volume) = c.text(&raw.volume) else {
        c.report(given.problem("names no volume").hint(HINT));
        return None;
    };
    // These stand in a path as they are.
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let parts: Vec<&str> = volume.split('.').collect();
    if parts.len() != 3 || !parts.into_iter().all(plain) {
        c.report(raw.volume.problem("is no volume").hint(HINT));
        return None;
    }
    Some(Ship {
        volume: volume.to_owned(),
        every,
    })
}

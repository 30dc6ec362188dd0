//! The values of `audit`: where the log is, when it is flushed, rotated and signed, and where it goes.
//!
//! `ship.rs` has the part that leaves the machine. Read `sections.rs` for the rest.

use std::path::PathBuf;
use std::time::Duration;

use super::App;
use super::check::Checker;
use super::raw::RawAudit;
use super::ship::{Ship, ship};
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
    /// Records between two checkpoints.
    pub checkpoint_records: usize,
    /// The longest wait for a checkpoint.
    pub checkpoint_interval: Duration,
    /// The key that signs them; `None` makes one at each start.
    pub key_file: Option<PathBuf>,
    /// Where closed files go, if they go anywhere.
    pub ship: Option<Ship>,
}

/// Checks the section; shipping needs `app`.
pub(super) fn audit(raw: RawAudit, app: &App, c: &mut Checker<'_>) -> Audit {
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
    let format = raw.format.get().copied().unwrap_or(AuditFormat::Json);
    let rotate_bytes = c.size(&rotate.size, 64 * MIB, MIB..=16 * 1024 * MIB);
    Audit {
        file: c
            .path(&raw.file)
            .unwrap_or_else(|| "./audit/valetkey.jsonl".into()),
        on_failure: raw.on_failure.get().copied().unwrap_or(OnFailure::Refuse),
        sync: raw.sync.get().copied().unwrap_or(AuditSync::Interval),
        rotate_bytes,
        rotate_keep: c.count(&rotate.keep, 14, 1..=10_000),
        stdout: stdout.then_some(format),
        checkpoint_records: c.count(&checkpoint.records, 1_000, 1..=1_000_000),
        checkpoint_interval: c.duration(&checkpoint.interval, MINUTE, SECOND..=DAY),
        key_file: c.path(&raw.key_file),
        ship: ship(&raw.ship, app, rotate_bytes, c),
    }
}

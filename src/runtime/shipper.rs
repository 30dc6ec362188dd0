//! Off the box: closed audit files go to a Unity Catalog volume as the app identity, oldest first, each exactly once.
//!
//! Never in the way of the writer: it reads what the writer has closed, and asks it to close a file early where one has been
//! open for `every`. Knows files, not records. `shipper/courier.rs` carries one after the other, `shipper/segment.rs` is a file on its way, `shipper/ledger.rs` what has arrived,
//! `shipper/retention.rs` what may be removed from the disk; `volume.rs` is the wire, `domain/volume.rs` the names.
//!
//! # What makes it exactly once
//!
//! A segment is named after its content, put without overwriting, and counts as shipped only when the volume says that a file
//! of that name and length is there. So an answer that got lost, a crash between upload and ledger, or a lost ledger lead to a
//! second look, never to a second copy beside the first.
//!
//! # Decisions
//!
//! - No audit record per upload: each would make the next file longer, for a log that feeds itself. The platform's own audit
//!   log has the calls, as the app; metrics and log lines tell the rest.
//! - What the volume does not have stays on the disk beyond `audit.rotate.keep`, up to `audit.ship.backlog`. Beyond that the
//!   oldest is removed, with an error, a metric, and a gap in the chain that counts its records: a full disk would refuse
//!   every call instead, and lose no less in the end.
//! - Shipping that fails does not make the sidecar unready: a restart would take the disk with the files away.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout_at};

use super::audit_writer::AuditWriter;
use super::metrics::Metrics;
use super::volume::Volumes;
use crate::domain::audit::Record;
use crate::domain::clock::{Clock, Timestamp};
use crate::domain::volume::VolumePath;

use courier::{Arrival, Courier};
use ledger::Ledger;
use segment::Closed;

mod courier;
mod ledger;
mod retention;
pub mod segment;

/// Reason of a gap: files that no volume had were removed, since the backlog was full.
pub const UNSHIPPED_REMOVED: &str = "unshipped_removed";

/// What is shipped, and where to.
#[derive(Debug, Clone)]
pub struct ShipSettings {
    /// The file being written; closed ones lie beside it.
    pub audit_file: PathBuf,
    /// The folder of this app. Each log has one of its own below it.
    pub folder: VolumePath,
    /// A file is closed after so long, full or not.
    pub every: Duration,
    /// Closed files that stay on the disk.
    pub keep: usize,
    /// Bytes of closed files that may wait for the volume beyond those.
    pub backlog_bytes: u64,
}

/// How it fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShipStatus {
    /// Where this log's files go.
    pub destination: String,
    /// Closed files that the volume does not have.
    pub pending: usize,
    /// Age of the last record of the oldest of them; 0 without one.
    pub lag_seconds: u64,
    /// Files that arrived since the start, those that were found there included.
    pub shipped: u64,
    /// Tries that failed since the start.
    pub failed: u64,
    /// Files that were removed unshipped since the start.
    pub dropped: u64,
    /// Why the last try failed, while it is not mended.
    pub failing: Option<String>,
    /// When the last file arrived.
    pub last_shipped: Option<Timestamp>,
}

/// What lay on the disk before the writer began.
pub struct Prepared {
    settings: ShipSettings,
    ledger: Ledger,
    /// An earlier run left a file open.
    left_over: bool,
}

impl Prepared {
    /// Looks, before the writer is started.
    pub fn look(settings: ShipSettings) -> Self {
        let file = &settings.audit_file;
        let left_over = std::fs::metadata(file).is_ok_and(|there| there.len() > 0);
        let closed = segment::closed(file).is_ok_and(|files| !files.is_empty());
        let ledger = if left_over || closed {
            Ledger::open(file, &settings.folder)
        } else {
            Ledger::new(file, &settings.folder) // a new chain is a new log
        };
        Self {
            settings,
            ledger,
            left_over,
        }
    }
}

/// Ships. Share it by `Arc`.
pub struct Shipper {
    shared: Arc<Shared>,
    /// Turns true when the sidecar ends.
    ending: watch::Sender<bool>,
    begin: Mutex<Option<Courier>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    settings: ShipSettings,
    volumes: Volumes,
    writer: Arc<AuditWriter>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    status: ShipStatus,
    /// The oldest file that waits, and when its last record was written.
    oldest: Option<(u64, Option<Timestamp>)>,
}

impl Shipper {
    /// Ships nothing yet.
    pub fn new(
        prepared: Prepared,
        volumes: Volumes,
        writer: Arc<AuditWriter>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let Prepared {
            settings,
            ledger,
            left_over,
        } = prepared;
        let folder = settings.folder.join(ledger.log());
        let folder = folder.unwrap_or_else(|| settings.folder.clone());
        let state = State {
            status: ShipStatus {
                destination: folder.to_string(),
                ..ShipStatus::default()
            },
            oldest: None,
        };
        metrics.shipping().expect_all();
        Self {
            shared: Arc::new(Shared {
                settings,
                volumes,
                writer,
                clock,
                metrics,
                state: Mutex::new(state),
            }),
            ending: watch::Sender::new(false),
            begin: Mutex::new(Some(Courier::new(ledger, left_over, folder))),
            task: Mutex::default(),
        }
    }

    /// Begins, once.
    pub fn start(&self) {
        let Some(courier) = lock(&self.begin).take() else {
            return;
        };
        let (shared, ending) = (Arc::clone(&self.shared), self.ending.subscribe());
        tracing::info!(to = %courier.folder, every = ?shared.settings.every, "closed audit files are shipped");
        let first = Instant::now();
        let first = if courier.left_over {
            first
        } else {
            first + shared.settings.every
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = close_early(&shared, first) => {}
                () = Box::pin(run(&shared, courier, ending)) => {}
            }
        });
        *lock(&self.task) = Some(task);
    }

    /// For `/readyz`, `/status` and, by setting the gauges to this moment, `/metrics`.
    pub fn status(&self) -> ShipStatus {
        self.shared.status()
    }

    /// Ships what the closed writer left, until then at most. What does not arrive goes after the next start.
    pub async fn finish(&self, by: Instant) {
        let Some(mut task) = lock(&self.task).take() else {
            return;
        };
        self.ending.send_replace(true);
        match timeout_at(by, &mut task).await {
            Ok(Ok(())) => tracing::info!("the whole audit log is shipped"),
            Ok(Err(fault)) => tracing::error!(%fault, "shipping ended early"),
            Err(_) => {
                task.abort();
                let status = self.status();
                tracing::error!(
                    pending = status.pending,
                    cause = status.failing,
                    "the end of the audit log could not be shipped in time; it goes after the next start, if the disk is still there"
                );
            }
        }
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

/// Has the writer close its file whenever it has been open for so long; it does nothing where the file is empty.
async fn close_early(shared: &Shared, first: Instant) {
    let mut ticks = interval_at(first, shared.settings.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.writer.rotate();
    }
}

async fn run(shared: &Arc<Shared>, mut courier: Courier, mut ending: watch::Receiver<bool>) {
    let mut rotations = shared.writer.rotations();
    let mut next_try = Instant::now();
    loop {
        let last = *ending.borrow_and_update();
        rotations.borrow_and_update();
        let waiting;
        (courier, waiting) = look(shared, courier, last).await;
        if waiting.is_empty() && last {
            return;
        }
        if !waiting.is_empty() && next_try <= Instant::now() {
            match courier.ship_all(shared, &waiting).await {
                None => courier.failures = 0,
                Some(asked) => next_try = Instant::now() + courier.pause(asked, last),
            }
            continue;
        }
        tokio::select! {
            changed = rotations.changed() => if changed.is_err() { return },
            changed = ending.changed() => match changed {
                Ok(()) => next_try = Instant::now(),
                Err(_) => return,
            },
            () = sleep_until(next_try), if !waiting.is_empty() => {}
        }
    }
}

/// What waits on the disk, oldest first. Removes on the way what need not stay.
async fn look(shared: &Arc<Shared>, courier: Courier, last: bool) -> (Courier, Vec<Closed>) {
    let shared = Arc::clone(shared);
    let mut courier = courier;
    let looked = spawn_blocking(move || {
        let waiting = shared.look(&mut courier.ledger, last);
        (courier, waiting)
    });
    match looked.await {
        Ok(looked) => looked,
        Err(fault) => std::panic::resume_unwind(Box::new(fault.to_string())),
    }
}

impl Shared {
    fn status(&self) -> ShipStatus {
        let state = lock(&self.state);
        let mut status = state.status.clone();
        let since = state.oldest.and_then(|(_, written)| written);
        drop(state);
        let lag = since.map(|since| self.clock.now().duration_since(since).as_secs());
        status.lag_seconds = lag.and_then(|s| u64::try_from(s).ok()).unwrap_or_default();
        let metrics = self.metrics.shipping();
        metrics.waiting(status.pending, status.lag_seconds);
        status
    }

    fn look(&self, ledger: &mut Ledger, last: bool) -> Vec<Closed> {
        let mut files = match segment::closed(&self.settings.audit_file) {
            Ok(files) => files,
            Err(cause) => {
                tracing::warn!(%cause, "the audit directory cannot be read for shipping");
                self.failed(&cause.to_string());
                return Vec::new();
            }
        };
        // A closed writer takes no gap any more.
        if !last {
            self.make_room(&mut files, ledger);
        }
        ledger.keep_only(&files);
        files.retain(|file| !ledger.has(file.first));
        let mut state = lock(&self.state);
        state.status.pending = files.len();
        let oldest = files.first();
        if oldest.map(|file| file.first) != state.oldest.map(|(first, _)| first) {
            state.oldest = oldest.map(|file| (file.first, segment::last_written(&file.path)));
        }
        drop(state);
        self.status();
        files
    }

    fn make_room(&self, files: &mut Vec<Closed>, ledger: &Ledger) {
        let settings = &self.settings;
        let is_shipped = |first| ledger.has(first);
        let plan = retention::plan(files, settings.keep, settings.backlog_bytes, is_shipped);
        let mut gone = Vec::new();
        let mut lost = 0;
        let shipped = plan.shipped.into_iter().map(|file| (file, None));
        let unshipped = plan.unshipped.into_iter();
        for (file, records) in shipped.chain(unshipped.map(|(file, n)| (file, Some(n)))) {
            if let Err(cause) = retention::remove(file) {
                tracing::warn!(file = %file.path.display(), %cause, "an old audit file cannot be removed");
                continue;
            }
            gone.push(file.first);
            if let Some(records) = records {
                tracing::error!(file = %file.path.display(), records, "an audit file was removed that could not be shipped: the backlog is full (audit.ship.backlog)");
                lost += records;
                self.metrics.shipping().segment("dropped");
                lock(&self.state).status.dropped += 1;
            }
        }
        if lost > 0 {
            self.writer.note(Record::gap(UNSHIPPED_REMOVED, Some(lost)));
        }
        files.retain(|file| !gone.contains(&file.first));
    }

    fn failed(&self, cause: &str) {
        self.metrics.shipping().segment("failed");
        let mut state = lock(&self.state);
        state.status.failed += 1;
        state.status.failing = Some(cause.to_owned());
    }

    fn arrived(&self, file: &Closed, how: Arrival) {
        let result = match how {
            Arrival::Shipped => "shipped",
            Arrival::Present => "present",
            Arrival::Gone => {
                tracing::error!(file = %file.path.display(), "an audit file was taken away before it could be shipped");
                return;
            }
        };
        self.metrics.shipping().segment(result);
        tracing::info!(
            file = %file.path.display(),
            bytes = file.bytes,
            result,
            "an audit file is in the volume"
        );
        let mut state = lock(&self.state);
        state.status.shipped += 1;
        state.status.pending = state.status.pending.saturating_sub(1);
        state.status.last_shipped = Some(self.clock.now());
        // The next one's age is looked up with the next look; until then this one's would be too old.
        state.oldest = None;
    }
}

impl Shared {
    fn setback(&self, file: &Closed, cause: &str) {
        tracing::warn!(file = %file.path.display(), cause, "an audit file could not be shipped; it is tried again");
        self.failed(cause);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The audit writer: intent before effect, outcome after it, nothing forwarded that is not written (SECURITY R33).
//!
//! Callers put records into a bounded queue; one OS thread (`audit_writer/engine.rs`) owns chain and sink, drains the queue
//! and writes each batch at once. Knows records, never what they mean, and no HTTP. Read `audit_file.rs` for the disk.
//!
//! Every place of the queue is counted. An intent takes two: its own, and one for the outcome that must come. A full queue
//! therefore refuses calls, never outcomes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::audit_copy::{Copied, CopyFormat};
use super::audit_file::resume::{Resumed, resume};
use super::audit_file::{AuditFault, AuditFile, AuditSink};
use super::metrics::Metrics;
use crate::domain::audit::chain::Hash;
use crate::domain::audit::checkpoint::{PublicKey, SigningKey};
use crate::domain::audit::{Event, Record, Text};
use crate::domain::clock::Clock;

mod engine;
mod queue;
mod sealing;

use queue::Shared;

/// Flush interval of [`AuditSync::Interval`].
pub const SYNC_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// How long a call waits for its intent: a disk that hangs must refuse, not hang the call.
pub const WRITE_WAIT_MAX_DEFAULT: Duration = Duration::from_secs(5);
/// Records waiting and outcomes owed, together; about 0.5 KiB each when all are taken.
pub const QUEUE_RECORDS_MAX_DEFAULT: usize = 32_768;
/// Size at which a file is rotated.
pub const ROTATE_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Rotated files that are kept.
pub const ROTATE_KEEP_DEFAULT: usize = 14;
/// Records between two checkpoints.
pub const CHECKPOINT_RECORDS_DEFAULT: u64 = 1_000;
/// How long a record waits for its checkpoint where few come.
pub const CHECKPOINT_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
/// Reason of an outcome that nobody reported: whether the call had an effect is not known.
pub const ABANDONED: &str = "abandoned";
/// Reason of the outcome of an intent that was written after its caller had gone: the call was not forwarded.
pub const NOT_FORWARDED: &str = "not_forwarded";

/// What happens to calls while the log cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// They are refused.
    Refuse,
    /// They go on; records wait in the bounded queue, and a gap counts what it could not hold.
    Continue,
}

/// When lines are flushed to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditSync {
    /// Before an intent counts as written, many at once; anything else soon after. No call survives a power loss unrecorded.
    Record,
    /// Every [`AuditSettings::sync_interval`]: survives a crash of the process at once, a power loss after that time.
    Interval,
    /// When the system likes.
    None,
}

/// How often the log is signed, and with which key.
#[derive(Debug, Clone)]
pub struct CheckpointSettings {
    /// After so many records.
    pub records: u64,
    /// And where fewer come, when the first of them has waited so long.
    pub interval: Duration,
    /// Signs them.
    pub key: Arc<SigningKey>,
}

impl CheckpointSettings {
    /// The defaults, with this key.
    pub fn new(key: SigningKey) -> Self {
        Self {
            records: CHECKPOINT_RECORDS_DEFAULT,
            interval: CHECKPOINT_INTERVAL_DEFAULT,
            key: Arc::new(key),
        }
    }
}

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// The file being written; rotated ones lie beside it.
    pub file: PathBuf,
    /// Refuse or continue.
    pub on_failure: OnFailure,
    /// When to flush.
    pub sync: AuditSync,
    /// Between two flushes, and between two looks whether the file is still the one at that path.
    pub sync_interval: Duration,
    /// Size at which the file is rotated; a batch may exceed it.
    pub rotate_bytes: u64,
    /// Rotated files that are kept.
    pub rotate_keep: usize,
    /// Records waiting and outcomes owed, together.
    pub queue_records_max: usize,
    /// The longest wait of an intent, and of [`AuditWriter::close`].
    pub write_wait_max: Duration,
    /// Whether, and how, what is in the file goes to the standard output too.
    pub stdout: Option<CopyFormat>,
    /// Signed checkpoints: also at rotation and at the end.
    pub checkpoint: Option<CheckpointSettings>,
}

impl AuditSettings {
    /// The defaults of PRODUCT 4 for this file, but nothing is signed.
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            on_failure: OnFailure::Refuse,
            sync: AuditSync::Interval,
            sync_interval: SYNC_INTERVAL_DEFAULT,
            rotate_bytes: ROTATE_BYTES_DEFAULT,
            rotate_keep: ROTATE_KEEP_DEFAULT,
            queue_records_max: QUEUE_RECORDS_MAX_DEFAULT,
            write_wait_max: WRITE_WAIT_MAX_DEFAULT,
            stdout: None,
            checkpoint: None,
        }
    }
}

/// Why an intent is not in the log. The call must not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditUnavailable {
    /// The sink fails; it is tried again and again, and calls pass as soon as it takes records.
    #[error("the audit log cannot be written: {0}")]
    Failing(Arc<str>),
    /// The sink does not answer.
    #[error("the audit log was not written within {0:?}: the disk hangs or is too slow")]
    Slow(Duration),
    /// More calls in flight than the queue has places.
    #[error(
        "the audit queue is full: more calls are in flight than it has places; see limits.requests"
    )]
    Full,
    /// The writer was closed.
    #[error("the audit log is closed")]
    Closed,
}

/// What `/readyz` and `/status` tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStatus {
    /// Whether an intent would be accepted.
    pub healthy: bool,
    /// The last failure, kept after it healed.
    pub last_error: Option<Arc<str>>,
    /// Number of the last written record.
    pub seq: u64,
    /// Its hash: compare it with the file to see whether the end was cut.
    pub head: Hash,
    /// Records written since the start.
    pub written: u64,
    /// Records that could not be written since the start.
    pub failed: u64,
    /// Who signs the checkpoints.
    pub key: Option<PublicKey>,
}

/// The writer. Share it by `Arc`; dropping it ends the thread after what is queued.
pub struct AuditWriter {
    shared: Arc<Shared>,
}

/// Fills in how a call ended whose flow was dropped.
type Fill = Box<dyn FnOnce(&mut Record) + Send + Sync>;

/// Proof that an intent is in the log, and the reserved place of its outcome. Dropping it records an outcome with reason
/// [`ABANDONED`], or what [`Receipt::if_dropped`] says.
#[must_use = "the outcome has to be reported"]
pub struct Receipt {
    shared: Arc<Shared>,
    /// Whether a place in the queue is reserved; not so after a failure with [`OnFailure::Continue`].
    reserved: bool,
    call: Option<Uuid>,
    /// The intent; taken once the outcome is reported.
    intent: Option<Box<Record>>,
    reported: bool,
    fallback: &'static str,
    fill: Option<Fill>,
}

impl AuditWriter {
    /// Opens (or makes) the file, repairs and continues its chain, and starts the thread.
    ///
    /// # Errors
    /// [`AuditFault`] names path, cause and remedy.
    pub fn start(
        settings: &AuditSettings,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Result<Self, AuditFault> {
        let mut file =
            AuditFile::open(&settings.file, settings.rotate_bytes, settings.rotate_keep)?;
        let resumed = resume(&mut file)?;
        let mut sink: Box<dyn AuditSink> = Box::new(file);
        if let Some(format) = settings.stdout {
            let copied = Copied::to_stdout(sink, format, metrics.clone());
            sink = Box::new(copied.map_err(AuditFault::Thread)?);
        }
        Self::start_with(settings, sink, resumed, clock, metrics)
    }

    /// The same over any sink. `settings.file` is not looked at.
    ///
    /// # Errors
    /// [`AuditFault::Thread`].
    pub fn start_with(
        settings: &AuditSettings,
        sink: Box<dyn AuditSink>,
        resumed: Resumed,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Result<Self, AuditFault> {
        let shared = Arc::new(Shared::new(settings, &resumed.chain, metrics));
        for gap in resumed.gaps {
            let reason = gap.reason.as_ref().map(Text::as_str);
            tracing::error!(
                reason,
                lost = gap.lost,
                "the audit log of earlier runs is not whole; see: valetkey audit verify"
            );
            shared.note(gap);
        }
        let engine = engine::Engine::new(Arc::clone(&shared), settings, sink, resumed.chain, clock);
        std::thread::Builder::new()
            .name("valetkey-audit".into())
            .spawn(move || engine.run())
            .map_err(AuditFault::Thread)?;
        Ok(Self { shared })
    }

    /// Writes the intent of a call; returns once its line is in the file (and on disk, with [`AuditSync::Record`]).
    ///
    /// # Errors
    /// [`AuditUnavailable`]: the call must be refused. Never with [`OnFailure::Continue`], except after closing.
    pub async fn intent(&self, mut record: Record) -> Result<Receipt, AuditUnavailable> {
        record.event = Event::Intent;
        let call = record.call;
        let wait = self.shared.write_wait_max;
        let (reply, answer) = oneshot::channel();
        let refusal = match self.shared.enqueue_intent(record, reply) {
            Ok(()) => match tokio::time::timeout(wait, answer).await {
                Ok(Ok(Ok(receipt))) => return Ok(receipt),
                Ok(Ok(Err(refusal))) => refusal,
                Ok(Err(_)) => AuditUnavailable::Closed,
                Err(_) => AuditUnavailable::Slow(wait),
            },
            Err(refusal) => refusal,
        };
        self.shared.failed(1);
        match (self.shared.on_failure, &refusal) {
            (
                OnFailure::Continue,
                AuditUnavailable::Failing(_) | AuditUnavailable::Slow(_) | AuditUnavailable::Full,
            ) => Ok(Receipt::without_place(&self.shared, call)),
            (OnFailure::Continue, AuditUnavailable::Closed) | (OnFailure::Refuse, _) => {
                Err(refusal)
            }
        }
    }

    /// Reports how a call ended. Never blocks; the place was reserved by the intent. Event and call are set from the receipt.
    pub fn outcome(&self, receipt: Receipt, record: Record) {
        receipt.report(record);
    }

    /// Records anything else. Never blocks; without a free place the record is lost, counted, and owned up to in a gap.
    pub fn note(&self, record: Record) {
        self.shared.note(record);
    }

    /// Writes and flushes all that is queued, then nothing any more. Close after the last call has ended.
    ///
    /// # Errors
    /// [`AuditUnavailable`] if records were left over, or the sink did not answer in time.
    pub async fn close(&self) -> Result<(), AuditUnavailable> {
        let mut ended = self.shared.ended.subscribe();
        self.shared.begin_close();
        let wait = self.shared.write_wait_max;
        match tokio::time::timeout(wait, ended.wait_for(|ended| *ended)).await {
            Ok(_) => match &self.shared.lock().failing {
                Some(cause) => Err(AuditUnavailable::Failing(Arc::clone(cause))),
                None => Ok(()),
            },
            Err(_) => Err(AuditUnavailable::Slow(wait)),
        }
    }

    /// For `/readyz` and `/status`.
    pub fn status(&self) -> AuditStatus {
        let inbox = self.shared.lock();
        let mut status = inbox.status.clone();
        status.healthy = self.shared.obstacle(&inbox).is_none();
        status
    }
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.shared.begin_close();
    }
}

impl Receipt {
    /// The intent as it was written; absent after a failure with [`OnFailure::Continue`].
    pub fn intent(&self) -> Option<&Record> {
        self.intent.as_deref()
    }

    /// Says what to record of a call whose flow is dropped while it waits for somebody: the caller left, or it was cut.
    pub fn if_dropped(&mut self, fill: impl FnOnce(&mut Record) + Send + Sync + 'static) {
        self.fill = Some(Box::new(fill));
    }

    fn without_place(shared: &Arc<Shared>, call: Option<Uuid>) -> Self {
        Self {
            shared: Arc::clone(shared),
            reserved: false,
            call,
            intent: None,
            reported: false,
            fallback: ABANDONED,
            fill: None,
        }
    }

    fn report(mut self, mut record: Record) {
        record.event = Event::Outcome;
        record.call = self.call;
        self.reported = true;
        self.shared.outcome(record, self.reserved);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.reported {
            return;
        }
        let intent = self.intent.take();
        let mut record = intent.map_or_else(|| Record::new(Event::Outcome), |intent| *intent);
        record.event = Event::Outcome;
        record.call = self.call;
        record.reason = Some(Text::Fixed(self.fallback));
        if let Some(fill) = self.fill.take() {
            fill(&mut record);
        }
        self.shared.outcome(record, self.reserved);
    }
}

#[cfg(test)]
mod tests;

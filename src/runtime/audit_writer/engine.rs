//! The writer's thread: drains the queue, seals, writes a batch at once, answers, heals.
//!
//! The only owner of chain and sink. A batch that the sink did not take is rolled back, as if it had never been sealed:
//! its intents are refused, everything else waits for the sink to heal. Timers are plain instants, since this thread is
//! outside the runtime.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::super::audit_file::AuditSink;
use super::queue::{Job, Reply, Shared, receipt};
use super::sealing::Sealer;
use super::{AuditSettings, AuditSync, NOT_FORWARDED, OnFailure};
use crate::domain::audit::chain::Chain;
use crate::domain::audit::{Event, Record};
use crate::domain::clock::Clock;

/// A batch is written once it has grown to this; one record may exceed it.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// With [`AuditSync::Record`]: how long what nobody waits for may lie unflushed.
const RECORD_SYNC_LAG: Duration = Duration::from_millis(20);
/// Between two tries of a failing sink.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Reasons of gaps that the engine records.
const WRITE_FAILED: &str = "write_failed";
const SYNC_FAILED: &str = "sync_failed";
const FILE_REPLACED: &str = "file_replaced";
const QUEUE_FULL: &str = "queue_full";

mod failing;

/// Owns chain and sink.
pub struct Engine {
    shared: Arc<Shared>,
    sink: Box<dyn AuditSink>,
    sealer: Sealer,
    sync: AuditSync,
    sync_interval: Duration,
    /// Taken from the inbox, not yet written, in order.
    pending: VecDeque<Job>,
    /// Being written.
    batch: Vec<Job>,
    failing: Option<Failing>,
    /// Records that found no place since the last gap.
    lost: u64,
    /// When to flush; `None` while everything is flushed.
    sync_at: Option<Instant>,
    check_at: Instant,
    /// The last field, so that the sink and its lock are gone when the end is announced.
    _announce: AnnounceEnd,
}

struct AnnounceEnd(Arc<Shared>);

impl Drop for AnnounceEnd {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

struct Failing {
    reason: &'static str,
    retry_at: Instant,
}

impl Engine {
    /// Ready to run.
    pub fn new(
        shared: Arc<Shared>,
        settings: &AuditSettings,
        sink: Box<dyn AuditSink>,
        chain: Chain,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            _announce: AnnounceEnd(Arc::clone(&shared)),
            shared,
            sink,
            sealer: Sealer::new(chain, clock, settings.checkpoint.clone()),
            sync: settings.sync,
            sync_interval: settings.sync_interval,
            pending: VecDeque::new(),
            batch: Vec::new(),
            failing: None,
            lost: 0,
            sync_at: None,
            check_at: Instant::now(),
        }
    }

    /// Until the writer is closed and everything is written, or cannot be.
    pub fn run(mut self) {
        loop {
            let closing = self.gather();
            if self.failing.is_some() {
                self.answer_failing();
            }
            let due = self
                .failing
                .as_ref()
                .is_none_or(|failing| closing || failing.retry_at <= Instant::now());
            if due {
                self.look_and_write();
            }
            self.sync_if_due();
            let mut inbox = self.shared.lock();
            inbox.busy_since = None;
            if closing && inbox.jobs.is_empty() {
                inbox.closed = true;
                drop(inbox);
                return self.finish();
            }
        }
    }

    fn finish(&mut self) {
        if self.failing.is_none()
            && let Err(cause) = self.checkpoint()
        {
            self.fail(WRITE_FAILED, &cause);
        }
        if let Err(cause) = self.sink.finish(self.sealer.chain()) {
            tracing::error!(%cause, "the audit log could not be flushed at its end");
            self.shared.lock().failing = Some(cause.to_string().into());
        }
    }

    /// Waits for records or a deadline; says whether the writer is closing.
    fn gather(&mut self) -> bool {
        let retry_at = self.failing.as_ref().map(|f| f.retry_at);
        let deadline = next_look(self.sync_at, retry_at, self.sealer.due_at());
        let mut inbox = self.shared.lock();
        while inbox.jobs.is_empty() && !inbox.closing {
            let Some(deadline) = deadline else {
                inbox = self
                    .shared
                    .wake
                    .wait(inbox)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (inbox, _) = self
                .shared
                .wake
                .wait_timeout(inbox, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inbox.busy_since = Some(Instant::now());
        self.lost += std::mem::take(&mut inbox.lost);
        self.pending.extend(inbox.jobs.drain(..));
        inbox.closing
    }

    fn look_and_write(&mut self) {
        let now = Instant::now();
        if self.failing.is_none() && self.check_at <= now && !self.pending.is_empty() {
            self.check_at = now + self.sync_interval;
            self.is_misplaced();
        }
        while !self.pending.is_empty()
            || self.lost > 0
            || self.failing.is_some()
            || self.sealer.is_due()
        {
            self.seal_batch();
            // After a failure the first batch has to prove that the disk is well again. Otherwise only those wait for the
            // disk who must: what nobody waits for is flushed with the next intent, or soon.
            let durable = match self.sync {
                AuditSync::Record => {
                    self.failing.is_some() || self.batch.iter().any(Job::is_waited_for)
                }
                AuditSync::Interval => self.failing.is_some(),
                AuditSync::None => false,
            };
            if let Err(cause) = self.append(durable) {
                if self.failing.is_none() && self.is_misplaced() {
                    self.put_back();
                    continue;
                }
                return self.fail(WRITE_FAILED, &cause);
            }
            self.stand();
            if !self.sink.is_full() {
                continue;
            }
            // A file that is complete ends with a signature over all of it.
            if let Err(cause) = self.checkpoint() {
                return self.fail(WRITE_FAILED, &cause);
            }
            if let Err(cause) = self.sink.rotate(self.sealer.chain()) {
                tracing::error!(%cause, "the audit file could not be rotated; the old one stays in use");
                self.shared.lock().status.last_error = Some(cause.to_string().into());
            }
        }
    }

    /// The batch goes to the sink, whole or not at all.
    fn append(&mut self, durable: bool) -> io::Result<()> {
        if self.sealer.bytes().is_empty() {
            return Ok(());
        }
        let written = self.sink.append(self.sealer.bytes(), durable);
        if written.is_err() {
            self.sealer.rollback();
        }
        written
    }

    /// A batch of one: the checkpoint, if one is owed.
    fn checkpoint(&mut self) -> io::Result<()> {
        self.sealer.begin();
        if self.sealer.checkpoint() {
            self.append(false)?;
            self.stand();
        }
        Ok(())
    }

    /// Seals from the front of `pending` until the batch is full; a gap that is owed comes first.
    fn seal_batch(&mut self) {
        let due = self.sealer.is_due();
        self.sealer.begin();
        if self.failing.is_some() || self.lost > 0 {
            let reason = self.failing.as_ref().map_or(QUEUE_FULL, |f| f.reason);
            let gap = Record::gap(reason, (self.lost > 0).then_some(self.lost));
            self.sealer.seal(&gap);
        }
        while self.sealer.bytes().len() < BATCH_BYTES_MAX
            && let Some(job) = self.pending.pop_front()
        {
            let gone = job.reply.as_ref().is_some_and(Reply::is_closed);
            if gone && self.shared.on_failure == OnFailure::Refuse {
                // Its caller refused the call long ago: there is no intent to record.
                self.shared.lock().places -= job.places();
                continue;
            }
            self.sealer.seal(&job.record);
            self.batch.push(job);
        }
        if due {
            self.sealer.checkpoint();
        }
    }

    /// The batch is in the file: it counts, and its intents may go.
    fn stand(&mut self) {
        let checkpoints = self.sealer.commit();
        let wrote = !self.sealer.bytes().is_empty();
        let lag = match self.sync {
            AuditSync::Record => Some(self.sync_interval.min(RECORD_SYNC_LAG)),
            AuditSync::Interval => Some(self.sync_interval),
            AuditSync::None => None,
        };
        if let Some(lag) = lag.filter(|_| wrote && self.sync_at.is_none()) {
            self.sync_at = Some(Instant::now() + lag);
        }
        let owed = u64::from(self.failing.take().is_some() || self.lost > 0);
        self.lost = 0;
        self.count(owed, checkpoints);
        let mut inbox = self.shared.lock();
        if inbox.failing.take().is_some() {
            tracing::info!("the audit log is written again");
        }
        inbox.places -= self.batch.len();
        inbox.status.seq = self.sealer.head().seq;
        inbox.status.head = self.sealer.head().hash;
        inbox.status.written += self.batch.len() as u64 + owed + checkpoints;
        drop(inbox);
        for job in self.batch.drain(..) {
            let Some(reply) = job.reply else { continue };
            let receipt = receipt(&self.shared, job.record);
            if let Err(Ok(mut unheard)) = reply.send(Ok(receipt)) {
                unheard.fallback = NOT_FORWARDED;
                if self.shared.on_failure == OnFailure::Continue {
                    unheard.forget();
                }
            }
        }
    }

    fn count(&self, gaps: u64, checkpoints: u64) {
        let mut counts = [0; Event::ALL.len()];
        for job in &self.batch {
            if let Some(count) = counts.get_mut(job.record.event as usize) {
                *count += 1;
            }
        }
        for (event, more) in [(Event::Gap, gaps), (Event::Checkpoint, checkpoints)] {
            if let Some(count) = counts.get_mut(event as usize) {
                *count += more;
            }
        }
        for (event, count) in Event::ALL.into_iter().zip(counts) {
            if count > 0 {
                self.shared.metrics.audit_records(event.as_str(), count);
            }
        }
    }

    fn sync_if_due(&mut self) {
        let now = Instant::now();
        if self.sync_at.is_none_or(|at| at > now) {
            return;
        }
        match self.sink.sync() {
            Ok(true) => self.sync_at = None,
            Ok(false) => self.sync_at = Some(now + self.sync_interval),
            Err(cause) => {
                self.sync_at = None;
                self.fail(SYNC_FAILED, &cause);
            }
        }
    }
}

/// When the engine has to wake although nobody calls. What would be written anyhow waits for a sink that fails, lest it be
/// asked for again and again until the next try.
fn next_look(
    sync_at: Option<Instant>,
    retry_at: Option<Instant>,
    due_at: Option<Instant>,
) -> Option<Instant> {
    let due_at = due_at.filter(|_| retry_at.is_none());
    [sync_at, retry_at, due_at].into_iter().flatten().min()
}

impl Drop for Engine {
    /// Also after a panic, where the sink is left alone: nobody may wait for a thread that is gone.
    fn drop(&mut self) {
        let left = self.pending.len() + self.batch.len();
        let mut inbox = self.shared.lock();
        inbox.closed = true;
        let left = left + inbox.jobs.len();
        let jobs = std::mem::take(&mut inbox.jobs);
        if left > 0 {
            tracing::error!(records = left, "audit records could not be written");
        }
        if left > 0 || std::thread::panicking() {
            inbox
                .failing
                .get_or_insert_with(|| "the audit thread ended early".into());
        }
        drop(inbox);
        drop(jobs);
        self.shared.failed(left as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_is_overdue_does_not_spin_while_the_sink_fails() {
        let now = Instant::now();
        let later = now + RETRY_INTERVAL;
        assert_eq!(next_look(None, Some(later), Some(now)), Some(later));
        assert_eq!(next_look(None, None, Some(now)), Some(now));
        assert_eq!(next_look(Some(later), None, None), Some(later));
        assert_eq!(next_look(None, None, None), None);
    }
}

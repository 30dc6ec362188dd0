//! The bounded queue between callers and the engine: who gets a place, and who is refused at once.
//!
//! One mutex, held for a push or a swap. Never held while a receipt is dropped, since that takes it again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::{AuditSettings, AuditStatus, AuditUnavailable, OnFailure, Receipt};
use crate::domain::audit::Record;
use crate::domain::audit::chain::Chain;
use crate::runtime::metrics::Metrics;

/// One part in so many of the queue is kept free of notes, so that a flood of refusals does not stop good calls.
const NOTE_FREE_PART: usize = 4;

/// What callers and engine share.
pub struct Shared {
    /// What waits.
    pub inbox: Mutex<Inbox>,
    /// Rung when the inbox is no longer empty.
    pub wake: Condvar,
    /// Refuse or continue.
    pub on_failure: OnFailure,
    queue_records_max: usize,
    /// The longest wait of an intent.
    pub write_wait_max: Duration,
    /// Counts records and failures.
    pub metrics: Metrics,
    /// Turns true when the engine has gone.
    pub ended: watch::Sender<bool>,
}

/// The queue itself and what callers need to know of the engine.
pub struct Inbox {
    /// Not yet taken by the engine, in order.
    pub jobs: Vec<Job>,
    /// Taken places: records waiting here or in the engine, and outcomes owed.
    pub places: usize,
    /// Records that found no place since the last gap.
    pub lost: u64,
    /// The sink's failure while it lasts.
    pub failing: Option<Arc<str>>,
    /// Since when the engine is with its sink.
    pub busy_since: Option<Instant>,
    /// No new intents and notes.
    pub closing: bool,
    /// Nothing at all any more.
    pub closed: bool,
    /// As of the last batch.
    pub status: AuditStatus,
}

/// Where the answer to an intent goes.
pub type Reply = oneshot::Sender<Result<Receipt, AuditUnavailable>>;

/// One record on its way.
pub struct Job {
    /// To be sealed.
    pub record: Box<Record>,
    /// Who waits, if it is an intent.
    pub reply: Option<Reply>,
}

impl Job {
    /// Whether a call is held up until it is written.
    pub fn is_waited_for(&self) -> bool {
        self.reply.is_some()
    }

    /// The places it takes, with that of the outcome it will bring.
    pub fn places(&self) -> usize {
        1 + usize::from(self.reply.is_some())
    }
}

impl Shared {
    /// Empty and open.
    pub fn new(settings: &AuditSettings, chain: &Chain, metrics: Metrics) -> Self {
        Self {
            inbox: Mutex::new(Inbox {
                jobs: Vec::new(),
                places: 0,
                lost: 0,
                failing: None,
                busy_since: None,
                closing: false,
                closed: false,
                status: AuditStatus {
                    healthy: true,
                    last_error: None,
                    seq: chain.head().seq,
                    head: chain.head().hash,
                    written: 0,
                    failed: 0,
                    key: settings.checkpoint.as_ref().map(|c| c.key.public()),
                },
            }),
            wake: Condvar::new(),
            on_failure: settings.on_failure,
            queue_records_max: settings.queue_records_max.max(8),
            write_wait_max: settings.write_wait_max,
            metrics,
            ended: watch::Sender::new(false),
        }
    }

    /// A panic elsewhere leaves the inbox consistent: every change to it is complete before anything can fail.
    pub fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why an intent would be refused at once.
    pub fn obstacle(&self, inbox: &Inbox) -> Option<AuditUnavailable> {
        if inbox.closing || inbox.closed {
            Some(AuditUnavailable::Closed)
        } else if let Some(cause) = &inbox.failing {
            Some(AuditUnavailable::Failing(Arc::clone(cause)))
        } else if inbox
            .busy_since
            .is_some_and(|since| since.elapsed() > self.write_wait_max)
        {
            Some(AuditUnavailable::Slow(self.write_wait_max))
        } else {
            (inbox.places + 2 > self.queue_records_max).then_some(AuditUnavailable::Full)
        }
    }

    /// Takes two places, or says why not.
    pub fn enqueue_intent(&self, record: Record, reply: Reply) -> Result<(), AuditUnavailable> {
        let record = Box::new(record);
        let mut inbox = self.lock();
        match self.obstacle(&inbox) {
            None => {}
            // With `continue` the record waits for the sink to heal, as long as there are places.
            Some(AuditUnavailable::Failing(_))
                if self.on_failure == OnFailure::Continue
                    && inbox.places + 2 <= self.queue_records_max => {}
            Some(refusal) => {
                inbox.lost += u64::from(self.on_failure == OnFailure::Continue);
                return Err(refusal);
            }
        }
        inbox.places += 2;
        self.push(
            inbox,
            Job {
                record,
                reply: Some(reply),
            },
        );
        Ok(())
    }

    /// Takes no place: the receipt holds one, unless `reserved` is false.
    pub fn outcome(&self, record: Record, reserved: bool) {
        if !reserved {
            return self.note(record);
        }
        let record = Box::new(record);
        let inbox = self.lock();
        if inbox.closed {
            drop(inbox);
            return self.failed(1);
        }
        self.push(
            inbox,
            Job {
                record,
                reply: None,
            },
        );
    }

    /// Takes one place of those that notes may have, or counts the record as lost.
    pub fn note(&self, record: Record) {
        let limit = self.queue_records_max - self.queue_records_max / NOTE_FREE_PART;
        let record = Box::new(record);
        let mut inbox = self.lock();
        if inbox.closed || inbox.closing || inbox.places >= limit {
            inbox.lost += 1;
            drop(inbox);
            return self.failed(1);
        }
        inbox.places += 1;
        self.push(
            inbox,
            Job {
                record,
                reply: None,
            },
        );
    }

    /// Wakes the engine only where it may be asleep: a futex call per record would cost more than the record.
    fn push(&self, mut inbox: MutexGuard<'_, Inbox>, job: Job) {
        let first = inbox.jobs.is_empty();
        inbox.jobs.push(job);
        drop(inbox);
        if first {
            self.wake.notify_one();
        }
    }

    /// So many records could not be written.
    pub fn failed(&self, records: u64) {
        self.lock().status.failed += records;
        (0..records).for_each(|_| self.metrics.audit_failure());
    }

    /// Lets the engine finish what is queued and end.
    pub fn begin_close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }
}

/// The proof that an intent is in the log.
pub fn receipt(shared: &Arc<Shared>, intent: Box<Record>) -> Receipt {
    Receipt {
        shared: Arc::clone(shared),
        reserved: true,
        call: intent.call,
        intent: Some(intent),
        reported: false,
        fallback: super::ABANDONED,
        fill: None,
    }
}

impl Receipt {
    /// Its caller went on without it and will report by itself: only the place is given back.
    pub(super) fn forget(mut self) {
        self.reported = true;
        if self.reserved {
            self.shared.lock().places -= 1;
        }
    }
}

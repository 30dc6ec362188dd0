//! From records to the bytes of one batch: sealed in order, with a checkpoint where one is due.
//!
//! Owns chain and buffer. Nothing is final before `commit`; after `rollback` nothing of the batch ever was. Knows neither
//! queue nor sink.

use std::sync::Arc;
use std::time::Instant;

use super::CheckpointSettings;
use crate::domain::audit::Record;
use crate::domain::audit::chain::{Chain, Link};
use crate::domain::clock::Clock;

/// Chain, buffer, and when the next checkpoint is due.
pub struct Sealer {
    chain: Chain,
    clock: Arc<dyn Clock>,
    buffer: Vec<u8>,
    checkpoint: Option<CheckpointSettings>,
    /// The last checkpoint that stands.
    signed_to: u64,
    /// The checkpoints of this batch, and the last of them.
    signing: (u64, u64),
    /// When the records behind the last checkpoint have waited long enough.
    due_at: Option<Instant>,
}

impl Sealer {
    /// Carries on `chain`.
    pub fn new(
        chain: Chain,
        clock: Arc<dyn Clock>,
        checkpoint: Option<CheckpointSettings>,
    ) -> Self {
        Self {
            signed_to: chain.head().seq,
            chain,
            clock,
            buffer: Vec::with_capacity(64 * 1024),
            checkpoint,
            signing: (0, 0),
            due_at: None,
        }
    }

    /// The chain as it stands.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The last record.
    pub fn head(&self) -> Link {
        self.chain.head()
    }

    /// The batch so far.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// When a checkpoint is due although nothing else is to be written.
    pub fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Whether that time has come.
    pub fn is_due(&self) -> bool {
        self.due_at.is_some_and(|at| at <= Instant::now())
    }

    /// Begins a batch.
    pub fn begin(&mut self) {
        self.buffer.clear();
        self.signing = (0, self.signed_to);
    }

    /// Seals a record, and a checkpoint behind it if that many have gone by.
    pub fn seal(&mut self, record: &Record) {
        self.chain.seal(record, self.clock.now(), &mut self.buffer);
        let since = self.chain.head().seq - self.signing.1;
        if self.checkpoint.as_ref().is_some_and(|c| since >= c.records) {
            self.checkpoint();
        }
    }

    /// Seals a checkpoint, unless nothing has come since the last one. Says whether it did.
    pub fn checkpoint(&mut self) -> bool {
        let Some(settings) = &self.checkpoint else {
            return false;
        };
        if self.chain.head().seq <= self.signing.1 {
            return false;
        }
        let now = self.clock.now();
        self.chain.checkpoint(&settings.key, now, &mut self.buffer);
        self.signing = (self.signing.0 + 1, self.chain.head().seq);
        true
    }

    /// The batch is written: it stands. Gives the number of checkpoints in it.
    pub fn commit(&mut self) -> u64 {
        self.chain.commit();
        let (checkpoints, signed_to) = self.signing;
        self.signed_to = signed_to;
        self.signing = (0, signed_to);
        self.due_at = match &self.checkpoint {
            Some(settings) if self.chain.head().seq > signed_to => {
                let due = self.due_at.filter(|_| checkpoints == 0);
                due.or_else(|| Instant::now().checked_add(settings.interval))
            }
            Some(_) | None => None,
        };
        checkpoints
    }

    /// The batch was not written: it never was.
    pub fn rollback(&mut self) {
        self.chain.rollback();
        self.signing = (0, self.signed_to);
        self.buffer.clear();
    }
}

//! What the engine does while its sink fails: intents are refused or go on, everything else waits.
//!
//! `engine.rs` tries again and heals.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::super::queue::receipt;
use super::super::{AuditUnavailable, OnFailure};
use super::{Engine, FILE_REPLACED, Failing, RETRY_INTERVAL};

impl Engine {
    /// Whether readers would not find what is written. Calls need not suffer: the next append begins a new file, with a gap
    /// that says so.
    pub(super) fn is_misplaced(&mut self) -> bool {
        let Err(cause) = self.sink.check() else {
            return false;
        };
        tracing::error!(%cause, "the audit file is not where it was");
        self.failing = Some(Failing {
            reason: FILE_REPLACED,
            retry_at: Instant::now(),
        });
        true
    }

    /// The batch waits again, in its place.
    pub(super) fn put_back(&mut self) {
        for job in self.batch.drain(..).rev() {
            self.pending.push_front(job);
        }
    }

    pub(super) fn fail(&mut self, reason: &'static str, cause: &io::Error) {
        let text: Arc<str> = cause.to_string().into();
        let first = self.failing.is_none();
        // The first reason is the one to record.
        let reason = self.failing.as_ref().map_or(reason, |f| f.reason);
        self.failing = Some(Failing {
            reason,
            retry_at: Instant::now() + RETRY_INTERVAL,
        });
        self.put_back();
        let mut inbox = self.shared.lock();
        inbox.failing = Some(Arc::clone(&text));
        inbox.status.last_error = Some(text);
        drop(inbox);
        if first {
            tracing::error!(%cause, reason, "the audit log cannot be written");
        }
        self.answer_failing();
    }

    /// Nobody waits for a sink that fails: intents are refused, or go on with their record waiting.
    pub(super) fn answer_failing(&mut self) {
        let Some(text) = self.shared.lock().failing.clone() else {
            return;
        };
        let mut freed = 0;
        let shared = &self.shared;
        self.pending.retain_mut(|job| {
            let places = job.places();
            let Some(reply) = job.reply.take() else {
                return true;
            };
            match shared.on_failure {
                OnFailure::Refuse => {
                    freed += places;
                    // A caller that has gone needs no answer.
                    let _ = reply.send(Err(AuditUnavailable::Failing(Arc::clone(&text))));
                    false
                }
                OnFailure::Continue => {
                    let receipt = receipt(shared, job.record.clone());
                    if let Err(Ok(unheard)) = reply.send(Ok(receipt)) {
                        unheard.forget();
                    }
                    true
                }
            }
        });
        self.shared.lock().places -= freed;
    }
}

//! Who signed what: the keys that the checkpoints name, against those that the reader trusts.
//!
//! Knows nothing of places; `verify.rs` asks it at each checkpoint.

use super::super::checkpoint::{Checkpoint, PublicKey};
use super::super::line::Sealed;
use super::BreakKind;
use super::report::KeyUse;

/// Keys that are listed; a log whose sidecar makes a key at each start names many.
const KEYS_LISTED_MAX: usize = 10_000;

/// The checkpoints so far.
#[derive(Debug, Default)]
pub struct Seals {
    pins: Vec<PublicKey>,
    keys: Vec<KeyUse>,
    signed_to: u64,
}

impl Seals {
    /// Trusts only these keys; none means any.
    pub fn pin(&mut self, keys: Vec<PublicKey>) {
        self.pins = keys;
    }

    /// Whether a log without a checkpoint is not enough.
    pub fn is_missing(&self) -> bool {
        !self.pins.is_empty() && self.keys.is_empty()
    }

    /// What is wrong with a checkpoint, if something is.
    pub fn check(
        &mut self,
        sealed: &Sealed<'_>,
        checkpoint: &Checkpoint,
    ) -> Result<(), (BreakKind, &'static str)> {
        let before = checkpoint.head;
        if before.seq + 1 != sealed.link.seq || before.hash != sealed.prev {
            let detail = "the checkpoint was signed for another place of the log";
            return Err((BreakKind::Signature, detail));
        }
        if !checkpoint.is_signed() {
            let detail = "the checkpoint's signature is wrong: what is before it was rewritten";
            return Err((BreakKind::Signature, detail));
        }
        let pinned = self.pins.contains(&checkpoint.key);
        self.note(sealed.link.seq, checkpoint.key, pinned);
        if !self.pins.is_empty() && !pinned {
            return Err((
                BreakKind::Key,
                "the checkpoint is signed by a key that is not pinned",
            ));
        }
        self.signed_to = sealed.link.seq;
        Ok(())
    }

    /// Who signed, and up to where.
    pub fn finish(self) -> (Vec<KeyUse>, u64) {
        (self.keys, self.signed_to)
    }

    fn note(&mut self, seq: u64, key: PublicKey, pinned: bool) {
        // The newest is nearly always meant.
        if let Some(known) = self.keys.iter_mut().rev().find(|known| known.key == key) {
            known.checkpoints += 1;
            known.seqs.1 = seq;
        } else if self.keys.len() < KEYS_LISTED_MAX {
            self.keys.push(KeyUse {
                key,
                checkpoints: 1,
                seqs: (seq, seq),
                pinned,
            });
        }
    }
}

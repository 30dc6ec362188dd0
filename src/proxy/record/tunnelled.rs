//! The record of a tunnel that nobody looks into: allowed as nobody, one intent, one outcome with the bytes of both ways.
//!
//! `record.rs` writes what it says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;

use crate::domain::audit::{Decision, Identity};
use crate::runtime::audit_writer::Receipt;
use crate::runtime::tunnel::{Counts, Ended};

use super::RequestRecord;

/// A record on the back of a tunnel; dropped, it says that it was cut off.
pub struct Tunnelled {
    record: RequestRecord,
    counts: Counts,
}

impl RequestRecord {
    /// Notes that a tunnel is allowed: no identity is used and no token was asked for.
    pub fn permits_tunnel(&mut self) {
        self.base.decision = Some(Decision::Allow);
        self.base.identity = Some(Identity::None);
    }

    /// The far side is there: from here on the tunnel carries the record to its end.
    pub fn tunnelled(mut self, receipt: Receipt) -> Tunnelled {
        self.receipt = Some(receipt);
        self.status = StatusCode::OK.as_u16();
        self.base.status = Some(self.status);
        self.own_share();
        let counts = Counts {
            sent: Arc::clone(&self.sent),
            received: Arc::default(),
        };
        Tunnelled {
            record: self,
            counts,
        }
    }
}

impl Tunnelled {
    /// The counters of its bytes.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Writes the outcome.
    pub fn ended(mut self, ended: Ended) {
        self.record.received = self.counts.received.load(Ordering::Relaxed);
        self.record.close(match ended {
            Ended::Closed => None,
            Ended::Broken => Some("truncated"),
            Ended::Idle => Some("idle"),
            Ended::Stopped => Some("cut_off"),
        });
    }
}

impl Drop for Tunnelled {
    fn drop(&mut self) {
        self.record.received = self.counts.received.load(Ordering::Relaxed);
    }
}

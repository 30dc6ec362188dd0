//! The metrics of shipping the audit log: PRODUCT 7, off the box.
//!
//! Labels are constants. `runtime/shipper.rs` counts.

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::register::{counter_vec, register};

/// How a try to ship a file ends.
const RESULTS: [&str; 4] = ["shipped", "present", "failed", "dropped"];

/// The handles.
pub struct Shipping {
    segments: IntCounterVec,
    lag: IntGauge,
    pending: IntGauge,
}

impl Shipping {
    pub(super) fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        let segments = counter_vec(
            r,
            "valetkey_audit_ship_segments_total",
            "Audit files shipped, found in the volume, failed to ship (each try), or removed unshipped.",
            &["result"],
        )?;
        let gauge = |name, help| register(r, IntGauge::new(name, help)?);
        Ok(Self {
            segments,
            lag: gauge(
                "valetkey_audit_ship_lag_seconds",
                "Age of the last record of the oldest closed audit file that is not in the volume.",
            )?,
            pending: gauge(
                "valetkey_audit_ship_pending_segments",
                "Closed audit files that are not in the volume.",
            )?,
        })
    }

    /// Every result is there from the start, so that a rate over it is one from the first on.
    pub fn expect_all(&self) {
        for result in RESULTS {
            self.segments.with_label_values(&[result]);
        }
    }

    /// `shipped`, `present`, `failed` or `dropped`.
    pub fn segment(&self, result: &'static str) {
        self.segments.with_label_values(&[result]).inc();
    }

    /// So many files wait, and the oldest of them so long.
    pub fn waiting(&self, files: usize, lag_seconds: u64) {
        self.pending.set(i64::try_from(files).unwrap_or(i64::MAX));
        self.lag.set(i64::try_from(lag_seconds).unwrap_or(i64::MAX));
    }
}

//! What the audit log's copies tell: how far the volume is behind, and what went wrong.
//!
//! The log itself is counted in `metrics.rs`.

use prometheus::{IntCounter, IntGauge, Registry};

use super::Metrics;
use super::register::register;

/// The handles of `audit.ship`; all zero without it.
pub(super) struct AuditShip {
    pub(super) shipped: IntCounter,
    pub(super) failures: IntCounter,
    pub(super) waiting: IntGauge,
    pub(super) lag: IntGauge,
}

impl AuditShip {
    pub(super) fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| register(r, IntCounter::new(name, help)?);
        let gauge = |name, help| register(r, IntGauge::new(name, help)?);
        Ok(Self {
            shipped: counter(
                "valetkey_audit_shipped_total",
                "Segments of the audit log put on the volume.",
            )?,
            failures: counter(
                "valetkey_audit_ship_failures_total",
                "Failed tries to put a segment of the audit log on the volume.",
            )?,
            waiting: gauge(
                "valetkey_audit_ship_waiting",
                "Closed segments of the audit log that are not on the volume yet.",
            )?,
            lag: gauge(
                "valetkey_audit_ship_lag_seconds",
                "Age of the oldest of them.",
            )?,
        })
    }
}

impl Metrics {
    /// A segment of the audit log is on the volume.
    pub fn audit_shipped(&self) {
        self.0.audit_ship.shipped.inc();
    }

    /// A segment could not be put there; it will be tried again.
    pub fn audit_ship_failure(&self) {
        self.0.audit_ship.failures.inc();
    }

    /// So many closed segments wait, the oldest for so many seconds.
    pub fn audit_ship_lag(&self, waiting: i64, seconds: i64) {
        self.0.audit_ship.waiting.set(waiting);
        self.0.audit_ship.lag.set(seconds);
    }
}

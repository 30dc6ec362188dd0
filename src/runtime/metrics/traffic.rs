//! The metrics of requests: both sides, the policy's refusals and the workspace's own.
//!
//! Names and labels only; `metrics.rs` has the typed ways to count.

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::register::{counter_vec, histogram_vec, int_gauge_vec};

/// Seconds: from a local answer to the longest that a platform request may take.
const DURATION_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
/// Seconds: the sidecar's own share is far below a millisecond.
const OVERHEAD_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0,
];

/// Requests, both sides.
pub(super) struct Traffic {
    pub(super) requests: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) overhead_inbound: Histogram,
    pub(super) overhead_outbound: Histogram,
    pub(super) inflight: IntGaugeVec,
    pub(super) denials: IntCounterVec,
    pub(super) observed_denials: IntCounterVec,
    pub(super) platform_refusals: IntCounterVec,
}

impl Traffic {
    pub(super) fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        let overhead = histogram_vec(
            r,
            "valetkey_overhead_seconds",
            "The sidecar's own share of a request.",
            &["direction"],
            OVERHEAD_BUCKETS,
        )?;
        Ok(Self {
            requests: counter_vec(
                r,
                "valetkey_requests_total",
                "Requests answered.",
                &["direction", "route", "identity", "decision", "code"],
            )?,
            duration: histogram_vec(
                r,
                "valetkey_request_duration_seconds",
                "From the head of the request to the end of the answer.",
                &["direction", "route"],
                DURATION_BUCKETS,
            )?,
            overhead_inbound: overhead.with_label_values(&["inbound"]),
            overhead_outbound: overhead.with_label_values(&["outbound"]),
            inflight: int_gauge_vec(
                r,
                "valetkey_inflight_requests",
                "Requests being served.",
                &["direction"],
            )?,
            denials: counter_vec(
                r,
                "valetkey_denials_total",
                "Refusals by reason.",
                &["reason"],
            )?,
            observed_denials: counter_vec(
                r,
                "valetkey_observed_denials_total",
                "Calls that the policy would have refused, were it not merely observed",
                &["route", "reason"],
            )?,
            platform_refusals: counter_vec(
                r,
                "valetkey_platform_refusals_total",
                "Refusals by the workspace itself, by the plane that lacks something.",
                &["plane"],
            )?,
        })
    }
}

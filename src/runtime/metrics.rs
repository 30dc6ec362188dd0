//! Prometheus metrics, typed: every label value comes from an enum, a constant or the name of a route (PRODUCT 8).
//!
//! No label ever holds a user, a path or a token. The registry is private, so that the library could be swapped here alone.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use self::process::Process;
use self::register::{counter_vec, gauge_vec, int_gauge_vec, register};
use self::traffic::Traffic;

mod process;
mod register;
mod traffic;

/// Which side of the sidecar a request came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the front door to the agent.
    Inbound,
    /// From the agent to the workspace.
    Outbound,
}

impl Direction {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// All handles. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Handles>);

struct Handles {
    registry: Registry,
    traffic: Traffic,
    tokens: Tokens,
    audit_records: IntCounterVec,
    audit_failures: IntCounter,
    audit_copy_lost: IntCounter,
    policy_reloads: IntCounterVec,
    policy_starter: IntGauge,
    panics: IntCounter,
    process: Process,
}

/// User tokens, keys, credentials, sessions.
struct Tokens {
    verifications: IntCounterVec,
    jwks_fetches: IntCounterVec,
    credential_fetches: IntCounterVec,
    credential_expiry: GaugeVec,
    sessions: IntGauge,
    sessions_opened: IntCounter,
}

/// What a finished request counts as.
#[derive(Debug, Clone, Copy)]
pub struct RequestLabels<'a> {
    /// Which side.
    pub direction: Direction,
    /// The route's name, `none` without one.
    pub route: &'a str,
    /// `app`, `user` or `none`.
    pub identity: &'static str,
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// The status as answered.
    pub code: u16,
}

impl Metrics {
    /// A fresh registry with every metric of PRODUCT 8 in it.
    ///
    /// # Errors
    /// Only if two metrics had one name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(None, None)?;
        let r = &registry;
        let build = int_gauge_vec(
            r,
            "valetkey_build_info",
            "Constant 1, labelled with the version.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let handles = Handles {
            traffic: Traffic::register(r)?,
            tokens: Tokens::register(r)?,
            audit_records: counter_vec(
                r,
                "valetkey_audit_records_total",
                "Audit records written.",
                &["event"],
            )?,
            audit_copy_lost: register(
                &registry,
                IntCounter::new(
                    "valetkey_audit_copy_lost_total",
                    "Audit records missing on standard output, not in the file.",
                )?,
            )?,
            audit_failures: register(
                r,
                IntCounter::new(
                    "valetkey_audit_failures_total",
                    "Audit records that could not be written.",
                )?,
            )?,
            policy_reloads: counter_vec(
                r,
                "valetkey_policy_reloads_total",
                "Policy loads after the start.",
                &["result"],
            )?,
            policy_starter: register(
                r,
                IntGauge::new(
                    "valetkey_policy_starter",
                    "1 while the built-in starter policy is in force.",
                )?,
            )?,
            panics: register(
                r,
                IntCounter::new("valetkey_panics_total", "Panics caught in a request.")?,
            )?,
            process: Process::register(r)?,
            registry,
        };
        // There from the start, so that a rate over them is one from the first reload on.
        for result in ["ok", "refused"] {
            handles.policy_reloads.with_label_values(&[result]);
        }
        Ok(Self(Arc::new(handles)))
    }

    /// A request ended: one count and one duration.
    pub fn request(&self, labels: RequestLabels<'_>, duration: Duration) {
        let direction = labels.direction.as_str();
        let mut digits = [0u8; 3];
        let code = status_text(labels.code, &mut digits);
        self.0
            .traffic
            .requests
            .with_label_values(&[
                direction,
                labels.route,
                labels.identity,
                labels.decision,
                code,
            ])
            .inc();
        self.0
            .traffic
            .duration
            .with_label_values(&[direction, labels.route])
            .observe(duration.as_secs_f64());
    }

    /// The time spent in the sidecar itself, waiting for neither peer.
    pub fn overhead(&self, direction: Direction, own: Duration) {
        match direction {
            Direction::Inbound => self.0.traffic.overhead_inbound.observe(own.as_secs_f64()),
            Direction::Outbound => self.0.traffic.overhead_outbound.observe(own.as_secs_f64()),
        }
    }

    /// The gauge of requests in flight on one side.
    pub fn inflight(&self, direction: Direction) -> IntGauge {
        self.0
            .traffic
            .inflight
            .with_label_values(&[direction.as_str()])
    }

    /// A refusal; `reason` is one of the closed list in `proxy/error.rs` and `domain/policy.rs`.
    pub fn denial(&self, reason: &'static str) {
        self.0.traffic.denials.with_label_values(&[reason]).inc();
    }

    /// A call that an observed policy let through; `route` is that of the policy, or the word for none.
    pub fn observed_denial(&self, route: &str, reason: &'static str) {
        self.0
            .traffic
            .observed_denials
            .with_label_values(&[route, reason])
            .inc();
    }

    /// The workspace itself refused a call that the policy allows; `plane` is the word of a `domain::missing::Plane`.
    pub fn platform_refusal(&self, plane: &'static str) {
        self.0
            .traffic
            .platform_refusals
            .with_label_values(&[plane])
            .inc();
    }

    /// A token was verified (`ok`, `cached`) or refused (the code of a `TokenFault`).
    pub fn verification(&self, result: &'static str) {
        self.0
            .tokens
            .verifications
            .with_label_values(&[result])
            .inc();
    }

    /// The key set was fetched: `ok` or a failure code.
    pub fn jwks_fetch(&self, result: &'static str) {
        self.0
            .tokens
            .jwks_fetches
            .with_label_values(&[result])
            .inc();
    }

    /// The token endpoint was asked: kind `app` or `exchange`, result `ok` or a failure code.
    pub fn credential_fetch(&self, kind: &'static str, result: &'static str) {
        self.0
            .tokens
            .credential_fetches
            .with_label_values(&[kind, result])
            .inc();
    }

    /// When the newest credential of a kind ends, in seconds since the epoch.
    pub fn credential_expiry(&self, kind: &'static str, at: f64) {
        self.0
            .tokens
            .credential_expiry
            .with_label_values(&[kind])
            .set(at);
    }

    /// The number of live sessions.
    pub fn sessions(&self, live: usize) {
        self.0
            .tokens
            .sessions
            .set(i64::try_from(live).unwrap_or(i64::MAX));
    }

    /// A session was opened.
    pub fn session_opened(&self) {
        self.0.tokens.sessions_opened.inc();
    }

    /// A record of this event was written.
    pub fn audit_record(&self, event: &'static str) {
        self.0.audit_records.with_label_values(&[event]).inc();
    }

    /// So many records of this event were written at once.
    pub fn audit_records(&self, event: &'static str, count: u64) {
        self.0
            .audit_records
            .with_label_values(&[event])
            .inc_by(count);
    }

    /// So many records are missing in the copy.
    pub fn audit_copy_lost(&self, records: u64) {
        self.0.audit_copy_lost.inc_by(records);
    }

    /// A record could not be written.
    pub fn audit_failure(&self) {
        self.0.audit_failures.inc();
    }

    /// The policy was reloaded: `ok` or `refused`.
    pub fn policy_reload(&self, result: &'static str) {
        self.0.policy_reloads.with_label_values(&[result]).inc();
    }

    /// Whether the built-in starter policy is in force.
    pub fn policy_starter(&self, in_force: bool) {
        self.0.policy_starter.set(i64::from(in_force));
    }

    /// A panic was caught.
    pub fn panic(&self) {
        self.0.panics.inc();
    }

    /// The text exposition, with the process family read afresh.
    pub fn render(&self) -> String {
        self.0.process.refresh();
        let mut text = String::new();
        // Writing into a String fails only for a metric without a name, which the registry refuses.
        let _ = TextEncoder::new().encode_utf8(&self.0.registry.gather(), &mut text);
        text
    }
}

impl Tokens {
    fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            verifications: counter_vec(
                r,
                "valetkey_token_verifications_total",
                "User tokens verified or refused.",
                &["result"],
            )?,
            jwks_fetches: counter_vec(
                r,
                "valetkey_jwks_fetches_total",
                "Fetches of the issuer's keys.",
                &["result"],
            )?,
            credential_fetches: counter_vec(
                r,
                "valetkey_credential_fetches_total",
                "Calls to the token endpoint.",
                &["kind", "result"],
            )?,
            credential_expiry: gauge_vec(
                r,
                "valetkey_credential_expiry_timestamp_seconds",
                "When the newest credential of a kind ends, Unix time.",
                &["kind"],
            )?,
            sessions: register(r, IntGauge::new("valetkey_sessions", "Live sessions.")?)?,
            sessions_opened: register(
                r,
                IntCounter::new("valetkey_sessions_opened_total", "Sessions opened.")?,
            )?,
        })
    }
}

/// Three digits without an allocation.
fn status_text(code: u16, digits: &mut [u8; 3]) -> &str {
    let code = code.clamp(100, 999);
    for (digit, divisor) in digits.iter_mut().zip([100, 10, 1]) {
        *digit = b'0' + u8::try_from(code / divisor % 10).unwrap_or_default();
    }
    std::str::from_utf8(digits).unwrap_or("000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_contract_is_exported() {
        let metrics = Metrics::new().unwrap();
        let labels = RequestLabels {
            direction: Direction::Outbound,
            route: "r",
            identity: "app",
            decision: "allow",
            code: 200,
        };
        metrics.request(labels, Duration::from_millis(3));
        metrics.overhead(Direction::Inbound, Duration::from_micros(80));
        metrics.inflight(Direction::Inbound).inc();
        metrics.denial("no_route");
        metrics.platform_refusal("declared");
        metrics.verification("ok");
        metrics.jwks_fetch("ok");
        metrics.credential_fetch("app", "ok");
        metrics.credential_expiry("app", 1.0);
        metrics.session_opened();
        metrics.sessions(3);
        metrics.audit_record("intent");
        metrics.policy_reload("ok");
        let text = metrics.render();
        for name in [
            "valetkey_requests_total{code=\"200\",decision=\"allow\",direction=\"outbound\",identity=\"app\",route=\"r\"} 1",
            "valetkey_request_duration_seconds_bucket{direction=\"outbound\",route=\"r\"",
            "valetkey_overhead_seconds_bucket{direction=\"inbound\"",
            "valetkey_inflight_requests{direction=\"inbound\"} 1",
            "valetkey_denials_total{reason=\"no_route\"} 1",
            "valetkey_platform_refusals_total{plane=\"declared\"} 1",
            "valetkey_token_verifications_total{result=\"ok\"} 1",
            "valetkey_jwks_fetches_total{result=\"ok\"} 1",
            "valetkey_credential_fetches_total{kind=\"app\",result=\"ok\"} 1",
            "valetkey_credential_expiry_timestamp_seconds{kind=\"app\"} 1",
            "valetkey_sessions 3",
            "valetkey_sessions_opened_total 1",
            "valetkey_audit_records_total{event=\"intent\"} 1",
            "valetkey_audit_failures_total 0",
            "valetkey_policy_reloads_total{result=\"ok\"} 1",
            "valetkey_build_info{version=",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_cpu_seconds_total",
            "process_start_time_seconds",
        ] {
            assert!(text.contains(name), "{name} is missing in:\n{text}");
        }
    }

    #[test]
    fn status_labels_are_three_digits() {
        let mut digits = [0u8; 3];
        assert_eq!(status_text(200, &mut digits), "200");
        assert_eq!(status_text(504, &mut digits), "504");
    }
}

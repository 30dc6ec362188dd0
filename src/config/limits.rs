//! Every limit a user may set: its name with its unit, its default and its bounds.
//!
//! `raw.rs` says in words what each one means, and a test holds the two together. Read `sections.rs` next.

use std::time::Duration;

use super::check::Checker;
use super::raw::RawLimits;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The limits in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request line and headers together.
    pub request_head_bytes: usize,
    /// Header lines of one request.
    pub request_headers: usize,
    /// Path and query of one request.
    pub request_target_bytes: usize,
    /// Time for the whole head to arrive.
    pub request_head_time: Duration,
    /// Largest body that is read because the decision depends on it.
    pub inspected_body_bytes: usize,
    /// Open connections of one listener.
    pub connections: usize,
    /// Requests in flight of one listener.
    pub requests: usize,
    /// CONNECT tunnels at a time.
    pub tunnels: usize,
    /// How long nothing may move in a tunnel that nobody looks into.
    pub tunnel_idle_time: Duration,
    /// Time to connect to workspace or agent.
    pub connect_time: Duration,
    /// Time from the last piece of a request until the far side's answer begins.
    pub response_head_time: Duration,
    /// How long an unused connection stays open.
    pub idle_connection_time: Duration,
    /// Time for requests in flight to end at shutdown.
    pub drain_time: Duration,
    /// After so long without an agent that accepts connections the log says that it is late.
    pub agent_start_time: Duration,
}

impl Limits {
    /// Checks what the file says.
    pub(super) fn check(raw: &RawLimits, c: &mut Checker<'_>) -> Self {
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let head = c.size(&raw.request_head_bytes, 64 * KIB, 32 * KIB..=64 * KIB);
        let target = c.size(&raw.request_target_bytes, 8 * KIB, KIB..=32 * KIB);
        let body = c.size(&raw.inspected_body_bytes, 16 * MIB, 64 * KIB..=256 * MIB);
        let answer = secs(1)..=secs(3600);
        Self {
            request_head_bytes: bytes(head),
            request_headers: c.count(&raw.request_headers, 100, 20..=200),
            request_target_bytes: bytes(target),
            request_head_time: c.duration(&raw.request_head_time, secs(10), secs(1)..=secs(10)),
            inspected_body_bytes: bytes(body),
            connections: c.count(&raw.connections, 1024, 8..=65_536),
            requests: c.count(&raw.requests, 512, 4..=65_536),
            tunnels: c.count(&raw.tunnels, 256, 1..=65_536),
            tunnel_idle_time: c.duration(&raw.tunnel_idle_time, secs(900), secs(10)..=secs(3600)),
            connect_time: c.duration(
                &raw.connect_time,
                secs(5),
                Duration::from_millis(100)..=secs(60),
            ),
            response_head_time: c.duration(&raw.response_head_time, secs(300), answer.clone()),
            idle_connection_time: c.duration(
                &raw.idle_connection_time,
                secs(75),
                secs(1)..=secs(600),
            ),
            drain_time: c.duration(&raw.drain_time, secs(15), secs(0)..=secs(600)),
            agent_start_time: c.duration(&raw.agent_start_time, secs(120), answer),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let env = super::Env::default();
        let mut checker = Checker {
            secret_variables: Vec::new(),
            env: &env,
            problems: Vec::new(),
        };
        Self::check(&RawLimits::default(), &mut checker)
    }
}

//! Wall time, behind a trait so that expiry is tested at the exact second without sleeping.
//!
//! The only file that asks the system for the time of day. Timers use tokio's instant and are never mixed with this.

use std::fmt::Debug;
use std::sync::Mutex;

pub use jiff::{SignedDuration, Timestamp};

/// Tells the time of day.
pub trait Clock: Send + Sync + Debug {
    /// The present moment, UTC.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads wall time"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The moment in a `Date` header (RFC 9110 section 5.6.7), in the form that servers write.
pub fn http_date(text: &str) -> Option<Timestamp> {
    // RFC 2822 dates with the zone that is obsolete there and the only one here.
    let date = text.trim().strip_suffix(" GMT")?;
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(format!("{date} +0000"))
        .ok()
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// Starts at the given moment.
    pub fn at(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Moves forward (or back, with a negative duration).
    pub fn advance(&self, by: SignedDuration) {
        let mut now = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *now = now.saturating_add(by).unwrap_or(*now);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
        clock.advance(SignedDuration::from_secs(5));
        assert_eq!(clock.now().as_second(), 5);
    }

    #[test]
    fn dates_of_servers_are_read_and_others_are_not() {
        let moment = http_date("Sun, 06 Nov 1994 08:49:37 GMT").map(Timestamp::as_second);
        assert_eq!(moment, Some(784_111_777));
        for other in [
            "",
            "GMT",
            "784111777",
            "Sun, 06 Nov 1994 08:49:37 +0100",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(http_date(other), None, "{other}");
        }
    }
}

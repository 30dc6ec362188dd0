//! The policy as a whole: what its routes name must exist, and whether it is enforced or merely observed.
//!
//! Must not know YAML. `routes.rs` checks the shape of each route.

use super::check::Checker;
use super::raw::RawConfig;
use super::words::Mode;
use crate::domain::catalog::Catalog;
use crate::domain::clock::{SignedDuration, Timestamp};
use crate::domain::compile::{Settings, compile};
use crate::domain::route::RouteSource;

/// What the routes name must exist: told together with everything else that is wrong.
pub fn meaning(routes: &[RouteSource], c: &mut Checker<'_>) {
    let compiled =
        Catalog::built_in().and_then(|catalog| compile(routes, catalog, Settings::default()));
    for problem in compiled.err().unwrap_or_default() {
        c.report(problem);
    }
}

/// Until when the policy is merely observed: observing is a weakening, so it always has an end.
pub fn observe_until(raw: &RawConfig, c: &mut Checker<'_>) -> Option<Timestamp> {
    let observes = raw.mode.get() == Some(&Mode::Observe);
    let Some(text) = c.text(&raw.observe_until) else {
        if observes {
            let problem = raw.mode.problem("observing needs an end");
            c.report(problem.hint("add `observe_until:` with a date, such as 2027-01-31"));
        }
        return None;
    };
    // A date means its whole day.
    let day = format!("{text}T00:00:00Z").parse::<Timestamp>();
    let day = day.and_then(|day| day.checked_add(SignedDuration::from_hours(24)));
    let until = text.parse::<Timestamp>().or(day).ok();
    if until.is_none() {
        let problem = raw.observe_until.problem("is neither a date nor a moment");
        c.report(problem.hint("write 2027-01-31 (UTC, that day included) or 2027-01-31T12:00:00Z"));
    } else if !observes {
        let problem = raw.observe_until.problem("stands without `mode: observe`");
        c.report(problem.hint("add `mode: observe`, or remove the key"));
    }
    until.filter(|_| observes)
}

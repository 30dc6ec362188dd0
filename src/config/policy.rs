//! The policy's part of the configuration: own routes, those of the bundle, and until when they are merely observed.
//!
//! Own routes go first, so that they can say otherwise than the bundle; with a bundle and no routes of one's own the
//! bundle's are the policy. `routes.rs` has the shape of a route, `bundle/section.rs` the key `bundle`.

use std::path::Path;

use super::bundle::{Loaded, section};
use super::check::Checker;
use super::raw::{List, RawConfig, RawRoute};
use super::read::Given;
use super::routes;
use super::words::Mode;
use crate::domain::bundle::routes as derive;
use crate::domain::catalog::Catalog;
use crate::domain::clock::{SignedDuration, Timestamp};
use crate::domain::compile::{Settings, compile};
use crate::domain::route::{PolicyOrigin, RouteSource};
use crate::domain::scope::ScopeSet;

/// What is to be compiled.
pub struct PolicyPart {
    /// All routes in their order.
    pub routes: Vec<RouteSource>,
    /// Where they come from.
    pub origin: PolicyOrigin,
    /// The ceiling that the bundle asks for; own `users.scopes` go before it.
    pub ceiling: Option<ScopeSet>,
    /// The bundle.
    pub bundle: Option<Loaded>,
}

/// Checks routes and bundle together.
pub fn check(
    raw: &List<RawRoute>,
    bundle: &Given<section::RawBundle>,
    folder: &Path,
    c: &mut Checker<'_>,
) -> PolicyPart {
    let before = c.problems.len();
    let (routes, origin) = routes::check(raw, c);
    let bundle = section::check(bundle, folder, c);
    let mut part = PolicyPart {
        routes,
        origin,
        ceiling: None,
        bundle,
    };
    if c.problems.len() > before {
        return part;
    }
    let catalog = match Catalog::built_in() {
        Ok(catalog) => catalog,
        Err(mut problems) => {
            c.problems.append(&mut problems);
            return part;
        }
    };
    if let Some(loaded) = &mut part.bundle {
        let own = part.routes.iter().map(|route| route.name.as_str());
        let mut derived = derive::routes(&loaded.declared, &catalog, own);
        loaded.declared.left_out.append(&mut derived.idle);
        part.routes
            .extend(derived.routes.into_iter().map(|derived| derived.route));
        part.ceiling = Some(loaded.declared.ceiling());
        if part.origin == PolicyOrigin::Starter {
            part.origin = PolicyOrigin::Bundle;
        }
    }
    // What the routes name must exist: told together with everything else that is wrong.
    let compiled = compile(&part.routes, catalog, Settings::default());
    for problem in compiled.err().unwrap_or_default() {
        c.report(problem);
    }
    part
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

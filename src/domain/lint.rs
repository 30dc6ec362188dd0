//! What a policy allows or leaves out and probably does not mean: told at start, at a reload and by `check`; never fatal.
//!
//! Knows no file: problems carry the line. `compile.rs` has refused what is a mistake in itself.

use std::collections::HashMap;

use super::catalog::APP;
use super::destination::Upstreams;
use super::policy::{Policy, Route};
use super::problem::Problem;
use super::route::RunAs;

/// What is allowed and probably not meant: told at start, by `check`, and never fatal.
pub fn warnings(policy: &Policy, upstreams: &Upstreams) -> Vec<Problem> {
    let mut seen: HashMap<String, &Route> = HashMap::new();
    let mut found = unreached(policy, upstreams);
    for (index, route) in policy.routes().iter().enumerate() {
        let place = |message: String| {
            Problem::new(format!("routes[{index}] ({})", route.name), message).at(route.line)
        };
        if let Some(earlier) = seen.insert(route.describe(), route) {
            found.push(
                place(format!(
                    "never matches: route `{}` matches the same calls before it",
                    earlier.name
                ))
                .hint("remove one of the two"),
            );
        }
        if may_reach(route) && !upstreams.iter().any(|u| route.on.names(&u.resource())) {
            found.push(
                place("names no upstream, so only the app's description can be asked for".into())
                    .hint("add the app to outbound.upstreams"),
            );
        }
        if route.run_as == RunAs::User
            && route.scope.is_none()
            && let Some(operations) = &route.on.operations
            && operations
                .iter()
                .filter_map(|i| policy.catalog.operations().get(*i))
                .all(|o| !o.user_scope)
        {
            found.push(
                place("runs as the user, but no scope that an app can request covers it".into())
                    .hint("use `as: app`"),
            );
        }
    }
    found
}

/// Upstreams that every call to is denied.
fn unreached(policy: &Policy, upstreams: &Upstreams) -> Vec<Problem> {
    let denied = upstreams.iter().filter(|u| {
        let mut routes = policy.routes().iter();
        !routes.any(|route| may_reach(route) && route.on.names(&u.resource()))
    });
    let warn = |name: &str, app: &str| {
        let message = format!("no route lets anybody reach `{name}`");
        Problem::new("outbound.upstreams", message)
            .hint(format!("add a route with `resource: {APP}/{app}`"))
    };
    denied.map(|u| warn(&u.name, &u.app)).collect()
}

/// Whether the route could let a call to an upstream through.
fn may_reach(route: &Route) -> bool {
    route.run_as != RunAs::Deny && route.on.may_reach_upstream()
}

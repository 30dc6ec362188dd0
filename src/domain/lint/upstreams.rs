//! Routes for other apps against the upstreams that are configured: each needs the other.

use super::problem;
use crate::domain::catalog::APP;
use crate::domain::destination::Upstreams;
use crate::domain::policy::{Policy, Route};
use crate::domain::problem::Problem;
use crate::domain::route::RunAs;

pub(super) fn look(policy: &Policy, upstreams: &Upstreams, found: &mut Vec<Problem>) {
    for upstream in upstreams.iter() {
        let resource = upstream.resource();
        let mut routes = policy.routes().iter();
        if !routes.any(|route| may_reach(route) && route.on.names(&resource)) {
            let message = format!("no route lets anybody reach `{}`", upstream.name);
            let hint = format!("add a route with `resource: {APP}/{}`", upstream.app);
            found.push(Problem::new("outbound.upstreams", message).hint(hint));
        }
    }
    for (index, route) in policy.routes().iter().enumerate() {
        let named = || upstreams.iter().any(|u| route.on.names(&u.resource()));
        if may_reach(route) && !named() {
            let message = "names no upstream, so only the app's description can be asked for";
            found.push(problem(index, route, message).hint("add the app to outbound.upstreams"));
        }
    }
}

/// Whether the route could let a call to an upstream through.
fn may_reach(route: &Route) -> bool {
    route.run_as != RunAs::Deny && route.on.may_reach_upstream()
}

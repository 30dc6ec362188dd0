//! Routes that run as the user, against what users can hold: is there a scope at all, and is it within the ceiling?

use std::collections::{BTreeMap, BTreeSet};

use super::question::questions;
use super::thing::Things;
use super::{listed, problem};
use crate::domain::catalog::Operation;
use crate::domain::policy::{Policy, Route};
use crate::domain::problem::Problem;
use crate::domain::route::RunAs;
use crate::domain::scope::{Scope, ScopeSet};

pub(super) fn look(
    (policy, things): (&Policy, &Things),
    index: usize,
    ceiling: Option<&ScopeSet>,
    found: &mut Vec<Problem>,
) {
    let Some(route) = policy.routes().get(index) else {
        return;
    };
    match route.run_as {
        RunAs::User | RunAs::Caller => {}
        RunAs::App | RunAs::Deny => return,
    }
    let fault = match (&route.scope, ceiling) {
        (Some(scope), Some(ceiling)) => above(route, scope, ceiling),
        (Some(_), None) => None,
        // What other apps ask of users is theirs to say.
        (None, _) if route.on.may_reach_upstream() => None,
        (None, ceiling) => {
            let asked = questions(&route.on, &policy.catalog, things);
            let known = asked.iter().filter_map(|question| question.operation);
            let operations: BTreeMap<usize, &Operation> = known.collect();
            let operations: Vec<&Operation> = operations.into_values().collect();
            of_operations((policy, route), &operations, ceiling)
        }
    };
    found.extend(fault.map(|(message, hint)| problem(index, route, message).hint(hint)));
}

/// What is wrong, and what to do about it.
type Doubt = (String, String);

/// The route says itself which scope it needs.
fn above(route: &Route, scope: &Scope, ceiling: &ScopeSet) -> Option<Doubt> {
    (!ceiling.covers(scope)).then(|| {
        let message = format!("needs the scope `{scope}`, which users.scopes holds back");
        (message, remedy(route, &[scope]))
    })
}

fn of_operations(
    (policy, route): (&Policy, &Route),
    all: &[&Operation],
    ceiling: Option<&ScopeSet>,
) -> Option<Doubt> {
    let (open, closed): (Vec<&Operation>, Vec<_>) = all.iter().copied().partition(|o| o.user_scope);
    if open.is_empty() {
        return none_for_users(route, &closed);
    }
    let Some(ceiling) = ceiling else {
        return some_closed(route, all, &closed);
    };
    let within = |o: &&Operation| o.scopes().any(|scope| ceiling.covers(scope));
    if open.iter().any(within) {
        return some_closed(route, all, &closed);
    }
    // Of several scopes that do, one that an app can request.
    let rows = policy.catalog.scopes();
    let can_have = |scope: &&Scope| rows.iter().any(|row| row.users && row.name == **scope);
    let needed: BTreeSet<&Scope> = { open.iter() }
        .filter_map(|o| o.scopes().find(can_have))
        .collect();
    let needed: Vec<&Scope> = needed.into_iter().collect();
    let names = listed(needed.iter().map(|scope| format!("`{scope}`")));
    let message = format!("needs {names}, which users.scopes holds back");
    Some((message, remedy(route, &needed)))
}

fn remedy(route: &Route, needed: &[&Scope]) -> String {
    let names: Vec<&str> = needed.iter().take(3).map(|scope| scope.as_str()).collect();
    let otherwise = match route.run_as {
        RunAs::Caller => "use `as: app`, since only calls of the app pass now",
        RunAs::User | RunAs::App | RunAs::Deny => {
            "remove the route, since every call is refused now"
        }
    };
    format!(
        "add {} to users.scopes and to the app's user_api_scopes, or {otherwise}",
        names.join(", ")
    )
}

/// `compile.rs` refuses this where the route is `as: user`, unless a bundle implies it.
fn none_for_users(route: &Route, closed: &[&Operation]) -> Option<Doubt> {
    let first = closed.first()?;
    let message = format!(
        "serves no user: an app cannot request `{}` for its users, so only calls of the app pass",
        first.scope
    );
    (route.run_as == RunAs::Caller).then(|| (message, "use `as: app`".to_owned()))
}

/// Only for families: who names a resource means what users can do with it.
fn some_closed(route: &Route, all: &[&Operation], closed: &[&Operation]) -> Option<Doubt> {
    let named = route.run_as == RunAs::User && route.on.operations.is_some();
    let family = named && route.on.resource.is_none() && !closed.is_empty();
    family.then(|| {
        let what = listed(closed.iter().map(|o| o.id.to_string()));
        let message = format!(
            "{} of its {} operations have no scope that an app can request for its users, so they are always refused: {what}",
            closed.len(),
            all.len()
        );
        let hint = "put a route `as: app` for them before it, or name only what users may do";
        (message, hint.to_owned())
    })
}

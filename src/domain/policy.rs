//! The policy and its one decision.
//!
//! `decide` is pure and is the only implementation of matching: the live proxy, `explain`, `check` and the admin listener all
//! call it. The first matching route decides; nothing matches = denied. Knows no headers, clocks or credential values.
//! `compile.rs` makes a [`Policy`]; `ask.rs` reads the call; `policy/denial.rs` has the reasons.

use std::sync::Arc;

use http::Method;

use self::denial::{Denial, DenyReason};
use self::index::Index;
use self::matcher::Matcher;
use super::ask::{Bound, Call, CallerView, FollowUpView, Owner, Partition, Touch};
use super::catalog::{Catalog, Effect, Operation};
use super::clock::Timestamp;
use super::destination::{Destination, Upstream};
use super::path::CanonicalPath;
use super::route::{PolicyOrigin, RunAs};
use super::scope::{Scope, ScopeSet};

pub mod denial;
pub(super) mod index;
pub mod matcher;
pub mod nearest;

/// The identity that a call runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The app's service principal.
    App,
    /// The session's user.
    User,
}

impl Identity {
    /// The word in audit records and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::User => "user",
        }
    }
}

/// Leave to make one call as one identity. Only [`decide`] makes one.
#[derive(Debug)]
pub struct Grant {
    route: Arc<Route>,
    identity: Identity,
    scope: Option<Scope>,
    /// What the things touched take besides.
    further: Vec<Scope>,
    destination: Destination,
    would_deny: Option<DenyReason>,
}

impl Grant {
    /// Where the call may go.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The route that decided.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// As whom the call runs.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The scope the operation needs.
    pub fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref()
    }

    /// All that the call needs, what to ask the token endpoint for; `None` where nobody knows.
    pub fn scopes(&self) -> Option<ScopeSet> {
        let own = self.scope.clone()?;
        Some(ScopeSet::new(self.further.iter().cloned().chain([own])))
    }

    /// Why the call would have been refused, were the policy not merely observed.
    pub fn would_deny(&self) -> Option<DenyReason> {
        self.would_deny
    }
}

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    /// Unique.
    pub name: Arc<str>,
    /// Where it stands in its file; 0 for built-in ones.
    pub line: usize,
    /// As whom matching calls run.
    pub run_as: RunAs,
    /// The scope that replaces the catalogue's.
    pub scope: Option<Scope>,
    pub(super) on: Matcher,
}

/// The routes in force, with the index that finds them.
#[derive(Debug)]
pub struct Policy {
    pub(super) catalog: Arc<Catalog>,
    pub(super) origin: PolicyOrigin,
    pub(super) routes: Vec<Arc<Route>>,
    pub(super) presigned_allowed: bool,
    pub(super) observed: Option<Observed>,
    pub(super) index: Index,
}

/// `mode: observe`: until its date, would-be denials go through as whoever called, and are recorded as such.
#[derive(Debug)]
pub struct Observed {
    /// From then on the policy is enforced.
    pub until: Timestamp,
    /// Stands for calls that no route matches.
    pub(super) route: Arc<Route>,
}

impl Policy {
    /// The catalogue that the policy speaks of.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The routes in their order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Where the policy came from.
    pub fn origin(&self) -> PolicyOrigin {
        self.origin
    }

    /// Until when the policy is merely observed.
    pub fn observed_until(&self) -> Option<Timestamp> {
        self.observed.as_ref().map(|observed| observed.until)
    }

    /// Whether the body of such a request must be read before it can be decided.
    pub fn reads_body(
        &self,
        method: &Method,
        path: &CanonicalPath,
        operation: Option<&Operation>,
    ) -> bool {
        operation.is_some_and(Operation::reads_body) || self.index.reads_body(method, path)
    }

    /// Whether the body of a call to this upstream must be read before it can be decided: some route for its app lists tools.
    pub fn reads_upstream_body(&self, method: &Method, upstream: &Upstream) -> bool {
        *method == Method::POST && { self.index.lists_tools(&self.routes) }
            .any(|route| route.on.names(&upstream.resource()))
    }

    /// The body members that raw routes for this path have conditions on: none of them may come in a second spelling.
    pub fn body_members(&self, path: &CanonicalPath) -> Vec<&str> {
        self.index.body_members(path)
    }

    /// The scopes of which a user needs at least one, so that any user route can serve: empty when no route runs as the user,
    /// and when one lets users in without any.
    pub fn user_scopes(&self) -> ScopeSet {
        let as_user = self
            .routes
            .iter()
            .filter(|r| matches!(r.run_as, RunAs::User | RunAs::Caller));
        // An app lets in whoever has CAN_USE on it, whatever the token may do besides (facts 1.4).
        let mut of_apps = as_user.clone().filter(|r| r.on.may_reach_upstream());
        if of_apps.any(|r| r.scope.is_none()) {
            return ScopeSet::default();
        }
        ScopeSet::new(as_user.flat_map(|route| {
            let own = route.scope.clone();
            let named = self
                .catalog
                .operations()
                .iter()
                .enumerate()
                .filter(|(_, operation)| operation.user_scope)
                .filter(|(index, operation)| route.on.may_touch(*index, operation));
            let inherited: Vec<Scope> = if own.is_some() {
                Vec::new()
            } else {
                named.flat_map(|(_, o)| o.scopes().cloned()).collect()
            };
            own.into_iter().chain(inherited)
        }))
    }

    /// A scope that some call of the first `as: app` route needs: enough to try the app's credential with.
    pub fn first_app_scope(&self) -> Option<Scope> {
        let route = self.routes.iter().find(|r| r.run_as == RunAs::App)?;
        let named = || {
            let mut all = self.catalog.operations().iter().enumerate();
            all.find(|(index, operation)| route.on.may_touch(*index, operation))
                .map(|(_, o)| o.scope.clone())
        };
        // Nobody knows a scope for another app: its calls ask for everything (`runtime/credential.rs`).
        let of_app = || Scope::parse("all-apis").filter(|_| route.on.may_reach_upstream());
        route.scope.clone().or_else(of_app).or_else(named)
    }

    pub(super) fn first(&self, call: &Call<'_>, touch: &Touch<'_>) -> Option<&Arc<Route>> {
        self.index.first(&self.routes, call, touch)
    }

    /// The oracle for tests: tries every route in order.
    #[cfg(test)]
    pub(super) fn first_naive(&self, call: &Call<'_>, touch: &Touch<'_>) -> Option<&Arc<Route>> {
        self.routes
            .iter()
            .find(|route| route.on.matches(call, touch))
    }
}

impl Route {
    /// What the route matches, in the words of the configuration.
    pub fn describe(&self) -> String {
        self.on.describe()
    }

    /// What the route matches.
    pub fn matcher(&self) -> &Matcher {
        &self.on
    }
}

/// A call that touches nothing in particular is still one question.
static NOTHING: [Touch<'static>; 1] = [Touch::NOTHING];

/// Decides one call: who it runs as, or why not. A policy that is merely observed grants what it would refuse to whoever
/// called, and says so in the grant.
///
/// # Errors
/// The [`Denial`]: the default of every path through this function.
pub fn decide(policy: &Policy, call: &Call<'_>) -> Result<Grant, Denial> {
    judge(policy, call).or_else(|denial| observe(policy, call, denial))
}

fn judge(policy: &Policy, call: &Call<'_>) -> Result<Grant, Denial> {
    let plain = |reason| Denial {
        reason,
        route: None,
        scope: None,
    };
    if call.operation.is_none() && call.path.has_delicate() {
        return Err(plain(DenyReason::PathEscape));
    }
    if !policy.presigned_allowed
        && call
            .operation
            .is_some_and(|(_, operation)| operation.hands_out_urls(call.body))
    {
        return Err(plain(DenyReason::Presigned));
    }
    let touches = if call.touches.is_empty() {
        &NOTHING
    } else {
        call.touches
    };
    let mut grant: Option<Grant> = None;
    for touch in touches {
        let route = policy
            .first(call, touch)
            .ok_or_else(|| plain(unmatched(call)))?;
        let one = grant_by(route, call, touch)?;
        match &mut grant {
            Some(earlier) if earlier.identity != one.identity => {
                return Err(Denial {
                    reason: DenyReason::ResourcesDisagree,
                    route: Some(Arc::clone(route)),
                    scope: None,
                });
            }
            Some(earlier) => earlier.further.extend(one.further),
            None => grant = Some(one),
        }
    }
    grant.ok_or_else(|| plain(DenyReason::NoRoute))
}

/// Why no route matches: what a follow-up id stands for decides, and may not be known here.
fn unmatched(call: &Call<'_>) -> DenyReason {
    let follows = call.operation.is_some_and(|(_, o)| o.follows_up());
    if follows && *call.follow_up == FollowUpView::Unknown {
        DenyReason::FollowUpUnknown
    } else {
        DenyReason::NoRoute
    }
}

/// What hands out rights or credentials is never let through merely because the policy is observed.
fn observe(policy: &Policy, call: &Call<'_>, denial: Denial) -> Result<Grant, Denial> {
    let admin = { call.operation }.is_some_and(|(_, o)| o.effect == Effect::Admin);
    match &policy.observed {
        Some(observed) if call.now < observed.until && denial.reason.is_observable() && !admin => {
            Ok(Grant {
                route: denial.route.unwrap_or_else(|| Arc::clone(&observed.route)),
                identity: match call.caller {
                    CallerView::App => Identity::App,
                    CallerView::User { .. } => Identity::User,
                },
                scope: call.operation.map(|(_, o)| o.scope.clone()),
                further: { call.touches.iter() }
                    .filter_map(|touch| touch.scope.cloned())
                    .collect(),
                destination: call.destination.clone(),
                would_deny: Some(denial.reason),
            })
        }
        Some(_) | None => Err(denial),
    }
}

/// What one route says of the call.
fn grant_by(route: &Arc<Route>, call: &Call<'_>, touch: &Touch<'_>) -> Result<Grant, Denial> {
    let deny = |reason, scope: Option<&Scope>| Denial {
        reason,
        route: Some(Arc::clone(route)),
        scope: scope.cloned(),
    };
    let identity = match (route.run_as, call.caller) {
        (RunAs::Deny, _) => return Err(deny(DenyReason::RouteDenies, None)),
        (RunAs::App, _) | (RunAs::Caller, CallerView::App) => Identity::App,
        (RunAs::User | RunAs::Caller, CallerView::User { .. }) => Identity::User,
        (RunAs::User, CallerView::App) => return Err(deny(DenyReason::UserRequired, None)),
    };
    let operation = call.operation.map(|(_, operation)| operation);
    let scope = route
        .scope
        .as_ref()
        .or_else(|| operation.map(|operation| &operation.scope));
    if let (Identity::User, CallerView::User { scopes, .. }) = (identity, call.caller) {
        let held = match (&route.scope, operation) {
            (Some(needed), _) => scopes.covers(needed),
            (None, Some(operation)) => operation.scopes().any(|needed| scopes.covers(needed)),
            // Whether a user may enter an app is for the app to say; scopes are those of the workspace's APIs (facts 1.4).
            (None, None) if *call.destination != Destination::Workspace => true,
            (None, None) => return Err(deny(DenyReason::ScopeUnknown, None)),
        };
        if !held {
            return Err(deny(DenyReason::ScopeMissing, scope));
        }
        if let Some(needed) = touch.scope.filter(|needed| !scopes.covers(needed)) {
            return Err(deny(DenyReason::ScopeMissing, Some(needed)));
        }
    }
    check_follow_up(identity, call).map_err(|reason| deny(reason, None))?;
    if call.partition == Partition::Foreign {
        return Err(deny(DenyReason::PartitionForeign, None));
    }
    Ok(Grant {
        route: Arc::clone(route),
        identity,
        scope: scope.cloned(),
        further: touch.scope.cloned().into_iter().collect(),
        destination: call.destination.clone(),
        would_deny: None,
    })
}

/// A statement or conversation belongs to whoever got its id. Where the call runs as the user the workspace itself checks an
/// id that is not known here; where it runs as the app nobody would.
fn check_follow_up(identity: Identity, call: &Call<'_>) -> Result<(), DenyReason> {
    let rule = { call.operation }.and_then(|(_, operation)| operation.follow_up.as_ref());
    if rule.is_some_and(|follow_up| follow_up.shared) {
        return Ok(());
    }
    match (call.follow_up, identity, call.caller) {
        (FollowUpView::None, _, _) | (FollowUpView::Unknown, Identity::User, _) => Ok(()),
        (FollowUpView::Unknown, Identity::App, _) => Err(DenyReason::FollowUpUnknown),
        (
            FollowUpView::Bound(Bound {
                owner: Owner::App, ..
            }),
            _,
            CallerView::App,
        ) => Ok(()),
        (
            FollowUpView::Bound(Bound {
                owner: Owner::User(owner),
                ..
            }),
            _,
            CallerView::User { subject, .. },
        ) if owner == subject => Ok(()),
        (FollowUpView::Bound(_), _, _) => Err(DenyReason::FollowUpForeign),
    }
}

#[cfg(test)]
mod tests;

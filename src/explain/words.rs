//! The answers of `explain` in words: what decided, what nearly did, and what to write so that it would be otherwise.
//!
//! Knows decisions and no files. Read `explain.rs` first.

use crate::domain::ask::{Call, CallerView, FollowUpView, Touch};
use crate::domain::catalog::{APP, Effect, MCP};
use crate::domain::policy::Route;
use crate::domain::policy::denial::{Denial, DenyReason};
use crate::domain::policy::nearest::Nearest;
use crate::policy_text::scalar;

/// A touched thing with both its names, and the tool that is called.
pub(super) fn touched(touch: &Touch<'_>) -> String {
    let names: Vec<String> = { touch.names() }
        .map(|r| format!("{}/{}", r.kind, r.id))
        .collect();
    let said = touch.message.and_then(|m| m.tool.or(m.method));
    let said = said.map_or_else(String::new, |said| format!(" ({said})"));
    format!("{}{said}", names.join(" = "))
}

pub(super) fn loser(nearest: &Nearest) -> String {
    let Nearest { route, .. } = nearest;
    let what = nearest.differences();
    format!(
        "{} ({}); it would match but for {what}",
        route.name,
        place(route)
    )
}

pub(super) fn place(route: &Route) -> String {
    let line = if route.line == 0 {
        "built in".to_owned()
    } else {
        format!("line {}", route.line)
    };
    format!("{line}: {} as {}", route.describe(), route.run_as.as_str())
}

/// What would have to change, as far as this call tells more than the reason alone.
pub(super) fn denied(call: &Call<'_>, denial: &Denial) -> String {
    let remedy = remedy(denial.reason);
    let admin = call
        .operation
        .is_some_and(|(_, o)| o.effect == Effect::Admin);
    match (denial.reason, call.caller, &denial.scope) {
        (DenyReason::NoRoute, _, _) if admin => {
            "no route matches: what is of admin effect is reached only by the operation's full name".into()
        }
        (DenyReason::NoRoute, _, _) if call.operation.is_none() => {
            "no route matches, and the catalogue does not know the call: only a route with its method and path can".into()
        }
        (DenyReason::ScopeMissing, CallerView::User { scopes, .. }, Some(needed)) => {
            let held = if scopes.is_empty() {
                "nothing".to_owned()
            } else {
                format!("`{scopes}`")
            };
            format!("the call needs the scope `{needed}`, and the session holds {held}: {remedy}")
        }
        (DenyReason::FollowUpUnknown, ..) => {
            format!("{remedy} (here `--bound TYPE/ID` says what the id stands for)")
        }
        _ => remedy.to_owned(),
    }
}

/// A route that would match, as narrow as it can be: for calls that none matches.
pub(super) fn suggestion(call: &Call<'_>, touch: &Touch<'_>, reason: DenyReason) -> Option<String> {
    if reason != DenyReason::NoRoute {
        return None;
    }
    let mut keys: Vec<String> = Vec::new();
    let user = matches!(call.caller, CallerView::User { .. });
    if let Some((_, operation)) = call.operation {
        let resource = touch.resource.as_ref();
        let resource = resource.filter(|_| *call.follow_up != FollowUpView::Unknown);
        if resource.is_none() || operation.effect == Effect::Admin {
            keys.push(format!("operation: {}", scalar(&operation.id)));
        }
        if let Some(resource) = resource {
            let text = format!("{}/{}", resource.kind, resource.id);
            keys.push(format!("resource: {}", scalar(&text)));
            let tool = touch.message.and_then(|message| message.tool);
            match tool.filter(|_| matches!(resource.kind, MCP | APP)) {
                Some(tool) => keys.push(format!("tools: [{}]", scalar(tool))),
                None if operation.effect == Effect::Read => keys.push("effect: read".into()),
                None => {}
            }
        }
        let run_as = if user && operation.user_scope {
            "user"
        } else {
            "app"
        };
        keys.push(format!("as: {run_as}"));
    } else {
        keys.push(format!("method: [{}]", call.method));
        keys.push(format!("path: {}", scalar(call.path.as_str())));
        keys.push(if user { "as: user" } else { "as: app" }.into());
        keys.extend(user.then(|| "scope: SCOPE".to_owned()));
    }
    Some(format!("- {{name: NAME, {}}}", keys.join(", ")))
}

/// What would have to change.
pub(super) fn remedy(reason: DenyReason) -> &'static str {
    match reason {
        DenyReason::NoRoute => "no route matches; add one that names the operation or the resource",
        DenyReason::RouteDenies => {
            "the route says `as: deny`; put a route that allows the call before it"
        }
        DenyReason::UserRequired => {
            "the route runs as the user and the app's token was presented; pass the request's x-forwarded-access-token, or route it `as: app`"
        }
        DenyReason::ScopeMissing => {
            "the session does not hold the scope: declare it for the app (user_api_scopes), let the user consent, and check users.scopes; APIs without a user scope need `as: app`"
        }
        DenyReason::ScopeUnknown => {
            "the catalogue does not know the path; add `scope:` to the route"
        }
        DenyReason::ResourcesDisagree => "all resources of one call must run as the same identity",
        DenyReason::PartitionForeign => {
            "the call names a partition that is not the verified user's; take its name from the user's own token"
        }
        DenyReason::FollowUpForeign => "the id was created by somebody else's call",
        DenyReason::FollowUpUnknown => {
            "the id was not created through this sidecar, so what it stands for is not known; a route that names the operation `as: user` lets the workspace decide"
        }
        DenyReason::Presigned => {
            "the call hands out storage URLs that bypass the sidecar; set outbound.presigned: allow if that is meant"
        }
        DenyReason::PathEscape => "the path holds escapes that no operation admits",
    }
}

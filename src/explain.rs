//! Why a call would be allowed or refused, without making it: the same steps and the same `decide` as the live proxy.
//!
//! A test feeds both the same thousands of requests. `cli.rs` prints the answer; `proxy/outbound.rs` is the live path.

use http::Method;
use serde_json::{Value, json};

use crate::domain::ask::{self, Call, CallerView, FollowUpView};
use crate::domain::catalog::Operation;
use crate::domain::destination::{Destination, DestinationFault, Upstreams};
use crate::domain::identity::UserId;
use crate::domain::path::CanonicalPath;
use crate::domain::policy::{DenyReason, Policy, Route, decide};
use crate::domain::scope::ScopeSet;
use crate::domain::strict_json;
use crate::proxy::body::BODY_DEPTH_MAX;
use crate::proxy::local_oidc::LocalOidc;

/// Who would call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum As {
    /// The holder of the local app token.
    App,
    /// A user whose session holds these scopes.
    User(ScopeSet),
}

/// The call to explain.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Who would call.
    pub caller: &'a As,
    /// Upper case.
    pub method: &'a Method,
    /// Path, and query behind a `?`.
    pub target: &'a str,
    /// The body's bytes; `None` or empty when there is none.
    pub body: Option<&'a [u8]>,
    /// For `o=` and `w=` in the query.
    pub workspace_id: Option<&'a str>,
    /// Where `/@NAME/` leads.
    pub upstreams: &'a Upstreams,
}

/// What the sidecar would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether the call would leave.
    pub allowed: bool,
    /// `app`, `user` or `none`.
    pub identity: &'static str,
    /// The route that decides.
    pub route: Option<String>,
    /// Where it stands and what it matches.
    pub route_text: Option<String>,
    /// The operation of the catalogue.
    pub operation: Option<String>,
    /// `type/id` of each resource.
    pub resources: Vec<String>,
    /// The scope that the call needs.
    pub scope: Option<String>,
    /// The stable reason of a refusal.
    pub reason: Option<&'static str>,
    /// The same for people, with the remedy.
    pub text: String,
}

/// Explains one call. Follow-up ids (statements, conversations) are taken as the caller's own but unknown to the sidecar.
pub fn explain(policy: &Policy, question: &Question<'_>) -> Answer {
    let (path, query) = question
        .target
        .split_once('?')
        .map_or((question.target, None), |(path, query)| (path, Some(query)));
    if LocalOidc::owns(path) {
        return Answer::refused(
            "no_such_local_endpoint",
            "answered by the sidecar itself and never forwarded".into(),
        );
    }
    let read = question.upstreams.read(path).map_err(|fault| {
        let reason = match fault {
            DestinationFault::Path(_) | DestinationFault::NoPath => "bad_path",
            DestinationFault::NoSuchUpstream(_) => "no_such_upstream",
        };
        (reason, fault.to_string())
    });
    let answer = read.and_then(|(destination, path)| {
        if destination == Destination::Workspace {
            ask::check_workspace_selectors(query, question.workspace_id)
                .map_err(|fault| ("bad_request", fault.to_string()))?;
        }
        let operation = destination.operation(policy.catalog(), question.method, &path);
        let at = (&destination, &path);
        let body = read_body(policy, question, at, operation.map(|(_, o)| &**o))?;
        let follow_up = operation
            .and_then(|(_, o)| ask::follow_up_id(o, &path))
            .map_or(FollowUpView::None, |_| FollowUpView::Unknown);
        let resources = operation.map_or_else(
            || Ok(destination.resource().into_iter().collect()),
            |(_, o)| ask::resources(o, &path, query, body.as_ref(), &follow_up),
        );
        let resources = resources.map_err(|fault| ("bad_request", fault.to_string()))?;
        let somebody = UserId::parse("somebody").ok();
        let caller = match (question.caller, &somebody) {
            (As::User(scopes), Some(subject)) => CallerView::User { subject, scopes },
            (As::User(_) | As::App, _) => CallerView::App,
        };
        let call = Call {
            method: question.method,
            destination: &destination,
            path: &path,
            body: body.as_ref(),
            caller,
            operation,
            resources: &resources,
            follow_up: &follow_up,
        };
        Ok(judged(policy, &call))
    });
    answer.unwrap_or_else(|(reason, text)| Answer::refused(reason, text))
}

/// A refusal before any decision: its reason, and the text for people.
type Refused = (&'static str, String);

/// The body's one reading, where something conditions on it.
fn read_body(
    policy: &Policy,
    question: &Question<'_>,
    (destination, path): (&Destination, &CanonicalPath),
    operation: Option<&Operation>,
) -> Result<Option<Value>, Refused> {
    let method = question.method;
    let (decides, members) = match destination {
        Destination::Workspace => (
            policy.reads_body(method, path, operation),
            policy.body_members(path),
        ),
        Destination::Upstream(upstream) => (
            policy.reads_upstream_body(method, &upstream.app),
            Vec::new(),
        ),
    };
    if !decides {
        return Ok(None);
    }
    let Some(bytes) = question.body.filter(|bytes| !bytes.is_empty()) else {
        return Ok(Some(Value::Null));
    };
    let refused = |fault| {
        (
            "bad_body",
            format!("the body is not acceptable JSON: {fault}"),
        )
    };
    let json = strict_json::parse(bytes, BODY_DEPTH_MAX).map_err(refused)?;
    ask::check_members(Some(&json), members).map_err(|fault| ("bad_request", fault.to_string()))?;
    Ok(Some(json))
}

/// The decision in words.
fn judged(policy: &Policy, call: &Call<'_>) -> Answer {
    let decision = decide(policy, call);
    let route = decision.as_ref().map_or_else(
        |denial| denial.route.as_deref(),
        |grant| Some(&**grant.route()),
    );
    let answer = match &decision {
        Ok(grant) => {
            let identity = grant.identity().as_str();
            let scope = grant.scope().map(ToString::to_string);
            Answer {
                allowed: true,
                identity,
                scope,
                reason: None,
                ..Answer::refused("", format!("runs as the {identity}"))
            }
        }
        Err(denial) => Answer {
            scope: denial.scope.as_ref().map(ToString::to_string),
            ..Answer::refused(denial.reason.code(), remedy(denial.reason).into())
        },
    };
    Answer {
        route: route.map(|route| route.name.to_string()),
        route_text: route.map(place),
        operation: call.operation.map(|(_, o)| o.id.to_string()),
        resources: call
            .resources
            .iter()
            .map(|r| format!("{}/{}", r.kind, r.id))
            .collect(),
        ..answer
    }
}

impl Answer {
    fn refused(reason: &'static str, text: String) -> Self {
        Self {
            allowed: false,
            identity: "none",
            route: None,
            route_text: None,
            operation: None,
            resources: Vec::new(),
            scope: None,
            reason: Some(reason),
            text,
        }
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        json!({
            "allowed": self.allowed,
            "identity": self.identity,
            "route": self.route,
            "route_text": self.route_text,
            "operation": self.operation,
            "resources": self.resources,
            "scope": self.scope,
            "reason": self.reason,
            "text": self.text,
        })
    }
}

fn place(route: &Route) -> String {
    let line = if route.line == 0 {
        "built in".to_owned()
    } else {
        format!("line {}", route.line)
    };
    format!("{line}: {} as {}", route.describe(), route.run_as.as_str())
}

/// What would have to change.
fn remedy(reason: DenyReason) -> &'static str {
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
        DenyReason::FollowUpForeign => "the id was created by somebody else's call",
        DenyReason::FollowUpUnknown => {
            "the id was not created through this sidecar and the call would run as the app"
        }
        DenyReason::Presigned => {
            "the call hands out storage URLs that bypass the sidecar; set outbound.presigned: allow if that is meant"
        }
        DenyReason::PathEscape => "the path holds escapes that no operation admits",
    }
}

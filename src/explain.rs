//! Why a call would be allowed or refused, without making it: the same steps and the same `decide` as the live proxy.
//!
//! A test feeds both the same thousands of requests. `cli.rs` prints the answer; `proxy/outbound.rs` is the live path.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use crate::domain::ask::{
    self, Bound, Call, CallerView, FollowUpView, Owner, Partition, Request, ResourceId, touch,
};
use crate::domain::catalog::Operation;
use crate::domain::clock::Timestamp;
use crate::domain::destination::{Destination, DestinationFault, Upstreams};
use crate::domain::identity::UserId;
use crate::domain::path::CanonicalPath;
use crate::domain::policy::denial::DenyReason;
use crate::domain::policy::nearest::{deciding, in_question, nearest};
use crate::domain::policy::{Policy, decide};
use crate::domain::scope::ScopeSet;
use crate::domain::strict_json;
use crate::proxy::body::BODY_DEPTH_MAX;
use crate::proxy::local_oidc::LocalOidc;

mod words;

/// Who would call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum As {
    /// The holder of the local app token.
    App,
    /// A user whose session holds these scopes.
    User(ScopeSet),
}

impl As {
    /// A user whose token holds these scopes (all, where none are given), under the ceiling.
    pub fn user<'a>(
        given: Option<impl IntoIterator<Item = &'a str>>,
        ceiling: Option<&ScopeSet>,
    ) -> Self {
        let token = given.map_or_else(|| ScopeSet::parse(["all-apis"]), ScopeSet::parse);
        Self::User(ceiling.map_or_else(|| token.clone(), |ceiling| token.meet(ceiling)))
    }
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
    /// The headers that decide: of the table that OTLP writes to, of MCP.
    pub headers: &'a HeaderMap,
    /// What an id that an earlier answer gave out stands for; `None` = not known to the sidecar.
    pub bound: Option<ResourceId>,
    /// Whether a partition that the call names is somebody else's.
    pub foreign_partition: bool,
    /// For `o=` and `w=` in the query.
    pub workspace_id: Option<&'a str>,
    /// Where `/@NAME/` leads.
    pub upstreams: &'a Upstreams,
    /// The moment of the call: an observed policy ends at its date.
    pub now: Timestamp,
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
    /// All routes that the things which the call touches fall to.
    pub routes: Vec<String>,
    /// Where it stands and what it matches.
    pub route_text: Option<String>,
    /// The operation of the catalogue.
    pub operation: Option<String>,
    /// What it does: `read`, `write` or `admin`.
    pub effect: Option<&'static str>,
    /// What it touches: `type/id`, its second name, the MCP tool.
    pub resources: Vec<String>,
    /// The reason of a refusal that an observed policy does not make.
    pub would_deny: Option<&'static str>,
    /// The route that comes nearest without matching, and what would have to change.
    pub nearest: Option<String>,
    /// Where no route matches: one that would, as narrow as it can be.
    pub suggestion: Option<String>,
    /// The scope that the call needs.
    pub scope: Option<String>,
    /// The stable reason of a refusal.
    pub reason: Option<&'static str>,
    /// The same for people, with the remedy.
    pub text: String,
}

/// Explains one call. A follow-up id (statement, conversation) is taken as the caller's own.
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
        let request = Request {
            path: &path,
            query,
            headers: question.headers,
            body: body.as_ref(),
        };
        let somebody = UserId::parse("somebody").ok();
        let caller = match (question.caller, &somebody) {
            (As::User(scopes), Some(subject)) => CallerView::User { subject, scopes },
            (As::User(_) | As::App, _) => CallerView::App,
        };
        let (follow_up, partition) = views(question, caller, operation, &request)?;
        let touches = destination.touches(operation.map(|(_, o)| &**o), &request, &follow_up);
        let touches = touches.map_err(|fault| ("bad_request", fault.to_string()))?;
        let call = Call {
            method: question.method,
            destination: &destination,
            path: &path,
            body: body.as_ref(),
            caller,
            operation,
            touches: &touches,
            follow_up: &follow_up,
            partition,
            now: question.now,
        };
        Ok(judged(policy, &call))
    });
    answer.unwrap_or_else(|(reason, text)| Answer::refused(reason, text))
}

/// What the sidecar would know of the ids that the call names.
fn views(
    question: &Question<'_>,
    caller: CallerView<'_>,
    operation: Option<(usize, &std::sync::Arc<Operation>)>,
    request: &Request<'_>,
) -> Result<(FollowUpView, Partition), Refused> {
    let Some((_, operation)) = operation else {
        return Ok((FollowUpView::None, Partition::None));
    };
    let refused = |fault: ask::AskFault| ("bad_request", fault.to_string());
    let named = touch::follow_up_id(operation, request).map_err(refused)?;
    let owner = match caller {
        CallerView::App => Owner::App,
        CallerView::User { subject, .. } => Owner::User(subject.clone()),
    };
    let follow_up = match (named, &question.bound) {
        (None, _) => FollowUpView::None,
        (Some(_), None) => FollowUpView::Unknown,
        (Some(_), Some(resource)) => FollowUpView::Bound(Bound {
            owner,
            resource: Some(resource.clone()),
        }),
    };
    let partition = match touch::partition(operation, request).map_err(refused)? {
        None => Partition::None,
        Some(_) if question.foreign_partition => Partition::Foreign,
        Some(_) => Partition::Own,
    };
    Ok((follow_up, partition))
}

/// Headers written as `NAME=VALUE`.
///
/// # Errors
/// A sentence that names the first which is none.
pub fn headers(written: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for text in written {
        let pair = text.split_once('=').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = pair.ok_or_else(|| format!("`{text}` is no NAME=VALUE"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// A resource written as `TYPE/ID`.
///
/// # Errors
/// A sentence that says so where it is none.
pub fn bound(written: &str) -> Result<ResourceId, String> {
    let halves = written
        .split_once('/')
        .filter(|(kind, id)| !kind.is_empty() && !id.is_empty());
    let (kind, id) = halves.ok_or_else(|| format!("`{written}` is no TYPE/ID"))?;
    Ok(ResourceId {
        kind: kind.into(),
        id: id.into(),
    })
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
        Destination::Upstream(upstream) => {
            (policy.reads_upstream_body(method, upstream), Vec::new())
        }
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
            let would_deny = grant.would_deny();
            let text = would_deny.map_or_else(
                || format!("runs as the {identity}"),
                |reason| {
                    format!(
                        "runs as the {identity}, because the policy is merely observed; enforced it would be refused: {}",
                        words::remedy(reason)
                    )
                },
            );
            Answer {
                allowed: true,
                identity,
                scope: grant.scope().map(ToString::to_string),
                would_deny: would_deny.map(DenyReason::code),
                reason: None,
                ..Answer::refused("", text)
            }
        }
        Err(denial) => Answer {
            scope: denial.scope.as_ref().map(ToString::to_string),
            suggestion: in_question(policy, call)
                .and_then(|touch| words::suggestion(call, touch, denial.reason)),
            ..Answer::refused(denial.reason.code(), words::denied(call, denial))
        },
    };
    Answer {
        route: route.map(|route| route.name.to_string()),
        routes: { deciding(policy, call).into_iter() }
            .map(|name| name.to_string())
            .collect(),
        route_text: route.map(words::place),
        operation: call.operation.map(|(_, o)| o.id.to_string()),
        effect: call.operation.map(|(_, o)| o.effect.as_str()),
        resources: call.touches.iter().map(words::touched).collect(),
        nearest: nearest(policy, call, route).as_ref().map(words::loser),
        ..answer
    }
}

impl Answer {
    fn refused(reason: &'static str, text: String) -> Self {
        Self {
            allowed: false,
            identity: "none",
            route: None,
            routes: Vec::new(),
            route_text: None,
            operation: None,
            effect: None,
            resources: Vec::new(),
            nearest: None,
            suggestion: None,
            would_deny: None,
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
            "routes": self.routes,
            "route_text": self.route_text,
            "operation": self.operation,
            "effect": self.effect,
            "resources": self.resources,
            "nearest": self.nearest,
            "suggestion": self.suggestion,
            "would_deny": self.would_deny,
            "scope": self.scope,
            "reason": self.reason,
            "text": self.text,
        })
    }
}

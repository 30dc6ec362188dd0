//! One table for everything that can end a request early: status, error code, reason, whose fault, when to come back.
//!
//! The only file that chooses a status. The peer gets a fixed sentence with at most the route, the operation and the request
//! id; the cause goes to the log (`record.rs`). Statuses are chosen knowing that the SDKs repeat 429, 503 and broken
//! connections for five minutes, POST included (PRODUCT 6.6).
#![deny(clippy::wildcard_enum_match_arm)]

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::domain::ask::AskFault;
use crate::domain::destination::DestinationFault;
use crate::domain::headers::{self, HeadFault};
use crate::domain::policy::denial::{Denial, DenyReason};
use crate::domain::policy::nearest::Nearest;
use crate::domain::token::fault::TokenFault;
use crate::runtime::audit_writer::AuditUnavailable;
use crate::runtime::credential::CredentialFault;
use crate::runtime::http_client::{Body, SendFault, full};
use crate::runtime::tunnel::TunnelFault;

use self::credential::{credential_row, token_reason};
use super::body::BodyFault;
use super::connect::ConnectFault;

mod credential;
pub mod mcp;
mod words;

/// Whom to wake: the value of the log field `fault`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Whoever sent the request.
    Caller,
    /// The route policy refused.
    Policy,
    /// The issuer of user tokens.
    Issuer,
    /// The workspace or its token endpoint.
    Workspace,
    /// Another app, or its front door.
    Upstream,
    /// The agent process.
    Agent,
    /// The sidecar or its machine.
    Sidecar,
}

/// Everything that ends a request before the far side has answered.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Framing, `Host`, form, or duplicated credentials.
    #[error("bad request head: {0}")]
    Head(#[from] HeadFault),
    /// A path with two readings, or that leads to no upstream.
    #[error("bad path: {0}")]
    Destination(#[from] DestinationFault),
    /// A request whose resource has two readings.
    #[error("bad request: {0}")]
    Ask(#[from] AskFault),
    /// A body that had to be read and could not be.
    #[error("bad body: {0}")]
    Body(#[from] BodyFault),
    /// The target is longer than `limits.request_target_bytes`.
    #[error("the request target is too long")]
    TargetTooLong,
    /// A page of another site, or a foreign `Host`, at the outbound listener.
    #[error("not a local client: {0}")]
    NotLocal(&'static str),
    /// The user token is missing, invalid or expired.
    #[error("user token refused: {0}")]
    Token(TokenFault),
    /// The token holds none of the scopes that any user route needs.
    #[error("the token holds none of the scopes that the policy needs")]
    NoScopes,
    /// The issuer's keys could not be had.
    #[error("the issuer's keys are not available: {0}")]
    Issuer(String),
    /// Too many live sessions.
    #[error("the table of sessions is full (users.session.sessions_max)")]
    SessionsFull,
    /// The agent has not accepted a connection yet, or is gone.
    #[error("the agent is not ready")]
    AgentNotReady,
    /// The agent did not answer.
    #[error("the agent did not answer")]
    Agent(#[source] SendFault),
    /// No local token, or one that is not alive.
    #[error("no live local token")]
    LocalToken {
        /// Whether one was presented at all.
        presented: bool,
    },
    /// A local OIDC path that does not exist.
    #[error("no such local endpoint")]
    NoSuchLocal,
    /// The policy refused.
    #[error("denied: {}", .0.denial.reason.code())]
    Denied(Box<DeniedCall>),
    /// The record could not be written, so the call was not made.
    #[error("the audit log cannot be written: {0}")]
    Audit(#[from] AuditUnavailable),
    /// No credential could be had.
    #[error("{0}")]
    Credential(#[from] CredentialFault),
    /// The workspace did not answer.
    #[error("the workspace did not answer")]
    Workspace(#[source] SendFault),
    /// The upstream did not answer.
    #[error("the upstream did not answer")]
    Upstream(#[source] SendFault),
    /// The front door of the upstream sends whoever it does not let in to its login.
    #[error("the upstream answered with its login")]
    UpstreamLogin,
    /// CONNECT to a place that tunnels may not lead to.
    #[error("{0}")]
    Connect(ConnectFault),
    /// A tunnel that may be, to a far side that is not there.
    #[error("{0}")]
    Tunnel(#[source] TunnelFault),
    /// More requests than `limits.requests`, or tunnels than `limits.tunnels`.
    #[error("more requests in flight than limits.requests, or tunnels than limits.tunnels")]
    Overloaded,
    /// A step met what its predecessor rules out, or panicked.
    #[error("internal: {0}")]
    Internal(&'static str),
}

/// A denial with the words for its explanation.
#[derive(Debug)]
pub struct DeniedCall {
    /// The decision.
    pub denial: Denial,
    /// Such as `POST /api/2.0/sql/statements`.
    pub call: String,
    /// The operation, if the catalogue knows it.
    pub operation: Option<Arc<str>>,
    /// The resources, as `type/id`.
    pub resources: Vec<String>,
    /// `app` or `user`.
    pub caller: &'static str,
    /// The route that came nearest, where none matched.
    pub nearest: Option<Nearest>,
    /// Whether an MCP client reads the refusal.
    pub speaks_mcp: bool,
}

struct Row {
    status: StatusCode,
    /// In the Databricks vocabulary, so that SDKs raise the right exception.
    error_code: &'static str,
    reason: &'static str,
    fault: Fault,
    retry_after: Option<u64>,
}

/// Every reason of the table below; a denial has those of [`DenyReason::ALL`] instead. `tests/tidy.rs` holds the list to the
/// table and the README to the list.
pub const REASONS: [&str; 37] = [
    "bad_head",
    "bad_path",
    "bad_request",
    "body_too_large",
    "bad_body",
    "target_too_long",
    "not_local",
    "no_scopes",
    "issuer_unavailable",
    "sessions_full",
    "agent_not_ready",
    "agent_unreachable",
    "agent_failed",
    "agent_timeout",
    "local_token_missing",
    "local_token_invalid",
    "no_such_local_endpoint",
    "audit_unavailable",
    "workspace_unreachable",
    "workspace_timeout",
    "no_such_upstream",
    "upstream_login_required",
    "upstream_unreachable",
    "upstream_timeout",
    "connect_refused",
    "tunnel_unreachable",
    "tunnel_timeout",
    "overloaded",
    "internal",
    "token_missing",
    "token_expired",
    "token_invalid",
    "exchange_refused",
    "token_endpoint_timeout",
    "app_credential_missing",
    "app_credential_refused",
    "token_endpoint_unavailable",
];

/// Seconds after which a starting agent or a shed request is worth another try.
const RETRY_SOON: u64 = 1;

/// A status and the Databricks error code that belongs to it.
type Shape = (StatusCode, &'static str);

const BAD: Shape = (StatusCode::BAD_REQUEST, "INVALID_PARAMETER_VALUE");
const UNAUTHENTICATED: Shape = (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED");
const FORBIDDEN: Shape = (StatusCode::FORBIDDEN, "PERMISSION_DENIED");
const NOT_FOUND: Shape = (StatusCode::NOT_FOUND, "ENDPOINT_NOT_FOUND");
const TOO_LARGE: Shape = (StatusCode::PAYLOAD_TOO_LARGE, "REQUEST_TOO_LARGE");
const TARGET: Shape = (StatusCode::URI_TOO_LONG, "INVALID_PARAMETER_VALUE");
const MEDIA: Shape = (
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "INVALID_PARAMETER_VALUE",
);
const INTERNAL: Shape = (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR");
const GATEWAY: Shape = (StatusCode::BAD_GATEWAY, "BAD_GATEWAY");
const TIMEOUT: Shape = (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED");
/// The only one that asks for a repeat.
const LATER: Shape = (StatusCode::SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE");

fn row((status, error_code): Shape, reason: &'static str, fault: Fault) -> Row {
    let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_SOON);
    Row {
        status,
        error_code,
        reason,
        fault,
        retry_after,
    }
}

impl ProxyError {
    fn row(&self) -> Row {
        use Fault::{Agent, Caller, Issuer, Policy, Sidecar, Upstream, Workspace};
        match self {
            Self::Head(_) => row(BAD, "bad_head", Caller),
            Self::Destination(DestinationFault::Path(_) | DestinationFault::NoPath) => {
                row(BAD, "bad_path", Caller)
            }
            Self::Destination(DestinationFault::NoSuchUpstream(_)) => {
                row(NOT_FOUND, "no_such_upstream", Caller)
            }
            Self::Ask(_) => row(BAD, "bad_request", Caller),
            Self::Body(BodyFault::TooLarge(_)) => row(TOO_LARGE, "body_too_large", Caller),
            Self::Body(BodyFault::Encoding | BodyFault::ContentType) => {
                row(MEDIA, "bad_body", Caller)
            }
            Self::Body(BodyFault::Json(_) | BodyFault::Broken) => row(BAD, "bad_body", Caller),
            Self::TargetTooLong => row(TARGET, "target_too_long", Caller),
            Self::NotLocal(_) => row(FORBIDDEN, "not_local", Caller),
            Self::Token(fault) => row(UNAUTHENTICATED, token_reason(*fault), Caller),
            Self::NoScopes => row(FORBIDDEN, "no_scopes", Caller),
            Self::Issuer(_) => row(LATER, "issuer_unavailable", Issuer),
            Self::SessionsFull => row(LATER, "sessions_full", Sidecar),
            Self::AgentNotReady => row(LATER, "agent_not_ready", Agent),
            Self::Agent(SendFault::Connect(_)) => row(GATEWAY, "agent_unreachable", Agent),
            Self::Agent(SendFault::Broken(_)) => row(GATEWAY, "agent_failed", Agent),
            Self::Agent(SendFault::Timeout(_)) => row(TIMEOUT, "agent_timeout", Agent),
            Self::LocalToken { presented: false } => {
                row(UNAUTHENTICATED, "local_token_missing", Caller)
            }
            Self::LocalToken { presented: true } => {
                row(UNAUTHENTICATED, "local_token_invalid", Caller)
            }
            Self::NoSuchLocal => row(NOT_FOUND, "no_such_local_endpoint", Caller),
            Self::Denied(denied) => match denied.denial.reason {
                reason @ DenyReason::PathEscape => row(BAD, reason.code(), Caller),
                reason @ (DenyReason::NoRoute
                | DenyReason::RouteDenies
                | DenyReason::UserRequired
                | DenyReason::ScopeMissing
                | DenyReason::ScopeUnknown
                | DenyReason::ResourcesDisagree
                | DenyReason::PartitionForeign
                | DenyReason::FollowUpForeign
                | DenyReason::FollowUpUnknown
                | DenyReason::Presigned) => row(FORBIDDEN, reason.code(), Policy),
            },
            Self::Audit(_) => row(INTERNAL, "audit_unavailable", Sidecar),
            Self::Credential(fault) => credential_row(fault),
            Self::Workspace(SendFault::Connect(_) | SendFault::Broken(_)) => {
                row(GATEWAY, "workspace_unreachable", Workspace)
            }
            Self::Workspace(SendFault::Timeout(_)) => row(TIMEOUT, "workspace_timeout", Workspace),
            Self::Upstream(SendFault::Connect(_) | SendFault::Broken(_)) => {
                row(GATEWAY, "upstream_unreachable", Upstream)
            }
            Self::Upstream(SendFault::Timeout(_)) => row(TIMEOUT, "upstream_timeout", Upstream),
            Self::UpstreamLogin => row(FORBIDDEN, "upstream_login_required", Upstream),
            Self::Connect(ConnectFault::Place(_)) => row(BAD, "connect_refused", Caller),
            Self::Connect(ConnectFault::NotListed(_) | ConnectFault::Address(..)) => {
                row(FORBIDDEN, "connect_refused", Policy)
            }
            Self::Tunnel(TunnelFault::Timeout(_)) => row(TIMEOUT, "tunnel_timeout", Upstream),
            Self::Tunnel(TunnelFault::Resolve(_) | TunnelFault::Connect(_)) => {
                row(GATEWAY, "tunnel_unreachable", Upstream)
            }
            Self::Overloaded => row(LATER, "overloaded", Sidecar),
            Self::Internal(_) => row(INTERNAL, "internal", Sidecar),
        }
    }

    /// The stable reason, for the header, metrics and the audit record.
    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// The status that the peer gets.
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// Whom to wake.
    pub fn fault(&self) -> Fault {
        self.row().fault
    }

    /// The answer, in the Databricks error shape.
    pub fn to_response(&self, request_id: &str) -> Response<Body> {
        let row = self.row();
        let mut details = vec![
            json!({"@type": ERROR_INFO, "reason": row.reason, "domain": "valetkey", "metadata": self.metadata()}),
        ];
        if matches!(self, Self::Denied(denied) if denied.denial.reason == DenyReason::Presigned) {
            // The word on which the SDKs fall back to the plain upload (facts 6.3).
            details.push(json!({"@type": ERROR_INFO, "reason": "FILES_API_API_IS_NOT_ENABLED", "domain": "valetkey", "metadata": {}}));
        }
        details.push(json!({"@type": REQUEST_INFO, "request_id": request_id, "serving_data": ""}));
        let message = format!("valetkey: {}", self.public());
        let mut body =
            json!({"error_code": row.error_code, "message": message, "details": details});
        let speaks_mcp = matches!(self, Self::Denied(denied) if denied.speaks_mcp);
        if speaks_mcp {
            let data = json!({"reason": row.reason, "request_id": request_id, "metadata": self.metadata()});
            mcp::add(&mut body, row.status, &message, &data);
        }
        let mut response = Response::new(full(body.to_string()));
        if speaks_mcp {
            mcp::say(&mut response, &message);
        }
        *response.status_mut() = row.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(headers::ERROR, HeaderValue::from_static(row.reason));
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(headers::REQUEST_ID, id);
        }
        if row.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"valetkey\""),
            );
        }
        if let Some(seconds) = row.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Self::Head(_)) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const REQUEST_INFO: &str = "type.googleapis.com/google.rpc.RequestInfo";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::endpoint_fault::EndpointFault;

    #[test]
    fn only_what_asks_for_a_repeat_answers_503() {
        let never: [ProxyError; 6] = [
            ProxyError::Audit(AuditUnavailable::Closed),
            ProxyError::Credential(CredentialFault::App(EndpointFault::Busy {
                retry_after: None,
            })),
            ProxyError::Workspace(SendFault::Connect("x".into())),
            ProxyError::LocalToken { presented: true },
            ProxyError::NoScopes,
            ProxyError::Head(HeadFault::Framing),
        ];
        for error in never {
            assert!(!matches!(error.status().as_u16(), 429 | 503), "{error}");
            assert!(error.to_response("r").headers().get(RETRY_AFTER).is_none());
        }
        for error in [
            ProxyError::AgentNotReady,
            ProxyError::Overloaded,
            ProxyError::SessionsFull,
        ] {
            assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(error.to_response("r").headers().get(RETRY_AFTER).is_some());
        }
    }

    #[test]
    fn a_refused_user_token_gets_one_of_three_words() {
        for fault in [
            TokenFault::BadSignature,
            TokenFault::WrongAudience,
            TokenFault::BadClaim("sub"),
        ] {
            let error = ProxyError::Token(fault);
            assert_eq!(error.reason(), "token_invalid");
            assert_eq!(error.public(), "the user token is invalid");
            assert!(
                error
                    .to_response("r")
                    .headers()
                    .contains_key(WWW_AUTHENTICATE)
            );
        }
        assert_eq!(
            ProxyError::Token(TokenFault::Missing).reason(),
            "token_missing"
        );
        assert_eq!(
            ProxyError::Token(TokenFault::Expired).reason(),
            "token_expired"
        );
    }
}

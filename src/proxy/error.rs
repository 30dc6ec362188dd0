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
use crate::domain::headers::{self, HeadFault};
use crate::domain::path::PathFault;
use crate::domain::policy::{Denial, DenyReason};
use crate::domain::token::fault::TokenFault;
use crate::runtime::audit_writer::AuditUnavailable;
use crate::runtime::credential::CredentialFault;
use crate::runtime::endpoint_fault::EndpointFault;
use crate::runtime::http_client::{Body, SendFault, full};

use super::body::BodyFault;

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
    /// A path with two readings.
    #[error("bad path: {0}")]
    Path(#[from] PathFault),
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
    /// More requests than `limits.requests` are in flight.
    #[error("more requests in flight than limits.requests")]
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
pub const REASONS: [&str; 30] = [
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

fn row(status: StatusCode, error_code: &'static str, reason: &'static str, fault: Fault) -> Row {
    Row {
        status,
        error_code,
        reason,
        fault,
        retry_after: None,
    }
}

impl ProxyError {
    fn row(&self) -> Row {
        use Fault::{Agent, Caller, Issuer, Policy, Sidecar, Workspace};
        let bad = |reason| {
            row(
                StatusCode::BAD_REQUEST,
                "INVALID_PARAMETER_VALUE",
                reason,
                Caller,
            )
        };
        let unauthenticated =
            |reason| row(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", reason, Caller);
        let forbidden =
            |reason, fault| row(StatusCode::FORBIDDEN, "PERMISSION_DENIED", reason, fault);
        let internal = |reason| {
            row(
                StatusCode::INTERNAL_SERVER_ERROR,
                "INTERNAL_ERROR",
                reason,
                Sidecar,
            )
        };
        let later = |reason, fault| Row {
            retry_after: Some(RETRY_SOON),
            ..row(
                StatusCode::SERVICE_UNAVAILABLE,
                "TEMPORARILY_UNAVAILABLE",
                reason,
                fault,
            )
        };
        match self {
            Self::Head(_) => bad("bad_head"),
            Self::Path(_) => bad("bad_path"),
            Self::Ask(_) => bad("bad_request"),
            Self::Body(BodyFault::TooLarge(_)) => row(
                StatusCode::PAYLOAD_TOO_LARGE,
                "REQUEST_TOO_LARGE",
                "body_too_large",
                Caller,
            ),
            Self::Body(BodyFault::Encoding | BodyFault::ContentType) => row(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "INVALID_PARAMETER_VALUE",
                "bad_body",
                Caller,
            ),
            Self::Body(BodyFault::Json(_) | BodyFault::Broken) => bad("bad_body"),
            Self::TargetTooLong => row(
                StatusCode::URI_TOO_LONG,
                "INVALID_PARAMETER_VALUE",
                "target_too_long",
                Caller,
            ),
            Self::NotLocal(_) => forbidden("not_local", Caller),
            Self::Token(fault) => unauthenticated(token_reason(*fault)),
            Self::NoScopes => forbidden("no_scopes", Caller),
            Self::Issuer(_) => later("issuer_unavailable", Issuer),
            Self::SessionsFull => later("sessions_full", Sidecar),
            Self::AgentNotReady => later("agent_not_ready", Agent),
            Self::Agent(SendFault::Connect(_)) => row(
                StatusCode::BAD_GATEWAY,
                "BAD_GATEWAY",
                "agent_unreachable",
                Agent,
            ),
            Self::Agent(SendFault::Broken(_)) => row(
                StatusCode::BAD_GATEWAY,
                "BAD_GATEWAY",
                "agent_failed",
                Agent,
            ),
            Self::Agent(SendFault::Timeout(_)) => row(
                StatusCode::GATEWAY_TIMEOUT,
                "DEADLINE_EXCEEDED",
                "agent_timeout",
                Agent,
            ),
            Self::LocalToken { presented: false } => unauthenticated("local_token_missing"),
            Self::LocalToken { presented: true } => unauthenticated("local_token_invalid"),
            Self::NoSuchLocal => row(
                StatusCode::NOT_FOUND,
                "ENDPOINT_NOT_FOUND",
                "no_such_local_endpoint",
                Caller,
            ),
            Self::Denied(denied) if denied.denial.reason == DenyReason::PathEscape => {
                bad(DenyReason::PathEscape.code())
            }
            Self::Denied(denied) => forbidden(denied.denial.reason.code(), Policy),
            Self::Audit(_) => internal("audit_unavailable"),
            Self::Credential(fault) => credential_row(fault),
            Self::Workspace(SendFault::Connect(_) | SendFault::Broken(_)) => row(
                StatusCode::BAD_GATEWAY,
                "BAD_GATEWAY",
                "workspace_unreachable",
                Workspace,
            ),
            Self::Workspace(SendFault::Timeout(_)) => row(
                StatusCode::GATEWAY_TIMEOUT,
                "DEADLINE_EXCEEDED",
                "workspace_timeout",
                Workspace,
            ),
            Self::Overloaded => later("overloaded", Sidecar),
            Self::Internal(_) => internal("internal"),
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

    /// What the peer is told. The word for a refused user token is `missing`, `invalid` or `expired` and no more.
    fn public(&self) -> String {
        match self {
            Self::Head(fault) => fault.to_string(),
            Self::Path(fault) => fault.to_string(),
            Self::Ask(fault) => fault.to_string(),
            Self::Body(fault) => fault.to_string(),
            Self::TargetTooLong => "the request target is too long; see limits.request_target_bytes".into(),
            Self::NotLocal(what) => (*what).into(),
            Self::Token(fault) => format!("the user token is {}", fault.public()),
            Self::NoScopes => "the user token holds none of the scopes that this app's routes need".into(),
            Self::Issuer(_) => "the keys of the token issuer are not available".into(),
            Self::SessionsFull | Self::Overloaded => "too busy; try again".into(),
            Self::AgentNotReady => "the agent is starting; try again".into(),
            Self::Agent(SendFault::Connect(_)) => "the agent does not accept connections at inbound.agent".into(),
            Self::Agent(SendFault::Broken(_)) => "the agent broke off without an answer".into(),
            Self::Agent(SendFault::Timeout(_)) => "the agent did not answer in time; see limits.response_head_time".into(),
            Self::LocalToken { presented: false } => "no local token: use DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET from the environment, or the x-forwarded-access-token of a request".into(),
            Self::LocalToken { presented: true } => "the local token is not alive: sessions end with the request that opened them; ask /oidc/v1/token for a new app token".into(),
            Self::NoSuchLocal => "the sidecar answers /oidc/* and /.well-known/* itself and has no such endpoint".into(),
            Self::Denied(denied) => denied.explain(),
            Self::Audit(_) => "the audit log cannot be written, so the call was not made; see /readyz of the admin listener".into(),
            Self::Credential(fault) => credential_text(fault).into(),
            Self::Workspace(SendFault::Connect(_)) => "the workspace cannot be reached".into(),
            Self::Workspace(SendFault::Broken(_)) => "the workspace broke off without an answer; the call may have had its effect".into(),
            Self::Workspace(SendFault::Timeout(_)) => "the workspace did not answer in time; see limits.response_head_time".into(),
            Self::Internal(_) => "internal error".into(),
        }
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
        let body = json!({"error_code": row.error_code, "message": format!("valetkey: {}", self.public()), "details": details});
        let mut response = Response::new(full(body.to_string()));
        *response.status_mut() = row.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(headers::ERROR, HeaderValue::from_static(row.reason));
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

    fn metadata(&self) -> serde_json::Value {
        let Self::Denied(denied) = self else {
            return json!({});
        };
        let mut metadata = serde_json::Map::new();
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                metadata.insert(key.into(), value.into());
            }
        };
        put(
            "route",
            denied.denial.route.as_ref().map(|r| r.name.to_string()),
        );
        put(
            "operation",
            denied.operation.as_ref().map(ToString::to_string),
        );
        put(
            "scope",
            denied.denial.scope.as_ref().map(ToString::to_string),
        );
        put(
            "resources",
            (!denied.resources.is_empty()).then(|| denied.resources.join(" ")),
        );
        metadata.into()
    }
}

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const REQUEST_INFO: &str = "type.googleapis.com/google.rpc.RequestInfo";

fn token_reason(fault: TokenFault) -> &'static str {
    match fault.public() {
        "missing" => "token_missing",
        "expired" => "token_expired",
        _ => "token_invalid",
    }
}

fn credential_row(fault: &CredentialFault) -> Row {
    use Fault::{Caller, Sidecar, Workspace};
    let gateway = |reason, fault| row(StatusCode::BAD_GATEWAY, "BAD_GATEWAY", reason, fault);
    match fault {
        CredentialFault::Exchange(EndpointFault::SubjectRefused { .. }) => row(
            StatusCode::FORBIDDEN,
            "PERMISSION_DENIED",
            "exchange_refused",
            Caller,
        ),
        CredentialFault::App(EndpointFault::Timeout { .. })
        | CredentialFault::Exchange(EndpointFault::Timeout { .. }) => row(
            StatusCode::GATEWAY_TIMEOUT,
            "DEADLINE_EXCEEDED",
            "token_endpoint_timeout",
            Workspace,
        ),
        CredentialFault::App(EndpointFault::NotConfigured)
        | CredentialFault::Exchange(EndpointFault::NotConfigured) => {
            gateway("app_credential_missing", Sidecar)
        }
        CredentialFault::App(EndpointFault::Refused { .. })
        | CredentialFault::Exchange(EndpointFault::Refused { .. }) => {
            gateway("app_credential_refused", Workspace)
        }
        CredentialFault::App(_) | CredentialFault::Exchange(_) => {
            gateway("token_endpoint_unavailable", Workspace)
        }
        CredentialFault::NoSession | CredentialFault::Header => row(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL_ERROR",
            "internal",
            Sidecar,
        ),
    }
}

fn credential_text(fault: &CredentialFault) -> &'static str {
    match fault {
        CredentialFault::Exchange(EndpointFault::SubjectRefused { .. }) => {
            "the workspace refused to exchange the user's token"
        }
        CredentialFault::App(EndpointFault::NotConfigured)
        | CredentialFault::Exchange(EndpointFault::NotConfigured) => {
            "the route runs as the app, and the sidecar has no app credential: set DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET for it"
        }
        CredentialFault::App(EndpointFault::Refused { .. })
        | CredentialFault::Exchange(EndpointFault::Refused { .. }) => {
            "the workspace refused the app's credential; see /readyz of the admin listener"
        }
        CredentialFault::App(_) | CredentialFault::Exchange(_) => {
            "the workspace's token endpoint gave no token; see /readyz of the admin listener"
        }
        CredentialFault::NoSession | CredentialFault::Header => "internal error",
    }
}

impl DeniedCall {
    fn explain(&self) -> String {
        let Denial {
            reason,
            route,
            scope,
        } = &self.denial;
        let call = match (&self.operation, self.resources.is_empty()) {
            (Some(operation), false) => format!("{operation} on {}", self.resources.join(", ")),
            (Some(operation), true) => operation.to_string(),
            (None, _) => self.call.clone(),
        };
        let route = route
            .as_ref()
            .map_or_else(String::new, |route| format!("route `{}` ", route.name));
        let scope = scope.as_ref().map(ToString::to_string).unwrap_or_default();
        let why = match reason {
            DenyReason::NoRoute => format!("no route allows {call}"),
            DenyReason::RouteDenies => format!("{route}denies {call}"),
            DenyReason::UserRequired => format!(
                "{route}runs {call} as the user, and the app's token was presented; pass the x-forwarded-access-token of the request"
            ),
            DenyReason::ScopeMissing => format!(
                "{route}needs the scope {scope} for {call}, and the session does not hold it"
            ),
            DenyReason::ScopeUnknown => {
                format!("{route}names no scope for {call}, and the catalogue knows none")
            }
            DenyReason::ResourcesDisagree => {
                format!("{call} touches resources that routes give to different identities")
            }
            DenyReason::FollowUpForeign => {
                format!("{call} names an id that somebody else's call created")
            }
            DenyReason::FollowUpUnknown => format!(
                "{call} names an id that no call through this sidecar created, and it would run as the app"
            ),
            DenyReason::Presigned => format!(
                "{call} hands out storage URLs that bypass the sidecar (outbound.presigned)"
            ),
            DenyReason::PathEscape => {
                format!("the path of {call} holds escapes that no operation admits")
            }
        };
        format!(
            "{why}; see: valetkey explain --as {} {}",
            self.caller, self.call
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

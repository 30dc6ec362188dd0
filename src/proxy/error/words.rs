//! What the peer is told of an error: fixed sentences with at most the route, the operation and the request id.
//!
//! Helpful to developers, useless to attackers: no claim values, no token state beyond three words, no cause.
#![deny(clippy::wildcard_enum_match_arm)]

use serde_json::{Map, Value};

use crate::domain::policy::denial::{Denial, DenyReason};
use crate::runtime::credential::CredentialFault;
use crate::runtime::endpoint_fault::EndpointFault;
use crate::runtime::http_client::SendFault;

use super::{DeniedCall, ProxyError};

impl ProxyError {
    /// What the peer is told. The word for a refused user token is `missing`, `invalid` or `expired` and no more.
    pub(super) fn public(&self) -> String {
        match self {
            Self::Head(fault) => fault.to_string(),
            Self::Destination(fault) => fault.to_string(),
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
            Self::Upstream(SendFault::Connect(_)) => "the upstream cannot be reached".into(),
            Self::Upstream(SendFault::Broken(_)) => "the upstream broke off without an answer; the call may have had its effect".into(),
            Self::Upstream(SendFault::Timeout(_)) => "the upstream did not answer in time; see limits.response_head_time".into(),
            Self::UpstreamLogin => "the upstream answered with a login instead of letting the call in: whoever the call runs as needs CAN_USE on that app, and apps take OAuth tokens only (a personal access token is refused)".into(),
            Self::Connect(fault) => fault.to_string(),
            Self::Tunnel(fault) => fault.to_string(),
            Self::Internal(_) => "internal error".into(),
        }
    }

    /// The names in a denial, for programs.
    pub(super) fn metadata(&self) -> Value {
        let Self::Denied(denied) = self else {
            return Value::Object(Map::new());
        };
        let mut metadata = Map::new();
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
            "nearest_route",
            denied.nearest.as_ref().map(|n| n.route.name.to_string()),
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
            DenyReason::NoRoute => format!("no route allows {call}; {}", self.remedy()),
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
            DenyReason::PartitionForeign => format!(
                "{route}allows {call} only in the partition of the verified user; take its name from the user's own token (SCIM Me through this sidecar, or the e-mail address)"
            ),
            DenyReason::FollowUpForeign => {
                format!("{call} names an id that somebody else's call created")
            }
            DenyReason::FollowUpUnknown => format!(
                "{call} names an id that no call through this sidecar created, so what it stands for is not known here; a route that names the operation as the user lets the workspace decide"
            ),
            DenyReason::Presigned => format!(
                "{call} hands out storage URLs that bypass the sidecar (outbound.presigned)"
            ),
            DenyReason::PathEscape => {
                format!("the path of {call} holds escapes that no operation admits")
            }
        };
        let words: Vec<String> = self.call.split(' ').map(shell_word).collect();
        format!(
            "{why}; see: valetkey explain --as {} {}",
            self.caller,
            words.join(" ")
        )
    }
}

impl DeniedCall {
    /// What would let the call through.
    fn remedy(&self) -> String {
        match (&self.nearest, self.resources.first(), &self.operation) {
            (Some(nearest), _, _) => format!(
                "the nearest route is `{}` ({}): change it or add one",
                nearest.route.name,
                nearest.differences()
            ),
            (None, Some(resource), _) => {
                let resource = resource.split(' ').next().unwrap_or_default();
                format!("add a route with `resource: {resource}`")
            }
            (None, None, Some(operation)) => format!("add a route with `operation: {operation}`"),
            (None, None, None) => "add a route with its `method`, `path` and `scope`".to_owned(),
        }
    }
}

/// A word that may be pasted into a shell: method and path are the agent's, and `$(…)` may stand in both.
fn shell_word(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._:~%,=@+-".contains(&b);
    if word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

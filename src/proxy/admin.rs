//! The admin listener: `/metrics`, `/livez`, `/readyz`, `/status` (PRODUCT 3 and 8).
//!
//! Answered by the sidecar itself on exact paths, never proxied. Has no type that holds a secret.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::domain::clock::Timestamp;
use crate::domain::route::PolicyOrigin;
use crate::runtime::agent_gate::AgentState;
use crate::runtime::app_tokens::AppTokenStatus;
use crate::runtime::http_client::{Body, full};

use super::{Proxy, UserMode};

/// Where the listeners are.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For the front door.
    pub inbound: SocketAddr,
    /// For the agent.
    pub outbound: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

/// Whether the agent is kept from walking around the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// `off`, `confined`, `unavailable` or `in_vain`.
    pub state: &'static str,
    /// How far, or why not.
    pub detail: String,
}

/// What the admin listener answers from.
pub struct Admin {
    proxy: Arc<Proxy>,
    addresses: Addresses,
    started: Timestamp,
    /// Why the last reload was refused; the policy before it is in force.
    refused_reload: Mutex<Option<String>>,
    /// Known once a child is started; never, where there is none.
    confinement: OnceLock<Confinement>,
    /// Whose identity every request without a token gets; never set but by `dev`.
    development: OnceLock<String>,
}

/// One line of `/readyz`.
struct Check {
    name: &'static str,
    ready: bool,
    detail: String,
}

impl Admin {
    /// `started` is the moment of the start.
    pub fn new(proxy: Arc<Proxy>, addresses: Addresses, started: Timestamp) -> Self {
        Self {
            proxy,
            addresses,
            started,
            refused_reload: Mutex::new(None),
            confinement: OnceLock::new(),
            development: OnceLock::new(),
        }
    }

    /// Notes how the last reload went.
    pub fn reloaded(&self, refused: Option<String>) {
        *self
            .refused_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = refused;
    }

    /// Notes how the child is started; there is one in a life.
    pub fn confined(&self, confinement: Confinement) {
        // A second child there is not; the first word stands.
        let _ = self.confinement.set(confinement);
    }

    /// Notes that the front door is played, and by whom.
    pub fn develops(&self, identity: String) {
        // There is one in a life.
        let _ = self.development.set(identity);
    }

    /// Answers one request.
    pub fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => {
                let mut response = Response::new(full(self.proxy.sinks.metrics.render()));
                response.headers_mut().insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
                );
                response
            }
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readyz(),
            "/status" => document(StatusCode::OK, &self.status()),
            _ => text(
                StatusCode::NOT_FOUND,
                "served here: /metrics /livez /readyz /status\n",
            ),
        }
    }

    fn readyz(&self) -> Response<Body> {
        let checks = self.checks();
        let ready = checks.iter().all(|check| check.ready);
        let list: Vec<Value> = checks
            .iter()
            .map(|c| json!({"name": c.name, "ready": c.ready, "detail": c.detail}))
            .collect();
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        document(status, &json!({"ready": ready, "checks": list}))
    }

    fn checks(&self) -> Vec<Check> {
        let agent = self.proxy.gate.state();
        let audit = self.proxy.sinks.audit.status();
        let keys = self.proxy.verifier.keys().status();
        let mut checks = vec![
            Check {
                name: "agent",
                ready: agent == AgentState::Ready,
                detail: agent_word(agent).into(),
            },
            Check {
                name: "audit",
                ready: audit.healthy,
                detail: audit
                    .last_error
                    .as_deref()
                    .filter(|_| !audit.healthy)
                    .unwrap_or("writable")
                    .into(),
            },
        ];
        if self.proxy.settings.user != UserMode::None {
            let detail = keys
                .last_error
                .clone()
                .unwrap_or_else(|| format!("{} keys", keys.keys));
            checks.push(Check {
                name: "issuer",
                ready: keys.keys > 0,
                detail,
            });
        }
        checks.push(match self.proxy.credentials.app().status() {
            AppTokenStatus::NotConfigured => Check {
                name: "app_credential",
                ready: true,
                detail: "not configured: routes that run as the app are refused".into(),
            },
            AppTokenStatus::Untried => Check {
                name: "app_credential",
                ready: true,
                detail: "not used yet".into(),
            },
            AppTokenStatus::Working => Check {
                name: "app_credential",
                ready: true,
                detail: "working".into(),
            },
            AppTokenStatus::Failing {
                scopes,
                fault,
                serving,
            } => Check {
                name: "app_credential",
                ready: serving,
                detail: format!("scopes `{scopes}`: {fault}"),
            },
        });
        checks
    }

    fn status(&self) -> Value {
        let snapshot = self.proxy.snapshot.load();
        let audit = self.proxy.sinks.audit.status();
        let keys = self.proxy.verifier.keys().status();
        let upstreams: Vec<Value> = { self.proxy.upstreams.iter() }
            .map(|u| json!({"name": &*u.name, "app": &*u.app, "url": u.origin.to_string(), "path": format!("{}/", u.prefix())}))
            .collect();
        let hint = (snapshot.policy.origin() == PolicyOrigin::Starter)
            .then_some("the built-in starter policy is in force: every operation but those of admin effect, as whoever calls; next step: write routes from the audit log (`valetkey learn`)");
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started": self.started.to_string(),
            "listeners": {
                "inbound": self.addresses.inbound.to_string(),
                "outbound": self.addresses.outbound.to_string(),
                "admin": self.addresses.admin.to_string(),
            },
            "workspace": self.proxy.workspace_origin.to_string(),
            "upstreams": upstreams,
            "agent": agent_word(self.proxy.gate.state()),
            "development": self.development.get(),
            "confinement": self.confinement.get().map(|c| json!({"state": c.state, "detail": c.detail})),
            "policy": {
                "origin": snapshot.policy.origin().as_str(),
                "observed_until": snapshot.policy.observed_until().map(|until| until.to_string()),
                "routes": snapshot.policy.routes().len(),
                "loaded": snapshot.version,
                "catalog": snapshot.policy.catalog().version(),
                "refused_reload": *self.refused_reload.lock().unwrap_or_else(PoisonError::into_inner),
                "hint": hint,
            },
            "sessions": self.proxy.sessions.len(),
            "issuer": {"issuer": keys.issuer.as_deref(), "keys": keys.keys, "age_seconds": keys.age_seconds, "last_error": keys.last_error},
            "app_credential": format!("{:?}", self.proxy.credentials.app().status()),
            "audit": {
                "healthy": audit.healthy,
                "last_error": audit.last_error.as_deref(),
                "seq": audit.seq,
                "head": audit.head.to_string(),
                "key_id": audit.key.map(|key| key.id()),
                "public_key": audit.key.map(|key| key.to_string()),
                "written": audit.written,
                "failed": audit.failed,
            },
        })
    }
}

fn agent_word(state: AgentState) -> &'static str {
    match state {
        AgentState::Starting => "starting",
        AgentState::Ready => "ready",
        AgentState::Gone => "gone",
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn document(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(full(format!("{body:#}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

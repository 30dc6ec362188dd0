//! The shared parts of both flows, and the transport envelope around them.
//!
//! The envelope (sensitive marks, in-flight limit, panic catch) carries no data that a decision needs; every step of a flow is
//! a line in `proxy/inbound.rs` or `proxy/outbound.rs`. Here, and only here, an error becomes an answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower::{ServiceExt as _, service_fn};
use tower_http::catch_panic::CatchPanic;
use tower_http::sensitive_headers::SetSensitiveRequestHeaders;
use uuid::Uuid;

use crate::domain::clock::{Clock, SignedDuration};
use crate::domain::destination::Upstreams;
use crate::domain::headers::{self, IdentityHeaders};
use crate::domain::identity::Origin;
use crate::domain::policy::Policy;
use crate::domain::scope::ScopeSet;
use crate::domain::template::PathTemplate;
use crate::runtime::agent_gate::AgentGate;
use crate::runtime::credential::CredentialSource;
use crate::runtime::follow_up::FollowUps;
use crate::runtime::http_client::Body;
use crate::runtime::lingering::linger;
use crate::runtime::listener::{Answer, Peer, Service};
use crate::runtime::metrics::{Direction, Metrics};
use crate::runtime::session::SessionTable;
use crate::runtime::upstream::{Door, Doors};
use crate::runtime::verifier::Verifier;

use self::connect::Forward;
use self::error::ProxyError;
use self::local_oidc::LocalOidc;
use self::record::{RequestRecord, Sinks};
use self::way::{StandIn, Way};

pub mod admin;
pub mod answered;
pub mod body;
pub mod connect;
pub mod error;
pub mod inbound;
pub mod local_oidc;
pub mod outbound;
pub mod partition;
pub mod record;
pub mod refusal;
pub mod sending;
pub mod tap;
pub mod target;
pub mod tunnel;
pub mod way;

/// Whether a request needs a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserMode {
    /// No request without a valid token.
    Required,
    /// A session where there is a token, nobody where there is none.
    Optional,
    /// Never a session; a token that comes all the same must be valid.
    None,
}

/// What changes at a reload: swapped as a whole, and one request sees one snapshot.
pub struct Snapshot {
    /// The routes in force.
    pub policy: Policy,
    /// The ceiling of every session (`users.scopes`); `None` leaves a token's scopes as they are.
    pub ceiling: Option<ScopeSet>,
    /// The scopes of which a user needs at least one.
    pub user_scopes: ScopeSet,
    /// Counts loads, from 1.
    pub version: u64,
}

impl Snapshot {
    /// A snapshot of a compiled policy.
    pub fn new(policy: Policy, ceiling: Option<ScopeSet>, version: u64) -> Self {
        let user_scopes = policy.user_scopes();
        Self {
            policy,
            ceiling,
            user_scopes,
            version,
        }
    }

    /// What the app declares for its users, as far as the configuration says: the ceiling, which has no use beyond that.
    pub fn declared(&self) -> Option<&ScopeSet> {
        self.ceiling.as_ref()
    }

    /// What of these scopes a session may hold.
    pub fn under_ceiling(&self, scopes: &ScopeSet) -> ScopeSet {
        self.ceiling
            .as_ref()
            .map_or_else(|| scopes.clone(), |ceiling| scopes.meet(ceiling))
    }
}

/// The settings of the two flows that never change while the process runs.
pub struct FlowSettings {
    /// `inbound.user`.
    pub user: UserMode,
    /// `inbound.public`.
    pub public: Vec<PathTemplate>,
    /// From `inbound.token_header` and `inbound.pass_authorization`.
    pub identity_headers: IdentityHeaders,
    /// The workspace id, for query parameters that choose one.
    pub workspace_id: Option<String>,
    /// `users.session.expiry_warning`.
    pub expiry_warning: SignedDuration,
    /// `limits.inspected_body_bytes`.
    pub inspected_body_bytes_max: usize,
    /// `limits.request_target_bytes`.
    pub target_bytes_max: usize,
    /// The outbound listener's own address: the only `Host` it answers to.
    pub outbound_address: SocketAddr,
}

/// Everything both flows borrow.
pub struct Proxy {
    /// See [`FlowSettings`].
    pub settings: FlowSettings,
    /// The policy in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// Live sessions.
    pub sessions: SessionTable,
    /// User tokens → verified tokens.
    pub verifier: Verifier,
    /// Grants → credentials.
    pub credentials: CredentialSource,
    /// Ids that answers gave out.
    pub follow_ups: FollowUps,
    /// Audit and metrics.
    pub sinks: Sinks,
    /// The ways that real credentials go: to the workspace and to the upstreams.
    pub doors: Doors,
    /// The time of day: an observed policy ends at its date.
    pub clock: Arc<dyn Clock>,
    /// Where the workspace is, for `Location` headers and `/status`.
    pub workspace_origin: Origin,
    /// `outbound.upstreams`.
    pub upstreams: Upstreams,
    /// The way to the agent.
    pub agent: Door,
    /// Whether the agent accepts connections.
    pub gate: AgentGate,
    /// The answers that the sidecar gives itself.
    pub local: LocalOidc,
    /// `outbound.forward`.
    pub forward: Option<Arc<Forward>>,
    /// Upgraded connections of inbound, which the listeners do not track.
    pub tunnels: TaskTracker,
    /// Free places for requests: inbound, outbound.
    pub slots: [Semaphore; 2],
}

/// The flow of one direction as a function of the listener.
pub fn service(proxy: &Arc<Proxy>, direction: Direction) -> Service {
    let proxy = Arc::clone(proxy);
    Arc::new(move |request, peer| one(&proxy, request, peer, direction, Way::direct(peer)))
}

/// The outbound flow inside a tunnel.
pub fn inside(proxy: Arc<Proxy>, there: Arc<StandIn>) -> Service {
    Arc::new(move |request, peer| {
        let way = Way::Inside(Arc::clone(&there));
        one(&proxy, request, peer, Direction::Outbound, way)
    })
}

fn one(
    proxy: &Arc<Proxy>,
    request: Request<Incoming>,
    peer: Peer,
    direction: Direction,
    way: Way,
) -> Answer {
    let call = Uuid::now_v7();
    let metrics = proxy.sinks.metrics.clone();
    let proxy = Arc::clone(proxy);
    envelope(request, call, metrics, move |request| {
        let (proxy, way) = (Arc::clone(&proxy), way.clone());
        async move {
            let record = RequestRecord::open(proxy.sinks.clone(), direction, call);
            serve(&proxy, request, (peer, way), record).await
        }
    })
}

/// Marks what must not be printed, and makes a panic of the flow an answer that still names the call.
fn envelope<B, F>(
    request: Request<B>,
    call: Uuid,
    metrics: Metrics,
    mut flow: impl FnMut(Request<B>) -> F + Send + 'static,
) -> Answer
where
    B: Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let flow = service_fn(move |request| flow(request).map(Ok::<_, Infallible>));
    let caught = CatchPanic::custom(flow, move |_panic| panic_answer(&metrics, call));
    let marked = SetSensitiveRequestHeaders::new(caught, headers::SENSITIVE);
    // A combinator, not an async block: inside one the compiler can no longer show that the future is `Send`.
    Box::pin(marked.oneshot(request).map(|answer| match answer {
        Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
        Err(never) => match never {},
    }))
}

/// One request, from its head to the head of its answer. The record closes with the body.
async fn serve(
    proxy: &Arc<Proxy>,
    request: Request<Incoming>,
    (peer, way): (Peer, Way),
    mut record: RequestRecord,
) -> Response<Body> {
    let direction = record.direction();
    let (method, uri) = (request.method(), request.uri());
    let place = uri.authority().filter(|_| connect::asks(method));
    let place = place.and_then(|place| place.as_str().rsplit('@').next());
    let asked = place.unwrap_or_else(|| uri.path());
    record.asks(method, asked, request.headers());
    let request = linger(request);
    let id = Arc::clone(record.request_id());
    let [inbound_slots, outbound_slots] = &proxy.slots;
    let slots = if direction == Direction::Inbound {
        inbound_slots
    } else {
        outbound_slots
    };
    let mut response = match slots.try_acquire() {
        Err(_) => record.refused(&ProxyError::Overloaded, None),
        Ok(slot) => {
            let response = match direction {
                Direction::Inbound => inbound::answer(proxy, request, peer, record).await,
                Direction::Outbound => match (&proxy.forward, &way) {
                    (Some(forward), Way::Direct { .. }) if connect::asks(request.method()) => {
                        connect::answer(proxy, forward, request, peer, record).await
                    }
                    (_, _) => outbound::answer(proxy, request, &way, record).await,
                },
            };
            // The place is taken until the head of the answer: streams are bounded by the connections.
            drop(slot);
            response
        }
    };
    if direction == Direction::Inbound
        && let Ok(id) = HeaderValue::from_str(&id)
    {
        response
            .headers_mut()
            .entry(headers::REQUEST_ID)
            .or_insert(id);
    }
    response
}

/// The panic itself was told by the process's hook; the record closed itself while unwinding.
fn panic_answer(metrics: &Metrics, call: Uuid) -> Response<Body> {
    metrics.panic();
    tracing::error!(request_id = %call, "a request panicked: a fault of this program");
    ProxyError::Internal("a request panicked").to_response(&call.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[tokio::test]
    async fn a_panic_is_one_500_that_names_the_call_and_is_counted() {
        let (call, metrics) = (Uuid::now_v7(), Metrics::new().unwrap());
        let flow = |_request: Request<()>| async { panic!("the canary of a panic") };
        let answer = envelope(Request::new(()), call, metrics.clone(), flow).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let named = answer.headers().get(headers::REQUEST_ID).unwrap();
        assert_eq!(named, call.to_string().as_str());
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(
            text.contains(&call.to_string()) && !text.contains("canary"),
            "{text}"
        );
        assert!(metrics.render().contains("valetkey_panics_total 1"));
    }
}

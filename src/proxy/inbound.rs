//! The inbound story: a person reaches the agent (PRODUCT 5, ARCHITECTURE 5.1).
//!
//! Read `serve` from top to bottom: each line is one step, in the order that is the security property. Strip, verify,
//! downscope, open a session, set identity, forward.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::domain::audit::{Event, Record, Text, User};
use crate::domain::headers::{self, Claimed, Taken, VerifiedIdentity};
use crate::domain::path::CanonicalPath;
use crate::domain::scope::ScopeSet;
use crate::domain::secret::Secret;
use crate::domain::token::VerifiedToken;
use crate::domain::token::fault::TokenFault;
use crate::runtime::agent_gate::AgentState;
use crate::runtime::http_client::{Body, SendFault};
use crate::runtime::listener::Peer;
use crate::runtime::session::lease::Lease;
use crate::runtime::session::{Session, SessionFault};
use crate::runtime::upstream::{self, AgentIdentity, AgentRequest};
use crate::runtime::verifier::VerifyFault;

use super::body::{BodyFault, is_senders_doing, without_trailers};
use super::error::ProxyError;
use super::record::RequestRecord;
use super::{Proxy, Snapshot, UserMode, tunnel};

/// Serves one inbound request; errors become answers here.
pub async fn answer(
    proxy: &Arc<Proxy>,
    request: Request<Body>,
    peer: Peer,
    mut record: RequestRecord,
) -> Response<Body> {
    match serve(proxy, request, peer, &mut record).await {
        Ok(response) => record.answered(response, None),
        Err(error) => record.refused(&error, None),
    }
}

async fn serve(
    proxy: &Arc<Proxy>,
    request: Request<Body>,
    peer: Peer,
    record: &mut RequestRecord,
) -> Result<Response<Body>, ProxyError> {
    let snapshot = proxy.snapshot.load_full();
    let (mut parts, body) = request.into_parts();
    check_head(proxy, &parts)?;
    let upgrade = take_websocket(&mut parts);
    headers::strip_hop_by_hop(&mut parts.headers);
    let taken = proxy.settings.identity_headers.take(&mut parts.headers)?;
    let admitted = admit(proxy, &snapshot, &parts, taken, peer.remote, record).await?;
    if proxy.gate.state() != AgentState::Ready {
        return Err(ProxyError::AgentNotReady);
    }
    if upgrade.is_some() {
        ask_for_websocket(&mut parts.headers);
    }
    correlate(&mut parts.headers, record.request_id());
    let request = agent_request(proxy, &snapshot, parts, body, &admitted)?;
    let mut response = match record
        .waiting(upstream::to_agent(&proxy.agent, request))
        .await
    {
        Ok(response) => response,
        Err(fault) => {
            if matches!(fault, SendFault::Connect(_)) {
                proxy.gate.lost();
            }
            return Err(if is_senders_doing(&fault) {
                BodyFault::Broken.into()
            } else {
                ProxyError::Agent(fault)
            });
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return join(proxy, upgrade, response, admitted);
    }
    headers::clean_agent_answer(response.headers_mut());
    Ok(response.map(|body| {
        Leased {
            body,
            _admitted: admitted,
        }
        .boxed_unsync()
    }))
}

/// Who was let in.
enum Admitted {
    /// A user, with what the agent is told of them.
    User(Box<AdmittedUser>),
    /// Nobody: a public path, or no token where none is required.
    Anonymous,
}

struct AdmittedUser {
    lease: Lease,
    token: Secret,
    claimed: Claimed,
}

fn check_head(proxy: &Proxy, parts: &Parts) -> Result<(), ProxyError> {
    headers::check_head(&parts.method, &parts.uri, parts.version, &parts.headers)?;
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > proxy.settings.target_bytes_max {
        Err(ProxyError::TargetTooLong)
    } else {
        Ok(())
    }
}

/// Not presented, refused, or verified: a token that is there is never ignored, in any mode and on any path.
async fn admit(
    proxy: &Proxy,
    snapshot: &Snapshot,
    parts: &Parts,
    taken: Taken,
    remote: SocketAddr,
    record: &mut RequestRecord,
) -> Result<Admitted, ProxyError> {
    let Taken { token, claimed } = taken;
    let Some(token) = token else {
        let open = proxy.settings.user != UserMode::Required || is_public(proxy, parts);
        return if open {
            Ok(Admitted::Anonymous)
        } else {
            Err(ProxyError::Token(TokenFault::Missing))
        };
    };
    let raw = token
        .to_str()
        .map_err(|_| ProxyError::Token(TokenFault::Malformed("it is not ASCII")))?;
    // A chat UI of the agent calls the agent's own API with the token it was given (PRODUCT 5.3).
    if remote.ip().is_loopback()
        && let Some(lease) = proxy.sessions.rejoin(raw)
    {
        record.on_behalf_of(lease.session().user(), lease.session().label());
        return Ok(Admitted::User(Box::new(AdmittedUser {
            lease,
            token: Secret::new(raw.to_owned()),
            claimed,
        })));
    }
    let verified = record
        .waiting(proxy.verifier.verify(raw))
        .await
        .map_err(verify_error)?;
    if proxy.settings.user == UserMode::None {
        return Ok(Admitted::Anonymous);
    }
    let opened = downscope(snapshot, &verified)
        .and_then(|scopes| {
            proxy
                .sessions
                .open(&verified, &scopes)
                .map_err(|fault| session_error(&fault))
        })
        // Refused for what the user holds, not for who it is: the record names the user.
        .inspect_err(|_| record.by(User::of(&verified)))?;
    let session = opened.lease.session();
    record.on_behalf_of(session.user(), session.label());
    if opened.fresh {
        proxy
            .sinks
            .audit
            .note(session_record(Event::SessionOpened, session));
    }
    Ok(Admitted::User(Box::new(AdmittedUser {
        lease: opened.lease,
        token: opened.token,
        claimed,
    })))
}

/// Matched on the canonical path only: a path with two readings is never public (SECURITY R10).
fn is_public(proxy: &Proxy, parts: &Parts) -> bool {
    let public = &proxy.settings.public;
    !public.is_empty()
        && CanonicalPath::parse(parts.uri.path())
            .is_ok_and(|path| public.iter().any(|template| template.matches(&path)))
}

fn verify_error(fault: VerifyFault) -> ProxyError {
    match fault {
        VerifyFault::Token(fault) => ProxyError::Token(fault),
        VerifyFault::Keys(fault) => ProxyError::Issuer(fault.to_string()),
    }
}

fn session_error(fault: &SessionFault) -> ProxyError {
    match fault {
        SessionFault::Full => ProxyError::SessionsFull,
        SessionFault::Sign => ProxyError::Internal("a session token could not be signed"),
    }
}

fn downscope(snapshot: &Snapshot, verified: &VerifiedToken) -> Result<ScopeSet, ProxyError> {
    let scopes = snapshot.under_ceiling(verified.scopes());
    let useless = !snapshot.user_scopes.is_empty() && scopes.meet(&snapshot.user_scopes).is_empty();
    if useless {
        Err(ProxyError::NoScopes)
    } else {
        Ok(scopes)
    }
}

fn agent_request(
    proxy: &Proxy,
    snapshot: &Snapshot,
    parts: Parts,
    body: Body,
    admitted: &Admitted,
) -> Result<AgentRequest, ProxyError> {
    let names = &proxy.settings.identity_headers;
    let body = without_trailers(body);
    let request = match admitted {
        Admitted::Anonymous => {
            AgentRequest::new(&proxy.agent, names, parts, body, AgentIdentity::Anonymous)
        }
        Admitted::User(user) => {
            let session = user.lease.session();
            let verified = session.token();
            let scopes = snapshot.under_ceiling(&session.scopes()).to_string();
            let identity = VerifiedIdentity {
                user: verified.subject().as_str(),
                email: verified.email().map(|email| email.as_str()),
                preferred_username: verified.name(),
                scopes: &scopes,
            };
            let identity = AgentIdentity::Session {
                token: &user.token,
                verified: identity,
                claimed: &user.claimed,
                expires: verified.expires(),
            };
            AgentRequest::new(&proxy.agent, names, parts, body, identity)
        }
    };
    request.ok_or(ProxyError::Internal(
        "a request for the agent could not be made",
    ))
}

/// The front door's request id stays; a request without one gets ours.
fn correlate(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.entry(headers::REQUEST_ID).or_insert(id);
    }
}

/// A WebSocket handshake (RFC 6455 section 4.1) is the only upgrade that passes; any other `Upgrade` is stripped.
fn take_websocket(parts: &mut Parts) -> Option<OnUpgrade> {
    let wants = |name, word: &str| {
        let values = parts
            .headers
            .get_all(name)
            .iter()
            .filter_map(|v: &HeaderValue| v.to_str().ok());
        values
            .flat_map(|v| v.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    let handshake = parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && wants(UPGRADE, "websocket")
        && wants(CONNECTION, "upgrade");
    if handshake {
        parts.extensions.remove::<OnUpgrade>()
    } else {
        None
    }
}

fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
}

/// Joins both sides once the agent has agreed to an upgrade that was asked for (SECURITY R14). The session lives as long as
/// the tunnel.
fn join(
    proxy: &Arc<Proxy>,
    upgrade: Option<OnUpgrade>,
    mut response: Response<Body>,
    admitted: Admitted,
) -> Result<Response<Body>, ProxyError> {
    let Some(client) = upgrade else {
        let cause = "the agent switched protocols unasked";
        return Err(ProxyError::Agent(SendFault::Broken(cause.into())));
    };
    let agent = hyper::upgrade::on(&mut response);
    proxy.tunnels.spawn(async move {
        let joined = tokio::try_join!(client, agent);
        if let Ok((client, agent)) = joined {
            let lease = match &admitted {
                Admitted::User(user) => Some(&user.lease),
                Admitted::Anonymous => None,
            };
            tunnel::relay(TokioIo::new(client), TokioIo::new(agent), lease).await;
        }
    });
    headers::clean_agent_answer(response.headers_mut());
    ask_for_websocket(response.headers_mut());
    Ok(response)
}

/// A record about a session itself.
pub fn session_record(event: Event, session: &Session) -> Record {
    let mut record = Record::new(event);
    record.user = Some(Arc::<User>::clone(session.user()));
    record.session = Some(Text::Shared(Arc::clone(session.label())));
    record
}

/// The agent's answer; the session lives until its last byte has gone.
struct Leased {
    body: Body,
    _admitted: Admitted,
}

impl http_body::Body for Leased {
    type Data = bytes::Bytes;
    type Error = crate::runtime::http_client::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

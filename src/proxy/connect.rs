//! The story of CONNECT (`outbound.forward`): who may ask, where it leads, and what the tunnel is.
//!
//! A tunnel to the workspace or an upstream ends here, behind a certificate of our own: the calls inside are outbound calls
//! like any other, with their own records. A tunnel to a listed host is carried as it is, with one record for all of it. Every
//! other one is refused. CONNECT carries no token; it must come from this machine and from no web page (SECURITY R15, R27).

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::domain::address::Kind;
use crate::domain::headers::{self, HeadFault};
use crate::domain::tunnel::{AllowedHosts, Place, PlaceFault};
use crate::runtime::audit_writer::Receipt;
use crate::runtime::http_client::{Body, empty};
use crate::runtime::listener::{Peer, Serving};
use crate::runtime::tunnel::{self, Ended, TunnelFault};

use super::error::ProxyError;
use super::record::RequestRecord;
use super::record::tunnelled::Tunnelled;
use super::sending::Failed;
use super::way::StandIn;
use super::{Proxy, inside};

/// Why a tunnel was refused; its text is what the agent is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFault {
    /// Nothing that can be connected to.
    #[error("CONNECT names no place: {0}")]
    Place(#[from] PlaceFault),
    /// Neither the workspace nor an upstream nor listed.
    #[error(
        "CONNECT to {0} is refused: it is neither the workspace nor an upstream; list it in outbound.allow_hosts if the agent needs it"
    )]
    NotListed(Place),
    /// Listed, but it leads to an address of a kind that is not.
    #[error(
        "CONNECT to {0} is refused: it leads to {kind}; list the address itself (or a network of private ones) in outbound.allow_hosts if the agent needs it",
        kind = .1.as_str()
    )]
    Address(Place, Kind),
}

/// Everything that forward mode needs.
pub struct Forward {
    /// The hosts that tunnels end here for.
    pub stand_ins: Vec<Arc<StandIn>>,
    /// `outbound.allow_hosts`.
    pub allowed: AllowedHosts,
    /// Free places for tunnels.
    pub slots: Arc<Semaphore>,
    /// `limits.connect_time`.
    pub connect_time: Duration,
    /// `limits.tunnel_idle_time`.
    pub idle_time: Duration,
    /// Serves what is inside; ends with the outbound listener.
    pub serving: Serving,
    /// Where tunnels are counted until they have ended.
    pub tasks: TaskTracker,
}

/// A tunnel that may be, before the client knows.
struct Opening {
    upgrade: OnUpgrade,
    slot: OwnedSemaphorePermit,
    far: Far,
}

/// Where it ends.
enum Far {
    /// Here: the calls inside are ours to serve.
    Here(Arc<StandIn>),
    /// There, with the receipt of its record.
    There(TcpStream, Receipt),
}

/// Answers one CONNECT.
pub async fn answer(
    proxy: &Arc<Proxy>,
    forward: &Arc<Forward>,
    request: Request<Body>,
    peer: Peer,
    mut record: RequestRecord,
) -> Response<Body> {
    let Opening { upgrade, slot, far } =
        match Box::pin(forward.open(request, peer, &mut record)).await {
            Ok(opening) => opening,
            Err(Failed { error, receipt }) => {
                let mut response = record.refused(&error, receipt);
                // Whatever the client sends behind a refused CONNECT is meant for somebody else.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
                return response;
            }
        };
    match far {
        Far::Here(there) => {
            forward.end_here(proxy, there, upgrade, peer, slot);
            record.answered(Response::new(empty()), None)
        }
        Far::There(far, receipt) => {
            Arc::clone(forward).carry(upgrade, far, record.tunnelled(receipt), slot);
            Response::new(empty())
        }
    }
}

/// Only a client on this machine, not a page in some browser; one authority, no body.
fn check(parts: &Parts, peer: Peer) -> Result<Place, ProxyError> {
    let target = match (parts.version, parts.uri.authority()) {
        (Version::HTTP_10 | Version::HTTP_11, Some(authority)) if parts.uri.scheme().is_none() => {
            authority
        }
        (_, _) => return Err(HeadFault::Form.into()),
    };
    headers::framing::check_bodiless(&parts.headers)?;
    if !peer.remote.ip().is_loopback() {
        return Err(ProxyError::NotLocal(
            "CONNECT is served to this machine only",
        ));
    }
    if headers::is_cross_site(&parts.headers) {
        return Err(ProxyError::NotLocal(
            "requests from web pages are not served here",
        ));
    }
    let place = Place::parse(target.as_str()).map_err(ConnectFault::from)?;
    // HTTP/1.0 has no `Host` to be there; one that is there agrees, with the port or without.
    let mut hosts = parts.headers.get_all(HOST).iter();
    let agrees = |host: &HeaderValue| {
        let host = host.to_str().ok().and_then(|h| h.parse::<Authority>().ok());
        host.is_some_and(|host| {
            host.host().eq_ignore_ascii_case(target.host())
                && host.port_u16().is_none_or(|port| port == place.port)
        })
    };
    match (parts.version, hosts.next(), hosts.next()) {
        (Version::HTTP_10, None, _) => Ok(place),
        (_, Some(host), None) if agrees(host) => Ok(place),
        (_, _, _) => Err(HeadFault::Host.into()),
    }
}

/// Whether this request asks for a tunnel.
pub fn asks(method: &Method) -> bool {
    *method == Method::CONNECT
}

impl Forward {
    fn slot(&self) -> Result<OwnedSemaphorePermit, ProxyError> {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        slot.map_err(|_| ProxyError::Overloaded)
    }

    fn stands_in_for(&self, place: &Place) -> Option<Arc<StandIn>> {
        self.stand_ins.iter().find(|s| s.place == *place).cloned()
    }

    async fn open(
        &self,
        request: Request<Body>,
        peer: Peer,
        record: &mut RequestRecord,
    ) -> Result<Opening, Failed> {
        let (mut parts, _body) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let place = check(&parts, peer)?;
        let upgrade = upgrade.ok_or(HeadFault::Form)?;
        let slot = self.slot()?;
        let far = match self.stands_in_for(&place) {
            Some(there) => Far::Here(there),
            None => {
                let (far, receipt) = self.reach(&place, record).await?;
                Far::There(far, receipt)
            }
        };
        Ok(Opening { upgrade, slot, far })
    }

    /// Carries what nobody looks into, with its record on its back.
    fn carry(
        self: Arc<Self>,
        upgrade: OnUpgrade,
        far: TcpStream,
        record: Tunnelled,
        slot: OwnedSemaphorePermit,
    ) {
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            let ended = match upgrade.await {
                Ok(near) => {
                    let (near, counts) = (TokioIo::new(near), record.counts());
                    tunnel::relay(near, far, counts, self.idle_time, self.serving.stop()).await
                }
                Err(_) => Ended::Broken,
            };
            record.ended(ended);
            drop(slot);
        });
    }

    /// The calls inside are ours to serve.
    fn end_here(
        &self,
        proxy: &Arc<Proxy>,
        there: Arc<StandIn>,
        upgrade: OnUpgrade,
        peer: Peer,
        slot: OwnedSemaphorePermit,
    ) {
        let (serving, by) = (self.serving.clone(), self.serving.first_head_by());
        let tls = Arc::clone(&there.tls);
        let service = inside(Arc::clone(proxy), there);
        self.tasks.spawn(async move {
            if let Ok(stream) = upgrade.await {
                let stream = Box::new(TokioIo::new(stream));
                serving.secured(stream, by, tls, peer, service).await;
            }
            drop(slot);
        });
    }

    /// Resolves once, checks every address, writes the intent, and connects to what was checked.
    async fn reach(
        &self,
        place: &Place,
        record: &mut RequestRecord,
    ) -> Result<(TcpStream, Receipt), Failed> {
        if !self.allowed.names(place) {
            return Err(ProxyError::from(ConnectFault::NotListed(place.clone())).into());
        }
        let limit = self.connect_time;
        let found = record.waiting(tunnel::resolve(place, limit)).await;
        let mut addresses = found.map_err(ProxyError::Tunnel)?;
        let mut unlisted = None;
        addresses.retain(|address| match self.allowed.admits(*address) {
            Ok(()) => true,
            Err(kind) => {
                unlisted = Some(kind);
                false
            }
        });
        if let (true, Some(kind)) = (addresses.is_empty(), unlisted) {
            return Err(ProxyError::from(ConnectFault::Address(place.clone(), kind)).into());
        }
        record.permits_tunnel();
        let receipt = record.intend().await.map_err(ProxyError::from)?;
        let connected = tunnel::connect(&addresses, place.port, limit);
        match record.waiting(connected).await {
            Ok(far) => Ok((far, receipt)),
            Err(fault) => Err(Failed {
                error: ProxyError::Tunnel(fault),
                receipt: Some(receipt),
            }),
        }
    }
}

impl From<ConnectFault> for ProxyError {
    fn from(fault: ConnectFault) -> Self {
        Self::Connect(fault)
    }
}

impl From<TunnelFault> for ProxyError {
    fn from(fault: TunnelFault) -> Self {
        Self::Tunnel(fault)
    }
}

//! By which way a call came to the outbound side, and what the sidecar is called there.
//!
//! Directly to the listener the sidecar is itself, under http or https. Inside a tunnel that it ends itself it stands in for
//! the workspace or an upstream, and is called as they are: local answers and rewritten addresses then name them, so that the
//! agent stays in forward mode. Names come from the listener and the configuration, never from a `Host` header (SECURITY
//! R28). `connect.rs` makes the tunnels.

use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::Authority;
use rustls::ServerConfig;

use crate::domain::destination::{Destination, DestinationFault, Upstreams};
use crate::domain::identity::{Origin, is_loopback_host};
use crate::domain::path::CanonicalPath;
use crate::domain::tunnel::{HTTPS_PORT, Host, Place, PlaceFault};
use crate::runtime::listener::Peer;

use super::Proxy;
use super::local_oidc::LocalOidc;

/// What a `Host` without a port means in the clear.
const HTTP_PORT: u16 = 80;

/// By which way a call came.
#[derive(Debug, Clone)]
pub enum Way {
    /// To the listener, in the clear or not.
    Direct {
        /// Whether it is https.
        secure: bool,
    },
    /// Inside a tunnel.
    Inside(Arc<StandIn>),
}

/// A host that the sidecar stands in for, with a certificate of its own.
#[derive(Debug)]
pub struct StandIn {
    /// Where calls to it go.
    pub destination: Destination,
    /// What CONNECT names.
    pub place: Place,
    /// Serves as it.
    pub tls: Arc<ServerConfig>,
}

impl Way {
    /// Of a call that came to the listener.
    pub fn direct(peer: Peer) -> Self {
        Self::Direct {
            secure: peer.secure,
        }
    }

    /// Whether the sidecar answers this path itself; what an upstream has below `/.well-known/` is its own.
    pub fn is_local(&self, path: &str) -> bool {
        LocalOidc::owns(path)
            && !matches!(self, Self::Inside(s) if s.destination != Destination::Workspace)
    }

    /// Whether a `Host` is what the sidecar is called here.
    pub fn is_called(&self, outbound: SocketAddr, host: &str) -> bool {
        let Ok(host) = host.parse::<Authority>() else {
            return false;
        };
        match self {
            Self::Direct { secure } => {
                let default = if *secure { HTTPS_PORT } else { HTTP_PORT };
                is_loopback_host(host.host())
                    && host.port_u16().unwrap_or(default) == outbound.port()
            }
            Self::Inside(stand_in) => {
                host.port_u16().unwrap_or(HTTPS_PORT) == stand_in.place.port
                    && Host::parse(host.host()).is_ok_and(|host| host == stand_in.place.host)
            }
        }
    }

    /// Where a path leads, and the path there.
    ///
    /// # Errors
    /// [`DestinationFault`].
    pub fn read(
        &self,
        upstreams: &Upstreams,
        path: &str,
    ) -> Result<(Destination, CanonicalPath), DestinationFault> {
        match self {
            Self::Inside(stand_in) if stand_in.destination != Destination::Workspace => {
                Ok((stand_in.destination.clone(), CanonicalPath::parse(path)?))
            }
            Self::Inside(_) | Self::Direct { .. } => upstreams.read(path),
        }
    }

    /// What stands before a path of this destination in an address that the agent can use.
    pub fn address(&self, proxy: &Proxy, destination: &Destination) -> String {
        match (self, destination) {
            (Self::Direct { .. }, Destination::Workspace) => self.origin(proxy),
            (Self::Direct { .. }, Destination::Upstream(upstream)) => {
                format!("{}{}", self.origin(proxy), upstream.prefix())
            }
            (Self::Inside(_), Destination::Workspace) => https(&proxy.workspace_origin),
            (Self::Inside(_), Destination::Upstream(upstream)) => https(&upstream.origin),
        }
    }

    /// What the sidecar's own answers call it.
    pub fn origin(&self, proxy: &Proxy) -> String {
        match self {
            Self::Direct { secure } => direct_origin(proxy.settings.outbound_address, *secure),
            Self::Inside(_) => https(&proxy.workspace_origin),
        }
    }
}

/// The outbound listener's own origin.
pub fn direct_origin(outbound: SocketAddr, secure: bool) -> String {
    let scheme = if secure { "https" } else { "http" };
    format!("{scheme}://{outbound}")
}

/// What an origin is called inside a tunnel: always https, at the very port.
pub fn https(origin: &Origin) -> String {
    match origin.port() {
        HTTPS_PORT => format!("https://{}", origin.host()),
        port => format!("https://{}:{port}", origin.host()),
    }
}

/// What CONNECT names to get to an origin.
///
/// # Errors
/// When its host is none that a certificate can hold.
pub fn place(origin: &Origin) -> Result<Place, PlaceFault> {
    Ok(Place {
        host: Host::parse(origin.host())?,
        port: origin.port(),
    })
}

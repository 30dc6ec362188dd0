//! The typed doors: `forward` takes only a request that was granted, recorded and given a credential; `to_agent` only one that
//! carries a session or none at all.
//!
//! Hosts are pinned here and never taken from a request; which one a call goes to was decided with its grant, and its
//! credential goes through no other door. No redirect is followed. Knows no policy. `http_client.rs` is the
//! network.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, Version};

use crate::domain::clock::Timestamp;
use crate::domain::destination::Destination;
use crate::domain::headers::{self, Claimed, IdentityHeaders, VerifiedIdentity, token_end};
use crate::domain::identity::Origin;
use crate::domain::path::CanonicalPath;
use crate::domain::secret::Secret;

use super::audit_writer::Receipt;
use super::credential::Credential;
use super::http_client::{Body, HttpSend, SendFault};

/// A place that requests are forwarded to.
#[derive(Clone)]
pub struct Door {
    http: Arc<dyn HttpSend>,
    scheme: Scheme,
    authority: Authority,
}

/// The configured origin is no valid authority.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no valid host and port")]
pub struct BadOrigin(String);

impl Door {
    /// The door to the workspace, or to an upstream.
    ///
    /// # Errors
    /// When the origin cannot be an HTTP authority.
    pub fn to_origin(http: Arc<dyn HttpSend>, origin: &Origin) -> Result<Self, BadOrigin> {
        let authority = origin
            .authority()
            .parse()
            .map_err(|_| BadOrigin(origin.authority().to_owned()))?;
        let scheme = if origin.scheme() == "http" {
            Scheme::HTTP
        } else {
            Scheme::HTTPS
        };
        Ok(Self {
            http,
            scheme,
            authority,
        })
    }

    /// The door to the agent: plain HTTP on this machine.
    ///
    /// # Errors
    /// When the address has no authority.
    pub fn to_agent_at(http: Arc<dyn HttpSend>, agent: &Uri) -> Result<Self, BadOrigin> {
        let authority = agent
            .authority()
            .cloned()
            .ok_or_else(|| BadOrigin(agent.to_string()))?;
        Ok(Self {
            http,
            scheme: Scheme::HTTP,
            authority,
        })
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    fn uri(&self, path: &str, query: Option<&str>) -> Option<Uri> {
        let target = match query {
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
            None => PathAndQuery::try_from(path),
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target.ok()?)
            .build()
            .ok()
    }
}

/// The doors that real credentials go through.
pub struct Doors {
    workspace: Door,
    /// By the upstream's name.
    upstreams: BTreeMap<Arc<str>, Door>,
}

impl Doors {
    /// The way to the workspace, and to each upstream by its name.
    pub fn new(workspace: Door, upstreams: BTreeMap<Arc<str>, Door>) -> Self {
        Self {
            workspace,
            upstreams,
        }
    }

    fn to(&self, destination: &Destination) -> Option<&Door> {
        match destination {
            Destination::Workspace => Some(&self.workspace),
            Destination::Upstream(upstream) => self.upstreams.get(&upstream.name),
        }
    }
}

/// What an outbound call is made of, once it has been read in its one way.
#[derive(Debug, Clone)]
pub struct OutboundParts<'a> {
    /// Exact.
    pub method: &'a Method,
    /// The bytes that were matched.
    pub path: &'a CanonicalPath,
    /// As it came.
    pub query: Option<&'a str>,
    /// Stripped of everything that must not leave.
    pub headers: HeaderMap,
}

/// A call that may leave, and the door it leaves by. Its arguments are the proof: a credential (made only from a grant) and the
/// receipt of its record.
pub struct AuthorizedRequest<'d> {
    door: &'d Door,
    request: Request<Body>,
    receipt: Receipt,
}

impl<'d> AuthorizedRequest<'d> {
    /// Picks the door that the credential was made for, pins its host, takes the canonical path, attaches the credential last.
    ///
    /// # Errors
    /// Gives the receipt back when the target cannot be a URI, which a canonical path rules out, or when there is no such door,
    /// which a start without one for each configured upstream would be.
    pub fn new(
        doors: &'d Doors,
        parts: OutboundParts<'_>,
        body: Body,
        credential: &Credential,
        receipt: Receipt,
    ) -> Result<Self, Receipt> {
        let Some(door) = doors.to(credential.destination()) else {
            return Err(receipt);
        };
        let Some(uri) = door.uri(parts.path.as_str(), parts.query) else {
            return Err(receipt);
        };
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = parts.headers;
        headers::attach_credential(request.headers_mut(), credential.header().clone());
        Ok(Self {
            door,
            request,
            receipt,
        })
    }
}

/// Sends an authorized call and hands its receipt back, for the outcome or for the one retry.
pub async fn forward(
    authorized: AuthorizedRequest<'_>,
) -> (Receipt, Result<Response<Body>, SendFault>) {
    let AuthorizedRequest {
        door,
        request,
        receipt,
    } = authorized;
    (receipt, door.http.send(request).await)
}

/// What the agent is told about who calls.
#[derive(Debug, Clone, Copy)]
pub enum AgentIdentity<'a> {
    /// A verified user behind a session token.
    Session {
        /// What the agent gets in the token header.
        token: &'a Secret,
        /// From the claims.
        verified: VerifiedIdentity<'a>,
        /// From the front door.
        claimed: &'a Claimed,
        /// When the token behind the session ends.
        expires: Timestamp,
    },
    /// Nobody: a public path, or no token where none is required.
    Anonymous,
}

/// A request for the agent. Identity headers come from the arguments, never from the request.
#[derive(Debug)]
pub struct AgentRequest(Request<Body>);

impl AgentRequest {
    /// `parts` must have been stripped by `headers::strip_hop_by_hop` and `IdentityHeaders::take`; `None` when the target
    /// cannot be a URI.
    pub fn new(
        door: &Door,
        names: &IdentityHeaders,
        parts: http::request::Parts,
        body: Body,
        identity: AgentIdentity<'_>,
    ) -> Option<Self> {
        let uri = door.uri(parts.uri.path(), parts.uri.query())?;
        // HTTP/2 says the host in the target; the agent's framework looks for it in the header.
        let said = parts
            .uri
            .authority()
            .and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        let mut request = Request::from_parts(parts, body);
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        headers::cookies::join(request.headers_mut());
        if let Some(said) = said {
            request.headers_mut().entry(HOST).or_insert(said);
        }
        if let AgentIdentity::Session {
            token,
            verified,
            claimed,
            expires,
        } = identity
        {
            let headers = request.headers_mut();
            headers::set_identity(headers, verified, claimed.clone());
            token_end::tell(headers, expires);
            names.attach_session(headers, HeaderValue::from_str(token.expose()).ok()?);
        }
        Some(Self(request))
    }
}

/// Sends a request to the agent.
///
/// # Errors
/// [`SendFault`] when no answer came.
pub async fn to_agent(door: &Door, request: AgentRequest) -> Result<Response<Body>, SendFault> {
    door.http.send(request.0).await
}

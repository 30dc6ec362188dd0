//! Where the issuer is: the workspace's OAuth metadata (RFC 8414), each member of which may be pinned by the configuration.
//!
//! Must not know keys or claims; `key_store.rs` and the token endpoint's client ask it. Rules for what is believed:
//! the issuer string is kept exactly and, once seen, never changes while the process lives, so that one bad answer does not
//! lock everybody out; keys may be on another host than the workspace (facts 2.4: the account's); the token endpoint gets
//! the app's secret and must be on the workspace's own origin unless it is pinned (SECURITY R25).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::LengthLimitError;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::http_client::{Body, HttpSend, SendFault, empty, read_limited};
use super::single_flight::{BACKOFF_MAX, Failure, Fresh, SingleFlight};
use crate::domain::identity::{Origin, is_loopback_host};
use crate::domain::strict_json;

#[cfg(test)]
pub mod fixtures;

/// The largest metadata document, in bytes.
pub const METADATA_BYTES_MAX: usize = 1024 * 1024;
/// The longest wait for a metadata document.
pub const METADATA_TIME_MAX: Duration = Duration::from_secs(5);
/// From this age on the metadata is fetched again in the background.
pub const METADATA_REFRESH_AFTER: Duration = Duration::from_secs(600);
/// How long metadata is served while it cannot be refreshed: an outage of it should harm nobody, keys have their own age.
const METADATA_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
const METADATA_DEPTH_MAX: usize = 32;
const URL_BYTES_MAX: usize = 2048;
/// In the order they are tried (facts 2.4).
const PATHS: [&str; 2] = [
    "/oidc/.well-known/oauth-authorization-server",
    "/oidc/.well-known/openid-configuration",
];

/// Members that the configuration names; a pinned member is never looked up.
#[derive(Debug, Clone, Default)]
pub struct Pins {
    /// `workspace.issuer`
    pub issuer: Option<String>,
    /// `workspace.jwks_uri`
    pub jwks_uri: Option<String>,
    /// `workspace.token_endpoint`
    pub token_endpoint: Option<String>,
}

/// Why a small document could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchFault {
    /// No connection, or it broke.
    #[error("cannot be reached: {0}; check workspace.host, the network and the trusted roots")]
    Unreachable(String),
    /// The stated time ran out.
    #[error("did not answer within {0:?}")]
    Timeout(Duration),
    /// Another status than 200; redirects are never followed.
    #[error("answered with status {0} instead of 200")]
    Status(u16),
    /// Longer than allowed.
    #[error("answered with more than {0} bytes")]
    TooLarge(usize),
}

impl FetchFault {
    /// The label of the fetch metric.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "too_large",
        }
    }
}

/// Why the issuer's whereabouts are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryFault {
    /// The document could not be had.
    #[error("the workspace's OAuth metadata {0}")]
    Fetch(#[from] FetchFault),
    /// It is no strict JSON object.
    #[error("the workspace's OAuth metadata is not a JSON object without duplicates")]
    Document,
    /// One of its members, or a pin, is not acceptable.
    #[error("`{member}` of the issuer {problem}; it can be pinned as workspace.{member}")]
    Member {
        /// `issuer`, `jwks_uri` or `token_endpoint`.
        member: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A member of the metadata, or why it is not to be used: a bad token endpoint is no reason to refuse users.
type Member<T> = Result<T, DiscoveryFault>;

/// The workspace's metadata as far as it is used.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// What tokens must name as `iss`, exactly.
    pub issuer: Member<Arc<str>>,
    /// Where the keys are.
    pub jwks_uri: Member<Uri>,
    /// Where credentials are exchanged.
    pub token_endpoint: Member<Uri>,
}

impl Discovery {
    /// Takes over from the answer before what this one lacks: half a document is no reason to forget the other half.
    fn succeeding(
        self,
        before: Option<&Self>,
        trusts_first_issuer: bool,
    ) -> Result<Self, DiscoveryFault> {
        let Some(before) = before else {
            return Ok(self);
        };
        if let (true, Ok(old), Ok(new)) = (trusts_first_issuer, &before.issuer, &self.issuer)
            && old != new
        {
            return Err(DiscoveryFault::Member {
                member: "issuer",
                problem: "has changed since the start; restart if that is right",
            });
        }
        Ok(Self {
            issuer: self.issuer.or_else(|_| before.issuer.clone()),
            jwks_uri: self.jwks_uri.or_else(|_| before.jwks_uri.clone()),
            token_endpoint: self
                .token_endpoint
                .or_else(|_| before.token_endpoint.clone()),
        })
    }

    fn fresh(self) -> Fresh<Self> {
        let whole = self.issuer.is_ok() && self.jwks_uri.is_ok() && self.token_endpoint.is_ok();
        let now = Instant::now();
        let age = if whole {
            METADATA_REFRESH_AFTER
        } else {
            BACKOFF_MAX
        };
        Fresh {
            value: Arc::new(self),
            refresh_at: now + age,
            expires_at: now + METADATA_LIFE,
        }
    }
}

/// Finds the issuer, at the first need.
pub struct Discoverer {
    pinned_issuer: Option<Arc<str>>,
    pinned_jwks_uri: Option<Uri>,
    pinned_token_endpoint: Option<Uri>,
    flight: SingleFlight<Discovery, DiscoveryFault>,
}

impl Discoverer {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    /// [`DiscoveryFault::Member`] for a pin that is no acceptable URL.
    pub fn new(
        origin: Origin,
        pins: Pins,
        http: Arc<dyn HttpSend>,
    ) -> Result<Self, DiscoveryFault> {
        let pin =
            |member, text: Option<String>| text.map(|text| url(member, &text, true)).transpose();
        let pinned_issuer = pins
            .issuer
            .as_deref()
            .map(|text| issuer(text, true))
            .transpose()?;
        let trusts_first_issuer = pinned_issuer.is_none();
        let before = Arc::new(Mutex::new(None));
        let flight = SingleFlight::new(move || {
            let (origin, http) = (origin.clone(), Arc::clone(&http));
            let before = Arc::clone(&before);
            async move {
                let found = find(&origin, &*http).await.and_then(|found| {
                    let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
                    let merged = found.succeeding(before.as_ref(), trusts_first_issuer)?;
                    *before = Some(merged.clone());
                    Ok(merged)
                });
                found.map(Discovery::fresh).map_err(|error| {
                    tracing::warn!(fault = %error, "the issuer's metadata could not be fetched");
                    Failure {
                        error,
                        retry_after: None,
                    }
                })
            }
        });
        Ok(Self {
            pinned_issuer,
            pinned_jwks_uri: pin("jwks_uri", pins.jwks_uri)?,
            pinned_token_endpoint: pin("token_endpoint", pins.token_endpoint)?,
            flight,
        })
    }

    /// The issuer and where its keys are. Fetches nothing if both are pinned.
    ///
    /// # Errors
    /// [`DiscoveryFault`]; asking again later may succeed.
    pub async fn keys_at(&self) -> Result<(Arc<str>, Uri), DiscoveryFault> {
        if let (Some(issuer), Some(uri)) = (&self.pinned_issuer, &self.pinned_jwks_uri) {
            return Ok((Arc::clone(issuer), uri.clone()));
        }
        let found = self.flight.get().await?;
        let issuer = match &self.pinned_issuer {
            Some(pinned) => Arc::clone(pinned),
            None => found.issuer.clone()?,
        };
        let uri = match &self.pinned_jwks_uri {
            Some(pinned) => pinned.clone(),
            None => found.jwks_uri.clone()?,
        };
        Ok((issuer, uri))
    }

    /// Where credentials are exchanged. Fetches nothing if it is pinned.
    ///
    /// # Errors
    /// [`DiscoveryFault`]; asking again later may succeed.
    pub async fn token_endpoint(&self) -> Result<Uri, DiscoveryFault> {
        match &self.pinned_token_endpoint {
            Some(pinned) => Ok(pinned.clone()),
            None => self.flight.get().await?.token_endpoint.clone(),
        }
    }
}

/// Fetches a small document: one GET, status 200, no redirect, within the limits, head and body together.
///
/// # Errors
/// [`FetchFault`] says which limit or rule it broke.
pub async fn fetch(
    http: &dyn HttpSend,
    uri: &Uri,
    bytes_max: usize,
    time_max: Duration,
) -> Result<Bytes, FetchFault> {
    let request = Request::get(uri)
        .header(header::ACCEPT, "application/json")
        .body(empty())
        .map_err(|_| FetchFault::Unreachable("its URL cannot be requested".into()))?;
    tokio::time::timeout(time_max, get(http, request, bytes_max))
        .await
        .unwrap_or(Err(FetchFault::Timeout(time_max)))
}

async fn get(
    http: &dyn HttpSend,
    request: Request<Body>,
    bytes_max: usize,
) -> Result<Bytes, FetchFault> {
    let response = match http.send(request).await {
        Ok(response) => response,
        Err(SendFault::Timeout(limit)) => return Err(FetchFault::Timeout(limit)),
        Err(fault @ (SendFault::Connect(_) | SendFault::Broken(_))) => {
            return Err(FetchFault::Unreachable(with_cause(&fault)));
        }
    };
    if response.status() != StatusCode::OK {
        return Err(FetchFault::Status(response.status().as_u16()));
    }
    match read_limited(response.into_body(), bytes_max).await {
        Ok(body) => Ok(body),
        Err(cause) if cause.is::<LengthLimitError>() => Err(FetchFault::TooLarge(bytes_max)),
        Err(cause) => Err(FetchFault::Unreachable(with_cause(&*cause))),
    }
}

/// An error with its causes in one line, for the log.
fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

async fn find(origin: &Origin, http: &dyn HttpSend) -> Result<Discovery, DiscoveryFault> {
    let mut last = DiscoveryFault::Document;
    for path in PATHS {
        let uri = url("issuer", &format!("{origin}{path}"), true)?;
        match fetch(http, &uri, METADATA_BYTES_MAX, METADATA_TIME_MAX).await {
            Ok(body) => match strict_json::parse(&body, METADATA_DEPTH_MAX) {
                Ok(Value::Object(document)) => return Ok(read(origin, &document)),
                Ok(_) | Err(_) => last = DiscoveryFault::Document,
            },
            // The same host under another path is no better.
            Err(fault @ (FetchFault::Unreachable(_) | FetchFault::Timeout(_))) => {
                return Err(fault.into());
            }
            Err(fault @ (FetchFault::Status(_) | FetchFault::TooLarge(_))) => last = fault.into(),
        }
    }
    Err(last)
}

fn read(origin: &Origin, document: &Map<String, Value>) -> Discovery {
    // Plain http from a workspace on the network would let a process on this machine hand out keys.
    let plain = origin.scheme() == "http";
    let text = |member| {
        document
            .get(member)
            .and_then(Value::as_str)
            .ok_or(DiscoveryFault::Member {
                member,
                problem: "is missing or no string",
            })
    };
    let token_endpoint = text("token_endpoint")
        .and_then(|text| url("token_endpoint", text, plain))
        .and_then(|uri| {
            if same_origin(&uri, origin) {
                Ok(uri)
            } else {
                Err(DiscoveryFault::Member {
                    member: "token_endpoint",
                    problem: "is not on the workspace's own origin",
                })
            }
        });
    Discovery {
        issuer: text("issuer").and_then(|text| issuer(text, plain)),
        jwks_uri: text("jwks_uri").and_then(|text| url("jwks_uri", text, plain)),
        token_endpoint,
    }
}

/// The issuer's identifier as it stands: a URL without query (RFC 8414 section 2).
fn issuer(text: &str, plain: bool) -> Result<Arc<str>, DiscoveryFault> {
    let uri = url("issuer", text, plain)?;
    if uri.query().is_some() {
        return Err(DiscoveryFault::Member {
            member: "issuer",
            problem: "has a query",
        });
    }
    Ok(text.into())
}

/// An https URL, or plain http to this machine where `plain` allows it, without user name and fragment.
fn url(member: &'static str, text: &str, plain: bool) -> Result<Uri, DiscoveryFault> {
    let fault = |problem| DiscoveryFault::Member { member, problem };
    // `Uri` drops a fragment silently.
    if text.len() > URL_BYTES_MAX || text.contains('#') {
        return Err(fault("is too long or has a fragment"));
    }
    let uri: Uri = text.parse().map_err(|_| fault("is not a URL"))?;
    let authority = uri
        .authority()
        .ok_or_else(|| fault("is not an absolute URL"))?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(fault("has a user name or no host"));
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if plain && is_loopback_host(authority.host()) => Ok(uri),
        Some(_) | None => Err(fault("is not https")),
    }
}

fn same_origin(uri: &Uri, origin: &Origin) -> bool {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    Origin::parse(&format!("{scheme}://{authority}")).is_ok_and(|other| other == *origin)
}

#[cfg(test)]
mod tests;

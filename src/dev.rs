//! `dev`: the sidecar plays the platform's front door too, for one developer on one machine.
//!
//! It stands before the inbound listener's service and changes nothing behind it: what it forwards is verified, downscoped and
//! recorded as in production. A request without a token gets the developer's own and the headers that the platform adds (facts 1.5);
//! one that brings a token passes as it came. `dev/source.rs` says where the developer's token comes from, `cli/dev.rs` is the command.
//!
//! Whoever reaches the listener acts as the developer, so it is on loopback only, and pages in a browser are kept out like a
//! session cookie with `SameSite=Lax` would: the Host must be this machine's, and another site may link here but not send here.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use uuid::Uuid;

use crate::domain::headers;
use crate::domain::identity::is_loopback_host;
use crate::proxy::Proxy;
use crate::runtime::http_client::{Body, full};
use crate::runtime::listener::{Peer, Service};
use crate::runtime::verifier::VerifyFault;

use self::source::{DevToken, Source};

pub mod claims;
pub mod databricks_cli;
pub mod source;

/// The front door of a developer's machine.
pub struct FrontDoor {
    source: Source,
    /// `inbound.token_header`.
    token_header: HeaderName,
}

impl FrontDoor {
    /// Hands out the tokens of this source.
    pub fn new(source: Source, token_header: HeaderName) -> Self {
        Self {
            source,
            token_header,
        }
    }

    /// Where the identity comes from, as people are told.
    pub fn describe(&self) -> String {
        self.source.describe()
    }

    /// Looks once, before anybody is served, whether the sidecar takes the developer's token; the name it is for.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub async fn try_out(&self, proxy: &Proxy) -> Result<String, String> {
        let token = self.source.token().await?;
        match proxy.verifier.verify(token.raw.expose()).await {
            Ok(verified) => Ok(verified.subject().as_str().to_owned()),
            Err(VerifyFault::Token(fault)) => Err(format!(
                "the sidecar does not take your token ({fault}): it was issued by {} for workspace {}, and the configuration says {}, {}; \
                 choose the profile of that workspace (--profile), or change workspace.host and workspace.id",
                token.claims.issuer.as_deref().unwrap_or("nobody known"),
                token.claims.audience.as_deref().unwrap_or("nobody known"),
                proxy.workspace_origin,
                proxy
                    .settings
                    .workspace_id
                    .as_deref()
                    .unwrap_or("no workspace id"),
            )),
            Err(VerifyFault::Keys(fault)) => {
                tracing::warn!(%fault, "your token could not be verified yet");
                Ok(token.claims.subject.unwrap_or_else(|| "you".into()))
            }
        }
    }

    /// What the platform does to a request before the app sees it.
    ///
    /// # Errors
    /// [`Refused`]: whoever must not pass, or there is no token.
    pub async fn admit(
        &self,
        mut request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Request<Incoming>, Refused> {
        if request.headers().contains_key(&self.token_header) {
            return Ok(request);
        }
        is_from_here(request.method(), &request).map_err(|why| {
            tracing::warn!(why, "development: a request was refused");
            Refused(StatusCode::FORBIDDEN, why.to_owned())
        })?;
        let token = self.source.token().await.map_err(|why| {
            tracing::error!(%why, "development: there is no token for you");
            Refused(StatusCode::BAD_GATEWAY, why)
        })?;
        let value = self.token_value(&token).ok_or_else(|| {
            let why = "your token cannot stand in a header";
            Refused(StatusCode::BAD_GATEWAY, why.to_owned())
        })?;
        let host = headers::host(request.uri(), request.headers()).to_owned();
        let head = request.headers_mut();
        put(head, "x-forwarded-host", &host);
        put(head, "x-real-ip", &peer.remote.ip().to_string());
        put(head, "x-request-id", &Uuid::now_v7().to_string());
        identify(head, &token);
        head.insert(self.token_header.clone(), value);
        Ok(request)
    }

    fn token_value(&self, token: &DevToken) -> Option<HeaderValue> {
        let scheme = if headers::is_authorization(&self.token_header) {
            "Bearer "
        } else {
            ""
        };
        let mut value = HeaderValue::from_str(&format!("{scheme}{}", token.raw.expose())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// What the front door says of the user; the sidecar believes the token all the same.
fn identify(head: &mut HeaderMap, token: &DevToken) {
    let claims = &token.claims;
    let subject = claims.subject.as_deref();
    let email = claims.email.as_deref().or(subject);
    for (name, value) in [
        ("x-forwarded-user", subject),
        ("x-forwarded-email", email),
        (
            "x-forwarded-preferred-username",
            claims.name.as_deref().or(email),
        ),
    ] {
        head.remove(name);
        if let Some(value) = value {
            put(head, name, value);
        }
    }
}

/// Replaces whatever was sent under this name.
fn put(head: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        head.insert(HeaderName::from_static(name), value);
    }
}

/// Not a page of another site in the developer's browser, nor a name that was made to lead here (DNS rebinding).
fn is_from_here<B>(method: &Method, request: &Request<B>) -> Result<(), &'static str> {
    let head = request.headers();
    let host = headers::host(request.uri(), head);
    let named = host.parse::<http::uri::Authority>();
    if !named.is_ok_and(|host| is_loopback_host(host.host())) {
        return Err("valetkey dev: open this by localhost or 127.0.0.1, not by another name");
    }
    let value = |name: &str| head.get(name).and_then(|value| value.to_str().ok());
    let origin = head
        .get(ORIGIN)
        .map(|origin| origin.to_str().unwrap_or_default());
    let own_origin = origin.is_none_or(|origin| {
        let rest = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        rest == Some(host)
    });
    // A link may be followed from anywhere; it carries no Origin.
    let link = matches!(*method, Method::GET | Method::HEAD)
        && value("sec-fetch-mode") == Some("navigate");
    let own_site =
        value("sec-fetch-site").is_none_or(|site| matches!(site, "none" | "same-origin"));
    if own_origin && (own_site || link) {
        Ok(())
    } else {
        Err("valetkey dev: a page of another site must not act as you")
    }
}

/// Why the door stayed shut: for the developer, in plain words.
#[derive(Debug)]
pub struct Refused(StatusCode, String);

impl Refused {
    /// As an answer.
    pub fn answer(self) -> Response<Body> {
        let Self(status, why) = self;
        let mut response = Response::new(full(format!("{why}\n")));
        *response.status_mut() = status;
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    }
}

/// Shared by every connection.
pub type SharedDoor = Arc<FrontDoor>;

/// The inbound service as it is, or after the door has done its part.
pub fn behind(door: Option<SharedDoor>, service: Service) -> Service {
    let Some(door) = door else { return service };
    Arc::new(move |request, peer| {
        let (door, service) = (Arc::clone(&door), Arc::clone(&service));
        Box::pin(async move {
            match door.admit(request, peer).await {
                Ok(request) => service(request, peer).await,
                Err(refused) => refused.answer(),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        is_from_here(request.method(), &request).is_ok()
    }

    #[test]
    fn pages_of_other_sites_and_other_names_are_kept_out() {
        let here = ("host", "localhost:8000");
        for (method, more, expected) in [
            ("GET", &[][..], true),
            ("POST", &[], true),
            (
                "POST",
                &[
                    ("origin", "http://localhost:8000"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
            (
                "GET",
                &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
                true,
            ),
            (
                "GET",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
                true,
            ),
            (
                "POST",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
                false,
            ),
            (
                "GET",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "no-cors"),
                ],
                false,
            ),
            (
                "GET",
                &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")],
                false,
            ),
            ("GET", &[("origin", "https://evil.example")], false),
            ("GET", &[("origin", "http://localhost:3000")], false),
            ("GET", &[("origin", "null")], false),
        ] {
            let headers = [&[here], more].concat();
            assert_eq!(check(method, &headers), expected, "{method} {more:?}");
        }
        for (host, expected) in [
            ("127.0.0.1:8000", true),
            ("[::1]:8000", true),
            ("localhost", true),
            ("evil.example:8000", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(check("GET", &[("host", host)]), expected, "{host}");
        }
    }
}

//! The token endpoint on the wire: client credentials (RFC 6749 4.4) and token exchange (RFC 8693), form out, token in.
//!
//! With `domain/headers.rs` the only file that names the `Authorization` header. Caches nothing (`app_tokens.rs` and
//! `exchanged_tokens.rs` do), follows no redirect, and lets no body, token or secret into an error or a log. Read
//! `token_answer.rs` for what an answer may be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use form_urlencoded::{Serializer, byte_serialize};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::LengthLimitError;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::access_token::{AccessToken, EXPIRY_MARGIN};
use super::endpoint_fault::EndpointFault;
use super::http_client::{Body, BoxError, HttpSend, full, read_limited};
use super::metrics::Metrics;
use super::single_flight::{BACKOFF_MIN, BoxFuture};
use super::token_answer::{Answer, Grant, fault_of_head, read_refusal, read_token};
use crate::domain::clock::{Clock, SignedDuration};
use crate::domain::identity::is_loopback_host;
use crate::domain::scope::ScopeSet;
use crate::domain::secret::{Digest, Secret};

/// Gives the endpoint's address, discovered or pinned; asked before every request, because a discovery may be renewed.
pub type EndpointUrl = Box<dyn Fn() -> BoxFuture<'static, Result<Uri, String>> + Send + Sync>;

/// What is left of a token after [`EXPIRY_MARGIN`] must be at least this, or every call would ask for another one.
pub const USABLE_LIFE_MIN: Duration = Duration::from_secs(5);
/// Requests to the endpoint at the same time, for each grant on its own: users' exchanges cannot starve the app.
pub const REQUESTS_AT_ONCE_MAX: usize = 16;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The forwarded token was issued by this very server for its own APIs. The `jwt` type is for tokens of a foreign identity
/// provider, which the platform's federation policies then judge (facts 3.3).
const SUBJECT_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
const REQUESTED_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Scopes about nobody's data that the platform adds to a user's token by itself and that cannot be asked for (facts 2.3).
const SCOPES_ADDED_BY_PLATFORM: &[&str] = &[
    "iam.access-control:read",
    "iam.current-user:read",
    "openid",
    "email",
    "profile",
];

/// The app's own pair.
#[derive(Debug, Clone)]
pub struct ClientCredential {
    /// `client_id`; not a secret.
    pub id: String,
    /// `client_secret`.
    pub secret: Arc<Secret>,
}

/// How the endpoint is asked.
#[derive(Debug, Clone)]
pub struct TokenEndpointSettings {
    /// The app's pair; without it the app has no tokens, and an exchange is asked without client authentication.
    pub client: Option<ClientCredential>,
    /// The longest answer that is read.
    pub answer_bytes_max: usize,
    /// Time for the address, the connection and the whole answer together.
    pub answer_time: Duration,
}

impl TokenEndpointSettings {
    /// The defaults: 64 KiB, far above any token, and 10 s, well below the platform's limit for a whole request.
    pub fn for_client(client: Option<ClientCredential>) -> Self {
        Self {
            client,
            answer_bytes_max: 64 * 1024,
            answer_time: Duration::from_secs(10),
        }
    }
}

/// A fresh token and how long it may be handed out.
#[derive(Debug)]
pub struct Issued {
    /// The token.
    pub token: AccessToken,
    /// Its end less [`EXPIRY_MARGIN`], counted from before the request was sent.
    pub usable_until: Instant,
}

/// The client of one token endpoint.
pub struct TokenEndpoint {
    settings: TokenEndpointSettings,
    authorization: Option<HeaderValue>,
    identity: Digest,
    url: EndpointUrl,
    http: Arc<dyn HttpSend>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    app: Lane,
    exchange: Lane,
}

/// One grant's share of the endpoint, and the pause the endpoint asked for.
struct Lane {
    permits: Semaphore,
    rest_until: Mutex<Option<Instant>>,
}

impl TokenEndpoint {
    /// Prepares the client authentication once. Nothing is sent yet.
    pub fn new(
        settings: TokenEndpointSettings,
        url: EndpointUrl,
        http: Arc<dyn HttpSend>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let client_id = settings.client.as_ref().map_or("", |c| c.id.as_str());
        Self {
            authorization: settings.client.as_ref().and_then(basic),
            identity: Digest::of(&[b"token endpoint client", client_id.as_bytes()]),
            settings,
            url,
            http,
            clock,
            metrics,
            app: Lane::new(),
            exchange: Lane::new(),
        }
    }

    /// Whether there is an app credential at all.
    pub fn has_client(&self) -> bool {
        self.authorization.is_some()
    }

    /// Stands for "asked here, as this client" in cache keys.
    pub fn identity(&self) -> Digest {
        self.identity
    }

    /// A token for the app itself.
    ///
    /// # Errors
    /// [`EndpointFault`] says who must act.
    pub async fn client_credentials(&self, scopes: &ScopeSet) -> Result<Issued, EndpointFault> {
        if !self.has_client() {
            return Err(EndpointFault::NotConfigured);
        }
        let form = form(&[
            ("grant_type", "client_credentials"),
            ("scope", &scopes.to_string()),
        ]);
        self.ask(Grant::App, form, scopes).await
    }

    /// A token for the user whose token is given, good for no more than `scopes`.
    ///
    /// # Errors
    /// [`EndpointFault`] says who must act.
    pub async fn exchange(
        &self,
        subject: &Secret,
        scopes: &ScopeSet,
    ) -> Result<Issued, EndpointFault> {
        if scopes.is_empty() {
            // Asking without a scope would give all of the user's: the opposite of what an exchange is for.
            return Err(EndpointFault::SubjectRefused { error: "no scope" });
        }
        let form = form(&[
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", subject.expose()),
            ("subject_token_type", SUBJECT_TOKEN_TYPE),
            ("requested_token_type", REQUESTED_TOKEN_TYPE),
            ("scope", &scopes.to_string()),
        ]);
        self.ask(Grant::Exchange, form, scopes).await
    }

    /// One request with everything around it: the lane, the time limit, the count and the log line.
    async fn ask(
        &self,
        grant: Grant,
        form: String,
        scopes: &ScopeSet,
    ) -> Result<Issued, EndpointFault> {
        let lane = match grant {
            Grant::App => &self.app,
            Grant::Exchange => &self.exchange,
        };
        let limit = self.settings.answer_time;
        // The wait for a turn ends before the answers it waits for do: callers of a hanging endpoint give up in the queue,
        // instead of being let through, one full lane after another, when the first ones run out of time.
        let turn = limit / 2;
        let Ok(_permit) = tokio::time::timeout(turn, lane.permits.acquire()).await else {
            return Err(EndpointFault::Timeout { limit: turn });
        };
        if let Some(fault) = lane.rest() {
            return Err(fault);
        }
        let outcome = tokio::time::timeout(limit, self.send(grant, form, scopes)).await;
        let outcome = outcome.unwrap_or(Err(EndpointFault::Timeout { limit }));
        self.account(grant, lane, &outcome);
        outcome
    }

    async fn send(
        &self,
        grant: Grant,
        form: String,
        scopes: &ScopeSet,
    ) -> Result<Issued, EndpointFault> {
        let (started, asked_at) = (Instant::now(), self.clock.now());
        let url = (self.url)()
            .await
            .map_err(|why| EndpointFault::unknown_address(&why))?;
        let request = self.request(url, form)?;
        let response = self.http.send(request).await.map_err(EndpointFault::from)?;
        let answer = self.read(grant, response).await?;
        let wider = answer.scopes.as_ref().is_some_and(|s| is_wider(s, scopes));
        if grant == Grant::Exchange && wider {
            return Err(EndpointFault::invalid(
                "its token has more scopes than asked",
            ));
        }
        let expires = SignedDuration::try_from(answer.life)
            .ok()
            .and_then(|life| asked_at.checked_add(life).ok())
            .ok_or_else(|| EndpointFault::invalid("its token ends after all time"))?;
        let usable_until = started + answer.life.saturating_sub(EXPIRY_MARGIN);
        if usable_until < Instant::now() + USABLE_LIFE_MIN {
            return Err(EndpointFault::invalid("its token ends too soon to be used"));
        }
        let granted = answer.scopes.unwrap_or_else(|| scopes.clone());
        let token = AccessToken::new(answer.access_token, expires, granted)
            .ok_or_else(|| EndpointFault::invalid("its access_token cannot stand in a header"))?;
        Ok(Issued {
            token,
            usable_until,
        })
    }

    fn request(&self, url: Uri, form: String) -> Result<Request<Body>, EndpointFault> {
        if !is_safe_destination(&url) {
            return Err(EndpointFault::invalid(
                "its address is not https://HOST/… and a credential goes nowhere else",
            ));
        }
        let mut request = Request::new(full(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url;
        let headers = request.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("valetkey/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    async fn read(&self, grant: Grant, response: Response<Body>) -> Result<Answer, EndpointFault> {
        let status = response.status();
        if let Some(fault) = fault_of_head(status, response.headers()) {
            return Err(fault);
        }
        let body = read_limited(response.into_body(), self.settings.answer_bytes_max).await;
        match (status, body) {
            (StatusCode::OK, Ok(body)) => read_token(&body),
            (StatusCode::OK, Err(fault)) => Err(body_fault(&fault)),
            // The status already refuses; a body that cannot be read only hides the word for it.
            (status, body) => Err(read_refusal(grant, status, &body.unwrap_or_default())),
        }
    }

    fn account(&self, grant: Grant, lane: &Lane, outcome: &Result<Issued, EndpointFault>) {
        let kind = grant.as_str();
        match outcome {
            Ok(issued) => {
                let expires = issued.token.expires();
                self.metrics.credential_fetch(kind, "ok");
                self.metrics
                    .credential_expiry(kind, expires.as_duration().as_secs_f64());
                tracing::debug!(kind, %expires, scopes = %issued.token.scopes(), "token issued");
            }
            Err(fault) => {
                self.metrics.credential_fetch(kind, fault.code());
                if let EndpointFault::Busy { retry_after } = fault {
                    lane.rest_for(retry_after.unwrap_or(BACKOFF_MIN));
                }
                tracing::warn!(kind, result = fault.code(), %fault, "no token");
            }
        }
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            permits: Semaphore::new(REQUESTS_AT_ONCE_MAX),
            rest_until: Mutex::new(None),
        }
    }

    /// The fault to answer with while the endpoint rests. Without it every user's exchange would knock once more.
    fn rest(&self) -> Option<EndpointFault> {
        let until = *self
            .rest_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let left = until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(EndpointFault::Busy {
            retry_after: Some(left),
        })
    }

    fn rest_for(&self, pause: Duration) {
        let mut until = self
            .rest_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Some(Instant::now() + pause));
    }
}

/// Finished at once: the serializer must not live across an await.
fn form(pairs: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// HTTP Basic with both halves form-encoded first (RFC 6749 2.3.1), so that a colon in either stays what it is.
fn basic(client: &ClientCredential) -> Option<HeaderValue> {
    let id: String = byte_serialize(client.id.as_bytes()).collect();
    let secret: Zeroizing<String> =
        Zeroizing::new(byte_serialize(client.secret.expose().as_bytes()).collect());
    let pair = Zeroizing::new(format!("{id}:{}", *secret));
    let text = Zeroizing::new(format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())
    ));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// TLS to anywhere that discovery or the configuration named; in the clear to this machine only (demo and tests).
fn is_safe_destination(url: &Uri) -> bool {
    let Some(authority) = url.authority() else {
        return false;
    };
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return false;
    }
    match url.scheme_str() {
        Some("https") => true,
        Some("http") => is_loopback_host(authority.host()),
        Some(_) | None => false,
    }
}

fn is_wider(granted: &ScopeSet, asked: &ScopeSet) -> bool {
    granted
        .iter()
        .any(|scope| !asked.covers(scope) && !SCOPES_ADDED_BY_PLATFORM.contains(&scope.as_str()))
}

fn body_fault(fault: &BoxError) -> EndpointFault {
    if fault.is::<LengthLimitError>() {
        EndpointFault::invalid("it is longer than a token answer can be")
    } else {
        EndpointFault::unreachable("the answer broke off")
    }
}

#[cfg(test)]
mod tests;

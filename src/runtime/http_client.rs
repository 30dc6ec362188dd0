//! The one door to the network: a body type, a client, and the seam where tests put a scripted far side.
//!
//! Never follows a redirect, never honours a proxy variable, verifies every certificate. Knows nothing of what is asked.
//! `tls.rs` says which roots are trusted; `upstream.rs` is the typed door for forwarded calls.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Collected, Full, Limited, combinators::UnsyncBoxBody};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::single_flight::BoxFuture;

/// Any error that ended a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Every body in this program: streamed, never read unless a step says so.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body without bytes.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body that is at hand.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum SendFault {
    /// No connection: name not found, refused, TLS not verified.
    #[error("could not connect")]
    Connect(#[source] BoxError),
    /// The stated time ran out.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection was made and broke, or the answer was not HTTP.
    #[error("the connection broke")]
    Broken(#[source] BoxError),
}

/// Sends one request and gives the head of the answer.
pub trait HttpSend: Send + Sync {
    /// Streams the request out and returns once the head of the answer is there.
    fn send(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, SendFault>>;
}

/// Header lines of one answer; more is an answer that broke off.
const ANSWER_HEADERS_MAX: usize = 200;

/// What the client is allowed to take.
#[derive(Debug, Clone, Copy)]
pub struct ClientLimits {
    /// Time to a connection, without TLS.
    pub connect_time: Duration,
    /// Time from the last piece of the request that could be sent to the head of the answer: an upload may last as long
    /// as it moves.
    pub response_head_time: Duration,
    /// How long an idle connection is kept.
    pub idle_connection_time: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_time: Duration::from_secs(5),
            response_head_time: Duration::from_secs(300),
            idle_connection_time: Duration::from_secs(60),
        }
    }
}

/// The real client: HTTP/1.1 with a pool, over TLS by rustls or, to loopback, in the clear.
pub struct HyperSend {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    limits: ClientLimits,
}

impl HyperSend {
    /// A client that trusts what `tls` trusts.
    pub fn new(tls: rustls::ClientConfig, limits: ClientLimits) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(limits.connect_time));
        connector.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.idle_connection_time)
            .http1_max_headers(ANSWER_HEADERS_MAX)
            .build(https);
        Self { client, limits }
    }
}

impl HttpSend for HyperSend {
    fn send(&self, mut request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, SendFault>> {
        say_framing(&mut request);
        Box::pin(async move {
            let limit = self.limits.response_head_time;
            let moved = Arc::new(Mutex::new(Instant::now()));
            let watch = Arc::clone(&moved);
            let request = request.map(|body| Watched { body, moved: watch }.boxed_unsync());
            match unless_still(limit, &moved, self.client.request(request)).await {
                Ok(Ok(response)) if !is_framed_once(response.headers()) => {
                    // Dropped unread, which ends the connection: what comes after cannot be told apart.
                    Err(SendFault::Broken(
                        "the answer's framing is ambiguous".into(),
                    ))
                }
                Ok(Ok(response)) => {
                    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
                }
                Ok(Err(fault)) if fault.is_connect() => Err(SendFault::Connect(fault.into())),
                Ok(Err(fault)) => Err(SendFault::Broken(fault.into())),
                Err(Still) => Err(SendFault::Timeout(limit)),
            }
        })
    }
}

/// hyper takes a GET whose length is not known for one without a body, unless its head says otherwise.
fn say_framing(request: &mut Request<Body>) {
    let body = request.body();
    let unknown = body.size_hint().exact().is_none() && !body.is_end_stream();
    if unknown && !request.headers().contains_key(CONTENT_LENGTH) {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
}

/// Nothing of the request moved for the whole limit.
struct Still;

/// Waits for as long as the request moves, and the limit beyond that.
async fn unless_still<T>(
    limit: Duration,
    moved: &Mutex<Instant>,
    wait: impl Future<Output = T>,
) -> Result<T, Still> {
    let mut wait = std::pin::pin!(wait);
    loop {
        let last = *moved.lock().unwrap_or_else(PoisonError::into_inner);
        match tokio::time::timeout_at(last + limit, wait.as_mut()).await {
            Ok(done) => return Ok(done),
            Err(_) if last == *moved.lock().unwrap_or_else(PoisonError::into_inner) => {
                return Err(Still);
            }
            Err(_) => {}
        }
    }
}

/// A request body that notes when its last piece was taken.
struct Watched {
    body: Body,
    moved: Arc<Mutex<Instant>>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// No transfer coding, or `chunked` alone and no length beside it (SECURITY R19): two readers of such an answer cannot
/// differ about its end.
fn is_framed_once(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && !headers.contains_key(CONTENT_LENGTH)
        }
        (Some(_), Some(_)) => false,
    }
}

/// Reads a body that must be small, such as a key set or a token answer.
///
/// # Errors
/// When it is longer than `bytes_max` or breaks off.
pub fn read_limited(body: Body, bytes_max: usize) -> BoxFuture<'static, Result<Bytes, BoxError>> {
    // Not an `async fn`: inside one the compiler loses the lifetime of the error and can no longer show that callers'
    // futures are `Send`.
    let whole = Limited::new(body, bytes_max).collect();
    Box::pin(whole.map(|whole| whole.map(Collected::to_bytes)))
}

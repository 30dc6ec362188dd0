//! The clients of a test: one that speaks HTTP properly and one that sends bytes.
//!
//! Whatever comes back is kept in [`Exposed`] for the leak check. A client opens a connection per request and drops it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use valetkey::runtime::http_client::{Body, BoxError, empty, full};

use super::within;

/// Everything that test clients got, with a word on where.
#[derive(Default)]
pub struct Exposed(Mutex<Vec<(String, Vec<u8>)>>);

impl Exposed {
    /// Keeps what was got somewhere.
    pub fn note(&self, place: &str, bytes: &[u8]) {
        let mut all = self.0.lock().unwrap();
        all.push((place.to_owned(), bytes.to_vec()));
    }

    /// All of it.
    pub fn taken(&self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A client of one listener.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    exposed: Arc<Exposed>,
    http2: bool,
}

impl Client {
    /// Speaks HTTP/1.1.
    pub fn new(address: SocketAddr, exposed: Arc<Exposed>) -> Self {
        Self {
            address,
            exposed,
            http2: false,
        }
    }

    /// The same with HTTP/2 by prior knowledge.
    pub fn h2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Where it asks.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request to be completed and sent.
    pub fn ask(&self, method: &str, target: &str) -> Ask {
        let uri = format!("http://{}{target}", self.address);
        let mut request = Request::new(empty());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method");
        *request.uri_mut() = uri.parse().expect("a target");
        Ask {
            client: self.clone(),
            request,
        }
    }

    /// A GET.
    pub fn get(&self, target: &str) -> Ask {
        self.ask("GET", target)
    }

    /// A POST.
    pub fn post(&self, target: &str) -> Ask {
        self.ask("POST", target)
    }

    /// Sends these bytes and reads until the far side closes, which it must.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Raw {
        let mut stream = self.connect().await;
        // A refusal may come, and the connection go, before everything is written.
        let _ = stream.write_all(bytes.as_ref()).await;
        let mut answer = Vec::new();
        let end = within("the connection is closed", stream.read_to_end(&mut answer)).await;
        drop(end);
        self.exposed
            .note(&format!("raw client of {}", self.address), &answer);
        Raw(answer)
    }

    /// A bare connection.
    pub async fn connect(&self) -> TcpStream {
        within("a connection", TcpStream::connect(self.address))
            .await
            .expect("the listener accepts")
    }
}

/// A request being made.
pub struct Ask {
    client: Client,
    request: Request<Body>,
}

impl Ask {
    /// Adds a header; a second one of the same name stands beside the first.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
        self.request.headers_mut().append(name, value);
        self
    }

    /// The user token, as the front door forwards it.
    pub fn user(self, token: &str) -> Self {
        self.header("x-forwarded-access-token", token)
    }

    /// A local token, as SDKs send it.
    pub fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), &format!("Bearer {token}"))
    }

    /// Client id and secret.
    pub fn basic(self, id: &str, secret: &str) -> Self {
        let pair = STANDARD.encode(format!("{id}:{secret}"));
        self.header(AUTHORIZATION.as_str(), &format!("Basic {pair}"))
    }

    /// A body that is at hand.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = full(bytes);
        self
    }

    /// A JSON body.
    pub fn json(self, value: &Value) -> Self {
        self.header(CONTENT_TYPE.as_str(), "application/json")
            .body(value.to_string())
    }

    /// A form.
    pub fn form(self, pairs: &[(&str, &str)]) -> Self {
        let text = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        self.header(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")
            .body(text)
    }

    /// A body in pieces, sent as they are handed over and ended when the sender is dropped.
    pub fn chunked(mut self) -> (Self, mpsc::Sender<Bytes>) {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let piece = receiver.recv().await?;
            Some((Ok::<_, BoxError>(Frame::data(piece)), receiver))
        });
        *self.request.body_mut() = StreamBody::new(frames).boxed_unsync();
        (self, sender)
    }

    /// Sends it and waits for the head of the answer.
    pub async fn send(self) -> Streaming {
        self.try_send().await.expect("an answer")
    }

    /// The same, where there may be no answer.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn try_send(self) -> Result<Streaming, hyper_util::client::legacy::Error> {
        let Self { client, request } = self;
        let place = format!("answer to {} {}", request.method(), request.uri().path());
        let http: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .http2_only(client.http2)
            .build_http();
        let response = within(&place, http.request(request)).await?;
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        for (name, value) in &parts.headers {
            client
                .exposed
                .note(&format!("{place}: {name}"), value.as_bytes());
        }
        Ok(Streaming {
            status,
            headers: parts.headers.clone(),
            response: Response::from_parts(parts, body),
            exposed: client.exposed,
            place,
        })
    }

    /// Sends it and reads the whole answer.
    pub async fn fetch(self) -> Answer {
        self.send().await.whole().await
    }
}

/// An answer whose body is still coming.
pub struct Streaming {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    response: Response<Incoming>,
    exposed: Arc<Exposed>,
    place: String,
}

impl Streaming {
    /// The next piece; `None` at the end. A body that breaks off is an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        let frame = within(&self.place, self.response.body_mut().frame()).await?;
        Some(frame.map(|frame| {
            let data = frame.into_data().unwrap_or_default();
            self.exposed.note(&self.place, &data);
            data
        }))
    }

    /// The rest of the body.
    pub async fn whole(mut self) -> Answer {
        let mut body = Vec::new();
        while let Some(piece) = self.next().await {
            body.extend_from_slice(&piece.expect("the body comes whole"));
        }
        // Secrets may stand across pieces.
        self.exposed.note(&self.place, &body);
        Answer {
            status: self.status,
            headers: self.headers,
            body: body.into(),
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text()))
    }

    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let only = values.next()?.to_str().expect("text");
        assert!(values.next().is_none(), "{name} stands twice");
        Some(only)
    }

    /// The sidecar's reason for a refusal.
    pub fn reason(&self) -> Option<&str> {
        self.header("x-valetkey-error")
    }
}

/// What a raw client read.
#[derive(Debug)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// As text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The status of the first answer; 0 where there was none.
    pub fn status(&self) -> u16 {
        let text = self.text();
        let word = text.strip_prefix("HTTP/1.1 ").and_then(|t| t.get(..3));
        word.and_then(|w| w.parse().ok()).unwrap_or(0)
    }

    /// How many answers came.
    pub fn answers(&self) -> usize {
        self.text().matches("HTTP/1.1 ").count()
    }
}

//! The agent of a test, or another app: keeps every request as it came, and does what the path says.
//!
//! `/redirect?to=LOCATION` answers 307; `/echo…` gives the body back; `/sse` sends one event for each `release`; `/ws` echoes WebSocket messages; `/hang`
//! answers after a `release`; `/status/N` answers N; `/odd` answers with headers that must not pass; `/call` makes the call
//! through the sidecar that its JSON body describes, with the session token it was given.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use valetkey::runtime::http_client::{Body, BoxError, empty, full};

use super::within;

/// Requests kept.
const RECEIVED_MAX: usize = 10_000;

/// A request as the agent got it.
#[derive(Debug, Clone)]
pub struct Received {
    /// Exact.
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    /// Names (lower case) and values in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// As much of the body as has come.
    pub body: Vec<u8>,
    /// Whether the body has come to its end.
    pub complete: bool,
}

impl Received {
    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let of_name = self.headers.iter().filter(|(n, _)| n == name);
        of_name
            .map(|(_, v)| std::str::from_utf8(v).expect("text"))
            .collect()
    }

    /// All of it in one piece, for the leak check.
    pub fn raw(&self) -> Vec<u8> {
        let mut all = self.target.clone().into_bytes();
        for (name, value) in &self.headers {
            all.push(b'\n');
            all.extend_from_slice(name.as_bytes());
            all.push(b':');
            all.extend_from_slice(value);
        }
        all.push(b'\n');
        all.extend_from_slice(&self.body);
        all
    }
}

struct State {
    received: Mutex<VecDeque<Received>>,
    changes: watch::Sender<()>,
    turns: Semaphore,
    open: Mutex<usize>,
    closes: Mutex<Vec<(u16, String)>>,
    outbound: OnceLock<SocketAddr>,
}

/// A running agent.
#[derive(Clone)]
pub struct Agent {
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
}

impl Agent {
    /// Why WebSockets were closed, as far as the other side said so.
    pub fn closes(&self) -> Vec<(u16, String)> {
        self.state.closes.lock().unwrap().clone()
    }

    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener)
    }

    /// Listens on a free port, for https with this.
    pub async fn start_tls(server: Arc<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serving(listener, Some(server.into()))
    }

    /// Serves on a listener that is there already.
    pub fn on(listener: TcpListener) -> Self {
        Self::serving(listener, None)
    }

    fn serving(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let agent = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(State {
                received: Mutex::default(),
                changes: watch::Sender::new(()),
                turns: Semaphore::new(0),
                open: Mutex::default(),
                closes: Mutex::default(),
                outbound: OnceLock::new(),
            }),
            stop: CancellationToken::new(),
        };
        let (serving, stop) = (agent.clone(), agent.stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(serving.accept(listener, tls)));
        agent
    }

    async fn accept(self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        while let Ok((stream, _)) = listener.accept().await {
            let (agent, stop, tls) = (self.clone(), self.stop.clone(), tls.clone());
            tokio::spawn(stop.run_until_cancelled_owned(async move {
                match tls {
                    None => agent.serve(stream).await,
                    Some(tls) => {
                        // Otherwise the peer does not trust it.
                        if let Ok(stream) = tls.accept(stream).await {
                            agent.serve(stream).await;
                        }
                    }
                }
            }));
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(move |request| {
            let agent = self.clone();
            async move { Ok::<_, Infallible>(agent.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // The end of a connection, in whatever way, is its peer's business.
        let _ = connection.await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells it where the sidecar is.
    pub fn calls_through(&self, outbound: SocketAddr) {
        let _ = self.state.outbound.set(outbound);
    }

    /// Ends it with all its connections.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Every request so far.
    pub fn received(&self) -> Vec<Received> {
        self.state
            .received
            .lock()
            .unwrap()
            .iter()
            .cloned()
            .collect()
    }

    /// How many requests there were.
    pub fn count(&self) -> usize {
        self.state.received.lock().unwrap().len()
    }

    /// The latest request.
    pub fn last(&self) -> Received {
        let received = self.state.received.lock().unwrap();
        received.back().expect("a request").clone()
    }

    /// Lets one event, or one hanging answer, go.
    pub fn release(&self) {
        self.state.turns.add_permits(1);
    }

    /// Streams and hanging answers that nobody has hung up on.
    pub fn open(&self) -> usize {
        *self.state.open.lock().unwrap()
    }

    /// Waits until something is so.
    pub async fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let mut changes = self.state.changes.subscribe();
        within(what, async {
            while !is_so(self) {
                changes.changed().await.unwrap();
            }
        })
        .await;
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default();
        let to = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "to");
        let target = to.map(|(_, to)| to.into_owned()).unwrap_or_default();
        let index = self.note(&request);
        if path == "/ws" {
            return self.websocket(&mut request);
        }
        let headers = request.headers().clone();
        let body = self.read(index, request.into_body()).await;
        let mut response = Response::new(empty());
        match path.as_str() {
            "/sse" => return self.events(),
            "/hang" => {
                let _open = Open::new(self);
                self.turn().await;
            }
            "/odd" => {
                for (name, value) in [
                    ("x-valetkey-error", "no_route"),
                    ("connection", "x-private"),
                    ("x-private", "1"),
                    ("keep-alive", "timeout=5"),
                    ("set-cookie", "own=1"),
                    ("x-own", "kept"),
                ] {
                    response
                        .headers_mut()
                        .append(name, HeaderValue::from_static(value));
                }
            }
            "/redirect" => {
                *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
                response
                    .headers_mut()
                    .insert("location", target.parse().unwrap());
            }
            "/call" => return self.call(&headers, &body).await,
            path if path.starts_with("/status/") => {
                *response.status_mut() = path["/status/".len()..].parse().expect("a status");
            }
            _ => *response.body_mut() = full(body),
        }
        response
    }

    fn note(&self, request: &Request<Incoming>) -> usize {
        let received = Received {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            headers: request
                .headers()
                .iter()
                .map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec()))
                .collect(),
            body: Vec::new(),
            complete: false,
        };
        let mut all = self.state.received.lock().unwrap();
        assert!(all.len() < RECEIVED_MAX, "too many requests for this agent");
        all.push_back(received);
        let index = all.len() - 1;
        drop(all);
        self.state.changes.send_replace(());
        index
    }

    async fn read(&self, index: usize, mut body: Incoming) -> Bytes {
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return whole.into(); // it broke off and is never complete
            };
            let trailers = frame.trailers_ref().map(|t| format!("{t:?}"));
            let data = frame.into_data().unwrap_or_default();
            whole.extend_from_slice(&data);
            let mut all = self.state.received.lock().unwrap();
            all[index].body.extend_from_slice(&data);
            if let Some(trailers) = trailers {
                all[index]
                    .headers
                    .push(("(trailers)".into(), trailers.into()));
            }
            drop(all);
            self.state.changes.send_replace(());
        }
        self.state.received.lock().unwrap()[index].complete = true;
        self.state.changes.send_replace(());
        whole.into()
    }

    async fn turn(&self) {
        let permit = self.state.turns.acquire().await;
        permit.expect("never closed").forget();
    }

    fn events(&self) -> Response<Body> {
        let stream = (self.clone(), Open::new(self), 0u32);
        let frames = futures_util::stream::unfold(stream, |(agent, open, number)| async move {
            agent.turn().await;
            let event = Bytes::from(format!("data: {number}\n\n"));
            let next = (agent, open, number + 1);
            Some((Ok::<_, BoxError>(Frame::data(event)), next))
        });
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        response.headers_mut().insert(
            "content-type",
            HeaderValue::from_static("text/event-stream"),
        );
        response
    }

    fn websocket(&self, request: &mut Request<Incoming>) -> Response<Body> {
        let mut response = Response::new(empty());
        let Some(key) = request.headers().get("sec-websocket-key") else {
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        };
        let accept = derive_accept_key(key.as_bytes());
        let upgrade = hyper::upgrade::on(request);
        let open = Open::new(self);
        let state = Arc::clone(&self.state);
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let Ok(stream) = upgrade.await else { return };
            let stream = TokioIo::new(stream);
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Close(Some(frame)) = &message {
                    let close = (frame.code.into(), frame.reason.to_string());
                    state.closes.lock().unwrap().push(close);
                }
                if message.is_close() || socket.send(message).await.is_err() {
                    break;
                }
            }
            drop(open);
        }));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        headers.insert("sec-websocket-accept", accept.parse().unwrap());
        response
    }

    /// Calls the workspace through the sidecar as whoever called, and passes the answer on as it comes.
    async fn call(&self, headers: &http::HeaderMap, body: &[u8]) -> Response<Body> {
        let what: Value = serde_json::from_slice(body).expect("a description of a call");
        let outbound = self.state.outbound.get().expect("the sidecar's address");
        let word = |name: &str| what[name].as_str().unwrap_or_default().to_owned();
        let mut request = Request::new(match &what["body"] {
            Value::Null => empty(),
            body => full(body.to_string()),
        });
        *request.method_mut() = Method::from_bytes(word("method").as_bytes()).unwrap();
        *request.uri_mut() = format!("http://{outbound}{}", word("target"))
            .parse()
            .unwrap();
        if let Some(token) = headers.get("x-forwarded-access-token") {
            let bearer = format!("Bearer {}", token.to_str().unwrap());
            request
                .headers_mut()
                .insert("authorization", bearer.parse().unwrap());
        }
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert("content-type", json);
        let http: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        let answer = http.request(request).await.expect("the sidecar answers");
        answer.map(|body| body.map_err(Into::into).boxed_unsync())
    }
}

/// Counts something that is open until its peer hangs up.
struct Open(Agent);

impl Open {
    fn new(agent: &Agent) -> Self {
        *agent.state.open.lock().unwrap() += 1;
        agent.state.changes.send_replace(());
        Self(agent.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.state.open.lock().unwrap() -= 1;
        self.0.state.changes.send_replace(());
    }
}

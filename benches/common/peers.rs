//! What stands around the sidecar: a server that answers at once, and a relay that does nothing but relay.
//!
//! The server plays the workspace (with its issuer) and the agent. Both are as thin as hyper allows, so that the difference
//! between two measurements is the sidecar.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpListener;

/// The size of an answer.
pub const ANSWER_BYTES: usize = 1024;
/// Where the agent finds the session token.
pub const TOKEN_HEADER: &str = "x-forwarded-access-token";

/// A server on a port of its own, for as long as the process lives.
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    token: Arc<Mutex<Option<HeaderValue>>>,
}

impl Peer {
    /// Starts it on the current runtime. `jwks` is what it publishes as an issuer.
    pub async fn start(jwks: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let token = Arc::new(Mutex::new(None));
        let answers = Arc::new(Answers::new(address, jwks));
        let seen = Arc::clone(&token);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("nodelay");
                let (answers, seen) = (Arc::clone(&answers), Arc::clone(&seen));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answers, seen) = (Arc::clone(&answers), Arc::clone(&seen));
                    async move {
                        if let Some(token) = request.headers().get(TOKEN_HEADER) {
                            *seen.lock().unwrap_or_else(PoisonError::into_inner) =
                                Some(token.clone());
                        }
                        let answer = answers.to(request.uri().path());
                        let read = request.into_body().collect().await;
                        read.map(|_| answer)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, token }
    }

    /// The token of the newest request that had one.
    pub fn token(&self) -> Option<HeaderValue> {
        self.token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

struct Answers {
    discovery: Bytes,
    jwks: Bytes,
    other: Bytes,
}

impl Answers {
    fn new(address: SocketAddr, jwks: String) -> Self {
        let oidc = format!("http://{address}/oidc");
        let discovery = json!({
            "issuer": oidc,
            "jwks_uri": format!("{oidc}/jwks.json"),
            "token_endpoint": format!("{oidc}/v1/token"),
        });
        let filler = "x".repeat(ANSWER_BYTES - r#"{"value":""}"#.len());
        Self {
            discovery: discovery.to_string().into(),
            jwks: jwks.into(),
            other: json!({"value": filler}).to_string().into(),
        }
    }

    fn to(&self, path: &str) -> Response<Full<Bytes>> {
        let body = if path.contains("/.well-known/") {
            &self.discovery
        } else if path == "/oidc/jwks.json" {
            &self.jwks
        } else {
            &self.other
        };
        let mut response = Response::new(Full::new(body.clone()));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// Starts a relay to `target` on the current runtime: the floor of what a proxy on this stack can cost.
pub async fn relay(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let host = HeaderValue::from_str(&target.to_string()).expect("a header value");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("nodelay");
            let (client, host) = (client.clone(), host.clone());
            let service = service_fn(move |mut request: Request<Incoming>| {
                let (client, host) = (client.clone(), host.clone());
                let path = request
                    .uri()
                    .path_and_query()
                    .map_or("/", |path| path.as_str());
                let uri = format!("http://{target}{path}")
                    .parse::<Uri>()
                    .expect("a URI");
                *request.uri_mut() = uri;
                request.headers_mut().insert(HOST, host);
                async move { Ok::<_, Infallible>(client.request(request).await.expect("an answer")) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

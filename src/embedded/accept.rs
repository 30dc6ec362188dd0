//! Accepts connections for the embedded workspace and the other app, over TLS where set up, and ends them when they stop.
//!
//! HTTP/1.1 and HTTP/2. Knows nothing of what is served: each call goes through `door.rs` or `other_app.rs`.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::door;
use super::other_app::{self, AppSite};
use super::workspace::Site;
use crate::runtime::http_client::Body;

/// How long an idle connection is kept: longer than the pools of the known clients.
const IDLE_CONNECTION_TIME: Duration = Duration::from_secs(120);
/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Whose calls a connection carries.
#[derive(Clone)]
pub(super) enum Door {
    /// The workspace's.
    Workspace(Arc<Site>),
    /// Another app's.
    App(Arc<AppSite>),
}

impl Door {
    async fn open(self, request: Request<Incoming>) -> Result<Response<Body>, door::Closed> {
        match self {
            Self::Workspace(site) => door::open(site, request).await,
            Self::App(site) => other_app::open(site, request).await,
        }
    }
}

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Acceptor {
    pub(super) door: Door,
    /// No new connections, no new calls on old ones.
    pub(super) closing: CancellationToken,
    /// Every connection ends now.
    pub(super) ended: CancellationToken,
    pub(super) connections: TaskTracker,
    pub(super) tls: Option<TlsAcceptor>,
}

impl Acceptor {
    /// Takes connections until the workspace closes.
    pub(super) async fn run(self, listener: TcpListener) {
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let one = self.clone();
                        self.connections.spawn(async move { one.serve(stream).await });
                    }
                    // Out of descriptors: give others the chance to close some.
                    Err(_) => tokio::task::yield_now().await,
                },
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        // Small events must leave at once; a kernel that refuses this only makes streams lumpier.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.serve_http(stream).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream));
                if let Ok(Ok(stream)) = handshake.await {
                    self.serve_http(stream).await;
                }
            }
        }
    }

    async fn serve_http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_CONNECTION_TIME);
        let door = self.door.clone();
        let service = hyper::service::service_fn(move |request| door.clone().open(request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // An error here is the peer's end of the story, or a Close fault: nobody is left to tell.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.ended.cancelled() => return,
            () = self.closing.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = self.ended.cancelled() => {}
        }
    }
}

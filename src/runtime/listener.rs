//! Listeners: bind, accept, serve, drain. Knows nothing of what is served.
//!
//! Every phase of a connection has a limit (SECURITY R17, R18): the automatic protocol detection of hyper-util has none of its
//! own, so a guard ends a connection whose first request is not there in time. Where there is a certificate the first byte
//! tells https from http, and the handshake is within that same time. [`Serving`] does the same inside tunnels.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::framing_guard::FramingGuard;
use super::http_client::Body;

/// The limits of one listener.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// Open connections; past it new ones wait in the kernel's queue.
    pub connections_max: usize,
    /// From the accepted connection to the first whole request head.
    pub first_head_time: Duration,
    /// An idle kept-alive connection, and every later request head.
    pub idle_time: Duration,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Header lines of a request.
    pub headers_max: usize,
}

/// The wait after a failed accept, so that a full descriptor table does not burn a core.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// What a TLS connection begins with, and no HTTP request (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// HTTP/2 streams of one connection.
const H2_STREAMS_MAX: u32 = 100;
/// HTTP/2 flow-control windows in bytes: a stream's and a connection's.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// HTTP/2 pings, so that a dead peer is noticed.
const H2_PING_EVERY: Duration = Duration::from_secs(20);

/// How serving ends.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// No new connection, no further request; what runs may end.
    pub gently: CancellationToken,
    /// What runs is dropped.
    pub at_once: CancellationToken,
}

/// A bound listener: its address is known before anything is served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    limits: ListenerLimits,
    tls: Option<Arc<ServerConfig>>,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The far address.
    pub remote: SocketAddr,
    /// Our own.
    pub local: SocketAddr,
    /// Whether it came over TLS.
    pub secure: bool,
}

/// The answer to one request.
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What is served. One type for all, as [`Io`] is: HTTP is compiled once, not for each listener and each kind of stream.
pub type Service = Arc<dyn Fn(Request<Incoming>, Peer) -> Answer + Send + Sync>;

/// A connected stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

impl Listener {
    /// Binds an address.
    ///
    /// # Errors
    /// The system's, such as an address in use.
    pub async fn bind(address: SocketAddr, limits: ListenerLimits) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            address,
            limits,
            tls: None,
        })
    }

    /// The address it is bound to, with the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Also serves https, on the same port.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<ServerConfig>>) -> Self {
        self.tls = tls;
        self
    }

    /// Serves until `stop`, then lets running requests end: `tasks` is empty when the last one has.
    pub async fn serve(self, service: Service, stop: Stop, tasks: TaskTracker) {
        let slots = Arc::new(Semaphore::new(self.limits.connections_max));
        let serving = Serving::new(self.limits, stop.clone());
        loop {
            let slot = tokio::select! {
                () = stop.gently.cancelled() => return,
                slot = Arc::clone(&slots).acquire_owned() => slot,
            };
            let accepted = tokio::select! {
                () = stop.gently.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            let (Ok(slot), Ok((stream, remote))) = (slot, accepted) else {
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            };
            // A peer that has gone already is found out by the first read.
            let _ = stream.set_nodelay(true);
            let peer = Peer {
                remote,
                local: self.address,
                secure: false,
            };
            let (serving, service, tls) = (serving.clone(), service.clone(), self.tls.clone());
            tasks.spawn(async move {
                serving.accepted(stream, tls, peer, service).await;
                drop(slot);
            });
        }
    }
}

/// Serves HTTP on streams that are connected already: a listener's, and those inside its tunnels.
#[derive(Clone)]
pub struct Serving {
    builder: Builder<TokioExecutor>,
    limits: ListenerLimits,
    stop: Stop,
}

impl Serving {
    /// Under these limits, until `stop`.
    pub fn new(limits: ListenerLimits, stop: Stop) -> Self {
        Self {
            builder: server(limits),
            limits,
            stop,
        }
    }

    /// How serving ends.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// When the first head must be there of a connection that begins now.
    pub fn first_head_by(&self) -> Instant {
        Instant::now() + self.limits.first_head_time
    }

    async fn accepted(
        &self,
        stream: TcpStream,
        tls: Option<Arc<ServerConfig>>,
        peer: Peer,
        service: Service,
    ) {
        let by = self.first_head_by();
        let Some(tls) = tls else {
            return self.plain(Box::new(stream), by, peer, service).await;
        };
        let mut first = [0];
        match self.in_time(by, stream.peek(&mut first)).await {
            Some(Ok(1)) if first == [TLS_HANDSHAKE] => {
                let stream = Box::new(stream);
                self.secured(stream, by, tls, peer, service).await;
            }
            Some(Ok(1)) => self.plain(Box::new(stream), by, peer, service).await,
            Some(Ok(_) | Err(_)) | None => {}
        }
    }

    /// Serves https: the handshake counts against the time of the first head.
    pub async fn secured(
        &self,
        stream: Box<dyn Io>,
        by: Instant,
        tls: Arc<ServerConfig>,
        peer: Peer,
        service: Service,
    ) {
        let handshake = TlsAcceptor::from(tls).accept(stream);
        match self.in_time(by, handshake).await {
            Some(Ok(stream)) => {
                let peer = Peer {
                    secure: true,
                    ..peer
                };
                Box::pin(self.plain(Box::new(stream), by, peer, service)).await;
            }
            Some(Err(fault)) => {
                tracing::debug!(peer = %peer.remote, %fault, "no TLS handshake; does the client trust the sidecar's CA?");
            }
            None => tracing::debug!(peer = %peer.remote, "no TLS handshake in time"),
        }
    }

    /// Waits for a step of a connection on which no request has begun.
    async fn in_time<T>(&self, by: Instant, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = tokio::time::timeout_at(by, step) => done.ok(),
            () = self.stop.gently.cancelled() => None,
            () = self.stop.at_once.cancelled() => None,
        }
    }

    async fn plain(&self, stream: Box<dyn Io>, by: Instant, peer: Peer, service: Service) {
        let begun = Arc::new(AtomicBool::new(false));
        let tunnel = Arc::new(AtomicBool::new(false));
        let (seen, switched) = (Arc::clone(&begun), Arc::clone(&tunnel));
        let guarded = Guarded {
            stream,
            begun,
            tunnel,
            limit: Box::pin(tokio::time::sleep_until(by)),
            framing: FramingGuard::default(),
        };
        let handler = service_fn(move |request: Request<Incoming>| {
            seen.store(true, Ordering::Relaxed);
            let connects = request.method() == Method::CONNECT;
            let answer = service(request, peer);
            let switched = Arc::clone(&switched);
            async move {
                let answer = answer.await;
                let status = answer.status();
                // Before the peer can know it, and so before it sends anything through the tunnel.
                if status == StatusCode::SWITCHING_PROTOCOLS || (connects && status.is_success()) {
                    switched.store(true, Ordering::Relaxed);
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let Stop { gently, at_once } = &self.stop;
        let serving = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(guarded), handler);
        tokio::pin!(serving);
        let drained = async {
            tokio::select! {
                ended = serving.as_mut() => ended,
                () = gently.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    serving.as_mut().await
                }
            }
        };
        let ended = tokio::select! {
            ended = drained => ended,
            () = at_once.cancelled() => return,
        };
        if let Err(fault) = ended {
            tracing::debug!(peer = %peer.remote, %fault, "connection ended early");
        }
    }
}

fn server(limits: ListenerLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_time)
        .max_buf_size(limits.head_bytes_max.max(8192))
        .max_headers(limits.headers_max)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(H2_PING_EVERY))
        .keep_alive_timeout(H2_PING_EVERY);
    builder
}

/// Ends a connection on which no request has begun in time, and watches over the framing of those that come.
struct Guarded {
    stream: Box<dyn Io>,
    begun: Arc<AtomicBool>,
    tunnel: Arc<AtomicBool>,
    limit: Pin<Box<Sleep>>,
    framing: FramingGuard,
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(done) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            if self.tunnel.load(Ordering::Relaxed) {
                self.framing.leave();
            }
            if let Some(fresh) = buffer.filled_mut().get_mut(before..) {
                self.framing.look(fresh);
            }
            return Poll::Ready(done);
        }
        if self.begun.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        ready!(self.limit.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no request in time",
        )))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::http_client::full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const LIMITS: ListenerLimits = ListenerLimits {
        connections_max: 2,
        first_head_time: Duration::from_millis(100),
        idle_time: Duration::from_secs(5),
        head_bytes_max: 8192,
        headers_max: 10,
    };

    async fn start() -> (SocketAddr, Stop, TaskTracker) {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), LIMITS)
            .await
            .unwrap();
        let (address, stop, tasks) = (listener.address(), Stop::default(), TaskTracker::new());
        let hello: Service =
            Arc::new(|_request, _peer| Box::pin(async { Response::new(full("hello")) }));
        tokio::spawn(listener.serve(hello, stop.clone(), tasks.clone()));
        (address, stop, tasks)
    }

    async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
            .await
            .expect("the connection must end by itself")
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn requests_are_served_and_connections_that_say_nothing_are_ended() {
        let (address, _stop, _tasks) = start().await;
        assert!(
            exchange(
                address,
                b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )
            .await
            .ends_with("hello")
        );
        for silent in [
            &b""[..],
            b"P",
            b"PRI * HTTP/2.0\r\n",
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\nx: ",
        ] {
            let answer = exchange(address, silent).await;
            assert!(!answer.contains("hello"), "{silent:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn too_many_headers_are_refused_and_the_connection_closed() {
        let (address, _stop, _tasks) = start().await;
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(50));
        assert!(
            exchange(address, head.as_bytes())
                .await
                .starts_with("HTTP/1.1 431")
        );
    }

    #[tokio::test]
    async fn a_drain_ends_idle_connections_and_accepts_no_more() {
        let (address, stop, tasks) = start().await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0u8; 12];
        idle.read_exact(&mut first).await.unwrap();
        stop.gently.cancel();
        tasks.close();
        tokio::time::timeout(Duration::from_secs(10), tasks.wait())
            .await
            .expect("drained");
    }
}

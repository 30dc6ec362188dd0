//! Tunnels that nobody looks into: one resolution, a check of every address, a connection to what was checked, and bytes
//! both ways, counted.
//!
//! Between check and connection nothing is resolved again, so an answer that changes changes nothing. Knows no list: the
//! check is the caller's. `proxy/connect.rs` says what may be asked for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use crate::domain::tunnel::{Host, Place};

use super::listener::Stop;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// How long a tunnel must be still to be ended while the sidecar stops.
const STILL_AT_STOP: Duration = Duration::from_secs(1);

/// Why there is no far side.
#[derive(Debug, thiserror::Error)]
pub enum TunnelFault {
    /// The name leads nowhere.
    #[error("the host name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// None of its addresses answers.
    #[error("the host cannot be reached")]
    Connect(#[source] io::Error),
    /// It took too long.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
}

/// The addresses of a place, each once. Never asks twice.
///
/// # Errors
/// [`TunnelFault`] when there is none in time.
pub async fn resolve(place: &Place, limit: Duration) -> Result<Vec<IpAddr>, TunnelFault> {
    let name = match &place.host {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Name(name) => (&**name, place.port),
    };
    let found = match timeout(limit, lookup_host(name)).await {
        Ok(Ok(found)) => found,
        Ok(Err(fault)) => return Err(TunnelFault::Resolve(fault)),
        Err(_) => return Err(TunnelFault::Timeout(limit)),
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip()) {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(TunnelFault::Resolve(io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

/// Connects to the first of these addresses that answers.
///
/// # Errors
/// [`TunnelFault`]: that of the last one.
pub async fn connect(
    addresses: &[IpAddr],
    port: u16,
    limit: Duration,
) -> Result<TcpStream, TunnelFault> {
    let mut last = TunnelFault::Connect(io::ErrorKind::NotFound.into());
    for address in addresses {
        let there = TcpStream::connect(SocketAddr::new(*address, port));
        last = match timeout(limit, there).await {
            Ok(Ok(stream)) => {
                // A peer that has gone already is found out by the first read.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(fault)) => TunnelFault::Connect(fault),
            Err(_) => TunnelFault::Timeout(limit),
        };
    }
    Err(last)
}

/// How many bytes went which way.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// From the agent to the far side.
    pub sent: Arc<AtomicU64>,
    /// And back.
    pub received: Arc<AtomicU64>,
}

impl Counts {
    fn total(&self) -> u64 {
        let (sent, received) = (&self.sent, &self.received);
        sent.load(Ordering::Relaxed)
            .wrapping_add(received.load(Ordering::Relaxed))
    }
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both sides were done.
    Closed,
    /// One side broke off.
    Broken,
    /// Nothing moved for the stated time.
    Idle,
    /// The sidecar stops.
    Stopped,
}

/// Carries bytes both ways until an end.
pub async fn relay(
    near: impl AsyncRead + AsyncWrite + Unpin,
    far: impl AsyncRead + AsyncWrite + Unpin,
    counts: &Counts,
    idle_time: Duration,
    stop: &Stop,
) -> Ended {
    let mut near = Counted {
        stream: near,
        read: &counts.sent,
    };
    let mut far = Counted {
        stream: far,
        read: &counts.received,
    };
    tokio::select! {
        done = copy_bidirectional(&mut near, &mut far) => match done {
            Ok(_) => Ended::Closed,
            Err(_) => Ended::Broken,
        },
        ended = still(counts, idle_time, stop) => ended,
        () = stop.at_once.cancelled() => Ended::Stopped,
    }
}

/// Completes when nothing has moved for the stated time, or for a moment while the sidecar stops.
async fn still(counts: &Counts, idle_time: Duration, stop: &Stop) -> Ended {
    loop {
        let (before, stopping) = (counts.total(), stop.gently.is_cancelled());
        let (limit, ended) = if stopping {
            (STILL_AT_STOP, Ended::Stopped)
        } else {
            (idle_time, Ended::Idle)
        };
        tokio::select! {
            () = sleep(limit) => if counts.total() == before {
                return ended;
            },
            () = stop.gently.cancelled(), if !stopping => {}
        }
    }
}

/// Counts what is read.
struct Counted<'c, S> {
    stream: S,
    read: &'c AtomicU64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let fresh = buffer.filled().len() - before;
        self.read.fetch_add(fresh as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn bytes_go_both_ways_and_are_counted() {
        let (mut agent, near) = duplex(64);
        let (mut server, far) = duplex(64);
        let (counts, stop) = (Counts::default(), Stop::default());
        let talk = async {
            agent.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            server.read_exact(&mut heard).await.unwrap();
            server.write_all(b"hello back").await.unwrap();
            drop(server);
            let mut heard = String::new();
            agent.read_to_string(&mut heard).await.unwrap();
            drop(agent);
            heard
        };
        let (ended, heard) = tokio::join!(relay(near, far, &counts, IDLE, &stop), talk);
        assert_eq!((ended, heard.as_str()), (Ended::Closed, "hello back"));
        assert_eq!(counts.sent.load(Ordering::Relaxed), 5);
        assert_eq!(counts.received.load(Ordering::Relaxed), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_still_tunnel_ends_after_its_time_and_soon_when_the_sidecar_stops() {
        let started = tokio::time::Instant::now();
        let (counts, stop) = (Counts::default(), Stop::default());
        let (_agent, near) = duplex(64);
        let (_server, far) = duplex(64);
        let ended = relay(near, far, &counts, IDLE, &stop).await;
        assert_eq!((ended, started.elapsed()), (Ended::Idle, IDLE));
        stop.gently.cancel();
        let (_agent, near) = duplex(64);
        let (_server, far) = duplex(64);
        let ended = relay(near, far, &counts, IDLE, &stop).await;
        assert_eq!(ended, Ended::Stopped);
        assert_eq!(started.elapsed(), IDLE + STILL_AT_STOP);
    }

    #[tokio::test]
    async fn an_address_is_never_resolved() {
        let place = Place::parse("127.0.0.1:9").unwrap();
        let found = resolve(&place, IDLE).await.unwrap();
        assert_eq!(found, [IpAddr::from([127, 0, 0, 1])]);
    }
}

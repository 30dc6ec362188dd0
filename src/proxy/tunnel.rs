//! A WebSocket between client and agent, once both have agreed to one: bytes pass as they are, and the session lives with it.
//!
//! What the client sends is a sign of life of its user. When the session ends all the same (nobody renewed its token, and the
//! platform renews one for a new request only), the tunnel ends too: at the end of a frame both sides get a close frame with code
//! 4401 and a reason, and a client that knows the code asks for a new page. Without an end of a frame within a moment the connection
//! just ends. `tunnel/frames.rs` knows frames; nothing here reads what they say.

use std::io;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::runtime::session::lease::Lease;

use self::frames::Cursor;

mod frames;

/// The code of the close frame: of the range for applications, after HTTP's 401.
pub const SESSION_ENDED: u16 = 4401;
/// What people find in the browser's console.
pub const SESSION_ENDED_REASON: &str =
    "valetkey: your session has ended and nobody renewed it; reload the page";

const BUFFER_BYTES: usize = 16 * 1024;
/// How long the end of a frame is waited for.
const BOUNDARY_TIME: Duration = Duration::from_secs(2);
/// How long the sides may take to read the close and to hang up.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// One side of the tunnel.
struct Side<S> {
    read: ReadHalf<S>,
    write: WriteHalf<S>,
    /// Of what comes from there.
    cursor: Cursor,
}

impl<S: AsyncRead + AsyncWrite> Side<S> {
    fn new(stream: S) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            read,
            write,
            cursor: Cursor::default(),
        }
    }
}

/// Passes bytes until one side fails, both have ended, or the session has.
pub async fn relay<C, A>(client: C, agent: A, lease: Option<&Lease>)
where
    C: AsyncRead + AsyncWrite,
    A: AsyncRead + AsyncWrite,
{
    let (mut client, mut agent) = (Side::new(client), Side::new(agent));
    let ended = lease.map_or_else(CancellationToken::new, |lease| {
        lease.session().ended().clone()
    });
    let seen = || {
        if let Some(lease) = lease {
            lease.touch();
        }
    };
    let cleanly = {
        let up = pump(
            &mut client.read,
            &mut agent.write,
            &mut client.cursor,
            &ended,
            seen,
        );
        let down = pump(
            &mut agent.read,
            &mut client.write,
            &mut agent.cursor,
            &ended,
            || {},
        );
        let mut both = Box::pin(async { tokio::try_join!(up, down) });
        tokio::select! {
            biased;
            () = ended.cancelled() => timeout(BOUNDARY_TIME, both).await.is_ok_and(|both| both.is_ok()),
            // Either side may hang up at any time; that is how tunnels end.
            done = &mut both => {
                if done.is_err() || !ended.is_cancelled() {
                    return;
                }
                true
            }
        }
    };
    tracing::info!(
        cleanly,
        "a WebSocket was closed, because its session has ended"
    );
    if cleanly {
        // Whoever has gone does not need to be told.
        let _ = timeout(CLOSE_TIME, say_goodbye(client, agent)).await;
    }
}

/// From one side to the other. Returns at the end of the stream, or at the end of a frame once the session has ended.
async fn pump<R: AsyncRead, W: AsyncWrite>(
    from: &mut ReadHalf<R>,
    to: &mut WriteHalf<W>,
    cursor: &mut Cursor,
    ended: &CancellationToken,
    seen: impl Fn(),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = tokio::select! {
            biased;
            () = ended.cancelled(), if cursor.at_boundary() => return Ok(()),
            count = from.read(&mut buffer) => count?,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        seen();
        let bytes = if ended.is_cancelled() {
            let taken = cursor.feed_to_boundary(bytes);
            bytes.get(..taken).unwrap_or_default()
        } else {
            cursor.feed(bytes);
            bytes
        };
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}

/// A close frame to each side, then the end of the stream; what still comes is read and dropped, so that no reset overtakes it.
async fn say_goodbye<C, A>(mut client: Side<C>, mut agent: Side<A>) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    A: AsyncRead + AsyncWrite,
{
    let mut mask = [0; 4];
    rand::fill(&mut mask).map_err(|_| io::Error::other("no random bytes"))?;
    if !agent.cursor.closed() {
        let frame = frames::close(SESSION_ENDED, SESSION_ENDED_REASON, None);
        client.write.write_all(&frame).await?;
    }
    if !client.cursor.closed() {
        let frame = frames::close(SESSION_ENDED, SESSION_ENDED_REASON, Some(mask));
        agent.write.write_all(&frame).await?;
    }
    client.write.shutdown().await?;
    agent.write.shutdown().await?;
    let (mut one, mut other) = (tokio::io::sink(), tokio::io::sink());
    let rest = tokio::join!(
        tokio::io::copy(&mut client.read, &mut one),
        tokio::io::copy(&mut agent.read, &mut other),
    );
    rest.0.and(rest.1).map(drop)
}

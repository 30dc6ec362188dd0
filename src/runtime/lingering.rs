//! A request body that is read to its end when nobody wants it any more.
//!
//! A refusal is answered before the body has come. Were the rest left unread, the server would close the connection under the
//! client's hands: one that still sends never sees the answer, one that keeps the connection loses its next call, and SDKs
//! repeat both for minutes (facts/clients.md 1). So what is left is read and thrown away, for a while, beside the answer.
//! HTTP/1.1 only: HTTP/2 resets the stream alone. Knows nothing of what is served.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;

use super::http_client::{Body, BoxError};

/// How long an unwanted body is read; what is not through by then loses its connection. As long as the drain.
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(15);

/// The request with a body that lingers, where the connection depends on it.
pub fn linger<B>(request: Request<B>) -> Request<Body>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    // Whoever asks first whether to send it does not send it after a refusal.
    let lingers = request.version() <= Version::HTTP_11 && !request.headers().contains_key(EXPECT);
    request.map(|body| {
        if lingers && !body.is_end_stream() {
            Lingering(Some(body)).boxed_unsync()
        } else {
            body.map_err(Into::into).boxed_unsync()
        }
    })
}

/// `None` once it has ended.
struct Lingering<B>(Option<B>)
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static;

impl<B> HttpBody for Lingering<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl<B> Drop for Lingering<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        let Some(mut body) = self.0.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // Without a runtime there is no connection either.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            // Whoever takes longer is cut off, which is all that could be done at once otherwise.
            let _ = tokio::time::timeout(LINGER_TIME_MAX, rest).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;

    use http::Response;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::runtime::http_client::full;

    /// Answers every request at once, reading nothing.
    async fn start() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = service_fn(|request| async {
                    drop(linger(request));
                    Ok::<_, Infallible>(Response::new(full("no")))
                });
                let connection = http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), served));
            }
        });
        address
    }

    async fn answer(stream: &mut TcpStream) {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\nno") {
            let mut piece = [0; 512];
            let read = tokio::time::timeout(LINGER_TIME_MAX, stream.read(&mut piece));
            let count = read.await.expect("an answer in time").unwrap();
            assert_ne!(count, 0, "the connection was closed instead of an answer");
            seen.extend_from_slice(&piece[..count]);
        }
    }

    #[tokio::test]
    async fn a_connection_outlives_an_answer_that_did_not_wait_for_the_body() {
        let mut stream = TcpStream::connect(start().await).await.unwrap();
        for _ in 0..3 {
            let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
            stream.write_all(head).await.unwrap();
            answer(&mut stream).await;
            stream.write_all(&[b'x'; 100_000]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn whoever_sends_much_before_it_reads_sees_the_answer() {
        let mut stream = TcpStream::connect(start().await).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        for _ in 0..200 {
            stream.write_all(&[b'x'; 100_000]).await.unwrap();
        }
        answer(&mut stream).await;
    }
}

//! Bodies: read whole within a limit where a decision needs it, passed through otherwise.
//!
//! An inspected body is refused rather than passed on whenever two readers could differ (SECURITY R22). Knows no policy.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::domain::strict_json::{self, JsonFault};
use crate::runtime::http_client::{Body, BoxError, SendFault, full, read_limited};

/// How deep the JSON of an inspected body may be nested.
pub const BODY_DEPTH_MAX: usize = 32;

/// Why a body that had to be read was refused.
#[derive(Debug, thiserror::Error)]
pub enum BodyFault {
    /// Longer than `limits.inspected_body_bytes`.
    #[error(
        "the body of this call decides who may make it and must be at most {0} bytes (limits.inspected_body_bytes)"
    )]
    TooLarge(usize),
    /// A `Content-Encoding`.
    #[error(
        "the body of this call decides who may make it and must not be encoded: send it without Content-Encoding"
    )]
    Encoding,
    /// Not `application/json` in UTF-8.
    #[error("the body of this call decides who may make it and must be application/json in UTF-8")]
    ContentType,
    /// Not JSON, or JSON with two readings.
    #[error("the body is not acceptable JSON: {0}")]
    Json(#[from] JsonFault),
    /// It broke off.
    #[error("the body broke off")]
    Broken,
}

/// A body that was read, and its one reading.
#[derive(Debug)]
pub struct Inspected {
    /// The very bytes that came, for forwarding and for one retry.
    pub bytes: Bytes,
    /// What they say; an absent body is `null`.
    pub json: Value,
}

/// Reads a body whole.
///
/// # Errors
/// [`BodyFault`]: never forwarded unread.
pub async fn inspect(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Inspected, BodyFault> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.any(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(BodyFault::Encoding);
    }
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyFault::TooLarge(bytes_max));
    }
    let bytes = match read_limited(body, bytes_max).await {
        Ok(bytes) => bytes,
        Err(fault) if fault.is::<http_body_util::LengthLimitError>() => {
            return Err(BodyFault::TooLarge(bytes_max));
        }
        Err(_) => return Err(BodyFault::Broken),
    };
    if bytes.is_empty() {
        return Ok(Inspected {
            bytes,
            json: Value::Null,
        });
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(only), None) if is_json(only.as_bytes()) => {}
        (_, _) => return Err(BodyFault::ContentType),
    }
    let json = strict_json::parse(&bytes, BODY_DEPTH_MAX)?;
    Ok(Inspected { bytes, json })
}

fn is_json(content_type: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content_type) else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    parts
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            !name.trim().eq_ignore_ascii_case("charset")
                || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
}

/// What goes out: streamed once, or at hand and repeatable.
#[derive(Debug)]
pub enum Outgoing {
    /// Read by nobody but the far side.
    Stream(Option<Body>),
    /// Inspected or empty: can be sent again.
    Bytes(Bytes),
}

impl Outgoing {
    /// A body that nobody has read; repeatable when it is known to be empty.
    pub fn stream(body: Body) -> Self {
        if body.is_end_stream() {
            Self::Bytes(Bytes::new())
        } else {
            Self::Stream(Some(body))
        }
    }

    /// The body to send, `None` once a stream is gone. Every byte that is sent is counted.
    pub fn take(&mut self, counter: &Arc<AtomicU64>) -> Option<Body> {
        let body = match self {
            Self::Stream(body) => body.take()?,
            Self::Bytes(bytes) => full(bytes.clone()),
        };
        Some(
            Counted {
                body,
                counter: Arc::clone(counter),
            }
            .boxed_unsync(),
        )
    }

    /// Whether it can be sent again.
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Self::Bytes(_))
    }
}

/// The request's own body broke off on its way through: the sender's doing, not the far side's.
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off")]
struct BrokeOff(#[source] BoxError);

/// Whether a failed exchange failed because of the request's body.
pub fn is_senders_doing(fault: &SendFault) -> bool {
    let mut cause = std::error::Error::source(fault);
    while let Some(error) = cause {
        if error.is::<BrokeOff>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Counts data bytes and drops trailers (SECURITY R16).
struct Counted {
    body: Body,
    counter: Arc<AtomicU64>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.counter.fetch_add(data.len() as u64, Ordering::Relaxed);
                        Some(Ok(Frame::data(data)))
                    }
                    Err(_trailers) => continue,
                },
                Some(Err(cause)) => Some(Err(BrokeOff(cause).into())),
                None => None,
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Drops the trailers of a request that is forwarded without being counted.
pub fn without_trailers(body: Body) -> Body {
    Counted {
        body,
        counter: Arc::default(),
    }
    .boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    async fn read(pairs: &[(&str, &str)], bytes: &'static [u8]) -> Result<Value, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        inspect(&headers, full(bytes), 64)
            .await
            .map(|i| i.json)
            .map_err(|e| e.to_string())
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[tokio::test]
    async fn a_body_with_one_reading_is_read() {
        assert_eq!(read(&[JSON], b"{\"a\": 1}").await.unwrap()["a"], 1);
        assert!(
            read(
                &[("content-type", "application/json; charset=UTF-8")],
                b"{}"
            )
            .await
            .is_ok()
        );
        assert!(
            read(
                &[
                    ("content-type", "application/json"),
                    ("content-encoding", "identity")
                ],
                b"{}"
            )
            .await
            .is_ok()
        );
        assert_eq!(read(&[], b"").await.unwrap(), Value::Null);
    }

    #[tokio::test]
    async fn a_body_with_two_readings_is_refused() {
        assert!(
            read(&[JSON, ("content-encoding", "gzip")], b"{}")
                .await
                .unwrap_err()
                .contains("Content-Encoding")
        );
        for bad in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
            "application/jsonp",
            "",
        ] {
            assert!(
                read(&[("content-type", bad)], b"{}").await.is_err(),
                "{bad}"
            );
        }
        assert!(read(&[], b"{}").await.is_err());
        assert!(read(&[JSON, JSON], b"{}").await.is_err());
        for bad in [
            &b"{\"a\":1,\"a\":2}"[..],
            b"{\"a\":1,\"\\u0061\":2}",
            b"{} {}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":1",
            b"\xff",
        ] {
            assert!(read(&[JSON], bad).await.is_err(), "{bad:?}");
        }
        assert!(
            read(&[JSON], &[b' '; 65])
                .await
                .unwrap_err()
                .contains("at most 64 bytes")
        );
    }
}

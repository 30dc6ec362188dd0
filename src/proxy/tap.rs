//! What is read out of answers, or changed in them, on their way to the agent.
//!
//! A tap finds one value of a JSON answer while it streams by, before the bytes that hold it leave; a rewrite reads a small
//! answer whole. Knows no policy and no audit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::domain::catalog::member::Member;
use crate::runtime::http_client::{Body, BoxError, full, read_limited};

use self::scanner::{Scanner, Step};

mod scanner;

/// The largest answer that is read whole to be rewritten, in bytes.
pub const REWRITE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Calls `found` with each text or whole number at a member of a JSON answer once it has gone by.
pub fn tap(body: Body, member: &Member, found: impl FnMut(&str) + Send + 'static) -> Body {
    Tapped {
        body,
        scanner: Some((Scanner::new(member.steps()), Box::new(found))),
    }
    .boxed_unsync()
}

type Found = Box<dyn FnMut(&str) + Send>;

struct Tapped {
    body: Body,
    scanner: Option<(Scanner, Found)>,
}

impl HttpBody for Tapped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(data)) = frame.as_ref().map(|f| f.as_ref().map(Frame::data_ref))
            && let (Some(data), Some((mut scanner, mut found))) = (data, self.scanner.take())
            && scanner.feed(data, &mut found) == Step::More
        {
            self.scanner = Some((scanner, found));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Puts a stand-in where a member (a dotted path) of a JSON answer names another origin, or removes the member where there is
/// none. Answers that are no JSON have no members.
///
/// # Errors
/// When the answer breaks off or is longer than [`REWRITE_BYTES_MAX`].
pub async fn rewrite_member(
    response: Response<Body>,
    member: &str,
    stand_in: impl FnOnce(&str) -> Option<String>,
) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = response.into_parts();
    let bytes = read_limited(body, REWRITE_BYTES_MAX).await?;
    let Ok(mut json) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(Response::from_parts(parts, full(bytes)));
    };
    let (parents, last) = member.rsplit_once('.').unwrap_or(("", member));
    let parent = parents
        .split('.')
        .filter(|p| !p.is_empty())
        .try_fold(&mut json, |at, name| at.get_mut(name));
    let Some(members) = parent
        .and_then(Value::as_object_mut)
        .filter(|members| members.contains_key(last))
    else {
        return Ok(Response::from_parts(parts, full(bytes)));
    };
    match members.get(last).and_then(Value::as_str).and_then(stand_in) {
        Some(url) => members.insert(last.to_owned(), url.into()),
        None => members.remove(last),
    };
    let text = json.to_string();
    parts
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    Ok(Response::from_parts(parts, full(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn the_tap_changes_nothing_and_tells_before_the_bytes_leave() {
        let (sender, receiver) = mpsc::channel();
        let body = tap(
            full(r#"{"statement_id":"s1"}"#),
            &Member::parse("statement_id").unwrap(),
            move |id| sender.send(id.to_owned()).unwrap(),
        );
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(&bytes[..], br#"{"statement_id":"s1"}"#);
        assert_eq!(receiver.try_recv().unwrap(), "s1");
    }

    #[tokio::test]
    async fn a_member_is_rewritten_or_removed_and_the_rest_kept() {
        let rewrite = |text: &'static str| async move {
            let stand_in = |url: &str| (url == "https://known").then(|| "http://here".to_owned());
            let response = rewrite_member(Response::new(full(text)), "status.index_url", stand_in)
                .await
                .unwrap();
            String::from_utf8(
                response
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .to_vec(),
            )
            .unwrap()
        };
        assert_eq!(
            rewrite(r#"{"name":"i","status":{"index_url":"https://x","ready":true}}"#).await,
            r#"{"name":"i","status":{"ready":true}}"#
        );
        assert_eq!(
            rewrite(r#"{"status":{"index_url":"https://known","ready":true}}"#).await,
            r#"{"status":{"index_url":"http://here","ready":true}}"#
        );
        assert_eq!(
            rewrite(r#"{"status":{"index_url":["https://known"]}}"#).await,
            r#"{"status":{}}"#
        );
        assert_eq!(rewrite(r#"{"name" : "i"}"#).await, r#"{"name" : "i"}"#);
        assert_eq!(rewrite("not json").await, "not json");
    }
}

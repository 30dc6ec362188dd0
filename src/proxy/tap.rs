//! What is read out of answers, or changed in them, on their way to the agent.
//!
//! A tap finds one top-level string of a JSON answer while it streams by, before the bytes that hold it leave; a rewrite
//! reads a small answer whole. Knows no policy and no audit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::runtime::http_client::{Body, BoxError, full, read_limited};

/// How far into an answer a tap looks, in bytes. Statement answers name their id first.
pub const TAP_BYTES_MAX: usize = 256 * 1024;
/// The largest answer that is read whole to be rewritten, in bytes.
pub const REWRITE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Calls `found` with a top-level string member of a JSON answer once it has gone by.
pub fn tap(body: Body, field: &str, found: impl FnOnce(&str) + Send + 'static) -> Body {
    Tapped {
        body,
        scanner: Some((Scanner::new(field), Box::new(found))),
    }
    .boxed_unsync()
}

type Found = Box<dyn FnOnce(&str) + Send>;

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
            && let (Some(data), Some((mut scanner, found))) = (data, self.scanner.take())
        {
            match scanner.feed(data) {
                Step::Found(value) => found(&value),
                Step::More => self.scanner = Some((scanner, found)),
                Step::Never => {}
            }
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

enum Step {
    Found(String),
    More,
    Never,
}

/// Finds a top-level string member in JSON that arrives in pieces: it tracks strings and depth, and parses only strings.
struct Scanner {
    field: Box<str>,
    depth: usize,
    /// The string that is being read, with its quotes, and whether its last byte was a backslash.
    string: Option<(Vec<u8>, bool)>,
    /// The last whole string at depth 1.
    last: Option<String>,
    /// The member whose value is next.
    key: Option<String>,
    seen: usize,
}

impl Scanner {
    fn new(field: &str) -> Self {
        Self {
            field: field.into(),
            depth: 0,
            string: None,
            last: None,
            key: None,
            seen: 0,
        }
    }

    fn feed(&mut self, data: &[u8]) -> Step {
        for byte in data {
            self.seen += 1;
            if self.seen > TAP_BYTES_MAX {
                return Step::Never;
            }
            if let Some((text, escaped)) = &mut self.string {
                text.push(*byte);
                let ends = *byte == b'"' && !*escaped;
                *escaped = *byte == b'\\' && !*escaped;
                if ends && let Some(value) = self.end_string() {
                    return Step::Found(value);
                }
                continue;
            }
            match byte {
                b'"' => self.string = Some((vec![b'"'], false)),
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Step::Never;
                    }
                }
                b':' if self.depth == 1 => self.key = self.last.take(),
                b',' if self.depth == 1 => self.key = None,
                _ => {}
            }
        }
        Step::More
    }

    fn end_string(&mut self) -> Option<String> {
        let (text, _) = self.string.take()?;
        if self.depth != 1 {
            return None;
        }
        let value: String = serde_json::from_slice(&text).ok()?;
        if self.key.as_deref() == Some(&*self.field) {
            return Some(value);
        }
        if self.key.is_none() {
            self.last = Some(value);
        }
        None
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
    use proptest::prelude::*;
    use std::sync::mpsc;

    fn scan(pieces: &[&[u8]]) -> Option<String> {
        let mut scanner = Scanner::new("statement_id");
        for piece in pieces {
            match scanner.feed(piece) {
                Step::Found(value) => return Some(value),
                Step::More => {}
                Step::Never => return None,
            }
        }
        None
    }

    #[test]
    fn only_the_top_level_member_is_found() {
        assert_eq!(
            scan(&[br#"{"statement_id": "a\"b", "x": 1}"#]).as_deref(),
            Some("a\"b")
        );
        assert_eq!(scan(&[br#"{"x": {"statement_id": "inner"}, "y": ["statement_id", "z"], "statement_id":"outer"}"#]).as_deref(), Some("outer"));
        assert_eq!(scan(&[br#"{"x": "statement_id", "y": "v"}"#]), None);
        assert_eq!(scan(&[br#"["statement_id", "v"]"#]), None);
        assert_eq!(scan(&[br#"{"statement_id": 7}"#]), None);
        assert_eq!(
            scan(&[br#"{"a": "} \\" , "statement_id":"v"}"#]).as_deref(),
            Some("v")
        );
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cut in 0usize..60, other in 0usize..60) {
            let text: &[u8] = br#"{"a": "x,\"y", "b": [1, {"c": "d"}], "statement_id": "01ef", "z": 1}"#;
            let (a, b) = (cut.min(other).min(text.len()), cut.max(other).min(text.len()));
            prop_assert_eq!(scan(&[&text[..a], &text[a..b], &text[b..]]), Some("01ef".to_owned()));
        }
    }

    #[tokio::test]
    async fn the_tap_changes_nothing_and_tells_before_the_bytes_leave() {
        let (sender, receiver) = mpsc::channel();
        let body = tap(
            full(r#"{"statement_id":"s1"}"#),
            "statement_id",
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

//! One authenticated call in a handler's hands: its path in segments, its query, its caller, its body.
//!
//! Also reads credentials out of headers, for the API (bearer) and the token endpoint (basic). Decides nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::answer::Refusal;
use super::grants::Caller;
use crate::runtime::http_client::{Body, read_limited};

/// The longest JSON body read into memory: the platform's limit for a SQL text, and room around it.
pub(super) const JSON_BYTES_MAX: usize = 17 * 1024 * 1024;
/// What is read of a body nobody asked for, so that the connection stays usable.
const UNWANTED_BYTES_MAX: usize = 1024 * 1024;

/// A call that passed authentication.
pub(super) struct Call {
    pub(super) method: String,
    /// The path as sent, without the query.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Body>,
    pub(super) caller: Caller,
}

impl Call {
    /// The first query parameter of this name.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; an empty one is an empty object.
    pub(super) async fn json(&mut self) -> Result<Value, Refusal> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|_| Refusal::bad_request("The request body is not valid JSON."))?;
        if value.is_object() {
            Ok(value)
        } else {
            Err(Refusal::bad_request("The request body is not an object."))
        }
    }

    /// The whole body.
    pub(super) async fn bytes(&mut self) -> Result<Bytes, Refusal> {
        let Some(body) = self.body.take() else {
            return Ok(Bytes::new());
        };
        read_limited(body, JSON_BYTES_MAX)
            .await
            .map_err(|_| Refusal::too_large("The request body could not be read."))
    }

    /// The refusal for a path or method nothing answers.
    pub(super) fn no_endpoint(&self) -> Refusal {
        Refusal::no_endpoint(&self.method, &self.path)
    }
}

/// A required string member of a body.
pub(super) fn word<'a>(body: &'a Value, name: &str) -> Result<&'a str, Refusal> {
    body.get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| Refusal::bad_request(format!("Missing required field: {name}")))
}

/// Reads what a handler left of a body, within reason.
pub(super) async fn drain(body: Option<Body>) {
    let Some(mut body) = body else { return };
    let mut left = UNWANTED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(1, Bytes::len)) else {
            return;
        };
        left = rest;
    }
}

/// What the `Authorization` header holds.
pub(super) enum Presented<'a> {
    /// A bearer token.
    Bearer(&'a str),
    /// Client id and secret.
    Basic(String, String),
    /// Nothing, or nothing of use.
    Nothing,
}

/// Reads the credential of a request.
pub(super) fn presented(headers: &HeaderMap) -> Presented<'_> {
    let Some(text) = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()) else {
        return Presented::Nothing;
    };
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Presented::Bearer(token.trim())
        }
        Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => basic_pair(pair.trim())
            .map_or(Presented::Nothing, |(id, secret)| {
                Presented::Basic(id, secret)
            }),
        Some(_) | None => Presented::Nothing,
    }
}

fn basic_pair(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// A path's segments, each percent-decoded once; empty ones stay.
pub(super) fn segments(path: &str) -> Vec<String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').map(percent_decoded).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.split_at_checked(2).filter(|_| *first == b'%');
        let decoded = digits.and_then(|(pair, tail)| {
            let pair = std::str::from_utf8(pair).ok()?;
            Some((u8::from_str_radix(pair, 16).ok()?, tail))
        });
        let (byte, tail) = decoded.unwrap_or((*first, after));
        out.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_once() {
        assert_eq!(
            segments("/a%20b/%252F/x%2Fy/%zz//"),
            ["a b", "%2F", "x/y", "%zz", "", ""]
        );
    }

    #[test]
    fn only_bearer_and_basic_count_as_credentials() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            match presented(&headers) {
                Presented::Bearer(token) => format!("bearer {token}"),
                Presented::Basic(id, secret) => format!("basic {id} {secret}"),
                Presented::Nothing => "nothing".to_owned(),
            }
        };
        assert_eq!(read("bEARER abc"), "bearer abc");
        assert_eq!(read("Basic YTpiOmM="), "basic a b:c");
        assert_eq!(read("Basic !!"), "nothing");
        assert_eq!(read("Digest x"), "nothing");
    }
}

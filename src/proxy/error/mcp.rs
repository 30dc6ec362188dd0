//! A refusal in the words of MCP clients, on top of the Databricks error shape.
//!
//! They read JSON-RPC: `mcp` 2.x and the TypeScript SDK take an error from the body whatever the status, `mcp` 1.x shows the
//! status line alone. Without both an agent's author sees "403 Forbidden" or "Server returned an error response" and no more.

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use serde_json::{Value, json};

use crate::runtime::http_client::Body;

/// The longest text in a status line: every client takes some kilobytes.
const PHRASE_BYTES_MAX: usize = 1024;

/// Whether a client says that it speaks Streamable HTTP, which wants both in `Accept`.
pub fn is_spoken(headers: &HeaderMap) -> bool {
    let accepts = |kind: &str| {
        let given = headers.get_all(ACCEPT).iter();
        { given.filter_map(|value| value.to_str().ok()) }.any(|value| value.contains(kind))
    };
    accepts("application/json") && accepts("text/event-stream")
}

/// The members that make the body a JSON-RPC error too. No id: the client knows what it asked, and may have asked in a batch.
pub fn add(body: &mut Value, status: StatusCode, message: &str, data: &Value) {
    let error = json!({"code": status.as_u16(), "message": message, "data": data});
    if let Some(members) = body.as_object_mut() {
        members.insert("jsonrpc".to_owned(), json!("2.0"));
        members.insert("id".to_owned(), Value::Null);
        members.insert("error".to_owned(), error);
    }
}

/// Says it in the status line as well (HTTP/1.1; others have none).
pub fn say(response: &mut Response<Body>, message: &str) {
    let printable = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    let phrase: String = message
        .chars()
        .map(printable)
        .take(PHRASE_BYTES_MAX)
        .collect();
    if let Ok(phrase) = ReasonPhrase::try_from(phrase) {
        response.extensions_mut().insert(phrase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::http_client::empty;
    use http::HeaderValue;

    #[test]
    fn clients_of_streamable_http_are_known_by_what_they_accept() {
        let accepting = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            is_spoken(&headers)
        };
        assert!(accepting(&["application/json, text/event-stream"]));
        assert!(accepting(&["application/json", "text/event-stream"]));
        assert!(!accepting(&["application/json"]));
        assert!(!accepting(&["*/*"]));
        assert!(!accepting(&[]));
    }

    #[test]
    fn a_status_line_stays_one_line_of_bounded_length() {
        let mut response = Response::new(empty());
        say(&mut response, &format!("a\r\nb\u{e9}{}", "x".repeat(5000)));
        let phrase = response.extensions().get::<ReasonPhrase>().unwrap();
        assert!(phrase.as_bytes().starts_with(b"a??b?xxx"));
        assert_eq!(phrase.as_bytes().len(), PHRASE_BYTES_MAX);
    }
}

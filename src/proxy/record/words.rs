//! Texts from a request as a record keeps them: known, cut, or nothing.
//!
//! Knows no record.

use std::sync::Arc;

/// The longest method or path that a record keeps while it waits to be written, in bytes.
const RECORDED_TEXT_BYTES_MAX: usize = 2048;

pub(super) fn known_method(method: &http::Method) -> Option<&'static str> {
    [
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT",
    ]
    .into_iter()
    .find(|known| *known == method.as_str())
}

/// Records wait in a queue of thousands, and what is beyond is cut from the line anyway.
pub(super) fn clipped(text: &str) -> Arc<str> {
    let whole = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=RECORDED_TEXT_BYTES_MAX.min(text.len()))
        .rev()
        .find(whole);
    text.get(..end.unwrap_or(0)).unwrap_or_default().into()
}

/// The trace id of a W3C `traceparent` (Trace Context level 1, section 3.2).
pub(super) fn trace_id(traceparent: &str) -> Option<&str> {
    let id = traceparent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

/// An error with its causes, for the log only.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_trace_id_is_taken() {
        assert_eq!(
            trace_id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        assert_eq!(trace_id("00-xyz-1-01"), None);
        assert_eq!(trace_id(""), None);
    }
}

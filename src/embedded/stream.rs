//! Streamed answers (server-sent events), one event at a time with real time between them, or at a test's command.
//!
//! Pulled by the connection, so that a reader who hangs up ends the stream at once and is counted out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};

use super::answer::{Answer, put};
use super::control::Control;
use super::serving::{message, response};
use super::workspace::Site;
use crate::runtime::http_client::BoxError;

struct Stream {
    control: Arc<Control>,
    pause: Duration,
    events: VecDeque<String>,
    is_first: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.control.stream_closed();
    }
}

/// An answer that sends these events and then `[DONE]`.
pub(super) fn event_stream(site: &Site, events: &[Value]) -> Answer {
    let mut texts: VecDeque<String> = events.iter().map(event_text).collect();
    texts.push_back("data: [DONE]\n\n".to_owned());
    site.control.stream_opened();
    let stream = Stream {
        control: Arc::clone(&site.control),
        pause: site.stream_pause,
        events: texts,
        is_first: true,
    };
    let frames = futures_util::stream::unfold(stream, |mut stream| async move {
        let event = stream.events.pop_front()?;
        if !std::mem::take(&mut stream.is_first) {
            tokio::time::sleep(stream.pause).await;
        }
        stream.control.stream_turn().await;
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from(event))), stream))
    });
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// Events of the Responses API carry their type as the event's name too.
fn event_text(event: &Value) -> String {
    match event.get("type").and_then(Value::as_str) {
        Some(kind) => format!("event: {kind}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    }
}

/// The pieces of a chat answer, a word each.
pub(super) fn chat_events(id: &str, model: &str, created: i64, said: &str) -> Vec<Value> {
    let piece = |delta: Value, finish: Value| {
        json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": model,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        })
    };
    let words = said.split_inclusive(' ');
    words
        .map(|word| piece(json!({ "role": "assistant", "content": word }), Value::Null))
        .chain([piece(json!({}), json!("stop"))])
        .collect()
}

/// The events of one response with one message.
pub(super) fn responses_events(id: &str, model: &str, created: i64, said: &str) -> Vec<Value> {
    let item = message(id, said);
    let mut events = vec![json!({
        "type": "response.created",
        "response": response(id, model, created, said, "in_progress"),
    })];
    for word in said.split_inclusive(' ') {
        events.push(json!({
            "type": "response.output_text.delta", "item_id": item.get("id"),
            "output_index": 0, "content_index": 0, "delta": word, "logprobs": [],
        }));
    }
    events.push(json!({ "type": "response.output_item.done", "output_index": 0, "item": item }));
    events.push(json!({
        "type": "response.completed",
        "response": response(id, model, created, said, "completed"),
    }));
    for (number, event) in events.iter_mut().enumerate() {
        put(event, "sequence_number", json!(number));
    }
    events
}

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
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::control::Control;
use crate::runtime::http_client::{Body, BoxError};

/// How streams flow: who may hold them, and the time between two events.
#[derive(Clone)]
pub(super) struct Pace {
    pub(super) control: Arc<Control>,
    pub(super) pause: Duration,
}

/// Counts a stream in while it lives.
struct Counted(Arc<Control>);

impl Counted {
    fn new(control: &Arc<Control>) -> Self {
        control.stream_opened();
        Self(Arc::clone(control))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.stream_closed();
    }
}

struct Stream {
    counted: Counted,
    pause: Duration,
    events: VecDeque<String>,
    is_first: bool,
}

/// An answer that sends these events and then `[DONE]`.
pub(super) fn event_stream(pace: &Pace, events: &[Value]) -> Answer {
    let mut texts: VecDeque<String> = events.iter().map(event_text).collect();
    texts.push_back("data: [DONE]\n\n".to_owned());
    text_stream(pace, texts)
}

/// An answer that sends JSON-RPC messages, as MCP does.
pub(super) fn message_stream(pace: &Pace, messages: &[Value]) -> Answer {
    let framed = |message| format!("event: message\ndata: {message}\n\n");
    text_stream(pace, messages.iter().map(framed).collect())
}

fn text_stream(pace: &Pace, events: VecDeque<String>) -> Answer {
    let stream = Stream {
        counted: Counted::new(&pace.control),
        pause: pace.pause,
        events,
        is_first: true,
    };
    let frames = futures_util::stream::unfold(stream, |mut stream| async move {
        let event = stream.events.pop_front()?;
        if !std::mem::take(&mut stream.is_first) {
            tokio::time::sleep(stream.pause).await;
        }
        stream.counted.0.stream_turn().await;
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from(event))), stream))
    });
    sent_as_events(StreamBody::new(frames).boxed_unsync())
}

/// A stream on which nothing is ever sent: it stays open until its reader leaves or the server closes.
pub(super) fn silent_stream(control: &Arc<Control>, closing: CancellationToken) -> Answer {
    let counted = Counted::new(control);
    let frames = futures_util::stream::once(async move {
        closing.cancelled().await;
        drop(counted);
        // A comment, which no reader minds.
        Ok::<_, BoxError>(Frame::data(Bytes::from_static(b": closing\n\n")))
    });
    sent_as_events(StreamBody::new(frames).boxed_unsync())
}

fn sent_as_events(body: Body) -> Answer {
    let mut answer = Response::new(body);
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

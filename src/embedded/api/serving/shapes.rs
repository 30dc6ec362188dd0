//! The OpenAI-shaped pieces of a model's answer, whole and streamed, and what is read of a question.
//!
//! Pure: knows nothing of callers or grants. `serving.rs` puts the pieces together.

use serde_json::{Value, json};

use crate::embedded::answer::{Refusal, put};

/// Numbers in one embedding.
const EMBEDDING_SIZE: usize = 8;

/// A response object of the Responses API.
pub(super) fn response(id: &str, model: &str, created: i64, said: &str, status: &str) -> Value {
    let output = if status == "completed" {
        json!([message(id, said)])
    } else {
        json!([])
    };
    json!({
        "id": format!("resp_{id}"), "object": "response", "created_at": created, "model": model,
        "status": status, "output": output, "error": null, "incomplete_details": null,
        "instructions": null, "metadata": {}, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
        "temperature": 1.0, "top_p": 1.0,
    })
}

/// One finished message of the Responses API.
pub(super) fn message(id: &str, said: &str) -> Value {
    json!({
        "type": "message", "id": format!("msg_{id}"), "role": "assistant", "status": "completed",
        "content": [{ "type": "output_text", "text": said, "annotations": [] }],
    })
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

/// The pieces of a plain completion, a word each.
pub(super) fn completion_events(id: &str, model: &str, created: i64, said: &str) -> Vec<Value> {
    let piece = |text: &str, finish: Value| {
        json!({
            "id": id, "object": "text_completion", "created": created, "model": model,
            "choices": [{ "index": 0, "text": text, "logprobs": null, "finish_reason": finish }],
        })
    };
    let words = said.split_inclusive(' ');
    words
        .map(|word| piece(word, Value::Null))
        .chain([piece("", json!("stop"))])
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

/// The last thing the asker said, in whichever shape.
pub(super) fn last_words(body: &Value) -> String {
    let spoken = body
        .get("messages")
        .or_else(|| body.get("input"))
        .or_else(|| body.get("prompt"));
    let last = match spoken {
        Some(Value::Array(all)) => all.last(),
        other => other,
    };
    match last {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(message)) => match message.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(parts) => parts
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|part| part.get("text")?.as_str())
                .collect(),
            None => String::new(),
        },
        Some(_) | None => String::new(),
    }
}

pub(super) fn texts(body: &Value) -> Result<Vec<String>, Refusal> {
    match body.get("input") {
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(all)) => Ok(all.iter().map(ToString::to_string).collect()),
        Some(_) | None => Err(Refusal::bad_request("Missing required field: input")),
    }
}

/// The same numbers for the same text, and nothing more.
pub(super) fn embedding(text: &str) -> Vec<f64> {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let bytes = hash.as_ref().iter().take(EMBEDDING_SIZE);
    bytes.map(|b| f64::from(*b) / 255.0).collect()
}

//! Model serving and the gateway's OpenAI-shaped half: models that answer with who asked.
//!
//! The model is in the path or in the body's `model`. Streams are in `stream.rs`.

use http::header::HeaderName;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, json_ok, set};
use super::call::{Call, word};
use super::stream::{chat_events, event_stream, responses_events};
use super::workspace::Site;
use super::world::{CHAT_ENDPOINT, CHAT_ENDPOINT_RESTRICTED, EMBEDDING_ENDPOINT};

const SERVING_REQUEST_ID: HeaderName = HeaderName::from_static("databricks-request-id");
const ENDPOINTS: [&str; 3] = [CHAT_ENDPOINT, CHAT_ENDPOINT_RESTRICTED, EMBEDDING_ENDPOINT];
/// Numbers in one embedding.
const EMBEDDING_SIZE: usize = 8;

pub(super) async fn answer(site: &Site, call: &mut Call, path: &[&str]) -> Result<Answer, Refusal> {
    match (call.method.as_str(), path) {
        ("GET", ["api", "2.0", "serving-endpoints"]) => {
            let visible = ENDPOINTS
                .iter()
                .filter(|name| call.caller.may_use("serving endpoint", name).is_ok());
            let list: Vec<Value> = visible.map(|name| description(name)).collect();
            Ok(json_ok(&json!({ "endpoints": list })))
        }
        ("GET", ["api", "2.0", "serving-endpoints", name]) => {
            allowed(call, name)?;
            Ok(json_ok(&description(name)))
        }
        ("POST", ["serving-endpoints", name, "invocations"]) => {
            allowed(call, name)?;
            let body = call.json().await?;
            let kind = if *name == EMBEDDING_ENDPOINT {
                Kind::Embeddings
            } else if body.get("messages").is_some() {
                Kind::Chat
            } else if body.get("prompt").is_some() {
                Kind::Completions
            } else if body.get("input").is_some() {
                Kind::Responses
            } else {
                return predictions(call, &body);
            };
            modelled(site, call, kind, name, &body)
        }
        (
            "POST",
            ["serving-endpoints", rest @ ..] | ["ai-gateway", "mlflow" | "openai", "v1", rest @ ..],
        ) => {
            let kind = Kind::of(rest).ok_or_else(|| call.no_endpoint())?;
            let body = call.json().await?;
            let name = word(&body, "model")?;
            allowed(call, name)?;
            modelled(site, call, kind, name, &body)
        }
        _ => Err(call.no_endpoint()),
    }
}

/// What is asked of a model.
#[derive(Clone, Copy)]
enum Kind {
    Chat,
    Completions,
    Embeddings,
    Responses,
}

impl Kind {
    fn of(path: &[&str]) -> Option<Self> {
        match path {
            ["chat", "completions"] => Some(Self::Chat),
            ["completions"] => Some(Self::Completions),
            ["embeddings"] => Some(Self::Embeddings),
            ["responses"] => Some(Self::Responses),
            _ => None,
        }
    }
}

fn allowed(call: &Call, name: &str) -> Result<(), Refusal> {
    call.caller
        .may_use_one_of("serving endpoint", name, &ENDPOINTS)
}

fn description(name: &str) -> Value {
    let task = if name == EMBEDDING_ENDPOINT {
        "llm/v1/embeddings"
    } else {
        "llm/v1/chat"
    };
    json!({
        "name": name, "id": format!("id-of-{name}"), "creator": "embedded@example.com", "task": task,
        "state": { "ready": "READY", "config_update": "NOT_UPDATING" },
        "endpoint_type": "FOUNDATION_MODEL_API",
        "permission_level": "CAN_QUERY",
    })
}

fn modelled(
    site: &Site,
    call: &Call,
    kind: Kind,
    model: &str,
    body: &Value,
) -> Result<Answer, Refusal> {
    let id = uuid::Uuid::now_v7().to_string();
    let created = site.issuer.clock.now().as_second();
    let streamed = body.get("stream") == Some(&Value::Bool(true));
    let said = format!(
        "You are {}. You said: {}",
        call.caller.name,
        last_words(body)
    );
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20 });
    let mut answer = match (kind, streamed) {
        (Kind::Chat, true) => event_stream(site, &chat_events(&id, model, created, &said)),
        (Kind::Responses, true) => {
            event_stream(site, &responses_events(&id, model, created, &said))
        }
        (Kind::Chat, false) => json_ok(&json!({
            "id": id, "object": "chat.completion", "created": created, "model": model, "usage": usage,
            "choices": [{
                "index": 0, "finish_reason": "stop", "logprobs": null,
                "message": { "role": "assistant", "content": said },
            }],
        })),
        (Kind::Responses, false) => json_ok(&response(&id, model, created, &said, "completed")),
        (Kind::Completions, _) => json_ok(&json!({
            "id": id, "object": "text_completion", "created": created, "model": model, "usage": usage,
            "choices": [{ "index": 0, "finish_reason": "stop", "logprobs": null, "text": said }],
        })),
        (Kind::Embeddings, _) => {
            let data: Vec<Value> = texts(body)?
                .iter()
                .enumerate()
                .map(|(place, text)| {
                    json!({ "object": "embedding", "index": place, "embedding": embedding(text) })
                })
                .collect();
            json_ok(&json!({
                "id": id, "object": "list", "model": model, "data": data,
                "usage": { "prompt_tokens": 10, "total_tokens": 10 },
            }))
        }
    };
    set(&mut answer, SERVING_REQUEST_ID, &id);
    Ok(answer)
}

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

/// The last thing the asker said, in whichever shape.
fn last_words(body: &Value) -> String {
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

fn texts(body: &Value) -> Result<Vec<String>, Refusal> {
    match body.get("input") {
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(all)) => Ok(all.iter().map(ToString::to_string).collect()),
        Some(_) | None => Err(Refusal::bad_request("Missing required field: input")),
    }
}

/// The same numbers for the same text, and nothing more.
fn embedding(text: &str) -> Vec<f64> {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let bytes = hash.as_ref().iter().take(EMBEDDING_SIZE);
    bytes.map(|b| f64::from(*b) / 255.0).collect()
}

/// A custom model: one prediction per row, naming the caller.
fn predictions(call: &Call, body: &Value) -> Result<Answer, Refusal> {
    let rows = ["dataframe_records", "instances", "inputs"]
        .iter()
        .find_map(|key| body.get(*key)?.as_array())
        .map(Vec::len)
        .or_else(|| Some(body.pointer("/dataframe_split/data")?.as_array()?.len()))
        .ok_or_else(|| Refusal::bad_request("The request holds no model input."))?;
    let named = vec![json!(call.caller.name); rows];
    Ok(json_ok(&json!({ "predictions": named })))
}

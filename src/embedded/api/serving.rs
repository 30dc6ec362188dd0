//! Model serving and the gateway's OpenAI-shaped half: models that answer with who asked.
//!
//! The model is in the path or in the body's `model`. Answers are shaped in `serving/shapes.rs`; hosted tools are checked in
//! `serving/supervisor.rs`; answers made in the background wait in `serving/background.rs`.

use http::header::HeaderName;
use serde_json::{Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok, set};
use crate::embedded::call::{Call, word};
use crate::embedded::grants::SERVING_ENDPOINTS;
use crate::embedded::stream::event_stream;
use crate::embedded::workspace::Site;
use crate::embedded::world::EMBEDDING_ENDPOINT;
use shapes::{
    chat_events, completion_events, embedding, last_words, response, responses_events, texts,
};

pub(in crate::embedded) mod background;
mod shapes;
mod supervisor;

const SERVING_REQUEST_ID: HeaderName = HeaderName::from_static("databricks-request-id");

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), path) {
        ("GET", ["api", "2.0", "serving-endpoints"]) => {
            let visible = call.caller.visible(SERVING_ENDPOINTS);
            let list: Vec<Value> = visible.map(description).collect();
            Ok(json_ok(&json!({ "endpoints": list })))
        }
        ("GET", ["api", "2.0", "serving-endpoints", name]) => {
            call.caller.may_use(SERVING_ENDPOINTS, name)?;
            Ok(json_ok(&description(name)))
        }
        ("GET", ["api", "2.0", "serving-endpoints", name, "openapi"]) => {
            call.caller.may_use(SERVING_ENDPOINTS, name)?;
            let server = format!("{}/serving-endpoints/{name}/invocations", site.url);
            Ok(json_ok(&json!({
                "openapi": "3.1.0", "info": { "title": name, "version": "1" },
                "servers": [{ "url": server }], "paths": {},
            })))
        }
        ("POST", ["serving-endpoints", name, "invocations"]) => {
            call.caller.may_use(SERVING_ENDPOINTS, name)?;
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
        ("GET", ["ai-gateway", "mlflow", "v1", "responses", id]) => {
            let answer = site.background.look(id, &call.caller.name)?;
            Ok(json_ok(&answer))
        }
        ("POST", ["serving-endpoints", rest @ ..]) => named(site, call, rest, false).await,
        ("POST", ["ai-gateway", "mlflow", "v1", rest @ ..]) => named(site, call, rest, true).await,
        ("POST", ["ai-gateway", "openai", "v1", rest @ ..]) => named(site, call, rest, false).await,
        _ => Err(call.no_endpoint()),
    }
}

/// A call that names its model in the body. Only the gateway's own flavour hosts tools and works in the background.
async fn named(
    site: &Site,
    call: &mut Call,
    rest: &[&str],
    is_gateway: bool,
) -> Result<Answer, Refusal> {
    let kind = Kind::of(rest).ok_or_else(|| call.no_endpoint())?;
    let body = call.json().await?;
    let name = word(&body, "model")?;
    call.caller.may_use(SERVING_ENDPOINTS, name)?;
    if let Kind::Responses = kind {
        supervisor::may_use_tools(&call.caller, &body, is_gateway)?;
        let is_so = |name: &str| body.get(name) == Some(&Value::Bool(true));
        if is_so("background") && is_so("stream") {
            let message = "stream and background cannot both be true.";
            return Err(Refusal::bad_request(message));
        }
        if is_gateway && is_so("background") {
            let now = site.issuer.clock.now().as_second();
            let kept = site
                .background
                .begin(&call.caller.name, name, now, said(call, &body));
            return Ok(json_ok(&kept));
        }
    }
    modelled(site, call, kind, name, &body)
}

/// What every model says: who asked, and what.
fn said(call: &Call, body: &Value) -> String {
    let words = last_words(body);
    format!("You are {}. You said: {words}", call.caller.name)
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
    let said = said(call, body);
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20 });
    let mut answer = match (kind, streamed) {
        (Kind::Chat, true) => event_stream(&site.pace(), &chat_events(&id, model, created, &said)),
        (Kind::Responses, true) => {
            event_stream(&site.pace(), &responses_events(&id, model, created, &said))
        }
        (Kind::Completions, true) => {
            event_stream(&site.pace(), &completion_events(&id, model, created, &said))
        }
        (Kind::Chat, false) => json_ok(&json!({
            "id": id, "object": "chat.completion", "created": created, "model": model, "usage": usage,
            "choices": [{
                "index": 0, "finish_reason": "stop", "logprobs": null,
                "message": { "role": "assistant", "content": said },
            }],
        })),
        (Kind::Responses, false) => json_ok(&response(&id, model, created, &said, "completed")),
        (Kind::Completions, false) => json_ok(&json!({
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

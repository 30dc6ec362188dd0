//! Calls through a Unity Catalog HTTP connection to an outside service, which here tells what reached it.
//!
//! The platform takes credentials off before the outside call and puts the connection's own on (facts 6.8).

use http::HeaderName;
use serde_json::{Map, Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok, set};
use crate::embedded::call::{Call, word};
use crate::embedded::grants::CONNECTIONS;

/// The outside service gives one, as an MCP server behind a connection would.
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// Headers that never leave the platform; with them goes everything that starts with `x-databricks-`.
const KEPT_BACK: [&str; 4] = ["authorization", "cookie", "host", "content-length"];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];

pub(in crate::embedded) async fn answer(call: &mut Call, path: &[&str]) -> Result<Answer, Refusal> {
    match path {
        ["api", "2.0", "external-function"] if call.method == "POST" => {
            let body = call.json().await?;
            external_function(call, &body)
        }
        [
            "api",
            "2.0",
            "unity-catalog",
            "connections",
            connection,
            "proxy",
            rest @ ..,
        ] => {
            call.caller.may_use(CONNECTIONS, connection)?;
            let sent = call.bytes().await?;
            let headers: Map<String, Value> = call
                .headers
                .iter()
                .filter(|(name, _)| leaves(name.as_str()))
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (name.as_str().to_owned(), json!(value))
                })
                .collect();
            Ok(outside(
                (*connection, &call.caller.name),
                &json!({
                    "method": call.method, "path": format!("/{}", rest.join("/")), "params": call.query,
                    "headers": headers, "body": String::from_utf8_lossy(&sent),
                }),
            ))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn external_function(call: &Call, body: &Value) -> Result<Answer, Refusal> {
    let connection = word(body, "connection_name")?;
    let method = word(body, "method")?;
    let path = word(body, "path")?;
    if !METHODS.contains(&method) {
        return Err(Refusal::bad_request(format!("Unknown method: {method}")));
    }
    call.caller.may_use(CONNECTIONS, connection)?;
    let headers = text_of_json(body, "headers")?;
    let received = json!({
        "method": method, "path": path, "params": text_of_json(body, "params")?, "headers": headers,
        "body": text_of_json(body, "json")?,
    });
    Ok(outside((connection, &call.caller.name), &received))
}

/// A member that holds JSON as a string.
fn text_of_json(body: &Value, name: &str) -> Result<Value, Refusal> {
    let bad = || Refusal::bad_request(format!("{name} is not a JSON string."));
    match body.get(name) {
        None | Some(Value::Null) => Ok(Value::Null),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| bad()),
        Some(_) => Err(bad()),
    }
}

fn leaves(header: &str) -> bool {
    !KEPT_BACK.contains(&header) && !header.starts_with("x-databricks-")
}

/// The outside service's answer: what it received, through which connection, and for whom.
fn outside((connection, caller): (&str, &str), received: &Value) -> Answer {
    let mut answer = json_ok(&json!({
        "connection": connection, "called_for": caller, "received": received,
    }));
    set(&mut answer, SESSION, &uuid::Uuid::now_v7().to_string());
    answer
}

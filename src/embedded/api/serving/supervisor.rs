//! The Supervisor API: a response may name tools that the platform runs itself, each over an object with its own grant.
//!
//! Checks scope and grant of every tool before the model says anything; runs none. Facts 4.3 and 6.6.

use serde_json::Value;

use crate::embedded::answer::Refusal;
use crate::embedded::call::word;
use crate::embedded::grants::{
    APPS, CONNECTIONS, Caller, FUNCTIONS, GENIE_SPACES, KNOWLEDGE_ASSISTANTS, Kind, SCHEMAS,
    TRACE_LOCATIONS,
};

/// A hosted tool: its type, the member that names the object, its kind, scopes of which one suffices, and the one refused.
type Hosted = (
    &'static str,
    &'static str,
    Kind,
    &'static [&'static str],
    &'static str,
);

const HOSTED: &[Hosted] = &[
    ("genie_space", "id", GENIE_SPACES, &["genie"], "genie"),
    (
        "uc_function",
        "name",
        FUNCTIONS,
        &["mcp.functions", "unity-catalog"],
        "unity-catalog",
    ),
    (
        "uc_connection",
        "name",
        CONNECTIONS,
        &["catalog.connections", "unity-catalog"],
        "unity-catalog",
    ),
    (
        "knowledge_assistant",
        "knowledge_assistant_id",
        KNOWLEDGE_ASSISTANTS,
        &["model-serving"],
        "model-serving",
    ),
    ("app", "name", APPS, &["apps"], "apps"),
];

/// Lets a response's tools through, or refuses the first that the caller may not use.
pub(super) fn may_use_tools(
    caller: &Caller,
    body: &Value,
    hosts_tools: bool,
) -> Result<(), Refusal> {
    if hosts_tools && let Some(place) = body.get("trace_destination") {
        may_trace_to(caller, place)?;
    }
    let tools = match body.get("tools") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(Refusal::bad_request("tools is not an array.")),
    };
    for tool in tools {
        let tag = word(tool, "type")?;
        if tag == "function" {
            continue;
        }
        let found = HOSTED.iter().find(|(name, ..)| hosts_tools && *name == tag);
        let Some((_, member, kind, scopes, shown)) = found else {
            let message = format!("Unsupported tool type: {tag}");
            return Err(Refusal::bad_request(message));
        };
        let missing = || Refusal::bad_request(format!("Missing required field: tools.{tag}"));
        let object = word(tool.get(tag).ok_or_else(missing)?, member)?;
        if tag == "app" && !caller.is_app {
            return Err(Refusal::bad_request(
                "Tools of type app are not supported with on-behalf-of-user authorization.",
            ));
        }
        if !caller.holds_one_of(scopes) {
            return Err(Refusal::missing_scope(shown));
        }
        caller.may_use(*kind, object)?;
    }
    Ok(())
}

/// The spans of hosted tools go where the request says, with the caller's grant.
fn may_trace_to(caller: &Caller, place: &Value) -> Result<(), Refusal> {
    let schema = format!(
        "{}.{}",
        word(place, "catalog_name")?,
        word(place, "schema_name")?
    );
    match place.get("table_prefix").and_then(Value::as_str) {
        Some(prefix) => caller.may_use(TRACE_LOCATIONS, &format!("{schema}.{prefix}")),
        None => caller.may_use(SCHEMAS, &schema),
    }
}

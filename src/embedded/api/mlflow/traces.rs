//! Traces of experiments, under the second and third version of the API, with their tags and assessments.
//!
//! A trace is kept in the third version's shape; the second's is made of it. Where traces lie in Unity Catalog:
//! `locations.rs`, which shares what is kept here.

use serde_json::{Value, json};

use super::{ARTIFACTS, asked, may_use_experiment, may_use_location, put_given, runs, texts};
use crate::domain::clock::Timestamp;
use crate::embedded::answer::{Answer, Refusal, json_ok, put};
use crate::embedded::call::{Call, word};
use crate::embedded::workspace::Site;

/// The third version.
pub(super) fn answer(
    site: &Site,
    call: &Call,
    rest: &[&str],
    body: &Value,
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), rest) {
        ("POST", []) => {
            let info = body.pointer("/trace/trace_info").unwrap_or(&Value::Null);
            let info = begin(site, call, info)?;
            Ok(json_ok(&json!({ "trace": { "trace_info": info } })))
        }
        ("POST", ["search"]) => {
            let found = search(site, call, body)?;
            Ok(json_ok(&json!({ "traces": found })))
        }
        ("POST", ["delete-traces"]) => delete(site, call, body),
        ("GET", [id]) => {
            let info = change(site, call, id, |info| info.clone())?;
            Ok(json_ok(&json!({ "trace": { "trace_info": info } })))
        }
        (_, [id, "tags"]) => tags(site, call, id, body),
        ("POST", [id, "assessments"]) => {
            let given = body.get("assessment").unwrap_or(&Value::Null);
            let kept = assess(site, call, id, given)?;
            Ok(json_ok(&json!({ "assessment": kept })))
        }
        (_, [id, "assessments", assessment]) => {
            let given = body.get("assessment").unwrap_or(&Value::Null);
            let kept = on_assessment(site, call, (id, assessment), given)?;
            Ok(json_ok(
                &kept.map_or_else(|| json!({}), |a| json!({ "assessment": a })),
            ))
        }
        _ => Err(call.no_endpoint()),
    }
}

/// The second version.
pub(super) fn answer_old(
    site: &Site,
    call: &Call,
    rest: &[&str],
    body: &Value,
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), rest) {
        ("POST", []) => {
            let experiment = word(body, "experiment_id")?;
            let info = json!({
                "trace_location": location_of(experiment), "state": "IN_PROGRESS",
                "request_time": time(body.get("timestamp_ms").and_then(Value::as_i64).unwrap_or_default()),
                "trace_metadata": mapped(body.get("request_metadata")), "tags": mapped(body.get("tags")),
            });
            let info = begin(site, call, &info)?;
            Ok(json_ok(&json!({ "trace_info": old_shape(&info) })))
        }
        ("GET", []) => {
            let wanted: Vec<Value> = call
                .query
                .iter()
                .filter(|(name, _)| name == "experiment_ids")
                .map(|(_, id)| location_of(id))
                .collect();
            let found = search(site, call, &json!({ "locations": wanted }))?;
            let found: Vec<Value> = found.iter().map(old_shape).collect();
            Ok(json_ok(&json!({ "traces": found })))
        }
        ("POST", ["delete-traces"]) => delete(site, call, body),
        ("POST", ["link-to-run"]) => {
            runs::change(site, call, word(body, "run_id")?, |_| ())?;
            for id in texts(body, "trace_ids") {
                change(site, call, id, |_| ())?;
            }
            Ok(json_ok(&json!({})))
        }
        ("POST", ["link-prompts"]) => {
            change(site, call, word(body, "trace_id")?, |_| ())?;
            Ok(json_ok(&json!({})))
        }
        ("PATCH", [id]) => {
            let info = change(site, call, id, |info| {
                let state = body.get("status").cloned();
                put(info, "state", state.unwrap_or_else(|| json!("OK")));
                for (from, to) in [("request_metadata", "trace_metadata"), ("tags", "tags")] {
                    let given = mapped(body.get(from));
                    merge(info, to, &given);
                }
                info.clone()
            })?;
            Ok(json_ok(&json!({ "trace_info": old_shape(&info) })))
        }
        ("GET", [id, "info"]) => {
            let info = change(site, call, id, |info| info.clone())?;
            Ok(json_ok(&json!({ "trace_info": old_shape(&info) })))
        }
        (_, [id, "tags"]) => tags(site, call, id, body),
        _ => Err(call.no_endpoint()),
    }
}

/// The name of what a `trace_location` points to: an experiment's number, `c.s` or `c.s.prefix`.
pub(super) fn location_name(location: &Value) -> Option<String> {
    let word = |pointer: &str| location.pointer(pointer).and_then(Value::as_str);
    if let Some(experiment) = word("/mlflow_experiment/experiment_id") {
        return Some(experiment.to_owned());
    }
    let within = |place: &str| {
        let catalog = word(&format!("/{place}/catalog_name"))?;
        let schema = word(&format!("/{place}/schema_name"))?;
        Some(format!("{catalog}.{schema}"))
    };
    if let Some(schema) = within("uc_table_prefix") {
        return Some(format!(
            "{schema}.{}",
            word("/uc_table_prefix/table_prefix")?
        ));
    }
    within("uc_schema")
}

fn location_of(experiment: &str) -> Value {
    json!({ "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": { "experiment_id": experiment } })
}

/// Keeps a new trace where its location says, and says who logged it.
pub(super) fn begin(site: &Site, call: &Call, given: &Value) -> Result<Value, Refusal> {
    let location = given.get("trace_location").and_then(location_name);
    let missing = || Refusal::bad_request("Missing required field: trace_location");
    let location = location.ok_or_else(missing)?;
    may_use_location(site, &call.caller, &location)?;
    let id = match given.get("trace_id").and_then(Value::as_str) {
        Some(id) => id.to_owned(),
        None => format!("tr-{}", uuid::Uuid::now_v7().simple()),
    };
    let mut info = given.clone();
    put(&mut info, "trace_id", json!(id));
    merge(&mut info, "trace_metadata", &json!({}));
    let mut tags = json!({ "logged_by": call.caller.name });
    if !location.contains('.') {
        let place = format!("{ARTIFACTS}/{location}/traces/{id}/artifacts");
        put(&mut tags, "mlflow.artifactLocation", json!(place));
    }
    merge(&mut info, "tags", &tags);
    site.tracking.traces.add(&id, info.clone())?;
    Ok(info)
}

/// Works on a trace whose place the caller has a grant on.
pub(super) fn change<T>(
    site: &Site,
    call: &Call,
    id: &str,
    how: impl FnOnce(&mut Value) -> T,
) -> Result<T, Refusal> {
    let missing = || Refusal::unknown(&format!("Trace with ID {id}"));
    let info = site.tracking.traces.find(id).ok_or_else(missing)?;
    let location = info.get("trace_location").and_then(location_name);
    may_use_location(site, &call.caller, &location.unwrap_or_default())?;
    site.tracking.traces.change(id, how).ok_or_else(missing)
}

/// The traces of some locations, each of which takes a grant.
pub(super) fn search(site: &Site, call: &Call, body: &Value) -> Result<Vec<Value>, Refusal> {
    let given = body.get("locations").and_then(Value::as_array);
    let names: Vec<String> = given
        .into_iter()
        .flatten()
        .filter_map(location_name)
        .collect();
    if names.is_empty() {
        return Err(Refusal::bad_request("Missing required field: locations"));
    }
    for name in &names {
        may_use_location(site, &call.caller, name)?;
    }
    let mut found = site.tracking.traces.all();
    found.retain(|info| {
        let lies_in = info.get("trace_location").and_then(location_name);
        lies_in.is_some_and(|name| names.contains(&name))
    });
    Ok(found)
}

fn delete(site: &Site, call: &Call, body: &Value) -> Result<Answer, Refusal> {
    may_use_experiment(site, &call.caller, word(body, "experiment_id")?)?;
    let mut ids = texts(body, "request_ids");
    ids.extend(texts(body, "trace_ids"));
    let mut deleted = 0;
    for id in ids {
        change(site, call, id, |_| ())?;
        deleted += usize::from(site.tracking.traces.remove(id).is_some());
    }
    Ok(json_ok(&json!({ "traces_deleted": deleted })))
}

/// Sets or removes one tag.
pub(super) fn tags(site: &Site, call: &Call, id: &str, body: &Value) -> Result<Answer, Refusal> {
    match call.method.as_str() {
        "PATCH" => {
            let mut given = json!({});
            put(&mut given, word(body, "key")?, json!(body.get("value")));
            change(site, call, id, |info| merge(info, "tags", &given))?;
        }
        "DELETE" => {
            let key = match body.get("key").and_then(Value::as_str) {
                Some(key) => key,
                None => asked(call, "key")?,
            };
            untag(site, call, id, key)?;
        }
        _ => return Err(call.no_endpoint()),
    }
    Ok(json_ok(&json!({})))
}

pub(super) fn untag(site: &Site, call: &Call, id: &str, key: &str) -> Result<(), Refusal> {
    change(site, call, id, |info| {
        if let Some(tags) = info.get_mut("tags").and_then(Value::as_object_mut) {
            tags.remove(key);
        }
    })
}

/// Adds an assessment to a trace.
pub(super) fn assess(
    site: &Site,
    call: &Call,
    trace: &str,
    given: &Value,
) -> Result<Value, Refusal> {
    if !given.is_object() {
        return Err(Refusal::bad_request("Missing required field: assessment"));
    }
    let now = time(site.issuer.clock.now().as_millisecond());
    let mut kept = given.clone();
    let id = format!("a-{}", uuid::Uuid::now_v7().simple());
    put(&mut kept, "assessment_id", json!(id));
    put(&mut kept, "trace_id", json!(trace));
    put(&mut kept, "create_time", now.clone());
    put(&mut kept, "last_update_time", now);
    change(site, call, trace, |info| {
        let all = info.as_object_mut()?;
        let list = all.entry("assessments").or_insert_with(|| json!([]));
        list.as_array_mut()?.push(kept.clone());
        Some(())
    })?;
    Ok(kept)
}

/// Shows, changes or removes an assessment, by the call's method; `None` when it was removed.
pub(super) fn on_assessment(
    site: &Site,
    call: &Call,
    (trace, id): (&str, &str),
    given: &Value,
) -> Result<Option<Value>, Refusal> {
    let method = call.method.clone();
    let now = time(site.issuer.clock.now().as_millisecond());
    let done = change(site, call, trace, |info| {
        let list = info.get_mut("assessments")?.as_array_mut()?;
        let is_it = |a: &Value| a.get("assessment_id") == Some(&json!(id));
        let place = list.iter().position(is_it)?;
        if method == "DELETE" {
            list.remove(place);
            return Some(None);
        }
        let kept = list.get_mut(place)?;
        if method == "PATCH" {
            let names = [
                "assessment_name",
                "feedback",
                "expectation",
                "rationale",
                "metadata",
            ];
            put_given(kept, given, &names);
            put(kept, "last_update_time", now);
        }
        Some(Some(kept.clone()))
    })?;
    if !["GET", "PATCH", "DELETE"].contains(&call.method.as_str()) {
        return Err(call.no_endpoint());
    }
    done.ok_or_else(|| Refusal::unknown(&format!("Assessment {id}")))
}

fn merge(info: &mut Value, name: &str, given: &Value) {
    let Some(info) = info.as_object_mut() else {
        return;
    };
    let kept = info.entry(name).or_insert_with(|| json!({}));
    for (key, value) in given.as_object().into_iter().flatten() {
        put(kept, key, value.clone());
    }
}

/// Milliseconds as a time in JSON.
pub(super) fn time(milliseconds: i64) -> Value {
    let time = Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    json!(time.to_string())
}

/// `[{key, value}]` as an object.
fn mapped(list: Option<&Value>) -> Value {
    let mut object = json!({});
    for entry in list.and_then(Value::as_array).into_iter().flatten() {
        if let Some(key) = entry.get("key").and_then(Value::as_str) {
            put(&mut object, key, json!(entry.get("value")));
        }
    }
    object
}

/// A trace in the second version's shape.
fn old_shape(info: &Value) -> Value {
    let listed = |name: &str| {
        let object = info.get(name).and_then(Value::as_object);
        let entries = object.into_iter().flatten();
        let list: Vec<Value> = entries
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        list
    };
    let started = info.get("request_time").and_then(Value::as_str);
    let started = started.and_then(|text| text.parse::<Timestamp>().ok());
    json!({
        "request_id": info.get("trace_id"), "experiment_id": info.get("trace_location").and_then(location_name),
        "timestamp_ms": started.map(|time| time.as_millisecond()), "status": info.get("state"),
        "tags": listed("tags"), "request_metadata": listed("trace_metadata"),
    })
}

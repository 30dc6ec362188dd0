//! Runs, their metrics, parameters, tags and artifacts. A run has the grants of its experiment.
//!
//! Artifacts themselves are files below `WorkspaceInternal`; here they are only listed.

use serde_json::{Map, Value, json};

use super::{ARTIFACTS, FILES, asked, may_use_experiment, put_given, set_keyed, texts};
use crate::embedded::answer::{Answer, Refusal, json_ok};
use crate::embedded::call::{Call, word};
use crate::embedded::workspace::Site;

/// Metrics, parameters and tags kept per run, each.
const ENTRIES_MAX: usize = 10_000;

pub(super) fn answer(
    site: &Site,
    call: &Call,
    rest: &[&str],
    body: &Value,
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), rest) {
        ("POST", ["create"]) => create(site, call, body),
        ("GET", ["get"]) => {
            let run = change(site, call, asked_run(call)?, |run| run.clone())?;
            Ok(json_ok(&json!({ "run": run })))
        }
        ("POST", ["search"]) => search(site, call, body),
        ("POST", ["update"]) => {
            let info = change(site, call, word(body, "run_id")?, |run| {
                let info = run.get_mut("info")?;
                put_given(info, body, &["status", "end_time", "run_name"]);
                Some(info.clone())
            })?;
            Ok(json_ok(&json!({ "run_info": info })))
        }
        ("POST", ["delete-tag"]) => {
            let key = word(body, "key")?;
            change(site, call, word(body, "run_id")?, |run| {
                if let Some(tags) = run.pointer_mut("/data/tags").and_then(Value::as_array_mut) {
                    tags.retain(|tag| tag.get("key") != Some(&json!(key)));
                }
            })?;
            Ok(json_ok(&json!({})))
        }
        ("POST", [verb]) => log(site, call, verb, body),
        _ => Err(call.no_endpoint()),
    }
}

/// The files of a run, as far as they lie where clients put them.
pub(super) fn artifacts(site: &Site, call: &Call) -> Result<Answer, Refusal> {
    let id = asked_run(call)?;
    let run = change(site, call, id, |run| run.clone())?;
    let experiment = experiment_of(&run);
    let below = call.query("path").unwrap_or_default().trim_matches('/');
    let root = format!("{FILES}/{experiment}/Runs/{id}/artifacts");
    let directory = format!("{root}/{below}");
    let found = site.files.list(directory.trim_end_matches('/'));
    let files: Vec<Value> = found
        .unwrap_or_default()
        .into_iter()
        .map(|(name, file)| {
            let path = format!("{below}/{name}");
            let path = path.trim_start_matches('/');
            match file {
                Some(file) => json!({ "path": path, "is_dir": false, "file_size": file.bytes }),
                None => json!({ "path": path, "is_dir": true }),
            }
        })
        .collect();
    let root = run.pointer("/info/artifact_uri");
    Ok(json_ok(&json!({ "root_uri": root, "files": files })))
}

/// Every value of one metric.
pub(super) fn history(site: &Site, call: &Call) -> Result<Answer, Refusal> {
    let key = json!(asked(call, "metric_key")?);
    let run = change(site, call, asked_run(call)?, |run| run.clone())?;
    let metrics = run.pointer("/data/metrics").and_then(Value::as_array);
    let values = metrics.into_iter().flatten();
    let values: Vec<&Value> = values.filter(|m| m.get("key") == Some(&key)).collect();
    Ok(json_ok(&json!({ "metrics": values })))
}

fn asked_run(call: &Call) -> Result<&str, Refusal> {
    match call.query("run_id") {
        Some(id) => Ok(id),
        None => asked(call, "run_uuid"),
    }
}

fn experiment_of(run: &Value) -> &str {
    run.pointer("/info/experiment_id")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Works on a run whose experiment the caller has a grant on.
pub(super) fn change<T>(
    site: &Site,
    call: &Call,
    id: &str,
    how: impl FnOnce(&mut Value) -> T,
) -> Result<T, Refusal> {
    let missing = || Refusal::unknown(&format!("Run {id}"));
    let run = site.tracking.runs.find(id).ok_or_else(missing)?;
    may_use_experiment(site, &call.caller, experiment_of(&run))?;
    site.tracking.runs.change(id, how).ok_or_else(missing)
}

fn create(site: &Site, call: &Call, body: &Value) -> Result<Answer, Refusal> {
    let experiment = word(body, "experiment_id")?;
    may_use_experiment(site, &call.caller, experiment)?;
    let id = uuid::Uuid::now_v7().simple().to_string();
    let now = site.issuer.clock.now().as_millisecond();
    let tags = body.get("tags").filter(|tags| tags.is_array()).cloned();
    let run = json!({
        "info": {
            "run_id": id, "run_uuid": id, "experiment_id": experiment, "status": "RUNNING",
            "run_name": body.get("run_name").and_then(Value::as_str).unwrap_or("run"),
            "start_time": body.get("start_time").cloned().unwrap_or_else(|| json!(now)),
            "user_id": call.caller.name, "lifecycle_stage": "active",
            "artifact_uri": format!("{ARTIFACTS}/{experiment}/{id}/artifacts"),
        },
        "data": { "metrics": [], "params": [], "tags": tags.unwrap_or_else(|| json!([])) },
        "inputs": {},
    });
    let answer = json_ok(&json!({ "run": run }));
    site.tracking.runs.add(&id, run)?;
    Ok(answer)
}

fn search(site: &Site, call: &Call, body: &Value) -> Result<Answer, Refusal> {
    let wanted = texts(body, "experiment_ids");
    for experiment in &wanted {
        may_use_experiment(site, &call.caller, experiment)?;
    }
    let mut runs = site.tracking.runs.all();
    runs.retain(|run| wanted.contains(&experiment_of(run)));
    Ok(json_ok(&json!({ "runs": runs })))
}

/// The calls that only add to a run.
fn log(site: &Site, call: &Call, verb: &str, body: &Value) -> Result<Answer, Refusal> {
    let kinds: &[(&str, &str)] = match verb {
        "log-metric" => &[("", "metrics")],
        "log-parameter" => &[("", "params")],
        "set-tag" => &[("", "tags")],
        "log-batch" => &[
            ("metrics", "metrics"),
            ("params", "params"),
            ("tags", "tags"),
        ],
        "log-inputs" | "log-model" | "outputs" | "delete" | "restore" => &[],
        _ => return Err(call.no_endpoint()),
    };
    let id = body.get("run_id").or_else(|| body.get("run_uuid"));
    let missing = || Refusal::bad_request("Missing required field: run_id");
    let id = id.and_then(Value::as_str).ok_or_else(missing)?;
    change(site, call, id, |run| {
        for (from, to) in kinds {
            let entries = if from.is_empty() {
                vec![entry(body)]
            } else {
                let given = body.get(*from).and_then(Value::as_array);
                given.cloned().unwrap_or_default()
            };
            let Some(kept) = run.pointer_mut(&format!("/data/{to}")) else {
                continue;
            };
            for entry in entries {
                if *to == "metrics" {
                    add(kept, entry);
                } else {
                    set_keyed(kept, entry);
                }
            }
        }
    })?;
    Ok(json_ok(&json!({})))
}

/// Metrics have a history, so that namesakes stay.
fn add(metrics: &mut Value, entry: Value) {
    if let Some(metrics) = metrics.as_array_mut()
        && metrics.len() < ENTRIES_MAX
    {
        metrics.push(entry);
    }
}

/// A single metric, parameter or tag out of its request.
fn entry(body: &Value) -> Value {
    let mut kept = Map::new();
    for name in ["key", "value", "timestamp", "step"] {
        if let Some(value) = body.get(name) {
            kept.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(kept)
}

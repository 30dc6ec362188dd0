//! MLflow tracking, as much as a client needs to log a run and a trace. The app's alone: no user scope leads here.
//!
//! One experiment exists; runs are kept in memory. Artifacts go to the Files API.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use crate::embedded::answer::{Answer, Refusal, bare, json_ok, put};
use crate::embedded::call::{Call, word};
use crate::embedded::control::lock;
use crate::embedded::workspace::Site;
use crate::embedded::world::{EXPERIMENT, EXPERIMENT_NAME};

/// Runs kept.
const RUNS_MAX: usize = 1000;
/// Metrics, parameters and tags kept per run, each.
const ENTRIES_MAX: usize = 10_000;
/// Where clients think artifacts are; they write them through the Files API, below `WorkspaceInternal`.
const ARTIFACTS: &str = "dbfs:/databricks/mlflow-tracking";

/// The runs so far, by id.
#[derive(Default)]
pub(in crate::embedded) struct Tracking(Mutex<BTreeMap<String, Value>>);

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    let body = match path {
        // Protobuf: counted by the door's meter, not read.
        ["api", "2.0", "otel", "v1", "traces" | "logs" | "metrics"] => {
            let table = call.headers.contains_key("x-databricks-uc-table-name");
            return if table {
                Ok(bare(http::StatusCode::OK))
            } else {
                Err(Refusal::bad_request(
                    "Missing header X-Databricks-UC-Table-Name",
                ))
            };
        }
        _ if call.method == "GET" => Value::Null,
        _ => call.json().await?,
    };
    let now = site.issuer.clock.now().as_millisecond();
    match (call.method.as_str(), path) {
        ("GET", ["api", "2.0", "mlflow", "experiments", "get"]) => {
            experiment(call.query("experiment_id") == Some(EXPERIMENT))
        }
        ("GET", ["api", "2.0", "mlflow", "experiments", "get-by-name"]) => {
            experiment(call.query("experiment_name") == Some(EXPERIMENT_NAME))
        }
        ("POST", ["api", "2.0", "mlflow", "experiments", "search"]) => {
            Ok(json_ok(&json!({ "experiments": [description()] })))
        }
        ("POST", ["api", "2.0", "mlflow", "runs", "create"]) => {
            site.tracking.create(&body, &call.caller.name, now)
        }
        ("GET", ["api", "2.0", "mlflow", "runs", "get"]) => {
            let id = call.query("run_id").or_else(|| call.query("run_uuid"));
            let run = site
                .tracking
                .change(id.unwrap_or_default(), |run| run.clone())?;
            Ok(json_ok(&json!({ "run": run })))
        }
        ("POST", ["api", "2.0", "mlflow", "runs", "search"]) => {
            let runs: Vec<Value> = lock(&site.tracking.0).values().cloned().collect();
            Ok(json_ok(&json!({ "runs": runs })))
        }
        ("POST", ["api", "2.0", "mlflow", "runs", "update"]) => {
            let info = site.tracking.change(word(&body, "run_id")?, |run| {
                for name in ["status", "end_time", "run_name"] {
                    if let (Some(value), Some(info)) = (body.get(name), run.get_mut("info")) {
                        put(info, name, value.clone());
                    }
                }
                run.get("info").cloned()
            })?;
            Ok(json_ok(&json!({ "run_info": info })))
        }
        ("POST", ["api", "2.0", "mlflow", "runs", log]) => site.tracking.log(log, call, &body),
        ("POST", ["api", version @ ("2.0" | "3.0"), "mlflow", "traces"]) => {
            Ok(json_ok(&trace(version, body, &call.caller.name)))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn description() -> Value {
    json!({
        "experiment_id": EXPERIMENT, "name": EXPERIMENT_NAME, "lifecycle_stage": "active",
        "artifact_location": format!("{ARTIFACTS}/{EXPERIMENT}"),
    })
}

fn experiment(is_it: bool) -> Result<Answer, Refusal> {
    if is_it {
        Ok(json_ok(&json!({ "experiment": description() })))
    } else {
        Err(Refusal::unknown("The experiment"))
    }
}

/// A trace is acknowledged with what was sent, under an id, and with who logged it.
fn trace(version: &str, mut body: Value, logged_by: &str) -> Value {
    let id = format!("tr-{}", uuid::Uuid::now_v7().simple());
    if version == "2.0" {
        let tags = json!([{ "key": "logged_by", "value": logged_by }]);
        let experiment = body.get("experiment_id").cloned();
        return json!({ "trace_info": {
            "request_id": id, "experiment_id": experiment, "status": "IN_PROGRESS", "tags": tags,
            "timestamp_ms": body.get("timestamp_ms").cloned(),
        }});
    }
    if let Some(info) = body
        .pointer_mut("/trace/trace_info")
        .and_then(Value::as_object_mut)
    {
        info.entry("trace_id").or_insert_with(|| json!(id));
        let tags = info.entry("tags").or_insert_with(|| json!({}));
        if let Some(tags) = tags.as_object_mut() {
            tags.insert("logged_by".to_owned(), json!(logged_by));
            let place = format!("{ARTIFACTS}/{EXPERIMENT}/traces/{id}/artifacts");
            tags.entry("mlflow.artifactLocation")
                .or_insert(json!(place));
        }
    }
    body
}

impl Tracking {
    fn create(&self, body: &Value, created_by: &str, now: i64) -> Result<Answer, Refusal> {
        if body.get("experiment_id").and_then(Value::as_str) != Some(EXPERIMENT) {
            return Err(Refusal::unknown("The experiment"));
        }
        let mut runs = lock(&self.0);
        if runs.len() >= RUNS_MAX {
            return Err(Refusal::too_large("This workspace keeps no more runs."));
        }
        let id = uuid::Uuid::now_v7().simple().to_string();
        let run = json!({
            "info": {
                "run_id": id, "run_uuid": id, "experiment_id": EXPERIMENT, "status": "RUNNING",
                "run_name": body.get("run_name").and_then(Value::as_str).unwrap_or("run"),
                "start_time": body.get("start_time").cloned().unwrap_or_else(|| json!(now)),
                "user_id": created_by, "lifecycle_stage": "active",
                "artifact_uri": format!("{ARTIFACTS}/{EXPERIMENT}/{id}/artifacts"),
            },
            "data": {
                "metrics": [], "params": [],
                "tags": body.get("tags").filter(|t| t.is_array()).cloned().unwrap_or_else(|| json!([])),
            },
            "inputs": {},
        });
        let answer = json_ok(&json!({ "run": run }));
        runs.insert(id, run);
        Ok(answer)
    }

    fn change<T>(&self, id: &str, how: impl FnOnce(&mut Value) -> T) -> Result<T, Refusal> {
        let mut runs = lock(&self.0);
        let found = runs.get_mut(id).map(how);
        found.ok_or_else(|| Refusal::unknown(&format!("Run {id}")))
    }

    /// The calls that only add to a run.
    fn log(&self, verb: &str, call: &Call, body: &Value) -> Result<Answer, Refusal> {
        let kinds: &[(&str, &str)] = match verb {
            "log-metric" => &[("", "metrics")],
            "log-parameter" => &[("", "params")],
            "set-tag" => &[("", "tags")],
            "log-batch" => &[
                ("metrics", "metrics"),
                ("params", "params"),
                ("tags", "tags"),
            ],
            "log-inputs" | "log-model" | "outputs" => &[],
            _ => return Err(call.no_endpoint()),
        };
        self.change(word(body, "run_id")?, |run| {
            for (from, to) in kinds {
                let entries = if from.is_empty() {
                    vec![entry(body)]
                } else {
                    body.get(*from)
                        .and_then(Value::as_array)
                        .cloned()
                        .unwrap_or_default()
                };
                let kept = run.pointer_mut(&format!("/data/{to}"));
                if let Some(kept) = kept.and_then(Value::as_array_mut) {
                    kept.extend(entries);
                    kept.truncate(ENTRIES_MAX);
                }
            }
        })?;
        Ok(json_ok(&json!({})))
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

//! MLflow, as much as a client needs to log runs, models, prompts and traces. The app's alone: no user scope leads here.
//!
//! Everything is kept in memory, below an experiment or a place in Unity Catalog that has the grant; artifacts go to the Files
//! API. Experiments are here, the rest in the files below.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok, put};
use crate::embedded::call::{Call, word};
use crate::embedded::control::lock;
use crate::embedded::grants::{Caller, EXPERIMENTS, SCHEMAS, TRACE_LOCATIONS};
use crate::embedded::workspace::Site;
use crate::embedded::world::{
    EXPERIMENT, EXPERIMENT_NAME, EXPERIMENT_NAME_RESTRICTED, EXPERIMENT_RESTRICTED,
};

mod locations;
mod models;
mod prompts;
mod runs;
mod traces;

/// Entries kept of each sort: experiments, runs, models, traces, prompts.
const KEPT_MAX: usize = 1000;
/// Where clients think artifacts are; they write them through the Files API, below `WorkspaceInternal`.
const ARTIFACTS: &str = "dbfs:/databricks/mlflow-tracking";
/// Where they put them there: below the experiment's number.
const FILES: &str = "/WorkspaceInternal/Mlflow/Artifacts";
/// The first id of an experiment made here.
const EXPERIMENTS_FROM: usize = 300_000_000_000_001;

/// Everything logged so far, each sort by its id.
#[derive(Default)]
pub(in crate::embedded) struct Tracking {
    experiments: Kept,
    experiment_tags: Kept,
    runs: Kept,
    models: Kept,
    traces: Kept,
    prompts: Kept,
}

/// One sort of entries.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<String, Value>>);

impl Kept {
    fn add(&self, id: &str, entry: Value) -> Result<(), Refusal> {
        let mut all = lock(&self.0);
        if all.len() >= KEPT_MAX {
            return Err(Refusal::too_large("This workspace keeps no more of these."));
        }
        all.insert(id.to_owned(), entry);
        Ok(())
    }

    fn find(&self, id: &str) -> Option<Value> {
        lock(&self.0).get(id).cloned()
    }

    fn change<T>(&self, id: &str, how: impl FnOnce(&mut Value) -> T) -> Option<T> {
        lock(&self.0).get_mut(id).map(how)
    }

    fn remove(&self, id: &str) -> Option<Value> {
        lock(&self.0).remove(id)
    }

    fn all(&self) -> Vec<Value> {
        lock(&self.0).values().cloned().collect()
    }
}

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    if let ["api", "2.0", "otel", "v1", "traces" | "logs" | "metrics"] = path {
        // Protobuf: counted by the door's meter, not read.
        return locations::export(call);
    }
    let body = match call.method.as_str() {
        "GET" => Value::Null,
        _ => call.json().await?,
    };
    match path {
        ["api", "2.0", "mlflow", "experiments", rest @ ..] => experiments(site, call, rest, &body),
        ["api", "2.0", "mlflow", "runs", rest @ ..] => runs::answer(site, call, rest, &body),
        ["api", "2.0", "mlflow", "artifacts", "list"] => runs::artifacts(site, call),
        ["api", "2.0", "mlflow", "metrics", "get-history"] => runs::history(site, call),
        ["api", "2.0", "mlflow", "logged-models", rest @ ..] => {
            models::answer(site, call, rest, &body)
        }
        [
            "api",
            "2.0",
            "mlflow",
            "unity-catalog",
            "prompts",
            rest @ ..,
        ] => prompts::answer(site, call, rest, &body),
        ["api", "2.0", "mlflow", "traces", rest @ ..] => {
            traces::answer_old(site, call, rest, &body)
        }
        ["api", "3.0", "mlflow", "traces", rest @ ..] => traces::answer(site, call, rest, &body),
        ["api", "4.0", "mlflow", "traces", rest @ ..] => locations::answer(site, call, rest, &body),
        ["api", "5.0", "mlflow", rest @ ..] => locations::settings(site, call, rest, &body),
        _ => Err(call.no_endpoint()),
    }
}

/// Lets through whoever has a grant on an experiment, given or made here.
fn may_use_experiment(site: &Site, caller: &Caller, id: &str) -> Result<(), Refusal> {
    let is_made_here = site.tracking.experiments.find(id).is_some();
    if is_made_here {
        Ok(())
    } else {
        caller.may_use(EXPERIMENTS, id)
    }
}

/// The same for a file of the Files API, where it is an artifact of an experiment.
pub(super) fn may_reach_artifact(site: &Site, caller: &Caller, path: &str) -> Result<(), Refusal> {
    let inside = path
        .strip_prefix(FILES)
        .and_then(|rest| rest.strip_prefix('/'));
    match inside.and_then(|rest| rest.split('/').next()) {
        Some(experiment) => may_use_experiment(site, caller, experiment),
        None => Ok(()),
    }
}

/// The same for whatever traces lie in: an experiment, a schema, or a prefix of tables.
fn may_use_location(site: &Site, caller: &Caller, location: &str) -> Result<(), Refusal> {
    match location.split('.').count() {
        1 => may_use_experiment(site, caller, location),
        2 => caller.may_use(SCHEMAS, location),
        _ => caller.may_use(TRACE_LOCATIONS, location),
    }
}

/// A required query parameter.
fn asked<'a>(call: &'a Call, name: &str) -> Result<&'a str, Refusal> {
    let missing = || Refusal::bad_request(format!("Missing required field: {name}"));
    call.query(name).ok_or_else(missing)
}

/// The strings of an array in a body; absent is empty.
fn texts<'a>(body: &'a Value, name: &str) -> Vec<&'a str> {
    let found = body.get(name).and_then(Value::as_array);
    found
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Puts an entry with a `key` into an array of such, in place of its namesake.
fn set_keyed(entries: &mut Value, entry: Value) {
    let Some(entries) = entries.as_array_mut() else {
        return;
    };
    entries.retain(|old| old.get("key") != entry.get("key"));
    if entries.len() < KEPT_MAX {
        entries.push(entry);
    }
}

fn experiments(site: &Site, call: &Call, rest: &[&str], body: &Value) -> Result<Answer, Refusal> {
    match (call.method.as_str(), rest) {
        ("GET", ["get"]) => {
            let id = asked(call, "experiment_id")?;
            may_use_experiment(site, &call.caller, id)?;
            Ok(json_ok(&json!({ "experiment": describe(site, id) })))
        }
        ("GET", ["get-by-name"]) => {
            let name = asked(call, "experiment_name")?;
            let made = site.tracking.experiments.all();
            let made = made.iter().find(|e| e.get("name") == Some(&json!(name)));
            let id = match (name, made) {
                (EXPERIMENT_NAME, _) => EXPERIMENT,
                (EXPERIMENT_NAME_RESTRICTED, _) => EXPERIMENT_RESTRICTED,
                (_, Some(made)) => made["experiment_id"].as_str().unwrap_or_default(),
                (_, None) => return Err(Refusal::unknown(&format!("Experiment {name}"))),
            };
            may_use_experiment(site, &call.caller, id)?;
            Ok(json_ok(&json!({ "experiment": describe(site, id) })))
        }
        ("GET" | "POST", ["search"]) => {
            let given = call.caller.visible(EXPERIMENTS);
            let mut list: Vec<Value> = given.map(|id| describe(site, id)).collect();
            list.extend(site.tracking.experiments.all());
            Ok(json_ok(&json!({ "experiments": list })))
        }
        ("POST", ["create"]) => create(site, word(body, "name")?),
        ("POST", ["update"]) => {
            may_use_experiment(site, &call.caller, word(body, "experiment_id")?)?;
            Ok(json_ok(&json!({})))
        }
        ("POST", ["set-experiment-tag"]) => {
            let id = word(body, "experiment_id")?;
            may_use_experiment(site, &call.caller, id)?;
            tag(site, id, word(body, "key")?, word(body, "value")?)?;
            Ok(json_ok(&json!({})))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn create(site: &Site, name: &str) -> Result<Answer, Refusal> {
    let made = site.tracking.experiments.all();
    let is_taken = [EXPERIMENT_NAME, EXPERIMENT_NAME_RESTRICTED].contains(&name)
        || made.iter().any(|e| e.get("name") == Some(&json!(name)));
    if is_taken {
        return Err(Refusal::exists(&format!("Experiment {name}")));
    }
    let id = (EXPERIMENTS_FROM + made.len()).to_string();
    let entry = experiment(&id, name);
    site.tracking.experiments.add(&id, entry)?;
    Ok(json_ok(&json!({ "experiment_id": id })))
}

fn tag(site: &Site, id: &str, key: &str, value: &str) -> Result<(), Refusal> {
    let kept = site.tracking.experiment_tags.find(id);
    let mut tags = kept.unwrap_or_else(|| json!([]));
    set_keyed(&mut tags, json!({ "key": key, "value": value }));
    site.tracking.experiment_tags.add(id, tags)
}

fn describe(site: &Site, id: &str) -> Value {
    let name = if id == EXPERIMENT {
        EXPERIMENT_NAME
    } else {
        EXPERIMENT_NAME_RESTRICTED
    };
    let made = site.tracking.experiments.find(id);
    let mut shown = made.unwrap_or_else(|| experiment(id, name));
    if let Some(tags) = site.tracking.experiment_tags.find(id) {
        put(&mut shown, "tags", tags);
    }
    shown
}

fn experiment(id: &str, name: &str) -> Value {
    json!({
        "experiment_id": id, "name": name, "lifecycle_stage": "active",
        "artifact_location": format!("{ARTIFACTS}/{id}"),
    })
}

/// Sets members of an object, those of them that are given.
pub(super) fn put_given(object: &mut Value, from: &Value, names: &[&str]) {
    for name in names {
        if let Some(value) = from.get(*name) {
            put(object, name, value.clone());
        }
    }
}

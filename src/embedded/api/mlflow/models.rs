//! Logged models. A model has the grants of its experiment.
//!
//! Their files are artifacts and go through the Files API.

use serde_json::{Value, json};

use super::{ARTIFACTS, may_use_experiment, put_given, set_keyed, texts};
use crate::embedded::answer::{Answer, Refusal, json_ok, put};
use crate::embedded::call::{Call, word};
use crate::embedded::workspace::Site;

pub(super) fn answer(
    site: &Site,
    call: &Call,
    rest: &[&str],
    body: &Value,
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), rest) {
        ("POST", []) => create(site, call, body),
        ("POST", ["search"]) => {
            let wanted = texts(body, "experiment_ids");
            for experiment in &wanted {
                may_use_experiment(site, &call.caller, experiment)?;
            }
            let mut models = site.tracking.models.all();
            models.retain(|model| wanted.contains(&experiment_of(model)));
            Ok(json_ok(&json!({ "models": models })))
        }
        ("GET", [id]) => shown(site, call, id, |_| {}),
        ("PATCH", [id]) => shown(site, call, id, |model| {
            if let Some(info) = model.get_mut("info") {
                put_given(info, body, &["status"]);
            }
        }),
        ("PATCH", [id, "tags"]) => shown(site, call, id, |model| {
            set_all(model.pointer_mut("/info/tags"), body.get("tags"));
        }),
        ("POST", [id, "params"]) => shown(site, call, id, |model| {
            set_all(model.pointer_mut("/data/params"), body.get("params"));
        }),
        ("DELETE", [id]) => {
            shown(site, call, id, |_| {})?;
            site.tracking.models.remove(id);
            Ok(json_ok(&json!({})))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn set_all(kept: Option<&mut Value>, given: Option<&Value>) {
    let given = given.and_then(Value::as_array);
    if let Some(kept) = kept {
        for entry in given.into_iter().flatten() {
            set_keyed(kept, entry.clone());
        }
    }
}

fn experiment_of(model: &Value) -> &str {
    model
        .pointer("/info/experiment_id")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Works on a model and shows what became of it.
fn shown(
    site: &Site,
    call: &Call,
    id: &str,
    how: impl FnOnce(&mut Value),
) -> Result<Answer, Refusal> {
    let missing = || Refusal::unknown(&format!("Logged model {id}"));
    let model = site.tracking.models.find(id).ok_or_else(missing)?;
    may_use_experiment(site, &call.caller, experiment_of(&model))?;
    let changed = site.tracking.models.change(id, |model| {
        how(model);
        model.clone()
    });
    Ok(json_ok(&json!({ "model": changed.ok_or_else(missing)? })))
}

fn create(site: &Site, call: &Call, body: &Value) -> Result<Answer, Refusal> {
    let experiment = word(body, "experiment_id")?;
    may_use_experiment(site, &call.caller, experiment)?;
    let id = format!("m-{}", uuid::Uuid::now_v7().simple());
    let now = site.issuer.clock.now().as_millisecond();
    let list = |name: &str| {
        let given = body.get(name).filter(|v| v.is_array()).cloned();
        given.unwrap_or_else(|| json!([]))
    };
    let mut info = json!({
        "model_id": id, "experiment_id": experiment, "name": "model", "creation_timestamp_ms": now,
        "last_updated_timestamp_ms": now, "status": "LOGGED_MODEL_PENDING", "creator_id": 1,
        "artifact_uri": format!("{ARTIFACTS}/{experiment}/logged_models/{id}/artifacts"), "registrations": [],
    });
    put_given(&mut info, body, &["name", "model_type", "source_run_id"]);
    put(&mut info, "tags", list("tags"));
    let model = json!({ "info": info, "data": { "params": list("params"), "metrics": [] } });
    let answer = json_ok(&json!({ "model": model }));
    site.tracking.models.add(&id, model)?;
    Ok(answer)
}

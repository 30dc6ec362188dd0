//! Jobs: the two jobs, and the runs of them, which are done at the second look. The app's alone: no user scope leads here.
//!
//! Answers under every version of the path that clients use.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok};
use crate::embedded::call::Call;
use crate::embedded::control::lock;
use crate::embedded::grants::JOBS;
use crate::embedded::workspace::Site;

/// Runs kept; the oldest go first.
const RUNS_MAX: usize = 1000;
/// The one task of a run is a run of its own, with a number of its own: what clients ask the output of.
const TASK_OF: u64 = 1 << 40;

/// The runs so far, by number.
#[derive(Default)]
pub(in crate::embedded) struct Runs(Mutex<BTreeMap<u64, Run>>);

#[derive(Clone)]
struct Run {
    id: u64,
    job: String,
    by: String,
    started_ms: i64,
    looks: u32,
}

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    let ["api", "2.1" | "2.2", "jobs", rest @ ..] = path else {
        return Err(call.no_endpoint());
    };
    match (call.method.as_str(), rest) {
        ("GET", ["list"]) => {
            let list: Vec<Value> = call.caller.visible(JOBS).map(describe).collect();
            Ok(json_ok(&json!({ "jobs": list, "has_more": false })))
        }
        ("GET", ["get"]) => {
            let id = call.query("job_id").unwrap_or_default();
            call.caller.may_use(JOBS, id)?;
            Ok(json_ok(&describe(id)))
        }
        ("POST", ["run-now"]) => {
            let body = call.json().await?;
            let id = body.get("job_id").map(ToString::to_string);
            let missing = || Refusal::bad_request("Missing required field: job_id");
            let id = id.ok_or_else(missing)?.replace('"', "");
            call.caller.may_use(JOBS, &id)?;
            let now = site.issuer.clock.now().as_millisecond();
            let run = site.runs.begin(&id, &call.caller.name, now);
            Ok(json_ok(&json!({ "run_id": run, "number_in_job": run })))
        }
        ("GET", ["runs", "get"]) => Ok(json_ok(&run_of(site, call, 0)?.answer())),
        ("GET", ["runs", "get-output"]) => {
            let run = run_of(site, call, TASK_OF)?;
            let said = format!("run by {}", run.by);
            Ok(json_ok(&json!({
                "metadata": run.answer(), "notebook_output": { "result": said, "truncated": false },
            })))
        }
        _ => Err(call.no_endpoint()),
    }
}

/// The run a query names, by its own number or that of its task, looked at once more.
fn run_of(site: &Site, call: &Call, task_of: u64) -> Result<Run, Refusal> {
    let named = call.query("run_id").unwrap_or_default();
    let id: Option<u64> = named.parse().ok();
    let found = id.map(|id| id.checked_sub(task_of).filter(|run| *run > 0).unwrap_or(id));
    let found = found.and_then(|id| site.runs.look(id));
    let run = found.ok_or_else(|| Refusal::bad_request(format!("Run {named} does not exist.")))?;
    call.caller.may_use(JOBS, &run.job)?;
    Ok(run)
}

fn number(id: &str) -> Value {
    id.parse::<u64>().map_or(Value::Null, |n| json!(n))
}

fn describe(id: &str) -> Value {
    json!({
        "job_id": number(id), "creator_user_name": "embedded@example.com",
        "settings": { "name": format!("Job {id}"), "max_concurrent_runs": 1, "format": "MULTI_TASK" },
    })
}

impl Runs {
    fn begin(&self, job: &str, by: &str, now: i64) -> u64 {
        let mut all = lock(&self.0);
        let id = all.last_key_value().map_or(1, |(last, _)| last + 1);
        if all.len() >= RUNS_MAX {
            all.pop_first();
        }
        let run = Run {
            id,
            job: job.to_owned(),
            by: by.to_owned(),
            started_ms: now,
            looks: 0,
        };
        all.insert(id, run);
        id
    }

    fn look(&self, id: u64) -> Option<Run> {
        let mut all = lock(&self.0);
        let run = all.get_mut(&id)?;
        run.looks = run.looks.saturating_add(1);
        Some(run.clone())
    }
}

impl Run {
    fn answer(&self) -> Value {
        let state = if self.looks < 2 {
            json!({ "life_cycle_state": "RUNNING" })
        } else {
            json!({ "life_cycle_state": "TERMINATED", "result_state": "SUCCESS" })
        };
        json!({
            "run_id": self.id, "job_id": number(&self.job), "run_name": "run", "state": state,
            "start_time": self.started_ms, "creator_user_name": self.by, "run_type": "JOB_RUN",
            "tasks": [{ "task_key": "main", "run_id": self.id + TASK_OF }],
        })
    }
}

//! Lakebase, provisioned (`/database`) and autoscaling (`/postgres`): what exists, and credentials for a direct connection.
//!
//! A minted credential is a real one of this workspace and starts with `LAKEBASE_CREDENTIAL_PREFIX`. Postgres is not served.

use serde_json::{Value, json};

use crate::domain::clock::Timestamp;
use crate::embedded::answer::{Answer, Refusal, json_ok};
use crate::embedded::call::{Call, word};
use crate::embedded::grants::{BRANCHES, INSTANCES};
use crate::embedded::workspace::Site;
use crate::embedded::world::LAKEBASE_CREDENTIAL_PREFIX;

/// How long a credential lives when nothing is asked, and at most; the least is [`LIFE_SECONDS_MIN`].
const LIFE_SECONDS_MAX: i64 = 3600;
const LIFE_SECONDS_MIN: i64 = 300;
/// Instances one credential may be for.
const INSTANCE_NAMES_MAX: usize = 16;
/// The only endpoint and database of each branch.
const ENDPOINT: &str = "primary";
const DATABASE: &str = "app";

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), path) {
        ("POST", ["api", "2.0", "database", "credentials"]) => {
            let body = call.json().await?;
            provisioned_credential(site, call, &body)
        }
        ("POST", ["api", "2.0", "postgres", "credentials"]) => {
            let body = call.json().await?;
            autoscaling_credential(site, call, &body)
        }
        ("GET", ["api", "2.0", "database", "instances"]) => {
            let list: Vec<Value> = call.caller.visible(INSTANCES).map(instance).collect();
            Ok(json_ok(&json!({ "database_instances": list })))
        }
        ("GET", ["api", "2.0", "database", "instances:findByUid"]) => {
            let uid = call.query("uid").unwrap_or_default().to_owned();
            let name = uid.strip_prefix("uid-of-").unwrap_or(&uid);
            call.caller.may_use(INSTANCES, name)?;
            Ok(json_ok(&instance(name)))
        }
        ("GET", ["api", "2.0", "database", "instances", name]) => {
            call.caller.may_use(INSTANCES, name)?;
            Ok(json_ok(&instance(name)))
        }
        ("GET", ["api", "2.0", "postgres", name @ ..]) => resource(call, name),
        _ => Err(call.no_endpoint()),
    }
}

fn provisioned_credential(site: &Site, call: &Call, body: &Value) -> Result<Answer, Refusal> {
    let names = body.get("instance_names").and_then(Value::as_array);
    let names = names.filter(|n| !n.is_empty() && n.len() <= INSTANCE_NAMES_MAX);
    let missing = || Refusal::bad_request("Missing required field: instance_names");
    for name in names.ok_or_else(missing)? {
        call.caller
            .may_use(INSTANCES, name.as_str().ok_or_else(missing)?)?;
    }
    let (token, expires) = mint(site, LIFE_SECONDS_MAX);
    Ok(json_ok(
        &json!({ "token": token, "expiration_time": expires }),
    ))
}

fn autoscaling_credential(site: &Site, call: &Call, body: &Value) -> Result<Answer, Refusal> {
    let endpoint = word(body, "endpoint")?;
    let Some((branch, rest)) = endpoint.split_once("/endpoints/") else {
        let message = "endpoint must be of the form projects/{project}/branches/{branch}/endpoints/{endpoint}";
        return Err(Refusal::bad_request(message));
    };
    call.caller.may_use(BRANCHES, branch)?;
    if rest != ENDPOINT {
        return Err(Refusal::unknown(&format!("endpoint {endpoint}")));
    }
    let asked = body.get("ttl").and_then(Value::as_str);
    let seconds = asked.map(|ttl| ttl.trim_end_matches('s').parse::<i64>());
    let life = match seconds {
        None => LIFE_SECONDS_MAX,
        Some(Ok(life)) if (LIFE_SECONDS_MIN..=LIFE_SECONDS_MAX).contains(&life) => life,
        Some(_) => return Err(Refusal::bad_request("ttl must lie between 300s and 3600s.")),
    };
    let (token, expires) = mint(site, life);
    Ok(json_ok(&json!({ "token": token, "expire_time": expires })))
}

/// A fresh credential and when it ends.
fn mint(site: &Site, life_seconds: i64) -> (String, String) {
    let token = format!(
        "{LAKEBASE_CREDENTIAL_PREFIX}{}",
        uuid::Uuid::now_v7().simple()
    );
    let end = site.issuer.clock.now().as_second() + life_seconds;
    let end = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
    (token, end.to_string())
}

fn instance(name: &str) -> Value {
    json!({
        "name": name, "uid": format!("uid-of-{name}"), "state": "AVAILABLE", "capacity": "CU_1",
        "read_write_dns": format!("instance-{name}.database.example"), "creator": "embedded@example.com",
        "pg_version": "PG_VERSION_16", "stopped": false,
    })
}

/// A resource below `/postgres`, whose name has slashes: a project, a branch, or what lies in a branch.
fn resource(call: &Call, name: &[&str]) -> Result<Answer, Refusal> {
    let caller = &call.caller;
    match name {
        ["projects"] => {
            let projects = caller.visible(BRANCHES).filter_map(project_of);
            let list: Vec<Value> = projects.map(|p| json!({ "name": p })).collect();
            Ok(json_ok(&json!({ "projects": list })))
        }
        ["projects", project] => {
            let branch = format!("projects/{project}/branches/production");
            caller.may_use(BRANCHES, &branch)?;
            Ok(json_ok(&json!({ "name": name.join("/") })))
        }
        ["projects", project, "branches"] => {
            let branch = format!("projects/{project}/branches/production");
            caller.may_use(BRANCHES, &branch)?;
            Ok(json_ok(
                &json!({ "branches": [branch_description(&branch)] }),
            ))
        }
        ["projects", project, "branches", branch, rest @ ..] => {
            let branch = format!("projects/{project}/branches/{branch}");
            caller.may_use(BRANCHES, &branch)?;
            match rest {
                [] => Ok(json_ok(&branch_description(&branch))),
                ["endpoints"] => Ok(json_ok(&json!({ "endpoints": [endpoint(&branch)] }))),
                ["endpoints", ENDPOINT] => Ok(json_ok(&endpoint(&branch))),
                ["databases"] => Ok(json_ok(&json!({ "databases": [database(&branch)] }))),
                ["databases", DATABASE] => Ok(json_ok(&database(&branch))),
                ["endpoints" | "databases", _] => Err(Refusal::unknown(&name.join("/"))),
                _ => Err(call.no_endpoint()),
            }
        }
        _ => Err(call.no_endpoint()),
    }
}

fn project_of(branch: &str) -> Option<&str> {
    branch.split_once("/branches/").map(|(project, _)| project)
}

fn branch_description(branch: &str) -> Value {
    json!({
        "name": branch, "uid": format!("uid-of-{branch}"), "parent": project_of(branch),
        "status": { "default": true, "current_state": "READY" },
    })
}

fn endpoint(branch: &str) -> Value {
    let host = format!("{}.postgres.example", branch.replace('/', "-"));
    json!({
        "name": format!("{branch}/endpoints/{ENDPOINT}"), "parent": branch,
        "status": {
            "endpoint_type": "ENDPOINT_TYPE_READ_WRITE", "current_state": "ACTIVE", "hosts": { "host": host },
        },
    })
}

fn database(branch: &str) -> Value {
    json!({
        "name": format!("{branch}/databases/{DATABASE}"), "parent": branch,
        "status": { "postgres_database": DATABASE },
    })
}

//! The small ones: who am I (SCIM), workspace objects, Unity Catalog tables, jobs.
//!
//! Each answers with just enough for a client's typed reader, and says whose call it was.

use serde_json::{Value, json};

use super::answer::{Answer, Refusal, json_ok};
use super::call::Call;
use super::workspace::Site;
use super::world::{Caller, JOB, TABLE_ORDERS, TABLE_RESTRICTED};

const TABLES: [&str; 2] = [TABLE_ORDERS, TABLE_RESTRICTED];

pub(super) async fn answer(site: &Site, call: &mut Call, path: &[&str]) -> Result<Answer, Refusal> {
    match (call.method.as_str(), path) {
        ("GET", ["api", "2.0", "preview", "scim", "v2", "Me"]) => {
            Ok(json_ok(&me(site, &call.caller)))
        }
        ("GET", ["api", "2.0", "workspace", "get-status"]) => {
            let path = call
                .query("path")
                .ok_or_else(|| Refusal::bad_request("Missing required field: path"))?;
            Ok(json_ok(&json!({
                "path": path, "object_type": "DIRECTORY", "object_id": 1, "created_by": call.caller.name,
            })))
        }
        ("GET", ["api", "2.1", "unity-catalog", "tables"]) => {
            let visible = TABLES
                .iter()
                .filter(|t| call.caller.may_use("table", t).is_ok());
            let list: Vec<Value> = visible.map(|t| table(t)).collect();
            Ok(json_ok(&json!({ "tables": list })))
        }
        ("GET", ["api", "2.1", "unity-catalog", "tables", name]) => {
            call.caller.may_use_one_of("table", name, &TABLES)?;
            Ok(json_ok(&table(name)))
        }
        ("POST", ["api", "2.2", "jobs", "run-now"]) => {
            let body = call.json().await?;
            let wanted = body.get("job_id").map(|id| id.to_string().replace('"', ""));
            if wanted.as_deref() == Some(JOB) {
                let answer = json!({ "run_id": 1, "number_in_job": 1, "run_as_user_name": call.caller.name });
                Ok(json_ok(&answer))
            } else {
                Err(Refusal::unknown("The job"))
            }
        }
        _ => Err(call.no_endpoint()),
    }
}

fn me(site: &Site, caller: &Caller) -> Value {
    let place = site.users.iter().position(|u| u.email == caller.name);
    // The app comes first, then the users in their order.
    let id = 1000 + place.map_or(0, |n| n + 1);
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": id.to_string(),
        "userName": caller.name,
        "displayName": caller.display,
        "active": true,
        "emails": [{ "type": "work", "value": caller.name, "primary": true }],
        "groups": [{ "display": "users", "type": "direct", "value": "1" }],
    })
}

fn table(full_name: &str) -> Value {
    let mut parts = full_name.split('.');
    let mut next = || parts.next().unwrap_or_default();
    let (catalog, schema, name) = (next(), next(), next());
    json!({
        "full_name": full_name, "catalog_name": catalog, "schema_name": schema, "name": name,
        "table_type": "MANAGED", "data_source_format": "DELTA", "owner": "embedded@example.com",
        "columns": [
            { "name": "order_id", "type_name": "INT", "type_text": "int", "position": 0 },
            { "name": "owner", "type_name": "STRING", "type_text": "string", "position": 1 },
        ],
    })
}

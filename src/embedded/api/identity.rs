//! Who am I (SCIM), and workspace objects.
//!
//! Each answers with just enough for a client's typed reader, and says whose call it was.

use serde_json::{Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok};
use crate::embedded::call::Call;
use crate::embedded::grants::Caller;
use crate::embedded::workspace::Site;

pub(in crate::embedded) fn answer(
    site: &Site,
    call: &Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
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

//! Workspace secrets, read only. The app's alone: no user scope leads here.
//!
//! Every value starts with `SECRET_VALUE_PREFIX`, so that a test can look for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok};
use crate::embedded::call::Call;
use crate::embedded::grants::SECRET_SCOPES;
use crate::embedded::world::{SECRET_KEY, SECRET_VALUE_PREFIX};

pub(in crate::embedded) fn answer(call: &Call, path: &[&str]) -> Result<Answer, Refusal> {
    let ("GET", ["api", "2.0", "secrets", rest @ ..]) = (call.method.as_str(), path) else {
        return Err(call.no_endpoint());
    };
    let asked = |name: &str| {
        let missing = || Refusal::bad_request(format!("Missing required field: {name}"));
        call.query(name).ok_or_else(missing)
    };
    match rest {
        ["scopes", "list"] => {
            let visible = call.caller.visible(SECRET_SCOPES);
            let list: Vec<Value> = visible
                .map(|scope| json!({ "name": scope, "backend_type": "DATABRICKS" }))
                .collect();
            Ok(json_ok(&json!({ "scopes": list })))
        }
        ["list"] => {
            call.caller.may_use(SECRET_SCOPES, asked("scope")?)?;
            Ok(json_ok(
                &json!({ "secrets": [{ "key": SECRET_KEY, "last_updated_timestamp": 1 }] }),
            ))
        }
        ["get"] => {
            let (scope, key) = (asked("scope")?, asked("key")?);
            call.caller.may_use(SECRET_SCOPES, scope)?;
            if key != SECRET_KEY {
                let what = format!("Secret with scope {scope} and key {key}");
                return Err(Refusal::unknown(&what));
            }
            let value = STANDARD.encode(format!("{SECRET_VALUE_PREFIX}{scope}"));
            Ok(json_ok(&json!({ "key": key, "value": value })))
        }
        _ => Err(call.no_endpoint()),
    }
}

//! The Apps API, as much as tells a client where another app is.
//!
//! Knows nothing of that app itself: see `other_app.rs`, which registers its address here when it starts.

use serde_json::{Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok};
use crate::embedded::call::Call;
use crate::embedded::control::lock;
use crate::embedded::grants::APPS;
use crate::embedded::workspace::Site;

pub(in crate::embedded) fn answer(
    site: &Site,
    call: &Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), path) {
        ("GET", ["api", "2.0", "apps"]) => {
            let visible = call.caller.visible(APPS);
            let list: Vec<Value> = visible.map(|name| describe(site, name)).collect();
            Ok(json_ok(&json!({ "apps": list })))
        }
        ("GET", ["api", "2.0", "apps", name]) => {
            call.caller.may_use(APPS, name)?;
            Ok(json_ok(&describe(site, name)))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn describe(site: &Site, name: &str) -> Value {
    let running = lock(&site.app_urls).get(name).cloned();
    let state = if running.is_some() {
        "RUNNING"
    } else {
        "UNAVAILABLE"
    };
    let url = running.unwrap_or_else(|| {
        format!(
            "https://{name}-{}.aws.databricksapps.com",
            site.issuer.workspace_id
        )
    });
    json!({
        "name": name, "id": format!("id-of-{name}"), "url": url, "creator": "embedded@example.com",
        "service_principal_client_id": format!("client-of-{name}"), "service_principal_id": 1,
        "app_status": { "state": state, "message": "" },
        "compute_status": { "state": "ACTIVE", "message": "" },
    })
}

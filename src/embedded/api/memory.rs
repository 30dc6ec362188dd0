//! Memory stores (beta): what agents remember, kept apart by `scope`, which is whatever the caller says it is.
//!
//! That the platform checks the store and not the scope is the point (facts 6.8): a sidecar has to hold it to the user.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok, put};
use crate::embedded::call::{Call, word};
use crate::embedded::control::lock;
use crate::embedded::grants::MEMORY_STORES;
use crate::embedded::workspace::Site;

/// Entries kept, of all stores together.
const ENTRIES_MAX: usize = 10_000;

/// Every entry, by store, scope and path.
#[derive(Default)]
pub(in crate::embedded) struct Memories(Mutex<BTreeMap<(String, String, String), Value>>);

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    let ["api", "2.1", "unity-catalog", "memory-stores", rest @ ..] = path else {
        return Err(call.no_endpoint());
    };
    let Some((store, rest)) = rest.split_first() else {
        return match call.method.as_str() {
            "GET" => {
                let list: Vec<Value> = call.caller.visible(MEMORY_STORES).map(describe).collect();
                Ok(json_ok(&json!({ "memory_stores": list })))
            }
            "POST" => {
                let message = "The stores of this workspace are given; it makes no others.";
                Err(Refusal::bad_request(message))
            }
            _ => Err(call.no_endpoint()),
        };
    };
    call.caller.may_use(MEMORY_STORES, store)?;
    let all = &site.memories;
    let method = call.method.clone();
    let body = if method == "GET" {
        Value::Null
    } else {
        call.json().await?
    };
    let scope = scope(call, &body);
    let now = site.issuer.clock.now().as_millisecond();
    match (method.as_str(), rest) {
        ("GET", []) => Ok(json_ok(&describe(store))),
        ("POST" | "PATCH", ["entries"]) => {
            let entry = body.get("memory_entry").unwrap_or(&body);
            let place = (store.to_string(), scope?, word(entry, "path")?.to_owned());
            all.write(place, entry, method == "POST", now)
                .map(|v| json_ok(&v))
        }
        ("GET", ["entries"]) => {
            let prefix = call.query("path_prefix").unwrap_or_default();
            let found = all.list(store, &scope?, |path, _| path.starts_with(prefix));
            Ok(json_ok(&json!({ "memory_entries": found })))
        }
        ("GET", ["entries:get"]) => {
            let place = (store.to_string(), scope?, path_of(call)?);
            let found = lock(&all.0).get(&place).cloned();
            let missing = || Refusal::unknown(&format!("The memory entry {}", place.2));
            Ok(json_ok(&found.ok_or_else(missing)?))
        }
        ("POST", ["entries:search"]) => {
            let wanted = word(&body, "query")?.to_lowercase();
            let holds = |_: &str, entry: &Value| entry.to_string().to_lowercase().contains(&wanted);
            let found = all.list(store, &scope?, holds);
            Ok(json_ok(&json!({ "memory_entries": found })))
        }
        ("DELETE", ["entries"]) => {
            let place = (store.to_string(), scope?, path_of(call)?);
            let missing = || Refusal::unknown(&format!("The memory entry {}", place.2));
            lock(&all.0).remove(&place).ok_or_else(missing)?;
            Ok(json_ok(&json!({})))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn describe(store: &str) -> Value {
    let mut names = store.split('.');
    json!({
        "full_name": store, "catalog_name": names.next(), "schema_name": names.next(), "name": names.next(),
        "owner": "embedded@example.com",
    })
}

/// The partition a call names, in its query or its body.
fn scope(call: &Call, body: &Value) -> Result<String, Refusal> {
    let named = call
        .query("scope")
        .or_else(|| body.get("scope").and_then(Value::as_str));
    let given = named.filter(|text| !text.is_empty());
    given
        .map(str::to_owned)
        .ok_or_else(|| Refusal::bad_request("Missing required field: scope"))
}

fn path_of(call: &Call) -> Result<String, Refusal> {
    let given = call.query("path").map(str::to_owned);
    given.ok_or_else(|| Refusal::bad_request("Missing required field: path"))
}

impl Memories {
    fn write(
        &self,
        place: (String, String, String),
        entry: &Value,
        is_new: bool,
        now: i64,
    ) -> Result<Value, Refusal> {
        let mut all = lock(&self.0);
        if is_new && all.contains_key(&place) {
            return Err(Refusal::exists("The memory entry"));
        }
        if is_new && all.len() >= ENTRIES_MAX {
            return Err(Refusal::too_large(
                "This workspace keeps no more memory entries.",
            ));
        }
        let mut kept = match all.get(&place) {
            Some(old) => old.clone(),
            None if is_new => json!({ "create_time_ms": now }),
            None => return Err(Refusal::unknown(&format!("The memory entry {}", place.2))),
        };
        for (name, value) in entry.as_object().into_iter().flatten() {
            put(&mut kept, name, value.clone());
        }
        put(&mut kept, "scope", json!(place.1));
        put(&mut kept, "update_time_ms", json!(now));
        all.insert(place, kept.clone());
        Ok(kept)
    }

    fn list(&self, store: &str, scope: &str, wanted: impl Fn(&str, &Value) -> bool) -> Vec<Value> {
        let all = lock(&self.0);
        let found = all.iter().filter(|((s, partition, path), entry)| {
            s == store && partition == scope && wanted(path, entry)
        });
        found.map(|(_, entry)| entry.clone()).collect()
    }
}

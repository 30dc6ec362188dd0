//! Memory stores (beta): what agents remember, kept apart by `scope`, which is whatever the caller says it is.
//!
//! That the platform checks the store and not the scope is the point (facts 6.8): a sidecar has to hold it to the user. Scope
//! and path stand in the body of what writes or searches, in the query of what reads or deletes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::mlflow::put_given;
use crate::embedded::answer::{Answer, Refusal, json_ok, put};
use crate::embedded::call::{Call, word};
use crate::embedded::control::lock;
use crate::embedded::grants::MEMORY_STORES;
use crate::embedded::workspace::Site;

/// Entries kept, of all stores together.
const ENTRIES_MAX: usize = 10_000;
const PATH_CHARS_MAX: usize = 1024;
/// Found entries when nothing is said.
const TOP_DEFAULT: usize = 10;

/// Store, scope and path: what one entry is known by.
type Place = (String, String, String);

/// Every entry.
#[derive(Default)]
pub(in crate::embedded) struct Memories(Mutex<BTreeMap<Place, Value>>);

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    let ["api", "2.1", "unity-catalog", "memory-stores", rest @ ..] = path else {
        return Err(call.no_endpoint());
    };
    let Some((store, rest)) = rest.split_first() else {
        return stores(call);
    };
    call.caller.may_use(MEMORY_STORES, store)?;
    let all = &site.memories;
    let now = site.issuer.clock.now().to_string();
    match (call.method.as_str(), rest) {
        ("GET", []) => Ok(json_ok(&describe(store))),
        ("POST", ["entries"]) => {
            let body = call.json().await?;
            let missing = || Refusal::bad_request("Missing required field: memory_entry");
            let entry = body.get("memory_entry").ok_or_else(missing)?;
            let place = place(store, word(&body, "scope")?, word(entry, "path")?)?;
            all.create(place, entry, &now).map(|v| json_ok(&v))
        }
        ("PATCH", ["entries"]) => {
            let body = call.json().await?;
            let place = place(store, word(&body, "scope")?, word(&body, "path")?)?;
            all.edit(&place, &body, &now).map(|v| json_ok(&v))
        }
        ("POST", ["entries:search"]) => {
            let body = call.json().await?;
            let wanted = word(&body, "query")?.to_lowercase();
            let top = body.get("top_k").and_then(Value::as_u64);
            let top = top.map_or(TOP_DEFAULT, |n| usize::try_from(n).unwrap_or(usize::MAX));
            let mut found = all.list(store, word(&body, "scope")?);
            found.retain(|entry| entry.to_string().to_lowercase().contains(&wanted));
            found.truncate(top);
            Ok(json_ok(&json!({ "entries": found })))
        }
        ("GET", ["entries"]) => {
            let mut found = all.list(store, asked(call, "scope")?);
            for entry in &mut found {
                if let Some(members) = entry.as_object_mut() {
                    members.remove("contents");
                }
            }
            Ok(json_ok(&json!({ "entries": found })))
        }
        ("GET", ["entries:get"]) => {
            let place = place(store, asked(call, "scope")?, asked(call, "path")?)?;
            let found = lock(&all.0).get(&place).cloned();
            Ok(json_ok(&found.ok_or_else(|| no_entry(&place))?))
        }
        ("DELETE", ["entries"]) => {
            let place = place(store, asked(call, "scope")?, asked(call, "path")?)?;
            let gone = lock(&all.0).remove(&place);
            gone.map(|_| json_ok(&json!({})))
                .ok_or_else(|| no_entry(&place))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn stores(call: &Call) -> Result<Answer, Refusal> {
    match call.method.as_str() {
        "GET" => {
            let list: Vec<Value> = call.caller.visible(MEMORY_STORES).map(describe).collect();
            Ok(json_ok(&json!({ "memory_stores": list })))
        }
        // The stores of this workspace are given.
        "POST" => Err(Refusal::no_privilege(
            "CREATE MEMORY STORE",
            "Schema",
            crate::embedded::world::SCHEMA,
        )),
        _ => Err(call.no_endpoint()),
    }
}

fn describe(store: &str) -> Value {
    let mut names = store.split('.');
    json!({
        "full_name": store, "catalog_name": names.next(), "schema_name": names.next(), "name": names.next(),
        "owner": "embedded@example.com", "memory_store_id": format!("id-of-{store}"),
    })
}

fn asked<'a>(call: &'a Call, name: &str) -> Result<&'a str, Refusal> {
    let missing = || Refusal::bad_request(format!("Missing required field: {name}"));
    call.query(name).ok_or_else(missing)
}

fn no_entry(place: &Place) -> Refusal {
    Refusal::missing("NOT_FOUND", "Memory entry", &place.2)
}

fn place(store: &str, scope: &str, path: &str) -> Result<Place, Refusal> {
    let well_formed = path.starts_with("/memories/")
        && path.len() <= PATH_CHARS_MAX
        && !path.contains("//")
        && !path.ends_with('/')
        && !path.contains(|c: char| c.is_whitespace() || c.is_control());
    if scope.is_empty() || !well_formed {
        return Err(Refusal::bad_request("Invalid scope or path."));
    }
    Ok((store.to_owned(), scope.to_owned(), path.to_owned()))
}

impl Memories {
    fn create(&self, place: Place, entry: &Value, now: &str) -> Result<Value, Refusal> {
        let mut all = lock(&self.0);
        if all.contains_key(&place) {
            return Err(Refusal::exists(&format!("Memory entry {}", place.2)));
        }
        if all.len() >= ENTRIES_MAX {
            let message = "This workspace keeps no more memory entries.";
            return Err(Refusal::too_large(message));
        }
        let mut kept = json!({ "scope": place.1, "create_time": now, "update_time": now });
        put_given(&mut kept, entry, &["path", "contents", "description"]);
        all.insert(place, kept.clone());
        Ok(kept)
    }

    /// Changes the contents of an entry by exactly one of three edits.
    fn edit(&self, place: &Place, body: &Value, now: &str) -> Result<Value, Refusal> {
        let mut all = lock(&self.0);
        let kept = all.get_mut(place).ok_or_else(|| no_entry(place))?;
        let old = kept.get("contents").and_then(Value::as_str);
        let old = old.unwrap_or_default();
        let edits = ["str_replace", "insert", "replace_all"].map(|name| body.get(name));
        let new = match edits {
            [Some(edit), None, None] => {
                let wanted = word(edit, "old_str")?;
                if wanted.is_empty() || old.matches(wanted).count() != 1 {
                    return Err(Refusal::bad_request("old_str must occur exactly once."));
                }
                old.replace(wanted, word(edit, "new_str")?)
            }
            [None, Some(edit), None] => inserted(old, edit)?,
            [None, None, Some(edit)] => word(edit, "contents")?.to_owned(),
            _ => {
                let message = "Exactly one of str_replace, insert and replace_all is required.";
                return Err(Refusal::bad_request(message));
            }
        };
        put(kept, "contents", json!(new));
        put(kept, "update_time", json!(now));
        Ok(kept.clone())
    }

    fn list(&self, store: &str, scope: &str) -> Vec<Value> {
        let all = lock(&self.0);
        let found = all
            .iter()
            .filter(|((s, partition, _), _)| s == store && partition == scope);
        found.map(|(_, entry)| entry.clone()).collect()
    }
}

/// Text put in after a line, at the end where none is named.
fn inserted(old: &str, edit: &Value) -> Result<String, Refusal> {
    let mut lines: Vec<&str> = old.lines().collect();
    let line = edit.get("insert_line").and_then(Value::as_u64);
    let line = line.map_or(lines.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
    if line > lines.len() {
        return Err(Refusal::bad_request("insert_line is behind the end."));
    }
    lines.insert(line, word(edit, "insert_text")?);
    Ok(lines.join("\n"))
}

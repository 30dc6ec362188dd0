//! The prompt registry in Unity Catalog: prompts, versions, aliases, tags.
//!
//! Two prompts are given, with one version each; others may be made in a schema the caller may use.

use serde_json::{Value, json};

use super::traces::time;
use super::{put_given, set_keyed};
use crate::embedded::answer::{Answer, Refusal, json_ok};
use crate::embedded::call::{Call, word};
use crate::embedded::grants::{Caller, PROMPTS, SCHEMAS};
use crate::embedded::workspace::Site;

/// The template of the given prompts, JSON in a string as the registry keeps it.
const TEMPLATE: &str = "\"Hello {{name}}\"";

pub(super) fn answer(
    site: &Site,
    call: &Call,
    rest: &[&str],
    body: &Value,
) -> Result<Answer, Refusal> {
    let caller = &call.caller;
    match (call.method.as_str(), rest) {
        ("POST", []) => create(site, caller, body),
        ("POST", ["search"]) => {
            let place = body.get("catalog_schema");
            let part = |name: &str| place.and_then(|p| p.get(name)?.as_str());
            let schema = part("catalog_name").zip(part("schema_name"));
            let missing = || Refusal::bad_request("Missing required field: catalog_schema");
            let (catalog, schema) = schema.ok_or_else(missing)?;
            let schema = format!("{catalog}.{schema}");
            caller.may_use(SCHEMAS, &schema)?;
            let inside = format!("{schema}.");
            let mut found: Vec<Value> = caller
                .visible(PROMPTS)
                .filter(|name| name.starts_with(&inside))
                .map(|name| public(&kept(site, name)))
                .collect();
            for made in site.tracking.prompts.all() {
                let name = made.get("name").and_then(Value::as_str).unwrap_or_default();
                let is_given = caller.visible(PROMPTS).any(|given| given == name);
                if name.starts_with(&inside) && !is_given && caller.has_grant(name) {
                    found.push(public(&made));
                }
            }
            Ok(json_ok(&json!({ "prompts": found })))
        }
        (_, [name, rest @ ..]) => {
            may_use(site, caller, name)?;
            on_prompt(site, call, name, rest, body)
        }
        _ => Err(call.no_endpoint()),
    }
}

/// Lets through whoever has a grant on a prompt, given or made here.
fn may_use(site: &Site, caller: &Caller, name: &str) -> Result<(), Refusal> {
    match caller.may_use(PROMPTS, name) {
        Err(_) if caller.has_grant(name) && site.tracking.prompts.find(name).is_some() => Ok(()),
        other => other,
    }
}

fn create(site: &Site, caller: &Caller, body: &Value) -> Result<Answer, Refusal> {
    let name = word(body, "name")?;
    let Some((schema, _)) = name.rsplit_once('.') else {
        return Err(Refusal::bad_request("name must have three levels."));
    };
    caller.may_use(SCHEMAS, schema)?;
    if may_use(site, caller, name).is_ok() {
        return Err(Refusal::exists(&format!("Prompt {name}")));
    }
    let mut prompt = empty(name, site.issuer.clock.now().as_millisecond());
    if let Some(given) = body.get("prompt") {
        put_given(&mut prompt, given, &["description", "tags"]);
    }
    let answer = json_ok(&public(&prompt));
    site.tracking.prompts.add(name, prompt)?;
    Ok(answer)
}

fn empty(name: &str, now: i64) -> Value {
    json!({
        "name": name, "creation_timestamp": time(now), "last_updated_timestamp": time(now), "aliases": [], "tags": [],
        "versions": [],
    })
}

fn version(name: &str, number: usize, now: i64) -> Value {
    json!({
        "name": name, "version": number.to_string(), "creation_timestamp": time(now),
        "last_updated_timestamp": time(now), "template": TEMPLATE, "aliases": [], "tags": [],
    })
}

/// A prompt as it stands; a given one that nobody changed yet has its one version.
fn kept(site: &Site, name: &str) -> Value {
    site.tracking.prompts.find(name).unwrap_or_else(|| {
        let mut prompt = empty(name, 0);
        if let Some(versions) = prompt.get_mut("versions").and_then(Value::as_array_mut) {
            versions.push(version(name, 1, 0));
        }
        prompt
    })
}

/// A prompt without its versions, which have calls of their own.
fn public(prompt: &Value) -> Value {
    let mut shown = prompt.clone();
    if let Some(members) = shown.as_object_mut() {
        members.remove("versions");
    }
    shown
}

fn on_prompt(
    site: &Site,
    call: &Call,
    name: &str,
    rest: &[&str],
    body: &Value,
) -> Result<Answer, Refusal> {
    let mut prompt = kept(site, name);
    let now = site.issuer.clock.now().as_millisecond();
    let method = call.method.as_str();
    let shown = match (method, rest) {
        ("GET", []) => return Ok(json_ok(&public(&prompt))),
        ("PATCH", []) => {
            if let Some(given) = body.get("prompt") {
                put_given(&mut prompt, given, &["description", "tags"]);
            }
            public(&prompt)
        }
        ("POST", ["tags"]) => {
            set_in(&mut prompt, "tags", body);
            json!({})
        }
        ("POST", ["versions"]) => {
            let versions = prompt.get_mut("versions").and_then(Value::as_array_mut);
            let Some(versions) = versions else {
                return Err(Refusal::internal("A prompt without versions."));
            };
            let mut made = version(name, versions.len() + 1, now);
            if let Some(given) = body.get("prompt_version") {
                put_given(&mut made, given, &["template", "description", "tags"]);
            }
            versions.push(made.clone());
            made
        }
        ("POST", ["versions", "search"]) => {
            return Ok(json_ok(
                &json!({ "prompt_versions": prompt.get("versions") }),
            ));
        }
        ("GET", ["versions", "by-alias", alias]) => {
            let aliases = prompt.get("aliases").and_then(Value::as_array);
            let mut aliases = aliases.into_iter().flatten();
            let found = aliases.find(|a| a.get("alias") == Some(&json!(alias)));
            let number = found.and_then(|a| a.get("version")?.as_str());
            let missing = || Refusal::unknown(&format!("Alias {alias} of prompt {name}"));
            let number = number.ok_or_else(missing)?.to_owned();
            return version_of(&mut prompt, name, &number).map(|v| json_ok(v));
        }
        ("GET", ["versions", number]) => {
            return version_of(&mut prompt, name, number).map(|v| json_ok(v));
        }
        ("PATCH", ["versions", number]) => {
            let made = version_of(&mut prompt, name, number)?;
            if let Some(given) = body.get("prompt_version") {
                put_given(made, given, &["description", "tags"]);
            }
            made.clone()
        }
        ("POST", ["versions", number, "tags"]) => {
            set_in(version_of(&mut prompt, name, number)?, "tags", body);
            json!({})
        }
        ("POST", ["aliases", alias]) => {
            let number = word(body, "version")?;
            version_of(&mut prompt, name, number)?;
            let aliases = prompt.get_mut("aliases").and_then(Value::as_array_mut);
            if let Some(aliases) = aliases {
                aliases.retain(|a| a.get("alias") != Some(&json!(alias)));
                aliases.push(json!({ "alias": alias, "version": number }));
            }
            json!({})
        }
        _ => return Err(call.no_endpoint()),
    };
    site.tracking.prompts.add(name, prompt)?;
    Ok(json_ok(&shown))
}

fn set_in(object: &mut Value, list: &str, body: &Value) {
    let entry = json!({ "key": body.get("key"), "value": body.get("value") });
    if let Some(list) = object.get_mut(list) {
        set_keyed(list, entry);
    }
}

fn version_of<'a>(
    prompt: &'a mut Value,
    name: &str,
    number: &str,
) -> Result<&'a mut Value, Refusal> {
    let versions = prompt.get_mut("versions").and_then(Value::as_array_mut);
    let mut versions = versions.into_iter().flatten();
    let found = versions.find(|v| v.get("version") == Some(&json!(number)));
    found.ok_or_else(|| Refusal::unknown(&format!("Version {number} of prompt {name}")))
}

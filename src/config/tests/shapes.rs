//! Schema, shapes, reader and example agree with one another.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::config::schema::schema;

/// Follows a reference into `$defs`.
fn resolved<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    match node.get("$ref").and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => node,
    }
}

/// Every key path of the schema, `[]` for list entries, with whether an object stands there.
fn paths(root: &Value, node: &Value, at: &str, out: &mut BTreeSet<(String, bool)>) {
    let node = resolved(root, node);
    if let Some(items) = node.get("items") {
        paths(root, items, &format!("{at}[]"), out);
    }
    for branch in node
        .get("anyOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        paths(root, branch, at, out);
    }
    let Some(properties) = node.get("properties").and_then(Value::as_object) else {
        return;
    };
    out.insert((at.to_owned(), true));
    for (key, value) in properties {
        let path = substitute::key_path(at, key);
        out.insert((path.clone(), false));
        paths(root, value, &path, out);
    }
}

fn all_paths() -> BTreeSet<(String, bool)> {
    let schema = schema();
    let mut out = BTreeSet::new();
    paths(&schema, &schema, "", &mut out);
    out
}

/// A document with one value at a path of the schema.
fn document(path: &str, value: &str) -> String {
    path.rsplit('.').fold(value.to_owned(), |inner, part| {
        let (key, list) = match part.strip_suffix("[]") {
            Some(key) => (key, true),
            None => (part, false),
        };
        let inner = if list { format!("[{inner}]") } else { inner };
        if key.is_empty() {
            inner
        } else {
            format!("{{{key}: {inner}}}")
        }
    })
}

#[test]
fn every_key_of_the_schema_is_known_to_the_reader() {
    let keys = all_paths();
    assert!(keys.len() > 80, "{}", keys.len());
    for (path, _) in keys
        .iter()
        .filter(|(path, object)| !object && !path.is_empty())
    {
        let text = document(path, "~");
        let problems = parse(&text).err().unwrap_or_default();
        let unknown = problems.iter().find(|p| p.message == "unknown key");
        assert_eq!(unknown, None, "{text}");
    }
}

#[test]
fn every_mapping_of_the_schema_refuses_other_keys_there_and_here() {
    let schema = schema();
    let objects: Vec<String> = all_paths()
        .into_iter()
        .filter(|p| p.1)
        .map(|p| p.0)
        .collect();
    assert!(objects.len() > 18, "{objects:?}");
    for path in objects {
        let text = document(&path, "{zzzzzzzzzz: 1}");
        let problems = parse(&text).unwrap_err();
        assert!(
            problems
                .iter()
                .any(|p| p.message == "unknown key" && p.key.ends_with("zzzzzzzzzz")),
            "{text} {problems:?}"
        );
    }
    let closed = |node: &Value| node.get("additionalProperties") == Some(&Value::Bool(false));
    assert!(closed(&schema));
    let shapes = schema["$defs"].as_object().unwrap();
    for (name, shape) in shapes.iter().filter(|(_, s)| s.get("properties").is_some()) {
        assert!(closed(shape), "{name}");
    }
}

#[test]
fn the_example_shows_every_key_of_the_schema() {
    for (path, _) in all_paths() {
        let key = path.rsplit('.').next().unwrap().trim_end_matches("[]");
        let shown = EXAMPLE.contains(&format!("{key}:"));
        assert!(shown || key.is_empty(), "{path}");
    }
}

#[test]
fn every_key_of_the_schema_has_a_description() {
    fn walk(node: &Value, name: &str) {
        for (key, value) in node
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            assert!(value.get("description").is_some(), "{name}.{key}");
        }
    }
    let schema = schema();
    walk(&schema, "");
    for (name, shape) in schema["$defs"].as_object().unwrap() {
        walk(shape, name);
    }
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
}

#[test]
fn descriptions_state_the_defaults_and_bounds_in_force() {
    let schema = schema();
    let limits = schema["$defs"]["RawLimits"]["properties"]
        .as_object()
        .unwrap();
    assert_eq!(limits.len(), 14);
    for (key, shape) in limits {
        let text = shape["description"].as_str().unwrap();
        let bounds = text.rsplit_once("from ").unwrap().1.trim_end_matches('.');
        let (low, high) = bounds.split_once(" to ").unwrap();
        let default = text.rsplit_once("Default: ").unwrap().1;
        let default = default.split_once(';').unwrap().0;
        for inside in [low, high] {
            good(&format!("limits: {{{key}: {inside}}}\n"));
        }
        let written = good(&format!("limits: {{{key}: {default}}}\n"));
        assert_eq!(written.limits, Limits::default(), "{key}");
        let beyond = if key.ends_with("_time") {
            "2h"
        } else if key.ends_with("_bytes") {
            "3GiB"
        } else {
            "70000"
        };
        let shown = refusals(&format!("limits:\n  {key}: {beyond}\n"));
        let expected =
            format!("valetkey.yaml:2: limits.{key}: is out of bounds (write {low} to {high})");
        assert_eq!(shown, [expected], "{key}");
    }
}

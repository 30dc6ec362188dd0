//! What each of the bundle's variables stands for.
//!
//! In the order of the CLI: `--var`, `BUNDLE_VAR_<name>`, `lookup` (which only a workspace can answer), the file
//! `.databricks/bundle/<target>/variable-overrides.json`, `default`. A variable without a value is a fault only where it is
//! used. Values of the environment are never part of a problem. Read `resolve.rs` next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::at;
use super::load::{Sources, folder};
use super::tree::{Tree, Value};
use crate::config::{Env, file::read as read_file};
use crate::domain::problem::{Problem, nearest};

/// What a variable stands for.
pub enum Binding {
    /// A value; it may refer to others.
    Value(Tree),
    /// Something of the workspace, by its name there.
    Lookup,
    /// Nothing was given.
    Missing,
}

/// The variables by name.
pub type Bindings = BTreeMap<String, Binding>;

/// Where values come from besides the bundle itself.
pub struct Given<'a> {
    /// `--var`.
    pub arguments: &'a [(String, String)],
    /// `BUNDLE_VAR_…`.
    pub env: &'a Env,
    /// The target's own file, if it is there.
    pub overrides: &'a Path,
}

/// Where the values of a target may be written, outside version control.
pub fn overrides_file(sources: &Sources, target: &str) -> PathBuf {
    let own = folder(&sources.root).join(".databricks").join("bundle");
    own.join(target).join("variable-overrides.json")
}

/// Gives every variable its value; with them the bytes of the overrides file.
///
/// # Errors
/// Arguments for variables that are not there, values of the wrong kind, an overrides file that cannot be read.
pub fn bind(sources: &Sources, given: &Given<'_>) -> Result<(Bindings, Vec<u8>), Vec<Problem>> {
    let mut problems = Vec::new();
    let variables = sources.tree.get("variables").map_or(&[][..], Tree::entries);
    arguments(variables, given.arguments, &mut problems);
    let (overrides, bytes) = match read_overrides(given.overrides) {
        Ok(read) => read,
        Err(problem) => {
            problems.push(problem);
            (Tree::made(Value::Null), Vec::new())
        }
    };
    let mut bindings = Bindings::new();
    for (name, tree) in variables {
        match binding(name, tree, given, &overrides) {
            Ok(binding) => {
                bindings.insert(name.clone(), binding);
            }
            Err((message, hint)) => {
                let problem = at(sources, tree, format!("variables.{name}"), message);
                problems.push(problem.hint(hint));
            }
        }
    }
    if problems.is_empty() {
        Ok((bindings, bytes))
    } else {
        Err(problems)
    }
}

fn arguments(
    variables: &[(String, Tree)],
    arguments: &[(String, String)],
    problems: &mut Vec<Problem>,
) {
    for (index, (name, _)) in arguments.iter().enumerate() {
        let known = || variables.iter().map(|(known, _)| known.as_str());
        let fault = if !known().any(|known| known == name) {
            let near = nearest(name, known()).map(|near| format!("did you mean `{near}`?"));
            let hint = near.unwrap_or_else(|| "declare it under `variables`".to_owned());
            ("the bundle has no such variable", hint)
        } else if arguments
            .iter()
            .take(index)
            .any(|(earlier, _)| earlier == name)
        {
            ("is given twice", "give it once".to_owned())
        } else {
            continue;
        };
        problems.push(Problem::new(format!("--var {name}"), fault.0).hint(fault.1));
    }
}

fn binding(
    name: &str,
    tree: &Tree,
    given: &Given<'_>,
    overrides: &Tree,
) -> Result<Binding, (String, String)> {
    let complex = tree.get("type").and_then(Tree::text) == Some("complex");
    let variable = format!("BUNDLE_VAR_{name}");
    let argument = given.arguments.iter().find(|(known, _)| known == name);
    let text = match (argument, given.env.get(&variable)) {
        (Some((_, text)), _) => Some((text.as_str(), "--var")),
        (None, Some(text)) => Some((text, variable.as_str())),
        (None, None) => None,
    };
    if let Some((text, from)) = text {
        if complex {
            let message = format!("is complex and cannot be given by {from}");
            return Err((message, "write it into variable-overrides.json".to_owned()));
        }
        return Ok(Binding::Value(Tree::made(Value::Text(text.to_owned()))));
    }
    if tree.get("lookup").is_some() {
        return Ok(Binding::Lookup);
    }
    if let Some(value) = overrides.get(name) {
        if complex != matches!(value.value, Value::List(_) | Value::Map(_)) {
            let message = "is of another kind in variable-overrides.json".to_owned();
            let hint = "complex variables take lists and mappings, others single values";
            return Err((message, hint.to_owned()));
        }
        return Ok(Binding::Value(value.clone()));
    }
    let default = tree.get("default").cloned();
    Ok(default.map_or(Binding::Missing, Binding::Value))
}

fn read_overrides(path: &Path) -> Result<(Tree, Vec<u8>), Problem> {
    if !path.is_file() {
        return Ok((Tree::made(Value::Null), Vec::new()));
    }
    let problem = |message: String| {
        let mut problem = Problem::new("variables", message);
        problem.file = Some(path.display().to_string());
        problem
    };
    let text = read_file(path).map_err(problem)?;
    let hint = "write one JSON object: {\"NAME\": \"VALUE\"}";
    let json = serde_json::from_str::<serde_json::Value>(&text).map_err(|fault| {
        // Without serde's sentence: it may quote the text.
        problem("is no JSON".to_owned()).at(fault.line()).hint(hint)
    })?;
    if !json.is_object() {
        return Err(problem("is no JSON object".to_owned()).hint(hint));
    }
    Ok((from_json(json), text.into_bytes()))
}

fn from_json(json: serde_json::Value) -> Tree {
    use serde_json::Value as Json;
    Tree::made(match json {
        Json::Null => Value::Null,
        Json::Bool(is) => Value::Text(is.to_string()),
        Json::Number(number) => Value::Text(number.to_string()),
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        Json::Object(map) => {
            let entries = map.into_iter().map(|(key, json)| (key, from_json(json)));
            Value::Map(entries.collect())
        }
    })
}

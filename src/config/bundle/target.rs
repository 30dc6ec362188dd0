//! Which target is meant, and its values laid over the bundle's own.
//!
//! As the CLI (`SelectDefaultTarget`, `MergeTargetOverrides`): the only target is the default one, no target is `default`;
//! sections merge, a variable's `default` or `lookup` is replaced whole. Read `variables.rs` next.

use super::load::{Sources, clash_problem};
use super::tree::{Tree, Value};
use super::{Request, at};
use crate::domain::problem::{Problem, nearest};

/// The target of a bundle that names none.
const NO_TARGET: &str = "default";
/// Variables by which the CLI is told the target, the older one last.
const TARGET_VARIABLES: [&str; 2] = ["DATABRICKS_BUNDLE_TARGET", "DATABRICKS_BUNDLE_ENV"];
/// What a target may say anew.
const SECTIONS: [&str; 7] = [
    "bundle",
    "workspace",
    "artifacts",
    "resources",
    "sync",
    "permissions",
    "presets",
];
/// The keys of a variable's definition: a mapping with exactly such keys is one, any other is a value.
const DEFINITIONS: [&[&str]; 6] = [
    &["default"],
    &["lookup"],
    &["default", "type"],
    &["default", "description"],
    &["lookup", "description"],
    &["default", "type", "description"],
];

/// The target that is asked for, or the one that is meant where none is.
///
/// # Errors
/// A target that is not there; several and none chosen.
pub fn choose(sources: &Sources, request: &Request<'_>) -> Result<String, Problem> {
    let targets = targets(sources)?.map_or(&[][..], Tree::entries);
    let names: Vec<&str> = targets.iter().map(|(name, _)| name.as_str()).collect();
    let from_env = || {
        let mut set = TARGET_VARIABLES.iter().filter_map(|n| request.env.get(n));
        set.find(|name| !name.is_empty())
    };
    let problem = |message: String| {
        let mut problem = Problem::new("targets", message);
        problem.file = sources.name(0);
        problem
    };
    if let Some(asked) = request.target.or_else(from_env) {
        if names.contains(&asked) || (names.is_empty() && asked == NO_TARGET) {
            return Ok(asked.to_owned());
        }
        let hint = match nearest(asked, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "the bundle names no targets".to_owned(),
            None => format!("one of {}", names.join(", ")),
        };
        return Err(problem(format!("there is no target `{asked}`")).hint(hint));
    }
    match names[..] {
        [] => return Ok(NO_TARGET.to_owned()),
        [only] => return Ok(only.to_owned()),
        _ => {}
    }
    let is_default = |tree: &Tree| tree.get("default").and_then(Tree::text) == Some("true");
    let mut defaults = targets.iter().filter(|(_, tree)| is_default(tree));
    match (defaults.next(), defaults.next()) {
        (Some((name, _)), None) => Ok(name.clone()),
        (Some((first, _)), Some((second, tree))) => {
            let message = format!("both `{first}` and `{second}` are the default target");
            Err(
                at(sources, tree, format!("targets.{second}.default"), message)
                    .hint("keep `default: true` in one of them"),
            )
        }
        (None, _) => {
            let message = format!("which of the targets {} is meant?", names.join(", "));
            let hint = "say `target:` (on the command line --target), set DATABRICKS_BUNDLE_TARGET, or write `default: true` in one";
            Err(problem(message).hint(hint))
        }
    }
}

/// `environments` is what targets were called once.
fn targets(sources: &Sources) -> Result<Option<&Tree>, Problem> {
    let (now, once) = (
        sources.tree.get("targets"),
        sources.tree.get("environments"),
    );
    match (now, once) {
        (Some(_), Some(tree)) => {
            let message = "stands beside `targets`, and is the older name of it";
            Err(at(sources, tree, "environments", message).hint("move its entries into `targets`"))
        }
        (now, once) => Ok(now.or(once)),
    }
}

/// Lays the target's values over the bundle's own.
///
/// # Errors
/// A variable that the bundle does not have; values that cannot be merged.
pub fn apply(sources: &mut Sources, name: &str) -> Result<(), Problem> {
    let target = targets(sources)?.and_then(|targets| targets.get(name));
    if let Some(target) = target.cloned() {
        for section in SECTIONS {
            let Some(over) = target.get(section).cloned() else {
                continue;
            };
            let mut mine = sources
                .tree
                .get(section)
                .cloned()
                .unwrap_or_else(|| Tree::made(Value::Null));
            mine.merge(over, section)
                .map_err(|clash| clash_problem(sources, clash))?;
            sources.tree.set(section, mine);
        }
        if let Some(variables) = target.get("variables") {
            replace_variables(sources, variables, name)?;
        }
        if let Some(mode) = target.get("mode") {
            set_of_bundle(sources, "mode", mode.clone());
        }
    }
    let text = || Tree::made(Value::Text(name.to_owned()));
    set_of_bundle(sources, "target", text());
    set_of_bundle(sources, "environment", text());
    // What belongs to other targets is nobody's to refer to.
    sources.tree.set("targets", Tree::made(Value::Null));
    sources.tree.set("environments", Tree::made(Value::Null));
    Ok(())
}

fn set_of_bundle(sources: &mut Sources, key: &str, tree: Tree) {
    let empty = || Tree::made(Value::Map(Vec::new()));
    let mut bundle = sources.tree.get("bundle").cloned().unwrap_or_else(empty);
    bundle.set(key, tree);
    sources.tree.set("bundle", bundle);
}

fn replace_variables(sources: &mut Sources, over: &Tree, target: &str) -> Result<(), Problem> {
    let empty = || Tree::made(Value::Map(Vec::new()));
    let mut variables = sources.tree.get("variables").cloned().unwrap_or_else(empty);
    for (name, written) in over.entries() {
        let Some((_, mine)) = variables.entries().iter().find(|(known, _)| known == name) else {
            let known = variables.entries().iter().map(|(known, _)| known.as_str());
            let hint = match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare it under the bundle's own `variables`".to_owned(),
            };
            let key = format!("targets.{target}.variables.{name}");
            let message = "the bundle has no such variable";
            return Err(at(sources, written, key, message).hint(hint));
        };
        let mut mine = mine.clone();
        if is_definition(written) {
            for key in ["default", "lookup"] {
                if let Some(tree) = written.get(key) {
                    mine.set(key, tree.clone());
                }
            }
        } else if !written.is_null() {
            mine.set("default", written.clone());
        }
        variables.set(name, mine);
    }
    sources.tree.set("variables", variables);
    Ok(())
}

fn is_definition(tree: &Tree) -> bool {
    let keys: Vec<&str> = tree.entries().iter().map(|(key, _)| key.as_str()).collect();
    DEFINITIONS
        .iter()
        .any(|known| known.len() == keys.len() && known.iter().all(|key| keys.contains(key)))
}

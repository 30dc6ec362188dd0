//! A bundle as one tree whose values know file and line, and how two trees become one.
//!
//! Merging follows `libs/dyn/merge` of the Databricks CLI: mappings merge by key, lists are joined, of two scalars the later
//! one stays, and nothing gives way to something. Knows no key. Read `load.rs` next.

use crate::config::yaml::{self, Node};
use crate::domain::problem::Problem;

/// A value with its place.
#[derive(Clone)]
pub struct Tree {
    /// Number of the file in the list of what was read.
    pub file: usize,
    /// Line there, from 1; 0 for what comes from no file.
    pub line: usize,
    /// What it is.
    pub value: Value,
}

/// What a value can be. There is no `Debug`: a bundle may hold somebody's misplaced secret.
#[derive(Clone)]
pub enum Value {
    /// Nothing.
    Null,
    /// Any scalar, as text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// A mapping in the order of the file.
    Map(Vec<(String, Tree)>),
}

impl Value {
    /// What it is called in a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl Tree {
    /// A value that stands in no file.
    pub fn made(value: Value) -> Self {
        Self {
            file: 0,
            line: 0,
            value,
        }
    }

    /// From what the YAML reader gives; keys that are given twice are reported.
    pub fn read(node: Node, file: usize, problems: &mut Vec<Problem>) -> Self {
        let value = match node.value {
            yaml::Value::Null | yaml::Value::Faulty => Value::Null,
            yaml::Value::Text(text) => Value::Text(text),
            yaml::Value::List(items) => {
                let items = items.into_iter();
                Value::List(items.map(|item| Self::read(item, file, problems)).collect())
            }
            yaml::Value::Map(entries) => {
                let mut map: Vec<(String, Self)> = Vec::new();
                for entry in entries {
                    let tree = Self::read(entry.node, file, problems);
                    if map.iter().any(|(key, _)| *key == entry.key) {
                        let problem = Problem::new(entry.key, "this key is given twice");
                        problems.push(problem.at(entry.line).hint("keep one of the two"));
                    } else {
                        map.push((entry.key, tree));
                    }
                }
                Value::Map(map)
            }
        };
        Self {
            file,
            line: node.line,
            value,
        }
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Text(_) | Value::List(_) => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Null | Value::Text(_) | Value::Map(_) => &[],
        }
    }

    /// The scalar, where it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether it is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What stands under a key; nothing written is nothing there.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let mut entries = self.entries().iter();
        entries.find_map(|(name, tree)| (name == key && !tree.is_null()).then_some(tree))
    }

    /// What stands under a chain of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |tree, key| tree.get(key))
    }

    /// Puts a value under a key of a mapping, over what is there.
    pub fn set(&mut self, key: &str, tree: Self) {
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        if let Value::Map(entries) = &mut self.value {
            match entries.iter_mut().find(|(name, _)| name == key) {
                Some((_, old)) => *old = tree,
                None => entries.push((key.to_owned(), tree)),
            }
        }
    }

    /// Merges a later tree into this one; `path` is where both stand.
    ///
    /// # Errors
    /// Two values of different kinds, with file and line of the later one.
    pub fn merge(&mut self, later: Self, path: &str) -> Result<(), Clash> {
        if later.is_null() {
            return Ok(());
        }
        match (&mut self.value, later.value) {
            (Value::Map(mine), Value::Map(theirs)) => {
                for (key, tree) in theirs {
                    match mine.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, old)) => old.merge(tree, &join(path, &key))?,
                        None => mine.push((key, tree)),
                    }
                }
                Ok(())
            }
            (Value::List(mine), Value::List(theirs)) => {
                mine.extend(theirs);
                Ok(())
            }
            (Value::Null | Value::Text(_), value @ (Value::Text(_) | Value::Null))
            | (Value::Null, value) => {
                *self = Self { value, ..later };
                Ok(())
            }
            (mine, theirs) => Err(Clash {
                path: path.to_owned(),
                file: later.file,
                line: later.line,
                message: format!("{} cannot be merged with {}", mine.kind(), theirs.kind()),
            }),
        }
    }
}

/// Two values that cannot become one.
pub struct Clash {
    /// Where both stand.
    pub path: String,
    /// File of the later one.
    pub file: usize,
    /// Its line.
    pub line: usize,
    /// What they are.
    pub message: String,
}

/// The path of a key below another.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// A key of either spelling in the one of bundles: app records name `securableFullName` what bundles name
/// `securable_full_name`.
pub fn snake(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        let node = yaml::parse_bundle(text).unwrap_or_else(|problem| panic!("{problem}"));
        let mut problems = Vec::new();
        let tree = Tree::read(node, 0, &mut problems);
        assert_eq!(problems, []);
        tree
    }

    fn show(tree: &Tree) -> String {
        match &tree.value {
            Value::Null => "~".into(),
            Value::Text(text) => text.clone(),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(show).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, tree)| format!("{key}={}", show(tree)))
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    fn merged(first: &str, later: &str) -> String {
        let mut first = tree(first);
        match first.merge(tree(later), "") {
            Ok(()) => show(&first),
            Err(clash) => format!("{}:{}: {}", clash.line, clash.path, clash.message),
        }
    }

    #[test]
    fn mappings_merge_lists_are_joined_and_the_later_scalar_stays() {
        assert_eq!(
            merged("a: {b: 1, c: 2}", "a: {c: 3, d: 4}"),
            "{a={b=1 c=3 d=4}}"
        );
        assert_eq!(merged("a: [1, 2]", "a: [2, 3]"), "{a=[1 2 2 3]}");
        assert_eq!(merged("a: 1", "a:"), "{a=1}");
        assert_eq!(merged("a:", "a: {b: 1}"), "{a={b=1}}");
        assert_eq!(merged("a: 1", "b: 2"), "{a=1 b=2}");
    }

    #[test]
    fn values_of_two_kinds_clash_at_the_later_one() {
        assert_eq!(
            merged("a: {b: [1]}", "a:\n  b: 1"),
            "2:a.b: a list cannot be merged with a single value"
        );
        assert_eq!(
            merged("a: {}", "a: []"),
            "1:a: a mapping cannot be merged with a list"
        );
        assert_eq!(
            merged("a: 1", "a: {}"),
            "1:a: a single value cannot be merged with a mapping"
        );
    }

    #[test]
    fn both_spellings_of_a_key_are_one() {
        assert_eq!(snake("securableFullName"), "securable_full_name");
        assert_eq!(snake("user_api_scopes"), "user_api_scopes");
        assert_eq!(snake("id"), "id");
    }
}

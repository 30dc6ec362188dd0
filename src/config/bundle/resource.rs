//! One entry of an app's `resources`: what it is, which one, and with what permission.
//!
//! Knows the tables of `domain/bundle.rs` and nothing of files. `app.rs` has the list.

use std::borrow::Cow;

use super::app::Reader;
use super::tree::{Tree, join, snake};
use crate::domain::bundle::{
    Kind, MISTAKEN_TYPES, RESOURCE_TYPES, Resource, ResourceType, SECURABLES,
};
use crate::domain::catalog::Effect;
use crate::domain::problem::nearest;

/// What a resource says besides its type.
const COMMON: [&str; 2] = ["name", "description"];

/// The type of a resource, what stands under it, and where.
type Typed<'t> = (ResourceType, Cow<'t, Tree>, String);

impl Reader<'_> {
    /// Reads one; `None` where it can be no part of the policy, which is told.
    pub fn resource(&mut self, name: &str, path: &str, map: &Tree) -> Option<Resource> {
        let (of, body, path) = self.resource_type(path, map)?;
        let kind = match of.kind {
            Some(kind) => kind,
            None => self.securable(&body, &path)?,
        };
        // Both are read even where one is missing: every mistake is told at once.
        let id = self.id(of, kind, &body, &path);
        let permission = self.permission(kind, &body, &path);
        let (id, (permission, effect)) = (id?, permission?);
        Some(Resource {
            name: name.to_owned(),
            kind,
            id,
            permission,
            effect,
            file: self.sources.name(map.file).unwrap_or_default(),
            line: map.line,
        })
    }

    fn resource_type<'t>(&mut self, path: &str, map: &'t Tree) -> Option<Typed<'t>> {
        let mut found: Option<(ResourceType, &Tree, String)> = None;
        for (key, tree) in map.entries() {
            let name = snake(key);
            let place = join(path, key);
            if COMMON.contains(&name.as_str()) {
                continue;
            }
            let Some(of) = RESOURCE_TYPES.iter().find(|of| of.key == name) else {
                self.report(
                    tree,
                    &place,
                    "is no type of app resource",
                    &type_hint(&name),
                );
                return None;
            };
            if let Some((earlier, ..)) = &found {
                let message = format!("stands beside `{}`", earlier.key);
                self.report(
                    tree,
                    &place,
                    message,
                    "give each resource an entry of its own",
                );
                return None;
            }
            found = Some((*of, tree, place));
        }
        let Some((of, tree, place)) = found else {
            let known = RESOURCE_TYPES.map(|of| of.key).join(", ");
            self.report(
                map,
                path,
                "does not say what it is",
                &format!("add one of {known}"),
            );
            return None;
        };
        let body = self.map(tree, &place)?;
        Some((of, body, place))
    }

    fn required(&mut self, body: &Tree, path: &str, name: &str) -> Option<Tree> {
        let found = self.field(body, path, name).cloned();
        if found.is_none() {
            let keys = body.entries().iter().map(|(key, _)| key.as_str());
            let hint = match nearest(name, keys) {
                Some(near) => format!("`{near}` is not known; did you mean `{name}`?"),
                None => format!("add `{name}:`"),
            };
            self.report(body, &join(path, name), "is missing", &hint);
        }
        found
    }

    fn securable(&mut self, body: &Tree, path: &str) -> Option<Kind> {
        let tree = self.required(body, path, "securable_type")?;
        let key = join(path, "securable_type");
        let word = self.text(&tree, &key)?;
        let found = SECURABLES.iter().find(|(known, _)| *known == word);
        if found.is_none() {
            let known = SECURABLES.map(|(known, _)| known);
            let hint = one_of(&word, &known);
            self.report(
                &tree,
                &key,
                format!("{}is no type of securable here", quoted(&tree, &word)),
                &hint,
            );
        }
        found.map(|(_, kind)| *kind)
    }

    fn permission(
        &mut self,
        kind: Kind,
        body: &Tree,
        path: &str,
    ) -> Option<(&'static str, Effect)> {
        let tree = self.required(body, path, "permission")?;
        let key = join(path, "permission");
        let word = self.text(&tree, &key)?;
        let found = kind.permissions().iter().find(|(known, _)| *known == word);
        if found.is_none() {
            let known: Vec<&str> = kind.permissions().iter().map(|(known, _)| *known).collect();
            let message = format!(
                "{}is no permission on a {}",
                quoted(&tree, &word),
                kind.as_str()
            );
            self.report(&tree, &key, message, &one_of(&word, &known));
        }
        found.copied()
    }

    /// The id in the words of the catalogue, or nothing where it is not known yet.
    fn id(&mut self, of: ResourceType, kind: Kind, body: &Tree, path: &str) -> Option<String> {
        let mut parts = Vec::new();
        let mut place = None;
        for name in of.id {
            let Some(tree) = self.required(body, path, name) else {
                continue;
            };
            let key = join(path, name);
            let Some(text) = self.text(&tree, &key) else {
                continue;
            };
            if text.is_empty() {
                let hint = "write it, or a variable that BUNDLE_VAR_… can set";
                self.leave_out(&tree, &key, "is empty", hint);
            } else if text.contains(['<', '>']) {
                let hint = "write the value itself, or a variable that BUNDLE_VAR_… can set";
                self.leave_out(&tree, &key, "is a placeholder", hint);
            } else {
                parts.push(text);
            }
            place = Some((tree, key));
        }
        let (tree, key) = place.filter(|_| parts.len() == of.id.len())?;
        let id = parts.join("/");
        if let Some(fault) = kind.id_fault(&id) {
            let hint = format!("write the {} as the workspace calls it", kind.as_str());
            self.report(&tree, &key, fault, &hint);
            return None;
        }
        Some(id)
    }
}

/// A word as it is written; what a reference stands for may come from the environment and is never repeated.
fn quoted(written: &Tree, word: &str) -> String {
    let own = written.text().is_some_and(|text| !text.contains("${"));
    if own {
        format!("`{word}` ")
    } else {
        String::new()
    }
}

fn type_hint(name: &str) -> String {
    if let Some((_, right)) = MISTAKEN_TYPES.iter().find(|(wrong, _)| *wrong == name) {
        return format!("write {right}");
    }
    let known = RESOURCE_TYPES.map(|of| of.key);
    match nearest(name, known.into_iter().chain(COMMON)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", known.join(", ")),
    }
}

fn one_of(word: &str, known: &[&str]) -> String {
    match nearest(&word.to_ascii_uppercase(), known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("one of {}", known.join(", ")),
    }
}

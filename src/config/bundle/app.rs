//! The app that is meant, read: its resources and user scopes, each with its place.
//!
//! Keys are read in either spelling (`tree.rs`), numbers as their text. The CLI gives apps no name prefix, not in development
//! mode either, so a name here is the deployed one. As the CLI's `merge_apps.go`, a later resource of the same name takes
//! the place of the earlier one whole. Read `resource.rs` next.

use std::borrow::Cow;

use super::load::Sources;
use super::resolve::{Resolver, Unresolved};
use super::tree::{Tree, Value, join, snake};
use super::{Request, at, expected};
use crate::domain::bundle::{Declared, Resource, UserScope};
use crate::domain::problem::{Problem, nearest};
use crate::domain::scope::Scope;

/// Reads the app.
///
/// # Errors
/// Everything in it that can never be right.
pub fn read(
    sources: &Sources,
    resolver: &Resolver<'_>,
    request: &Request<'_>,
    target: &str,
) -> Result<Declared, Vec<Problem>> {
    let mut reader = Reader {
        sources,
        resolver,
        problems: Vec::new(),
        left_out: Vec::new(),
    };
    let (key, app) = choose(sources, resolver, request).map_err(|problem| vec![problem])?;
    let path = format!("resources.apps.{key}");
    let app = reader.map(app, &path);
    let field = |reader: &mut Reader<'_>, name: &str| {
        let app = app.as_deref()?;
        reader.field(app, &path, name).cloned()
    };
    let list = field(&mut reader, "resources");
    let resources = list.map_or_else(Vec::new, |list| reader.resources(&list, &path));
    let list = field(&mut reader, "user_api_scopes");
    let user_scopes = list.map_or_else(Vec::new, |list| reader.user_scopes(&list, &path));
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    Ok(Declared {
        file: sources.name(0).unwrap_or_default(),
        app: key,
        target: target.to_owned(),
        resources,
        user_scopes,
        left_out: reader.left_out,
    })
}

/// The app that is asked for, the only one, or the one that has the name of the app we run in.
fn choose<'t>(
    sources: &'t Sources,
    resolver: &Resolver<'_>,
    request: &Request<'_>,
) -> Result<(String, &'t Tree), Problem> {
    let apps = sources.tree.at(&["resources", "apps"]);
    let apps = apps.map_or(&[][..], Tree::entries);
    let keys: Vec<&str> = apps.iter().map(|(key, _)| key.as_str()).collect();
    let problem = |message: String| {
        let mut problem = Problem::new("resources.apps", message);
        problem.file = sources.name(0);
        problem
    };
    if let Some(asked) = request.app {
        let found = apps.iter().find(|(key, _)| key == asked);
        return found.map(|(key, app)| (key.clone(), app)).ok_or_else(|| {
            let hint = match nearest(asked, keys.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if keys.is_empty() => "the bundle declares no app".to_owned(),
                None => format!("one of {}", keys.join(", ")),
            };
            problem(format!("there is no app `{asked}`")).hint(hint)
        });
    }
    match apps {
        [] => {
            let hint = "an app stands under `resources: {apps: {KEY: …}}`, here or in a file that `include` names";
            return Err(problem("the bundle declares no app".to_owned()).hint(hint));
        }
        [(key, app)] => return Ok((key.clone(), app)),
        _ => {}
    }
    let own_name = request.env.get("DATABRICKS_APP_NAME");
    let mut named = apps.iter().filter(|(_, app)| {
        let name = app.get("name").map(|name| resolver.value(name));
        let name = name.as_ref().and_then(|name| name.as_ref().ok());
        own_name.is_some() && name.and_then(|name| name.text()) == own_name
    });
    match (named.next(), named.next()) {
        (Some((key, app)), None) => Ok((key.clone(), app)),
        _ => {
            let message = format!("which of the apps {} is meant?", keys.join(", "));
            let hint = "say `app:` (on the command line --app)";
            Err(problem(message).hint(hint))
        }
    }
}

/// Reads values where they stand, and collects what is wrong with them.
pub struct Reader<'a> {
    /// The files, for their names.
    pub sources: &'a Sources,
    resolver: &'a Resolver<'a>,
    problems: Vec<Problem>,
    left_out: Vec<Problem>,
}

impl Reader<'_> {
    /// Tells what can never be right.
    pub fn report(&mut self, tree: &Tree, key: &str, message: impl Into<String>, hint: &str) {
        let problem = at(self.sources, tree, key, message);
        self.problems.push(problem.hint(hint));
    }

    /// Tells what is not known here.
    pub fn leave_out(&mut self, tree: &Tree, key: &str, message: impl Into<String>, hint: &str) {
        let problem = at(self.sources, tree, key, message);
        self.left_out.push(problem.hint(hint));
    }

    /// The value with its references followed; `None` where that is not possible, which is told.
    fn value<'t>(&mut self, tree: &'t Tree, key: &str) -> Option<Cow<'t, Tree>> {
        match self.resolver.value(tree) {
            Ok(found) => return Some(found),
            Err(Unresolved::Later(message, hint)) => self.leave_out(tree, key, message, &hint),
            Err(Unresolved::Wrong(message, hint)) => self.report(tree, key, message, &hint),
        }
        None
    }

    /// A mapping or nothing.
    pub fn map<'t>(&mut self, tree: &'t Tree, key: &str) -> Option<Cow<'t, Tree>> {
        let found = self.value(tree, key)?;
        match found.value {
            Value::Map(_) | Value::Null => Some(found),
            Value::Text(_) | Value::List(_) => {
                let message = expected(&found, "a mapping");
                self.report(tree, key, message, "write its keys indented below it");
                None
            }
        }
    }

    fn list(&mut self, tree: &Tree, key: &str) -> Vec<Tree> {
        let Some(found) = self.value(tree, key) else {
            return Vec::new();
        };
        match &found.value {
            Value::List(items) => items.clone(),
            Value::Null => Vec::new(),
            Value::Text(_) | Value::Map(_) => {
                let message = expected(&found, "a list");
                self.report(
                    tree,
                    key,
                    message,
                    "write its entries below it, each behind a `-`",
                );
                Vec::new()
            }
        }
    }

    /// A single value as its text.
    pub fn text(&mut self, tree: &Tree, key: &str) -> Option<String> {
        let found = self.value(tree, key)?;
        match &found.value {
            Value::Text(text) => Some(text.trim().to_owned()),
            Value::Null => Some(String::new()),
            Value::List(_) | Value::Map(_) => {
                let message = expected(&found, "a single value");
                self.report(tree, key, message, "write one value");
                None
            }
        }
    }

    /// What stands under a key in either spelling.
    pub fn field<'t>(&mut self, map: &'t Tree, path: &str, name: &str) -> Option<&'t Tree> {
        let mut found = map.entries().iter().filter(|(key, _)| snake(key) == name);
        let (_, tree) = found.next()?;
        if let Some((other, again)) = found.next() {
            let message = "is given in both spellings";
            self.report(again, &join(path, other), message, "keep one of the two");
        }
        Some(tree)
    }

    fn resources(&mut self, list: &Tree, path: &str) -> Vec<Resource> {
        let path = format!("{path}.resources");
        let mut kept: Vec<(String, String, Tree)> = Vec::new();
        for (index, item) in self.list(list, &path).iter().enumerate() {
            let place = format!("{path}[{index}]");
            let Some(map) = self.map(item, &place) else {
                continue;
            };
            let name = self.field(&map, &place, "name").cloned();
            let name = match name {
                Some(name) => self.text(&name, &format!("{place}.name")),
                None => Some(String::new()),
            };
            match name {
                Some(name) if name.is_empty() => {
                    let message = "every app resource needs a name";
                    self.report(
                        item,
                        &format!("{place}.name"),
                        message,
                        "add `name:`; value_from refers to it",
                    );
                }
                Some(name) => {
                    let map = map.into_owned();
                    match kept.iter_mut().find(|(known, ..)| *known == name) {
                        Some(earlier) => *earlier = (name, place, map),
                        None => kept.push((name, place, map)),
                    }
                }
                None => {}
            }
        }
        kept.iter()
            .filter_map(|(name, place, map)| self.resource(name, place, map))
            .collect()
    }

    fn user_scopes(&mut self, list: &Tree, path: &str) -> Vec<UserScope> {
        let path = format!("{path}.user_api_scopes");
        let mut scopes: Vec<UserScope> = Vec::new();
        for (index, item) in self.list(list, &path).iter().enumerate() {
            let key = format!("{path}[{index}]");
            let Some(text) = self.text(item, &key) else {
                continue;
            };
            let Some(scope) = Scope::parse(&text) else {
                let hint = "write one name per entry, such as sql or dashboards.genie";
                self.report(item, &key, "is no name of a scope", hint);
                continue;
            };
            if scopes.iter().all(|known| known.scope != scope) {
                scopes.push(UserScope {
                    scope,
                    file: self.sources.name(item.file).unwrap_or_default(),
                    line: item.line,
                });
            }
        }
        scopes
    }
}

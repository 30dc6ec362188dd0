//! The shape of each route: name, one kind of matcher, as whom. Whether a resource or operation exists is `compile.rs`'
//! to say.
//!
//! Must not know the catalogue. Read `domain/route.rs` next.

use std::collections::BTreeMap;

use super::check::Checker;
use super::raw::{List, RawRoute};
use super::read::Given;
use crate::domain::catalog::Effect;
use crate::domain::problem::Problem;
use crate::domain::route::{PolicyOrigin, RouteSource, RunAs};
use crate::domain::scope::Scope;

/// The longest route name, in characters: it is a label of metrics and stands in every denial.
pub const ROUTE_NAME_CHARS_MAX: usize = 64;

/// Checks the list; no list at all means the starter policy, an empty one denies everything.
pub fn check(raw: &List<RawRoute>, c: &mut Checker<'_>) -> (Vec<RouteSource>, PolicyOrigin) {
    if raw.is_absent() {
        return (Vec::new(), PolicyOrigin::Starter);
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut routes = Vec::new();
    for given in raw.get().into_iter().flatten() {
        let Some(raw) = given.get() else { continue };
        let name = route_name(given, raw, &mut names, c);
        routes.extend(route(given, raw, name, c));
    }
    (routes, PolicyOrigin::Routes)
}

fn at(given: &Given<RawRoute>, key: &str, message: &str, hint: &str) -> Problem {
    Problem::new(format!("{}.{key}", given.path), message)
        .at(given.line)
        .hint(hint)
}

fn route_name(
    given: &Given<RawRoute>,
    raw: &RawRoute,
    names: &mut BTreeMap<String, usize>,
    c: &mut Checker<'_>,
) -> Option<String> {
    if raw.name.is_absent() {
        let hint = "write `name: SOMETHING`; logs, metrics and denials show it";
        c.report(at(given, "name", "every route needs a name", hint));
        return None;
    }
    let name = c.text(&raw.name)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() > ROUTE_NAME_CHARS_MAX || !name.bytes().all(plain) {
        let problem = raw.name.problem("is no name for a route");
        c.report(problem.hint("up to 64 letters, digits, `-`, `_` and `.`"));
        return None;
    }
    if let Some(first) = names.get(name) {
        let message = format!("this name is already taken by the route in line {first}");
        c.report(raw.name.problem(message).hint("names must be unique"));
        return None;
    }
    names.insert(name.to_owned(), raw.name.line);
    Some(name.to_owned())
}

fn route(
    given: &Given<RawRoute>,
    raw: &RawRoute,
    name: Option<String>,
    c: &mut Checker<'_>,
) -> Option<RouteSource> {
    c.not_yet(&raw.limit, "limit the rate of a route");
    matcher_kind(given, raw, c);
    if raw.run_as.is_absent() {
        let hint = "write `as:` app, user, caller or deny";
        c.report(at(given, "as", "every route says as whom it runs", hint));
    }
    let route = RouteSource {
        name: name.unwrap_or_default(),
        line: given.line,
        resource: resource(&raw.resource, c),
        operation: c.text(&raw.operation).map(str::to_owned),
        methods: methods(&raw.method, c),
        path: path(&raw.path, c),
        body: body(raw, c),
        tools: tools(&raw.tools, c),
        effect: raw.effect.get().copied().map(Effect::from),
        run_as: raw.run_as.get().copied().map_or(RunAs::Deny, RunAs::from),
        scope: scope(&raw.scope, c),
    };
    // What could not be read was told; without it the route would mean something else.
    let faulty = |given: &Given<String>| !given.is_absent() && given.get().is_none();
    let whole = ![&raw.resource, &raw.operation, &raw.path]
        .into_iter()
        .any(faulty);
    Some(route).filter(|route| whole && !route.name.is_empty())
}

fn matcher_kind(given: &Given<RawRoute>, raw: &RawRoute, c: &mut Checker<'_>) {
    let named = !raw.resource.is_absent()
        || !raw.operation.is_absent()
        || !raw.tools.is_absent()
        || !raw.effect.is_absent();
    let written = !raw.method.is_absent() || !raw.path.is_absent() || !raw.body.is_absent();
    match (named, written) {
        (true, false) => {}
        (false, true) => {
            if !raw.body.is_absent() && raw.path.is_absent() {
                let problem = raw.body.problem("a condition on the body needs a path");
                c.report(problem.hint("add `path:`"));
            }
        }
        (true, true) => c.report(
            given
                .problem("mixes two kinds of matching")
                .hint("use resource and/or operation, or method, path and body"),
        ),
        (false, false) => c.report(
            given
                .problem("matches nothing")
                .hint("add resource and/or operation, or method, path and body"),
        ),
    }
}

fn resource(given: &Given<String>, c: &mut Checker<'_>) -> Option<String> {
    let text = c.text(given)?;
    match text.split_once('/') {
        Some((kind, id)) if !kind.is_empty() && !id.is_empty() => Some(text.to_owned()),
        Some(_) | None => {
            let problem = given.problem("is no resource");
            c.report(problem.hint("write TYPE/ID, such as sql_warehouse/1234abcd"));
            None
        }
    }
}

fn methods(list: &List<String>, c: &mut Checker<'_>) -> Vec<String> {
    let Some(items) = list.get() else {
        return Vec::new();
    };
    if items.is_empty() {
        let problem = list.problem("is an empty list");
        c.report(problem.hint("remove the key to match every method"));
    }
    let mut methods: Vec<String> = Vec::new();
    for item in items {
        let Some(text) = c.text(item) else { continue };
        if text.bytes().all(|b| b.is_ascii_uppercase()) {
            methods.push(text.to_owned());
        } else {
            let problem = item.problem("is no method in upper case");
            c.report(problem.hint("write GET, POST, PUT, PATCH, DELETE or HEAD"));
        }
    }
    methods
}

/// The longest accepted name of a tool, in characters.
const TOOL_CHARS_MAX: usize = 256;

fn tools(list: &List<String>, c: &mut Checker<'_>) -> Vec<String> {
    let Some(items) = list.get() else {
        return Vec::new();
    };
    if items.is_empty() {
        let problem = list.problem("is an empty list, so the route could match no tool");
        c.report(problem.hint("list the tools, or remove the key to allow all of them"));
    }
    let mut tools = Vec::new();
    for item in items {
        let Some(text) = c.text(item) else { continue };
        if text.chars().count() > TOOL_CHARS_MAX || text.contains(char::is_whitespace) {
            let problem = item.problem("is no name of an MCP tool");
            c.report(
                problem.hint("write it as `tools/list` shows it, or without `catalog__schema__`"),
            );
        } else if text.contains('*') {
            let problem = item.problem("tools are named in full; `*` stands for nothing here");
            c.report(problem.hint("list each tool, or remove the key to allow all of them"));
        } else {
            tools.push(text.to_owned());
        }
    }
    tools
}

fn path(given: &Given<String>, c: &mut Checker<'_>) -> Option<String> {
    let text = c.text(given)?;
    let Some(fault) = path_fault(text) else {
        return Some(text.to_owned());
    };
    c.report(
        given
            .problem(fault)
            .hint("write it from the first slash, such as /api/2.0/sql/**"),
    );
    None
}

/// What is wrong with a path pattern, as far as one can see without parsing it (`template.rs` does).
pub fn path_fault(text: &str) -> Option<&'static str> {
    if !text.starts_with('/') {
        Some("must begin with a slash")
    } else if text.contains(['?', '#', '\\', ';']) || !text.bytes().all(|b| b.is_ascii_graphic()) {
        Some("holds a character that no path pattern can have")
    } else if text.contains("//") || text.split('/').any(|s| matches!(s, "." | "..")) {
        Some("has an empty or dot segment")
    } else {
        None
    }
}

fn body(raw: &RawRoute, c: &mut Checker<'_>) -> BTreeMap<String, Vec<String>> {
    let Some(keys) = raw.body.get() else {
        return BTreeMap::new();
    };
    if keys.is_empty() {
        c.report(raw.body.problem("is empty").hint("remove the key"));
    }
    let mut body = BTreeMap::new();
    for (key, allowed) in keys {
        let Some(values) = c.texts(allowed) else {
            continue;
        };
        if values.is_empty() && allowed.get().is_some_and(Vec::is_empty) {
            let problem = allowed.problem("allows no value, so the route can never match");
            c.report(problem.hint("list the allowed values, or remove the key"));
        }
        body.insert(key.clone(), values);
    }
    body
}

fn scope(given: &Given<String>, c: &mut Checker<'_>) -> Option<String> {
    let text = c.text(given)?;
    if Scope::parse(text).is_none() {
        let problem = given.problem("is no name of a scope");
        c.report(problem.hint("write one scope, such as sql or workspace.workspace"));
        return None;
    }
    Some(text.to_owned())
}

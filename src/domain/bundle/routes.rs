//! A declared app → its routes at least privilege: what each resource's permission allows, and nothing else.
//!
//! First match wins, so one resource gets one route: `as: caller` where a user scope covers it (the user's session runs as
//! the user, the app's token as the app), `as: app` where none does. A user scope without a resource of its family is a
//! ceiling over the whole family and becomes a route over it. Pure; `compile.rs` checks the result like any other routes.

use std::collections::{BTreeMap, BTreeSet};

use super::{DEFAULT_USER_SCOPES, Declared, Kind, Resource};
use crate::domain::catalog::{Catalog, Effect, Operation};
use crate::domain::problem::{Problem, nearest};
use crate::domain::route::{RouteSource, RunAs};
use crate::domain::scope::Scope;

/// The longest route name, in characters (as in the configuration).
const NAME_CHARS_MAX: usize = 64;
/// Scopes of OpenID Connect: nothing in the workspace's API asks for them.
const IDENTITY_SCOPES: [&str; 4] = ["openid", "email", "profile", "offline_access"];

/// A route with its origin in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// The route; its line is 0, for it stands in no configuration file.
    pub route: RouteSource,
    /// Where it comes from, such as `databricks.yml:12: warehouse (sql_warehouse, CAN_USE)`.
    pub from: String,
}

/// The routes of a declared app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    /// In their order.
    pub routes: Vec<Derived>,
    /// User scopes that no operation needs.
    pub idle: Vec<Problem>,
}

/// Derives the routes; `taken` are names that own routes have.
pub fn routes<'a>(
    declared: &Declared,
    catalog: &Catalog,
    taken: impl IntoIterator<Item = &'a str>,
) -> Routes {
    let mut out = Writer {
        taken: taken.into_iter().map(str::to_owned).collect(),
        routes: Vec::new(),
    };
    for resource in &declared.resources {
        let from = format!(
            "{}:{}: {} ({}, {})",
            resource.file,
            resource.line,
            resource.name,
            resource.kind.as_str(),
            resource.permission
        );
        for part in parts(resource) {
            let asked = |scope: &&str| user_scope_meets(declared, scope);
            let run_as = if part.scopes.iter().any(asked) {
                RunAs::Caller
            } else {
                RunAs::App
            };
            let name = format!("app-{}{}", resource.name, part.suffix);
            out.add(&name, part.route(run_as), &from);
        }
    }
    let mut idle = Vec::new();
    for (index, asked) in declared.user_scopes.iter().enumerate() {
        let resources = declared.resources.iter().flat_map(parts);
        let mut scopes = resources.flat_map(|part| part.scopes);
        let scope = &asked.scope;
        if scopes.any(|covered| meets(scope, covered)) || is_of_identity(scope) {
            continue;
        }
        let families = families(catalog, scope);
        if families.is_empty() {
            let key = format!("resources.apps.{}.user_api_scopes[{index}]", declared.app);
            let mut problem = idle_scope(key, scope, catalog).at(asked.line);
            problem.file = Some(asked.file.clone());
            idle.push(problem);
        }
        let from = format!("{}:{}: user scope {scope}", asked.file, asked.line);
        for family in families {
            let name = format!("user-{}", family.trim_end_matches(".*"));
            let route = blank(RunAs::User, |route| route.operation = Some(family));
            out.add(&name, route, &from);
        }
    }
    let me = blank(RunAs::Caller, |route| {
        route.operation = Some("identity.me".to_owned());
    });
    out.add("who-am-i", me, "every app: who is calling");
    Routes {
        routes: out.routes,
        idle,
    }
}

/// One of the things that a declared resource lets a call touch.
struct Part {
    /// Behind the resource's name in the route's name.
    suffix: &'static str,
    operation: Option<&'static str>,
    resource: String,
    tools: Vec<String>,
    effect: Option<Effect>,
    /// User scopes that cover its operations; none = no app can ask users for it.
    scopes: &'static [&'static str],
}

impl Part {
    fn route(self, run_as: RunAs) -> RouteSource {
        blank(run_as, |route| {
            route.operation = self.operation.map(str::to_owned);
            route.resource = Some(self.resource);
            route.tools = self.tools;
            route.effect = self.effect;
        })
    }
}

fn parts(resource: &Resource) -> Vec<Part> {
    let id = &resource.id;
    // Nothing is said where the permission allows all that a route can give.
    let effect = (resource.effect == Effect::Read).then_some(Effect::Read);
    let on = |kind: &str, scopes| Part {
        suffix: "",
        operation: None,
        resource: format!("{kind}/{id}"),
        tools: Vec::new(),
        effect,
        scopes,
    };
    let whole = |scopes| vec![on(resource.kind.as_str(), scopes)];
    let minting = |operation: &'static str, scopes| {
        let kind = resource.kind.as_str();
        let credentials = Part {
            suffix: "-credentials",
            operation: Some(operation),
            effect: None,
            ..on(kind, scopes)
        };
        let looking = Part {
            effect: Some(Effect::Read),
            ..on(kind, scopes)
        };
        vec![credentials, looking]
    };
    // `catalog.schema.name` in its two halves: MCP servers are per schema, their tools are the names.
    let (schema, name) = id.rsplit_once('.').unwrap_or_default();
    let mcp = |server: &str, scopes| Part {
        suffix: "-mcp",
        resource: format!("mcp/{server}/{schema}"),
        tools: vec![name.to_owned()],
        ..on("", scopes)
    };
    match resource.kind {
        Kind::SqlWarehouse => whole(&["sql"]),
        Kind::ServingEndpoint => whole(&["model-serving"]),
        Kind::Volume => whole(&["files"]),
        Kind::Connection => whole(&["catalog.connections", "mcp.external"]),
        Kind::GenieSpace => whole(&["genie"]),
        Kind::Experiment | Kind::Job | Kind::App => whole(&[]),
        Kind::Table => vec![
            Part {
                suffix: "-index",
                resource: format!("vector_search_index/{id}"),
                ..on("", &["vector-search"])
            },
            mcp("vector-search", &["vector-search"]),
            on("table", &["catalog.tables:read"]),
        ],
        Kind::Function => vec![
            mcp("functions", &["mcp.functions"]),
            on("function", &["mcp.functions"]),
        ],
        Kind::Database => minting("database.credentials.create", &["postgres"]),
        Kind::Postgres => minting("postgres.credentials.create", &["postgres"]),
        Kind::Secret => secret(resource),
    }
}

/// Reading a secret's value and writing it are operations of admin effect, named in full.
fn secret(resource: &Resource) -> Vec<Part> {
    let part = |suffix, operation, target: String| Part {
        suffix,
        operation: Some(operation),
        resource: target,
        tools: Vec::new(),
        effect: None,
        scopes: &[],
    };
    let secret = || format!("secret/{}", resource.id);
    let mut parts = vec![part("", "secrets.get", secret())];
    if resource.effect != Effect::Read {
        parts.push(part("-put", "secrets.put", secret()));
    }
    parts
}

fn blank(run_as: RunAs, change: impl FnOnce(&mut RouteSource)) -> RouteSource {
    let mut route = RouteSource {
        name: String::new(),
        line: 0,
        resource: None,
        operation: None,
        methods: Vec::new(),
        path: None,
        body: BTreeMap::new(),
        tools: Vec::new(),
        effect: None,
        run_as,
        scope: None,
    };
    change(&mut route);
    route
}

/// Whether a user scope and one that operations need have anything in common: where a narrower one is asked of users (such
/// as `sql.statement-execution`), their calls are theirs, and what it does not cover is refused rather than run as the app.
fn meets(asked: &Scope, needed: &str) -> bool {
    Scope::parse(needed).is_some_and(|needed| asked.covers(&needed) || needed.covers(asked))
}

fn user_scope_meets(declared: &Declared, needed: &str) -> bool {
    let mut scopes = declared.user_scopes.iter();
    scopes.any(|asked| meets(&asked.scope, needed))
}

fn is_of_identity(scope: &Scope) -> bool {
    let name = scope.as_str();
    IDENTITY_SCOPES.contains(&name) || DEFAULT_USER_SCOPES.contains(&name)
}

/// The operations that a scope is for, as few patterns: per first word of their names, what they have in common.
fn families(catalog: &Catalog, scope: &Scope) -> Vec<String> {
    let wanted = |operation: &&Operation| {
        operation.effect != Effect::Admin && operation.scopes().any(|needed| scope.covers(needed))
    };
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let operations = catalog.operations().iter().map(|operation| &**operation);
    for operation in operations.filter(wanted) {
        let family = operation.id.split('.').next().unwrap_or_default();
        groups.entry(family).or_default().push(&operation.id);
    }
    groups.into_values().map(|ids| pattern(&ids)).collect()
}

fn pattern(ids: &[&str]) -> String {
    let (first, rest) = match ids {
        [] => return String::new(),
        [only] => return (*only).to_owned(),
        [first, rest @ ..] => (first, rest),
    };
    let mut common: Vec<&str> = first.split('.').collect();
    for id in rest {
        let same = common
            .iter()
            .zip(id.split('.'))
            .take_while(|(a, b)| *a == b);
        common.truncate(same.count());
    }
    let prefix = common.join(".");
    if ids.contains(&prefix.as_str()) {
        // `a.b.*` would leave out `a.b` itself.
        let above = prefix.rsplit_once('.').map_or("", |(above, _)| above);
        return if above.is_empty() {
            "*".to_owned()
        } else {
            format!("{above}.*")
        };
    }
    format!("{prefix}.*")
}

fn idle_scope(key: String, scope: &Scope, catalog: &Catalog) -> Problem {
    let known = catalog.scopes().iter().map(|row| row.name.as_str());
    let message = format!("no operation of the catalogue needs the scope `{scope}`");
    let hint = match nearest(scope.as_str(), known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            "sessions may hold it, but it gives no route; add one for what it is for".to_owned()
        }
    };
    Problem::new(key, message).hint(hint)
}

struct Writer {
    taken: BTreeSet<String>,
    routes: Vec<Derived>,
}

impl Writer {
    /// Under the name, made one that a route may have, and unique.
    fn add(&mut self, name: &str, mut route: RouteSource, from: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let clean: String = name
            .chars()
            .map(|c| if plain(c) { c } else { '-' })
            .collect();
        let mut number = 1;
        route.name = loop {
            let suffix = if number == 1 {
                String::new()
            } else {
                format!("-{number}")
            };
            let room = NAME_CHARS_MAX.saturating_sub(suffix.len());
            let candidate = format!("{}{suffix}", clean.get(..room).unwrap_or(&clean));
            if self.taken.insert(candidate.clone()) {
                break candidate;
            }
            number += 1;
        };
        self.routes.push(Derived {
            route,
            from: from.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests;

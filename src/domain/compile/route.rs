//! One route as written, checked against the catalogue.
//!
//! `compile.rs` collects the mistakes of all; `possible.rs` finds routes that no call can match.

use http::Method;

use crate::domain::catalog::{APP, Catalog, Effect, MCP};
use crate::domain::destination::UPSTREAM_MARK;
use crate::domain::policy::Route;
use crate::domain::policy::matcher::{Matcher, ResourceMatcher};
use crate::domain::problem::{Problem, nearest};
use crate::domain::route::{RouteSource, RunAs};
use crate::domain::scope::Scope;
use crate::domain::template::PathTemplate;

/// One route on its way into a policy.
pub(super) struct Compiler<'a> {
    pub(super) source: &'a RouteSource,
    pub(super) index: usize,
    pub(super) catalog: &'a Catalog,
}

impl Compiler<'_> {
    /// Checks the route against the catalogue.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(super) fn route(&self) -> Result<Route, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut keep = |result: Result<(), Problem>| problems.extend(result.err());
        let mut on = Matcher {
            operations_text: self.source.operation.clone().unwrap_or_default(),
            tools: self.source.tools.clone(),
            effect: self.source.effect,
            denies: self.source.run_as == RunAs::Deny,
            ..Matcher::default()
        };
        keep(self.operations().map(|found| on.operations = found));
        keep(self.resource().map(|found| on.resource = found));
        keep(self.methods().map(|found| on.methods = found));
        keep(self.path().map(|found| on.path = found));
        on.admin_paths = { on.path.as_ref() }.map_or_else(Vec::new, |path| self.admin_paths(path));
        on.body = self
            .source
            .body
            .iter()
            .map(|(key, values)| (key.clone(), values.clone()))
            .collect();
        let mut scope = None;
        keep(self.scope().map(|found| scope = found));
        keep(self.scope_is_known(&on, scope.as_ref()));
        if problems.is_empty() {
            let sound = self.fits_together(&on).and_then(|()| self.can_match(&on));
            problems.extend(
                sound
                    .and_then(|()| self.can_serve(&on, scope.as_ref()))
                    .err(),
            );
        }
        let Self { source, .. } = self;
        if problems.is_empty() {
            Ok(Route {
                name: source.name.as_str().into(),
                line: source.line,
                run_as: source.run_as,
                scope,
                on,
            })
        } else {
            Err(problems)
        }
    }

    /// The operations of admin effect that a raw path lies within.
    fn admin_paths(&self, path: &PathTemplate) -> Vec<usize> {
        let operations = self.catalog.operations().iter().enumerate();
        operations
            .filter(|(_, o)| o.effect == Effect::Admin && o.path.covers(path))
            .map(|(index, _)| index)
            .collect()
    }

    /// Refuses what means nothing together.
    fn fits_together(&self, on: &Matcher) -> Result<(), Problem> {
        if on.operations.is_none() && on.resource.is_none() && on.path.is_none() {
            return Err(self
                .problem("", "matches nothing")
                .hint("name a `resource`, an `operation`, or a `path`"));
        }
        if !on.body.is_empty() && on.path.is_none() {
            return Err(self
                .problem("body", "stands without `path`")
                .hint("body conditions belong to raw routes"));
        }
        let speaks_mcp = { on.resource.as_ref() }.is_some_and(|r| matches!(&*r.kind, MCP | APP));
        if !on.tools.is_empty() && !speaks_mcp {
            return Err(self
                .problem("tools", "stands without an MCP server")
                .hint("name it: `resource: mcp/functions/CATALOG.SCHEMA`, or `app/NAME`"));
        }
        if on.effect.is_some() && on.path.is_some() {
            return Err(self
                .problem("effect", "stands beside `path`")
                .hint("a raw route says what it does by `method`"));
        }
        Ok(())
    }

    pub(super) fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let dot = if key.is_empty() { "" } else { "." };
        Problem::new(format!("routes[{}]{dot}{key}", self.index), message).at(self.source.line)
    }

    fn operations(&self) -> Result<Option<Vec<usize>>, Problem> {
        let Some(pattern) = &self.source.operation else {
            return Ok(None);
        };
        let mut found = self.catalog.named(pattern);
        if found.is_empty() {
            let ids = self.catalog.operations().iter().map(|o| &*o.id);
            let families: Vec<String> = ids
                .clone()
                .filter_map(|id| id.split_once('.'))
                .map(|(family, _)| format!("{family}.*"))
                .collect();
            let near = nearest(pattern, ids.chain(families.iter().map(String::as_str)));
            let hint = near.map_or_else(
                || "`valetkey check --catalog` lists the operations".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(self
                .problem(
                    "operation",
                    format!("`{pattern}` is no operation of the catalogue"),
                )
                .hint(hint));
        }
        if pattern.ends_with('*') && self.source.run_as != RunAs::Deny {
            // A family never reaches what hands out rights or credentials: such an operation is named in full.
            found.retain(|i| {
                self.catalog
                    .operations()
                    .get(*i)
                    .is_some_and(|o| o.effect != Effect::Admin)
            });
        }
        Ok(Some(found))
    }

    fn resource(&self) -> Result<Option<ResourceMatcher>, Problem> {
        let Some(text) = &self.source.resource else {
            return Ok(None);
        };
        let Some((kind, id)) = text.split_once('/').filter(|(_, id)| !id.is_empty()) else {
            return Err(self
                .problem("resource", format!("`{text}` is not TYPE/ID"))
                .hint("for example sql_warehouse/1234abcd"));
        };
        let kinds = self.catalog.resource_kinds();
        if !kinds.contains(&kind) {
            let hint = nearest(kind, kinds.iter().copied()).map_or_else(
                || format!("one of {}", kinds.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(self
                .problem("resource", format!("`{kind}` is no resource type"))
                .hint(hint));
        }
        let (id, prefix) = id.strip_suffix('*').map_or((id, false), |id| (id, true));
        if id.contains('*') {
            return Err(self.problem("resource", "a `*` may only stand at the end of the id"));
        }
        let id = if self.catalog.folds(kind) {
            id.to_lowercase()
        } else {
            id.to_owned()
        };
        Ok(Some(ResourceMatcher {
            kind: kind.into(),
            id,
            prefix,
        }))
    }

    fn methods(&self) -> Result<Vec<Method>, Problem> {
        self.source
            .methods
            .iter()
            .map(|text| match Method::from_bytes(text.as_bytes()) {
                Ok(method)
                    if text.bytes().all(|b| b.is_ascii_uppercase())
                        && !matches!(method, Method::CONNECT | Method::TRACE) =>
                {
                    Ok(method)
                }
                Ok(_) | Err(_) => Err(self
                    .problem("method", format!("`{text}` is no method"))
                    .hint("upper case, such as GET; CONNECT and TRACE are never forwarded")),
            })
            .collect()
    }

    fn path(&self) -> Result<Option<PathTemplate>, Problem> {
        let Some(text) = &self.source.path else {
            return Ok(None);
        };
        if text.starts_with("/oidc/") || text.starts_with("/.well-known/") {
            return Err(self.problem(
                "path",
                "is answered by the sidecar itself and never forwarded",
            ));
        }
        if text.starts_with(UPSTREAM_MARK) {
            return Err(self
                .problem(
                    "path",
                    "raw routes speak of the workspace, not of upstreams",
                )
                .hint("write `resource: app/NAME` instead"));
        }
        PathTemplate::parse(text)
            .map(Some)
            .map_err(|e| self.problem("path", e.to_string()))
    }

    fn scope(&self) -> Result<Option<Scope>, Problem> {
        let Some(text) = &self.source.scope else {
            return Ok(None);
        };
        Scope::parse(text)
            .map(Some)
            .ok_or_else(|| self.problem("scope", format!("`{text}` is no scope")))
    }

    /// A user call needs a scope; for a raw path that the catalogue does not know, the route has to say which.
    fn scope_is_known(&self, on: &Matcher, scope: Option<&Scope>) -> Result<(), Problem> {
        let Some(path) = on
            .path
            .as_ref()
            .filter(|_| on.operations.is_none() && on.resource.is_none())
        else {
            return Ok(());
        };
        let known = self
            .catalog
            .operations()
            .iter()
            .any(|o| o.path.shape() == path.shape());
        if scope.is_some() || known || matches!(self.source.run_as, RunAs::App | RunAs::Deny) {
            return Ok(());
        }
        Err(self.problem("scope", "is missing: the catalogue does not know this path, so the scope that a user needs must be said").hint("add for example `scope: sql`"))
    }
}

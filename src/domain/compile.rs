//! Routes as written + catalogue → policy, or every mistake at once.
//!
//! The only maker of a `Policy`. Knows nothing of files: problems carry the line, `config.rs` adds the file.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use super::ask::Resource;
use super::catalog::{Catalog, Effect};
use super::destination::{APP, UPSTREAM_MARK, Upstreams};
use super::policy::index::Index;
use super::policy::matcher::{Matcher, ResourceMatcher};
use super::policy::{Policy, Route};
use super::problem::{Problem, nearest};
use super::route::{PolicyOrigin, RouteSource, RunAs};
use super::scope::Scope;
use super::template::PathTemplate;

/// The most routes a policy may have.
pub const ROUTES_MAX: usize = 100_000;
/// The name of the one route of the starter policy.
pub const STARTER_ROUTE: &str = "starter";

/// Compiles routes.
///
/// # Errors
/// Every mistake: unknown operations and resource types with the nearest valid name, bad templates, raw user routes without a
/// scope.
pub fn compile(
    sources: &[RouteSource],
    catalog: Arc<Catalog>,
    presigned_allowed: bool,
) -> Result<Policy, Vec<Problem>> {
    let mut problems = Vec::new();
    if sources.len() > ROUTES_MAX {
        problems.push(Problem::new(
            "routes",
            format!("{} routes, at most {ROUTES_MAX} are allowed", sources.len()),
        ));
    }
    let mut routes = Vec::with_capacity(sources.len());
    for (index, source) in sources.iter().enumerate() {
        let compiler = Compiler {
            source,
            index,
            catalog: &catalog,
        };
        match compiler.route() {
            Ok(route) => routes.push(Arc::new(route)),
            Err(mut found) => problems.append(&mut found),
        }
    }
    if problems.is_empty() {
        Ok(build(
            routes,
            PolicyOrigin::Routes,
            catalog,
            presigned_allowed,
        ))
    } else {
        Err(problems)
    }
}

/// The built-in policy for a configuration with neither routes nor a bundle: every operation but those of admin effect, as
/// whichever identity calls (PRODUCT 4).
pub fn starter(catalog: Arc<Catalog>, presigned_allowed: bool) -> Policy {
    let operations = catalog
        .operations()
        .iter()
        .enumerate()
        .filter(|(_, o)| o.effect != Effect::Admin)
        .map(|(i, _)| i)
        .collect();
    let on = Matcher {
        operations: Some(operations),
        operations_text: "every operation but those of admin effect".to_owned(),
        ..Matcher::default()
    };
    let route = Route {
        name: STARTER_ROUTE.into(),
        line: 0,
        run_as: RunAs::Caller,
        scope: None,
        on,
    };
    build(
        vec![Arc::new(route)],
        PolicyOrigin::Starter,
        catalog,
        presigned_allowed,
    )
}

/// What is allowed and probably not meant: told at start, by `check`, and never fatal.
pub fn warnings(policy: &Policy, upstreams: &Upstreams) -> Vec<Problem> {
    let mut seen: HashMap<String, &Route> = HashMap::new();
    let mut found = unreached(policy, upstreams);
    for (index, route) in policy.routes().iter().enumerate() {
        let place = |message: String| {
            Problem::new(format!("routes[{index}] ({})", route.name), message).at(route.line)
        };
        if let Some(earlier) = seen.insert(route.describe(), route) {
            found.push(
                place(format!(
                    "never matches: route `{}` matches the same calls before it",
                    earlier.name
                ))
                .hint("remove one of the two"),
            );
        }
        if route.run_as != RunAs::Deny
            && route.on.operations.is_none()
            && let Some(app) = route.on.resource.as_ref().filter(|r| *r.kind == *APP)
            && !upstreams.iter().any(|u| app.matches(&u.resource()))
        {
            found.push(
                place("names no upstream, so only the app's description can be asked for".into())
                    .hint("add the app to outbound.upstreams"),
            );
        }
        if route.run_as == RunAs::User
            && route.scope.is_none()
            && let Some(operations) = &route.on.operations
            && operations
                .iter()
                .filter_map(|i| policy.catalog.operations().get(*i))
                .all(|o| !o.user_scope)
        {
            found.push(
                place("runs as the user, but no scope that an app can request covers it".into())
                    .hint("use `as: app`"),
            );
        }
    }
    found
}

/// Upstreams that every call to is denied.
fn unreached(policy: &Policy, upstreams: &Upstreams) -> Vec<Problem> {
    let allows = |route: &Arc<Route>, app: &Resource<'_>| {
        let named = route
            .on
            .resource
            .as_ref()
            .filter(|_| route.on.operations.is_none());
        route.run_as != RunAs::Deny && named.is_some_and(|named| named.matches(app))
    };
    let denied = upstreams.iter().filter(|u| {
        !policy
            .routes()
            .iter()
            .any(|route| allows(route, &u.resource()))
    });
    let warn = |name: &str, app: &str| {
        Problem::new(
            "outbound.upstreams",
            format!("no route lets anybody reach `{name}`"),
        )
        .hint(format!("add a route with `resource: {APP}/{app}`"))
    };
    denied.map(|u| warn(&u.name, &u.app)).collect()
}

struct Compiler<'a> {
    source: &'a RouteSource,
    index: usize,
    catalog: &'a Catalog,
}

impl Compiler<'_> {
    fn route(&self) -> Result<Route, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut keep = |result: Result<(), Problem>| problems.extend(result.err());
        let mut on = Matcher {
            operations_text: self.source.operation.clone().unwrap_or_default(),
            ..Matcher::default()
        };
        keep(self.operations().map(|found| on.operations = found));
        keep(self.resource().map(|found| on.resource = found));
        keep(self.methods().map(|found| on.methods = found));
        keep(self.path().map(|found| on.path = found));
        on.body = self
            .source
            .body
            .iter()
            .map(|(key, values)| (key.clone(), values.clone()))
            .collect();
        let mut scope = None;
        keep(self.scope().map(|found| scope = found));
        keep(self.scope_is_known(&on, scope.as_ref()));
        if on.operations.is_none()
            && on.resource.is_none()
            && on.path.is_none()
            && problems.is_empty()
        {
            problems.push(
                self.problem("", "matches nothing")
                    .hint("name a `resource`, an `operation`, or a `path`"),
            );
        }
        if !on.body.is_empty() && on.path.is_none() {
            problems.push(
                self.problem("body", "stands without `path`")
                    .hint("body conditions belong to raw routes"),
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

    fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
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
                || "`valetkey check` lists the operations".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(self
                .problem(
                    "operation",
                    format!("`{pattern}` is no operation of the catalogue"),
                )
                .hint(hint));
        }
        if pattern.ends_with('*') {
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
        Ok(Some(ResourceMatcher {
            kind: kind.into(),
            id: id.to_owned(),
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

fn build(
    routes: Vec<Arc<Route>>,
    origin: PolicyOrigin,
    catalog: Arc<Catalog>,
    presigned_allowed: bool,
) -> Policy {
    let index = Index::of(&routes, catalog.operations().len());
    Policy {
        catalog,
        origin,
        routes,
        presigned_allowed,
        index,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn source(change: impl FnOnce(&mut RouteSource)) -> RouteSource {
        let mut source = RouteSource {
            name: "r".into(),
            line: 3,
            resource: None,
            operation: None,
            methods: Vec::new(),
            path: None,
            body: BTreeMap::new(),
            run_as: RunAs::User,
            scope: None,
        };
        change(&mut source);
        source
    }

    fn faults(change: impl FnOnce(&mut RouteSource)) -> String {
        let catalog = Catalog::built_in().unwrap();
        let problems = compile(&[source(change)], catalog, false)
            .map(|_| ())
            .unwrap_err();
        problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn mistakes_name_the_key_and_the_remedy() {
        assert!(faults(|s| s.operation = Some("sql.statement.execute".into())).contains("routes[0].operation: `sql.statement.execute` is no operation of the catalogue (did you mean `sql.statements.execute`?)"));
        assert!(
            faults(|s| s.operation = Some("mlfow.*".into())).contains("did you mean `mlflow.*`?")
        );
        assert!(
            faults(|s| s.resource = Some("sql_warehous/1".into()))
                .contains("did you mean `sql_warehouse`?")
        );
        assert!(faults(|s| s.resource = Some("sql_warehouse".into())).contains("is not TYPE/ID"));
        assert!(faults(|s| s.resource = Some("sql_warehouse/a*b".into())).contains("at the end"));
        assert!(faults(|s| s.path = Some("/x/{y".into())).contains("routes[0].path"));
        assert!(
            faults(|s| s.path = Some("/api/2.0/unknown".into()))
                .contains("routes[0].scope: is missing")
        );
        assert!(faults(|s| s.path = Some("/oidc/v1/token".into())).contains("never forwarded"));
        assert!(faults(|_| ()).contains("matches nothing"));
        let many = faults(|s| {
            s.operation = Some("nope".into());
            s.resource = Some("nope/1".into());
            s.methods = vec!["get".into()];
            s.scope = Some("a b".into());
        });
        assert_eq!(many.lines().count(), 4, "{many}");
    }

    #[test]
    fn a_family_never_reaches_admin_operations() {
        let catalog = Catalog::built_in().unwrap();
        let policy = compile(
            &[source(|s| s.operation = Some("*".into()))],
            Arc::clone(&catalog),
            false,
        )
        .unwrap();
        let admin = catalog.named("tokens.create");
        assert!(policy.index.named(admin[0]).is_empty());
        let named = compile(
            &[source(|s| s.operation = Some("tokens.create".into()))],
            catalog,
            false,
        )
        .unwrap();
        assert_eq!(named.index.named(admin[0]), [0]);
    }

    #[test]
    fn shadowed_and_hopeless_routes_are_warned_of() {
        let catalog = Catalog::built_in().unwrap();
        let twice = [
            source(|s| s.resource = Some("sql_warehouse/1".into())),
            source(|s| s.resource = Some("sql_warehouse/1".into())),
            source(|s| s.operation = Some("mlflow.*".into())),
        ];
        let policy = compile(&twice, catalog, false).unwrap();
        let text = warnings(&policy, &Upstreams::default())
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        assert!(text.contains("never matches"), "{text}");
        assert!(text.contains("use `as: app`"), "{text}");
    }
}

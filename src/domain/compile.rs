//! Routes as written + catalogue → policy, or every mistake at once.
//!
//! The only maker of a `Policy`. Knows nothing of files: problems carry the line, `config.rs` adds the file. `compile/route.rs`
//! checks one route; `lint.rs` says what is allowed and probably not meant.

use std::sync::Arc;

use self::route::Compiler;
use super::catalog::{Catalog, Effect};
use super::clock::Timestamp;
use super::policy::index::Index;
use super::policy::matcher::Matcher;
use super::policy::{Observed, Policy, Route};
use super::problem::Problem;
use super::route::{PolicyOrigin, RouteSource, RunAs};

mod possible;
mod route;

/// The most routes a policy may have.
pub const ROUTES_MAX: usize = 100_000;
/// The name of the one route of the starter policy.
pub const STARTER_ROUTE: &str = "starter";

/// The name that stands for the route where an observed policy has none.
pub const OBSERVED_ROUTE: &str = "observed";

/// What a policy is made of besides its routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Where the routes came from.
    pub origin: PolicyOrigin,
    /// `outbound.presigned: allow`.
    pub presigned_allowed: bool,
    /// `mode: observe`, and until when.
    pub observe_until: Option<Timestamp>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            origin: PolicyOrigin::Routes,
            presigned_allowed: false,
            observe_until: None,
        }
    }
}

/// Compiles routes.
///
/// # Errors
/// Every mistake: unknown operations and resource types with the nearest valid name, bad templates, raw user routes without a
/// scope.
pub fn compile(
    sources: &[RouteSource],
    catalog: Arc<Catalog>,
    settings: Settings,
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
        Ok(build(routes, catalog, settings))
    } else {
        Err(problems)
    }
}

/// The built-in policy for a configuration with neither routes nor a bundle: every operation but those of admin effect, as
/// whichever identity calls (PRODUCT 4).
pub fn starter(catalog: Arc<Catalog>, settings: Settings) -> Policy {
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
    let settings = Settings {
        origin: PolicyOrigin::Starter,
        ..settings
    };
    build(vec![Arc::new(route)], catalog, settings)
}

fn build(routes: Vec<Arc<Route>>, catalog: Arc<Catalog>, settings: Settings) -> Policy {
    let index = Index::of(&routes, catalog.operations().len());
    let observed = settings.observe_until.map(|until| Observed {
        until,
        route: Arc::new(Route {
            name: OBSERVED_ROUTE.into(),
            line: 0,
            run_as: RunAs::Caller,
            scope: None,
            on: Matcher::default(),
        }),
    });
    Policy {
        catalog,
        origin: settings.origin,
        routes,
        presigned_allowed: settings.presigned_allowed,
        observed,
        index,
    }
}

#[cfg(test)]
mod tests;

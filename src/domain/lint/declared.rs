//! The policy against the bundle: what routes run as the app and the bundle does not give it, and what it gives for nothing.

use std::collections::BTreeSet;

use super::problem;
use crate::domain::bundle::{Declared, Kind, RESOURCE_TYPES, Resource, SECURABLES};
use crate::domain::catalog::MCP;
use crate::domain::policy::matcher::ResourceMatcher;
use crate::domain::policy::{Policy, Route};
use crate::domain::problem::Problem;
use crate::domain::route::RunAs;

pub(super) fn look(
    policy: &Policy,
    declared: &Declared,
    out_of_reach: &BTreeSet<usize>,
    found: &mut Vec<Problem>,
) {
    for (index, route) in policy.routes().iter().enumerate() {
        let as_app = matches!(route.run_as, RunAs::App | RunAs::Caller);
        if route.line > 0 && as_app && !out_of_reach.contains(&index) {
            found.extend(undeclared(route, declared).map(|(thing, snippet)| {
                let message =
                    format!("runs as the app on {thing}, which the bundle does not give it");
                let hint = format!(
                    "add to resources.apps.{}.resources: {snippet}; or grant it by hand",
                    declared.app
                );
                problem(index, route, message).hint(hint)
            }));
        }
    }
    let routes = policy.routes().iter().enumerate();
    let serving: Vec<&Route> = routes
        .filter(|(index, route)| route.run_as != RunAs::Deny && !out_of_reach.contains(index))
        .map(|(_, route)| &**route)
        .collect();
    for resource in &declared.resources {
        if !serving.iter().any(|route| serves(policy, route, resource)) {
            found.push(unserved(declared, resource));
        }
    }
}

/// What a route names and could be declared: kind and id in the words of the bundle.
fn declarable(resource: &ResourceMatcher) -> Option<(Kind, &str)> {
    let id = &*resource.id;
    if *resource.kind == *MCP {
        let servers = [
            ("genie/", Kind::GenieSpace),
            ("external/", Kind::Connection),
            ("functions/", Kind::Function),
            ("vector-search/", Kind::Table),
        ];
        let named = |(before, kind)| id.strip_prefix(before).map(|id| (kind, id));
        return servers.into_iter().find_map(named);
    }
    let kind = match &*resource.kind {
        "vector_search_index" => Kind::Table,
        other => kinds().find(|kind| kind.as_str() == other)?,
    };
    Some((kind, id))
}

fn kinds() -> impl Iterator<Item = Kind> {
    let securables = SECURABLES.into_iter().map(|(_, kind)| kind);
    RESOURCE_TYPES
        .into_iter()
        .filter_map(|t| t.kind)
        .chain(securables)
}

fn undeclared(route: &Route, declared: &Declared) -> Option<(String, String)> {
    let resource = route.on.resource.as_ref().filter(|r| !r.prefix)?;
    let (kind, id) = declarable(resource)?;
    // A whole schema cannot be declared, only what is in it.
    let whole = kind.id_fault(id).is_none();
    let within = format!("{id}.");
    let given = declared.resources.iter().any(|given| {
        let other = given.id.to_lowercase();
        given.kind == kind && (other == id.to_lowercase() || (!whole && other.starts_with(&within)))
    });
    (!given).then(|| {
        let id = if whole {
            id.to_owned()
        } else {
            format!("{id}.NAME")
        };
        (resource.to_string(), snippet(kind, &id))
    })
}

/// The entry to add, in one line of YAML (facts 5).
fn snippet(kind: Kind, id: &str) -> String {
    let permission = kind
        .permissions()
        .iter()
        .find(|(word, effect)| *effect > crate::domain::catalog::Effect::Read || *word == "SELECT")
        .or_else(|| kind.permissions().first())
        .map_or("", |(word, _)| word);
    let fields = match kind {
        Kind::Table | Kind::Volume | Kind::Function | Kind::Connection => {
            let word = { SECURABLES.into_iter() }
                .find(|(_, k)| *k == kind)
                .map_or("", |(word, _)| word);
            format!("uc_securable: {{securable_full_name: {id}, securable_type: {word}")
        }
        Kind::GenieSpace => format!("genie_space: {{name: NAME, space_id: \"{id}\""),
        Kind::Database => format!("database: {{instance_name: {id}, database_name: DATABASE"),
        Kind::Postgres => format!("postgres: {{branch: {id}, database: {id}/databases/DATABASE"),
        Kind::Secret => {
            let (scope, key) = id.split_once('/').unwrap_or((id, "KEY"));
            format!("secret: {{scope: {scope}, key: {key}")
        }
        Kind::Experiment => format!("experiment: {{experiment_id: \"{id}\""),
        Kind::SqlWarehouse => format!("sql_warehouse: {{id: \"{id}\""),
        Kind::Job => format!("job: {{id: \"{id}\""),
        Kind::ServingEndpoint => format!("serving_endpoint: {{name: {id}"),
        Kind::App => format!("app: {{name: {id}"),
    };
    format!("`- {{name: NAME, {fields}, permission: {permission}}}}}`")
}

/// Whether some call that the resource is given for could be let through by the route.
fn serves(policy: &Policy, route: &Route, given: &Resource) -> bool {
    if let Some(resource) = &route.on.resource {
        let Some((kind, id)) = declarable(resource) else {
            return false;
        };
        let other = given.id.to_lowercase();
        let id = id.to_lowercase();
        let whole = *resource.kind == *MCP && other.starts_with(&format!("{id}."));
        let named = if resource.prefix {
            other.starts_with(&id)
        } else {
            other == id || whole
        };
        return kind == given.kind && named;
    }
    let kind = given.kind.as_str();
    let mut operations = policy.catalog.operations().iter().enumerate();
    operations.any(|(index, operation)| {
        route.on.may_touch(index, operation) && operation.kinds().any(|k| **k == *kind)
    })
}

fn unserved(declared: &Declared, resource: &Resource) -> Problem {
    let key = format!(
        "resources.apps.{}.resources ({})",
        declared.app, resource.name
    );
    let message = format!(
        "is given to the app, but every route for {}/{} denies it",
        resource.kind.as_str(),
        resource.id
    );
    let mut problem = Problem::new(key, message)
        .at(resource.line)
        .hint("remove it from the bundle, or add a route that uses it");
    problem.file = Some(resource.file.clone());
    problem
}

//! Each declared resource, by one cheap read as the app: is it there, and may the app see it?
//!
//! Reads descriptions, never contents; of a secret not even the description, only that its scope may be listed. A user's right is
//! the user's and cannot be tried here.

use std::collections::BTreeSet;

use http::{Method, Request, StatusCode};

use crate::config::Config;
use crate::domain::catalog::Catalog;
use crate::domain::headers;
use crate::domain::path::CanonicalPath;
use crate::domain::platform_refusal::{self, REFUSAL_BYTES_MAX, Said};
use crate::domain::policy::Policy;
use crate::domain::route::RunAs;
use crate::domain::scope::ScopeSet;
use crate::runtime::app_tokens::AppTokens;
use crate::runtime::http_client::{HttpSend, empty, read_limited};

use super::Finding;
use super::far::whole;

/// Something that the configuration says the app uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Declared {
    kind: String,
    id: String,
    /// Where a bundle declares it.
    permission: Option<&'static str>,
}

pub(super) async fn examine(
    config: &Config,
    policy: &Policy,
    http: &dyn HttpSend,
    tokens: &AppTokens,
) -> Vec<Finding> {
    let declared = declared(config);
    if declared.is_empty() {
        return vec![Finding::ok("resources", "none is declared by name")];
    }
    let mut findings = Vec::new();
    for resource in declared {
        findings.push(look(config, policy.catalog(), http, tokens, &resource).await);
    }
    findings
}

/// Those of the bundle, else those that routes name for the app; a pattern names nothing that could be read.
fn declared(config: &Config) -> BTreeSet<Declared> {
    let bundled = config
        .bundle
        .iter()
        .flat_map(|bundle| &bundle.declared.resources);
    let bundled = bundled.map(|resource| Declared {
        kind: resource.kind.as_str().to_owned(),
        id: resource.id.clone(),
        permission: Some(resource.permission),
    });
    let all: BTreeSet<Declared> = bundled.collect();
    let routes = config.routes.iter();
    let routes = routes.filter(|route| matches!(route.run_as, RunAs::App | RunAs::Caller));
    let named = routes.filter_map(|route| route.resource.as_deref()?.split_once('/'));
    let named = named
        .filter(|(_, id)| !id.ends_with('*'))
        .map(|(kind, id)| Declared {
            kind: kind.to_owned(),
            id: id.to_owned(),
            permission: None,
        });
    let known = |other: &Declared| {
        all.iter()
            .any(|d| (&d.kind, &d.id) == (&other.kind, &other.id))
    };
    let named: Vec<Declared> = named.filter(|other| !known(other)).collect();
    all.into_iter().chain(named).collect()
}

/// What to read of it; `None` for kinds without a read of their own.
fn description(kind: &str, id: &str) -> Option<(String, Option<String>)> {
    let name = escaped(id);
    let plain = |folder: &str| Some((format!("{folder}/{name}"), None));
    let asked = |path: &str, key: &str| Some((path.to_owned(), Some(format!("{key}={name}"))));
    match kind {
        "sql_warehouse" => plain("/api/2.0/sql/warehouses"),
        "serving_endpoint" => plain("/api/2.0/serving-endpoints"),
        "vector_search_index" => plain("/api/2.0/vector-search/indexes"),
        "table" => plain("/api/2.1/unity-catalog/tables"),
        "volume" => plain("/api/2.1/unity-catalog/volumes"),
        "function" => plain("/api/2.1/unity-catalog/functions"),
        "connection" => plain("/api/2.1/unity-catalog/connections"),
        "genie_space" => plain("/api/2.0/genie/spaces"),
        "database" => plain("/api/2.0/database/instances"),
        "postgres" => Some((
            format!("/api/2.0/postgres/{}", name.replace("%2F", "/")),
            None,
        )),
        "experiment" => asked("/api/2.0/mlflow/experiments/get", "experiment_id"),
        "job" => asked("/api/2.2/jobs/get", "job_id"),
        "secret" => {
            let scope = escaped(id.split_once('/').map_or(id, |(scope, _key)| scope));
            Some((
                "/api/2.0/secrets/list".to_owned(),
                Some(format!("scope={scope}")),
            ))
        }
        "app" => plain("/api/2.0/apps"),
        _ => None,
    }
}

/// All but unreserved characters (RFC 3986 section 2.3) escaped.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

async fn look(
    config: &Config,
    catalog: &Catalog,
    http: &dyn HttpSend,
    tokens: &AppTokens,
    resource: &Declared,
) -> Finding {
    let Declared { kind, id, .. } = resource;
    let name = format!("{kind}/{id}");
    let Some((path, query)) = description(kind, id) else {
        return Finding::skip(&name, "there is no cheap read for this kind");
    };
    let scope = CanonicalPath::parse(&path).ok().and_then(|path| {
        let found = catalog.find(&Method::GET, &path);
        found.map(|(_, operation)| operation.scope.clone())
    });
    let token = match tokens.token(&ScopeSet::new(scope)).await {
        Ok(token) => token,
        Err(fault) => {
            return Finding::fail(&name, fault.to_string(), "the app's token lacks the scope");
        }
    };
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let request = Request::get(format!("{}{path}{query}", config.workspace.origin)).body(empty());
    let Ok(mut request) = request else {
        return Finding::fail(&name, "its id cannot stand in a URL", "check the id");
    };
    headers::attach_credential(request.headers_mut(), token.header().clone());
    let response = match http.send(request).await {
        Ok(response) => response,
        Err(fault) => {
            return Finding::fail(&name, whole(&fault), "try again; then check the network");
        }
    };
    let (head, body) = response.into_parts();
    // A body that cannot be read has said nothing.
    let body = read_limited(body, REFUSAL_BYTES_MAX)
        .await
        .unwrap_or_default();
    let said = platform_refusal::read(head.status, &head.headers, &body);
    judged(&name, resource, head.status, &said)
}

fn judged(name: &str, resource: &Declared, status: StatusCode, said: &Said) -> Finding {
    let permission = resource.permission.unwrap_or("the permission it needs");
    match (status, said) {
        (status, _) if status.is_success() => Finding::ok(name, "the app can see it"),
        (StatusCode::NOT_FOUND, _) => Finding::fail(
            name,
            "404: there is none with this id, or it is hidden from the app",
            format!("check the id; if it is right, grant the app's service principal {permission}"),
        ),
        (_, Said::Scopes(required)) => {
            let scopes: Vec<&str> = required.iter().map(|r| &*r.said).collect();
            Finding::fail(
                name,
                format!(
                    "{}: the app's token lacks a scope ({})",
                    status.as_u16(),
                    scopes.join(" ")
                ),
                "give the route that scope, or set app.scopes: all-apis",
            )
        }
        (_, Said::Object) => Finding::fail(
            name,
            format!("{}: the app has no right on it", status.as_u16()),
            format!(
                "grant the app's service principal {permission} (declare it in the bundle and deploy)"
            ),
        ),
        (_, Said::Token) => Finding::fail(
            name,
            format!("{}: the workspace refuses the app's token", status.as_u16()),
            "check that the service principal is in this workspace and active",
        ),
        (_, Said::Address) => Finding::fail(
            name,
            format!(
                "{}: the workspace does not let this address in",
                status.as_u16()
            ),
            "add this machine's address to the IP access list",
        ),
        (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, Said::Nothing) => Finding::fail(
            name,
            format!("{}, without a reason that is known here", status.as_u16()),
            format!("grant the app's service principal {permission}"),
        ),
        (status, Said::Nothing) => Finding::warn(
            name,
            format!("the workspace answered {}", status.as_u16()),
            "nothing is known of the resource; try again later",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::bundle::Kind;
    use crate::domain::problem::Problem;

    const KINDS: [Kind; 13] = [
        Kind::SqlWarehouse,
        Kind::ServingEndpoint,
        Kind::Table,
        Kind::Volume,
        Kind::Function,
        Kind::Connection,
        Kind::GenieSpace,
        Kind::Database,
        Kind::Postgres,
        Kind::Experiment,
        Kind::Job,
        Kind::Secret,
        Kind::App,
    ];

    /// The catalogue knows the scope of each read, and each is of effect read.
    #[test]
    fn every_kind_that_a_bundle_declares_has_a_read_of_the_catalogue() {
        let catalog = Catalog::built_in().map_err(|p: Vec<Problem>| p).unwrap();
        for kind in KINDS {
            let id = if kind == Kind::Postgres {
                "projects/p/branches/b"
            } else {
                "a.b.c"
            };
            let (path, _) = description(kind.as_str(), id).unwrap();
            let path = CanonicalPath::parse(&path).unwrap();
            let (_, operation) = catalog.find(&Method::GET, &path).unwrap();
            assert_eq!(operation.effect.as_str(), "read", "{path:?}");
        }
    }

    #[test]
    fn an_id_is_one_segment_whatever_it_holds() {
        assert_eq!(escaped("a b/c?d=é"), "a%20b%2Fc%3Fd%3D%C3%A9");
        let (path, query) = description("secret", "my scope/key").unwrap();
        assert_eq!(
            (path.as_str(), query.as_deref()),
            ("/api/2.0/secrets/list", Some("scope=my%20scope"))
        );
    }
}

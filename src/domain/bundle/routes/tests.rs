//! What each declared resource may be used for: derived, compiled, and asked.

use super::*;
use crate::domain::bundle::UserScope;
use crate::domain::compile::{Settings, compile};

fn declared(resources: &[(&str, Kind, &str, &'static str)], scopes: &[&str]) -> Declared {
    let resources = resources.iter().map(|(name, kind, id, permission)| {
        let known = kind
            .permissions()
            .iter()
            .find(|(word, _)| word == permission);
        let (permission, effect) = *known.unwrap();
        Resource {
            name: (*name).into(),
            kind: *kind,
            id: (*id).into(),
            permission,
            effect,
            file: "databricks.yml".into(),
            line: 7,
        }
    });
    let user_scopes = scopes.iter().map(|scope| UserScope {
        scope: Scope::parse(scope).unwrap(),
        file: "databricks.yml".into(),
        line: 3,
    });
    Declared {
        file: "databricks.yml".into(),
        app: "a".into(),
        target: "dev".into(),
        resources: resources.collect(),
        user_scopes: user_scopes.collect(),
        left_out: Vec::new(),
    }
}

fn derive(declared: &Declared) -> Routes {
    let catalog = Catalog::built_in().unwrap();
    let routes = routes(declared, &catalog, []);
    let sources: Vec<RouteSource> = routes.routes.iter().map(|d| d.route.clone()).collect();
    // Whatever comes out is a policy.
    compile(&sources, catalog, Settings::default()).unwrap();
    routes
}

/// `name operation resource [tools] effect as`, without the last route that every app has.
fn check(declared: &Declared, expected: &[&str]) {
    let derived = derive(declared);
    let shown: Vec<String> = derived
        .routes
        .iter()
        .map(|Derived { route, .. }| {
            let tools = (!route.tools.is_empty()).then(|| format!("[{}]", route.tools.join(" ")));
            let words = [
                Some(route.name.clone()),
                route.operation.clone(),
                route.resource.clone(),
                tools,
                route.effect.map(|effect| effect.as_str().to_owned()),
                Some(route.run_as.as_str().to_owned()),
            ];
            words.into_iter().flatten().collect::<Vec<_>>().join(" ")
        })
        .collect();
    let (last, rest) = shown.split_last().unwrap();
    assert_eq!(last, "who-am-i identity.me caller");
    assert_eq!(rest, expected);
}

/// Kind, id, permission, and the routes that come of it.
type Case = (Kind, &'static str, &'static str, &'static [&'static str]);

const CASES: &[Case] = &[
    (
        Kind::SqlWarehouse,
        "w",
        "CAN_USE",
        &["app-x sql_warehouse/w app"],
    ),
    (
        Kind::ServingEndpoint,
        "e",
        "CAN_QUERY",
        &["app-x serving_endpoint/e app"],
    ),
    (
        Kind::ServingEndpoint,
        "e",
        "CAN_VIEW",
        &["app-x serving_endpoint/e read app"],
    ),
    (
        Kind::Table,
        "c.s.t",
        "SELECT",
        &[
            "app-x-index vector_search_index/c.s.t read app",
            "app-x-mcp mcp/vector-search/c.s [t] read app",
            "app-x table/c.s.t read app",
        ],
    ),
    (
        Kind::Table,
        "c.s.t",
        "MODIFY",
        &[
            "app-x-index vector_search_index/c.s.t app",
            "app-x-mcp mcp/vector-search/c.s [t] app",
            "app-x table/c.s.t app",
        ],
    ),
    (
        Kind::Volume,
        "c.s.v",
        "READ_VOLUME",
        &["app-x volume/c.s.v read app"],
    ),
    (
        Kind::Volume,
        "c.s.v",
        "WRITE_VOLUME",
        &["app-x volume/c.s.v app"],
    ),
    (
        Kind::Function,
        "c.s.f",
        "EXECUTE",
        &[
            "app-x-mcp mcp/functions/c.s [f] app",
            "app-x function/c.s.f app",
        ],
    ),
    (
        Kind::Connection,
        "c",
        "USE_CONNECTION",
        &["app-x connection/c app"],
    ),
    (
        Kind::GenieSpace,
        "g",
        "CAN_RUN",
        &["app-x genie_space/g app"],
    ),
    (
        Kind::GenieSpace,
        "g",
        "CAN_VIEW",
        &["app-x genie_space/g read app"],
    ),
    (
        Kind::Database,
        "i",
        "CAN_CONNECT_AND_CREATE",
        &[
            "app-x-credentials database.credentials.create database/i app",
            "app-x database/i read app",
        ],
    ),
    (
        Kind::Postgres,
        "projects/p/branches/b",
        "CAN_CONNECT_AND_CREATE",
        &[
            "app-x-credentials postgres.credentials.create postgres/projects/p/branches/b app",
            "app-x postgres/projects/p/branches/b read app",
        ],
    ),
    (
        Kind::Experiment,
        "1",
        "CAN_EDIT",
        &["app-x experiment/1 app"],
    ),
    (
        Kind::Experiment,
        "1",
        "CAN_READ",
        &["app-x experiment/1 read app"],
    ),
    (Kind::Job, "1", "CAN_MANAGE_RUN", &["app-x job/1 app"]),
    (Kind::Job, "1", "CAN_VIEW", &["app-x job/1 read app"]),
    (
        Kind::Secret,
        "s/k",
        "READ",
        &["app-x secrets.get secret/s/k app"],
    ),
    (
        Kind::Secret,
        "s/k",
        "WRITE",
        &[
            "app-x secrets.get secret/s/k app",
            "app-x-put secrets.put secret/s/k app",
        ],
    ),
    (Kind::App, "other", "CAN_USE", &["app-x app/other app"]),
];

#[test]
fn every_kind_becomes_what_its_permission_allows() {
    for (kind, id, permission, expected) in CASES {
        check(&declared(&[("x", *kind, id, permission)], &[]), expected);
    }
}

#[test]
fn what_a_user_scope_covers_runs_as_whoever_calls() {
    let resources = [
        ("w", Kind::SqlWarehouse, "w", "CAN_USE"),
        ("g", Kind::GenieSpace, "g", "CAN_RUN"),
        ("e", Kind::Experiment, "1", "CAN_EDIT"),
    ];
    let as_caller = [
        "app-w sql_warehouse/w caller",
        "app-g genie_space/g caller",
        "app-e experiment/1 app",
    ];
    check(
        &declared(&resources, &["sql", "dashboards.genie"]),
        &as_caller,
    );
    // A narrower scope is the user's affair too: what it does not cover is refused, never run as the app.
    check(
        &declared(&resources, &["sql.statement-execution", "genie"]),
        &as_caller,
    );
    check(
        &declared(&resources, &["files"]),
        &[
            "app-w sql_warehouse/w app",
            "app-g genie_space/g app",
            "app-e experiment/1 app",
            "user-files files.* user",
        ],
    );
}

#[test]
fn a_scope_without_a_resource_is_a_route_over_its_families() {
    check(
        &declared(&[], &["genie", "catalog.tables:read"]),
        &[
            "user-genie genie.* user",
            "user-mcp.genie mcp.genie.* user",
            "user-unity-catalog.tables unity-catalog.tables.* user",
        ],
    );
    check(&declared(&[], &["openid", "iam.current-user:read"]), &[]);
}

#[test]
fn a_scope_that_no_operation_needs_is_told() {
    let words = |scope: &str| {
        let derived = derive(&declared(&[], &[scope]));
        let words: Vec<String> = derived.idle.iter().map(ToString::to_string).collect();
        words.join("\n")
    };
    assert_eq!(
        words("geni"),
        "databricks.yml:3: resources.apps.a.user_api_scopes[0]: no operation of the catalogue needs the scope `geni` (did you mean `genie`?)"
    );
    assert_eq!(
        words("teleportation"),
        "databricks.yml:3: resources.apps.a.user_api_scopes[0]: no operation of the catalogue needs the scope `teleportation` (sessions may hold it, but it gives no route; add one for what it is for)"
    );
    assert_eq!(words("sql"), "");
}

#[test]
fn names_become_valid_and_unique() {
    let long = "n".repeat(80);
    let resources = [
        ("a b/ü", Kind::SqlWarehouse, "1", "CAN_USE"),
        ("a b/ö", Kind::SqlWarehouse, "2", "CAN_USE"),
        (long.as_str(), Kind::SqlWarehouse, "3", "CAN_USE"),
    ];
    let catalog = Catalog::built_in().unwrap();
    let derived = routes(&declared(&resources, &[]), &catalog, ["who-am-i"]);
    let names: Vec<&str> = derived
        .routes
        .iter()
        .map(|d| d.route.name.as_str())
        .collect();
    let cut = format!("app-{}", "n".repeat(60));
    assert_eq!(names, ["app-a-b--", "app-a-b---2", &cut, "who-am-i-2"]);
}

#[test]
fn a_pattern_holds_every_operation_it_was_made_of() {
    assert_eq!(pattern(&["a.b"]), "a.b");
    assert_eq!(pattern(&["a.b", "a.c"]), "a.*");
    assert_eq!(pattern(&["a.b.c", "a.b.d"]), "a.b.*");
    assert_eq!(pattern(&["a.b", "a.b.d"]), "a.*");
    let catalog = Catalog::built_in().unwrap();
    for row in catalog.scopes() {
        for family in families(&catalog, &row.name) {
            assert!(!catalog.named(&family).is_empty(), "{}: {family}", row.name);
        }
    }
}

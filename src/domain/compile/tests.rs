//! Mistakes in routes, each with its key and remedy.

use super::super::destination::Upstreams;
use super::super::lint::warnings;
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
        tools: Vec::new(),
        effect: None,
        run_as: RunAs::User,
        scope: None,
    };
    change(&mut source);
    source
}

fn faults(change: impl FnOnce(&mut RouteSource)) -> String {
    let catalog = Catalog::built_in().unwrap();
    let problems = compile(&[source(change)], catalog, Settings::default())
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
    assert!(faults(|s| s.operation = Some("mlfow.*".into())).contains("did you mean `mlflow.*`?"));
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
        Settings::default(),
    )
    .unwrap();
    let admin = catalog.named("tokens.create");
    assert!(policy.index.named(admin[0]).is_empty());
    let named = compile(
        &[source(|s| s.operation = Some("tokens.create".into()))],
        catalog,
        Settings::default(),
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
    let policy = compile(&twice, catalog, Settings::default()).unwrap();
    let text = warnings(&policy, &Upstreams::default())
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(text.contains("never matches"), "{text}");
    assert!(text.contains("use `as: app`"), "{text}");
}

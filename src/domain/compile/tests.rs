//! Mistakes in routes, each with its key and remedy.

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
        &[source(|s| {
            s.operation = Some("tokens.create".into());
            s.run_as = RunAs::App;
        })],
        catalog,
        Settings::default(),
    )
    .unwrap();
    assert_eq!(named.index.named(admin[0]), [0]);
}

#[test]
fn routes_that_no_call_can_match_are_refused_with_what_would_be_right() {
    let check = |change: &dyn Fn(&mut RouteSource), words: [&str; 2]| {
        let told = faults(|s| {
            s.run_as = RunAs::App;
            change(s);
        });
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    };
    let named = |operation: &str, resource: &str| {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (operation, resource) = (some(operation), some(resource));
        move |s: &mut RouteSource| {
            s.operation.clone_from(&operation);
            s.resource.clone_from(&resource);
        }
    };
    check(
        &named("sql.*", "genie_space/1"),
        ["routes[0].resource", "`sql.*` touches no genie_space"],
    );
    check(
        &named("tokens.*", ""),
        [
            "all of `tokens.*` is of admin effect",
            "add `operation: tokens.create`",
        ],
    );
    check(
        &named("", "secret/scope/key"),
        [
            "all that touches a secret is of admin effect",
            "secrets.get",
        ],
    );
    check(&named("", "*/x"), ["`*` is no resource type", "one of app"]);
    let bounded = |operation: &str, effect| {
        let named = named(operation, "");
        move |s: &mut RouteSource| {
            named(s);
            s.effect = Some(effect);
        }
    };
    check(
        &bounded("tokens.create", Effect::Write),
        ["routes[0].effect", "remove `effect`"],
    );
    check(
        &bounded("sql.statements.execute", Effect::Read),
        [
            "nothing of `sql.statements.execute` is with no more effect than read",
            "--catalog",
        ],
    );
    check(
        &|s| {
            s.resource = Some("sql_warehouse/1".into());
            s.tools = vec!["x".into()];
        },
        ["routes[0].tools", "mcp/functions/CATALOG.SCHEMA"],
    );
}

#[test]
fn a_user_route_that_nobody_can_pass_is_refused_unless_it_names_the_scope() {
    let told = faults(|s| s.operation = Some("mlflow.*".into()));
    assert!(
        told.contains("routes[0].as: no user can ever pass") && told.contains("`scope: mlflow`"),
        "{told}"
    );
    let told = faults(|s| s.resource = Some("memory_store/a.b.c".into()));
    assert!(told.contains("`unity-catalog`"), "{told}");
    let catalog = Catalog::built_in().unwrap();
    let meant = [
        source(|s| {
            s.operation = Some("mlflow.*".into());
            s.scope = Some("mlflow".into());
        }),
        // Derived from a bundle.
        source(|s| {
            s.operation = Some("jobs.*".into());
            s.line = 0;
        }),
        source(|s| s.operation = Some("unity-catalog.*".into())),
    ];
    compile(&meant, catalog, Settings::default()).unwrap();
}

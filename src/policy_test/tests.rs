//! What test files can say, and what is told of mistakes in them.

use std::fs;

use super::*;

const POLICY: &str = r#"
users: {scopes: [sql, model-serving]}
routes:
  - {name: wh, resource: sql_warehouse/w1, as: user}
  - {name: model, resource: serving_endpoint/m, as: caller}
  - {name: memory, resource: memory_store/a.b.c, as: app}
  - {name: tools, resource: mcp/functions/a.b, tools: [f], as: app}
  - {name: spans, resource: table/a.b.spans, as: app}
mode: observe
observe_until: 2027-01-31
"#;

/// Reads a test file beside a policy that it may name.
fn load(text: &str) -> Result<Table, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tests")).unwrap();
    fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let path = folder.path().join("tests/t.yaml");
    fs::write(&path, text).unwrap();
    let env = Env::from_iter([("GIVEN", "w1")]);
    Table::load(&path, &env).map_err(|problems| {
        let name = folder.path().display().to_string();
        let told = problems.iter().map(ToString::to_string);
        told.map(|text| text.replace(&name, "")).collect()
    })
}

fn table(cases: &str) -> Table {
    load(&format!("config: ../policy.yaml\ntests:\n{cases}")).unwrap_or_else(|p| panic!("{p:#?}"))
}

/// The differences of each case, in one line each; empty = passed.
fn run(cases: &str) -> Vec<String> {
    let table = table(cases);
    table
        .run()
        .iter()
        .map(|o| o.differences.join("; "))
        .collect()
}

#[test]
fn everything_that_decides_can_be_said_of_a_call() {
    let passed = run(r#"
  - {as: user, scopes: [sql], call: POST /api/2.0/sql/statements, body: {warehouse_id: w1}, expect: allow, identity: user, route: wh}
  - {as: user, scopes: [genie], call: POST /api/2.0/sql/statements, body: {warehouse_id: w1}, expect: deny, reason: scope_missing, route: wh}
  - {as: app, call: POST /api/2.0/sql/statements, body: {warehouse_id: w1}, expect: deny, reason: user_required}
  - {as: user, call: GET /api/2.0/sql/statements/s1, bound: sql_warehouse/w1, expect: allow}
  - {as: user, call: GET /api/2.0/sql/statements/s1, bound: sql_warehouse/w2, expect: deny, reason: no_route}
  - {as: user, call: GET /api/2.0/sql/statements/s1, expect: deny, reason: follow_up_unknown}
  - {as: user, call: POST /api/2.0/sql/statements, body: '{"warehouse_id": "w1", "warehouse_id": "w2"}', expect: deny, reason: bad_body}
  - {as: user, call: "GET /api/2.1/unity-catalog/memory-stores/a.b.c/entries?scope=x", partition: own, expect: allow, identity: app}
  - {as: user, call: "GET /api/2.1/unity-catalog/memory-stores/a.b.c/entries?scope=x", partition: foreign, expect: deny, reason: partition_foreign}
  - {as: app, call: POST /api/2.0/mcp/functions/a/b, tool: a__b__f, expect: allow, route: tools}
  - {as: app, call: POST /api/2.0/mcp/functions/a/b, tool: a__b__g, expect: deny}
  - {as: app, call: POST /api/2.0/otel/v1/traces, headers: {X-Databricks-UC-Table-Name: a.b.spans}, expect: allow, route: spans}
  - {as: app, call: POST /api/2.0/otel/v1/traces, headers: {X-Databricks-UC-Table-Name: a.b.other}, expect: deny}
  - {as: app, call: GET /api/2.0/sql/warehouses, expect: deny, reason: no_route}
  - {as: app, call: GET /api/2.0/sql/warehouses, now: 2027-01-31, expect: allow, identity: app, reason: no_route}
  - {as: app, call: GET /api/2.0/sql/warehouses, now: 2027-02-01, expect: deny}
"#);
    assert_eq!(passed, vec![""; passed.len()]);
}

#[test]
fn what_came_out_otherwise_is_said() {
    let told = run(r#"
  - {as: user, call: POST /api/2.0/sql/statements, body: {warehouse_id: w1}, expect: deny, reason: no_route}
  - {as: user, call: POST /serving-endpoints/m/invocations, expect: allow, identity: app, route: wh}
"#);
    assert_eq!(
        told,
        [
            "expected deny, got allow; expected reason no_route, got none",
            "expected identity app, got user; expected route wh, got model",
        ]
    );
}

#[test]
fn routes_that_decide_no_case_are_known() {
    let table =
        table("  - {as: app, call: POST /serving-endpoints/m/invocations, expect: allow}\n");
    let untested = table.untested(&table.run());
    assert_eq!(untested, ["wh", "memory", "tools", "spans"]);
}

#[test]
fn a_file_may_hold_the_policy_itself_with_variables_of_its_own() {
    let text = r#"
env: {WH: w9}
users: {scopes: [sql]}
routes:
  - {name: wh, resource: "sql_warehouse/${WH}", as: user}
  - {name: given, resource: "sql_warehouse/${GIVEN}", as: user}
tests:
  - {as: user, call: GET /api/2.0/sql/warehouses/w9, expect: allow, route: wh}
  - {as: user, call: GET /api/2.0/sql/warehouses/w1, expect: allow, route: given}
"#;
    let table = load(text).unwrap();
    assert!(table.run().iter().all(Outcome::passed));
}

#[test]
fn every_mistake_is_told_with_its_line_and_what_would_be_right() {
    let told = load(
        r#"config: ../policy.yaml
tests:
  - {as: usr, call: GET /x, expect: allow}
  - {call: GET /x, expect: allow}
  - {as: app, call: get /x, expect: allow}
  - {as: app, call: GET x, expect: allow}
  - {as: app, call: GET /x}
  - {as: app, call: GET /x, expect: deny, reason: no_rout}
  - {as: app, call: GET /x, expect: deny, identity: app}
  - {as: app, call: GET /x, expect: allow, reason: no_route}
  - {as: app, call: GET /x, expect: deny, route: modl}
  - {as: app, scopes: [sql], call: GET /x, expect: deny}
  - {as: app, call: GET /x, expect: deny, bound: w1}
  - {as: app, call: GET /x, expect: deny, tool: f, body: {}}
  - {as: app, call: GET /x, expect: deny, now: soon}
  - {as: app, call: GET /x, expect: deny, headers: {"a b": c}}
"#,
    )
    .unwrap_err();
    // The words of one shape are read first; the rest is told where the words are right.
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].starts_with("/tests/t.yaml:3: tests[0].as: must be one of user, app"),
        "{told:#?}"
    );
    let told = load(
        r#"config: ../policy.yaml
tests:
  - {call: GET /x, expect: allow}
  - {as: app, call: get /x, expect: allow}
  - {as: app, call: GET x, expect: allow}
  - {as: app, call: GET /x}
  - {as: app, call: GET /x, expect: deny, reason: no_rout}
  - {as: app, call: GET /x, expect: deny, identity: app}
  - {as: app, call: GET /x, expect: allow, reason: no_route}
  - {as: app, call: GET /x, expect: deny, route: modl}
  - {as: app, scopes: [sql], call: GET /x, expect: deny}
  - {as: app, call: GET /x, expect: deny, bound: w1}
  - {as: app, call: GET /x, expect: deny, tool: f, body: {}}
  - {as: app, call: GET /x, expect: deny, now: soon}
  - {as: app, call: GET /x, expect: deny, headers: {"a b": c}}
"#,
    )
    .unwrap_err();
    let expected = [
        (3, "as: is missing", "`as: user`"),
        (4, "call: is no METHOD", "POST /api"),
        (5, "call: is no METHOD", "POST /api"),
        (6, "expect: is missing", "`expect: allow`"),
        (7, "reason: is no reason", "`no_route`"),
        (8, "identity: belongs to", "`expect: allow`"),
        (9, "reason: belongs to", "`expect: deny`"),
        (10, "route: no route", "`model`"),
        (11, "scopes: belongs to", "`as: user`"),
        (12, "bound: is no TYPE/ID", "sql_warehouse"),
        (13, "tool: stands beside", "remove"),
        (14, "now: is neither", "2027-01-31"),
        (15, "headers.a b: is no header", "Name"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, (line, what, remedy)) in told.iter().zip(expected) {
        assert!(
            told.starts_with(&format!("/tests/t.yaml:{line}: tests[")),
            "{told}"
        );
        assert!(told.contains(what) && told.contains(remedy), "{told}");
    }
}

#[test]
fn a_file_with_nothing_to_test_or_two_policies_is_a_mistake() {
    for (text, word) in [
        ("config: ../policy.yaml\n", "there is no test"),
        ("config: ../policy.yaml\ntests: []\n", "there is no test"),
        (
            "config: ../policy.yaml\nroutes: []\ntests: [{as: app, call: GET /x, expect: deny}]\n",
            "beside a policy",
        ),
        (
            "confg: ../policy.yaml\ntests: [{as: app, call: GET /x, expect: deny}]\n",
            "did you mean `config`?",
        ),
        (
            "config: ../nowhere.yaml\ntests: [{as: app, call: GET /x, expect: deny}]\n",
            "nowhere.yaml",
        ),
        (
            "tests: [{as: app, caller: x, call: GET /x, expect: deny}]\n",
            "tests[0].caller: unknown key",
        ),
        ("- a\n", "must be a mapping"),
        (
            "routes: [{name: a, operation: nope, as: app}]\ntests: [{as: app, call: GET /x, expect: deny}]\n",
            "t.yaml:1: routes[0].operation",
        ),
    ] {
        let told = load(text).unwrap_err().join("\n");
        assert!(told.contains(word), "{text}: {told}");
    }
}

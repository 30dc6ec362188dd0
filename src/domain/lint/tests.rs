//! A table of policies with what is said of them, and the comparison of routes held against the decision itself.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::ask::touch;
use crate::domain::ask::{
    Bound, Call, CallerView, FollowUpView, Owner, Partition, Request, ResourceId, Touch,
};
use crate::domain::bundle::{Kind, Resource};
use crate::domain::catalog::{Catalog, Effect};
use crate::domain::clock::Timestamp;
use crate::domain::compile::{Settings, compile, starter};
use crate::domain::destination::Destination;
use crate::domain::path::CanonicalPath;
use crate::domain::policy::decide;
use crate::domain::route::{RouteSource, RunAs};

fn catalog() -> Arc<Catalog> {
    static CATALOG: OnceLock<Arc<Catalog>> = OnceLock::new();
    Arc::clone(CATALOG.get_or_init(|| Catalog::built_in().unwrap()))
}

/// `sql.* sql_warehouse/w1 effect=read tools=a,b GET,POST /path kind=a|b scope=s as=user`, in any order.
fn source(text: &str, line: usize) -> RouteSource {
    let mut route = RouteSource {
        name: format!("r{line}"),
        line,
        resource: None,
        operation: None,
        methods: Vec::new(),
        path: None,
        body: std::collections::BTreeMap::new(),
        tools: Vec::new(),
        effect: None,
        run_as: RunAs::App,
        scope: None,
    };
    let words = |text: &str, by: char| text.split(by).map(str::to_owned).collect::<Vec<_>>();
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some(("as", who)) => route.run_as = RunAs::parse(who).unwrap(),
            Some(("scope", scope)) => route.scope = Some(scope.into()),
            Some(("effect", "read")) => route.effect = Some(Effect::Read),
            Some(("effect", _)) => route.effect = Some(Effect::Write),
            Some(("tools", tools)) => route.tools = words(tools, ','),
            Some((key, values)) => {
                route.body.insert(key.into(), words(values, '|'));
            }
            None if word.starts_with('/') => route.path = Some(word.into()),
            None if word.bytes().all(|b| b.is_ascii_uppercase() || b == b',') => {
                route.methods = words(word, ',');
            }
            None if word.contains('/') => route.resource = Some(word.into()),
            None => route.operation = Some(word.into()),
        }
    }
    route
}

fn policy(routes: &[&str]) -> Policy {
    let routes: Vec<RouteSource> = routes
        .iter()
        .zip(1..)
        .map(|(text, line)| source(text, line))
        .collect();
    compile(&routes, catalog(), Settings::default()).unwrap_or_else(|p| panic!("{routes:?}: {p:?}"))
}

fn told(routes: &[&str], around: Surroundings<'_>) -> Vec<String> {
    let said = lint(&policy(routes), around);
    said.iter().map(|p| format!("{}: {p}", p.line)).collect()
}

/// Each expected warning by its line and words that it has.
fn check(routes: &[&str], expected: &[(usize, &[&str])]) {
    check_around(routes, Surroundings::default(), expected);
}

fn check_around(routes: &[&str], around: Surroundings<'_>, expected: &[(usize, &[&str])]) {
    let told = told(routes, around);
    assert_eq!(told.len(), expected.len(), "{routes:?}: {told:#?}");
    for (warning, (line, words)) in told.iter().zip(expected) {
        assert!(
            warning.starts_with(&format!("{line}: ")),
            "line {line}: {warning}"
        );
        for word in *words {
            assert!(warning.contains(word), "{word:?} in {warning}");
        }
    }
}

const LOST: &str = "never decides";

#[test]
fn a_route_that_an_earlier_one_leaves_nothing_to_is_named() {
    for (earlier, later) in [
        ("sql_warehouse/w1", "sql_warehouse/w1"),
        ("sql_warehouse/*", "sql_warehouse/w1"),
        ("sql_warehouse/w*", "sql_warehouse/w1*"),
        ("sql_warehouse/w1", "sql_warehouse/w1 effect=read"),
        ("sql_warehouse/w1", "sql.statements.* sql_warehouse/w1"),
        ("sql.*", "sql.statements.execute"),
        ("sql.*", "sql.* effect=read"),
        ("*", "mlflow.runs.* experiment/1"),
        // Second names.
        ("genie_space/s1", "mcp/genie/s1"),
        ("genie_space/*", "mcp/genie/*"),
        ("function/a.*", "mcp/functions/a.b.f"),
        ("connection/c", "mcp/external/c tools=x"),
        ("schema/a.b", "mlflow.otel.* table/a.b.spans"),
        ("schema/a.*", "mlflow.otel.* table/a.b.*"),
        (
            "mcp/functions/a.b",
            "mcp.functions.* mcp/functions/a.b tools=f",
        ),
        ("mcp/functions/a.b", "mcp.functions.call function/a.b.f"),
        ("vector_search_index/A.b.c", "vector_search_index/a.B.c"),
        // Tools.
        ("mcp/sql tools=a,b,c", "mcp/sql tools=c,a"),
        // Raw paths.
        ("/api/2.0/x/**", "/api/2.0/x/{id}"),
        ("/api/2.0/x/{a}", "GET /api/2.0/x/{b}"),
        ("/api/2.0/x/{a}", "/api/2.0/x/{b} kind=a"),
        ("/x kind=a|b", "/x kind=b"),
        ("/api/2.0/sql/**", "sql.statements.*"),
        (
            "POST /api/2.0/sql/statements",
            "sql.statements.execute sql_warehouse/w1",
        ),
        // What the path says and what the catalogue says of it is the same.
        (
            "sql_warehouse/w1",
            "POST /api/2.0/sql/statements warehouse_id=w1",
        ),
        (
            "sql_warehouse/w*",
            "POST /api/2.0/sql/statements warehouse_id=w1|w2",
        ),
        (
            "POST /api/2.0/sql/statements warehouse_id=w1",
            "sql.statements.execute sql_warehouse/w1",
        ),
    ] {
        check(
            &[earlier, later],
            &[(2, &[LOST, "`r1` (line 1) matches", "remove it"])],
        );
    }
    check(
        &["sql_warehouse/w1", "sql_warehouse/w1 as=deny"],
        &[(2, &[LOST, "put it before `r1`"])],
    );
}

#[test]
fn routes_that_cover_a_later_one_only_together_are_named_too() {
    check(
        &[
            "sql.statements.*",
            "sql.warehouses.*",
            "sql.sessions.*",
            "sql.thrift.*",
            "sql_warehouse/w1",
            "mcp/sql tools=a",
            "mcp/sql tools=b",
            "mcp/sql tools=a,b",
        ],
        &[(8, &[LOST, "`r6` (line 6) and `r7` (line 7) match"])],
    );
    check(
        &[
            "sql.statements.*",
            "sql.warehouses.*",
            "sql.sessions.*",
            "sql.thrift.*",
            "mlflow.*",
            "sql_warehouse/w1",
        ],
        &[(6, &[LOST, "more match every such call"])],
    );
    check(
        &[
            "sql_warehouse/w1",
            "sql_warehouse/w2",
            "POST /api/2.0/sql/statements warehouse_id=w1|w2",
        ],
        &[(3, &[LOST, "and `r2`"])],
    );
}

#[test]
fn routes_that_leave_something_over_are_not_warned_of() {
    for (earlier, later) in [
        ("sql_warehouse/w1", "sql_warehouse/w2"),
        ("sql_warehouse/w1", "sql_warehouse/*"),
        ("sql_warehouse/w1 effect=read", "sql_warehouse/w1"),
        ("sql.statements.execute", "sql_warehouse/w1"),
        ("sql.warehouses.stop", "sql_warehouse/w1"),
        ("mcp/genie/s1", "genie_space/s1"),
        ("mcp/functions/a.b.f", "function/a.b.f"),
        ("mcp/sql tools=a", "mcp/sql tools=a,b"),
        ("mcp/sql tools=a", "mcp/sql"),
        (
            "mcp/functions/a.b tools=f",
            "mcp/functions/a.b tools=a__b__f",
        ),
        ("table/a.b.spans", "mlflow.otel.* schema/a.b"),
        ("GET /api/2.0/x/{a}", "/api/2.0/x/{b}"),
        ("/x kind=a", "/x kind=a|b"),
        ("/x kind=a", "/x"),
        ("/api/2.0/x/{a}", "/api/2.0/x/**"),
        (
            "sql_warehouse/w1",
            "POST /api/2.0/sql/statements warehouse_id=w1|w2",
        ),
        ("sql.statements.execute", "/api/2.0/sql/statements"),
        ("identity.me", "*"),
        ("vector-search.upsert as=deny", "vector_search_index/a.b.c"),
        (
            "vector_search_index/a.hr.* as=deny",
            "vector_search_index/a.*",
        ),
    ] {
        check(&[earlier, later], &[]);
    }
}

#[test]
fn a_wider_route_of_another_identity_that_takes_whole_operations_is_named() {
    check(
        &["sql.statements.* as=app", "sql_warehouse/w1 as=user"],
        &[(
            2,
            &[
                "`r1` (line 1) stands before it and is wider",
                "sql.statements.execute",
                "run as app",
            ],
        )],
    );
    check(
        &["/api/2.0/** as=deny", "serving_endpoint/m as=caller"],
        &[(2, &["serving.endpoints.", "are denied"])],
    );
    check(
        &["sql.statements.* as=user", "sql_warehouse/w1 as=user"],
        &[],
    );
    check(
        &[
            "/api/2.0/sql/statements as=deny",
            "sql_warehouse/w1 as=user",
        ],
        &[],
    );
}

#[test]
fn user_routes_are_seen_against_what_users_can_hold() {
    check(
        &["mlflow.* as=caller", "memory_store/a.b.c as=caller"],
        &[
            (1, &["serves no user", "`mlflow`", "use `as: app`"]),
            (2, &["serves no user"]),
        ],
    );
    check(
        &["unity-catalog.* as=user", "function/a.b.f as=user"],
        &[(
            1,
            &[
                "operations have no scope",
                "unity-catalog.volumes.list",
                "put a route `as: app`",
            ],
        )],
    );
    let ceiling = ScopeSet::parse(["sql", "dashboards.genie"]);
    let around = Surroundings {
        ceiling: Some(&ceiling),
        ..Surroundings::default()
    };
    let routes = [
        "sql_warehouse/w as=user",
        "genie_space/s as=user",
        "volume/a.b.c as=user",
        "serving_endpoint/m as=caller",
        "/api/2.0/workspace/list as=user scope=workspace.workspace",
        "/api/2.0/x as=user scope=sql.statement-execution",
        "files.* as=app",
    ];
    check_around(
        &routes,
        around,
        &[
            (
                3,
                &[
                    "needs `files`",
                    "users.scopes and to the app's user_api_scopes",
                    "every call is refused",
                ],
            ),
            (4, &["`model-serving`", "use `as: app`"]),
            (5, &["needs the scope `workspace.workspace`"]),
        ],
    );
    check(&routes, &[]);
}

#[test]
fn ids_that_no_call_can_have_and_starts_within_a_name_are_named() {
    check(
        &[
            "table/prod.docs*",
            "volume/main*",
            "mcp/functions/prod.bill*",
            "schema/prod.docs",
            "memory_store/prod.docs.*",
            "function/prod.docs.agent_*",
            "vector_search_index/*",
            "trace_location/prod.hr* as=deny",
        ],
        &[
            (1, &["docs2", "`table/prod.docs.*`"]),
            (2, &["main2", "`volume/main.*`"]),
            (3, &["bill2", "`mcp/functions/prod.bill.*`"]),
        ],
    );
    check(
        &[
            "volume/main.docs",
            "schema/main",
            "mcp/main.billing",
            "mcp/function/main.billing",
            "mcp/genie/s1",
            "mcp/sql",
            "postgres/my-project",
            "postgres/projects/p/branches/b",
            "job/nightly",
            "job/7",
            "secrets.get secret/scope-only",
            "mcp/external/crm",
        ],
        &[
            (
                1,
                &[
                    "can never match",
                    "volume/CATALOG.SCHEMA.NAME",
                    "`volume/main.docs.*`",
                ],
            ),
            (2, &["schema/CATALOG.SCHEMA"]),
            (3, &["no call touches `mcp/main.billing`"]),
            (4, &["write mcp/functions/catalog.schema"]),
            (7, &["postgres/projects/project"]),
            (9, &["named by its number"]),
            (11, &["secret/scope/key"]),
        ],
    );
}

fn declared() -> Declared {
    let give = |name: &str, kind: Kind, id: &str, line| Resource {
        name: name.into(),
        kind,
        id: id.into(),
        permission: kind.permissions()[0].0,
        effect: Effect::Write,
        file: "databricks.yml".into(),
        line,
    };
    Declared {
        file: "databricks.yml".into(),
        app: "agent".into(),
        target: "dev".into(),
        resources: vec![
            give("wh", Kind::SqlWarehouse, "w1", 10),
            give("docs", Kind::Table, "prod.docs.index", 12),
            give("refund", Kind::Function, "prod.billing.refund", 14),
        ],
        user_scopes: Vec::new(),
        left_out: Vec::new(),
    }
}

#[test]
fn what_runs_as_the_app_is_seen_against_the_bundle() {
    let declared = declared();
    let around = Surroundings {
        declared: Some(&declared),
        ..Surroundings::default()
    };
    check_around(
        &[
            "sql_warehouse/w1 as=caller",
            "vector_search_index/Prod.docs.index",
            "mcp/functions/prod.billing tools=refund",
            "sql_warehouse/w2",
            "sql_warehouse/w3 as=user",
            "genie_space/s1 as=caller",
            "volume/prod.docs.files effect=read",
            "mcp/external/crm",
            "secrets.get secret/s/k",
        ],
        around,
        &[
            (
                4,
                &[
                    "`",
                    "sql_warehouse/w2",
                    "resources.apps.agent.resources",
                    "sql_warehouse: {id: \"w2\", permission: CAN_USE}",
                ],
            ),
            (
                6,
                &["genie_space: {name: NAME, space_id: \"s1\", permission: CAN_RUN}"],
            ),
            (7, &["securable_type: VOLUME, permission:"]),
            (
                8,
                &[
                    "securable_full_name: crm, securable_type: CONNECTION, permission: USE_CONNECTION",
                ],
            ),
            (9, &["secret: {scope: s, key: k"]),
        ],
    );
    check_around(
        &[
            "sql_warehouse/w1 as=deny",
            "vector_search_index/* as=user",
            "mcp.functions.* as=user",
        ],
        around,
        &[(
            10,
            &[
                "resources.apps.agent.resources (wh)",
                "every route for sql_warehouse/w1 denies it",
            ],
        )],
    );
}

#[test]
fn the_starter_policy_and_derived_routes_are_left_alone() {
    assert!(
        lint(
            &starter(catalog(), Settings::default()),
            Surroundings::default()
        )
        .is_empty()
    );
    let derived = [source("mlflow.* as=caller", 0), source("mlflow.*", 0)];
    let policy = compile(&derived, catalog(), Settings::default()).unwrap();
    assert!(lint(&policy, Surroundings::default()).is_empty());
}

#[test]
fn ten_thousand_routes_are_compared_in_the_time_of_a_reload() {
    let routes: Vec<RouteSource> = (1..=10_000)
        .map(|n| source(&format!("sql_warehouse/w{n} as=user"), n))
        .collect();
    let policy = compile(&routes, catalog(), Settings::default()).unwrap();
    let start = std::time::Instant::now();
    assert!(lint(&policy, Surroundings::default()).is_empty());
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// Method, target, body, and the kind of what its follow-up id stands for; `ID` and `TOOL` are replaced.
const CALLS: [(&str, &str, &str, &str); 24] = [
    (
        "POST",
        "/api/2.0/sql/statements",
        r#"{"warehouse_id": "ID", "kind": "a"}"#,
        "",
    ),
    ("GET", "/api/2.0/sql/statements/s1", "", "sql_warehouse"),
    ("GET", "/api/2.0/sql/warehouses/ID", "", ""),
    ("POST", "/api/2.0/sql/warehouses/ID/stop", "", ""),
    ("GET", "/api/2.0/sql/warehouses", "", ""),
    ("POST", "/api/2.0/mcp/genie/ID", "MESSAGE", ""),
    ("GET", "/api/2.0/mcp/genie/ID", "", ""),
    ("GET", "/api/2.0/genie/spaces/ID", "", ""),
    ("POST", "/api/2.0/mcp/functions/a/b", "MESSAGE", ""),
    ("POST", "/api/2.0/mcp/functions/A/b", "MESSAGE", ""),
    ("POST", "/api/2.0/mcp/functions/a/b/ID", "MESSAGE", ""),
    ("GET", "/api/2.0/mcp/functions/a/b", "", ""),
    ("GET", "/api/2.1/unity-catalog/functions/a.b.ID", "", ""),
    ("POST", "/api/2.0/otel/v1/traces", "", ""),
    ("GET", "/api/2.0/secrets/get?scope=a&key=ID", "", ""),
    ("GET", "/api/2.0/secrets/list?scope=ID", "", ""),
    (
        "POST",
        "/serving-endpoints/responses",
        r#"{"model": "ID", "tools": [{"type": "genie_space", "genie_space": {"id": "w1"}}]}"#,
        "",
    ),
    (
        "POST",
        "/serving-endpoints/ID/invocations",
        r#"{"kind": "b"}"#,
        "",
    ),
    ("GET", "/api/2.0/other/ID", "", ""),
    ("POST", "/api/2.0/other/ID", r#"{"kind": "a"}"#, ""),
    ("GET", "/api/2.2/jobs/runs/get?run_id=1", "", "job"),
    ("POST", "/api/2.0/mcp/sql", "MESSAGE", ""),
    (
        "POST",
        "/api/2.0/mlflow/runs/update",
        r#"{"run_id": "r"}"#,
        "experiment",
    ),
    (
        "GET",
        "/api/2.0/mlflow/experiments/get?experiment_id=ID",
        "",
        "",
    ),
];

const MESSAGES: [&str; 5] = [
    r#"{"jsonrpc": "2.0", "method": "initialize"}"#,
    r#"{"jsonrpc": "2.0", "method": "resources/list"}"#,
    r#"{"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "f"}}"#,
    r#"{"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "a__b__w1"}}"#,
    r#"{"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "x__y__a__b__f"}}"#,
];

fn any_route() -> impl Strategy<Value = String> {
    let resource = prop_oneof![
        "(sql_warehouse|genie_space|serving_endpoint|job|experiment|mcp/genie|secret_scope|secret/a)/(w1|w\\*|\\*)",
        "(function|table)/a\\.(b\\.(w1|f|w\\*|\\*)|\\*|b\\*)",
        "mcp/(functions/a\\.(b|b\\.w1|b\\.w\\*|b\\*|\\*)|sql|\\*)",
        "schema/(a\\.b|a\\.\\*)",
        "function/\\*",
    ];
    let operation = prop_oneof![
        "(sql|sql\\.statements|mcp|mcp\\.functions|mcp\\.genie|genie|secrets|mlflow|jobs|serving)\\.\\*",
        "(sql\\.statements\\.execute|mcp\\.functions\\.call|secrets\\.get|sql\\.warehouses\\.stop|\\*)",
    ];
    let effect = prop_oneof![3 => Just(""), 1 => Just(" effect=read"), 1 => Just(" effect=write")];
    let tools = prop_oneof![2 => Just(""), 1 => Just(" tools=f"), 1 => Just(" tools=f,w1"), 1 => Just(" tools=a__b__w1")];
    let by_name = (
        prop::option::of(resource),
        prop::option::of(operation),
        effect,
        tools,
    );
    let by_name = by_name.prop_map(|(resource, operation, effect, tools)| {
        format!(
            "{} {}{effect}{tools}",
            resource.unwrap_or_default(),
            operation.unwrap_or_default()
        )
    });
    let path = prop_oneof![
        "/api/\\*\\*",
        "/api/2\\.0/(sql|mcp|other)/\\*\\*",
        "/api/2\\.0/sql/statements( warehouse_id=(w1|w1\\|w2|w2))?( kind=a)?",
        "/api/2\\.0/other/(\\{x\\}|w1)( kind=(a|a\\|b))?",
        "/serving-endpoints/(\\{x\\}/invocations|responses)( model=w1)?",
        "/api/2\\.0/sql/warehouses/\\{x\\}",
    ];
    let by_path =
        ("((GET|POST|GET,POST) )?", path).prop_map(|(methods, path)| format!("{methods}{path}"));
    let run_as = prop_oneof![Just("app"), Just("caller"), Just("deny")];
    (prop_oneof![by_name, by_path], run_as)
        .prop_map(|(on, run_as)| format!("{on} as={run_as} scope=sql"))
}

/// The policy of those routes that are sound by themselves.
fn sound(texts: &[String]) -> Vec<RouteSource> {
    let sources = texts.iter().zip(1..).map(|(text, line)| source(text, line));
    sources
        .filter(|route| {
            compile(std::slice::from_ref(route), catalog(), Settings::default()).is_ok()
        })
        .collect()
}

/// Makes one of [`CALLS`] and hands it to `look`, unless it is refused before any decision.
fn with_call(which: (usize, usize), id: &str, known: bool, look: impl FnOnce(&Call<'_>)) {
    let (method, target, body, bound) = CALLS[which.0];
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let target = target.replace("ID", id);
    let (path, query) = target
        .split_once('?')
        .map_or((&*target, None), |(p, q)| (p, Some(q)));
    let path = CanonicalPath::parse(path).unwrap();
    let body = body.replace("MESSAGE", MESSAGES[which.1]).replace("ID", id);
    let body: Value = serde_json::from_str(&body).unwrap_or(json!(null));
    let mut headers = HeaderMap::new();
    let table = HeaderValue::from_str(&format!("a.b.{id}")).unwrap();
    headers.insert("x-databricks-uc-table-name", table);
    let request = Request {
        path: &path,
        query,
        headers: &headers,
        body: Some(&body),
    };
    let follow_up = match bound {
        "" => FollowUpView::None,
        _ if !known => FollowUpView::Unknown,
        kind => FollowUpView::Bound(Bound {
            owner: Owner::App,
            resource: Some(ResourceId {
                kind: kind.into(),
                id: id.into(),
            }),
        }),
    };
    let catalog = catalog();
    let operation = catalog.find(&method, &path);
    let touches = operation.map_or_else(
        || Ok(Vec::new()),
        |(_, o)| touch::touches(o, &request, &follow_up),
    );
    let Ok(touches) = touches else { return };
    look(&Call {
        method: &method,
        destination: &Destination::Workspace,
        path: &path,
        body: Some(&body),
        caller: CallerView::App,
        operation,
        touches: &touches,
        follow_up: &follow_up,
        partition: Partition::None,
        now: Timestamp::UNIX_EPOCH,
    });
}

fn verdict(policy: &Policy, call: &Call<'_>) -> Cow<'static, str> {
    match decide(policy, call) {
        Ok(grant) => Cow::Owned(grant.route().name.to_string()),
        Err(denial) => Cow::Owned(format!(
            "{} {:?}",
            denial.reason.code(),
            denial.route.map(|r| Arc::clone(&r.name))
        )),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_route_out_of_reach_never_decides_and_nobody_misses_it(
        texts in prop::collection::vec(any_route(), 2..10),
        calls in prop::collection::vec((0..CALLS.len(), 0..MESSAGES.len(), "w1|w2|w|f|W1", any::<bool>()), 60),
    ) {
        let routes = sound(&texts);
        let policy = compile(&routes, catalog(), Settings::default()).unwrap();
        let mut shadows = shadow::Shadows::of(&policy);
        shadows.find(&mut Vec::new());
        let lost = shadows.out_of_reach;
        let kept: Vec<RouteSource> = routes.iter().enumerate().filter(|(i, _)| !lost.contains(i)).map(|(_, r)| r.clone()).collect();
        let without = compile(&kept, catalog(), Settings::default()).unwrap();
        for (which, message, id, known) in calls {
            with_call((which, message), &id, known, |call| {
                // A lost deny may still be the one that refuses what nothing else allows.
                if call.operation.is_some_and(|(_, o)| o.effect == Effect::Admin) && decide(&policy, call).is_err() {
                    assert!(decide(&without, call).is_err(), "{texts:?}");
                    return;
                }
                let touches: &[Touch<'_>] = if call.touches.is_empty() { &[Touch::NOTHING] } else { call.touches };
                for touch in touches {
                    let first = policy.first(call, touch);
                    let index = first.and_then(|first| policy.routes().iter().position(|r| Arc::ptr_eq(r, first)));
                    assert!(index.is_none_or(|index| !lost.contains(&index)), "{index:?} {texts:?} {} {}", call.method, call.path.as_str());
                }
                assert_eq!(verdict(&policy, call), verdict(&without, call), "{texts:?}");
            });
        }
    }
}

//! The decision against a naive oracle, and by the cases that matter most.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::super::ask::{self, Resource, touch};
use super::super::compile::{Settings, compile, starter};
use super::super::identity::UserId;
use super::super::route::RouteSource;
use super::*;
use serde_json::Value;

mod nouns;
mod properties;
mod upstreams;

fn catalog() -> Arc<Catalog> {
    static CATALOG: std::sync::OnceLock<Arc<Catalog>> = std::sync::OnceLock::new();
    Arc::clone(CATALOG.get_or_init(|| Catalog::built_in().unwrap()))
}

fn route(name: &str, run_as: RunAs, change: impl FnOnce(&mut RouteSource)) -> RouteSource {
    let mut source = RouteSource {
        name: name.into(),
        line: 0,
        resource: None,
        operation: None,
        methods: vec![],
        path: None,
        body: BTreeMap::new(),
        tools: vec![],
        effect: None,
        run_as,
        scope: None,
    };
    change(&mut source);
    source
}

fn on_resource(name: &str, run_as: RunAs, resource: &str) -> RouteSource {
    route(name, run_as, |r| r.resource = Some(resource.into()))
}

/// Decides a request as text: `app` or a user with scopes; the answer is `route/identity` or the reason.
fn ask(policy: &Policy, caller: &str, method: Method, target: &str, body: Option<Value>) -> String {
    ask_follow_up(policy, caller, method, target, body, FollowUpView::None)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the cases read better without `&`"
)]
fn ask_follow_up(
    policy: &Policy,
    caller: &str,
    method: Method,
    target: &str,
    body: Option<Value>,
    follow_up: FollowUpView,
) -> String {
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(p, q)| (p, Some(q)));
    let path = CanonicalPath::parse(path).unwrap();
    let operation = policy.catalog().find(&method, &path);
    let (subject, scopes) = (
        UserId::parse("alice").unwrap(),
        ScopeSet::parse(caller.split_whitespace()),
    );
    let request = ask::Request {
        path: &path,
        query,
        headers: &http::HeaderMap::new(),
        body: body.as_ref(),
    };
    let touches = operation
        .map_or_else(
            || Ok(vec![]),
            |(_, o)| touch::touches(o, &request, &follow_up),
        )
        .unwrap();
    let caller = if caller == "app" {
        CallerView::App
    } else {
        CallerView::User {
            subject: &subject,
            scopes: &scopes,
        }
    };
    let call = Call {
        method: &method,
        destination: &Destination::Workspace,
        path: &path,
        body: body.as_ref(),
        caller,
        operation,
        touches: &touches,
        follow_up: &follow_up,
        partition: Partition::None,
        now: Timestamp::UNIX_EPOCH,
    };
    match decide(policy, &call) {
        Ok(grant) => {
            let would = grant.would_deny().map(DenyReason::code);
            let would = would.map_or_else(String::new, |reason| format!(" would be {reason}"));
            let identity = grant.identity().as_str();
            format!("{}/{identity}{would}", grant.route().name)
        }
        Err(denial) => denial.reason.code().to_owned(),
    }
}

fn sample() -> Policy {
    let routes = [
        on_resource(
            "no-secret",
            RunAs::Deny,
            "vector_search_index/prod.secret.*",
        ),
        on_resource("shared", RunAs::App, "vector_search_index/prod.docs.index"),
        on_resource("sql", RunAs::User, "sql_warehouse/w1"),
        on_resource("model", RunAs::Caller, "serving_endpoint/m*"),
        route("traces", RunAs::App, |r| {
            r.operation = Some("mlflow.*".into())
        }),
        route("raw", RunAs::User, |r| {
            r.methods = vec!["GET".into()];
            r.path = Some("/api/2.0/workspace/get-status".into());
            r.scope = Some("workspace".into());
        }),
        route("raw-body", RunAs::App, |r| {
            r.methods = vec!["POST".into()];
            r.path = Some("/api/2.0/custom/{x}".into());
            r.body = BTreeMap::from([("kind".into(), vec!["a".into(), "b".into()])]);
        }),
    ];
    compile(&routes, catalog(), Settings::default()).unwrap()
}

const STATEMENTS: &str = "/api/2.0/sql/statements";

#[test]
fn the_first_matching_route_names_the_identity() {
    let policy = sample();
    let check = |caller: &str, method: Method, target: &str, body: Value, expected: &str| {
        let body = Some(body).filter(|body| !body.is_null());
        let answer = ask(&policy, caller, method, target, body);
        assert_eq!(answer, expected, "{caller} {target}");
    };
    let statement = |w: &str| json!({"warehouse_id": w});
    let (get, post, none) = (|| Method::GET, || Method::POST, || Value::Null);
    check("sql", post(), STATEMENTS, statement("w1"), "sql/user");
    check("sql", post(), STATEMENTS, statement("w2"), "no_route");
    check(
        "genie",
        post(),
        STATEMENTS,
        statement("w1"),
        "scope_missing",
    );
    check("app", post(), STATEMENTS, statement("w1"), "user_required");
    let index = |name: &str| format!("/api/2.0/vector-search/indexes/{name}/query");
    check(
        "sql",
        get(),
        &index("prod.docs.index"),
        none(),
        "shared/app",
    );
    check(
        "app",
        get(),
        &index("prod.secret.x"),
        none(),
        "route_denies",
    );
    let endpoint = |name: &str| format!("/serving-endpoints/{name}/invocations");
    check(
        "model-serving",
        post(),
        &endpoint("m1"),
        none(),
        "model/user",
    );
    check("app", post(), &endpoint("x"), none(), "no_route");
    let model = json!({"model": "m2"});
    check(
        "app",
        post(),
        "/serving-endpoints/chat/completions",
        model,
        "model/app",
    );
    check(
        "sql",
        post(),
        "/api/2.0/mlflow/runs/update",
        none(),
        "traces/app",
    );
    let (status, scope) = ("/api/2.0/workspace/get-status", "workspace.workspace");
    check(
        scope,
        get(),
        &format!("{status}?path=/x"),
        none(),
        "raw/user",
    );
    check(scope, post(), status, none(), "no_route");
    let custom = "/api/2.0/custom/y";
    check("app", post(), custom, json!({"kind": "a"}), "raw-body/app");
    check("app", post(), custom, json!({"kind": "c"}), "no_route");
    check("app", post(), custom, json!({"kind": ["a"]}), "no_route");
}

#[test]
fn admin_operations_are_never_reached_by_a_resource_alone() {
    let policy = sample();
    assert_eq!(
        ask(
            &policy,
            "sql",
            Method::POST,
            "/api/2.0/sql/warehouses/w1/edit",
            None
        ),
        "no_route"
    );
    assert_eq!(
        ask(
            &policy,
            "sql",
            Method::POST,
            "/api/2.0/sql/warehouses/w1/start",
            None
        ),
        "sql/user"
    );
}

#[test]
fn a_statement_belongs_to_whoever_created_it() {
    let policy = compile(
        &[
            on_resource("sql", RunAs::User, "sql_warehouse/w1"),
            route("any-sql", RunAs::App, |r| {
                r.operation = Some("sql.*".into())
            }),
        ],
        catalog(),
        Settings::default(),
    )
    .unwrap();
    let bound = |owner, warehouse: &str| {
        FollowUpView::Bound(Bound {
            owner,
            resource: Some(ask::ResourceId {
                kind: "sql_warehouse".into(),
                id: warehouse.into(),
            }),
        })
    };
    let user = |name: &str| Owner::User(UserId::parse(name).unwrap());
    let get = |caller: &str, follow_up| {
        ask_follow_up(
            &policy,
            caller,
            Method::GET,
            "/api/2.0/sql/statements/s1",
            None,
            follow_up,
        )
    };
    assert_eq!(get("sql", bound(user("alice"), "w1")), "sql/user");
    assert_eq!(get("sql", bound(user("bob"), "w1")), "follow_up_foreign");
    assert_eq!(get("sql", bound(Owner::App, "w2")), "follow_up_foreign");
    assert_eq!(
        get("sql", bound(user("alice"), "w2")),
        "any-sql/app",
        "the warehouse it ran on decides"
    );
    assert_eq!(get("app", bound(Owner::App, "w2")), "any-sql/app");
    assert_eq!(get("app", FollowUpView::Unknown), "follow_up_unknown");
}

#[test]
fn the_starter_policy_lets_every_caller_be_itself_and_nobody_be_admin() {
    let policy = starter(catalog(), Settings::default());
    assert_eq!(
        ask(
            &policy,
            "sql",
            Method::POST,
            STATEMENTS,
            Some(json!({"warehouse_id": "w"}))
        ),
        "starter/user"
    );
    assert_eq!(
        ask(
            &policy,
            "app",
            Method::POST,
            STATEMENTS,
            Some(json!({"warehouse_id": "w"}))
        ),
        "starter/app"
    );
    assert_eq!(
        ask(
            &policy,
            "sql",
            Method::GET,
            "/api/2.0/mlflow/runs/get",
            None
        ),
        "scope_missing"
    );
    assert_eq!(
        ask(&policy, "app", Method::POST, "/api/2.0/token/create", None),
        "no_route"
    );
    assert_eq!(
        ask(&policy, "app", Method::POST, "/api/2.0/permissions/x", None),
        "no_route"
    );
    assert_eq!(
        ask(&policy, "app", Method::GET, "/api/2.0/unknown", None),
        "no_route"
    );
    assert_eq!(
        ask(
            &policy,
            "files",
            Method::POST,
            "/api/2.0/fs/create-download-url?path=/Volumes/a/b/c/d",
            None
        ),
        "presigned_refused"
    );
    assert_eq!(
        ask(&policy, "app", Method::GET, "/api/2.0/x%2Fy", None),
        "path_escape"
    );
    assert_eq!(
        ask(
            &policy,
            "files",
            Method::GET,
            "/api/2.0/fs/files/Volumes/a/b/c/x%2Fy",
            None
        ),
        "starter/user"
    );
}

#[test]
fn every_reason_has_its_own_name() {
    let mut codes: Vec<_> = DenyReason::ALL.iter().map(|r| r.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), DenyReason::ALL.len());
}

#[test]
fn the_scopes_that_user_routes_need_are_known() {
    let scopes = sample().user_scopes();
    for (scope, needed) in [
        ("sql", true),
        ("model-serving", true),
        ("workspace.workspace", true),
        ("vector-search", false),
        ("mlflow", false),
    ] {
        assert_eq!(
            scopes.covers(&Scope::parse(scope).unwrap()),
            needed,
            "{scope}"
        );
    }
}

fn any_route() -> impl Strategy<Value = RouteSource> {
    let run_as = prop_oneof![
        Just(RunAs::App),
        Just(RunAs::User),
        Just(RunAs::Caller),
        Just(RunAs::Deny)
    ];
    let matcher = prop_oneof![
        prop_oneof![
            "sql_warehouse/w[12]",
            "sql_warehouse/w\\*",
            "sql_warehouse/(w1|wü|w)\\*",
            "sql_warehouse/\\*",
            "app/(w1|w|)\\*",
            "serving_endpoint/m[12]",
            "serving_endpoint/\\*"
        ]
        .prop_map(|r| (Some(r), None, None, BTreeMap::new())),
        prop_oneof![
            "sql\\.\\*",
            "sql\\.statements\\.execute",
            "serving\\.\\*",
            "\\*"
        ]
        .prop_map(|o| (None, Some(o), None, BTreeMap::new())),
        ("sql_warehouse/w[12]", "sql\\.statements\\.\\*").prop_map(|(r, o)| (
            Some(r),
            Some(o),
            None,
            BTreeMap::new()
        )),
        (
            prop_oneof![
                "/api/\\*\\*",
                "/api/2\\.0/sql/statements",
                "/serving-endpoints/\\{x\\}/invocations"
            ],
            prop::collection::btree_map(
                "warehouse_id|model|count|flag",
                prop::collection::vec("w[12]|m1|7|true", 0..3),
                0..3
            )
        )
            .prop_map(|(p, b)| (None, None, Some(p), b)),
    ];
    (run_as, matcher).prop_map(|(run_as, (resource, operation, path, body))| {
        route("r", run_as, |r| {
            r.resource = resource;
            r.operation = operation;
            r.path = path;
            r.scope = r.path.as_ref().map(|_| "sql".into());
            r.body = body;
        })
    })
}

proptest! {
    #[test]
    fn the_index_gives_the_answer_of_the_ordered_list(routes in prop::collection::vec(any_route(), 0..12), which in 0usize..7, id in "w[123]|wü|w|m[12]", flag in any::<bool>()) {
        let policy = compile(&routes, catalog(), Settings::default()).unwrap();
        let (method, target, kind) = [
            (Method::POST, "/api/2.0/sql/statements", Some("sql_warehouse")),
            (Method::GET, "/api/2.0/sql/warehouses", None),
            (Method::POST, "/serving-endpoints/m1/invocations", Some("serving_endpoint")),
            (Method::POST, "/serving-endpoints/chat/completions", Some("serving_endpoint")),
            (Method::GET, "/api/2.0/other", None),
            (Method::POST, "/api/2.0/token/create", None),
            (Method::POST, "/@tools/api/2.0/sql/statements", Some("app")),
        ][which].clone();
        let (destination, path) = upstreams::configured().read(target).unwrap();
        let body = json!({"warehouse_id": id, "model": id, "count": 7, "flag": flag});
        let touches: Vec<Touch<'_>> = kind.into_iter().map(|kind| Touch { resource: Some(Resource { kind, id: Cow::Borrowed(&id) }), ..Touch::NOTHING }).collect();
        let operation = destination.operation(policy.catalog(), &method, &path);
        let call = Call { method: &method, destination: &destination, path: &path, body: Some(&body), caller: CallerView::App, operation, touches: &touches, follow_up: &FollowUpView::None, partition: Partition::None, now: Timestamp::UNIX_EPOCH };
        let touch = touches.first().unwrap_or(&Touch::NOTHING);
        let by_index = policy.first(&call, touch).map(Arc::as_ptr);
        let naive = policy.first_naive(&call, touch).map(Arc::as_ptr);
        prop_assert_eq!(by_index, naive);
        for route in policy.routes() {
            prop_assert_eq!(route.on.matches(&call, touch), route.on.misses(&call, touch).is_empty());
        }
    }

    #[test]
    fn adding_a_deny_never_allows_more(routes in prop::collection::vec(any_route(), 0..8), at in 0usize..8, deny in any_route(), which in 0usize..3) {
        let mut with = routes.clone();
        with.insert(at.min(routes.len()), RouteSource { run_as: RunAs::Deny, ..deny });
        let (before, after) = (compile(&routes, catalog(), Settings::default()).unwrap(), compile(&with, catalog(), Settings::default()).unwrap());
        let (method, target) = [(Method::POST, STATEMENTS), (Method::POST, "/serving-endpoints/m1/invocations"), (Method::GET, "/api/2.0/sql/warehouses")][which].clone();
        let allowed = |policy: &Policy| ask(policy, "app", method.clone(), target, Some(json!({"warehouse_id": "w1"}))).contains('/');
        prop_assert!(allowed(&before) || !allowed(&after));
    }
}

//! What routes say in the platform's nouns: effects, second names, tools, partitions, shared ids, an observed policy.

use super::*;

fn compiled(routes: &[RouteSource]) -> Policy {
    compile(routes, catalog(), Settings::default()).unwrap_or_else(|p| panic!("{p:#?}"))
}

fn tool_call(name: &str) -> Option<Value> {
    Some(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}))
}

fn say(method: &str) -> Option<Value> {
    Some(json!({"jsonrpc": "2.0", "id": 1, "method": method}))
}

#[test]
fn a_route_for_reading_lets_nothing_be_written() {
    let policy = compiled(&[route("docs", RunAs::App, |r| {
        r.resource = Some("volume/Main.docs.files".into());
        r.effect = Some(Effect::Read);
    })]);
    let file = "/api/2.0/fs/files/Volumes/main/docs/files/a.txt";
    for (method, expected) in [
        (Method::GET, "docs/app"),
        (Method::HEAD, "docs/app"),
        (Method::PUT, "no_route"),
        (Method::DELETE, "no_route"),
    ] {
        assert_eq!(
            ask(&policy, "app", method.clone(), file, None),
            expected,
            "{method}"
        );
    }
    let shouted = "/api/2.0/fs/files/Volumes/MAIN/Docs/files/a.txt";
    assert_eq!(ask(&policy, "app", Method::GET, shouted, None), "docs/app");
}

#[test]
fn a_deny_for_a_catalogue_name_holds_in_any_letter_case() {
    let policy = compiled(&[
        on_resource("no", RunAs::Deny, "table/prod.hr.*"),
        on_resource("tables", RunAs::App, "table/*"),
    ]);
    for name in ["prod.hr.pay", "PROD.hr.pay", "prod.HR.Pay"] {
        let target = format!("/api/2.1/unity-catalog/tables/{name}");
        assert_eq!(
            ask(&policy, "app", Method::GET, &target, None),
            "route_denies",
            "{name}"
        );
    }
}

#[test]
fn a_managed_server_over_a_space_is_that_space() {
    let policy = compiled(&[on_resource("space", RunAs::User, "genie_space/s1")]);
    let post = |path: &str, body| ask(&policy, "genie", Method::POST, path, body);
    assert_eq!(
        post("/api/2.0/mcp/genie/s1", say("initialize")),
        "space/user"
    );
    assert_eq!(
        post("/api/2.0/mcp/genie/s1", tool_call("query_space")),
        "space/user"
    );
    assert_eq!(
        post("/api/2.0/mcp/genie/s2", tool_call("query_space")),
        "no_route"
    );
    let direct = "/api/2.0/genie/spaces/s1/start-conversation";
    assert_eq!(post(direct, Some(json!({"content": "x"}))), "space/user");
}

#[test]
fn a_list_of_tools_lets_each_of_them_and_the_handshake_through() {
    let policy = compiled(&[route("billing", RunAs::App, |r| {
        r.resource = Some("mcp/functions/prod.billing".into());
        r.tools = vec!["refund_lookup".into()];
    })]);
    let path = "/api/2.0/mcp/functions/prod/billing";
    let post = |body| ask(&policy, "app", Method::POST, path, body);
    assert_eq!(post(say("initialize")), "billing/app");
    assert_eq!(post(say("tools/list")), "billing/app");
    assert_eq!(
        post(tool_call("prod__billing__refund_lookup")),
        "billing/app"
    );
    assert_eq!(post(tool_call("prod__billing__refund")), "no_route");
    assert_eq!(post(say("resources/read")), "no_route");
    let batch = |last| {
        let call = tool_call("prod__billing__refund_lookup").unwrap();
        Some(json!([say("tools/list").unwrap(), call, last]))
    };
    assert_eq!(post(batch(say("ping").unwrap())), "billing/app");
    let foreign = tool_call("prod__billing__pay_out").unwrap();
    assert_eq!(
        post(batch(foreign)),
        "no_route",
        "all of a batch must be allowed"
    );
    assert_eq!(ask(&policy, "app", Method::GET, path, None), "billing/app");
    assert_eq!(
        ask(&policy, "app", Method::DELETE, path, None),
        "billing/app"
    );
}

#[test]
fn a_function_is_reached_through_its_schema_only_by_its_own_tool() {
    let policy = compiled(&[on_resource(
        "refund",
        RunAs::App,
        "function/prod.billing.refund_lookup",
    )]);
    let schema = "/api/2.0/mcp/functions/prod/billing";
    let post = |path: &str, body| ask(&policy, "app", Method::POST, path, body);
    assert_eq!(
        post(schema, tool_call("prod__billing__refund_lookup")),
        "refund/app"
    );
    assert_eq!(post(schema, tool_call("prod__billing__other")), "no_route");
    assert_eq!(post(schema, say("tools/list")), "no_route");
    let own = format!("{schema}/refund_lookup");
    assert_eq!(post(&own, say("tools/list")), "refund/app");
    assert_eq!(
        post(&format!("{schema}/other"), say("tools/list")),
        "no_route"
    );
}

#[test]
fn every_thing_in_one_call_must_be_allowed_and_as_one_identity() {
    let model = on_resource("model", RunAs::Caller, "serving_endpoint/m");
    let space = |run_as| on_resource("space", run_as, "genie_space/g");
    let call = |routes: &[RouteSource], caller: &str, tools: Value| {
        let body = json!({"model": "m", "input": "x", "tools": tools});
        let path = "/ai-gateway/mlflow/v1/responses";
        ask(&compiled(routes), caller, Method::POST, path, Some(body))
    };
    let genie = json!([{"type": "genie_space", "genie_space": {"id": "g"}}]);
    let routes = [model.clone(), space(RunAs::App)];
    assert_eq!(call(&routes, "app", genie.clone()), "model/app");
    assert_eq!(
        call(&routes, "ai-gateway", genie.clone()),
        "resources_disagree"
    );
    let alone = std::slice::from_ref(&model);
    assert_eq!(call(alone, "app", genie.clone()), "no_route");
    // What a response hosts counts under the user's ceiling too.
    let both = [model.clone(), space(RunAs::Caller)];
    assert_eq!(call(&both, "ai-gateway genie", genie.clone()), "model/user");
    assert_eq!(call(&both, "ai-gateway", genie), "scope_missing");
    assert_eq!(call(&[model], "app", json!([])), "model/app");
}

#[test]
fn a_run_belongs_to_its_experiment_and_to_nobody_in_particular() {
    let policy = compiled(&[on_resource("traces", RunAs::App, "experiment/7")]);
    let of = |experiment: &str, owner| {
        FollowUpView::Bound(Bound {
            owner,
            resource: Some(ask::ResourceId {
                kind: "experiment".into(),
                id: experiment.into(),
            }),
        })
    };
    let update = |caller: &str, follow_up| {
        let body = Some(json!({"run_id": "r1", "status": "FINISHED"}));
        let path = "/api/2.0/mlflow/runs/update";
        ask_follow_up(&policy, caller, Method::POST, path, body, follow_up)
    };
    let bob = Owner::User(UserId::parse("bob").unwrap());
    assert_eq!(update("app", of("7", Owner::App)), "traces/app");
    assert_eq!(update("app", of("7", bob)), "traces/app");
    assert_eq!(update("app", of("8", Owner::App)), "no_route");
    assert_eq!(update("app", FollowUpView::Unknown), "follow_up_unknown");
}

#[test]
fn a_partition_that_is_not_the_users_own_is_refused() {
    let policy = compiled(&[on_resource(
        "memory",
        RunAs::App,
        "memory_store/main.agents.memory",
    )]);
    let path =
        CanonicalPath::parse("/api/2.1/unity-catalog/memory-stores/main.agents.memory/entries");
    let path = path.unwrap();
    let operation = policy.catalog().find(&Method::GET, &path);
    let headers = http::HeaderMap::new();
    let request = ask::Request {
        path: &path,
        query: Some("scope=alice"),
        headers: &headers,
        body: None,
    };
    let touches = touch::touches(operation.unwrap().1, &request, &FollowUpView::None).unwrap();
    for (partition, expected) in [
        (Partition::Own, Ok(())),
        (Partition::Foreign, Err(DenyReason::PartitionForeign)),
    ] {
        let call = Call {
            method: &Method::GET,
            destination: &Destination::Workspace,
            path: &path,
            body: None,
            caller: CallerView::App,
            operation,
            touches: &touches,
            follow_up: &FollowUpView::None,
            partition,
            now: Timestamp::UNIX_EPOCH,
        };
        let answer = decide(&policy, &call)
            .map(|_| ())
            .map_err(|denial| denial.reason);
        assert_eq!(answer, expected);
    }
}

#[test]
fn an_observed_policy_lets_denials_through_as_whoever_calls_until_its_date() {
    let until: Timestamp = "1970-01-02T00:00:00Z".parse().unwrap();
    let settings = Settings {
        observe_until: Some(until),
        ..Settings::default()
    };
    let routes = [
        on_resource("mine", RunAs::User, "sql_warehouse/w1"),
        on_resource("no", RunAs::Deny, "sql_warehouse/w2"),
    ];
    let policy = compile(&routes, catalog(), settings).unwrap();
    let statement = |w: &str| Some(json!({"warehouse_id": w, "statement": "s"}));
    let post = |caller: &str, w| ask(&policy, caller, Method::POST, STATEMENTS, statement(w));
    assert_eq!(post("sql", "w1"), "mine/user");
    assert_eq!(post("app", "w1"), "mine/app would be user_required");
    assert_eq!(post("sql", "w2"), "no/user would be route_denies");
    assert_eq!(post("app", "w3"), "observed/app would be no_route");
    let get = |target: &str| ask(&policy, "app", Method::GET, target, None);
    assert_eq!(get("/api/2.0/unknown"), "observed/app would be no_route");
    assert_eq!(
        get("/api/2.0/x%2Fy"),
        "path_escape",
        "one reading holds always"
    );
    let (statement_of, unknown) = ("/api/2.0/sql/statements/s1", FollowUpView::Unknown);
    let unknown = ask_follow_up(&policy, "app", Method::GET, statement_of, None, unknown);
    assert_eq!(
        unknown, "follow_up_unknown",
        "what keeps users apart holds always"
    );
    let token = ask(&policy, "app", Method::POST, "/api/2.0/token/create", None);
    assert_eq!(
        token, "no_route",
        "what hands out credentials is never merely observed"
    );
    let over = compile(
        &routes,
        catalog(),
        Settings {
            observe_until: Some(Timestamp::UNIX_EPOCH),
            ..Settings::default()
        },
    );
    let late = ask(
        &over.unwrap(),
        "app",
        Method::POST,
        STATEMENTS,
        statement("w3"),
    );
    assert_eq!(late, "no_route");
}

#[test]
fn credentials_for_lakebase_are_minted_only_by_the_full_name_and_for_the_named_branch() {
    let branch = "postgres/projects/p/branches/main";
    let policy = compiled(&[
        route("mint", RunAs::App, |r| {
            r.operation = Some("postgres.credentials.create".into());
            r.resource = Some(branch.into());
        }),
        on_resource("look", RunAs::App, branch),
        on_resource("instance", RunAs::App, "database/pg1"),
    ]);
    let mint = |endpoint: &str| {
        let body = Some(json!({"endpoint": endpoint}));
        ask(
            &policy,
            "app",
            Method::POST,
            "/api/2.0/postgres/credentials",
            body,
        )
    };
    assert_eq!(mint("projects/p/branches/main/endpoints/rw"), "mint/app");
    assert_eq!(mint("projects/p/branches/dev/endpoints/rw"), "no_route");
    let provisioned = Some(json!({"instance_names": ["pg1"]}));
    let path = "/api/2.0/database/credentials";
    assert_eq!(
        ask(&policy, "app", Method::POST, path, provisioned),
        "no_route"
    );
}

#[test]
fn the_nearest_route_that_lost_says_what_would_have_to_change() {
    let policy = compiled(&[
        on_resource("model", RunAs::App, "serving_endpoint/m"),
        on_resource("mine", RunAs::User, "sql_warehouse/w1"),
        // As far from a write on its own warehouse as the route above is: the warehouse counts more.
        route("reads", RunAs::User, |r| {
            r.resource = Some("sql_warehouse/w2".into());
            r.effect = Some(Effect::Read);
        }),
    ]);
    let told = |warehouse: &str| {
        let body = json!({"warehouse_id": warehouse});
        let path = CanonicalPath::parse(STATEMENTS).unwrap();
        let operation = policy.catalog().find(&Method::POST, &path);
        let headers = http::HeaderMap::new();
        let request = ask::Request {
            path: &path,
            query: None,
            headers: &headers,
            body: Some(&body),
        };
        let touches = touch::touches(operation.unwrap().1, &request, &FollowUpView::None).unwrap();
        let call = Call {
            method: &Method::POST,
            destination: &Destination::Workspace,
            path: &path,
            body: Some(&body),
            caller: CallerView::App,
            operation,
            touches: &touches,
            follow_up: &FollowUpView::None,
            partition: Partition::None,
            now: Timestamp::UNIX_EPOCH,
        };
        let found = nearest::nearest(&policy, &call, None);
        found.map(|n| format!("{}: {}", n.route.name, n.differences()))
    };
    assert_eq!(
        told("w3").unwrap(),
        "mine: resource: sql_warehouse/w1 where the call has sql_warehouse/w3"
    );
    assert_eq!(
        told("w2").unwrap(),
        "reads: effect: read where the call has write"
    );
}

#[test]
fn a_broad_path_hands_out_no_tokens_and_a_deny_reaches_what_hands_them_out() {
    let raw = |path: &str| {
        route("raw", RunAs::App, |r| {
            r.path = Some(path.into());
        })
    };
    let token = |routes: &[RouteSource]| {
        let policy = compiled(routes);
        ask(&policy, "app", Method::POST, "/api/2.0/token/create", None)
    };
    assert_eq!(token(&[raw("/api/**")]), "no_route");
    assert_eq!(token(&[raw("/api/2.0/token/{what}")]), "no_route");
    assert_eq!(token(&[raw("/api/2.0/token/create")]), "raw/app");
    let permissions = compiled(&[raw("/api/2.0/permissions/jobs/{id}")]);
    let path = "/api/2.0/permissions/jobs/7";
    assert_eq!(ask(&permissions, "app", Method::PUT, path, None), "raw/app");
    let mint = route("mint", RunAs::App, |r| {
        r.operation = Some("database.credentials.create".into());
    });
    let instances = Some(json!({"instance_names": ["pg1"]}));
    for deny in [
        on_resource("no", RunAs::Deny, "database/pg1"),
        route("no", RunAs::Deny, |r| {
            r.operation = Some("database.*".into())
        }),
        route("no", RunAs::Deny, |r| {
            r.path = Some("/api/2.0/database/**".into())
        }),
    ] {
        let policy = compiled(&[deny, mint.clone()]);
        let path = "/api/2.0/database/credentials";
        let answer = ask(&policy, "app", Method::POST, path, instances.clone());
        assert_eq!(answer, "route_denies");
    }
}

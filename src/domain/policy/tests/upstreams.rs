//! Calls to upstreams: decided by routes for their app and by nothing else.

use super::*;
use crate::domain::destination::{Destination, Upstream, Upstreams};
use crate::domain::identity::Origin;
use crate::domain::lint::{Surroundings, lint};

/// `tools`, which is the app `tools-app`.
pub(super) fn configured() -> Upstreams {
    Upstreams::new(vec![Arc::new(Upstream {
        name: "tools".into(),
        app: "tools-app".into(),
        origin: Origin::parse("https://tools.example").unwrap(),
    })])
}

/// `route/identity` of a POST without a body that is read, or the reason.
fn ask_upstream(policy: &Policy, caller: &str, target: &str) -> String {
    ask_with(policy, caller, &Method::POST, target, None)
}

/// The same with any method; the body is read as the live proxy reads it.
fn ask_with(
    policy: &Policy,
    caller: &str,
    method: &Method,
    target: &str,
    body: Option<&Value>,
) -> String {
    let (destination, path) = configured().read(target).unwrap();
    let operation = destination.operation(policy.catalog(), method, &path);
    let upstream = match &destination {
        Destination::Upstream(upstream) => upstream,
        Destination::Workspace => panic!("{target}"),
    };
    let request = ask::Request {
        path: &path,
        query: None,
        headers: &http::HeaderMap::new(),
        body: body.filter(|_| policy.reads_upstream_body(method, upstream)),
    };
    let touches = match destination.touches(None, &request, &FollowUpView::None) {
        Ok(touches) => touches,
        Err(fault) => return fault.to_string(),
    };
    let subject = UserId::parse("alice").unwrap();
    let scopes = ScopeSet::parse(caller.split_whitespace());
    let caller = if caller == "app" {
        CallerView::App
    } else {
        CallerView::User {
            subject: &subject,
            scopes: &scopes,
        }
    };
    let call = Call {
        method,
        destination: &destination,
        path: &path,
        body: request.body,
        caller,
        operation,
        touches: &touches,
        follow_up: &FollowUpView::None,
        partition: Partition::None,
        now: Timestamp::UNIX_EPOCH,
    };
    match decide(policy, &call) {
        Ok(grant) => {
            assert_eq!(*grant.destination(), destination);
            format!("{}/{}", grant.route().name, grant.identity().as_str())
        }
        Err(denial) => denial.reason.code().to_owned(),
    }
}

fn policy(routes: &[RouteSource]) -> Policy {
    compile(routes, catalog(), Settings::default()).unwrap()
}

#[test]
fn a_route_for_the_app_decides_and_needs_no_scope_of_its_own() {
    for (run_as, of_app, of_user) in [
        (RunAs::App, "tools/app", "tools/app"),
        (RunAs::User, "user_required", "tools/user"),
        (RunAs::Caller, "tools/app", "tools/user"),
        (RunAs::Deny, "route_denies", "route_denies"),
    ] {
        let policy = policy(&[on_resource("tools", run_as, "app/tools-app")]);
        assert_eq!(ask_upstream(&policy, "app", "/@tools/mcp"), of_app);
        assert_eq!(ask_upstream(&policy, "genie", "/@tools/mcp"), of_user);
    }
}

#[test]
fn a_scope_that_the_route_names_is_needed() {
    let route = route("tools", RunAs::User, |r| {
        r.resource = Some("app/tools-*".into());
        r.scope = Some("sql".into());
    });
    let policy = policy(&[route]);
    assert_eq!(ask_upstream(&policy, "sql", "/@tools/mcp"), "tools/user");
    assert_eq!(
        ask_upstream(&policy, "genie", "/@tools/mcp"),
        "scope_missing"
    );
}

#[test]
fn routes_of_the_workspace_do_not_reach_an_upstream() {
    let everything = [
        route("raw", RunAs::App, |r| r.path = Some("/**".into())),
        route("raw-user", RunAs::User, |r| {
            r.path = Some("/{x}".into());
            r.scope = Some("sql".into());
        }),
        route("operations", RunAs::App, |r| r.operation = Some("*".into())),
        route("one", RunAs::App, |r| {
            r.operation = Some("apps.get".into());
            r.resource = Some("app/*".into());
        }),
        on_resource("other", RunAs::App, "app/tools"),
        on_resource("warehouse", RunAs::App, "sql_warehouse/tools-app"),
    ];
    let policy = policy(&everything);
    for target in [
        "/@tools/mcp",
        "/@tools/",
        "/@tools/api/2.0/sql/statements",
        "/@tools/api/2.0/apps/tools-app",
    ] {
        assert_eq!(ask_upstream(&policy, "app", target), "no_route", "{target}");
        assert_eq!(ask_upstream(&policy, "sql", target), "no_route", "{target}");
    }
    let settings = Settings {
        presigned_allowed: true,
        ..Settings::default()
    };
    let starter = starter(catalog(), settings);
    assert_eq!(ask_upstream(&starter, "app", "/@tools/mcp"), "no_route");
}

#[test]
fn a_route_for_the_app_does_not_make_a_call_of_the_workspace_cheaper() {
    let policy = policy(&[on_resource("tools", RunAs::Caller, "app/tools-app")]);
    let target = "/api/2.0/apps/tools-app";
    assert_eq!(ask(&policy, "app", Method::GET, target, None), "tools/app");
    let user = ask(&policy, "sql", Method::GET, target, None);
    assert_eq!(user, "scope_missing");
    assert_eq!(ask(&policy, "app", Method::GET, "/mcp", None), "no_route");
}

#[test]
fn escapes_that_a_server_may_read_as_structure_are_refused_there_too() {
    let policy = policy(&[on_resource("tools", RunAs::App, "app/tools-app")]);
    assert_eq!(ask_upstream(&policy, "app", "/@tools/a%2Fb"), "path_escape");
    assert_eq!(ask_upstream(&policy, "app", "/@tools/a%20b"), "tools/app");
}

#[test]
fn who_may_enter_an_app_need_not_hold_any_scope() {
    let sql = || on_resource("sql", RunAs::User, "sql_warehouse/w1");
    let tools = |run_as| on_resource("tools", run_as, "app/tools-app");
    let needs_none = |routes: &[RouteSource]| policy(routes).user_scopes() == ScopeSet::default();
    assert!(!needs_none(&[sql()]));
    assert!(needs_none(&[sql(), tools(RunAs::Caller)]));
    assert!(!needs_none(&[sql(), tools(RunAs::App)]));
    let scoped = route("tools", RunAs::User, |r| {
        r.resource = Some("app/tools-app".into());
        r.scope = Some("genie".into());
    });
    assert!(!needs_none(&[sql(), scoped]));
    let described = route("described", RunAs::User, |r| {
        r.resource = Some("app/tools-app".into());
        r.operation = Some("apps.get".into());
    });
    assert!(!needs_none(&[sql(), described]));
}

#[test]
fn upstreams_without_routes_and_routes_without_upstreams_are_warned_of() {
    let told = |routes: &[RouteSource]| {
        let upstreams = configured();
        let around = Surroundings {
            upstreams: Some(&upstreams),
            ..Surroundings::default()
        };
        let found = lint(&policy(routes), around);
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let reached = on_resource("tools", RunAs::App, "app/tools-*");
    assert_eq!(told(std::slice::from_ref(&reached)), [""; 0]);
    let unreached = "outbound.upstreams: no route lets anybody reach `tools` (add a route with `resource: app/tools-app`)";
    assert_eq!(told(&[]), [unreached]);
    let denied = on_resource("tools", RunAs::Deny, "app/tools-app");
    assert_eq!(told(&[denied]), [unreached]);
    let stray = on_resource("stray", RunAs::App, "app/strays");
    assert_eq!(
        told(&[reached, stray]),
        [
            "routes[1] (stray): names no upstream, so only the app's description can be asked for (add the app to \
             outbound.upstreams)"
        ]
    );
}

#[test]
fn what_the_app_credential_is_tried_with_is_what_calls_to_an_app_ask_for() {
    let policy = policy(&[on_resource("tools", RunAs::App, "app/tools-app")]);
    assert_eq!(policy.first_app_scope(), Scope::parse("all-apis"));
}

#[test]
fn a_raw_path_into_an_upstream_is_a_mistake_with_its_remedy() {
    let raw = route("raw", RunAs::App, |r| r.path = Some("/@tools/**".into()));
    let problems = compile(&[raw], catalog(), Settings::default())
        .map(|_| ())
        .unwrap_err();
    assert!(
        problems[0]
            .to_string()
            .contains("write `resource: app/NAME` instead"),
        "{problems:?}"
    );
}

fn call_of(tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}})
}

#[test]
fn a_route_that_lists_tools_covers_them_and_what_is_said_around_them() {
    let listing = route("listed", RunAs::User, |r| {
        r.resource = Some("app/tools-app".into());
        r.tools = vec!["look".into()];
    });
    let policy = policy(&[listing]);
    let says = |method: &Method, body: &Value| {
        ask_with(&policy, "genie", method, "/@tools/mcp", Some(body))
    };
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"});
    for body in [&call_of("look"), &hello, &json!([hello, call_of("look")])] {
        assert_eq!(says(&Method::POST, body), "listed/user", "{body}");
    }
    for body in [
        call_of("change"),
        json!([call_of("look"), call_of("change")]),
        json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read"}),
    ] {
        assert_eq!(says(&Method::POST, &body), "no_route", "{body}");
    }
    for body in [json!({"tool": "look"}), Value::Null, json!([])] {
        let refused = says(&Method::POST, &body);
        assert!(refused.contains("no MCP message"), "{body} {refused}");
    }
    for (method, expected) in [
        (Method::GET, "listed/user"),
        (Method::DELETE, "listed/user"),
        (Method::PUT, "no_route"),
        (Method::PATCH, "no_route"),
    ] {
        assert_eq!(says(&method, &call_of("change")), expected, "{method}");
    }
}

#[test]
fn a_body_is_read_only_where_a_route_for_that_app_lists_tools() {
    let tools = |resource: &str| {
        route("listed", RunAs::App, |r| {
            r.resource = Some(resource.into());
            r.tools = vec!["look".into()];
        })
    };
    let upstream = Arc::clone(configured().iter().next().unwrap());
    for (routes, reads) in [
        (vec![tools("app/tools-app")], true),
        (vec![tools("app/tools-*")], true),
        (
            vec![on_resource("all", RunAs::App, "app/*"), tools("app/*")],
            true,
        ),
        (
            vec![tools("app/other"), on_resource("all", RunAs::App, "app/*")],
            false,
        ),
        (vec![tools("mcp/functions/a.b")], false),
    ] {
        let policy = policy(&routes);
        assert_eq!(policy.reads_upstream_body(&Method::POST, &upstream), reads);
        assert!(!policy.reads_upstream_body(&Method::GET, &upstream));
    }
}

#[test]
fn an_observed_policy_lets_a_call_through_to_the_very_upstream_it_named() {
    let until: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    let settings = Settings {
        observe_until: Some(until),
        ..Settings::default()
    };
    let policy = compile(&[], catalog(), settings).unwrap();
    // `ask_with` also compares the destination of the grant with that of the call.
    assert!(ask_upstream(&policy, "genie", "/@tools/mcp").ends_with("/user"));
    assert_eq!(ask_upstream(&policy, "app", "/@tools/a%2Fb"), "path_escape");
}

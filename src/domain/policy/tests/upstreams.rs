//! Calls to upstreams: decided by routes for their app and by nothing else.

use super::*;
use crate::domain::compile::warnings;
use crate::domain::destination::{Upstream, Upstreams};
use crate::domain::identity::Origin;

/// `tools`, which is the app `tools-app`.
pub(super) fn configured() -> Upstreams {
    Upstreams::new(vec![Arc::new(Upstream {
        name: "tools".into(),
        app: "tools-app".into(),
        origin: Origin::parse("https://tools.example").unwrap(),
    })])
}

/// `route/identity` and where to, or the reason.
fn ask_upstream(policy: &Policy, caller: &str, target: &str) -> String {
    let (destination, path) = configured().read(target).unwrap();
    let method = Method::POST;
    let operation = destination.operation(policy.catalog(), &method, &path);
    let resources: Vec<Resource<'_>> = destination.resource().into_iter().collect();
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
        method: &method,
        destination: &destination,
        path: &path,
        body: None,
        caller,
        operation,
        resources: &resources,
        follow_up: &FollowUpView::None,
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
    compile(routes, catalog(), false).unwrap()
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
    let starter = starter(catalog(), true);
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
}

#[test]
fn upstreams_without_routes_and_routes_without_upstreams_are_warned_of() {
    let told = |routes: &[RouteSource]| {
        let found = warnings(&policy(routes), &configured());
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
    let problems = compile(&[raw], catalog(), false).map(|_| ()).unwrap_err();
    assert!(
        problems[0]
            .to_string()
            .contains("write `resource: app/NAME` instead"),
        "{problems:?}"
    );
}

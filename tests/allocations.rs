//! The hit path of a decision allocates nothing, however many routes there are (PERFORMANCE, issue 3).
//!
//! A binary of its own: counting needs its own allocator. `benches/decide.rs` counts the same for every kind of route, with times.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::hint::black_box;

use http::{HeaderMap, Method};
use serde_json::{Value, json};
use valetkey::domain::ask::{Call, CallerView, FollowUpView, Partition, Request, touch};
use valetkey::domain::catalog::Catalog;
use valetkey::domain::clock::Timestamp;
use valetkey::domain::compile::{Settings, compile};
use valetkey::domain::destination::Destination;
use valetkey::domain::identity::UserId;
use valetkey::domain::path::CanonicalPath;
use valetkey::domain::policy::{Policy, decide};
use valetkey::domain::route::{RouteSource, RunAs};
use valetkey::domain::scope::ScopeSet;

const ROUTES: usize = 10_000;

fn route(name: &str, resource: String) -> RouteSource {
    RouteSource {
        name: name.into(),
        line: 1,
        resource: Some(resource),
        operation: None,
        methods: Vec::new(),
        path: None,
        body: BTreeMap::new(),
        tools: Vec::new(),
        effect: None,
        run_as: RunAs::User,
        scope: None,
    }
}

fn policy() -> Policy {
    let mut routes: Vec<RouteSource> = (0..ROUTES)
        .map(|i| route(&format!("r{i}"), format!("sql_warehouse/w{i}")))
        .collect();
    let mut tools = route("tools", "mcp/functions/c.s".into());
    tools.tools = vec!["look_up".into()];
    routes.extend([tools, route("docs", "volume/main.docs.*".into())]);
    compile(&routes, Catalog::built_in().unwrap(), Settings::default()).unwrap()
}

/// How many allocations the decision on an allowed call makes.
fn allocations(policy: &Policy, method: &Method, target: &str, body: Option<&Value>) -> u64 {
    let path = CanonicalPath::parse(target).unwrap();
    let operation = policy.catalog().find(method, &path);
    let headers = HeaderMap::new();
    let request = Request {
        path: &path,
        query: None,
        headers: &headers,
        body,
    };
    let touches = touch::touches(operation.unwrap().1, &request, &FollowUpView::None).unwrap();
    let subject = UserId::parse("alice@example.com").unwrap();
    let scopes = ScopeSet::parse(["sql", "files", "mcp.functions"]);
    let call = Call {
        destination: &Destination::Workspace,
        method,
        path: &path,
        body,
        caller: CallerView::User {
            subject: &subject,
            scopes: &scopes,
        },
        operation,
        touches: &touches,
        follow_up: &FollowUpView::None,
        partition: Partition::None,
        now: Timestamp::UNIX_EPOCH,
    };
    assert!(decide(policy, &call).is_ok(), "{target}");
    let counted = allocation_counter::measure(|| {
        let _ = black_box(decide(policy, black_box(&call)));
    });
    counted.count_total
}

#[test]
fn an_allowed_call_is_decided_without_an_allocation() {
    let policy = policy();
    let statement = json!({"warehouse_id": format!("w{}", ROUTES - 1), "statement": "select 1"});
    let tool = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "c__s__look_up"}});
    let file = "/api/2.0/fs/files/Volumes/main/docs/files/a.txt";
    for (method, target, body) in [
        (Method::POST, "/api/2.0/sql/statements", Some(&statement)),
        (Method::POST, "/api/2.0/mcp/functions/c/s", Some(&tool)),
        (Method::GET, file, None),
    ] {
        assert_eq!(allocations(&policy, &method, target, body), 0, "{target}");
    }
}

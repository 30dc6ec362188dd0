//! What a decision costs, and the pure steps around it: `cargo bench --bench decide`.
//!
//! Measures floor 1 and the session table, without sockets; `hop.rs` measures whole requests. How to read the numbers is in
//! `benches/README.md`.
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;
use serde_json::{Value, json};
use valetkey::domain::ask::{self, Call, CallerView, FollowUpView, Partition, touch};
use valetkey::domain::audit::chain::Chain;
use valetkey::domain::audit::{self, Decision, Event, Identity, Record, Text};
use valetkey::domain::catalog::Catalog;
use valetkey::domain::clock::{Clock, SystemClock, Timestamp};
use valetkey::domain::compile::{Settings, compile};
use valetkey::domain::destination::Destination;
use valetkey::domain::identity::UserId;
use valetkey::domain::jwks::KeySet;
use valetkey::domain::path::CanonicalPath;
use valetkey::domain::policy::{Policy, decide};
use valetkey::domain::route::{RouteSource, RunAs};
use valetkey::domain::scope::ScopeSet;
use valetkey::domain::secret::Digest;
use valetkey::domain::token::{Expect, UnverifiedToken, verify};
use valetkey::runtime::metrics::Metrics;
use valetkey::runtime::session::{SessionFormat, SessionSettings, SessionTable};

use common::issuer::{AUDIENCE, Issuer, SCOPES};

mod common {
    pub mod issuer;
}

const ISSUER: &str = "https://workspace.example.com/oidc";

/// `count` routes: five kinds in turn, one that names a family of operations, and one that lists tools.
fn routes(count: usize) -> Vec<RouteSource> {
    let mut routes: Vec<RouteSource> = (0..count - 2).map(route).collect();
    let mut family = empty("family", RunAs::App);
    family.operation = Some("mlflow.*".into());
    routes.push(family);
    let mut server = empty("server", RunAs::App);
    server.resource = Some("mcp/functions/c.s".into());
    server.tools = vec!["look_up".into()];
    routes.push(server);
    routes
}

fn empty(name: &str, run_as: RunAs) -> RouteSource {
    RouteSource {
        name: name.into(),
        line: 1,
        resource: None,
        operation: None,
        methods: Vec::new(),
        path: None,
        body: BTreeMap::new(),
        tools: Vec::new(),
        effect: None,
        run_as,
        scope: None,
    }
}

fn route(i: usize) -> RouteSource {
    let mut route = empty(&format!("r{i}"), RunAs::User);
    match i % 5 {
        0 => route.resource = Some(format!("sql_warehouse/w{i}")),
        1 => route.resource = Some(format!("vector_search_index/c{i}.docs.*")),
        2 => {
            route.resource = Some(format!("serving_endpoint/m{i}"));
            route.operation = Some("serving.invocations".into());
        }
        3 => {
            route.methods = vec!["GET".into()];
            route.path = Some(format!("/api/2.0/custom/p{i}/{{id}}"));
            route.scope = Some("sql".into());
        }
        _ => {
            route.methods = vec!["POST".into()];
            route.path = Some("/api/2.0/custom/ask".into());
            route.body = BTreeMap::from([("kind".into(), vec![format!("k{i}")])]);
            route.scope = Some("sql".into());
        }
    }
    route
}

/// A request and whether the policy lets it through.
struct Case {
    name: &'static str,
    method: Method,
    path: CanonicalPath,
    body: Option<Value>,
    allowed: bool,
}

/// One request for each kind of route, each for the last route of its kind; and four that nothing matches.
fn cases(count: usize) -> Vec<Case> {
    let last = |kind: usize| {
        let of_kind = (0..count - 2).rev().find(|i| i % 5 == kind);
        of_kind.unwrap_or_default()
    };
    let (warehouse, index) = (format!("w{}", last(0)), format!("c{}.docs.i", last(1)));
    let (model, page, kind) = (last(2), last(3), format!("k{}", last(4)));
    let model = format!("/serving-endpoints/m{model}/invocations");
    let page = format!("/api/2.0/custom/p{page}/7");
    let runs = "/api/2.0/mlflow/runs/update";
    let ask = "/api/2.0/custom/ask";
    let mcp = "/api/2.0/mcp/functions/c/s";
    let get = |name, path: &str, allowed| case(name, Method::GET, path, None, allowed);
    let post = |name, path: &str, body, allowed| case(name, Method::POST, path, body, allowed);
    vec![
        post("resource", STATEMENTS, statement(&warehouse), true),
        get("prefix", &query(&index), true),
        post("operation+resource", &model, None, true),
        get("path", &page, true),
        post("body", ask, Some(json!({"kind": kind})), true),
        post("operation", runs, Some(json!({"run_id": "r1"})), true),
        post("tool", mcp, tool_call("c__s__look_up"), true),
        post("miss-tool", mcp, tool_call("c__s__other"), false),
        post("miss-resource", STATEMENTS, statement("none"), false),
        get("miss-prefix", &query("none.docs.i"), false),
        get("miss-path", "/api/2.0/custom/none/7", false),
        post("miss-body", ask, Some(json!({"kind": "none"})), false),
    ]
}

const STATEMENTS: &str = "/api/2.0/sql/statements";

fn statement(warehouse: &str) -> Option<Value> {
    Some(json!({"warehouse_id": warehouse, "statement": "select 1"}))
}

fn tool_call(name: &str) -> Option<Value> {
    Some(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}))
}

fn query(index: &str) -> String {
    format!("/api/2.0/vector-search/indexes/{index}/query")
}

fn case(
    name: &'static str,
    method: Method,
    path: &str,
    body: Option<Value>,
    allowed: bool,
) -> Case {
    Case {
        name,
        method,
        path: CanonicalPath::parse(path).expect("a path"),
        body,
        allowed,
    }
}

fn subject() -> UserId {
    UserId::parse("alice@example.com").expect("a user")
}

fn decisions(c: &mut Criterion) {
    let catalog = Catalog::built_in().expect("the catalogue");
    let (subject, scopes) = (subject(), ScopeSet::parse(SCOPES.split(' ')));
    for count in [10, 1_000, 10_000] {
        let policy =
            compile(&routes(count), Arc::clone(&catalog), Settings::default()).expect("a policy");
        let mut group = c.benchmark_group(format!("decide/{count}"));
        for case in cases(count) {
            let operation = catalog.find(&case.method, &case.path);
            let body = case.body.as_ref();
            let headers = http::HeaderMap::new();
            let touches = operation.map_or_else(Vec::new, |(_, o)| {
                let request = ask::Request {
                    path: &case.path,
                    query: None,
                    headers: &headers,
                    body,
                };
                touch::touches(o, &request, &FollowUpView::None).expect("one reading")
            });
            let call = Call {
                method: &case.method,
                destination: &Destination::Workspace,
                path: &case.path,
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
            assert_eq!(
                decide(&policy, &call).is_ok(),
                case.allowed,
                "{}",
                case.name
            );
            let counted = allocation_counter::measure(|| {
                black_box(decide(&policy, black_box(&call)).is_ok());
            });
            assert!(
                !case.allowed || counted.count_total == 0,
                "{}: {} allocations on the hit path",
                case.name,
                counted.count_total
            );
            group.bench_function(case.name, |b| {
                b.iter(|| decide(&policy, black_box(&call)).is_ok())
            });
        }
        group.bench_function("parse to grant", |b| {
            b.iter(|| whole(&policy, &subject, &scopes))
        });
        group.finish();
    }
}

/// What the outbound flow does between the head of a request and its grant, for a call whose resource is in the path.
fn whole(policy: &Policy, subject: &UserId, scopes: &ScopeSet) -> bool {
    let method = Method::GET;
    let path = CanonicalPath::parse(black_box("/api/2.0/vector-search/indexes/c1.docs.i/query"))
        .expect("a path");
    let operation = policy.catalog().find(&method, &path);
    let _ = policy.reads_body(&method, &path, operation.map(|(_, o)| &**o));
    let headers = http::HeaderMap::new();
    let touches = operation.map_or_else(Vec::new, |(_, o)| {
        let request = ask::Request {
            path: &path,
            query: None,
            headers: &headers,
            body: None,
        };
        touch::touches(o, &request, &FollowUpView::None).expect("one reading")
    });
    let call = Call {
        method: &method,
        destination: &Destination::Workspace,
        path: &path,
        body: None,
        caller: CallerView::User { subject, scopes },
        operation,
        touches: &touches,
        follow_up: &FollowUpView::None,
        partition: Partition::None,
        now: Timestamp::UNIX_EPOCH,
    };
    decide(policy, &call).is_ok()
}

fn steps(c: &mut Criterion) {
    let catalog = Catalog::built_in().expect("the catalogue");
    let mut group = c.benchmark_group("step");
    for (name, path) in [
        (
            "path, plain",
            "/api/2.0/sql/statements/01ef-5d3a/result/chunks/3",
        ),
        (
            "path, escaped",
            "/api/2.0/fs/files/Volumes/main/default/docs/annual%20report%20%C3%BC.pdf",
        ),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| CanonicalPath::parse(black_box(path)).is_ok())
        });
    }
    let known = CanonicalPath::parse("/api/2.0/sql/statements/01ef-5d3a").expect("a path");
    let unknown = CanonicalPath::parse("/api/2.0/nothing/01ef-5d3a").expect("a path");
    for (name, path) in [
        ("catalogue, known", &known),
        ("catalogue, unknown", &unknown),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| catalog.find(&Method::GET, black_box(path)).is_some())
        });
    }
    let bytes = vec![b'x'; 1024];
    group.bench_function("digest, 1 KiB", |b| {
        b.iter(|| Digest::of(&[black_box(&bytes)]))
    });
    group.finish();
}

fn tokens(c: &mut Criterion) {
    let (issuer, clock) = (Issuer::new(), Arc::new(SystemClock));
    let now = clock.now();
    let keys = KeySet::from_jwks(ISSUER, issuer.jwks().as_bytes()).expect("keys");
    let expect = Expect::new(ISSUER, vec![AUDIENCE.into()]);
    let check = |raw: &str| {
        verify(
            &UnverifiedToken::parse(raw).expect("a token"),
            &keys,
            &expect,
            now,
        )
        .expect("genuine")
    };
    let settings = SessionSettings {
        ttl: Duration::from_secs(3600),
        linger: Duration::from_secs(3600),
        format: SessionFormat::Opaque,
        sessions_max: 10_000,
        issuer: "http://127.0.0.1:9400/oidc".into(),
    };
    let table =
        SessionTable::new(settings, clock, Metrics::new().expect("metrics")).expect("a table");
    let scopes = ScopeSet::parse(SCOPES.split(' '));
    let opened: Vec<_> = (0..1_000)
        .map(|i| {
            let token = Arc::new(check(&issuer.token(
                ISSUER,
                &format!("user{i}@example.com"),
                now,
            )));
            (table.open(&token, &scopes).expect("a session"), token)
        })
        .collect();
    let mut group = c.benchmark_group("token");
    let raw = issuer.token(ISSUER, "alice@example.com", now);
    group.bench_function("first sight, RS256", |b| b.iter(|| check(black_box(&raw))));
    let (first, token) = opened.first().expect("sessions");
    group.bench_function("session, again", |b| {
        b.iter(|| table.open(black_box(token), &scopes).is_ok())
    });
    let presented = first.token.expose();
    group.bench_function("session, look-up", |b| {
        b.iter(|| table.caller(black_box(presented)).is_some())
    });
    let app = table.app_token();
    group.bench_function("app, look-up", |b| {
        b.iter(|| table.caller(black_box(app.expose())).is_some())
    });
    group.finish();
}

fn records() -> [Record; 2] {
    let user = audit::User {
        sub: subject(),
        email: None,
        verified: true,
        client_id: None,
        token_id: Some("3f2c1b9e-0000-4000-8000-000000000001".to_owned().into()),
    };
    let mut intent = Record::new(Event::Intent);
    intent.call = Some(uuid::Uuid::now_v7());
    intent.request_id = Some("0193d2c8-7c1f-7000-8000-000000000001".to_owned().into());
    intent.session = Some("0193d2c8-7c1f-7000-8000-000000000002".to_owned().into());
    intent.user = Some(Arc::new(user));
    intent.identity = Some(Identity::User);
    intent.route = Some("user-sql".to_owned().into());
    intent.operation = Some("sql.statements.execute".to_owned().into());
    intent.resource = Some(audit::Resource {
        kind: Text::Fixed("sql_warehouse"),
        id: "1234abcd".to_owned().into(),
    });
    intent.method = Some(Text::Fixed("POST"));
    intent.path = Some("/api/2.0/sql/statements".to_owned().into());
    intent.decision = Some(Decision::Allow);
    let mut outcome = intent.clone();
    outcome.event = Event::Outcome;
    outcome.status = Some(200);
    outcome.bytes_sent = Some(120);
    outcome.bytes_received = Some(1024);
    outcome.duration_ms = Some(42);
    [intent, outcome]
}

fn sealing(c: &mut Criterion) {
    let ([intent, outcome], now) = (records(), Timestamp::UNIX_EPOCH);
    let mut chain = Chain::default();
    let mut lines = Vec::with_capacity(4096);
    c.bench_function("audit/seal intent and outcome", |b| {
        b.iter(|| {
            lines.clear();
            chain.seal(black_box(&intent), now, &mut lines);
            chain.seal(black_box(&outcome), now, &mut lines);
            chain.commit();
            lines.len()
        });
    });
}

fn config() -> Criterion {
    Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(40)
}

criterion_group! {
    name = all;
    config = config();
    targets = decisions, steps, tokens, sealing
}
criterion_main!(all);

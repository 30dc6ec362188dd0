//! `valetkey explain` and the live proxy give the same answer: both are fed the same thousands of generated requests.

use std::collections::BTreeMap;

use http::{HeaderMap, Method};
use serde_json::{Value, json};
use valetkey::domain::clock::Timestamp;
use valetkey::domain::scope::ScopeSet;
use valetkey::embedded::world::{CHAT_ENDPOINT, GENIE_SPACE, INDEX, WAREHOUSE};
use valetkey::explain::{As, Question, explain};

use crate::harness::{ALICE, TestApp, TestOptions, with_app};

/// How many requests are generated for each of the three callers.
const REQUESTS: usize = 1_000;

/// A small generator with a fixed seed: the same requests in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

fn routes() -> Value {
    json!([
        {"name": "no-hr", "resource": "vector_search_index/main.hr.*", "as": "deny"},
        {"name": "sql", "resource": format!("sql_warehouse/{WAREHOUSE}"), "as": "user"},
        {"name": "any-history", "operation": "sql.history.queries", "as": "app"},
        {"name": "search", "resource": format!("vector_search_index/{INDEX}"), "as": "app"},
        {"name": "models", "resource": "serving_endpoint/demo-*", "as": "caller"},
        {"name": "genie", "operation": "genie.*", "as": "caller"},
        {"name": "traces", "operation": "mlflow.*", "as": "app"},
        {"name": "me", "operation": "identity.me", "as": "caller"},
        {"name": "files-read", "operation": "files.download", "resource": "volume/main.sales.*", "as": "user"},
        {"name": "raw", "method": ["GET"], "path": "/api/2.0/workspace/get-status", "as": "user", "scope": "workspace.workspace"},
        {"name": "raw-body", "method": ["POST"], "path": "/api/2.0/embedded/echo/**", "body": {"kind": ["a", "b"]}, "as": "app"},
        {"name": "raw-deny", "path": "/api/2.1/jobs/**", "as": "deny"},
    ])
}

fn target(dice: &mut Dice) -> String {
    let id = (*dice.pick(&[
        WAREHOUSE, "other", "a%2Fb", "..", "%2e%2e", "x;y", "x.", "100%25",
    ]))
    .to_owned();
    let paths = [
        "/api/2.0/sql/statements".to_owned(),
        "/api/2.0/sql/statements/".to_owned(),
        format!("/api/2.0/sql/statements/{id}"),
        format!("/api/2.0/sql/warehouses/{id}"),
        format!("/api/2.0/sql/warehouses/{id}/edit"),
        "/api/2.0/sql/history/queries".to_owned(),
        format!("/api/2.0/vector-search/indexes/{INDEX}/query"),
        "/api/2.0/vector-search/indexes/main.hr.docs_index/query".to_owned(),
        format!("/serving-endpoints/{CHAT_ENDPOINT}/invocations"),
        format!("/serving-endpoints/{id}/invocations"),
        "/serving-endpoints/chat/completions".to_owned(),
        format!("/api/2.0/genie/spaces/{GENIE_SPACE}/start-conversation"),
        format!("/api/2.0/genie/spaces/{GENIE_SPACE}/conversations/{id}/messages"),
        "/api/2.0/mlflow/experiments/get?experiment_id=1".to_owned(),
        "/api/2.0/mlflow/experiments/get?experiment_id=1&experiment_id=2".to_owned(),
        "/api/2.0/preview/scim/v2/Me".to_owned(),
        format!("/api/2.0/fs/files/Volumes/main/sales/files/{id}"),
        "/api/2.0/fs/files/Volumes/main/hr/private/x".to_owned(),
        "/api/2.0/fs/create-download-url?path=/x".to_owned(),
        "/api/2.0/workspace/get-status?path=/x&o=1".to_owned(),
        "/api/2.0/workspace/get-status?path=/x".to_owned(),
        format!("/api/2.0/embedded/echo/{id}"),
        "/api/2.1/jobs/list".to_owned(),
        "/api/2.0/token/create".to_owned(),
        "/api//2.0/sql/statements".to_owned(),
        "/api/2.0/unknown".to_owned(),
    ];
    dice.pick(&paths).clone()
}

fn body(dice: &mut Dice) -> Vec<u8> {
    let bodies: [&[u8]; 10] = [
        b"",
        br#"{"warehouse_id": "1234abcd5678ef90", "model": "demo-chat", "kind": "a", "statement": "select 1"}"#,
        br#"{"warehouse_id": "other", "model": "other", "kind": "c"}"#,
        br#"{"warehouse_id": "other", "warehouse_id": "1234abcd5678ef90"}"#,
        br#"{"warehouse_id": "1234abcd5678ef90", "warehouseId": "x"}"#,
        br#"{"model": "demo-chat", "MODEL": "x"}"#,
        br#"{"warehouse_id": 7, "model": ["demo-chat"], "kind": 1}"#,
        br#"{"statement": "no warehouse"}"#,
        b"[1, 2]",
        b"{broken",
    ];
    dice.pick(&bodies).to_vec()
}

/// What the live proxy did: its own reason, or the identity that the workspace saw.
async fn live(app: &TestApp, bearer: &str, method: &str, target: &str, body: &[u8]) -> String {
    let ask = app
        .outbound()
        .ask(method, target)
        .bearer(bearer)
        .header("content-type", "application/json");
    let answer = ask.body(body.to_vec()).fetch().await;
    match answer.reason() {
        Some(reason) => format!("refused: {reason}"),
        None => {
            let seen = answer.header("x-embedded-identity").unwrap_or("nobody");
            format!("as {}", seen.split(':').next().unwrap())
        }
    }
}

fn told(app: &TestApp, caller: &As, method: &str, target: &str, body: &[u8]) -> String {
    let snapshot = app.proxy.snapshot.load();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let workspace_id = Some(app.workspace.workspace_id());
    let question = Question {
        caller,
        method: &method,
        target,
        body: Some(body),
        headers: &HeaderMap::new(),
        bound: None,
        foreign_partition: false,
        now: Timestamp::UNIX_EPOCH,
        workspace_id,
        upstreams: &app.proxy.upstreams,
    };
    let answer = explain(&snapshot.policy, &question);
    match answer.reason {
        Some(reason) => format!("refused: {reason}"),
        None => format!("as {}", answer.identity),
    }
}

#[tokio::test]
async fn explain_and_the_live_proxy_agree() {
    with_app(TestOptions::routes(routes()), async |app: &TestApp| {
        let app_token = app.app_token().await;
        let (wide, narrow) = (
            "sql genie model-serving files workspace.workspace iam.current-user:read",
            "genie iam.current-user:read",
        );
        let callers = [
            (As::App, app_token),
            (
                As::User(ScopeSet::parse(wide.split(' '))),
                app.session(&app.token(ALICE, wide, 3600)).await,
            ),
            (
                As::User(ScopeSet::parse(narrow.split(' '))),
                app.session(&app.token(ALICE, narrow, 3600)).await,
            ),
        ];
        let mut dice = Dice(0x5eed_cafe_f00d_1234);
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (caller, bearer) in &callers {
            for _ in 0..REQUESTS {
                let method = *dice.pick(&["GET", "POST", "POST", "PUT", "DELETE"]);
                let (target, body) = (target(&mut dice), body(&mut dice));
                let expected = told(app, caller, method, &target, &body);
                let actual = live(app, bearer, method, &target, &body).await;
                let shown = String::from_utf8_lossy(&body);
                assert_eq!(actual, expected, "{caller:?} {method} {target} {shown}");
                *seen.entry(actual).or_default() += 1;
            }
        }
        for kind in [
            "as app",
            "as user",
            "refused: no_route",
            "refused: user_required",
            "refused: scope_missing",
            "refused: bad_path",
            "refused: bad_body",
            "refused: bad_request",
            "refused: route_denies",
            "refused: presigned_refused",
        ] {
            assert!(
                seen.get(kind).is_some_and(|n| *n > 3),
                "{kind} was not reached: {seen:?}"
            );
        }
    })
    .await;
}

//! The policy in the platform's nouns, on the wire: memory of one user, tools of one server, sessions of one caller, a policy
//! that is merely observed.

use serde_json::{Value, json};
use valetkey::embedded::world::{
    FUNCTION, FUNCTION_SECOND, GENIE_SPACE, JOB, MEMORY_STORE, WAREHOUSE,
};

use super::{ME, STATEMENTS, statement};
use crate::harness::client::Answer;
use crate::harness::{TestApp, TestOptions, USER_SCOPES, with_app};

const FUNCTIONS: &str = "/api/2.0/mcp/functions/main/sales";
const SESSION: &str = "mcp-session-id";

fn entries() -> String {
    format!("/api/2.1/unity-catalog/memory-stores/{MEMORY_STORE}/entries")
}

/// The number by which the platform knows a user, as the templates ask for it.
async fn number(app: &TestApp, token: &str) -> String {
    let me = app.outbound().get(ME).bearer(token).fetch().await;
    me.json()["id"].as_str().unwrap().to_owned()
}

async fn remember(app: &TestApp, token: &str, scope: &str) -> Answer {
    let entry =
        json!({"path": "/memories/tea.md", "description": "likes tea", "contents": "green"});
    let body = json!({"scope": scope, "memory_entry": entry});
    let ask = app.outbound().post(&entries()).bearer(token);
    ask.json(&body).fetch().await
}

async fn recall(app: &TestApp, token: &str, scope: &str) -> Answer {
    let target = format!("{}?scope={scope}", entries());
    app.outbound().get(&target).bearer(token).fetch().await
}

#[tokio::test]
async fn memory_is_kept_for_the_verified_user_alone() {
    let routes = json!([
        {"name": "me", "operation": "identity.me", "as": "caller"},
        {"name": "memory", "resource": format!("memory_store/{MEMORY_STORE}"), "as": "app"},
    ]);
    with_app(TestOptions::routes(routes), async |app| {
        let own = app.app_token().await;
        assert_eq!(
            recall(app, &own, "7").await.reason(),
            Some("partition_foreign")
        );
        let (alice, bob) = (
            app.session(&app.alice()).await,
            app.session(&app.bob()).await,
        );
        let (of_alice, of_bob) = (number(app, &alice).await, number(app, &bob).await);
        assert_ne!(of_alice, of_bob);
        // The templates' way: as the app, in the name of whom it serves.
        let kept = remember(app, &own, &of_alice).await;
        assert_eq!(kept.status, 200, "{}", kept.text());
        let told = recall(app, &own, &of_alice).await;
        assert!(told.text().contains("/memories/tea.md"), "{}", told.text());
        // With a user's own token nobody else's memory is there, by whichever name.
        assert_eq!(recall(app, &alice, &of_alice).await.status, 200);
        let reached = app.api_calls().len();
        for foreign in [
            &*of_alice,
            "alice@example.com",
            "ALICE@example.com",
            "",
            "*",
        ] {
            let answer = recall(app, &bob, foreign).await;
            let reason = answer.reason();
            assert!(
                matches!(reason, Some("partition_foreign" | "bad_request")),
                "{foreign} {reason:?}"
            );
        }
        let twice = format!("{of_bob}&scope={of_alice}");
        assert_eq!(
            recall(app, &bob, &twice).await.reason(),
            Some("bad_request")
        );
        assert_eq!(app.api_calls().len(), reached);
        assert_eq!(recall(app, &bob, "bob@example.com").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn the_apps_own_number_is_nobodys() {
    let routes = json!([
        {"name": "me", "operation": "identity.me", "as": "app"},
        {"name": "memory", "resource": format!("memory_store/{MEMORY_STORE}"), "as": "app"},
    ]);
    with_app(TestOptions::routes(routes), async |app| {
        let alice = app.session(&app.alice()).await;
        // The route answers as the app, so what it tells is the app's number, not hers.
        let of_app = number(app, &alice).await;
        assert_eq!(
            remember(app, &alice, &of_app).await.reason(),
            Some("partition_foreign")
        );
    })
    .await;
}

async fn say(app: &TestApp, path: &str, token: &str, session: Option<&str>, body: Value) -> Answer {
    let ask = app.outbound().post(path).bearer(token).json(&body);
    let ask = ask.header("accept", "application/json, text/event-stream");
    let ask = session
        .into_iter()
        .fold(ask, |ask, id| ask.header(SESSION, id));
    ask.fetch().await
}

fn hello() -> Value {
    let client = json!({"name": "test", "version": "1"});
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}})
}

fn tool(name: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": name, "arguments": {"order_id": 1}}})
}

fn tool_of(function: &str) -> String {
    function.replace('.', "__")
}

#[tokio::test]
async fn a_server_serves_its_listed_tools_and_a_session_its_own_caller() {
    let short = FUNCTION.rsplit('.').next().unwrap();
    let routes = json!([
        {"name": "orders", "resource": "mcp/functions/main.sales", "tools": [short], "as": "app"},
    ]);
    with_app(TestOptions::routes(routes), async |app| {
        let (alice, bob) = (
            app.session(&app.alice()).await,
            app.session(&app.bob()).await,
        );
        let greeted = say(app, FUNCTIONS, &alice, None, hello()).await;
        assert_eq!(greeted.status, 200, "{}", greeted.text());
        let session = greeted.header(SESSION).unwrap().to_owned();
        let session = Some(&*session);
        let done = say(app, FUNCTIONS, &alice, session, tool(&tool_of(FUNCTION))).await;
        assert_eq!(done.status, 200, "{}", done.text());
        let record = app
            .audit_has("the tool", |r| {
                r["mcp"]["tool"] == tool_of(FUNCTION).as_str()
            })
            .await;
        assert_eq!(record["resource"]["id"], "functions/main.sales");
        let reached = app.api_calls().len();
        let other = say(
            app,
            FUNCTIONS,
            &alice,
            session,
            tool(&tool_of(FUNCTION_SECOND)),
        )
        .await;
        assert_eq!(other.reason(), Some("no_route"));
        let text = other.text();
        for word in ["orders", short, "valetkey explain"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let stolen = say(app, FUNCTIONS, &bob, session, tool(&tool_of(FUNCTION))).await;
        assert_eq!(stolen.reason(), Some("follow_up_foreign"));
        let guessed = say(
            app,
            FUNCTIONS,
            &bob,
            Some("guessed"),
            tool(&tool_of(FUNCTION)),
        )
        .await;
        assert_eq!(guessed.reason(), Some("follow_up_unknown"));
        let batch = json!([tool(&tool_of(FUNCTION)), tool(&tool_of(FUNCTION_SECOND))]);
        assert_eq!(
            say(app, FUNCTIONS, &alice, session, batch).await.reason(),
            Some("no_route")
        );
        let unclear =
            json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "a", "Name": "b"}});
        assert_eq!(
            say(app, FUNCTIONS, &alice, session, unclear).await.reason(),
            Some("bad_request")
        );
        let ask = app
            .outbound()
            .post(FUNCTIONS)
            .bearer(&alice)
            .json(&tool(&tool_of(FUNCTION)));
        let lie = ask
            .header("mcp-name", &tool_of(FUNCTION_SECOND))
            .fetch()
            .await;
        assert_eq!(lie.reason(), Some("bad_request"));
        assert_eq!(app.api_calls().len(), reached);
    })
    .await;
}

#[tokio::test]
async fn the_output_of_a_job_is_read_by_the_run_that_was_started_here() {
    let routes = json!([{"name": "job", "resource": format!("job/{JOB}"), "as": "app"}]);
    with_app(TestOptions::routes(routes), async |app| {
        let own = app.app_token().await;
        let start = json!({"job_id": JOB.parse::<u64>().unwrap()});
        let ask = app.outbound().post("/api/2.2/jobs/run-now").bearer(&own);
        let started = ask.json(&start).fetch().await;
        assert_eq!(started.status, 200, "{}", started.text());
        let run = started.json()["run_id"].as_u64().unwrap();
        let get = async |path: &str, run: u64| {
            let target = format!("/api/2.2/jobs/{path}?run_id={run}");
            app.outbound().get(&target).bearer(&own).fetch().await
        };
        let shown = get("runs/get", run).await;
        assert_eq!(shown.status, 200, "{}", shown.text());
        let task = shown.json()["tasks"][0]["run_id"].as_u64().unwrap();
        let output = get("runs/get-output", task).await;
        assert_eq!(output.status, 200, "{}", output.text());
        assert_eq!(
            get("runs/get", run + 999).await.reason(),
            Some("follow_up_unknown")
        );
    })
    .await;
}

#[tokio::test]
async fn an_observed_policy_lets_denials_through_counted_and_recorded_until_its_date() {
    let routes = json!([
        {"name": "genie", "resource": format!("genie_space/{GENIE_SPACE}"), "as": "user"},
        {"name": "sql", "resource": format!("sql_warehouse/{WAREHOUSE}"), "as": "user"},
    ]);
    let observed = json!({"mode": "observe", "observe_until": "2026-11-23T18:00:00Z"});
    with_app(TestOptions::routes(routes).with(observed), async |app| {
        let alice = app
            .session(&app.token("alice@example.com", USER_SCOPES, 86_400))
            .await;
        let own = app.app_token().await;
        let post = async |token: &str| {
            let ask = app.outbound().post(STATEMENTS).bearer(token);
            ask.json(&statement(WAREHOUSE)).fetch().await
        };
        assert_eq!(post(&own).await.status, 200, "would be user_required");
        let listed = app
            .outbound()
            .get("/api/2.0/sql/warehouses")
            .bearer(&alice)
            .fetch()
            .await;
        assert_eq!(listed.status, 200, "would be no_route");
        let record = app
            .audit_has("the observed denial", |r| {
                r["decision"] == "would_deny" && r["event"] == "intent"
            })
            .await;
        assert_eq!(
            (&record["reason"], &record["route"], &record["identity"]),
            (&json!("user_required"), &json!("sql"), &json!("app"))
        );
        let metrics = app.metrics().await;
        for line in [
            "valetkey_observed_denials_total{reason=\"user_required\",route=\"sql\"} 1",
            "valetkey_observed_denials_total{reason=\"no_route\",route=\"observed\"} 1",
        ] {
            assert!(metrics.contains(line), "{line}\n{metrics}");
        }
        let token = app.outbound().post("/api/2.0/token/create").bearer(&own);
        assert_eq!(
            token.json(&json!({})).fetch().await.reason(),
            Some("no_route")
        );
        app.advance(6 * 3600).await;
        let later = app.app_token().await;
        assert_eq!(
            post(&later).await.reason(),
            Some("user_required"),
            "enforced from its date on"
        );
    })
    .await;
}

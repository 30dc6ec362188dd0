//! Every reason for a denial that the wire can bring about, in the Databricks error shape (PRODUCT 6.6).

use serde_json::{Value, json};
use valetkey::app::compile_policy;
use valetkey::config::Config;
use valetkey::embedded::world::{CHAT_ENDPOINT, WAREHOUSE, WAREHOUSE_RESTRICTED};

use super::{ECHO, ME, STATEMENTS, execute, statement};
use crate::harness::client::Answer;
use crate::harness::{ALICE, TestOptions, environment, with_app};

fn routes() -> Value {
    json!([
        {"name": "shut", "resource": format!("serving_endpoint/{CHAT_ENDPOINT}"), "as": "deny"},
        {"name": "warehouse", "resource": format!("sql_warehouse/{WAREHOUSE}"), "as": "user"},
        {"name": "app-sql", "operation": "sql.statements.*", "as": "app"},
        {"name": "files", "operation": "files.*", "as": "caller"},
        {"name": "marked", "path": "/api/2.0/embedded/**", "as": "caller", "scope": "sql"},
    ])
}

/// Status, header, code, message and details say the same.
fn denied(answer: &Answer, status: u16, reason: &str) -> Value {
    assert_eq!(
        (answer.status, answer.reason()),
        (status, Some(reason)),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.header("retry-after"),
        None,
        "a denial is not to be repeated"
    );
    let body = answer.json();
    let code = if status == 400 {
        "INVALID_PARAMETER_VALUE"
    } else {
        "PERMISSION_DENIED"
    };
    assert_eq!(body["error_code"], code);
    let message = body["message"].as_str().unwrap();
    assert!(message.starts_with("valetkey: "), "{message}");
    assert!(message.contains("see: valetkey explain --as "), "{message}");
    let details = body["details"].as_array().unwrap();
    assert_eq!(
        details[0]["@type"],
        "type.googleapis.com/google.rpc.ErrorInfo"
    );
    assert_eq!(
        (&details[0]["reason"], &details[0]["domain"]),
        (&json!(reason), &json!("valetkey"))
    );
    let last = details.last().unwrap();
    assert_eq!(last["@type"], "type.googleapis.com/google.rpc.RequestInfo");
    assert!(last["request_id"].as_str().unwrap().len() > 30);
    body
}

#[tokio::test]
async fn every_denial_names_its_reason_and_reaches_nobody() {
    with_app(TestOptions::routes(routes()), async |app| {
        let (alice, own) = (app.session(&app.alice()).await, app.app_token().await);
        let narrow = app.session(&app.token(ALICE, "files", 3600)).await;
        let out = app.outbound();
        let get = async |target: &str, token: &str| out.get(target).bearer(token).fetch().await;

        let none = denied(&get(ME, &alice).await, 403, "no_route");
        assert_eq!(none["details"][0]["metadata"]["operation"], "identity.me");
        denied(&get("/api/2.0/unknown/thing", &own).await, 403, "no_route");
        // A list touches no resource: the deny route is not its own.
        denied(
            &get("/api/2.0/serving-endpoints", &alice).await,
            403,
            "no_route",
        );
        let shut = get(
            &format!("/api/2.0/serving-endpoints/{CHAT_ENDPOINT}"),
            &alice,
        )
        .await;
        let shut = denied(&shut, 403, "route_denies");
        assert_eq!(shut["details"][0]["metadata"]["route"], "shut");
        let resources = format!("serving_endpoint/{CHAT_ENDPOINT}");
        assert_eq!(shut["details"][0]["metadata"]["resources"], resources);
        denied(&execute(app, &own).fetch().await, 403, "user_required");
        let missing = denied(&execute(app, &narrow).fetch().await, 403, "scope_missing");
        assert_eq!(missing["details"][0]["metadata"]["scope"], "sql");
        denied(
            &get(&format!("{STATEMENTS}/never-seen"), &own).await,
            403,
            "follow_up_unknown",
        );
        let presigned = out.post("/api/2.0/fs/create-download-url?path=/Volumes/a/b/c/d");
        let presigned = denied(
            &presigned.bearer(&alice).fetch().await,
            403,
            "presigned_refused",
        );
        // The word on which SDKs fall back to the plain way.
        assert_eq!(
            presigned["details"][1]["reason"],
            "FILES_API_API_IS_NOT_ENABLED"
        );
        denied(
            &get(&format!("{ECHO}/a%2Fb"), &alice).await,
            400,
            "path_escape",
        );
        assert!(app.api_calls().is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_mcp_client_reads_the_refusal_as_a_json_rpc_error_and_in_the_status_line() {
    with_app(TestOptions::routes(routes()), async |app| {
        let (alice, out) = (app.session(&app.alice()).await, app.outbound());
        let ping = json!({"jsonrpc": "2.0", "id": 7, "method": "ping"});
        let target = "/api/2.0/mcp/genie/01f0";
        let body = denied(
            &out.post(target).bearer(&alice).json(&ping).fetch().await,
            403,
            "no_route",
        );
        assert_eq!(
            (&body["jsonrpc"], &body["id"], &body["error"]["code"]),
            (&json!("2.0"), &Value::Null, &json!(403))
        );
        assert_eq!(body["error"]["message"], body["message"]);
        assert_eq!(body["error"]["data"]["reason"], "no_route");

        let ask = format!(
            "POST {target} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {alice}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{ping}",
            out.address(),
            ping.to_string().len()
        );
        let raw = out.raw(ask).await.text();
        let message = body["message"].as_str().unwrap();
        assert!(raw.starts_with(&format!("HTTP/1.1 403 {message}\r\n")), "{raw}");

        // Nobody else is told twice: the SDKs would take `error` for the message.
        let other = denied(&out.get(ME).bearer(&alice).fetch().await, 403, "no_route");
        assert_eq!((other.get("error"), other.get("jsonrpc")), (None, None));
    })
    .await;
}

#[tokio::test]
async fn a_denial_is_recorded_and_a_refusal_of_the_workspace_is_none() {
    with_app(TestOptions::routes(routes()), async |app| {
        let (alice, own) = (app.session(&app.alice()).await, app.app_token().await);
        let out = app.outbound();
        let get = async |target: &str, token: &str| out.get(target).bearer(token).fetch().await;
        let shut = get(
            &format!("/api/2.0/serving-endpoints/{CHAT_ENDPOINT}"),
            &alice,
        )
        .await;
        denied(&shut, 403, "route_denies");
        let created = out.post(STATEMENTS).bearer(&alice);
        let created = created.json(&statement(WAREHOUSE_RESTRICTED)).fetch().await;
        assert_eq!(
            created.status,
            403,
            "the app has no grant there: {}",
            created.text()
        );
        let created = execute(app, &alice).fetch().await.json();
        let id = created["statement_id"].as_str().unwrap();
        let calls = app.api_calls().len();
        denied(
            &get(&format!("{STATEMENTS}/{id}"), &own).await,
            403,
            "user_required",
        );
        let bob = app.session(&app.bob()).await;
        denied(
            &get(&format!("{STATEMENTS}/{id}"), &bob).await,
            403,
            "follow_up_foreign",
        );
        assert_eq!(app.api_calls().len(), calls);

        let record = app
            .audit_has("the denial", |r| r["reason"] == "route_denies")
            .await;
        assert_eq!(
            (&record["event"], &record["decision"]),
            (&json!("denial"), &json!("deny"))
        );
        assert_eq!(
            (&record["route"], &record["user"]["sub"]),
            (&json!("shut"), &json!(ALICE))
        );
        let metrics = app.metrics().await;
        assert!(
            metrics.contains(r#"valetkey_denials_total{reason="route_denies"} 1"#),
            "{metrics}"
        );
    })
    .await;
}

#[tokio::test]
async fn an_empty_policy_denies_everything() {
    with_app(TestOptions::routes(json!([])), async |app| {
        let (alice, own) = (app.session(&app.alice()).await, app.app_token().await);
        for token in [&alice, &own] {
            for target in [ME, "/", "/api/2.0/sql/warehouses", ECHO] {
                let answer = app.outbound().get(target).bearer(token).fetch().await;
                denied(&answer, 403, "no_route");
            }
        }
        assert!(app.api_calls().is_empty());
    })
    .await;
}

#[tokio::test]
async fn the_starter_policy_allows_the_catalogue_but_nothing_of_admin_effect() {
    with_app(TestOptions::default(), async |app| {
        let own = app.app_token().await;
        let me = app.outbound().get(ME).bearer(&own).fetch().await;
        assert_eq!(me.status, 200);
        for (method, target) in [
            ("POST", "/api/2.0/token/create"),
            ("PUT", "/api/2.0/permissions/jobs/1"),
            ("POST", "/api/2.0/sql/warehouses/abc/edit"),
            ("GET", "/api/2.0/secrets/get?scope=s&key=k"),
        ] {
            let ask = app.outbound().ask(method, target).bearer(&own);
            denied(&ask.fetch().await, 403, "no_route");
        }
        assert!(app.metrics().await.contains("valetkey_policy_starter 1"));
    })
    .await;
}

#[tokio::test]
async fn methods_are_exact_and_cannot_be_overridden() {
    let routes = json!([
        {"name": "read", "method": ["GET"], "path": "/api/2.0/embedded/**", "as": "app"},
    ]);
    with_app(TestOptions::routes(routes), async |app| {
        let own = app.app_token().await;
        for method in [
            "POST", "PUT", "DELETE", "HEAD", "get", "Get", "GETX", "OPTIONS",
        ] {
            let ask = app.outbound().ask(method, ECHO).bearer(&own);
            let answer = ask.fetch().await;
            assert_eq!(answer.reason(), Some("no_route"), "{method}");
        }
        assert!(app.api_calls().is_empty());
        for name in [
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
        ] {
            let ask = app.outbound().get(ECHO).bearer(&own).header(name, "DELETE");
            assert_eq!(ask.fetch().await.status, 200);
            let seen = app.api_calls().pop().unwrap();
            assert_eq!(seen.method, "GET");
            assert!(seen.header(name).is_empty());
        }
    })
    .await;
}

/// `scope_unknown` and `resources_disagree` have no road over the wire: a policy that could lead there does not compile, and
/// no operation of this catalogue touches two resources.
#[test]
fn a_user_route_over_an_unknown_path_must_name_its_scope() {
    for run_as in ["user", "caller"] {
        let text = json!({
            "workspace": {"host": "https://w.example.com", "id": "1"},
            "routes": [{"name": "raw", "method": ["GET"], "path": "/api/2.0/other", "as": run_as}],
        });
        let problems = match Config::parse(&text.to_string(), None, &environment()) {
            Ok(config) => compile_policy(&config).expect_err("a problem"),
            Err(problems) => problems,
        };
        assert!(problems[0].to_string().contains("scope"), "{problems:?}");
    }
}

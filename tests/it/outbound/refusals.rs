//! The workspace's own 403: which plane lacks something, in header, audit record and metric (PRODUCT 6.6).

use serde_json::{Value, json};
use valetkey::domain::missing::{Plane, Remedy};
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::world::{WAREHOUSE, WAREHOUSE_RESTRICTED};

use super::{ME, STATEMENTS, execute, leading_to, open, statement};
use crate::harness::client::Answer;
use crate::harness::raw::RawServer;
use crate::harness::{ALICE, BOB, TestApp, TestOptions, with_app};

const SPACES: &str = "/api/2.0/genie/spaces";
const CATALOGS: &str = "/api/2.1/unity-catalog/catalogs";

/// Routes that take one scope for another, as a mistaken `scope:` does.
fn routes() -> Value {
    json!([
        {"name": "genie", "method": ["GET"], "path": SPACES, "as": "caller", "scope": "sql"},
        {"name": "catalogs", "method": ["GET"], "path": CATALOGS, "as": "caller", "scope": "sql"},
        {"name": "warehouses", "operation": "sql.statements.*", "as": "caller"},
        {"name": "me", "operation": "identity.me", "as": "caller"},
    ])
}

async fn get(app: &TestApp, target: &str, token: &str) -> Answer {
    app.outbound().get(target).bearer(token).fetch().await
}

/// The refusal passes as it is, and says the same in the header, in the record and in the metric.
async fn lacks(app: &TestApp, answer: &Answer, plane: Plane, scope: Option<&str>, remedy: Remedy) {
    assert_eq!(
        (answer.status, answer.reason()),
        (403, None),
        "{}",
        answer.text()
    );
    let scope = scope.map_or_else(String::new, |scope| format!("; scope=\"{scope}\""));
    let header = format!("{}{scope}; remedy=\"{}\"", plane.as_str(), remedy.text());
    assert_eq!(answer.header("x-valetkey-missing"), Some(header.as_str()));
    let record = app
        .audit_has("the outcome", |r| {
            r["event"] == "outcome" && r["reason"] == plane.reason()
        })
        .await;
    assert_eq!(
        (&record["decision"], &record["status"]),
        (&json!("allow"), &json!(403))
    );
    let metrics = app.metrics().await;
    let line = format!(
        "valetkey_platform_refusals_total{{plane=\"{}\"}} 1\n",
        plane.as_str()
    );
    assert!(metrics.contains(&line), "{metrics}");
    assert!(!metrics.contains("valetkey_denials_total{"), "{metrics}");
}

fn refusing(body: &str) -> Fault {
    Fault::Status {
        status: 403,
        retry_after_secs: None,
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn a_scope_outside_the_ceiling_is_not_declared() {
    let options = TestOptions::routes(routes()).with(json!({"users": {"scopes": ["sql"]}}));
    with_app(options, async |app| {
        let alice = app.session(&app.token(ALICE, "sql", 3600)).await;
        let answer = get(app, SPACES, &alice).await;
        // The platform's own answer, to the byte.
        let body = answer.json();
        assert_eq!(body["error_code"], 403);
        let text = "Provided OAuth token does not have required scopes: genie";
        assert_eq!(body["message"], text);
        lacks(
            app,
            &answer,
            Plane::Declared,
            Some("genie"),
            Remedy::Declare,
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_scope_that_no_token_of_the_app_carries_is_not_granted() {
    with_app(TestOptions::routes(routes()), async |app| {
        let alice = app.session(&app.token(ALICE, "sql", 3600)).await;
        app.session(&app.token(BOB, "sql files", 3600)).await;
        let answer = get(app, SPACES, &alice).await;
        lacks(
            app,
            &answer,
            Plane::Granted,
            Some("genie"),
            Remedy::AllowAndRestart,
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_scope_that_other_users_carry_is_not_consented() {
    with_app(TestOptions::routes(routes()), async |app| {
        app.session(&app.token(BOB, "sql dashboards.genie", 3600))
            .await;
        let alice = app.session(&app.token(ALICE, "sql", 3600)).await;
        let answer = get(app, SPACES, &alice).await;
        lacks(
            app,
            &answer,
            Plane::Consented,
            Some("genie"),
            Remedy::ConsentAgain,
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_scope_that_no_app_can_request_comes_with_those_it_can() {
    with_app(TestOptions::routes(routes()), async |app| {
        let alice = app.session(&app.alice()).await;
        let answer = get(app, CATALOGS, &alice).await;
        lacks(
            app,
            &answer,
            Plane::Granted,
            Some("unity-catalog"),
            Remedy::UseCatalogScopes,
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_user_without_a_right_lacks_the_objects_grant() {
    with_app(TestOptions::routes(routes()), async |app| {
        let bob = app.session(&app.bob()).await;
        let ask = app.outbound().post(STATEMENTS).bearer(&bob);
        let answer = ask.json(&statement(WAREHOUSE_RESTRICTED)).fetch().await;
        lacks(app, &answer, Plane::ObjectGrant, None, Remedy::GrantUser).await;
    })
    .await;
}

#[tokio::test]
async fn the_app_lacks_a_wider_token_and_gets_no_second_try() {
    with_app(TestOptions::routes(routes()), async |app| {
        let own = app.app_token().await;
        let answer = get(app, SPACES, &own).await;
        lacks(
            app,
            &answer,
            Plane::Granted,
            Some("genie"),
            Remedy::WidenApp,
        )
        .await;
        assert_eq!((app.api_calls().len(), app.token_requests()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn the_app_without_a_right_lacks_the_objects_grant() {
    with_app(TestOptions::routes(routes()), async |app| {
        let own = app.app_token().await;
        let ask = app.outbound().post(STATEMENTS).bearer(&own);
        let answer = ask.json(&statement(WAREHOUSE_RESTRICTED)).fetch().await;
        lacks(app, &answer, Plane::ObjectGrant, None, Remedy::GrantApp).await;
    })
    .await;
}

#[tokio::test]
async fn an_exchanged_token_that_is_too_narrow_is_the_routes_matter() {
    let options = TestOptions::routes(routes()).with(json!({"users": {"exchange": "rfc8693"}}));
    with_app(options, async |app| {
        let alice = app.session(&app.alice()).await;
        let answer = get(app, SPACES, &alice).await;
        lacks(
            app,
            &answer,
            Plane::Granted,
            Some("genie"),
            Remedy::WidenExchange,
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn the_other_wording_is_read_in_text_and_in_pages() {
    let text = "Invalid scope, required scopes: model-serving-inference";
    for body in [
        text.to_owned(),
        format!("<html><body><pre>{text}</pre></body></html>"),
    ] {
        with_app(TestOptions::routes(routes()), async |app| {
            let narrow = app.session(&app.token(ALICE, "sql", 3600)).await;
            app.control().fail(Place::Api, refusing(&body));
            let answer = execute(app, &narrow).fetch().await;
            assert_eq!(answer.text(), body);
            let remedy = Remedy::AllowAndRestart;
            lacks(app, &answer, Plane::Granted, Some("model-serving"), remedy).await;
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_not_understood_passes_without_a_word() {
    with_app(TestOptions::routes(routes()), async |app| {
        let (alice, own) = (app.session(&app.alice()).await, app.app_token().await);
        let blocked = r#"{"error_code":"403","message":"Source IP address: 203.0.113.7 is blocked by Databricks IP ACL for workspace: 1"}"#;
        for body in ["", "no", blocked] {
            app.control().fail(Place::Api, refusing(body));
            for token in [&alice, &own] {
                let answer = get(app, ME, token).await;
                assert_eq!((answer.status, answer.text().as_str()), (403, body));
                assert_eq!(answer.header("x-valetkey-missing"), None);
            }
        }
        let invalid = json!({"error_code": 403, "message": "Invalid access token."});
        app.control().fail(Place::Api, refusing(&invalid.to_string()));
        let answer = get(app, ME, &alice).await;
        assert_eq!(answer.header("x-valetkey-missing"), None);
        assert!(!app.metrics().await.contains("platform_refusals_total{"));
        app.stop().await;
        let reasons: Vec<Value> = app.audit().iter().map(|r| r["reason"].clone()).collect();
        assert!(!reasons.iter().any(|r| r.as_str().is_some_and(|r| r.starts_with("missing_"))));
    })
    .await;
}

#[tokio::test]
async fn an_expired_token_is_replaced_in_each_of_the_platforms_wordings() {
    for (status, body) in [
        (
            403,
            r#"{"error_code":403,"message":"Invalid access token. [ReqId: 1]"}"#,
        ),
        (401, r#"{"error_code":401,"message":"Token is expired"}"#),
        (
            400,
            "io.jsonwebtoken.ExpiredJwtException: JWT expired at 2026-11-23T12:00:00Z",
        ),
    ] {
        with_app(open(), async |app| {
            let own = app.app_token().await;
            let fault = Fault::Status {
                status,
                retry_after_secs: None,
                body: body.to_owned(),
            };
            app.control().fail_next(Place::Api, fault, 1);
            let answer = get(app, ME, &own).await;
            assert_eq!(answer.status, 200, "{body}: {}", answer.text());
            assert_eq!((app.api_calls().len(), app.token_requests()), (2, 2));
        })
        .await;
    }
}

#[tokio::test]
async fn the_header_is_never_the_workspaces_own_and_a_refusal_of_any_length_passes() {
    let long = format!("required scopes: sql\n{}", "x".repeat(100_000));
    for (status, body, plane) in [
        ("200 OK", "hello".to_owned(), None),
        ("403 Forbidden", "no".to_owned(), None),
        ("403 Forbidden", long, Some("granted; scope=\"sql\"; ")),
    ] {
        let head =
            format!("HTTP/1.1 {status}\r\nx-valetkey-missing: declared; scope=\"forged\"\r\n");
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}");
        let server = RawServer::answering(chunked, true).await;
        with_app(leading_to(server.address()), async |app| {
            let alice = app.session(&app.alice()).await;
            let answer = get(app, ME, &alice).await;
            assert_eq!(answer.text(), body);
            let said = answer.header("x-valetkey-missing");
            match plane {
                None => assert_eq!(said, None),
                Some(start) => assert!(said.is_some_and(|s| s.starts_with(start)), "{said:?}"),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_refusal_inside_a_good_answer_is_not_looked_for() {
    with_app(TestOptions::routes(routes()), async |app| {
        let alice = app.session(&app.alice()).await;
        let ask = app.outbound().post(STATEMENTS).bearer(&alice);
        let select = "select 'Invalid scope, required scopes: genie'";
        let body = json!({"warehouse_id": WAREHOUSE, "statement": select});
        let answer = ask.json(&body).fetch().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-valetkey-missing"), None);
    })
    .await;
}

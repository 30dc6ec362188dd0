//! The app's own credential: asked for once, narrow, replaced when refused, and what its failure looks like (R32).

use bytes::Bytes;
use serde_json::{Value, json};
use valetkey::domain::secret::Secret;
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::seen::Seen;
use valetkey::embedded::workspace::AppCredential;
use valetkey::embedded::world::{CHAT_ENDPOINT, GENIE_SPACE};

use super::{ECHO, ME, open};
use crate::harness::client::Answer;
use crate::harness::{APP_ID, TestApp, TestOptions, with_app, within};

async fn me(app: &TestApp, token: &str) -> Answer {
    app.outbound().get(ME).bearer(token).fetch().await
}

async fn app_check(app: &TestApp) -> (u16, Value) {
    let (status, body) = app.readyz().await;
    let checks = body["checks"].as_array().unwrap();
    let check = checks.iter().find(|c| c["name"] == "app_credential");
    (status, check.unwrap().clone())
}

#[tokio::test]
async fn one_token_serves_many_calls_and_many_callers() {
    with_app(open(), async |app| {
        let own = app.app_token().await;
        let calls = (0..20).map(|_| me(app, &own));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.status, 200);
        }
        assert_eq!(app.token_requests(), 1);
        app.outbound().get(ECHO).bearer(&own).fetch().await;
        assert_eq!(app.token_requests(), 2, "another scope, another token");
        assert_eq!(app_check(app).await.1["detail"], "working");
    })
    .await;
}

#[tokio::test]
async fn all_apis_asks_for_one_wide_token() {
    let options = open().with(json!({"app": {"scopes": "all-apis"}}));
    with_app(options, async |app| {
        let own = app.app_token().await;
        me(app, &own).await;
        app.outbound().get(ECHO).bearer(&own).fetch().await;
        assert_eq!(app.token_requests(), 1);
        for call in app.api_calls() {
            assert!(
                matches!(&call.identity, Seen::App { scopes } if scopes.to_string() == "all-apis")
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_with_hosted_tools_takes_a_token_for_these_too() {
    let routes = json!([
        {"name": "chat", "resource": format!("serving_endpoint/{CHAT_ENDPOINT}"), "as": "app"},
        {"name": "genie", "resource": format!("genie_space/{GENIE_SPACE}"), "as": "app"},
    ]);
    with_app(TestOptions::routes(routes), async |app| {
        let own = app.app_token().await;
        let tool = json!({"type": "genie_space", "genie_space": {"id": GENIE_SPACE}});
        let body = json!({"model": CHAT_ENDPOINT, "input": "hello", "tools": [tool]});
        let asked = app.outbound().post("/ai-gateway/mlflow/v1/responses");
        let answer = asked.bearer(&own).json(&body).fetch().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let calls = app.api_calls();
        assert!(
            matches!(&calls[0].identity, Seen::App { scopes } if scopes.to_string() == "ai-gateway genie"),
            "{:?}",
            calls[0].identity
        );
    })
    .await;
}

#[tokio::test]
async fn a_refused_app_token_is_replaced_once_and_the_call_repeated() {
    with_app(open(), async |app| {
        let own = app.app_token().await;
        me(app, &own).await;
        assert!(app.control().revoke_app_tokens() > 0);
        let answer = me(app, &own).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let statuses: Vec<_> = app.api_calls().iter().map(|c| c.status).collect();
        assert_eq!(statuses, [Some(200), Some(403), Some(200)]);
        assert_eq!(app.token_requests(), 2);
        // Both attempts are one call: one intent, one outcome.
        app.stop().await;
        let intents = app
            .audit()
            .iter()
            .filter(|r| r["event"] == "intent")
            .count();
        assert_eq!(intents, 2);
    })
    .await;
}

#[tokio::test]
async fn a_call_whose_body_was_streamed_is_not_repeated() {
    with_app(open(), async |app| {
        let own = app.app_token().await;
        app.outbound().get(ECHO).bearer(&own).fetch().await;
        app.control().revoke_app_tokens();
        let (ask, sender) = app.outbound().post(ECHO).bearer(&own).chunked();
        let asking = tokio::spawn(ask.fetch());
        sender.send(Bytes::from("once")).await.unwrap();
        drop(sender);
        let answer = asking.await.unwrap();
        assert_eq!((answer.status, answer.reason()), (403, None));
        assert_eq!(app.api_calls().len(), 2);
        // The next one has a new token.
        let answer = app.outbound().get(ECHO).bearer(&own).fetch().await;
        assert_eq!(answer.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_was_inspected_is_repeated_whole() {
    let routes = json!([{"name": "sql", "operation": "sql.statements.*", "as": "app"}]);
    with_app(TestOptions::routes(routes), async |app| {
        let own = app.app_token().await;
        super::execute(app, &own).fetch().await;
        app.control().revoke_app_tokens();
        let answer = super::execute(app, &own).fetch().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let calls = app.api_calls();
        assert_eq!(calls.len(), 3);
        assert_eq!(calls[1].body_digest, calls[2].body_digest);
    })
    .await;
}

#[tokio::test]
async fn a_workspace_that_refuses_every_token_is_asked_twice_and_not_for_ever() {
    with_app(open(), async |app| {
        let own = app.app_token().await;
        let body = r#"{"error_code":403,"message":"Invalid access token."}"#;
        let fault = Fault::Status {
            status: 403,
            retry_after_secs: None,
            body: body.into(),
        };
        app.control().fail(Place::Api, fault);
        let answer = me(app, &own).await;
        assert_eq!((answer.status, answer.text()), (403, body.to_owned()));
        assert_eq!((app.api_calls().len(), app.token_requests()), (2, 2));
        for _ in 0..5 {
            assert_eq!(me(app, &own).await.status, 403);
        }
        assert_eq!(app.token_requests(), 2, "no new token for each refusal");
    })
    .await;
}

#[tokio::test]
async fn refusals_about_permissions_replace_no_token() {
    with_app(open(), async |app| {
        let own = app.app_token().await;
        for (status, body) in [
            (
                403,
                r#"{"error_code":"PERMISSION_DENIED","message":"no token for you"}"#,
            ),
            (403, "plain token text"),
            (
                404,
                r#"{"error_code":403,"message":"Invalid access token."}"#,
            ),
        ] {
            let fault = Fault::Status {
                status,
                retry_after_secs: None,
                body: body.into(),
            };
            app.control().fail_next(Place::Api, fault, 1);
            let answer = me(app, &own).await;
            assert_eq!((answer.status, answer.text()), (status, body.to_owned()));
        }
        assert_eq!((app.api_calls().len(), app.token_requests()), (3, 1));
    })
    .await;
}

#[tokio::test]
async fn a_users_refused_token_is_not_repeated_as_anybody_else() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        app.control().rotate_keys(false).await.unwrap();
        let answer = me(app, &session).await;
        assert_eq!(
            (answer.status, answer.header("x-embedded-identity")),
            (403, Some("invalid"))
        );
        assert_eq!((app.api_calls().len(), app.token_requests()), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn token_endpoint_failures_have_their_own_answers_and_readyz_tells() {
    for (fault, status, reason) in [
        (Fault::Close, 502, "token_endpoint_unavailable"),
        (Fault::status(503), 502, "token_endpoint_unavailable"),
        (
            Fault::retry_after(429, 30),
            502,
            "token_endpoint_unavailable",
        ),
        (Fault::Garbage, 502, "token_endpoint_unavailable"),
        (Fault::Hang, 504, "token_endpoint_timeout"),
    ] {
        with_app(open(), async |app| {
            let (session, own) = (app.session(&app.alice()).await, app.app_token().await);
            app.control().fail(Place::Token, fault.clone());
            let ask = app.outbound().get(ME).bearer(&own);
            let asking = tokio::spawn(ask.fetch());
            if fault == Fault::Hang {
                let hangs = app.control().wait_until(|_| app.token_requests() == 1);
                within("it hangs", hangs).await;
                app.advance(10).await;
            }
            let answer = asking.await.unwrap();
            assert_eq!(
                (answer.status, answer.reason()),
                (status, Some(reason)),
                "{fault:?}"
            );
            assert_eq!(answer.header("retry-after"), None);
            assert!(app.api_calls().is_empty());
            let (ready, check) = app_check(app).await;
            assert_eq!((ready, &check["ready"]), (503, &json!(false)), "{fault:?}");
            // Users are not concerned.
            assert_eq!(me(app, &session).await.status, 200);
            let record = app
                .audit_has("the failure", |r| {
                    r["event"] == "outcome" && r["reason"] == reason
                })
                .await;
            assert_eq!(
                (&record["identity"], &record["status"]),
                (&json!("app"), &json!(status))
            );
            app.control().heal(Place::Token);
            app.advance(31).await;
            assert_eq!(me(app, &own).await.status, 200, "{fault:?}");
            assert_eq!(app_check(app).await.0, 200);
        })
        .await;
    }
}

#[tokio::test]
async fn a_wrong_secret_is_told_apart_from_an_outage() {
    let mut options = open();
    options.workspace.app = Some(AppCredential {
        client_id: APP_ID.to_owned(),
        client_secret: Secret::new("dose-another-secret-of-the-workspace".to_owned()),
    });
    with_app(options, async |app| {
        let own = app.app_token().await;
        let answer = me(app, &own).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("app_credential_refused"))
        );
        let (ready, check) = app_check(app).await;
        assert_eq!(ready, 503);
        assert!(
            check["detail"]
                .as_str()
                .unwrap()
                .contains("app.client_secret"),
            "{check}"
        );
    })
    .await;
}

#[tokio::test]
async fn without_an_app_credential_routes_as_the_app_say_so() {
    let options = open().with(json!({"app": null}));
    let mut options = options;
    options.environment = vec![];
    with_app(options, async |app| {
        let answer = me(app, &app.app_token().await).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("app_credential_missing"))
        );
        let session = app.session(&app.alice()).await;
        assert_eq!(me(app, &session).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_live_token_is_served_while_its_renewal_fails() {
    with_app(open(), async |app| {
        let own = app.app_token().await;
        assert_eq!(me(app, &own).await.status, 200);
        app.control().fail(Place::Token, Fault::status(503));
        app.advance(3000).await;
        for _ in 0..3 {
            assert_eq!(me(app, &own).await.status, 200);
        }
        let asked = app.control().wait_until(|_| app.token_requests() >= 2);
        within("the renewal was tried", asked).await;
        // Its last half minute is not used any more.
        app.advance(571).await;
        assert_eq!(me(app, &own).await.status, 502);
        app.control().heal(Place::Token);
        app.advance(31).await;
        assert_eq!(me(app, &own).await.status, 200);
    })
    .await;
}

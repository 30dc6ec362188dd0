//! `users.exchange: rfc8693`: the user's token is swapped for one with just what the call needs (PRODUCT 4).

use serde_json::json;
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::seen::Seen;

use super::{ECHO, ME, open};
use crate::harness::{ALICE, BOB, TestOptions, with_app};

fn exchanging() -> TestOptions {
    open().with(json!({"users": {"exchange": "rfc8693"}}))
}

#[tokio::test]
async fn a_call_runs_with_an_exchanged_token_of_just_its_scope() {
    with_app(exchanging(), async |app| {
        let (alice, bob) = (
            app.session(&app.alice()).await,
            app.session(&app.bob()).await,
        );
        for (token, target) in [(&alice, ME), (&alice, ME), (&bob, ME), (&alice, ECHO)] {
            let answer = app.outbound().get(target).bearer(token).fetch().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let seen: Vec<(String, String)> = app
            .api_calls()
            .into_iter()
            .map(|call| match call.identity {
                Seen::User { email, scopes } => (email, scopes.to_string()),
                other => panic!("{other}"),
            })
            .collect();
        let me = "iam.current-user:read";
        let expected = [(ALICE, me), (ALICE, me), (BOB, me), (ALICE, "sql")];
        assert_eq!(
            seen,
            expected.map(|(who, scope)| (who.to_owned(), scope.to_owned()))
        );
        assert_eq!(app.token_requests(), 3, "the second call had it already");
    })
    .await;
}

#[tokio::test]
async fn a_refused_exchange_is_the_users_matter_and_falls_back_to_nothing() {
    with_app(exchanging(), async |app| {
        let session = app.session(&app.alice()).await;
        let body = r#"{"error":"invalid_grant","error_description":"no"}"#;
        let fault = Fault::Status {
            status: 400,
            retry_after_secs: None,
            body: body.into(),
        };
        app.control().fail(Place::Token, fault);
        let answer = app.outbound().get(ME).bearer(&session).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (403, Some("exchange_refused"))
        );
        assert!(app.api_calls().is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_exchange_that_cannot_be_had_is_a_bad_gateway_for_that_call() {
    with_app(exchanging(), async |app| {
        let session = app.session(&app.alice()).await;
        app.control().fail(Place::Token, Fault::status(503));
        let answer = app.outbound().get(ME).bearer(&session).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("token_endpoint_unavailable"))
        );
        assert!(app.api_calls().is_empty());
        app.control().heal(Place::Token);
        app.advance(31).await;
        let answer = app.outbound().get(ME).bearer(&session).fetch().await;
        assert_eq!(answer.status, 200);
    })
    .await;
}

//! TLS to the workspace: names and dates are checked for its APIs, its keys and its token endpoint alike (SECURITY R29).

use std::sync::Arc;

use serde_json::json;
use valetkey::embedded::workspace::WorkspaceOptions;

use crate::harness::certificates::{Issued, issue};
use crate::harness::{TestApp, TestOptions, with_app};

fn options(issued: &Issued, trusted: bool) -> TestOptions {
    let routes = json!([{"name": "me", "operation": "identity.me", "as": "caller"}]);
    let workspace = WorkspaceOptions {
        tls: Some(Arc::clone(&issued.server)),
        host: "localhost".into(),
        ..WorkspaceOptions::default()
    };
    let options = TestOptions {
        workspace,
        ..TestOptions::routes(routes)
    };
    if trusted {
        options.with(json!({"workspace": {"ca_file": issued.ca_file}}))
    } else {
        options
    }
}

#[tokio::test]
async fn a_workspace_behind_a_trusted_certificate_is_reached() {
    let issued = issue("localhost", false);
    with_app(options(&issued, true), async |app: &TestApp| {
        let me = "/api/2.0/preview/scim/v2/Me";
        let session = app.session(&app.alice()).await;
        let as_user = app.outbound().get(me).bearer(&session).fetch().await;
        assert_eq!(
            as_user.header("x-embedded-identity"),
            Some("user:alice@example.com")
        );
        let as_app = app
            .outbound()
            .get(me)
            .bearer(&app.app_token().await)
            .fetch()
            .await;
        assert_eq!(as_app.header("x-embedded-identity"), Some("app"));
    })
    .await;
}

#[tokio::test]
async fn no_byte_of_http_goes_to_a_workspace_that_cannot_prove_its_name() {
    for (what, issued, trusted) in [
        ("an unknown root", issue("localhost", false), false),
        ("another name", issue("other.example", false), true),
        ("an expired certificate", issue("localhost", true), true),
    ] {
        with_app(options(&issued, trusted), async |app: &TestApp| {
            let answer = app.inbound().get("/echo").user(&app.alice()).fetch().await;
            assert_eq!(
                (answer.status, answer.reason()),
                (503, Some("issuer_unavailable")),
                "{what}"
            );
            let own = app.app_token().await;
            let answer = app
                .outbound()
                .get("/api/2.0/preview/scim/v2/Me")
                .bearer(&own)
                .fetch()
                .await;
            assert_eq!(
                (answer.status, answer.reason()),
                (502, Some("token_endpoint_unavailable")),
                "{what}"
            );
            assert!(app.control().calls().is_empty(), "{what}");
            assert_eq!(
                (app.control().key_fetches(), app.control().token_requests()),
                (0, 0),
                "{what}"
            );
        })
        .await;
    }
}

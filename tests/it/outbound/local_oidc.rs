//! The answers that the sidecar gives itself, so that SDKs work and cannot talk around it (PRODUCT 6.4, SECURITY R28).

use serde_json::{Value, json};

use super::open;
use crate::harness::client::Ask;
use crate::harness::{APP_ID, APP_SECRET, LOCAL_ID, LOCAL_SECRET, TestApp, with_app};

const TOKEN: &str = "/oidc/v1/token";
const DOCUMENTS: [&str; 2] = [
    "/oidc/.well-known/oauth-authorization-server",
    "/oidc/.well-known/openid-configuration",
];

fn ask(app: &TestApp) -> Ask {
    app.outbound().post(TOKEN)
}

#[tokio::test]
async fn discovery_names_the_sidecars_own_origin_whatever_the_host_header_says() {
    with_app(open(), async |app| {
        let origin = format!("http://{}", app.addresses.outbound);
        let port = app.addresses.outbound.port();
        for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("LocalHost:{port}")] {
            for path in DOCUMENTS {
                let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: evil.example\r\nConnection: close\r\n\r\n");
                let raw = app.outbound().raw(text).await.text();
                let (head, body) = raw.split_once("\r\n\r\n").unwrap();
                assert!(head.starts_with("HTTP/1.1 200") && head.contains("cache-control: no-store"));
                let document: Value = serde_json::from_str(body).unwrap();
                assert_eq!(document["issuer"], format!("{origin}/oidc"));
                assert_eq!(document["token_endpoint"], format!("{origin}{TOKEN}"));
                for (key, value) in document.as_object().unwrap() {
                    let foreign = value.as_str().is_some_and(|v| v.contains("://") && !v.starts_with(&origin));
                    assert!(!foreign, "{key}: {value}");
                }
            }
        }
        let config = app.outbound().get("/.well-known/databricks-config").fetch().await.json();
        assert_eq!(config["oidc_endpoint"], format!("{origin}/oidc"));
        assert_eq!(config["workspace_id"], app.workspace.workspace_id());
        let keys = app.outbound().get("/oidc/jwks.json").fetch().await.json();
        assert_eq!(keys, json!({"keys": []}));
        assert_eq!(app.token_requests(), 0);
    })
    .await;
}

#[tokio::test]
async fn the_local_pair_gets_a_local_token_by_basic_and_by_form() {
    with_app(open(), async |app| {
        let grant = ("grant_type", "client_credentials");
        let details = (
            "authorization_details",
            r#"[{"type":"workspace_permission"}]"#,
        );
        let forms: [(bool, &[(&str, &str)]); 4] = [
            (true, &[grant, ("scope", "all-apis")]),
            (true, &[grant, ("client_id", LOCAL_ID)]),
            (
                false,
                &[
                    grant,
                    ("client_id", LOCAL_ID),
                    ("client_secret", LOCAL_SECRET),
                ],
            ),
            (true, &[grant, details]),
        ];
        for (basic, form) in forms {
            let mut asking = ask(app).form(form);
            if basic {
                asking = asking.basic(LOCAL_ID, LOCAL_SECRET);
            }
            let answer = asking.fetch().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            let body = answer.json();
            assert_eq!(
                (&body["token_type"], &body["expires_in"]),
                (&json!("Bearer"), &json!(3600))
            );
            assert!(body["access_token"].as_str().unwrap().starts_with("vka_"));
        }
        // Nothing real was asked for yet.
        assert_eq!(app.token_requests(), 0);
    })
    .await;
}

#[tokio::test]
async fn wrong_clients_grants_and_forms_are_refused() {
    with_app(open(), async |app| {
        let grant = ("grant_type", "client_credentials");
        let refused = async |what: &str, ask: Ask, status: u16, error: &str| {
            let answer = ask.fetch().await;
            let body = answer.json();
            assert_eq!(
                (answer.status, &body["error"]),
                (status, &json!(error)),
                "{what}"
            );
            assert_eq!(
                answer.header("www-authenticate").is_some(),
                status == 401,
                "{what}"
            );
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        };
        for (id, secret) in [
            (LOCAL_ID, "wrong"),
            (LOCAL_ID, ""),
            ("wrong", LOCAL_SECRET),
            (LOCAL_SECRET, LOCAL_ID),
            // The real pair is worth nothing here.
            (APP_ID, APP_SECRET),
        ] {
            refused(
                "basic",
                ask(app).basic(id, secret).form(&[grant]),
                401,
                "invalid_client",
            )
            .await;
            let pairs = [grant, ("client_id", id), ("client_secret", secret)];
            refused("form", ask(app).form(&pairs), 401, "invalid_client").await;
        }
        refused("nothing", ask(app).form(&[grant]), 401, "invalid_client").await;
        let good = || ask(app).basic(LOCAL_ID, LOCAL_SECRET);
        let both = good().form(&[grant, ("client_secret", LOCAL_SECRET)]);
        refused("two ways", both, 400, "invalid_request").await;
        let other = good().form(&[grant, ("client_id", "other")]);
        refused("two ids", other, 401, "invalid_client").await;
        for name in ["grant_type", "client_id", "scope", "x"] {
            let twice = good().form(&[grant, (name, "a"), (name, "b")]);
            refused(name, twice, 400, "invalid_request").await;
        }
        for other in [
            "password",
            "authorization_code",
            "refresh_token",
            "",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ] {
            let pairs = [("grant_type", other)];
            refused(other, good().form(&pairs), 400, "unsupported_grant_type").await;
        }
        let json = good().json(&json!({"grant_type": "client_credentials"}));
        refused("json", json, 400, "invalid_request").await;
        let long = "x".repeat(70_000);
        let long = good().form(&[grant, ("scope", &long)]);
        refused("long", long, 400, "invalid_request").await;
        let twice = good().basic(LOCAL_ID, LOCAL_SECRET).form(&[grant]);
        refused("two headers", twice, 401, "invalid_client").await;
        assert_eq!(app.token_requests(), 0);
    })
    .await;
}

#[tokio::test]
async fn nothing_below_oidc_and_well_known_is_ever_forwarded() {
    with_app(open(), async |app| {
        let (session, own) = (app.session(&app.alice()).await, app.app_token().await);
        let before = app.control().call_count();
        for (method, target) in [
            ("GET", "/oidc"),
            ("GET", "/oidc/"),
            ("GET", "/oidc/v1/authorize"),
            ("POST", "/oidc/v1/authorize"),
            ("GET", TOKEN),
            ("PUT", TOKEN),
            ("POST", "/oidc/v1/token/"),
            ("POST", "/oidc/v1/token/x"),
            ("POST", "/oidc/v1/revoke"),
            ("POST", "/oidc/accounts/x/v1/token"),
            ("POST", "/oidc/jwks.json"),
            ("GET", "/.well-known"),
            ("GET", "/.well-known/openid-configuration"),
            ("GET", "/oidc/%2e%2e/api/2.0/preview/scim/v2/Me"),
        ] {
            for token in [&session, &own] {
                let answer = app
                    .outbound()
                    .ask(method, target)
                    .bearer(token)
                    .fetch()
                    .await;
                assert_eq!(answer.status, 404, "{method} {target}");
                assert_eq!(answer.reason(), Some("no_such_local_endpoint"));
            }
        }
        // A name that only begins so is not ours, and no route has it.
        let answer = app.outbound().get("/oidcx/v1").bearer(&own).fetch().await;
        assert_eq!(answer.reason(), Some("no_route"));
        assert_eq!(app.control().call_count(), before);
    })
    .await;
}

#[tokio::test]
async fn a_local_app_token_outlives_the_hour_it_was_announced_for_and_no_more_than_another() {
    with_app(open(), async |app| {
        let own = app.app_token().await;
        let status = async || {
            app.outbound()
                .get(super::ME)
                .bearer(&own)
                .fetch()
                .await
                .status
        };
        app.advance(3599).await;
        assert_eq!(status().await, 200);
        app.advance(3000).await;
        assert_eq!(status().await, 200);
        app.advance(1000).await;
        assert_eq!(status().await, 401);
        assert_ne!(app.app_token().await, own);
    })
    .await;
}

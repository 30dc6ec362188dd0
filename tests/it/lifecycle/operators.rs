//! What operators see: metrics, health, status (PRODUCT 8).

use serde_json::json;

use crate::harness::{ALICE, TestOptions, with_app};

const NAMES: &[&str] = &[
    "valetkey_requests_total",
    "valetkey_request_duration_seconds",
    "valetkey_overhead_seconds",
    "valetkey_inflight_requests",
    "valetkey_denials_total",
    "valetkey_token_verifications_total",
    "valetkey_jwks_fetches_total",
    "valetkey_credential_fetches_total",
    "valetkey_credential_expiry_timestamp_seconds",
    "valetkey_sessions",
    "valetkey_sessions_opened_total",
    "valetkey_audit_records_total",
    "valetkey_audit_failures_total",
    "valetkey_policy_reloads_total",
    "valetkey_build_info",
    "process_start_time_seconds",
];

#[tokio::test]
async fn every_metric_is_there_after_traffic_and_names_nobody() {
    with_app(TestOptions::default(), async |app| {
        let session = app.session(&app.alice()).await;
        let me = "/api/2.0/preview/scim/v2/Me";
        app.outbound().get(me).bearer(&session).fetch().await;
        app.outbound().get(me).bearer(&app.app_token().await).fetch().await;
        app.outbound().get("/api/2.0/who/alice").bearer(&session).fetch().await;
        app.inbound().get("/secret-path").fetch().await;
        app.inbound().ask("BREW", "/").user(&app.alice()).fetch().await;
        app.audit_has("the call", |r| r["event"] == "outcome").await;
        let text = app.metrics().await;
        for name in NAMES {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing");
        }
        for line in [
            r#"valetkey_requests_total{code="200",decision="allow",direction="outbound",identity="user",route="starter"} 1"#,
            r#"valetkey_denials_total{reason="no_route"} 1"#,
            r#"valetkey_denials_total{reason="token_missing"} 1"#,
            r#"valetkey_inflight_requests{direction="inbound"} 0"#,
            r#"valetkey_inflight_requests{direction="outbound"} 0"#,
            r#"valetkey_credential_fetches_total{kind="app",result="ok"} 1"#,
            r#"valetkey_audit_records_total{event="intent"} 2"#,
            "valetkey_audit_failures_total 0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        for foreign in [ALICE, "alice", "secret-path", "BREW", me] {
            assert!(!text.contains(foreign), "{foreign}");
        }
    })
    .await;
}

#[tokio::test]
async fn status_health_and_nothing_else_is_served_to_operators() {
    with_app(TestOptions::default(), async |app| {
        let session = app.session(&app.alice()).await;
        app.outbound()
            .get("/api/2.0/preview/scim/v2/Me")
            .bearer(&session)
            .fetch()
            .await;
        assert_eq!(app.admin().get("/livez").fetch().await.status, 200);
        let (status, readyz) = app.readyz().await;
        assert_eq!((status, &readyz["ready"]), (200, &json!(true)));
        let status = app.admin().get("/status").fetch().await.json();
        assert_eq!(status["workspace"], app.workspace.url());
        assert_eq!(status["agent"], "ready");
        assert_eq!(status["policy"]["origin"], "starter");
        assert_eq!(status["sessions"], 1);
        assert_eq!(status["issuer"]["issuer"], app.workspace.issuer());
        assert_eq!(status["audit"]["healthy"], true);
        for path in [
            "/",
            "/echo",
            "/metrics/",
            "/oidc/v1/token",
            "/api/2.0/preview/scim/v2/Me",
        ] {
            assert_eq!(app.admin().get(path).fetch().await.status, 404, "{path}");
        }
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(app.admin().ask(method, "/status").fetch().await.status, 405);
        }
        // Nobody is proxied to them either.
        let calls = app.agent.count();
        let answer = app
            .inbound()
            .get("/metrics")
            .user(&app.alice())
            .fetch()
            .await;
        assert_eq!(
            (answer.status, app.agent.count()),
            (200, calls + 1),
            "the agent's own /metrics"
        );
    })
    .await;
}

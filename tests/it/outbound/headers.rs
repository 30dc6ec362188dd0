//! What leaves with a call and what comes back with its answer (PRODUCT 6.3, 6.5, SECURITY R15, R25, R26, R30).

use serde_json::json;
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::world::INDEX;

use super::{ECHO, ME, open};
use crate::harness::{ALICE, TestOptions, with_app};

#[tokio::test]
async fn what_must_not_leave_does_not_and_the_rest_does() {
    with_app(open(), async |app| {
        let (session, own) = (app.session(&app.alice()).await, app.app_token().await);
        let mut ask = app.outbound().post(ECHO).bearer(&session).body("hello");
        let dropped = [
            ("cookie", "a=b"),
            ("x-forwarded-access-token", own.as_str()),
            ("x-forwarded-user", "boss"),
            ("x-forwarded-email", "boss@example.com"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("proxy-authorization", "Basic eDp5"),
            ("x-original-url", "/api/2.0/token/create"),
            ("x-rewrite-url", "/api/2.0/token/create"),
            ("x-envoy-original-path", "/x"),
            ("x-http-method-override", "DELETE"),
            ("x-http-method", "DELETE"),
            ("x-method-override", "DELETE"),
            ("x-host", "evil.example"),
            ("x-real-ip", "10.0.0.1"),
            ("x-databricks-azure-sp-management-token", own.as_str()),
            ("x-databricks-gcp-sa-access-token", own.as_str()),
            (
                "x-databricks-azure-workspace-resource-id",
                "/subscriptions/x",
            ),
            ("x-databricks-org-id", "42"),
            ("x-databricks-workspace-id", "42"),
            ("x-valetkey-scopes", "all-apis"),
            ("x-auth-request-user", "boss"),
            ("x_forwarded_user", "boss"),
            ("authorization_", "Bearer x"),
            ("te", "trailers"),
            ("keep-alive", "timeout=9"),
        ];
        for (name, value) in dropped {
            ask = ask.header(name, value);
        }
        let kept = [
            ("user-agent", "databricks-sdk-py/0.94"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip"),
            ("x-databricks-test", "1"),
            ("idempotency-key", "k1"),
            ("content-type", "text/plain"),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        ];
        for (name, value) in kept {
            ask = ask.header(name, value);
        }
        assert_eq!(ask.fetch().await.status, 200);
        let seen = app.api_calls().pop().unwrap();
        for (name, _) in dropped {
            assert!(seen.header(name).is_empty(), "{name} left");
        }
        for (name, value) in kept {
            assert_eq!(seen.header(name), [value]);
        }
        assert_eq!(seen.header("host"), [app.workspace.addr().to_string()]);
        assert_eq!(seen.header("authorization").len(), 1);
        assert_eq!(seen.header("content-length"), ["5"]);
        let record = app.audit_has("the call", |r| r["event"] == "intent").await;
        assert_eq!(record["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    })
    .await;
}

#[tokio::test]
async fn connection_cannot_remove_the_credential_or_the_host() {
    with_app(open(), async |app| {
        let (session, host) = (app.session(&app.alice()).await, app.addresses.outbound);
        let text = |nominated: &str| {
            format!(
                "GET {ME} HTTP/1.1\r\nHost: {host}\r\nX-Hop: 1\r\nConnection: close, {nominated}\r\nAuthorization: Bearer {session}\r\n\r\n"
            )
        };
        let raw = app.outbound().raw(text("host, x-hop")).await;
        assert_eq!(raw.status(), 200, "{}", raw.text());
        let seen = app.api_calls().pop().unwrap();
        assert_eq!(seen.header("host"), [app.workspace.addr().to_string()]);
        assert!(seen.header("x-hop").is_empty());
        let raw = app.outbound().raw(text("authorization")).await;
        assert_eq!(raw.status(), 401, "a nominated credential is none");
    })
    .await;
}

#[tokio::test]
async fn answers_come_back_without_cookies_and_false_marks_and_otherwise_whole() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let answer = app.outbound().get(ME).bearer(&session).fetch().await;
        assert_eq!(answer.status, 200);
        for gone in [
            "set-cookie",
            "x-valetkey-error",
            "connection",
            "transfer-encoding",
        ] {
            assert_eq!(answer.header(gone), None, "{gone}");
        }
        assert_eq!(
            answer.header("x-databricks-org-id"),
            Some(app.workspace.workspace_id())
        );
        let id = answer.header("x-request-id").unwrap().to_owned();
        let record = app
            .audit_has("the outcome", |r| r["event"] == "outcome")
            .await;
        assert_eq!(record["upstream_request_id"], id);
        // The platform's own refusals pass with their code and phrase.
        let body = r#"{"error_code":"QUOTA_EXCEEDED","message":"no"}"#;
        let fault = Fault::Status {
            status: 429,
            retry_after_secs: Some(7),
            body: body.into(),
        };
        app.control().fail_next(Place::Api, fault, 1);
        let answer = app.outbound().get(ME).bearer(&session).fetch().await;
        assert_eq!(
            (answer.status, answer.header("retry-after"), answer.reason()),
            (429, Some("7"), None)
        );
        assert_eq!(answer.text(), body);
    })
    .await;
}

#[tokio::test]
async fn redirects_are_passed_never_followed_and_lead_back_to_the_sidecar() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let workspace = app.workspace.url();
        let sidecar = format!("http://{}", app.addresses.outbound);
        for (to, expected) in [
            (
                format!("{workspace}/api/2.0/x?y=1#z"),
                format!("{sidecar}/api/2.0/x?y=1#z"),
            ),
            (workspace.clone(), sidecar.clone()),
            (format!("{workspace}?q"), format!("{sidecar}?q")),
            (format!("{workspace}1/x"), format!("{workspace}1/x")),
            (
                format!("{workspace}.evil.example/x"),
                format!("{workspace}.evil.example/x"),
            ),
            (
                format!("{workspace}@evil.example/x"),
                format!("{workspace}@evil.example/x"),
            ),
            ("/relative".into(), "/relative".into()),
            (
                "https://elsewhere.example/login".into(),
                "https://elsewhere.example/login".into(),
            ),
        ] {
            let before = app.api_calls().len();
            let query: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
            let target = format!("/api/2.0/embedded/redirect?to={query}");
            let answer = app.outbound().get(&target).bearer(&session).fetch().await;
            assert_eq!(
                (answer.status, answer.header("location")),
                (302, Some(&*expected))
            );
            assert_eq!(app.api_calls().len(), before + 1, "{to}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_index_names_the_sidecar_where_else_it_could_be_asked() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let target = format!("/api/2.0/vector-search/indexes/{INDEX}");
        let ask = app
            .outbound()
            .get(&target)
            .bearer(&session)
            .header("accept-encoding", "gzip");
        let answer = ask.fetch().await;
        assert_eq!(answer.status, 200);
        let body = answer.json();
        assert_eq!(body["name"], INDEX);
        assert_eq!(body["status"]["ready"], true);
        let here = format!("http://{}{target}", app.addresses.outbound);
        assert_eq!(body["status"]["index_url"], here);
        assert!(!answer.text().contains(&app.workspace.url()));
        let length = answer.header("content-length").unwrap();
        assert_eq!(length, answer.body.len().to_string());
        assert_eq!(
            app.api_calls().pop().unwrap().header("accept-encoding"),
            ["identity"]
        );
    })
    .await;
}

#[tokio::test]
async fn http2_calls_are_checked_and_forwarded_alike() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let out = app.outbound().h2();
        let answer = out
            .get(ME)
            .bearer(&session)
            .header("x-forwarded-user", "boss")
            .fetch()
            .await;
        assert_eq!(answer.json()["userName"], ALICE);
        let seen = app.api_calls().pop().unwrap();
        assert_eq!(seen.header("host"), [app.workspace.addr().to_string()]);
        assert!(seen.header("x-forwarded-user").is_empty());
        assert_eq!(out.get(ME).fetch().await.status, 401);
        let answer = out
            .get(&format!("{ECHO}/%2e%2e/x"))
            .bearer(&session)
            .fetch()
            .await;
        assert_eq!(answer.reason(), Some("bad_path"));
    })
    .await;
}

#[tokio::test]
async fn presigned_links_are_refused_unless_allowed() {
    let target = "/api/2.0/fs/create-download-url?path=/Volumes/main/sales/files/a.txt";
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let answer = app.outbound().post(target).bearer(&session).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (403, Some("presigned_refused"))
        );
        assert!(app.api_calls().is_empty());
    })
    .await;
    let options = open().with(json!({"outbound": {"presigned": "allow"}}));
    with_app(options, async |app| {
        let session = app.session(&app.alice()).await;
        let answer = app.outbound().post(target).bearer(&session).fetch().await;
        // The workspace itself has presigning off.
        assert_eq!((answer.status, answer.reason()), (403, None));
        assert_eq!(app.api_calls().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_page_where_json_is_due_passes_as_it_is() {
    with_app(TestOptions::routes(super::open_routes()), async |app| {
        let session = app.session(&app.alice()).await;
        let answer = app
            .outbound()
            .get("/api/2.0/embedded/login")
            .bearer(&session)
            .fetch()
            .await;
        assert!(answer.text().starts_with("<!DOCTYPE html>"));
    })
    .await;
}

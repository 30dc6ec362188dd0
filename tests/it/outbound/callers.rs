//! Who calls, and as whom the call runs (PRODUCT 6.1, 6.3, SECURITY R23, R24, R27).

use serde_json::json;
use valetkey::embedded::seen::Seen;
use valetkey::embedded::world::{CHAT_ENDPOINT, EXPERIMENT, WAREHOUSE};

use super::{ECHO, ME, execute, open};
use crate::harness::{ALICE, APP_ID, TestOptions, with_app};

#[tokio::test]
async fn each_route_runs_as_the_identity_it_names() {
    let routes = json!([
        {"name": "as-user", "resource": format!("sql_warehouse/{WAREHOUSE}"), "as": "user"},
        {"name": "as-app", "operation": "mlflow.*", "as": "app"},
        {"name": "as-caller", "operation": "identity.me", "as": "caller"},
        {"name": "never", "resource": format!("serving_endpoint/{CHAT_ENDPOINT}"), "as": "deny"},
    ]);
    with_app(TestOptions::routes(routes), async |app| {
        let (session, own) = (app.session(&app.alice()).await, app.app_token().await);
        let experiment = format!("/api/2.0/mlflow/experiments/get?experiment_id={EXPERIMENT}");
        let name = async |target: &str, token: &str| {
            let answer = app.outbound().get(target).bearer(token).fetch().await;
            (
                answer.status,
                answer.header("x-embedded-identity").map(str::to_owned),
            )
        };
        let user = Some(format!("user:{ALICE}"));
        let app_identity = Some("app".to_owned());
        let answer = execute(app, &session).fetch().await;
        assert_eq!(
            answer.header("x-embedded-identity").map(str::to_owned),
            user
        );
        assert_eq!(
            execute(app, &own).fetch().await.reason(),
            Some("user_required")
        );
        assert_eq!(
            name(&experiment, &session).await,
            (200, app_identity.clone())
        );
        assert_eq!(name(&experiment, &own).await, (200, app_identity.clone()));
        assert_eq!(name(ME, &session).await, (200, user));
        assert_eq!(name(ME, &own).await, (200, app_identity));
        let model = format!("/api/2.0/serving-endpoints/{CHAT_ENDPOINT}");
        assert_eq!(name(&model, &session).await.0, 403);
        assert_eq!(name(&model, &own).await.0, 403);

        // The app acted on a user's behalf, and the log says so.
        let record = app
            .audit_has("the app's call for Alice", |r| {
                r["event"] == "outcome" && r["route"] == "as-app" && r["user"]["sub"] == ALICE
            })
            .await;
        assert_eq!(record["identity"], "app");
    })
    .await;
}

#[tokio::test]
async fn without_one_live_local_token_nothing_happens() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let ask = || app.outbound().get(ME);
        let answer = ask().fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (401, Some("local_token_missing"))
        );
        assert!(answer.header("www-authenticate").is_some());
        assert_eq!(answer.json()["error_code"], "UNAUTHENTICATED");
        for bad in ["Bearer vks_nobody", "Bearer x", "bearer vka_nobody"] {
            let answer = ask().header("authorization", bad).fetch().await;
            assert_eq!(
                (answer.status, answer.reason()),
                (401, Some("local_token_invalid")),
                "{bad}"
            );
        }
        for bad in [
            "Basic eDp5",
            "Bearer",
            "Bearer ",
            "Token x",
            &format!("Bearer {session}, x"),
        ] {
            let answer = ask().header("authorization", bad).fetch().await;
            assert_eq!(
                (answer.status, answer.reason()),
                (400, Some("bad_head")),
                "{bad}"
            );
        }
        let both = ask().bearer(&session).bearer(&app.app_token().await);
        assert_eq!(both.fetch().await.status, 400);
        // Anywhere else it is nothing.
        for (name, value) in [
            ("x-forwarded-access-token", session.clone()),
            ("cookie", format!("token={session}")),
            ("proxy-authorization", format!("Bearer {session}")),
        ] {
            let answer = ask().header(name, &value).fetch().await;
            assert_eq!(answer.reason(), Some("local_token_missing"), "{name}");
        }
        assert!(app.api_calls().is_empty());
        // The scheme's case is free (RFC 9110 11.1).
        let answer = ask()
            .header("authorization", &format!("bEARER {session}"))
            .fetch()
            .await;
        assert_eq!(answer.status, 200);
    })
    .await;
}

#[tokio::test]
async fn another_users_token_in_another_header_changes_nothing() {
    with_app(open(), async |app| {
        let (alice, bob) = (
            app.session(&app.alice()).await,
            app.session(&app.bob()).await,
        );
        let answer = app
            .outbound()
            .get(ME)
            .bearer(&alice)
            .header("x-forwarded-access-token", &bob)
            .header("x-databricks-azure-sp-management-token", &bob)
            .header("cookie", &format!("session={bob}"))
            .fetch()
            .await;
        assert_eq!(answer.json()["userName"], ALICE);
    })
    .await;
}

#[tokio::test]
async fn identity_belongs_to_the_token_and_not_to_the_connection() {
    with_app(open(), async |app| {
        let (alice, bob) = (app.session(&app.alice()).await, app.session(&app.bob()).await);
        let host = app.addresses.outbound;
        let one = |token: &str, close: &str| {
            format!("GET {ME} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: {close}\r\n\r\n")
        };
        let own = app.app_token().await;
        let text = [one(&alice, "keep-alive"), one(&bob, "keep-alive"), one(&own, "close")].concat();
        let raw = app.outbound().raw(text).await.text();
        let names: Vec<&str> = raw
            .split("\"userName\":\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(names, [ALICE, "bob@example.com", APP_ID]);
    })
    .await;
}

#[tokio::test]
async fn only_clients_on_this_machine_that_name_it_are_served() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let port = app.addresses.outbound.port();
        let with_host = async |host: &str| {
            let text = format!(
                "GET {ME} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {session}\r\nConnection: close\r\n\r\n"
            );
            app.outbound().raw(text).await.status()
        };
        for good in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"] {
            assert_eq!(with_host(&format!("{good}:{port}")).await, 200, "{good}");
        }
        let served = app.api_calls().len();
        for bad in [
            "evil.example".to_owned(),
            format!("evil.example:{port}"),
            format!("127.0.0.1.evil.example:{port}"),
            format!("localhost.evil.example:{port}"),
            "127.0.0.1".to_owned(),
            format!("127.0.0.1:{}", port ^ 1),
            format!("169.254.169.254:{port}"),
            app.workspace.addr().to_string(),
        ] {
            assert_eq!(with_host(&bad).await, 403, "{bad}");
        }
        let page = |name: &str, value: &str| {
            app.outbound().get(ME).bearer(&session).header(name, value)
        };
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", &format!("http://127.0.0.1:{port}")),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let answer = page(name, value).fetch().await;
            assert_eq!((answer.status, answer.reason()), (403, Some("not_local")), "{name}: {value}");
            assert!(answer.headers.keys().all(|k| !k.as_str().starts_with("access-control-")));
        }
        // A page may not even ask for a token.
        let token = app.outbound().post("/oidc/v1/token").header("origin", "https://evil.example");
        assert_eq!(token.fetch().await.status, 403);
        let preflight = app.outbound().ask("OPTIONS", ME).header("origin", "https://evil.example");
        assert_eq!(preflight.fetch().await.status, 403);
        assert_eq!(app.api_calls().len(), served);
    })
    .await;
}

#[tokio::test]
async fn another_workspace_cannot_be_chosen() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let own = app.workspace.workspace_id();
        for bad in [
            "?o=42",
            "?w=42",
            "?x=1&o=42",
            "?%6f=42",
            "?o=",
            &format!("?o={own}&o=42"),
        ] {
            let answer = app
                .outbound()
                .get(&format!("{ECHO}{bad}"))
                .bearer(&session)
                .fetch()
                .await;
            assert_eq!(
                (answer.status, answer.reason()),
                (400, Some("bad_request")),
                "{bad}"
            );
        }
        assert!(app.api_calls().is_empty());
        let answer = app
            .outbound()
            .get(&format!("{ECHO}?o={own}"))
            .bearer(&session)
            .fetch()
            .await;
        assert_eq!(answer.status, 200);
    })
    .await;
}

#[tokio::test]
async fn an_app_token_may_do_what_its_route_needs_and_no_more() {
    with_app(open(), async |app| {
        let own = app.app_token().await;
        app.outbound().get(ME).bearer(&own).fetch().await;
        app.outbound().get(ECHO).bearer(&own).fetch().await;
        let scopes: Vec<String> = app
            .api_calls()
            .iter()
            .map(|call| match &call.identity {
                Seen::App { scopes } => scopes.to_string(),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(scopes, ["iam.current-user:read", "sql"]);
    })
    .await;
}

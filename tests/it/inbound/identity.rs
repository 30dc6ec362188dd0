//! What the agent is told about the caller, and what nobody else can make it believe (SECURITY T9, T10, R8, R9, R16).

use serde_json::json;
use valetkey::embedded::issuer::SignWith;

use crate::harness::{ALICE, TestApp, TestOptions, USER_SCOPES, with_app};

/// Spellings that some framework folds into an identity header.
const SPOOFS: &[&str] = &[
    "X-Forwarded-User",
    "x-forwarded-user",
    "X_Forwarded_User",
    "X-Forwarded_User",
    "x_forwarded-user",
    "X.Forwarded.User",
    "X-FORWARDED-EMAIL",
    "x_forwarded_email",
    "X-Forwarded-Groups",
    "X_FORWARDED_GROUPS",
    "x_forwarded_access_token",
    "X-Forwarded-Access_Token",
    "x.forwarded.access.token",
    "Authorization",
    "Remote-User",
    "REMOTE_USER",
    "X-Remote-User",
    "X-Auth-Request-User",
    "X-Auth-Request-Access-Token",
    "X-User-Id",
    "X-Email",
    "X-Valetkey-Scopes",
    "X-Valetkey-Identity",
    "X-Valetkey-Error",
    "X-Valetkey-Token-Expires",
    "X-Valetkey-Token-Expiring",
];

fn spoofed(app: &TestApp, token: &str, lines: &[&str]) -> String {
    let mut text = format!(
        "GET /echo HTTP/1.1\r\nHost: app.example.com\r\nX-Forwarded-Access-Token: {token}\r\nConnection: close\r\n"
    );
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    assert_eq!(app.agent.count(), 0);
    text
}

#[tokio::test]
async fn forged_identity_headers_never_reach_the_agent_in_any_spelling() {
    with_app(TestOptions::default(), async |app| {
        let mut lines: Vec<String> = SPOOFS.iter().map(|name| format!("{name}: spoof")).collect();
        // Twice, so that neither the first nor the last of duplicates wins.
        lines.extend(lines.clone());
        lines.push("X-Custom: kept".into());
        lines.push("Cookie: own=1".into());
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let raw = app.inbound().raw(spoofed(app, &app.alice(), &lines)).await;
        assert_eq!(raw.status(), 200, "{}", raw.text());
        let got = app.agent.last();
        for (name, value) in &got.headers {
            assert_ne!(value, b"spoof", "{name}");
            assert!(!name.contains(['_', '.']), "{name}");
        }
        assert_eq!(got.header("x-forwarded-user"), [ALICE]);
        assert_eq!(got.header("x-forwarded-email"), [ALICE]);
        assert_eq!(got.header("x-valetkey-identity"), ["verified"]);
        assert_eq!(got.header("x-custom"), ["kept"]);
        assert_eq!(got.header("cookie"), ["own=1"]);
        assert_eq!(got.header("host"), ["app.example.com"]);
        assert!(got.header("authorization").is_empty());
        assert!(got.header("x-forwarded-groups").is_empty());
    })
    .await;
}

#[tokio::test]
async fn connection_can_neither_remove_what_the_sidecar_adds_nor_bring_its_own() {
    with_app(TestOptions::default(), async |app| {
        let lines = [
            "Connection: x-forwarded-user, x-valetkey-scopes, host, x-hop",
            "X-Hop: 1",
            "Keep-Alive: timeout=9",
            "Proxy-Authorization: Basic eDp5",
            "TE: trailers",
        ];
        let raw = app.inbound().raw(spoofed(app, &app.alice(), &lines)).await;
        assert_eq!(raw.status(), 200, "{}", raw.text());
        let got = app.agent.last();
        assert_eq!(got.header("x-forwarded-user"), [ALICE]);
        assert_eq!(got.header("x-valetkey-scopes").len(), 1);
        assert_eq!(got.header("host"), ["app.example.com"]);
        for gone in [
            "x-hop",
            "keep-alive",
            "proxy-authorization",
            "te",
            "upgrade",
        ] {
            assert!(got.header(gone).is_empty(), "{gone}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_that_connection_nominates_counts_as_absent() {
    with_app(TestOptions::default(), async |app| {
        let lines = ["Connection: X-Forwarded-Access-Token"];
        let raw = app.inbound().raw(spoofed(app, &app.alice(), &lines)).await;
        assert_eq!(raw.status(), 401, "{}", raw.text());
        assert_eq!(app.agent.count(), 0);
    })
    .await;
}

#[tokio::test]
async fn the_agent_gets_one_session_token_in_place_of_the_users() {
    with_app(TestOptions::default(), async |app| {
        let token = app.alice();
        let session = app.session(&token).await;
        assert!(session.starts_with("vks_") && session.len() == 47);
        // The same user token finds the same session.
        assert_eq!(app.session(&token).await, session);
        assert_ne!(app.session(&app.bob()).await, session);
        let me = app
            .outbound()
            .get("/api/2.0/preview/scim/v2/Me")
            .bearer(&session)
            .fetch()
            .await;
        assert_eq!(me.json()["userName"], ALICE);
    })
    .await;
}

#[tokio::test]
async fn the_front_doors_word_stands_only_where_the_token_says_nothing_and_is_marked() {
    with_app(TestOptions::default(), async |app| {
        let ask = |token: &str| {
            app.inbound()
                .get("/echo")
                .user(token)
                .header("x-forwarded-preferred-username", "from the door")
                .header("x-forwarded-email", "door@example.com")
        };
        ask(&app.alice()).fetch().await;
        let got = app.agent.last();
        let name = "x-forwarded-preferred-username";
        assert_eq!(got.header(name), ["from the door"]);
        assert_eq!(got.header("x-forwarded-email"), [ALICE]);
        assert_eq!(got.header("x-valetkey-identity"), ["asserted"]);

        let mut claims = app.workspace.user_claims(ALICE, USER_SCOPES);
        claims["name"] = json!("Alice from the token");
        let token = app
            .workspace
            .claims_token(&claims, &json!({}), SignWith::Current);
        ask(&token.unwrap()).fetch().await;
        let got = app.agent.last();
        assert_eq!(got.header(name), ["Alice from the token"]);
        assert_eq!(got.header("x-valetkey-identity"), ["verified"]);

        // Twice is no word at all.
        let twice = ask(&app.alice()).header(name, "another");
        twice.fetch().await;
        let got = app.agent.last();
        assert!(got.header(name).is_empty());
        assert_eq!(got.header("x-valetkey-identity"), ["verified"]);
    })
    .await;
}

#[tokio::test]
async fn request_trailers_become_no_headers() {
    with_app(TestOptions::default(), async |app| {
        let token = app.alice();
        let raw = app
            .inbound()
            .raw(format!(
                "POST /echo HTTP/1.1\r\nHost: a\r\nX-Forwarded-Access-Token: {token}\r\nConnection: close\r\n\
                 Trailer: X-Forwarded-User, X-Late\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\nX-Forwarded-User: spoof\r\nX-Late: 1\r\n\r\n"
            ))
            .await;
        assert_eq!(raw.status(), 200, "{}", raw.text());
        let got = app.agent.last();
        assert_eq!(got.body, b"hello");
        assert!(got.complete);
        assert_eq!(got.header("x-forwarded-user"), [ALICE]);
        for gone in ["x-late", "(trailers)", "trailer"] {
            assert!(got.header(gone).is_empty(), "{gone}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_agents_answer_is_cleaned_of_hop_by_hop_headers_and_false_marks() {
    with_app(TestOptions::default(), async |app| {
        let answer = app.inbound().get("/odd").user(&app.alice()).fetch().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-own"), Some("kept"));
        // The agent's own cookies belong to its users.
        assert_eq!(answer.header("set-cookie"), Some("own=1"));
        assert_eq!(answer.reason(), None);
        for gone in ["x-private", "keep-alive", "connection"] {
            assert_eq!(answer.header(gone), None, "{gone}");
        }
        assert!(answer.header("x-request-id").is_some());
    })
    .await;
}

#[tokio::test]
async fn the_front_doors_request_id_stays_and_a_missing_one_is_made() {
    with_app(TestOptions::default(), async |app| {
        let ask = || app.inbound().get("/echo").user(&app.alice());
        ask().header("x-request-id", "door-1").fetch().await;
        assert_eq!(app.agent.last().header("x-request-id"), ["door-1"]);
        let answer = ask().fetch().await;
        let got = app.agent.last();
        assert_eq!(
            got.header("x-request-id"),
            [answer.header("x-request-id").unwrap()]
        );
    })
    .await;
}

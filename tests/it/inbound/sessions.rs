//! How long a session lives, and who may use it (PRODUCT 5.3, 5.4, SECURITY R11).

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use valetkey::domain::clock::Timestamp;
use valetkey::embedded::issuer::SignWith;

use crate::harness::{ALICE, BOB, START, TestApp, TestOptions, USER_SCOPES, with_app};

const ME: &str = "/api/2.0/preview/scim/v2/Me";

async fn who(app: &TestApp, session: &str) -> Result<String, String> {
    let answer = app.outbound().get(ME).bearer(session).fetch().await;
    match answer.status {
        200 => Ok(answer.json()["userName"].as_str().unwrap().to_owned()),
        _ => Err(answer.reason().unwrap_or("the workspace").to_owned()),
    }
}

#[tokio::test]
async fn a_session_lingers_after_its_last_request_and_then_ends() {
    with_app(TestOptions::default(), async |app| {
        let session = app.session(&app.alice()).await;
        app.advance(119).await;
        assert_eq!(who(app, &session).await, Ok(ALICE.into()));
        // An outbound call is no request that opened it.
        app.advance(2).await;
        assert_eq!(who(app, &session).await, Err("local_token_invalid".into()));
        app.audit_has("the end", |r| r["event"] == "session_closed")
            .await;
        let opened = app
            .audit_has("the beginning", |r| r["event"] == "session_opened")
            .await;
        assert_eq!(opened["user"]["sub"], ALICE);
        assert!(app.metrics().await.contains("valetkey_sessions 0"));
    })
    .await;
}

#[tokio::test]
async fn a_session_lives_as_long_as_a_request_that_opened_it_runs() {
    with_app(TestOptions::default(), async |app| {
        let token = app.token(ALICE, USER_SCOPES, 7200);
        let session = app.session(&token).await;
        let stream = app.inbound().get("/sse").user(&token).send().await;
        for _ in 0..3 {
            app.advance(1500).await;
            assert_eq!(who(app, &session).await, Ok(ALICE.into()));
        }
        drop(stream);
        app.agent
            .wait_until("the stream is gone", |a| a.open() == 0)
            .await;
        app.advance(121).await;
        assert_eq!(who(app, &session).await, Err("local_token_invalid".into()));
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_when_nothing_used_it_for_its_ttl() {
    let options = TestOptions::default().with(json!({"users": {"session": {"ttl": "10m"}}}));
    with_app(options, async |app| {
        let token = app.alice();
        let session = app.session(&token).await;
        let _stream = app.inbound().get("/sse").user(&token).send().await;
        app.advance(599).await;
        assert_eq!(who(app, &session).await, Ok(ALICE.into()));
        app.advance(601).await;
        assert_eq!(who(app, &session).await, Err("local_token_invalid".into()));
    })
    .await;
}

#[tokio::test]
async fn a_session_never_outlives_the_users_token() {
    with_app(TestOptions::default(), async |app| {
        let token = app.token(ALICE, USER_SCOPES, 100);
        let session = app.session(&token).await;
        let _stream = app.inbound().get("/sse").user(&token).send().await;
        app.advance(99).await;
        assert_eq!(who(app, &session).await, Ok(ALICE.into()));
        app.advance(1).await;
        assert_eq!(who(app, &session).await, Err("local_token_invalid".into()));
    })
    .await;
}

#[tokio::test]
async fn a_newer_token_of_the_same_user_and_client_refreshes_a_running_session() {
    with_app(TestOptions::default(), async |app| {
        let first = app.token(ALICE, USER_SCOPES, 600);
        let session = app.session(&first).await;
        let _stream = app.inbound().get("/sse").user(&first).send().await;
        app.advance(500).await;
        app.session(&app.token(ALICE, USER_SCOPES, 3600)).await;
        app.advance(200).await;
        assert_eq!(
            who(app, &session).await,
            Ok(ALICE.into()),
            "past the first token's end"
        );
        let seen = app.api_calls();
        assert_eq!(seen.last().unwrap().status, Some(200));
    })
    .await;
}

#[tokio::test]
async fn tokens_of_others_refresh_nobody() {
    with_app(TestOptions::default(), async |app| {
        let first = app.token(ALICE, USER_SCOPES, 600);
        let session = app.session(&first).await;
        let _stream = app.inbound().get("/sse").user(&first).send().await;
        app.session(&app.token(BOB, USER_SCOPES, 3600)).await;
        let mut other_client = app.workspace.user_claims(ALICE, USER_SCOPES);
        other_client["client_id"] = json!("another-client");
        let other = app
            .workspace
            .claims_token(&other_client, &json!({}), SignWith::Current);
        app.session(&other.unwrap()).await;
        app.advance(601).await;
        assert_eq!(who(app, &session).await, Err("local_token_invalid".into()));
    })
    .await;
}

#[tokio::test]
async fn a_refreshed_session_never_gains_scopes() {
    with_app(TestOptions::default(), async |app| {
        let narrow = app.token(ALICE, "sql", 600);
        let session = app.session(&narrow).await;
        let _stream = app.inbound().get("/sse").user(&narrow).send().await;
        app.session(&app.token(ALICE, USER_SCOPES, 3600)).await;
        assert_eq!(who(app, &session).await, Err("scope_missing".into()));
    })
    .await;
}

#[tokio::test]
async fn a_session_token_from_loopback_is_that_session() {
    with_app(TestOptions::default(), async |app| {
        let session = app.session(&app.alice()).await;
        let opened = app.proxy.sessions.len();
        assert_eq!(app.session(&session).await, session);
        assert_eq!(app.agent.last().header("x-forwarded-user"), [ALICE]);
        assert_eq!(app.proxy.sessions.len(), opened);
        // And keeps it alive.
        let _stream = app.inbound().get("/sse").user(&session).send().await;
        app.advance(300).await;
        assert_eq!(who(app, &session).await, Ok(ALICE.into()));
    })
    .await;
}

#[tokio::test]
async fn local_tokens_that_are_not_alive_are_refused_on_both_sides() {
    with_app(TestOptions::default(), async |app| {
        let session = app.session(&app.alice()).await;
        let app_token = app.app_token().await;
        let mut mutated = session.clone();
        mutated.pop();
        mutated.push(if session.ends_with('A') { 'B' } else { 'A' });
        for bad in [&*mutated, &session[..46], "vks_", &app_token] {
            let answer = app.inbound().get("/").user(bad).fetch().await;
            assert_eq!(answer.reason(), Some("token_invalid"), "{bad}");
        }
        for bad in [&*mutated, &session[4..], "vka_", &app.alice()] {
            assert_eq!(
                who(app, bad).await,
                Err("local_token_invalid".into()),
                "{bad}"
            );
        }
        assert!(app.api_calls().is_empty());
    })
    .await;
}

#[tokio::test]
async fn sessions_are_bounded() {
    let options = TestOptions::default().with(json!({"users": {"session": {"sessions_max": 10}}}));
    with_app(options, async |app| {
        for _ in 0..10 {
            app.session(&app.alice()).await;
        }
        let answer = app.inbound().get("/").user(&app.bob()).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (503, Some("sessions_full"))
        );
        assert!(answer.header("retry-after").is_some());
        app.advance(121).await;
        app.session(&app.bob()).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_jwt_is_verified_with_the_sidecars_own_keys() {
    let options = TestOptions::default().with(json!({"users": {"session": {"format": "jwt"}}}));
    with_app(options, async |app| {
        let token = app.alice();
        let session = app.session(&token).await;
        assert_eq!(app.session(&token).await, session);
        let keys = app.outbound().get("/oidc/jwks.json").fetch().await.json();
        let key = &keys["keys"][0];
        assert_eq!(key["crv"], "Ed25519");
        let key = DecodingKey::from_ed_components(key["x"].as_str().unwrap()).unwrap();
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_audience(&["agent"]);
        rules.set_issuer(&[format!("http://{}/oidc", app.addresses.outbound)]);
        rules.validate_exp = false;
        let read = jsonwebtoken::decode::<Value>(&session, &key, &rules).unwrap();
        assert_eq!(read.claims["sub"], ALICE);
        let told = app.agent.last();
        assert_eq!(read.claims["scope"], told.header("x-valetkey-scopes")[0]);
        assert_eq!(who(app, &session).await, Ok(ALICE.into()));
        // The workspace takes it for nothing.
        let url = format!("{}{ME}", app.workspace.url());
        assert!(url.starts_with("http://127.0.0.1:"));
        app.advance(121).await;
        assert_eq!(who(app, &session).await, Err("local_token_invalid".into()));
    })
    .await;
}

/// Seconds since 1970 at which the harness begins.
fn begin() -> i64 {
    let start: Timestamp = START.parse().unwrap();
    start.as_second()
}

#[tokio::test]
async fn the_agent_is_told_when_the_token_ends_and_warned_when_it_is_soon() {
    with_app(TestOptions::default(), async |app| {
        let session = app.session(&app.token(ALICE, USER_SCOPES, 1000)).await;
        let _stream = app
            .inbound()
            .get("/sse")
            .user(&app.token(ALICE, USER_SCOPES, 1000))
            .send()
            .await;
        let told = app.agent.last().header("x-valetkey-token-expires")[0].to_owned();
        assert_eq!(told, (begin() + 1000).to_string());
        let warning = async |token: &str| {
            let answer = app.outbound().get(ME).bearer(token).fetch().await;
            answer
                .header("x-valetkey-token-expiring")
                .map(str::to_owned)
        };
        assert_eq!(warning(&session).await, None);
        app.advance(600).await;
        let session = app.agent.last().header("x-forwarded-access-token")[0].to_owned();
        assert_eq!(
            warning(&session).await,
            None,
            "400 s are left, 300 s is the default"
        );
        app.advance(101).await;
        assert_eq!(warning(&session).await.as_deref(), Some("299"));
        assert_eq!(
            warning(&app.app_token().await).await,
            None,
            "the app has no such end"
        );
        // The user comes again: what the session holds now lives longer.
        let newer = app.token(ALICE, USER_SCOPES, 3600);
        app.session(&newer).await;
        assert_eq!(warning(&session).await, None);
        let told = app.agent.last().header("x-valetkey-token-expires")[0].to_owned();
        assert_eq!(told, (begin() + 701 + 3600).to_string());
    })
    .await;
}

#[tokio::test]
async fn the_time_of_the_warning_is_configured_and_zero_means_never() {
    for (ahead, expected) in [("20m", Some("1000")), ("0s", None)] {
        let config = json!({"users": {"session": {"expiry_warning": ahead}}});
        with_app(TestOptions::default().with(config), async |app| {
            let session = app.session(&app.token(ALICE, USER_SCOPES, 1000)).await;
            let answer = app.outbound().get(ME).bearer(&session).fetch().await;
            assert_eq!(answer.header("x-valetkey-token-expiring"), expected);
        })
        .await;
    }
}

//! Which user tokens are believed, and how little a refusal tells (PRODUCT 5.2, 5.5, SECURITY R1, R6, R12).

use serde_json::{Value, json};
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::issuer::SignWith;

use crate::harness::client::Answer;
use crate::harness::{ALICE, TestApp, TestOptions, USER_SCOPES, with_app};

fn forged(app: &TestApp, spoil: impl Fn(&mut Value), header: &Value, with: SignWith) -> String {
    let mut claims = app.workspace.user_claims(ALICE, USER_SCOPES);
    spoil(&mut claims);
    app.workspace.claims_token(&claims, header, with).unwrap()
}

/// The body without the one thing that may differ.
fn told(answer: &Answer) -> String {
    let id = answer.header("x-request-id").unwrap();
    answer.text().replace(id, "ID")
}

#[tokio::test]
async fn forged_tokens_all_get_the_same_word() {
    with_app(TestOptions::default(), async |app| {
        let plain = json!({});
        let claim = |name: &'static str, value: Value| {
            forged(
                app,
                move |c| c[name] = value.clone(),
                &plain,
                SignWith::Current,
            )
        };
        let header = |header: Value| forged(app, |_| {}, &header, SignWith::Current);
        let issuer = app.workspace.issuer();
        let audience = app.workspace.workspace_id();
        let cases = [
            ("stranger", forged(app, |_| {}, &plain, SignWith::Stranger)),
            (
                "hmac",
                forged(app, |_| {}, &plain, SignWith::PublicKeyAsHmac),
            ),
            ("unsigned", forged(app, |_| {}, &plain, SignWith::Nothing)),
            ("aud", claim("aud", json!("9999999999999999"))),
            ("aud prefix", claim("aud", json!(format!("{audience}0")))),
            ("aud array", claim("aud", json!(["other"]))),
            ("aud null", claim("aud", json!(null))),
            ("iss", claim("iss", json!("https://evil.example/oidc"))),
            ("iss slash", claim("iss", json!(format!("{issuer}/")))),
            ("iss array", claim("iss", json!([issuer]))),
            ("sub", claim("sub", json!(""))),
            ("sub control", claim("sub", json!("alice@example.com\u{0}"))),
            ("sub bidi", claim("sub", json!("alice\u{202e}@example.com"))),
            ("sub number", claim("sub", json!(7))),
            ("exp text", claim("exp", json!("9999999999"))),
            ("exp null", claim("exp", json!(null))),
            ("nbf text", claim("nbf", json!("0"))),
            ("nbf later", claim("nbf", json!(4_000_000_000u64))),
            ("iat later", claim("iat", json!(4_000_000_000u64))),
            ("crit", header(json!({"crit": ["exp"]}))),
            ("b64", header(json!({"b64": false, "crit": ["b64"]}))),
            ("zip", header(json!({"zip": "DEF"}))),
            ("kid", header(json!({"kid": null}))),
            ("kid other", header(json!({"kid": "nobody"}))),
            ("typ", header(json!({"typ": "logout+jwt"}))),
            ("alg", header(json!({"alg": "RS512"}))),
            ("text", "not-a-token".to_owned()),
            ("pat", "dapi0123456789abcdef0123456789abcdef".to_owned()),
            ("large", "a".repeat(25 * 1024)),
        ];
        let mut word: Option<String> = None;
        for (name, token) in &cases {
            let answer = app.inbound().get("/").user(token).fetch().await;
            assert_eq!(
                (answer.status, answer.reason()),
                (401, Some("token_invalid")),
                "{name}"
            );
            assert!(answer.header("www-authenticate").is_some());
            let told = told(&answer);
            assert_eq!(*word.get_or_insert_with(|| told.clone()), told, "{name}");
        }
        assert!(word.unwrap().contains("the user token is invalid"));
        assert_eq!(app.agent.count(), 0);
        assert!(app.proxy.sessions.is_empty());
        app.audit_has("the refusals", |r| r["event"] == "token_rejected")
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_good_token_of_the_same_making_is_accepted() {
    with_app(TestOptions::default(), async |app| {
        let good = forged(app, |_| {}, &json!({}), SignWith::Current);
        app.session(&good).await;
        let listed = forged(
            app,
            |c| c["aud"] = json!(["other", c["aud"]]),
            &json!({"jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/x"}),
            SignWith::Current,
        );
        app.session(&listed).await;
    })
    .await;
}

#[tokio::test]
async fn two_token_headers_are_a_bad_request() {
    with_app(TestOptions::default(), async |app| {
        let (alice, bob) = (app.alice(), app.bob());
        for pair in [[&alice, &bob], [&alice, &alice]] {
            let ask = app.inbound().get("/").user(pair[0]).user(pair[1]);
            let answer = ask.fetch().await;
            assert_eq!((answer.status, answer.reason()), (400, Some("bad_head")));
        }
        let joined = format!("{alice}, {bob}");
        let answer = app.inbound().get("/").user(&joined).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (401, Some("token_invalid"))
        );
        let prefixed = format!("Bearer {alice}");
        let answer = app.inbound().get("/").user(&prefixed).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (401, Some("token_invalid"))
        );
        assert_eq!(app.agent.count(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_token_ends_at_its_second_and_the_leeway() {
    with_app(TestOptions::default(), async |app| {
        let token = app.token(ALICE, "sql", 60);
        let enter = async || {
            let answer = app.inbound().get("/").user(&token).fetch().await;
            (answer.status, answer.reason().map(str::to_owned))
        };
        assert_eq!(enter().await.0, 200);
        app.advance(60 + 29).await;
        assert_eq!(enter().await.0, 200, "within the leeway of 30 s");
        app.advance(2).await;
        assert_eq!(enter().await, (401, Some("token_expired".into())));
    })
    .await;
}

#[tokio::test]
async fn while_the_issuer_has_given_no_keys_requests_are_asked_to_come_back() {
    let options = TestOptions {
        before: |workspace| workspace.control().fail(Place::Keys, Fault::status(503)),
        ..TestOptions::default()
    };
    with_app(options, async |app| {
        let token = app.alice();
        let answer = app.inbound().get("/").user(&token).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (503, Some("issuer_unavailable"))
        );
        assert!(answer.header("retry-after").is_some());
        assert_eq!(app.agent.count(), 0);
        // A missing token is known to be missing without keys.
        assert_eq!(app.inbound().get("/").fetch().await.status, 401);
    })
    .await;
}

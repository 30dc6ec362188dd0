//! The issuer is down at the start, dies later, or changes its keys under load (SECURITY T32, T33, R31).

use futures_util::future::join_all;
use serde_json::{Value, json};
use valetkey::embedded::control::{Fault, Place};

use crate::harness::{ALICE, BOB, TestApp, TestOptions, USER_SCOPES, with_app};

async fn enter(app: &TestApp, token: &str) -> (u16, Option<String>) {
    let answer = app.inbound().get("/echo").user(token).fetch().await;
    (answer.status, answer.reason().map(str::to_owned))
}

fn check<'a>(readyz: &'a Value, name: &str) -> &'a Value {
    let checks = readyz["checks"].as_array().unwrap();
    checks.iter().find(|c| c["name"] == name).unwrap()
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_is_found_later_without_a_restart() {
    let faults: [fn(&valetkey::embedded::workspace::Workspace); 4] = [
        |w| w.control().fail(Place::Workspace, Fault::Close),
        |w| w.control().fail(Place::Keys, Fault::status(503)),
        |w| w.control().fail(Place::Keys, Fault::Garbage),
        |w| w.control().fail(Place::Workspace, Fault::Garbage),
    ];
    for before in faults {
        let options = TestOptions {
            before,
            ..TestOptions::default()
        };
        with_app(options, async |app| {
            let token = app.alice();
            let (status, reason) = enter(app, &token).await;
            assert_eq!(
                (status, reason.as_deref()),
                (503, Some("issuer_unavailable"))
            );
            let (status, readyz) = app.readyz().await;
            assert_eq!(
                (status, &check(&readyz, "issuer")["ready"]),
                (503, &json!(false))
            );
            for place in [Place::Workspace, Place::Keys] {
                app.control().heal(place);
            }
            app.advance(31).await;
            assert_eq!(enter(app, &token).await.0, 200);
            assert_eq!(app.readyz().await.0, 200);
        })
        .await;
    }
}

#[tokio::test]
async fn known_keys_serve_while_the_issuer_is_dead() {
    with_app(TestOptions::default(), async |app| {
        let token = app.token(ALICE, USER_SCOPES, 30_000);
        assert_eq!(enter(app, &token).await.0, 200);
        app.control().fail(Place::Workspace, Fault::Close);
        for _ in 0..4 {
            app.advance(1800).await;
            assert_eq!(enter(app, &token).await.0, 200);
            // A token that was never seen before, too.
            let fresh = app.token(BOB, USER_SCOPES, 600);
            assert_eq!(enter(app, &fresh).await.0, 200);
        }
        let metrics = app.metrics().await;
        assert!(
            metrics.contains(r#"valetkey_jwks_fetches_total{result="unreachable"}"#),
            "{metrics}"
        );
        let status = app.admin().get("/status").fetch().await.json();
        assert!(
            status["issuer"]["age_seconds"].as_u64().unwrap() >= 7200,
            "{status}"
        );
        assert!(status["issuer"]["last_error"].is_string());
        app.control().heal(Place::Workspace);
    })
    .await;
}

#[tokio::test]
async fn a_rotation_during_load_loses_no_valid_request() {
    with_app(TestOptions::default(), async |app| {
        let old: Vec<String> = (0..100).map(|_| app.alice()).collect();
        let ask = async |token: &String| enter(app, token).await;
        let before = join_all(old[..50].iter().map(ask)).await;
        assert!(before.iter().all(|found| found.0 == 200));
        // Right after the last fetch of the keys, while requests are under way.
        let running = join_all(old.iter().map(ask));
        let rotating = async {
            app.control().rotate_keys(true).await.unwrap();
            let new: Vec<String> = (0..100).map(|_| app.bob()).collect();
            join_all(new.iter().map(ask)).await
        };
        let (with_old, with_new) = tokio::join!(running, rotating);
        for (status, reason) in with_old.into_iter().chain(with_new) {
            assert_eq!((status, reason), (200, None));
        }
        assert_eq!(app.control().key_fetches(), 2, "one fetch for all of them");
        // Again, after the floor for unknown keys has passed.
        app.advance(31).await;
        app.control().rotate_keys(true).await.unwrap();
        let newest: Vec<String> = (0..100).map(|_| app.alice()).collect();
        for found in join_all(newest.iter().chain(&old).map(ask)).await {
            assert_eq!(found.0, 200);
        }
        assert_eq!(app.control().key_fetches(), 3);
    })
    .await;
}

#[tokio::test]
async fn unknown_keys_cause_no_flood_of_fetches() {
    with_app(TestOptions::default(), async |app| {
        assert_eq!(enter(app, &app.alice()).await.0, 200);
        let forged: Vec<String> = (0..200)
            .map(|n| {
                let claims = app.workspace.user_claims(ALICE, USER_SCOPES);
                let header = json!({"kid": format!("unknown-{n}")});
                let with = valetkey::embedded::issuer::SignWith::Current;
                app.workspace.claims_token(&claims, &header, with).unwrap()
            })
            .collect();
        for found in join_all(forged.iter().map(async |t| enter(app, t).await)).await {
            assert_eq!((found.0, found.1.as_deref()), (401, Some("token_invalid")));
        }
        assert_eq!(app.control().key_fetches(), 2);
        assert_eq!(enter(app, &app.alice()).await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn a_withdrawn_key_ends_while_the_issuer_is_healthy() {
    with_app(TestOptions::default(), async |app| {
        let token = app.token(ALICE, USER_SCOPES, 30_000);
        assert_eq!(enter(app, &token).await.0, 200);
        app.control().rotate_keys(false).await.unwrap();
        assert_eq!(
            enter(app, &app.token(BOB, USER_SCOPES, 30_000)).await.0,
            200
        );
        // An hour and two refreshes later it is over.
        for _ in 0..8 {
            app.advance(601).await;
            enter(app, &app.token(BOB, USER_SCOPES, 30_000)).await;
        }
        let (status, reason) = enter(app, &token).await;
        assert_eq!((status, reason.as_deref()), (401, Some("token_invalid")));
    })
    .await;
}

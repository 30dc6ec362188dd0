//! Many at once: two users and the app, and never a mix-up.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;
use valetkey::embedded::seen::Seen;
use valetkey::embedded::world::WAREHOUSE;

use crate::harness::{ALICE, APP_ID, BOB, TestOptions, with_app};

#[tokio::test]
async fn fifty_concurrent_requests_of_two_users_and_the_app_are_never_mixed() {
    with_app(TestOptions::default(), async |app| {
        let users = [(ALICE, app.alice()), (BOB, app.bob())];
        let own = app.app_token().await;
        let statement = json!({"warehouse_id": WAREHOUSE, "statement": "select current_user()"});
        let call =
            json!({"method": "POST", "target": "/api/2.0/sql/statements", "body": statement});
        for _ in 0..4 {
            let asking = (0..50).map(|n| {
                let (call, statement, own) = (&call, &statement, &own);
                let (name, token) = &users[n % 2];
                async move {
                    let (expected, ask) = if n % 5 == 4 {
                        let ask = app.outbound().post("/api/2.0/sql/statements").bearer(own);
                        (APP_ID, ask.json(statement))
                    } else {
                        (*name, app.inbound().post("/call").user(token).json(call))
                    };
                    let answer = ask.fetch().await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert_eq!(answer.json()["result"]["data_array"], json!([[expected]]));
                }
            });
            join_all(asking).await;
        }
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for call in app.api_calls() {
            assert!(!matches!(call.identity, Seen::None | Seen::Invalid));
            *seen.entry(call.identity.to_string()).or_default() += 1;
        }
        let expected = [
            ("app", 40),
            ("user:alice@example.com", 80),
            ("user:bob@example.com", 80),
        ];
        assert_eq!(
            seen,
            expected.map(|(who, count)| (who.to_owned(), count)).into()
        );
        app.stop().await;
        let records = app.audit();
        let outcomes = |user: Option<&str>| {
            let of_user = |r: &&serde_json::Value| {
                r["event"] == "outcome" && r["user"]["sub"].as_str() == user
            };
            records.iter().filter(of_user).count()
        };
        assert_eq!(
            [outcomes(Some(ALICE)), outcomes(Some(BOB)), outcomes(None)],
            [80, 80, 40]
        );
    })
    .await;
}

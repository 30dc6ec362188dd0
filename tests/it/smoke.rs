//! The thin path through everything: a user's request, the agent's calls, three routes, the audit log.

use serde_json::json;
use valetkey::embedded::world::WAREHOUSE;

use crate::harness::{ALICE, TestOptions, with_app};

#[tokio::test]
async fn a_user_reaches_the_agent_and_the_agent_reaches_the_workspace_as_that_user() {
    with_app(TestOptions::default(), async |app| {
        let call = json!({
            "method": "POST", "target": "/api/2.0/sql/statements",
            "body": {"warehouse_id": WAREHOUSE, "statement": "select current_user()"},
        });
        let answer = app
            .inbound()
            .post("/call")
            .user(&app.alice())
            .json(&call)
            .fetch()
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["result"]["data_array"], json!([[ALICE]]));
        let token = app.app_token().await;
        let answer = app
            .outbound()
            .get("/api/2.0/preview/scim/v2/Me")
            .bearer(&token)
            .fetch()
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    })
    .await;
}

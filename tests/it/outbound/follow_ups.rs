//! Statements and conversations belong to whoever got their ids (PRODUCT 6.2).

use serde_json::json;
use valetkey::embedded::world::{GENIE_SPACE, WAREHOUSE};

use super::{STATEMENTS, statement};
use crate::harness::{TestApp, TestOptions, with_app};

async fn create(app: &TestApp, token: &str) -> String {
    let mut body = statement(WAREHOUSE);
    body["wait_timeout"] = json!("0s");
    let answer = app
        .outbound()
        .post(STATEMENTS)
        .bearer(token)
        .json(&body)
        .fetch()
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["statement_id"].as_str().unwrap().to_owned()
}

async fn reason(app: &TestApp, method: &str, target: &str, token: &str) -> Option<String> {
    let answer = app
        .outbound()
        .ask(method, target)
        .bearer(token)
        .fetch()
        .await;
    if answer.status == 200 {
        return None;
    }
    Some(answer.reason().unwrap_or("the workspace").to_owned())
}

/// All ways to use a statement's id.
fn uses(id: &str) -> [(&'static str, String); 3] {
    [
        ("GET", format!("{STATEMENTS}/{id}")),
        ("GET", format!("{STATEMENTS}/{id}/result/chunks/0")),
        ("POST", format!("{STATEMENTS}/{id}/cancel")),
    ]
}

#[tokio::test]
async fn a_statement_that_ran_as_the_app_is_its_creators_alone() {
    let routes = json!([{"name": "sql", "operation": "sql.statements.*", "as": "app"}]);
    with_app(TestOptions::routes(routes), async |app| {
        let alice = app.session(&app.alice()).await;
        let bob = app.session(&app.bob()).await;
        let own = app.app_token().await;
        let id = create(app, &alice).await;
        let reached = app.api_calls().len();
        for (method, target) in uses(&id) {
            for stranger in [&bob, &own] {
                let found = reason(app, method, &target, stranger).await;
                assert_eq!(
                    found.as_deref(),
                    Some("follow_up_foreign"),
                    "{method} {target}"
                );
            }
        }
        // The very same words as for an id that never was, but for the reason: nothing else is told.
        for (method, target) in uses("01f0-guessed") {
            let found = reason(app, method, &target, &alice).await;
            assert_eq!(
                found.as_deref(),
                Some("follow_up_unknown"),
                "{method} {target}"
            );
        }
        assert_eq!(app.api_calls().len(), reached);
        for _ in 0..3 {
            let target = format!("{STATEMENTS}/{id}");
            assert_eq!(reason(app, "GET", &target, &alice).await, None);
        }
        // A later session of the same user is the same user.
        let again = app.session(&app.alice()).await;
        assert_ne!(again, alice);
        for (method, target) in uses(&id) {
            assert_eq!(
                reason(app, method, &target, &again).await,
                None,
                "{method} {target}"
            );
        }
        let apps = create(app, &own).await;
        let target = format!("{STATEMENTS}/{apps}");
        assert_eq!(reason(app, "GET", &target, &own).await, None);
        assert_eq!(
            reason(app, "GET", &target, &alice).await.as_deref(),
            Some("follow_up_foreign")
        );
    })
    .await;
}

#[tokio::test]
async fn a_statement_keeps_the_resource_it_was_created_on() {
    let routes =
        json!([{"name": "sql", "resource": format!("sql_warehouse/{WAREHOUSE}"), "as": "user"}]);
    with_app(TestOptions::routes(routes), async |app| {
        let alice = app.session(&app.alice()).await;
        let id = create(app, &alice).await;
        assert_eq!(
            reason(app, "GET", &format!("{STATEMENTS}/{id}"), &alice).await,
            None
        );
        let record = app
            .audit_has("the follow-up", |r| r["operation"] == "sql.statements.get")
            .await;
        assert_eq!(record["resource"]["id"], WAREHOUSE);
        let unknown = reason(app, "GET", &format!("{STATEMENTS}/guessed"), &alice).await;
        assert_eq!(unknown.as_deref(), Some("follow_up_unknown"));
    })
    .await;
}

#[tokio::test]
async fn where_the_workspace_itself_checks_an_unknown_id_is_passed_on() {
    let routes = json!([{"name": "sql", "operation": "sql.statements.*", "as": "user"}]);
    with_app(TestOptions::routes(routes), async |app| {
        let alice = app.session(&app.alice()).await;
        let found = reason(app, "GET", &format!("{STATEMENTS}/guessed"), &alice).await;
        assert_eq!(found.as_deref(), Some("the workspace"));
        assert_eq!(app.api_calls().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_conversation_is_its_beginners_alone() {
    let routes =
        json!([{"name": "genie", "resource": format!("genie_space/{GENIE_SPACE}"), "as": "app"}]);
    with_app(TestOptions::routes(routes), async |app| {
        let alice = app.session(&app.alice()).await;
        let bob = app.session(&app.bob()).await;
        let space = format!("/api/2.0/genie/spaces/{GENIE_SPACE}");
        let begin = app
            .outbound()
            .post(&format!("{space}/start-conversation"))
            .bearer(&alice);
        let begun = begin.json(&json!({"content": "my orders"})).fetch().await;
        assert_eq!(begun.status, 200, "{}", begun.text());
        let id = begun.json()["conversation_id"].as_str().unwrap().to_owned();
        let target = format!("{space}/conversations/{id}/messages");
        assert_eq!(
            reason(app, "GET", &target, &alice)
                .await
                .filter(|r| r != "the workspace"),
            None
        );
        assert_eq!(
            reason(app, "GET", &target, &bob).await.as_deref(),
            Some("follow_up_foreign")
        );
        let unknown = format!("{space}/conversations/guessed/messages");
        assert_eq!(
            reason(app, "GET", &unknown, &alice).await.as_deref(),
            Some("follow_up_unknown")
        );
    })
    .await;
}

//! Nothing happens that is not in the log: also while the log cannot be written (PRODUCT 7, SECURITY R33).

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};
use valetkey::audit_reader::{self, prove::Claim};

use crate::harness::client::Answer;
use crate::harness::{ALICE, TestApp, TestOptions, WAIT_MAX, with_app};

const ME: &str = "/api/2.0/preview/scim/v2/Me";

async fn me(app: &TestApp, token: &str) -> Answer {
    app.outbound().get(ME).bearer(token).fetch().await
}

/// Takes the file away and puts a directory in its place, which nobody can write lines to.
fn break_it(app: &TestApp) -> PathBuf {
    let moved = app.directory().join("moved.jsonl");
    std::fs::rename(&app.audit_file, &moved).unwrap();
    std::fs::create_dir(&app.audit_file).unwrap();
    moved
}

async fn until_answered(app: &TestApp, token: &str, status: u16) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = me(app, token).await;
        if answer.status == status {
            return answer;
        }
        assert!(
            begun.elapsed() < WAIT_MAX,
            "never {status}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn while_the_log_cannot_be_written_calls_are_refused_and_then_go_on() {
    let options = TestOptions {
        audit_is_good: false, // two files by the end, verified below
        ..TestOptions::default()
    };
    with_app(options, async |app| {
        let session = app.session(&app.alice()).await;
        assert_eq!(me(app, &session).await.status, 200);
        let moved = break_it(app);
        let refused = until_answered(app, &session, 500).await;
        assert_eq!(refused.reason(), Some("audit_unavailable"));
        assert_eq!(refused.header("retry-after"), None);
        assert_eq!(refused.json()["error_code"], "INTERNAL_ERROR");
        let reached = app.api_calls().len();
        for _ in 0..5 {
            assert_eq!(me(app, &session).await.status, 500);
        }
        assert_eq!(
            app.api_calls().len(),
            reached,
            "nothing reached the workspace"
        );
        let (status, readyz) = app.readyz().await;
        assert_eq!(status, 503);
        let audit = readyz["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["name"] == "audit");
        assert_eq!(audit.unwrap()["ready"], false);
        assert!(
            !app.metrics()
                .await
                .contains("valetkey_audit_failures_total 0")
        );

        std::fs::remove_dir(&app.audit_file).unwrap();
        until_answered(app, &session, 200).await;
        assert_eq!(app.readyz().await.0, 200);
        app.audit_has("the gap", |r| r["event"] == "gap").await;
        app.stop().await;
        let files = audit_reader::files_of(&[moved, app.audit_file.clone()]).unwrap();
        let mut report = Vec::new();
        let good = audit_reader::prove::verify(&files, &Claim::default(), &mut report).unwrap();
        assert!(good, "{}", String::from_utf8_lossy(&report));
    })
    .await;
}

#[tokio::test]
async fn with_continue_calls_go_on_and_the_gap_is_owned_up_to() {
    let options = TestOptions {
        audit_is_good: false,
        ..TestOptions::default()
    };
    let options = options.with(json!({"audit": {"on_failure": "continue"}}));
    with_app(options, async |app| {
        let session = app.session(&app.alice()).await;
        break_it(app);
        let begun = Instant::now();
        while app.readyz().await.0 == 200 {
            assert_eq!(me(app, &session).await.status, 200);
            assert!(begun.elapsed() < WAIT_MAX, "the failure was never noticed");
        }
        assert_eq!(me(app, &session).await.status, 200);
        std::fs::remove_dir(&app.audit_file).unwrap();
        app.audit_has("the gap", |r| r["event"] == "gap").await;
        app.audit_has("what waited", |r| r["event"] == "outcome")
            .await;
    })
    .await;
}

#[tokio::test]
async fn every_call_that_reached_the_workspace_has_an_intent_before_and_an_outcome_after() {
    with_app(TestOptions::default(), async |app| {
        let (alice, bob) = (
            app.session(&app.alice()).await,
            app.session(&app.bob()).await,
        );
        let own = app.app_token().await;
        for token in [&alice, &bob, &own] {
            for target in [
                ME,
                "/api/2.0/sql/warehouses",
                "/api/2.0/serving-endpoints",
                "/api/2.0/genie/spaces",
                "/api/2.0/sql/warehouses/none",
            ] {
                app.outbound().get(target).bearer(token).fetch().await;
            }
        }
        app.stop().await;
        let records = app.audit();
        let find = |event: &str, key: &str, value: &Value| -> Vec<&Value> {
            records
                .iter()
                .filter(|r| r["event"] == event && &r[key] == value)
                .collect()
        };
        let calls = app.api_calls();
        assert_eq!(calls.len(), 15);
        for seen in calls {
            let outcomes = find("outcome", "upstream_request_id", &json!(seen.request_id));
            let [outcome] = outcomes[..] else {
                panic!("{} outcomes for {seen:?}", outcomes.len())
            };
            let intents = find("intent", "call", &outcome["call"]);
            let [intent] = intents[..] else {
                panic!("{} intents for {seen:?}", intents.len())
            };
            assert!(intent["seq"].as_u64() < outcome["seq"].as_u64());
            assert_eq!(outcome["status"], seen.status.unwrap());
            assert_eq!(outcome["path"], seen.target);
            let user = outcome["user"]["sub"].as_str();
            let expected = match &seen.identity {
                valetkey::embedded::seen::Seen::User { email, .. } => Some(email.as_str()),
                _ => None,
            };
            assert_eq!(user, expected);
            for key in ["route", "operation", "method", "identity", "decision"] {
                assert_eq!(intent[key], outcome[key], "{key}");
                assert!(outcome[key].is_string(), "{key}");
            }
        }
        let lines = std::fs::read_to_string(&app.audit_file).unwrap();
        let signatures = lines.matches(r#""event":"checkpoint""#).count();
        assert!(
            lines.lines().count() == records.len() + signatures,
            "every line is a record"
        );
    })
    .await;
}

#[tokio::test]
async fn the_log_holds_no_query_no_body_and_nothing_that_a_terminal_obeys() {
    with_app(TestOptions::default(), async |app| {
        let session = app.session(&app.alice()).await;
        let secret = "query-canary-0451";
        let target = format!("{ME}?filter={secret}");
        let ask = app.outbound().ask("POST", &target).bearer(&session);
        ask.json(&json!({"canary": "body-canary-0452"}))
            .fetch()
            .await;
        let ask = app.outbound().get(&target).bearer(&session);
        let ask = ask
            .header("x-request-id", "id\u{202e}\u{9b}31m")
            .header("user-agent", "agent-canary-0453");
        assert_eq!(ask.fetch().await.status, 200);
        let inbound = app.inbound().ask("GET", "/x%1b%5b31m?q=query-canary-0451");
        inbound.fetch().await;
        app.stop().await;
        let text = std::fs::read_to_string(&app.audit_file).unwrap();
        for canary in [secret, "body-canary", "agent-canary"] {
            assert!(!text.contains(canary), "{canary}");
        }
        let odd = |c: char| (c.is_control() && c != '\n') || ('\u{2028}'..='\u{202e}').contains(&c);
        assert!(!text.contains(odd));
        assert!(text.contains(ALICE));
    })
    .await;
}

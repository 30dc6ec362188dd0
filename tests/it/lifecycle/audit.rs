//! Nothing happens that is not in the log: also while the log cannot be written (PRODUCT 7, SECURITY R33).

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};
use valetkey::audit_reader::{self, prove::Claim};
use valetkey::embedded::world::WAREHOUSE;

use crate::harness::client::Answer;
use crate::harness::raw::RawServer;
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

#[tokio::test]
async fn what_attackers_put_into_any_field_stays_inside_its_field() {
    let nasty = "\u{1b}]0;x\u{7}\r\n\",\"hash\":\"0\"}\u{202e}\u{0}é🚗";
    let body = json!({"statement_id": nasty, "status": {"state": "SUCCEEDED"}}).to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: up\"},\\{[\r\n";
    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let server = RawServer::answering(answer, false).await;
    let options = TestOptions {
        workspace_at: Some(format!("http://{}", server.address())),
        ..TestOptions::default()
    };
    with_app(options, async |app| {
        let session = app.session(&app.alice()).await;
        // Control characters in the name of a resource are refused before that.
        let id = "\",\"hash\":\"0\"}é🚗\\";
        let statement = json!({"warehouse_id": id, "statement": "select 1"});
        let ask = app
            .outbound()
            .post("/api/2.0/sql/statements")
            .bearer(&session);
        let ask = ask
            .header("x-request-id", "id\",\"event\":\"stop\\")
            .header("traceparent", "00-\"},{\"-00-01");
        assert_eq!(ask.json(&statement).fetch().await.status, 200);
        // Bytes that are no text in the target and in a header, a method that nobody knows, a value beyond all measure.
        let host = app.addresses.outbound;
        let long = "x".repeat(20_000);
        for request in [
            format!("GET /\u{ff}\u{1b}[31m HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
            format!("BR'EW /api/2.0/\"a'b HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
            format!("GET {ME} HTTP/1.1\r\nhost: {host}\r\nx-request-id: {long}\r\nconnection: close\r\n\r\n"),
        ] {
            app.outbound().raw(request).await;
        }
        let head = format!("GET /a HTTP/1.1\r\nhost: {host}\r\nx-request-id: ");
        let tail = b"\xff\xfe\r\nconnection: close\r\n\r\n";
        let request = [head.as_bytes(), tail].concat();
        app.outbound().raw(request).await;
        let inbound = app.inbound().ask("GET", "/%22%0d%0a{\"event\":\"stop\"}");
        inbound.user("a.b.c").fetch().await;
        let outcome = app.audit_has("the outcome", |r| r["event"] == "outcome").await;
        assert_eq!(outcome["resource"]["id"], id);
        assert_eq!(outcome["follow_up"], json!({"type": "statement", "id": nasty}));
        assert_eq!(outcome["upstream_request_id"], "up\"},\\{[");
        assert_eq!(outcome["request_id"], "id\",\"event\":\"stop\\");
        assert_eq!(outcome["trace_id"], Value::Null);
        app.stop().await;
        let text = std::fs::read_to_string(&app.audit_file).unwrap();
        let odd = |c: char| (c.is_control() && c != '\n') || ('\u{2028}'..='\u{202e}').contains(&c);
        assert!(!text.contains(odd));
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            assert!(record.is_object() && line.len() < 16_000);
        }
        assert_eq!(text.matches(r#""event":"stop""#).count(), 1, "none is forged");
    })
    .await;
}

#[tokio::test]
async fn a_statement_and_those_who_ask_for_it_are_tied_together_and_to_the_trace() {
    with_app(TestOptions::default(), async |app| {
        let session = app.session(&app.alice()).await;
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let statement = json!({"warehouse_id": WAREHOUSE, "statement": "select 1"});
        let ask = app
            .outbound()
            .post("/api/2.0/sql/statements")
            .bearer(&session);
        let ask = ask.header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
        let answer = ask.json(&statement).fetch().await;
        let id = answer.json()["statement_id"].clone();
        let target = format!("/api/2.0/sql/statements/{}", id.as_str().unwrap());
        app.outbound().get(&target).bearer(&session).fetch().await;
        app.stop().await;
        let records = app.audit();
        let of = |operation: &str, event: &str| {
            let fits = |r: &&Value| r["operation"] == operation && r["event"] == event;
            records.iter().find(fits).unwrap()
        };
        let tied = json!({"type": "statement", "id": id});
        let made = of("sql.statements.execute", "outcome");
        assert_eq!(made["follow_up"], tied);
        assert_eq!(made["trace_id"], trace);
        assert_eq!(
            of("sql.statements.execute", "intent")["follow_up"],
            Value::Null
        );
        for event in ["intent", "outcome"] {
            assert_eq!(of("sql.statements.get", event)["follow_up"], tied);
        }
        let calls = app.api_calls();
        assert_eq!(made["upstream_request_id"], calls[0].request_id);
    })
    .await;
}

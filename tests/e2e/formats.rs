//! The audit log's formats against their schemas: our own lines, and OCSF events as the published schema has them.
//!
//! Every event, with few members and with all, with texts that nobody should be able to break out of; and the log of a real
//! run. The checks themselves are `formats.py`'s, with validators from PyPI.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;
use valetkey::domain::audit::chain::{Chain, RECORD_SCHEMA};
use valetkey::domain::audit::checkpoint::SigningKey;
use valetkey::domain::audit::{Decision, Event, Identity, Mcp, Record, Resource, Text, User, ocsf};
use valetkey::domain::clock::Timestamp;
use valetkey::domain::identity::{ClientId, UserEmail, UserId};

use crate::python::{Generation, environment, suite_folder};

/// What a client, an agent or a workspace may put into a field.
const TEXTS: [&str; 9] = [
    "plain",
    "",
    "a\r\nb\u{1b}[31mred\u{0}\u{7f}\u{85}",
    "\",\"hash\":\"0\"}",
    "{\"event\":\"stop\"}",
    "\\u0000\\",
    "\u{202e}\u{2028}\u{2029}\u{feff}\u{e0041}",
    "日本 🚗 Ålice",
    "' OR 1=1; -- <script>",
];

fn user(email: bool) -> Arc<User> {
    Arc::new(User {
        sub: UserId::parse("alice \"o'\\neill\"").unwrap(),
        email: email.then(|| UserEmail::parse("alice@example.com").unwrap()),
        verified: email,
        client_id: email.then(|| ClientId::parse("client").unwrap()),
        token_id: email.then(|| "token".into()),
    })
}

/// As little as this event ever has.
fn least(event: Event) -> Record {
    let mut record = Record::new(event);
    match event {
        Event::Intent | Event::Outcome | Event::Denial => record.call = Some(Uuid::now_v7()),
        Event::SessionOpened | Event::SessionClosed => {
            record.user = Some(user(false));
            record.session = Some("session".into());
        }
        Event::Gap => record.reason = Some("write_failed".into()),
        Event::TokenRejected
        | Event::PolicyLoaded
        | Event::PolicyRefused
        | Event::Start
        | Event::Stop
        | Event::Checkpoint => {}
    }
    record
}

/// Everything at once.
fn most(event: Event, text: &str) -> Record {
    let text = || Some(Text::from(text.to_owned()));
    let thing = || {
        Some(Resource {
            kind: text().unwrap(),
            id: text().unwrap(),
        })
    };
    let mut record = Record::new(event);
    record.call = Some(Uuid::now_v7());
    record.request_id = text();
    record.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".into());
    record.session = text();
    record.user = Some(user(true));
    record.identity = Some(Identity::User);
    record.route = text();
    record.operation = text();
    record.resource = thing();
    record.follow_up = thing();
    record.method = text();
    record.path = text();
    record.mcp = Some(Mcp {
        method: text().unwrap(),
        tool: text(),
    });
    record.decision = Some(Decision::Deny);
    record.reason = text();
    record.status = Some(403);
    record.upstream_request_id = text();
    record.bytes_sent = Some(u64::from(u32::MAX));
    record.bytes_received = Some(0);
    record.duration_ms = Some(1);
    record.lost = Some(3);
    record
}

fn log() -> String {
    let (mut chain, mut out) = (Chain::default(), Vec::new());
    let key = SigningKey::generate().unwrap();
    let now: Timestamp = "2026-11-23T10:00:00.5Z".parse().unwrap();
    for event in Event::ALL.into_iter().filter(|e| *e != Event::Checkpoint) {
        chain.seal(&least(event), now, &mut out);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "BREW"] {
            let mut record = most(event, "x");
            record.method = Some(method.into());
            record.decision = Some(Decision::Allow);
            record.status = Some(200);
            chain.seal(&record, now, &mut out);
        }
        let mut observed = most(event, "x");
        observed.decision = Some(Decision::WouldDeny);
        chain.seal(&observed, now, &mut out);
        for text in TEXTS {
            chain.seal(&most(event, text), now, &mut out);
        }
        let long = "é\u{1b}".repeat(5000);
        chain.seal(&most(event, &long), now, &mut out);
        chain.checkpoint(&key, now, &mut out);
    }
    String::from_utf8(out).unwrap()
}

async fn check(python: &Path, lines: &str) -> Value {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let events: Vec<String> = lines
        .lines()
        .map(|line| ocsf::event(line.as_bytes()).unwrap())
        .collect();
    let checked = Command::new(python)
        .arg(suite_folder().join("formats.py"))
        .arg(file("schema.json", RECORD_SCHEMA))
        .arg(file("lines.jsonl", lines))
        .arg(file("events.jsonl", &format!("{}\n", events.join("\n"))))
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{told}");
    serde_json::from_slice(&checked.stdout).unwrap()
}

#[tokio::test]
async fn every_audit_record_fits_its_schema_and_its_event_the_one_of_ocsf() {
    let python = environment(Generation::Formats).await;
    let seen = check(&python, &log()).await;
    for event in Event::ALL {
        assert!(seen["events"][event.as_str()].as_u64() > Some(5), "{seen}");
    }
    assert_eq!(seen["unseen"], json!([]), "members that no record proves");
}

#[tokio::test]
async fn the_log_of_a_real_run_fits_both_schemas() {
    let python = environment(Generation::Formats).await;
    let folder = TempDir::new().unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_valetkey"))
        .args(["demo", "--once"])
        .env_clear()
        .env("TMPDIR", folder.path())
        .output()
        .await
        .unwrap();
    let out = String::from_utf8(demo.stdout).unwrap();
    let path = out.lines().find_map(|line| line.strip_prefix("audit log"));
    let lines = std::fs::read_to_string(path.unwrap().trim()).unwrap();
    let seen = check(&python, &lines).await;
    for event in ["start", "intent", "outcome", "denial", "stop", "checkpoint"] {
        assert!(seen["events"][event].as_u64() > Some(0), "{seen}");
    }
}

//! Disks that are full, directories that vanish, files that are deleted: no call goes out without its record, and service
//! comes back by itself (SECURITY R33).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;
use valetkey::embedded::workspace::Workspace;

use crate::harness::process::{Listening, Process};
use crate::harness::web::{Answer, as_app};
use crate::harness::{Folder, config, experiment, local_client, serve, until, workspace};

/// A running sidecar whose audit log lies in a folder of its own.
struct World {
    folder: Folder,
    workspace: Workspace,
    sidecar: Process,
    listening: Listening,
}

impl World {
    async fn new(audit: Value) -> Self {
        let (folder, workspace) = (Folder::new(), workspace().await);
        let mut settings = config(&workspace, 1);
        local_client(&mut settings);
        settings["audit"] = audit;
        settings["audit"]["file"] = "audit/log.jsonl".into();
        let mut sidecar = serve(&folder, &workspace, &settings);
        let listening = sidecar.listening().await;
        Self {
            folder,
            workspace,
            sidecar,
            listening,
        }
    }

    fn directory(&self) -> std::path::PathBuf {
        self.folder.file("audit")
    }

    async fn call(&self) -> Answer {
        as_app(self.listening.outbound, &experiment()).await
    }

    async fn refused(&self) -> Answer {
        until("calls are refused", async || {
            Some(self.call().await).filter(|answer| answer.status != 200)
        })
        .await
    }

    async fn served(&self) {
        until("calls are served", async || {
            Some(self.call().await).filter(|answer| answer.status == 200)
        })
        .await;
    }

    /// Stops; every call that reached the workspace must have its intent in these files, and its outcome.
    async fn ends_well(self, files: &[&Path]) -> Vec<Value> {
        self.sidecar.stop().await.expect(0);
        let mut records: Vec<Value> = Vec::new();
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            records.extend(text.lines().map(|l| serde_json::from_str(l).unwrap()));
        }
        let of = |event: &str| -> BTreeSet<&str> {
            let such = records.iter().filter(|r| r["event"] == event);
            such.map(|r| r["call"].as_str().unwrap()).collect()
        };
        let (intents, outcomes) = (of("intent"), of("outcome"));
        let mut calls = self.workspace.control().calls();
        calls.retain(|call| call.target.starts_with("/api/"));
        assert!(
            calls.len() <= intents.len(),
            "{} calls, {} intents",
            calls.len(),
            intents.len()
        );
        assert_eq!(intents, outcomes);
        records
    }
}

/// Changes the size that a file of the process may have.
async fn limit_files(process: &Process, bytes: &str) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args([
        "--pid",
        &process.pid.to_string(),
        &format!("--fsize={bytes}:"),
    ]);
    Process::start(prlimit).end().await.expect(0);
}

fn gaps(records: &[Value]) -> Vec<&str> {
    let gaps = records.iter().filter(|r| r["event"] == "gap");
    gaps.map(|r| r["reason"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_calls_and_service_comes_back_with_the_space() {
    let world = World::new(json!({})).await;
    for _ in 0..20 {
        world.call().await.expect(200);
    }
    let log = world.directory().join("log.jsonl");
    let full = fs::metadata(&log).unwrap().len() + 3000;
    limit_files(&world.sidecar, &full.to_string()).await;
    let answer = world.refused().await.expect(500);
    assert_eq!(answer.header("x-valetkey-error"), Some("audit_unavailable"));
    assert_eq!(answer.header("retry-after"), None);
    let before = world.workspace.control().calls().len();
    for _ in 0..5 {
        world.call().await.expect(500);
    }
    assert_eq!(world.workspace.control().calls().len(), before);
    limit_files(&world.sidecar, "unlimited").await;
    world.served().await;
    let verdict = world.folder.run(&["audit", "verify", "audit/log.jsonl"]);
    verdict.await.good();
    let records = world.ends_well(&[&log]).await;
    assert_eq!(gaps(&records), ["write_failed"]);
}

#[tokio::test]
async fn with_continue_a_full_disk_leaves_a_gap_that_says_what_is_missing() {
    let world = World::new(json!({"on_failure": "continue"})).await;
    for _ in 0..20 {
        world.call().await.expect(200);
    }
    let log = world.directory().join("log.jsonl");
    let full = fs::metadata(&log).unwrap().len() + 3000;
    limit_files(&world.sidecar, &full.to_string()).await;
    for _ in 0..20 {
        world.call().await.expect(200);
    }
    limit_files(&world.sidecar, "unlimited").await;
    until("the log is written again", async || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains(r#""reason":"write_failed""#).then_some(())
    })
    .await;
    let records = world.ends_well(&[&log]).await;
    assert_eq!(gaps(&records), ["write_failed"]);
}

#[tokio::test]
async fn a_deleted_file_is_begun_anew_before_the_next_call_leaves() {
    let world = World::new(json!({})).await;
    let log = world.directory().join("log.jsonl");
    let away = world.folder.file("away.jsonl");
    for _ in 0..3 {
        world.call().await.expect(200);
        fs::copy(&log, &away).unwrap();
        fs::remove_file(&log).unwrap();
        world.call().await.expect(200);
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.contains(r#""reason":"file_replaced""#), "{text}");
        assert_eq!(text.matches(r#""event":"intent""#).count(), 1, "{text}");
    }
    let verdict = world.folder.run(&["audit", "verify", "audit/log.jsonl"]);
    verdict.await.says(&["1 gap(s), file_replaced"]);
    world.sidecar.stop().await.expect(0);
}

#[tokio::test]
async fn without_its_directory_nothing_is_forwarded_and_service_comes_back_with_it() {
    let world = World::new(json!({"sync": "record"})).await;
    world.call().await.expect(200);
    fs::remove_dir_all(world.directory()).unwrap();
    let before = world.workspace.control().calls().len();
    let answer = world.call().await.expect(500);
    assert_eq!(answer.header("x-valetkey-error"), Some("audit_unavailable"));
    assert_eq!(world.workspace.control().calls().len(), before);
    fs::create_dir(world.directory()).unwrap();
    world.served().await;
    let log = world.directory().join("log.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains(r#""event":"gap""#), "{text}");
    world.sidecar.stop().await.expect(0);
}

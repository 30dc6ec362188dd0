//! SIGKILL at 200 random moments under load: every call that reached the workspace has its intent, nothing acknowledged is
//! lost, and the chain goes on (SECURITY G7).
//!
//! The moments are drawn from a seed; what the machine is doing then is not.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use valetkey::embedded::workspace::Workspace;

use crate::harness::process::Process;
use crate::harness::web::{app_token, send};
use crate::harness::{Folder, LOCAL_SECRET, config, local_client, serve, workspace};

/// Sidecars beside one another, each with a log of its own.
const LANES: u64 = 4;
/// How often each of them is killed.
const LIVES: u64 = 50;
/// Calls at once.
const CALLERS: usize = 6;
/// The longest life under load, in microseconds.
const LIFE_MAX: u64 = 60_000;

/// Marsaglia's xorshift: the same numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[derive(Default)]
struct Seen {
    /// Paths that arrived at the workspace.
    arrived: BTreeSet<String>,
    /// Paths whose answer the caller got.
    acknowledged: BTreeSet<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_unrecorded_however_often_and_whenever_the_sidecar_is_killed() {
    let lanes = (0..LANES).map(|lane| Box::pin(live_and_die(lane)));
    let calls: usize = join_all(lanes).await.into_iter().sum();
    assert!(calls > 1000, "only {calls} calls: no load");
}

async fn live_and_die(lane: u64) -> usize {
    let (folder, workspace, mut dice) = (
        Folder::new(),
        workspace().await,
        Dice(0x2026_1125 + 7919 * lane),
    );
    let mut settings = config(&workspace, 1);
    local_client(&mut settings);
    settings["routes"] = json!([{"name": "all", "operation": "sql.warehouses.get", "as": "app"}]);
    settings["audit"] = json!({
        "file": "audit.jsonl",
        "sync": if lane.is_multiple_of(2) { "interval" } else { "record" },
        "rotate": {"size": "1MiB", "keep": 10_000},
        "checkpoint": {"records": 50},
    });
    let mut seen = Seen::default();
    for life in 0..LIVES {
        let mut sidecar = serve(&folder, &workspace, &settings);
        // Some die before they serve: while they read, repair and continue the log.
        if dice.below(8) == 0 {
            pass(dice.below(LIFE_MAX)).await;
        } else {
            let outbound = sidecar.listening().await.outbound;
            load(outbound, life, dice.below(LIFE_MAX), &mut seen).await;
        }
        sidecar.signal(Signal::SIGKILL);
        sidecar.end().await.expect(137);
        arrivals(&workspace, &mut seen);
    }
    // One that lives, so that the last crash is repaired too.
    let mut sidecar: Process = serve(&folder, &workspace, &settings);
    sidecar.listening().await;
    sidecar.stop().await.expect(0);
    let verdict = folder
        .run(&["audit", "verify", "audit.jsonl"])
        .await
        .expect(0);
    let recorded = intents(&folder);
    let missing: Vec<_> = seen.arrived.difference(&recorded).collect();
    assert!(missing.is_empty(), "lane {lane}: {missing:?}\n{verdict:?}");
    let lost: Vec<_> = seen.acknowledged.difference(&recorded).collect();
    assert!(lost.is_empty(), "lane {lane}: {lost:?}");
    seen.arrived.len()
}

async fn pass(microseconds: u64) {
    let time = Duration::from_micros(microseconds);
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

/// Calls from all sides until the time is over. Each call has a path of its own.
async fn load(outbound: std::net::SocketAddr, life: u64, microseconds: u64, seen: &mut Seen) {
    let token = app_token(outbound, LOCAL_SECRET).await.expect(200).json();
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    let (told, mut hear) = tokio::sync::mpsc::unbounded_channel();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (bearer, told) = (bearer.clone(), told.clone());
        callers.spawn(async move {
            for nth in 0.. {
                let target = format!("/api/2.0/sql/warehouses/k{life}-{caller}-{nth}");
                let head = [("authorization", bearer.as_str())];
                match send(outbound, Method::GET, &target, &head, "").await {
                    Ok(answer) => {
                        assert_eq!(answer.status, 404, "{}", answer.body);
                        // Heard until the end of this life.
                        let _ = told.send(target);
                    }
                    Err(_) => return,
                }
            }
        });
    }
    pass(microseconds).await;
    callers.abort_all();
    while let Ok(target) = hear.try_recv() {
        seen.acknowledged.insert(target);
    }
}

/// What the workspace got in this life.
fn arrivals(workspace: &Workspace, seen: &mut Seen) {
    let calls = workspace.control().calls();
    let targets = calls.into_iter().map(|call| call.target);
    seen.arrived
        .extend(targets.filter(|target| target.starts_with("/api/")));
    workspace.control().forget_calls();
}

/// The paths of all intents, over all files.
fn intents(folder: &Folder) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let digits = name.strip_prefix("audit.jsonl").unwrap_or("no");
        if !digits.bytes().all(|b| b == b'.' || b.is_ascii_digit()) {
            continue;
        }
        for line in fs::read_to_string(path).unwrap().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            if record["event"] == "intent" {
                paths.insert(record["path"].as_str().unwrap().to_owned());
            }
        }
    }
    paths
}

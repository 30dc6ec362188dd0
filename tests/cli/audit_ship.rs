//! Shipping by the built binary, killed again and again, and `audit pull`, which fetches what it shipped and proves it whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::workspace::Workspace;
use valetkey::embedded::world;

use crate::harness::process::{Ended, Process};
use crate::harness::web::as_app;
use crate::harness::{
    APP_SECRET_VARIABLE, Folder, LOCAL_SECRET, config, experiment, local_client, serve, until,
    workspace,
};

/// How often the sidecar is killed.
const LIVES: u64 = 24;
/// The longest life, in milliseconds.
const LIFE_MAX: u64 = 150;

fn settings(workspace: &Workspace) -> Value {
    let mut settings = config(workspace, 1);
    local_client(&mut settings);
    settings["audit"] = json!({
        "file": "audit/valetkey.jsonl",
        "rotate": {"size": "1MiB", "keep": 10_000},
        "ship": {"volume": world::VOLUME_NAME, "prefix": "agents", "every": "1d"},
    });
    settings
}

/// `audit pull` of the configured volume into a folder.
async fn pull(folder: &Folder, workspace: &Workspace, more: &[&str]) -> Ended {
    let mut command = folder.valetkey(&[&["audit", "pull", "--to", "pulled"], more].concat());
    let secret = workspace.app().client_secret.expose();
    command.env(APP_SECRET_VARIABLE, secret);
    command.env("AGENT_CLIENT_SECRET", LOCAL_SECRET);
    let ended = Process::start(command).end().await;
    ended.keeps_to_itself(&[secret]);
    ended
}

/// The closed files on the disk, by their first number.
fn closed(folder: &Folder) -> BTreeMap<u64, String> {
    let entries = fs::read_dir(folder.file("audit")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let numbered = paths.filter_map(|path: PathBuf| {
        let first = path.extension()?.to_str()?.parse().ok()?;
        Some((first, fs::read_to_string(path).unwrap()))
    });
    numbered.collect()
}

/// The fetched ones likewise; the names say their first numbers.
fn pulled(folder: &str, from: &Folder) -> BTreeMap<u64, String> {
    let entries = fs::read_dir(from.file("pulled").join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let numbered = paths.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let first = name.split('-').next().unwrap().parse().unwrap();
        (first, fs::read_to_string(path).unwrap())
    });
    numbered.collect()
}

/// Faults on the way, and SIGKILL at a moment drawn from a seed.
async fn live_and_die(folder: &Folder, workspace: &Workspace, settings: &Value) {
    let mut dice = 0x2026_1125_u64;
    let mut below = |limit: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % limit
    };
    let control = workspace.control();
    for _ in 0..LIVES {
        let mut sidecar = serve(folder, workspace, settings);
        let listening = sidecar.listening().await;
        as_app(listening.outbound, &experiment()).await.expect(200);
        let fault = match below(5) {
            0 => Some(Fault::CloseAfter),
            1 => Some(Fault::Close),
            2 => Some(Fault::status(503)),
            3 => Some(Fault::Delay(Duration::from_millis(below(40)))),
            _ => None,
        };
        if let Some(fault) = fault {
            control.fail_next(Place::Api, fault, 2);
        }
        let time = Duration::from_millis(below(LIFE_MAX));
        let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
        sidecar.signal(Signal::SIGKILL);
        sidecar.end().await.expect(137);
        control.heal(Place::Api);
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_ships_each_file_exactly_once_and_pull_proves_it() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    let settings = settings(&workspace);
    live_and_die(&folder, &workspace, &settings).await;
    let mut sidecar = serve(&folder, &workspace, &settings);
    let listening = sidecar.listening().await;
    until("what was left arrives", async || {
        let pending = listening
            .metric("valetkey_audit_ship_pending_segments")
            .await;
        let shipped = "valetkey_audit_ship_segments_total{result=\"shipped\"}";
        let arrived = listening.metric(shipped).await;
        (pending == 0.0 && arrived > 0.0).then_some(())
    })
    .await;
    let ship = listening.status().await["audit"]["ship"].clone();
    assert_eq!(ship["pending_segments"], 0, "{ship}");
    sidecar.stop().await.expect(0);

    let told = pull(&folder, &workspace, &["--json"]).await.good();
    let lines: Vec<Value> = told
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let [log] = &lines[..] else { panic!("{told}") };
    let disk = closed(&folder);
    assert!(disk.len() as u64 > LIVES / 2, "{} files", disk.len());
    assert_eq!(log["segments"], disk.len());
    assert_eq!(log["good"], true);
    let place = log["log"].as_str().unwrap();
    assert!(
        place.starts_with("/Volumes/main/sales/files/agents/"),
        "{place}"
    );
    let name = place.rsplit('/').next().unwrap();
    assert!(pulled(name, &folder) == disk, "the bytes differ");
    let size = fs::metadata(folder.file("audit/valetkey.jsonl"))
        .unwrap()
        .len();
    assert_eq!(size, 0, "the tail was closed and shipped");
    fetch_again(&folder, &workspace, name).await;
}

/// What is here already, what is newer, what was changed, what is not there.
async fn fetch_again(folder: &Folder, workspace: &Workspace, name: &str) {
    // Again: nothing is fetched twice, and the other commands read what was fetched.
    let again = pull(folder, workspace, &[]).await.good();
    assert!(
        again.contains(", 0 of them fetched now") && again.contains("good: "),
        "{again}"
    );
    let since = pull(folder, workspace, &["--since", "1h"]).await.good();
    assert!(since.contains("good: "), "{since}");
    let newest = pull(folder, workspace, &["--since", "2999-01-01T00:00:00Z"]).await;
    newest.expect(1).says(&["no audit segments"]);
    let file = |n: usize| {
        let paths = fs::read_dir(folder.file("pulled").join(name)).unwrap();
        let mut paths: Vec<PathBuf> = paths.map(|e| e.unwrap().path()).collect();
        paths.sort();
        paths.swap_remove(n)
    };
    let first = file(0).to_str().unwrap().to_owned();
    folder.run(&["audit", "query", &first]).await.good();

    // A file that was changed here is fetched anew; one that is gone there breaks the chain.
    fs::write(file(1), "{}\n").unwrap();
    let mended = pull(folder, workspace, &[]).await.good();
    assert!(mended.contains(", 1 of them fetched now"), "{mended}");
    let from = ["--from", "/Volumes/main/sales/files/nothing/here"];
    pull(folder, workspace, &from)
        .await
        .expect(70)
        .says(&["404"]);
    let from = ["--from", "main.sales.files"];
    pull(folder, workspace, &from)
        .await
        .expect(64)
        .says(&["/Volumes/"]);
}

//! The audit log on a volume: every closed segment arrives once and whole, whatever goes wrong on the way, and `audit pull`
//! proves it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::workspace::Workspace;

use crate::harness::process::{Ended, Listening, Process};
use crate::harness::web::{as_app, get};
use crate::harness::{
    APP_SECRET_VARIABLE, Folder, LOCAL_SECRET, config, experiment, local_client, serve, until,
    workspace,
};

struct World {
    folder: Folder,
    workspace: Workspace,
    settings: Value,
}

impl World {
    async fn new(audit: Value) -> Self {
        let (folder, workspace) = (Folder::new(), workspace().await);
        let mut settings = config(&workspace, 1);
        local_client(&mut settings);
        settings["audit"] = audit;
        settings["audit"]["file"] = "log/audit.jsonl".into();
        settings["audit"]["ship"] = json!({"volume": "main.sales.files", "every": "1s"});
        Self {
            folder,
            workspace,
            settings,
        }
    }

    async fn start(&self) -> (Process, Listening) {
        let mut sidecar = serve(&self.folder, &self.workspace, &self.settings);
        let listening = sidecar.listening().await;
        (sidecar, listening)
    }

    /// Files that are closed and still here.
    fn closed(&self) -> BTreeMap<String, String> {
        let mut closed = BTreeMap::new();
        for entry in fs::read_dir(self.folder.file("log")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let digits = name.strip_prefix("audit.jsonl.").unwrap_or("no");
            if digits.bytes().all(|b| b.is_ascii_digit()) {
                closed.insert(digits.to_owned(), fs::read_to_string(path).unwrap());
            }
        }
        closed
    }

    async fn pull(&self) -> Ended {
        let mut command = self.folder.valetkey(&["audit", "pull", "pulled"]);
        command
            .env(
                APP_SECRET_VARIABLE,
                self.workspace.app().client_secret.expose(),
            )
            .env("AGENT_CLIENT_SECRET", LOCAL_SECRET);
        Process::start(command).end().await
    }

    /// What `pull` made of the one log there is.
    fn pulled(&self) -> BTreeMap<String, String> {
        let mut logs = fs::read_dir(self.folder.file("pulled")).unwrap();
        let log = logs.next().unwrap().unwrap().path();
        assert!(logs.next().is_none(), "one log");
        let mut pulled = BTreeMap::new();
        for entry in fs::read_dir(log).unwrap() {
            let path: &Path = &entry.unwrap().path();
            let digits = path.extension().unwrap().to_str().unwrap().to_owned();
            pulled.insert(digits, fs::read_to_string(path).unwrap());
        }
        pulled
    }

    /// How often each segment was put there with success.
    fn arrivals(&self) -> BTreeMap<String, usize> {
        let mut arrivals = BTreeMap::new();
        for call in self.workspace.control().calls() {
            let segment = call
                .target
                .starts_with("/api/2.0/fs/files/Volumes/main/sales/files/");
            if call.method == "PUT" && segment && call.status == Some(204) {
                *arrivals.entry(call.target).or_insert(0) += 1;
            }
        }
        arrivals
    }
}

async fn call(listening: Listening) {
    as_app(listening.outbound, &experiment()).await.expect(200);
}

async fn metric(listening: Listening, name: &str) -> u64 {
    let text = get(listening.admin, "/metrics", &[]).await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn segments_are_closed_shipped_once_and_pulled_back_as_one_good_chain() {
    let world = World::new(json!({})).await;
    for _ in 0..2 {
        let (sidecar, listening) = world.start().await;
        call(listening).await;
        let before = world.arrivals().len();
        until("a segment arrives while the sidecar runs", async || {
            (world.arrivals().len() > before).then_some(())
        })
        .await;
        call(listening).await;
        // The last segment is closed at the end and shipped within the time for it.
        sidecar.stop().await.expect(0);
    }
    let closed = world.closed();
    assert!(closed.len() >= 4, "{}", closed.len());
    assert!(world.arrivals().values().all(|count| *count == 1));
    let told = world.pull().await.expect(0);
    told.says(&["good: ", "signed: "]);
    assert_eq!(world.pulled(), closed);
    let current = fs::read_to_string(world.folder.file("log/audit.jsonl")).unwrap();
    assert_eq!(current, "", "nothing stays behind");
    // Once more: nothing is fetched again, and a fetched file that was changed is fetched anew.
    let reads = |world: &World| {
        let calls = world.workspace.control().calls();
        let gets = calls
            .iter()
            .filter(|c| c.method == "GET" && c.target.starts_with("/api/2.0/fs/files/"));
        gets.count()
    };
    let before = reads(&world);
    world.pull().await.expect(0);
    assert_eq!(reads(&world), before);
    let log = fs::read_dir(world.folder.file("pulled"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let one = fs::read_dir(log).unwrap().next().unwrap().unwrap().path();
    fs::write(one, "{}\n").unwrap();
    world.pull().await.expect(0);
    assert_eq!(reads(&world), before + 1);
}

#[tokio::test]
async fn faults_on_the_way_delay_segments_and_lose_none_and_nothing_unshipped_is_deleted() {
    let world = World::new(json!({"rotate": {"keep": 1}})).await;
    let control = world.workspace.control();
    let (sidecar, listening) = world.start().await;
    call(listening).await;
    until("the first segment arrives", async || {
        (!world.arrivals().is_empty()).then_some(())
    })
    .await;
    let mut all = world.closed();
    for fault in [
        Fault::status(503),
        Fault::Close,
        Fault::status(401),
        Fault::Garbage,
    ] {
        control.fail(Place::Api, fault);
        let failures = metric(listening, "valetkey_audit_ship_failures_total").await;
        // Denials are records that need no workspace.
        get(listening.outbound, "/api/2.0/nothing", &[]).await;
        until("a try fails", async || {
            let now = metric(listening, "valetkey_audit_ship_failures_total").await;
            (now > failures).then_some(())
        })
        .await;
        all.extend(world.closed());
    }
    assert!(metric(listening, "valetkey_audit_ship_waiting").await > 0);
    assert!(world.closed().len() > 1, "more than rotation would keep");
    // Killed in the middle of an upload that never gets an answer.
    control.fail(Place::Api, Fault::Hang);
    get(listening.outbound, "/api/2.0/nothing", &[]).await;
    let tries = control.call_count();
    until("an upload hangs", async || {
        (control.call_count() > tries).then_some(())
    })
    .await;
    sidecar.signal(Signal::SIGKILL);
    sidecar.end().await.expect(137);
    all.extend(world.closed());
    control.heal(Place::Api);
    control.fail(Place::Api, Fault::Delay(Duration::from_millis(50)));
    let (sidecar, listening) = world.start().await;
    call(listening).await;
    until("nothing waits", async || {
        let waiting = metric(listening, "valetkey_audit_ship_waiting").await;
        (waiting == 0 && world.arrivals().len() >= all.len()).then_some(())
    })
    .await;
    call(listening).await;
    sidecar.stop().await.expect(0);
    control.heal(Place::Api);
    all.extend(world.closed());
    world.pull().await.expect(0).says(&["good: "]);
    // One good chain from its first record on: nothing is missing. And what was seen here is there as it was.
    let pulled = world.pulled();
    for (name, text) in &all {
        assert!(pulled.get(name) == Some(text), "segment {name}");
    }
    assert!(pulled.contains_key("0000000000000001"));
    assert_eq!(
        world.closed().len(),
        1,
        "what is shipped is deleted by rotation"
    );
}

#[tokio::test]
async fn a_volume_that_cannot_be_is_told_at_once() {
    let world = World::new(json!({})).await;
    for (ship, says) in [
        (json!({"volume": "main.ops"}), "CATALOG.SCHEMA.VOLUME"),
        (
            json!({"volume": "main.ops.a/../b"}),
            "CATALOG.SCHEMA.VOLUME",
        ),
        (json!({}), "names no volume"),
        (
            json!({"volume": "main.ops.audit", "every": "1ms"}),
            "out of bounds",
        ),
    ] {
        let mut settings = world.settings.clone();
        settings["audit"]["ship"] = ship;
        let mut without = settings.clone();
        world.folder.write_config(&settings);
        let mut check = world.folder.valetkey(&["check"]);
        check
            .env(APP_SECRET_VARIABLE, "a-secret-of-the-app")
            .env("AGENT_CLIENT_SECRET", LOCAL_SECRET);
        Process::start(check)
            .end()
            .await
            .expect(78)
            .says(&["audit.ship", says]);
        without["app"] = json!({});
        without["audit"]["ship"] = json!({"volume": "main.ops.audit"});
        world.folder.write_config(&without);
        let mut check = world.folder.valetkey(&["check"]);
        check.env("AGENT_CLIENT_SECRET", LOCAL_SECRET);
        let ended = Process::start(check).end().await.expect(78);
        ended.says(&["audit.ship", "no credential"]);
    }
}

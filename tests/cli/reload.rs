//! A new policy while `serve` runs: by SIGHUP, by a change of the file, and never from a bad file.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use valetkey::embedded::workspace::Workspace;

use crate::harness::process::{Listening, Process};
use crate::harness::web::as_app;
use crate::harness::{
    APP_SECRET_VARIABLE, Folder, LOCAL_ID, LOCAL_SECRET, config, experiment, held_port, until,
    workspace,
};

/// A call that the first policy does not know.
const NEW: &str = "/api/2.0/embedded/new";

struct Scene {
    folder: Folder,
    config: Value,
    sidecar: Process,
    listening: Listening,
    _workspace: Workspace,
}

impl Scene {
    async fn new() -> Self {
        let (folder, workspace) = (Folder::new(), workspace().await);
        let mut config = config(&workspace, held_port().1);
        config["outbound"]["local_client"] =
            json!({"id": LOCAL_ID, "secret": {"env": "AGENT_CLIENT_SECRET"}});
        folder.write_config(&config);
        let mut command = folder.valetkey(&["serve"]);
        command
            .env(APP_SECRET_VARIABLE, workspace.app().client_secret.expose())
            .env("AGENT_CLIENT_SECRET", LOCAL_SECRET);
        let mut sidecar = Process::start(command);
        let listening = sidecar.listening().await;
        Self {
            folder,
            config,
            sidecar,
            listening,
            _workspace: workspace,
        }
    }

    /// The file with one route more.
    fn allow_new(&mut self) {
        let routes = self.config["routes"].as_array_mut().unwrap();
        routes.push(json!({"name": "new", "path": "/api/2.0/embedded/**", "as": "app"}));
        self.folder.write_config(&self.config);
    }

    /// The word by which a call is refused; `None` when it got through to the workspace.
    async fn refusal(&self, target: &str) -> Option<String> {
        let answer = as_app(self.listening.outbound, target).await;
        answer.header("x-valetkey-error").map(str::to_owned)
    }

    async fn reloads(&self, result: &str) -> f64 {
        let name = format!("valetkey_policy_reloads_total{{result=\"{result}\"}}");
        self.listening.metric(&name).await
    }

    async fn until_reloaded(&self, result: &str) {
        until(&format!("a reload is {result}"), async || {
            (self.reloads(result).await > 0.0).then_some(())
        })
        .await;
    }

    async fn end(self) -> Vec<String> {
        let ended = self.sidecar.stop().await.expect(0);
        ended.keeps_to_itself(&[LOCAL_SECRET]);
        self.folder
            .run(&["audit", "verify", "audit.jsonl"])
            .await
            .good();
        let mut events = self.folder.events();
        events.retain(|event| event.starts_with("policy"));
        events
    }
}

#[tokio::test]
async fn sighup_puts_a_new_route_in_force() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.refusal(NEW).await.as_deref(), Some("no_route"));
    let before = scene.listening.status().await["policy"].clone();
    assert_eq!(
        (&before["routes"], &before["loaded"]),
        (&json!(3), &json!(1))
    );

    // With the file as it was, nothing but the signal can be the cause.
    scene.sidecar.signal(Signal::SIGHUP);
    scene.until_reloaded("ok").await;
    assert_eq!(scene.listening.status().await["policy"]["loaded"], 2);

    scene.allow_new();
    scene.sidecar.signal(Signal::SIGHUP);
    until("the new route is in force", async || {
        scene.refusal(NEW).await.is_none().then_some(())
    })
    .await;
    let after = scene.listening.status().await["policy"].clone();
    assert_eq!(after["routes"], 4);
    assert_eq!(after["refused_reload"], Value::Null);
    assert_eq!(scene.end().await, ["policy_loaded"; 3]);
}

#[tokio::test]
async fn a_bad_file_leaves_the_old_policy_in_force_and_says_so_everywhere() {
    let mut scene = Scene::new().await;
    let good = fs::read_to_string(scene.folder.file("valetkey.yaml")).unwrap();
    let bad = "routes: [{name: a, operation: sql.nonsense, as: root, secret: dapi-in-the-file}]\n";
    scene.folder.write("valetkey.yaml", bad);
    scene.sidecar.signal(Signal::SIGHUP);
    scene.until_reloaded("refused").await;

    assert_eq!(
        scene.refusal(&experiment()).await,
        None,
        "the old routes serve"
    );
    assert_eq!(scene.refusal(NEW).await.as_deref(), Some("no_route"));
    let status = scene.listening.status().await;
    let why = status["policy"]["refused_reload"].as_str().unwrap();
    assert!(
        why.contains("routes[0].as") && why.contains("valetkey.yaml:1"),
        "{why}"
    );
    assert!(!why.contains("dapi-in-the-file"), "{why}");
    assert_eq!(status["policy"]["loaded"], 1);
    let log = scene.sidecar.err();
    assert!(log.contains("the new policy is refused"), "{log}");
    assert!(!log.contains("dapi-in-the-file"), "{log}");

    // Mended, it is as if nothing had been.
    scene.folder.write("valetkey.yaml", &good);
    scene.allow_new();
    scene.sidecar.signal(Signal::SIGHUP);
    scene.until_reloaded("ok").await;
    assert_eq!(scene.refusal(NEW).await, None);
    let status = scene.listening.status().await;
    assert_eq!(status["policy"]["refused_reload"], Value::Null);
    let events = scene.end().await;
    assert_eq!(events, ["policy_loaded", "policy_refused", "policy_loaded"]);
}

#[tokio::test]
async fn a_changed_file_is_noticed_without_a_signal_and_a_touched_one_is_not_a_change() {
    let mut scene = Scene::new().await;
    // The same text again, under another time stamp.
    scene.folder.write_config(&scene.config);
    scene.allow_new();
    scene.until_reloaded("ok").await;
    assert_eq!(scene.refusal(NEW).await, None);
    assert_eq!(scene.listening.status().await["policy"]["loaded"], 2);
    assert_eq!(scene.end().await, ["policy_loaded", "policy_loaded"]);
}

#[tokio::test]
async fn what_only_a_restart_changes_is_said_and_not_done() {
    let mut scene = Scene::new().await;
    let moved = held_port().1;
    scene.config["admin"]["listen"] = json!(format!("127.0.0.1:{moved}"));
    scene.allow_new();
    scene.sidecar.signal(Signal::SIGHUP);
    let line = "these changes take effect at a restart; routes, users.scopes and outbound.presigned are in force now";
    let told = scene.sidecar.logged(line).await;
    assert_eq!(told["keys"], "admin");
    scene.listening.admin_page("/livez").await.expect(200);
    assert_eq!(scene.end().await, ["policy_loaded", "policy_loaded"]);
}

#[tokio::test]
async fn a_change_in_a_file_of_the_bundle_is_noticed_also_while_the_bundle_has_a_mistake() {
    let mut scene = Scene::new().await;
    let app =
        |resources: &str| format!("resources: {{apps: {{a: {{resources: [{resources}]}}}}}}\n");
    let warehouse = "{name: w, sql_warehouse: {id: 1, permission: CAN_USE}}";
    let routes = async |scene: &Scene| scene.listening.status().await["policy"]["routes"].clone();
    fs::create_dir(scene.folder.file("apps")).unwrap();
    scene
        .folder
        .write("databricks.yml", "include: [apps/*.yml]\n");
    let file = "apps/a.yml";
    scene
        .folder
        .write(file, &app("{name: w, sql_warehous: {}}"));
    scene.config["bundle"] = json!("./databricks.yml");
    scene.folder.write_config(&scene.config);
    scene.until_reloaded("refused").await;
    assert_eq!(routes(&scene).await, 3);

    // Only the included file changes, and no signal is sent.
    scene.folder.write(file, &app(warehouse));
    scene.until_reloaded("ok").await;
    assert_eq!(
        routes(&scene).await,
        5,
        "own ones, the warehouse, who is calling"
    );
    let two = format!("{warehouse}, {{name: j, job: {{id: 1, permission: CAN_VIEW}}}}");
    scene.folder.write(file, &app(&two));
    until("the second resource is in force", async || {
        (routes(&scene).await == 6).then_some(())
    })
    .await;
    let events = scene.end().await;
    assert_eq!(
        events,
        [
            "policy_loaded",
            "policy_refused",
            "policy_loaded",
            "policy_loaded"
        ]
    );
}

//! `run`: the sidecar and the agent as its child, from the first second to the last.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};
use valetkey::embedded::workspace::Workspace;

use crate::harness::process::{Ended, Listening, Process};
use crate::harness::web::{as_user, get, send};
use crate::harness::{
    ALICE, APP_SECRET_VARIABLE, BOB, Folder, USUAL_PORTS, config, config_without_workspace,
    free_port, is_alive, on_loopback, token, until, within, workspace,
};

const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/agent.py");
/// The ports of a sidecar that nobody told others.
const USUAL_OUTBOUND: u16 = 9400;
const USUAL_ADMIN: u16 = 9401;
const USUAL_AGENT: u16 = 8001;

/// A folder with a configuration that names no workspace that could be reached.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write_config(&config_without_workspace());
    folder
}

fn environment(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .collect()
}

/// The sidecar with the agent in Python, in a folder of its own.
struct Scene {
    folder: Folder,
    workspace: Workspace,
    sidecar: Process,
    at: Listening,
}

impl Scene {
    async fn new(agent: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let (folder, workspace) = (Folder::new(), workspace().await);
        let mut config = config(&workspace, free_port());
        change(&mut config);
        folder.write_config(&config);
        let mut command = folder.valetkey(&["run", "--"]);
        command
            .args(agent)
            .env(APP_SECRET_VARIABLE, workspace.app().client_secret.expose())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let mut sidecar = Process::start(command);
        let at = sidecar.listening().await;
        Self {
            folder,
            workspace,
            sidecar,
            at,
        }
    }

    async fn with_agent() -> Self {
        let scene = Self::new(&["python3", AGENT], |_| {}).await;
        scene.at.ready().await;
        scene
    }

    async fn exists(&self, name: &str) {
        until(name, async || self.folder.file(name).exists().then_some(())).await;
    }

    /// The number in a file that a child writes.
    async fn pid_in(&self, name: &str) -> Pid {
        let pid = until(name, async || {
            let text = fs::read_to_string(self.folder.file(name)).unwrap_or_default();
            text.strip_suffix('\n').and_then(|pid| pid.parse().ok())
        });
        Pid::from_raw(pid.await)
    }
}

async fn until_gone(what: &str, pid: Pid) {
    until(&format!("{what} is gone"), async || {
        (!is_alive(pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_exit_code_is_the_childs_own() {
    let folder = folder();
    folder.write("not-executable", "#!/bin/sh\n");
    let missing_interpreter = folder.write("missing-interpreter", "#!/nowhere/sh\n");
    fs::set_permissions(missing_interpreter, fs::Permissions::from_mode(0o755)).unwrap();
    for (command, code, words) in [
        (&["true"][..], 0, &[][..]),
        (&["sh", "-c", "exit 7"], 7, &[]),
        (&["sh", "-c", "exit 255"], 255, &[]),
        (&["sh", "-c", "kill -KILL $$"], 137, &[]),
        (&["sh", "-c", "kill -SEGV $$"], 139, &[]),
        (
            &["no-such-command", "private"],
            127,
            &["no-such-command", "PATH"],
        ),
        (&["./missing-interpreter"], 127, &["missing-interpreter"]),
        (
            &["./not-executable", "private"],
            126,
            &["not-executable", "permissions"],
        ),
        (&["."], 126, &["`.`"]),
    ] {
        let ended = folder.run(&[&["run", "--"], command].concat()).await;
        let ended = ended.expect(code);
        ended.says(words);
        ended.keeps_to_itself(&["private"]);
    }
    folder.run(&["audit", "verify", "audit.jsonl"]).await.good();
}

#[tokio::test]
async fn input_output_and_arguments_are_the_childs() {
    let folder = folder();
    let script = "read line; echo \"out: $line $1 $#\"; echo err >&2; pwd";
    let arguments = ["run", "--", "sh", "-c", script, "sh", "--json", "two words"];
    let input = fs::File::open(folder.write("input", "hello\n")).unwrap();
    let child = Process::start_with(folder.valetkey(&arguments), input.into());
    let ended = child.end().await.expect(0);
    let folder = fs::canonicalize(folder.path()).unwrap();
    assert_eq!(
        ended.out,
        format!("out: hello --json 2\n{}\n", folder.display())
    );
    assert!(ended.err.lines().any(|line| line == "err"), "{}", ended.err);
}

/// Variables with credentials in them.
const SECRETS: [(&str, &str); 6] = [
    (APP_SECRET_VARIABLE, "the-real-secret-of-the-app"),
    ("DATABRICKS_CLIENT_SECRET", "another-real-secret"),
    ("DATABRICKS_TOKEN", "dapi0123456789"),
    ("DATABRICKS_PASSWORD", "a-password"),
    ("ARM_CLIENT_SECRET", "an-azure-secret"),
    ("INNOCENT_NAME", "x-the-real-secret-of-the-app-y"),
];

/// A child that shows its environment, and where the sidecar listened.
async fn child_shows_its_environment() -> (Listening, Ended) {
    let folder = Folder::new();
    let mut config = config_without_workspace();
    config["app"] = json!({"client_id": "the-app", "client_secret": {"env": APP_SECRET_VARIABLE}});
    config["inbound"]["agent"] = json!("http://127.0.0.1:8765");
    folder.write_config(&config);
    let mut command = folder.valetkey(&["run", "--", "env"]);
    command
        .envs(SECRETS)
        .env("DATABRICKS_CLIENT_ID", "the-app")
        .env("DATABRICKS_HOST", "https://real.cloud.databricks.com")
        .env("DATABRICKS_CONFIG_PROFILE", "prod")
        .env("DATABRICKS_APP_PORT", "8000")
        .env("VALETKEY_CONFIG", "valetkey.yaml")
        .env("NO_PROXY", "intranet.example.com")
        .env("MINE", "stays");
    let mut sidecar = Process::start(command);
    let at = sidecar.listening().await;
    (at, sidecar.end().await.expect(0))
}

#[tokio::test]
async fn the_child_is_told_of_the_sidecar_and_of_no_secret() {
    let (at, ended) = child_shows_its_environment().await;
    let told = environment(&ended.out);

    let (outbound, admin) = (
        format!("http://{}", at.outbound),
        format!("http://{}", at.admin),
    );
    for (name, value) in [
        ("DATABRICKS_HOST", outbound.as_str()),
        ("VALETKEY_OUTBOUND_URL", &outbound),
        ("VALETKEY_ADMIN_URL", &admin),
        ("DATABRICKS_CLIENT_ID", "the-app"),
        ("DATABRICKS_DISABLE_EXPERIMENTAL_FILES_API_CLIENT", "true"),
        ("MINE", "stays"),
    ] {
        assert_eq!(told.get(name), Some(&value), "{name}");
    }
    for name in [
        "DATABRICKS_APP_PORT",
        "PORT",
        "UVICORN_PORT",
        "FLASK_RUN_PORT",
        "STREAMLIT_SERVER_PORT",
        "GRADIO_SERVER_PORT",
    ] {
        assert_eq!(told.get(name), Some(&"8765"), "{name}");
    }
    for name in ["NO_PROXY", "no_proxy"] {
        let list: Vec<&str> = told[name].split(',').collect();
        for host in ["intranet.example.com", "127.0.0.1", "localhost"] {
            assert!(list.contains(&host), "{name}: {list:?}");
        }
    }
    let local = told["DATABRICKS_CLIENT_SECRET"];
    assert!(
        local.starts_with("vkl_") && local.len() > 40,
        "a secret of its own"
    );
    for name in [
        APP_SECRET_VARIABLE,
        "DATABRICKS_TOKEN",
        "DATABRICKS_PASSWORD",
        "ARM_CLIENT_SECRET",
        "INNOCENT_NAME",
        "DATABRICKS_CONFIG_PROFILE",
        "VALETKEY_CONFIG",
    ] {
        assert!(!told.contains_key(name), "{name} is unset, not blanked");
    }
    ended.keeps_to_itself(&SECRETS.map(|(_, secret)| secret));
    assert!(!ended.err.contains(local));
    ended.says(&["INNOCENT_NAME"]);
}

#[tokio::test]
async fn people_get_503_until_the_agent_accepts_and_then_their_answers() {
    let scene = Scene::new(&["python3", AGENT, "wait", "start"], |_| {}).await;
    let (inbound, workspace) = (scene.at.inbound, &scene.workspace);
    let early = as_user(inbound, "/me", workspace, ALICE).await.expect(503);
    assert_eq!(early.header("x-valetkey-error"), Some("agent_not_ready"));
    assert!(early.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    scene.at.admin_page("/readyz").await.expect(503);
    scene.at.admin_page("/livez").await.expect(200);

    scene.folder.write("start", "");
    scene.at.ready().await;
    for user in [ALICE, BOB] {
        let answer = as_user(inbound, "/me", workspace, user).await.expect(200);
        assert_eq!(answer.json()["userName"], user);
    }
    as_user(inbound, "/app", workspace, ALICE).await.expect(200);
    let told = as_user(inbound, "/told", workspace, ALICE)
        .await
        .expect(200)
        .body;
    for secret in [
        token(workspace, ALICE).as_str(),
        workspace.app().client_secret.expose(),
    ] {
        assert!(!told.contains(secret));
    }
    get(inbound, "/me", &[]).await.expect(401);

    let records = scene.folder.records();
    let outcome = records
        .iter()
        .find(|r| r["event"] == "outcome" && r["route"] == "traces");
    let outcome = outcome.unwrap();
    assert_eq!(outcome["identity"], "app");
    scene.sidecar.stop().await.expect(0);
    scene
        .folder
        .run(&["audit", "verify", "audit.jsonl"])
        .await
        .good();
}

#[tokio::test]
async fn sigterm_reaches_the_agent_and_a_request_in_flight_ends_with_its_calls() {
    let scene = Scene::with_agent().await;
    let inbound = scene.at.inbound;
    let user_token = token(&scene.workspace, ALICE);
    let slow = tokio::spawn(async move {
        get(
            inbound,
            "/slow",
            &[("x-forwarded-access-token", &user_token)],
        )
        .await
    });
    scene.exists("slow-began").await;

    scene.sidecar.signal(Signal::SIGTERM);
    scene.exists("asked-to-stop").await;
    until("nobody is let in any more", async || {
        let answer = send(inbound, http::Method::GET, "/me", &[], "").await;
        answer
            .map_or(true, |answer| answer.status == 503)
            .then_some(())
    })
    .await;
    assert!(!slow.is_finished());

    // Only now does the agent call the workspace through the sidecar, and the answer still gets through.
    scene.folder.write("go", "");
    let answer = within("the request ends", slow).await.unwrap().expect(200);
    assert_eq!(answer.json()["userName"], ALICE);
    scene.sidecar.end().await.expect(0);
    let events = scene.folder.events();
    assert_eq!(events.last().unwrap(), "stop");
    assert_eq!(events.iter().filter(|e| *e == "outcome").count(), 1);
    scene
        .folder
        .run(&["audit", "verify", "audit.jsonl"])
        .await
        .good();
}

#[tokio::test]
async fn the_sidecar_ends_when_the_agent_dies() {
    let scene = Scene::with_agent().await;
    let inbound = scene.at.inbound;
    let user_token = token(&scene.workspace, ALICE);
    let headers = [("x-forwarded-access-token", user_token.as_str())];
    let answer = send(inbound, http::Method::GET, "/die", &headers, "").await;
    if let Ok(answer) = answer {
        assert!([502, 503].contains(&answer.status), "{answer:?}");
    }
    scene.sidecar.end().await.expect(5);
    assert_eq!(scene.folder.events().last().unwrap(), "stop");
}

#[tokio::test]
async fn an_agent_that_ignores_sigterm_is_killed_at_the_end_of_the_drain_with_its_children() {
    let stubborn = "trap '' TERM; sleep 600 & echo $! > grandchild; echo $$ > child; wait; wait";
    let short = |config: &mut Value| config["limits"] = json!({"drain_time": "1500ms"});
    let scene = Scene::new(&["sh", "-c", stubborn], short).await;
    let (child, grandchild) = (
        scene.pid_in("child").await,
        scene.pid_in("grandchild").await,
    );
    assert!(is_alive(child) && is_alive(grandchild));
    scene.sidecar.stop().await.expect(137);
    until_gone("the child", child).await;
    until_gone("the grandchild", grandchild).await;
}

#[tokio::test]
async fn asked_twice_everything_ends_at_once() {
    let stubborn = "trap '' TERM; sleep 600 & echo $! > grandchild; echo $$ > child; wait; wait";
    let long = |config: &mut Value| config["limits"] = json!({"drain_time": "10m"});
    let mut scene = Scene::new(&["sh", "-c", stubborn], long).await;
    let (child, grandchild) = (
        scene.pid_in("child").await,
        scene.pid_in("grandchild").await,
    );
    scene.sidecar.signal(Signal::SIGTERM);
    scene.sidecar.logged("stopping").await;
    scene.sidecar.signal(Signal::SIGINT);
    scene.sidecar.end().await.expect(137);
    until_gone("the child", child).await;
    until_gone("the grandchild", grandchild).await;
}

#[tokio::test]
async fn what_the_agent_leaves_behind_ends_with_it() {
    let scene = Scene::new(&["sh", "-c", "sleep 600 & echo $! > left; exit 3"], |_| {}).await;
    let left = scene.pid_in("left").await;
    scene.sidecar.end().await.expect(3);
    until_gone("what it left behind", left).await;
}

#[tokio::test]
async fn other_signals_are_passed_on_and_sighup_is_the_sidecars_alone() {
    let script =
        "trap 'touch usr1' USR1; trap 'touch hup' HUP; touch began; while :; do sleep 0.02; done";
    let mut scene = Scene::new(&["sh", "-c", script], |_| {}).await;
    scene.exists("began").await;
    scene.sidecar.signal(Signal::SIGHUP);
    scene.sidecar.logged("the policy was reloaded").await;
    scene.sidecar.signal(Signal::SIGUSR1);
    scene.exists("usr1").await;
    assert!(!scene.folder.file("hup").exists());
    scene.sidecar.stop().await.expect(143);
}

#[tokio::test]
async fn a_databricks_app_needs_no_configuration() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    // Without a file the ports are the usual ones; another sidecar on this machine may have them for a while.
    let _turn = USUAL_PORTS.lock().await;
    let ports = "ports 9400, 9401 and 8001 are free (end what listens there)";
    until(ports, async || {
        [USUAL_OUTBOUND, USUAL_ADMIN, USUAL_AGENT]
            .iter()
            .all(|port| std::net::TcpListener::bind(on_loopback(*port)).is_ok())
            .then_some(())
    })
    .await;
    let app_port = free_port();
    let mut command = folder.valetkey(&["run", "--", "python3", AGENT]);
    command
        .env("DATABRICKS_HOST", workspace.url())
        .env("DATABRICKS_WORKSPACE_ID", workspace.workspace_id())
        .env("DATABRICKS_CLIENT_ID", &workspace.app().client_id)
        .env(
            "DATABRICKS_CLIENT_SECRET",
            workspace.app().client_secret.expose(),
        )
        .env("DATABRICKS_APP_PORT", app_port.to_string())
        .env("DATABRICKS_APP_NAME", "an-app");
    let mut sidecar = Process::start(command);
    let at = sidecar.listening().await;
    assert_eq!(at.inbound.port(), app_port);
    assert!(
        at.inbound.ip().is_unspecified(),
        "the front door is elsewhere"
    );
    assert_eq!(at.outbound, on_loopback(USUAL_OUTBOUND));
    assert_eq!(at.admin, on_loopback(USUAL_ADMIN));
    at.ready().await;
    let inbound = on_loopback(app_port);
    let answer = as_user(inbound, "/me", &workspace, ALICE).await.expect(200);
    assert_eq!(answer.json()["userName"], ALICE);
    as_user(inbound, "/app", &workspace, BOB).await.expect(200);
    assert_eq!(at.status().await["policy"]["origin"], "starter");
    assert!(at.metric("valetkey_policy_starter").await > 0.0);
    let ended = sidecar.stop().await.expect(0);
    ended.says(&["starter policy"]);
    ended.keeps_to_itself(&[workspace.app().client_secret.expose()]);
    let audit = folder.file("audit/valetkey.jsonl");
    let audit = audit.to_str().unwrap();
    folder.run(&["audit", "verify", audit]).await.good();
}

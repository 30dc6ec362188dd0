//! `serve` and `healthcheck`: the sidecar alone, from its start, or the refusal of one, to its end.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::workspace::Workspace;

use crate::harness::process::{Listening, Process};
use crate::harness::web::{app_token, as_app, as_user, get, send};
use crate::harness::{
    ALICE, APP_SECRET_VARIABLE, Folder, LOCAL_SECRET, ME, config, config_without_workspace,
    experiment, held_port, local_client, serve, until, within, workspace,
};

fn config_with_local_client(workspace: &Workspace, agent_port: u16) -> Value {
    let mut config = config(workspace, agent_port);
    local_client(&mut config);
    config
}

/// A ready sidecar with a local client, before an agent that accepts and never answers.
async fn ready(folder: &Folder, workspace: &Workspace) -> (Process, Listening, TcpListener) {
    let (agent, port) = held_port();
    let mut sidecar = serve(
        folder,
        workspace,
        &config_with_local_client(workspace, port),
    );
    let listening = sidecar.listening().await;
    listening.ready().await;
    (sidecar, listening, agent)
}

#[tokio::test]
async fn an_agent_beside_it_gets_an_app_token_and_calls_as_the_app() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    let (sidecar, listening, _agent) = ready(&folder, &workspace).await;

    let token = app_token(listening.outbound, LOCAL_SECRET)
        .await
        .expect(200)
        .json();
    let token = token["access_token"].as_str().unwrap();
    assert!(token.starts_with("vka_"), "the agent gets a local token");
    let answer = as_app(listening.outbound, &experiment()).await.expect(200);
    assert_eq!(answer.header("x-valetkey-error"), None);
    let seen = workspace
        .control()
        .calls_to("/api/2.0/mlflow")
        .pop()
        .unwrap();
    let arrived = seen.header("authorization")[0]
        .trim_start_matches("Bearer ")
        .to_owned();
    assert!(!arrived.contains("vka_"), "the workspace got the real one");

    app_token(listening.outbound, "wrong").await.expect(401);
    let denied = as_app(listening.outbound, "/api/2.0/token/list")
        .await
        .expect(403);
    assert_eq!(denied.header("x-valetkey-error"), Some("no_route"));

    let ended = sidecar.stop().await.expect(0);
    let app = &workspace.app().client_secret;
    ended.keeps_to_itself(&[app.expose(), LOCAL_SECRET, token, &arrived]);
    let audit = fs::read_to_string(folder.file("audit.jsonl")).unwrap();
    for secret in [app.expose(), LOCAL_SECRET, token, &arrived] {
        assert!(!audit.contains(secret));
    }
    assert_eq!(
        folder.events(),
        [
            "start",
            "policy_loaded",
            "intent",
            "outcome",
            "denial",
            "stop"
        ]
    );
    folder.run(&["audit", "verify", "audit.jsonl"]).await.good();
}

#[tokio::test]
async fn healthcheck_is_1_until_the_sidecar_is_ready_and_then_0() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    let (socket, port) = held_port();
    let mut config = config_with_local_client(&workspace, port);
    let (admin, admin_port) = held_port();
    config["admin"]["listen"] = json!(format!("127.0.0.1:{admin_port}"));
    folder.write_config(&config);
    let health = async |option: Option<&str>| {
        let mut command = folder.valetkey(&["healthcheck"]);
        command
            .args(option)
            .env(APP_SECRET_VARIABLE, "any")
            .env("AGENT_CLIENT_SECRET", LOCAL_SECRET);
        Process::start(command).end().await
    };
    drop(admin);
    health(None).await.expect(1).says(&["no sidecar answers"]);

    drop(socket);
    let mut sidecar = serve(&folder, &workspace, &config);
    sidecar.listening().await;
    health(None)
        .await
        .expect(1)
        .says(&["not ready", "agent", "starting"]);
    let told = health(Some("--json")).await.expect(1);
    let told: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(told["ready"], false);

    let _agent = TcpListener::bind(("127.0.0.1", port)).unwrap();
    until("the sidecar is ready", async || {
        (health(None).await.code == 0).then_some(())
    })
    .await;
    let told = health(Some("--json")).await.good();
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["ready"], true);
    sidecar.stop().await.expect(0);
    health(None).await.expect(1);
}

#[tokio::test]
async fn sigterm_lets_calls_in_flight_end_and_takes_no_new_ones() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    let (sidecar, listening, _agent) = ready(&folder, &workspace).await;
    as_app(listening.outbound, &experiment()).await.expect(200);
    workspace.control().fail(Place::Api, Fault::Hang);
    let target = experiment();
    let call = tokio::spawn(async move { as_app(listening.outbound, &target).await });
    let arrived = workspace
        .control()
        .wait_until(|w| w.calls_to("/api/2.0/mlflow").len() == 2);
    within("the call arrives at the workspace", arrived).await;

    sidecar.signal(Signal::SIGTERM);
    until("nobody is let in any more", async || {
        let refused = send(listening.inbound, http::Method::GET, "/", &[], "").await;
        refused.is_err().then_some(())
    })
    .await;
    assert!(!call.is_finished());
    workspace.control().heal(Place::Api);
    within("the call ends", call).await.unwrap().expect(200);
    sidecar.end().await.expect(0);
    let events = folder.events();
    assert_eq!(events[events.len() - 2..], ["outcome", "stop"]);
}

#[tokio::test]
async fn the_drain_ends_with_its_time_or_when_asked_twice() {
    for asked_twice in [false, true] {
        let (folder, workspace) = (Folder::new(), workspace().await);
        let (_held, port) = held_port();
        let mut config = config_with_local_client(&workspace, port);
        let limit = if asked_twice { "10m" } else { "200ms" };
        config["limits"] = json!({"drain_time": limit});
        let mut sidecar = serve(&folder, &workspace, &config);
        let listening = sidecar.listening().await;
        as_app(listening.outbound, &experiment()).await.expect(200);
        workspace.control().fail(Place::Api, Fault::Hang);
        let target = experiment();
        let call = tokio::spawn(async move { as_app(listening.outbound, &target).await });
        let arrived = workspace
            .control()
            .wait_until(|w| w.calls_to("/api/2.0/mlflow").len() == 2);
        within("the call arrives at the workspace", arrived).await;
        sidecar.signal(Signal::SIGTERM);
        if asked_twice {
            sidecar.logged("stopping").await;
            sidecar.signal(Signal::SIGTERM);
        }
        sidecar.end().await.expect(0);
        assert!(
            within("the call is cut", call).await.is_err(),
            "{asked_twice}"
        );
        folder.run(&["audit", "verify", "audit.jsonl"]).await.good();
    }
}

#[tokio::test]
async fn every_port_that_is_taken_is_told_with_its_key() {
    let folder = Folder::new();
    let mut config = config_without_workspace();
    let sockets = [held_port(), held_port(), held_port()];
    for (section, (_, port)) in ["inbound", "outbound", "admin"].iter().zip(&sockets) {
        config[*section]["listen"] = json!(format!("127.0.0.1:{port}"));
    }
    folder.write_config(&config);
    for command in [&["serve"][..], &["run", "--", "touch", "child-ran"]] {
        let ended = folder.run(command).await.expect(78);
        for (section, (_, port)) in ["inbound", "outbound", "admin"].iter().zip(&sockets) {
            let told = format!("{section}.listen: cannot listen on 127.0.0.1:{port}");
            ended.says(&[&told]);
        }
    }
    assert!(!folder.file("child-ran").exists());
    assert!(!folder.file("audit.jsonl").exists());
}

#[tokio::test]
async fn an_audit_log_that_cannot_be_written_is_no_start() {
    let folder = Folder::new();
    let mut config = config_without_workspace();
    folder.write("a-file", "");
    fs::create_dir(folder.file("a-folder")).unwrap();
    for (path, named) in [
        ("a-file/audit.jsonl", "a-file"),
        ("a-folder", "a-folder"),
        ("/proc/valetkey/audit.jsonl", "/proc/valetkey"),
    ] {
        config["audit"]["file"] = json!(path);
        folder.write_config(&config);
        let ended = folder.run(&["serve"]).await.expect(78);
        ended.says(&["audit.file: ", named]);
    }
}

#[tokio::test]
async fn a_log_that_is_not_whole_is_carried_on_but_said_aloud() {
    let folder = Folder::new();
    folder.write_config(&config_without_workspace());
    let diary = "this is somebody's diary\n";
    folder.write("audit.jsonl", diary);
    let mut sidecar = Process::start(folder.valetkey(&["serve"]));
    sidecar.listening().await;
    let ended = sidecar.stop().await.expect(0);
    ended.says(&["chain_broken", "valetkey audit verify"]);
    let text = fs::read_to_string(folder.file("audit.jsonl")).unwrap();
    assert!(text.starts_with(diary), "nothing of it is lost: {text}");
    let query = ["audit", "query", "--event", "gap", "--json", "audit.jsonl"];
    let gap = folder.run(&query).await.expect(0);
    gap.says(&["chain_broken", "1 lines are no records", "audit.jsonl:1"]);
    let verdict = folder.run(&["audit", "verify", "audit.jsonl"]).await;
    verdict.expect(1).says(&["line 1", "BROKEN"]);
}

#[tokio::test]
async fn two_sidecars_do_not_share_an_audit_file_but_take_turns_at_it() {
    let folder = Folder::new();
    folder.write_config(&config_without_workspace());
    let mut first = Process::start(folder.valetkey(&["serve"]));
    first.listening().await;
    let second = folder.run(&["serve"]).await.expect(78);
    second.says(&["audit.file: ", "audit.jsonl"]);
    first.stop().await.expect(0);
    let mut third = Process::start(folder.valetkey(&["serve"]));
    third.listening().await;
    third.stop().await.expect(0);
    assert_eq!(
        folder.events(),
        [
            "start",
            "policy_loaded",
            "stop",
            "start",
            "policy_loaded",
            "stop"
        ]
    );
    folder.run(&["audit", "verify", "audit.jsonl"]).await.good();
    let mode = fs::metadata(folder.file("audit.jsonl"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "the log is its owner's alone: {mode:o}");
}

#[tokio::test]
async fn a_killed_sidecar_leaves_a_log_that_the_next_one_continues() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    let (sidecar, listening, _agent) = ready(&folder, &workspace).await;
    as_app(listening.outbound, &experiment()).await.expect(200);
    sidecar.signal(Signal::SIGKILL);
    sidecar.end().await.expect(137);
    let (sidecar, listening, _agent) = ready(&folder, &workspace).await;
    as_app(listening.outbound, &experiment()).await.expect(200);
    sidecar.stop().await.expect(0);
    folder.run(&["audit", "verify", "audit.jsonl"]).await.good();
    let intents = folder.events().iter().filter(|e| *e == "intent").count();
    assert_eq!(
        intents, 2,
        "what was forwarded is in the log, whatever happens next"
    );
}

#[tokio::test]
async fn people_wait_for_the_agent_with_a_503_that_asks_for_a_repeat() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    let port = crate::harness::free_port();
    let mut sidecar = serve(
        &folder,
        &workspace,
        &config_with_local_client(&workspace, port),
    );
    let listening = sidecar.listening().await;
    let answer = as_user(listening.inbound, "/", &workspace, ALICE)
        .await
        .expect(503);
    assert_eq!(answer.header("x-valetkey-error"), Some("agent_not_ready"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    // Nobody without a token learns even that.
    get(listening.inbound, "/", &[]).await.expect(401);
    get(listening.outbound, ME, &[]).await.expect(401);
    sidecar.stop().await.expect(0);
}

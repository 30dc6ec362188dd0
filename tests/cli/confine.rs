//! `run --confine`: the agent reaches the workspace through the sidecar and in no other way.
//!
//! Needs a kernel that can confine (Linux 6.7, Landlock ABI 4); on another one the tests that do say so and pass.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::process::{Ended, Process};
use crate::harness::{
    APP_SECRET_VARIABLE, Folder, config, config_without_workspace, experiment, free_port,
    held_port, workspace,
};

const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/confined.py");
const WITHOUT_LANDLOCK: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/without_landlock.py");

/// Whether this kernel can; says so where it cannot.
pub async fn can_confine() -> bool {
    let probe = ["confined-exec", "--probe", "127.0.0.1:1"];
    let ended = Folder::new().run(&probe).await;
    if ended.code != 0 {
        eprintln!("SKIPPED, this machine cannot confine: {}", ended.err);
    }
    ended.code == 0
}

/// A configuration whose workspace is not there.
fn nowhere() -> Value {
    let mut config = config_without_workspace();
    config["workspace"]["host"] = json!("https://x.cloud.databricks.com");
    config
}

/// The agent under `run` with these arguments, and what it found out.
async fn agent(arguments: &[&str], change: impl FnOnce(&mut Value)) -> (Ended, Value) {
    let (folder, workspace) = (Folder::new(), workspace().await);
    let mut config = config(&workspace, free_port());
    change(&mut config);
    folder.write_config(&config);
    let (at, call) = (workspace.addr().to_string(), experiment());
    let arguments = [&["run"], arguments, &["--", "python3", AGENT, &at, &call]].concat();
    let mut command = folder.valetkey(&arguments);
    command.env(APP_SECRET_VARIABLE, workspace.app().client_secret.expose());
    let ended = Process::start(command).end().await.expect(0);
    let found = serde_json::from_str(&ended.out).unwrap();
    (ended, found)
}

const DENIED: &str = "Permission denied";

fn confined() -> Value {
    json!({
        "direct": DENIED,
        "not_blocking": DENIED,
        "multipath": "Protocol not supported",
        "fast_open": "Operation not supported",
        "fast_open_by_message": "Operation not supported",
        "fast_open_by_option": DENIED,
        "in_a_child": "not connected",
        "listening": "listens",
        "through_the_sidecar": "answer 200",
        "status": "confined",
    })
}

#[tokio::test]
async fn an_unconfined_agent_gets_around_the_sidecar() {
    let (_, found) = agent(&[], |_| {}).await;
    for (way, expected) in [
        ("direct", "HTTP/1.1 200"),
        ("in_a_child", "connected"),
        ("through_the_sidecar", "answer 200"),
        ("status", "off"),
    ] {
        assert_eq!(found[way], expected, "{found}");
    }
}

#[tokio::test]
async fn a_confined_agent_reaches_the_workspace_through_the_sidecar_only() {
    if !can_confine().await {
        return;
    }
    let ((_, by_flag), (_, by_file)) = tokio::join!(
        agent(&["--confine"], |_| {}),
        agent(&[], |config| config["confine"] =
            json!({"mode": "best-effort"})),
    );
    assert_eq!(by_flag, confined());
    assert_eq!(by_file, confined());
}

#[tokio::test]
async fn the_command_line_overrules_the_file() {
    let (_, found) = agent(&["--confine=off"], |config| {
        config["confine"] = json!({"mode": "required"});
    })
    .await;
    assert_eq!(found["direct"], "HTTP/1.1 200");
}

#[tokio::test]
async fn listed_ports_may_be_connected_to_and_others_may_not() {
    if !can_confine().await {
        return;
    }
    let script = "import socket, sys\n\
        def reach(port):\n    \
            try: socket.create_connection(('127.0.0.1', int(port)), 5); return 'there'\n    \
            except PermissionError: return 'denied'\n\
        print(*map(reach, sys.argv[1:]))";
    let [(_a, a), (_b, b), (_c, c)] = [held_port(), held_port(), held_port()];
    let [a, b, c] = [a, b, c].map(|port| port.to_string());
    let folder = Folder::new();
    let mut config = nowhere();
    config["confine"] = json!({"mode": "required", "allow": [b.parse::<u16>().unwrap()]});
    folder.write_config(&config);
    let allow = ["run", "--confine-allow", &a, "--", "python3", "-c", script];
    let ended = folder.run(&[&allow[..], &[&a, &b, &c]].concat()).await;
    assert_eq!(ended.good(), "there there denied\n");
}

#[tokio::test]
async fn the_workspaces_own_port_cannot_be_listed() {
    if !can_confine().await {
        return;
    }
    let folder = Folder::new();
    folder.write_config(&nowhere());
    let run = ["run", "--confine", "--confine-allow", "443", "--", "true"];
    let ended = folder.run(&run).await.expect(78);
    ended.says(&[
        "port 443",
        "https://x.cloud.databricks.com",
        "confine.allow",
    ]);
    let run = ["run", "--confine=best-effort", "--confine-allow=443", "--"];
    let ended = folder.run(&[&run[..], &["true"]].concat()).await.expect(0);
    ended.says(&["confined in vain", "port 443"]);
}

#[tokio::test]
async fn a_confined_command_ends_with_the_same_codes() {
    if !can_confine().await {
        return;
    }
    let folder = Folder::new();
    folder.write_config(&nowhere());
    for (command, code, words) in [
        (&["sh", "-c", "exit 7"][..], 7, &[][..]),
        (&["sh", "-c", "kill -KILL $$"], 137, &[]),
        (
            &["no-such-command", "private"],
            127,
            &["no-such-command", "PATH"],
        ),
        (&["."], 126, &["`.`"]),
    ] {
        let ended = folder
            .run(&[&["run", "--confine", "--"], command].concat())
            .await;
        let ended = ended.expect(code);
        ended.says(words);
        ended.keeps_to_itself(&["private"]);
    }
}

/// The binary on a system that cannot confine.
pub async fn without_landlock(config: &Value, arguments: &[&str]) -> Ended {
    let folder = Folder::new();
    folder.write_config(config);
    let binary = folder.valetkey(&[]);
    let binary = binary.as_std();
    let mut command = Command::new("python3");
    command
        .args([WITHOUT_LANDLOCK, binary.get_program().to_str().unwrap()])
        .args(arguments)
        .current_dir(folder.path())
        .env_clear()
        .envs(
            binary
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    Process::start(command).end().await
}

#[tokio::test]
async fn where_it_cannot_be_done_required_refuses_and_best_effort_says_so() {
    let child = ["--", "sh", "-c", "echo started"];
    let ended = without_landlock(&nowhere(), &[&["run", "--confine"], &child[..]].concat()).await;
    let ended = ended.expect(70);
    ended.says(&[
        "not started",
        "confine is required",
        "Landlock",
        "6.7",
        "best-effort",
    ]);
    ended.keeps_to_itself(&["\nstarted"]);
    assert_eq!(ended.out, "");

    let child = [
        "--",
        "sh",
        "-c",
        "python3 -c \"import os,urllib.request as r;print(r.urlopen(os.environ['VALETKEY_ADMIN_URL']+'/status').read().decode())\"",
    ];
    let ended = without_landlock(
        &nowhere(),
        &[&["run", "--confine=best-effort"], &child[..]].concat(),
    )
    .await;
    let ended = ended.expect(0);
    ended.says(&["the agent is NOT confined", "Landlock"]);
    let status: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(status["confinement"]["state"], "unavailable");
}

#[tokio::test]
async fn mistakes_in_the_section_are_told() {
    let folder = Folder::new();
    let mut config = nowhere();
    config["confine"] = json!({"mode": "strict", "allow": [0, 70000, 5432]});
    folder.write_config(&config);
    let ended = folder.run(&["run", "--", "true"]).await.expect(78);
    ended.says(&[
        "confine.mode",
        "best-effort",
        "confine.allow[0]",
        "confine.allow[1]",
        "TCP port",
    ]);
    let usage = ["run", "--confine=maybe", "--", "true"];
    folder.run(&usage).await.expect(64).says(&["maybe"]);
    let usage = ["run", "--confine-allow=0", "--", "true"];
    folder.run(&usage).await.expect(64);
}

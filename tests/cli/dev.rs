//! `dev`: the sidecar plays the front door, for the embedded workspace and for a real one.
//!
//! The real one is played by an embedded workspace of the test's, and the Databricks CLI by a script on PATH.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use valetkey::embedded::workspace::{Workspace, WorkspaceOptions};

use crate::harness::process::{Ended, Listening, Process};
use crate::harness::web::{Answer, as_user, get, send};
use crate::harness::{
    ALICE, BOB, Folder, PATH, config, config_without_workspace, free_port, workspace,
};

const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/agent.py");
/// What a login by the CLI gives.
const CLI_SCOPES: &str = "all-apis offline_access";
const HOUR: Duration = Duration::from_secs(3600);

/// A developer's machine.
struct Desk {
    folder: Folder,
    sidecar: Process,
    at: Listening,
}

/// What `valetkey.yaml` of the project says; no word of which workspace.
fn project() -> Value {
    let mut config = config_without_workspace();
    config.as_object_mut().unwrap().remove("workspace");
    config["inbound"]["agent"] = json!(format!("http://127.0.0.1:{}", free_port()));
    config
}

/// `databricks auth token` that notes how it was called and prints this.
fn install_cli(folder: &Folder, prints: &str) {
    let bin = folder.file("bin");
    fs::create_dir_all(&bin).unwrap();
    folder.write("cli-prints", prints);
    let script = "#!/bin/sh\necho \"$@\" >> calls\ncat cli-prints\n[ -e cli-fails ] && { cat cli-fails >&2; exit 1; }\nexit 0\n";
    fs::write(bin.join("databricks"), script).unwrap();
    fs::set_permissions(bin.join("databricks"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn answer_with(token: &str) -> String {
    json!({"access_token": token, "token_type": "Bearer", "expiry": "2026-11-25T12:00:00+01:00"})
        .to_string()
}

fn calls(folder: &Folder) -> Vec<String> {
    let calls = fs::read_to_string(folder.file("calls")).unwrap_or_default();
    calls.lines().map(str::to_owned).collect()
}

fn dev(folder: &Folder, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    let arguments = [&["dev"], arguments, &["--", "python3", AGENT]].concat();
    let mut command = folder.valetkey(&arguments);
    command
        .env("PATH", format!("{}:{PATH}", folder.file("bin").display()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(variables.iter().copied());
    Process::start(command)
}

impl Desk {
    async fn new(folder: Folder, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut sidecar = dev(&folder, arguments, variables);
        let at = sidecar.listening().await;
        at.ready().await;
        Self {
            folder,
            sidecar,
            at,
        }
    }

    async fn with_cli(workspace: &Workspace, token: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new();
        folder.write_config(&project());
        install_cli(&folder, &answer_with(token));
        Self::new(folder, arguments, &[("DATABRICKS_HOST", &workspace.url())]).await
    }

    async fn get(&self, target: &str) -> Answer {
        get(self.at.inbound, target, &[]).await
    }

    async fn end(self) -> Ended {
        let ended = self.sidecar.stop().await.expect(0);
        ended.keeps_to_itself(&["eyJ"]);
        ended
    }
}

fn cli_token(workspace: &Workspace, life: Duration) -> String {
    workspace.user_token(ALICE, CLI_SCOPES, life).unwrap()
}

/// The headers that the agent got, by lower-case name.
async fn told(desk: &Desk, headers: &[(&str, &str)]) -> Value {
    let page = get(desk.at.inbound, "/told", headers)
        .await
        .expect(200)
        .json();
    let pairs = page["headers"].as_array().unwrap().iter();
    pairs
        .map(|p| (p[0].as_str().unwrap().to_lowercase(), p[1].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn as_a_user_of_the_embedded_workspace_nothing_else_is_needed() {
    let folder = Folder::new();
    let mut config = project();
    // What the project says of the real workspace does not matter now.
    config["workspace"] = json!({"host": "https://real.cloud.databricks.com", "id": "42"});
    config["users"] = json!({"audience": ["42"], "scopes": ["sql", "iam.current-user:read"]});
    config["app"] = json!({"client_id": "a", "client_secret": {"env": "NOT_SET"}});
    folder.write_config(&config);
    let desk = Desk::new(folder, &["--as", ALICE], &[]).await;
    assert_eq!(desk.get("/me").await.expect(200).json()["userName"], ALICE);
    desk.get("/app").await.expect(200);
    let head = told(
        &desk,
        &[
            ("x-forwarded-email", "forged@example.com"),
            ("x-forwarded-user", "forged"),
        ],
    )
    .await;
    for (name, value) in [
        ("x-forwarded-user", ALICE),
        ("x-forwarded-email", ALICE),
        ("x-forwarded-host", &desk.at.inbound.to_string()),
        ("x-real-ip", "127.0.0.1"),
        ("x-valetkey-scopes", "iam.current-user:read sql"),
        // As on the platform: its tokens do not say the display name, the front door does.
        ("x-valetkey-identity", "asserted"),
    ] {
        assert_eq!(head[name], value, "{name}: {head}");
    }
    assert_eq!(head["x-request-id"].as_str().unwrap().len(), 36);
    assert!(head["x-forwarded-preferred-username"].is_string());
    assert!(
        head["x-forwarded-access-token"]
            .as_str()
            .unwrap()
            .starts_with("vks_")
    );
    let environment = get(desk.at.inbound, "/told", &[]).await.json()["environment"].clone();
    assert!(
        environment["DATABRICKS_CLIENT_SECRET"]
            .as_str()
            .unwrap()
            .starts_with("vkl_")
    );
    let status = desk.at.status().await;
    assert!(
        status["development"].as_str().unwrap().contains(ALICE),
        "{status}"
    );
    assert!(
        status["workspace"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:")
    );
    let ended = desk.end().await;
    ended.says(&[
        "DEVELOPMENT MODE",
        "whoever reaches the inbound listener",
        ALICE,
    ]);
}

#[tokio::test]
async fn any_user_can_be_played_and_holds_what_everybody_has() {
    let folder = Folder::new();
    folder.write_config(&project());
    let desk = Desk::new(folder, &["--as", "carol@example.com"], &[]).await;
    let me = desk.get("/me").await.expect(200).json();
    assert_eq!(me["userName"], "carol@example.com");
    desk.end().await;
}

#[tokio::test]
async fn the_login_of_the_cli_is_used_kept_and_renewed() {
    let workspace = workspace().await;
    let desk = Desk::with_cli(&workspace, &cli_token(&workspace, HOUR), &[]).await;
    for _ in 0..3 {
        assert_eq!(desk.get("/me").await.expect(200).json()["userName"], ALICE);
    }
    assert_eq!(
        calls(&desk.folder),
        [format!("auth token --host {}", workspace.url())]
    );
    // A request that brings a token keeps it.
    let bob = as_user(desk.at.inbound, "/me", &workspace, BOB).await;
    assert_eq!(bob.expect(200).json()["userName"], BOB);
    as_user(desk.at.inbound, "/me", &workspace, ALICE)
        .await
        .expect(200);
    get(
        desk.at.inbound,
        "/me",
        &[("x-forwarded-access-token", "a.b.c")],
    )
    .await
    .expect(401);
    let status = desk.at.status().await;
    let words = format!("`databricks auth token --host {}`", workspace.url());
    assert_eq!(status["development"], words);
    desk.end().await;

    // One that ends within minutes is asked for anew each time.
    let short = cli_token(&workspace, Duration::from_secs(200));
    let desk = Desk::with_cli(&workspace, &short, &["--profile", "mine"]).await;
    let before = calls(&desk.folder).len();
    let long = workspace.user_token(BOB, CLI_SCOPES, HOUR).unwrap();
    desk.folder.write("cli-prints", &answer_with(&long));
    for _ in 0..2 {
        assert_eq!(desk.get("/me").await.expect(200).json()["userName"], BOB);
    }
    let calls = calls(&desk.folder);
    assert_eq!(calls.len(), before + 1, "{calls:?}");
    assert!(calls.iter().all(|call| call == "auth token --profile mine"));
    desk.end().await;
}

#[tokio::test]
async fn workspace_and_id_are_learned_from_the_token_where_nobody_wrote_them_down() {
    let workspace = workspace().await;
    let folder = Folder::new();
    folder.write_config(&project());
    install_cli(&folder, &answer_with(&cli_token(&workspace, HOUR)));
    let desk = Desk::new(folder, &[], &[]).await;
    assert_eq!(calls(&desk.folder), ["auth token"]);
    assert_eq!(desk.get("/me").await.expect(200).json()["userName"], ALICE);
    assert_eq!(desk.at.status().await["workspace"], workspace.url());
    desk.end().await;
}

#[tokio::test]
async fn a_cli_that_stops_working_is_told_to_whoever_asks() {
    let workspace = workspace().await;
    let short = cli_token(&workspace, Duration::from_secs(200));
    let desk = Desk::with_cli(&workspace, &short, &[]).await;
    desk.folder
        .write("cli-fails", "Error: refresh token is invalid\n");
    let answer = desk.get("/me").await.expect(502);
    for words in ["refresh token is invalid", "databricks auth login --host"] {
        assert!(answer.body.contains(words), "{answer:?}");
    }
    fs::remove_file(desk.folder.file("cli-fails")).unwrap();
    desk.get("/me").await.expect(200);
    desk.end().await;
}

#[tokio::test]
async fn a_token_in_the_variable_works_when_it_is_a_jwt() {
    let workspace = workspace().await;
    let folder = Folder::new();
    folder.write_config(&project());
    let token = cli_token(&workspace, HOUR);
    let desk = Desk::new(folder, &[], &[("DATABRICKS_TOKEN", &token)]).await;
    assert_eq!(desk.get("/me").await.expect(200).json()["userName"], ALICE);
    let environment = get(desk.at.inbound, "/told", &[]).await.json()["environment"].clone();
    assert!(environment.get("DATABRICKS_TOKEN").is_none());
    desk.end().await;
}

/// What the CLI prints (nothing = there is none), the variables, the words of the refusal.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[tokio::test]
async fn what_cannot_work_is_told_before_the_agent_starts() {
    let (workspace, other) = (workspace().await, workspace_with_id("99").await);
    let url = workspace.url();
    let host = ("DATABRICKS_HOST", url.as_str());
    let expired = cli_token(&workspace, Duration::ZERO);
    let stranger = other.user_token(ALICE, CLI_SCOPES, HOUR).unwrap();
    let cases: [Case<'_>; 7] = [
        (
            "",
            &[
                host,
                ("DATABRICKS_TOKEN", "dapi0123456789abcdef0123456789abcdef"),
            ],
            &[
                "personal access token",
                "OAuth",
                "databricks auth login",
                "--as",
            ],
        ),
        (
            "",
            &[host, ("DATABRICKS_TOKEN", "opaque-token")],
            &["no JWT"],
        ),
        ("", &[host, ("DATABRICKS_TOKEN", &expired)], &["expired"]),
        ("", &[host], &["not on PATH", "--as alice@example.com"]),
        ("nonsense", &[host], &["did not print JSON"]),
        (
            &answer_with("dapi1234"),
            &[host],
            &["personal access token"],
        ),
        (
            &answer_with(&stranger),
            &[host, ("DATABRICKS_WORKSPACE_ID", "1")],
            &["does not take your token", &other.url(), &url, "--profile"],
        ),
    ];
    for (prints, variables, words) in cases {
        let folder = Folder::new();
        folder.write_config(&project());
        if !prints.is_empty() {
            install_cli(&folder, prints);
        }
        let ended = dev(&folder, &[], variables).end().await.expect(78);
        ended.says(words);
        ended.keeps_to_itself(&["eyJ", "opaque-token", "dapi0123456789abcdef"]);
        assert!(!folder.file("asked-to-stop").exists());
    }
}

async fn workspace_with_id(id: &str) -> Workspace {
    let options = WorkspaceOptions {
        workspace_id: id.to_owned(),
        ..WorkspaceOptions::default()
    };
    Workspace::start(options).await.unwrap()
}

#[tokio::test]
async fn only_this_machine_is_served_and_no_page_of_another_site() {
    let folder = Folder::new();
    let mut config = project();
    config["inbound"]["listen"] = json!("0.0.0.0:0");
    folder.write_config(&config);
    let ended = dev(&folder, &["--as", ALICE], &[]).end().await.expect(78);
    ended.says(&["inbound.listen", "this machine only", "127.0.0.1"]);

    folder.write_config(&project());
    let desk = Desk::new(folder, &["--as", ALICE], &[]).await;
    let port = desk.at.inbound.port();
    let here = format!("localhost:{port}");
    let own = format!("http://{here}");
    for (method, headers, status) in [
        (Method::GET, &[("host", here.as_str())][..], 200),
        (Method::GET, &[("host", "evil.example")], 403),
        (Method::POST, &[("origin", "https://evil.example")], 403),
        (Method::GET, &[("sec-fetch-site", "cross-site")], 403),
        (
            Method::GET,
            &[
                ("host", here.as_str()),
                ("origin", own.as_str()),
                ("sec-fetch-site", "same-origin"),
            ],
            200,
        ),
    ] {
        let answer = send(desk.at.inbound, method, "/me", headers, "")
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
    }
    desk.end().await;
}

#[tokio::test]
async fn run_and_serve_know_no_front_door() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    install_cli(&folder, &answer_with(&cli_token(&workspace, HOUR)));
    folder.write_config(&config(&workspace, free_port()));
    let mut command = folder.valetkey(&["serve"]);
    command
        .env(crate::harness::APP_SECRET_VARIABLE, "some-secret")
        .env("DATABRICKS_TOKEN", cli_token(&workspace, HOUR));
    let mut sidecar = Process::start(command);
    let at = sidecar.listening().await;
    get(at.inbound, "/me", &[]).await.expect(401);
    assert_eq!(at.status().await["development"], Value::Null);
    assert!(calls(&folder).is_empty());
    sidecar.stop().await.expect(0);
}

#[tokio::test]
async fn usage_that_contradicts_itself_is_refused() {
    let folder = Folder::new();
    for arguments in [
        &["dev", "--as", ALICE, "--profile", "p", "--", "true"][..],
        &["dev", "--as", ALICE],
        &["dev"],
    ] {
        folder.run(arguments).await.expect(64);
    }
}

//! What every test here needs: a folder, a workspace, a configuration, the binary, and waiting with an end.
//!
//! `harness/process.rs` is the child process, `harness/web.rs` the HTTP client.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use valetkey::embedded::workspace::{Workspace, WorkspaceOptions};
use valetkey::embedded::world::{EXPERIMENT, WAREHOUSE};

use self::process::{Ended, Process};

pub mod process;
pub mod web;

/// Nothing that is waited for may take longer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at what sends no event.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub const ALICE: &str = "alice@example.com";
pub const BOB: &str = "bob@example.com";
pub const USER_SCOPES: &str = "sql iam.current-user:read";
/// The local client of agents beside `serve`.
pub const LOCAL_ID: &str = "agent-beside-serve";
pub const LOCAL_SECRET: &str = "local-secret-of-the-agent-0123456789";
/// Where the sidecar's own secret is in these tests.
pub const APP_SECRET_VARIABLE: &str = "MY_APP_SECRET";
/// Where children look for programs.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// A call of a user, and one of the app.
pub const ME: &str = "/api/2.0/preview/scim/v2/Me";

pub fn experiment() -> String {
    format!("/api/2.0/mlflow/experiments/get?experiment_id={EXPERIMENT}")
}

/// Looks until there is something, but not forever.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    within(what, looking).await
}

/// Waits for something, but not forever.
pub async fn within<T>(what: &str, something: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, something).await {
        Ok(found) => found,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// A folder of the test's own: working directory, home and scratch place of every child.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// JSON is YAML too.
    pub fn write_config(&self, config: &Value) -> PathBuf {
        self.write("valetkey.yaml", &format!("{config:#}"))
    }

    /// The binary with these arguments, and with no variable but what any process has.
    pub fn valetkey(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_valetkey"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.path())
            .env("TMPDIR", self.path())
            .env("LANG", "C.UTF-8");
        command
    }

    /// Runs the binary to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        Process::start(self.valetkey(arguments)).end().await
    }

    /// The records of the log that [`config`] names, and of which a test may expect what it wants.
    pub fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.file("audit.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What happened, without the signatures over it.
    pub fn events(&self) -> Vec<String> {
        self.records()
            .iter()
            .map(|record| record["event"].as_str().unwrap().to_owned())
            .filter(|event| event != "checkpoint")
            .collect()
    }
}

pub async fn workspace() -> Workspace {
    Workspace::start(WorkspaceOptions::default()).await.unwrap()
}

/// A user's token as the front door would forward it.
pub fn token(workspace: &Workspace, user: &str) -> String {
    let hour = Duration::from_secs(3600);
    workspace.user_token(user, USER_SCOPES, hour).unwrap()
}

/// A configuration that a test changes as it likes; every listener takes a free port.
pub fn config(workspace: &Workspace, agent_port: u16) -> Value {
    json!({
        "workspace": {"host": workspace.url(), "id": workspace.workspace_id()},
        "inbound": {"listen": "127.0.0.1:0", "agent": format!("http://127.0.0.1:{agent_port}")},
        "outbound": {"listen": "127.0.0.1:0"},
        "admin": {"listen": "127.0.0.1:0"},
        "app": {
            "client_id": workspace.app().client_id,
            "client_secret": {"env": APP_SECRET_VARIABLE},
        },
        "users": {"scopes": ["sql", "iam.current-user:read"]},
        "routes": [
            {"name": "who-am-i", "operation": "identity.me", "as": "caller"},
            {"name": "user-sql", "resource": format!("sql_warehouse/{WAREHOUSE}"), "as": "user"},
            {"name": "traces", "operation": "mlflow.*", "as": "app"},
        ],
        "audit": {"file": "audit.jsonl"},
    })
}

/// What `serve` tells of itself in its environment and its configuration file.
pub fn serve(folder: &Folder, workspace: &Workspace, config: &Value) -> Process {
    folder.write_config(config);
    let mut command = folder.valetkey(&["serve"]);
    command
        .env(APP_SECRET_VARIABLE, workspace.app().client_secret.expose())
        .env("AGENT_CLIENT_SECRET", LOCAL_SECRET);
    // A dead proxy in every test here: credentials go where the configuration says and nowhere else (SECURITY R25).
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env(name, "http://127.0.0.1:9");
    }
    Process::start(command)
}

/// Adds the pair of an agent that somebody else starts.
pub fn local_client(config: &mut Value) {
    config["outbound"]["local_client"] =
        json!({"id": LOCAL_ID, "secret": {"env": "AGENT_CLIENT_SECRET"}});
}

/// The same for commands that talk to no workspace.
pub fn config_without_workspace() -> Value {
    json!({
        "workspace": {"host": "http://127.0.0.1:1", "id": "12"},
        "inbound": {"listen": "127.0.0.1:0", "agent": "http://127.0.0.1:1"},
        "outbound": {"listen": "127.0.0.1:0"},
        "admin": {"listen": "127.0.0.1:0"},
        "audit": {"file": "audit.jsonl"},
    })
}

/// A socket that holds a free port, for an agent that will take it or for a conflict.
pub fn held_port() -> (TcpListener, u16) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A port that was free a moment ago, and that nobody gets who lets the system choose: it is below the range the system chooses
/// from (`ip_local_port_range`), so that no connection of another test takes it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id() % 200 * 100;
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + (begin + step) % 20_000).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Held by tests that want, or may take, the ports that a sidecar has when nobody says otherwise.
pub static USUAL_PORTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub fn on_loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub fn is_alive(pid: Pid) -> bool {
    // A zombie is gone for all but its parent.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

//! What every place needs: its files, a workspace, a child process with an end, an HTTP client, and waiting with an end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use valetkey::embedded::workspace::{Workspace, WorkspaceOptions};

/// Imports of a Python agent, and a virtual environment made, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Drain (15 s) and some air.
const END_TIME_MAX: Duration = Duration::from_secs(30);
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

pub const ALICE: &str = "alice@example.com";
pub const BOB: &str = "bob@example.com";

/// A file of `deploy/`, as text.
pub fn text_of(name: &str) -> String {
    let path = deploy().join(name);
    fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

/// All documents of a YAML text.
pub fn yaml(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

pub fn deploy() -> PathBuf {
    root().join("deploy")
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder `target`.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Set by `.ci/run` once it has made sure that everything is here: then nothing may be left out.
const COMPLETE_VARIABLE: &str = "VALETKEY_DEPLOY_COMPLETE";

/// What `.ci/run` provides is left out.
pub fn skipped(what: &str) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test driver is configured by its environment"
    )]
    let complete = std::env::var(COMPLETE_VARIABLE).is_ok();
    assert!(!complete, "{COMPLETE_VARIABLE} is set, but: {what}");
    say_skipped(what);
}

/// Says aloud, past the test harness that swallows what passing tests print, that something was left out.
pub fn say_skipped(what: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(
        std::io::stderr(),
        "deploy: SKIPPED, NOT TESTED HERE: {what}"
    );
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
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(found) => found,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// A folder of the test's own.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Copies a folder of `deploy/`, without what does not belong to it.
    pub fn copy(&self, place: &str) -> PathBuf {
        let (from, to) = (deploy().join(place), self.file(place));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        to
    }

    /// A program here, with no variable but what any process has.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.path())
            .env("LANG", "C.UTF-8")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub fn valetkey(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_valetkey"));
        command.args(arguments);
        command
    }
}

/// Runs a command to its end; `None` where there is no such program.
pub async fn output_of(mut command: Command) -> Option<Output> {
    command.kill_on_drop(true);
    match tokio::time::timeout(PATIENCE * 4, command.output()).await {
        Ok(Ok(output)) => Some(output),
        Ok(Err(fault)) if fault.kind() == ErrorKind::NotFound => None,
        Ok(Err(fault)) => panic!("{command:?}: {fault}"),
        Err(_) => panic!("takes too long: {command:?}"),
    }
}

/// What a command prints, which must be there and end well.
#[track_caller]
pub fn good(output: Option<Output>) -> String {
    let output = output.expect("the program is there");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out
}

/// A child process with its output in a file.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        Self { child, log }
    }

    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for something; an early end of the process is a fault.
    pub async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&str) -> Option<T>,
    ) -> T {
        until(what, async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended ({status}) before: {what}\n{}", self.output());
            }
            look(&self.output()).await
        })
        .await
    }

    /// Where a sidecar listens, by its log: inbound, outbound, admin.
    pub async fn listening(&mut self) -> [SocketAddr; 3] {
        self.until("the sidecar serves", async |log| {
            let lines = log.lines().filter_map(|l| serde_json::from_str(l).ok());
            let line = { lines }.find(|line: &Value| line["message"] == "serving")?;
            let at = |name: &str| line[name].as_str().unwrap().parse().unwrap();
            Some([at("inbound"), at("outbound"), at("admin")])
        })
        .await
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&mut self, admin: SocketAddr) {
        self.until("the sidecar is ready", async |_| {
            (get(admin, "/readyz", &[]).await.0 == 200).then_some(())
        })
        .await;
    }

    /// Asks for its end and waits for it.
    pub async fn stop(mut self) -> (Option<i32>, String) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        let ended = tokio::time::timeout(END_TIME_MAX, self.child.wait()).await;
        let status = ended.expect("it ends when asked").unwrap();
        (status.code(), self.output())
    }
}

/// One request on a connection of its own; status 0 where nobody answers.
pub async fn send(
    at: SocketAddr,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let uri = format!("http://{at}{target}");
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.to_owned().into())).unwrap();
    let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, client.request(request)).await else {
        return (0, String::new());
    };
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub async fn get(at: SocketAddr, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
    send(at, Method::GET, target, headers, "").await
}

pub async fn workspace() -> Workspace {
    let options = WorkspaceOptions {
        scratch: env!("CARGO_TARGET_TMPDIR").into(),
        ..WorkspaceOptions::default()
    };
    Workspace::start(options).await.unwrap()
}

/// A user's token as the front door would forward it.
pub fn token(workspace: &Workspace, user: &str, scopes: &str) -> String {
    let hour = Duration::from_secs(3600);
    workspace.user_token(user, scopes, hour).unwrap()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

pub fn on_loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

//! The real binary as a child process: `valetkey run --config … -- python agent.py`, started, watched, ended.
//!
//! Its environment is made up from nothing, its output goes to files. Where this test runs with the right to look into
//! any process (root), all such rights are taken from the sidecar and so from its agent, as on the platform: otherwise no
//! process could be closed to the agent.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::python::suite_folder;
use crate::site::Site;

/// Imports of the agent's clients on a busy machine included.
const READY_TIME_MAX: Duration = Duration::from_secs(120);
const POLL_TIME: Duration = Duration::from_millis(100);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
const OK: &[u8] = b"HTTP/1.1 200";
/// The agent's own first word.
pub const LISTENS: &str = "agent: agent: listening on port";
/// Drain (15 s) and some air.
const END_TIME_MAX: Duration = Duration::from_secs(30);
/// Another process may take a free port before the sidecar does.
const STARTS_MAX: usize = 3;
/// CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_PERFMON as bits of `CapEff`: each opens some of another process's `/proc`.
const MAY_TRACE_BITS: u64 = 1 << 19 | 1 << 21 | 1 << 38;
/// Credentials of other kinds in the sidecar's environment, none of which the agent may get.
const DECOYS: [(&str, &str); 4] = [
    ("DATABRICKS_TOKEN", "dapi0decoy0token0e2e"),
    ("DATABRICKS_PASSWORD", "decoy-password-e2e"),
    ("DATABRICKS_CONFIG_PROFILE", "decoy-profile-e2e"),
    ("ARM_CLIENT_SECRET", "decoy-arm-secret-e2e"),
];

/// A running sidecar with its agent.
pub struct Sidecar {
    child: Child,
    pub inbound: String,
    pub admin: String,
    pub pid: u32,
    pub agent_may_trace: bool,
    /// By which its configuration is filled in.
    pub variables: Vec<(String, String)>,
    /// Holds output and audit log.
    folder: PathBuf,
}

struct Ports {
    inbound: u16,
    agent: u16,
    outbound: u16,
    admin: u16,
}

impl Sidecar {
    /// Starts it and waits until it says that it is ready.
    pub async fn start(site: &Site, python: &Path, folder: &Path) -> Self {
        for _ in 0..STARTS_MAX {
            let mut sidecar = Self::launch(site, python, folder);
            match sidecar.ready().await {
                Ok(()) => return sidecar,
                Err(why) if why.contains("in use") => {}
                Err(why) => panic!("{why}\n{}", sidecar.output()),
            }
        }
        panic!("no free ports for the sidecar in {STARTS_MAX} attempts");
    }

    /// Asks it to end, and tells how it did.
    pub async fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        match tokio::time::timeout(END_TIME_MAX, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!(
                "still there {END_TIME_MAX:?} after SIGTERM\n{}",
                self.output()
            ),
        }
    }

    /// What sidecar and agent printed so far.
    pub fn output(&self) -> String {
        let read = |name| fs::read(self.folder.join(name)).unwrap_or_default();
        let both = [read("stdout.log"), read("stderr.log")].concat();
        String::from_utf8_lossy(&both).into_owned()
    }

    /// A page of the admin listener.
    pub async fn admin_page(&self, path: &str) -> String {
        let asked = tokio::time::timeout(ANSWER_TIME_MAX, page(self.admin_address(), path)).await;
        let answer = asked.expect("the admin listener answers").unwrap();
        assert!(answer.starts_with(OK), "{path}");
        String::from_utf8(answer).unwrap()
    }

    /// The values of the decoys.
    pub fn decoys() -> [&'static str; 4] {
        DECOYS.map(|(_, value)| value)
    }

    pub fn config_file() -> PathBuf {
        suite_folder().join("valetkey.yaml")
    }

    fn launch(site: &Site, python: &Path, folder: &Path) -> Self {
        let ports = Ports::free();
        let variables = variables(site, &ports, folder);
        let may_trace = may_trace();
        let closing = may_trace.then(setpriv).flatten();
        let mut command = match &closing {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]);
                command.arg(env!("CARGO_BIN_EXE_valetkey"));
                command
            }
            None => Command::new(env!("CARGO_BIN_EXE_valetkey")),
        };
        command
            .args(["run", "--config"])
            .arg(Self::config_file())
            .arg("--")
            .arg(python)
            .arg(suite_folder().join("agent.py"))
            .current_dir(folder)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", folder)
            .env("LANG", "C.UTF-8")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .env("DATABRICKS_CLIENT_ID", &site.client_id)
            .env("DATABRICKS_CLIENT_SECRET", &site.client_secret)
            .envs(DECOYS)
            .envs(variables.clone())
            .stdin(Stdio::null())
            .stdout(File::create(folder.join("stdout.log")).unwrap())
            .stderr(File::create(folder.join("stderr.log")).unwrap())
            .kill_on_drop(true);
        let child = command.spawn().unwrap();
        Self {
            pid: child.id().unwrap(),
            child,
            inbound: format!("http://127.0.0.1:{}", ports.inbound),
            admin: format!("http://127.0.0.1:{}", ports.admin),
            agent_may_trace: may_trace && closing.is_none(),
            variables,
            folder: folder.to_owned(),
        }
    }

    fn admin_address(&self) -> SocketAddr {
        self.admin.trim_start_matches("http://").parse().unwrap()
    }

    async fn ready(&mut self) -> Result<(), String> {
        let admin = self.admin_address();
        let mut ticks = tokio::time::interval(POLL_TIME);
        let polled = async {
            loop {
                ticks.tick().await;
                if let Some(status) = self.child.try_wait().unwrap() {
                    return Err(format!("the sidecar ended: {status}: {}", self.output()));
                }
                let asked = tokio::time::timeout(ANSWER_TIME_MAX, page(admin, "/readyz")).await;
                // Its word alone would do, but for a stranger who held the agent's port for the moment of the probe.
                if let Ok(Ok(answer)) = asked
                    && answer.starts_with(OK)
                    && self.output().contains(LISTENS)
                {
                    return Ok(());
                }
            }
        };
        match tokio::time::timeout(READY_TIME_MAX, polled).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("not ready within {READY_TIME_MAX:?}")),
        }
    }
}

impl Ports {
    /// Four ports that were free a moment ago.
    fn free() -> Self {
        let taken: Vec<_> = (0..4)
            .map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .collect();
        let port = |n: usize| taken[n].local_addr().unwrap().port();
        Self {
            inbound: port(0),
            agent: port(1),
            outbound: port(2),
            admin: port(3),
        }
    }
}

/// Head and body of a page of the admin listener.
async fn page(admin: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(admin).await?;
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// What `valetkey.yaml` asks for.
fn variables(site: &Site, ports: &Ports, folder: &Path) -> Vec<(String, String)> {
    let mut all = site.variables();
    for (name, port) in [
        ("E2E_INBOUND", ports.inbound),
        ("E2E_AGENT", ports.agent),
        ("E2E_OUTBOUND", ports.outbound),
        ("E2E_ADMIN", ports.admin),
    ] {
        all.push((name.to_owned(), format!("127.0.0.1:{port}")));
    }
    all.push(("E2E_FOLDER".to_owned(), folder.to_str().unwrap().to_owned()));
    all
}

/// Whether this process, and so its children, may look into any other.
fn may_trace() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(held.unwrap().trim(), 16).unwrap() & MAY_TRACE_BITS != 0
}

/// Of util-linux; takes rights away before it becomes the program named.
fn setpriv() -> Option<PathBuf> {
    ["/usr/bin/setpriv", "/bin/setpriv"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

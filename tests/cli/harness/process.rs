//! A child process: its output in files, so that nothing can block on it, and an end in every case.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::web::{Answer, get};
use super::{until, within};

/// How long a process that a failed test left behind may take to end.
const LAST_TIME: Duration = Duration::from_secs(3);

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// 128 + the signal if one killed it.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Standard output of a command that was to succeed.
    #[track_caller]
    pub fn good(self) -> String {
        self.expect(0).out
    }

    #[track_caller]
    pub fn says(&self, words: &[&str]) {
        for word in words {
            assert!(
                self.out.contains(word) || self.err.contains(word),
                "`{word}` is missing in {self:?}"
            );
        }
    }

    #[track_caller]
    pub fn keeps_to_itself(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(
                !self.out.contains(secret) && !self.err.contains(secret),
                "{self:?}"
            );
        }
    }
}

/// A running child.
pub struct Process {
    child: Child,
    pub pid: Pid,
    ended: bool,
    output: TempDir,
}

/// Where a sidecar listens.
#[derive(Clone, Copy)]
pub struct Listening {
    pub inbound: SocketAddr,
    pub outbound: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    /// Without an input of its own.
    pub fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    pub fn start_with(mut command: Command, input: Stdio) -> Self {
        let output = tempfile::tempdir().unwrap();
        let file = |name| File::create(output.path().join(name)).unwrap();
        command
            .stdin(input)
            .stdout(file("out"))
            .stderr(file("err"))
            .kill_on_drop(true);
        let child = command.spawn().unwrap();
        Self {
            pid: Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()),
            child,
            ended: false,
            output,
        }
    }

    pub fn out(&self) -> String {
        self.read("out")
    }

    pub fn err(&self) -> String {
        self.read("err")
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Ended {
        let status = within("the process ends", self.child.wait()).await.unwrap();
        self.ended = true;
        Ended {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap()),
            out: self.out(),
            err: self.err(),
        }
    }

    /// Asks for its end and waits for it.
    pub async fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.end().await
    }

    /// What it says in its log about where it listens.
    pub async fn listening(&mut self) -> Listening {
        let line = self.logged("serving").await;
        let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
        Listening {
            inbound: address("inbound"),
            outbound: address("outbound"),
            admin: address("admin"),
        }
    }

    /// The first log line with this message.
    pub async fn logged(&mut self, message: &str) -> Value {
        until(&format!("the log says `{message}`"), async || {
            let log = self.err();
            let lines = log.lines().filter_map(|l| serde_json::from_str(l).ok());
            let found = lines
                .into_iter()
                .find(|line: &Value| line["message"] == message);
            if found.is_none()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                panic!("it ended ({status}) before it said `{message}`:\n{log}");
            }
            found
        })
        .await
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.output.path().join(name)).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

impl Drop for Process {
    /// Only a failed test gets here with a process that runs. Asked twice, `run` ends its agent too.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let since = Instant::now();
        while since.elapsed() < LAST_TIME && matches!(self.child.try_wait(), Ok(None)) {
            // It may end at any moment; then there is nobody to be signalled.
            let _ = kill(self.pid, Signal::SIGTERM);
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

impl Listening {
    pub async fn admin_page(&self, path: &str) -> Answer {
        get(self.admin, path, &[]).await
    }

    pub async fn status(&self) -> Value {
        self.admin_page("/status").await.json()
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&self) {
        until("the sidecar is ready", async || {
            (self.admin_page("/readyz").await.status == 200).then_some(())
        })
        .await;
    }

    /// The value of a metric by its whole name; 0 when nothing has been counted yet.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.admin_page("/metrics").await.body;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

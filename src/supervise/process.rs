//! One child process: started, signalled, waited for and, whatever happens to us, ended with its descendants.
//!
//! Must not know sockets, drains or what the child is for. Read `supervise.rs` next for when each of these is called.
//!
//! **Groups.** The child leads a process group of its own, so that its descendants can be signalled and killed together.
//! Not so when our standard input is a terminal: a background group that reads from the terminal is stopped by it, and
//! handing the terminal over would break Ctrl-Z. There the child shares our group, the terminal itself delivers Ctrl-C
//! and Ctrl-\ to both (so we do not pass them on: a second SIGINT means "at once" to many servers), and at the end only
//! the child itself can be killed for certain.
//!
//! **If we are killed by SIGKILL** nothing of ours runs any more and the child lives on without a sidecar. The kernel's
//! parent-death signal has to be requested between fork and exec, which needs `unsafe`. Containers and systemd end
//! everything in the group themselves; for every other end the destructor of [`Child`] kills the group.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::supervise::environment::ChildEnvironment;

/// Proof that other processes of our user cannot read our memory or environment: a child is started with it only.
#[derive(Debug)]
pub struct Undumpable(());

/// Denies our memory and `/proc` files to other processes of the same user, and turns core files off.
///
/// The soft limit on core files is inherited by the child; it may raise it again. What launched us may hold the same
/// secret in an environment of its own, out of our reach.
///
/// # Errors
/// When the system refuses; the child must not be started then.
pub fn make_undumpable() -> Result<Undumpable, UndumpableError> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false).map_err(UndumpableError)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(UndumpableError)?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard).map_err(UndumpableError)?;
    Ok(Undumpable(()))
}

/// The process could not be protected.
#[derive(Debug, thiserror::Error)]
#[error(
    "the system does not let the sidecar hide its memory from other processes of the same user: {0}"
)]
pub struct UndumpableError(Errno);

/// Why a command did not start. Only its first word is named: arguments may be private.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no command.
    #[error("no command to run; put it after `--`: valetkey run -- CMD [ARG…]")]
    NoCommand,
    /// The file is nowhere on `PATH`, or the interpreter that it names is missing.
    #[error(
        "command `{0}` was not found; check its spelling, `PATH` and, for a script, its first line"
    )]
    NotFound(String),
    /// The file is there but cannot be executed.
    #[error("command `{command}` cannot be executed; check its permissions and format")]
    NotExecutable {
        /// The first word of the command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system could not make a process.
    #[error("no process could be started for command `{command}`")]
    System {
        /// The first word of the command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
}

impl SpawnError {
    /// The exit code that shells use for the same failure, and `sysexits`' where they have none.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoCommand => 64,
            Self::NotFound(_) => 127,
            Self::NotExecutable { .. } => 126,
            Self::System { .. } => 70,
        }
    }
}

/// Which process group the child belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// One of its own.
    Own,
    /// Ours, because a terminal delivers signals to it.
    Shared,
}

impl Grouping {
    /// The one that fits our standard input.
    pub fn for_stdin() -> Self {
        use io::IsTerminal as _;
        if io::stdin().is_terminal() {
            Self::Shared
        } else {
            Self::Own
        }
    }
}

/// A running child. Dropping it kills the child and its group.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
    pid: Pid,
    grouping: Grouping,
    /// Nobody is left to be signalled, or will be in a moment; the number may soon belong to somebody else.
    over: bool,
}

impl Child {
    /// Starts `command` with exactly this environment; input, output and working directory are ours.
    ///
    /// # Errors
    /// When there is no such command or the system cannot start it.
    pub fn spawn(
        command: &[OsString],
        environment: &ChildEnvironment,
        grouping: Grouping,
        _proof: &Undumpable,
    ) -> Result<Self, SpawnError> {
        Self::start(prepare(command, environment)?, grouping)
    }

    fn start(mut command: Command, grouping: Grouping) -> Result<Self, SpawnError> {
        if grouping == Grouping::Own {
            command.process_group(0);
        }
        let name = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        let inner = match command.kill_on_drop(true).spawn() {
            Ok(inner) => inner,
            Err(source) => return Err(spawn_error(name, source)),
        };
        let pid = inner.id().and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid.map(Pid::from_raw) else {
            let source = io::Error::other("the new process has no id");
            return Err(spawn_error(name, source));
        };
        Ok(Self {
            inner,
            pid,
            grouping,
            over: false,
        })
    }

    /// The child's process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the end and gives the exit code: the child's own, or 128 + the signal that killed it.
    ///
    /// Cancel-safe; after the end it returns at once.
    ///
    /// # Errors
    /// When the system lost the child, as when somebody else reaped it.
    pub async fn wait(&mut self) -> io::Result<u8> {
        self.inner.wait().await.map(exit_code)
    }

    /// Passes a signal on to the child and its group. One that has no receiver any more is no error.
    pub fn signal(&mut self, signal: Signal) {
        let is_reaped = self.inner.id().is_none();
        let by_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
        let outcome = match self.grouping {
            _ if self.over => return,
            Grouping::Own => killpg(self.pid, signal),
            Grouping::Shared if by_terminal || is_reaped => return,
            Grouping::Shared => kill(self.pid, signal),
        };
        match outcome {
            Ok(()) => {}
            Err(Errno::ESRCH) => self.over |= is_reaped,
            Err(error) => tracing::warn!(%signal, %error, "the agent could not be signalled"),
        }
    }

    /// Ends the child and its group at once.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.over = true;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn prepare(command: &[OsString], environment: &ChildEnvironment) -> Result<Command, SpawnError> {
    let (program, arguments) = command.split_first().ok_or(SpawnError::NoCommand)?;
    let mut prepared = Command::new(program);
    prepared
        .args(arguments)
        .env_clear()
        .envs(environment.variables());
    Ok(prepared)
}

/// Sorts the system's answer.
pub fn spawn_error(command: String, source: io::Error) -> SpawnError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => SpawnError::NotFound(command),
        Some(
            Errno::EACCES
            | Errno::EPERM
            | Errno::ENOEXEC
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::ELOOP
            | Errno::ETXTBSY,
        ) => SpawnError::NotExecutable { command, source },
        _ => SpawnError::System { command, source },
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let by_signal = || status.signal().map(|signal| 128 + signal);
    let code = status.code().or_else(by_signal);
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

#[cfg(test)]
pub(super) mod tests;

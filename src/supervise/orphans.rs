//! Reaps processes that nobody else will: as process 1 of a container every orphan becomes our child.
//!
//! Must not reap the agent itself, whose exit code tokio collects: it looks at who has ended before it takes anybody
//! away. Read `supervise.rs` next.

use std::io;

use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How many orphans one pass takes away at most; the next SIGCHLD begins the next pass.
#[cfg(target_os = "linux")]
const ORPHANS_PER_PASS_MAX: usize = 4096;

/// Reaps orphans whenever a process ends.
#[derive(Debug)]
pub struct OrphanReaper {
    ended: Signal,
}

impl OrphanReaper {
    /// A reaper if orphans come to us at all: as process 1, or as the reaper of a subtree.
    ///
    /// # Errors
    /// When the signal handler cannot be installed.
    pub fn if_needed() -> io::Result<Option<Self>> {
        inherits_orphans().then(Self::new).transpose()
    }

    /// A reaper that works whether orphans come to us or not.
    ///
    /// # Errors
    /// When the signal handler cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            ended: signal(SignalKind::child())?,
        })
    }

    /// Reaps until dropped, leaving `agent` alone.
    pub async fn run(mut self, agent: Pid) {
        loop {
            reap_others(agent);
            if self.ended.recv().await.is_none() {
                return;
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn inherits_orphans() -> bool {
    Pid::this().as_raw() == 1 || nix::sys::prctl::get_child_subreaper().unwrap_or(false)
}

#[cfg(not(target_os = "linux"))]
fn inherits_orphans() -> bool {
    false
}

/// Takes away ended children other than `agent` and says how many.
///
/// The peek always shows the same first one, so a pass stops at the agent; tokio takes it within the same moment and we
/// end soon after it.
#[cfg(target_os = "linux")]
fn reap_others(agent: Pid) -> usize {
    use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
    let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let mut reaped = 0;
    while reaped < ORPHANS_PER_PASS_MAX {
        let ended = waitid(Id::All, peek).ok().and_then(|status| status.pid());
        let Some(pid) = ended.filter(|pid| *pid != agent) else {
            break;
        };
        if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            break;
        }
        reaped += 1;
    }
    reaped
}

#[cfg(not(target_os = "linux"))]
fn reap_others(_agent: Pid) -> usize {
    0
}

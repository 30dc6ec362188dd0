//! Process 1 reaps orphans and leaves the agent's exit code to whoever waits for it.
//!
//! Alone in its file: the reaper looks at every child of the process, so no other test may have children here.

#![cfg(target_os = "linux")]

use std::process::Command;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use valetkey::supervise::orphans::OrphanReaper;

#[tokio::test]
#[expect(clippy::zombie_processes, reason = "the reaper is to wait for it")]
async fn an_orphan_is_reaped_and_the_agents_exit_code_is_not_stolen() {
    let orphan = Command::new("true").spawn().unwrap();
    let orphan = Pid::from_raw(orphan.id().try_into().unwrap());
    let mut agent = tokio::process::Command::new("sh")
        .args(["-c", "exit 7"])
        .spawn()
        .unwrap();
    let agent_pid = Pid::from_raw(agent.id().unwrap().try_into().unwrap());
    // Returns when the process has ended, and leaves it to be reaped.
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(orphan), ended).unwrap();
    waitid(Id::Pid(agent_pid), ended).unwrap();

    let reaper = OrphanReaper::new().unwrap();
    tokio::select! {
        biased;
        () = reaper.run(agent_pid) => unreachable!("it runs until dropped"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(waitid(Id::Pid(orphan), ended), Err(Errno::ECHILD));
    assert_eq!(agent.wait().await.unwrap().code(), Some(7));
}

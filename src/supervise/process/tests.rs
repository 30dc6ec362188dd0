//! Real children: how they start, fail, end and are ended.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::ChildStdout;
use tokio::time::timeout;

use super::*;
use crate::supervise::environment::{Variables, child_environment, tests::wiring};

/// A test that would wait for ever fails instead.
const OUTPUT_WAIT_MAX: Duration = Duration::from_secs(20);

/// A script whose output the test reads; the end of the output proves that nobody who inherited it is left.
pub(in crate::supervise) fn scripted(
    script: &str,
    grouping: Grouping,
) -> (Child, BufReader<ChildStdout>) {
    // A shell cannot trap what was ignored when it started, and a test run under `nohup` or in the background inherits that.
    // In the product the signals are listened to before the agent starts, which has the same effect.
    let clean = ["env", "--default-signal", "sh", "-c", script];
    let mut command = prepare(&words(&clean), &environment()).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Child::start(command, grouping).unwrap();
    let output = child.inner.stdout.take().unwrap();
    (child, BufReader::new(output))
}

/// The next line of the output, without its end.
pub(in crate::supervise) async fn line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    let reading = output.read_line(&mut line);
    timeout(OUTPUT_WAIT_MAX, reading).await.unwrap().unwrap();
    line.trim_end().to_owned()
}

/// Waits until nobody holds the output any more and gives what was left in it.
pub(in crate::supervise) async fn rest(output: &mut BufReader<ChildStdout>) -> String {
    let mut text = String::new();
    let reading = output.read_to_string(&mut text);
    timeout(OUTPUT_WAIT_MAX, reading).await.unwrap().unwrap();
    text
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn environment() -> ChildEnvironment {
    let own = Variables::from([("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())]);
    child_environment(&own, &wiring())
}

fn refused(command: &[&str]) -> SpawnError {
    let proof = make_undumpable().unwrap();
    Child::spawn(&words(command), &environment(), Grouping::Own, &proof).unwrap_err()
}

#[tokio::test]
async fn the_exit_code_is_the_childs_own_or_128_and_the_signal() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ] {
        let proof = make_undumpable().unwrap();
        let command = words(&["sh", "-c", script]);
        let mut child = Child::spawn(&command, &environment(), Grouping::Own, &proof).unwrap();
        assert_eq!(child.wait().await.unwrap(), code, "{script}");
        assert_eq!(child.wait().await.unwrap(), code, "asked again: {script}");
    }
}

#[tokio::test]
async fn a_missing_command_is_127_and_only_its_name_is_told() {
    let error = refused(&["no-such-command-here", "private-argument"]);
    assert_eq!(error.exit_code(), 127);
    assert!(error.to_string().contains("`no-such-command-here`"));
    assert!(!format!("{error} {error:?}").contains("private-argument"));
}

#[tokio::test]
async fn what_cannot_be_executed_is_126() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), std::env::temp_dir().as_path()] {
        let error = refused(&[path.to_str().unwrap()]);
        assert_eq!(error.exit_code(), 126, "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }
}

#[tokio::test]
async fn no_command_is_bad_usage() {
    assert_eq!(refused(&[]).exit_code(), 64);
}

#[tokio::test]
async fn the_child_sees_exactly_the_derived_environment() {
    let mut command = prepare(&words(&["env", "-0"]), &environment()).unwrap();
    command.stdout(Stdio::piped());
    let mut child = Child::start(command, Grouping::Own).unwrap();
    let mut output = BufReader::new(child.inner.stdout.take().unwrap());
    let shown = rest(&mut output).await;
    let seen: Variables = shown
        .split_terminator('\0')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    assert_eq!(&seen, environment().variables());
}

#[tokio::test]
async fn the_child_leads_its_own_group_unless_a_terminal_is_shared() {
    let hold = "echo ready; read line";
    let (own, mut own_output) = scripted(hold, Grouping::Own);
    line(&mut own_output).await;
    assert_eq!(group_of(&own), own.pid());
    let (shared, mut shared_output) = scripted(hold, Grouping::Shared);
    line(&mut shared_output).await;
    assert_eq!(group_of(&shared), nix::unistd::getpgrp());
}

fn group_of(child: &Child) -> Pid {
    // Field 5 of `stat`; the name in field 2 is in parentheses and may hold spaces.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let group = after_name.split(' ').nth(2).unwrap();
    Pid::from_raw(group.parse().unwrap())
}

#[tokio::test]
async fn dropping_the_child_kills_its_descendants_too() {
    let (child, mut output) = scripted(
        "sh -c 'trap \"\" TERM; echo ready; sleep 600' & sleep 600",
        Grouping::Own,
    );
    assert_eq!(line(&mut output).await, "ready");
    drop(child);
    assert_eq!(rest(&mut output).await, "");
}

#[tokio::test]
async fn in_a_shared_group_the_terminals_own_signals_are_not_doubled() {
    // `cat` ends with our side of its input; nobody can kill it with a group.
    let script = "trap 'echo doubled' INT QUIT; trap 'echo term; exit 7' TERM; exec 3<&0
                  cat <&3 > /dev/null & echo ready; wait; wait; wait";
    let (mut child, mut output) = scripted(script, Grouping::Shared);
    assert_eq!(line(&mut output).await, "ready");
    child.signal(Signal::SIGINT);
    child.signal(Signal::SIGQUIT);
    child.signal(Signal::SIGTERM);
    assert_eq!(rest(&mut output).await, "term\n");
    assert_eq!(child.wait().await.unwrap(), 7);
    child.signal(Signal::SIGTERM);
    child.kill();
}

#[tokio::test]
async fn an_ended_group_is_left_alone() {
    let (mut child, mut output) = scripted("exit 0", Grouping::Own);
    rest(&mut output).await;
    child.wait().await.unwrap();
    assert!(!child.over);
    child.signal(Signal::SIGTERM);
    assert!(child.over, "nobody was there to receive it");
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_hides_its_memory_and_leaves_no_core_file() {
    use nix::sys::resource::{Resource, getrlimit};
    make_undumpable().unwrap();
    assert!(!nix::sys::prctl::get_dumpable().unwrap());
    assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap().0, 0);
}

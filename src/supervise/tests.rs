//! Whole lives of an agent: its end, ours, and who waits for whom.

use std::future::{pending, ready};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::process::Grouping;
use super::process::tests::{line, rest, scripted};
use super::*;

/// Long enough never to be reached by a test that works.
const UNREACHED: Duration = Duration::from_secs(120);
/// Answers TERM and INT with exit 7 and tells of USR1 and QUIT.
const POLITE: &str =
    "trap 'exit 7' TERM INT; trap 'echo usr1' USR1; trap 'echo quit' QUIT; echo ready
                      while :; do sleep 600 & wait; done";
/// Answers nothing, nor does what it starts.
const STUBBORN: &str = "trap '' TERM INT; echo ready; sleep 600; sleep 600";

struct Life {
    signals: mpsc::Sender<Signal>,
    stopping: CancellationToken,
    agent_gone: CancellationToken,
    code: JoinHandle<u8>,
}

fn supervised<F>(child: Child, drained: F, time: Duration) -> Life
where
    F: Future<Output = ()> + Send + 'static,
{
    let (signals, receiver) = mpsc::channel(4);
    let drain = Drain {
        time,
        reserve: Duration::from_millis(50).min(time),
        ..Drain::new(drained)
    };
    Life {
        signals,
        stopping: drain.stopping.clone(),
        agent_gone: drain.agent_gone.clone(),
        code: tokio::spawn(supervise(child, receiver, drain)),
    }
}

/// A test that would wait for ever fails instead.
async fn ended(code: JoinHandle<u8>) -> u8 {
    timeout(UNREACHED / 4, code).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_end_of_the_agent_is_the_end_and_its_code_is_ours() {
    let (child, _output) = scripted("exit 3", Grouping::Own);
    let life = supervised(child, ready(()), UNREACHED);
    assert_eq!(ended(life.code).await, 3);
    assert!(life.stopping.is_cancelled() && life.agent_gone.is_cancelled());
}

#[tokio::test]
async fn sigterm_and_sigint_reach_the_agent_which_chooses_its_code() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (child, mut output) = scripted(POLITE, Grouping::Own);
        assert_eq!(line(&mut output).await, "ready");
        let life = supervised(child, ready(()), UNREACHED);
        life.signals.send(signal).await.unwrap();
        assert_eq!(ended(life.code).await, 7, "{signal}");
        assert_eq!(rest(&mut output).await, "", "its sleep died with the group");
    }
}

#[tokio::test]
async fn an_agent_without_a_handler_ends_as_killed_by_the_signal() {
    let (child, mut output) = scripted("echo ready; exec sleep 600", Grouping::Own);
    line(&mut output).await;
    let life = supervised(child, ready(()), UNREACHED);
    life.signals.send(Signal::SIGTERM).await.unwrap();
    assert_eq!(ended(life.code).await, 143);
}

#[tokio::test]
async fn other_signals_are_passed_on_and_stop_nothing() {
    let (child, mut output) = scripted(POLITE, Grouping::Own);
    line(&mut output).await;
    let life = supervised(child, ready(()), UNREACHED);
    for (signal, told) in [(Signal::SIGUSR1, "usr1"), (Signal::SIGQUIT, "quit")] {
        life.signals.send(signal).await.unwrap();
        assert_eq!(line(&mut output).await, told);
    }
    assert!(!life.stopping.is_cancelled());
    life.signals.send(Signal::SIGTERM).await.unwrap();
    assert_eq!(ended(life.code).await, 7);
}

#[tokio::test]
async fn a_stubborn_agent_and_its_children_are_killed_at_the_deadline() {
    let (child, mut output) = scripted(STUBBORN, Grouping::Own);
    line(&mut output).await;
    let begun = Instant::now();
    let time = Duration::from_millis(300);
    let life = supervised(child, ready(()), time);
    life.signals.send(Signal::SIGTERM).await.unwrap();
    assert_eq!(ended(life.code).await, 137);
    assert!(begun.elapsed() >= time - Duration::from_millis(50));
    assert_eq!(rest(&mut output).await, "");
}

#[tokio::test]
async fn a_second_signal_ends_the_wait_at_once() {
    let (child, mut output) = scripted(STUBBORN, Grouping::Own);
    line(&mut output).await;
    let begun = Instant::now();
    let life = supervised(child, pending(), UNREACHED);
    life.signals.send(Signal::SIGTERM).await.unwrap();
    life.stopping.cancelled().await;
    assert!(!life.agent_gone.is_cancelled());
    life.signals.send(Signal::SIGINT).await.unwrap();
    assert_eq!(ended(life.code).await, 137);
    assert!(begun.elapsed() < UNREACHED / 2);
    assert_eq!(rest(&mut output).await, "");
}

#[tokio::test]
async fn what_the_agent_leaves_behind_is_killed() {
    let script = "sh -c 'trap \"\" TERM; echo left; sleep 600' & read line < /dev/null; exit 0";
    let (child, mut output) = scripted(script, Grouping::Own);
    assert_eq!(line(&mut output).await, "left");
    let life = supervised(child, ready(()), UNREACHED);
    assert_eq!(ended(life.code).await, 0);
    assert_eq!(rest(&mut output).await, "");
}

#[tokio::test]
async fn outbound_outlives_the_agent_and_the_drain_outlives_both() {
    let (child, mut output) = scripted(
        "trap 'echo finishing; exit 7' TERM; echo ready; sleep 600 & wait",
        Grouping::Own,
    );
    line(&mut output).await;
    let (finish, finished) = oneshot::channel::<()>();
    let drained = async { finished.await.unwrap() };
    let life = supervised(child, drained, UNREACHED);
    life.signals.send(Signal::SIGTERM).await.unwrap();
    life.stopping.cancelled().await;
    assert_eq!(line(&mut output).await, "finishing");
    life.agent_gone.cancelled().await;
    assert!(!life.code.is_finished(), "a call is still running");
    finish.send(()).unwrap();
    assert_eq!(ended(life.code).await, 7);
}

#[tokio::test]
async fn a_drain_that_never_ends_is_given_up_at_the_deadline() {
    let (child, _output) = scripted("exit 4", Grouping::Own);
    let life = supervised(child, pending(), Duration::from_millis(150));
    assert_eq!(ended(life.code).await, 4);
}

#[tokio::test]
async fn the_drain_does_not_begin_before_somebody_asks() {
    let (child, mut output) = scripted(POLITE, Grouping::Own);
    line(&mut output).await;
    let life = supervised(child, ready(()), Duration::from_millis(100));
    life.signals.send(Signal::SIGUSR1).await.unwrap();
    assert_eq!(line(&mut output).await, "usr1");
    assert!(!life.stopping.is_cancelled() && !life.code.is_finished());
    life.code.abort();
    assert!(life.code.await.unwrap_err().is_cancelled());
    assert_eq!(rest(&mut output).await, "", "aborting us ends the agent");
}

#[tokio::test]
async fn real_signals_arrive_and_sighup_is_left_to_the_reload() {
    let mut signals = listen().unwrap();
    nix::sys::signal::raise(Signal::SIGHUP).unwrap();
    nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
    assert_eq!(signals.recv().await, Some(Signal::SIGUSR2));
}

#[test]
fn the_whole_drain_fits_into_what_the_platform_grants() {
    let drain = Drain::new(ready(()));
    assert_eq!(drain.time, Duration::from_secs(15));
    assert!(drain.reserve > Duration::ZERO && drain.reserve < drain.time);
}

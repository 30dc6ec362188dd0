//! Floor 4: lives with one agent: passes signals on, drains within one deadline, and ends when the agent ends.
//!
//! Must not know listeners, policies or tokens: it cancels two tokens and waits for one future. It never starts the
//! agent again; that is the platform's business. Read `supervise/process.rs` next for the child itself,
//! `supervise/environment.rs` for what it is told, and `runtime/agent_gate.rs` for when it counts as ready.
//!
//! The order of an end: `stopping` (no new people), the signal to the agent, its own end, `agent_gone` (nobody is left
//! to call outbound; until then the agent's last calls need it), drained, the rest of the group killed.
//! Under systemd use `KillMode=mixed`, or the agent gets SIGTERM twice.

pub mod confine;
pub mod confinement;
pub mod environment;
mod leaks;
pub mod orphans;
pub mod process;
pub mod trust;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::supervise::orphans::OrphanReaper;
use crate::supervise::process::Child;

/// The platform kills everything so long after SIGTERM.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(15);
/// What of it is kept back for the time after the drain: the last audit records, and our own exit.
pub const DRAIN_RESERVE: Duration = Duration::from_secs(1);
/// The exit code when the agent had to be killed and did not even then report back: 128 + SIGKILL.
const KILLED_EXIT_CODE: u8 = 137;
/// Signals that wait for us; more than a person types.
const SIGNALS_PENDING_MAX: usize = 16;

/// How the program around the agent is brought to rest.
#[derive(Debug)]
pub struct Drain<F> {
    /// Cancelled first: take no new requests in, report "not ready".
    pub stopping: CancellationToken,
    /// Cancelled when the agent has ended: outbound may close.
    pub agent_gone: CancellationToken,
    /// Completes when nothing runs any more. Looked at only after `stopping`.
    pub drained: F,
    /// The whole time from the first signal to our exit.
    pub time: Duration,
    /// The part of it that is kept for the time after.
    pub reserve: Duration,
}

impl<F> Drain<F> {
    /// A drain with the platform's times.
    pub fn new(drained: F) -> Self {
        Self {
            stopping: CancellationToken::new(),
            agent_gone: CancellationToken::new(),
            drained,
            time: DRAIN_TIME_MAX,
            reserve: DRAIN_RESERVE,
        }
    }
}

/// Catches the signals that concern us. Call it before the child starts, or an early one ends us without it.
///
/// SIGHUP is caught and left out: it means "reload" to us and "end" to most agents.
///
/// # Errors
/// When a handler cannot be installed.
pub fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(SIGNALS_PENDING_MAX);
    for caught in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        let mut stream = signal(SignalKind::from_raw(caught as i32))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && sender.send(caught).await.is_ok() {}
        });
    }
    drop(signal(SignalKind::hangup())?); // the handler stays for the life of the process
    Ok(receiver)
}

/// Whether a signal asks for the end.
pub fn is_stop(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

/// Stays with the child until it has ended and everything is drained, and gives the exit code for our own end.
///
/// A stop signal is passed on and begins the drain; a second one, or the deadline, ends all at once.
pub async fn supervise<F: Future<Output = ()>>(
    mut child: Child,
    signals: mpsc::Receiver<Signal>,
    drain: Drain<F>,
) -> u8 {
    let agent = child.pid();
    let reaping = async move {
        match OrphanReaper::if_needed() {
            Ok(Some(reaper)) => reaper.run(agent).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "orphaned processes will not be reaped"),
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        code = attend(&mut child, signals, drain) => code,
        never = reaping => match never {},
    }
}

async fn attend<F: Future<Output = ()>>(
    child: &mut Child,
    mut signals: mpsc::Receiver<Signal>,
    drain: Drain<F>,
) -> u8 {
    let (stopping, agent_gone) = (drain.stopping, drain.agent_gone);
    let drain_time = drain.time.saturating_sub(drain.reserve);
    let mut drained = std::pin::pin!(drain.drained);
    let mut is_drained = false;
    let mut ended: Option<u8> = None;
    let mut deadline: Option<Instant> = None;
    let mut asked_to_stop = false;

    while ended.is_none() || !is_drained {
        let at = deadline.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => {
                if is_stop(signal) && asked_to_stop {
                    tracing::warn!(%signal, "asked twice to stop: ending the agent now");
                    break;
                }
                if is_stop(signal) {
                    tracing::info!(%signal, seconds = drain_time.as_secs(), "stopping");
                    asked_to_stop = true;
                    stopping.cancel();
                    deadline.get_or_insert_with(|| Instant::now() + drain_time);
                }
                child.signal(signal);
            }
            result = child.wait(), if ended.is_none() => {
                let code = result.unwrap_or(KILLED_EXIT_CODE);
                tracing::info!(code, "the agent has ended");
                ended = Some(code);
                stopping.cancel();
                agent_gone.cancel();
                deadline.get_or_insert_with(|| Instant::now() + drain_time);
                child.signal(Signal::SIGTERM); // what it left behind
            }
            () = &mut drained, if deadline.is_some() && !is_drained => is_drained = true,
            () = sleep_until(at), if deadline.is_some() => {
                tracing::warn!(agent_ended = ended.is_some(), is_drained, "the drain took too long: ending all now");
                break;
            }
        }
    }
    child.kill();
    stopping.cancel();
    agent_gone.cancel();
    match ended {
        Some(code) => code,
        None => match timeout(drain.reserve, child.wait()).await {
            Ok(Ok(code)) => code,
            Ok(Err(_)) | Err(_) => KILLED_EXIT_CODE,
        },
    }
}

#[cfg(test)]
mod tests;

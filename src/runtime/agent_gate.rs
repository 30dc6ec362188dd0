//! Tells whether the agent accepts connections yet, so that inbound can answer 503 with `Retry-After` until it does.
//!
//! Must not know who started the agent nor what is asked of it: a TCP connect that succeeds is the whole proof. It lives
//! on this floor, not beside the supervisor, because the inbound flow reads it. Read `supervise.rs` next for who ends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long one probe may wait for a connection.
const PROBE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the agent is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentState {
    /// Not reachable yet, or not any more but expected back.
    Starting,
    /// It accepted a connection.
    Ready,
    /// It ended and will not come back.
    Gone,
}

/// The pause between two probes: doubles from the first to the longest.
#[derive(Debug, Clone, Copy)]
pub struct ProbePace {
    /// The pause after the first refused connection.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl ProbePace {
    /// For a child of ours: people wait for it, and it is about to come up.
    pub const CHILD: Self = Self {
        first: Duration::from_millis(50),
        longest: Duration::from_millis(50),
    };
    /// For an agent that somebody else starts, perhaps much later.
    pub const FOREIGN: Self = Self {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(2),
    };
}

/// A shared view of the agent's state. Clones see the same state.
#[derive(Debug, Clone)]
pub struct AgentGate {
    state: Arc<watch::Sender<AgentState>>,
}

impl Default for AgentGate {
    fn default() -> Self {
        Self::new()
    }
}

impl AgentGate {
    /// A gate for an agent that nobody has reached yet.
    pub fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(AgentState::Starting)),
        }
    }

    /// The state at this moment; cheap enough to ask for each request.
    pub fn state(&self) -> AgentState {
        *self.state.borrow()
    }

    /// Says that a connection was refused: the agent restarts, and probing begins anew. Without effect once it is gone.
    pub fn lost(&self) {
        self.state.send_if_modified(|state| {
            let was_ready = *state == AgentState::Ready;
            if was_ready {
                *state = AgentState::Starting;
            }
            was_ready
        });
    }

    /// Waits until the agent is ready or gone and says which.
    pub async fn settled(&self) -> AgentState {
        self.wait_for(|state| state != AgentState::Starting).await
    }

    /// Probes `address` (`host:port`) until it accepts, again after each [`Self::lost`], until `gone` is cancelled.
    ///
    /// One task runs this. Once the agent is ready it is left in peace: a probe is a connection it has to accept.
    pub async fn watch(&self, address: &str, pace: ProbePace, gone: CancellationToken) {
        let probing = async {
            loop {
                self.wait_for(|state| state != AgentState::Ready).await;
                probe_until_accepted(address, pace).await;
                self.state.send_replace(AgentState::Ready);
            }
        };
        tokio::select! {
            biased;
            () = gone.cancelled() => {}
            () = probing => {}
        }
        self.state.send_replace(AgentState::Gone);
    }

    async fn wait_for(&self, mut wanted: impl FnMut(AgentState) -> bool) -> AgentState {
        let mut receiver = self.state.subscribe();
        let found = receiver.wait_for(|state| wanted(*state)).await;
        // The sender lives in `self`, so the channel cannot close while we wait.
        found.map_or(AgentState::Gone, |state| *state)
    }
}

async fn probe_until_accepted(address: &str, pace: ProbePace) {
    for pause in pauses(pace) {
        if accepts(address).await {
            return;
        }
        sleep(pause).await;
    }
}

/// Endless: an agent that never comes is the business of whoever starts it.
fn pauses(pace: ProbePace) -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(pace.first), move |pause| {
        Some((*pause * 2).min(pace.longest))
    })
}

async fn accepts(address: &str) -> bool {
    let Ok(Ok(stream)) = timeout(PROBE_CONNECT_TIMEOUT, TcpStream::connect(address)).await else {
        return false;
    };
    // Without a listener, a loopback connect may be given its own target as source port and then meets itself.
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(ours), Ok(theirs)) => ours != theirs,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const QUICK: ProbePace = ProbePace {
        first: Duration::from_millis(5),
        longest: Duration::from_millis(10),
    };

    struct Watched {
        gate: AgentGate,
        gone: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    fn watched(address: String) -> Watched {
        let (gate, gone) = (AgentGate::new(), CancellationToken::new());
        let task = tokio::spawn({
            let (gate, gone) = (gate.clone(), gone.clone());
            async move { gate.watch(&address, QUICK, gone).await }
        });
        Watched { gate, gone, task }
    }

    /// A port that refuses connections until the test listens on it: bound, but not listening.
    fn reserved() -> (tokio::net::TcpSocket, String) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        (socket, address)
    }

    #[tokio::test]
    async fn the_gate_opens_when_the_agent_listens() {
        let (socket, address) = reserved();
        assert!(!accepts(&address).await);
        let watched = watched(address);
        assert_eq!(watched.gate.state(), AgentState::Starting);
        let _listener = socket.listen(8).unwrap();
        assert_eq!(watched.gate.settled().await, AgentState::Ready);
    }

    #[tokio::test]
    async fn a_ready_agent_is_not_probed_again_until_it_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let watched = watched(listener.local_addr().unwrap().to_string());
        assert_eq!(watched.gate.settled().await, AgentState::Ready);
        listener.accept().await.unwrap();
        let quiet = timeout(Duration::from_millis(60), listener.accept()).await;
        assert!(
            quiet.is_err(),
            "a second probe came without being asked for"
        );

        watched.gate.lost();
        assert_eq!(watched.gate.state(), AgentState::Starting);
        listener.accept().await.unwrap();
        assert_eq!(watched.gate.settled().await, AgentState::Ready);
    }

    #[tokio::test]
    async fn the_gate_closes_for_good_when_the_agent_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let watched = watched(listener.local_addr().unwrap().to_string());
        watched.gate.settled().await;
        watched.gone.cancel();
        watched.task.await.unwrap();
        assert_eq!(watched.gate.state(), AgentState::Gone);
        watched.gate.lost();
        assert_eq!(watched.gate.state(), AgentState::Gone);
    }

    #[tokio::test]
    async fn an_agent_that_ends_before_it_listens_is_gone_and_waiters_learn_it() {
        let (_socket, address) = reserved();
        let watched = watched(address);
        watched.gone.cancel();
        assert_eq!(watched.gate.settled().await, AgentState::Gone);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds = |pace: ProbePace| -> Vec<u64> {
            pauses(pace).take(5).map(|pause| pause.as_secs()).collect()
        };
        let pace = |first, longest| ProbePace {
            first: Duration::from_secs(first),
            longest: Duration::from_secs(longest),
        };
        assert_eq!(seconds(pace(1, 5)), [1, 2, 4, 5, 5]);
        assert_eq!(seconds(pace(3, 3)), [3, 3, 3, 3, 3]);
    }
}

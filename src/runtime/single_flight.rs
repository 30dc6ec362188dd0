//! One fetch for any number of callers, refreshed before it is needed.
//!
//! Contract: N callers cause one fetch; the fetch is a task of its own, so a caller that hangs up strands nobody; a failure
//! is shared and then held back for a growing time; a value that still lives is served while its replacement is fetched;
//! nothing is served after its end. Knows nothing of tokens or keys; `credential.rs` and `key_store.rs` use it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A future that owns what it needs.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The wait after the first failure; it doubles with each further one up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait between two attempts, unless the far side asks for more.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A fetched value and its life.
#[derive(Debug)]
pub struct Fresh<T> {
    /// What was fetched.
    pub value: Arc<T>,
    /// From here on a replacement is fetched in the background.
    pub refresh_at: Instant,
    /// From here on it is not served.
    pub expires_at: Instant,
}

impl<T> Fresh<T> {
    /// A value that lives for `life` from now: refreshed at 70 % of it less up to 5 % of jitter, so that replicas do not
    /// refresh in step.
    pub fn for_life(value: T, life: Duration) -> Self {
        let now = Instant::now();
        let mut random = [0u8; 1];
        // Without randomness there is simply no jitter.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let jitter = life.mul_f64(0.05 * f64::from(random[0]) / 255.0);
        Self {
            value: Arc::new(value),
            refresh_at: now + life.mul_f64(0.7).saturating_sub(jitter),
            expires_at: now + life,
        }
    }
}

/// A failed fetch and, where the far side said so (`Retry-After`), how long to leave it alone.
#[derive(Debug, Clone)]
pub struct Failure<E> {
    /// What went wrong; every waiting caller gets a copy.
    pub error: E,
    /// The far side's own wish; otherwise the growing back-off applies.
    pub retry_after: Option<Duration>,
}

type Outcome<T, E> = Result<Arc<T>, E>;
type Fetch<T, E> = dyn Fn() -> BoxFuture<'static, Result<Fresh<T>, Failure<E>>> + Send + Sync;

/// The shared state of one fetched thing. Cheap to clone.
pub struct SingleFlight<T, E>(Arc<Inner<T, E>>);

struct Inner<T, E> {
    fetch: Box<Fetch<T, E>>,
    state: Mutex<State<T, E>>,
}

struct State<T, E> {
    current: Option<Fresh<T>>,
    running: Option<watch::Receiver<Option<Outcome<T, E>>>>,
    failed: Option<(E, Instant)>,
    failures: u32,
}

impl<T, E> Clone for SingleFlight<T, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + Sync + 'static, E: Clone + Send + Sync + 'static> SingleFlight<T, E> {
    /// `fetch` is called once per refresh, in a task of its own.
    pub fn new<F, Fut>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Fresh<T>, Failure<E>>> + Send + 'static,
    {
        let state = State {
            current: None,
            running: None,
            failed: None,
            failures: 0,
        };
        Self(Arc::new(Inner {
            fetch: Box::new(move || Box::pin(fetch())),
            state: Mutex::new(state),
        }))
    }

    /// The live value, fetched first if there is none.
    ///
    /// # Errors
    /// The last fetch's error, shared by all who waited for it and by all who ask within the back-off.
    pub async fn get(&self) -> Outcome<T, E> {
        loop {
            let mut waiting = {
                let mut state = self.0.lock();
                let now = Instant::now();
                let held_back = state
                    .failed
                    .as_ref()
                    .filter(|(_, until)| now < *until)
                    .map(|(error, _)| error.clone());
                if let Some(current) = state
                    .current
                    .as_ref()
                    .filter(|current| now < current.expires_at)
                {
                    let value = Arc::clone(&current.value);
                    if now >= current.refresh_at && held_back.is_none() {
                        self.start(&mut state);
                    }
                    return Ok(value);
                }
                match held_back {
                    Some(error) if state.running.is_none() => return Err(error),
                    Some(_) | None => self.start(&mut state),
                }
            };
            match waiting
                .wait_for(Option::is_some)
                .await
                .map(|outcome| outcome.clone())
            {
                Ok(Some(outcome)) => return outcome,
                // The task died without an answer (it panicked): forget it, unless another caller has and tries already.
                Ok(None) | Err(_) => {
                    let mut state = self.0.lock();
                    state.running = state.running.take().filter(|r| r.has_changed().is_ok());
                }
            }
        }
    }

    /// The value if one is at hand and alive; never waits and never fetches.
    pub fn peek(&self) -> Option<Arc<T>> {
        let state = self.0.lock();
        state
            .current
            .as_ref()
            .filter(|current| Instant::now() < current.expires_at)
            .map(|current| Arc::clone(&current.value))
    }

    /// Forgets `seen` if it is still the current value, so that the next caller fetches anew. A value that has been replaced
    /// since is left alone: many callers may report the same refusal.
    pub fn invalidate(&self, seen: &Arc<T>) {
        let mut state = self.0.lock();
        if state
            .current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(&current.value, seen))
        {
            state.current = None;
        }
    }

    /// The error of the last fetch if it failed, for as long as none has succeeded since.
    pub fn failure(&self) -> Option<E> {
        let state = self.0.lock();
        state.failed.as_ref().map(|(error, _)| error.clone())
    }

    /// Whether nothing lives, runs or is held back: forgetting this flight changes nothing for anybody.
    pub fn is_idle(&self) -> bool {
        let now = Instant::now();
        let state = self.0.lock();
        let lives = state.current.as_ref().is_some_and(|c| now < c.expires_at);
        let held_back = state.failed.as_ref().is_some_and(|(_, until)| now < *until);
        !lives && !held_back && state.running.is_none()
    }

    /// Joins the running fetch or starts one.
    fn start(&self, state: &mut State<T, E>) -> watch::Receiver<Option<Outcome<T, E>>> {
        if let Some(running) = &state.running {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(None);
        state.running = Some(receiver.clone());
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let outcome = (inner.fetch)().await;
            let outcome = inner.settle(outcome);
            let _ = sender.send(Some(outcome));
        });
        receiver
    }
}

impl<T, E: Clone> Inner<T, E> {
    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, outcome: Result<Fresh<T>, Failure<E>>) -> Outcome<T, E> {
        let mut state = self.lock();
        state.running = None;
        match outcome {
            Ok(fresh) => {
                let value = Arc::clone(&fresh.value);
                state.current = Some(fresh);
                state.failed = None;
                state.failures = 0;
                Ok(value)
            }
            Err(Failure { error, retry_after }) => {
                let backoff = BACKOFF_MIN
                    .saturating_mul(1 << state.failures.min(10))
                    .min(BACKOFF_MAX);
                state.failures = state.failures.saturating_add(1);
                state.failed = Some((
                    error.clone(),
                    Instant::now() + retry_after.unwrap_or(backoff),
                ));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LIFE: Duration = Duration::from_secs(100);

    /// A flight whose n-th fetch takes one second and gives `n`, or fails while `broken` is above zero.
    fn counting(broken: usize) -> (SingleFlight<usize, &'static str>, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let flight = SingleFlight::new(move || {
            let n = seen.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if n <= broken {
                    Err(Failure {
                        error: "down",
                        retry_after: None,
                    })
                } else {
                    Ok(Fresh::for_life(n, LIFE))
                }
            }
        });
        (flight, calls)
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_callers_cause_one_fetch() {
        let (flight, calls) = counting(0);
        let all = (0..1000)
            .map(|_| {
                tokio::spawn({
                    let f = flight.clone();
                    async move { *f.get().await.unwrap() }
                })
            })
            .collect::<Vec<_>>();
        for one in all {
            assert_eq!(one.await.unwrap(), 1);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_hangs_up_strands_nobody() {
        let (flight, calls) = counting(0);
        let leader = tokio::spawn({
            let f = flight.clone();
            async move { f.get().await }
        });
        tokio::task::yield_now().await;
        leader.abort();
        assert_eq!(*flight.get().await.unwrap(), 1);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_and_held_back() {
        let (flight, calls) = counting(1);
        let (a, b) = tokio::join!(flight.get(), flight.get());
        assert_eq!((a, b), (Err("down"), Err("down")));
        assert_eq!(
            flight.get().await,
            Err("down"),
            "within the back-off nobody asks again"
        );
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        tokio::time::advance(BACKOFF_MIN).await;
        assert_eq!(*flight.get().await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_living_value_is_served_while_its_replacement_is_fetched() {
        let (flight, calls) = counting(0);
        assert_eq!(*flight.get().await.unwrap(), 1);
        tokio::time::advance(LIFE.mul_f64(0.75)).await;
        assert_eq!(
            *flight.get().await.unwrap(),
            1,
            "still the old one, at once"
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(*flight.get().await.unwrap(), 2);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_living_value_is_served_while_refreshing_fails_and_never_after_its_end() {
        let (flight, _) = counting(0);
        flight.get().await.unwrap();
        let failing = SingleFlight::<usize, &str>::new(|| async {
            Err(Failure {
                error: "down",
                retry_after: None,
            })
        });
        failing.0.lock().current = Some(Fresh::for_life(7, LIFE));
        tokio::time::advance(LIFE.mul_f64(0.9)).await;
        assert_eq!(*failing.get().await.unwrap(), 7);
        tokio::time::advance(LIFE.mul_f64(0.1)).await;
        assert_eq!(failing.get().await, Err("down"));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_value_that_was_refused_is_forgotten() {
        let (flight, _) = counting(0);
        let first = flight.get().await.unwrap();
        flight.invalidate(&first);
        let second = flight.get().await.unwrap();
        assert_eq!(*second, 2);
        flight.invalidate(&first);
        assert_eq!(
            *flight.get().await.unwrap(),
            2,
            "a late report about the first leaves the second alone"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_far_sides_own_wait_is_honoured() {
        let flight = SingleFlight::<usize, &str>::new(|| async {
            Err(Failure {
                error: "later",
                retry_after: Some(Duration::from_secs(60)),
            })
        });
        assert!(flight.get().await.is_err());
        assert!(
            flight
                .0
                .lock()
                .failed
                .as_ref()
                .is_some_and(|(_, until)| *until > Instant::now() + Duration::from_secs(59))
        );
    }
}

//! The issuer's keys in memory: fetched once for everybody, refreshed before they are old, kept while the issuer is down.
//!
//! Must not know claims. A known key is found with one pointer load and waits for nothing. A key that is not known starts
//! at most one fetch in [`KeyStoreSettings::refetch_floor`], whoever asks and for whatever kid. Every fetch is a task of
//! its own, so a caller that hangs up strands nobody; a failed, empty or garbled one never replaces good keys.
//! Written beside `single_flight.rs` and not on it: there a value ends, here good keys do not, and the floor between two
//! fetches holds after successes too. Read `domain/jwks.rs` and `verifier.rs` next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::Instant;

use super::discovery::{Discoverer, DiscoveryFault, FetchFault, fetch};
use super::http_client::HttpSend;
use super::metrics::Metrics;
use super::single_flight::{BACKOFF_MAX, BACKOFF_MIN};
use crate::domain::clock::{Clock, SignedDuration, Timestamp};
use crate::domain::jwks::{JwksFault, KeySet};

/// What the store is allowed to take, and when it asks again. The defaults are those of SECURITY R31.
#[derive(Debug, Clone)]
pub struct KeyStoreSettings {
    /// The largest key set document.
    pub fetch_bytes_max: usize,
    /// The longest wait for a key set document.
    pub fetch_time_max: Duration,
    /// The shortest time between two refreshes while there are keys, and between two fetches for keys that are not known.
    pub refetch_floor: Duration,
    /// From this age on the keys are fetched again in the background.
    pub refresh_after: Duration,
    /// How long after it was last seen published a withdrawn key still counts.
    pub withdrawn_key_age_max: SignedDuration,
}

impl Default for KeyStoreSettings {
    fn default() -> Self {
        Self {
            fetch_bytes_max: 1024 * 1024,
            fetch_time_max: Duration::from_secs(5),
            refetch_floor: Duration::from_secs(30),
            refresh_after: Duration::from_secs(600),
            withdrawn_key_age_max: SignedDuration::from_hours(1),
        }
    }
}

/// The keeper of freshness never looks more often than this.
const TICK_MIN: Duration = Duration::from_millis(100);

/// Why a fetch brought no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshFault {
    /// It is not known where the keys are.
    #[error(transparent)]
    Discovery(#[from] DiscoveryFault),
    /// The document could not be had.
    #[error("the issuer's key set {0}")]
    Fetch(#[from] FetchFault),
    /// The document is no use.
    #[error("the issuer's key set {0}")]
    Document(#[from] JwksFault),
    /// The task that fetched died.
    #[error("the fetch of the issuer's keys was cut off")]
    CutOff,
}

impl RefreshFault {
    /// The label of the fetch metric.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Discovery(_) => "discovery",
            Self::Fetch(fault) => fault.code(),
            Self::Document(JwksFault::NotAKeySet) => "invalid",
            Self::Document(JwksFault::NoUsableKey { .. }) => "no_keys",
            Self::CutOff => "cut_off",
        }
    }
}

/// Why no key set can be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyStoreFault {
    /// There has been none since the start. Fetching goes on by itself; the caller should be asked to come back (503).
    #[error("no key of the issuer is known yet: {0}")]
    Unavailable(RefreshFault),
}

/// For `/status` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStoreStatus {
    /// Whose keys, once known.
    pub issuer: Option<Arc<str>>,
    /// The number of keys that count now; without one no user gets in.
    pub keys: usize,
    /// Since the last good fetch.
    pub age_seconds: Option<u64>,
    /// Of the newest fetch, if it failed.
    pub last_error: Option<String>,
}

/// The keys of one issuer. Cheap to clone.
#[derive(Clone)]
pub struct KeyStore(Arc<Inner>);

struct Inner {
    settings: KeyStoreSettings,
    discoverer: Arc<Discoverer>,
    http: Arc<dyn HttpSend>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    current: ArcSwapOption<Published>,
    /// Locked for a few instructions at a time, never across a fetch, and not at all where the key is known.
    state: Mutex<State>,
}

/// The newest good answer.
struct Published {
    keys: Arc<KeySet>,
    /// Wall time, for the end of withdrawn keys.
    seen: Timestamp,
    /// Monotonic, for the age.
    fetched: Instant,
}

/// What a fetch is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Its time has come.
    Due,
    /// Somebody presented a key id that is not known.
    UnknownKey,
}

#[derive(Default)]
struct State {
    running: Option<watch::Receiver<bool>>,
    not_before: Option<Instant>,
    unknown_not_before: Option<Instant>,
    failures: u32,
    last_error: Option<RefreshFault>,
    kept: bool,
}

impl State {
    /// The fetch that is under way. A sender that is gone without a word belonged to a task that died.
    fn live(&self) -> Option<watch::Receiver<bool>> {
        let running = self.running.as_ref();
        running
            .filter(|running| running.has_changed().is_ok())
            .cloned()
    }
}

impl KeyStore {
    /// Nothing is fetched yet: see [`KeyStore::warm`].
    pub fn new(
        settings: KeyStoreSettings,
        discoverer: Arc<Discoverer>,
        http: Arc<dyn HttpSend>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            settings,
            discoverer,
            http,
            clock,
            metrics,
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
        }))
    }

    /// Starts the first fetch and waits for nothing.
    pub fn warm(&self) {
        self.start(Why::Due);
    }

    /// A key set, one that holds `kid` if the issuer publishes it.
    ///
    /// # Errors
    /// [`KeyStoreFault::Unavailable`] if there has been no good answer since the start.
    pub async fn key_set(&self, kid: &str) -> Result<Arc<KeySet>, KeyStoreFault> {
        let now = self.0.clock.now();
        // Twice: a fetch that was under way may have begun before the key was published.
        for _ in 0..2 {
            if let Some(known) = self.known().filter(|keys| keys.holds(kid, now)) {
                return Ok(known);
            }
            let Some(mut running) = self.start(Why::UnknownKey) else {
                break;
            };
            // An error means that the task died; what it left behind is looked at all the same.
            let _ = running.wait_for(|done| *done).await;
        }
        self.known().ok_or_else(|| {
            let last_error = self.0.lock().last_error.clone();
            KeyStoreFault::Unavailable(last_error.unwrap_or(RefreshFault::CutOff))
        })
    }

    /// The keys at hand, if there are any; never waits and never fetches.
    pub fn known(&self) -> Option<Arc<KeySet>> {
        self.0
            .current
            .load()
            .as_ref()
            .map(|published| Arc::clone(&published.keys))
    }

    /// How it stands.
    pub fn status(&self) -> KeyStoreStatus {
        let current = self.0.current.load_full();
        let now = self.0.clock.now();
        KeyStoreStatus {
            issuer: current
                .as_ref()
                .map(|published| Arc::clone(published.keys.issuer())),
            keys: current
                .as_ref()
                .map_or(0, |published| published.keys.live(now)),
            age_seconds: current.map(|published| published.fetched.elapsed().as_secs()),
            last_error: self.0.lock().last_error.as_ref().map(ToString::to_string),
        }
    }

    /// Joins the running fetch, or starts one if enough time has passed. An unknown key does not wait for the floor of a
    /// refresh that happened to come just before the issuer changed its keys, only for that of another unknown key.
    fn start(&self, why: Why) -> Option<watch::Receiver<bool>> {
        let has_keys = self.0.current.load().is_some();
        let mut state = self.0.lock();
        if let Some(running) = state.live() {
            return Some(running);
        }
        let unknown_key = why == Why::UnknownKey && has_keys;
        let not_before = if unknown_key {
            state.unknown_not_before
        } else {
            state.not_before
        };
        if not_before.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let (done, receiver) = watch::channel(false);
        state.running = Some(receiver.clone());
        let floor = Instant::now() + self.0.settings.refetch_floor;
        state.not_before = Some(floor);
        if unknown_key {
            state.unknown_not_before = Some(floor);
        }
        if !std::mem::replace(&mut state.kept, true) {
            tokio::spawn(keep_fresh(Arc::downgrade(&self.0)));
        }
        drop(state);
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let outcome = inner.refresh().await;
            inner.settle(outcome);
            let _ = done.send(true);
        });
        Some(receiver)
    }
}

/// Fetches again whenever it is time, traffic or not: a withdrawn key must end on an idle sidecar too, and a start without
/// the issuer must mend itself. Ends when the store is gone.
async fn keep_fresh(store: Weak<Inner>) {
    while let Some(inner) = store.upgrade() {
        let running = inner.running();
        let at = inner.next_refresh();
        let running = if running.is_none() && Instant::now() >= at {
            KeyStore(inner).start(Why::Due)
        } else {
            running
        };
        match running {
            // Its end decides anew when the next one is due.
            Some(mut running) => {
                let _ = running.wait_for(|done| *done).await;
                tokio::time::sleep(TICK_MIN).await;
            }
            None => tokio::time::sleep_until(at.max(Instant::now() + TICK_MIN)).await,
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Option<watch::Receiver<bool>> {
        self.lock().live()
    }

    fn next_refresh(&self) -> Instant {
        let fetched = self
            .current
            .load()
            .as_ref()
            .map(|published| published.fetched);
        let not_before = self.lock().not_before.unwrap_or_else(Instant::now);
        fetched.map_or(not_before, |fetched| {
            not_before.max(fetched + self.settings.refresh_after)
        })
    }

    async fn refresh(&self) -> Result<KeySet, RefreshFault> {
        let (issuer, uri) = self.discoverer.keys_at().await?;
        let limits = &self.settings;
        let body = fetch(
            &*self.http,
            &uri,
            limits.fetch_bytes_max,
            limits.fetch_time_max,
        )
        .await?;
        Ok(KeySet::from_jwks(&issuer, &body)?)
    }

    fn settle(&self, outcome: Result<KeySet, RefreshFault>) {
        let result = outcome.as_ref().map_or_else(RefreshFault::code, |_| "ok");
        self.metrics.jwks_fetch(result);
        let before = self.current.load_full();
        let mut state = self.lock();
        state.running = None;
        match outcome {
            Ok(fresh) => {
                let age_max = self.settings.withdrawn_key_age_max;
                let keys = match &before {
                    Some(old) => fresh.succeeding(&old.keys, old.seen, age_max),
                    None => fresh,
                };
                self.current.store(Some(Arc::new(Published {
                    keys: Arc::new(keys),
                    seen: self.clock.now(),
                    fetched: Instant::now(),
                })));
                state.failures = 0;
                state.last_error = None;
            }
            Err(fault) => {
                let age_seconds = before.map(|published| published.fetched.elapsed().as_secs());
                tracing::warn!(%fault, age_seconds, "the issuer's keys could not be refreshed; the known ones stay in use");
                if age_seconds.is_none() {
                    let backoff = BACKOFF_MIN.saturating_mul(1 << state.failures.min(10));
                    state.not_before = Some(Instant::now() + backoff.min(BACKOFF_MAX));
                }
                state.failures = state.failures.saturating_add(1);
                state.last_error = Some(fault);
            }
        }
    }
}

#[cfg(test)]
mod tests;

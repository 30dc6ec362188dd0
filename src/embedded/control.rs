//! The levers and the windows of the embedded workspace: break it, mend it, and see what arrived.
//!
//! Waiting is always on an event, never on time. Knows nothing of what is served; `door.rs` consults it for every call.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::issuer::Issuer;
use super::seen::{Meter, Seen, SeenCall};

/// Calls kept for inspection; the oldest go first.
pub const SEEN_CALLS_MAX: usize = 10_000;

/// Locks without caring whether another test thread panicked meanwhile.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a fault is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Every call, whatever it is.
    Workspace,
    /// The key set.
    Keys,
    /// The token endpoint.
    Token,
    /// Everything that needs a bearer.
    Api,
}

/// What goes wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status and body.
    Status {
        /// Such as 503.
        status: u16,
        /// The `Retry-After` header, in seconds.
        retry_after_secs: Option<u64>,
        /// Sent as JSON when it starts with `{`, as plain text otherwise.
        body: String,
    },
    /// Answers 200 with an HTML page where JSON is due.
    Garbage,
    /// Answers correctly, but only after this time.
    Delay(Duration),
    /// Does not answer until the fault is healed; then answers correctly.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// Does what is asked, and then closes the connection without an answer.
    CloseAfter,
}

impl Fault {
    /// A bare status with the platform's error shape.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            retry_after_secs: None,
            body: r#"{"error_code":"TEMPORARILY_UNAVAILABLE","message":"The service is temporarily unavailable."}"#.to_owned(),
        }
    }

    /// The same with `Retry-After`.
    pub fn retry_after(status: u16, seconds: u64) -> Self {
        match Self::status(status) {
            Self::Status { status, body, .. } => Self::Status {
                status,
                retry_after_secs: Some(seconds),
                body,
            },
            other => other,
        }
    }
}

/// Fault injection and observation.
pub struct Control {
    issuer: Arc<Issuer>,
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    faults: BTreeMap<Place, (Fault, Option<u32>)>,
    key_fetches: u64,
    token_requests: u64,
    streams_open: usize,
    /// `None`: streams flow by themselves. `Some(n)`: n more events may leave.
    stream_events: Option<u64>,
    calls: VecDeque<Entry>,
}

struct Entry {
    call: SeenCall,
    meter: Arc<Meter>,
}

impl Control {
    pub(super) fn new(issuer: Arc<Issuer>) -> Self {
        Self {
            issuer,
            state: Mutex::default(),
            changes: watch::Sender::new(()),
        }
    }

    /// A new signing key under a new `kid`. With `keep_old` the previous key stays published and its tokens good.
    ///
    /// # Errors
    /// When the crypto library cannot make a key.
    pub async fn rotate_keys(&self, keep_old: bool) -> io::Result<()> {
        self.issuer.rotate(keep_old).await
    }

    /// Ends the overlap: only the current key stays published.
    pub fn withdraw_old_keys(&self) {
        self.issuer.withdraw_old_keys();
    }

    /// Makes every app token issued so far invalid, as a deleted secret would; returns how many there were.
    pub fn revoke_app_tokens(&self) -> usize {
        self.issuer.revoke_app_tokens()
    }

    /// Every token that was made so far, users', app and hand-made: none of them may ever be seen behind a sidecar.
    pub fn signed_tokens(&self) -> Vec<String> {
        self.issuer.signed()
    }

    /// Puts a fault at a place until [`Control::heal`].
    pub fn fail(&self, place: Place, fault: Fault) {
        self.change(|s| s.faults.insert(place, (fault, None)));
    }

    /// Puts a fault at a place for the next `times` calls there.
    pub fn fail_next(&self, place: Place, fault: Fault, times: u32) {
        self.change(|s| s.faults.insert(place, (fault, Some(times))));
    }

    /// Takes the fault away; calls that hang there go on.
    pub fn heal(&self, place: Place) {
        self.change(|s| s.faults.remove(&place));
    }

    /// From now on a streamed answer waits for [`Control::release_event`] before each event.
    pub fn hold_streams(&self) {
        self.change(|s| s.stream_events = Some(0));
    }

    /// Lets one event of a held stream go.
    pub fn release_event(&self) {
        self.change(|s| {
            if let Some(events) = &mut s.stream_events {
                *events += 1;
            }
        });
    }

    /// Lets streams flow by themselves again.
    pub fn release_streams(&self) {
        self.change(|s| s.stream_events = None);
    }

    /// Streamed answers that have neither ended nor lost their reader.
    pub fn streams_open(&self) -> usize {
        lock(&self.state).streams_open
    }

    /// How often the key set was asked for, refusals included.
    pub fn key_fetches(&self) -> u64 {
        lock(&self.state).key_fetches
    }

    /// How often the token endpoint was asked, refusals included.
    pub fn token_requests(&self) -> u64 {
        lock(&self.state).token_requests
    }

    /// Every call so far, oldest first, OAuth and discovery included.
    pub fn calls(&self) -> Vec<SeenCall> {
        let state = lock(&self.state);
        state
            .calls
            .iter()
            .map(|entry| entry.meter.fill(entry.call.clone()))
            .collect()
    }

    /// How many calls are kept; cheaper than [`Control::calls`].
    pub fn call_count(&self) -> usize {
        lock(&self.state).calls.len()
    }

    /// The calls whose path starts so.
    pub fn calls_to(&self, path_prefix: &str) -> Vec<SeenCall> {
        let mut calls = self.calls();
        calls.retain(|call| call.target.starts_with(path_prefix));
        calls
    }

    /// Forgets the calls seen so far.
    pub fn forget_calls(&self) {
        self.change(|s| s.calls.clear());
    }

    /// Waits until something is so. Ends by itself only when it is: put a timeout around it.
    pub async fn wait_until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        let mut changes = self.changes.subscribe();
        while !is_so(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn change<T>(&self, how: impl FnOnce(&mut State) -> T) {
        how(&mut lock(&self.state));
        self.changes.send_replace(());
    }

    /// Called by a meter when a body went on.
    pub(super) fn body_moved(&self) {
        self.changes.send_replace(());
    }

    pub(super) fn note_visit(&self, place: Place) {
        match place {
            Place::Keys => self.change(|s| s.key_fetches += 1),
            Place::Token => self.change(|s| s.token_requests += 1),
            Place::Workspace | Place::Api => {}
        }
    }

    /// Writes a call down; its body is counted later through the meter.
    pub(super) fn note_call(&self, call: SeenCall, meter: Arc<Meter>) {
        self.change(|s| {
            if s.calls.len() >= SEEN_CALLS_MAX {
                s.calls.pop_front();
            }
            s.calls.push_back(Entry { call, meter });
        });
    }

    /// Adds how the call with this request id was answered, and as whom.
    pub(super) fn note_answer(&self, request_id: &str, status: u16, identity: &Seen) {
        self.change(|s| {
            let found = s.calls.iter_mut().rev();
            for entry in found.filter(|e| e.call.request_id == request_id).take(1) {
                entry.call.status = Some(status);
                entry.call.identity = identity.clone();
            }
        });
    }

    /// The fault in force at one of these places, counted down.
    pub(super) fn take_fault(&self, places: &[Place]) -> Option<(Place, Fault)> {
        let mut state = lock(&self.state);
        let place = *places.iter().find(|p| state.faults.contains_key(p))?;
        let (fault, left) = state.faults.get_mut(&place)?;
        let taken = fault.clone();
        match left {
            None => {}
            Some(n) if *n > 1 => *n -= 1,
            Some(_) => drop(state.faults.remove(&place)),
        }
        Some((place, taken))
    }

    /// Waits until no call may hang at this place any more.
    pub(super) async fn healed(&self, place: Place) {
        let mut changes = self.changes.subscribe();
        while self.hangs(place) && changes.changed().await.is_ok() {}
    }

    fn hangs(&self, place: Place) -> bool {
        let state = lock(&self.state);
        matches!(state.faults.get(&place), Some((Fault::Hang, _)))
    }

    /// Waits until the next event of a stream may leave.
    pub(super) async fn stream_turn(&self) {
        let mut changes = self.changes.subscribe();
        while !self.take_turn() && changes.changed().await.is_ok() {}
    }

    fn take_turn(&self) -> bool {
        match &mut lock(&self.state).stream_events {
            None => true,
            Some(0) => false,
            Some(events) => {
                *events -= 1;
                true
            }
        }
    }

    pub(super) fn stream_opened(&self) {
        self.change(|s| s.streams_open += 1);
    }

    pub(super) fn stream_closed(&self) {
        self.change(|s| s.streams_open = s.streams_open.saturating_sub(1));
    }
}

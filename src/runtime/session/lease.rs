//! A lease: what keeps a session alive while somebody is being served on its behalf.
//!
//! Held by the answer's body or by the tunnel; dropping it begins `linger`. Read `session.rs` for what a session is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Session;

/// Keeps a session alive for one inbound request.
#[derive(Debug)]
pub struct Lease {
    session: Arc<Session>,
}

impl Lease {
    pub(super) fn new(session: Arc<Session>) -> Self {
        session.in_flight.fetch_add(1, Ordering::AcqRel);
        session.state().last_use = Instant::now();
        Self { session }
    }

    /// A sign of life in the middle of a long request.
    pub fn touch(&self) {
        self.session.state().last_use = Instant::now();
    }

    /// The session.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        {
            let mut state = self.session.state();
            state.last_use = Instant::now();
            state.released = state.last_use;
        }
        self.session.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

//! Users' tokens swapped at the token endpoint for ones with just the scopes that are needed (`users.exchange: rfc8693`).
//!
//! One exchange per user token and scope set, never outliving the token it was made from. Knows neither sessions nor
//! routes. `token_endpoint.rs` is the wire, `keyed_flight.rs` the cache.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::access_token::{AccessToken, EXPIRY_MARGIN};
use super::endpoint_fault::EndpointFault;
use super::keyed_flight::KeyedFlight;
use super::single_flight::{Fresh, SingleFlight};
use super::token_endpoint::{TokenEndpoint, USABLE_LIFE_MIN};
use crate::domain::clock::{Clock, Timestamp};
use crate::domain::scope::ScopeSet;
use crate::domain::secret::{Digest, Secret};

/// Exchanged tokens at the same time; with 2 KiB for each and for its subject token this stays under 40 MiB.
pub const EXCHANGED_TOKENS_MAX: usize = 10_000;

/// The verified user token that an exchange starts from.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// [`Secret::digest`] of the token, computed once per session.
    pub digest: Digest,
    /// The token.
    pub token: &'a Arc<Secret>,
    /// Its `exp`.
    pub expires: Timestamp,
}

/// The exchanged tokens of all users.
pub struct ExchangedTokens {
    endpoint: Arc<TokenEndpoint>,
    clock: Arc<dyn Clock>,
    flights: KeyedFlight<Digest, AccessToken, EndpointFault>,
}

impl ExchangedTokens {
    /// Asks for nothing yet.
    pub fn new(endpoint: Arc<TokenEndpoint>, clock: Arc<dyn Clock>) -> Self {
        Self {
            endpoint,
            clock,
            flights: KeyedFlight::new(EXCHANGED_TOKENS_MAX),
        }
    }

    /// A live token for this user with just these scopes.
    ///
    /// # Errors
    /// [`EndpointFault::SubjectRefused`] when the user's token is refused or all but over; the others as they are.
    pub async fn token(
        &self,
        subject: Subject<'_>,
        scopes: &ScopeSet,
    ) -> Result<Arc<AccessToken>, EndpointFault> {
        // Checked before the cache: the subject's end binds a cached token too.
        subject_life(&*self.clock, subject.expires)?;
        let is_live = |token: &AccessToken| token.is_live(self.clock.now());
        let make = || self.flight(subject, scopes);
        self.flights
            .get(&self.key(subject, scopes), is_live, make)
            .await
    }

    /// Takes a report that the workspace refused `seen`; the answer is as of `AppTokens::invalidate`.
    pub fn invalidate(
        &self,
        subject: Subject<'_>,
        scopes: &ScopeSet,
        seen: &Arc<AccessToken>,
    ) -> bool {
        self.flights.invalidate(&self.key(subject, scopes), seen)
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Over everything that changes the answer, each part with its length.
    fn key(&self, subject: Subject<'_>, scopes: &ScopeSet) -> Digest {
        Digest::of(&[
            b"exchange",
            self.endpoint.identity().as_bytes(),
            subject.digest.as_bytes(),
            scopes.to_string().as_bytes(),
        ])
    }

    fn flight(
        &self,
        subject: Subject<'_>,
        scopes: &ScopeSet,
    ) -> SingleFlight<AccessToken, EndpointFault> {
        let endpoint = Arc::clone(&self.endpoint);
        let clock = Arc::clone(&self.clock);
        let token = Arc::clone(subject.token);
        let scopes = scopes.clone();
        let expires = subject.expires;
        SingleFlight::new(move || {
            let (endpoint, clock) = (Arc::clone(&endpoint), Arc::clone(&clock));
            let (token, scopes) = (Arc::clone(&token), scopes.clone());
            async move {
                exchange(&endpoint, &*clock, &token, &scopes, expires)
                    .await
                    .map_err(EndpointFault::into_failure)
            }
        })
    }
}

async fn exchange(
    endpoint: &TokenEndpoint,
    clock: &dyn Clock,
    subject: &Secret,
    scopes: &ScopeSet,
    subject_expires: Timestamp,
) -> Result<Fresh<AccessToken>, EndpointFault> {
    let subject_ends = Instant::now() + subject_life(clock, subject_expires)?;
    let issued = endpoint.exchange(subject, scopes).await?;
    let usable_until = issued.usable_until.min(subject_ends);
    let life = usable_until.saturating_duration_since(Instant::now());
    let mut fresh = Fresh::for_life(issued.token, life);
    if subject_ends <= issued.usable_until + EXPIRY_MARGIN {
        // No exchange gives a life beyond the subject's, so an early renewal would gain nothing.
        fresh.refresh_at = fresh.expires_at;
    }
    Ok(fresh)
}

/// What is left of the subject token. One that is all but over is not sent: the token made from it could not be used.
fn subject_life(clock: &dyn Clock, expires: Timestamp) -> Result<Duration, EndpointFault> {
    Duration::try_from(expires.duration_since(clock.now()))
        .ok()
        .filter(|left| *left >= EXPIRY_MARGIN + USABLE_LIFE_MIN)
        .ok_or(EndpointFault::SubjectRefused { error: "expired" })
}

#[cfg(test)]
mod tests;

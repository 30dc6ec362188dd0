//! The app's own tokens: one per scope set, asked for once, renewed early, replaced once when the workspace refuses one.
//!
//! Knows neither routes nor requests. `token_endpoint.rs` is the wire, `keyed_flight.rs` the cache; read
//! `exchanged_tokens.rs` for the users' side.

use std::sync::Arc;

use tokio::time::Instant;

use super::access_token::AccessToken;
use super::endpoint_fault::EndpointFault;
use super::keyed_flight::KeyedFlight;
use super::single_flight::{Fresh, SingleFlight};
use super::token_endpoint::TokenEndpoint;
use crate::domain::clock::Clock;
use crate::domain::scope::ScopeSet;

/// Scope sets with a token at the same time. The catalogue has some forty scopes and a route asks for one or two.
pub const APP_TOKEN_SETS_MAX: usize = 64;

/// What to ask the token endpoint for (`app.scopes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppScopes {
    /// Just what the route needs.
    #[default]
    PerRoute,
    /// Always `all-apis`.
    AllApis,
}

/// How the app's credential fares, for `/readyz` and `/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppTokenStatus {
    /// No credential is configured.
    NotConfigured,
    /// Nothing was asked for yet.
    Untried,
    /// The last fetch of every set succeeded.
    Working,
    /// At least one set's last fetch failed.
    Failing {
        /// The failed set.
        scopes: ScopeSet,
        /// Why; a fault that only the operator can end is shown before any other.
        fault: EndpointFault,
        /// Whether an older token of that set still lives.
        serving: bool,
    },
}

/// The tokens of the app.
pub struct AppTokens {
    endpoint: Arc<TokenEndpoint>,
    scopes: AppScopes,
    all_apis: ScopeSet,
    clock: Arc<dyn Clock>,
    flights: KeyedFlight<ScopeSet, AccessToken, EndpointFault>,
}

impl AppTokens {
    /// Asks for nothing yet.
    pub fn new(endpoint: Arc<TokenEndpoint>, scopes: AppScopes, clock: Arc<dyn Clock>) -> Self {
        Self {
            endpoint,
            scopes,
            all_apis: ScopeSet::parse(["all-apis"]),
            clock,
            flights: KeyedFlight::new(APP_TOKEN_SETS_MAX),
        }
    }

    /// A live token for these scopes.
    ///
    /// # Errors
    /// [`EndpointFault`] says who must act; the fault of one fetch is shared by all who wait for it.
    pub async fn token(&self, scopes: &ScopeSet) -> Result<Arc<AccessToken>, EndpointFault> {
        if !self.endpoint.has_client() {
            return Err(EndpointFault::NotConfigured);
        }
        let asked = self.asked(scopes);
        let is_live = |token: &AccessToken| token.is_live(self.clock.now());
        let make = || flight(Arc::clone(&self.endpoint), asked.clone());
        self.flights.get(asked, is_live, make).await
    }

    /// Takes a report that the workspace refused `seen`. True: asking again gives another token, so one retry makes sense.
    /// False: it was replaced just now and the new one is refused too.
    pub fn invalidate(&self, scopes: &ScopeSet, seen: &Arc<AccessToken>) -> bool {
        self.flights.invalidate(self.asked(scopes), seen)
    }

    /// How the credential fares right now; never asks the endpoint.
    pub fn status(&self) -> AppTokenStatus {
        if !self.endpoint.has_client() {
            return AppTokenStatus::NotConfigured;
        }
        let worst = self
            .flights
            .failing()
            .into_iter()
            .max_by_key(|failing| (failing.error.needs_operator(), !failing.serving));
        match worst {
            Some(failing) => AppTokenStatus::Failing {
                scopes: failing.key,
                fault: failing.error,
                serving: failing.serving,
            },
            None if self.flights.any_live() => AppTokenStatus::Working,
            None => AppTokenStatus::Untried,
        }
    }

    /// A route may run as the app without naming a scope (a raw path that the catalogue does not know): then only
    /// `all-apis` is known to work.
    fn asked<'a>(&'a self, scopes: &'a ScopeSet) -> &'a ScopeSet {
        match self.scopes {
            AppScopes::PerRoute if !scopes.is_empty() => scopes,
            AppScopes::PerRoute | AppScopes::AllApis => &self.all_apis,
        }
    }
}

fn flight(
    endpoint: Arc<TokenEndpoint>,
    scopes: ScopeSet,
) -> SingleFlight<AccessToken, EndpointFault> {
    SingleFlight::new(move || {
        let (endpoint, scopes) = (Arc::clone(&endpoint), scopes.clone());
        async move {
            match endpoint.client_credentials(&scopes).await {
                Ok(issued) => {
                    let life = issued.usable_until.duration_since(Instant::now());
                    Ok(Fresh::for_life(issued.token, life))
                }
                Err(fault) => Err(fault.into_failure()),
            }
        }
    })
}

#[cfg(test)]
mod tests;

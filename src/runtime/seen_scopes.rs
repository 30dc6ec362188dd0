//! Which scopes the verified tokens of each OAuth client have carried since the start.
//!
//! A scope that other users' tokens carry was declared and granted; a token without it then lacks only its user's consent. Fed by
//! `verifier.rs`, asked by `proxy/refusal.rs`. Decides nothing: what it does not know only makes a diagnosis less sharp.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::domain::identity::ClientId;
use crate::domain::scope::ScopeSet;
use crate::domain::token::VerifiedToken;

/// Clients that are kept apart. An app's users come through one.
pub const SEEN_CLIENTS_MAX: usize = 16;
/// Scopes that are remembered of each client. The platform knows some fifty.
pub const SEEN_SCOPES_MAX: usize = 128;

/// The scopes seen so far.
#[derive(Debug, Default)]
pub struct SeenScopes {
    by_client: RwLock<HashMap<Option<ClientId>, ScopeSet>>,
}

impl SeenScopes {
    /// Remembers what a token carries.
    pub fn note(&self, token: &VerifiedToken) {
        self.add(token.client_id(), token.scopes());
    }

    /// Everything that tokens of this client carried; tokens that name no client count as one.
    pub fn of(&self, client: Option<&ClientId>) -> ScopeSet {
        let seen = self.by_client.read();
        let seen = seen.unwrap_or_else(PoisonError::into_inner);
        seen.get(&client.cloned()).cloned().unwrap_or_default()
    }

    fn add(&self, client: Option<&ClientId>, scopes: &ScopeSet) {
        // Nearly every token brings nothing new.
        let known = self.of(client);
        if scopes.iter().all(|scope| known.covers(scope)) {
            return;
        }
        let seen = self.by_client.write();
        let mut seen = seen.unwrap_or_else(PoisonError::into_inner);
        let client = client.cloned();
        if seen.len() >= SEEN_CLIENTS_MAX && !seen.contains_key(&client) {
            return;
        }
        let known = seen.entry(client).or_default();
        let all = ScopeSet::new(known.iter().chain(scopes.iter()).cloned());
        if all.iter().count() <= SEEN_SCOPES_MAX {
            *known = all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> ScopeSet {
        ScopeSet::parse(text.split_whitespace())
    }

    fn client(name: &str) -> ClientId {
        ClientId::parse(name).unwrap()
    }

    #[test]
    fn what_tokens_of_a_client_carry_adds_up_and_stays_with_that_client() {
        let seen = SeenScopes::default();
        seen.add(Some(&client("app")), &set("sql:restricted-query"));
        seen.add(Some(&client("app")), &set("genie"));
        seen.add(Some(&client("app")), &set("sql"));
        seen.add(None, &set("files"));
        assert_eq!(seen.of(Some(&client("app"))), set("sql genie"));
        assert_eq!(seen.of(None), set("files"));
        assert!(seen.of(Some(&client("other"))).is_empty());
    }

    #[test]
    fn neither_clients_nor_scopes_grow_without_end() {
        let seen = SeenScopes::default();
        for n in 0..SEEN_CLIENTS_MAX + 5 {
            seen.add(Some(&client(&format!("client-{n}"))), &set("sql"));
        }
        let last = client(&format!("client-{}", SEEN_CLIENTS_MAX + 4));
        assert!(seen.of(Some(&last)).is_empty());
        let first = client("client-0");
        for n in 0..SEEN_SCOPES_MAX + 5 {
            seen.add(Some(&first), &set(&format!("scope-{n}")));
        }
        assert_eq!(seen.of(Some(&first)).iter().count(), SEEN_SCOPES_MAX);
    }
}

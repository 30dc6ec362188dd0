//! From a raw string to a proof: form, key, verification, and a memory of what was found genuine.
//!
//! Must not know headers or sessions. What is remembered is keyed by the SHA-256 of the whole string, and is checked
//! against the time and the present keys at every use; refusals are not remembered. Read `domain/token.rs` next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jsonwebtoken::Algorithm;

use super::key_store::{KeyStore, KeyStoreFault};
use super::metrics::Metrics;
use super::seen_scopes::SeenScopes;
use crate::domain::clock::{Clock, SignedDuration, Timestamp};
use crate::domain::secret::Digest;
use crate::domain::token::fault::TokenFault;
use crate::domain::token::{Expect, TOKEN_BYTES_MAX, UnverifiedToken, VerifiedToken, verify};

/// The most verified tokens that are remembered.
pub const REMEMBERED_TOKENS_MAX: usize = 4096;
/// The most bytes of raw tokens that are remembered: a token may be 24 KiB, a usual one is below 2 KiB.
pub const REMEMBERED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often tokens that are over are looked for and forgotten, at most.
const SWEEP_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// What the configuration says about tokens; the issuer comes with the keys.
#[derive(Debug, Clone)]
pub struct VerifierSettings {
    /// `users.audience`
    pub audiences: Vec<String>,
    /// `users.algorithms`
    pub algorithms: Vec<Algorithm>,
    /// Accepted `typ` values.
    pub types: Vec<String>,
    /// Tolerated difference of clocks.
    pub leeway: SignedDuration,
}

impl VerifierSettings {
    /// The defaults of [`Expect::new`] for these audiences.
    pub fn new(audiences: Vec<String>) -> Self {
        let defaults = Expect::new(String::new(), audiences);
        Self {
            audiences: defaults.audiences,
            algorithms: defaults.algorithms,
            types: defaults.types,
            leeway: defaults.leeway,
        }
    }

    fn expect(&self, issuer: &str) -> Expect {
        Expect {
            issuer: issuer.to_owned(),
            audiences: self.audiences.clone(),
            algorithms: self.algorithms.clone(),
            types: self.types.clone(),
            leeway: self.leeway,
        }
    }
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyFault {
    /// The token is to blame: 401.
    #[error(transparent)]
    Token(#[from] TokenFault),
    /// There are no keys to judge it by: 503.
    #[error(transparent)]
    Keys(#[from] KeyStoreFault),
}

impl VerifyFault {
    /// The stable code for log and metric: one of [`TokenFault::CODES`] or `keys_unavailable`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token(fault) => fault.code(),
            Self::Keys(KeyStoreFault::Unavailable(_)) => "keys_unavailable",
        }
    }
}

/// Verifies user tokens.
pub struct Verifier {
    settings: VerifierSettings,
    keys: KeyStore,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    expect: OnceLock<Expect>,
    remembered: Mutex<Remembered>,
    seen_scopes: SeenScopes,
}

impl Verifier {
    /// Verifies by the keys of this store.
    pub fn new(
        settings: VerifierSettings,
        keys: KeyStore,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let remembered = Mutex::new(Remembered {
            young: Generation::default(),
            old: Generation::default(),
            sweep_at: clock.now(),
        });
        Self {
            settings,
            keys,
            clock,
            metrics,
            expect: OnceLock::new(),
            remembered,
            seen_scopes: SeenScopes::default(),
        }
    }

    /// The proof for this string, the same for every request that carries it.
    ///
    /// # Errors
    /// [`VerifyFault`] says whether the token or the absence of keys is to blame.
    pub async fn verify(&self, raw: &str) -> Result<Arc<VerifiedToken>, VerifyFault> {
        let verdict = self.judge(raw).await;
        let result = match &verdict {
            Ok((_, result)) => result,
            Err(fault) => fault.code(),
        };
        self.metrics.verification(result);
        verdict.map(|(token, _)| token)
    }

    /// The keys that tokens are verified by.
    pub fn keys(&self) -> &KeyStore {
        &self.keys
    }

    /// What the tokens that were found genuine have carried.
    pub fn seen_scopes(&self) -> &SeenScopes {
        &self.seen_scopes
    }

    async fn judge(&self, raw: &str) -> Result<(Arc<VerifiedToken>, &'static str), VerifyFault> {
        if raw.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLarge.into());
        }
        let digest = Digest::of(&[raw.as_bytes()]);
        if let Some(token) = self.recall(&digest) {
            return Ok((token, "cached"));
        }
        let token = UnverifiedToken::parse(raw)?;
        let keys = self.keys.key_set(token.kid()).await?;
        let expect = self
            .expect
            .get_or_init(|| self.settings.expect(keys.issuer()));
        // The time is read after the wait for keys: the token may have ended meanwhile.
        let now = self.clock.now();
        let verified = Arc::new(verify(&token, &keys, expect, now)?);
        self.seen_scopes.note(&verified);
        let mut remembered = self.lock();
        remembered.sweep(now);
        remembered.insert(digest, Arc::clone(&verified));
        Ok((verified, "ok"))
    }

    /// A token seen before, unless its time or its key has gone; then it is judged anew, which tells what is wrong with it.
    fn recall(&self, digest: &Digest) -> Option<Arc<VerifiedToken>> {
        let keys = self.keys.known()?;
        let now = self.clock.now();
        let token = self.lock().get(digest)?;
        if token.recheck(&keys, now).is_ok() {
            return Some(token);
        }
        self.lock().remove(digest);
        None
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two generations of half the size each: what is used moves to the young one, and when that is full the old one goes. So
/// tokens in use stay, without a list to keep in order.
struct Remembered {
    young: Generation,
    old: Generation,
    sweep_at: Timestamp,
}

#[derive(Default)]
struct Generation {
    tokens: HashMap<Digest, Arc<VerifiedToken>>,
    bytes: usize,
}

impl Generation {
    fn is_full(&self) -> bool {
        self.tokens.len() >= REMEMBERED_TOKENS_MAX / 2 || self.bytes >= REMEMBERED_BYTES_MAX / 2
    }

    fn insert(&mut self, digest: Digest, token: Arc<VerifiedToken>) {
        self.bytes += token.bytes();
        if let Some(replaced) = self.tokens.insert(digest, token) {
            self.bytes -= replaced.bytes();
        }
    }

    fn remove(&mut self, digest: &Digest) -> Option<Arc<VerifiedToken>> {
        let token = self.tokens.remove(digest)?;
        self.bytes -= token.bytes();
        Some(token)
    }

    fn sweep(&mut self, now: Timestamp) {
        self.tokens
            .retain(|_, token| token.check_time(now) != Err(TokenFault::Expired));
        self.bytes = self.tokens.values().map(|token| token.bytes()).sum();
    }
}

impl Remembered {
    fn get(&mut self, digest: &Digest) -> Option<Arc<VerifiedToken>> {
        if let Some(token) = self.young.tokens.get(digest) {
            return Some(Arc::clone(token));
        }
        let token = self.old.remove(digest)?;
        self.insert(*digest, Arc::clone(&token));
        Some(token)
    }

    fn insert(&mut self, digest: Digest, token: Arc<VerifiedToken>) {
        if self.young.is_full() {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, token);
    }

    fn remove(&mut self, digest: &Digest) {
        self.young.remove(digest);
        self.old.remove(digest);
    }

    /// Tokens that are over leave the memory even if nobody presents them again.
    fn sweep(&mut self, now: Timestamp) {
        if now >= self.sweep_at {
            self.young.sweep(now);
            self.old.sweep(now);
            self.sweep_at = now.saturating_add(SWEEP_INTERVAL).unwrap_or(now);
        }
    }
}

#[cfg(test)]
mod tests;

//! Sessions: the local stand-ins for verified user tokens, and the local stand-in for the app.
//!
//! A session lives while a request that opened it is in flight, plus `linger`; never past the user token's end nor `ttl` after
//! its last use (PRODUCT 5.4). The table is keyed by the digest of what the agent holds, and what the agent holds is derived,
//! not stored: HMAC-SHA256 under a key of this process. Knows no HTTP. `inbound.rs` opens, `outbound.rs` looks up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::audit::User;
use crate::domain::clock::{Clock, Timestamp};
use crate::domain::identity::{ClientId, UserId};
use crate::domain::scope::ScopeSet;
use crate::domain::secret::{Digest, RandomUnavailable, Secret};
use crate::domain::token::VerifiedToken;

use self::lease::Lease;
use self::local_token::LocalTokens;
use super::metrics::Metrics;

pub mod lease;
mod local_token;

/// How long the agent is told that a local app token lives (PRODUCT 1). A new one is handed out every hour, and each is good
/// for two.
pub const APP_TOKEN_EXPIRES_IN: Duration = Duration::from_secs(3600);

/// What the agent holds for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionFormat {
    /// `vks_` and 256 bits.
    Opaque,
    /// A signed JWT, for agents that read claims.
    Jwt,
}

/// How long sessions live and how many there may be.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// After its last use a session ends at the latest then.
    pub ttl: Duration,
    /// How long a session outlives the last request that opened it.
    pub linger: Duration,
    /// What the agent holds.
    pub format: SessionFormat,
    /// The most live sessions.
    pub sessions_max: usize,
    /// The `iss` of session JWTs: the outbound listener's own origin.
    pub issuer: String,
}

/// Why no session was opened.
#[derive(Debug, thiserror::Error)]
pub enum SessionFault {
    /// `sessions_max` are live.
    #[error("the table of sessions is full")]
    Full,
    /// The session token could not be signed.
    #[error("the session token could not be made")]
    Sign,
}

/// One user's live session.
#[derive(Debug)]
pub struct Session {
    id: Uuid,
    label: Arc<str>,
    user: Arc<User>,
    subject: UserId,
    client: Option<ClientId>,
    /// What a session JWT says; what the session may do is in `state` and may have been narrowed since.
    granted: ScopeSet,
    in_flight: AtomicUsize,
    state: Mutex<State>,
    /// Cancelled when it is found to be over.
    ended: CancellationToken,
}

#[derive(Debug)]
struct State {
    token: Arc<VerifiedToken>,
    scopes: ScopeSet,
    /// The last sign of life: an inbound request, its end, or an outbound call.
    last_use: Instant,
    /// When the last inbound request ended; background work of the agent goes on until `linger` from here.
    released: Instant,
}

impl Session {
    /// The id as audit records spell it; tells nothing about the token.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// On whose behalf, as audit records say it.
    pub fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// The verified subject.
    pub fn subject(&self) -> &UserId {
        &self.subject
    }

    /// The downscoped set.
    pub fn scopes(&self) -> ScopeSet {
        self.state().scopes.clone()
    }

    /// The user's own token: the newest one that was verified for this user and client.
    pub fn token(&self) -> Arc<VerifiedToken> {
        Arc::clone(&self.state().token)
    }

    /// Cancelled when it is over, within a sweep of the moment: for what outlives a request.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_live(&self, now: Timestamp, settings: &SessionSettings) -> bool {
        let state = self.state();
        let held = self.in_flight.load(Ordering::Acquire) > 0
            || state.released.elapsed() < settings.linger;
        held && now < state.token.expires() && state.last_use.elapsed() < settings.ttl
    }
}

/// Who presented a local token.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The holder of a live session token.
    User(Arc<Session>),
    /// The holder of the local app token.
    App,
}

/// A session just opened (first sight of a user token) or found again.
#[derive(Debug)]
pub struct Opened {
    /// Keeps it alive.
    pub lease: Lease,
    /// What the agent gets.
    pub token: Secret,
    /// Whether this request opened it.
    pub fresh: bool,
}

/// All live sessions of this process.
pub struct SessionTable {
    settings: SessionSettings,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    local: LocalTokens,
    tables: RwLock<Tables>,
}

#[derive(Default)]
struct Tables {
    /// Digest of what the agent holds → session.
    by_local: HashMap<Digest, Arc<Session>>,
    /// Digest of the user token that opened it → the same session and its local digest.
    by_user_token: HashMap<Digest, (Arc<Session>, Digest)>,
}

impl SessionTable {
    /// An empty table with a key of its own.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(
        settings: SessionSettings,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Result<Self, RandomUnavailable> {
        let local = LocalTokens::new(settings.format, &settings.issuer)?;
        Ok(Self {
            settings,
            clock,
            metrics,
            local,
            tables: RwLock::default(),
        })
    }

    /// The session of a verified token: the one that this very token opened, or a new one. Every live session of the same user
    /// and client gets the newer token, so that a long stream outlives its first one.
    ///
    /// # Errors
    /// [`SessionFault`]: the table is full even after the dead are swept out.
    pub fn open(
        &self,
        token: &Arc<VerifiedToken>,
        scopes: &ScopeSet,
    ) -> Result<Opened, SessionFault> {
        let known = self.lease(&self.read(), token);
        if let Some(lease) = known {
            return self.found(lease, token);
        }
        self.sweep_if_full()?;
        let id = Uuid::now_v7();
        let session = Arc::new(Session {
            id,
            label: id.to_string().into(),
            user: Arc::new(User::of(token)),
            subject: token.subject().clone(),
            client: token.client_id().cloned(),
            granted: scopes.clone(),
            in_flight: AtomicUsize::new(0),
            state: Mutex::new(State {
                token: Arc::clone(token),
                scopes: scopes.clone(),
                last_use: Instant::now(),
                released: Instant::now(),
            }),
            ended: CancellationToken::new(),
        });
        let local = self.local.session_token(&session, token)?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        // Another request with this very token may have been faster.
        if let Some(lease) = self.lease(&tables, token) {
            return self.found(lease, token);
        }
        if tables.by_local.len() >= self.settings.sessions_max {
            return Err(SessionFault::Full);
        }
        let lease = Lease::new(Arc::clone(&session));
        for (other, _) in tables.by_user_token.values() {
            if other.subject == session.subject && other.client == session.client {
                let mut state = other.state();
                if state.token.expires() < token.expires() {
                    state.scopes = state.scopes.meet(scopes);
                    state.token = Arc::clone(token);
                }
            }
        }
        let digest = local.digest();
        tables.by_local.insert(digest, Arc::clone(&session));
        tables
            .by_user_token
            .insert(token.digest(), (session, digest));
        self.metrics.sessions(tables.by_local.len());
        self.metrics.session_opened();
        Ok(Opened {
            lease,
            token: local,
            fresh: true,
        })
    }

    /// Taken under the lock of the tables, so that no sweep comes between the look and the lease.
    fn lease(&self, tables: &Tables, token: &VerifiedToken) -> Option<Lease> {
        let (session, _) = tables.by_user_token.get(&token.digest())?;
        let live = session.is_live(self.clock.now(), &self.settings);
        live.then(|| Lease::new(Arc::clone(session)))
    }

    fn found(&self, lease: Lease, token: &VerifiedToken) -> Result<Opened, SessionFault> {
        Ok(Opened {
            token: self.local.session_token(lease.session(), token)?,
            lease,
            fresh: false,
        })
    }

    /// A live session by what the agent holds.
    pub fn find(&self, presented: &str) -> Option<Arc<Session>> {
        self.look_up(presented, |session| session)
    }

    /// A live session that came back from loopback, kept alive for that request too (PRODUCT 5.3).
    pub fn rejoin(&self, presented: &str) -> Option<Lease> {
        self.look_up(presented, Lease::new)
    }

    fn look_up<T>(&self, presented: &str, take: impl FnOnce(Arc<Session>) -> T) -> Option<T> {
        let digest = Digest::of(&[presented.as_bytes()]);
        let tables = self.read();
        let session = tables.by_local.get(&digest)?;
        let live = session.is_live(self.clock.now(), &self.settings);
        live.then(|| take(Arc::clone(session)))
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever presents this local token; `None` when it is neither a live session nor the app's.
    pub fn caller(&self, presented: &str) -> Option<Caller> {
        if LocalTokens::looks_like_app(presented) {
            return self.local.is_app(presented).then_some(Caller::App);
        }
        let session = self.find(presented)?;
        session.state().last_use = Instant::now();
        Some(Caller::User(session))
    }

    /// Whether some live session is one of these.
    pub fn serves(&self, is_meant: impl Fn(&Session) -> bool) -> bool {
        let now = self.clock.now();
        let tables = self.read();
        let mut sessions = tables.by_local.values();
        sessions.any(|session| session.is_live(now, &self.settings) && is_meant(session))
    }

    /// The local app token of this hour.
    pub fn app_token(&self) -> Secret {
        self.local.app_token()
    }

    /// Removes what has ended and returns it, for the audit log.
    pub fn sweep(&self) -> Vec<Arc<Session>> {
        let now = self.clock.now();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let mut ended = Vec::new();
        tables.by_local.retain(|_, session| {
            let live = session.is_live(now, &self.settings);
            if !live {
                session.ended.cancel();
                ended.push(Arc::clone(session));
            }
            live
        });
        let Tables {
            by_local,
            by_user_token,
        } = &mut *tables;
        by_user_token.retain(|_, (_, local)| by_local.contains_key(local));
        self.metrics.sessions(by_local.len());
        ended
    }

    /// Ends every session and returns them, for the audit log.
    pub fn end_all(&self) -> Vec<Arc<Session>> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.by_user_token.clear();
        self.metrics.sessions(0);
        tables
            .by_local
            .drain()
            .map(|(_, session)| session)
            .collect()
    }

    /// The number of sessions that have not been swept out.
    pub fn len(&self) -> usize {
        self.read().by_local.len()
    }

    /// Whether nobody has a session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The public key that session JWTs are signed with, as a JWKS document.
    pub fn jwks(&self) -> Option<&serde_json::Value> {
        self.local.jwks()
    }

    fn sweep_if_full(&self) -> Result<(), SessionFault> {
        if self.len() < self.settings.sessions_max {
            return Ok(());
        }
        self.sweep();
        if self.len() < self.settings.sessions_max {
            Ok(())
        } else {
            Err(SessionFault::Full)
        }
    }
}

#[cfg(test)]
mod tests;

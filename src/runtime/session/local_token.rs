//! What the agent holds: derived from a key of this process, so that nothing that is stored can be replayed.
//!
//! HMAC-SHA256 over the session's id, or over the hour for the app. Knows no table and no HTTP.

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::domain::secret::{RandomUnavailable, Secret};
use crate::domain::token::VerifiedToken;
use crate::runtime::session_jwt::SessionJwt;

use super::{APP_TOKEN_EXPIRES_IN, Session, SessionFault, SessionFormat};

const SESSION_PREFIX: &str = "vks_";
const APP_PREFIX: &str = "vka_";

/// The maker of local tokens.
pub(super) struct LocalTokens {
    key: hmac::Key,
    jwt: Option<SessionJwt>,
    started: Instant,
}

impl LocalTokens {
    /// With a fresh key.
    pub(super) fn new(format: SessionFormat, issuer: &str) -> Result<Self, RandomUnavailable> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| RandomUnavailable)?;
        let jwt = match format {
            SessionFormat::Opaque => None,
            SessionFormat::Jwt => Some(SessionJwt::new(issuer.to_owned())?),
        };
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()),
            jwt,
            started: Instant::now(),
        })
    }

    /// The stand-in for a user token.
    pub(super) fn session_token(
        &self,
        session: &Session,
        token: &VerifiedToken,
    ) -> Result<Secret, SessionFault> {
        match &self.jwt {
            None => Ok(self.derive(SESSION_PREFIX, &[b"session", session.id.as_bytes()])),
            Some(jwt) => jwt
                .sign(session.id, token, &session.granted)
                .map_err(|_| SessionFault::Sign),
        }
    }

    /// The stand-in for the app, of this hour.
    pub(super) fn app_token(&self) -> Secret {
        self.derive(APP_PREFIX, &[b"app", &self.epoch().to_be_bytes()])
    }

    /// Whether it has the form of an app token, alive or not.
    pub(super) fn looks_like_app(presented: &str) -> bool {
        presented.starts_with(APP_PREFIX)
    }

    /// Whether it is the app token of this hour or the last.
    pub(super) fn is_app(&self, presented: &str) -> bool {
        let epoch = self.epoch();
        [epoch, epoch.saturating_sub(1)].iter().any(|e| {
            self.derive(APP_PREFIX, &[b"app", &e.to_be_bytes()])
                .matches(presented.as_bytes())
        })
    }

    /// The public key of session JWTs, as a JWKS document.
    pub(super) fn jwks(&self) -> Option<&serde_json::Value> {
        self.jwt.as_ref().map(SessionJwt::jwks)
    }

    fn epoch(&self) -> u64 {
        self.started.elapsed().as_secs() / APP_TOKEN_EXPIRES_IN.as_secs()
    }

    fn derive(&self, prefix: &str, parts: &[&[u8]]) -> Secret {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut text = String::with_capacity(prefix.len() + 43);
        text.push_str(prefix);
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode_string(context.sign().as_ref(), &mut text);
        Secret::new(text)
    }
}

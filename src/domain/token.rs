//! User tokens: from an unbelieved string to a [`VerifiedToken`], whose only constructor is [`verify`].
//!
//! Pure: keys, expectations and the time are arguments. Must not know where keys come from, headers or sessions.
//! The library checks the signature and nothing else; it accepts too much of the rest (dependencies 6.3), so every header
//! member and claim is read strictly here. Read `token/claims.rs`,
//! `token/fault.rs` and `jwks.rs` next.
//!
//! ```
//! use valetkey::domain::clock::Timestamp;
//! use valetkey::domain::jwks::KeySet;
//! use valetkey::domain::token::fault::TokenFault;
//! use valetkey::domain::token::{Expect, UnverifiedToken, VerifiedToken, verify};
//! fn proof(token: &UnverifiedToken, keys: &KeySet, expect: &Expect) -> Result<VerifiedToken, TokenFault> {
//!     verify(token, keys, expect, Timestamp::UNIX_EPOCH)
//! }
//! ```
//!
//! Nothing outside can make one, not even from the parts of another:
//!
//! ```compile_fail
//! use valetkey::domain::clock::Timestamp;
//! use valetkey::domain::jwks::KeySet;
//! use valetkey::domain::token::fault::TokenFault;
//! use valetkey::domain::token::{Expect, UnverifiedToken, VerifiedToken, verify};
//! fn proof(token: &UnverifiedToken, keys: &KeySet, expect: &Expect) -> Result<VerifiedToken, TokenFault> {
//!     let other = verify(token, keys, expect, Timestamp::UNIX_EPOCH)?;
//!     Ok(VerifiedToken { valid_until: Timestamp::MAX, ..other })
//! }
//! ```

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use self::claims::Claims;
use self::fault::TokenFault;
use super::clock::{SignedDuration, Timestamp};
use super::identity::{ClientId, UserEmail, UserId};
use super::jwks::{KID_BYTES_MAX, KeySet};
use super::scope::ScopeSet;
use super::secret::{Digest, Secret};
use super::strict_json;

mod claims;
pub mod fault;
#[cfg(test)]
pub mod fixtures;

/// The longest token, in bytes (SECURITY R2).
pub const TOKEN_BYTES_MAX: usize = 24 * 1024;
/// The deepest nesting of header and claims (SECURITY R2).
pub const TOKEN_DEPTH_MAX: usize = 32;
/// The widest leeway that is granted whatever the configuration says (SECURITY R6).
pub const LEEWAY_MAX: SignedDuration = SignedDuration::from_secs(60);
/// The leeway without configuration (PRODUCT 5.2).
pub const LEEWAY_DEFAULT: SignedDuration = SignedDuration::from_secs(30);

/// A string of the right form. Nothing in it may be believed; only the key id may be used, to find a key.
pub struct UnverifiedToken {
    secret: Arc<Secret>,
    digest: Digest,
    algorithm: String,
    kid: String,
    kind: Option<String>,
    claims: Map<String, Value>,
}

impl UnverifiedToken {
    /// Reads the form: at most [`TOKEN_BYTES_MAX`], three parts, canonical unpadded base64url, strict JSON objects.
    ///
    /// `jwk`, `jku`, `x5u`, `x5c` and `x5t` are ignored and never fetched: keys come from the issuer alone.
    ///
    /// # Errors
    /// [`TokenFault`] for everything that can be refused without a key.
    pub fn parse(raw: &str) -> Result<Self, TokenFault> {
        if raw.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLarge);
        }
        let Some((message, signature)) = raw.rsplit_once('.') else {
            return Err(TokenFault::NotJwt);
        };
        let (header, claims) = message
            .split_once('.')
            .filter(|(_, claims)| !claims.contains('.'))
            .ok_or(TokenFault::Malformed("not three parts"))?;
        let header = object(
            header,
            "the header is not base64url of a strict JSON object",
        )?;
        let claims = object(
            claims,
            "the claims are not base64url of a strict JSON object",
        )?;
        if signature.is_empty() || URL_SAFE_NO_PAD.decode(signature).is_err() {
            return Err(TokenFault::Malformed("the signature is not base64url"));
        }
        // Each of these asks for processing that is not done here; passing over it would be another reading of the token.
        for member in ["crit", "b64", "zip", "cty", "enc"] {
            if header.contains_key(member) {
                return Err(TokenFault::BadHeader(member));
            }
        }
        let text = |member: &'static str| match header.get(member) {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(TokenFault::BadHeader(member)),
            None => Ok(None),
        };
        let kid = text("kid")?
            .filter(|kid| !kid.is_empty() && kid.len() <= KID_BYTES_MAX)
            .ok_or(TokenFault::BadHeader("kid"))?;
        let secret = Arc::new(Secret::new(raw.to_owned()));
        Ok(Self {
            digest: secret.digest(),
            secret,
            algorithm: text("alg")?.ok_or(TokenFault::BadHeader("alg"))?,
            kid,
            kind: text("typ")?,
            claims,
        })
    }

    /// Which key it says it was signed with.
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

impl fmt::Debug for UnverifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedToken")
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// What a token must be to be accepted.
#[derive(Debug, Clone)]
pub struct Expect {
    /// Compared as a whole, byte by byte.
    pub issuer: String,
    /// One of these must be an audience of the token; with none, nothing is accepted.
    pub audiences: Vec<String>,
    /// In order of preference: for an RSA key that names no algorithm, the first RSA one is the key's own.
    pub algorithms: Vec<Algorithm>,
    /// Accepted `typ` values; letter case and a leading `application/` do not matter.
    pub types: Vec<String>,
    /// Tolerated difference of clocks, at most [`LEEWAY_MAX`].
    pub leeway: SignedDuration,
}

impl Expect {
    /// The defaults: RS256 and ES256, `at+jwt` (RFC 9068, and what Databricks issues), 30 seconds.
    pub fn new(issuer: impl Into<String>, audiences: Vec<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audiences,
            algorithms: vec![Algorithm::RS256, Algorithm::ES256],
            types: vec!["at+jwt".into()],
            leeway: LEEWAY_DEFAULT,
        }
    }

    fn accepts_type(&self, kind: &str) -> bool {
        let kind = media_type(kind);
        self.types
            .iter()
            .any(|accepted| media_type(accepted) == kind)
    }
}

/// Checks everything: key and algorithm, signature, type, issuer, audience, time and the form of every claim that is used.
///
/// Nothing in the claims is looked at before the signature has been found right.
///
/// # Errors
/// [`TokenFault`] names the first check that failed.
pub fn verify(
    token: &UnverifiedToken,
    keys: &KeySet,
    expect: &Expect,
    now: Timestamp,
) -> Result<VerifiedToken, TokenFault> {
    let asked: Algorithm = token
        .algorithm
        .parse()
        .map_err(|_| TokenFault::BadAlgorithm)?;
    if !expect.algorithms.contains(&asked) {
        return Err(TokenFault::BadAlgorithm);
    }
    if **keys.issuer() != *expect.issuer {
        return Err(TokenFault::UnknownKey);
    }
    let key = keys.key(&token.kid, now).ok_or(TokenFault::UnknownKey)?;
    let own = key
        .algorithm(&expect.algorithms)
        .filter(|own| *own == asked)
        .ok_or(TokenFault::BadAlgorithm)?;
    let signed = token
        .secret
        .expose()
        .rsplit_once('.')
        .is_some_and(|(message, signature)| key.verifies(message.as_bytes(), signature, own));
    if !signed {
        return Err(TokenFault::BadSignature);
    }
    if !token
        .kind
        .as_deref()
        .is_some_and(|kind| expect.accepts_type(kind))
    {
        return Err(TokenFault::WrongType);
    }
    let mut claims = Claims::read(&token.claims, expect)?;
    let leeway = expect.leeway.clamp(SignedDuration::ZERO, LEEWAY_MAX);
    let valid_until = later(claims.expires, leeway);
    let starts = claims.not_before.max(claims.issued_at);
    let verified = VerifiedToken {
        valid_from: starts.map_or(Timestamp::MIN, |at| later(at, -leeway)),
        valid_until,
        kid: token.kid.clone(),
        key: key.print(),
        token_id: claims
            .token_id
            .take()
            .unwrap_or_else(|| token.digest.short()),
        claims,
        digest: token.digest,
        bytes: token.secret.expose().len(),
        secret: Arc::clone(&token.secret),
    };
    verified.check_time(now)?;
    Ok(verified)
}

/// A user token that was found genuine, meant for us, and in force. The proof that everything behind the listener asks for.
pub struct VerifiedToken {
    claims: Claims,
    token_id: String,
    valid_from: Timestamp,
    valid_until: Timestamp,
    kid: String,
    key: Digest,
    digest: Digest,
    bytes: usize,
    secret: Arc<Secret>,
}

impl VerifiedToken {
    /// The `sub` claim.
    pub fn subject(&self) -> &UserId {
        &self.claims.subject
    }

    /// The `email` claim unless it is said to be unverified, else the subject where that is an e-mail address.
    pub fn email(&self) -> Option<&UserEmail> {
        self.claims.email.as_ref()
    }

    /// The `name` claim, else `preferred_username`.
    pub fn name(&self) -> Option<&str> {
        self.claims.name.as_deref()
    }

    /// The OAuth client that the token was issued to: `client_id`, else `azp`.
    pub fn client_id(&self) -> Option<&ClientId> {
        self.claims.client_id.as_ref()
    }

    /// What the user consented to.
    pub fn scopes(&self) -> &ScopeSet {
        &self.claims.scopes
    }

    /// The `exp` claim; the leeway is not part of it.
    pub fn expires(&self) -> Timestamp {
        self.claims.expires
    }

    /// The `iat` claim.
    pub fn issued_at(&self) -> Option<Timestamp> {
        self.claims.issued_at
    }

    /// The `jti` claim, else the first digits of the digest.
    pub fn token_id(&self) -> &str {
        &self.token_id
    }

    /// Stands for the whole string.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The length of the token itself, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The token itself.
    pub fn secret(&self) -> &Arc<Secret> {
        &self.secret
    }

    /// Which key signed it.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Whether it would still be accepted: in force at `now`, and signed by a key that still counts.
    ///
    /// # Errors
    /// [`TokenFault`]: its time has come, or its key has left the set.
    pub fn recheck(&self, keys: &KeySet, now: Timestamp) -> Result<(), TokenFault> {
        self.check_time(now)?;
        keys.key(&self.kid, now)
            .filter(|key| key.print() == self.key)
            .map(|_| ())
            .ok_or(TokenFault::UnknownKey)
    }

    /// Whether it is in force at `now`. Valid from its start (less the leeway) up to, and not including, the second at which `exp` plus the leeway is
    /// reached: RFC 7519 4.1.4 wants the present to be before `exp`.
    ///
    /// # Errors
    /// [`TokenFault::Expired`] or [`TokenFault::NotYetValid`].
    pub fn check_time(&self, now: Timestamp) -> Result<(), TokenFault> {
        if now >= self.valid_until {
            Err(TokenFault::Expired)
        } else if now < self.valid_from {
            Err(TokenFault::NotYetValid)
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedToken")
            .field("subject", &self.claims.subject)
            .field("expires", &self.claims.expires)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

fn object(part: &str, fault: &'static str) -> Result<Map<String, Value>, TokenFault> {
    let bytes = URL_SAFE_NO_PAD.decode(part);
    let value = bytes
        .ok()
        .and_then(|bytes| strict_json::parse(&bytes, TOKEN_DEPTH_MAX).ok());
    match value {
        Some(Value::Object(object)) => Ok(object),
        Some(_) | None => Err(TokenFault::Malformed(fault)),
    }
}

/// RFC 7515 4.1.9: media types ignore letter case, and `application/` may be left out.
fn media_type(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match kind.strip_prefix("application/") {
        Some(short) if !short.contains('/') => short.to_owned(),
        Some(_) | None => kind,
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}

#[cfg(test)]
mod tests;

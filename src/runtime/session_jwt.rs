//! Session tokens as signed JWTs, for agents that read claims (`users.session.format: jwt`).
//!
//! Signed with an Ed25519 key of this process: signing is deterministic, so that one session has one token without storing it.
//! The issuer is the sidecar's own origin, never the workspace's: such a token is worth nothing anywhere else.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::scope::ScopeSet;
use crate::domain::secret::{Digest, RandomUnavailable, Secret};
use crate::domain::token::VerifiedToken;

/// The signing key and what agents need to verify with.
pub struct SessionJwt {
    issuer: String,
    kid: String,
    key: EncodingKey,
    jwks: Value,
}

impl SessionJwt {
    /// A key of this process.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(issuer: String) -> Result<Self, RandomUnavailable> {
        let pair = Ed25519KeyPair::generate().map_err(|_| RandomUnavailable)?;
        let document = pair.to_pkcs8().map_err(|_| RandomUnavailable)?;
        let public = pair.public_key().as_ref();
        let kid = Digest::of(&[public]).short();
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": URL_SAFE_NO_PAD.encode(public)}]});
        Ok(Self {
            issuer,
            kid,
            key: EncodingKey::from_ed_der(document.as_ref()),
            jwks,
        })
    }

    /// The token of one session: the same bytes each time it is asked for the same session.
    ///
    /// # Errors
    /// When the library refuses its own key.
    pub fn sign(
        &self,
        session: Uuid,
        token: &VerifiedToken,
        scopes: &ScopeSet,
    ) -> Result<Secret, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        let claims = json!({
            "iss": self.issuer,
            "aud": "agent",
            "sub": token.subject().as_str(),
            "email": token.email().map(|e| e.as_str()),
            "scope": scopes.to_string(),
            "exp": token.expires().as_second(),
            "jti": session.to_string(),
        });
        jsonwebtoken::encode(&header, &claims, &self.key).map(Secret::new)
    }

    /// The public key as a JWKS document (RFC 7517).
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }
}

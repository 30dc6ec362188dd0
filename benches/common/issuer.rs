//! An issuer for the benches: one RSA key as Databricks uses, its JWKS, and tokens in the form of the platform's.
//!
//! Makes keys and strings; answers no requests (`hop.rs` does) and verifies nothing.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use valetkey::domain::clock::Timestamp;

/// Whom the tokens are for.
pub const AUDIENCE: &str = "1234567890123456";
/// What they hold.
pub const SCOPES: &str = "files genie iam.current-user:read model-serving sql vector-search";
const KID: &str = "bench-1";

/// A key pair.
pub struct Issuer {
    pair: RsaKeyPair,
}

impl Issuer {
    /// A fresh 2048-bit key.
    pub fn new() -> Self {
        Self {
            pair: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
        }
    }

    /// Its public half as a JWKS document.
    pub fn jwks(&self) -> String {
        let key = self.pair.public_key();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (n, e) = (key.modulus(), key.exponent());
        json!({"keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KID,
            "n": part(n.big_endian_without_leading_zero()),
            "e": part(e.big_endian_without_leading_zero()),
        }]})
        .to_string()
    }

    /// An hour's token of one user.
    pub fn token(&self, issuer: &str, user: &str, now: Timestamp) -> String {
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let header = json!({"alg": "RS256", "kid": KID, "typ": "at+jwt"});
        let claims = json!({
            "iss": issuer, "aud": AUDIENCE, "sub": user, "client_id": "databricks-app", "scope": SCOPES,
            "iat": now.as_second(), "exp": now.as_second() + 3600, "jti": "3f2c1b9e-0000-4000-8000-000000000001",
        });
        let message = format!("{}.{}", part(header.to_string()), part(claims.to_string()));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message.as_bytes(),
                &mut signature,
            )
            .expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

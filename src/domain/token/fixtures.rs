//! An issuer for tests: keys made at run time, tokens as Databricks issues them, and verified ones for the rooms behind.
//!
//! Compiled for tests only. [`verified`] goes through [`verify`] like everybody: there is no second way to a proof.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Expect, UnverifiedToken, VerifiedToken, verify};
use crate::domain::clock::{SignedDuration, Timestamp};
use crate::domain::jwks::KeySet;

/// The issuer of every fixture.
pub const ISSUER: &str = "https://workspace.example.com/oidc";
/// The audience of every fixture: a workspace id.
pub const AUDIENCE: &str = "1234567890123456";
/// The present of every fixture, in seconds since the epoch.
pub const NOW: i64 = 1_800_000_000;

/// The present of every fixture.
pub fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// A key pair with a kid.
pub struct Signer {
    /// Its key id.
    pub kid: &'static str,
    /// The algorithm that [`Signer::token`] writes into the header.
    pub algorithm: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    /// A fresh P-256 key; cheap, unlike an RSA one.
    pub fn p256(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self {
            kid,
            algorithm: "ES256",
            pair: Pair::Ec(pair),
        }
    }

    /// A fresh P-384 key.
    pub fn p384(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self {
            kid,
            algorithm: "ES384",
            pair: Pair::Ec(pair),
        }
    }

    /// A fresh Ed25519 key.
    pub fn ed25519(kid: &'static str) -> Self {
        Self {
            kid,
            algorithm: "EdDSA",
            pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()),
        }
    }

    /// The public half as an issuer publishes it.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let (n, e) = rsa_components(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": b64(&n), "e": b64(&e)})
            }
            Pair::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Pair::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())})
            }
        };
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm.into();
        jwk
    }

    /// The signature over a message, by the algorithm named (which an RSA key may choose).
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    other => panic!("no RSA fixture signs with {other}"),
                };
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut bytes).unwrap();
                bytes
            }
            Pair::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The header of a genuine token.
    pub fn header(&self) -> Value {
        json!({"alg": self.algorithm, "kid": self.kid, "typ": "at+jwt"})
    }

    /// A genuine token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.seal(&self.header().to_string(), &claims.to_string())
    }

    /// A rightly signed token of any header and claims, JSON or not.
    pub fn seal(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let algorithm = serde_json::from_str::<Value>(header)
            .ok()
            .and_then(|header| Some(header.get("alg")?.as_str()?.to_owned()))
            .filter(|algorithm| matches!(&self.pair, Pair::Rsa(_)) && algorithm.len() == 5)
            .filter(|algorithm| algorithm.starts_with("RS") || algorithm == "PS256")
            .unwrap_or_else(|| self.algorithm.to_owned());
        let signature = self.sign(&algorithm, message.as_bytes());
        format!("{message}.{}", b64(&signature))
    }
}

/// The RSA key of the fixtures, made once: generation takes long.
pub fn rsa() -> &'static Signer {
    static KEY: OnceLock<Signer> = OnceLock::new();
    KEY.get_or_init(|| Signer {
        kid: "rsa-1",
        algorithm: "RS256",
        pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
    })
}

/// The P-256 key of the fixtures.
pub fn ec() -> &'static Signer {
    static KEY: OnceLock<Signer> = OnceLock::new();
    KEY.get_or_init(|| Signer::p256("ec-1"))
}

/// The document that publishes these keys.
pub fn document(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

/// [`rsa`] and [`ec`], as the store would hold them.
pub fn keys() -> Arc<KeySet> {
    let body = document(&[rsa().jwk(), ec().jwk()]);
    Arc::new(KeySet::from_jwks(ISSUER, &body).unwrap())
}

/// What the fixtures are verified against.
pub fn expect() -> Expect {
    Expect::new(ISSUER, vec![AUDIENCE.into()])
}

/// The claims of a workspace's access token (facts 2.1).
pub fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice@example.com",
        "client_id": "databricks-app",
        "scope": "genie iam.access-control:read iam.current-user:read",
        "iat": NOW - 60,
        "exp": NOW + 3540,
        "jti": "3f2c1b9e-0000-4000-8000-000000000001",
    })
}

/// A verified token of this user with these scopes that ends `life` after [`now`].
pub fn verified(subject: &str, scopes: &str, life: SignedDuration) -> VerifiedToken {
    let mut claims = claims();
    claims["sub"] = subject.into();
    claims["scope"] = scopes.into();
    claims["exp"] = (NOW + life.as_secs()).into();
    let token = UnverifiedToken::parse(&ec().token(&claims)).unwrap();
    verify(&token, &keys(), &expect(), now()).unwrap()
}

/// Base64url without padding.
pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Modulus and exponent out of `SEQUENCE { INTEGER n, INTEGER e }`.
fn rsa_components(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, at) = match der[1] {
            0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
            0x81 => (usize::from(der[2]), 3),
            short => (usize::from(short), 2),
        };
        der[at..].split_at(length)
    }
    let (sequence, _) = element(der);
    let (n, rest) = element(sequence);
    let (e, _) = element(rest);
    let plain = |integer: &[u8]| integer[usize::from(integer[0] == 0)..].to_vec();
    (plain(n), plain(e))
}

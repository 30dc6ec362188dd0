//! The issuer's published keys (RFC 7517), reduced to those a token may be verified with (SECURITY R3, R4).
//!
//! Knows nothing of where a key set comes from, nor of claims. The algorithm is a property of the key: a token that names
//! another one is refused, it never chooses. Read `token.rs` next, and `runtime/key_store.rs` for the life of a set.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::clock::{SignedDuration, Timestamp};
use super::secret::Digest;
use super::strict_json;

/// The most keys a set holds; what a document publishes beyond that is left out. Issuers publish two or three.
pub const KEYS_MAX: usize = 100;
/// The longest key id, in bytes; Databricks uses 64 hex digits.
pub const KID_BYTES_MAX: usize = 512;
/// The shortest RSA modulus, in bits.
pub const RSA_BITS_MIN: usize = 2048;
/// The longest RSA modulus, in bits: the library verifies no longer one, and the time grows with the square.
pub const RSA_BITS_MAX: usize = 8192;
const KEY_DEPTH_MAX: usize = 8;

/// Why a document is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksFault {
    /// Not a JSON object with an array `keys`.
    #[error("is not a JSON object with an array `keys`")]
    NotAKeySet,
    /// A key set, but nothing in it can verify a token.
    #[error(
        "holds no usable key among {offered} (needed: RSA of 2048 bits or more, P-256, P-384 or Ed25519, for signatures, with a kid)"
    )]
    NoUsableKey {
        /// The number of entries it has.
        offered: usize,
    },
}

/// The usable keys of one issuer, by kid.
pub struct KeySet {
    issuer: Arc<str>,
    keys: HashMap<String, Key>,
}

/// One usable key. The decoding key is built here, once per refresh.
#[derive(Clone)]
pub(super) struct Key {
    family: AlgorithmFamily,
    /// `None` for an RSA key that names no algorithm: the configuration decides then.
    own: Option<Algorithm>,
    decoding: DecodingKey,
    print: Digest,
    /// Set once the issuer has stopped publishing the key.
    ends: Option<Timestamp>,
}

impl Key {
    /// The one algorithm this key verifies with, given what the configuration allows; never what a token asks for.
    pub(super) fn algorithm(&self, allowed: &[Algorithm]) -> Option<Algorithm> {
        match self.own {
            Some(own) => allowed.contains(&own).then_some(own),
            // RFC 8725 3.1: one key, one algorithm. The first of its family on the list is that one.
            None => allowed
                .iter()
                .copied()
                .find(|algorithm| family(*algorithm) == Some(self.family)),
        }
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.decoding, algorithm).unwrap_or(false)
    }

    /// Stands for the key's material: two keys with one kid differ in it.
    pub(super) fn print(&self) -> Digest {
        self.print
    }
}

impl KeySet {
    /// Reads a key set document. An entry that cannot be used is left out and harms no other.
    ///
    /// A kid that stands for two different keys is left out altogether: readers differ in which of the two they take, and
    /// a guess here would be a guess about who signed. The same key listed twice counts once.
    ///
    /// # Errors
    /// [`JwksFault`] when it is no key set or nothing in it is usable, so that a bad answer never replaces good keys.
    pub fn from_jwks(issuer: &str, body: &[u8]) -> Result<Self, JwksFault> {
        #[derive(serde::Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        // Entries stay raw here, so that a duplicate or an oddity in one of them voids that one alone.
        let document: Document<'_> =
            serde_json::from_slice(body).map_err(|_| JwksFault::NotAKeySet)?;
        let mut keys: HashMap<String, Key> = HashMap::new();
        let mut ambiguous = Vec::new();
        for entry in &document.keys {
            let Some((kid, key)) = usable(entry.get()) else {
                continue;
            };
            let room = keys.len() < KEYS_MAX;
            match keys.entry(kid) {
                Entry::Occupied(known)
                    if (known.get().print, known.get().own) != (key.print, key.own) =>
                {
                    ambiguous.push(known.key().clone());
                }
                Entry::Vacant(free) if room => {
                    free.insert(key);
                }
                Entry::Occupied(_) | Entry::Vacant(_) => {}
            }
        }
        keys.retain(|kid, _| !ambiguous.contains(kid));
        if keys.is_empty() {
            return Err(JwksFault::NoUsableKey {
                offered: document.keys.len(),
            });
        }
        Ok(Self {
            issuer: issuer.into(),
            keys,
        })
    }

    /// Takes over the keys of the set before this one that are no longer published, each until `age_max` after it was last
    /// seen published: at `seen`, or earlier if it was carried over before. So a fetch that hit a lagging replica refuses
    /// nobody, and a withdrawn key ends in bounded time (SECURITY T33).
    #[must_use]
    pub fn succeeding(mut self, older: &Self, seen: Timestamp, age_max: SignedDuration) -> Self {
        if self.issuer != older.issuer {
            return self;
        }
        for (kid, key) in &older.keys {
            let over = key.ends.is_some_and(|ends| ends <= seen);
            if over || self.keys.len() >= KEYS_MAX {
                continue;
            }
            if let Entry::Vacant(free) = self.keys.entry(kid.clone()) {
                let ends = key
                    .ends
                    .unwrap_or_else(|| seen.saturating_add(age_max).unwrap_or(Timestamp::MIN));
                free.insert(Key {
                    ends: Some(ends),
                    ..key.clone()
                });
            }
        }
        self
    }

    /// Whose keys these are.
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// Whether a token under this kid can be verified at `now`.
    pub fn holds(&self, kid: &str, now: Timestamp) -> bool {
        self.key(kid, now).is_some()
    }

    /// The number of keys that live at `now`.
    pub fn live(&self, now: Timestamp) -> usize {
        self.keys.values().filter(|key| lives(key, now)).count()
    }

    pub(super) fn key(&self, kid: &str, now: Timestamp) -> Option<&Key> {
        self.keys.get(kid).filter(|key| lives(key, now))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("issuer", &self.issuer)
            .field("keys", &self.keys.len())
            .finish()
    }
}

fn lives(key: &Key, now: Timestamp) -> bool {
    key.ends.is_none_or(|ends| now < ends)
}

/// The family of an algorithm that works with a public key; `None` for shared secrets and whatever the library adds.
fn family(algorithm: Algorithm) -> Option<AlgorithmFamily> {
    match algorithm {
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => Some(AlgorithmFamily::Rsa),
        Algorithm::ES256 | Algorithm::ES384 => Some(AlgorithmFamily::Ec),
        Algorithm::EdDSA => Some(AlgorithmFamily::Ed),
        _ => None,
    }
}

/// One entry of `keys`, if it may verify signatures and says so consistently.
fn usable(entry: &str) -> Option<(String, Key)> {
    let Value::Object(jwk) = strict_json::parse(entry.as_bytes(), KEY_DEPTH_MAX).ok()? else {
        return None;
    };
    let kid = text(&jwk, "kid").filter(|kid| !kid.is_empty() && kid.len() <= KID_BYTES_MAX)?;
    let for_signatures = jwk.get("use").is_none_or(|value| value == "sig");
    let may_verify = jwk.get("key_ops").is_none_or(|value| {
        value
            .as_array()
            .is_some_and(|list| list.iter().any(|item| item == "verify"))
    });
    if !for_signatures || !may_verify {
        return None;
    }
    let mut key = match text(&jwk, "kty")? {
        "RSA" => rsa(&jwk)?,
        "EC" => elliptic(&jwk)?,
        "OKP" => edwards(&jwk)?,
        _ => return None,
    };
    if let Some(named) = jwk.get("alg") {
        let named: Algorithm = named.as_str()?.parse().ok()?;
        let fits = match key.own {
            Some(own) => own == named,
            None => family(named) == Some(key.family),
        };
        if !fits {
            return None;
        }
        key.own = Some(named);
    }
    Some((kid.to_owned(), key))
}

fn rsa(jwk: &Map<String, Value>) -> Option<Key> {
    let (modulus, exponent) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    let (modulus, exponent) = (unsigned(&modulus), unsigned(&exponent));
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
    // An exponent of one makes every signature valid, an even one is no RSA, a long one only costs time.
    let sound_exponent =
        exponent != [1] && exponent.last()? % 2 == 1 && exponent.len() <= size_of::<u32>();
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) || !sound_exponent {
        return None;
    }
    Some(Key {
        family: AlgorithmFamily::Rsa,
        own: None,
        decoding: DecodingKey::from_rsa_raw_components(modulus, exponent),
        print: Digest::of(&[b"RSA", modulus, exponent]),
        ends: None,
    })
}

fn elliptic(jwk: &Map<String, Value>) -> Option<Key> {
    let (own, length, check): (_, _, &'static dyn VerificationAlgorithm) = match text(jwk, "crv")? {
        "P-256" => (Algorithm::ES256, 32, &signature::ECDSA_P256_SHA256_FIXED),
        "P-384" => (Algorithm::ES384, 48, &signature::ECDSA_P384_SHA384_FIXED),
        _ => return None,
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != length || y.len() != length {
        return None;
    }
    let point = [[4].as_slice(), &x, &y].concat();
    ParsedPublicKey::new(check, &point).ok()?;
    Some(Key {
        family: AlgorithmFamily::Ec,
        own: Some(own),
        decoding: DecodingKey::from_ec_der(&point),
        print: Digest::of(&[b"EC", &point]),
        ends: None,
    })
}

fn edwards(jwk: &Map<String, Value>) -> Option<Key> {
    let point = (text(jwk, "crv")? == "Ed25519").then(|| bytes(jwk, "x"))??;
    ParsedPublicKey::new(&signature::ED25519, &point).ok()?;
    Some(Key {
        family: AlgorithmFamily::Ed,
        own: Some(Algorithm::EdDSA),
        decoding: DecodingKey::from_ed_der(&point),
        print: Digest::of(&[b"OKP", &point]),
        ends: None,
    })
}

fn text<'a>(jwk: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    jwk.get(member)?.as_str()
}

fn bytes(jwk: &Map<String, Value>, member: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(jwk, member)?).ok()
}

/// Without the leading zeros that some issuers write and the library refuses.
fn unsigned(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests;

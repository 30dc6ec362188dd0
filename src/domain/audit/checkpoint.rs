//! Signed checkpoints: who held the log at this place, sealed so that rewriting what came before needs the key too.
//!
//! A checkpoint is a record of the chain. It states the head before it (which is also its `prev`), how many records the log
//! has had, and an Ed25519 signature over both. Knows no files: `runtime/audit_key.rs` reads the key, `verify.rs` asks for proof.
//!
//! # What is signed, for auditors
//!
//! The text `valetkey audit checkpoint v1`, the number of records and the head's hash, each with a line feed behind it:
//! `printf 'valetkey audit checkpoint v1\n%s\n%s\n' "$records" "$head"`. The first line keeps a signature from meaning
//! anything else. `key_id` is the first 16 digits of the SHA-256 of the 32 bytes of the public key.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::chain::{Hash, Link, hex_bytes};
use super::json::push_hex;

/// The first line of what is signed.
const DOMAIN: &str = "valetkey audit checkpoint v1";
/// What stands before the 32 bytes of an Ed25519 key in a `SubjectPublicKeyInfo` (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Whom a checkpoint is from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex_bytes(text).map(Self)
    }

    /// Reads what `openssl pkey -pubout` writes.
    pub fn from_pem(text: &str) -> Option<Self> {
        let der = pem(text, "PUBLIC KEY")?;
        let key = der.strip_prefix(&SPKI_PREFIX)?;
        key.try_into().ok().map(Self)
    }

    /// Its short name.
    pub fn id(&self) -> String {
        let digest = Hash::of(&self.0).to_string();
        digest.get(..16).unwrap_or_default().to_owned()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The key that signs. There is no way out of here for it.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// Why a key is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Not what was expected.
    #[error("it holds no Ed25519 private key in PKCS#8, PEM or DER")]
    Unreadable,
    /// No random bytes.
    #[error("no key can be made")]
    NotMade,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id())
    }
}

impl SigningKey {
    /// A key of this process alone.
    ///
    /// # Errors
    /// [`KeyFault::NotMade`].
    pub fn generate() -> Result<Self, KeyFault> {
        Self::of(Ed25519KeyPair::generate().map_err(|_| KeyFault::NotMade)?)
    }

    /// Reads PKCS#8, as PEM or DER: what `openssl genpkey -algorithm ed25519` writes.
    ///
    /// # Errors
    /// [`KeyFault::Unreadable`].
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyFault> {
        let text = std::str::from_utf8(bytes).ok();
        let pem = text.and_then(|text| pem(text, "PRIVATE KEY"));
        let pem = pem.map(zeroize::Zeroizing::new);
        let der = pem.as_ref().map_or(bytes, |der| der.as_slice());
        let pair =
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyFault::Unreadable)?;
        Self::of(pair)
    }

    fn of(pair: Ed25519KeyPair) -> Result<Self, KeyFault> {
        let public = pair.public_key().as_ref().try_into();
        let public = PublicKey(public.map_err(|_| KeyFault::Unreadable)?);
        Ok(Self { pair, public })
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Vouches for everything up to `head`.
    pub fn sign(&self, head: Link) -> Checkpoint {
        let mut signature = [0; 64];
        let signed = self.pair.sign(message(head).as_bytes());
        signature.copy_from_slice(signed.as_ref());
        Checkpoint {
            head,
            key: self.public,
            signature,
        }
    }
}

/// What a checkpoint states.
#[derive(Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The record before it.
    pub head: Link,
    /// By whom.
    pub key: PublicKey,
    signature: [u8; 64],
}

impl Checkpoint {
    /// A statement read back from a line; `None` if something has no right form.
    pub fn parse(records: u64, head: &str, key: &str, signature: &str) -> Option<Self> {
        Some(Self {
            head: Link {
                seq: records,
                hash: Hash::parse(head)?,
            },
            key: PublicKey::parse(key)?,
            signature: hex_bytes(signature)?,
        })
    }

    /// Whether the key it names has signed what it says.
    pub fn is_signed(&self) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key.0)
            .verify(message(self.head).as_bytes(), &self.signature)
            .is_ok()
    }

    /// Of 64 bytes, 128 digits.
    pub fn signature(&self) -> String {
        hex(&self.signature)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({:?} by {})", self.head, self.key.id())
    }
}

fn message(head: Link) -> String {
    format!("{DOMAIN}\n{}\n{}\n", head.seq, head.hash)
}

fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    push_hex(&mut out, bytes);
    String::from_utf8(out).unwrap_or_default()
}

fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD
        .decode(zeroize::Zeroizing::new(body).as_bytes())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `openssl genpkey -algorithm ed25519`; signs nothing but these tests.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIBrqF9I8beqO16vVtyfxFwEhm/XJj8t0iNUaV9Y1qkEh
-----END PRIVATE KEY-----
";
    /// By `openssl pkey -pubout`.
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAOVxzeojSZXJAAMVe1aKHO+dbOG2Y5FtjFaULYoBprds=
-----END PUBLIC KEY-----
";

    #[test]
    fn a_key_that_openssl_wrote_signs_and_its_public_half_reads_back() {
        let key = SigningKey::from_pkcs8(PRIVATE.as_bytes()).unwrap();
        let der = pem(PRIVATE, "PRIVATE KEY").unwrap();
        assert_eq!(SigningKey::from_pkcs8(&der).unwrap().public(), key.public());
        assert_eq!(PublicKey::from_pem(PUBLIC), Some(key.public()));
        assert_eq!(
            PublicKey::parse(&key.public().to_string()),
            Some(key.public())
        );
        assert_eq!(key.public().id().len(), 16);
    }

    #[test]
    fn only_what_was_signed_verifies() {
        let (key, other) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let head = Link {
            seq: 7,
            hash: Hash::of(b"x"),
        };
        let good = key.sign(head);
        assert!(good.is_signed());
        let read = |c: &Checkpoint| {
            Checkpoint::parse(
                c.head.seq,
                &c.head.hash.to_string(),
                &c.key.to_string(),
                &c.signature(),
            )
        };
        assert_eq!(read(&good), Some(good.clone()));
        let mut moved = good.clone();
        moved.head.seq = 8;
        let mut rewritten = good.clone();
        rewritten.head.hash = Hash::of(b"y");
        let mut foreign = good.clone();
        foreign.key = other.public();
        let mut flipped = good;
        flipped.signature[0] ^= 1;
        for forged in [moved, rewritten, foreign, flipped] {
            assert!(!forged.is_signed(), "{forged:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----",
            "0123",
            PRIVATE.get(..60).unwrap(),
        ] {
            assert_eq!(
                SigningKey::from_pkcs8(text.as_bytes()).err(),
                Some(KeyFault::Unreadable)
            );
        }
        assert_eq!(PublicKey::from_pem(PRIVATE), None);
        assert_eq!(PublicKey::parse("00"), None);
    }
}

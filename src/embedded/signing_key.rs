//! One RSA key of the embedded issuer: its published half, its signatures, and the compact form they go into.
//!
//! Signs with aws-lc directly: the library that verifies in production must not be the one that makes what it verifies.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use aws_lc_rs::{digest, rand, rsa, signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::control::lock;

/// One RSA key with its published half.
pub(super) struct SigningKey {
    pub(super) kid: String,
    pub(super) jwk: Value,
    pair: rsa::KeyPair,
}

impl SigningKey {
    /// The n-th key of this process. Making one takes a noticeable part of a second, and a test run starts many
    /// workspaces; their tokens still differ by issuer.
    pub(super) async fn of_process(index: usize) -> io::Result<Arc<Self>> {
        static MADE: OnceLock<Mutex<Vec<Arc<SigningKey>>>> = OnceLock::new();
        tokio::task::spawn_blocking(move || {
            let mut made = lock(MADE.get_or_init(Mutex::default));
            while made.len() <= index {
                made.push(Arc::new(Self::generate()?));
            }
            made.get(index).cloned().ok_or_else(failed)
        })
        .await
        .map_err(|_| failed())?
    }

    pub(super) fn generate() -> io::Result<Self> {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(|_| failed())?;
        let public = pair.public_key().as_ref();
        let (modulus, exponent) = public_numbers(public).ok_or_else(failed)?;
        // 64 hex digits, as the platform's key ids have.
        let kid = hex(digest::digest(&digest::SHA256, public).as_ref());
        let jwk = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent),
        });
        Ok(Self { kid, pair, jwk })
    }

    pub(super) fn renamed(mut self, kid: &str) -> Self {
        kid.clone_into(&mut self.kid);
        self
    }

    pub(super) fn header(&self) -> Value {
        json!({ "typ": "at+jwt", "alg": "RS256", "kid": self.kid })
    }

    pub(super) fn sign(&self, head: &Value, claims: &Value) -> String {
        let input = signing_input(head, claims);
        let signed = URL_SAFE_NO_PAD.encode(self.raw_signature(input.as_bytes()));
        format!("{input}.{signed}")
    }

    /// The public half, as PKCS#1.
    pub(super) fn public_der(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// Something if the signature is this key's.
    pub(super) fn verify(&self, input: &[u8], signed: &[u8]) -> Option<()> {
        signature::UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.public_der())
            .verify(input, signed)
            .ok()
    }

    /// Empty only if the crypto library fails, and then nothing will accept it.
    pub(super) fn raw_signature(&self, input: &[u8]) -> Vec<u8> {
        let mut out = vec![0; self.pair.public_modulus_len()];
        let random = rand::SystemRandom::new();
        match self.pair.sign(&RSA_PKCS1_SHA256, &random, input, &mut out) {
            Ok(()) => out,
            Err(_) => Vec::new(),
        }
    }
}

/// The first two parts of a compact token.
pub(super) fn signing_input(head: &Value, claims: &Value) -> String {
    let head = URL_SAFE_NO_PAD.encode(head.to_string());
    format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn failed() -> io::Error {
    io::Error::other("the crypto library could not make an RSA key")
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Modulus and exponent out of a PKCS#1 public key: a sequence of two integers.
fn public_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = der_value(der, 0x30)?;
    let (modulus, rest) = der_value(sequence, 0x02)?;
    let (exponent, _) = der_value(rest, 0x02)?;
    Some((strip_sign(modulus), strip_sign(exponent)))
}

fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_at_checked(2)?;
    let &[found, first] = head else { return None };
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(usize::from(first));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
    let length = length.iter().try_fold(0usize, |sum, b| {
        Some(sum.checked_mul(256)? + usize::from(*b))
    })?;
    rest.split_at_checked(length)
}

fn strip_sign(number: &[u8]) -> &[u8] {
    number.strip_prefix(&[0]).unwrap_or(number)
}

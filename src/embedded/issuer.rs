//! The issuer's keys and tokens: makes them, signs them, and says whether a presented one is good.
//!
//! Signs with aws-lc directly: the library that verifies in production must not be the one that makes what it verifies.
//! Knows nothing of HTTP; `oidc.rs` serves what is here.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use aws_lc_rs::{digest, hmac, rand, rsa, signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::control::lock;
use crate::domain::clock::Clock;
use crate::domain::scope::ScopeSet;

/// App tokens remembered so that they can be revoked together.
const APP_TOKENS_KEPT_MAX: usize = 4096;

/// Which key signs a hand-made token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignWith {
    /// The key now published.
    Current,
    /// The key of before the last rotation (the current one where there was none).
    Previous,
    /// A key that was never published, under the current `kid`.
    Stranger,
    /// HMAC with the public key as secret: the classic confusion of algorithms.
    PublicKeyAsHmac,
    /// No signature.
    Nothing,
}

/// What a good token says.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) subject: String,
    pub(super) scopes: ScopeSet,
    pub(super) expires_at: i64,
}

/// Makes and checks tokens.
pub(super) struct Issuer {
    pub(super) url: String,
    pub(super) workspace_id: String,
    pub(super) clock: Arc<dyn Clock>,
    keys: Mutex<Keys>,
    app_tokens: Mutex<AppTokens>,
}

struct Keys {
    current: Arc<SigningKey>,
    previous: Option<Arc<SigningKey>>,
    /// Published and accepted, newest first.
    published: Vec<Arc<SigningKey>>,
    rotations: usize,
}

#[derive(Default)]
struct AppTokens {
    live: VecDeque<String>,
    revoked: BTreeMap<String, ()>,
}

impl Issuer {
    /// An issuer with its first key.
    pub(super) async fn start(
        origin: &str,
        workspace_id: &str,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let first = SigningKey::of_process(0).await?;
        Ok(Self {
            url: format!("{origin}/oidc"),
            workspace_id: workspace_id.to_owned(),
            clock,
            keys: Mutex::new(Keys {
                current: Arc::clone(&first),
                previous: None,
                published: vec![first],
                rotations: 0,
            }),
            app_tokens: Mutex::default(),
        })
    }

    /// Replaces the signing key. Keeping the old one means that its tokens stay good.
    pub(super) async fn rotate(&self, keep_old: bool) -> io::Result<()> {
        let next = lock(&self.keys).rotations + 1;
        let fresh = SigningKey::of_process(next).await?;
        let mut keys = lock(&self.keys);
        keys.rotations = next;
        keys.previous = Some(Arc::clone(&keys.current));
        keys.current = Arc::clone(&fresh);
        if !keep_old {
            keys.published.clear();
        }
        keys.published.insert(0, fresh);
        Ok(())
    }

    /// Withdraws every key but the current one.
    pub(super) fn withdraw_old_keys(&self) {
        lock(&self.keys).published.truncate(1);
    }

    /// The key set as published.
    pub(super) fn key_set(&self) -> Value {
        let keys = lock(&self.keys);
        json!({ "keys": keys.published.iter().map(|k| &k.jwk).collect::<Vec<_>>() })
    }

    /// A token in the platform's shape (facts 2.1). Returns it with the seconds it lives.
    pub(super) fn mint(&self, subject: &str, client: &str, scope: &str, life: Duration) -> String {
        let now = self.clock.now().as_second();
        let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX / 4);
        self.sign_claims(&self.claims(subject, client, scope, now, now.saturating_add(life)))
    }

    /// The claims of an access token.
    pub(super) fn claims(
        &self,
        subject: &str,
        client: &str,
        scope: &str,
        issued_at: i64,
        expires_at: i64,
    ) -> Value {
        json!({
            "iss": self.url,
            "aud": self.workspace_id,
            "sub": subject,
            "client_id": client,
            "scope": scope,
            "iat": issued_at,
            "exp": expires_at,
            "jti": uuid::Uuid::now_v7().to_string(),
        })
    }

    /// Signs claims with the current key.
    pub(super) fn sign_claims(&self, claims: &Value) -> String {
        let key = Arc::clone(&lock(&self.keys).current);
        key.sign(&key.header(), claims)
    }

    /// Remembers an app token, so that [`Issuer::revoke_app_tokens`] finds it.
    pub(super) fn remember_app_token(&self, claims: &Value) {
        let Some(id) = claims.get("jti").and_then(Value::as_str) else {
            return;
        };
        let mut tokens = lock(&self.app_tokens);
        tokens.live.push_back(id.to_owned());
        if tokens.live.len() > APP_TOKENS_KEPT_MAX {
            tokens.live.pop_front();
        }
    }

    /// Makes every app token issued so far invalid; returns how many.
    pub(super) fn revoke_app_tokens(&self) -> usize {
        let mut tokens = lock(&self.app_tokens);
        let live = std::mem::take(&mut tokens.live);
        let count = live.len();
        tokens.revoked.extend(live.into_iter().map(|id| (id, ())));
        while tokens.revoked.len() > APP_TOKENS_KEPT_MAX {
            tokens.revoked.pop_first();
        }
        count
    }

    /// A token of any shape, for hostile tests. Members of `header` replace the usual ones; `null` removes one.
    pub(super) fn forge(
        &self,
        claims: &Value,
        header: &Value,
        with: SignWith,
    ) -> io::Result<String> {
        let (current, previous) = {
            let keys = lock(&self.keys);
            let previous = keys.previous.clone();
            (Arc::clone(&keys.current), previous)
        };
        let key = match with {
            SignWith::Previous => previous.unwrap_or(current),
            SignWith::Stranger => Arc::new(SigningKey::generate()?.renamed(&current.kid)),
            SignWith::Current | SignWith::PublicKeyAsHmac | SignWith::Nothing => current,
        };
        let mut head = key.header();
        match with {
            SignWith::PublicKeyAsHmac => set_member(&mut head, "alg", &json!("HS256")),
            SignWith::Nothing => set_member(&mut head, "alg", &json!("none")),
            SignWith::Current | SignWith::Previous | SignWith::Stranger => {}
        }
        for (name, value) in header.as_object().into_iter().flatten() {
            set_member(&mut head, name, value);
        }
        let input = signing_input(&head, claims);
        let signed = match with {
            SignWith::Nothing => Vec::new(),
            SignWith::PublicKeyAsHmac => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, key.pair.public_key().as_ref());
                hmac::sign(&secret, input.as_bytes()).as_ref().to_vec()
            }
            SignWith::Current | SignWith::Previous | SignWith::Stranger => {
                key.raw_signature(input.as_bytes())
            }
        };
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }

    /// Whether the workspace takes this bearer; `None` covers every reason not to.
    pub(super) fn verify(&self, token: &str) -> Option<Verified> {
        let (input, signed) = token.rsplit_once('.')?;
        let (head, body) = input.split_once('.')?;
        let head = decode(head)?;
        if head.get("alg")?.as_str()? != "RS256" {
            return None;
        }
        let kid = head.get("kid")?.as_str()?;
        let key = lock(&self.keys)
            .published
            .iter()
            .find(|k| k.kid == kid)
            .cloned()?;
        let public = key.pair.public_key().as_ref();
        signature::UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
            .verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signed).ok()?)
            .ok()?;
        let claims = decode(body)?;
        let word = |name: &str| claims.get(name).and_then(Value::as_str);
        let expires_at = claims.get("exp")?.as_i64()?;
        let good = word("iss") == Some(&self.url)
            && word("aud") == Some(&self.workspace_id)
            && expires_at > self.clock.now().as_second()
            && !lock(&self.app_tokens)
                .revoked
                .contains_key(word("jti").unwrap_or_default());
        good.then(|| Verified {
            subject: word("sub").unwrap_or_default().to_owned(),
            scopes: ScopeSet::parse(word("scope").unwrap_or_default().split_whitespace()),
            expires_at,
        })
    }
}

fn set_member(head: &mut Value, name: &str, value: &Value) {
    if let Some(members) = head.as_object_mut() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.to_owned(), value.clone());
        }
    }
}

fn decode(part: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn signing_input(head: &Value, claims: &Value) -> String {
    let head = URL_SAFE_NO_PAD.encode(head.to_string());
    format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// One RSA key with its published half.
struct SigningKey {
    kid: String,
    pair: rsa::KeyPair,
    jwk: Value,
}

impl SigningKey {
    /// The n-th key of this process. Making one takes a noticeable part of a second, and a test run starts many
    /// workspaces; their tokens still differ by issuer.
    async fn of_process(index: usize) -> io::Result<Arc<Self>> {
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

    fn generate() -> io::Result<Self> {
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

    fn renamed(mut self, kid: &str) -> Self {
        kid.clone_into(&mut self.kid);
        self
    }

    fn header(&self) -> Value {
        json!({ "typ": "at+jwt", "alg": "RS256", "kid": self.kid })
    }

    fn sign(&self, head: &Value, claims: &Value) -> String {
        let input = signing_input(head, claims);
        let signed = URL_SAFE_NO_PAD.encode(self.raw_signature(input.as_bytes()));
        format!("{input}.{signed}")
    }

    /// Empty only if the crypto library fails, and then nothing will accept it.
    fn raw_signature(&self, input: &[u8]) -> Vec<u8> {
        let mut out = vec![0; self.pair.public_modulus_len()];
        let random = rand::SystemRandom::new();
        match self.pair.sign(&RSA_PKCS1_SHA256, &random, input, &mut out) {
            Ok(()) => out,
            Err(_) => Vec::new(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::{ManualClock, SignedDuration, Timestamp};
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    async fn issuer() -> (Issuer, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(
            "2026-11-23T12:00:00Z".parse::<Timestamp>().unwrap(),
        ));
        let made = Issuer::start("http://127.0.0.1:1", "42", clock.clone()).await;
        (made.unwrap(), clock)
    }

    #[tokio::test]
    async fn tokens_verify_with_an_independent_library_from_the_published_key() {
        let (issuer, _) = issuer().await;
        let token = issuer.mint(
            "alice@example.com",
            "front",
            "sql genie",
            Duration::from_secs(60),
        );
        let keys = issuer.key_set();
        let jwk = keys.pointer("/keys/0").unwrap();
        let word = |name: &str| jwk.get(name).unwrap().as_str().unwrap();
        assert_eq!(word("kid").len(), 64);
        let key = DecodingKey::from_rsa_components(word("n"), word("e")).unwrap();
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_audience(&["42"]);
        rules.validate_exp = false;
        let read = jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap();
        assert_eq!(read.header.typ.as_deref(), Some("at+jwt"));
        assert_eq!(read.claims["sub"], "alice@example.com");
        assert_eq!(read.claims["scope"], "sql genie");
        assert_eq!(read.claims["iss"], "http://127.0.0.1:1/oidc");
    }

    #[tokio::test]
    async fn a_token_dies_at_the_very_second_of_its_expiry() {
        let (issuer, clock) = issuer().await;
        let token = issuer.mint("alice@example.com", "front", "sql", Duration::from_secs(60));
        clock.advance(SignedDuration::from_secs(59));
        assert!(issuer.verify(&token).is_some());
        clock.advance(SignedDuration::from_secs(1));
        assert!(issuer.verify(&token).is_none());
    }

    #[tokio::test]
    async fn forged_tokens_are_refused() {
        let (issuer, _) = issuer().await;
        let now = issuer.clock.now().as_second();
        let good = issuer.claims("alice@example.com", "front", "sql", now, now + 60);
        let plain = json!({});
        let forge = |claims: &Value, with| issuer.forge(claims, &plain, with).unwrap();
        assert!(issuer.verify(&forge(&good, SignWith::Current)).is_some());
        for with in [
            SignWith::Stranger,
            SignWith::PublicKeyAsHmac,
            SignWith::Nothing,
        ] {
            assert!(issuer.verify(&forge(&good, with)).is_none(), "{with:?}");
        }
        for (name, value) in [
            ("iss", json!("http://127.0.0.1:2/oidc")),
            ("aud", json!("43")),
            ("exp", json!(now)),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            let token = forge(&bad, SignWith::Current);
            assert!(issuer.verify(&token).is_none(), "{name}");
        }
        let no_kid = issuer.forge(&good, &json!({"kid": null}), SignWith::Current);
        assert!(issuer.verify(&no_kid.unwrap()).is_none());
    }

    #[tokio::test]
    async fn rotation_keeps_the_old_key_only_where_asked() {
        let (issuer, _) = issuer().await;
        let old = issuer.mint("alice@example.com", "front", "sql", Duration::from_secs(60));
        issuer.rotate(true).await.unwrap();
        assert!(issuer.verify(&old).is_some());
        assert_eq!(issuer.key_set()["keys"].as_array().unwrap().len(), 2);
        issuer.withdraw_old_keys();
        assert!(issuer.verify(&old).is_none());
        let new = issuer.mint("alice@example.com", "front", "sql", Duration::from_secs(60));
        issuer.rotate(false).await.unwrap();
        assert!(issuer.verify(&new).is_none());
    }
}

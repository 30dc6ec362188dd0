//! The issuer's keys and tokens: makes them, signs them, and says whether a presented one is good.
//!
//! Knows nothing of HTTP; `oidc.rs` serves what is here, `signing_key.rs` holds the cryptography.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::control::lock;
use super::signing_key::{SigningKey, signing_input};
use crate::domain::clock::Clock;
use crate::domain::scope::ScopeSet;

/// App tokens remembered so that they can be revoked together.
const APP_TOKENS_KEPT_MAX: usize = 4096;
/// Tokens remembered so that a test can look for them where none may be; the oldest go first.
const SIGNED_KEPT_MAX: usize = 4096;

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
    signed: Mutex<VecDeque<String>>,
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
            signed: Mutex::default(),
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
        let token = key.sign(&key.header(), claims);
        self.remember_signed(&token);
        token
    }

    /// Every token signed so far, for leak checks.
    pub(super) fn signed(&self) -> Vec<String> {
        lock(&self.signed).iter().cloned().collect()
    }

    fn remember_signed(&self, token: &str) {
        let mut signed = lock(&self.signed);
        if signed.len() >= SIGNED_KEPT_MAX {
            signed.pop_front();
        }
        signed.push_back(token.to_owned());
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
                let secret = hmac::Key::new(hmac::HMAC_SHA256, key.public_der());
                hmac::sign(&secret, input.as_bytes()).as_ref().to_vec()
            }
            SignWith::Current | SignWith::Previous | SignWith::Stranger => {
                key.raw_signature(input.as_bytes())
            }
        };
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signed));
        self.remember_signed(&token);
        Ok(token)
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
        key.verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signed).ok()?)?;
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

//! The whole way of a token, what is remembered, and what ends that.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::domain::clock::ManualClock;
use crate::domain::token::fixtures::{AUDIENCE, NOW, Signer, claims, document, ec, now};
use crate::runtime::discovery::Pins;
use crate::runtime::discovery::fixtures::{JWKS, METADATA, Reply, Script};
use crate::runtime::key_store::KeyStoreSettings;

struct Bench {
    script: Arc<Script>,
    clock: Arc<ManualClock>,
    metrics: Metrics,
    verifier: Verifier,
}

fn bench(keys: &[Value]) -> Bench {
    let script = Script::publishing(keys);
    let clock = Arc::new(ManualClock::at(now()));
    let metrics = Metrics::new().unwrap();
    let store = KeyStore::new(
        KeyStoreSettings::default(),
        Arc::new(script.discoverer(Pins::default())),
        Arc::clone(&script) as _,
        Arc::clone(&clock) as _,
        metrics.clone(),
    );
    let settings = VerifierSettings::new(vec![AUDIENCE.into()]);
    let verifier = Verifier::new(settings, store, Arc::clone(&clock) as _, metrics.clone());
    Bench {
        script,
        clock,
        metrics,
        verifier,
    }
}

impl Bench {
    async fn fault(&self, raw: &str) -> Option<VerifyFault> {
        self.verifier.verify(raw).await.err()
    }

    fn count(&self, result: &str) -> u64 {
        let start = format!("valetkey_token_verifications_total{{result=\"{result}\"}} ");
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0, |count| count.parse().unwrap())
    }

    fn remembered(&self) -> (usize, usize) {
        let remembered = self.verifier.lock();
        (
            remembered.young.tokens.len() + remembered.old.tokens.len(),
            remembered.young.bytes + remembered.old.bytes,
        )
    }
}

fn token_of(subject: &str) -> String {
    let mut claims = claims();
    claims["sub"] = subject.into();
    ec().token(&claims)
}

#[tokio::test(start_paused = true)]
async fn a_genuine_token_is_verified_once_and_remembered() {
    let bench = bench(&[ec().jwk()]);
    let raw = ec().token(&claims());
    let first = bench.verifier.verify(&raw).await.unwrap();
    let second = bench.verifier.verify(&raw).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.subject().as_str(), "alice@example.com");
    assert_eq!((bench.count("ok"), bench.count("cached")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn only_the_very_string_is_remembered() {
    let bench = bench(&[ec().jwk()]);
    let raw = ec().token(&claims());
    bench.verifier.verify(&raw).await.unwrap();
    let changed = [
        format!("{raw} "),
        format!("{raw}="),
        format!("{raw}."),
        raw[..raw.len() - 1].to_owned(),
        raw.to_ascii_lowercase(),
    ];
    for other in &changed {
        assert!(bench.fault(other).await.is_some(), "{other}");
    }
    assert_eq!((bench.count("cached"), bench.remembered().0), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_counted_by_code_and_not_remembered() {
    let bench = bench(&[ec().jwk()]);
    let with = |claim: &str, value: Value| {
        let mut all = claims();
        all[claim] = value;
        ec().token(&all)
    };
    let cases = [
        ("dapi00112233".to_owned(), TokenFault::NotJwt),
        ("a".repeat(TOKEN_BYTES_MAX + 1), TokenFault::TooLarge),
        (with("aud", json!("2")), TokenFault::WrongAudience),
        (
            with("iss", json!("https://x.example")),
            TokenFault::WrongIssuer,
        ),
        (with("exp", json!(NOW - 3600)), TokenFault::Expired),
        (
            Signer::p256("other").token(&claims()),
            TokenFault::UnknownKey,
        ),
    ];
    for (raw, expected) in &cases {
        for _ in 0..2 {
            assert_eq!(bench.fault(raw).await, Some(VerifyFault::Token(*expected)));
        }
        assert_eq!(bench.count(expected.code()), 2, "{expected}");
    }
    assert_eq!(bench.remembered(), (0, 0));
    assert_eq!(
        bench.script.count(JWKS),
        2,
        "an unknown key is looked for once, and not again within the floor"
    );
}

#[tokio::test(start_paused = true)]
async fn a_remembered_token_ends_at_the_second_of_its_end() {
    let bench = bench(&[ec().jwk()]);
    let mut all = claims();
    all["exp"] = (NOW + 100).into();
    let raw = ec().token(&all);
    bench.verifier.verify(&raw).await.unwrap();
    bench.clock.advance(SignedDuration::from_secs(129));
    assert_eq!(bench.fault(&raw).await, None);
    bench.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(bench.fault(&raw).await, Some(TokenFault::Expired.into()));
    assert_eq!(bench.remembered(), (0, 0));
    bench.clock.advance(SignedDuration::from_secs(-1000));
    assert_eq!(
        bench.fault(&raw).await,
        Some(TokenFault::NotYetValid.into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_remembered_token_ends_with_its_key() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let bench = bench(&[old.jwk()]);
    let mut all = claims();
    all["exp"] = (NOW + 100_000).into();
    let raw = old.token(&all);
    bench.verifier.verify(&raw).await.unwrap();
    bench.script.set(JWKS, Reply::Body(document(&[new.jwk()])));
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(bench.fault(&raw).await, None, "within the hour");
    bench.clock.advance(SignedDuration::from_secs(3600));
    assert_eq!(bench.fault(&raw).await, Some(TokenFault::UnknownKey.into()));
    assert_eq!(bench.remembered(), (0, 0));
    bench
        .script
        .set(JWKS, Reply::Body(document(&[Signer::p256("old").jwk()])));
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(
        bench.fault(&raw).await,
        Some(TokenFault::BadSignature.into()),
        "another key under the same kid"
    );
}

#[tokio::test(start_paused = true)]
async fn without_any_key_the_token_is_not_to_blame() {
    let bench = bench(&[ec().jwk()]);
    bench.script.set(METADATA, Reply::Refused);
    let raw = ec().token(&claims());
    let fault = bench.fault(&raw).await.unwrap();
    assert!(matches!(
        fault,
        VerifyFault::Keys(KeyStoreFault::Unavailable(_))
    ));
    assert_eq!(fault.code(), "keys_unavailable");
    assert_eq!(bench.count("keys_unavailable"), 1);
    assert_eq!(
        bench.fault("dapi0011").await,
        Some(TokenFault::NotJwt.into()),
        "no key is needed to tell"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_while_its_token_is_verified() {
    let rotated = Signer::p256("rotated");
    let bench = bench(&[ec().jwk()]);
    bench.verifier.verify(&ec().token(&claims())).await.unwrap();
    bench
        .script
        .set(JWKS, Reply::Body(document(&[ec().jwk(), rotated.jwk()])));
    tokio::time::sleep(Duration::from_secs(31)).await;
    bench
        .verifier
        .verify(&rotated.token(&claims()))
        .await
        .unwrap();
    assert_eq!(bench.script.count(JWKS), 2);
}

#[tokio::test(start_paused = true)]
async fn the_memory_is_bounded_and_keeps_what_is_used() {
    let bench = bench(&[ec().jwk()]);
    let favourite = token_of("favourite");
    let mut most = (0, 0);
    for n in 0..REMEMBERED_TOKENS_MAX + 1000 {
        bench
            .verifier
            .verify(&token_of(&format!("user-{n}")))
            .await
            .unwrap();
        if n % 500 == 0 {
            bench.verifier.verify(&favourite).await.unwrap();
        }
        let (tokens, bytes) = bench.remembered();
        most = (most.0.max(tokens), most.1.max(bytes));
    }
    assert!(most.0 <= REMEMBERED_TOKENS_MAX, "{most:?}");
    assert!(
        most.1 <= REMEMBERED_BYTES_MAX + 2 * TOKEN_BYTES_MAX,
        "{most:?}"
    );
    let fresh = bench.count("ok");
    bench.verifier.verify(&favourite).await.unwrap();
    assert_eq!(bench.count("ok"), fresh, "in use, so still remembered");
    bench.verifier.verify(&token_of("user-0")).await.unwrap();
    assert_eq!(
        bench.count("ok"),
        fresh + 1,
        "long unused, so verified anew"
    );
}

#[tokio::test(start_paused = true)]
async fn large_tokens_fill_the_memory_sooner() {
    let bench = bench(&[ec().jwk()]);
    for n in 0..400 {
        let mut claims = claims();
        claims["x"] = "y".repeat(16_000).into();
        claims["jti"] = n.to_string().into();
        bench.verifier.verify(&ec().token(&claims)).await.unwrap();
        assert!(bench.remembered().1 <= REMEMBERED_BYTES_MAX + 2 * TOKEN_BYTES_MAX);
    }
    assert!(bench.remembered().0 < 250);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_over_leave_the_memory_unasked() {
    let bench = bench(&[ec().jwk()]);
    for n in 0..10 {
        bench
            .verifier
            .verify(&token_of(&format!("user-{n}")))
            .await
            .unwrap();
    }
    bench.clock.advance(SignedDuration::from_secs(4000));
    let mut later = claims();
    later["iat"] = (NOW + 3990).into();
    later["exp"] = (NOW + 8000).into();
    let raw = ec().token(&later);
    bench.verifier.verify(&raw).await.unwrap();
    assert_eq!(bench.remembered(), (1, raw.len()));
}

//! Rotation, outages and floods, against a scripted issuer under paused time.

use serde_json::Value;

use super::*;
use crate::domain::clock::ManualClock;
use crate::domain::token::fixtures::{ISSUER, Signer, document, now};
use crate::runtime::discovery::Pins;
use crate::runtime::discovery::fixtures::{JWKS, METADATA, METADATA_FALLBACK, Reply, Script};

struct Bench {
    script: Arc<Script>,
    clock: Arc<ManualClock>,
    store: KeyStore,
    metrics: Metrics,
}

impl Bench {
    fn publishing(keys: &[Value]) -> Self {
        let script = Script::publishing(keys);
        let clock = Arc::new(ManualClock::at(now()));
        let metrics = Metrics::new().unwrap();
        let http: Arc<dyn HttpSend> = Arc::clone(&script) as _;
        let store = KeyStore::new(
            KeyStoreSettings::default(),
            Arc::new(script.discoverer(Pins::default())),
            http,
            Arc::clone(&clock) as _,
            metrics.clone(),
        );
        Self {
            script,
            clock,
            store,
            metrics,
        }
    }

    /// Lets time pass on both clocks, in steps, so that everything that is due happens when it is due.
    async fn pass(&self, time: Duration) {
        let steps = time.as_secs().max(1);
        for _ in 0..steps {
            self.clock.advance(SignedDuration::from_secs(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn publish(&self, keys: &[Value]) {
        self.script.set(JWKS, Reply::Body(document(keys)));
    }

    async fn holds(&self, kid: &str) -> bool {
        let keys = self.store.key_set(kid).await.unwrap();
        keys.holds(kid, self.clock.now())
    }

    fn fetches(&self) -> usize {
        self.script.count(JWKS)
    }

    fn counted(&self, result: &str) -> bool {
        let line = format!("valetkey_jwks_fetches_total{{result=\"{result}\"}}");
        self.metrics.render().contains(&line)
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_at_the_start_cause_one_fetch_and_one_more_for_a_key_that_is_not_there()
{
    let bench = Bench::publishing(&[Signer::p256("a").jwk()]);
    bench.script.set(
        JWKS,
        Reply::Slow(seconds(1), document(&[Signer::p256("a").jwk()])),
    );
    assert_eq!(
        bench.script.total(),
        0,
        "nothing is fetched before it is needed"
    );
    let callers = (0..1000).map(|n| {
        let store = bench.store.clone();
        tokio::spawn(async move {
            store
                .key_set(if n % 2 == 0 { "a" } else { "b" })
                .await
                .is_ok()
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert!(caller.await.unwrap());
    }
    assert_eq!((bench.script.count(METADATA), bench.fetches()), (1, 2));
    assert_eq!(
        bench.store.status(),
        KeyStoreStatus {
            issuer: Some(ISSUER.into()),
            keys: 1,
            age_seconds: Some(0),
            last_error: None,
        }
    );
    assert!(bench.counted("ok"));
}

#[tokio::test(start_paused = true)]
async fn a_new_key_works_at_once_even_right_after_a_refresh_and_a_second_one_after_the_floor() {
    let (a, b, c) = (Signer::p256("a"), Signer::p256("b"), Signer::p256("c"));
    let bench = Bench::publishing(&[a.jwk()]);
    assert!(bench.holds("a").await);
    bench.publish(&[a.jwk(), b.jwk()]);
    let start = Instant::now();
    assert!(bench.holds("b").await, "at its first use");
    assert_eq!((start.elapsed(), bench.fetches()), (Duration::ZERO, 2));

    bench.publish(&[a.jwk(), b.jwk(), c.jwk()]);
    assert!(!bench.holds("c").await, "within the floor");
    bench.pass(seconds(29)).await;
    assert!(!bench.holds("c").await);
    bench.pass(seconds(1)).await;
    assert!(bench.holds("c").await);
    assert_eq!(bench.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_unknown_kids_cause_two_fetches() {
    let bench = Bench::publishing(&[Signer::p256("a").jwk()]);
    assert!(bench.holds("a").await);
    bench.pass(seconds(60)).await;
    for n in 0..10_000 {
        assert!(!bench.holds(&format!("unknown-{n}")).await);
    }
    assert_eq!(bench.fetches(), 2);
    assert!(bench.holds("a").await);
}

#[tokio::test(start_paused = true)]
async fn a_known_key_waits_for_nothing_through_an_outage_of_an_hour() {
    let a = Signer::p256("a");
    let bench = Bench::publishing(&[a.jwk()]);
    assert!(bench.holds("a").await);
    for url in [JWKS, METADATA, METADATA_FALLBACK] {
        bench.script.set(url, Reply::Silent);
    }
    for _ in 0..360 {
        bench.pass(seconds(10)).await;
        let start = Instant::now();
        assert!(bench.holds("a").await);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    let status = bench.store.status();
    assert_eq!((status.keys, status.age_seconds), (1, Some(3600)));
    assert!(
        status
            .last_error
            .unwrap()
            .contains("did not answer within 5s")
    );
    let asked = bench.fetches();
    assert!(
        (50..=105).contains(&asked),
        "{asked} attempts: every half minute after the first ten"
    );
    bench.publish(&[a.jwk()]);
    bench.pass(seconds(35)).await;
    let status = bench.store.status();
    assert_eq!(status.last_error, None, "it mends itself without a caller");
    assert!(status.age_seconds.unwrap() <= 35);
}

#[tokio::test(start_paused = true)]
async fn no_bad_answer_replaces_good_keys() {
    let a = Signer::p256("a");
    let weak = r#"{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}"#;
    let cases = [
        (Reply::Refused, "unreachable"),
        (Reply::Broken, "unreachable"),
        (Reply::CutOff(b"{\"keys\":[".to_vec()), "unreachable"),
        (Reply::Silent, "timeout"),
        (Reply::Stalled, "timeout"),
        (Reply::Slow(seconds(6), document(&[a.jwk()])), "timeout"),
        (Reply::Endless, "too_large"),
        (Reply::Body(vec![b' '; 1024 * 1024 + 1]), "too_large"),
        (
            Reply::Redirect("https://attacker.example/keys".into()),
            "status",
        ),
        (
            Reply::Status(500, document(&[Signer::p256("a").jwk()])),
            "status",
        ),
        (Reply::Status(404, Vec::new()), "status"),
        (Reply::Status(204, Vec::new()), "status"),
        (Reply::Body(Vec::new()), "invalid"),
        (Reply::Body(b"<html>sorry</html>".to_vec()), "invalid"),
        (Reply::Body(b"{\"keys\":{}}".to_vec()), "invalid"),
        (Reply::Body(document(&[])), "no_keys"),
        (Reply::Body(weak.into()), "no_keys"),
    ];
    for (reply, code) in cases {
        let bench = Bench::publishing(&[a.jwk()]);
        assert!(bench.holds("a").await);
        bench.script.set(JWKS, reply);
        bench.pass(seconds(30)).await;
        assert!(!bench.holds("b").await, "{code}");
        assert_eq!(
            bench.fetches(),
            2,
            "{code}: exactly one request, nothing followed"
        );
        assert!(bench.holds("a").await, "{code}");
        assert!(bench.counted(code), "{code}");
        assert!(bench.store.status().last_error.is_some(), "{code}");
        bench.publish(&[a.jwk(), Signer::p256("b").jwk()]);
        bench.pass(seconds(36)).await;
        assert!(bench.holds("b").await, "{code}");
        assert_eq!(bench.store.status().last_error, None, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_without_the_issuer_is_unavailable_held_back_and_mends_itself() {
    let a = Signer::p256("a");
    let bench = Bench::publishing(&[a.jwk()]);
    bench.script.set(METADATA, Reply::Refused);
    for _ in 0..1000 {
        let fault = bench.store.key_set("a").await.err();
        assert!(
            matches!(
                fault,
                Some(KeyStoreFault::Unavailable(RefreshFault::Discovery(_)))
            ),
            "{fault:?}"
        );
    }
    assert_eq!((bench.script.total(), bench.store.status().keys), (1, 0));
    assert!(bench.counted("discovery"));
    bench.pass(seconds(300)).await;
    let asked = bench.script.total();
    assert!(
        (10..=20).contains(&asked),
        "{asked} attempts in five minutes: 1, 2, 4 … 30 s apart"
    );
    bench.script.set(
        METADATA,
        Reply::Body(
            crate::runtime::discovery::fixtures::metadata()
                .to_string()
                .into(),
        ),
    );
    bench.pass(seconds(31)).await;
    assert_eq!(bench.store.status().keys, 1, "nobody had to ask");
    assert!(bench.holds("a").await);
}

#[tokio::test(start_paused = true)]
async fn a_start_with_empty_keys_is_unavailable_too() {
    let bench = Bench::publishing(&[]);
    assert_eq!(
        bench.store.key_set("a").await.err(),
        Some(KeyStoreFault::Unavailable(RefreshFault::Document(
            JwksFault::NoUsableKey { offered: 0 }
        )))
    );
    bench.pass(seconds(4)).await;
    assert_eq!(bench.fetches(), 3, "after one second and after two more");
    bench.pass(seconds(300)).await;
    let asked = bench.fetches();
    assert!(
        (10..=20).contains(&asked),
        "{asked} attempts in five minutes: 1, 2, 4 … 30 s apart"
    );
    bench.publish(&[Signer::p256("a").jwk()]);
    bench.pass(seconds(31)).await;
    assert!(bench.holds("a").await);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_cancels_nothing() {
    let bench = Bench::publishing(&[]);
    let body = document(&[Signer::p256("a").jwk()]);
    bench.script.set(JWKS, Reply::Slow(seconds(2), body));
    let leader = tokio::spawn({
        let store = bench.store.clone();
        async move { store.key_set("a").await.is_ok() }
    });
    bench.pass(seconds(1)).await;
    leader.abort();
    assert!(bench.holds("a").await);
    assert_eq!(bench.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_known_key_does_not_wait_for_a_running_fetch() {
    let bench = Bench::publishing(&[Signer::p256("a").jwk()]);
    assert!(bench.holds("a").await);
    bench.pass(seconds(40)).await;
    bench.script.set(JWKS, Reply::Silent);
    let stranger = tokio::spawn({
        let store = bench.store.clone();
        async move { store.key_set("b").await.is_ok() }
    });
    tokio::task::yield_now().await;
    let start = Instant::now();
    assert!(bench.holds("a").await);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(!stranger.is_finished());
    assert!(stranger.await.unwrap());
    assert_eq!(start.elapsed(), seconds(5));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_dies_is_followed_by_another() {
    let a = Signer::p256("a");
    let bench = Bench::publishing(&[a.jwk()]);
    bench.script.set(JWKS, Reply::Panic);
    assert_eq!(
        bench.store.key_set("a").await.err(),
        Some(KeyStoreFault::Unavailable(RefreshFault::CutOff))
    );
    bench.publish(&[a.jwk()]);
    bench.pass(seconds(31)).await;
    assert!(bench.holds("a").await);
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_key_ends_within_the_hour_even_if_nobody_calls() {
    let (a, b) = (Signer::p256("a"), Signer::p256("b"));
    let bench = Bench::publishing(&[a.jwk(), b.jwk()]);
    bench.store.warm();
    bench.pass(seconds(5)).await;
    bench.publish(&[b.jwk()]);
    bench.pass(seconds(3500)).await;
    assert!(
        bench.store.known().unwrap().holds("a", bench.clock.now()),
        "tokens under it are still about"
    );
    bench.pass(seconds(100)).await;
    assert!(!bench.store.known().unwrap().holds("a", bench.clock.now()));
    assert_eq!(bench.store.status().keys, 1);
    bench.script.set(JWKS, Reply::Refused);
    bench.pass(seconds(7200)).await;
    assert!(
        bench.holds("b").await,
        "a published key outlives the outage"
    );
    assert!(!bench.holds("a").await);
}

#[tokio::test(start_paused = true)]
async fn the_keys_are_refreshed_in_the_background_and_no_longer_than_the_store_lives() {
    let bench = Bench::publishing(&[Signer::p256("a").jwk()]);
    bench.store.warm();
    bench.store.warm();
    bench.pass(seconds(599)).await;
    assert_eq!(bench.fetches(), 1);
    bench.pass(seconds(2)).await;
    assert_eq!(bench.fetches(), 2);
    bench.pass(seconds(1800)).await;
    assert_eq!(bench.fetches(), 5);
    let Bench { script, store, .. } = bench;
    drop(store);
    tokio::time::sleep(seconds(7200)).await;
    assert_eq!(script.count(JWKS), 5);
}

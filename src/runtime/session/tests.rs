//! Sessions under a clock that moves only when told to, and paused timers.

use super::*;
use crate::domain::clock::{ManualClock, SignedDuration};
use crate::domain::token::fixtures;

const TTL: Duration = Duration::from_secs(600);
const LINGER: Duration = Duration::from_secs(120);

struct Fixture {
    table: SessionTable,
    clock: Arc<ManualClock>,
}

fn fixture(format: SessionFormat, sessions_max: usize) -> Fixture {
    let clock = Arc::new(ManualClock::at(fixtures::now()));
    let settings = SessionSettings {
        ttl: TTL,
        linger: LINGER,
        format,
        sessions_max,
        issuer: "http://127.0.0.1:9400/oidc".into(),
    };
    let wall: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    let table = SessionTable::new(settings, wall, Metrics::new().unwrap()).unwrap();
    Fixture { table, clock }
}

fn opaque() -> Fixture {
    fixture(SessionFormat::Opaque, 100)
}

fn token(subject: &str, life_seconds: i64) -> Arc<VerifiedToken> {
    Arc::new(fixtures::verified(
        subject,
        "sql genie",
        SignedDuration::from_secs(life_seconds),
    ))
}

fn scopes(text: &str) -> ScopeSet {
    ScopeSet::parse(text.split(' '))
}

#[tokio::test(start_paused = true)]
async fn one_user_token_has_one_session_and_one_stand_in() {
    let Fixture { table, .. } = opaque();
    let alice = token("alice", 3600);
    let first = table.open(&alice, &scopes("sql")).unwrap();
    let second = table.open(&alice, &scopes("sql")).unwrap();
    assert!(first.fresh && !second.fresh);
    assert_eq!(first.token.expose(), second.token.expose());
    assert!(first.token.expose().starts_with("vks_") && first.token.expose().len() == 47);
    let bob = table.open(&token("bob", 3600), &scopes("sql")).unwrap();
    assert_ne!(bob.token.expose(), first.token.expose());
    assert_eq!(
        table.find(bob.token.expose()).unwrap().subject().as_str(),
        "bob"
    );
    assert_eq!(
        table.find(first.token.expose()).unwrap().subject().as_str(),
        "alice"
    );
    assert_eq!(table.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_linger_after_its_last_request() {
    let Fixture { table, .. } = opaque();
    let opened = table.open(&token("alice", 3600), &scopes("sql")).unwrap();
    let local = opened.token;
    tokio::time::advance(LINGER * 2).await;
    assert!(
        table.find(local.expose()).is_some(),
        "a request is in flight"
    );
    drop(opened.lease);
    tokio::time::advance(LINGER - Duration::from_secs(1)).await;
    assert!(matches!(
        table.caller(local.expose()),
        Some(Caller::User(_))
    ));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(
        table.find(local.expose()).is_none(),
        "calls out do not prolong it"
    );
    assert_eq!(table.sweep().len(), 1);
    assert!(table.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_ttl_after_its_last_use_even_while_a_request_hangs() {
    let Fixture { table, .. } = opaque();
    let opened = table.open(&token("alice", 36_000), &scopes("sql")).unwrap();
    tokio::time::advance(TTL - Duration::from_secs(1)).await;
    assert!(table.caller(opened.token.expose()).is_some());
    tokio::time::advance(TTL - Duration::from_secs(1)).await;
    assert!(
        table.find(opened.token.expose()).is_some(),
        "it was used meanwhile"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(table.find(opened.token.expose()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_session_never_outlives_the_user_token_by_a_second() {
    let Fixture { table, clock } = opaque();
    let opened = table.open(&token("alice", 100), &scopes("sql")).unwrap();
    clock.advance(SignedDuration::from_secs(99));
    assert!(table.find(opened.token.expose()).is_some());
    clock.advance(SignedDuration::from_secs(1));
    assert!(table.find(opened.token.expose()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_newer_token_of_the_same_user_refreshes_a_running_session_and_never_widens_it() {
    let Fixture { table, clock } = opaque();
    let stream = table
        .open(&token("alice", 100), &scopes("sql genie"))
        .unwrap();
    let newer = token("alice", 3600);
    table.open(&newer, &scopes("sql files")).unwrap();
    table.open(&token("bob", 7200), &scopes("sql")).unwrap();
    clock.advance(SignedDuration::from_secs(200));
    let session = table
        .find(stream.token.expose())
        .expect("outlives its first token");
    assert_eq!(session.token().digest(), newer.digest());
    assert_eq!(session.scopes(), scopes("sql"));
    let older = token("alice", 300);
    table.open(&older, &scopes("sql")).unwrap();
    assert_eq!(
        session.token().digest(),
        newer.digest(),
        "an older token does not replace a newer one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_table_sweeps_before_it_refuses() {
    let Fixture { table, .. } = fixture(SessionFormat::Opaque, 2);
    let one = table.open(&token("a", 3600), &scopes("sql")).unwrap();
    let _two = table.open(&token("b", 3600), &scopes("sql")).unwrap();
    assert!(matches!(
        table.open(&token("c", 3600), &scopes("sql")),
        Err(SessionFault::Full)
    ));
    drop(one);
    tokio::time::advance(LINGER).await;
    assert!(table.open(&token("c", 3600), &scopes("sql")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_app_token_is_good_for_more_than_the_hour_it_names() {
    let Fixture { table, .. } = opaque();
    tokio::time::advance(Duration::from_secs(3599)).await;
    let app = table.app_token();
    assert!(app.expose().starts_with("vka_"));
    tokio::time::advance(APP_TOKEN_EXPIRES_IN).await;
    assert!(matches!(table.caller(app.expose()), Some(Caller::App)));
    tokio::time::advance(APP_TOKEN_EXPIRES_IN).await;
    assert!(table.caller(app.expose()).is_none());
    assert_ne!(table.app_token().expose(), app.expose());
}

#[tokio::test(start_paused = true)]
async fn guesses_other_tables_and_changed_tokens_are_nobody() {
    let Fixture { table, .. } = opaque();
    let other = opaque().table;
    let alice = token("alice", 3600);
    let opened = table.open(&alice, &scopes("sql")).unwrap();
    let mut changed = opened.token.expose().to_owned();
    changed.pop();
    for guess in [
        "",
        "vks_",
        "vka_",
        "vka_AAAA",
        &changed,
        alice.secret().expose(),
        other.app_token().expose(),
    ] {
        assert!(table.caller(guess).is_none(), "{guess}");
    }
    assert!(other.caller(opened.token.expose()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_jwt_session_is_one_token_that_its_own_key_verifies() {
    let Fixture { table, .. } = fixture(SessionFormat::Jwt, 10);
    let alice = token("alice", 3600);
    let (first, second) = (
        table.open(&alice, &scopes("sql")).unwrap(),
        table.open(&alice, &scopes("sql")).unwrap(),
    );
    assert_eq!(first.token.expose(), second.token.expose());
    assert!(matches!(
        table.caller(first.token.expose()),
        Some(Caller::User(_))
    ));
    let x = table.jwks().unwrap()["keys"][0]["x"]
        .as_str()
        .unwrap()
        .to_owned();
    let key = jsonwebtoken::DecodingKey::from_ed_components(&x).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    rules.set_audience(&["agent"]);
    rules.validate_exp = false;
    let claims = jsonwebtoken::decode::<serde_json::Value>(first.token.expose(), &key, &rules)
        .unwrap()
        .claims;
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["scope"], "sql");
    assert_eq!(claims["iss"], "http://127.0.0.1:9400/oidc");
}

#[tokio::test(start_paused = true)]
async fn a_session_jwt_stays_the_same_when_a_newer_token_narrows_the_session() {
    let Fixture { table, .. } = fixture(SessionFormat::Jwt, 100);
    let older = token("alice", 3600);
    let first = table.open(&older, &scopes("sql genie")).unwrap();
    let newer = table.open(&token("alice", 7200), &scopes("sql")).unwrap();
    assert_eq!(first.lease.session().scopes(), scopes("sql"));
    let again = table.open(&older, &scopes("sql genie")).unwrap();
    assert_eq!(again.token.expose(), first.token.expose());
    assert!(table.find(again.token.expose()).is_some());
    drop(newer);
}

#[tokio::test]
async fn requests_that_race_with_one_user_token_share_one_session() {
    let table = Arc::new(opaque().table);
    let alice = token("alice", 3600);
    for _ in 0..50 {
        let gate = Arc::new(std::sync::Barrier::new(4));
        let racing: Vec<_> = (0..4)
            .map(|_| {
                let (table, alice, gate) =
                    (Arc::clone(&table), Arc::clone(&alice), Arc::clone(&gate));
                std::thread::spawn(move || {
                    gate.wait();
                    table.open(&alice, &scopes("sql")).unwrap().fresh
                })
            })
            .collect();
        let fresh = racing.into_iter().map(|one| one.join().unwrap());
        assert_eq!(fresh.filter(|fresh| *fresh).count(), 1);
        assert_eq!(table.len(), 1);
        table.tables.write().unwrap().by_local.clear();
        table.tables.write().unwrap().by_user_token.clear();
    }
}

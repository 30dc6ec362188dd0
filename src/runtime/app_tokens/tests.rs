//! The app's tokens against a scripted endpoint, under paused time.

use std::time::Duration;

use super::*;
use crate::domain::clock::{ManualClock, SignedDuration};
use crate::runtime::access_token::EXPIRY_MARGIN;
use crate::runtime::endpoint_fault::RETRY_AFTER_MAX;
use crate::runtime::single_flight::BACKOFF_MAX;
use crate::runtime::token_script::{Reply, Script, assert_silent, clock, faults, number, scopes};

const HOUR: Duration = Duration::from_secs(3600);

struct Room {
    script: Arc<Script>,
    clock: Arc<ManualClock>,
    tokens: Arc<AppTokens>,
}

fn room(ask: AppScopes) -> Room {
    let script = Script::new();
    let clock = Arc::clone(&script.clock);
    let (endpoint, _) = script.endpoint(true);
    let tokens = AppTokens::new(endpoint, ask, Arc::<ManualClock>::clone(&clock));
    Room {
        script,
        clock,
        tokens: Arc::new(tokens),
    }
}

impl Room {
    async fn get(&self, names: &str) -> Result<usize, EndpointFault> {
        self.tokens
            .token(&scopes(names))
            .await
            .map(|token| number(&token))
    }

    /// So many callers at once for the same scopes; all outcomes.
    async fn crowd(&self, callers: usize) -> Vec<Result<usize, EndpointFault>> {
        let all = (0..callers).map(|_| {
            let tokens = Arc::clone(&self.tokens);
            tokio::spawn(async move {
                tokens
                    .token(&scopes("sql"))
                    .await
                    .map(|token| number(&token))
            })
        });
        let mut outcomes = Vec::new();
        for one in all.collect::<Vec<_>>() {
            outcomes.push(one.await.unwrap());
        }
        outcomes
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_ask_the_endpoint_once_and_a_cold_stampede_too() {
    let room = room(AppScopes::PerRoute);
    assert!(room.crowd(200).await.iter().all(|got| *got == Ok(1)));
    assert!(room.crowd(1000).await.iter().all(|got| *got == Ok(1)));
    assert_eq!(room.script.count(), 1);
    // At the end of its life the stampede is one request as well.
    tokio::time::advance(HOUR).await;
    assert!(room.crowd(1000).await.iter().all(|got| *got == Ok(2)));
    assert_eq!(room.script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_scope_set_has_its_own_token_or_all_share_one() {
    let room_per_route = room(AppScopes::PerRoute);
    assert_eq!(room_per_route.get("sql").await, Ok(1));
    assert_eq!(room_per_route.get("genie").await, Ok(2));
    assert_eq!(room_per_route.get("sql").await, Ok(1));
    assert_eq!(room_per_route.get("").await, Ok(3));
    room_per_route
        .script
        .last(|seen| assert_eq!(seen.field("scope"), Some("all-apis")));

    let room_all = room(AppScopes::AllApis);
    for names in ["sql", "genie", ""] {
        assert_eq!(room_all.get(names).await, Ok(1));
    }
    room_all
        .script
        .last(|seen| assert_eq!(seen.field("scope"), Some("all-apis")));
    let seen = room_all.tokens.token(&scopes("sql")).await.unwrap();
    assert!(room_all.tokens.invalidate(&scopes("genie"), &seen));
    assert_eq!(room_all.get("files").await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn scope_sets_are_bounded() {
    let room = room(AppScopes::PerRoute);
    for n in 0..APP_TOKEN_SETS_MAX + 10 {
        room.get(&format!("scope-{n}")).await.unwrap();
    }
    assert_eq!(room.tokens.flights.len(), APP_TOKEN_SETS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_is_needed_and_nobody_waits_for_that() {
    let room = room(AppScopes::PerRoute);
    assert_eq!(room.get("sql").await, Ok(1));
    tokio::time::advance(HOUR.mul_f64(0.6)).await;
    assert_eq!(room.get("sql").await, Ok(1));
    assert_eq!(room.script.count(), 1, "too early");
    tokio::time::advance(HOUR.mul_f64(0.12)).await;
    let before = Instant::now();
    assert_eq!(room.get("sql").await, Ok(1));
    assert_eq!(Instant::now(), before, "the old one at once");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(room.get("sql").await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_failing_renewal_leaves_the_old_token_in_use_until_its_margin() {
    let room = room(AppScopes::PerRoute);
    assert_eq!(room.get("sql").await, Ok(1));
    room.script.set(Reply::status(500, ""));
    tokio::time::advance(HOUR.mul_f64(0.8)).await;
    assert_eq!(room.get("sql").await, Ok(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = room.tokens.status();
    assert!(
        matches!(status, AppTokenStatus::Failing { serving: true, .. }),
        "{status:?}"
    );
    // 100 ms of the life went by while the first token was fetched.
    let left = HOUR - EXPIRY_MARGIN - HOUR.mul_f64(0.8) - Duration::from_millis(1200);
    tokio::time::advance(left).await;
    assert_eq!(room.get("sql").await, Ok(1));
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!(room.get("sql").await.unwrap_err().code(), "unreachable");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_told_and_knocks_seldom_and_its_mending_is_noticed() {
    let room = room(AppScopes::PerRoute);
    assert_eq!(room.tokens.status(), AppTokenStatus::Untried);
    room.script
        .set(Reply::status(401, r#"{"error":"invalid_client"}"#));
    let refused = EndpointFault::Refused {
        error: "invalid_client",
    };
    // A caller every 100 ms for ten minutes.
    for _ in 0..6000 {
        assert_eq!(room.get("sql").await, Err(refused.clone()));
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert!(
        room.script.count() <= 26,
        "{} requests",
        room.script.count()
    );
    let expected = AppTokenStatus::Failing {
        scopes: scopes("sql"),
        fault: refused.clone(),
        serving: false,
    };
    assert_eq!(room.tokens.status(), expected);
    assert!(refused.needs_operator());
    room.script.set(Reply::Token(3600));
    tokio::time::advance(BACKOFF_MAX).await;
    assert!(room.get("sql").await.is_ok());
    assert_eq!(room.tokens.status(), AppTokenStatus::Working);
}

#[tokio::test(start_paused = true)]
async fn what_only_the_operator_can_mend_is_told_first() {
    let room = room(AppScopes::PerRoute);
    room.script.set_for("genie", Reply::status(401, ""));
    room.script.set_for("files", Reply::status(500, ""));
    assert!(room.get("files").await.is_err());
    assert!(room.get("genie").await.is_err());
    assert!(room.get("sql").await.is_ok());
    let status = room.tokens.status();
    assert!(
        matches!(&status, AppTokenStatus::Failing { fault, .. } if fault.needs_operator()),
        "{status:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_credential_nothing_is_asked_and_the_remedy_is_named() {
    let script = Script::new();
    let (endpoint, _) = script.endpoint(false);
    let tokens = AppTokens::new(endpoint, AppScopes::PerRoute, clock());
    let fault = tokens.token(&scopes("sql")).await.unwrap_err();
    assert_eq!(fault, EndpointFault::NotConfigured);
    assert_eq!(tokens.status(), AppTokenStatus::NotConfigured);
    assert_eq!(script.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once_for_a_hundred_reporters() {
    let room = room(AppScopes::PerRoute);
    let seen = room.tokens.token(&scopes("sql")).await.unwrap();
    let reporters = (0..100).map(|_| {
        let (tokens, seen) = (Arc::clone(&room.tokens), Arc::clone(&seen));
        tokio::spawn(async move {
            assert!(tokens.invalidate(&scopes("sql"), &seen));
            tokens
                .token(&scopes("sql"))
                .await
                .map(|token| number(&token))
        })
    });
    for one in reporters.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), Ok(2));
    }
    // A workspace that refuses every token does not become a load on the endpoint.
    for _ in 0..100 {
        let token = room.tokens.token(&scopes("sql")).await.unwrap();
        assert!(!room.tokens.invalidate(&scopes("sql"), &token));
    }
    assert_eq!(room.script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ended_while_the_machine_slept_is_not_served() {
    let room = room(AppScopes::PerRoute);
    assert_eq!(room.get("sql").await, Ok(1));
    room.clock.advance(SignedDuration::from_secs(3569));
    assert_eq!(room.get("sql").await, Ok(1));
    room.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(room.get("sql").await, Ok(2));
}

/// SECURITY T34 for one fault: cold, warm, bounded, silent, and over when it is over.
async fn survive(name: &str, reply: Reply, code: &str) {
    // Cold: everybody gets the fault, and one request was made.
    let cold = room(AppScopes::PerRoute);
    cold.script.set(reply.clone());
    for outcome in cold.crowd(200).await {
        let fault = outcome.expect_err(name);
        assert_eq!(fault.code(), code, "{name}");
        assert_silent(&fault);
    }
    assert_eq!(cold.script.count(), 1, "{name}");
    // A minute of traffic every 100 ms: the back-off of 1, 2, 4, 8, 16, 30 s leaves a handful of requests.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        let outcome = cold.get("sql").await;
        assert_silent(&outcome.expect_err(name));
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let count = cold.script.count();
    assert!(count <= 7, "{name}: {count} requests in a minute");
    // Repaired: noticed within the longest wait.
    cold.script.set(Reply::Token(3600));
    tokio::time::advance(RETRY_AFTER_MAX + BACKOFF_MAX).await;
    assert!(cold.get("sql").await.is_ok(), "{name}");
    assert_eq!(cold.tokens.status(), AppTokenStatus::Working, "{name}");

    // Warm: the old token serves everybody through the outage.
    let warm = room(AppScopes::PerRoute);
    assert_eq!(warm.get("sql").await, Ok(1));
    warm.script.set(reply);
    tokio::time::advance(HOUR.mul_f64(0.75)).await;
    for _ in 0..600 {
        let before = Instant::now();
        assert_eq!(warm.get("sql").await, Ok(1), "{name}");
        assert_eq!(before, Instant::now(), "{name}: nobody waits");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // At most one every 20 s, the shortest pause that an endpoint of the table asks for.
    let count = warm.script.count() - 1;
    assert!(count <= 31, "{name}: {count} requests in ten minutes");
    let status = warm.tokens.status();
    assert!(
        matches!(status, AppTokenStatus::Failing { serving: true, .. }),
        "{name}: {status:?}"
    );
    warm.script.set(Reply::Token(3600));
    tokio::time::sleep(Duration::from_secs(40)).await;
    let _ = warm.get("sql").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    if !name.contains("absurd") {
        assert!(warm.get("sql").await.unwrap() > 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_fault_of_the_endpoint_harms_users_or_hammers_it_or_stays() {
    for (name, reply, code) in faults() {
        survive(name, reply, code).await;
    }
}

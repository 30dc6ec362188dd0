//! Exchanged tokens: who gets whose, how long, and what a refusal means.

use super::*;
use crate::domain::clock::{ManualClock, SignedDuration};
use crate::runtime::single_flight::BACKOFF_MAX;
use crate::runtime::token_script::{
    Reply, SUBJECT_TOKEN, Script, assert_silent, clock, faults, number, scopes,
};

struct Room {
    script: Arc<Script>,
    clock: Arc<ManualClock>,
    tokens: Arc<ExchangedTokens>,
}

/// A verified user token with so many seconds to live.
struct User {
    token: Arc<Secret>,
    digest: Digest,
    expires: Timestamp,
}

impl User {
    fn new(name: &str, seconds: i64) -> Self {
        let token = Arc::new(Secret::new(format!("{SUBJECT_TOKEN}.{name}")));
        Self {
            digest: token.digest(),
            token,
            expires: clock().now() + SignedDuration::from_secs(seconds),
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            digest: self.digest,
            token: &self.token,
            expires: self.expires,
        }
    }
}

fn room() -> Room {
    let script = Script::new();
    let clock = Arc::clone(&script.clock);
    let (endpoint, _) = script.endpoint(true);
    let tokens = ExchangedTokens::new(endpoint, Arc::<ManualClock>::clone(&clock));
    Room {
        script,
        clock,
        tokens: Arc::new(tokens),
    }
}

impl Room {
    async fn get(&self, user: &User, names: &str) -> Result<usize, EndpointFault> {
        let token = self.tokens.token(user.subject(), &scopes(names)).await;
        token.map(|token| number(&token))
    }

    /// Both clocks together, as in life.
    async fn pass(&self, seconds: u32) {
        self.clock
            .advance(SignedDuration::from_secs(seconds.into()));
        tokio::time::advance(Duration::from_secs(seconds.into())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_user_and_scope_set_has_its_own_token() {
    let room = room();
    let (alice, bob) = (User::new("alice", 3600), User::new("bob", 3600));
    assert_eq!(room.get(&alice, "sql").await, Ok(1));
    room.script.last(|seen| {
        assert_eq!(seen.field("subject_token"), Some(alice.token.expose()));
        assert_eq!(seen.field("scope"), Some("sql"));
    });
    assert_eq!(room.get(&bob, "sql").await, Ok(2));
    room.script
        .last(|seen| assert_eq!(seen.field("subject_token"), Some(bob.token.expose())));
    assert_eq!(room.get(&alice, "genie").await, Ok(3));
    assert_eq!(room.get(&alice, "sql").await, Ok(1));
    assert_eq!(room.get(&bob, "sql").await, Ok(2));
    assert_eq!((room.script.count(), room.tokens.len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn two_users_at_once_are_never_mixed_up() {
    let room = room();
    let users: Vec<_> = (0..2)
        .map(|n| Arc::new(User::new(&n.to_string(), 3600)))
        .collect();
    let calls = (0..1000).map(|n| {
        let (tokens, user) = (Arc::clone(&room.tokens), Arc::clone(&users[n % 2]));
        tokio::spawn(async move {
            let token = tokens.token(user.subject(), &scopes("sql")).await.unwrap();
            (n % 2, number(&token))
        })
    });
    let mut got = [0, 0];
    for call in calls.collect::<Vec<_>>() {
        let (user, token) = call.await.unwrap();
        assert!(
            got[user] == 0 || got[user] == token,
            "user {user} got {token}"
        );
        got[user] = token;
    }
    assert_ne!(got[0], got[1]);
    assert_eq!(room.script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_exchanged_token_never_outlives_the_token_it_was_made_from() {
    let room = room();
    let alice = User::new("alice", 600);
    assert_eq!(room.get(&alice, "sql").await, Ok(1));
    room.pass(560).await;
    assert_eq!(
        room.get(&alice, "sql").await,
        Ok(1),
        "and it is not renewed for nothing"
    );
    room.pass(5).await;
    assert_eq!(room.get(&alice, "sql").await, Ok(1));
    room.pass(1).await;
    let fault = room.get(&alice, "sql").await.unwrap_err();
    assert_eq!(fault, EndpointFault::SubjectRefused { error: "expired" });
    assert_eq!(room.script.count(), 1, "nor is a dying token sent");
}

#[tokio::test(start_paused = true)]
async fn a_short_exchanged_token_is_renewed_while_its_subject_lives() {
    let room = room();
    room.script.set(Reply::Token(300));
    let alice = User::new("alice", 3600);
    for _ in 0..60 {
        assert!(room.get(&alice, "sql").await.is_ok());
        room.pass(50).await;
    }
    let count = room.script.count();
    assert!(
        (10..=20).contains(&count),
        "{count} exchanges in 50 minutes"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_user_is_told_apart_and_held_back_only_for_a_while() {
    let room = room();
    room.script.set(Reply::status(
        400,
        r#"{"error":"invalid_request","error_description":"eyJ.canary"}"#,
    ));
    let alice = User::new("alice", 3600);
    let fault = room.get(&alice, "sql").await.unwrap_err();
    assert_eq!(
        fault,
        EndpointFault::SubjectRefused {
            error: "invalid_request"
        }
    );
    assert!(!fault.needs_operator());
    for _ in 0..100 {
        assert_eq!(room.get(&alice, "sql").await, Err(fault.clone()));
    }
    assert_eq!(room.script.count(), 1);
    room.script.set(Reply::Token(900));
    assert!(
        room.get(&User::new("bob", 3600), "sql").await.is_ok(),
        "bob is no worse off"
    );
    tokio::time::advance(BACKOFF_MAX).await;
    assert!(room.get(&alice, "sql").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_report_replaces_only_that_users_token() {
    let room = room();
    let (alice, bob) = (User::new("alice", 3600), User::new("bob", 3600));
    let seen = room
        .tokens
        .token(alice.subject(), &scopes("sql"))
        .await
        .unwrap();
    assert_eq!(room.get(&bob, "sql").await, Ok(2));
    assert!(
        room.tokens
            .invalidate(alice.subject(), &scopes("sql"), &seen)
    );
    assert_eq!(room.get(&alice, "sql").await, Ok(3));
    assert_eq!(room.get(&bob, "sql").await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_users_who_left_are_forgotten_with_their_secrets() {
    let room = room();
    let alice = User::new("alice", 600);
    room.get(&alice, "sql").await.unwrap();
    assert!(Arc::strong_count(&alice.token) > 1);
    room.pass(1000).await;
    room.get(&User::new("bob", 3600), "sql").await.unwrap();
    assert_eq!((room.tokens.len(), Arc::strong_count(&alice.token)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn no_fault_of_the_endpoint_leaks_or_is_repeated_by_waiting_callers() {
    for (name, reply, _) in faults() {
        let room = room();
        room.script.set(reply);
        let alice = Arc::new(User::new("alice", 3600));
        let callers = (0..50).map(|_| {
            let (tokens, alice) = (Arc::clone(&room.tokens), Arc::clone(&alice));
            tokio::spawn(async move { tokens.token(alice.subject(), &scopes("sql")).await })
        });
        for one in callers.collect::<Vec<_>>() {
            assert_silent(&one.await.unwrap().expect_err(name));
        }
        assert_eq!(room.script.count(), 1, "{name}");
        room.script.set(Reply::Token(900));
        room.pass(330).await;
        assert!(room.get(&alice, "sql").await.is_ok(), "{name}");
    }
}

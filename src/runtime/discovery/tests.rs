//! What is believed of the metadata, and how fetching it fails.

use serde_json::{Value, json};

use super::fixtures::{JWKS, METADATA, METADATA_FALLBACK, ORIGIN, Reply, Script, metadata};
use super::*;
use crate::domain::token::fixtures::ISSUER;

fn with(member: &str, value: Value) -> Reply {
    let mut document = metadata();
    document[member] = value;
    Reply::Body(document.to_string().into_bytes())
}

fn answering(reply: Reply) -> Arc<Script> {
    let script = Script::publishing(&[]);
    script.set(METADATA, reply);
    script
}

async fn keys_at(reply: Reply) -> Result<(String, String), DiscoveryFault> {
    let found = answering(reply).discoverer(Pins::default()).keys_at().await;
    found.map(|(issuer, uri)| (issuer.to_string(), uri.to_string()))
}

fn pins(issuer: Option<&str>, jwks_uri: Option<&str>, token_endpoint: Option<&str>) -> Pins {
    Pins {
        issuer: issuer.map(Into::into),
        jwks_uri: jwks_uri.map(Into::into),
        token_endpoint: token_endpoint.map(Into::into),
    }
}

#[tokio::test(start_paused = true)]
async fn the_metadata_is_fetched_once_at_the_first_need() {
    let script = Script::publishing(&[]);
    let discoverer = script.discoverer(Pins::default());
    assert_eq!(script.total(), 0);
    let (issuer, uri) = discoverer.keys_at().await.unwrap();
    assert_eq!((&*issuer, uri.to_string().as_str()), (ISSUER, JWKS));
    let endpoint = discoverer.token_endpoint().await.unwrap();
    assert_eq!(endpoint.to_string(), format!("{ORIGIN}/oidc/v1/token"));
    assert_eq!(script.total(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_second_path_is_tried_where_the_first_is_no_document() {
    let good = || Reply::Body(metadata().to_string().into_bytes());
    for first in [
        Reply::Status(404, Vec::new()),
        Reply::Status(500, metadata().to_string().into_bytes()),
        Reply::Redirect(METADATA_FALLBACK.into()),
        Reply::Body(b"<html>".to_vec()),
        Reply::Body(b"[]".to_vec()),
        Reply::Endless,
    ] {
        let script = answering(first);
        script.set(METADATA_FALLBACK, good());
        assert!(script.discoverer(Pins::default()).keys_at().await.is_ok());
        assert_eq!(
            (script.count(METADATA), script.count(METADATA_FALLBACK)),
            (1, 1)
        );
    }
    for first in [Reply::Refused, Reply::Broken, Reply::Silent] {
        let script = answering(first);
        script.set(METADATA_FALLBACK, good());
        assert!(script.discoverer(Pins::default()).keys_at().await.is_err());
        assert_eq!(
            script.count(METADATA_FALLBACK),
            0,
            "the host itself is down"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pinned_members_are_never_looked_up() {
    let script = answering(Reply::Refused);
    let token = "https://other.example.com/token";
    let all = pins(
        Some("https://i.example.com/x"),
        Some("https://k.example.com/"),
        Some(token),
    );
    let discoverer = script.discoverer(all);
    let (issuer, uri) = discoverer.keys_at().await.unwrap();
    assert_eq!(
        (&*issuer, uri.to_string().as_str()),
        ("https://i.example.com/x", "https://k.example.com/")
    );
    assert_eq!(discoverer.token_endpoint().await.unwrap(), token);
    assert_eq!(script.total(), 0);

    let script = Script::publishing(&[]);
    let discoverer = script.discoverer(pins(None, Some("http://127.0.0.1:1/keys"), None));
    let (issuer, uri) = discoverer.keys_at().await.unwrap();
    assert_eq!(
        (&*issuer, uri.to_string().as_str()),
        (ISSUER, "http://127.0.0.1:1/keys")
    );
    assert_eq!(script.count(METADATA), 1);
}

#[test]
fn pins_that_are_no_acceptable_urls_are_refused_at_the_start() {
    for bad in [
        "",
        "x",
        "/keys",
        "http://keys.example.com/",
        "ftp://k.example.com",
        "https://u@k.example.com/",
        "https://k.example.com/#x",
        "https://",
    ] {
        for (member, pins) in [
            ("issuer", pins(Some(bad), None, None)),
            ("jwks_uri", pins(None, Some(bad), None)),
            ("token_endpoint", pins(None, None, Some(bad))),
        ] {
            let origin = Origin::parse(ORIGIN).unwrap();
            let http: Arc<dyn HttpSend> = Script::publishing(&[]);
            let fault = Discoverer::new(origin, pins, http).err();
            assert!(
                matches!(fault, Some(DiscoveryFault::Member { member: named, .. }) if named == member),
                "{member} {bad:?}: {fault:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_not_acceptable_is_named() {
    for (member, value) in [
        ("issuer", Value::Null),
        ("issuer", json!([ISSUER])),
        ("issuer", json!("")),
        ("issuer", json!("workspace")),
        ("issuer", json!("http://workspace.example.com/oidc")),
        ("issuer", json!("http://127.0.0.1/oidc")),
        ("issuer", json!("https://workspace.example.com/oidc?x=1")),
        ("issuer", json!("https://workspace.example.com/oidc#x")),
        ("jwks_uri", Value::Null),
        ("jwks_uri", json!(5)),
        ("jwks_uri", json!("/oidc/jwks.json")),
        ("jwks_uri", json!("http://accounts.example.com/keys")),
        ("jwks_uri", json!("http://localhost:9000/keys")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("jwks_uri", json!("https://a:b@accounts.example.com/keys")),
        (
            "jwks_uri",
            json!(format!(
                "https://x.example.com/{}",
                "a".repeat(URL_BYTES_MAX)
            )),
        ),
    ] {
        let what = format!("{member}: {value:.80}");
        let fault = keys_at(with(member, value)).await;
        assert!(
            matches!(fault, Err(DiscoveryFault::Member { member: named, .. }) if named == member),
            "{what}: {fault:?}"
        );
    }
    let issuer = "https://Vanity.databricks.com/oidc/accounts/1/";
    let found = keys_at(with("issuer", json!(issuer))).await.unwrap();
    assert_eq!(found.0, issuer, "kept exactly");
}

#[tokio::test(start_paused = true)]
async fn credentials_go_to_the_workspace_alone() {
    for bad in [
        "https://attacker.example/oidc/v1/token",
        "https://workspace.example.com.attacker.example/oidc/v1/token",
        "https://workspace.example.com:8443/oidc/v1/token",
        "https://workspace.example.com@attacker.example/token",
        "http://workspace.example.com/oidc/v1/token",
        "/oidc/v1/token",
    ] {
        let discoverer = answering(with("token_endpoint", json!(bad))).discoverer(Pins::default());
        let fault = discoverer.token_endpoint().await;
        assert!(
            matches!(
                fault,
                Err(DiscoveryFault::Member {
                    member: "token_endpoint",
                    ..
                })
            ),
            "{bad}"
        );
        assert!(
            discoverer.keys_at().await.is_ok(),
            "users are let in all the same"
        );
    }
    let same = "https://WORKSPACE.example.com:443/oidc/v1/token";
    let discoverer = answering(with("token_endpoint", json!(same))).discoverer(Pins::default());
    assert!(discoverer.token_endpoint().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_loopback_workspace_may_use_plain_http() {
    let script = Arc::new(Script::default());
    let url = |path: &str| format!("http://127.0.0.1:9000{path}");
    let document = json!({"issuer": url("/oidc"), "jwks_uri": url("/keys"), "token_endpoint": url("/oidc/v1/token")});
    script.set(
        &url(PATHS[0]),
        Reply::Body(document.to_string().into_bytes()),
    );
    let origin = Origin::parse("http://127.0.0.1:9000").unwrap();
    let http: Arc<dyn HttpSend> = script;
    let discoverer = Discoverer::new(origin, Pins::default(), http).unwrap();
    assert_eq!(discoverer.keys_at().await.unwrap().1, *url("/keys"));
    assert_eq!(
        discoverer.token_endpoint().await.unwrap(),
        *url("/oidc/v1/token")
    );
}

#[tokio::test(start_paused = true)]
async fn faults_say_what_went_wrong() {
    let both = |reply: Reply| async {
        let script = answering(reply.clone());
        script.set(METADATA_FALLBACK, reply);
        script
            .discoverer(Pins::default())
            .keys_at()
            .await
            .unwrap_err()
    };
    let start = Instant::now();
    let fetch = |fault| DiscoveryFault::Fetch(fault);
    assert_eq!(
        both(Reply::Silent).await,
        fetch(FetchFault::Timeout(METADATA_TIME_MAX))
    );
    assert_eq!(
        both(Reply::Stalled).await,
        fetch(FetchFault::Timeout(METADATA_TIME_MAX))
    );
    assert_eq!(start.elapsed(), METADATA_TIME_MAX * 2);
    assert_eq!(
        both(Reply::Status(503, Vec::new())).await,
        fetch(FetchFault::Status(503))
    );
    assert_eq!(
        both(Reply::Redirect(JWKS.into())).await,
        fetch(FetchFault::Status(302))
    );
    assert_eq!(
        both(Reply::Endless).await,
        fetch(FetchFault::TooLarge(METADATA_BYTES_MAX))
    );
    assert!(matches!(
        both(Reply::Refused).await,
        DiscoveryFault::Fetch(FetchFault::Unreachable(_))
    ));
    assert!(matches!(
        both(Reply::CutOff(b"{\"iss".to_vec())).await,
        DiscoveryFault::Fetch(FetchFault::Unreachable(_))
    ));
    let twice = metadata()
        .to_string()
        .replacen('{', "{\"issuer\":\"https://x.example\",", 1);
    for body in ["", "<html>", "[]", "null", &twice] {
        assert_eq!(
            both(Reply::Body(body.into())).await,
            DiscoveryFault::Document,
            "{body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_once_known_outlives_bad_answers() {
    let script = Script::publishing(&[]);
    let discoverer = script.discoverer(Pins::default());
    let first = discoverer.keys_at().await.unwrap();
    for bad in [
        Reply::Refused,
        Reply::Body(b"{}".to_vec()),
        Reply::Body(b"garbage".to_vec()),
        with("issuer", json!("https://attacker.example/oidc")),
        with("jwks_uri", json!(null)),
    ] {
        script.set(METADATA, bad);
        tokio::time::sleep(METADATA_REFRESH_AFTER + Duration::from_secs(1)).await;
        let asked = script.count(METADATA);
        for _ in 0..3 {
            assert_eq!(discoverer.keys_at().await.unwrap(), first);
            assert!(discoverer.token_endpoint().await.is_ok());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(
            script.count(METADATA),
            asked + 1,
            "it was asked again, in the background"
        );
    }
    script.set(
        METADATA,
        with("jwks_uri", json!("https://new.example.com/keys")),
    );
    tokio::time::sleep(METADATA_REFRESH_AFTER + Duration::from_secs(1)).await;
    discoverer.keys_at().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(
        discoverer.keys_at().await.unwrap().1,
        "https://new.example.com/keys"
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_without_the_workspace_mends_itself() {
    let script = answering(Reply::Refused);
    let discoverer = script.discoverer(Pins::default());
    for _ in 0..100 {
        assert!(discoverer.keys_at().await.is_err());
    }
    assert_eq!(script.count(METADATA), 1, "held back");
    script.set(METADATA, Reply::Body(metadata().to_string().into_bytes()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(discoverer.keys_at().await.is_ok());
}

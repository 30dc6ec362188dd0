//! Heads that two readers could read differently are refused on both listeners, and the connection ends (SECURITY 3.2).

use crate::harness::{TestApp, TestOptions, with_app};

/// Complete requests with `{auth}` for a good credential; each is followed by a second request that must never be served.
const HOSTILE: &[(&str, &str)] = &[
    (
        "both framings",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "both framings, other order",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding list",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "identity list",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in two headers",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "unknown coding",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding in 1.0",
        "POST /x HTTP/1.0\r\nHost: {host}\r\n{auth}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "vertical tab",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "length 05",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nContent-Length: 05\r\n\r\nhello",
    ),
    (
        "length +5",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        "length -5",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nContent-Length: -5\r\n\r\nhello",
    ),
    (
        "length 0x5",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nContent-Length: 0x5\r\n\r\nhello",
    ),
    (
        "length list",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nContent-Length: 5, 5\r\n\r\nhello",
    ),
    (
        "two lengths",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ),
    (
        "same length twice",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "huge length",
        "POST /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    ),
    (
        "blank before the colon",
        "GET /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nX-A : 1\r\n\r\n",
    ),
    (
        "folded line",
        "GET /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nX-A: 1\r\n folded: 2\r\n\r\n",
    ),
    (
        "bare CR",
        "GET /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nX-A: 1\rX-B: 2\r\n\r\n",
    ),
    (
        "NUL",
        "GET /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\nX-A: 1\x002\r\n\r\n",
    ),
    ("no host", "GET /x HTTP/1.1\r\n{auth}\r\n\r\n"),
    (
        "two hosts",
        "GET /x HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n{auth}\r\n\r\n",
    ),
    (
        "two different hosts",
        "GET /x HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n{auth}\r\n\r\n",
    ),
    ("empty host", "GET /x HTTP/1.1\r\nHost: \r\n{auth}\r\n\r\n"),
    (
        "host with a user",
        "GET /x HTTP/1.1\r\nHost: evil@{host}\r\n{auth}\r\n\r\n",
    ),
    (
        "host with a path",
        "GET /x HTTP/1.1\r\nHost: {host}/evil\r\n{auth}\r\n\r\n",
    ),
    (
        "host list",
        "GET /x HTTP/1.1\r\nHost: {host}, evil.example\r\n{auth}\r\n\r\n",
    ),
    (
        "absolute form",
        "GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n\r\n",
    ),
    (
        "foreign absolute form",
        "GET http://evil.example/x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n\r\n",
    ),
    (
        "CONNECT",
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n\r\n",
    ),
    (
        "TRACE",
        "TRACE /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n\r\n",
    ),
    (
        "TRACK",
        "TRACK /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n\r\n",
    ),
    ("no version", "GET /x\r\nHost: {host}\r\n{auth}\r\n\r\n"),
    (
        "unknown version",
        "GET /x HTTP/1.7\r\nHost: {host}\r\n{auth}\r\n\r\n",
    ),
    (
        "blank in the target",
        "GET /x y HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n\r\n",
    ),
    (
        "bad method",
        "G\"ET /x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n\r\n",
    ),
];

async fn refuses(app: &TestApp, client: &crate::harness::client::Client, host: &str, auth: &str) {
    let second = format!("GET /smuggled HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n\r\n");
    for (name, request) in HOSTILE {
        let request = request.replace("{host}", host).replace("{auth}", auth);
        let raw = client.raw(request + &second).await;
        assert_eq!(raw.answers(), 1, "{name}: {}", raw.text());
        assert!((400..500).contains(&raw.status()), "{name}: {}", raw.text());
    }
    assert_eq!(app.agent.count(), 0);
    assert!(app.api_calls().is_empty());
}

#[tokio::test]
async fn the_front_doors_listener_refuses_ambiguous_heads_and_hangs_up() {
    with_app(TestOptions::default(), async |app| {
        let auth = format!("X-Forwarded-Access-Token: {}", app.alice());
        refuses(app, &app.inbound(), "app.example.com", &auth).await;
    })
    .await;
}

#[tokio::test]
async fn the_agents_listener_refuses_ambiguous_heads_and_hangs_up() {
    with_app(TestOptions::default(), async |app| {
        let auth = format!("Authorization: Bearer {}", app.app_token().await);
        let host = app.addresses.outbound.to_string();
        refuses(app, &app.outbound(), &host, &auth).await;
    })
    .await;
}

#[tokio::test]
async fn bodies_with_bad_chunks_never_count_as_whole() {
    with_app(TestOptions::default(), async |app| {
        let token = app.alice();
        for (number, bad) in [
            "5\r\nhello\r\nzz\r\n\r\n",
            "5;\0x=1\r\nhello\r\n0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "-1\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        ]
        .into_iter()
        .enumerate()
        {
            let raw = app
                .inbound()
                .raw(format!(
                    "POST /echo/{number} HTTP/1.1\r\nHost: a\r\nX-Forwarded-Access-Token: {token}\r\nTransfer-Encoding: chunked\r\n\r\n{bad}\
                     GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Forwarded-Access-Token: {token}\r\n\r\n"
                ))
                .await;
            assert!(raw.answers() <= 1 && matches!(raw.status(), 0 | 400), "{bad:?}: {}", raw.text());
        }
        for got in app.agent.received() {
            assert!(!got.complete, "{}", got.target);
            assert_ne!(got.target, "/smuggled");
        }
    })
    .await;
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    with_app(TestOptions::default(), async |app| {
        let auth = format!("X-Forwarded-Access-Token: {}", app.alice());
        let many = "X-A: 1\r\n".repeat(500);
        let raw = app
            .inbound()
            .raw(format!(
                "GET /x HTTP/1.1\r\nHost: a\r\n{auth}\r\n{many}\r\n"
            ))
            .await;
        assert_eq!(raw.status(), 431, "{}", raw.text());
        let long = "a".repeat(100_000);
        let raw = app
            .inbound()
            .raw(format!(
                "GET /x HTTP/1.1\r\nHost: a\r\n{auth}\r\nX-A: {long}\r\n\r\n"
            ))
            .await;
        assert!(
            matches!(raw.status(), 431 | 414 | 400 | 0),
            "{}",
            raw.text()
        );
        let target = format!("/{}", "a".repeat(9000));
        let answer = app.inbound().get(&target).user(&app.alice()).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (414, Some("target_too_long"))
        );
        assert_eq!(app.agent.count(), 0);
    })
    .await;
}

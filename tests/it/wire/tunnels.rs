//! CONNECT to anything else: refused, or carried unseen where it is listed; never to an address that is not.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{options, workspace_at};
use crate::harness::{TestApp, TestOptions, until, with_app, within};

fn listing(hosts: &[&str]) -> TestOptions {
    options(&json!({"forward": "on", "allow_hosts": hosts}))
}

/// A far side that says everything twice, and its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut piece = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    let said = piece[..count].repeat(2);
                    if stream.write_all(&said).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn reason(text: &str) -> &str {
    let at = text
        .find("x-valetkey-error: ")
        .map_or(text.len(), |at| at + 18);
    text[at..].split("\r\n").next().unwrap_or_default()
}

#[tokio::test]
async fn connect_to_anywhere_else_is_refused_and_recorded() {
    let port = echo().await;
    with_app(listing(&[]), async |app: &TestApp| {
        let secure = app.secure();
        let workspace = app.workspace.url().rsplit(':').next().unwrap().to_owned();
        for place in [
            format!("127.0.0.1:{port}"),
            "example.com:443".to_owned(),
            format!("localhost:{workspace}"),
            "127.0.0.1:443".to_owned(),
            "169.254.169.254:80".to_owned(),
        ] {
            let (_, status, text) = secure.connect(&place).await;
            assert_eq!(
                (status, reason(&text)),
                (403, "connect_refused"),
                "{place}: {text}"
            );
            assert!(text.contains("connection: close") && text.contains("outbound.allow_hosts"));
            let record = app.audit_has("a denial", |r| r["path"] == *place).await;
            assert_eq!(record["event"], "denial");
            assert_eq!(record["method"], "CONNECT");
            assert_eq!(
                (&record["decision"], &record["identity"]),
                (&json!("deny"), &json!("none"))
            );
            assert_eq!(record["reason"], "connect_refused");
        }
    })
    .await;
}

#[tokio::test]
async fn only_a_well_formed_connect_from_this_machine_is_looked_at() {
    with_app(listing(&[]), async |app: &TestApp| {
        let (secure, place) = (app.secure(), workspace_at(app));
        for (head, status, why) in [
            ("CONNECT {p} HTTP/1.1\r\nHost: {p}\r\n\r\n", 200, ""),
            ("CONNECT {p} HTTP/1.0\r\n\r\n", 200, ""),
            ("CONNECT {p} HTTP/1.1\r\nHost: 127.0.0.1\r\nProxy-Connection: Keep-Alive\r\n\r\n", 200, ""),
            ("CONNECT {p} HTTP/1.1\r\n\r\n", 400, "bad_head"),
            ("CONNECT {p} HTTP/1.1\r\nHost: {p}\r\nHost: {p}\r\n\r\n", 400, "bad_head"),
            ("CONNECT {p} HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400, "bad_head"),
            ("CONNECT {p} HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", 400, "bad_head"),
            ("CONNECT {p} HTTP/1.1\r\nHost: {p}\r\nContent-Length: 0\r\n\r\n", 400, "bad_head"),
            ("CONNECT {p} HTTP/1.1\r\nHost: {p}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_head"),
            ("CONNECT {p} HTTP/1.1\r\nHost: {p}\r\nOrigin: https://evil.example\r\n\r\n", 403, "not_local"),
            ("CONNECT {p} HTTP/1.1\r\nHost: {p}\r\nSec-Fetch-Site: cross-site\r\n\r\n", 403, "not_local"),
            ("CONNECT u:p@{p} HTTP/1.1\r\nHost: {p}\r\n\r\n", 400, "connect_refused"),
            ("CONNECT 127.0.0.1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400, "connect_refused"),
            ("CONNECT 127.1:443 HTTP/1.1\r\nHost: 127.1:443\r\n\r\n", 400, "connect_refused"),
            ("CONNECT 0x7f000001:443 HTTP/1.1\r\nHost: 0x7f000001:443\r\n\r\n", 400, "connect_refused"),
            ("GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n", 400, "bad_head"),
        ] {
            let (_stream, got, text) = secure.connect_with(&head.replace("{p}", &place)).await;
            assert_eq!((got, reason(&text)), (status, why), "{head}\n{text}");
            if head.starts_with("GET") {
                assert!(text.contains("no proxy for plain http"), "{text}");
            }
        }
        let text = std::fs::read_to_string(&app.audit_file).unwrap();
        assert!(!text.contains("u:p@"));
        // What is pipelined behind a refused CONNECT is not served.
        let both = format!("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\nGET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", app.addresses.outbound);
        let (_, _, text) = secure.connect_with(&both).await;
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    })
    .await;
}

#[tokio::test]
async fn http2_has_no_connect() {
    with_app(listing(&[]), async |app: &TestApp| {
        let io = hyper_util::rt::TokioIo::new(app.secure().tcp().await);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::new(valetkey::runtime::http_client::empty());
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = workspace_at(app).parse().unwrap();
        let answer = within("an answer", sender.send_request(request))
            .await
            .unwrap();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()["x-valetkey-error"], "bad_head");
    })
    .await;
}

async fn says_twice(app: &TestApp, place: &str) {
    let mut stream = app.secure().tunnel(place).await;
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 10];
    within("an echo", stream.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(&heard, b"hellohello");
}

#[tokio::test]
async fn a_listed_place_is_reached_unseen_with_one_record_for_all_of_it() {
    let port = echo().await;
    let place = format!("127.0.0.1:{port}");
    with_app(listing(&[&place]), async |app: &TestApp| {
        says_twice(app, &place).await;
        let record = app
            .audit_has("an outcome", |r| r["event"] == "outcome")
            .await;
        for (key, value) in [
            ("method", json!("CONNECT")),
            ("path", json!(place)),
            ("decision", json!("allow")),
            ("identity", json!("none")),
            ("status", json!(200)),
            ("bytes_sent", json!(5)),
            ("bytes_received", json!(10)),
            ("user", Value::Null),
            ("route", Value::Null),
        ] {
            assert_eq!(record[key], value, "{key}");
        }
        let events = app.audit();
        let intents = events.iter().filter(|r| r["event"] == "intent").count();
        assert_eq!(intents, 1);
    })
    .await;
}

#[tokio::test]
async fn a_listed_name_leads_to_no_address_that_is_not_listed() {
    let port = echo().await;
    let place = format!("localhost:{port}");
    with_app(listing(&[&place]), async |app: &TestApp| {
        let (_, status, text) = app.secure().connect(&place).await;
        assert_eq!((status, reason(&text)), (403, "connect_refused"), "{text}");
        assert!(text.contains("a loopback address"), "{text}");
        assert!(app.audit().iter().all(|r| r["event"] != "intent"));
    })
    .await;
    with_app(listing(&[&place, "127.0.0.1"]), async |app: &TestApp| {
        says_twice(app, &place).await;
    })
    .await;
}

#[tokio::test]
async fn a_far_side_that_is_not_there_is_502_with_an_outcome() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    drop(listener);
    let hosts = [place.as_str(), "no-such-host.invalid"];
    with_app(listing(&hosts), async |app: &TestApp| {
        let (_, status, text) = app.secure().connect(&place).await;
        assert_eq!(
            (status, reason(&text)),
            (502, "tunnel_unreachable"),
            "{text}"
        );
        let record = app
            .audit_has("an outcome", |r| r["event"] == "outcome")
            .await;
        assert_eq!(
            (&record["status"], &record["reason"]),
            (&json!(502), &json!("tunnel_unreachable"))
        );
        let (_, status, text) = app.secure().connect("no-such-host.invalid:443").await;
        assert!([502, 504].contains(&status), "{text}");
    })
    .await;
}

#[tokio::test]
async fn tunnels_are_bounded_and_end_with_the_sidecar() {
    let port = echo().await;
    let place = format!("127.0.0.1:{port}");
    let options = listing(&[&place]).with(json!({"limits": {"tunnels": 2}}));
    with_app(options, async |app: &TestApp| {
        let secure = app.secure();
        let first = secure.tunnel(&place).await;
        let _second = secure.tunnel(&workspace_at(app)).await;
        let (_, status, text) = secure.connect(&place).await;
        assert_eq!((status, reason(&text)), (503, "overloaded"), "{text}");
        assert!(text.contains("retry-after"));
        drop(first);
        let free = || {
            let forward = app.proxy.forward.as_ref().unwrap();
            forward.slots.available_permits() > 0
        };
        until("a place is free again", free).await;
        let mut third = secure.tunnel(&place).await;
        app.stop().await;
        let mut rest = Vec::new();
        let _ = within("the tunnel ends", third.read_to_end(&mut rest)).await;
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_recorded_is_not_made() {
    let port = echo().await;
    let place = format!("127.0.0.1:{port}");
    with_app(listing(&[&place]), async |app: &TestApp| {
        app.proxy.sinks.audit.close().await.unwrap();
        let (_, status, text) = app.secure().connect(&place).await;
        assert_eq!(
            (status, reason(&text)),
            (500, "audit_unavailable"),
            "{text}"
        );
    })
    .await;
}

//! Files and streams: uploads and downloads pass in pieces, with ranges, HEAD and 100-continue (PRODUCT 6.5, R7, R39).

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use valetkey::embedded::world::CHAT_ENDPOINT;

use super::{ECHO, open, open_routes};
use crate::harness::{TestApp, TestOptions, until, with_app, within};

const FILE: &str = "/api/2.0/fs/files/Volumes/main/sales/files/report.bin";

fn pattern(bytes: u32) -> Bytes {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

async fn upload(app: &TestApp, token: &str, body: Bytes) {
    let ask = app.outbound().ask("PUT", &format!("{FILE}?overwrite=true"));
    let answer = ask.bearer(token).body(body).fetch().await;
    assert_eq!(answer.status, 204, "{}", answer.text());
}

#[tokio::test]
async fn a_file_goes_up_and_down_unchanged_with_head_and_ranges() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let body = pattern(3_000_000);
        upload(app, &session, body.clone()).await;
        let get = || app.outbound().get(FILE).bearer(&session);
        let down = get().fetch().await;
        assert!(down.body == body, "the bytes differ");
        assert_eq!(down.header("content-length"), Some("3000000"));
        let head = app
            .outbound()
            .ask("HEAD", FILE)
            .bearer(&session)
            .fetch()
            .await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("3000000"))
        );
        assert!(head.body.is_empty());
        let part = get().header("range", "bytes=1000-1999").fetch().await;
        assert_eq!((part.status, &part.body[..]), (206, &body[1000..2000]));
        assert_eq!(
            part.header("content-range"),
            Some("bytes 1000-1999/3000000")
        );
        let beyond = get().header("range", "bytes=9000000-").fetch().await;
        assert_eq!(beyond.status, 416);
        let gone = app
            .outbound()
            .ask("DELETE", FILE)
            .bearer(&session)
            .fetch()
            .await;
        assert_eq!(gone.status, 204);
        let record = app
            .audit_has("the upload", |r| {
                r["event"] == "outcome" && r["operation"] == "files.upload"
            })
            .await;
        assert_eq!(
            (&record["bytes_sent"], &record["status"]),
            (&json!(3_000_000), &json!(204))
        );
        assert_eq!(record["resource"]["id"], "main.sales.files");
        let record = app
            .audit_has("the download", |r| {
                r["event"] == "outcome" && r["operation"] == "files.download"
            })
            .await;
        assert_eq!(record["bytes_received"], json!(3_000_000));
    })
    .await;
}

#[tokio::test]
async fn an_upload_reaches_the_workspace_piece_by_piece() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let ask = app.outbound().ask("PUT", &format!("{FILE}?overwrite=true"));
        let (ask, sender) = ask.bearer(&session).chunked();
        let asking = tokio::spawn(ask.fetch());
        for number in 1..=3u64 {
            sender.send(pattern(1000)).await.unwrap();
            let arrived = || {
                app.api_calls()
                    .first()
                    .is_some_and(|c| c.body_len == number * 1000)
            };
            until("the piece arrives before the next is sent", arrived).await;
        }
        drop(sender);
        assert_eq!(asking.await.unwrap().status, 204);
        let seen = app.api_calls().pop().unwrap();
        assert_eq!(seen.header("transfer-encoding"), ["chunked"]);
        assert!(seen.header("content-length").is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_counts_as_whole() {
    with_app(open(), async |app| {
        let (session, host) = (app.session(&app.alice()).await, app.addresses.outbound);
        let mut stream = app.outbound().connect().await;
        let head = format!(
            "PUT {FILE} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {session}\r\nContent-Length: 1000\r\n\r\nonly this"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        until("it begins", || app.api_calls().first().is_some_and(|c| c.body_len == 9)).await;
        drop(stream);
        let record = app.audit_has("the end", |r| r["event"] == "outcome").await;
        // Its sender's doing, not the workspace's.
        assert_eq!(record["reason"], "bad_body");
        assert!(!app.api_calls()[0].body_complete);
        let answer = app.outbound().get(FILE).bearer(&session).fetch().await;
        assert_eq!(answer.status, 404);
    })
    .await;
}

#[tokio::test]
async fn a_continue_is_given_only_to_calls_that_are_let_through() {
    with_app(open(), async |app| {
        let (session, host) = (app.session(&app.alice()).await, app.addresses.outbound);
        let head = |token: &str, path: &str| {
            format!(
                "PUT {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
            )
        };
        for (token, path, status) in [
            ("vks_nobody", FILE, "401"),
            (&session, "/api/2.0/none", "403"),
            (&session, "/api/2.0/../none", "400"),
        ] {
            let mut stream = app.outbound().connect().await;
            stream.write_all(head(token, path).as_bytes()).await.unwrap();
            let mut first = [0u8; 12];
            within("an answer", stream.read_exact(&mut first)).await.unwrap();
            assert_eq!(first, *format!("HTTP/1.1 {status}").as_bytes(), "{path}");
        }
        let mut stream = app.outbound().connect().await;
        stream.write_all(head(&session, FILE).as_bytes()).await.unwrap();
        let mut first = [0u8; 25];
        within("the go-ahead", stream.read_exact(&mut first)).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"hello").await.unwrap();
        let mut rest = String::new();
        within("the answer", stream.read_to_string(&mut rest)).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 204"), "{rest}");
    })
    .await;
}

#[tokio::test]
async fn events_of_a_model_arrive_one_by_one_and_end_with_their_reader() {
    let mut routes = open_routes();
    routes.as_array_mut().unwrap().push(json!(
        {"name": "model", "resource": format!("serving_endpoint/{CHAT_ENDPOINT}"), "as": "user"}
    ));
    with_app(TestOptions::routes(routes), async |app| {
        let session = app.session(&app.alice()).await;
        app.control().hold_streams();
        let chat = json!({"model": CHAT_ENDPOINT, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        let ask = app.outbound().post("/serving-endpoints/chat/completions");
        let mut stream = ask.bearer(&session).json(&chat).send().await;
        assert_eq!((stream.status, &stream.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
        for _ in 0..3 {
            app.control().release_event();
            let event = stream.next().await.unwrap().unwrap();
            assert!(event.starts_with(b"data: {") && event.ends_with(b"\n\n"));
        }
        assert_eq!(app.control().streams_open(), 1);
        drop(stream);
        let gone = app.control().wait_until(|c| c.streams_open() == 0);
        within("the workspace notices", gone).await;
        let record = app.audit_has("the end", |r| r["event"] == "outcome").await;
        assert_eq!((&record["reason"], &record["status"]), (&json!("client_gone"), &json!(200)));
        assert_eq!(record["resource"]["id"], CHAT_ENDPOINT);
    })
    .await;
}

#[tokio::test]
async fn a_whole_stream_comes_through_from_the_workspace_to_the_user() {
    with_app(TestOptions::default(), async |app| {
        let call = json!({"method": "POST", "target": "/serving-endpoints/chat/completions", "body": {
            "model": CHAT_ENDPOINT, "stream": true, "messages": [{"role": "user", "content": "hi"}],
        }});
        app.control().hold_streams();
        let ask = app.inbound().post("/call").user(&app.alice()).json(&call);
        let mut stream = ask.send().await;
        app.control().release_event();
        let event = stream.next().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&event).contains("chat.completion.chunk"));
        app.control().release_streams();
        let rest = stream.whole().await;
        assert!(rest.text().ends_with("data: [DONE]\n\n"));
        assert!(rest.text().contains("alice@example.com"));
    })
    .await;
}

#[tokio::test]
async fn trailers_of_a_call_are_dropped() {
    with_app(open(), async |app| {
        let (session, host) = (app.session(&app.alice()).await, app.addresses.outbound);
        let text = format!(
            "POST {ECHO} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {session}\r\nConnection: close\r\nTrailer: X-Late\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Late: 1\r\nAuthorization: Bearer x\r\n\r\n"
        );
        let raw = app.outbound().raw(text).await;
        assert_eq!(raw.status(), 200, "{}", raw.text());
        let seen = app.api_calls().pop().unwrap();
        assert_eq!(seen.body_len, 5);
        assert!(seen.header("trailer").is_empty() && seen.header("x-late").is_empty());
        assert_eq!(seen.header("authorization").len(), 1);
    })
    .await;
}

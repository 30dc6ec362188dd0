//! WebSockets pass once both sides agreed to one; nothing else becomes a tunnel (SECURITY R14).

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use valetkey::proxy::tunnel::{SESSION_ENDED, SESSION_ENDED_REASON};

use crate::harness::client::Ask;
use crate::harness::raw::RawServer;
use crate::harness::{ALICE, TestApp, TestOptions, USER_SCOPES, with_app, within};

async fn dial(app: &TestApp, token: Option<&str>) -> Result<WebSocketStream<TcpStream>, Error> {
    let url = format!("ws://{}/ws", app.addresses.inbound);
    let mut request = url.into_client_request().unwrap();
    if let Some(token) = token {
        let name = "x-forwarded-access-token";
        request.headers_mut().insert(name, token.parse().unwrap());
    }
    let stream = app.inbound().connect().await;
    let dialling = tokio_tungstenite::client_async(request, stream);
    within("the handshake", dialling)
        .await
        .map(|(socket, _)| socket)
}

async fn echoed(socket: &mut WebSocketStream<TcpStream>, text: &str) -> String {
    socket.send(Message::text(text)).await.unwrap();
    let message = within("the echo", socket.next()).await.unwrap().unwrap();
    message.into_text().unwrap().to_string()
}

#[tokio::test]
async fn messages_pass_both_ways_and_the_session_lives_with_the_tunnel() {
    with_app(TestOptions::default(), async |app| {
        let mut socket = dial(app, Some(&app.alice())).await.unwrap();
        assert_eq!(echoed(&mut socket, "hello").await, "hello");
        let got = app.agent.last();
        assert_eq!(got.header("x-forwarded-user"), [ALICE]);
        let session = got.header("x-forwarded-access-token")[0].to_owned();
        assert!(session.starts_with("vks_"));
        let me = || {
            app.outbound()
                .get("/api/2.0/preview/scim/v2/Me")
                .bearer(&session)
        };
        app.advance(600).await;
        assert_eq!(me().fetch().await.status, 200);
        assert_eq!(echoed(&mut socket, "again").await, "again");
        let large = "x".repeat(300_000);
        assert!(echoed(&mut socket, &large).await == large);
        drop(socket);
        app.agent
            .wait_until("the agent notices", |a| a.open() == 0)
            .await;
        crate::harness::until("the tunnel is gone", || app.proxy.tunnels.is_empty()).await;
        app.advance(121).await;
        assert_eq!(me().fetch().await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn a_websocket_needs_a_token_like_any_request() {
    with_app(TestOptions::default(), async |app| {
        for token in [None, Some("a.b.c")] {
            match dial(app, token).await {
                Err(Error::Http(response)) => assert_eq!(response.status(), 401),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(app.agent.count(), 0);
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_declines_gives_an_ordinary_answer_and_no_tunnel() {
    with_app(TestOptions::default(), async |app| {
        let token = app.alice();
        let raw = app
            .inbound()
            .raw(format!(
                "GET /echo HTTP/1.1\r\nHost: a\r\nX-Forwarded-Access-Token: {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\
                 GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Forwarded-Access-Token: {token}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        // The second request is a request of its own, not bytes for the agent.
        assert_eq!(raw.answers(), 2, "{}", raw.text());
        let got = app.agent.received();
        assert_eq!(got.len(), 2);
        assert_eq!(got[1].header("x-forwarded-user"), [ALICE]);
        assert!(got[1].header("x-forwarded-access-token")[0].starts_with("vks_"));
    })
    .await;
}

#[tokio::test]
async fn other_upgrades_are_stripped() {
    with_app(TestOptions::default(), async |app| {
        let token = app.alice();
        for (count, lines) in [
            "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            "Connection: Upgrade, close\r\nUpgrade: foo/2",
            "Connection: close\r\nUpgrade: websocket",
        ]
        .into_iter()
        .enumerate()
        {
            let head = format!("GET /echo HTTP/1.1\r\nHost: a\r\nX-Forwarded-Access-Token: {token}\r\n{lines}\r\n\r\n");
            let raw = app.inbound().raw(head).await;
            assert_eq!(raw.status(), 200, "{}", raw.text());
            assert_eq!(app.agent.count(), count + 1);
            let got = app.agent.last();
            for gone in ["upgrade", "http2-settings", "connection"] {
                assert!(got.header(gone).is_empty(), "{gone} after {lines:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_refused() {
    let answer =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let server = RawServer::answering(answer, false).await;
    let options = TestOptions {
        agent: Some(server.address().to_string()),
        ..TestOptions::default()
    };
    with_app(options, async |app| {
        let answer = app.inbound().get("/").user(&app.alice()).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("agent_failed"))
        );
        assert_eq!(server.heads().len(), 1);
        assert!(!server.heads()[0].to_lowercase().contains("upgrade"));
        assert!(app.proxy.tunnels.is_empty());
    })
    .await;
}

fn me(app: &TestApp, session: &str) -> Ask {
    app.outbound()
        .get("/api/2.0/preview/scim/v2/Me")
        .bearer(session)
}

#[tokio::test]
async fn a_websocket_outlives_its_first_token_when_its_user_comes_again() {
    with_app(TestOptions::default(), async |app| {
        let first = app.token(ALICE, USER_SCOPES, 600);
        let mut socket = dial(app, Some(&first)).await.unwrap();
        assert_eq!(echoed(&mut socket, "first").await, "first");
        let session = app.agent.last().header("x-forwarded-access-token")[0].to_owned();
        for _ in 0..3 {
            app.advance(500).await;
            app.session(&app.token(ALICE, USER_SCOPES, 600)).await;
        }
        assert_eq!(echoed(&mut socket, "still").await, "still");
        assert_eq!(me(app, &session).fetch().await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn what_a_client_sends_keeps_the_session_in_use() {
    let config = json!({"users": {"session": {"ttl": "1m"}}});
    with_app(TestOptions::default().with(config), async |app| {
        let mut socket = dial(app, Some(&app.alice())).await.unwrap();
        let session = app.agent.last().header("x-forwarded-access-token")[0].to_owned();
        for _ in 0..4 {
            app.advance(50).await;
            assert_eq!(echoed(&mut socket, "typing").await, "typing");
        }
        assert_eq!(me(app, &session).fetch().await.status, 200);
    })
    .await;
}

/// The close that the client is told, and then nothing.
async fn closed(socket: &mut WebSocketStream<TcpStream>) -> (u16, String) {
    let told = within("the close", socket.next()).await.unwrap().unwrap();
    let Message::Close(Some(frame)) = told else {
        panic!("{told:?}");
    };
    let rest = within("the end", socket.next()).await;
    assert!(!matches!(rest, Some(Ok(_))), "{rest:?}");
    (frame.code.into(), frame.reason.to_string())
}

#[tokio::test]
async fn a_websocket_whose_token_nobody_renewed_is_closed_with_a_reason_on_both_sides() {
    with_app(TestOptions::default(), async |app| {
        let first = app.token(ALICE, USER_SCOPES, 600);
        let mut socket = dial(app, Some(&first)).await.unwrap();
        let mut bobs = dial(app, Some(&app.bob())).await.unwrap();
        assert_eq!(echoed(&mut socket, "hello").await, "hello");
        app.advance(601).await;
        let expected = (SESSION_ENDED, SESSION_ENDED_REASON.to_owned());
        assert_eq!(closed(&mut socket).await, expected);
        app.agent
            .wait_until("the agent is told", |a| !a.closes().is_empty())
            .await;
        assert_eq!(app.agent.closes(), [expected]);
        // Others are not concerned.
        assert_eq!(echoed(&mut bobs, "mine").await, "mine");
        drop((socket, bobs));
        crate::harness::until("the tunnels are gone", || app.proxy.tunnels.is_empty()).await;
        let events: Vec<_> = app.audit().iter().map(|r| r["event"].clone()).collect();
        assert!(events.contains(&json!("session_closed")), "{events:?}");
    })
    .await;
}

#[tokio::test]
async fn a_frame_that_is_on_its_way_is_finished_before_the_close() {
    with_app(TestOptions::default(), async |app| {
        let token = app.token(ALICE, USER_SCOPES, 600);
        let mut stream = handshake(app, &token).await;
        // Half of a masked text frame of four bytes; the mask is zero.
        stream
            .write_all(&[0x81, 0x84, 0, 0, 0, 0, b'h', b'a'])
            .await
            .unwrap();
        app.advance(601).await;
        crate::harness::until("it is over", || app.proxy.sessions.is_empty()).await;
        stream.write_all(b"lf").await.unwrap();
        let rest = within("the end", rest_of(&mut stream)).await;
        let (close, echo) = (0x88, [0x81, 4, b'h', b'a', b'l', b'f']);
        let echoed = rest.strip_prefix(&echo[..]).unwrap_or(&rest);
        assert_eq!(echoed.first(), Some(&close), "{rest:?}");
        assert!(rest.ends_with(SESSION_ENDED_REASON.as_bytes()), "{rest:?}");
    })
    .await;
}

#[tokio::test]
async fn a_frame_that_never_ends_is_cut_with_the_connection() {
    with_app(TestOptions::default(), async |app| {
        let token = app.token(ALICE, USER_SCOPES, 600);
        let mut stream = handshake(app, &token).await;
        stream
            .write_all(&[0x81, 0x84, 0, 0, 0, 0, b'h', b'a'])
            .await
            .unwrap();
        app.advance(601).await;
        crate::harness::until("it is over", || app.proxy.sessions.is_empty()).await;
        app.advance(3).await;
        let rest = within("the end", rest_of(&mut stream)).await;
        assert_eq!(rest, b"", "no close can stand inside a frame");
        crate::harness::until("the tunnel is gone", || app.proxy.tunnels.is_empty()).await;
    })
    .await;
}

/// Everything until the end, however it comes.
async fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

/// A WebSocket as bytes, after its handshake.
async fn handshake(app: &TestApp, token: &str) -> TcpStream {
    let mut stream = app.inbound().connect().await;
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nX-Forwarded-Access-Token: {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(within("the handshake", stream.read_u8()).await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    stream
}

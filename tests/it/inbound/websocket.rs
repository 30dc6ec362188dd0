//! WebSockets pass once both sides agreed to one; nothing else becomes a tunnel (SECURITY R14).

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::raw::RawServer;
use crate::harness::{ALICE, TestApp, TestOptions, with_app, within};

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

//! A workspace that is down, hangs, or answers what is no HTTP (PRODUCT 6.6, SECURITY R19).

use serde_json::json;
use valetkey::embedded::control::{Fault, Place};

use super::{ME, leading_to, open};
use crate::harness::raw::RawServer;
use crate::harness::{TestApp, until, with_app, within};

async fn outcome(app: &TestApp, reason: &str) -> serde_json::Value {
    app.audit_has("the outcome", |r| {
        r["event"] == "outcome" && r["reason"] == reason
    })
    .await
}

#[tokio::test]
async fn a_workspace_that_hangs_up_is_a_bad_gateway() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        app.control().fail(Place::Api, Fault::Close);
        let answer = app.outbound().get(ME).bearer(&session).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("workspace_unreachable"))
        );
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.json()["error_code"], "BAD_GATEWAY");
        assert_eq!(outcome(app, "workspace_unreachable").await["status"], 502);
        app.control().heal(Place::Api);
        let answer = app.outbound().get(ME).bearer(&session).fetch().await;
        assert_eq!(answer.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_workspace_that_is_not_there_is_a_bad_gateway() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    with_app(leading_to(socket.local_addr().unwrap()), async |app| {
        let session = app.session(&app.alice()).await;
        let answer = app.outbound().get(ME).bearer(&session).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("workspace_unreachable"))
        );
        outcome(app, "workspace_unreachable").await;
    })
    .await;
}

#[tokio::test]
async fn a_workspace_that_hangs_is_a_gateway_timeout() {
    let options = open().with(json!({"limits": {"response_head_time": "5s"}}));
    with_app(options, async |app| {
        let session = app.session(&app.alice()).await;
        app.control().fail(Place::Api, Fault::Hang);
        let asking = tokio::spawn(app.outbound().get(ME).bearer(&session).fetch());
        let arrived = app.control().wait_until(|_| app.api_calls().len() == 1);
        within("the call arrives", arrived).await;
        app.advance(5).await;
        let answer = asking.await.unwrap();
        assert_eq!(
            (answer.status, answer.reason()),
            (504, Some("workspace_timeout"))
        );
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(outcome(app, "workspace_timeout").await["status"], 504);
        app.control().heal(Place::Api);
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_leaves_cancels_the_call() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        app.control().fail(Place::Api, Fault::Hang);
        let asking = tokio::spawn(app.outbound().get(ME).bearer(&session).try_send());
        let arrived = app.control().wait_until(|_| app.api_calls().len() == 1);
        within("the call arrives", arrived).await;
        asking.abort();
        let record = app.audit_has("the end", |r| r["event"] == "outcome").await;
        assert!(
            ["client_gone", "abandoned"].contains(&record["reason"].as_str().unwrap()),
            "{record}"
        );
        until("nothing is in flight", || {
            app.proxy.slots[1].available_permits() == 512
        })
        .await;
        app.control().heal(Place::Api);
    })
    .await;
}

#[tokio::test]
async fn answers_that_are_no_http_are_bad_gateways() {
    for malformed in [
        "",
        "garbage\r\n\r\n",
        "HTTP/1.1 99999 X\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ] {
        let server = RawServer::answering(malformed, true).await;
        with_app(leading_to(server.address()), async |app| {
            let session = app.session(&app.alice()).await;
            let answer = app.outbound().get(ME).bearer(&session).fetch().await;
            let found = (answer.status, answer.reason());
            assert_eq!(found, (502, Some("workspace_unreachable")), "{malformed:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_truncated_answer_is_delivered_as_truncated_and_recorded_so() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this";
    let server = RawServer::answering(short, true).await;
    with_app(leading_to(server.address()), async |app| {
        let session = app.session(&app.alice()).await;
        let mut stream = app.outbound().get(ME).bearer(&session).send().await;
        let mut broke = false;
        while let Some(piece) = stream.next().await {
            broke |= piece.is_err();
        }
        assert!(broke);
        assert_eq!(outcome(app, "truncated").await["status"], 200);
    })
    .await;
}

#[tokio::test]
async fn marks_of_the_sidecar_in_a_workspaces_answer_are_not_believed() {
    let text = "HTTP/1.1 403 Forbidden\r\nx-valetkey-error: no_route\r\nset-cookie: a=b\r\nauthorization: Bearer x\r\ncontent-length: 2\r\n\r\n{}";
    let server = RawServer::answering(text, false).await;
    with_app(leading_to(server.address()), async |app| {
        let session = app.session(&app.alice()).await;
        let answer = app.outbound().get(ME).bearer(&session).fetch().await;
        assert_eq!((answer.status, answer.reason()), (403, None));
        assert_eq!(answer.header("set-cookie"), None);
        assert_eq!(answer.header("authorization"), None);
        let head = &server.heads()[0];
        assert!(
            head.to_lowercase()
                .contains(&format!("host: {}\r\n", server.address())),
            "{head}"
        );
    })
    .await;
}

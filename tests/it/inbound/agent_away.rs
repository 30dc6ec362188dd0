//! What callers get while the agent starts, is gone, hangs, or answers what is no HTTP (PRODUCT 3, SECURITY R19).

use serde_json::json;
use tokio::net::TcpSocket;

use crate::harness::agent::Agent;
use crate::harness::raw::RawServer;
use crate::harness::{TestOptions, with_app, within};

#[tokio::test]
async fn until_the_agent_listens_callers_are_asked_to_come_back() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let options = TestOptions {
        agent: Some(socket.local_addr().unwrap().to_string()),
        await_agent: false,
        ..TestOptions::default()
    };
    with_app(options, async |app| {
        let answer = app.inbound().get("/").user(&app.alice()).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (503, Some("agent_not_ready"))
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(app.readyz().await.0, 503);
        // Who may not enter learns nothing of the agent.
        assert_eq!(app.inbound().get("/").fetch().await.status, 401);

        let late = Agent::on(socket.listen(64).unwrap());
        within("the gate opens", app.proxy.gate.settled()).await;
        let answer = app.inbound().get("/").user(&app.alice()).fetch().await;
        assert_eq!(answer.status, 200);
        assert_eq!(app.readyz().await.0, 200);
        assert_eq!(late.count(), 1);
        late.stop();
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_goes_is_a_bad_gateway_and_then_not_ready() {
    with_app(TestOptions::default(), async |app| {
        app.session(&app.alice()).await;
        app.agent.stop();
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let answer = app.inbound().get("/").user(&app.alice()).fetch().await;
            if answer.status == 503 {
                assert_eq!(answer.reason(), Some("agent_not_ready"));
                assert!(answer.header("retry-after").is_some());
            } else {
                assert_eq!(answer.status, 502, "{}", answer.text());
            }
            statuses.push(answer.status);
        }
        assert_eq!(statuses.last(), Some(&503));
        assert!(statuses.contains(&502));
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_hangs_is_a_gateway_timeout() {
    with_app(TestOptions::default(), async |app| {
        let asking = tokio::spawn(app.inbound().get("/hang").user(&app.alice()).fetch());
        app.agent.wait_until("it hangs", |a| a.open() == 1).await;
        app.advance(300).await;
        let answer = asking.await.unwrap();
        assert_eq!(
            (answer.status, answer.reason()),
            (504, Some("agent_timeout"))
        );
        app.agent
            .wait_until("it was let go", |a| a.open() == 0)
            .await;
    })
    .await;
}

#[tokio::test]
async fn answers_that_are_no_http_are_bad_gateways() {
    for malformed in [
        "",
        "hello\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: 1\r\ncontent-length: 0\r\n\r\n",
    ] {
        let server = RawServer::answering(malformed, true).await;
        let options = TestOptions {
            agent: Some(server.address().to_string()),
            ..TestOptions::default()
        };
        with_app(options, async |app| {
            let answer = app.inbound().get("/").user(&app.alice()).fetch().await;
            let found = (answer.status, answer.reason());
            assert_eq!(found, (502, Some("agent_failed")), "{malformed:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_second_answer_on_the_same_connection_is_never_given_to_anybody() {
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none\
               HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond";
    let server = RawServer::answering(two, false).await;
    let options = TestOptions {
        agent: Some(server.address().to_string()),
        ..TestOptions::default()
    };
    with_app(options, async |app| {
        for _ in 0..5 {
            let answer = app.inbound().get("/").user(&app.alice()).fetch().await;
            assert_eq!(answer.text(), "one");
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_delivered_as_broken_off() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this";
    let server = RawServer::answering(short, true).await;
    let options = TestOptions {
        agent: Some(server.address().to_string()),
        ..TestOptions::default()
    };
    with_app(options, async |app| {
        let mut stream = app.inbound().get("/").user(&app.alice()).send().await;
        assert_eq!(stream.status, 200);
        let mut broke = false;
        while let Some(piece) = stream.next().await {
            broke |= piece.is_err();
        }
        assert!(broke, "a truncated answer must not look whole");
    })
    .await;
}

#[tokio::test]
async fn more_requests_than_the_limit_are_shed_and_asked_to_come_back() {
    let options = TestOptions::default().with(json!({"limits": {"requests": 4}}));
    with_app(options, async |app| {
        let token = app.alice();
        let hang = |_| tokio::spawn(app.inbound().get("/hang").user(&token).fetch());
        let hanging: Vec<_> = (0..4).map(hang).collect();
        app.agent.wait_until("all hang", |a| a.open() == 4).await;
        let answer = app.inbound().get("/").user(&token).fetch().await;
        assert_eq!((answer.status, answer.reason()), (503, Some("overloaded")));
        assert!(answer.header("retry-after").is_some());
        for asking in hanging {
            app.agent.release();
            drop(asking);
        }
        app.agent.wait_until("all ended", |a| a.open() == 0).await;
        crate::harness::until("a place is free", || {
            app.proxy.slots[0].available_permits() == 4
        })
        .await;
        app.session(&token).await;
    })
    .await;
}

//! Bodies stream both ways without being gathered, and whoever leaves is not waited for (PRODUCT 6.5, SECURITY R39).

use bytes::Bytes;

use crate::harness::{ALICE, TestOptions, with_app};

#[tokio::test]
async fn events_arrive_before_the_next_one_is_made() {
    with_app(TestOptions::default(), async |app| {
        let mut stream = app.inbound().get("/sse").user(&app.alice()).send().await;
        assert_eq!(stream.status, 200);
        assert_eq!(stream.headers["content-type"], "text/event-stream");
        for number in 0..5 {
            app.agent.release();
            let event = stream.next().await.unwrap().unwrap();
            assert_eq!(event, format!("data: {number}\n\n"));
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_reaches_the_agent_piece_by_piece() {
    with_app(TestOptions::default(), async |app| {
        let (ask, sender) = app.inbound().post("/echo").user(&app.alice()).chunked();
        let asking = tokio::spawn(ask.fetch());
        let mut expected = Vec::new();
        for piece in ["one ", "two ", "three"] {
            sender.send(Bytes::from(piece)).await.unwrap();
            expected.extend_from_slice(piece.as_bytes());
            let so_far = expected.clone();
            let arrived =
                |a: &crate::harness::agent::Agent| a.count() == 1 && a.last().body == so_far;
            app.agent.wait_until("the piece", arrived).await;
            assert!(!app.agent.last().complete);
        }
        drop(sender);
        let answer = asking.await.unwrap();
        assert_eq!(answer.body, expected);
        assert_eq!(app.agent.last().header("transfer-encoding"), ["chunked"]);
    })
    .await;
}

#[tokio::test]
async fn large_bodies_come_through_unchanged() {
    with_app(TestOptions::default(), async |app| {
        let body: Bytes = (0..4_000_000u32).map(|n| (n % 251) as u8).collect();
        let answer = app
            .inbound()
            .ask("PUT", "/echo/large?x=%20&y=a+b")
            .user(&app.alice())
            .body(body.clone())
            .fetch()
            .await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "the bytes differ");
        let got = app.agent.last();
        assert_eq!(
            (&*got.method, &*got.target),
            ("PUT", "/echo/large?x=%20&y=a+b")
        );
        assert_eq!(got.header("content-length"), ["4000000"]);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_agents_answer() {
    with_app(TestOptions::default(), async |app| {
        let mut stream = app.inbound().get("/sse").user(&app.alice()).send().await;
        app.agent.release();
        stream.next().await.unwrap().unwrap();
        assert_eq!(app.agent.open(), 1);
        drop(stream);
        app.agent
            .wait_until("the agent notices", |a| a.open() == 0)
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_cancels_the_request() {
    with_app(TestOptions::default(), async |app| {
        let asking = tokio::spawn(app.inbound().get("/hang").user(&app.alice()).try_send());
        app.agent.wait_until("it hangs", |a| a.open() == 1).await;
        asking.abort();
        app.agent
            .wait_until("the agent notices", |a| a.open() == 0)
            .await;
    })
    .await;
}

#[tokio::test]
async fn http2_by_prior_knowledge_is_served_with_the_same_checks() {
    with_app(TestOptions::default(), async |app| {
        let door = app.inbound().h2();
        let answer = door
            .post("/echo")
            .user(&app.alice())
            .header("x_forwarded_user", "spoof")
            .header("x-forwarded-user", "spoof")
            .body("hello")
            .fetch()
            .await;
        assert_eq!((answer.status, &*answer.body), (200, &b"hello"[..]));
        let got = app.agent.last();
        assert_eq!(got.header("x-forwarded-user"), [ALICE]);
        assert_eq!(got.header("host").len(), 1);
        assert_eq!(door.get("/").fetch().await.status, 401);
        let twice = door.get("/").user(&app.alice()).user(&app.bob());
        assert_eq!(twice.fetch().await.status, 400);
        let mut stream = door.get("/sse").user(&app.alice()).send().await;
        app.agent.release();
        assert_eq!(stream.next().await.unwrap().unwrap(), "data: 0\n\n");
        drop(stream);
        app.agent
            .wait_until("the agent notices", |a| a.open() == 0)
            .await;
    })
    .await;
}

#[tokio::test]
async fn head_and_bodiless_answers_stay_bodiless() {
    with_app(TestOptions::default(), async |app| {
        for (method, target, status) in [
            ("HEAD", "/echo", 200),
            ("GET", "/status/204", 204),
            ("GET", "/status/304", 304),
        ] {
            let answer = app
                .inbound()
                .ask(method, target)
                .user(&app.alice())
                .fetch()
                .await;
            assert_eq!(answer.status, status, "{method} {target}");
            assert!(answer.body.is_empty());
        }
        let answer = app
            .inbound()
            .get("/status/500")
            .user(&app.alice())
            .fetch()
            .await;
        assert_eq!((answer.status, answer.reason()), (500, None));
    })
    .await;
}

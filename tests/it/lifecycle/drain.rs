//! A stop lets running requests end, takes no new ones, and is bounded (PRODUCT 3, SECURITY R40).

use serde_json::json;
use tokio::net::TcpStream;
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::world::CHAT_ENDPOINT;

use crate::harness::{TestOptions, until, with_app, within};

#[tokio::test]
async fn running_requests_end_in_peace_and_new_ones_find_nobody() {
    let options = TestOptions::default().with(json!({"limits": {"drain_time": "1m"}}));
    with_app(options, async |app| {
        let asking = tokio::spawn(app.inbound().get("/hang").user(&app.alice()).fetch());
        app.agent.wait_until("it hangs", |a| a.open() == 1).await;
        let ending = async {
            until("the door is shut", || {
                std::net::TcpStream::connect(app.addresses.inbound).is_err()
            })
            .await;
            // Agents call out while they answer: that side is still open.
            assert!(TcpStream::connect(app.addresses.outbound).await.is_ok());
            assert!(app.proxy.sinks.audit.status().healthy);
            app.agent.release();
            asking.await.unwrap()
        };
        let ((), answer) = tokio::join!(app.stop(), ending);
        assert_eq!(answer.status, 200);
        assert!(TcpStream::connect(app.addresses.outbound).await.is_err());
        let records = app.audit();
        assert_eq!(records.last().unwrap()["event"], "stop");
    })
    .await;
}

#[tokio::test]
async fn a_call_of_the_agent_within_a_draining_request_still_works_and_is_recorded() {
    let options = TestOptions::default().with(json!({"limits": {"drain_time": "1m"}}));
    with_app(options, async |app| {
        app.control().hold_streams();
        let call = json!({"method": "POST", "target": "/serving-endpoints/chat/completions", "body": {
            "model": CHAT_ENDPOINT, "stream": true, "messages": [{"role": "user", "content": "hi"}],
        }});
        let ask = app.inbound().post("/call").user(&app.alice()).json(&call);
        let stream = ask.send().await;
        let ending = async {
            until("the door is shut", || std::net::TcpStream::connect(app.addresses.inbound).is_err()).await;
            app.control().release_streams();
            stream.whole().await
        };
        let ((), answer) = tokio::join!(app.stop(), ending);
        assert!(answer.text().ends_with("data: [DONE]\n\n"));
        let outcome = |r: &serde_json::Value| r["event"] == "outcome" && r["status"] == 200;
        let records = app.audit();
        assert!(records.iter().any(outcome));
        assert_eq!(records.last().unwrap()["event"], "stop");
    })
    .await;
}

#[tokio::test]
async fn a_drain_is_bounded_and_what_is_cut_is_in_the_log() {
    with_app(TestOptions::default(), async |app| {
        let session = app.session(&app.alice()).await;
        app.control().fail(Place::Api, Fault::Hang);
        let hanging = app
            .outbound()
            .get("/api/2.0/preview/scim/v2/Me")
            .bearer(&session);
        let hanging = tokio::spawn(hanging.try_send());
        let arrived = app.control().wait_until(|_| app.api_calls().len() == 1);
        within("the call arrives", arrived).await;
        let cutting = async {
            until("the door is shut", || {
                std::net::TcpStream::connect(app.addresses.inbound).is_err()
            })
            .await;
            app.advance(2).await;
        };
        tokio::join!(app.stop(), cutting);
        let records = app.audit();
        let intents = records.iter().filter(|r| r["event"] == "intent").count();
        let outcomes = records.iter().filter(|r| r["event"] == "outcome").count();
        assert_eq!((intents, outcomes), (1, 1), "an intent without its outcome");
        assert_eq!(records.last().unwrap()["event"], "stop");
        hanging.abort();
        app.control().heal(Place::Api);
    })
    .await;
}

//! Defects that a review found, each with the test that would have shown it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use valetkey::config::{Config, Env, LoadOptions};
use valetkey::domain::route::PolicyOrigin;
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::world::WAREHOUSE;
use valetkey::reload::Reloader;

use crate::harness::raw::RawServer;
use crate::harness::{ALICE, APP_ID, APP_SECRET, TestApp, TestOptions, until, with_app, within};

const ECHO: &str = "/api/2.0/embedded/echo";
const ME: &str = "/api/2.0/preview/scim/v2/Me";

fn open() -> TestOptions {
    TestOptions::routes(json!([
        {"name": "marked", "path": "/api/2.0/embedded/**", "as": "caller", "scope": "sql"},
        {"name": "me", "operation": "identity.me", "as": "caller"},
    ]))
}

/// A reloader of the running sidecar, and the default file it reads.
fn reloader(app: &TestApp, text: &serde_json::Value) -> (Reloader, std::path::PathBuf) {
    let file = app.directory().join("valetkey.yaml");
    std::fs::write(&file, text.to_string()).unwrap();
    let options = LoadOptions {
        config: None,
        default_file: file.clone(),
    };
    let env = Env::from_iter([
        ("DATABRICKS_CLIENT_ID", APP_ID.to_owned()),
        ("DATABRICKS_CLIENT_SECRET", APP_SECRET.to_owned()),
        ("DATABRICKS_HOST", app.workspace.url()),
        (
            "DATABRICKS_WORKSPACE_ID",
            app.workspace.workspace_id().to_owned(),
        ),
    ]);
    let config = Config::load(&options, &env).unwrap();
    let (proxy, admin) = app.with_running(|r| (Arc::clone(r.proxy()), Arc::clone(r.admin())));
    let reloader = Reloader::new(proxy, admin, &config, options, env).expect("a file");
    (reloader.expect("there is a file"), file)
}

#[tokio::test]
async fn a_default_file_that_is_gone_at_a_reload_does_not_put_the_starter_policy_in_force() {
    with_app(open(), async |app| {
        let (reloader, file) = reloader(app, &json!({"routes": []}));
        reloader.reload();
        assert_eq!(app.proxy.snapshot.load().version, 2);
        std::fs::remove_file(file).unwrap();
        reloader.reload();
        let snapshot = app.proxy.snapshot.load();
        assert_eq!(snapshot.policy.origin(), PolicyOrigin::Routes);
        assert_eq!(snapshot.version, 2);
        let status = app.admin().get("/status").fetch().await.json();
        assert!(status["policy"]["refused_reload"].is_string(), "{status}");
    })
    .await;
}

#[tokio::test]
async fn a_lowered_ceiling_binds_the_sessions_that_live() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let call = || app.outbound().get(ECHO).bearer(&session).fetch();
        assert_eq!(call().await.status, 200);
        let routes = json!([
            {"name": "marked", "path": "/api/2.0/embedded/**", "as": "caller", "scope": "sql"},
        ]);
        let text = json!({"routes": routes, "users": {"scopes": ["genie"]}});
        reloader(app, &text).0.reload();
        assert_eq!(call().await.reason(), Some("scope_missing"));
    })
    .await;
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_keeps_its_body_on_both_sides() {
    with_app(open(), async |app| {
        let (token, session) = (app.alice(), app.session(&app.alice()).await);
        for (client, name, value) in [
            (app.outbound(), "Authorization", format!("Bearer {session}")),
            (app.inbound(), "X-Forwarded-Access-Token", token),
        ] {
            let host = client.address();
            let head = format!("GET {ECHO} HTTP/1.1\r\nHost: {host}\r\n{name}: {value}\r\n");
            let body =
                "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nquestion\r\n0\r\n\r\n";
            let answer = client.raw(format!("{head}{body}")).await;
            assert_eq!(answer.status(), 200);
            assert!(answer.text().contains("question"), "{}", answer.text());

            let (ask, pieces) = client.h2().get(ECHO).header(name, &value).chunked();
            let sending = async {
                pieces.send(Bytes::from_static(b"question")).await.unwrap();
                drop(pieces);
            };
            let (answer, ()) = tokio::join!(ask.fetch(), sending);
            assert!(answer.text().contains("question"), "{}", answer.text());
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_may_last_as_long_as_it_moves() {
    let options = open().with(json!({"limits": {"response_head_time": "5s"}}));
    with_app(options, async |app| {
        let session = app.session(&app.alice()).await;
        let (ask, pieces) = app.outbound().post(ECHO).bearer(&session).chunked();
        let asking = tokio::spawn(ask.fetch());
        for sent in 1..=4 {
            pieces.send(Bytes::from_static(b"piece ")).await.unwrap();
            let came = || app.api_calls().last().map(|call| call.body_len);
            until("the piece arrives", || came() == Some(sent * 6)).await;
            app.advance(3).await;
        }
        drop(pieces);
        let answer = asking.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["body"], "piece ".repeat(4));
    })
    .await;
}

#[tokio::test]
async fn a_location_on_the_workspace_leads_back_however_it_is_spelt() {
    for (spelling, inside) in [
        ("//{host}/a?b", true),
        ("HTTP://{host}/a?b", true),
        ("http://{host}.example/a?b", false),
        ("//elsewhere.example/a?b", false),
        ("/a?b", false),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let location = spelling.replace("{host}", &address.to_string());
        let head =
            format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let server = RawServer::on(listener, head, false);
        let options = TestOptions {
            workspace_at: Some(format!("http://{}", server.address())),
            ..open()
        };
        with_app(options, async |app| {
            let session = app.session(&app.alice()).await;
            let answer = app.outbound().get(ME).bearer(&session).fetch().await;
            let ours = format!("http://{}/a?b", app.addresses.outbound);
            let wanted = if inside { &ours } else { &location };
            assert_eq!(
                answer.header("location"),
                Some(wanted.as_str()),
                "{spelling}"
            );
        })
        .await;
    }
}

#[tokio::test]
async fn an_agent_that_leaves_before_the_answer_is_recorded_as_gone() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        app.control().fail(Place::Api, Fault::Hang);
        let ask = app.outbound().post(ECHO).bearer(&session).body("hello");
        let asking = tokio::spawn(ask.try_send());
        let arrived = app.control().wait_until(|_| app.api_calls().len() == 1);
        within("the call arrives", arrived).await;
        asking.abort();
        let record = app.audit_has("the end", |r| r["event"] == "outcome").await;
        assert_eq!(
            (&record["reason"], &record["status"]),
            (&json!("client_gone"), &json!(499)),
            "{record}"
        );
        assert!(
            record["duration_ms"].is_u64() && record["bytes_sent"].is_u64(),
            "{record}"
        );
        app.control().heal(Place::Api);
    })
    .await;
}

#[tokio::test]
async fn what_the_drain_cuts_has_its_outcome_and_every_session_its_end() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        app.control().fail(Place::Api, Fault::Hang);
        let asking = tokio::spawn(app.outbound().get(ME).bearer(&session).try_send());
        let arrived = app.control().wait_until(|_| app.api_calls().len() == 1);
        within("the call arrives", arrived).await;
        app.stop().await;
        assert!(asking.await.unwrap().is_err(), "it was cut");
        let records = app.audit();
        let outcome = records.iter().find(|r| r["event"] == "outcome").unwrap();
        assert_eq!(outcome["reason"], "cut_off", "{outcome}");
        let count = |event: &str| records.iter().filter(|r| r["event"] == event).count();
        assert_eq!(count("session_closed"), count("session_opened"));
        assert_eq!(records.last().unwrap()["event"], "stop");
        app.control().heal(Place::Api);
    })
    .await;
}

#[tokio::test]
async fn names_that_some_reader_folds_into_an_identity_reach_nobody() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let names = [
            "x~forwarded~user",
            "x-forwarded~email",
            "x!auth!request!user",
            "x-valetkey~identity",
            "remote~user",
        ];
        let (mut inbound, mut outbound) = (
            app.inbound().get("/echo").user(&app.alice()),
            app.outbound().get(ECHO).bearer(&session),
        );
        for name in names {
            inbound = inbound.header(name, "boss");
            outbound = outbound.header(name, "boss");
        }
        outbound = outbound
            .header("x-http~method", "DELETE")
            .header("x-original~url", "/x");
        assert_eq!(inbound.fetch().await.status, 200);
        assert_eq!(outbound.fetch().await.status, 200);
        let (agent, workspace) = (app.agent.last(), app.api_calls().pop().unwrap());
        for name in names {
            assert!(agent.header(name).is_empty(), "{name} reached the agent");
        }
        for name in names[..4]
            .iter()
            .chain(&["x-http~method", "x-original~url"])
        {
            assert!(workspace.header(name).is_empty(), "{name} left");
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_who_is_known_and_refused_is_named_in_the_record() {
    with_app(open(), async |app| {
        let token = app.token(ALICE, "clusters", 3600);
        let answer = app.inbound().get("/echo").user(&token).fetch().await;
        assert_eq!((answer.status, answer.reason()), (403, Some("no_scopes")));
        let record = app
            .audit_has("the denial", |r| r["reason"] == "no_scopes")
            .await;
        assert_eq!(record["user"]["sub"], ALICE, "{record}");
    })
    .await;
}

#[tokio::test]
async fn results_by_storage_link_bypass_the_sidecar_and_are_refused() {
    let routes = json!([{"name": "sql", "operation": "sql.*", "as": "user"}]);
    for (presigned, refused) in [("refuse", true), ("allow", false)] {
        let options = TestOptions::routes(routes.clone());
        let options = options.with(json!({"outbound": {"presigned": presigned}}));
        with_app(options, async |app| {
            let session = app.session(&app.alice()).await;
            for (member, value, links) in [
                ("disposition", "INLINE", false),
                ("disposition", "EXTERNAL_LINKS", true),
                ("Disposition", "EXTERNAL_LINKS", true),
            ] {
                let body =
                    json!({"warehouse_id": WAREHOUSE, "statement": "select 1", member: value});
                let ask = app.outbound().post("/api/2.0/sql/statements");
                let answer = ask.bearer(&session).json(&body).fetch().await;
                let expected = (links && refused).then_some("presigned_refused");
                assert_eq!(answer.reason(), expected, "{body}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_command_in_a_denial_can_be_pasted_whatever_the_agent_asked() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let ask = app.outbound().get("/api/$(reboot)/it's").bearer(&session);
        let message = ask.fetch().await.json()["message"].to_string();
        assert!(message.contains("GET '/api/$(reboot)/it'"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn cookies_that_http2_split_are_one_again() {
    with_app(TestOptions::default(), async |app| {
        let ask = app.inbound().h2().get("/echo").user(&app.alice());
        let answer = ask
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .fetch()
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(app.agent.last().header("cookie"), ["a=1; b=2"]);
    })
    .await;
}

#[tokio::test]
async fn a_second_spelling_of_a_member_that_a_raw_route_looks_at_is_refused() {
    let routes = json!([
        {"name": "not-this", "path": ECHO, "body": {"model_name": ["secret"]}, "as": "deny"},
        {"name": "rest", "path": ECHO, "as": "caller", "scope": "sql"},
    ]);
    with_app(TestOptions::routes(routes), async |app| {
        let session = app.session(&app.alice()).await;
        for (body, reason) in [
            (json!({"model_name": "secret"}), Some("route_denies")),
            (json!({"modelName": "secret"}), Some("bad_request")),
            (
                json!({"model_name": "open", "Model-Name": "secret"}),
                Some("bad_request"),
            ),
            (json!({"model_name": "open"}), None),
        ] {
            let ask = app.outbound().post(ECHO).bearer(&session).json(&body);
            assert_eq!(ask.fetch().await.reason(), reason, "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_front_door_is_told_to_go_on_only_after_the_token_was_verified() {
    with_app(TestOptions::default(), async |app| {
        let good = app.alice();
        for (token, expected) in [("nonsense", "HTTP/1.1 401 "), (&good, "HTTP/1.1 100 ")] {
            let mut stream = app.inbound().connect().await;
            let host = app.addresses.inbound;
            let head = format!(
                "POST /echo HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Access-Token: {token}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut first = [0u8; 13];
            within("an answer", stream.read_exact(&mut first)).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&first), expected);
        }
    })
    .await;
}

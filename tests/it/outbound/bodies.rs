//! Bodies that decide are read in one way or refused; other bodies pass as they are (PRODUCT 6.2, SECURITY T23, R22).

use bytes::Bytes;
use serde_json::json;
use valetkey::embedded::world::{INDEX, WAREHOUSE};

use super::{ECHO, STATEMENTS, open};
use crate::harness::{TestOptions, with_app};

const JSON: &str = "application/json";

fn good_statement() -> String {
    format!(r#"{{"warehouse_id":"{WAREHOUSE}","statement":"select 1"}}"#)
}

/// Content type, body, and the status that it gets.
fn hostile() -> Vec<(&'static str, Vec<u8>, u16)> {
    let w = WAREHOUSE;
    let good = good_statement();
    vec![
        (
            JSON,
            format!(r#"{{"warehouse_id":"{w}","warehouse_id":"x","statement":"s"}}"#).into(),
            400,
        ),
        (
            JSON,
            format!(r#"{{"warehouse_id":"x","warehouse_id":"{w}","statement":"s"}}"#).into(),
            400,
        ),
        (
            JSON,
            format!(r#"{{"warehouse_id":"{w}","warehouse\u005fid":"x","statement":"s"}}"#).into(),
            400,
        ),
        (
            JSON,
            format!(r#"{{"warehouse_id":"{w}","warehouseId":"x","statement":"s"}}"#).into(),
            400,
        ),
        (
            JSON,
            format!(r#"{{"warehouse_id":"{w}","WAREHOUSE_ID":"x","statement":"s"}}"#).into(),
            400,
        ),
        (
            JSON,
            format!(r#"{{"warehouse_id":"{w}","warehouse-id":"x","statement":"s"}}"#).into(),
            400,
        ),
        (
            JSON,
            format!(r#"{{"warehouse_id":["{w}"],"statement":"s"}}"#).into(),
            400,
        ),
        (JSON, r#"{"warehouse_id":12.5,"statement":"s"}"#.into(), 400),
        (JSON, r#"{"statement":"s"}"#.into(), 400),
        (JSON, format!(r#"{good} {good}"#).into(), 400),
        (JSON, format!("{good}x").into(), 400),
        (JSON, format!("\u{feff}{good}").into(), 400),
        (JSON, format!("/* c */{good}").into(), 400),
        (JSON, format!("[{good}]").into(), 400),
        (
            JSON,
            good.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            400,
        ),
        (
            JSON,
            format!(
                r#"{{"x":{}1{},"warehouse_id":"{w}"}}"#,
                "[".repeat(64),
                "]".repeat(64)
            )
            .into(),
            400,
        ),
        (JSON, Vec::new(), 400),
    ]
}

/// The same statement, called something else than JSON in UTF-8.
fn miscalled() -> Vec<(&'static str, Vec<u8>, u16)> {
    let (good, w) = (good_statement(), WAREHOUSE);
    vec![
        ("text/plain", good.clone().into(), 415),
        (
            "application/x-www-form-urlencoded",
            format!("warehouse_id={w}").into(),
            415,
        ),
        ("multipart/form-data; boundary=x", good.clone().into(), 415),
        ("application/json; charset=utf-16", good.clone().into(), 415),
        ("application/json; charset=utf-7", good.clone().into(), 415),
        ("application/json, text/plain", good.into(), 415),
    ]
}

#[tokio::test]
async fn bodies_with_two_readings_are_refused_and_reach_nobody() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let good = good_statement();
        for (kind, body, status) in hostile().into_iter().chain(miscalled()) {
            let shown = String::from_utf8_lossy(&body).into_owned();
            let ask = app.outbound().post(STATEMENTS).bearer(&session);
            let answer = ask.header("content-type", kind).body(body).fetch().await;
            assert_eq!(answer.status, status, "{kind} {shown}: {}", answer.text());
            assert!(
                matches!(answer.reason(), Some("bad_body" | "bad_request")),
                "{shown}"
            );
        }
        assert!(app.api_calls().is_empty());
        let ask = app.outbound().post(STATEMENTS).bearer(&session);
        let answer = ask
            .header("content-type", "application/json; charset=UTF-8")
            .body(good);
        assert_eq!(answer.fetch().await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn encoded_bodies_and_unclear_types_are_refused_and_reach_nobody() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let good = good_statement();
        for encoding in ["gzip", "br", "deflate", "identity, gzip", "x"] {
            let ask = app.outbound().post(STATEMENTS).bearer(&session);
            let ask = ask
                .header("content-encoding", encoding)
                .header("content-type", JSON);
            let answer = ask.body(good.clone()).fetch().await;
            assert_eq!(
                (answer.status, answer.reason()),
                (415, Some("bad_body")),
                "{encoding}"
            );
        }
        let twice = app.outbound().post(STATEMENTS).bearer(&session);
        let twice = twice
            .header("content-type", JSON)
            .header("content-type", "text/plain");
        assert_eq!(twice.body(good.clone()).fetch().await.status, 415);
        let bare = app
            .outbound()
            .post(STATEMENTS)
            .bearer(&session)
            .body(good.clone());
        assert_eq!(bare.fetch().await.status, 415);
        assert!(app.api_calls().is_empty());
    })
    .await;
}

#[tokio::test]
async fn the_very_bytes_that_were_read_are_forwarded() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let odd = format!(
            "{{ \"statement\" :\t\"select 1\",\r\n \"warehouse_id\":\"{WAREHOUSE}\", \"x\": [1.50, 1e2, \"\\u00fc\"] }}\n"
        );
        let ask = app.outbound().post(STATEMENTS).bearer(&session);
        let answer = ask.header("content-type", JSON).body(odd.clone()).fetch().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = app.api_calls().pop().unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, odd.as_bytes());
        let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((seen.body_len, seen.body_digest), (odd.len() as u64, hex));
        assert_eq!(seen.target, STATEMENTS);
    })
    .await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_with_and_without_a_stated_length() {
    let options = open().with(json!({"limits": {"inspected_body_bytes": "64KiB"}}));
    with_app(options, async |app| {
        let session = app.session(&app.alice()).await;
        let ask = || {
            app.outbound()
                .post(STATEMENTS)
                .bearer(&session)
                .header("content-type", JSON)
        };
        let large = format!(
            r#"{{"warehouse_id":"{WAREHOUSE}","statement":"{}"}}"#,
            "x".repeat(70_000)
        );
        let answer = ask().body(large.clone()).fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (413, Some("body_too_large"))
        );
        let (asking, sender) = ask().chunked();
        let asking = tokio::spawn(asking.fetch());
        for piece in large.as_bytes().chunks(16 * 1024) {
            // Refused before the end: nobody may be reading any more.
            let _ = sender.send(Bytes::copy_from_slice(piece)).await;
        }
        drop(sender);
        let answer = asking.await.unwrap();
        assert_eq!(
            (answer.status, answer.reason()),
            (413, Some("body_too_large"))
        );
        assert!(app.api_calls().is_empty());
        // Bodies that nobody conditions on have no such limit.
        let answer = app
            .outbound()
            .post(ECHO)
            .bearer(&session)
            .body(vec![b'x'; 300_000]);
        assert_eq!(answer.fetch().await.status, 200);
        assert_eq!(app.api_calls().pop().unwrap().body_len, 300_000);
    })
    .await;
}

#[tokio::test]
async fn a_get_may_have_a_body_and_is_forwarded_with_it() {
    with_app(open(), async |app| {
        let session = app.session(&app.alice()).await;
        let target = format!("/api/2.0/vector-search/indexes/{INDEX}/query");
        let query = json!({"columns": ["id", "seen_as"], "query_text": "orders", "num_results": 1});
        let answer = app
            .outbound()
            .get(&target)
            .bearer(&session)
            .json(&query)
            .fetch()
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["result"]["row_count"], 1);
        let seen = app.api_calls().pop().unwrap();
        assert_eq!(
            (&*seen.method, seen.body_len),
            ("GET", query.to_string().len() as u64)
        );
    })
    .await;
}

#[tokio::test]
async fn members_that_a_raw_route_conditions_on_are_exact() {
    let routes = json!([{
        "name": "raw", "method": ["POST"], "path": ECHO, "as": "app",
        "body": {"kind": ["a", "7", "true"]},
    }]);
    with_app(TestOptions::routes(routes), async |app| {
        let own = app.app_token().await;
        let status = async |body: &str| {
            let ask = app.outbound().post(ECHO).bearer(&own);
            let answer = ask
                .header("content-type", JSON)
                .body(body.to_owned())
                .fetch()
                .await;
            answer.status
        };
        for good in [r#"{"kind":"a"}"#, r#"{"kind":7}"#, r#"{"kind":true,"x":1}"#] {
            assert_eq!(status(good).await, 200, "{good}");
        }
        let served = app.api_calls().len();
        for bad in [
            r#"{"kind":"b"}"#,
            r#"{"kind":"A"}"#,
            r#"{"kind":["a"]}"#,
            r#"{"kind":7.0}"#,
            r#"{"kind":null}"#,
            r#"{"x":{"kind":"a"}}"#,
            "[]",
            "{}",
            "",
        ] {
            assert_eq!(status(bad).await, 403, "{bad}");
        }
        for bad in [
            r#"{"kind":"a","kind":"a"}"#,
            r#"{"kind":"a""#,
            r#"{"Kind":"a"}"#,
        ] {
            assert_eq!(status(bad).await, 400, "{bad}");
        }
        assert_eq!(app.api_calls().len(), served);
    })
    .await;
}

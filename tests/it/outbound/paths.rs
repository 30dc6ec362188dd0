//! A path is read in one way or refused, and forwarded byte for byte (PRODUCT 6.2, SECURITY T21, R20).

use serde_json::json;

use super::ECHO;
use crate::harness::{TestOptions, with_app};

/// Everything below `/api`, as the app: only the path stands between these requests and the workspace.
fn wide() -> TestOptions {
    TestOptions::routes(json!([
        {"name": "files", "operation": "files.*", "as": "app"},
        {"name": "all", "path": "/api/2.0/embedded/**", "as": "app"},
        {"name": "one", "path": "/api/2.0/one/{id}", "as": "app"},
    ]))
}

const HOSTILE: &[&str] = &[
    "/api/2.0/embedded/../token/create",
    "/api/2.0/embedded/..",
    "/api/2.0/embedded/./echo",
    "/api/2.0/embedded/.",
    "/api/2.0/embedded/%2e%2e/token/create",
    "/api/2.0/embedded/%2E%2E/token/create",
    "/api/2.0/embedded/.%2e/token",
    "/api/2.0/embedded/%2e./token",
    "/api/2.0/embedded/%252e%252e/token",
    "/api/2.0/embedded/%252e%252e%252ftoken",
    "/api/2.0/embedded/..%2ftoken",
    "/api/2.0/embedded/..%252ftoken",
    "/api/2.0/embedded/..%5ctoken",
    "/api/2.0/embedded/..\\token",
    "/api/2.0/embedded/a\\b",
    "/api/2.0/embedded/a%5Cb",
    "/api/2.0/embedded/a%255Cb",
    "/api/2.0/embedded/..;/token",
    "/api/2.0/embedded/echo;x=1",
    "/api/2.0/embedded//echo",
    "//api/2.0/embedded/echo",
    "/api//2.0/embedded/echo",
    "/api/2.0/embedded/echo//",
    "/api/2.0/embedded/a%00b",
    "/api/2.0/embedded/a%0d%0ab",
    "/api/2.0/embedded/a%09b",
    "/api/2.0/embedded/a%7fb",
    "/api/2.0/embedded/%",
    "/api/2.0/embedded/%2",
    "/api/2.0/embedded/%zz",
    "/api/2.0/embedded/%c0%ae%c0%ae/token",
    "/api/2.0/embedded/%c0%af",
    "/api/2.0/embedded/%ff",
    "/api/2.0/embedded/%ef%bc%8e%ef%bc%8e/token",
    "/api/2.0/embedded/a%ef%bc%8fb",
    "/api/2.0/embedded/%e2%80%a5/token",
    "/%61pi/2.0/embedded/echo",
    "/api/2.0/embedded/ech%6f",
    "/api/2.0/embedded/\u{fc}",
    "/api/2.0/embedded/a\"b",
    "/api/2.0/embedded/a<b",
    "/api/2.0/embedded/{x}",
    "/api/2.0/fs/files/Volumes/main/sales/files/%2e%2e/x",
    "/api/2.0/fs/files/Volumes/main/sales/files/a%2f..%2fb",
    "/api/2.0/fs/files/Volumes/main/sales/files/a%252f..%252fb",
    "/api/2.0/fs/files/Volumes/main/sales/files/a%5cb",
    "*",
];

#[tokio::test]
async fn paths_with_two_readings_are_refused_and_reach_nobody() {
    with_app(wide(), async |app| {
        let (own, host) = (app.app_token().await, app.addresses.outbound);
        for path in HOSTILE {
            for method in ["GET", "PUT"] {
                let text = format!(
                    "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {own}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                );
                let raw = app.outbound().raw(text).await;
                assert_eq!(raw.status(), 400, "{method} {path}: {}", raw.text());
            }
        }
        assert!(app.api_calls().is_empty());
    })
    .await;
}

#[tokio::test]
async fn escapes_that_no_template_admits_are_refused_outside_file_names() {
    with_app(wide(), async |app| {
        let own = app.app_token().await;
        for path in [
            "/a%2Fb", "/a%252Fb", "/a%3Fb", "/a%23b", "/a%3Bb", "/a%2541", "/a.", "/a%20",
        ] {
            for base in [ECHO, "/api/2.0/one"] {
                let answer = app
                    .outbound()
                    .get(&format!("{base}{path}"))
                    .bearer(&own)
                    .fetch()
                    .await;
                let found = (answer.status, answer.reason());
                assert_eq!(found, (400, Some("path_escape")), "{base}{path}");
            }
        }
        assert!(app.api_calls().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_passes_is_forwarded_byte_for_byte() {
    with_app(wide(), async |app| {
        let own = app.app_token().await;
        let volume = "/api/2.0/fs/files/Volumes/main/sales/files";
        for target in [
            format!("{ECHO}?a=%20&b=+&c=%2e%2e/&d=\u{7e}&&e"),
            format!("{ECHO}/100%25"),
            format!("{ECHO}/a%20b/%C3%BC"),
            format!("{ECHO}/a%3ab%2Bc"),
            format!("{ECHO}/x:y@z!$&'()*+,=~"),
            format!("{ECHO}/"),
            format!("{ECHO}?"),
            format!("{volume}/a%20b.txt"),
            format!("{volume}/100%25.txt"),
            format!("{volume}/a%252Fb.txt"),
            format!("{volume}/a%2Fb.txt"),
            format!("{volume}/what%3F%23.txt"),
            format!("{volume}/d%C3%BCr/x.y.z"),
        ] {
            let before = app.api_calls().len();
            let answer = app.outbound().get(&target).bearer(&own).fetch().await;
            assert!(
                matches!(answer.status, 200 | 404),
                "{target}: {}",
                answer.text()
            );
            let calls = app.api_calls();
            assert_eq!(calls.len(), before + 1);
            assert_eq!(calls.last().unwrap().target, target);
        }
    })
    .await;
}

#[tokio::test]
async fn a_template_matches_whole_segments_only() {
    with_app(wide(), async |app| {
        let own = app.app_token().await;
        for path in [
            "/api/2.0/one",
            "/api/2.0/one/a/b",
            "/api/2.0/ONE/a",
            "/API/2.0/one/a",
            "/api/2.0/onea/b",
            "/api/2.0/embeddedx/a",
        ] {
            let answer = app.outbound().get(path).bearer(&own).fetch().await;
            assert_eq!(answer.reason(), Some("no_route"), "{path}");
        }
        assert!(app.api_calls().is_empty());
    })
    .await;
}

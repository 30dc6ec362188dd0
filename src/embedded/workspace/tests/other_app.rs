//! The other app over a real socket: its front door, its tools, and how the workspace leads there.

use super::*;
use crate::embedded::other_app::{OtherApp, OtherAppOptions};
use crate::embedded::world::{APP, APP_RESTRICTED};

async fn get(rig: &Rig, url: &str, bearer: Option<&str>) -> Read {
    let header = bearer.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = header
        .iter()
        .map(|h| ("authorization", h.as_str()))
        .collect();
    Read::of(rig.ask("GET", url, &headers, empty()).await).await
}

#[tokio::test]
async fn it_lets_in_tokens_of_its_workspace_and_sends_others_to_the_login() {
    let (rig, stranger) = (Rig::start().await, Rig::start().await);
    let options = OtherAppOptions::default();
    let app = OtherApp::start(&rig.workspace, options).await.unwrap();
    let hello = format!("{}/api/hello", app.url());
    let bob = rig.token_for("bob", "sql");
    let greeted = get(&rig, &hello, Some(&bob)).await;
    assert_eq!(greeted.json()["hello"], "bob@example.com");
    assert_eq!(
        greeted.header("x-embedded-identity"),
        "user:bob@example.com"
    );
    let service = rig.app_token("all-apis").await;
    let greeted = get(&rig, &hello, Some(&service)).await;
    assert_eq!(greeted.header("x-embedded-identity"), "app");
    for bearer in [
        None,
        Some("dapi0123456789"),
        Some(stranger.token("bob").as_str()),
    ] {
        let refused = get(&rig, &hello, bearer).await;
        assert_eq!(refused.status, 302);
        let login = format!("{}/oidc/", rig.workspace.url());
        assert!(refused.header("location").starts_with(&login));
    }
    assert_eq!(app.control().calls().len(), 5);
    assert!(rig.workspace.control().calls_to("/api/hello").is_empty());
    app.control().fail_next(Place::Api, Fault::status(503), 1);
    assert_eq!(get(&rig, &hello, Some(&bob)).await.status, 503);
}

#[tokio::test]
async fn the_workspace_tells_its_address_while_it_runs() {
    let rig = Rig::start().await;
    let token = rig.app_token("apps").await;
    let path = format!("/api/2.0/apps/{APP}");
    let url = |answer: Read| answer.json()["url"].as_str().unwrap().to_owned();
    assert!(url(rig.get(&path, &token).await).starts_with("https://demo-tools-"));
    let app = OtherApp::start(&rig.workspace, OtherAppOptions::default())
        .await
        .unwrap();
    assert_eq!(url(rig.get(&path, &token).await), app.url());
    app.stop().await;
    assert!(url(rig.get(&path, &token).await).ends_with(".databricksapps.com"));
}

#[tokio::test]
async fn a_restricted_one_is_for_the_first_user_alone() {
    let rig = Rig::start().await;
    let options = OtherAppOptions {
        name: APP_RESTRICTED.to_owned(),
        ..OtherAppOptions::default()
    };
    let app = OtherApp::start(&rig.workspace, options).await.unwrap();
    let hello = format!("{}/api/hello", app.url());
    assert_eq!(
        get(&rig, &hello, Some(&rig.token("alice"))).await.status,
        200
    );
    assert_eq!(get(&rig, &hello, Some(&rig.token("bob"))).await.status, 403);
}

#[tokio::test]
async fn it_serves_tls_of_its_own() {
    let (tls, client) = tls_for_localhost();
    let rig = Rig {
        client,
        ..Rig::start().await
    };
    let options = OtherAppOptions {
        tls: Some(tls),
        host: "localhost".to_owned(),
        ..OtherAppOptions::default()
    };
    let app = OtherApp::start(&rig.workspace, options).await.unwrap();
    let hello = format!("{}/api/hello", app.url());
    assert!(hello.starts_with("https://localhost:"));
    assert_eq!(get(&rig, &hello, Some(&rig.token("bob"))).await.status, 200);
}

#[tokio::test]
async fn it_speaks_mcp() {
    let rig = Rig::start().await;
    let app = OtherApp::start(&rig.workspace, OtherAppOptions::default())
        .await
        .unwrap();
    let url = format!("{}/mcp", app.url());
    let bearer = format!("Bearer {}", rig.token("bob"));
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let headers = [("authorization", bearer.as_str())];
    let begun = Read::of(rig.ask("POST", &url, &headers, full(hello)).await).await;
    let session = begun.header("mcp-session-id").to_owned();
    let headers = [headers[0], ("mcp-session-id", session.as_str())];
    let say = |name: &str| {
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": name, "arguments": { "text": "hi" } } })
            .to_string()
    };
    for (tool, said) in [("whoami", "bob@example.com"), ("shout", "HI")] {
        let answer = rig.ask("POST", &url, &headers, full(say(tool))).await;
        let answer = Read::of(answer).await.json();
        assert_eq!(answer["result"]["content"][0]["text"], said);
    }
}

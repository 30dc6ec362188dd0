//! CONNECT to the workspace and to upstreams: it ends in the sidecar, and the calls inside are decided like all others.

use serde_json::{Value, json};

use super::{ME, options, workspace_at};
use crate::harness::agent::Agent;
use crate::harness::raw::RawServer;
use crate::harness::secure::{Protocol, Short};
use crate::harness::{LOCAL_ID, LOCAL_SECRET, TestApp, TestOptions, with_app};

fn forward() -> TestOptions {
    options(&json!({"forward": "on"}))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn calls_inside_are_decided_recorded_and_given_their_credential() {
    with_app(forward(), async |app: &TestApp| {
        let (secure, place) = (app.secure(), workspace_at(app));
        let session = bearer(&app.session(&app.alice()).await);
        for protocol in [Protocol::H1, Protocol::H2] {
            let headers = [("authorization", session.as_str())];
            let me = Short::get(ME, &headers);
            let answer = secure.fetch_through(&place, protocol, me).await;
            let identity = answer.header("x-embedded-identity");
            assert_eq!(identity, Some("user:alice@example.com"), "{protocol:?}");
        }
        let outcome = app
            .audit_has("an outcome", |r| r["event"] == "outcome")
            .await;
        assert_eq!(
            (&outcome["path"], &outcome["identity"]),
            (&json!(ME), &json!("user"))
        );
        assert_eq!(outcome["user"]["sub"], "alice@example.com");

        let headers = [("authorization", session.as_str())];
        let denied = Short::get("/api/2.0/sql/warehouses", &headers);
        let answer = secure.fetch_through(&place, Protocol::H1, denied).await;
        assert_eq!(answer.reason(), Some("no_route"));
        let nobody = secure
            .fetch_through(&place, Protocol::H1, Short::get(ME, &[]))
            .await;
        assert_eq!(nobody.reason(), Some("local_token_missing"));
        // The calls have their records, so the tunnels themselves need none.
        assert!(app.audit().iter().all(|r| r["method"] != "CONNECT"));
    })
    .await;
}

#[tokio::test]
async fn inside_the_sidecar_is_called_as_the_workspace_is() {
    with_app(forward(), async |app: &TestApp| {
        let (secure, place) = (app.secure(), workspace_at(app));
        let path = "/oidc/.well-known/oauth-authorization-server";
        let told = secure
            .fetch_through(&place, Protocol::H1, Short::get(path, &[]))
            .await
            .json();
        let origin = format!("https://{place}");
        assert_eq!(told["issuer"], format!("{origin}/oidc"));
        assert_eq!(told["token_endpoint"], format!("{origin}/oidc/v1/token"));
        let before = app.token_requests();
        let ask = Short {
            method: "POST",
            target: "/oidc/v1/token",
            headers: &[("content-type", "application/x-www-form-urlencoded")],
            body: &format!(
                "grant_type=client_credentials&client_id={LOCAL_ID}&client_secret={LOCAL_SECRET}"
            ),
        };
        let token = secure.fetch_through(&place, Protocol::H1, ask).await.json();
        let token = bearer(token["access_token"].as_str().unwrap());
        assert_eq!(app.token_requests(), before);
        let headers = [("authorization", token.as_str())];
        let answer = secure
            .fetch_through(&place, Protocol::H1, Short::get(ME, &headers))
            .await;
        assert_eq!(answer.header("x-embedded-identity"), Some("app"));
        // The listener itself is still what it was.
        let told = app.outbound().get(path).fetch().await.json();
        let own = format!("http://{}/oidc", app.addresses.outbound);
        assert_eq!(told["issuer"], own);
    })
    .await;
}

#[tokio::test]
async fn no_request_inside_is_read_in_two_ways() {
    with_app(forward(), async |app: &TestApp| {
        let (secure, place) = (app.secure(), workspace_at(app));
        let session = app.session(&app.alice()).await;
        let before = app.api_calls().len();
        let auth = format!("Authorization: Bearer {session}");
        let own = app.addresses.outbound;
        for (head, status, reason) in [
            ("GET /ME HTTP/1.1\r\nHost: {place}\r\nHost: {place}\r\n{auth}\r\n\r\n", 400, "bad_head"),
            ("GET /ME HTTP/1.1\r\n{auth}\r\n\r\n", 400, "bad_head"),
            ("GET /ME HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n{auth}\r\n\r\n", 403, "not_local"),
            ("GET /ME HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n{auth}\r\n\r\n", 403, "not_local"),
            ("GET /ME HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{auth}\r\n\r\n", 403, "not_local"),
            ("GET /ME HTTP/1.1\r\nHost: {place}\r\nOrigin: https://evil.example\r\nConnection: close\r\n{auth}\r\n\r\n", 403, "not_local"),
            ("GET https://{place}/ME HTTP/1.1\r\nHost: {place}\r\n{auth}\r\n\r\n", 400, "bad_head"),
            ("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{auth}\r\n\r\n", 400, "bad_head"),
            ("TRACE /ME HTTP/1.1\r\nHost: {place}\r\n{auth}\r\n\r\n", 400, "bad_head"),
            ("POST /ME HTTP/1.1\r\nHost: {place}\r\nContent-Length: 1\r\nContent-Length: 1\r\n{auth}\r\n\r\nx", 400, ""),
            ("POST /ME HTTP/1.1\r\nHost: {place}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n{auth}\r\n\r\n0\r\n\r\n", 400, ""),
            ("GET /api/2.0/%2e%2e/x HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n{auth}\r\n\r\n", 400, "bad_path"),
            ("GET /ME HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n{auth}\r\n{auth}\r\n\r\n", 400, "bad_head"),
        ] {
            let text = head
                .replace("/ME", ME)
                .replace("{place}", &place)
                .replace("{own}", &own.to_string())
                .replace("{auth}", &auth);
            let raw = secure.raw_through(&place, &text).await;
            assert_eq!((raw.status(), raw.answers()), (status, 1), "{head}\n{}", raw.text());
            assert!(raw.text().contains(reason), "{head}\n{}", raw.text());
        }
        assert_eq!(app.api_calls().len(), before);
        // In the clear there is nothing inside.
        let mut stream = secure.tunnel(&place).await;
        let plain = format!("GET {ME} HTTP/1.1\r\nHost: {place}\r\n{auth}\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, plain.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/"));
        assert_eq!(app.api_calls().len(), before);
    })
    .await;
}

fn tools(address: std::net::SocketAddr) -> Value {
    json!([{"name": "tools", "url": format!("http://{address}"), "app": "mcp-tools"}])
}

#[tokio::test]
async fn a_tunnel_to_an_upstream_is_that_upstream_and_nothing_else() {
    let far = Agent::start().await;
    let place = far.address().to_string();
    let routes = json!([{"name": "tools", "resource": "app/mcp-tools", "as": "user"}]);
    let options = TestOptions {
        upstreams: vec![far.clone()],
        ..TestOptions::routes(routes)
    };
    let outbound = json!({"outbound": {"forward": "on", "upstreams": tools(far.address())}});
    with_app(options.with(outbound), async |app: &TestApp| {
        let secure = app.secure();
        let alice = app.alice();
        let session = bearer(&app.session(&alice).await);
        let headers = [("authorization", session.as_str())];
        let call = Short {
            method: "POST",
            target: "/mcp?x=1",
            headers: &headers,
            body: "{}",
        };
        let answer = secure.fetch_through(&place, Protocol::H1, call).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = far.last();
        assert_eq!((&*seen.method, &*seen.target), ("POST", "/mcp?x=1"));
        assert_eq!(seen.header("authorization"), [bearer(&alice)]);
        // What is the sidecar's own on the workspace's host is the upstream's here.
        let path = "/.well-known/oauth-protected-resource";
        let own = secure.fetch_through(&place, Protocol::H1, Short::get(path, &headers));
        assert_eq!(own.await.status, 200);
        assert_eq!(far.last().target, path);
        let outcome = app
            .audit_has("an outcome", |r| r["event"] == "outcome")
            .await;
        assert_eq!(
            outcome["resource"],
            json!({"type": "app", "id": "mcp-tools"})
        );
        // The workspace's door is another one.
        let answer = secure
            .fetch_through(
                &workspace_at(app),
                Protocol::H1,
                Short::get("/mcp", &headers),
            )
            .await;
        assert_eq!(answer.reason(), Some("no_route"));
        let through = secure
            .fetch_through(
                &workspace_at(app),
                Protocol::H1,
                Short::get("/@tools/x", &headers),
            )
            .await;
        assert_eq!((through.status, &*far.last().target), (200, "/x"));
    })
    .await;
}

#[tokio::test]
async fn addresses_in_answers_are_those_that_the_tunnel_leads_to() {
    let index = valetkey::embedded::world::INDEX;
    let routes =
        json!([{"name": "docs", "resource": format!("vector_search_index/{index}"), "as": "app"}]);
    let options = TestOptions::routes(routes).with(json!({"outbound": {"forward": "on"}}));
    with_app(options, async |app: &TestApp| {
        let (secure, place) = (app.secure(), workspace_at(app));
        let token = bearer(&app.app_token().await);
        let headers = [("authorization", token.as_str())];
        let target = format!("/api/2.0/vector-search/indexes/{index}");
        let call = Short::get(&target, &headers);
        let told = secure.fetch_through(&place, Protocol::H1, call).await;
        assert_eq!(told.status, 200, "{}", told.text());
        let expected = format!("https://{place}{target}");
        assert_eq!(told.json()["status"]["index_url"], expected);
    })
    .await;
}

#[tokio::test]
async fn a_redirect_inside_leads_back_into_the_tunnel() {
    let answer =
        "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: LOCATION\r\n\r\n";
    for (location, expected) in [
        ("/mcp/", "https://PLACE/mcp/"),
        ("http://PLACE/mcp/", "https://PLACE/mcp/"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let text = answer
            .replace("LOCATION", location)
            .replace("PLACE", &place);
        let far = RawServer::on(listener, text, false);
        let routes = json!([{"name": "tools", "resource": "app/mcp-tools", "as": "user"}]);
        let outbound = json!({"outbound": {"forward": "on", "upstreams": tools(far.address())}});
        with_app(
            TestOptions::routes(routes).with(outbound),
            async |app: &TestApp| {
                let session = bearer(&app.session(&app.alice()).await);
                let headers = [("authorization", session.as_str())];
                let call = Short::get("/mcp", &headers);
                let answer = app.secure().fetch_through(&place, Protocol::H1, call).await;
                assert_eq!(
                    answer.header("location"),
                    Some(&*expected.replace("PLACE", &place))
                );
            },
        )
        .await;
    }
}

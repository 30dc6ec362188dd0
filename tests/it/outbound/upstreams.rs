//! Other apps under `/@NAME/`: who may reach them and as whom, what goes there, and what comes back.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use valetkey::domain::clock::Timestamp;
use valetkey::domain::scope::ScopeSet;
use valetkey::explain::{As, Question, explain};

use crate::harness::agent::{Agent, Received};
use crate::harness::certificates::{Issued, issue};
use crate::harness::client::Streaming;
use crate::harness::raw::RawServer;
use crate::harness::{TestApp, TestOptions, with_app};

/// Two other apps behind TLS, each with a root of its own that is trusted for it alone.
struct Far {
    tools: Agent,
    other: Agent,
    certificates: [Issued; 2],
}

impl Far {
    async fn start() -> Self {
        let certificates = [issue("localhost", false), issue("localhost", false)];
        let [of_tools, of_other] = &certificates;
        Self {
            tools: Agent::start_tls(of_tools.server.clone()).await,
            other: Agent::start_tls(of_other.server.clone()).await,
            certificates,
        }
    }

    /// Where `tools` is, as the configuration has it.
    fn origin(&self) -> String {
        format!("https://localhost:{}", self.tools.address().port())
    }

    fn options(&self, routes: Value) -> TestOptions {
        let [of_tools, of_other] = &self.certificates;
        let port = self.other.address().port();
        let options = TestOptions {
            upstreams: vec![self.tools.clone(), self.other.clone()],
            ..TestOptions::routes(routes)
        };
        options.with(json!({"outbound": {"upstreams": [
            {"name": "tools", "url": self.origin(), "app": "mcp-tools", "ca_file": of_tools.ca_file},
            {"name": "other", "url": format!("https://localhost:{port}"), "ca_file": of_other.ca_file},
        ]}}))
    }

    /// No request has reached either.
    fn is_untouched(&self) -> bool {
        self.tools.count() + self.other.count() == 0
    }
}

fn route_as(identity: &str) -> Value {
    json!([{"name": "tools", "resource": "app/mcp-tools", "as": identity}])
}

/// The real token that a far side was shown.
fn bearer(request: &Received) -> String {
    let values = request.header("authorization");
    assert_eq!(values.len(), 1, "one credential");
    values[0].strip_prefix("Bearer ").unwrap().to_owned()
}

#[tokio::test]
async fn a_call_reaches_the_app_as_the_route_says() {
    for (identity, of_user, of_app) in [
        ("user", Some("user"), None),
        ("app", Some("app"), Some("app")),
        ("caller", Some("user"), Some("app")),
        ("deny", None, None),
    ] {
        let far = Far::start().await;
        with_app(far.options(route_as(identity)), async |app: &TestApp| {
            let alice = app.alice();
            let session = app.session(&alice).await;
            let local = app.app_token().await;
            for (token, expected) in [(&session, of_user), (&local, of_app)] {
                let before = far.tools.count();
                let ask = app.outbound().post("/@tools/mcp?a=1&o=2").bearer(token);
                let answer = ask.json(&json!({"jsonrpc": "2.0"})).fetch().await;
                let Some(expected) = expected else {
                    assert_eq!(answer.status, 403, "{identity}");
                    assert_eq!(far.tools.count(), before, "{identity}");
                    continue;
                };
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(answer.json(), json!({"jsonrpc": "2.0"}));
                let seen = far.tools.last();
                assert_eq!((&*seen.method, &*seen.target), ("POST", "/mcp?a=1&o=2"));
                let host = far.origin().replace("https://", "");
                assert_eq!(seen.header("host"), [host]);
                let shown = bearer(&seen);
                if expected == "user" {
                    assert_eq!(shown, alice);
                } else {
                    let issued = app.control().signed_tokens();
                    assert!(shown != alice && issued.contains(&shown), "{identity}");
                }
            }
            assert_eq!(far.other.count(), 0, "the other app saw nothing");
        })
        .await;
    }
}

#[tokio::test]
async fn a_user_needs_no_scope_of_the_workspace_for_it() {
    let far = Far::start().await;
    with_app(far.options(route_as("user")), async |app: &TestApp| {
        let token = app.token(crate::harness::ALICE, "offline_access", 3600);
        let session = app.session(&token).await;
        let answer = app.outbound().get("/@tools/mcp").bearer(&session).fetch();
        assert_eq!(answer.await.status, 200);
        assert_eq!(bearer(&far.tools.last()), token);
    })
    .await;
}

#[tokio::test]
async fn without_a_route_for_its_app_nothing_is_sent() {
    let far = Far::start().await;
    let routes = json!([
        {"name": "raw", "path": "/**", "as": "caller", "scope": "sql"},
        {"name": "everything", "operation": "*", "as": "caller"},
        {"name": "by-its-name", "resource": "app/tools", "as": "caller"},
    ]);
    with_app(far.options(routes), async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        for token in [&session, &app.app_token().await] {
            for target in ["/@tools/mcp", "/@tools/api/2.0/sql/statements", "/@other/"] {
                let answer = app.outbound().get(target).bearer(token).fetch().await;
                assert_eq!(answer.reason(), Some("no_route"), "{target}");
                let text = answer.text();
                assert!(text.contains(&format!("GET {target}")), "{text}");
            }
        }
        let nobody = app.outbound().get("/@tools/mcp").fetch().await;
        assert_eq!(nobody.reason(), Some("local_token_missing"));
        let nobody = app.outbound().get("/@nobody/").fetch().await;
        assert_eq!(nobody.reason(), Some("local_token_missing"));
        assert!(far.is_untouched());
        assert!(app.api_calls().is_empty());
    })
    .await;
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_anywhere_else() {
    let far = Far::start().await;
    let routes = json!([
        {"name": "tools", "resource": "app/mcp-tools", "as": "caller"},
        {"name": "raw", "path": "/**", "as": "caller", "scope": "sql"},
    ]);
    with_app(far.options(routes), async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        for (target, status, reason) in [
            ("/@tools/../x", 400, "bad_path"),
            ("/@tools/..", 400, "bad_path"),
            ("/@tools/%2e%2e/@other/x", 400, "bad_path"),
            ("/@tools/..%2f@other/x", 400, "bad_path"),
            ("/@tools/a%2Fb", 400, "path_escape"),
            ("/@tools/a%252Fb", 400, "path_escape"),
            ("/@tools//mcp", 400, "bad_path"),
            ("//@tools/mcp", 400, "bad_path"),
            ("//", 400, "bad_path"),
            ("/@tools/mcp;a=b", 400, "bad_path"),
            ("/@tools", 400, "bad_path"),
            ("/@tools?a=/mcp", 400, "bad_path"),
            ("/%40tools/mcp", 400, "bad_path"),
            ("/x/../@tools/mcp", 400, "bad_path"),
            ("/@tools%2Fx", 404, "no_such_upstream"),
            ("/@TOOLS/mcp", 404, "no_such_upstream"),
            ("/@mcp-tools/mcp", 404, "no_such_upstream"),
            ("/@tools.example/mcp", 404, "no_such_upstream"),
            ("/@tools@other/mcp", 404, "no_such_upstream"),
            ("/@tools:443/mcp", 404, "no_such_upstream"),
            ("/@/mcp", 404, "no_such_upstream"),
        ] {
            let head = format!(
                "GET {target} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {session}\r\nconnection: close\r\n\r\n",
                app.addresses.outbound
            );
            let answer = app.outbound().raw(head).await;
            assert_eq!(answer.status(), status, "{target}");
            let named = format!("x-valetkey-error: {reason}\r\n");
            assert!(answer.text().contains(&named), "{target} {}", answer.text());
        }
        let answer = app.outbound().get("/@TOOLS/").bearer(&session).fetch().await;
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("configured: tools, other"), "{message}");
        assert!(far.is_untouched());
        assert!(app.api_calls().is_empty());
        for (target, there) in [
            ("/@tools/", "/"),
            ("/@tools/a%20b/@other/c", "/a%20b/@other/c"),
            ("/@tools/mcp/", "/mcp/"),
        ] {
            app.outbound().get(target).bearer(&session).fetch().await;
            assert_eq!(far.tools.last().target, there);
        }
        // Not at its start, the mark is a name like any other.
        let target = "/api/2.0/embedded/echo/@tools/mcp";
        app.outbound().get(target).bearer(&session).fetch().await;
        assert_eq!(app.api_calls().pop().unwrap().target, target);
        assert_eq!(far.other.count(), 0);
    })
    .await;
}

#[tokio::test]
async fn what_the_agent_says_of_itself_does_not_leave() {
    let far = Far::start().await;
    with_app(far.options(route_as("user")), async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        let ask = app.outbound().get("/@tools/mcp").bearer(&session);
        let ask = [
            "x-forwarded-user",
            "x-forwarded-host",
            "x-forwarded-access-token",
        ]
        .into_iter()
        .fold(ask, |ask, name| ask.header(name, &session));
        let answer = ask
            .header("cookie", "databricksapps=1")
            .header("forwarded", "host=evil.example")
            .header("x-original-url", "/admin")
            .header("x-databricks-org-id", "1")
            .header("mcp-session-id", "s1")
            .header("mcp-protocol-version", "2026-07-28")
            .fetch()
            .await;
        assert_eq!(answer.status, 200);
        let seen = far.tools.last();
        let mut names: Vec<&str> = seen.headers.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "authorization",
                "host",
                "mcp-protocol-version",
                "mcp-session-id"
            ]
        );
        let odd = app.outbound().get("/@tools/odd").bearer(&session).fetch();
        let odd = odd.await;
        assert_eq!(odd.header("x-own"), Some("kept"));
        for name in ["set-cookie", "x-valetkey-error", "x-private", "keep-alive"] {
            assert_eq!(odd.header(name), None, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_login_page_becomes_a_refusal_that_says_what_is_needed() {
    let far = Far::start().await;
    with_app(far.options(route_as("caller")), async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        let own = far.origin();
        for (to, is_login) in [
            (
                "https://ws.example/oidc/oauth2/v2.0/authorize?client_id=1",
                true,
            ),
            (&format!("{own}/.auth/login?next=%2Fmcp"), true),
            ("/.auth/login", true),
            ("/mcp/", false),
            ("https://elsewhere.example/oidcs", false),
        ] {
            let to: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
            let target = format!("/@tools/redirect?to={to}");
            let before = far.tools.count();
            let answer = app.outbound().get(&target).bearer(&session).fetch().await;
            assert_eq!(far.tools.count(), before + 1, "{to} was not followed");
            if !is_login {
                assert_eq!((answer.status, answer.reason()), (307, None), "{to}");
                continue;
            }
            let said = (answer.status, answer.reason());
            assert_eq!(said, (403, Some("upstream_login_required")), "{to}");
            assert_eq!(answer.header("location"), None);
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains("CAN_USE") && message.contains("personal access token"));
        }
        let outcome = app.audit_has("the outcome", |r| {
            r["event"] == "outcome" && r["reason"] == "upstream_login_required"
        });
        assert_eq!(outcome.await["status"], 403);
    })
    .await;
}

#[tokio::test]
async fn a_location_there_leads_back_through_the_sidecar() {
    let far = Far::start().await;
    with_app(far.options(route_as("user")), async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        let (own, here) = (far.origin(), format!("http://{}", app.addresses.outbound));
        for (to, expected) in [
            (
                format!("{own}/mcp/?a=b#c"),
                format!("{here}/@tools/mcp/?a=b#c"),
            ),
            (own.clone(), format!("{here}/@tools")),
            ("/mcp/".into(), format!("{here}/@tools/mcp/")),
            ("mcp/".into(), format!("{here}/@tools/mcp/")),
            ("../../api/2.0/x".into(), format!("{here}/@tools/api/2.0/x")),
            (
                "https://elsewhere.example/x".into(),
                "https://elsewhere.example/x".into(),
            ),
            (
                format!("{own}.evil.example/x"),
                format!("{own}.evil.example/x"),
            ),
        ] {
            let query: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
            let target = format!("/@tools/redirect?to={query}");
            let answer = app.outbound().get(&target).bearer(&session).fetch().await;
            assert_eq!(
                (answer.status, answer.header("location")),
                (307, Some(&*expected))
            );
        }
    })
    .await;
}

/// The next event; the far side sends it when it is released.
async fn event(stream: &mut Streaming) -> Bytes {
    stream.next().await.expect("an event").expect("whole")
}

#[tokio::test]
async fn events_and_uploads_stream_and_a_client_that_leaves_is_noticed() {
    let far = Far::start().await;
    with_app(far.options(route_as("user")), async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        let ask = app.outbound().get("/@tools/sse").bearer(&session);
        let mut stream = ask.header("accept", "text/event-stream").send().await;
        assert_eq!(stream.status, 200);
        for number in 0..3 {
            far.tools.release();
            assert_eq!(event(&mut stream).await, format!("data: {number}\n\n"));
        }
        assert_eq!(far.tools.open(), 1);
        drop(stream);
        far.tools
            .wait_until("the stream is given up", |far| far.open() == 0)
            .await;

        let (ask, pieces) = app
            .outbound()
            .post("/@tools/upload")
            .bearer(&session)
            .chunked();
        let sending = tokio::spawn(ask.fetch());
        pieces.send(Bytes::from_static(b"first")).await.unwrap();
        let arrived = |far: &Agent| far.last().body == b"first";
        far.tools
            .wait_until("the first piece is there", arrived)
            .await;
        pieces.send(Bytes::from_static(b" second")).await.unwrap();
        drop(pieces);
        assert_eq!(sending.await.unwrap().text(), "first second");
    })
    .await;
}

#[tokio::test]
async fn the_record_names_the_app_and_the_path_as_the_agent_wrote_it() {
    let far = Far::start().await;
    with_app(far.options(route_as("user")), async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        app.outbound()
            .post("/@tools/mcp?secret=1")
            .bearer(&session)
            .body("x")
            .fetch()
            .await;
        for event in ["intent", "outcome"] {
            let record = app.audit_has(event, |r| r["event"] == event).await;
            assert_eq!(
                record["resource"],
                json!({"type": "app", "id": "mcp-tools"})
            );
            assert_eq!(record["path"], "/@tools/mcp");
            assert_eq!(
                (&record["route"], &record["identity"]),
                (&json!("tools"), &json!("user"))
            );
            assert_eq!(record["user"]["sub"], "alice@example.com");
            assert_eq!(
                record.get("operation").unwrap_or(&Value::Null),
                &Value::Null
            );
        }
        let metrics = app.metrics().await;
        assert!(metrics.contains("route=\"tools\""), "{metrics}");
        let status = app.admin().get("/status").fetch().await.json();
        assert_eq!(
            status["upstreams"][0],
            json!({"name": "tools", "app": "mcp-tools", "url": far.origin(), "path": "/@tools/"})
        );
    })
    .await;
}

#[tokio::test]
async fn no_byte_of_http_goes_to_an_upstream_that_cannot_prove_its_name() {
    let far = Far::start().await;
    let [of_tools, of_other] = &far.certificates;
    for (what, url, ca_file) in [
        ("an unknown root", far.origin(), None),
        (
            "the root of another upstream",
            far.origin(),
            Some(&of_other.ca_file),
        ),
        (
            "another name",
            format!("https://127.0.0.1:{}", far.tools.address().port()),
            Some(&of_tools.ca_file),
        ),
    ] {
        let mut upstream = json!({"name": "tools", "url": url, "app": "mcp-tools"});
        if let Some(file) = ca_file {
            upstream["ca_file"] = json!(file);
        }
        let options = TestOptions::routes(route_as("caller"));
        let options = options.with(json!({"outbound": {"upstreams": [upstream]}}));
        with_app(options, async |app: &TestApp| {
            let session = app.session(&app.alice()).await;
            let answer = app.outbound().get("/@tools/mcp").bearer(&session).fetch();
            let answer = answer.await;
            let said = (answer.status, answer.reason());
            assert_eq!(said, (502, Some("upstream_unreachable")), "{what}");
            assert!(far.is_untouched(), "{what}");
        })
        .await;
    }
}

#[tokio::test]
async fn an_upstream_that_is_away_or_switches_protocols_is_an_error_of_its_own() {
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    let far = RawServer::answering(switching, false).await;
    let upstreams = json!([
        {"name": "tools", "url": format!("http://{}", far.address()), "app": "mcp-tools"},
        {"name": "away", "url": "http://127.0.0.1:1"},
    ]);
    let mut routes = route_as("caller");
    routes[0]["resource"] = json!("app/*");
    let options = TestOptions::routes(routes).with(json!({"outbound": {"upstreams": upstreams}}));
    with_app(options, async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        for target in ["/@tools/mcp", "/@away/mcp"] {
            let ask = app.outbound().get(target).bearer(&session);
            let ask = ask
                .header("connection", "upgrade")
                .header("upgrade", "websocket");
            let answer = ask.fetch().await;
            assert_eq!(answer.reason(), Some("upstream_unreachable"), "{target}");
        }
        assert!(!far.heads()[0].to_lowercase().contains("upgrade"));
    })
    .await;
}

#[tokio::test]
async fn the_workspaces_description_of_an_app_leads_back_here_or_nowhere() {
    let far = Far::start().await;
    for (name, url, expected) in [
        (
            "mcp-tools",
            "https://elsewhere.example".to_owned(),
            Some("/@tools"),
        ),
        ("renamed", format!("{}/", far.origin()), Some("/@tools")),
        ("unknown", "https://elsewhere.example".to_owned(), None),
    ] {
        let body = json!({"name": name, "url": url, "id": "1"}).to_string();
        let length = body.len();
        let workspace = RawServer::answering(
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"),
            false,
        )
        .await;
        let routes = json!([{"name": "apps", "operation": "apps.get", "as": "app"}]);
        let options = TestOptions {
            workspace_at: Some(format!("http://{}", workspace.address())),
            ..far.options(routes)
        };
        with_app(options, async |app: &TestApp| {
            let target = format!("/api/2.0/apps/{name}");
            let ask = app.outbound().get(&target).bearer(&app.app_token().await);
            let answer = ask.fetch().await.json();
            let here = |path| format!("http://{}{path}", app.addresses.outbound);
            let expected = expected.map(here);
            assert_eq!(answer["url"].as_str(), expected.as_deref(), "{name}");
            assert_eq!(
                (&answer["name"], &answer["id"]),
                (&json!(name), &json!("1"))
            );
        })
        .await;
    }
}

#[tokio::test]
async fn explain_says_of_upstreams_what_the_live_proxy_does() {
    let far = Far::start().await;
    let routes = json!([
        {"name": "tools", "resource": "app/mcp-tools", "as": "user", "scope": "genie"},
        {"name": "raw", "path": "/**", "as": "caller", "scope": "sql"},
    ]);
    with_app(far.options(routes), async |app: &TestApp| {
        let (genie, sql) = ("genie", "sql");
        let mut callers = vec![(As::App, app.app_token().await)];
        for scopes in [genie, sql] {
            let token = app.token(crate::harness::ALICE, scopes, 3600);
            callers.push((
                As::User(ScopeSet::parse([scopes])),
                app.session(&token).await,
            ));
        }
        for (caller, bearer) in &callers {
            for target in [
                "/@tools/mcp",
                "/@tools/mcp?o=1",
                "/@tools/a%2Fb",
                "/@tools/../x",
                "/@tools",
                "/@other/mcp",
                "/@nobody/mcp",
                "/%40tools/mcp",
            ] {
                let method = Method::GET;
                let question = Question {
                    caller,
                    method: &method,
                    target,
                    body: None,
                    workspace_id: Some(app.workspace.workspace_id()),
                    upstreams: &app.proxy.upstreams,
                    headers: &HeaderMap::new(),
                    bound: None,
                    foreign_partition: false,
                    now: Timestamp::UNIX_EPOCH,
                };
                let told = explain(&app.proxy.snapshot.load().policy, &question);
                let live = app.outbound().get(target).bearer(bearer).fetch().await;
                assert_eq!(live.reason(), told.reason, "{caller:?} {target}");
                if told.allowed {
                    assert_eq!((told.identity, live.status), ("user", 200), "{target}");
                    assert_eq!(told.resources, ["app/mcp-tools"]);
                }
            }
        }
        assert_eq!(far.tools.count(), 2, "one caller, two targets");
    })
    .await;
}

#[tokio::test]
async fn where_a_route_lists_tools_only_they_get_through_to_the_app() {
    let far = Far::start().await;
    let mut routes = route_as("user");
    routes[0]["tools"] = json!(["look"]);
    with_app(far.options(routes), async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        let post = |body: &Value| {
            let ask = app.outbound().post("/@tools/mcp").bearer(&session);
            ask.json(body).fetch()
        };
        let call = |tool| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}});
        let answer = post(&call("look")).await;
        assert_eq!(answer.json(), call("look"));
        let before = far.tools.count();
        assert_eq!(post(&call("change")).await.reason(), Some("no_route"));
        let both = json!([call("look"), call("change")]);
        assert_eq!(post(&both).await.reason(), Some("no_route"));
        assert_eq!(post(&json!({"a": 1})).await.reason(), Some("bad_request"));
        let twice = r#"{"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "change", "name": "look"}}"#;
        for (kind, body) in [("application/json", twice), ("text/plain", "x")] {
            let ask = app.outbound().post("/@tools/mcp").bearer(&session);
            let answer = ask.header("content-type", kind).body(body).fetch().await;
            assert_eq!(answer.reason(), Some("bad_body"), "{kind}");
        }
        assert_eq!(far.tools.count(), before);
        // The event stream and the end of the session need no reading.
        let mut stream = app.outbound().get("/@tools/sse").bearer(&session).send().await;
        far.tools.release();
        assert_eq!(event(&mut stream).await, "data: 0\n\n");
        let end = app.outbound().ask("DELETE", "/@tools/mcp").bearer(&session);
        assert_eq!(end.fetch().await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn what_another_app_refuses_is_not_explained_with_the_workspaces_scopes() {
    let body = r#"{"error_code": "PERMISSION_DENIED", "message": "Provided OAuth token does not have required scopes: sql"}"#;
    let length = body.len();
    let far = RawServer::answering(
        format!("HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"),
        false,
    )
    .await;
    let upstream =
        json!({"name": "tools", "url": format!("http://{}", far.address()), "app": "mcp-tools"});
    let options = TestOptions::routes(route_as("user"));
    let options = options.with(json!({"outbound": {"upstreams": [upstream]}}));
    with_app(options, async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        let answer = app
            .outbound()
            .get("/@tools/mcp")
            .bearer(&session)
            .fetch()
            .await;
        assert_eq!((answer.status, answer.text()), (403, body.to_owned()));
        let own = { answer.headers.keys() }.find(|name| name.as_str().starts_with("x-valetkey"));
        assert_eq!(own, None);
    })
    .await;
}

//! `required`, `optional`, `none`, public paths, other token headers, and the ceiling of scopes (PRODUCT 5, SECURITY R10).

use serde_json::json;

use crate::harness::{ALICE, TestOptions, with_app};

fn mode(user: &str) -> TestOptions {
    TestOptions::default().with(json!({"inbound": {"user": user}}))
}

#[tokio::test]
async fn required_lets_nobody_in_without_a_token() {
    with_app(mode("required"), async |app| {
        let answer = app.inbound().get("/").fetch().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (401, Some("token_missing"))
        );
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
        assert_eq!(app.agent.count(), 0);
    })
    .await;
}

#[tokio::test]
async fn optional_serves_strangers_as_nobody_and_users_as_themselves() {
    with_app(mode("optional"), async |app| {
        let stranger = app
            .inbound()
            .get("/a")
            .header("x-forwarded-email", "boss@example.com")
            .header("x-forwarded-user", "boss")
            .fetch()
            .await;
        assert_eq!(stranger.status, 200);
        let got = app.agent.last();
        for name in [
            "x-forwarded-email",
            "x-forwarded-user",
            "x-forwarded-access-token",
            "x-valetkey-scopes",
        ] {
            assert!(got.header(name).is_empty(), "{name}");
        }
        app.session(&app.alice()).await;
        assert_eq!(app.agent.last().header("x-forwarded-user"), [ALICE]);
    })
    .await;
}

#[tokio::test]
async fn none_gives_nobody_a_session() {
    with_app(mode("none"), async |app| {
        let answer = app.inbound().get("/").user(&app.alice()).fetch().await;
        assert_eq!(answer.status, 200);
        let got = app.agent.last();
        assert!(got.header("x-forwarded-access-token").is_empty());
        assert!(got.header("x-forwarded-user").is_empty());
        assert!(app.proxy.sessions.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_bad_token_is_refused_in_every_mode_and_on_public_paths() {
    for user in ["required", "optional", "none"] {
        let options = mode(user).with(json!({"inbound": {"public": ["/assets/**"]}}));
        with_app(options, async |app| {
            for path in ["/", "/assets/a.css"] {
                for bad in [
                    "garbage",
                    "a.b.c",
                    "vks_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                ] {
                    let answer = app.inbound().get(path).user(bad).fetch().await;
                    let found = (answer.status, answer.reason());
                    assert_eq!(found, (401, Some("token_invalid")), "{user} {path} {bad}");
                }
            }
            assert_eq!(app.agent.count(), 0);
        })
        .await;
    }
}

#[tokio::test]
async fn public_paths_need_no_token_and_only_in_their_canonical_spelling() {
    let options =
        TestOptions::default().with(json!({"inbound": {"public": ["/assets/**", "/health"]}}));
    with_app(options, async |app| {
        for path in ["/assets/app.css", "/assets/a/b/c.js?v=1", "/health"] {
            let spoofed = app.inbound().get(path).header("x-forwarded-user", "boss");
            assert_eq!(spoofed.fetch().await.status, 200, "{path}");
            assert!(app.agent.last().header("x-forwarded-user").is_empty());
        }
        let served = app.agent.count();
        for path in [
            "/",
            "/healthz",
            "/health/x",
            "/Health",
            "/assets",
            "/assets/../admin",
            "/assets/./a",
            "/assets/%2e%2e/admin",
            "/assets/%2E%2E/admin",
            "/assets/.%2e/admin",
            "/assets/%252e%252e/admin",
            "/assets/..%2fadmin",
            "/assets/..%5cadmin",
            "/assets/..;/admin",
            "/assets;/../admin",
            "/assets//a",
            "//assets/a",
            "/%61ssets/a",
            "/assets/a%00",
            "/assets%2fa",
            "/admin?x=/assets/a",
        ] {
            let answer = app.inbound().get(path).fetch().await;
            assert_eq!(
                (answer.status, answer.reason()),
                (401, Some("token_missing")),
                "{path}"
            );
        }
        assert_eq!(app.agent.count(), served);
        // A user is a user there too.
        app.inbound()
            .get("/health")
            .user(&app.alice())
            .fetch()
            .await;
        assert_eq!(app.agent.last().header("x-forwarded-user"), [ALICE]);
    })
    .await;
}

#[tokio::test]
async fn nothing_else_about_a_request_opens_the_door() {
    with_app(TestOptions::default(), async |app| {
        for (name, value) in [
            ("x-forwarded-uri", "/assets/x"),
            ("x-original-url", "/health"),
            ("x-rewrite-url", "/health"),
            ("user-agent", "ELB-HealthChecker/2.0"),
            ("user-agent", "kube-probe/1.30"),
            ("authorization", "Bearer something"),
            ("cookie", "x-forwarded-access-token=a.b.c"),
            ("x-http-method-override", "OPTIONS"),
        ] {
            for method in ["GET", "OPTIONS", "HEAD"] {
                let ask = app.inbound().ask(method, "/healthz").header(name, value);
                assert_eq!(ask.fetch().await.status, 401, "{method} {name}");
            }
        }
        let query = app
            .inbound()
            .get("/?x-forwarded-access-token=a.b.c&access_token=a.b.c");
        assert_eq!(query.fetch().await.status, 401);
        assert_eq!(app.agent.count(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_session_holds_the_tokens_scopes_below_the_ceiling() {
    let options = TestOptions::default().with(json!({"users": {"scopes": ["sql", "genie"]}}));
    with_app(options, async |app| {
        let told = async |scopes: &str| {
            app.session(&app.token(ALICE, scopes, 3600)).await;
            let got = app.agent.last();
            let mut told: Vec<String> = got.header("x-valetkey-scopes")[0]
                .split(' ')
                .map(str::to_owned)
                .collect();
            told.sort();
            told
        };
        assert_eq!(told("sql genie model-serving").await, ["genie", "sql"]);
        assert_eq!(
            told("sql.statement-execution files").await,
            ["sql.statement-execution"]
        );
        assert_eq!(told("all-apis").await, ["genie", "sql"]);
    })
    .await;
}

#[tokio::test]
async fn a_token_without_any_useful_scope_is_refused() {
    let routes = json!([{"name": "sql", "operation": "sql.*", "as": "user"}]);
    with_app(TestOptions::routes(routes), async |app| {
        let token = app.token(ALICE, "files genie", 3600);
        let answer = app.inbound().get("/").user(&token).fetch().await;
        assert_eq!((answer.status, answer.reason()), (403, Some("no_scopes")));
        assert_eq!(app.agent.count(), 0);
        assert!(app.proxy.sessions.is_empty());
        app.session(&app.token(ALICE, "sql", 3600)).await;
    })
    .await;
}

#[tokio::test]
async fn a_token_is_no_obstacle_where_no_route_runs_as_the_user() {
    let routes = json!([{"name": "all", "operation": "sql.*", "as": "app"}]);
    with_app(TestOptions::routes(routes), async |app| {
        let answer = app
            .inbound()
            .get("/")
            .user(&app.token(ALICE, "files", 3600))
            .fetch()
            .await;
        assert_eq!(answer.status, 200);
    })
    .await;
}

#[tokio::test]
async fn another_token_header_is_derived_everywhere() {
    let options = TestOptions::default().with(json!({"inbound": {"token_header": "x-user-token"}}));
    with_app(options, async |app| {
        let answer = app
            .inbound()
            .get("/")
            .header("x-user-token", &app.alice())
            .header("x_user_token", "spoof")
            .header("x-forwarded-access-token", "spoof")
            .fetch()
            .await;
        assert_eq!(answer.status, 200);
        let got = app.agent.last();
        assert!(got.header("x-user-token")[0].starts_with("vks_"));
        assert!(got.headers.iter().all(|(_, value)| value != b"spoof"));
        let answer = app.inbound().get("/").user(&app.alice()).fetch().await;
        assert_eq!(answer.reason(), Some("token_missing"));
    })
    .await;
}

#[tokio::test]
async fn the_token_may_be_a_bearer_in_authorization() {
    let options =
        TestOptions::default().with(json!({"inbound": {"token_header": "authorization"}}));
    with_app(options, async |app| {
        assert_eq!(
            app.inbound()
                .get("/")
                .bearer(&app.alice())
                .fetch()
                .await
                .status,
            200
        );
        let got = app.agent.last();
        let [only] = got.header("authorization")[..] else {
            panic!("one")
        };
        assert!(only.starts_with("Bearer vks_"));
        for bad in ["Basic eDp5", "Bearer", "Bearer a b", "token"] {
            let answer = app
                .inbound()
                .get("/")
                .header("authorization", bad)
                .fetch()
                .await;
            assert_eq!(answer.status, 400, "{bad}");
        }
        assert_eq!(app.agent.count(), 1);
    })
    .await;
}

#[tokio::test]
async fn authorization_passes_where_it_is_told_to() {
    let options = TestOptions::default().with(json!({"inbound": {"pass_authorization": true}}));
    with_app(options, async |app| {
        let ask = app.inbound().get("/").user(&app.alice());
        ask.header("authorization", "Basic eDp5").fetch().await;
        assert_eq!(app.agent.last().header("authorization"), ["Basic eDp5"]);
    })
    .await;
}

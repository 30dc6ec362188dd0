//! What goes out, what may come in, and that nothing of either is printed.

use super::*;
use crate::domain::clock::Timestamp;
use crate::runtime::token_script::{
    CLIENT_ID, CLIENT_SECRET, Reply, SUBJECT_TOKEN, Script, assert_silent, clock, faults, scopes,
};

fn subject() -> Secret {
    Secret::new(SUBJECT_TOKEN.into())
}

/// An endpoint whose address is whatever the test says.
fn at(script: &Arc<Script>, url: Result<&'static str, &'static str>) -> TokenEndpoint {
    let client = ClientCredential {
        id: CLIENT_ID.into(),
        secret: Arc::new(Secret::new(CLIENT_SECRET.into())),
    };
    TokenEndpoint::new(
        TokenEndpointSettings::for_client(Some(client)),
        Box::new(move || Box::pin(async move { url.map(Uri::from_static).map_err(str::to_owned) })),
        Arc::<Script>::clone(script),
        clock(),
        Metrics::new().unwrap(),
    )
}

#[tokio::test(start_paused = true)]
async fn client_credentials_go_out_as_a_form_with_basic_authentication() {
    let script = Script::new();
    let (endpoint, metrics) = script.endpoint(true);
    let issued = endpoint
        .client_credentials(&scopes("sql genie"))
        .await
        .unwrap();
    assert_eq!(issued.token.secret().expose(), "canary-token-1");
    assert_eq!(
        issued.token.expires(),
        Timestamp::from_second(1_800_003_600).unwrap()
    );
    assert_eq!(issued.token.scopes(), &scopes("sql genie"));
    script.last(|seen| {
        assert_eq!(seen.method, Method::POST);
        assert_eq!(seen.uri, "https://w.example/oidc/v1/token");
        assert_eq!(
            seen.headers["content-type"],
            "application/x-www-form-urlencoded"
        );
        assert_eq!(seen.headers["accept"], "application/json");
        let fields: Vec<_> = seen
            .form
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            fields,
            [("grant_type", "client_credentials"), ("scope", "genie sql")]
        );
        let basic = &seen.headers["authorization"];
        assert!(basic.is_sensitive());
        let pair = base64::engine::general_purpose::STANDARD
            .decode(basic.to_str().unwrap().strip_prefix("Basic ").unwrap())
            .unwrap();
        // Colon, plus and percent sign are escaped, so that the halves come apart where they were joined.
        assert_eq!(pair, b"app%3Aid%2F1:dose-canary%2Bsecret%3A%25");
    });
    let text = metrics.render();
    assert!(text.contains(r#"valetkey_credential_fetches_total{kind="app",result="ok"} 1"#));
    assert!(
        text.contains(r#"timestamp_seconds{kind="app"} 1800003600"#),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_exchange_names_its_subject_and_just_the_scopes_that_are_needed() {
    let script = Script::new();
    for with_client in [true, false] {
        let (endpoint, metrics) = script.endpoint(with_client);
        endpoint.exchange(&subject(), &scopes("sql")).await.unwrap();
        script.last(|seen| {
            assert_eq!(seen.field("grant_type"), Some(TOKEN_EXCHANGE));
            assert_eq!(seen.field("subject_token"), Some(SUBJECT_TOKEN));
            assert_eq!(seen.field("subject_token_type"), Some(SUBJECT_TOKEN_TYPE));
            assert_eq!(
                seen.field("requested_token_type"),
                Some(REQUESTED_TOKEN_TYPE)
            );
            assert_eq!(seen.field("scope"), Some("sql"));
            assert_eq!(seen.headers.contains_key("authorization"), with_client);
        });
        assert!(
            metrics
                .render()
                .contains(r#"{kind="exchange",result="ok"} 1"#)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_broken_endpoint_is_told_apart_counted_and_kept_silent_about() {
    for (name, reply, code) in faults() {
        let script = Script::new();
        let (endpoint, metrics) = script.endpoint(true);
        script.set(reply);
        let fault = endpoint
            .client_credentials(&scopes("sql"))
            .await
            .expect_err(name);
        assert_eq!(fault.code(), code, "{name}: {fault}");
        assert_silent(&fault);
        let counted = format!(r#"{{kind="app",result="{code}"}} 1"#);
        assert!(metrics.render().contains(&counted), "{name}");
        assert_eq!(
            script.count(),
            1,
            "{name}: one request, and no redirect followed"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn odd_but_honest_answers_are_accepted() {
    let body = |rest: &str| Reply::ok(&format!(r#"{{"access_token":"t"{rest}}}"#));
    for (rest, seconds) in [
        (r#","token_type":"bearer","expires_in":"3600""#, 3600),
        (
            r#","token_type":"BEARER","expires_in":3600,"refresh_token":"r","x":{}"#,
            3600,
        ),
        (r#","token_type":"Bearer""#, 300),
        (r#","token_type":"Bearer","expires_in":1e15"#, 86_400),
    ] {
        let script = Script::new();
        let (endpoint, _) = script.endpoint(true);
        script.set(body(rest));
        let started = Instant::now();
        let issued = endpoint.client_credentials(&scopes("sql")).await.unwrap();
        assert_eq!(
            issued.token.expires().as_second() - 1_800_000_000,
            seconds,
            "{rest}"
        );
        let usable = issued.usable_until - started;
        assert_eq!(usable.as_secs() + 30, seconds.unsigned_abs(), "{rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchanged_token_may_not_be_wider_than_what_was_asked() {
    let answer = |scope: &str| {
        Reply::ok(&format!(
            r#"{{"access_token":"canary","token_type":"Bearer","expires_in":900,"scope":"{scope}"}}"#
        ))
    };
    for (granted, good) in [
        ("sql", true),
        ("sql:restricted-query", true),
        ("sql iam.current-user:read iam.access-control:read", true),
        ("", true),
        ("sql genie", false),
        ("all-apis", false),
    ] {
        let script = Script::new();
        let (endpoint, _) = script.endpoint(true);
        script.set(answer(granted));
        let outcome = endpoint.exchange(&subject(), &scopes("sql")).await;
        assert_eq!(outcome.is_ok(), good, "{granted:?}");
        let app = endpoint.client_credentials(&scopes("sql")).await.unwrap();
        assert_eq!(
            app.token.scopes(),
            &scopes(granted),
            "the app's own is recorded as it is"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_without_a_credential_or_without_a_scope_for_the_user() {
    let script = Script::new();
    let (endpoint, _) = script.endpoint(false);
    let fault = endpoint
        .client_credentials(&scopes("sql"))
        .await
        .unwrap_err();
    assert_eq!(fault, EndpointFault::NotConfigured);
    let fault = endpoint
        .exchange(&subject(), &ScopeSet::default())
        .await
        .unwrap_err();
    assert_eq!(fault.code(), "subject_refused");
    assert_eq!(script.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_credential_goes_to_https_or_to_this_machine_and_nowhere_else() {
    for (url, sent) in [
        (Ok("https://w.example/oidc/v1/token"), true),
        (Ok("http://127.0.0.1:9/oidc/v1/token"), true),
        (Ok("http://[::1]:9/oidc/v1/token"), true),
        (Ok("http://w.example/oidc/v1/token"), false),
        (Ok("https://user@w.example/oidc/v1/token"), false),
        (Ok("ftp://w.example/oidc/v1/token"), false),
        (Ok("/oidc/v1/token"), false),
        (Err("discovery\n failed"), false),
    ] {
        let script = Script::new();
        let outcome = at(&script, url).client_credentials(&scopes("sql")).await;
        assert_eq!(
            (outcome.is_ok(), script.count()),
            (sent, usize::from(sent)),
            "{url:?}"
        );
        if url.is_err() {
            let text = outcome.unwrap_err().to_string();
            assert!(text.contains("discovery failed"), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_endpoint_rests_for_everybody_of_that_grant_and_for_nobody_else() {
    let script = Script::new();
    let (endpoint, _) = script.endpoint(true);
    script.set_for(
        "genie",
        Reply::Answer(429, vec![("retry-after", "20")], String::new()),
    );
    assert!(
        endpoint
            .exchange(&subject(), &scopes("genie"))
            .await
            .is_err()
    );
    let rested = endpoint
        .exchange(&subject(), &scopes("sql"))
        .await
        .unwrap_err();
    let left = rested.retry_after().expect("the rest that is left");
    assert!(
        left <= Duration::from_secs(20) && left > Duration::from_secs(19),
        "{left:?}"
    );
    assert_eq!(script.count(), 1);
    endpoint.client_credentials(&scopes("sql")).await.unwrap();
    tokio::time::advance(Duration::from_secs(20)).await;
    endpoint.exchange(&subject(), &scopes("sql")).await.unwrap();
    assert_eq!(script.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_endpoint_holds_a_bounded_number_of_requests() {
    let script = Script::new();
    let (endpoint, _) = script.endpoint(true);
    script.set(Reply::Hang);
    let many = (0..200).map(|_| {
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move { endpoint.exchange(&subject(), &scopes("sql")).await })
    });
    let started = Instant::now();
    for one in many.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap().unwrap_err().code(), "timeout");
    }
    assert_eq!(script.count(), REQUESTS_AT_ONCE_MAX);
    assert!(
        started.elapsed() < Duration::from_secs(11),
        "waiting for a turn counts as well"
    );
}

/// Reads one request from a real connection, answers with the given bytes, and returns what was read.
async fn serve_one(listener: tokio::net::TcpListener, answer: &'static str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut peer, _) = listener.accept().await.unwrap();
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    while !read.ends_with(b"scope=sql") {
        let n = peer.read(&mut chunk).await.unwrap();
        assert_ne!(n, 0, "the request broke off");
        read.extend_from_slice(&chunk[..n]);
    }
    peer.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn over_a_real_connection_the_request_is_plain_http_and_no_redirect_is_followed() {
    use crate::runtime::http_client::{ClientLimits, HyperSend};
    let http: Arc<dyn HttpSend> = Arc::new(HyperSend::new(
        crate::runtime::tls::client_config(None).unwrap(),
        ClientLimits::default(),
    ));
    for (answer, code) in [
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 62\r\n\r\n{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"expires_in\":\"3600\"}",
            "ok",
        ),
        (
            "HTTP/1.1 307 X\r\nConnection: close\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
            "invalid",
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 65\r\n\r\n{",
            "unreachable",
        ),
        ("rubbish\r\n\r\n", "unreachable"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/t", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let client = ClientCredential {
            id: "app".into(),
            secret: Arc::new(Secret::new("pw".into())),
        };
        let endpoint = TokenEndpoint::new(
            TokenEndpointSettings::for_client(Some(client)),
            Box::new(move || Box::pin(std::future::ready(Ok(url.clone())))),
            Arc::clone(&http),
            clock(),
            Metrics::new().unwrap(),
        );
        let asked = scopes("sql");
        let (request, outcome) = tokio::join!(
            serve_one(listener, answer),
            endpoint.client_credentials(&asked)
        );
        assert!(request.starts_with("POST /t HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains("authorization: Basic YXBwOnB3\r\n"),
            "{request}"
        );
        assert!(
            request.ends_with("grant_type=client_credentials&scope=sql"),
            "{request}"
        );
        assert_eq!(
            outcome.err().map_or("ok", |fault| fault.code()),
            code,
            "{answer}"
        );
        // The listener is gone with the connection: the next attempt is refused.
        let fault = endpoint.client_credentials(&asked).await.unwrap_err();
        assert!(fault.to_string().contains("no connection"), "{fault}");
    }
}

#[test]
fn nothing_of_the_credential_is_printed() {
    let client = ClientCredential {
        id: "app".into(),
        secret: Arc::new(Secret::new(CLIENT_SECRET.into())),
    };
    let settings = TokenEndpointSettings::for_client(Some(client.clone()));
    assert!(!format!("{settings:?} {:?}", basic(&client)).contains("canary"));
    assert!(!format!("{:?}", basic(&client)).contains("Basic"));
}

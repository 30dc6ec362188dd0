//! What is stripped, what is set, and in which order.

use proptest::prelude::*;

use super::*;

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

fn ours() -> IdentityHeaders {
    IdentityHeaders::new(HeaderName::from_static("x-forwarded-access-token"), false)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the cases read better without `&`"
)]
fn head(
    method: Method,
    uri: &str,
    version: Version,
    pairs: &[(&str, &str)],
) -> Result<(), HeadFault> {
    check_head(&method, &uri.parse().unwrap(), version, &map(pairs))
}

#[test]
fn framing_that_could_be_read_in_two_ways_is_refused() {
    let check = |pairs: &[(&str, &str)], expected| {
        assert_eq!(
            head(
                Method::POST,
                "/",
                Version::HTTP_11,
                &[&[("host", "x")], pairs].concat()
            ),
            expected,
            "{pairs:?}"
        )
    };
    check(&[("content-length", "5")], Ok(()));
    check(&[("content-length", "0")], Ok(()));
    check(&[("transfer-encoding", "chunked")], Ok(()));
    check(&[("transfer-encoding", "Chunked")], Ok(()));
    for bad in ["05", "+5", "", "5, 5", "0x5", "99999999999999999999", " 5x"] {
        check(&[("content-length", bad)], Err(HeadFault::Framing));
    }
    for bad in [
        "gzip, chunked",
        "identity, chunked",
        "chunked, chunked",
        "identity",
        "xchunked",
    ] {
        check(&[("transfer-encoding", bad)], Err(HeadFault::Framing));
    }
    check(
        &[
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked"),
        ],
        Err(HeadFault::Framing),
    );
    check(
        &[("transfer-encoding", "chunked"), ("content-length", "5")],
        Err(HeadFault::Framing),
    );
    check(
        &[("content-length", "5"), ("content-length", "5")],
        Err(HeadFault::Framing),
    );
    assert_eq!(
        head(
            Method::POST,
            "/",
            Version::HTTP_10,
            &[("host", "x"), ("transfer-encoding", "chunked")]
        ),
        Err(HeadFault::Framing)
    );
}

#[test]
fn exactly_one_valid_host_and_only_the_origin_form() {
    let get = |uri: &str, pairs: &[(&str, &str)]| head(Method::GET, uri, Version::HTTP_11, pairs);
    assert_eq!(get("/", &[("host", "a.example:80")]), Ok(()));
    assert_eq!(get("/", &[]), Err(HeadFault::Host));
    assert_eq!(
        get("/", &[("host", "a"), ("host", "a")]),
        Err(HeadFault::Host)
    );
    for bad in ["", "a b", "a/b", "u@a", "a,b", "[::1"] {
        assert_eq!(get("/", &[("host", bad)]), Err(HeadFault::Host), "{bad:?}");
    }
    assert_eq!(
        get("http://other.example/", &[("host", "a")]),
        Err(HeadFault::Absolute)
    );
    assert_eq!(head(Method::GET, "http://a/", Version::HTTP_2, &[]), Ok(()));
    assert_eq!(
        head(Method::GET, "http://a/", Version::HTTP_2, &[("host", "b")]),
        Err(HeadFault::Host)
    );
    for method in ["CONNECT", "TRACE", "TRACK"] {
        assert_eq!(
            head(
                Method::from_bytes(method.as_bytes()).unwrap(),
                "/",
                Version::HTTP_11,
                &[("host", "a")]
            ),
            Err(HeadFault::Form)
        );
    }
}

#[test]
fn every_spelling_of_an_identity_is_removed() {
    let names = [
        "X-Forwarded-User",
        "x_forwarded_user",
        "X-Forwarded_Email",
        "x.forwarded.email",
        "X-FORWARDED-PREFERRED-USERNAME",
        "x-forwarded-groups",
        "Authorization",
        "Remote-User",
        "remote_user",
        "X-Auth-Request-Email",
        "X-User-Id",
        "X-Valetkey-Scopes",
        "X-Valetkey-Identity",
        "x_forwarded_access_token",
        "X-Forwarded-Access_Token",
        "x-forwardedaccesstoken",
    ];
    for name in names {
        let mut headers = map(&[
            (name, "mallory"),
            (name, "mallory"),
            ("accept", "*/*"),
            ("x-request-id", "1"),
        ]);
        strip_hop_by_hop(&mut headers);
        let taken = ours().take(&mut headers).unwrap();
        assert_eq!(headers.len(), 2, "{name}: {headers:?}");
        assert!(taken.token.is_none(), "{name}");
    }
}

#[test]
fn one_token_header_is_taken_and_two_are_refused() {
    let mut one = map(&[("x-forwarded-access-token", "t")]);
    assert_eq!(ours().take(&mut one).unwrap().token.unwrap(), "t");
    assert!(one.is_empty());
    assert_eq!(
        ours()
            .take(&mut map(&[
                ("x-forwarded-access-token", "t"),
                ("X-Forwarded-Access-Token", "t")
            ]))
            .unwrap_err(),
        HeadFault::TokenHeader
    );
}

#[test]
fn nominated_headers_go_before_ours_are_set() {
    let mut headers = map(&[
        (
            "connection",
            "close, X-Forwarded-Access-Token, X-Secret, host, content-length",
        ),
        ("x-forwarded-access-token", "t"),
        ("x-secret", "s"),
        ("host", "h"),
        ("content-length", "3"),
        ("upgrade", "h2c"),
        ("te", "trailers"),
    ]);
    strip_hop_by_hop(&mut headers);
    let taken = ours().take(&mut headers).unwrap();
    assert!(taken.token.is_none(), "a nominated token is no token");
    ours().attach_session(&mut headers, HeaderValue::from_static("vks_1"));
    assert_eq!(
        headers,
        map(&[
            ("host", "h"),
            ("content-length", "3"),
            ("x-forwarded-access-token", "vks_1")
        ])
    );
}

#[test]
fn the_verified_claims_win_over_the_front_doors_word() {
    let mut headers = map(&[
        ("x-forwarded-email", "mallory@x"),
        ("x-forwarded-user", "9@1"),
        ("x-forwarded-preferred-username", "Mallory"),
    ]);
    let claimed = ours().take(&mut headers).unwrap().claimed;
    let verified = VerifiedIdentity {
        user: "alice@x",
        email: Some("alice@x"),
        preferred_username: None,
        scopes: "genie sql",
    };
    set_identity(&mut headers, verified, claimed);
    assert_eq!(headers.get("x-forwarded-email").unwrap(), "alice@x");
    assert_eq!(headers.get("x-forwarded-user").unwrap(), "alice@x");
    assert_eq!(
        headers.get("x-forwarded-preferred-username").unwrap(),
        "Mallory"
    );
    assert_eq!(headers.get(IDENTITY_MARK).unwrap(), "asserted");
    assert_eq!(headers.get(SCOPES).unwrap(), "genie sql");
}

#[test]
fn only_one_bearer_speaks() {
    let take = |pairs: &[(&str, &str)]| take_bearer(&mut map(pairs));
    assert_eq!(take(&[]), Ok(None));
    assert_eq!(
        take(&[("authorization", "Bearer vka_1")]).unwrap().unwrap(),
        "vka_1"
    );
    assert_eq!(
        take(&[("authorization", "bearer  vka_1")])
            .unwrap()
            .unwrap(),
        "vka_1"
    );
    for bad in [
        "Basic abc",
        "Bearer",
        "Bearer ",
        "Bearer a b",
        "Bearer a,b",
        "vka_1",
    ] {
        assert_eq!(
            take(&[("authorization", bad)]),
            Err(HeadFault::Authorization),
            "{bad}"
        );
    }
    assert_eq!(
        take(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]),
        Err(HeadFault::Authorization)
    );
}

#[test]
fn nothing_of_the_apps_own_leaves_for_the_workspace() {
    let doomed = [
        "authorization",
        "cookie",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-access-token",
        "x-original-url",
        "x-rewrite-url",
        "x-envoy-x",
        "x-http-method-override",
        "x-host",
        "x-databricks-azure-sp-management-token",
        "x-databricks-workspace-id",
        "x-databricks-org-id",
        "proxy-foo",
        "host",
        "expect",
        "x-valetkey-scopes",
        "x_forwarded_host",
    ];
    let kept = [
        "accept",
        "content-type",
        "content-length",
        "user-agent",
        "range",
        "if-unmodified-since",
        "mcp-session-id",
        "x-databricks-uc-table-name",
        "x-mlflow-client-version",
        "traceparent",
    ];
    let pairs: Vec<(&str, &str)> = doomed
        .iter()
        .chain(&kept)
        .map(|name| (*name, "v"))
        .collect();
    let mut headers = map(&pairs);
    strip_outbound(&mut headers);
    let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    let mut expected = kept.to_vec();
    expected.sort_unstable();
    assert_eq!(left, expected);
}

#[test]
fn answers_lose_cookies_and_hop_by_hop_headers() {
    let mut headers = map(&[
        ("set-cookie", "a=b"),
        ("connection", "x-y"),
        ("x-y", "1"),
        ("content-type", "text/plain"),
        ("x-valetkey-error", "forged"),
        ("x-valetkey-missing", "forged"),
    ]);
    clean_far_answer(&mut headers);
    assert_eq!(headers, map(&[("content-type", "text/plain")]));
}

#[test]
fn pages_of_other_sites_are_told_apart() {
    assert!(is_cross_site(&map(&[("origin", "http://evil.example")])));
    assert!(is_cross_site(&map(&[("sec-fetch-site", "cross-site")])));
    assert!(
        !is_cross_site(&map(&[("sec-fetch-mode", "cors")])),
        "Node's fetch sends only the mode"
    );
}

#[test]
fn basic_credentials_are_decoded_as_rfc_6749_says() {
    use base64::Engine as _;
    let encode = |text: &str| {
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(text)
        )
    };
    let read = |text: &str| basic_credentials(&map(&[("authorization", text)]));
    assert_eq!(
        read(&encode("id:se%3Acret")),
        Some(Some(("id".into(), "se:cret".into())))
    );
    assert_eq!(read("Bearer x"), Some(None));
    assert_eq!(read("Basic ???"), Some(None));
    assert_eq!(basic_credentials(&HeaderMap::new()), None);
}

proptest! {
    #[test]
    fn stripping_twice_changes_nothing_and_never_removes_ours(names in proptest::collection::vec("[a-z_.-]{1,24}", 0..8), nominated in "[a-z,-]{0,24}") {
        let mut headers = HeaderMap::new();
        for name in &names {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                headers.append(name, HeaderValue::from_static("v"));
            }
        }
        headers.insert(header::CONNECTION, HeaderValue::from_str(&nominated).unwrap());
        strip_hop_by_hop(&mut headers);
        ours().take(&mut headers).unwrap();
        let once = headers.clone();
        strip_hop_by_hop(&mut headers);
        ours().take(&mut headers).unwrap();
        prop_assert_eq!(&headers, &once);
        ours().attach_session(&mut headers, HeaderValue::from_static("vks_1"));
        strip_hop_by_hop(&mut headers);
        prop_assert_eq!(headers.get("x-forwarded-access-token").unwrap(), "vks_1");
    }
}

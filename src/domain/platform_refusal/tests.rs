//! Every wording that is known, in every envelope it comes in, and whatever else a workspace may answer.

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::missing::{Missing, Ran};
use crate::domain::scope::ScopeSet;

fn of(status: u16, headers: &[(&'static str, &str)], body: &str) -> Said {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    read(status, &map, body.as_bytes())
}

/// The short names that are asked for.
fn asked(said: &Said) -> Vec<&str> {
    match said {
        Said::Scopes(required) => required.iter().map(|r| r.scope.as_str()).collect(),
        other => panic!("{other:?} is about no scope"),
    }
}

#[test]
fn missing_scopes_are_read_in_every_wording() {
    let check = |text: &str, expected: &[&str]| {
        let json = |code| json!({"error_code": code, "message": text}).to_string();
        let page = format!("<html><head><title>403</title></head><body><pre>{text}</pre></body>");
        for body in [
            json(json!(403)),
            json(json!("403")),
            json(json!("PERMISSION_DENIED")),
            json!({"detail": text, "status": "403"}).to_string(),
            json!({"error": text}).to_string(),
            json!({"error": {"code": -32603, "message": text}}).to_string(),
            text.to_owned(),
            format!("PERMISSION_DENIED: {text}"),
            page,
        ] {
            assert_eq!(asked(&of(403, &[], &body)), expected, "{body}");
        }
        for name in MESSAGE_HEADERS {
            let said = of(403, &[(name, text)], "\u{1f}compressed");
            assert_eq!(asked(&said), expected, "{name}: {text}");
        }
    };
    check(
        "Provided OAuth token does not have required scopes: sql",
        &["sql"],
    );
    check(
        "Provided OAuth token does not have required scopes: sql, genie",
        &["sql", "genie"],
    );
    check(
        "Provided access token does not have required scopes: unity-catalog",
        &["unity-catalog"],
    );
    check(
        "Invalid scope, required scopes: model-serving",
        &["model-serving"],
    );
    check("Invalid scope, required scope: postgres.", &["postgres"]);
    check(
        "invalid scope, Required Scopes : [sql, 'files'] (ReqId: 1a-2b)",
        &["sql", "files"],
    );
    check(
        "Invalid scope, required scopes: catalog.tables:read",
        &["catalog.tables:read"],
    );
    check("Invalid scope, required scopes: sql ReqId: 4f", &["sql"]);
    // Older names mean the same scopes.
    check(
        "Invalid scope, required scopes: dashboards.genie,files.files",
        &["genie", "files"],
    );
    check(
        "Invalid scope, required scopes: workspace",
        &["workspace.workspace"],
    );
    check(
        "Invalid scope, required scopes: model-serving-inference",
        &["model-serving"],
    );
}

#[test]
fn the_platforms_own_spelling_is_kept_beside_the_short_name() {
    let said = of(
        403,
        &[],
        "Invalid scope, required scopes: model-serving-inference",
    );
    let Said::Scopes(required) = said else {
        panic!("{said:?}")
    };
    assert_eq!(&*required[0].said, "model-serving-inference");
}

#[test]
fn a_challenge_names_scopes_as_rfc_6750_says() {
    let challenge = |text| of(401, &[("www-authenticate", text)], "");
    let said = challenge(r#"Bearer realm="x", error="insufficient_scope", scope="sql genie""#);
    assert_eq!(asked(&said), ["sql", "genie"]);
    assert_eq!(
        asked(&challenge(r#"Bearer error="insufficient_scope""#)),
        Vec::<&str>::new()
    );
    let said = challenge(r#"Bearer realm="DatabricksRealm", error="invalid_token""#);
    assert_eq!(said, Said::Token);
}

#[test]
fn what_is_no_scope_name_is_not_taken() {
    let none = [
        "",
        " ",
        "<script>",
        "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "a\u{0}b",
        "ü",
        "-x",
        "\u{202e}sql",
        "%0d%0aSet-Cookie",
    ];
    for text in none {
        let said = of(
            403,
            &[],
            &json!({"message": format!("required scopes: {text}")}).to_string(),
        );
        assert!(asked(&said).is_empty(), "{text:?}: {said:?}");
    }
    let long = "a".repeat(SCOPE_NAME_BYTES_MAX + 1);
    let many = vec!["sql:x"; 50].join(", ");
    assert!(asked(&of(403, &[], &format!("required scopes: {long}"))).is_empty());
    let said = of(403, &[], &format!("required scopes: {many}"));
    assert_eq!(asked(&said).len(), REQUIRED_SCOPES_MAX);
}

#[test]
fn a_bad_token_is_told_from_what_was_asked_with_it() {
    let number = |message: &str| json!({"error_code": 403, "message": message}).to_string();
    for (status, body) in [
        (403, number("Invalid access token.")),
        (403, number("Invalid access token. [ReqId: 8c0d]")),
        (403, number("Token is expired")),
        (403, number("The token will expire within 30 seconds")),
        (
            403,
            json!({"error_code": "403", "message": "Invalid Token"}).to_string(),
        ),
        (403, json!({"error": "token expired"}).to_string()),
        (401, number("Token is expired")),
        (
            401,
            number("Credential was not sent or was of an unsupported type for this API."),
        ),
        (401, String::new()),
        (401, "<html>".to_owned()),
        (
            400,
            "io.jsonwebtoken.ExpiredJwtException: JWT expired at 2026-11-23".to_owned(),
        ),
        (
            400,
            json!({"message": "ExpiredJwtException: JWT expired"}).to_string(),
        ),
    ] {
        assert_eq!(of(status, &[], &body), Said::Token, "{status} {body}");
    }
    let phrase = [("x-databricks-reason-phrase", "Invalid access token.")];
    assert_eq!(of(403, &phrase, ""), Said::Token);
    assert_eq!(
        of(400, &phrase, ""),
        Said::Nothing,
        "a 400 is about the request"
    );
    let quoted = json!({"error_code": "BAD_REQUEST", "message": "near 'token is expired'"});
    assert_eq!(of(400, &[], &quoted.to_string()), Said::Nothing);
}

#[test]
fn rights_on_objects_are_read_in_every_wording() {
    for message in [
        "User a@example.com does not have permission to use warehouse 1.",
        "User does not have USE SCHEMA on Schema 'main.hr'.",
        "User does not have SELECT on Table 'main.hr.salaries'. SQLSTATE: 42501",
        "User does not have EXECUTE on Routine or Model 'main.f.g'.",
        "User does not have MODIFY on Table 'main.hr.expired tokens'.",
        "You do not have permission to query this endpoint",
        "Insufficient privileges: see the owner",
        "principal is not authorized to perform this",
    ] {
        for body in [
            json!({"error_code": "PERMISSION_DENIED", "message": message}).to_string(),
            json!({"error_code": 403, "message": message}).to_string(),
            json!({"error_code": "403", "message": message}).to_string(),
            json!({"message": message}).to_string(),
            format!("PERMISSION_DENIED: {message}"),
            format!("<html><body><pre>{message}</pre></body></html>"),
            message.to_owned(),
        ] {
            assert_eq!(of(403, &[], &body), Said::Object, "{body}");
        }
    }
    let coded = json!({"error_code": "PERMISSION_DENIED", "message": "No."}).to_string();
    assert_eq!(of(403, &[], &coded), Said::Object);
    let thrift = [(
        "x-thriftserver-error-message",
        "PERMISSION_DENIED: User does not have USE CATALOG",
    )];
    assert_eq!(of(403, &thrift, ""), Said::Object);
}

#[test]
fn other_refusals_are_not_guessed_at() {
    let message = "Source IP address: 203.0.113.7 is blocked by Databricks IP ACL for workspace: 1";
    for code in [json!("403"), json!(403), json!("PERMISSION_DENIED")] {
        let body = json!({"error_code": code, "message": message}).to_string();
        assert_eq!(of(403, &[], &body), Said::Address);
    }
    for (status, body) in [
        (403, String::new()),
        (403, "Forbidden".to_owned()),
        (403, "<html><title>Sign in</title></html>".to_owned()),
        (403, json!({"error_code": "FEATURE_DISABLED", "message": "Genie is disabled"}).to_string()),
        (403, json!({"error_code": "PERMISSION_DENIED", "message": "Presigned URLs API is not enabled"}).to_string()),
        (403, json!({"error_code": "PERMISSION_DENIED", "message": "no", "details": [{"reason": "FILES_API_API_IS_NOT_ENABLED"}]}).to_string()),
        (403, json!([1, {"message": "Invalid access token."}]).to_string()),
        (403, json!({"message": ["required scopes: sql"], "error_code": {}}).to_string()),
        (200, "required scopes: sql".to_owned()),
        (404, "User does not have SELECT on Table".to_owned()),
        (400, "Invalid scope, required scopes: sql".to_owned()),
        (503, "Token is expired".to_owned()),
    ] {
        assert_eq!(of(status, &[], &body), Said::Nothing, "{status} {body}");
    }
}

#[test]
fn no_more_than_the_limit_is_read() {
    let text = format!(
        "{}Invalid scope, required scopes: sql",
        " ".repeat(REFUSAL_BYTES_MAX)
    );
    assert_eq!(of(403, &[], &text), Said::Nothing);
    let deep = "[".repeat(REFUSAL_BYTES_MAX);
    assert_eq!(of(403, &[], &deep), Said::Nothing);
    // Cut in the middle, it is no JSON any more and still says what it says.
    let cut = format!(
        r#"{{"error_code":403,"message":"Invalid scope, required scopes: sql","more":"{}"}}"#,
        "x".repeat(REFUSAL_BYTES_MAX)
    );
    assert_eq!(asked(&of(403, &[], &cut)), ["sql"]);
}

/// Bytes that now and then look like a refusal.
fn any_answer() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..24),
        prop_oneof![
            "Invalid scope, required scopes: ",
            "does not have required scopes:",
            "\\{\"error_code\":403,\"message\":\"",
            "\"\\}",
            "<pre>",
            ", ",
            "[a-z.:]{1,80}",
            "\r\n",
        ]
        .prop_map(String::into_bytes),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic_or_slip_anything_into_a_header(
        body in any_answer(),
        header in any_answer(),
        status in prop_oneof![Just(400_u16), Just(401), Just(403), 200_u16..600],
    ) {
        let mut headers = HeaderMap::new();
        for name in MESSAGE_HEADERS.into_iter().chain(["www-authenticate"]) {
            if let Ok(value) = HeaderValue::from_bytes(&header) {
                headers.insert(name, value);
            }
        }
        let said = read(StatusCode::from_u16(status).unwrap(), &headers, &body);
        if let Said::Scopes(required) = &said {
            prop_assert!(required.len() <= REQUIRED_SCOPES_MAX);
            for one in required {
                prop_assert!(one.said.len() <= SCOPE_NAME_BYTES_MAX && one.said.chars().all(is_of_a_name));
            }
        }
        let held = ScopeSet::parse(["sql"]);
        if let Some(missing) = Missing::find(&said, Ran::App { held: &held }, None) {
            let value = missing.header().unwrap();
            let text = value.to_str().unwrap();
            prop_assert!(text.len() < 400 && text.bytes().all(|b| matches!(b, b' '..=b'~')));
            prop_assert!(matches!(text.matches('"').count(), 2 | 4));
        }
    }
}

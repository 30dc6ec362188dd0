//! What a token endpoint may answer, read strictly: RFC 6749 5.1 and 5.2, RFC 8693 2.2.
//!
//! Pure: from a status, a pause and bytes to an `Answer` or an [`EndpointFault`]. Never repeats what it read: a text error
//! of the JSON reader quotes values, so it is dropped. `token_endpoint.rs` sends the question.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use super::endpoint_fault::{EndpointFault, RETRY_AFTER_MAX, known_error};
use crate::domain::scope::ScopeSet;

/// The life assumed when the answer has no `expires_in` (RFC 6749 only recommends it): short, so that a wrong guess is
/// mended soon, and still one request in minutes, not one per call.
pub const TOKEN_LIFE_ASSUMED: Duration = Duration::from_secs(300);
/// The longest life that is believed: a token is asked for anew at least daily whatever the endpoint says.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Which of the two grants was asked for. Also the `kind` label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grant {
    /// Client credentials: the app itself.
    App,
    /// Token exchange: a user.
    Exchange,
}

impl Grant {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Exchange => "exchange",
        }
    }
}

/// A good answer; the token is not yet checked for use in a header.
pub(crate) struct Answer {
    pub(crate) access_token: String,
    pub(crate) life: Duration,
    pub(crate) scopes: Option<ScopeSet>,
}

/// The members that matter. A member that comes twice is an error of the derived reader, which is what we want.
#[derive(Deserialize)]
struct TokenDocument {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    scope: Option<String>,
}

/// Both spellings of an OAuth error (facts 3.2). Descriptions are not even read.
#[derive(Deserialize)]
struct ErrorDocument {
    error: Option<Value>,
    #[serde(rename = "errorCode")]
    error_code: Option<Value>,
}

/// What the status alone says: `None` when the body has to be read.
pub(crate) fn fault_of_head(status: StatusCode, headers: &HeaderMap) -> Option<EndpointFault> {
    match status.as_u16() {
        200 | 400..=407 | 409..=428 | 430..=499 => None,
        408 | 429 | 503 => Some(EndpointFault::Busy {
            retry_after: retry_after(headers),
        }),
        300..=399 => Some(EndpointFault::invalid(
            "it is a redirect, and a credential follows none",
        )),
        500..=599 => Some(EndpointFault::unreachable(format!(
            "it answered {}",
            status.as_u16()
        ))),
        other => Some(EndpointFault::invalid(format!(
            "the status {other} is not one of a token endpoint"
        ))),
    }
}

/// Reads a body that came with status 200.
pub(crate) fn read_token(body: &[u8]) -> Result<Answer, EndpointFault> {
    let document: TokenDocument = serde_json::from_slice(body)
        .map_err(|_| EndpointFault::invalid("it is not the JSON of a token answer"))?;
    let access_token = document
        .access_token
        .ok_or_else(|| EndpointFault::invalid("it has no access_token"))?;
    let bearer = document
        .token_type
        .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
    if !bearer {
        return Err(EndpointFault::invalid("its token_type is not Bearer"));
    }
    Ok(Answer {
        access_token,
        life: life(document.expires_in.as_ref())?,
        scopes: document
            .scope
            .map(|names| ScopeSet::parse(names.split_ascii_whitespace())),
    })
}

/// Reads a body that came with a 4xx.
pub(crate) fn read_refusal(grant: Grant, status: StatusCode, body: &[u8]) -> EndpointFault {
    let word = serde_json::from_slice::<ErrorDocument>(body)
        .ok()
        .and_then(|document| document.error.or(document.error_code));
    let known = word.as_ref().and_then(Value::as_str).and_then(known_error);
    match (known, status.as_u16()) {
        (Some("temporarily_unavailable" | "server_error" | "slow_down"), _) => {
            EndpointFault::Busy { retry_after: None }
        }
        (Some(error), _) => refused(grant, error),
        // A door in front of the endpoint (address lists, federation mismatch) speaks no OAuth.
        (None, 401) => refused(grant, "status 401"),
        (None, 403) => refused(grant, "status 403"),
        (None, 400) if word.is_some() => refused(grant, "other"),
        (None, status) => EndpointFault::invalid(format!(
            "the status is {status} and there is no OAuth error with it"
        )),
    }
}

/// In an exchange most refusals are about the user's token (RFC 8693 2.2.2 answers a bad one with `invalid_request`), but
/// these words are about who asks and how.
fn refused(grant: Grant, error: &'static str) -> EndpointFault {
    let about_the_app = matches!(
        error,
        "invalid_client"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "unsupported_token_type"
            | "invalid_target"
            | "invalid_scope"
    );
    match grant {
        Grant::Exchange if !about_the_app => EndpointFault::SubjectRefused { error },
        Grant::Exchange | Grant::App => EndpointFault::Refused { error },
    }
}

/// `expires_in` as a number or, as some endpoints write it, a string.
fn life(expires_in: Option<&Value>) -> Result<Duration, EndpointFault> {
    let seconds = match expires_in {
        None => return Ok(TOKEN_LIFE_ASSUMED),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    match seconds {
        Some(seconds) if seconds >= 1.0 => {
            // The cap comes first: beyond it the number may not fit a duration at all.
            Ok(Duration::from_secs_f64(
                seconds.min(TOKEN_LIFE_MAX.as_secs_f64()),
            ))
        }
        Some(_) | None => Err(EndpointFault::invalid(
            "its expires_in is not a number of seconds above zero",
        )),
    }
}

/// Whole seconds only: what the platform sends (facts 3.2). A date, and a wish for no pause at all, are left to the growing
/// back-off.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // More digits than fit are still a wish for a long pause.
    let seconds = digits.then(|| text.parse().unwrap_or(u64::MAX))?;
    (seconds > 0).then(|| Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<u64, &str>) {
        let got = read_token(body.as_bytes())
            .map(|answer| answer.life.as_secs())
            .map_err(|fault| fault.to_string());
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{body}"),
            (Err(got), Err(part)) => assert!(got.contains(part), "{body}: {got}"),
            (got, expected) => panic!("{body}: got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_life_is_read_from_a_number_or_a_string_within_bounds() {
        let with = |life: &str| {
            format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{life}}}"#)
        };
        for (life, seconds) in [
            ("3600", 3600),
            ("\"3600\"", 3600),
            ("\" 3600 \"", 3600),
            ("3600.5", 3600),
            ("86401", 86_400),
            ("1e300", 86_400),
            ("18446744073709551615", 86_400),
            ("\"1e999\"", 86_400),
        ] {
            check(&with(life), Ok(seconds));
        }
        for life in [
            "0",
            "-1",
            "\"-3600\"",
            "\"\"",
            "\"soon\"",
            "\"NaN\"",
            "true",
            "[]",
            "{}",
            "0.5",
        ] {
            check(&with(life), Err("expires_in"));
        }
        check(&with("1e999"), Err("not the JSON"));
        check(
            r#"{"access_token":"t","token_type":"bearer"}"#,
            Ok(TOKEN_LIFE_ASSUMED.as_secs()),
        );
        check(&with("null"), Ok(TOKEN_LIFE_ASSUMED.as_secs()));
    }

    #[test]
    fn documents_that_are_no_token_answer_are_refused() {
        for body in [
            "",
            "null",
            "[]",
            "<html>sign in</html>",
            r#"{"access_token":"t","token_ty"#,
            r#"{"access_token":"t","token_type":"Bearer"} {}"#,
            r#"{"access_token":"t","access_token":"u","token_type":"Bearer"}"#,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":1,"expires_in":3600}"#,
            r#"{"access_token":7,"token_type":"Bearer"}"#,
            r#"{"access_token":"t","token_type":"Bearer","scope":7}"#,
        ] {
            check(body, Err("not the JSON"));
        }
        check(r#"{"token_type":"Bearer"}"#, Err("no access_token"));
        check(r#"{"access_token":"t"}"#, Err("token_type"));
        check(
            r#"{"access_token":"t","token_type":"mac"}"#,
            Err("token_type"),
        );
        check(
            r#"{"access_token":"t","token_type":"N_A"}"#,
            Err("token_type"),
        );
    }

    fn check_refusal(grant: Grant, status: u16, body: &str, expected: &EndpointFault) {
        let status = StatusCode::from_u16(status).unwrap();
        let got = read_refusal(grant, status, body.as_bytes());
        assert_eq!(got, *expected, "{status} {body}");
        assert!(!format!("{got} {got:?}").contains("dose"), "{got}");
    }

    #[test]
    fn a_refused_app_is_told_in_listed_words_only() {
        let said = r#""error_description":"dose-secret","errorSummary":"dose-secret""#;
        for (status, word, expected) in [
            (401, r#""error":"invalid_client""#, "invalid_client"),
            (400, r#""errorCode":"invalid_client""#, "invalid_client"),
            (400, r#""error":"INVALID_SCOPE""#, "invalid_scope"),
            (400, r#""error":"invalid_grant""#, "invalid_grant"),
            (403, r#""error":"access_denied""#, "access_denied"),
            (400, r#""error":"dose-secret""#, "other"),
            (400, r#""error":7"#, "other"),
            (401, r#""error":"dose-secret""#, "status 401"),
            (403, r#""message":"dose-secret""#, "status 403"),
        ] {
            let body = format!("{{{word},{said}}}");
            let expected = EndpointFault::Refused { error: expected };
            check_refusal(Grant::App, status, &body, &expected);
        }
        for status in [400, 404, 405] {
            let fault = EndpointFault::invalid(format!(
                "the status is {status} and there is no OAuth error with it"
            ));
            check_refusal(Grant::App, status, "<html>dose-secret", &fault);
        }
        for word in ["slow_down", "temporarily_unavailable", "server_error"] {
            let body = format!(r#"{{"error":"{word}"}}"#);
            check_refusal(
                Grant::App,
                400,
                &body,
                &EndpointFault::Busy { retry_after: None },
            );
        }
    }

    #[test]
    fn a_refused_exchange_is_about_the_user_unless_it_names_the_app() {
        for (status, word, about_the_user) in [
            (400, "invalid_request", true),
            (400, "invalid_grant", true),
            (403, "access_denied", true),
            (400, "something_else", true),
            (401, "invalid_client", false),
            (400, "unauthorized_client", false),
            (400, "invalid_scope", false),
            (400, "invalid_target", false),
            (400, "unsupported_grant_type", false),
        ] {
            let error = known_error(word).unwrap_or("other");
            let expected = if about_the_user {
                EndpointFault::SubjectRefused { error }
            } else {
                EndpointFault::Refused { error }
            };
            let body = format!(r#"{{"error":"{word}"}}"#);
            check_refusal(Grant::Exchange, status, &body, &expected);
        }
        let error = "status 401";
        check_refusal(
            Grant::Exchange,
            401,
            "",
            &EndpointFault::SubjectRefused { error },
        );
    }

    #[test]
    fn a_pause_is_read_in_whole_seconds_and_capped() {
        let pause = |text: &str| {
            let headers = HeaderMap::from_iter([(
                header::RETRY_AFTER,
                text.parse::<http::HeaderValue>().unwrap(),
            )]);
            retry_after(&headers).map(|pause| pause.as_secs())
        };
        assert_eq!(pause("7"), Some(7));
        assert_eq!(pause("0"), None, "no wish at all");
        assert_eq!(pause("86400"), Some(300));
        assert_eq!(pause("99999999999999999999999"), Some(300));
        for other in ["", "-1", "1.5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(pause(other), None, "{other:?}");
        }
    }
}

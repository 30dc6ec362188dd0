//! The shapes of the platform's answers: JSON, and every way it refuses (facts 3.2 and 4.4).
//!
//! Knows nothing of who asks or what for. Read `door.rs` next, which stamps what every answer carries.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::runtime::http_client::{Body, empty, full};

/// What a handler gives back.
pub(super) type Answer = Response<Body>;

/// The header in which bad-token and bad-scope refusals repeat their message.
pub(super) const REASON_PHRASE: HeaderName = HeaderName::from_static("x-databricks-reason-phrase");

/// The error code of a request that cannot be understood.
pub(super) const INVALID: &str = "INVALID_PARAMETER_VALUE";

/// A JSON answer, 200.
pub(super) fn json_ok(value: &Value) -> Answer {
    json_with(StatusCode::OK, value)
}

/// A JSON answer with a status.
pub(super) fn json_with(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(full(value.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    answer
}

/// An answer without a body.
pub(super) fn bare(status: StatusCode) -> Answer {
    let mut answer = Response::new(empty());
    *answer.status_mut() = status;
    answer
}

/// Text of some other kind.
pub(super) fn text(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Sets a header where the text can stand in one.
pub(super) fn set(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// Sets a member of a JSON object; anything else stays as it is.
pub(super) fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

/// The platform says no.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Code,
    message: String,
    /// The `reason` of an ErrorInfo detail, where clients look for one.
    reason: Option<&'static str>,
}

/// Authentication refusals carry a number where all others carry a word.
#[derive(Debug)]
enum Code {
    Word(&'static str),
    Number,
    /// No JSON at all: the message as plain text.
    Bare,
}

impl Refusal {
    fn word(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: Code::Word(code),
            message: message.into(),
            reason: None,
        }
    }

    fn number(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code: Code::Number,
            message: message.into(),
            reason: None,
        }
    }

    /// No bearer at all, or some other scheme.
    pub(super) fn no_credential() -> Self {
        Self::number(
            StatusCode::UNAUTHORIZED,
            "Credential was not sent or was of an unsupported type for this API.",
        )
    }

    /// A bearer that is forged, expired, revoked, or somebody else's.
    pub(super) fn invalid_token() -> Self {
        Self::number(StatusCode::FORBIDDEN, "Invalid access token.")
    }

    /// A good token that lacks the family's scope.
    pub(super) fn missing_scope(scope: &str) -> Self {
        Self::number(
            StatusCode::FORBIDDEN,
            format!("Provided OAuth token does not have required scopes: {scope}"),
        )
    }

    /// The same in the words and the shape of some other families, which clients cannot parse (facts 4.4).
    pub(super) fn invalid_scope(scope: &str) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            code: Code::Bare,
            message: format!("Invalid scope, required scopes: {scope}"),
            reason: None,
        }
    }

    /// A path or method that is no API.
    pub(super) fn no_endpoint(method: &str, path: &str) -> Self {
        Self::word(
            StatusCode::NOT_FOUND,
            "ENDPOINT_NOT_FOUND",
            format!("No API found for '{method} {path}'"),
        )
    }

    /// An object that does not exist, or not for this caller.
    pub(super) fn unknown(what: &str) -> Self {
        Self::word(
            StatusCode::NOT_FOUND,
            "RESOURCE_DOES_NOT_EXIST",
            format!("{what} does not exist."),
        )
    }

    /// An object that does not exist, in Unity Catalog's wording where the code is one of its own.
    pub(super) fn missing(code: &'static str, noun: &str, object: &str) -> Self {
        let message = format!("{noun} '{object}' does not exist.");
        // Some families see nothing but a bad parameter in it.
        let status = if code == INVALID {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::NOT_FOUND
        };
        Self::word(status, code, message)
    }

    /// A securable on which the caller lacks a privilege.
    pub(super) fn no_privilege(privilege: &str, noun: &str, object: &str) -> Self {
        Self::word(
            StatusCode::FORBIDDEN,
            "PERMISSION_DENIED",
            format!("User does not have {privilege} on {noun} '{object}'."),
        )
    }

    /// A file or directory that does not exist.
    pub(super) fn no_file() -> Self {
        Self::word(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "The file or directory being accessed is not found.",
        )
    }

    /// An object the caller has no grant on.
    pub(super) fn no_permission(who: &str, what: &str) -> Self {
        Self::word(
            StatusCode::FORBIDDEN,
            "PERMISSION_DENIED",
            format!("User {who} does not have permission to use {what}."),
        )
    }

    /// A request that cannot be understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::word(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// Something is there already.
    pub(super) fn exists(what: &str) -> Self {
        Self::word(
            StatusCode::CONFLICT,
            "ALREADY_EXISTS",
            format!("{what} already exists."),
        )
    }

    /// More than this workspace keeps.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::word(
            StatusCode::PAYLOAD_TOO_LARGE,
            "MAX_REQUEST_SIZE_EXCEEDED",
            message,
        )
    }

    /// The disk, not the caller, is at fault.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::word(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
    }

    /// Presigned transfer is off, which makes the SDK fall back to the plain file path.
    pub(super) fn presigning_off() -> Self {
        Self {
            reason: Some("FILES_API_API_IS_NOT_ENABLED"),
            ..Self::word(
                StatusCode::FORBIDDEN,
                "PERMISSION_DENIED",
                "Presigned URLs API is not enabled",
            )
        }
    }

    /// As an error inside some other envelope: `CODE: message`.
    pub(super) fn line(&self) -> String {
        match self.code {
            Code::Word(word) => format!("{word}: {}", self.message),
            Code::Number | Code::Bare => self.message.clone(),
        }
    }

    /// The answer on the wire.
    pub(super) fn into_answer(self, request_id: &str) -> Answer {
        if let Code::Bare = self.code {
            let kind = "text/plain; charset=utf-8";
            let mut answer = text(self.status, kind, self.message.clone());
            set(&mut answer, REASON_PHRASE, &self.message);
            return answer;
        }
        let mut details = vec![json!({
            "@type": "type.googleapis.com/google.rpc.RequestInfo",
            "request_id": request_id,
            "serving_data": "",
        })];
        if let Some(reason) = self.reason {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "filesystem.databricks.com",
            }));
        }
        let code = match self.code {
            Code::Word(word) => json!(word),
            Code::Number | Code::Bare => json!(self.status.as_u16()),
        };
        let body = json!({ "error_code": code, "message": self.message, "details": details });
        let mut answer = json_with(self.status, &body);
        if let Code::Number = self.code {
            set(&mut answer, REASON_PHRASE, &self.message);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            set(
                &mut answer,
                WWW_AUTHENTICATE,
                "Bearer realm=\"DatabricksRealm\"",
            );
        }
        answer
    }
}

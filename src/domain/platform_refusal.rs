//! What the workspace itself said when it refused a call: a scope, the token, the object, the address, or nothing known.
//!
//! The platform's 403 has many causes and several envelopes (facts 3.2, 4.4), and its texts are the only thing that tells
//! them apart. Everything read here is untrusted: only whole scope names of a narrow alphabet are taken out of it, and no other
//! text. Knows neither who called nor what it held; read `missing.rs` next, which says which plane is at fault.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::scope::Scope;

/// How much of an answer is looked at, in bytes.
pub const REFUSAL_BYTES_MAX: usize = 16 * 1024;
/// The most scopes that are taken out of one refusal.
pub const REQUIRED_SCOPES_MAX: usize = 8;
/// The longest scope name that is believed, in bytes: no token fits in, should a text hold one.
const SCOPE_NAME_BYTES_MAX: usize = 64;

/// Where the platform repeats its message: they stand beside bodies that nobody can read, such as compressed ones.
const MESSAGE_HEADERS: [&str; 3] = [
    "x-databricks-reason-phrase",
    "x-databricks-error-or-redirect-message",
    "x-thriftserver-error-message",
];
/// Where JSON envelopes have their message: APIs 2.x, OAuth, SCIM, API 1.2, MCP and OpenAI shapes.
const MESSAGE_POINTERS: [&str; 6] = [
    "/message",
    "/error_description",
    "/detail",
    "/error",
    "/error/message",
    "/errorSummary",
];

/// A scope that the platform asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Required {
    /// In its short name.
    pub scope: Scope,
    /// As the platform spelled it.
    pub said: Arc<str>,
}

/// What the workspace said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The token lacks scopes; empty where the text names none.
    Scopes(Vec<Required>),
    /// The token itself is expired, revoked or no token.
    Token,
    /// Whoever the token stands for has no right on the object.
    Object,
    /// The address that the call came from is not let in.
    Address,
    /// Nothing that is known here.
    Nothing,
}

/// Whether an answer with this status can be such a refusal. 400 is one for an expired token only (facts 3.2).
pub fn may_refuse(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    )
}

/// Reads a refusal; `body` is its beginning, empty where it cannot be read.
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Said {
    if !may_refuse(status) {
        return Said::Nothing;
    }
    let words = Words::gather(headers, body.get(..REFUSAL_BYTES_MAX).unwrap_or(body));
    if status == StatusCode::BAD_REQUEST {
        // Ordinary 400s quote what the caller wrote, so nothing but the platform's own word counts.
        return if words.any(|text| text.contains("expiredjwtexception")) {
            Said::Token
        } else {
            Said::Nothing
        };
    }
    let about_token = |text: &str| TOKEN_STARTS.iter().any(|start| text.starts_with(start));
    if let Some(scopes) = words.scopes() {
        Said::Scopes(scopes)
    } else if words.any(speaks_of_the_address) {
        Said::Address
    } else if status == StatusCode::UNAUTHORIZED || words.any(about_token) {
        Said::Token
    } else if words.feature_is_off() {
        Said::Nothing
    } else if words.code_is_of_the_object() || words.any(speaks_of_the_object) {
        Said::Object
    } else if words.any(|text| words.blames_the_token(text)) {
        Said::Token
    } else {
        Said::Nothing
    }
}

/// What a message about the token begins with, in lower case.
const TOKEN_STARTS: [&str; 6] = [
    "invalid access token",
    "invalid token",
    "token is expired",
    "token expired",
    "token has expired",
    "access token expired",
];

/// Codes that mean a right on an object.
const OBJECT_CODES: [&str; 5] = [
    "PERMISSION_DENIED",
    "INSUFFICIENT_PERMISSIONS",
    "INSUFFICIENT_PRIVILEGES",
    "UNAUTHORIZED_ACCESS",
    "ACCESS_DENIED",
];

fn speaks_of_the_address(text: &str) -> bool {
    text.contains("ip acl") || text.contains("ip access list")
}

fn speaks_of_the_object(text: &str) -> bool {
    const RIGHTS: [&str; 14] = [
        "permission",
        "privilege",
        "access",
        " use",
        " select",
        " execute",
        " modify",
        " manage",
        " browse",
        " read",
        " write",
        " create",
        " can_",
        " apply",
    ];
    const PLAIN: [&str; 7] = [
        "permission_denied",
        "permission denied",
        "insufficient_permissions",
        "insufficient privileges",
        "insufficient permissions",
        "not authorized to",
        "lacks permission",
    ];
    let denied = text
        .split_once("does not have")
        .or_else(|| text.split_once("do not have"));
    denied.is_some_and(|(_, what)| RIGHTS.iter().any(|right| what.contains(right)))
        || PLAIN.iter().any(|words| text.contains(words))
}

/// The error code of an envelope.
enum Code {
    /// How the platform marks refusals of the token and its scopes.
    Number,
    Word(String),
}

/// A text as it came, and in lower case with the same places.
struct Message {
    text: String,
    lower: String,
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            lower: text.to_ascii_lowercase(),
        }
    }
}

impl Message {
    /// What follows the first of these words, as it came.
    fn after(&self, words: &str) -> Option<&str> {
        let at = self.lower.find(words)?;
        self.text.get(at + words.len()..)
    }
}

/// Everything in an answer that may say why.
struct Words {
    /// Those of the headers first.
    messages: Vec<Message>,
    code: Option<Code>,
    challenge: Option<Message>,
    /// Whether a detail says that a feature is switched off, which the platform calls a permission too.
    off: bool,
}

impl Words {
    fn gather(headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut words = Self {
            messages: MESSAGE_HEADERS
                .iter()
                .filter_map(|name| text(name))
                .map(Message::from)
                .collect(),
            code: None,
            challenge: text(WWW_AUTHENTICATE.as_str()).map(Message::from),
            off: false,
        };
        if let Ok(json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_slice(body) {
            words.take_json(&json);
        } else {
            words.take_text(&String::from_utf8_lossy(body));
        }
        words
    }

    fn take_json(&mut self, json: &Value) {
        // Workspace APIs say `error_code`, OAuth and a few older ones `errorCode`.
        let code = json.get("error_code").or_else(|| json.get("errorCode"));
        self.code = match code {
            Some(Value::Number(_)) => Some(Code::Number),
            Some(Value::String(word)) if word.bytes().all(|b| b.is_ascii_digit()) => {
                Some(Code::Number)
            }
            Some(Value::String(word)) => Some(Code::Word(word.clone())),
            _ => None,
        };
        let messages = MESSAGE_POINTERS
            .iter()
            .filter_map(|pointer| json.pointer(pointer).and_then(Value::as_str));
        self.messages.extend(messages.map(Message::from));
        let details = json.get("details").and_then(Value::as_array);
        self.off = details.into_iter().flatten().any(|detail| {
            let reason = detail.get("reason").and_then(Value::as_str);
            reason.is_some_and(|reason| reason.ends_with("_NOT_ENABLED"))
        });
    }

    /// Plain text, an HTML page, or the `CODE: text` form.
    fn take_text(&mut self, text: &str) {
        let text = without_tags(text);
        let text = text.trim();
        if let Some((code, _)) = text.split_once(": ")
            && !code.is_empty()
            && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
        {
            self.code = Some(Code::Word(code.to_owned()));
        }
        if !text.is_empty() {
            self.messages.push(text.into());
        }
    }

    fn any(&self, says: impl Fn(&str) -> bool) -> bool {
        self.messages.iter().any(|message| says(&message.lower))
    }

    /// The scopes asked for, if that is what the refusal is about.
    fn scopes(&self) -> Option<Vec<Required>> {
        let mut about = false;
        for message in &self.messages {
            if let Some(list) = list_of_scopes(message) {
                about = true;
                let scopes = names(list);
                if !scopes.is_empty() {
                    return Some(scopes);
                }
            }
        }
        // RFC 6750 section 3.1: the challenge may name them.
        if let Some(challenge) = &self.challenge
            && challenge.lower.contains("insufficient_scope")
        {
            let scopes = challenge
                .after(" scope=\"")
                .or_else(|| challenge.after(",scope=\""));
            let scopes = scopes.and_then(|rest| rest.split('"').next());
            let scopes = scopes.unwrap_or_default().split_ascii_whitespace();
            return Some(scopes.filter_map(name).take(REQUIRED_SCOPES_MAX).collect());
        }
        about.then(Vec::new)
    }

    fn feature_is_off(&self) -> bool {
        self.off || self.any(|text| text.contains("is not enabled") || text.contains("is disabled"))
    }

    fn code_is_of_the_object(&self) -> bool {
        matches!(&self.code, Some(Code::Word(word)) if OBJECT_CODES.contains(&word.as_str()))
    }

    /// Without a word as its code, a message with the token in it is about the token.
    fn blames_the_token(&self, text: &str) -> bool {
        match &self.code {
            Some(Code::Number) => text.contains("token"),
            Some(Code::Word(_)) | None => text.contains("token") && text.contains("expire"),
        }
    }
}

/// What follows `required scopes:`, in any of its forms.
fn list_of_scopes(message: &Message) -> Option<&str> {
    let rest = message.after("required scope")?;
    rest.strip_prefix(['s', 'S'])
        .unwrap_or(rest)
        .trim_start()
        .strip_prefix(':')
}

/// The names at the start of a text, separated by commas; quotes and brackets around them are passed over, but a closing
/// double quote ends the list, as it does in JSON that was cut.
fn names(list: &str) -> Vec<Required> {
    let before = |c: char| c.is_whitespace() || "'\"`[(".contains(c);
    let after = |c: char| c.is_whitespace() || "'`])".contains(c);
    let parts = list.split(',').map(|part| part.trim_start_matches(before));
    let mut names = Vec::new();
    for part in parts.take(REQUIRED_SCOPES_MAX) {
        let end = part.find(|c| !is_of_a_name(c)).unwrap_or(part.len());
        let (found, rest) = part.split_at(end);
        // What goes on in another alphabet was no name to begin with.
        let ends = |c: char| after(c) || "\"<;".contains(c);
        if rest.is_empty() || rest.starts_with(ends) {
            names.extend(name(found.trim_end_matches(['.', ':'])));
        }
        if found.is_empty() || !rest.trim_matches(after).is_empty() {
            break;
        }
    }
    names
}

fn name(text: &str) -> Option<Required> {
    let plausible = text.len() <= SCOPE_NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(is_of_a_name);
    plausible.then_some(())?;
    Some(Required {
        scope: Scope::parse(text)?,
        said: text.into(),
    })
}

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_lowercase() || character.is_ascii_digit() || "._:-".contains(character)
}

/// A page without its tags; other text as it is.
fn without_tags(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with('<') {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        match character {
            '<' => {
                inside = true;
                plain.push(' ');
            }
            '>' => inside = false,
            _ if !inside => plain.push(character),
            _ => {}
        }
    }
    plain.into()
}

#[cfg(test)]
mod tests;

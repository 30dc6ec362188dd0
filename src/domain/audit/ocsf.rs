//! A sealed line as an OCSF event: API Activity (class 6003) of schema 1.8.0, profile `security_control`.
//!
//! A view for other people's tools, made from the line: the line stays the evidence, and the event names its number and
//! hash. What OCSF has no place for is under `unmapped`, by our own names. Knows neither files nor sinks.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::clock::Timestamp;

/// The version of the schema.
pub const OCSF_VERSION: &str = "1.8.0";

#[derive(Deserialize)]
struct Line<'a> {
    seq: u64,
    #[serde(borrow)]
    ts: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    call: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<LineUser<'a>>,
    #[serde(borrow)]
    route: Option<Cow<'a, str>>,
    #[serde(borrow)]
    operation: Option<Cow<'a, str>>,
    #[serde(borrow)]
    resource: Option<LineResource<'a>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    decision: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    status: Option<u16>,
    duration_ms: Option<u64>,
    #[serde(borrow)]
    hash: Cow<'a, str>,
    /// By our own names.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct LineUser<'a> {
    #[serde(borrow)]
    sub: Cow<'a, str>,
    #[serde(borrow)]
    email: Option<Cow<'a, str>>,
    verified: Option<bool>,
    #[serde(borrow)]
    client_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct LineResource<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
}

/// The event, without a line feed; `None` if the line is no record.
pub fn event(line: &[u8]) -> Option<String> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    Some(line.into_event()?.to_string())
}

/// An object of the members that there are.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let there = members.into_iter();
    there
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<Map<_, _>>()
        .into()
}

impl Line<'_> {
    fn into_event(mut self) -> Option<Value> {
        let time = self.ts.parse::<Timestamp>().ok()?.as_millisecond();
        let (activity_id, activity) = self.activity();
        let (severity_id, severity) = self.severity();
        let (status_id, status) = self.outcome();
        let (action_id, action, disposition) = match self.decision.as_deref() {
            None => (None, None, None),
            Some("allow") => (Some(1), Some("Allowed"), Some("Allowed")),
            Some("deny") => (Some(2), Some("Denied"), Some("Blocked")),
            Some("would_deny") => (Some(3), Some("Observed"), Some("Logged")),
            Some(_) => (Some(0), Some("Unknown"), Some("Unknown")),
        };
        let unmapped = self.unmapped();
        let resource = self.resource.as_ref();
        Some(object([
            ("class_uid", Some(6003.into())),
            ("class_name", Some("API Activity".into())),
            ("category_uid", Some(6.into())),
            ("category_name", Some("Application Activity".into())),
            ("activity_id", Some(activity_id.into())),
            ("activity_name", Some(activity.into())),
            ("type_uid", Some((600_300 + activity_id).into())),
            (
                "type_name",
                Some(format!("API Activity: {activity}").into()),
            ),
            ("time", Some(time.into())),
            ("severity_id", Some(severity_id.into())),
            ("severity", Some(severity.into())),
            ("status_id", Some(status_id.into())),
            ("status", Some(status.into())),
            (
                "status_code",
                self.status.map(|code| code.to_string().into()),
            ),
            ("status_detail", self.reason.as_deref().map(Into::into)),
            ("action_id", action_id.map(|id: u32| id.into())),
            ("action", action.map(Into::into)),
            ("disposition_id", action_id.map(Into::into)),
            ("disposition", disposition.map(Into::into)),
            ("duration", self.duration_ms.map(Into::into)),
            ("metadata", Some(self.metadata())),
            ("actor", Some(self.actor())),
            ("api", Some(self.api())),
            ("src_endpoint", Some(json!({"svc_name": self.source()}))),
            ("http_request", self.http_request()),
            (
                "http_response",
                self.status.map(|code| json!({"code": code})),
            ),
            (
                "resources",
                resource.map(|r| json!([{"type": r.kind, "uid": r.id}])),
            ),
            (
                "policy",
                self.route.as_deref().map(|route| json!({"name": route})),
            ),
            ("unmapped", Some(unmapped)),
        ]))
    }

    /// What has no place there, by our own names.
    fn unmapped(&mut self) -> Value {
        let mut rest = std::mem::take(&mut self.rest);
        rest.remove("v");
        if let Some(verified) = self.user.as_ref().and_then(|user| user.verified) {
            rest.insert("user_verified".into(), verified.into());
        }
        rest.into()
    }

    fn metadata(&self) -> Value {
        let product = json!({
            "name": "Valetkey",
            "vendor_name": "Valetkey",
            "version": env!("CARGO_PKG_VERSION"),
        });
        object([
            ("version", Some(OCSF_VERSION.into())),
            ("profiles", Some(json!(["security_control"]))),
            ("product", Some(product)),
            ("log_name", Some("audit".into())),
            ("log_format", Some("valetkey audit v1".into())),
            ("event_code", Some((&*self.event).into())),
            ("original_time", Some((&*self.ts).into())),
            ("sequence", Some(self.seq.into())),
            ("uid", Some((&*self.hash).into())),
            ("correlation_uid", self.call.as_deref().map(Into::into)),
        ])
    }

    fn actor(&self) -> Value {
        let user = self.user.as_ref();
        let about = user.map(|user| {
            let name = user.email.as_ref().unwrap_or(&user.sub);
            object([
                ("uid", Some((&*user.sub).into())),
                ("name", Some((&**name).into())),
                ("email_addr", user.email.as_deref().map(Into::into)),
                ("credential_uid", user.token_id.as_deref().map(Into::into)),
            ])
        });
        let own = user.is_none().then(|| "valetkey".into());
        object([
            ("user", about),
            (
                "app_uid",
                user.and_then(|u| u.client_id.as_deref()).map(Into::into),
            ),
            ("app_name", own),
            (
                "session",
                self.session.as_deref().map(|id| json!({"uid": id})),
            ),
        ])
    }

    fn api(&self) -> Value {
        let operation = match (&self.operation, &self.method, &self.path) {
            (Some(operation), _, _) => operation.to_string(),
            (None, Some(method), Some(path)) => format!("{method} {path}"),
            (None, _, _) => self.event.to_string(),
        };
        let id = self.request_id.as_deref().or(self.call.as_deref());
        let response = self.status.map(|code| {
            object([
                ("code", Some(code.into())),
                ("error", self.reason.as_deref().map(Into::into)),
            ])
        });
        let called = self.method.is_some();
        object([
            ("operation", Some(operation.into())),
            ("request", id.map(|id| json!({"uid": id}))),
            ("response", response),
            ("service", called.then(|| json!({"name": "Databricks"}))),
        ])
    }

    fn http_request(&self) -> Option<Value> {
        // The schema knows the usual methods only; any other stays in the name of the operation.
        let method = self.method.as_deref().filter(|m| HTTP_METHODS.contains(m));
        let path = self.path.as_deref().map(|path| json!({"path": path}));
        let there = method.is_some() || path.is_some();
        there.then(|| object([("http_method", method.map(Into::into)), ("url", path)]))
    }

    /// Who asked, as far as the sidecar knows: the agent beside it, or whoever the front door forwards.
    fn source(&self) -> &'static str {
        match &*self.event {
            "intent" | "outcome" | "denial" => "agent",
            "token_rejected" | "session_opened" | "session_closed" => "front door",
            _ => "valetkey",
        }
    }

    /// The closest word for the method; the operation says what it really is.
    fn activity(&self) -> (u32, &'static str) {
        match self.method.as_deref() {
            Some("POST") => (1, "Create"),
            Some("GET" | "HEAD") => (2, "Read"),
            Some("PUT" | "PATCH") => (3, "Update"),
            Some("DELETE") => (4, "Delete"),
            Some(_) | None => (99, "Other"),
        }
    }

    fn severity(&self) -> (u32, &'static str) {
        match &*self.event {
            "gap" => (4, "High"),
            "denial" | "token_rejected" | "policy_refused" => (2, "Low"),
            _ => (1, "Informational"),
        }
    }

    fn outcome(&self) -> (u32, &'static str) {
        let failed = ["denial", "token_rejected", "policy_refused", "gap"];
        match (&*self.event, self.status) {
            ("intent", _) => (0, "Unknown"),
            ("outcome", Some(..400)) => (1, "Success"),
            (event, _) if event == "outcome" || failed.contains(&event) => (2, "Failure"),
            (_, _) => (1, "Success"),
        }
    }
}

const HTTP_METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE", "PATCH",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_who_did_what_and_the_record_it_is_a_view_of() {
        let line = br#"{"v":1,"seq":7,"ts":"2026-11-23T10:00:00.500000Z","event":"denial","call":"c","user":{"sub":"s","email":"a@b","verified":true,"client_id":"app"},"identity":"none","route":"r","operation":"o","resource":{"type":"t","id":"i"},"method":"BREW","path":"/p","decision":"deny","reason":"no_route","status":403,"user_seq":1,"user_prev":"0","prev":"p","hash":"h"}"#;
        let event: Value = serde_json::from_str(&event(line).unwrap()).unwrap();
        for (pointer, expected) in [
            ("/class_uid", json!(6003)),
            ("/type_uid", json!(600_399)),
            ("/time", json!(1_795_428_000_500_i64)),
            ("/actor/user/uid", json!("s")),
            ("/actor/user/email_addr", json!("a@b")),
            ("/actor/app_uid", json!("app")),
            ("/api/operation", json!("o")),
            ("/api/response/error", json!("no_route")),
            ("/resources/0/uid", json!("i")),
            ("/policy/name", json!("r")),
            ("/action", json!("Denied")),
            ("/disposition", json!("Blocked")),
            ("/status", json!("Failure")),
            ("/metadata/sequence", json!(7)),
            ("/metadata/uid", json!("h")),
            ("/unmapped/identity", json!("none")),
            ("/unmapped/prev", json!("p")),
            ("/http_request/url/path", json!("/p")),
        ] {
            assert_eq!(
                event.pointer(pointer),
                Some(&expected),
                "{pointer} of {event:#}"
            );
        }
        assert_eq!(event.pointer("/http_request/http_method"), None);
        let observed = String::from_utf8_lossy(line).replace("\"deny\"", "\"would_deny\"");
        let event: Value =
            serde_json::from_str(&super::event(observed.as_bytes()).unwrap()).unwrap();
        assert_eq!(event.pointer("/action"), Some(&json!("Observed")));
        assert_eq!(super::event(b"{}"), None);
    }
}

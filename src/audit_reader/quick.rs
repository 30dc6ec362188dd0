//! Which lines cannot be meant, seen without reading them as JSON.
//!
//! The writer's own lines have one layout and no second spelling of a plain value (`domain/audit/chain.rs`), so a condition is
//! a piece of text that must be there. A line of another layout is never passed over here. `audit_reader.rs` reads the rest.

use super::Filter;
use crate::domain::clock::Timestamp;

/// How every line of the writer begins.
const HEAD: &str = "{\"v\":1,\"seq\":";
/// `2026-11-23T10:00:00.123456Z`.
const TIME_CHARS: usize = 27;

/// What a line must contain to be worth reading.
#[derive(Debug, Default)]
pub struct Quick {
    needles: Vec<String>,
    user: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

impl Quick {
    /// The same conditions, as far as they are plain text.
    pub fn of(filter: &Filter) -> Self {
        let member = |name: &str, value: &Option<String>| {
            let value = value.as_deref().filter(|value| is_verbatim(value))?;
            Some(format!("\"{name}\":\"{value}\""))
        };
        let operation = filter.operation.as_deref().filter(|text| is_verbatim(text));
        let operation = operation.map(|wanted| match wanted.strip_suffix('*') {
            Some(family) => format!("\"operation\":\"{family}"),
            None => format!("\"operation\":\"{wanted}\""),
        });
        // `type/id` or an id that has a slash in it: the end is the same.
        let resource = filter.resource.as_deref().filter(|text| is_verbatim(text));
        let resource = resource.map(|wanted| {
            let id = wanted.rsplit_once('/').map_or(wanted, |(_, id)| id);
            format!("{id}\"}}")
        });
        let needles = [
            member("call", &filter.call),
            member("event", &filter.event),
            member("route", &filter.route),
            member("reason", &filter.reason),
            member("decision", &filter.decision),
            operation,
            resource,
        ];
        let user = filter.user.as_deref();
        Self {
            needles: needles.into_iter().flatten().collect(),
            user: user.filter(|text| is_verbatim(text)).map(str::to_owned),
            since: filter.since.map(bound),
            until: filter.until.map(bound),
        }
    }

    /// Whether the line may be meant.
    pub fn may_pass(&self, line: &[u8]) -> bool {
        let Ok(line) = std::str::from_utf8(line) else {
            return true;
        };
        let Some(rest) = line.strip_prefix(HEAD).filter(|_| line.ends_with("\"}")) else {
            return true;
        };
        self.in_time(rest)
            && self.needles.iter().all(|needle| rest.contains(needle))
            && self
                .user
                .as_deref()
                .is_none_or(|user| may_be_of(rest, user))
    }

    fn in_time(&self, rest: &str) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let ts = rest
            .split_once(",\"ts\":\"")
            .and_then(|(_, rest)| rest.get(..TIME_CHARS)?.strip_suffix('Z'));
        ts.is_none_or(|ts| {
            self.since.as_deref().is_none_or(|since| ts >= since)
                && self.until.as_deref().is_none_or(|until| ts < until)
        })
    }
}

/// A value that is written as it is, and could be written in no other way.
fn is_verbatim(text: &str) -> bool {
    text.bytes()
        .all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
}

/// As the writer writes it, without the `Z`. What is finer than its microseconds sorts behind.
fn bound(moment: Timestamp) -> String {
    let nanos = moment.subsec_nanosecond();
    let text = if nanos % 1000 == 0 {
        format!("{moment:.6}")
    } else {
        format!("{moment:.9}")
    };
    text.trim_end_matches('Z').to_owned()
}

fn may_be_of(rest: &str, user: &str) -> bool {
    let Some((_, of)) = rest.split_once("\"user\":{\"sub\":\"") else {
        return false;
    };
    let Some((sub, after)) = of.split_once('"') else {
        return true;
    };
    let email = after.strip_prefix(",\"email\":\"").unwrap_or_default();
    let email = email.split_once('"').map_or("", |(email, _)| email);
    // Escapes and letters beyond ASCII have more than one spelling or case.
    let plain = sub.is_ascii() && email.is_ascii() && !sub.contains('\\') && !email.contains('\\');
    !plain || sub.eq_ignore_ascii_case(user) || email.eq_ignore_ascii_case(user)
}

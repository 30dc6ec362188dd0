//! Values in the query, the headers and the JSON body of a request, each in its one reading.
//!
//! Knows no operation. `touch.rs` asks for them.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::{AskFault, Request, is_same_member};
use crate::domain::catalog::member::{Member, Place, Step};
use crate::domain::template::PathTemplate;

/// The one value at a place; `None` where there is none.
///
/// # Errors
/// [`AskFault`] when the place can be read in two ways.
pub fn at<'a>(
    place: &'a Place,
    template: &'a PathTemplate,
    request: &Request<'a>,
) -> Result<Option<Cow<'a, str>>, AskFault> {
    match place {
        Place::Path(name) => Ok(template.bind(name, request.path)),
        Place::Query(name) => query(request.query, name).map(|v| v.map(Cow::Owned)),
        Place::Header(name) => header(request.headers, name).map(|v| v.map(Cow::Borrowed)),
        Place::Body(member) => {
            let mut found = members(request.body, member, Need::Optional)?;
            match (found.pop(), found.is_empty()) {
                (one, true) => Ok(one),
                (_, false) => Err(missing(member)),
            }
        }
    }
}

/// How messages call a place.
pub fn name_of(place: &Place) -> String {
    match place {
        Place::Path(name) => format!("path segment `{name}`"),
        Place::Query(name) => format!("query parameter `{name}`"),
        Place::Header(name) => format!("header `{name}`"),
        Place::Body(member) => format!("member `{}` of the body", member.as_str()),
    }
}

/// A query parameter that stands at most once.
///
/// # Errors
/// [`AskFault::Once`] when it stands twice.
pub fn query(query: Option<&str>, name: &str) -> Result<Option<String>, AskFault> {
    let mut values = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned());
    match (values.next(), values.next()) {
        (one, None) => Ok(one),
        (_, Some(_)) => Err(AskFault::Once(format!("query parameter `{name}`").into())),
    }
}

/// A header that stands at most once, in visible ASCII.
///
/// # Errors
/// [`AskFault::Once`].
pub fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, AskFault> {
    let twice = || AskFault::Once(format!("header `{name}`").into());
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => one.to_str().map(Some).map_err(|_| twice()),
        (Some(_), Some(_)) => Err(twice()),
    }
}

/// Whether a member may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The whole path must be there, in every element of an array.
    Required,
    /// The first step may be missing, and so may the first step in each element of an array; once it is there, the rest of the
    /// path must be too: a thing that is named in a way which is not known here must not pass for none.
    Optional,
}

/// Every value that a member path stands for; `null` counts as missing.
///
/// # Errors
/// [`AskFault`] when a member is missing that must not be, has a second spelling, or is neither a text nor a whole number.
pub fn members<'a>(
    body: Option<&'a Value>,
    member: &Member,
    need: Need,
) -> Result<Vec<Cow<'a, str>>, AskFault> {
    elements(body, member, need)?
        .into_iter()
        .map(|value| text(value).ok_or_else(|| missing(member)))
        .collect()
}

/// As [`members`], whatever the values are.
///
/// # Errors
/// [`AskFault`] when a member on the way is missing that must not be, or has a second spelling or another type.
pub fn elements<'a>(
    body: Option<&'a Value>,
    member: &Member,
    need: Need,
) -> Result<Vec<&'a Value>, AskFault> {
    let mut found = Vec::new();
    match body.filter(|body| !body.is_null()) {
        Some(body) => {
            let walker = Walker { member, need };
            walker.walk(body, member.steps(), need, &mut found)?;
        }
        None if need == Need::Required => return Err(missing(member)),
        None => {}
    }
    Ok(found)
}

/// The fault of a member that is not there, or not as it must be.
pub fn missing(member: &Member) -> AskFault {
    AskFault::MemberMissing(member.as_str().into())
}

struct Walker<'m> {
    member: &'m Member,
    need: Need,
}

impl Walker<'_> {
    fn walk<'a>(
        &self,
        at: &'a Value,
        steps: &[Step],
        need: Need,
        found: &mut Vec<&'a Value>,
    ) -> Result<(), AskFault> {
        let Some((step, rest)) = steps.split_first() else {
            found.push(at);
            return Ok(());
        };
        let other = || missing(self.member);
        let members = at.as_object().ok_or_else(other)?;
        check_alias(members, &step.name)?;
        match members.get(&*step.name) {
            None | Some(Value::Null) if need == Need::Optional => Ok(()),
            None | Some(Value::Null) => Err(other()),
            Some(Value::Array(items)) if step.each => items
                .iter()
                .try_for_each(|item| self.walk(item, rest, self.need, found)),
            Some(_) if step.each => Err(other()),
            Some(inner) => self.walk(inner, rest, Need::Required, found),
        }
    }
}

/// Refuses a member that lenient readers would take for `field`.
///
/// # Errors
/// [`AskFault::MemberAlias`].
pub fn check_alias(members: &Map<String, Value>, field: &str) -> Result<(), AskFault> {
    let alias = members
        .keys()
        .find(|key| *key != field && is_same_member(key, field));
    alias.map_or(Ok(()), |alias| {
        Err(AskFault::MemberAlias(alias.as_str().into(), field.into()))
    })
}

/// A text, or a whole number as its digits; `1.0` and `1e3` are other spellings of a number and stand for nothing here.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            Some(Cow::Owned(number.to_string()))
        }
        Value::Number(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

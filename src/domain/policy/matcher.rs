//! What one route matches.
//!
//! Knows neither the order of routes nor who calls. `compile.rs` makes it, `policy.rs` asks it; `miss.rs` says for people why
//! it does not match.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use serde_json::Value;

use crate::domain::ask::{Call, Resource, Touch};
use crate::domain::catalog::{APP, Effect, Operation};
use crate::domain::destination::Destination;
use crate::domain::template::PathTemplate;

pub mod miss;

/// What a route matches. All present conditions must hold.
#[derive(Debug, Default)]
pub struct Matcher {
    /// Sorted numbers of operations.
    pub(in crate::domain) operations: Option<Vec<usize>>,
    /// How the route names them, such as `mlflow.*`.
    pub(in crate::domain) operations_text: String,
    /// The most that a matching call may do.
    pub(in crate::domain) effect: Option<Effect>,
    pub(in crate::domain) resource: Option<ResourceMatcher>,
    /// The MCP tools that may be called; empty = any.
    pub(in crate::domain) tools: Vec<String>,
    pub(in crate::domain) methods: Vec<Method>,
    pub(in crate::domain) path: Option<PathTemplate>,
    pub(in crate::domain) body: Vec<(String, Vec<String>)>,
    /// Whether the route says `as: deny`.
    pub(in crate::domain) denies: bool,
    /// The operations of admin effect that the raw path lies within; sorted.
    pub(in crate::domain) admin_paths: Vec<usize>,
}

/// A resource by exact id, or by the start of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceMatcher {
    /// Such as `sql_warehouse`.
    pub kind: Arc<str>,
    /// The id, or its start.
    pub id: String,
    /// Whether `id` is only the start.
    pub prefix: bool,
}

impl Matcher {
    /// Whether the call, as far as this touch goes, is meant.
    pub(in crate::domain) fn matches(&self, call: &Call<'_>, touch: &Touch<'_>) -> bool {
        self.fits_operation(call)
            && self.fits_effect(call)
            && self.fits_resource(touch)
            && self.fits_tools(call, touch)
            && self.fits_method(call)
            && self.fits_path(call)
            && self
                .body
                .iter()
                .all(|(key, allowed)| member_is(call.body, key, allowed))
    }

    /// Operations of admin effect are never reached by a resource alone: they must be named.
    fn fits_operation(&self, call: &Call<'_>) -> bool {
        match (&self.operations, call.operation) {
            (Some(wanted), Some((index, _))) => wanted.binary_search(&index).is_ok(),
            (Some(_), None) => false,
            (None, Some((index, operation))) => self.may_reach(index, operation),
            (None, None) => true,
        }
    }

    /// Whether a route that names no operation may reach this one. What hands out rights or credentials is reached only by a
    /// raw path that lies within the operation's own, so that `/api/**` does not hand out tokens in passing; a route that
    /// denies reaches everything it speaks of.
    pub(in crate::domain) fn may_reach(&self, index: usize, operation: &Operation) -> bool {
        operation.effect != Effect::Admin
            || self.denies
            || self.admin_paths.binary_search(&index).is_ok()
    }

    fn fits_effect(&self, call: &Call<'_>) -> bool {
        let within = |most| { call.operation }.is_some_and(|(_, o)| o.effect <= most);
        self.effect.is_none_or(within)
    }

    fn fits_resource(&self, touch: &Touch<'_>) -> bool {
        let named = |wanted: &ResourceMatcher| touch.names().any(|given| wanted.matches(given));
        self.resource.as_ref().is_none_or(named)
    }

    /// A route that lists tools covers what is said in JSON-RPC, and the event stream and the end of a session beside it; what
    /// is sent without having been read is not.
    fn fits_tools(&self, call: &Call<'_>, touch: &Touch<'_>) -> bool {
        self.tools.is_empty()
            || touch.message.as_ref().map_or_else(
                || matches!(*call.method, Method::GET | Method::DELETE),
                |message| message.is_covered_by(&self.tools),
            )
    }

    fn fits_method(&self, call: &Call<'_>) -> bool {
        self.methods.is_empty() || self.methods.contains(call.method)
    }

    fn fits_path(&self, call: &Call<'_>) -> bool {
        let Some(template) = &self.path else {
            return true;
        };
        match call.destination {
            Destination::Workspace => template.matches(call.path),
            // Paths are those of the workspace: `/**` does not mean another app's.
            Destination::Upstream(_) => false,
        }
    }

    /// The most that a matching call may do.
    pub fn effect(&self) -> Option<Effect> {
        self.effect
    }

    /// The MCP tools that may be called; empty = any.
    pub fn tools(&self) -> &[String] {
        &self.tools
    }

    /// Whether the route names a resource of this kind.
    pub(in crate::domain) fn is_for(&self, kind: &str) -> bool {
        self.resource.as_ref().is_some_and(|r| *r.kind == *kind)
    }

    /// Whether a call to some upstream could match: it has neither an operation nor an effect.
    pub(in crate::domain) fn may_reach_upstream(&self) -> bool {
        self.is_for(APP) && self.operations.is_none() && self.effect.is_none()
    }

    /// Whether the route names this thing.
    pub(in crate::domain) fn names(&self, given: &Resource<'_>) -> bool {
        self.resource.as_ref().is_some_and(|r| r.matches(given))
    }

    /// What the route matches, in the words of the configuration.
    pub(in crate::domain) fn describe(&self) -> String {
        let mut parts = Vec::new();
        if let Some(resource) = &self.resource {
            parts.push(resource.to_string());
        }
        if self.operations.is_some() {
            parts.push(self.operations_text.clone());
        }
        if let Some(effect) = self.effect {
            parts.push(format!("effect {}", effect.as_str()));
        }
        if !self.tools.is_empty() {
            parts.push(format!("tools [{}]", self.tools.join(", ")));
        }
        if let Some(path) = &self.path {
            let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
            let any = "*".to_owned();
            let methods = if methods.is_empty() {
                any
            } else {
                methods.join(",")
            };
            parts.push(format!("{methods} {}", path.as_str()));
        }
        for (key, allowed) in &self.body {
            parts.push(format!("{key} in [{}]", allowed.join(", ")));
        }
        parts.join(" ")
    }

    /// Whether a call of this operation could match.
    pub(in crate::domain) fn may_touch(&self, index: usize, operation: &Operation) -> bool {
        if let Some(path) = &self.path {
            return path.shape() == operation.path.shape();
        }
        let named = match &self.operations {
            Some(operations) => operations.binary_search(&index).is_ok(),
            None => self.may_reach(index, operation),
        };
        let touched = |wanted: &ResourceMatcher| operation.kinds().any(|k| **k == *wanted.kind);
        named
            && self.effect.is_none_or(|most| operation.effect <= most)
            && self.resource.as_ref().is_none_or(touched)
    }
}

impl ResourceMatcher {
    /// Whether this thing is meant.
    pub fn matches(&self, given: &Resource<'_>) -> bool {
        *self.kind == *given.kind
            && if self.prefix {
                given.id.starts_with(&self.id)
            } else {
                *given.id == *self.id
            }
    }

    /// Whether everything that `other` means is meant here too.
    pub fn covers(&self, other: &Self) -> bool {
        *self.kind == *other.kind
            && if self.prefix {
                other.id.starts_with(&self.id)
            } else {
                !other.prefix && other.id == self.id
            }
    }
}

impl std::fmt::Display for ResourceMatcher {
    /// As it is written: `type/id` or `type/start*`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let star = if self.prefix { "*" } else { "" };
        write!(f, "{}/{}{star}", self.kind, self.id)
    }
}

fn member_is(body: Option<&Value>, key: &str, allowed: &[String]) -> bool {
    let value = body.and_then(|body| body.get(key)).and_then(member_text);
    value.is_some_and(|value| allowed.iter().any(|one| **one == *value))
}

/// A member's value as the configuration spells it; containers and `null` have no spelling and match nothing.
pub(super) fn member_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(true) => Some(Cow::Borrowed("true")),
        Value::Bool(false) => Some(Cow::Borrowed("false")),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

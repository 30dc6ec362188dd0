//! What one route matches.
//!
//! Knows neither the order of routes nor who calls. `compile.rs` makes it, `policy.rs` asks it.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use serde_json::Value;

use crate::domain::ask::{Call, Resource};
use crate::domain::catalog::{Effect, Operation};
use crate::domain::destination::Destination;
use crate::domain::template::PathTemplate;

/// What a route matches. All present conditions must hold.
#[derive(Debug, Default)]
pub(in crate::domain) struct Matcher {
    /// Sorted numbers of operations.
    pub operations: Option<Vec<usize>>,
    /// How the route names them, such as `mlflow.*`.
    pub operations_text: String,
    pub resource: Option<ResourceMatcher>,
    pub methods: Vec<Method>,
    pub path: Option<PathTemplate>,
    pub body: Vec<(String, Vec<String>)>,
}

/// A resource by exact id, or by the start of its id.
#[derive(Debug)]
pub(in crate::domain) struct ResourceMatcher {
    pub kind: Arc<str>,
    pub id: String,
    pub prefix: bool,
}

impl Matcher {
    /// Whether the call, as far as it touches this resource, is meant.
    pub(in crate::domain) fn matches(
        &self,
        call: &Call<'_>,
        resource: Option<&Resource<'_>>,
    ) -> bool {
        self.fits_operation(call)
            && self.fits_destination(call)
            && self
                .resource
                .as_ref()
                .is_none_or(|wanted| resource.is_some_and(|given| wanted.matches(given)))
            && (self.methods.is_empty() || self.methods.contains(call.method))
            && self
                .path
                .as_ref()
                .is_none_or(|template| template.matches(call.path))
            && self
                .body
                .iter()
                .all(|(key, allowed)| member_is(call.body, key, allowed))
    }

    /// Paths are those of the workspace: `/**` does not mean another app's.
    fn fits_destination(&self, call: &Call<'_>) -> bool {
        match call.destination {
            Destination::Workspace => true,
            Destination::Upstream(_) => self.path.is_none(),
        }
    }

    /// Whether the route names a resource of this kind.
    pub(in crate::domain) fn is_for(&self, kind: &str) -> bool {
        self.resource.as_ref().is_some_and(|r| *r.kind == *kind)
    }

    /// Operations of admin effect are never reached by a resource alone: they must be named.
    fn fits_operation(&self, call: &Call<'_>) -> bool {
        match (&self.operations, call.operation) {
            (Some(wanted), Some((index, _))) => wanted.binary_search(&index).is_ok(),
            (Some(_), None) => false,
            (None, Some((_, operation))) => {
                self.path.is_some() || operation.effect != Effect::Admin
            }
            (None, None) => true,
        }
    }

    /// What the route matches, in the words of the configuration.
    pub(in crate::domain) fn describe(&self) -> String {
        let mut parts = Vec::new();
        if let Some(resource) = &self.resource {
            parts.push(format!(
                "{}/{}{}",
                resource.kind,
                resource.id,
                if resource.prefix { "*" } else { "" }
            ));
        }
        if self.operations.is_some() {
            parts.push(self.operations_text.clone());
        }
        if let Some(path) = &self.path {
            let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
            parts.push(format!(
                "{} {}",
                if methods.is_empty() {
                    "*".to_owned()
                } else {
                    methods.join(",")
                },
                path.as_str()
            ));
        }
        for (key, allowed) in &self.body {
            parts.push(format!("{key} in [{}]", allowed.join(", ")));
        }
        parts.join(" ")
    }

    /// Whether a call of this operation could match.
    pub(in crate::domain) fn may_touch(&self, index: usize, operation: &Operation) -> bool {
        match (&self.operations, &self.resource) {
            (Some(operations), _) => operations.binary_search(&index).is_ok(),
            (None, Some(resource)) => operation
                .resources
                .iter()
                .any(|rule| rule.kind == resource.kind),
            (None, None) => self
                .path
                .as_ref()
                .is_some_and(|p| p.shape() == operation.path.shape()),
        }
    }
}

impl ResourceMatcher {
    /// Whether this very thing is meant.
    pub(in crate::domain) fn matches(&self, given: &Resource<'_>) -> bool {
        *self.kind == *given.kind
            && if self.prefix {
                given.id.starts_with(&self.id)
            } else {
                *given.id == *self.id
            }
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

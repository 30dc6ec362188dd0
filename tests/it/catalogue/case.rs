//! The table `tests/policy_cases/catalog.yaml`, and one of its calls put to `explain`.
//!
//! `catalogue.rs` judges the answers.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::Value;
use valetkey::domain::clock::Timestamp;
use valetkey::domain::destination::Upstreams;
use valetkey::domain::policy::Policy;
use valetkey::explain::{Answer, As, Question, bound, explain};

const TABLE: &str = include_str!("../../policy_cases/catalog.yaml");

/// One row: a call of an operation, what it touches, and the same operation on something else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) op: String,
    call: String,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    bound: Option<String>,
    #[serde(default)]
    pub(super) tool: Option<String>,
    pub(super) touches: Vec<String>,
    #[serde(default)]
    pub(super) also: Vec<String>,
    #[serde(default)]
    pub(super) elsewhere: Option<Elsewhere>,
}

/// What is different in the call elsewhere.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Elsewhere {
    call: Option<String>,
    body: Option<Value>,
    headers: Option<BTreeMap<String, String>>,
    bound: Option<String>,
}

/// A call that can be asked, and changed before it is.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) body: Option<Value>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) bound: Option<String>,
    pub(super) foreign_partition: bool,
}

/// The whole table.
pub(super) fn table() -> Vec<Case> {
    serde_saphyr::from_str(TABLE).unwrap()
}

impl Case {
    pub(super) fn asked(&self) -> Asked {
        let (method, target) = self.call.split_once(' ').unwrap();
        Asked {
            method: method.parse().unwrap(),
            target: target.to_owned(),
            body: self.body.clone(),
            headers: self.headers.clone(),
            bound: self.bound.clone(),
            foreign_partition: false,
        }
    }

    pub(super) fn elsewhere(&self) -> Option<Asked> {
        let other = self.elsewhere.clone()?;
        let changed = Self {
            call: other.call.unwrap_or_else(|| self.call.clone()),
            body: other.body.or_else(|| self.body.clone()),
            headers: other.headers.unwrap_or_else(|| self.headers.clone()),
            bound: other.bound.or_else(|| self.bound.clone()),
            ..self.clone()
        };
        Some(changed.asked())
    }
}

impl Asked {
    pub(super) fn ask(&self, policy: &Policy, caller: &As) -> Answer {
        let body = self.body.as_ref().map(|body| body.to_string().into_bytes());
        let headers: HeaderMap = { self.headers.iter() }
            .map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect();
        explain(
            policy,
            &Question {
                caller,
                method: &self.method,
                target: &self.target,
                body: body.as_deref(),
                headers: &headers,
                bound: self.bound.as_deref().map(|known| bound(known).unwrap()),
                foreign_partition: self.foreign_partition,
                workspace_id: None,
                upstreams: &Upstreams::default(),
                now: Timestamp::UNIX_EPOCH,
            },
        )
    }

    /// The same call without a query parameter.
    pub(super) fn without_query(&self, name: &str) -> Self {
        let (path, query) = self.target.split_once('?').unwrap();
        let kept: Vec<&str> = { query.split('&') }
            .filter(|pair| pair.split('=').next() != Some(name))
            .collect();
        Self {
            target: format!("{path}?{}", kept.join("&")),
            ..self.clone()
        }
    }

    /// The same call without the member that this path ends in, in every element.
    pub(super) fn without_member(&self, member: &str) -> Self {
        let mut changed = self.clone();
        if let Some(body) = &mut changed.body {
            remove(body, &member.split('.').collect::<Vec<_>>());
        }
        changed
    }
}

fn remove(at: &mut Value, steps: &[&str]) {
    let Some((step, rest)) = steps.split_first() else {
        return;
    };
    let name = step.trim_end_matches("[]");
    let Some(members) = at.as_object_mut() else {
        return;
    };
    if rest.is_empty() {
        members.remove(name);
        return;
    }
    match members.get_mut(name) {
        Some(Value::Array(items)) => items.iter_mut().for_each(|item| remove(item, rest)),
        Some(inner) => remove(inner, rest),
        None => {}
    }
}

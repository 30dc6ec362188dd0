//! The shapes of `config/catalog.yaml`, and what makes an operation of one.
//!
//! Unknown keys are mistakes; so is a resource that stands in two places. `catalog.rs` collects what is found here.

use http::Method;
use serde::Deserialize;

use crate::domain::problem::Problem;
use crate::domain::scope::Scope;
use crate::domain::template::PathTemplate;

use super::{Creates, Effect, FollowUp, IdPart, Operation, ResourceFrom, ResourceRule};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCatalog {
    pub(super) version: String,
    pub(super) operations: Vec<RawOperation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOperation {
    pub(super) id: String,
    method: String,
    path: String,
    effect: Effect,
    scope: String,
    #[serde(default = "yes")]
    user_scope: bool,
    #[serde(default)]
    resource: Option<RawResource>,
    #[serde(default)]
    follow_up: Option<RawNamed>,
    #[serde(default)]
    creates: Option<RawNamed>,
    #[serde(default)]
    presigned: bool,
    #[serde(default)]
    presigned_unless: Option<RawMember>,
    #[serde(default)]
    rewrites: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResource {
    r#type: String,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    follow_up: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMember {
    body: String,
    is: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNamed {
    kind: String,
    name: String,
}

impl RawOperation {
    pub(super) fn check(self) -> Result<Operation, Problem> {
        let fault = |message: String| Problem::new(self.id.clone(), message);
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| fault(format!("`{}` is no method", self.method)))?;
        let path = PathTemplate::parse(&self.path).map_err(|e| fault(e.to_string()))?;
        let scope = Scope::parse(&self.scope)
            .ok_or_else(|| fault(format!("`{}` is no scope", self.scope)))?;
        let resources = self
            .resource
            .as_ref()
            .map(|raw| raw.check(&path).map_err(&fault))
            .transpose()?;
        if let Some(follow_up) = self.follow_up.as_ref().filter(|f| !path.has(&f.name)) {
            return Err(fault(format!("the path has no {{{}}}", follow_up.name)));
        }
        if resources
            .as_ref()
            .is_some_and(|r| r.from == ResourceFrom::FollowUp)
            && self.follow_up.is_none()
        {
            return Err(fault(
                "takes its resource from a follow-up id but names none".into(),
            ));
        }
        Ok(Operation {
            method,
            path,
            effect: self.effect,
            scope,
            user_scope: self.user_scope,
            resources: resources.into_iter().collect(),
            follow_up: self.follow_up.map(|f| FollowUp {
                kind: f.kind.into(),
                name: f.name.into(),
            }),
            creates: self.creates.map(|c| Creates {
                kind: c.kind.into(),
                field: c.name.into(),
            }),
            presigned: self.presigned,
            presigned_unless: self.presigned_unless.map(|m| (m.body.into(), m.is.into())),
            rewrites: self.rewrites.map(Into::into),
            id: self.id.into(),
        })
    }
}

impl RawResource {
    fn check(&self, path: &PathTemplate) -> Result<ResourceRule, String> {
        let from = match (&self.path, &self.body, &self.query, self.follow_up) {
            (Some(format), None, None, false) => ResourceFrom::Path(id_parts(format, path)?),
            (None, Some(field), None, false) => ResourceFrom::Body(field.as_str().into()),
            (None, None, Some(name), false) => ResourceFrom::Query(name.as_str().into()),
            (None, None, None, true) => ResourceFrom::FollowUp,
            _ => {
                return Err(
                    "a resource stands in exactly one of path, body, query, follow_up".into(),
                );
            }
        };
        Ok(ResourceRule {
            kind: self.r#type.as_str().into(),
            from,
        })
    }
}

fn id_parts(format: &str, path: &PathTemplate) -> Result<Vec<IdPart>, String> {
    let mut parts = Vec::new();
    let mut rest = format;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| format!("`{format}` lacks a closing brace"))?;
        if !path.has(name) {
            return Err(format!("the path has no {{{name}}}"));
        }
        if !text.is_empty() {
            parts.push(IdPart::Text(text.into()));
        }
        parts.push(IdPart::Name(name.into()));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(IdPart::Text(rest.into()));
    }
    Ok(parts)
}

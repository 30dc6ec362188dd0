//! Where the catalogue says that a resource stands.
//!
//! Checks that every name used in an id exists. `raw.rs` is the rest of an operation.

use http::HeaderName;
use serde::Deserialize;

use super::Tables;
use crate::domain::catalog::member::Member;
use crate::domain::catalog::shape::Shape;
use crate::domain::catalog::{Also, Composed, ResourceFrom, ResourceRule};
use crate::domain::template::PathTemplate;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResource {
    r#type: String,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    body: Option<RawNames>,
    #[serde(default)]
    query: Option<RawNames>,
    #[serde(default)]
    header: Option<String>,
    #[serde(default)]
    follow_up: bool,
    #[serde(default)]
    like: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    also: Option<RawAlso>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    number: bool,
    #[serde(default)]
    scope: Option<String>,
}

/// One parameter or member, or several of which the id is composed.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawNames {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlso {
    r#type: String,
    id: String,
}

impl RawResource {
    pub(super) fn check(
        &self,
        path: &PathTemplate,
        tables: &Tables,
    ) -> Result<ResourceRule, String> {
        let from = self.from()?;
        let like = self.like.as_deref().map(Shape::parse).transpose()?;
        let id = self.id.as_deref().map(Shape::parse).transpose()?;
        if let ResourceFrom::Path(shape) = &from {
            all_in(shape, |name| path.has(name))?;
        }
        let known = |name: &str| match (&like, &from) {
            (Some(like), _) => like.has(name),
            (None, ResourceFrom::Query(names)) => names.iter().any(|one| **one == *name),
            (None, ResourceFrom::Members(all)) => all.parts.iter().any(|(one, _)| **one == *name),
            (None, _) => path.has(name),
        };
        if let Some(id) = &id {
            all_in(id, known)?;
        }
        let several = matches!(&from, ResourceFrom::Query(names) if names.len() > 1)
            || matches!(&from, ResourceFrom::Members(_));
        if several && id.is_none() {
            return Err("several values need an `id` that is composed of them".into());
        }
        if id.is_some() && !several && like.is_none() {
            return Err("`id` goes with `like` or with several values".into());
        }
        let also = { self.also.as_ref().map(|also| also.check(known, tables)) }.transpose()?;
        let scope = { self.scope.as_ref().map(|name| tables.scope(name)) }.transpose()?;
        Ok(ResourceRule {
            scope: scope.map(|row| row.name.clone()),
            folds: tables.folds(&self.r#type),
            kind: self.r#type.as_str().into(),
            from,
            like,
            id,
            also,
            optional: self.optional,
            number: self.number,
        })
    }

    fn from(&self) -> Result<ResourceFrom, String> {
        let places = (
            &self.path,
            &self.body,
            &self.query,
            &self.header,
            self.follow_up,
        );
        match places {
            (Some(format), None, None, None, false) => Shape::parse(format).map(ResourceFrom::Path),
            (None, Some(RawNames::One(member)), None, None, false) => {
                Member::parse(member).map(ResourceFrom::Body)
            }
            (None, Some(RawNames::Several(members)), None, None, false) => {
                composed(members).map(ResourceFrom::Members)
            }
            (None, None, Some(RawNames::One(name)), None, false) => {
                Ok(ResourceFrom::Query(vec![name.as_str().into()]))
            }
            (None, None, Some(RawNames::Several(names)), None, false) => Ok(ResourceFrom::Query(
                names.iter().map(|name| name.as_str().into()).collect(),
            )),
            (None, None, None, Some(name), false) => HeaderName::from_bytes(name.as_bytes())
                .map(ResourceFrom::Header)
                .map_err(|_| format!("`{name}` is no header")),
            (None, None, None, None, true) => Ok(ResourceFrom::FollowUp),
            _ => Err(
                "a resource stands in exactly one of path, body, query, header, follow_up".into(),
            ),
        }
    }
}

impl RawAlso {
    fn check(&self, known: impl Fn(&str) -> bool, tables: &Tables) -> Result<Also, String> {
        let id = Shape::parse(&self.id)?;
        all_in(&id, known)?;
        Ok(Also {
            folds: tables.folds(&self.r#type),
            kind: self.r#type.as_str().into(),
            id,
        })
    }
}

/// Members of one object, or of each element of one array.
fn composed(texts: &[String]) -> Result<Composed, String> {
    let fault = || format!("{texts:?} are no members of one object or of one array's elements");
    let mut array: Option<Option<&str>> = None;
    let mut parts = Vec::new();
    for text in texts {
        let (before, rest) = match text.rsplit_once("[].") {
            Some((before, rest)) => (Some(before), rest),
            None => (None, text.as_str()),
        };
        if rest.contains("[]") || array.is_some_and(|array| array != before) {
            return Err(fault());
        }
        array = Some(before);
        let name = rest.rsplit('.').next().unwrap_or_default();
        parts.push((name.into(), Member::parse(rest)?));
    }
    let array = array
        .flatten()
        .map(|before| Member::parse(&format!("{before}[]")));
    Ok(Composed {
        text: texts.join(" and ").into(),
        array: array.transpose()?,
        parts,
    })
}

fn all_in(shape: &Shape, known: impl Fn(&str) -> bool) -> Result<(), String> {
    let stranger = shape.names().find(|name| !known(name));
    stranger.map_or(Ok(()), |name| Err(format!("nothing is named {{{name}}}")))
}

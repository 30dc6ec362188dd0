//! The shapes of `config/catalog.yaml`, and what makes an operation of one.
//!
//! Unknown keys are mistakes; so is a resource that stands in two places, or a scope that the table of scopes does not have.
//! `raw/resource.rs` reads where a resource stands; `catalog.rs` collects what is found here.

use std::collections::BTreeMap;

use http::{HeaderName, Method};
use serde::Deserialize;

use self::resource::RawResource;
use super::member::{Member, Place};
use super::{Creates, Effect, FollowUp, Mcp, Operation, ResourceFrom, ScopeRow, Variants};
use crate::domain::alias;
use crate::domain::problem::Problem;
use crate::domain::scope::Scope;
use crate::domain::template::PathTemplate;

mod resource;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCatalog {
    pub(super) version: String,
    scopes: Vec<RawScope>,
    #[serde(default)]
    folds: Vec<String>,
    pub(super) operations: Vec<RawOperation>,
}

/// What the operations refer to.
pub(super) struct Tables {
    pub(super) scopes: Vec<ScopeRow>,
    pub(super) folds: Vec<Box<str>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScope {
    name: String,
    #[serde(default)]
    older: Vec<String>,
    users: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOperation {
    pub(super) id: String,
    method: String,
    path: String,
    effect: Effect,
    scope: String,
    #[serde(default)]
    accepts: Vec<String>,
    #[serde(default)]
    resource: Option<RawResource>,
    #[serde(default)]
    resources: Vec<RawResource>,
    #[serde(default)]
    follow_up: Option<RawFollowUp>,
    #[serde(default)]
    creates: Option<RawCreates>,
    #[serde(default)]
    mcp: bool,
    #[serde(default)]
    mcp_tools: Option<String>,
    #[serde(default)]
    variants: Option<RawVariants>,
    #[serde(default)]
    partition: Option<RawPlace>,
    #[serde(default)]
    presigned: bool,
    #[serde(default)]
    presigned_unless: Option<RawMember>,
    #[serde(default)]
    rewrites: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    body: String,
    is: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVariants {
    body: String,
    tag: String,
    plain: Vec<String>,
    hosted: RawHosted,
}

/// Tags that are also the name of the member, or each tag with its member.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawHosted {
    Same(Vec<String>),
    Named(BTreeMap<String, String>),
}

/// Exactly one of them is given.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPlace {
    path: Option<String>,
    query: Option<String>,
    header: Option<String>,
    body: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFollowUp {
    kind: String,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    header: Option<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    same: Option<String>,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCreates {
    kind: String,
    #[serde(default)]
    header: Option<String>,
    #[serde(default)]
    body: Option<String>,
}

impl RawCatalog {
    /// The tables that operations refer to.
    pub(super) fn tables(&self, problems: &mut Vec<Problem>) -> Tables {
        let mut scopes = Vec::new();
        for raw in &self.scopes {
            let agrees = |older: &&String| alias::short_name(older) == raw.name;
            if let Some(older) = raw.older.iter().find(|older| !agrees(older)) {
                let message = format!("alias.rs does not know `{older}` as an older name of it");
                problems.push(Problem::new(format!("scopes.{}", raw.name), message));
            }
            match Scope::parse(&raw.name) {
                Some(name) => scopes.push(ScopeRow {
                    name,
                    older: raw.older.iter().map(|o| o.as_str().into()).collect(),
                    users: raw.users,
                }),
                None => problems.push(Problem::new(
                    "scopes",
                    format!("`{}` is no scope", raw.name),
                )),
            }
        }
        Tables {
            scopes,
            folds: self.folds.iter().map(|kind| kind.as_str().into()).collect(),
        }
    }
}

impl Tables {
    fn folds(&self, kind: &str) -> bool {
        self.folds.iter().any(|one| **one == *kind)
    }

    pub(super) fn scope(&self, text: &str) -> Result<&ScopeRow, String> {
        let known = |row: &&ScopeRow| row.name.as_str() == text;
        let missing = || format!("the table of scopes does not have `{text}`");
        self.scopes.iter().find(known).ok_or_else(missing)
    }
}

impl RawOperation {
    pub(super) fn check(self, tables: &Tables) -> Result<Operation, Problem> {
        let id = self.id.clone();
        self.checked(tables)
            .map_err(|message| Problem::new(id, message))
    }

    fn checked(self, tables: &Tables) -> Result<Operation, String> {
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| format!("`{}` is no method", self.method))?;
        let path = PathTemplate::parse(&self.path).map_err(|e| e.to_string())?;
        let scope = tables.scope(&self.scope)?;
        let accepted = { self.accepts.iter() }
            .map(|name| tables.scope(name))
            .collect::<Result<Vec<_>, _>>()?;
        let resources = { self.resource.iter().chain(&self.resources) }
            .map(|raw| raw.check(&path, tables))
            .collect::<Result<Vec<_>, _>>()?;
        let follow_up = { self.follow_up.map(|raw| raw.check(&path)) }.transpose()?;
        let follows = |r: &super::ResourceRule| r.from == ResourceFrom::FollowUp;
        if resources.iter().any(follows) && follow_up.is_none() {
            return Err("takes its resource from a follow-up id but names none".into());
        }
        let mcp = Mcp {
            folds: self.mcp_tools.as_ref().is_some_and(|k| tables.folds(k)),
            tools: self.mcp_tools.as_deref().map(Into::into),
        };
        if mcp.tools.is_some() && !(self.mcp && path.has("catalog") && path.has("schema")) {
            return Err("mcp_tools needs mcp, {catalog} and {schema}".into());
        }
        Ok(Operation {
            effect: self.effect,
            user_scope: scope.users || accepted.iter().any(|row| row.users),
            scope: scope.name.clone(),
            accepts: accepted.iter().map(|row| row.name.clone()).collect(),
            resources,
            follow_up,
            creates: self.creates.map(RawCreates::check).transpose()?,
            mcp: self.mcp.then_some(mcp),
            variants: self.variants.map(RawVariants::check).transpose()?,
            partition: { self.partition.map(|raw| raw.check(&path)) }.transpose()?,
            presigned: self.presigned,
            presigned_unless: self.presigned_unless.map(|m| (m.body.into(), m.is.into())),
            rewrites: self.rewrites.map(Into::into),
            id: self.id.into(),
            method,
            path,
        })
    }
}

impl RawPlace {
    fn check(self, path: &PathTemplate) -> Result<Place, String> {
        let header = |name: String| {
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header"))
        };
        match (self.path, self.query, self.header, self.body) {
            (Some(name), None, None, None) if path.has(&name) => Ok(Place::Path(name.into())),
            (Some(name), None, None, None) => Err(format!("the path has no {{{name}}}")),
            (None, Some(name), None, None) => Ok(Place::Query(name.into())),
            (None, None, Some(name), None) => header(name).map(Place::Header),
            (None, None, None, Some(member)) => Member::parse(&member).map(Place::Body),
            _ => Err("a value stands in exactly one of path, query, header, body".into()),
        }
    }
}

impl RawFollowUp {
    fn check(self, path: &PathTemplate) -> Result<FollowUp, String> {
        let place = RawPlace {
            path: self.path,
            query: self.query,
            header: self.header,
            body: self.body,
        };
        let place = place.check(path)?;
        let same = match (&place, self.same) {
            (_, None) => None,
            (Place::Query(_), Some(name)) => Some(Place::Query(name.into())),
            (Place::Body(_), Some(member)) => Some(Place::Body(Member::parse(&member)?)),
            (Place::Path(_) | Place::Header(_), Some(_)) => {
                return Err("only a member of query or body has an older name".into());
            }
        };
        Ok(FollowUp {
            kind: self.kind.into(),
            place,
            same,
            shared: self.shared,
            optional: self.optional,
        })
    }
}

impl RawCreates {
    fn check(self) -> Result<Creates, String> {
        let place = RawPlace {
            header: self.header,
            body: self.body,
            ..RawPlace::default()
        };
        let nowhere = PathTemplate::parse("/").map_err(|e| e.to_string())?;
        let place = place.check(&nowhere)?;
        Ok(Creates {
            kind: self.kind.into(),
            place,
        })
    }
}

impl RawVariants {
    fn check(self) -> Result<Variants, String> {
        let array = Member::parse(&self.body)?;
        if !array.steps().last().is_some_and(|step| step.each) {
            return Err("variants are the elements of an array, such as tools[]".into());
        }
        let same = |word: &String| (word.as_str().into(), word.as_str().into());
        Ok(Variants {
            array,
            tag: self.tag.into(),
            plain: self.plain.into_iter().map(Into::into).collect(),
            hosted: match &self.hosted {
                RawHosted::Same(words) => words.iter().map(same).collect(),
                RawHosted::Named(pairs) => { pairs.iter() }
                    .map(|(tag, member)| (tag.as_str().into(), member.as_str().into()))
                    .collect(),
            },
        })
    }
}

//! The Databricks API catalogue: every known operation, where its resource stands, what scope it takes.
//!
//! The data is `config/catalog.yaml`, compiled in; this file holds what it says and finds the operation of a request. Knows
//! nothing of routes. `catalog/raw.rs` reads and checks the data. Read `ask.rs` next, which turns a request into an operation
//! and what it touches.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use http::{HeaderName, Method};
use serde::Deserialize;
use serde_json::Value;

use self::member::{Member, Place};
use self::raw::RawCatalog;
use self::shape::Shape;
use super::ask::is_same_member;
use super::path::CanonicalPath;
use super::problem::Problem;
use super::scope::Scope;
use super::template::{PathTemplate, Trie};

pub mod member;
mod raw;
pub mod shape;

/// The catalogue that is part of the binary.
pub const BUILT_IN: &str = include_str!("../../config/catalog.yaml");

/// The kind of another app, which `outbound.upstreams` reaches.
pub const APP: &str = "app";
/// The kind of a managed MCP server.
pub const MCP: &str = "mcp";

/// What a call does to the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Looks.
    Read,
    /// Changes or runs something.
    Write,
    /// Changes who may do what, hands out credentials, or stops what others rely on: never in the starter policy.
    Admin,
}

impl Effect {
    /// The word in the catalogue.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Where the id of the resource stands in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceFrom {
    /// Composed of path names, such as `{catalog}.{schema}.{volume}`.
    Path(Shape),
    /// A member of the JSON body; one resource for each value it stands for.
    Body(Member),
    /// Several members of one object, or of each element of one array, that the id is composed of.
    Members(Composed),
    /// One query parameter, or several that the id is composed of.
    Query(Vec<Box<str>>),
    /// A header.
    Header(HeaderName),
    /// Only an id that an earlier answer gave out: the resource is the one that call touched.
    FollowUp,
}

/// Several members that one id is composed of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// As it is written, for messages.
    pub text: Box<str>,
    /// The array of whose elements they are members, if any.
    pub array: Option<Member>,
    /// Each with the name by which the format of the id calls it.
    pub parts: Vec<(Box<str>, Member)>,
}

/// A second name of the same thing: a managed MCP server over a Genie space *is* that space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Also {
    /// Such as `genie_space`.
    pub kind: Arc<str>,
    /// Composed of the names of the path, or of the value's shape.
    pub id: Shape,
    /// Whether ids of this kind are compared without regard to case.
    pub folds: bool,
}

/// What a call touches and how to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRule {
    /// Such as `sql_warehouse`.
    pub kind: Arc<str>,
    /// Where the id stands.
    pub from: ResourceFrom,
    /// The shape that the value must have, and the id that is composed of its names.
    pub like: Option<Shape>,
    /// How the id is composed where it is not the value itself.
    pub id: Option<Shape>,
    /// Its second name.
    pub also: Option<Also>,
    /// Whether a call without it touches nothing by this rule; otherwise such a call is refused.
    pub optional: bool,
    /// Whether the id is a whole number: another spelling of the same number is refused.
    pub number: bool,
    /// Whether ids are compared without regard to case, as Unity Catalog does with its names.
    pub folds: bool,
    /// What touching it takes besides the operation's own scope.
    pub scope: Option<Scope>,
}

/// An id that an earlier answer gave out, and that is bound to whoever got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// Such as `statement`.
    pub kind: Arc<str>,
    /// Where it stands.
    pub place: Place,
    /// An older name of it, which must say the same where it is there: readers differ in which of the two they take.
    pub same: Option<Place>,
    /// Bound only to what the call that gave it out touched, not to who got it.
    pub shared: bool,
    /// Whether a call without it is fine.
    pub optional: bool,
}

/// An id in the answer that later calls will name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creates {
    /// Such as `statement`.
    pub kind: Arc<str>,
    /// A member of the JSON answer, or a header of it.
    pub place: Place,
}

/// A call that speaks JSON-RPC with an MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcp {
    /// For servers of a whole schema: the kind of what the tool `catalog__schema__name` stands for.
    pub tools: Option<Arc<str>>,
    /// Whether ids of that kind are compared without regard to case.
    pub folds: bool,
}

/// Elements of an array in the body of which each says by a tag what it is (Supervisor API).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variants {
    /// The array.
    pub array: Member,
    /// The member of each element that says what it is.
    pub tag: Box<str>,
    /// Tags of what touches nothing in the workspace.
    pub plain: Vec<Box<str>>,
    /// Tags of what does, with the member that such an element must have.
    pub hosted: Vec<(Box<str>, Box<str>)>,
}

/// One API call of the platform.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Such as `sql.statements.execute`.
    pub id: Arc<str>,
    /// Exact, upper case.
    pub method: Method,
    /// The path's shape.
    pub path: PathTemplate,
    /// What it does.
    pub effect: Effect,
    /// The scope in its short name.
    pub scope: Scope,
    /// Further scopes that do as well.
    pub accepts: Vec<Scope>,
    /// Whether apps can request one of these scopes for users at all (facts 4.2).
    pub user_scope: bool,
    /// What it touches.
    pub resources: Vec<ResourceRule>,
    /// The follow-up id that it names.
    pub follow_up: Option<FollowUp>,
    /// The follow-up id that its answer gives out.
    pub creates: Option<Creates>,
    /// Whether it speaks JSON-RPC.
    pub mcp: Option<Mcp>,
    /// What each element of an array in the body must be.
    pub variants: Option<Variants>,
    /// Where the partition stands that must be the verified user's own.
    pub partition: Option<Place>,
    /// Whether its answer hands out storage URLs that bypass the sidecar.
    pub presigned: bool,
    /// A top-level string member of the body and its only value with which the answer hands out none of those; without the
    /// member it hands out none either.
    pub presigned_unless: Option<(Box<str>, Box<str>)>,
    /// A top-level member of the answer (dotted path) that names another origin for the next call.
    pub rewrites: Option<Box<str>>,
}

impl Operation {
    /// Whether the body must be read to decide.
    pub fn reads_body(&self) -> bool {
        let names = |rule: &ResourceRule| {
            matches!(rule.from, ResourceFrom::Body(_) | ResourceFrom::Members(_))
        };
        self.mcp.is_some()
            || self.resources.iter().any(names)
            || self.partition.as_ref().is_some_and(Place::is_in_body)
            || self
                .follow_up
                .as_ref()
                .is_some_and(|f| f.place.is_in_body())
    }

    /// Whether something is read out of its answer, or changed in it: then it must not be compressed.
    pub fn looks_into_answer(&self) -> bool {
        self.rewrites.is_some() || self.creates.as_ref().is_some_and(|c| c.place.is_in_body())
    }

    /// Whether what it touches is known only by an id that an earlier answer gave out.
    pub fn follows_up(&self) -> bool {
        self.resources
            .iter()
            .any(|rule| rule.from == ResourceFrom::FollowUp)
    }

    /// The scopes of which a user needs one.
    pub fn scopes(&self) -> impl Iterator<Item = &Scope> {
        std::iter::once(&self.scope).chain(&self.accepts)
    }

    /// The kinds of what it may touch, second names included.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<str>> {
        self.resources
            .iter()
            .flat_map(|rule| std::iter::once(&rule.kind).chain(rule.also.as_ref().map(|a| &a.kind)))
            .chain(self.mcp.iter().filter_map(|mcp| mcp.tools.as_ref()))
    }

    /// Whether the answer to this call hands out storage URLs that bypass the sidecar.
    pub fn hands_out_urls(&self, body: Option<&Value>) -> bool {
        let chosen = |(member, harmless): &(Box<str>, Box<str>)| {
            let members = body.and_then(Value::as_object).into_iter().flatten();
            let mut meant = members.filter(|(name, _)| is_same_member(name, member));
            meant.any(|(_, value)| value.as_str() != Some(&**harmless))
        };
        self.presigned || self.presigned_unless.as_ref().is_some_and(chosen)
    }
}

/// One scope of the platform, in both vocabularies (facts 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRow {
    /// The short name.
    pub name: Scope,
    /// The older names.
    pub older: Vec<Box<str>>,
    /// Whether an app can request it for users.
    pub users: bool,
}

/// All operations, with an index by method and path.
#[derive(Debug)]
pub struct Catalog {
    version: Box<str>,
    scopes: Vec<ScopeRow>,
    folds: Vec<Box<str>>,
    operations: Vec<Arc<Operation>>,
    by_path: HashMap<Method, Trie>,
}

impl Catalog {
    /// The catalogue of the binary, read once.
    ///
    /// # Errors
    /// Never in a released binary: a test reads it.
    pub fn built_in() -> Result<Arc<Self>, Vec<Problem>> {
        static READ: OnceLock<Result<Arc<Catalog>, Vec<Problem>>> = OnceLock::new();
        READ.get_or_init(|| Self::parse(BUILT_IN).map(Arc::new))
            .clone()
    }

    /// Reads a catalogue.
    ///
    /// # Errors
    /// Every mistake: duplicate ids, two operations of one shape, names that the template does not have.
    pub fn parse(yaml: &str) -> Result<Self, Vec<Problem>> {
        let raw: RawCatalog = serde_saphyr::from_str(yaml)
            .map_err(|fault| vec![Problem::new("catalog", fault.without_snippet().to_string())])?;
        let mut problems = Vec::new();
        let tables = raw.tables(&mut problems);
        let mut operations = Vec::with_capacity(raw.operations.len());
        let mut by_path: HashMap<Method, Trie> = HashMap::new();
        let mut shapes: HashMap<(Method, String), String> = HashMap::new();
        for raw in raw.operations {
            let id = raw.id.clone();
            match raw.check(&tables) {
                Ok(operation) => {
                    let shape = (operation.method.clone(), operation.path.shape());
                    if let Some(other) = shapes.insert(shape, id.clone()) {
                        problems.push(Problem::new(
                            id,
                            format!("has the method and the path shape of {other}"),
                        ));
                    }
                    let index = u32::try_from(operations.len()).unwrap_or(u32::MAX);
                    by_path
                        .entry(operation.method.clone())
                        .or_default()
                        .insert(&operation.path, index);
                    operations.push(Arc::new(operation));
                }
                Err(problem) => problems.push(problem),
            }
        }
        let mut ids: Vec<&Arc<str>> = operations.iter().map(|o| &o.id).collect();
        ids.sort();
        problems.extend(
            ids.windows(2)
                .filter(|w| w.first() == w.get(1))
                .filter_map(|w| w.first())
                .map(|id| Problem::new(&***id, "stands twice")),
        );
        if problems.is_empty() {
            Ok(Self {
                version: raw.version.into(),
                scopes: tables.scopes,
                folds: tables.folds,
                operations,
                by_path,
            })
        } else {
            Err(problems)
        }
    }

    /// The date of the data.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Every scope in both vocabularies.
    pub fn scopes(&self) -> &[ScopeRow] {
        &self.scopes
    }

    /// Whether ids of this kind are compared without regard to case.
    pub fn folds(&self, kind: &str) -> bool {
        self.folds.iter().any(|one| **one == *kind)
    }

    /// All operations in the order of the file.
    pub fn operations(&self) -> &[Arc<Operation>] {
        &self.operations
    }

    /// The operation of a request, with its number.
    pub fn find(&self, method: &Method, path: &CanonicalPath) -> Option<(usize, &Arc<Operation>)> {
        let mut found = None;
        self.by_path.get(method)?.visit(path, &mut |index| {
            found = Some(index as usize);
            true
        });
        let index = found?;
        self.operations
            .get(index)
            .map(|operation| (index, operation))
    }

    /// The numbers of the operations that a name means: one id, or a family such as `mlflow.*`.
    pub fn named(&self, pattern: &str) -> Vec<usize> {
        let family = pattern
            .strip_suffix('*')
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'));
        let fits = |id: &str| family.map_or(id == pattern, |prefix| id.starts_with(prefix));
        self.operations
            .iter()
            .enumerate()
            .filter(|(_, o)| fits(&o.id))
            .map(|(i, _)| i)
            .collect()
    }

    /// The resource types that some operation touches.
    pub fn resource_kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = vec![APP];
        kinds.extend(self.operations.iter().flat_map(|o| o.kinds()).map(|k| &**k));
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

#[cfg(test)]
mod tests;

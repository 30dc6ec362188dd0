//! The Databricks API catalogue: every known operation, where its resource stands, what scope it takes.
//!
//! The data is `config/catalog.yaml`, compiled in; this file reads and checks it. Knows nothing of routes. Read `ask.rs` next,
//! which turns a request into an operation and its resources.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::ask::fold;
use super::path::CanonicalPath;
use super::problem::Problem;
use super::scope::Scope;
use super::template::{PathTemplate, Trie};

use self::raw::RawCatalog;

mod raw;

/// The catalogue that is part of the binary.
pub const BUILT_IN: &str = include_str!("../../config/catalog.yaml");

/// What a call does to the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Looks.
    Read,
    /// Changes or runs something.
    Write,
    /// Changes who may do what, or hands out credentials: never in the starter policy.
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
    Path(Vec<IdPart>),
    /// A top-level string member of the JSON body.
    Body(Box<str>),
    /// A query parameter.
    Query(Box<str>),
    /// Only an id that an earlier answer gave out: the resource is the one that call touched.
    FollowUp,
}

/// A piece of a composed id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdPart {
    /// Stands as it is.
    Text(Box<str>),
    /// A name of the path template.
    Name(Box<str>),
}

/// What a call touches and how to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRule {
    /// Such as `sql_warehouse`.
    pub kind: Arc<str>,
    /// Where the id stands.
    pub from: ResourceFrom,
}

/// An id in the path that an earlier answer gave out, and that is bound to whoever got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// Such as `statement`.
    pub kind: Arc<str>,
    /// The name in the path template.
    pub name: Box<str>,
}

/// An id in the answer that later calls will name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creates {
    /// Such as `statement`.
    pub kind: Arc<str>,
    /// The top-level member of the JSON answer.
    pub field: Box<str>,
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
    /// Whether apps can request that scope for users at all (facts 4.2).
    pub user_scope: bool,
    /// What it touches.
    pub resources: Vec<ResourceRule>,
    /// The follow-up id that it names.
    pub follow_up: Option<FollowUp>,
    /// The follow-up id that its answer gives out.
    pub creates: Option<Creates>,
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
        self.resources
            .iter()
            .any(|rule| matches!(rule.from, ResourceFrom::Body(_)))
    }

    /// Whether the answer to this call hands out storage URLs that bypass the sidecar.
    pub fn hands_out_urls(&self, body: Option<&Value>) -> bool {
        let chosen = |(member, harmless): &(Box<str>, Box<str>)| {
            let members = body.and_then(Value::as_object).into_iter().flatten();
            let mut meant = members.filter(|(name, _)| fold(name) == fold(member));
            meant.any(|(_, value)| value.as_str() != Some(&**harmless))
        };
        self.presigned || self.presigned_unless.as_ref().is_some_and(chosen)
    }
}

/// All operations, with an index by method and path.
#[derive(Debug)]
pub struct Catalog {
    version: Box<str>,
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
        let mut operations = Vec::with_capacity(raw.operations.len());
        let mut by_path: HashMap<Method, Trie> = HashMap::new();
        let mut shapes: HashMap<(Method, String), String> = HashMap::new();
        for raw in raw.operations {
            let id = raw.id.clone();
            match raw.check() {
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
        let mut kinds: Vec<&str> = self
            .operations
            .iter()
            .flat_map(|o| &o.resources)
            .map(|rule| &*rule.kind)
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the cases read better without `&`"
    )]
    fn find(method: Method, path: &str) -> Option<String> {
        let catalog = Catalog::built_in().unwrap();
        catalog
            .find(&method, &CanonicalPath::parse(path).unwrap())
            .map(|(_, o)| o.id.to_string())
    }

    #[test]
    fn the_built_in_catalogue_has_no_mistake() {
        let catalog = Catalog::built_in().unwrap_or_else(|p| panic!("{p:#?}"));
        assert!(catalog.operations().len() > 50);
    }

    #[test]
    fn the_first_families_are_found() {
        for (method, path, id) in [
            (
                Method::POST,
                "/api/2.0/sql/statements",
                "sql.statements.execute",
            ),
            (
                Method::POST,
                "/api/2.0/sql/statements/",
                "sql.statements.execute",
            ),
            (
                Method::GET,
                "/api/2.0/sql/statements/01ef-1",
                "sql.statements.get",
            ),
            (
                Method::POST,
                "/serving-endpoints/chat/completions",
                "serving.chat-completions",
            ),
            (
                Method::POST,
                "/serving-endpoints/my-model/invocations",
                "serving.invocations",
            ),
            (
                Method::GET,
                "/api/2.0/vector-search/indexes/a.b.c/query",
                "vector-search.query",
            ),
            (
                Method::PUT,
                "/api/2.0/fs/files/Volumes/a/b/c/d/e%2Ff.txt",
                "files.upload",
            ),
            (Method::GET, "/api/2.0/preview/scim/v2/Me", "identity.me"),
        ] {
            assert_eq!(find(method, path).as_deref(), Some(id), "{path}");
        }
        assert_eq!(find(Method::DELETE, "/api/2.0/sql/statements"), None);
        assert_eq!(
            find(Method::POST, "/api/2.0/token/create").as_deref(),
            Some("tokens.create")
        );
        assert_eq!(find(Method::GET, "/api/2.0/nothing"), None);
    }

    #[test]
    fn families_are_named_by_their_dotted_prefix() {
        let catalog = Catalog::built_in().unwrap();
        assert_eq!(catalog.named("sql.statements.execute").len(), 1);
        assert!(catalog.named("sql.*").len() > 4);
        assert_eq!(catalog.named("*").len(), catalog.operations().len());
        assert!(catalog.named("sq*").is_empty());
        assert!(catalog.named("nothing.*").is_empty());
    }

    #[test]
    fn mistakes_are_told_by_operation() {
        let check = |text: &str, expected: &str| {
            let yaml = format!("version: x\noperations:\n{text}");
            let problems = Catalog::parse(&yaml).map(|_| ()).unwrap_err();
            assert!(
                problems.iter().any(|p| p.to_string().contains(expected)),
                "{problems:?}"
            );
        };
        check(
            "- {id: a, method: GET, path: '/a/{x}', effect: read, scope: s}\n- {id: b, method: GET, path: '/a/{y}', effect: read, scope: s}",
            "path shape of a",
        );
        check(
            "- {id: a, method: GET, path: /a, effect: read, scope: s}\n- {id: a, method: GET, path: /b, effect: read, scope: s}",
            "stands twice",
        );
        check(
            "- {id: a, method: GET, path: '/a', effect: read, scope: s, resource: {type: t, path: '{x}'}}",
            "no {x}",
        );
        check(
            "- {id: a, method: GET, path: '/a', effect: read, scope: s, resource: {type: t}}",
            "exactly one",
        );
        check(
            "- {id: a, method: GET, path: '/a', effect: read, scope: s, colour: red}",
            "colour",
        );
    }
}

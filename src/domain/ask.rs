//! What a request asks for: its operation, the resources it touches, the follow-up id it names.
//!
//! Parsed once, before any decision; a request that could be read in two ways is refused here. Knows no routes. Read
//! `policy.rs` next.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value};

use super::catalog::{IdPart, Operation, ResourceFrom, ResourceRule};
use super::destination::Destination;
use super::identity::UserId;
use super::path::CanonicalPath;
use super::scope::ScopeSet;

/// The longest id of a resource, in bytes.
pub const RESOURCE_ID_BYTES_MAX: usize = 1024;

/// A thing that a call touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource<'a> {
    /// Such as `sql_warehouse`.
    pub kind: &'a str,
    /// Such as `1234abcd`.
    pub id: Cow<'a, str>,
}

/// A resource that outlives its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceId {
    /// Such as `sql_warehouse`.
    pub kind: Arc<str>,
    /// Such as `1234abcd`.
    pub id: Arc<str>,
}

/// Who got a follow-up id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A call with the local app token.
    App,
    /// A call with this user's session token, whichever identity it ran as.
    User(UserId),
}

/// What is known of a follow-up id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Who got it.
    pub owner: Owner,
    /// What the call that gave it out touched.
    pub resource: Option<ResourceId>,
}

/// The follow-up id of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowUpView {
    /// The operation names none.
    None,
    /// Named, and not known here: another replica, or before the last start.
    Unknown,
    /// Known.
    Bound(Bound),
}

/// Who calls, as far as a decision needs to know.
#[derive(Debug, Clone, Copy)]
pub enum CallerView<'a> {
    /// The holder of the local app token.
    App,
    /// The holder of a live session token.
    User {
        /// The verified subject.
        subject: &'a UserId,
        /// The downscoped set.
        scopes: &'a ScopeSet,
    },
}

/// Everything a decision looks at.
#[derive(Debug)]
pub struct Call<'a> {
    /// Exact, upper case.
    pub method: &'a Method,
    /// Where it goes.
    pub destination: &'a Destination,
    /// The path there, in its one reading.
    pub path: &'a CanonicalPath,
    /// The parsed body, where something conditions on it.
    pub body: Option<&'a Value>,
    /// Who calls.
    pub caller: CallerView<'a>,
    /// The catalogue's operation with its number.
    pub operation: Option<(usize, &'a Arc<Operation>)>,
    /// What it touches; none for calls such as lists.
    pub resources: &'a [Resource<'a>],
    /// The follow-up id.
    pub follow_up: &'a FollowUpView,
}

/// Why a request cannot be read in one way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskFault {
    /// A member that decides is missing.
    #[error("the body must have `{0}` as a string at its top level")]
    MemberMissing(Box<str>),
    /// A second spelling of a member that decides.
    #[error("the body has `{0}`, which some readers take for `{1}`")]
    MemberAlias(Box<str>, Box<str>),
    /// A query parameter that decides is missing or stands twice.
    #[error("the query must have `{0}` exactly once")]
    Query(Box<str>),
    /// A query parameter that chooses another workspace.
    #[error("the query chooses another workspace by `{0}`")]
    WorkspaceSelector(Box<str>),
    /// The id is empty, too long, or holds control characters.
    #[error("the id of the {0} is empty, too long, or holds control characters")]
    Id(Box<str>),
}

/// The resources of a request.
///
/// # Errors
/// [`AskFault`] when the place that decides is missing or can be read in two ways.
pub fn resources<'a>(
    operation: &'a Operation,
    path: &'a CanonicalPath,
    query: Option<&str>,
    body: Option<&'a Value>,
    follow_up: &'a FollowUpView,
) -> Result<Vec<Resource<'a>>, AskFault> {
    let mut found = Vec::new();
    for rule in &operation.resources {
        let id = match &rule.from {
            ResourceFrom::Path(parts) => Some(
                compose(operation, parts, path)
                    .ok_or_else(|| AskFault::Id(rule.kind.as_ref().into()))?,
            ),
            ResourceFrom::Body(field) => Some(Cow::Borrowed(body_member(body, field)?)),
            ResourceFrom::Query(name) => Some(Cow::Owned(query_member(query, name)?)),
            ResourceFrom::FollowUp => match follow_up {
                FollowUpView::Bound(Bound {
                    resource: Some(resource),
                    ..
                }) => Some(Cow::Borrowed(&*resource.id)),
                // Not known: only routes that name the operation, not the resource, can match.
                FollowUpView::Bound(_) | FollowUpView::Unknown | FollowUpView::None => None,
            },
        };
        found.extend(id.map(|id| checked(rule, id)).transpose()?);
    }
    Ok(found)
}

/// The follow-up id that a request names.
pub fn follow_up_id<'a>(
    operation: &'a Operation,
    path: &'a CanonicalPath,
) -> Option<(&'a str, Cow<'a, str>)> {
    let follow_up = operation.follow_up.as_ref()?;
    operation
        .path
        .bind(&follow_up.name, path)
        .map(|id| (&*follow_up.kind, id))
}

/// Refuses `o=` and `w=` that name another workspace (facts 9: they choose it on unified hosts).
///
/// # Errors
/// [`AskFault::WorkspaceSelector`].
pub fn check_workspace_selectors(
    query: Option<&str>,
    workspace_id: Option<&str>,
) -> Result<(), AskFault> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    for (name, value) in pairs.filter(|(name, _)| name == "o" || name == "w") {
        if workspace_id.is_none_or(|id| id != value) {
            return Err(AskFault::WorkspaceSelector(name.into()));
        }
    }
    Ok(())
}

fn checked<'a>(rule: &'a ResourceRule, id: Cow<'a, str>) -> Result<Resource<'a>, AskFault> {
    if id.is_empty() || id.len() > RESOURCE_ID_BYTES_MAX || id.chars().any(char::is_control) {
        return Err(AskFault::Id(rule.kind.as_ref().into()));
    }
    Ok(Resource {
        kind: &rule.kind,
        id,
    })
}

fn compose<'a>(
    operation: &'a Operation,
    parts: &'a [IdPart],
    path: &'a CanonicalPath,
) -> Option<Cow<'a, str>> {
    if let [IdPart::Name(name)] = parts {
        return operation.path.bind(name, path);
    }
    let mut id = String::new();
    for part in parts {
        match part {
            IdPart::Text(text) => id.push_str(text),
            IdPart::Name(name) => {
                let value = operation.path.bind(name, path)?;
                // A dot inside a name would let `a.b` + `c` pass for `a` + `b.c`.
                if value.contains('.') {
                    return None;
                }
                id.push_str(&value);
            }
        }
    }
    Some(Cow::Owned(id))
}

/// Refuses a second spelling of a member that raw routes have conditions on: a route that does not see it would not match,
/// and the next one would decide (SECURITY R22).
///
/// # Errors
/// [`AskFault::MemberAlias`].
pub fn check_members<'f>(
    body: Option<&Value>,
    fields: impl IntoIterator<Item = &'f str>,
) -> Result<(), AskFault> {
    let Some(members) = body.and_then(Value::as_object) else {
        return Ok(());
    };
    fields
        .into_iter()
        .try_for_each(|field| check_alias(members, field))
}

fn check_alias(members: &Map<String, Value>, field: &str) -> Result<(), AskFault> {
    let folded = fold(field);
    let alias = members
        .keys()
        .find(|key| *key != field && fold(key) == folded);
    alias.map_or(Ok(()), |alias| {
        Err(AskFault::MemberAlias(alias.as_str().into(), field.into()))
    })
}

fn body_member<'a>(body: Option<&'a Value>, field: &str) -> Result<&'a str, AskFault> {
    let missing = || AskFault::MemberMissing(field.into());
    let members = body.and_then(Value::as_object).ok_or_else(missing)?;
    check_alias(members, field)?;
    members
        .get(field)
        .and_then(Value::as_str)
        .ok_or_else(missing)
}

/// Lower case without `_` and `-`: what lenient readers take for the same member.
pub fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

fn query_member(query: Option<&str>, name: &str) -> Result<String, AskFault> {
    let mut values = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(only), None) => Ok(only.into_owned()),
        (None, _) | (Some(_), Some(_)) => Err(AskFault::Query(name.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::Catalog;
    use serde_json::json;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the cases read better without `&`"
    )]
    fn ids(
        method: Method,
        target: &str,
        body: Option<Value>,
        follow_up: FollowUpView,
    ) -> Result<Vec<String>, AskFault> {
        let catalog = Catalog::built_in().unwrap();
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(p, q)| (p, Some(q)));
        let path = CanonicalPath::parse(path).unwrap();
        let (_, operation) = catalog.find(&method, &path).unwrap();
        let found = resources(operation, &path, query, body.as_ref(), &follow_up)?;
        Ok(found
            .iter()
            .map(|r| format!("{}/{}", r.kind, r.id))
            .collect())
    }

    #[test]
    fn resources_are_found_in_path_body_query_and_follow_up() {
        let none = FollowUpView::None;
        let statement = || json!({"warehouse_id": "w1", "statement": "select 1"});
        assert_eq!(
            ids(
                Method::POST,
                "/api/2.0/sql/statements",
                Some(statement()),
                none.clone()
            )
            .unwrap(),
            ["sql_warehouse/w1"]
        );
        assert_eq!(
            ids(
                Method::GET,
                "/api/2.0/fs/files/Volumes/a/b/c/d.txt",
                None,
                none.clone()
            )
            .unwrap(),
            ["volume/a.b.c"]
        );
        assert_eq!(
            ids(
                Method::GET,
                "/api/2.0/mlflow/experiments/get?experiment_id=7",
                None,
                none
            )
            .unwrap(),
            ["experiment/7"]
        );
        let bound = Bound {
            owner: Owner::App,
            resource: Some(ResourceId {
                kind: "sql_warehouse".into(),
                id: "w2".into(),
            }),
        };
        assert_eq!(
            ids(
                Method::GET,
                "/api/2.0/sql/statements/s1",
                None,
                FollowUpView::Bound(bound)
            )
            .unwrap(),
            ["sql_warehouse/w2"]
        );
        assert!(
            ids(
                Method::GET,
                "/api/2.0/sql/statements/s1",
                None,
                FollowUpView::Unknown
            )
            .unwrap()
            .is_empty()
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let none = FollowUpView::None;
        let post = |body: Value| {
            ids(
                Method::POST,
                "/api/2.0/sql/statements",
                Some(body),
                none.clone(),
            )
        };
        assert_eq!(
            post(json!({})),
            Err(AskFault::MemberMissing("warehouse_id".into()))
        );
        assert_eq!(
            post(json!([])),
            Err(AskFault::MemberMissing("warehouse_id".into()))
        );
        assert_eq!(
            post(json!({"warehouse_id": 7})),
            Err(AskFault::MemberMissing("warehouse_id".into()))
        );
        assert!(matches!(
            post(json!({"warehouse_id": "a", "warehouseId": "b"})),
            Err(AskFault::MemberAlias(..))
        ));
        assert!(matches!(
            post(json!({"warehouse_id": "a", "WAREHOUSE_ID": "b"})),
            Err(AskFault::MemberAlias(..))
        ));
        assert!(matches!(
            post(json!({"warehouse_id": ""})),
            Err(AskFault::Id(_))
        ));
        assert!(matches!(
            post(json!({"warehouse_id": "a\u{0}"})),
            Err(AskFault::Id(_))
        ));
        let get = |query: &str| {
            ids(
                Method::GET,
                &format!("/api/2.0/mlflow/experiments/get?{query}"),
                None,
                none.clone(),
            )
        };
        assert!(get("experiment_id=1&experiment_id=2").is_err());
        assert!(get("experiment_id=1&experiment%5Fid=2").is_err());
        assert!(
            ids(
                Method::GET,
                "/api/2.0/fs/files/Volumes/a.b/c/d/e",
                None,
                none.clone()
            )
            .is_err()
        );
    }

    #[test]
    fn another_workspace_cannot_be_chosen_by_the_query() {
        assert!(check_workspace_selectors(Some("o=123&x=1"), Some("123")).is_ok());
        assert!(check_workspace_selectors(Some("o=124"), Some("123")).is_err());
        assert!(check_workspace_selectors(Some("%6f=124"), Some("123")).is_err());
        assert!(check_workspace_selectors(Some("o=124"), None).is_err());
        assert!(check_workspace_selectors(None, None).is_ok());
    }
}

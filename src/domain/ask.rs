//! What a request asks for: its operation, the things it touches, the follow-up id it names.
//!
//! Parsed once, before any decision; a request that could be read in two ways is refused here. Knows no routes. `ask/touch.rs`
//! finds what is touched, `ask/value.rs` the values in query, header and body, `mcp.rs` reads JSON-RPC. Read `policy.rs` next.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, Method};
use serde_json::Value;

use super::catalog::Operation;
use super::clock::Timestamp;
use super::destination::Destination;
use super::identity::UserId;
use super::mcp::{McpFault, Message};
use super::path::CanonicalPath;
use super::scope::{Scope, ScopeSet};

pub mod touch;
pub mod value;

/// The longest id of a resource, in bytes.
pub const RESOURCE_ID_BYTES_MAX: usize = 1024;
/// The most things that one call may touch.
pub const TOUCHES_MAX: usize = 256;

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

/// One question that the policy must answer: every touch of a call must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touch<'a> {
    /// What is touched; `None` for calls such as lists.
    pub resource: Option<Resource<'a>>,
    /// Its second name: a managed MCP server over a Genie space is also that space.
    pub also: Option<Resource<'a>>,
    /// The JSON-RPC message, where the call speaks MCP.
    pub message: Option<Message<'a>>,
    /// What it takes besides the operation's scope.
    pub scope: Option<&'a Scope>,
}

impl Touch<'_> {
    /// Nothing in particular.
    pub const NOTHING: Touch<'static> = Touch {
        resource: None,
        also: None,
        message: None,
        scope: None,
    };

    /// Both names of what is touched.
    pub fn names(&self) -> impl Iterator<Item = &Resource<'_>> {
        self.resource.iter().chain(&self.also)
    }
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

/// Whose partition a call names, where the operation has one (memory stores, facts 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// The operation has none.
    None,
    /// The verified user's own; for a call of the app, that of a user whom the app is serving now.
    Own,
    /// Somebody else's, or nobody's that is known here.
    Foreign,
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

/// A request as far as the catalogue looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// In its one reading.
    pub path: &'a CanonicalPath,
    /// Behind the `?`.
    pub query: Option<&'a str>,
    /// As they came, hop-by-hop headers removed.
    pub headers: &'a HeaderMap,
    /// The parsed body, where something conditions on it.
    pub body: Option<&'a Value>,
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
    pub touches: &'a [Touch<'a>],
    /// The follow-up id.
    pub follow_up: &'a FollowUpView,
    /// Whose partition it names.
    pub partition: Partition,
    /// The present moment: an observed policy is enforced from its date on.
    pub now: Timestamp,
}

/// Why a request cannot be read in one way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskFault {
    /// A member that decides is missing, or is neither a text nor a whole number.
    #[error("the body must have `{0}` as a text or a whole number")]
    MemberMissing(Box<str>),
    /// A second spelling of a member that decides.
    #[error("the body has `{0}`, which some readers take for `{1}`")]
    MemberAlias(Box<str>, Box<str>),
    /// A query parameter or header that decides is missing or stands twice.
    #[error("the request must have the {0} exactly once")]
    Once(Box<str>),
    /// A query parameter that chooses another workspace.
    #[error("the query chooses another workspace by `{0}`")]
    WorkspaceSelector(Box<str>),
    /// The id is empty, too long, holds control characters, or has another shape than such ids have.
    #[error("the id of the {0} is empty, too long, of another shape, or holds control characters")]
    Id(Box<str>),
    /// An element of an array whose meaning is not known here.
    #[error(
        "every element of `{0}` must say by `{1}` that it is one of {2}, and hold a member of that name"
    )]
    Variant(Box<str>, Box<str>, Box<str>),
    /// More things than [`TOUCHES_MAX`].
    #[error("one call may touch at most {TOUCHES_MAX} things")]
    TooMany,
    /// JSON-RPC that can be read in two ways.
    #[error("the body is no MCP message with one reading: {0}")]
    Mcp(#[from] McpFault),
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
        .try_for_each(|field| value::check_alias(members, field))
}

/// Whether lenient readers take two names for the same member: equal but for letter case, `_` and `-`.
pub fn is_same_member(a: &str, b: &str) -> bool {
    letters(a).eq(letters(b))
}

fn letters(name: &str) -> impl Iterator<Item = char> {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests;

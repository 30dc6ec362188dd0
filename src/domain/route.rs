//! Routes as they are written, before they are checked against the catalogue and compiled.
//!
//! Data only: `config.rs` fills it, `compile.rs` turns it into a `Policy` or into every mistake at once.

use std::collections::BTreeMap;

use super::catalog::Effect;

/// As whom a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunAs {
    /// The app's service principal.
    App,
    /// The session's user; refused without a live session.
    User,
    /// Whichever identity the agent presented.
    Caller,
    /// Nobody: the call is refused.
    Deny,
}

impl RunAs {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::User => "user",
            Self::Caller => "caller",
            Self::Deny => "deny",
        }
    }

    /// Reads the word in the configuration.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::App, Self::User, Self::Caller, Self::Deny]
            .into_iter()
            .find(|r| r.as_str() == word)
    }
}

/// One entry of `routes`, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSource {
    /// Unique name, for logs, metrics and denials.
    pub name: String,
    /// Line of the entry in its file, from 1; 0 for built-in routes.
    pub line: usize,
    /// `type/id`, such as `sql_warehouse/1234abcd`; the id may end in `*`.
    pub resource: Option<String>,
    /// An operation of the catalogue, or a family such as `mlflow.*`.
    pub operation: Option<String>,
    /// Methods of a raw route (upper case); empty = any.
    pub methods: Vec<String>,
    /// Path template of a raw route: `{name}` = one segment, `**` = the rest.
    pub path: Option<String>,
    /// Top-level JSON keys of the body with their allowed values (raw routes).
    pub body: BTreeMap<String, Vec<String>>,
    /// The MCP tools that may be called; empty = any (routes on an MCP server or another app).
    pub tools: Vec<String>,
    /// The most that a matching call may do; `None` = all but what operations of admin effect do.
    pub effect: Option<Effect>,
    /// As whom a matching call runs.
    pub run_as: RunAs,
    /// The scope a user call needs, where the catalogue does not say or says something else.
    pub scope: Option<String>,
}

/// Where the policy in force came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyOrigin {
    /// The routes of the configuration file.
    Routes,
    /// What the bundle declares; the file has no routes of its own.
    Bundle,
    /// Neither `routes` nor `bundle`: the built-in starter policy (PRODUCT 4).
    Starter,
}

impl PolicyOrigin {
    /// The word in audit records and in `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::Bundle => "bundle",
            Self::Starter => "starter",
        }
    }
}

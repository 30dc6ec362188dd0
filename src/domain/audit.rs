//! One audit record: what happened, on whose behalf, as whom, decided how (PRODUCT 7).
//!
//! Data only, cheap to fill on the hot path. Must not know files, queues or clocks; no field can hold a token, a query
//! string or a body. Read `audit/chain.rs` (how a record becomes a line) and `audit/verify.rs` (how lines are proven) next.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::identity::{ClientId, UserEmail, UserId};
use super::token::VerifiedToken;

pub mod chain;
pub mod checkpoint;
mod json;
pub mod line;
pub mod ocsf;
pub mod verify;

/// What a record tells of: a closed list. New events are added at the end and never change their word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A call is about to be given a credential and forwarded.
    Intent,
    /// A call that had an intent ended, well or badly.
    Outcome,
    /// A call was refused.
    Denial,
    /// A user token was refused.
    TokenRejected,
    /// A session was opened for a verified user.
    SessionOpened,
    /// A session ended.
    SessionClosed,
    /// A policy is in force.
    PolicyLoaded,
    /// A policy could not be loaded; the last good one stays.
    PolicyRefused,
    /// The sidecar started.
    Start,
    /// The sidecar stopped in good order.
    Stop,
    /// The log says of itself that something is missing or was repaired; `reason` and `lost` say what.
    Gap,
    /// A signature over everything before it.
    Checkpoint,
}

impl Event {
    /// All events, in the order of declaration.
    pub const ALL: [Self; 12] = [
        Self::Intent,
        Self::Outcome,
        Self::Denial,
        Self::TokenRejected,
        Self::SessionOpened,
        Self::SessionClosed,
        Self::PolicyLoaded,
        Self::PolicyRefused,
        Self::Start,
        Self::Stop,
        Self::Gap,
        Self::Checkpoint,
    ];

    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Denial => "denial",
            Self::TokenRejected => "token_rejected",
            Self::SessionOpened => "session_opened",
            Self::SessionClosed => "session_closed",
            Self::PolicyLoaded => "policy_loaded",
            Self::PolicyRefused => "policy_refused",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Gap => "gap",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// Reads the word in the record.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }
}

/// As which identity a call ran or would have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The app's service principal.
    App,
    /// The user of the session.
    User,
    /// Nobody: refused before an identity was chosen.
    None,
}

impl Identity {
    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::User => "user",
            Self::None => "none",
        }
    }
}

/// What the policy said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The call may run.
    Allow,
    /// The call was refused.
    Deny,
    /// The call would have been refused, and went out because the policy is merely observed.
    WouldDeny,
}

impl Decision {
    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::WouldDeny => "would_deny",
        }
    }
}

/// A text that costs at most one reference count to put into a record.
#[derive(Clone, PartialEq, Eq)]
pub enum Text {
    /// A word of the program.
    Fixed(&'static str),
    /// A text that others hold too, such as the name of a route.
    Shared(Arc<str>),
}

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Fixed(text)
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Shared(text.into())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// On whose behalf. Made once per session and shared by its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The `sub` claim of the verified token: the key of the user's own chain.
    pub sub: UserId,
    /// The e-mail address, if any is known.
    pub email: Option<UserEmail>,
    /// Whether the e-mail address comes from the verified token rather than from the front door's word.
    pub verified: bool,
    /// The OAuth client the token was issued to.
    pub client_id: Option<ClientId>,
    /// The token's `jti` or a digest of the token: correlates, never authenticates.
    pub token_id: Option<Text>,
}

impl User {
    /// The user behind a verified token.
    pub fn of(token: &VerifiedToken) -> Self {
        Self {
            sub: token.subject().clone(),
            email: token.email().cloned(),
            verified: true,
            client_id: token.client_id().cloned(),
            token_id: Some(token.token_id().to_owned().into()),
        }
    }
}

/// The thing a call touches, or an id that ties calls together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Such as `sql_warehouse`.
    pub kind: Text,
    /// Such as `1234abcd`.
    pub id: Text,
}

/// The JSON-RPC view of an MCP call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcp {
    /// Such as `tools/call`.
    pub method: Text,
    /// The tool, where the method names one.
    pub tool: Option<Text>,
}

/// One record, before it is sealed. Absent fields do not appear in the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What happened.
    pub event: Event,
    /// Ties the outcome of a call to its intent.
    pub call: Option<Uuid>,
    /// The id in the peer's answer and in the log.
    pub request_id: Option<Text>,
    /// The W3C trace, if the caller is in one.
    pub trace_id: Option<Text>,
    /// Names the session; is not its token and cannot be turned into it.
    pub session: Option<Text>,
    /// On whose behalf, also where the call runs as the app.
    pub user: Option<Arc<User>>,
    /// As whom.
    pub identity: Option<Identity>,
    /// The route that decided.
    pub route: Option<Text>,
    /// The operation of the catalogue.
    pub operation: Option<Text>,
    /// The thing touched.
    pub resource: Option<Resource>,
    /// The id that an answer gave out, or that this call names: a statement, a conversation.
    pub follow_up: Option<Resource>,
    /// The HTTP method.
    pub method: Option<Text>,
    /// The path; sealing cuts it at `?` and `#`, so that a query cannot slip in.
    pub path: Option<Text>,
    /// The MCP call inside, if it is one.
    pub mcp: Option<Mcp>,
    /// What the policy said.
    pub decision: Option<Decision>,
    /// Why: a word of a documented list.
    pub reason: Option<Text>,
    /// The HTTP status that the peer got.
    pub status: Option<u16>,
    /// The workspace's own id of the request.
    pub upstream_request_id: Option<Text>,
    /// Body bytes sent to the workspace.
    pub bytes_sent: Option<u64>,
    /// Body bytes received from the workspace.
    pub bytes_received: Option<u64>,
    /// From the head of the request to the end of the answer.
    pub duration_ms: Option<u64>,
    /// Only in a gap: how many records are known to be missing.
    pub lost: Option<u64>,
    /// Only in a checkpoint: what is signed.
    pub checkpoint: Option<Box<checkpoint::Checkpoint>>,
}

impl Record {
    /// A record with nothing but its event.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            call: None,
            request_id: None,
            trace_id: None,
            session: None,
            user: None,
            identity: None,
            route: None,
            operation: None,
            resource: None,
            follow_up: None,
            method: None,
            path: None,
            mcp: None,
            decision: None,
            reason: None,
            status: None,
            upstream_request_id: None,
            bytes_sent: None,
            bytes_received: None,
            duration_ms: None,
            lost: None,
            checkpoint: None,
        }
    }

    /// A gap with its reason and, where it is known, the number of missing records.
    pub fn gap(reason: &'static str, lost: Option<u64>) -> Self {
        let mut record = Self::new(Event::Gap);
        record.reason = Some(Text::Fixed(reason));
        record.lost = lost;
        record
    }
}

#[cfg(test)]
mod tests;

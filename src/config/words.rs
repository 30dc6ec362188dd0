//! The words a key may hold, where there is a closed set of them.
//!
//! Serde's variant names are the words of the file and of the schema. Read `values.rs` next.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::domain::catalog::Effect;
use crate::domain::route::RunAs;

/// Whether a call to the agent needs a user token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UserMode {
    /// No valid token, no entry.
    Required,
    /// A call without a token passes as nobody; an invalid one is refused.
    Optional,
    /// Tokens are not asked for; an invalid one is refused all the same.
    None,
}

/// What a session token looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionFormat {
    /// `vks_` and 256 random bits.
    Opaque,
    /// A signed JWT, for agents that read claims.
    Jwt,
}

/// Whether the user token is swapped before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Exchange {
    /// The user token goes to the workspace as it is.
    None,
    /// It is swapped at the token endpoint for one with just the scopes of the session.
    Rfc8693,
}

/// What the app's token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AppScopes {
    /// The scopes of the matched route only.
    PerRoute,
    /// Everything the service principal may do.
    AllApis,
}

/// What happens to calls that hand out storage addresses which bypass the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Presigned {
    /// They are refused.
    Refuse,
    /// They pass.
    Allow,
}

/// What happens to a call whose audit record cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It is refused.
    Refuse,
    /// It passes, and a metric counts it.
    Continue,
}

/// When the audit file is flushed to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditSync {
    /// Before a call leaves, many at once; anything else within 20 ms.
    Record,
    /// About once in a second.
    Interval,
    /// When the system likes.
    None,
}

/// In which form audit records go to the standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditFormat {
    /// As they are in the file.
    Json,
    /// OCSF API Activity events.
    Ocsf,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object in a line.
    Json,
    /// For people.
    Text,
}

/// Whether denials are real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// What no route allows is refused.
    Enforce,
    /// Would-be denials pass and are recorded as such.
    Observe,
}

/// The most that a route lets a call do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EffectWord {
    /// Looking only.
    Read,
    /// Looking, changing and running.
    Write,
}

impl From<EffectWord> for Effect {
    fn from(word: EffectWord) -> Self {
        match word {
            EffectWord::Read => Self::Read,
            EffectWord::Write => Self::Write,
        }
    }
}

/// Whose calls a limit counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitPer {
    /// Each user's own.
    User,
    /// Everybody's.
    Route,
}

/// `off` or `on`; YAML readers that know the older words may turn them into `false` and `true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// Not done.
    #[serde(alias = "false")]
    Off,
    /// Done.
    #[serde(alias = "true")]
    On,
}

impl JsonSchema for Switch {
    fn schema_name() -> Cow<'static, str> {
        "Switch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["off", "on", false, true] })
    }
}

/// Whether the child of `run` is kept from connecting around the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfineMode {
    /// It may connect to anything.
    #[serde(alias = "false")]
    Off,
    /// It is confined where the system can; where it cannot, the log and `/status` say so.
    BestEffort,
    /// It is confined, or not started.
    Required,
}

impl JsonSchema for ConfineMode {
    fn schema_name() -> Cow<'static, str> {
        "ConfineMode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["off", "best-effort", "required", false] })
    }
}

/// As whom a call runs, as a word of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AsWord {
    /// The app's service principal.
    App,
    /// The session's user; refused without a live session.
    User,
    /// Whichever identity the agent presented.
    Caller,
    /// Nobody: the call is refused.
    Deny,
}

impl From<AsWord> for RunAs {
    fn from(word: AsWord) -> Self {
        match word {
            AsWord::App => Self::App,
            AsWord::User => Self::User,
            AsWord::Caller => Self::Caller,
            AsWord::Deny => Self::Deny,
        }
    }
}

/// Signature algorithms with a public key; a shared key could be forged by whoever verifies with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the registered names say it all")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::RS256 => Self::RS256,
            Algorithm::RS384 => Self::RS384,
            Algorithm::RS512 => Self::RS512,
            Algorithm::PS256 => Self::PS256,
            Algorithm::PS384 => Self::PS384,
            Algorithm::PS512 => Self::PS512,
            Algorithm::ES256 => Self::ES256,
            Algorithm::ES384 => Self::ES384,
            Algorithm::EdDSA => Self::EdDSA,
        }
    }
}

//! Why no token came, and who has to act.
//!
//! Holds no body, no token and no `error_description`: an endpoint may repeat the secret in any of them, so every text in
//! here is ours, one word of a closed list, or a failed connection's reason. Knows nothing of answers. Read `token_answer.rs` next.

use std::borrow::Cow;
use std::time::Duration;

use super::http_client::SendFault;
use super::single_flight::Failure;

/// The longest `Retry-After` that is honoured: an endpoint that asks for a day would otherwise switch the app off.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// A failed request for a token. Each variant asks somebody else to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointFault {
    /// The app's own credential, or what it asked for, was refused: the operator must act.
    #[error(
        "the token endpoint refused the app ({error}): check app.client_id, app.client_secret and the scopes that the routes ask for"
    )]
    Refused {
        /// A word of [`KNOWN_ERRORS`], or one of our own.
        error: &'static str,
    },
    /// The user's token was not accepted for an exchange: that user must sign in anew.
    #[error(
        "the token endpoint refused the user's token ({error}): the user signs in again, or an administrator allows the exchange"
    )]
    SubjectRefused {
        /// A word of [`KNOWN_ERRORS`], or one of our own.
        error: &'static str,
    },
    /// The endpoint asked for a pause: wait.
    #[error("the token endpoint is busy{}: it is asked again by itself", pause(*.retry_after))]
    Busy {
        /// The pause it named, already capped to [`RETRY_AFTER_MAX`].
        retry_after: Option<Duration>,
    },
    /// No usable connection, or a failure inside the endpoint: look at the network or wait.
    #[error("the token endpoint cannot be used: {cause}; check workspace.host and the network")]
    Unreachable {
        /// Our own words, at most with a status number or the reason of a failed connection.
        cause: Cow<'static, str>,
    },
    /// No whole answer in time.
    #[error("the token endpoint gave no whole answer within {limit:?}; check the network")]
    Timeout {
        /// The limit that ran out.
        limit: Duration,
    },
    /// An answer that is no token answer: something else stands at this address.
    #[error("the token endpoint's answer is not usable: {what}; check workspace.token_endpoint")]
    Invalid {
        /// Our own words, at most with a status number.
        what: Cow<'static, str>,
    },
    /// There is no app credential to ask with.
    #[error(
        "no app credential is configured: set DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or app.client_id and app.client_secret"
    )]
    NotConfigured,
}

impl EndpointFault {
    /// The label for metrics and logs: a closed list.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::SubjectRefused { .. } => "subject_refused",
            Self::Busy { .. } => "busy",
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout { .. } => "timeout",
            Self::Invalid { .. } => "invalid",
            Self::NotConfigured => "not_configured",
        }
    }

    /// Whether nobody but the operator can end this: a wrong secret, a missing credential. `/readyz` says so.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::NotConfigured => true,
            Self::SubjectRefused { .. }
            | Self::Busy { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Invalid { .. } => false,
        }
    }

    /// The pause the endpoint asked for, where it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } => *retry_after,
            Self::Refused { .. }
            | Self::SubjectRefused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Invalid { .. }
            | Self::NotConfigured => None,
        }
    }

    /// The same as a failure of a flight, so that the endpoint's wish replaces the growing back-off.
    pub fn into_failure(self) -> Failure<Self> {
        Failure {
            retry_after: self.retry_after(),
            error: self,
        }
    }

    pub(crate) fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// The address could not be discovered; `why` is the discovery's own text.
    pub(crate) fn unknown_address(why: &str) -> Self {
        Self::unreachable(format!("its address is unknown ({})", printable(why)))
    }

    pub(crate) fn unreachable(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::Unreachable {
            cause: cause.into(),
        }
    }
}

impl From<SendFault> for EndpointFault {
    fn from(fault: SendFault) -> Self {
        match fault {
            // Nothing of ours was written yet, and the cause (refused, name, certificate) tells what to mend.
            SendFault::Connect(cause) => Self::unreachable(format!(
                "no connection ({})",
                printable(&innermost(&*cause))
            )),
            SendFault::Timeout(limit) => Self::Timeout { limit },
            SendFault::Broken(_) => Self::unreachable("the connection broke"),
        }
    }
}

/// Every error word that is repeated to a log: RFC 6749 5.2, RFC 8693 2.2.2 and what authorization servers add. A word
/// outside this list could be anything, the secret included, and is reported as `other`.
pub const KNOWN_ERRORS: &[&str] = &[
    "invalid_client",
    "unauthorized_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "access_denied",
    "unsupported_grant_type",
    "unsupported_token_type",
    "temporarily_unavailable",
    "server_error",
    "slow_down",
];

/// The listed word that equals `text` but for case.
pub(crate) fn known_error(text: &str) -> Option<&'static str> {
    KNOWN_ERRORS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(text))
        .copied()
}

fn innermost(fault: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = fault;
    // Bounded: a chain of errors that contains itself would be a library's defect, not a reason to hang.
    for _ in 0..16 {
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => break,
        }
    }
    cause.to_string()
}

/// At most 120 plain characters of a text that another module or library wrote.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(120)
        .collect()
}

fn pause(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |pause| {
        format!(" and asked for {} s of rest", pause.as_secs_f64().ceil())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_words_of_an_endpoint_are_repeated() {
        assert_eq!(known_error("Invalid_Client"), Some("invalid_client"));
        for foreign in ["", "dose0123456789abcdef", "invalid_client ", "hunter2"] {
            assert_eq!(known_error(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn every_text_names_a_remedy_or_says_that_none_is_needed() {
        let busy = EndpointFault::Busy {
            retry_after: Some(Duration::from_millis(1500)),
        };
        assert_eq!(
            busy.to_string(),
            "the token endpoint is busy and asked for 2 s of rest: it is asked again by itself"
        );
        assert_eq!(
            busy.into_failure().retry_after,
            Some(Duration::from_millis(1500))
        );
        assert!(
            EndpointFault::NotConfigured
                .to_string()
                .contains("DATABRICKS_CLIENT_SECRET")
        );
    }
}

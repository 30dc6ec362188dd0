//! Where the developer's token comes from: the Databricks CLI, a variable, or the embedded workspace.
//!
//! What works is a JWT that the workspace's published keys verify: OAuth tokens of users are. A personal access token, and any other
//! opaque one, cannot be verified by anybody but the workspace, and is refused with these words instead of being passed unverified.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::domain::clock::{Clock, SignedDuration};
use crate::domain::secret::Secret;
use crate::embedded::workspace::Workspace;

use super::claims::{self, Claims};
use super::databricks_cli::DatabricksCli;

/// A token is asked for anew when less than this is left of it: an agent's request may take a while.
const LEFT_MIN: SignedDuration = SignedDuration::from_mins(5);
/// How long the embedded workspace's tokens live, as the platform's do.
const EMBEDDED_LIFE: Duration = Duration::from_secs(3600);

/// A token, and what it says of itself.
#[derive(Debug, Clone)]
pub struct DevToken {
    /// As it goes into the header.
    pub raw: Arc<Secret>,
    /// Unverified.
    pub claims: Claims,
}

/// Gives tokens, each for as long as it is good.
pub struct Source {
    origin: Origin,
    clock: Arc<dyn Clock>,
    /// One caller asks, the others wait for it.
    last: Mutex<Option<DevToken>>,
}

/// The three places.
pub enum Origin {
    /// `databricks auth token`.
    Cli(DatabricksCli),
    /// What `DATABRICKS_TOKEN` held at the start.
    Variable(Arc<Secret>),
    /// A user of the embedded workspace, which lives as long as this.
    Embedded {
        /// It mints the tokens.
        workspace: Box<Workspace>,
        /// Whose.
        email: String,
        /// In the wire form.
        scopes: String,
    },
}

impl Source {
    /// Nothing is asked yet.
    pub fn new(origin: Origin, clock: Arc<dyn Clock>) -> Self {
        Self {
            origin,
            clock,
            last: Mutex::new(None),
        }
    }

    /// Where it comes from, as people are told.
    pub fn describe(&self) -> String {
        match &self.origin {
            Origin::Cli(cli) => format!("`{}`", cli.line("token")),
            Origin::Variable(_) => "DATABRICKS_TOKEN".to_owned(),
            Origin::Embedded {
                workspace, email, ..
            } => {
                format!("{email} of the embedded workspace at {}", workspace.url())
            }
        }
    }

    /// What the embedded user's tokens carry; the others' carry what they carry.
    pub fn set_scopes(&mut self, wanted: String) {
        if let Origin::Embedded { scopes, .. } = &mut self.origin {
            *scopes = wanted;
        }
    }

    /// A token that is good for a while.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    pub async fn token(&self) -> Result<DevToken, String> {
        let mut last = self.last.lock().await;
        if let Some(token) = last.as_ref().filter(|token| self.lasts(token)) {
            return Ok(token.clone());
        }
        let raw = match &self.origin {
            Origin::Cli(cli) => Secret::new(cli.token().await?),
            Origin::Variable(token) => Secret::new(token.expose().to_owned()),
            Origin::Embedded {
                workspace,
                email,
                scopes,
            } => {
                let token = workspace.user_token(email, scopes, EMBEDDED_LIFE);
                Secret::new(token.map_err(|fault| fault.to_string())?)
            }
        };
        let token = self.judged(raw)?;
        *last = Some(token.clone());
        Ok(token)
    }

    fn lasts(&self, token: &DevToken) -> bool {
        let soon = self.clock.now().checked_add(LEFT_MIN).ok();
        token
            .claims
            .expires
            .zip(soon)
            .is_some_and(|(expires, soon)| soon < expires)
    }

    fn judged(&self, raw: Secret) -> Result<DevToken, String> {
        let from = self.describe();
        let Some(claims) = claims::read(raw.expose()) else {
            let kind = if raw.expose().starts_with("dapi") {
                "a personal access token"
            } else {
                "no JWT"
            };
            return Err(format!(
                "the token of {from} is {kind}, which only the workspace itself can verify; the front door forwards OAuth tokens: \
                 log in with `databricks auth login --host https://YOUR-WORKSPACE` and unset DATABRICKS_TOKEN, or use --as"
            ));
        };
        if claims
            .expires
            .is_some_and(|expires| expires <= self.clock.now())
        {
            return Err(format!(
                "the token of {from} has expired: get a new one and start again"
            ));
        }
        Ok(DevToken {
            raw: Arc::new(raw),
            claims,
        })
    }
}

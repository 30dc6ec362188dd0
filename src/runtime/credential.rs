//! From a grant and a caller to the real credential. The only maker of a [`Credential`].
//!
//! Knows neither requests nor headers beyond the value it makes. App tokens and exchanged tokens are cached in `app_tokens.rs`
//! and `exchanged_tokens.rs`; a user token is used as it is.

use std::sync::Arc;

use http::HeaderValue;

use crate::domain::destination::Destination;
use crate::domain::policy::{Grant, Identity};
use crate::domain::scope::ScopeSet;

use super::access_token::AccessToken;
use super::app_tokens::AppTokens;
use super::endpoint_fault::EndpointFault;
use super::exchanged_tokens::{ExchangedTokens, Subject};
use super::session::{Caller, Session};

/// A real credential, ready to be attached. No `Clone`, no way in but [`CredentialSource::resolve`].
#[derive(Debug)]
pub struct Credential {
    header: HeaderValue,
    /// The one place it may be sent to: where the grant allows the call to go.
    destination: Destination,
    /// What to forget if the workspace refuses it.
    replaceable: Option<(ScopeSet, Arc<AccessToken>)>,
    scopes: ScopeSet,
}

impl Credential {
    /// `Bearer …`, marked as sensitive.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The one place it may be sent to.
    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// What the token is good for, as far as its issuer said.
    pub fn scopes(&self) -> &ScopeSet {
        &self.scopes
    }
}

/// Why there is no credential.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialFault {
    /// The app's token could not be had.
    #[error("no token for the app: {0}")]
    App(#[source] EndpointFault),
    /// The user's token could not be exchanged.
    #[error("no token for the user: {0}")]
    Exchange(#[source] EndpointFault),
    /// The grant is for the user and the caller is the app: a fault of this program, refused.
    #[error("the grant names the user but no session was presented")]
    NoSession,
    /// The token cannot stand in a header.
    #[error("the token holds characters that cannot stand in a header")]
    Header,
}

/// Where credentials come from.
pub struct CredentialSource {
    app: AppTokens,
    exchange: Option<ExchangedTokens>,
}

impl CredentialSource {
    /// `exchange` is set with `users.exchange: rfc8693`.
    pub fn new(app: AppTokens, exchange: Option<ExchangedTokens>) -> Self {
        Self { app, exchange }
    }

    /// How the app's credential fares.
    pub fn app(&self) -> &AppTokens {
        &self.app
    }

    /// The credential of a granted call.
    ///
    /// # Errors
    /// [`CredentialFault`]; there is never another identity instead.
    pub async fn resolve(
        &self,
        grant: &Grant,
        caller: &Caller,
    ) -> Result<Credential, CredentialFault> {
        match (grant.identity(), caller) {
            (Identity::App, Caller::App | Caller::User(_)) => {
                let scopes = needed(grant);
                let token = self
                    .app
                    .token(&scopes)
                    .await
                    .map_err(CredentialFault::App)?;
                Ok(Credential {
                    header: token.header().clone(),
                    destination: grant.destination().clone(),
                    scopes: token.scopes().clone(),
                    replaceable: Some((scopes, token)),
                })
            }
            (Identity::User, Caller::User(session)) => {
                let (header, scopes) = self.user(session, grant).await?;
                Ok(Credential {
                    header,
                    destination: grant.destination().clone(),
                    replaceable: None,
                    scopes,
                })
            }
            (Identity::User, Caller::App) => Err(CredentialFault::NoSession),
        }
    }

    /// Forgets a credential that the workspace refused; whether another one may be tried.
    pub fn refused(&self, credential: &Credential) -> bool {
        let Some((scopes, token)) = &credential.replaceable else {
            return false;
        };
        self.app.invalidate(scopes, token)
    }

    async fn user(
        &self,
        session: &Session,
        grant: &Grant,
    ) -> Result<(HeaderValue, ScopeSet), CredentialFault> {
        let token = session.token();
        if let Some(exchange) = &self.exchange {
            let subject = Subject {
                digest: token.digest(),
                token: token.secret(),
                expires: token.expires(),
            };
            let scopes = grant.scopes().unwrap_or_else(|| session.scopes());
            let exchanged = exchange
                .token(subject, &scopes)
                .await
                .map_err(CredentialFault::Exchange)?;
            return Ok((exchanged.header().clone(), exchanged.scopes().clone()));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {}", token.secret().expose()))
            .map_err(|_| CredentialFault::Header)?;
        header.set_sensitive(true);
        Ok((header, token.scopes().clone()))
    }
}

/// What to ask the token endpoint for: just what the call needs, or everything where nobody knows.
fn needed(grant: &Grant) -> ScopeSet {
    grant
        .scopes()
        .unwrap_or_else(|| ScopeSet::parse(["all-apis"]))
}

//! A granted call on its way to the workspace or to an upstream: resolve, attach, send, and at most one retry.
//!
//! Knows no policy: a grant and a receipt are its proof. `outbound.rs` is the story it is part of.

use http::{Response, StatusCode};

use crate::domain::destination::Destination;
use crate::domain::missing::Missing;
use crate::domain::platform_refusal::Said;
use crate::domain::policy::Grant;
use crate::domain::scope::ScopeSet;
use crate::runtime::audit_writer::Receipt;
use crate::runtime::credential::Credential;
use crate::runtime::http_client::{Body, SendFault, empty};
use crate::runtime::session::Caller;
use crate::runtime::upstream::{self, AuthorizedRequest, OutboundParts};

use super::Proxy;
use super::body::{self, BodyFault, Outgoing};
use super::error::ProxyError;
use super::record::RequestRecord;
use super::refusal::{self, Asked};

/// A failure, with the receipt of the call if its intent was written.
pub struct Failed {
    /// What to answer.
    pub error: ProxyError,
    /// For the outcome.
    pub receipt: Option<Receipt>,
}

impl<E: Into<ProxyError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            receipt: None,
        }
    }
}

/// A granted call on its way: at most two attempts, the second only with a fresh app token and nothing streamed.
pub struct Sending<'a> {
    /// For the doors and the credentials.
    pub proxy: &'a Proxy,
    /// The proof that it may be made.
    pub grant: &'a Grant,
    /// Whose token to use where it runs as the user.
    pub caller: &'a Caller,
    /// What the app declares for its users, where the configuration says so.
    pub declared: Option<&'a ScopeSet>,
    /// What leaves, but for the credential.
    pub parts: OutboundParts<'a>,
}

/// What came back.
pub struct Sent {
    /// As the far side gave it.
    pub response: Response<Body>,
    /// For the outcome.
    pub receipt: Receipt,
    /// What the call lacks, where the workspace refused it.
    pub missing: Option<Missing>,
}

impl Sending<'_> {
    /// Sends it, and once more with a fresh app token where the far side refused the token itself (facts 3.2).
    ///
    /// # Errors
    /// [`Failed`], with the receipt.
    pub async fn send(
        &self,
        outgoing: &mut Outgoing,
        receipt: Receipt,
        record: &mut RequestRecord,
    ) -> Result<Sent, Failed> {
        let (first, mut credential, mut receipt) = self.attempt(outgoing, receipt, record).await?;
        let (mut response, mut said) = record.waiting(refusal::hear(first)).await;
        let retry = said == Said::Token
            && self.proxy.credentials.refused(&credential)
            && outgoing.is_repeatable();
        if retry {
            tracing::info!(request_id = %record.request_id(), "the far side refused the app's token: replaced it, trying once more");
            let second;
            (second, credential, receipt) = self.attempt(outgoing, receipt, record).await?;
            (response, said) = record.waiting(refusal::hear(second)).await;
        }
        let asked = Asked {
            grant: self.grant,
            caller: self.caller,
            credential: &credential,
            declared: self.declared,
        };
        // The planes of scopes and grants are the workspace's; what another app refuses is its own affair.
        let missing = match self.grant.destination() {
            Destination::Workspace => asked.missing(&said, &self.proxy.verifier),
            Destination::Upstream(_) => None,
        };
        Ok(Sent {
            missing,
            response,
            receipt,
        })
    }

    async fn attempt(
        &self,
        outgoing: &mut Outgoing,
        receipt: Receipt,
        record: &mut RequestRecord,
    ) -> Result<(Response<Body>, Credential, Receipt), Failed> {
        let credential = match record
            .waiting(self.proxy.credentials.resolve(self.grant, self.caller))
            .await
        {
            Ok(credential) => credential,
            Err(fault) => {
                return Err(Failed {
                    error: fault.into(),
                    receipt: Some(receipt),
                });
            }
        };
        let body = outgoing.take(record.sent()).unwrap_or_else(empty);
        let internal = |receipt| Failed {
            error: ProxyError::Internal("a canonical path gave no URI, or an upstream has no door"),
            receipt: Some(receipt),
        };
        let request = AuthorizedRequest::new(
            &self.proxy.doors,
            self.parts.clone(),
            body,
            &credential,
            receipt,
        )
        .map_err(internal)?;
        match record.waiting(upstream::forward(request)).await {
            // No upgrade ever leaves, so none may come back (SECURITY R14).
            (receipt, Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let cause = "the far side switched protocols unasked";
                Err(Failed {
                    error: self.no_answer(SendFault::Broken(cause.into())),
                    receipt: Some(receipt),
                })
            }
            (receipt, Ok(response)) => Ok((response, credential, receipt)),
            (receipt, Err(fault)) => {
                let senders = body::is_senders_doing(&fault);
                let error = if senders {
                    BodyFault::Broken.into()
                } else {
                    self.no_answer(fault)
                };
                Err(Failed {
                    error,
                    receipt: Some(receipt),
                })
            }
        }
    }

    /// Whose fault it is that nobody answered.
    fn no_answer(&self, fault: SendFault) -> ProxyError {
        match self.grant.destination() {
            Destination::Workspace => ProxyError::Workspace(fault),
            Destination::Upstream(_) => ProxyError::Upstream(fault),
        }
    }
}

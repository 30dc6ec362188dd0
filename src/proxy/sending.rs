//! A granted call on its way to the workspace or to an upstream: resolve, attach, send, and at most one retry.
//!
//! Knows no policy: a grant and a receipt are its proof. `outbound.rs` is the story it is part of.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::domain::destination::Destination;
use crate::domain::policy::Grant;
use crate::runtime::audit_writer::Receipt;
use crate::runtime::credential::Credential;
use crate::runtime::http_client::{Body, SendFault, empty, full, read_limited};
use crate::runtime::session::Caller;
use crate::runtime::upstream::{self, AuthorizedRequest, OutboundParts};

use super::Proxy;
use super::body::{self, BodyFault, Outgoing};
use super::error::ProxyError;
use super::record::RequestRecord;

/// The largest error answer that is read to see whether the far side refused the token itself, in bytes.
const REFUSAL_BYTES_MAX: u64 = 16 * 1024;

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
    /// What leaves, but for the credential.
    pub parts: OutboundParts<'a>,
}

impl Sending<'_> {
    /// Sends it, and once more with a fresh app token where the far side refused the token itself.
    ///
    /// # Errors
    /// [`Failed`], with the receipt.
    pub async fn send(
        &self,
        outgoing: &mut Outgoing,
        receipt: Receipt,
        record: &mut RequestRecord,
    ) -> Result<(Response<Body>, Receipt), Failed> {
        let (first, credential, receipt) = self.attempt(outgoing, receipt, record).await?;
        let (response, refused) = record.waiting(is_token_refused(first)).await;
        let retry =
            refused && self.proxy.credentials.refused(&credential) && outgoing.is_repeatable();
        if !retry {
            return Ok((response, receipt));
        }
        tracing::info!(request_id = %record.request_id(), "the far side refused the app's token: replaced it, trying once more");
        let (response, _, receipt) = self.attempt(outgoing, receipt, record).await?;
        Ok((response, receipt))
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

/// Whether the far side refused the token itself, rather than what was asked with it (facts 3.2). Reads only small error
/// answers and gives them back whole.
async fn is_token_refused(response: Response<Body>) -> (Response<Body>, bool) {
    let status = response.status();
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return (response, false);
    }
    let small = http_body::Body::size_hint(response.body())
        .upper()
        .is_some_and(|bytes| bytes <= REFUSAL_BYTES_MAX);
    if !small
        || response
            .headers()
            .contains_key(http::header::CONTENT_ENCODING)
    {
        return (response, status == StatusCode::UNAUTHORIZED);
    }
    let (parts, body) = response.into_parts();
    let bytes = read_limited(
        body,
        usize::try_from(REFUSAL_BYTES_MAX).unwrap_or(usize::MAX),
    )
    .await
    .unwrap_or_else(|_| Bytes::new());
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    // The platform says it with a number where other refusals have a word.
    let numeric = json.get("error_code").is_some_and(Value::is_number);
    let said = json
        .get("message")
        .and_then(Value::as_str)
        .is_some_and(|m| m.to_ascii_lowercase().contains("token"));
    (
        Response::from_parts(parts, full(bytes)),
        status == StatusCode::UNAUTHORIZED || (numeric && said),
    )
}

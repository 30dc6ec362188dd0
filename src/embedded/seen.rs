//! What the embedded workspace saw of a call: its head, who it came as, and the length and digest of its body.
//!
//! Bodies are counted while they pass and never kept. Read `control.rs` next, which keeps the list.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::control::{Control, lock};
use super::signing_key::hex;
use crate::domain::scope::ScopeSet;
use crate::runtime::http_client::{Body, BoxError};

/// As whom a call arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The app's service principal.
    App {
        /// What its token allows.
        scopes: ScopeSet,
    },
    /// A person.
    User {
        /// The `sub` of the token.
        email: String,
        /// What the token allows.
        scopes: ScopeSet,
    },
    /// No bearer.
    None,
    /// A bearer this workspace does not take.
    Invalid,
}

impl fmt::Display for Seen {
    /// The form of the `x-embedded-identity` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App { .. } => f.write_str("app"),
            Self::User { email, .. } => write!(f, "user:{email}"),
            Self::None => f.write_str("none"),
            Self::Invalid => f.write_str("invalid"),
        }
    }
}

/// One call as it arrived.
#[derive(Clone)]
pub struct SeenCall {
    /// The id this workspace gave it, also in the answer.
    pub request_id: String,
    /// Upper case.
    pub method: String,
    /// Path and query, undecoded.
    pub target: String,
    /// Names (lower case) and values in order; bytes that are no text are replaced.
    pub headers: Vec<(String, String)>,
    /// As whom it arrived.
    pub identity: Seen,
    /// The status of the answer, once there is one.
    pub status: Option<u16>,
    /// Bytes of the body read so far.
    pub body_len: u64,
    /// SHA-256 of those bytes, in hex.
    pub body_digest: String,
    /// Whether the body was read to its end.
    pub body_complete: bool,
}

impl SeenCall {
    /// The values of one header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let wanted = self
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name));
        wanted.map(|(_, value)| value.as_str()).collect()
    }
}

impl fmt::Debug for SeenCall {
    /// Shows header names only: values hold live tokens, and a failing test prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("SeenCall")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("identity", &self.identity)
            .field("status", &self.status)
            .field("headers", &names)
            .field("body_len", &self.body_len)
            .field("body_complete", &self.body_complete)
            .finish_non_exhaustive()
    }
}

/// Counts a body while it passes.
pub(super) struct Meter(Mutex<Count>);

struct Count {
    hash: digest::Context,
    bytes: u64,
    complete: bool,
}

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Count {
            hash: digest::Context::new(&digest::SHA256),
            bytes: 0,
            complete: false,
        })))
    }

    /// Writes the count into a copy of the call.
    pub(super) fn fill(&self, mut call: SeenCall) -> SeenCall {
        let count = lock(&self.0);
        call.body_len = count.bytes;
        call.body_digest = hex(count.hash.clone().finish().as_ref());
        call.body_complete = count.complete;
        call
    }
}

/// A request body that is counted by a [`Meter`].
pub(super) struct Metered {
    pub(super) inner: Body,
    pub(super) meter: Arc<Meter>,
    pub(super) control: Arc<Control>,
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let mut ended = matches!(polled, Poll::Ready(None));
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if let Some(data) = frame.data_ref() {
                let mut count = lock(&self.meter.0);
                count.hash.update(data);
                count.bytes += data.len() as u64;
            }
            ended = self.inner.is_end_stream();
        }
        if ended && !std::mem::replace(&mut lock(&self.meter.0).complete, true) {
            self.control.body_moved();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

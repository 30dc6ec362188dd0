//! One request and its JSON answer, for the sample agent and for the tour.

use http::Request;
use http::response::Parts;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::runtime::http_client::{Body, read_limited};

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A client like any agent's.
pub struct Http(Client<HttpConnector, Body>);

impl Default for Http {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Http {
    /// Head and JSON of the answer; anything but JSON is `null`.
    ///
    /// # Errors
    /// A sentence, when no whole answer came.
    pub async fn ask(&self, request: Request<Body>) -> Result<(Parts, Value), String> {
        let answer = self
            .0
            .request(request)
            .await
            .map_err(|fault| fault.to_string())?;
        let (head, body) = answer.into_parts();
        let body: Body = body.map_err(Into::into).boxed_unsync();
        let bytes = read_limited(body, ANSWER_BYTES_MAX)
            .await
            .map_err(|fault| fault.to_string())?;
        Ok((head, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }
}

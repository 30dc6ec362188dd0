//! The Files API of the workspace, called as the app: make a folder, put, look, list and fetch files of volumes.
//!
//! On behalf of nobody, so without grant and receipt: only the sidecar's own work goes this way, never an agent's call, and only
//! to the workspace (the door pins the host; no redirect, no proxy). Knows no audit log; `domain/volume.rs` has the paths.
//!
//! Plain PUT and GET, never the presigned kind: bytes and credential stay between sidecar and workspace.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use serde::Deserialize;

use super::app_tokens::AppTokens;
use super::endpoint_fault::EndpointFault;
use super::http_client::{Body, SendFault, empty, read_limited};
use super::token_answer::retry_after;
use super::upstream::Door;
use crate::domain::headers::attach_credential;
use crate::domain::scope::ScopeSet;
use crate::domain::volume::VolumePath;

const FILES: &str = "/api/2.0/fs/files";
const FOLDERS: &str = "/api/2.0/fs/directories";
/// The one scope it asks a token for.
const SCOPE: &str = "files";
const USER_AGENT: &str = concat!("valetkey/", env!("CARGO_PKG_VERSION"));
/// An answer without content that is worth reading.
const SMALL_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// One page of a listing.
const LIST_PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Pages of one listing; a page holds up to a thousand entries.
const LIST_PAGES_MAX: usize = 1_000;
/// For the whole of a small answer, once its head is there.
const SMALL_ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Why a call to the Files API did not do what was asked. Texts are ours, with at most a status and an error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeFault {
    /// No token for the app.
    #[error("the app has no token for it: {0}")]
    Credential(#[source] EndpointFault),
    /// A token that the workspace does not accept, even a fresh one.
    #[error("the workspace does not accept the app's token ({0})")]
    Token(String),
    /// The service principal lacks a right, or the token a scope.
    #[error(
        "the app may not ({0}): grant its service principal READ VOLUME and WRITE VOLUME on the volume, USE CATALOG and USE SCHEMA above it, and the scope `files`"
    )]
    Denied(String),
    /// No such volume, folder or file.
    #[error("there is no such volume or folder ({0})")]
    Missing(String),
    /// A file of that name is there.
    #[error("there is a file of that name")]
    Exists,
    /// Asked again later it may work.
    #[error("the workspace is busy ({said})")]
    Busy {
        /// What it answered.
        said: String,
        /// The pause it asked for.
        retry_after: Option<Duration>,
    },
    /// Any other refusal.
    #[error("the workspace refuses it ({0})")]
    Refused(String),
    /// No answer, or one that cannot be used.
    #[error("the workspace gave no usable answer: {0}")]
    Unreachable(Cow<'static, str>),
}

impl VolumeFault {
    /// The pause that was asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            Self::Credential(fault) => fault.retry_after(),
            Self::Token(_)
            | Self::Denied(_)
            | Self::Missing(_)
            | Self::Exists
            | Self::Refused(_)
            | Self::Unreachable(_) => None,
        }
    }
}

impl From<SendFault> for VolumeFault {
    fn from(fault: SendFault) -> Self {
        let cause = std::error::Error::source(&fault).map(ToString::to_string);
        Self::Unreachable(match cause {
            Some(cause) => format!("{fault}: {cause}").into(),
            None => fault.to_string().into(),
        })
    }
}

/// What lies in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Its whole path.
    pub path: String,
    /// Whether it is a folder.
    #[serde(default)]
    pub is_directory: bool,
    /// Bytes of a file.
    #[serde(default)]
    pub file_size: u64,
    /// When it was written, in milliseconds since the epoch.
    #[serde(default)]
    pub last_modified: i64,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    contents: Vec<Entry>,
    #[serde(default)]
    next_page_token: String,
}

#[derive(Default, Deserialize)]
struct Refusal {
    /// A word, or a number where the platform does not accept the token (facts 3.2).
    #[serde(default)]
    error_code: serde_json::Value,
}

/// Makes the body of an upload; anew for each try.
pub type MakeBody<'a> = &'a (dyn Fn() -> Body + Send + Sync);

/// One call.
struct Ask<'a> {
    method: Method,
    path: String,
    query: Option<String>,
    /// With its length.
    upload: Option<(MakeBody<'a>, u64)>,
}

impl Ask<'_> {
    fn new(method: Method, api: &str, path: &VolumePath) -> Self {
        Self {
            method,
            path: format!("{api}{}", path.escaped()),
            query: None,
            upload: None,
        }
    }
}

/// The volumes of the workspace, as the app sees them.
pub struct Volumes {
    door: Door,
    tokens: AppTokens,
    scopes: ScopeSet,
}

impl Volumes {
    /// `door` leads to the workspace.
    pub fn new(door: Door, tokens: AppTokens) -> Self {
        Self {
            door,
            tokens,
            scopes: ScopeSet::parse([SCOPE]),
        }
    }

    /// Makes a folder and those above it; good if it is there.
    ///
    /// # Errors
    /// [`VolumeFault`].
    pub async fn make_folder(&self, folder: &VolumePath) -> Result<(), VolumeFault> {
        match self.ask(&Ask::new(Method::PUT, FOLDERS, folder)).await {
            Ok(_) | Err(VolumeFault::Exists) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Uploads a file of `len` bytes.
    ///
    /// # Errors
    /// [`VolumeFault`]; `Exists` only without `overwrite`.
    pub async fn put(
        &self,
        file: &VolumePath,
        len: u64,
        body: MakeBody<'_>,
        overwrite: bool,
    ) -> Result<(), VolumeFault> {
        let mut ask = Ask::new(Method::PUT, FILES, file);
        ask.query = Some(format!("overwrite={overwrite}"));
        ask.upload = Some((body, len));
        self.ask(&ask).await.map(drop)
    }

    /// The length of a file; `None` where there is none.
    ///
    /// # Errors
    /// [`VolumeFault`].
    pub async fn size(&self, file: &VolumePath) -> Result<Option<u64>, VolumeFault> {
        let answer = match self.ask(&Ask::new(Method::HEAD, FILES, file)).await {
            Ok(answer) => answer,
            Err(VolumeFault::Missing(_)) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let length = answer.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        let unusable = || VolumeFault::Unreachable("it does not say how long the file is".into());
        length.ok_or_else(unusable).map(Some)
    }

    /// What lies directly in a folder.
    ///
    /// # Errors
    /// [`VolumeFault`].
    pub async fn list(&self, folder: &VolumePath) -> Result<Vec<Entry>, VolumeFault> {
        let mut ask = Ask::new(Method::GET, FOLDERS, folder);
        let mut entries = Vec::new();
        for _ in 0..LIST_PAGES_MAX {
            let answer = self.ask(&ask).await?;
            let bytes = small(answer.into_body(), LIST_PAGE_BYTES_MAX).await?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|_| VolumeFault::Unreachable("its listing is no JSON of ours".into()))?;
            entries.extend(page.contents);
            if page.next_page_token.is_empty() {
                return Ok(entries);
            }
            let token = form_urlencoded::byte_serialize(page.next_page_token.as_bytes());
            ask.query = Some(format!("page_token={}", token.collect::<String>()));
        }
        Err(VolumeFault::Unreachable("its listing does not end".into()))
    }

    /// The bytes of a file, as they come.
    ///
    /// # Errors
    /// [`VolumeFault`].
    pub async fn get(&self, file: &VolumePath) -> Result<Body, VolumeFault> {
        let answer = self.ask(&Ask::new(Method::GET, FILES, file)).await?;
        Ok(answer.into_body())
    }

    /// One call, repeated once with a fresh token where the workspace refused the one it got.
    async fn ask(&self, ask: &Ask<'_>) -> Result<Response<Body>, VolumeFault> {
        let mut last = false;
        loop {
            let token = self.tokens.token(&self.scopes).await;
            let token = token.map_err(VolumeFault::Credential)?;
            let request = self.request(ask, token.header().clone())?;
            let answer = self.door.http().send(request).await?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            let (fault, of_token) = refusal(answer).await;
            if !of_token || last || !self.tokens.invalidate(&self.scopes, &token) {
                return Err(fault);
            }
            last = true;
        }
    }

    fn request(
        &self,
        ask: &Ask<'_>,
        credential: HeaderValue,
    ) -> Result<Request<Body>, VolumeFault> {
        let uri = self.door.uri(&ask.path, ask.query.as_deref());
        let uri = uri.ok_or_else(|| VolumeFault::Refused("the path is no address".into()))?;
        let mut request = Request::new(ask.upload.map_or_else(empty, |(body, _)| body()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        let mut set = |name: HeaderName, value: HeaderValue| headers.insert(name, value);
        set(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some((_, len)) = ask.upload {
            set(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            );
            set(header::CONTENT_LENGTH, HeaderValue::from(len));
        }
        attach_credential(headers, credential);
        Ok(request)
    }
}

/// What a refusal means, and whether it is one of the token.
async fn refusal(answer: Response<Body>) -> (VolumeFault, bool) {
    let status = answer.status();
    let pause = retry_after(answer.headers());
    // A refusal that cannot be read is one without a word.
    let bytes = small(answer.into_body(), SMALL_ANSWER_BYTES_MAX).await;
    let bytes = bytes.unwrap_or_default();
    let code = serde_json::from_slice::<Refusal>(&bytes).unwrap_or_default();
    let code = code.error_code;
    let said = match code.as_str().filter(|word| is_code(word)) {
        Some(word) => format!("{} {word}", status.as_u16()),
        None => status.as_u16().to_string(),
    };
    let of_token =
        status == StatusCode::UNAUTHORIZED || (status == StatusCode::FORBIDDEN && code.is_number());
    let fault = match status {
        _ if of_token => VolumeFault::Token(said),
        StatusCode::FORBIDDEN => VolumeFault::Denied(said),
        StatusCode::NOT_FOUND => VolumeFault::Missing(said),
        StatusCode::CONFLICT => VolumeFault::Exists,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => VolumeFault::Busy {
            said,
            retry_after: pause,
        },
        _ if status.is_server_error() => VolumeFault::Busy {
            said,
            retry_after: pause,
        },
        _ => VolumeFault::Refused(said),
    };
    (fault, of_token)
}

/// Only such words are repeated: an answer may hold anything.
fn is_code(word: &str) -> bool {
    word.len() <= 64 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
}

async fn small(body: Body, bytes_max: usize) -> Result<bytes::Bytes, VolumeFault> {
    let broken = |what: &'static str| VolumeFault::Unreachable(what.into());
    match tokio::time::timeout(SMALL_ANSWER_TIME_MAX, read_limited(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(broken("its answer broke off or is too long")),
        Err(_) => Err(broken("its answer does not end")),
    }
}

//! A Unity Catalog volume through the Files API, as the app: make a directory, put a file, list, get.
//!
//! The sidecar's own calls, like those to the token endpoint: no agent asked for them, so they make no records. Knows neither
//! segments nor chains.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::super::app_tokens::AppTokens;
use super::super::endpoint_fault::EndpointFault;
use super::super::http_client::{Body, BoxError, HttpSend, SendFault, empty, read_limited};
use crate::domain::headers;
use crate::domain::identity::WorkspaceOrigin;
use crate::domain::scope::ScopeSet;

/// One piece of an upload.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that wait for the network.
const PIECES_WAITING_MAX: usize = 4;
/// The longest listing of a directory, per page.
const LISTING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pages of a listing; a thousand entries each.
const PAGES_MAX: usize = 1000;

/// Why something could not be done there.
#[derive(Debug, thiserror::Error)]
pub enum VolumeFault {
    /// No token for the app.
    #[error("no token for the app: {0}")]
    Token(#[source] EndpointFault),
    /// The workspace was not reached.
    #[error("the workspace cannot be reached: {0}")]
    Unreached(#[from] SendFault),
    /// It answered with something else than success.
    #[error("the workspace answers {status}: {message}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// The beginning of its message.
        message: String,
    },
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    Broken(BoxError),
    /// A file on this side.
    #[error("{0}")]
    Local(#[from] std::io::Error),
    /// The upload was answered well, but the file is not there as it is here.
    #[error("the workspace took the file and does not have it")]
    NotThere,
    /// Not what the API answers.
    #[error("the workspace's answer cannot be read")]
    Unreadable,
}

/// A volume, and as whom it is reached.
pub struct Volume {
    http: Arc<dyn HttpSend>,
    origin: String,
    tokens: AppTokens,
    scopes: ScopeSet,
    /// `/Volumes/CATALOG/SCHEMA/VOLUME`.
    root: String,
}

/// One entry of a listing.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
    /// From the root of the workspace's files.
    pub path: String,
    /// Its last part.
    pub name: String,
    /// Whether it is one.
    #[serde(default)]
    pub is_directory: bool,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    contents: Vec<Entry>,
    next_page_token: Option<String>,
}

impl Volume {
    /// `name` is CATALOG.SCHEMA.VOLUME.
    pub fn new(
        http: Arc<dyn HttpSend>,
        origin: &WorkspaceOrigin,
        tokens: AppTokens,
        name: &str,
    ) -> Self {
        Self {
            http,
            origin: origin.to_string(),
            tokens,
            scopes: ScopeSet::parse(["files"]),
            root: format!("/Volumes/{}", name.replace('.', "/")),
        }
    }

    /// The full path of something in it.
    pub fn path(&self, below: &str) -> String {
        if below.is_empty() {
            self.root.clone()
        } else {
            format!("{}/{below}", self.root)
        }
    }

    /// Makes a directory, and those above it; one that is there is fine.
    ///
    /// # Errors
    /// [`VolumeFault`].
    pub async fn make_directory(&self, below: &str) -> Result<(), VolumeFault> {
        let target = format!("/api/2.0/fs/directories{}", self.path(below));
        let answer = self.send(Method::PUT, &target, None).await?;
        accept(answer).await.map(drop)
    }

    /// Puts a file there, in place of one of the same name, and looks whether it is there: something on the way may have
    /// answered for the workspace.
    ///
    /// # Errors
    /// [`VolumeFault`].
    pub async fn put(&self, below: &str, file: &Path) -> Result<(), VolumeFault> {
        let target = format!("/api/2.0/fs/files{}?overwrite=true", self.path(below));
        let len = std::fs::metadata(file)?.len();
        let body = Some((streamed(file.to_owned(), len), len));
        let answer = self.send(Method::PUT, &target, body).await?;
        accept(answer).await?;
        let target = format!("/api/2.0/fs/files{}", self.path(below));
        let answer = accept(self.send(Method::HEAD, &target, None).await?).await?;
        let there = answer.headers().get(CONTENT_LENGTH);
        let there = there.and_then(|value| value.to_str().ok()?.parse().ok());
        if there == Some(len) {
            Ok(())
        } else {
            Err(VolumeFault::NotThere)
        }
    }

    /// What lies directly below; nothing where there is no such directory.
    ///
    /// # Errors
    /// [`VolumeFault`].
    pub async fn list(&self, below: &str) -> Result<Vec<Entry>, VolumeFault> {
        let target = format!("/api/2.0/fs/directories{}", self.path(below));
        let mut entries = Vec::new();
        let mut page: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let query = page.as_ref().map_or_else(String::new, |token| {
                let token: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
                format!("?page_token={token}")
            });
            let answer = self
                .send(Method::GET, &format!("{target}{query}"), None)
                .await?;
            if answer.status() == StatusCode::NOT_FOUND {
                break;
            }
            let body = accept(answer).await?.into_body();
            let bytes = read_limited(body, LISTING_BYTES_MAX).await;
            let listing: Listing = serde_json::from_slice(&bytes.map_err(VolumeFault::Broken)?)
                .map_err(|_| VolumeFault::Unreadable)?;
            entries.extend(listing.contents);
            page = listing.next_page_token.filter(|token| !token.is_empty());
            if page.is_none() {
                break;
            }
        }
        Ok(entries)
    }

    /// Reads a file into `out`, piece by piece.
    ///
    /// # Errors
    /// [`VolumeFault`].
    pub async fn get(&self, path: &str, out: &mut impl std::io::Write) -> Result<(), VolumeFault> {
        let target = format!("/api/2.0/fs/files{path}");
        let answer = self.send(Method::GET, &target, None).await?;
        let mut body = accept(answer).await?.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame.map_err(VolumeFault::Broken)?.data_ref() {
                out.write_all(data)?;
            }
        }
        Ok(())
    }

    /// With a token of the app; a refused one is replaced once, where nothing was sent that cannot be sent again.
    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Option<(Body, u64)>,
    ) -> Result<Response<Body>, VolumeFault> {
        let token = self.tokens.token(&self.scopes).await;
        let token = token.map_err(VolumeFault::Token)?;
        let (body, len) = body.unwrap_or_else(|| (empty(), 0));
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let uri = format!("{}{target}", self.origin);
        *request.uri_mut() = uri.parse().map_err(|_| VolumeFault::Unreadable)?;
        let named = request.headers_mut();
        named.insert(CONTENT_LENGTH, HeaderValue::from(len));
        if len > 0 {
            let kind = HeaderValue::from_static("application/octet-stream");
            named.insert(CONTENT_TYPE, kind);
        }
        headers::attach_credential(named, token.header().clone());
        let answer = self.http.send(request).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            // Whoever tries again gets another one.
            self.tokens.invalidate(&self.scopes, &token);
        }
        Ok(answer)
    }
}

/// Anything but success is a fault, with the beginning of what the workspace says.
async fn accept(answer: Response<Body>) -> Result<Response<Body>, VolumeFault> {
    const SAID_BYTES_MAX: usize = 4096;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let said = read_limited(answer.into_body(), SAID_BYTES_MAX).await;
    let said = said.unwrap_or_default();
    let message = String::from_utf8_lossy(&said);
    Err(VolumeFault::Refused {
        status,
        message: message.chars().take(200).collect(),
    })
}

/// Exactly so many bytes of a file, read on a thread of their own.
fn streamed(file: PathBuf, len: u64) -> Body {
    let (send, mut pieces) = mpsc::channel::<std::io::Result<Bytes>>(PIECES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let mut reader = match File::open(file) {
            Ok(file) => file.take(len),
            Err(fault) => return drop(send.blocking_send(Err(fault))),
        };
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = reader.read(&mut piece).map(|read| {
                piece.truncate(read);
                Bytes::from(piece)
            });
            let last = read.as_ref().map_or(true, Bytes::is_empty);
            // Nobody listens any more when the connection broke.
            if read.as_ref().is_ok_and(Bytes::is_empty) || send.blocking_send(read).is_err() || last
            {
                return;
            }
        }
    });
    let frames = futures_util::stream::poll_fn(move |context| {
        pieces
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(BoxError::from)))
    });
    StreamBody::new(frames).boxed_unsync()
}

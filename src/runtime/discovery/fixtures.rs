//! A scripted issuer for tests: metadata and key set behind [`HttpSend`], each of which can be made to fail in every way.
//!
//! Compiled for tests only. Times are tokio's, so that paused time covers slow and silent answers too.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{Discoverer, Pins};
use crate::domain::identity::Origin;
use crate::domain::token::fixtures::{ISSUER, document};
use crate::runtime::http_client::{Body, BoxError, HttpSend, SendFault, full};
use crate::runtime::single_flight::BoxFuture;

/// The workspace of the fixtures.
pub const ORIGIN: &str = "https://workspace.example.com";
/// The first metadata path.
pub const METADATA: &str =
    "https://workspace.example.com/oidc/.well-known/oauth-authorization-server";
/// The second metadata path.
pub const METADATA_FALLBACK: &str =
    "https://workspace.example.com/oidc/.well-known/openid-configuration";
/// Where the fixtures' metadata says the keys are: another host, as on Databricks.
pub const JWKS: &str = "https://accounts.example.com/oidc/jwks.json";

/// How one URL answers.
#[derive(Clone)]
pub enum Reply {
    /// 200 with this body.
    Body(Vec<u8>),
    /// Another status with this body.
    Status(u16, Vec<u8>),
    /// 302 to there.
    Redirect(String),
    /// No connection.
    Refused,
    /// The connection breaks.
    Broken,
    /// The head never comes.
    Silent,
    /// 200 with this body, after a while.
    Slow(Duration, Vec<u8>),
    /// A head, and then a body that never ends and never rests.
    Endless,
    /// A head, and then nothing.
    Stalled,
    /// A head, some bytes, and a break.
    CutOff(Vec<u8>),
    /// The task that asks dies.
    Panic,
}

/// The far side.
#[derive(Default)]
pub struct Script {
    replies: Mutex<HashMap<String, Reply>>,
    seen: Mutex<Vec<String>>,
}

impl Script {
    /// An issuer with good metadata that publishes these keys.
    pub fn publishing(keys: &[Value]) -> Arc<Self> {
        let script = Arc::new(Self::default());
        script.set(METADATA, Reply::Body(metadata().to_string().into_bytes()));
        script.set(JWKS, Reply::Body(document(keys)));
        script
    }

    /// From now on this URL answers so; without this it answers 404.
    pub fn set(&self, url: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(url.into(), reply);
    }

    /// How often this URL was asked for.
    pub fn count(&self, url: &str) -> usize {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| *seen == url)
            .count()
    }

    /// How often anything was asked for.
    pub fn total(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// A discoverer that asks this far side.
    pub fn discoverer(self: &Arc<Self>, pins: Pins) -> Discoverer {
        let origin = Origin::parse(ORIGIN).unwrap();
        let http: Arc<dyn HttpSend> = Arc::clone(self) as _;
        Discoverer::new(origin, pins, http).unwrap()
    }
}

/// Good metadata.
pub fn metadata() -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": JWKS,
        "token_endpoint": format!("{ORIGIN}/oidc/v1/token"),
        "authorization_endpoint": format!("{ORIGIN}/oidc/v1/authorize"),
    })
}

impl HttpSend for Script {
    fn send(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, SendFault>> {
        assert_eq!(request.method(), Method::GET);
        assert!(request.headers().get(header::AUTHORIZATION).is_none());
        let url = request.uri().to_string();
        self.seen.lock().unwrap().push(url.clone());
        let reply = self.replies.lock().unwrap().get(&url).cloned();
        Box::pin(async move {
            let answer =
                |status: u16, body: Body| Response::builder().status(status).body(body).unwrap();
            let lost = || BoxError::from("gone");
            Ok(
                match reply.unwrap_or_else(|| Reply::Status(404, Vec::new())) {
                    Reply::Body(body) => answer(200, full(body)),
                    Reply::Status(status, body) => answer(status, full(body)),
                    Reply::Redirect(to) => Response::builder()
                        .status(302)
                        .header(header::LOCATION, to)
                        .body(full("moved"))
                        .unwrap(),
                    Reply::Refused => return Err(SendFault::Connect(lost())),
                    Reply::Broken => return Err(SendFault::Broken(lost())),
                    Reply::Silent => std::future::pending().await,
                    Reply::Slow(after, body) => {
                        tokio::time::sleep(after).await;
                        answer(200, full(body))
                    }
                    Reply::Endless => answer(200, Trickle::Blanks.boxed_unsync()),
                    Reply::Stalled => answer(200, Trickle::Nothing.boxed_unsync()),
                    Reply::CutOff(bytes) => answer(200, Trickle::Then(bytes.into()).boxed_unsync()),
                    Reply::Panic => panic!("as the script says"),
                },
            )
        })
    }
}

enum Trickle {
    Blanks,
    Nothing,
    Then(Bytes),
    Break,
}

impl http_body::Body for Trickle {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match std::mem::replace(&mut *self, Self::Break) {
            Self::Blanks => {
                *self = Self::Blanks;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 4096])))))
            }
            Self::Nothing => {
                *self = Self::Nothing;
                Poll::Pending
            }
            Self::Then(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Self::Break => Poll::Ready(Some(Err("gone".into()))),
        }
    }
}

//! A scripted token endpoint for the tests of this floor: what it answers next is set, what it was asked is kept.
//!
//! Compiled for tests only. It repeats every secret it sees in each bad answer, so that a leak has something to leak.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use super::access_token::AccessToken;
use super::endpoint_fault::EndpointFault;
use super::http_client::{Body, BoxError, HttpSend, SendFault, full};
use super::metrics::Metrics;
use super::single_flight::BoxFuture;
use super::token_endpoint::{ClientCredential, TokenEndpoint, TokenEndpointSettings};
use crate::domain::clock::{ManualClock, Timestamp};
use crate::domain::scope::ScopeSet;
use crate::domain::secret::Secret;

/// The app's id in every test.
pub const CLIENT_ID: &str = "app:id/1";
/// The app's secret; nothing that is printed may hold `canary`.
pub const CLIENT_SECRET: &str = "dose-canary+secret:%";
/// A user's token.
pub const SUBJECT_TOKEN: &str = "eyJ.canary.subject";

/// What the endpoint does.
#[derive(Clone)]
pub enum Reply {
    /// A good token of this life in seconds: `canary-token-N` for the N-th request.
    Token(u64),
    /// This status, these headers and this body.
    Answer(u16, Vec<(&'static str, &'static str)>, String),
    /// Takes the request and never answers.
    Hang,
    /// The head of an answer and then nothing.
    HangInBody,
    /// A body that breaks off.
    BreakInBody,
    /// No connection.
    NoConnection,
    /// A connection that breaks.
    Broken,
}

/// One request as it came.
pub struct Seen {
    /// `POST`.
    pub method: Method,
    /// Where to.
    pub uri: Uri,
    /// The head.
    pub headers: HeaderMap,
    /// The form, in order.
    pub form: Vec<(String, String)>,
}

impl Seen {
    /// A member of the form.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.form.iter().filter(|(key, _)| key == name);
        let found = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} was sent twice");
        found
    }
}

/// The scripted endpoint.
pub struct Script {
    reply: Mutex<Reply>,
    by_scope: Mutex<HashMap<String, Reply>>,
    delay: Duration,
    seen: Mutex<Vec<Seen>>,
    /// The wall clock of every endpoint made from this script.
    pub clock: Arc<ManualClock>,
}

impl Script {
    /// Answers with good tokens of one hour after a tenth of a second.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            reply: Mutex::new(Reply::Token(3600)),
            by_scope: Mutex::default(),
            delay: Duration::from_millis(100),
            seen: Mutex::default(),
            clock: clock(),
        })
    }

    /// From now on answers so.
    pub fn set(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// From now on answers so when just this scope is asked for.
    pub fn set_for(&self, scope: &str, reply: Reply) {
        self.by_scope.lock().unwrap().insert(scope.into(), reply);
    }

    /// How often it was asked.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The last request.
    pub fn last<R>(&self, read: impl FnOnce(&Seen) -> R) -> R {
        read(self.seen.lock().unwrap().last().expect("nothing was asked"))
    }

    /// An endpoint client that talks to this script.
    pub fn endpoint(self: &Arc<Self>, with_client: bool) -> (Arc<TokenEndpoint>, Metrics) {
        let client = with_client.then(|| ClientCredential {
            id: CLIENT_ID.into(),
            secret: Arc::new(Secret::new(CLIENT_SECRET.into())),
        });
        let metrics = Metrics::new().unwrap();
        let endpoint = TokenEndpoint::new(
            TokenEndpointSettings::for_client(client),
            Box::new(|| {
                Box::pin(async { Ok(Uri::from_static("https://w.example/oidc/v1/token")) })
            }),
            Arc::<Self>::clone(self),
            Arc::<ManualClock>::clone(&self.clock),
            metrics.clone(),
        );
        (Arc::new(endpoint), metrics)
    }
}

impl HttpSend for Script {
    fn send(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, SendFault>> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let form: Vec<(String, String)> = form_urlencoded::parse(&bytes).into_owned().collect();
            let seen = Seen {
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                form,
            };
            let scope = seen.field("scope").unwrap_or_default().to_owned();
            let n = {
                let mut all = self.seen.lock().unwrap();
                all.push(seen);
                all.len()
            };
            tokio::time::sleep(self.delay).await;
            let by_scope = self.by_scope.lock().unwrap().get(&scope).cloned();
            let reply = by_scope.unwrap_or_else(|| self.reply.lock().unwrap().clone());
            reply.play(n).await
        })
    }
}

impl Reply {
    /// A status with a body.
    pub fn status(status: u16, body: &str) -> Self {
        Self::Answer(status, Vec::new(), body.into())
    }

    /// Status 200 with a body.
    pub fn ok(body: &str) -> Self {
        Self::status(200, body)
    }

    async fn play(self, n: usize) -> Result<Response<Body>, SendFault> {
        match self {
            Self::Token(life) => Ok(Response::new(full(format!(
                r#"{{"access_token":"canary-token-{n}","token_type":"Bearer","expires_in":{life}}}"#
            )))),
            Self::Answer(status, headers, body) => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                Ok(response.body(full(body)).unwrap())
            }
            Self::Hang => std::future::pending().await,
            Self::HangInBody => Ok(Response::new(
                StreamBody::new(futures_util::stream::pending::<
                    Result<Frame<Bytes>, BoxError>,
                >())
                .boxed_unsync(),
            )),
            Self::BreakInBody => {
                let frames = futures_util::stream::iter([
                    Ok(Frame::data(Bytes::from_static(
                        b"{\"access_token\":\"canary",
                    ))),
                    Err(BoxError::from("reset, canary")),
                ]);
                Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
            }
            Self::NoConnection => Err(SendFault::Connect("connection refused".into())),
            Self::Broken => Err(SendFault::Broken("reset, canary".into())),
        }
    }
}

/// Wall time, standing still: the timers of the tests move by tokio's clock.
pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(
        Timestamp::from_second(1_800_000_000).unwrap(),
    ))
}

/// A scope set from names with blanks between.
pub fn scopes(names: &str) -> ScopeSet {
    ScopeSet::parse(names.split_ascii_whitespace())
}

/// The number of the request that a token came from.
pub fn number(token: &AccessToken) -> usize {
    let raw = token.secret().expose();
    raw.strip_prefix("canary-token-").unwrap().parse().unwrap()
}

/// Fails when a fault would print anything that it saw.
pub fn assert_silent(fault: &EndpointFault) {
    let text = format!("{fault} {fault:?} {fault:#?} {}", fault.code());
    for leak in ["canary", "dose", "eyJ"] {
        assert!(!text.contains(leak), "{text}");
    }
}

/// One way for an endpoint to be broken: its name, what it does, the code it must be reported as.
pub type Fault = (&'static str, Reply, &'static str);

/// The faults of SECURITY T34. Every body repeats the secrets.
pub fn faults() -> Vec<Fault> {
    [refusals(), outages(), documents()].concat()
}

fn refusals() -> Vec<Fault> {
    let error = |status, word: &str| {
        let said = format!("{CLIENT_SECRET} {SUBJECT_TOKEN}");
        Reply::status(
            status,
            &format!(r#"{{"error":"{word}","error_description":"{said}"}}"#),
        )
    };
    let plain = |status| Reply::status(status, CLIENT_SECRET);
    vec![
        ("wrong secret", error(401, "invalid_client"), "refused"),
        ("401 without OAuth", plain(401), "refused"),
        ("invalid scope", error(400, "invalid_scope"), "refused"),
        ("secret as the word", error(400, "dose-canary"), "refused"),
        ("access denied", error(403, "access_denied"), "refused"),
        ("404", plain(404), "invalid"),
    ]
}

fn outages() -> Vec<Fault> {
    let busy = |status, header: Option<&'static str>| {
        let headers = header.map(|value| ("retry-after", value));
        Reply::Answer(status, headers.into_iter().collect(), CLIENT_SECRET.into())
    };
    let plain = |status| Reply::status(status, CLIENT_SECRET);
    let moved = |status| {
        let headers = vec![("location", "https://evil.example/token")];
        Reply::Answer(status, headers, String::new())
    };
    vec![
        ("429 with a pause", busy(429, Some("20")), "busy"),
        (
            "429 with an absurd pause",
            busy(429, Some("864000")),
            "busy",
        ),
        ("429 without", busy(429, None), "busy"),
        ("503 with a pause of 0", busy(503, Some("0")), "busy"),
        (
            "503 with a date",
            busy(503, Some("Wed, 21 Oct 2026 07:28:00 GMT")),
            "busy",
        ),
        ("500", plain(500), "unreachable"),
        ("502", plain(502), "unreachable"),
        ("hang", Reply::Hang, "timeout"),
        ("hang in the body", Reply::HangInBody, "timeout"),
        ("break in the body", Reply::BreakInBody, "unreachable"),
        ("no connection", Reply::NoConnection, "unreachable"),
        ("broken connection", Reply::Broken, "unreachable"),
        ("redirect 302", moved(302), "invalid"),
        ("redirect 307", moved(307), "invalid"),
        ("204", plain(204), "invalid"),
    ]
}

/// Status 200 with a document that is not usable.
fn documents() -> Vec<Fault> {
    let token =
        |rest: &str| format!(r#"{{"access_token":"canary-token-0","token_type":"Bearer"{rest}}}"#);
    let all = [
        ("garbage", "\u{1}\u{2}dose-canary".to_owned()),
        ("HTML", "<html>dose-canary</html>".to_owned()),
        ("empty", String::new()),
        ("huge", "canary".repeat(20_000)),
        ("negative life", token(r#","expires_in":-1"#)),
        ("no life", token(r#","expires_in":0"#)),
        ("life within the margin", token(r#","expires_in":"30""#)),
        ("two lives", token(r#","expires_in":1,"expires_in":3600"#)),
        ("two tokens", token(r#","access_token":"canary-x""#)),
        (
            "truncated",
            r#"{"access_token":"canary-token-0","tok"#.into(),
        ),
        (
            "token_type mac",
            r#"{"access_token":"canary","token_type":"mac"}"#.into(),
        ),
        (
            "no token_type",
            r#"{"access_token":"canary","expires_in":3600}"#.into(),
        ),
        (
            "no token",
            r#"{"token_type":"Bearer","expires_in":3600}"#.into(),
        ),
        (
            "empty token",
            r#"{"access_token":"","token_type":"Bearer"}"#.into(),
        ),
        (
            "token with a newline",
            r#"{"access_token":"canary\r\nX-Evil: 1","token_type":"Bearer"}"#.into(),
        ),
    ];
    let all = all.map(|(name, body)| (name, Reply::ok(&body), "invalid"));
    all.into()
}

//! Takes each call: writes it down, puts the faults in, asks for a good token, sends it to the APIs.
//!
//! The order is the platform's: credential, then scope, then whether there is such an endpoint, then grants on the object; `api/routes.rs` keeps to it from the scope on.

use std::sync::Arc;

use http::header::{LOCATION, RETRY_AFTER, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::answer::{Answer, Refusal, set, text};
use super::api::files;
use super::call::{Call, Presented, drain, presented};
use super::control::{Control, Fault, Place};
use super::grants::Caller;
use super::marked;
use super::seen::{Meter, Metered, Seen, SeenCall};
use super::workspace::Site;
use super::{api, oidc};
use crate::runtime::http_client::Body;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ORG_ID: HeaderName = HeaderName::from_static("x-databricks-org-id");
/// Ours alone: tells tests and the demo as whom a call arrived.
pub(super) const IDENTITY: HeaderName = HeaderName::from_static("x-embedded-identity");
/// Stands on every API answer; nothing behind a sidecar should ever see it.
const COOKIE: &str = "embedded-session=must-not-reach-the-agent; Path=/; HttpOnly; SameSite=Strict";

/// The connection is closed without an answer, because a test asked for that.
#[derive(Debug, thiserror::Error)]
#[error("closed by a Fault::Close")]
pub(super) struct Closed;

/// Answers one call.
pub(super) async fn open(
    site: Arc<Site>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    let (parts, incoming) = request.into_parts();
    let id = uuid::Uuid::now_v7().to_string();
    let body = write_down(&site.control, &id, &parts, incoming);
    let places = places(parts.uri.path());
    // Counted before any fault: a refused fetch is a fetch.
    for place in places {
        site.control.note_visit(*place);
    }
    match site.control.take_fault(places) {
        Some((_, Fault::Close)) => return Err(Closed),
        Some((_, Fault::CloseAfter)) => {
            serve(&site, &id, parts, body).await;
            return Err(Closed);
        }
        Some((place, fault)) => {
            if let Some(answer) = suffer(&site.control, place, fault).await {
                drain(Some(body)).await;
                return Ok(stamped(&site, &id, &Seen::None, answer));
            }
        }
        None => {}
    }
    Ok(serve(&site, &id, parts, body).await)
}

/// Answers as the platform would.
async fn serve(site: &Arc<Site>, id: &str, parts: Parts, body: Body) -> Answer {
    if oidc::is_public(parts.uri.path()) {
        let answer = oidc::answer(site, parts, body).await;
        return stamped(site, id, &Seen::None, answer);
    }
    if files::is_storage(parts.uri.path()) {
        let answer = files::from_storage(site, &parts).await;
        let answer = answer.unwrap_or_else(|refusal| refusal.into_answer(id));
        return stamped(site, id, &Seen::None, answer);
    }
    let (seen, answer) = api(site, parts, body).await;
    let mut answer = answer.unwrap_or_else(|refusal| refusal.into_answer(id));
    set(&mut answer, SET_COOKIE, COOKIE);
    stamped(site, id, &seen, answer)
}

/// Puts the call into the list and a meter around its body.
pub(super) fn write_down(
    control: &Arc<Control>,
    id: &str,
    parts: &Parts,
    incoming: Incoming,
) -> Body {
    let meter = Meter::new();
    let value = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let target = parts.uri.path_and_query().map_or("/", |t| t.as_str());
    control.note_call(
        SeenCall {
            request_id: id.to_owned(),
            method: parts.method.to_string(),
            target: target.to_owned(),
            headers: parts
                .headers
                .iter()
                .map(|(name, v)| (name.as_str().to_owned(), value(v)))
                .collect(),
            identity: Seen::None,
            status: None,
            body_len: 0,
            body_digest: String::new(),
            body_complete: false,
        },
        Arc::clone(&meter),
    );
    Metered {
        inner: incoming.map_err(Into::into).boxed_unsync(),
        meter,
        control: Arc::clone(control),
    }
    .boxed_unsync()
}

fn places(path: &str) -> &'static [Place] {
    if path == oidc::KEYS_PATH {
        &[Place::Workspace, Place::Keys]
    } else if path == oidc::TOKEN_PATH {
        &[Place::Workspace, Place::Token]
    } else if oidc::is_public(path) {
        &[Place::Workspace]
    } else {
        &[Place::Workspace, Place::Api]
    }
}

/// Lives through a fault; `None` means that the call goes on.
pub(super) async fn suffer(control: &Control, place: Place, fault: Fault) -> Option<Answer> {
    match fault {
        Fault::Status {
            status,
            retry_after_secs,
            body,
        } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let kind = if body.starts_with('{') {
                "application/json"
            } else {
                "text/plain"
            };
            let mut answer = text(status, kind, body);
            if let Some(seconds) = retry_after_secs {
                set(&mut answer, RETRY_AFTER, &seconds.to_string());
            }
            Some(answer)
        }
        Fault::Garbage => Some(marked::login_page()),
        Fault::Delay(time) => {
            tokio::time::sleep(time).await;
            None
        }
        Fault::Hang => {
            control.healed(place).await;
            None
        }
        Fault::Close | Fault::CloseAfter => None,
    }
}

/// What every answer carries.
fn stamped(site: &Site, id: &str, seen: &Seen, mut answer: Answer) -> Answer {
    set(&mut answer, REQUEST_ID, id);
    set(&mut answer, ORG_ID, &site.issuer.workspace_id);
    set(&mut answer, IDENTITY, &seen.to_string());
    site.control.note_answer(id, answer.status().as_u16(), seen);
    answer
}

/// A call that needs a bearer.
async fn api(site: &Site, parts: Parts, body: Body) -> (Seen, Result<Answer, Refusal>) {
    let (seen, caller) = identify(site, &parts.headers);
    let mut call = match caller {
        Ok(caller) => Call {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
            headers: parts.headers,
            body: Some(body),
            caller,
        },
        Err(refusal) => {
            drain(Some(body)).await;
            return (seen, Err(refusal));
        }
    };
    let result = api::routes::dispatch(site, &mut call).await;
    drain(call.body.take()).await;
    (seen, result)
}

/// Who calls, by the bearer.
pub(super) fn identify(site: &Site, headers: &HeaderMap) -> (Seen, Result<Caller, Refusal>) {
    let token = match presented(headers) {
        Presented::Bearer(token) => token,
        Presented::Basic(..) | Presented::Nothing => {
            return (Seen::None, Err(Refusal::no_credential()));
        }
    };
    let verified = site.issuer.verify(token);
    let caller = verified.and_then(|v| Caller::find(&v.subject, v.scopes, &site.users, &site.app));
    match caller {
        None => (Seen::Invalid, Err(Refusal::invalid_token())),
        Some(caller) => {
            let scopes = caller.scopes.clone();
            let seen = if caller.is_app {
                Seen::App { scopes }
            } else {
                Seen::User {
                    email: caller.name.clone(),
                    scopes,
                }
            };
            (seen, Ok(caller))
        }
    }
}

/// A redirect.
pub(super) fn redirect(to: &str) -> Answer {
    let mut answer = super::answer::bare(StatusCode::FOUND);
    set(&mut answer, LOCATION, to);
    answer
}

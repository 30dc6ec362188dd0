//! The outbound story: the agent calls Databricks (PRODUCT 6, ARCHITECTURE 5.2).
//!
//! Read `serve` from top to bottom: who calls, what it asks, as whom, the record, the credential, the call. Nothing leaves
//! before its record is written, and the credential is attached last.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::domain::ask::{self, Bound, Call, CallerView, Owner, Resource, ResourceId};
use crate::domain::catalog::Operation;
use crate::domain::headers;
use crate::domain::path::CanonicalPath;
use crate::domain::policy::{self, Grant, decide};
use crate::domain::scope::ScopeSet;
use crate::runtime::audit_writer::Receipt;
use crate::runtime::credential::Credential;
use crate::runtime::http_client::{Body, empty, full, read_limited};
use crate::runtime::session::Caller;
use crate::runtime::upstream::{self, AuthorizedRequest, OutboundParts};

use super::body::{self, Outgoing};
use super::error::{DeniedCall, ProxyError};
use super::local_oidc::LocalOidc;
use super::record::RequestRecord;
use super::{Proxy, Snapshot, tap};

/// The largest error answer that is read to see whether the workspace refused the token itself, in bytes.
const REFUSAL_BYTES_MAX: u64 = 16 * 1024;

/// A failure, with the receipt of the call if its intent was written.
struct Failed {
    error: ProxyError,
    receipt: Option<Receipt>,
}

impl<E: Into<ProxyError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            receipt: None,
        }
    }
}

/// Serves one outbound request; errors become answers here.
pub async fn answer(
    proxy: &Arc<Proxy>,
    request: Request<Body>,
    mut record: RequestRecord,
) -> Response<Body> {
    if LocalOidc::owns(request.uri().path()) {
        return match local(proxy, request).await {
            Ok(response) => record.answered(response, None),
            Err(error) => record.refused(&error, None),
        };
    }
    match Box::pin(serve(proxy, request, &mut record)).await {
        Ok((response, receipt)) => record.answered(response, Some(receipt)),
        Err(Failed { error, receipt }) => record.refused(&error, receipt),
    }
}

async fn serve(
    proxy: &Arc<Proxy>,
    request: Request<Body>,
    record: &mut RequestRecord,
) -> Result<(Response<Body>, Receipt), Failed> {
    let snapshot = proxy.snapshot.load_full();
    let (mut parts, body) = request.into_parts();
    check_local(proxy, &parts)?;
    headers::strip_hop_by_hop(&mut parts.headers);
    let caller = caller(proxy, &mut parts, record)?;
    let path = CanonicalPath::parse(parts.uri.path()).map_err(ProxyError::from)?;
    ask::check_workspace_selectors(parts.uri.query(), proxy.settings.workspace_id.as_deref())
        .map_err(ProxyError::from)?;
    let operation = snapshot.policy.catalog().find(&parts.method, &path);
    let (mut outgoing, json) = read_body(
        proxy,
        &snapshot,
        &parts,
        &path,
        operation.map(|(_, o)| &**o),
        body,
        record,
    )
    .await?;
    let follow_up = proxy.follow_ups.view(operation.map(|(_, o)| &**o), &path);
    let query = parts.uri.query();
    let resources = operation
        .map_or_else(
            || Ok(Vec::new()),
            |(_, o)| ask::resources(o, &path, query, json.as_ref(), &follow_up),
        )
        .map_err(ProxyError::from)?;
    record.touches(operation.map(|(_, o)| &o.id), &resources);
    let (scopes, subject) = (caller_scopes(&caller), caller_view_subject(&caller));
    let view = subject
        .as_ref()
        .map_or(CallerView::App, |subject| CallerView::User {
            subject,
            scopes: &scopes,
        });
    let call = Call {
        method: &parts.method,
        path: &path,
        body: json.as_ref(),
        caller: view,
        operation,
        resources: &resources,
        follow_up: &follow_up,
    };
    let grant =
        decide(&snapshot.policy, &call).map_err(|denial| denied(&call, denial, &parts, record))?;
    record.granted(&grant);
    let receipt = record.intend().await.map_err(ProxyError::from)?;
    let operation = operation.map(|(_, o)| Arc::clone(o));
    let first = resources.first().map(|r| ResourceId {
        kind: r.kind.into(),
        id: r.id.as_ref().into(),
    });
    let outbound = OutboundParts {
        method: &parts.method,
        path: &path,
        query,
        headers: outbound_headers(&parts, operation.as_deref()),
    };
    let sending = Sending {
        proxy,
        grant: &grant,
        caller: &caller,
        parts: outbound,
    };
    let (response, receipt) = sending.send(&mut outgoing, receipt, record).await?;
    finish(
        proxy,
        response,
        receipt,
        operation.as_deref(),
        &caller,
        first,
    )
    .await
}

/// Only a client on this machine, by the sidecar's own name, not a page in some browser (SECURITY R15, R27).
fn check_local(proxy: &Proxy, parts: &Parts) -> Result<(), ProxyError> {
    headers::check_head(&parts.method, &parts.uri, parts.version, &parts.headers)?;
    if parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len())
        > proxy.settings.target_bytes_max
    {
        return Err(ProxyError::TargetTooLong);
    }
    let host = headers::host(&parts.uri, &parts.headers);
    let own_port = proxy.settings.outbound_address.port();
    let named = host.parse::<http::uri::Authority>().is_ok_and(|host| {
        crate::domain::identity::is_loopback_host(host.host()) && host.port_u16() == Some(own_port)
    });
    if !named {
        return Err(ProxyError::NotLocal(
            "the Host must be this listener's own loopback address and port",
        ));
    }
    if headers::is_cross_site(&parts.headers) {
        Err(ProxyError::NotLocal(
            "requests from web pages are not served here",
        ))
    } else {
        Ok(())
    }
}

async fn local(proxy: &Proxy, request: Request<Body>) -> Result<Response<Body>, ProxyError> {
    let (parts, body) = request.into_parts();
    check_local(proxy, &parts)?;
    proxy
        .local
        .answer(Request::from_parts(parts, body), &proxy.sessions)
        .await
        .ok_or(ProxyError::NoSuchLocal)
}

/// Who calls: only ever by one live local token.
fn caller(
    proxy: &Proxy,
    parts: &mut Parts,
    record: &mut RequestRecord,
) -> Result<Caller, ProxyError> {
    let presented = headers::take_bearer(&mut parts.headers)?
        .ok_or(ProxyError::LocalToken { presented: false })?;
    let caller = presented
        .to_str()
        .ok()
        .and_then(|token| proxy.sessions.caller(token))
        .ok_or(ProxyError::LocalToken { presented: true })?;
    if let Caller::User(session) = &caller {
        record.on_behalf_of(session.user(), session.label());
    }
    Ok(caller)
}

fn caller_scopes(caller: &Caller) -> ScopeSet {
    match caller {
        Caller::User(session) => session.scopes(),
        Caller::App => ScopeSet::default(),
    }
}

fn caller_view_subject(caller: &Caller) -> Option<crate::domain::identity::UserId> {
    match caller {
        Caller::User(session) => Some(session.subject().clone()),
        Caller::App => None,
    }
}

/// Reads the body where a decision needs it; otherwise leaves it to stream.
async fn read_body(
    proxy: &Proxy,
    snapshot: &Snapshot,
    parts: &Parts,
    path: &CanonicalPath,
    operation: Option<&Operation>,
    body: Body,
    record: &mut RequestRecord,
) -> Result<(Outgoing, Option<Value>), ProxyError> {
    if !snapshot.policy.reads_body(&parts.method, path, operation) {
        return Ok((Outgoing::stream(body), None));
    }
    let inspected = record
        .waiting(body::inspect(
            &parts.headers,
            body,
            proxy.settings.inspected_body_bytes_max,
        ))
        .await?;
    Ok((Outgoing::Bytes(inspected.bytes), Some(inspected.json)))
}

fn denied(
    call: &Call<'_>,
    denial: policy::Denial,
    parts: &Parts,
    record: &mut RequestRecord,
) -> ProxyError {
    record.denied(&denial);
    ProxyError::Denied(Box::new(DeniedCall {
        denial,
        call: format!("{} {}", parts.method, call.path.as_str()),
        operation: call
            .operation
            .map(|(_, operation)| Arc::clone(&operation.id)),
        resources: call
            .resources
            .iter()
            .map(|Resource { kind, id }| format!("{kind}/{id}"))
            .collect(),
        caller: if matches!(call.caller, CallerView::App) {
            "app"
        } else {
            "user"
        },
    }))
}

fn outbound_headers(parts: &Parts, operation: Option<&Operation>) -> http::HeaderMap {
    let mut headers = parts.headers.clone();
    headers::strip_outbound(&mut headers);
    if operation.is_some_and(|o| o.creates.is_some() || o.rewrites.is_some()) {
        // The answer is looked into; nothing here decompresses.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    headers
}

/// A granted call on its way: at most two attempts, the second only with a fresh app token and nothing streamed.
struct Sending<'a> {
    proxy: &'a Proxy,
    grant: &'a Grant,
    caller: &'a Caller,
    parts: OutboundParts<'a>,
}

impl Sending<'_> {
    async fn send(
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
        tracing::info!(request_id = %record.request_id(), "the workspace refused the app's token: replaced it, trying once more");
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
            error: ProxyError::Internal("a canonical path gave no URI"),
            receipt: Some(receipt),
        };
        let request = AuthorizedRequest::new(
            &self.proxy.workspace,
            self.parts.clone(),
            body,
            &credential,
            receipt,
        )
        .map_err(internal)?;
        match record
            .waiting(upstream::to_workspace(&self.proxy.workspace, request))
            .await
        {
            (receipt, Ok(response)) => Ok((response, credential, receipt)),
            (receipt, Err(fault)) => Err(Failed {
                error: ProxyError::Workspace(fault),
                receipt: Some(receipt),
            }),
        }
    }
}

/// Whether the workspace refused the token itself, rather than what was asked with it (facts 3.2). Reads only small error
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

/// Cleans the answer, binds the ids it gives out, and keeps the agent from walking around the sidecar by what it reads there.
async fn finish(
    proxy: &Arc<Proxy>,
    mut response: Response<Body>,
    receipt: Receipt,
    operation: Option<&Operation>,
    caller: &Caller,
    resource: Option<ResourceId>,
) -> Result<(Response<Body>, Receipt), Failed> {
    headers::clean_workspace_answer(response.headers_mut());
    relocate(proxy, &mut response);
    if let Some(member) = operation
        .and_then(|o| o.rewrites.as_deref())
        .filter(|_| response.status().is_success())
    {
        response = match tap::remove_member(response, member).await {
            Ok(response) => response,
            Err(cause) => {
                let error =
                    ProxyError::Workspace(crate::runtime::http_client::SendFault::Broken(cause));
                return Err(Failed {
                    error,
                    receipt: Some(receipt),
                });
            }
        };
    }
    if let Some(creates) = operation
        .and_then(|o| o.creates.as_ref())
        .filter(|_| response.status().is_success())
    {
        let owner = match caller {
            Caller::App => Owner::App,
            Caller::User(session) => Owner::User(session.subject().clone()),
        };
        let (table, kind) = (proxy.follow_ups.clone(), Arc::clone(&creates.kind));
        let bind = move |id: &str| table.bind(&kind, id, Bound { owner, resource });
        response = response.map(|body| tap::tap(body, &creates.field, bind).boxed_unsync());
    }
    Ok((response, receipt))
}

/// A `Location` on the workspace points at the sidecar instead; redirects are passed, never followed.
fn relocate(proxy: &Proxy, response: &mut Response<Body>) {
    let rest = response
        .headers()
        .get(LOCATION)
        .and_then(|l| l.to_str().ok())
        .and_then(|l| l.strip_prefix(&proxy.workspace_origin));
    let inside = rest.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
    let target = inside
        .and_then(|rest| HeaderValue::try_from(format!("{}{rest}", proxy.local.origin())).ok());
    if let Some(target) = target {
        response.headers_mut().insert(LOCATION, target);
    }
}

//! The outbound story: the agent calls Databricks (PRODUCT 6, ARCHITECTURE 5.2).
//!
//! Read `serve` from top to bottom: who calls, where it leads, what it asks, as whom, the record, the credential, the call. Nothing leaves
//! before its record is written, and the credential is attached last.

use std::sync::Arc;

use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::domain::ask::{
    self, Bound, Call, CallerView, FollowUpView, Owner, Resource, ResourceId,
};
use crate::domain::catalog::Operation;
use crate::domain::destination::Destination;
use crate::domain::headers;
use crate::domain::path::CanonicalPath;
use crate::domain::policy::{self, Grant, decide};
use crate::runtime::audit_writer::Receipt;
use crate::runtime::http_client::{Body, SendFault};
use crate::runtime::session::Caller;
use crate::runtime::upstream::OutboundParts;

use super::body::{self, Outgoing};
use super::error::{DeniedCall, ProxyError};
use super::local_oidc::LocalOidc;
use super::place::Place;
use super::record::RequestRecord;
use super::sending::{Failed, Sending};
use super::{Proxy, Snapshot, tap};

/// What a `Host` without a port means.
const HTTP_PORT: u16 = 80;

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
    let (destination, path) = proxy.upstreams.read(parts.uri.path())?;
    if destination == Destination::Workspace {
        ask::check_workspace_selectors(parts.uri.query(), proxy.settings.workspace_id.as_deref())
            .map_err(ProxyError::from)?;
    }
    let operation = destination.operation(snapshot.policy.catalog(), &parts.method, &path);
    let at = (&parts, &destination, &path);
    let (mut outgoing, json) = read_body(proxy, &snapshot, at, operation, body, record).await?;
    let follow_up = proxy.follow_ups.view(operation.map(|(_, o)| &**o), &path);
    let asked = Asked {
        parts: &parts,
        destination: &destination,
        path: &path,
        operation,
        body: json.as_ref(),
        follow_up: &follow_up,
    };
    let (grant, resource) = asked.judge(&snapshot, &caller, record)?;
    let receipt = record.intend().await.map_err(ProxyError::from)?;
    let sending = Sending {
        proxy,
        grant: &grant,
        caller: &caller,
        parts: asked.outbound(),
    };
    let (response, receipt) = sending.send(&mut outgoing, receipt, record).await?;
    finish(
        proxy,
        response,
        receipt,
        &Answered {
            operation: operation.map(|(_, o)| &**o),
            place: Place {
                destination: &destination,
                path: &path,
            },
            caller: &caller,
            resource,
        },
    )
    .await
}

/// What a request asks for, read in its one way.
struct Asked<'a> {
    parts: &'a Parts,
    destination: &'a Destination,
    path: &'a CanonicalPath,
    operation: Option<(usize, &'a Arc<Operation>)>,
    body: Option<&'a Value>,
    follow_up: &'a FollowUpView,
}

impl<'a> Asked<'a> {
    /// As whom it runs, and the first thing that it touches.
    fn judge(
        &self,
        snapshot: &Snapshot,
        caller: &Caller,
        record: &mut RequestRecord,
    ) -> Result<(Grant, Option<ResourceId>), ProxyError> {
        let query = self.parts.uri.query();
        let resources = self.operation.map_or_else(
            || Ok(self.destination.resource().into_iter().collect()),
            |(_, o)| ask::resources(o, self.path, query, self.body, self.follow_up),
        )?;
        record.touches(self.operation.map(|(_, o)| &o.id), &resources);
        let scopes;
        let caller = match caller {
            Caller::App => CallerView::App,
            Caller::User(session) => {
                // A reload may have lowered the ceiling since the session was opened.
                scopes = snapshot.under_ceiling(&session.scopes());
                CallerView::User {
                    subject: session.subject(),
                    scopes: &scopes,
                }
            }
        };
        let Self {
            parts,
            destination,
            path,
            operation,
            body,
            follow_up,
        } = *self;
        let call = Call {
            method: &parts.method,
            destination,
            path,
            body,
            caller,
            operation,
            resources: &resources,
            follow_up,
        };
        let grant =
            decide(&snapshot.policy, &call).map_err(|denial| denied(&call, denial, record))?;
        record.granted(&grant);
        let first = resources.first().map(|r| ResourceId {
            kind: r.kind.into(),
            id: r.id.as_ref().into(),
        });
        Ok((grant, first))
    }

    /// What leaves, but for the credential.
    fn outbound(&self) -> OutboundParts<'a> {
        let mut headers = self.parts.headers.clone();
        headers::strip_outbound(&mut headers);
        if self
            .operation
            .is_some_and(|(_, o)| o.creates.is_some() || o.rewrites.is_some())
        {
            // The answer is looked into; nothing here decompresses.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        OutboundParts {
            method: &self.parts.method,
            path: self.path,
            query: self.parts.uri.query(),
            headers,
        }
    }
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
        crate::domain::identity::is_loopback_host(host.host())
            && host.port_u16().unwrap_or(HTTP_PORT) == own_port
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

/// Reads the body where a decision needs it; otherwise leaves it to stream.
async fn read_body(
    proxy: &Proxy,
    snapshot: &Snapshot,
    (parts, destination, path): (&Parts, &Destination, &CanonicalPath),
    operation: Option<(usize, &Arc<Operation>)>,
    body: Body,
    record: &mut RequestRecord,
) -> Result<(Outgoing, Option<Value>), ProxyError> {
    let policy = &snapshot.policy;
    let decides = match destination {
        Destination::Workspace => {
            policy.reads_body(&parts.method, path, operation.map(|(_, o)| &**o))
        }
        Destination::Upstream(upstream) => policy.reads_upstream_body(&parts.method, &upstream.app),
    };
    if !decides {
        return Ok((Outgoing::stream(body), None));
    }
    let inspected = record
        .waiting(body::inspect(
            &parts.headers,
            body,
            proxy.settings.inspected_body_bytes_max,
        ))
        .await?;
    if *destination == Destination::Workspace {
        ask::check_members(Some(&inspected.json), policy.body_members(path))?;
    }
    Ok((Outgoing::Bytes(inspected.bytes), Some(inspected.json)))
}

fn denied(call: &Call<'_>, denial: policy::Denial, record: &mut RequestRecord) -> ProxyError {
    record.denied(&denial);
    ProxyError::Denied(Box::new(DeniedCall {
        denial,
        call: format!("{} {}", call.method, call.destination.as_asked(call.path)),
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

/// Whose answer it is.
struct Answered<'a> {
    operation: Option<&'a Operation>,
    place: Place<'a>,
    caller: &'a Caller,
    /// What the call touched; ids that the answer gives out stand for it.
    resource: Option<ResourceId>,
}

/// Cleans the answer, binds the ids it gives out, and keeps the agent from walking around the sidecar by what it reads there.
async fn finish(
    proxy: &Arc<Proxy>,
    mut response: Response<Body>,
    receipt: Receipt,
    asked: &Answered<'_>,
) -> Result<(Response<Body>, Receipt), Failed> {
    let Answered {
        operation,
        place,
        caller,
        resource,
    } = asked;
    headers::clean_far_answer(response.headers_mut());
    if place.leads_to_login(&response) {
        return Err(Failed {
            error: ProxyError::UpstreamLogin,
            receipt: Some(receipt),
        });
    }
    place.relocate(proxy, &mut response);
    if let Some(member) = operation
        .and_then(|o| o.rewrites.as_deref())
        .filter(|_| response.status().is_success())
    {
        let stand_in = |url: &str| place.stand_in(proxy, resource.as_ref(), url);
        response = match tap::rewrite_member(response, member, stand_in).await {
            Ok(response) => response,
            Err(cause) => {
                let error = ProxyError::Workspace(SendFault::Broken(cause));
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
        let (table, kind, resource) = (
            proxy.follow_ups.clone(),
            Arc::clone(&creates.kind),
            resource.clone(),
        );
        let bind = move |id: &str| table.bind(&kind, id, Bound { owner, resource });
        response = response.map(|body| tap::tap(body, &creates.field, bind).boxed_unsync());
    }
    Ok((response, receipt))
}

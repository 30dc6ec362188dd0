//! The outbound story: the agent calls Databricks (PRODUCT 6, ARCHITECTURE 5.2).
//!
//! Read `serve` from top to bottom: who calls, where it leads, what it asks, as whom, the record, the credential, the call.
//! Nothing leaves before its record is written, and the credential is attached last.

use std::sync::Arc;

use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use serde_json::Value;

use crate::domain::ask::{
    self, Call, CallerView, Partition, Request as AskRequest, ResourceId, Touch, touch,
};
use crate::domain::catalog::Operation;
use crate::domain::catalog::member::Place;
use crate::domain::destination::Destination;
use crate::domain::headers::{self, token_end};
use crate::domain::policy::denial::{Denial, DenyReason};
use crate::domain::policy::nearest::nearest;
use crate::domain::policy::{Grant, Policy, decide};
use crate::runtime::audit_writer::Receipt;
use crate::runtime::http_client::Body;
use crate::runtime::session::Caller;
use crate::runtime::upstream::OutboundParts;

use super::answered::Answered;
use super::body::{self, Outgoing};
use super::error::{DeniedCall, ProxyError};
use super::record::RequestRecord;
use super::sending::{Failed, Sending};
use super::target::Target;
use super::way::Way;
use super::{Proxy, Snapshot, error, partition, refusal};

/// Serves one outbound request; errors become answers here.
pub async fn answer(
    proxy: &Arc<Proxy>,
    request: Request<Body>,
    way: &Way,
    mut record: RequestRecord,
) -> Response<Body> {
    if way.is_local(request.uri().path()) {
        return match local(proxy, request, way).await {
            Ok(response) => record.answered(response, None),
            Err(error) => record.refused(&error, None),
        };
    }
    match Box::pin(serve(proxy, request, way, &mut record)).await {
        Ok((response, receipt)) => record.answered(response, Some(receipt)),
        Err(Failed { error, receipt }) => record.refused(&error, receipt),
    }
}

async fn serve(
    proxy: &Arc<Proxy>,
    request: Request<Body>,
    way: &Way,
    record: &mut RequestRecord,
) -> Result<(Response<Body>, Receipt), Failed> {
    let snapshot = proxy.snapshot.load_full();
    let (mut parts, body) = request.into_parts();
    check_local(proxy, &parts, way)?;
    headers::strip_hop_by_hop(&mut parts.headers);
    let caller = caller(proxy, &mut parts, record)?;
    let (destination, path) = way.read(&proxy.upstreams, parts.uri.path())?;
    let target = Target {
        destination: &destination,
        path: &path,
        way,
    };
    if destination == Destination::Workspace {
        ask::check_workspace_selectors(parts.uri.query(), proxy.settings.workspace_id.as_deref())
            .map_err(ProxyError::from)?;
    }
    let operation = destination.operation(snapshot.policy.catalog(), &parts.method, &path);
    let (mut outgoing, json) =
        read_body(proxy, &snapshot, (&parts, target), operation, body, record).await?;
    let asked = Asked {
        parts: &parts,
        destination: &destination,
        operation,
        request: AskRequest {
            path: &path,
            query: parts.uri.query(),
            headers: &parts.headers,
            body: json.as_ref(),
        },
    };
    let (grant, resource) = asked.judge(proxy, &snapshot, &caller, record)?;
    let receipt = record.intend().await.map_err(ProxyError::from)?;
    let sending = Sending {
        proxy,
        grant: &grant,
        caller: &caller,
        declared: snapshot.declared(),
        parts: asked.outbound(),
    };
    let sent = sending.send(&mut outgoing, receipt, record).await?;
    let answered = Answered {
        operation: operation.map(|(_, o)| &**o),
        target,
        caller: &caller,
        identity: grant.identity(),
        resource,
        created: record.created(),
    };
    let (mut response, receipt) = answered.hand_on(proxy, sent.response, sent.receipt).await?;
    if let Some(missing) = &sent.missing {
        refusal::tell(missing, &mut response, record);
    }
    if let Caller::User(session) = &caller {
        let (expires, now) = (session.token().expires(), proxy.clock.now());
        let ahead = proxy.settings.expiry_warning;
        token_end::warn(response.headers_mut(), expires, now, ahead);
    }
    Ok((response, receipt))
}

/// What a request asks for, read in its one way.
struct Asked<'a> {
    parts: &'a Parts,
    destination: &'a Destination,
    operation: Option<(usize, &'a Arc<Operation>)>,
    request: AskRequest<'a>,
}

impl<'a> Asked<'a> {
    /// As whom it runs, and the first thing that it touches.
    fn judge(
        &self,
        proxy: &Proxy,
        snapshot: &Snapshot,
        caller: &Caller,
        record: &mut RequestRecord,
    ) -> Result<(Grant, Option<ResourceId>), ProxyError> {
        let operation = self.operation.map(|(_, operation)| &**operation);
        let named = { operation.map(|o| touch::follow_up_id(o, &self.request)) }.transpose()?;
        let named = named.flatten();
        let named = named.as_ref().map(|(kind, id)| (*kind, &**id));
        let follow_up = proxy.follow_ups.view(named);
        // The id of a session, which stands in a header, is as good as a key to it.
        let rule = operation.and_then(|o| o.follow_up.as_ref());
        let shown = rule.is_some_and(|rule| !matches!(rule.place, Place::Header(_)));
        record.follows(named.filter(|_| shown));
        let touches = { self.destination }.touches(operation, &self.request, &follow_up)?;
        record.touches(operation.map(|o| &o.id), &touches);
        let partition = match operation {
            Some(operation) => partition::view(proxy, operation, &self.request, caller)?,
            None => Partition::None,
        };
        let scopes;
        let view = match caller {
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
        let call = Call {
            method: &self.parts.method,
            destination: self.destination,
            path: self.request.path,
            body: self.request.body,
            caller: view,
            operation: self.operation,
            touches: &touches,
            follow_up: &follow_up,
            partition,
            now: proxy.clock.now(),
        };
        let grant = decide(&snapshot.policy, &call)
            .map_err(|denial| denied(&snapshot.policy, &call, denial, self.speaks_mcp(), record))?;
        record.granted(&grant);
        let first = touches.first().and_then(|touch| touch.resource.as_ref());
        let first = first.map(|r| ResourceId {
            kind: r.kind.into(),
            id: r.id.as_ref().into(),
        });
        Ok((grant, first))
    }

    /// Whether the answer goes to an MCP client. What another app speaks nobody but its client can say.
    fn speaks_mcp(&self) -> bool {
        match self.operation {
            Some((_, operation)) => operation.mcp.is_some(),
            None => {
                *self.destination != Destination::Workspace
                    && error::mcp::is_spoken(&self.parts.headers)
            }
        }
    }

    /// What leaves, but for the credential.
    fn outbound(&self) -> OutboundParts<'a> {
        let mut headers = self.parts.headers.clone();
        headers::strip_outbound(&mut headers);
        if self.operation.is_some_and(|(_, o)| o.looks_into_answer()) {
            // The answer is looked into; nothing here decompresses.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        OutboundParts {
            method: &self.parts.method,
            path: self.request.path,
            query: self.request.query,
            headers,
        }
    }
}

/// Only a client on this machine, by the sidecar's own name, not a page in some browser (SECURITY R15, R27).
fn check_local(proxy: &Proxy, parts: &Parts, way: &Way) -> Result<(), ProxyError> {
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
    if !way.is_called(proxy.settings.outbound_address, host) {
        return Err(ProxyError::NotLocal(match way {
            Way::Direct { .. } => "the Host must be this listener's own loopback address and port",
            Way::Inside(_) => "the Host must be the one that the tunnel was asked for",
        }));
    }
    if headers::is_cross_site(&parts.headers) {
        Err(ProxyError::NotLocal(
            "requests from web pages are not served here",
        ))
    } else {
        Ok(())
    }
}

async fn local(
    proxy: &Proxy,
    request: Request<Body>,
    way: &Way,
) -> Result<Response<Body>, ProxyError> {
    let (parts, body) = request.into_parts();
    check_local(proxy, &parts, way)?;
    let (request, origin) = (Request::from_parts(parts, body), way.origin(proxy));
    proxy
        .local
        .answer(request, &origin, &proxy.sessions)
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
    (parts, target): (&Parts, Target<'_>),
    operation: Option<(usize, &Arc<Operation>)>,
    body: Body,
    record: &mut RequestRecord,
) -> Result<(Outgoing, Option<Value>), ProxyError> {
    let (policy, operation) = (&snapshot.policy, operation.map(|(_, o)| &**o));
    let (decides, members) = match target.destination {
        Destination::Workspace => (
            policy.reads_body(&parts.method, target.path, operation),
            policy.body_members(target.path),
        ),
        Destination::Upstream(upstream) => {
            let decides = policy.reads_upstream_body(&parts.method, upstream);
            (decides, Vec::new())
        }
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
    ask::check_members(Some(&inspected.json), members)?;
    Ok((Outgoing::Bytes(inspected.bytes), Some(inspected.json)))
}

fn denied(
    policy: &Policy,
    call: &Call<'_>,
    denial: Denial,
    speaks_mcp: bool,
    record: &mut RequestRecord,
) -> ProxyError {
    record.denied(&denial);
    let unmatched = denial.reason == DenyReason::NoRoute;
    ProxyError::Denied(Box::new(DeniedCall {
        nearest: { unmatched.then(|| nearest(policy, call, None)) }.flatten(),
        denial,
        call: format!("{} {}", call.method, call.destination.as_asked(call.path)),
        operation: call
            .operation
            .map(|(_, operation)| Arc::clone(&operation.id)),
        resources: call.touches.iter().filter_map(name_of).collect(),
        caller: if matches!(call.caller, CallerView::App) {
            "app"
        } else {
            "user"
        },
        speaks_mcp,
    }))
}

/// How a denial calls what was touched.
fn name_of(touch: &Touch<'_>) -> Option<String> {
    let resource = touch.resource.as_ref()?;
    let tool = touch.message.and_then(|message| message.tool);
    let name = format!("{}/{}", resource.kind, resource.id);
    Some(match tool {
        Some(tool) => format!("{name} tool {tool}"),
        None => name,
    })
}

//! One record per request: opened first, closed exactly once, whatever happens to the peer.
//!
//! Audit, metrics and log are three views of this value. It is filled by the flow as facts become known; dropping it
//! unfinished means that the caller went away. Knows no decision. `runtime/audit_writer.rs` writes what it says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::ask::Touch;
use crate::domain::audit::{
    Decision, Event, Identity, Mcp, Record, Resource as AuditResource, Text, User,
};
use crate::domain::headers;
use crate::domain::missing::Missing;
use crate::domain::policy::denial::Denial;
use crate::domain::policy::{self, Grant, Route};
use crate::runtime::audit_writer::{AuditUnavailable, AuditWriter, Receipt};
use crate::runtime::http_client::Body;
use crate::runtime::metrics::{Direction, Metrics, RequestLabels};

use self::recorded::Recorded;
use self::words::{chain, clipped, known_method, trace_id};
use super::error::ProxyError;

mod recorded;
pub mod tunnelled;
mod words;

/// The status in records of a peer that left before the answer was whole (the field's convention).
const CLIENT_GONE: u16 = 499;

/// The places a record ends up in.
#[derive(Clone)]
pub struct Sinks {
    /// The audit log.
    pub audit: Arc<AuditWriter>,
    /// The counters.
    pub metrics: Metrics,
    /// Cancelled when the drain time is over: whoever goes then was cut.
    pub cut: CancellationToken,
}

impl Sinks {
    /// Why a flow ends that is dropped in the middle.
    fn dropped(&self) -> &'static str {
        if std::thread::panicking() {
            "internal"
        } else if self.cut.is_cancelled() {
            "cut_off"
        } else {
            "client_gone"
        }
    }
}

/// What is known of one request so far.
pub struct RequestRecord {
    sinks: Sinks,
    direction: Direction,
    started: Instant,
    /// Time spent waiting for others: not the sidecar's own.
    waited: Duration,
    call: Uuid,
    request_id: Arc<str>,
    base: Record,
    route: Option<Arc<Route>>,
    receipt: Option<Receipt>,
    sent: Arc<AtomicU64>,
    received: u64,
    created: Created,
    status: u16,
    closed: bool,
}

/// The id that the answer gives out, noted while it streams by.
#[derive(Debug, Clone, Default)]
pub struct Created(Arc<OnceLock<AuditResource>>);

impl Created {
    /// Notes it; the first one stands.
    pub fn note(&self, kind: &Arc<str>, id: &str) {
        let _ = self.0.set(AuditResource {
            kind: Text::Shared(Arc::clone(kind)),
            id: Text::from(clipped(id)),
        });
    }
}

impl RequestRecord {
    /// Opens the record of a request that has just arrived.
    pub fn open(sinks: Sinks, direction: Direction, call: Uuid) -> Self {
        let request_id: Arc<str> = call.to_string().into();
        let mut base = Record::new(Event::Denial);
        base.call = Some(call);
        sinks.metrics.inflight(direction).inc();
        Self {
            sinks,
            direction,
            started: Instant::now(),
            waited: Duration::ZERO,
            call,
            request_id,
            base,
            route: None,
            receipt: None,
            sent: Arc::default(),
            received: 0,
            created: Created::default(),
            status: CLIENT_GONE,
            closed: false,
        }
    }

    /// Which side it came in on.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The call id: always ours, never the caller's.
    pub fn request_id(&self) -> &Arc<str> {
        &self.request_id
    }

    /// The counter of body bytes on their way to the far side.
    pub fn sent(&self) -> &Arc<AtomicU64> {
        &self.sent
    }

    /// Notes the method and path (without the query), and the ids that the caller brought for correlation.
    pub fn asks(&mut self, method: &http::Method, path: &str, headers: &HeaderMap) {
        self.base.method = Some(
            known_method(method).map_or_else(|| Text::from(clipped(method.as_str())), Text::Fixed),
        );
        self.base.path = Some(Text::from(clipped(path)));
        let claimed = headers
            .get(headers::REQUEST_ID)
            .and_then(|v| v.to_str().ok())
            .filter(|v| v.len() <= 128);
        self.base.request_id = Some(claimed.map_or_else(
            || Text::Shared(Arc::clone(&self.request_id)),
            |v| Text::from(v.to_owned()),
        ));
        self.base.trace_id = headers
            .get("traceparent")
            .and_then(|v| v.to_str().ok())
            .and_then(trace_id)
            .map(|id| Text::from(id.to_owned()));
    }

    /// Notes on whose behalf, and in which session.
    pub fn on_behalf_of(&mut self, user: &Arc<User>, session: &Arc<str>) {
        self.base.user = Some(Arc::clone(user));
        self.base.session = Some(Text::Shared(Arc::clone(session)));
    }

    /// Notes the user of a request that has no session (yet).
    pub fn by(&mut self, user: User) {
        self.base.user = Some(Arc::new(user));
    }

    /// Notes what the call touches.
    pub fn touches(&mut self, operation: Option<&Arc<str>>, touches: &[Touch<'_>]) {
        self.base.operation = operation.map(|id| Text::Shared(Arc::clone(id)));
        let resource = touches.first().and_then(|touch| touch.resource.as_ref());
        self.base.resource = resource.map(|r| AuditResource {
            kind: Text::from(r.kind.to_owned()),
            id: Text::from(r.id.to_string()),
        });
        // In a batch a tool call tells more than the messages around it.
        let said = { touches.iter() }.filter_map(|touch| touch.message);
        let said = said.max_by_key(|message| message.tool.is_some());
        self.base.mcp = said.and_then(|message| {
            Some(Mcp {
                method: Text::from(clipped(message.method?)),
                tool: message.tool.map(|tool| Text::from(clipped(tool))),
            })
        });
    }

    /// Notes the statement or conversation that the call names.
    pub fn follows(&mut self, follow_up: Option<(&str, &str)>) {
        self.base.follow_up = follow_up.map(|(kind, id)| AuditResource {
            kind: Text::from(kind.to_owned()),
            id: Text::from(clipped(id)),
        });
    }

    /// Where to note the id that the answer gives out.
    pub fn created(&self) -> Created {
        self.created.clone()
    }

    /// Notes a decision in favour.
    pub fn granted(&mut self, grant: &Grant) {
        self.route = Some(Arc::clone(grant.route()));
        self.base.route = Some(Text::Shared(Arc::clone(&grant.route().name)));
        self.base.decision = Some(Decision::Allow);
        if let Some(reason) = grant.would_deny() {
            self.base.decision = Some(Decision::WouldDeny);
            self.base.reason = Some(Text::Fixed(reason.code()));
            let route = &grant.route().name;
            self.sinks.metrics.observed_denial(route, reason.code());
        }
        self.base.identity = Some(match grant.identity() {
            policy::Identity::App => Identity::App,
            policy::Identity::User => Identity::User,
        });
    }

    /// Notes a decision against.
    pub fn denied(&mut self, denial: &Denial) {
        self.route.clone_from(&denial.route);
        self.base.route = denial
            .route
            .as_ref()
            .map(|route| Text::Shared(Arc::clone(&route.name)));
    }

    /// Notes that the workspace itself refused a granted call, and what it lacks.
    pub fn lacks(&mut self, missing: &Missing) {
        let plane = missing.plane.as_str();
        self.base.reason = Some(Text::Fixed(missing.plane.reason()));
        self.sinks.metrics.platform_refusal(plane);
        let scope = missing.scope.as_ref().map(tracing::field::display);
        let said = missing.said.as_ref().map(|required| &*required.said);
        tracing::info!(request_id = %self.request_id, plane, scope, said, remedy = missing.remedy.text(), "the workspace refused the call");
    }

    /// Writes the intent and waits until it is in the log.
    ///
    /// # Errors
    /// When it cannot be written: the call must not be made.
    pub async fn intend(&mut self) -> Result<Receipt, AuditUnavailable> {
        let mut record = self.base.clone();
        record.event = Event::Intent;
        let mut receipt = self.sinks.audit.intent(record).await?;
        let (sinks, sent, started) = (self.sinks.clone(), Arc::clone(&self.sent), self.started);
        receipt.if_dropped(move |record| {
            let reason = sinks.dropped();
            record.reason = Some(Text::Fixed(reason));
            record.status = Some(dropped_status(reason));
            measure(record, &sent, 0, started);
        });
        Ok(receipt)
    }

    /// Runs a wait for somebody else; its time is not the sidecar's own.
    pub async fn waiting<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let from = Instant::now();
        let done = wait.await;
        self.waited += from.elapsed();
        done
    }

    /// The far side has answered: from here on the body carries the record to its end.
    pub fn answered(
        mut self,
        response: Response<Body>,
        receipt: Option<Receipt>,
    ) -> Response<Body> {
        self.receipt = receipt;
        self.status = response.status().as_u16();
        self.base.status = Some(self.status);
        if self.direction == Direction::Outbound {
            let id = response
                .headers()
                .get(headers::REQUEST_ID)
                .and_then(|v| v.to_str().ok());
            self.base.upstream_request_id = id.map(|id| Text::from(id.to_owned()));
        } else {
            // For the metrics: whoever was let in was let in as somebody or nobody.
            self.base.decision = Some(Decision::Allow);
            self.base.identity = self.base.user.as_ref().map(|_| Identity::User);
        }
        self.own_share();
        response.map(|body| Recorded::new(body, self).boxed_unsync())
    }

    /// The request is refused: writes the denial and makes the answer.
    pub fn refused(mut self, error: &ProxyError, receipt: Option<Receipt>) -> Response<Body> {
        let reason = error.reason();
        let response = error.to_response(&self.request_id);
        self.status = response.status().as_u16();
        self.base.status = Some(self.status);
        self.base.reason = Some(Text::Fixed(reason));
        self.base.event = if matches!(error, ProxyError::Token(_)) {
            Event::TokenRejected
        } else {
            Event::Denial
        };
        // With a receipt the call was allowed and failed on its way: its outcome says so.
        if receipt.is_none() {
            self.base.decision = Some(Decision::Deny);
            self.base.identity = Some(Identity::None);
        }
        self.receipt = receipt;
        self.sinks.metrics.denial(reason);
        let (fault, source) = (error.fault(), chain(error));
        tracing::info!(request_id = %self.request_id, direction = self.direction.as_str(), reason, ?fault, status = self.status, cause = %source, "refused");
        self.own_share();
        let refused = self.receipt.is_none();
        if refused {
            self.sinks.audit.note(self.base.clone());
        }
        self.close(None);
        response
    }

    fn own_share(&self) {
        self.sinks.metrics.overhead(
            self.direction,
            self.started.elapsed().saturating_sub(self.waited),
        );
    }

    /// The one end of every request: counts it, and writes the outcome if there was an intent.
    fn close(&mut self, ending: Option<&'static str>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let Sinks { audit, metrics, .. } = &self.sinks;
        metrics.inflight(self.direction).dec();
        let labels = RequestLabels {
            direction: self.direction,
            route: self.route.as_ref().map_or("none", |route| &route.name),
            identity: self.base.identity.map_or("none", Identity::as_str),
            decision: self.base.decision.map_or("none", Decision::as_str),
            code: self.status,
        };
        metrics.request(labels, self.started.elapsed());
        if let Some(receipt) = self.receipt.take() {
            let mut record = self.base.clone();
            record.event = Event::Outcome;
            record.reason = ending.map(Text::Fixed).or(record.reason);
            if let Some(created) = self.created.0.get() {
                record.follow_up = Some(created.clone());
            }
            measure(&mut record, &self.sent, self.received, self.started);
            audit.outcome(receipt, record);
        }
        tracing::debug!(call = %self.call, direction = self.direction.as_str(), status = self.status, ending, "request ended");
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let reason = self.sinks.dropped();
        if self.base.status.is_none() {
            self.status = dropped_status(reason);
        }
        self.close(Some(reason));
    }
}

fn dropped_status(reason: &str) -> u16 {
    if reason == "internal" {
        500
    } else {
        CLIENT_GONE
    }
}

fn measure(record: &mut Record, sent: &AtomicU64, received: u64, started: Instant) {
    record.bytes_sent = Some(sent.load(Ordering::Relaxed));
    record.bytes_received = Some(received);
    let elapsed = u64::try_from(started.elapsed().as_millis());
    record.duration_ms = Some(elapsed.unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::audit_writer::AuditSettings;
    use crate::runtime::http_client::full;

    #[tokio::test]
    async fn a_panic_after_the_intent_leaves_an_outcome_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log.jsonl");
        let metrics = Metrics::new().unwrap();
        let clock = Arc::new(crate::domain::clock::SystemClock);
        let settings = AuditSettings::new(file.clone());
        let audit = AuditWriter::start(&settings, clock, metrics.clone()).unwrap();
        let sinks = Sinks {
            audit: Arc::new(audit),
            metrics,
            cut: CancellationToken::new(),
        };
        for with_receipt_in_the_flow in [true, false] {
            let mut record =
                RequestRecord::open(sinks.clone(), Direction::Outbound, Uuid::now_v7());
            let flow = tokio::spawn(async move {
                let receipt = record.intend().await.unwrap();
                if with_receipt_in_the_flow {
                    std::panic::resume_unwind(Box::new("as the test wants it"));
                }
                let _answer = record.answered(Response::new(full("x")), Some(receipt));
                std::panic::resume_unwind(Box::new("as the test wants it"));
            });
            assert!(flow.await.unwrap_err().is_panic());
        }
        sinks.audit.close().await.unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!(text.matches(r#""event":"intent""#).count(), 2, "{text}");
        let ends = r#""event":"outcome""#;
        let ends: Vec<&str> = text.lines().filter(|line| line.contains(ends)).collect();
        assert_eq!(ends.len(), 2, "{text}");
        let says = |line: &&str| line.contains(r#""reason":"internal""#);
        assert!(ends.iter().all(says), "{text}");
    }
}

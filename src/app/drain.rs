//! The end of a running sidecar: inbound first, since agents call out while they answer, then outbound, then the audit log.
//!
//! `app.rs` starts what is ended here; `supervise.rs` decides when.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::Running;
use crate::domain::audit::{Event, Record};
use crate::proxy::inbound;

/// What connections may take to end that are cut.
const CUT_TIME: Duration = Duration::from_millis(500);

impl Running {
    /// Waits until inbound, then outbound, has nothing running. Looked at only after `stop_inbound` is cancelled; stops
    /// outbound by itself once inbound is idle.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        let (inbound, outbound, tunnels) = (
            self.inbound_tasks.clone(),
            self.outbound_tasks.clone(),
            self.proxy.tunnels.clone(),
        );
        let (stop_inbound, stop_outbound) = (self.stop_inbound.clone(), self.stop_outbound.clone());
        async move {
            stop_inbound.cancelled().await;
            for tasks in [&inbound, &tunnels] {
                tasks.close();
                tasks.wait().await;
            }
            stop_outbound.cancel();
            outbound.close();
            outbound.wait().await;
        }
    }

    /// The end: cuts what is left, so that it has an outcome, writes the last records, closes the audit log.
    pub async fn finish(self) {
        let begun = *self.stop_begun.get_or_init(Instant::now);
        let ship_by = (begun + self.drain_time).max(Instant::now() + self.ship_time);
        self.finish_by(ship_by).await;
    }

    async fn finish_by(self, ship_by: Instant) {
        self.stop_inbound.cancel();
        self.stop_outbound.cancel();
        self.stop_admin.cancel();
        self.cut.cancel();
        let cut = async {
            for tasks in [&self.inbound_tasks, &self.outbound_tasks] {
                tasks.close();
                tasks.wait().await;
            }
        };
        if tokio::time::timeout(CUT_TIME, cut).await.is_err() {
            tracing::warn!("some connections could not be cut");
        }
        let audit = &self.proxy.sinks.audit;
        for session in self.proxy.sessions.end_all() {
            audit.note(inbound::session_record(Event::SessionClosed, &session));
        }
        audit.note(Record::new(Event::Stop));
        if let Err(fault) = audit.close().await {
            tracing::error!(%fault, "the audit log could not be closed in good order");
        }
        if let Some(shipper) = &self.shipper {
            shipper.finish(ship_by).await;
        }
        self.admin_tasks.close();
    }

    /// Drains within the drain time, then ends.
    pub async fn stop(self) {
        self.stop_by(std::future::pending()).await;
    }

    /// `serve`: the same, but ends at once when `hurry` completes.
    pub async fn stop_by(self, hurry: impl Future<Output = ()>) {
        self.stop_inbound.cancel();
        let for_requests = self.drain_time.saturating_sub(self.ship_time);
        let mut hurry = std::pin::pin!(hurry);
        tokio::select! {
            () = self.drained() => {}
            () = tokio::time::sleep(for_requests) => tracing::warn!(
                seconds = for_requests.as_secs(),
                "the drain time is over; requests in flight are cut"
            ),
            () = hurry.as_mut() => {
                tracing::warn!("asked twice to stop; requests in flight are cut");
                return self.finish_by(Instant::now()).await;
            }
        }
        self.finish().await;
    }
}

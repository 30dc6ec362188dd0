//! The end of a running sidecar: inbound first, since agents call out while they answer, then outbound, then the audit log.
//!
//! `app.rs` starts what is ended here; `supervise.rs` decides when.

use std::future::Future;
use std::time::Duration;

use super::Running;
use crate::domain::audit::{Event, Record};
use crate::proxy::inbound;

/// What the last part of the audit log may take to get to its volume: the platform grants 15 s in all.
const LAST_SHIP_TIME: Duration = Duration::from_secs(3);
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
        self.stop_shipping.cancel();
        if let Some(shipping) = self.shipping
            && let Ok(shipper) = shipping.await
        {
            shipper.finish(LAST_SHIP_TIME).await;
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
        tokio::select! {
            () = self.drained() => {}
            () = tokio::time::sleep(self.drain_time) => tracing::warn!(
                seconds = self.drain_time.as_secs(),
                "the drain time is over; requests in flight are cut"
            ),
            () = hurry => tracing::warn!("asked twice to stop; requests in flight are cut"),
        }
        self.finish().await;
    }
}

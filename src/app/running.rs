//! A serving sidecar, seen from outside: where it listens, what stops it, what its parts are.
//!
//! `app.rs` starts it; `drain.rs` ends it.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Running;
use crate::domain::scope::ScopeSet;
use crate::proxy::Proxy;
use crate::proxy::admin::{Addresses, Admin};
use crate::runtime::listener::Stop;
use crate::runtime::shipper::Shipper;

impl Running {
    /// Has the time of the stop noted: from then on the drain time runs, whoever drains.
    pub(super) fn note_stop(&self) {
        let (stop, begun) = (self.stop_inbound.clone(), Arc::clone(&self.stop_begun));
        tokio::spawn(async move {
            stop.cancelled().await;
            begun.get_or_init(Instant::now);
        });
    }

    pub(super) fn stop_of(&self, gently: &CancellationToken) -> Stop {
        Stop {
            gently: gently.clone(),
            at_once: self.cut.clone(),
        }
    }

    /// Where the listeners are.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The root of the local CA, where one was made: what the agent has to trust.
    pub fn root(&self) -> Option<&CertificateDer<'static>> {
        self.root.as_ref()
    }

    /// The shared parts.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// The admin view.
    pub fn admin(&self) -> &Arc<Admin> {
        &self.admin
    }

    /// What ships the audit log, if anything does.
    pub fn shipper(&self) -> Option<&Arc<Shipper>> {
        self.shipper.as_ref()
    }

    /// `limits.drain_time`.
    pub fn drain_time(&self) -> Duration {
        self.drain_time
    }

    /// The part of the drain time that is kept for shipping the end of the audit log; zero where nothing is shipped.
    pub fn ship_time(&self) -> Duration {
        self.ship_time
    }

    /// Cancelled: no new inbound request is taken.
    pub fn stop_inbound(&self) -> &CancellationToken {
        &self.stop_inbound
    }

    /// Cancelled: no new outbound call is taken. Inbound is stopped first, since agents call out while they answer.
    pub fn stop_outbound(&self) -> &CancellationToken {
        &self.stop_outbound
    }

    /// Fetches one token for the app before anybody needs it, so that `/readyz` tells of a wrong secret from the start.
    /// Without a route that always runs as the app there may never be such a call, and none is made.
    pub fn try_app_credential(&self) {
        let proxy = Arc::clone(&self.proxy);
        tokio::spawn(async move {
            let scope = proxy.snapshot.load().policy.first_app_scope();
            if let Some(scope) = scope
                && let Err(fault) = proxy.credentials.app().token(&ScopeSet::new([scope])).await
            {
                tracing::error!(%fault, "the app's credential does not work; calls that run as the app will be refused");
            }
        });
    }
}

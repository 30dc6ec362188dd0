//! From the configuration to what https and CONNECT need: the local CA with all that it ever signs, and the forward proxy.
//!
//! `wire.rs` makes the other parts, `app.rs` puts them together.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::domain::clock::{Clock as _, SystemClock};
use crate::domain::destination::Destination;
use crate::domain::problem::Problem;
use crate::domain::tunnel::Host;
use crate::proxy::connect::Forward;
use crate::proxy::way::{self, StandIn};
use crate::runtime::listener::{Serving, Stop};
use crate::runtime::local_ca::LocalCa;
use crate::runtime::trust_bundle::TrustBundle;

use super::wire::listener_limits;

/// When outbound ends, and what of it runs: its connections, and the tunnels that came out of them.
pub(super) struct Calls {
    pub(super) stop: Stop,
    pub(super) tasks: TaskTracker,
}

impl Calls {
    pub(super) fn until(cut: &CancellationToken) -> Self {
        Self {
            stop: Stop {
                gently: CancellationToken::new(),
                at_once: cut.clone(),
            },
            tasks: TaskTracker::new(),
        }
    }
}

/// What of the agent's side is made of certificates.
#[derive(Default)]
pub(super) struct Certificates {
    /// Of the listener itself.
    pub(super) listener: Option<Arc<ServerConfig>>,
    /// Of the hosts that tunnels end here for.
    pub(super) stand_ins: Vec<Arc<StandIn>>,
    /// What clients have to trust; its key is gone.
    pub(super) root: Option<CertificateDer<'static>>,
}

/// Makes the local CA and all that it ever signs.
pub(super) fn certificates(config: &Config) -> Result<Certificates, Vec<Problem>> {
    let outbound = &config.outbound;
    if !outbound.tls && !outbound.forward {
        let unused = outbound.trust_file.is_some();
        let problem = Problem::new("outbound.trust_file", "there is no local CA to be trusted");
        let hint = "set outbound.tls or outbound.forward to on, or remove the key";
        return if unused {
            Err(vec![problem.hint(hint)])
        } else {
            Ok(Certificates::default())
        };
    }
    let fault = |key: &str, fault: String| vec![Problem::new(key, fault)];
    let key = if outbound.tls {
        "outbound.tls"
    } else {
        "outbound.forward"
    };
    // The clients' clocks are what a certificate must agree with, so this is the real time also in tests.
    let ca = LocalCa::new(SystemClock.now()).map_err(|f| fault(key, f.to_string()))?;
    let mut made = Certificates {
        root: Some(ca.certificate()),
        ..Certificates::default()
    };
    write_trust_file(config, &ca.certificate())?;
    if outbound.tls {
        let names = ["127.0.0.1", "::1", "localhost"];
        let server = ca.serve_as(&names).map_err(|f| fault(key, f.to_string()))?;
        made.listener = Some(server);
    }
    if outbound.forward {
        let upstreams = config.outbound.destinations();
        let workspace = (
            "workspace.host",
            &config.workspace.origin,
            Destination::Workspace,
        );
        let all = upstreams.iter().map(|u| {
            let to = Destination::Upstream(Arc::clone(u));
            ("outbound.upstreams", &u.origin, to)
        });
        for (key, origin, destination) in std::iter::once(workspace).chain(all) {
            let place = way::place(origin).map_err(|f| fault(key, f.to_string()))?;
            let name = match &place.host {
                Host::Name(name) => name.to_string(),
                Host::Address(address) => address.to_string(),
            };
            let tls = ca
                .serve_as(&[&name])
                .map_err(|f| fault(key, f.to_string()))?;
            made.stand_ins.push(Arc::new(StandIn {
                destination,
                place,
                tls,
            }));
        }
    }
    Ok(made)
}

/// The forward proxy, if there is to be one.
pub(super) fn forward(
    config: &Config,
    stand_ins: Vec<Arc<StandIn>>,
    calls: &Calls,
) -> Option<Arc<Forward>> {
    config.outbound.forward.then(|| {
        Arc::new(Forward {
            stand_ins,
            allowed: config.outbound.allow_hosts.clone(),
            slots: Arc::new(Semaphore::new(config.limits.tunnels)),
            connect_time: config.limits.connect_time,
            idle_time: config.limits.tunnel_idle_time,
            serving: Serving::new(listener_limits(&config.limits), calls.stop.clone()),
            tasks: calls.tasks.clone(),
        })
    })
}

/// Writes the root and the public ones for an agent that somebody else starts. Readers see the old file or the new one.
fn write_trust_file(config: &Config, root: &CertificateDer<'static>) -> Result<(), Vec<Problem>> {
    let Some(file) = &config.outbound.trust_file else {
        return Ok(());
    };
    let problem = |message: String| vec![Problem::new("outbound.trust_file", message)];
    let bundle = TrustBundle::of_the_system();
    if bundle.is_empty() {
        let message = "this system has no public roots to put beside the local CA";
        let problem = Problem::new("outbound.trust_file", message);
        let hint = "install ca-certificates, or set SSL_CERT_FILE to a bundle";
        return Err(vec![problem.hint(hint)]);
    }
    let mut beside = file.clone().into_os_string();
    beside.push(".new");
    std::fs::write(&beside, bundle.with_own(root))
        .and_then(|()| std::fs::rename(&beside, file))
        .map_err(|fault| problem(format!("cannot be written: {fault}")))
}

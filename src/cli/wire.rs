//! `run --wire`: how the agent's calls are led to the sidecar, and what makes the agent trust it.
//!
//! `supervise/environment/wire.rs` knows the variables; `serve.rs` starts the agent.

use std::net::SocketAddr;
use std::path::Path;

use rustls::pki_types::CertificateDer;

use crate::config::Config;
use crate::domain::problem::Problem;
use crate::proxy::way;
use crate::runtime::trust_bundle::TrustBundle;
use crate::supervise::environment::wire::{self, Wire};
use crate::supervise::trust::TrustFile;

use super::World;

/// Hosts of a workspace that clients never ask a proxy for (`NO_PROXY`).
const NEVER_PROXIED: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The configuration, and the one in force: the command line may switch something on.
#[derive(Clone, Copy)]
pub(super) struct Configs<'c> {
    /// What a reload is compared with.
    pub(super) written: &'c Config,
    pub(super) config: &'c Config,
}

impl<'c> Configs<'c> {
    /// Nothing is switched on.
    pub(super) fn as_written(config: &'c Config) -> Self {
        Self {
            written: config,
            config,
        }
    }
}

/// How the agent's calls are led to the sidecar.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum WireWord {
    /// DATABRICKS_HOST is the sidecar
    Host,
    /// DATABRICKS_HOST stays the workspace, and HTTPS_PROXY is the sidecar (switches outbound.tls and outbound.forward on)
    Forward,
}

impl WireWord {
    /// The configuration in force.
    pub(super) fn applied(self, written: &Config) -> Config {
        let mut config = written.clone();
        if self == Self::Forward {
            config.outbound.tls = true;
            config.outbound.forward = true;
        }
        config
    }

    /// What the agent is told; the sidecar listens there.
    pub(super) fn told(self, config: &Config, outbound: SocketAddr) -> Wire {
        match self {
            Self::Host => Wire::Host,
            Self::Forward => forward(config, outbound),
        }
    }
}

/// The sidecar as the proxy in front of the workspace and the upstreams.
fn forward(config: &Config, outbound: SocketAddr) -> Wire {
    let workspace = &config.workspace.origin;
    let upstreams = config.outbound.upstreams.iter().map(|u| &u.reached.origin);
    let hosts: Vec<String> = std::iter::once(workspace)
        .chain(upstreams)
        .map(|origin| origin.host().to_owned())
        .collect();
    if hosts.iter().any(|host| NEVER_PROXIED.contains(&&**host)) {
        tracing::warn!(
            "clients do not use a proxy for 127.0.0.1 and localhost: give a workspace on this machine another name"
        );
    }
    Wire::Forward {
        workspace: way::https(workspace),
        hosts,
        proxy: way::direct_origin(outbound, false),
    }
}

/// The bundle that makes the child trust the sidecar and everybody whom it would trust without it.
pub(super) fn trust(root: &CertificateDer<'static>, world: &World) -> Result<TrustFile, Problem> {
    let mut bundle = TrustBundle::of_the_system();
    for path in wire::named_bundles(&world.variables) {
        if !bundle.add_path(&path) {
            tracing::warn!(path = %path.display(), "no certificate was found in a bundle that the environment names");
        }
    }
    if bundle.is_empty() {
        let message = "there are no public roots to put beside the sidecar's own, so the agent could reach nobody else by https";
        let hint = "install ca-certificates, or set SSL_CERT_FILE to a bundle (python3 -m certifi tells one)";
        return Err(Problem::new("outbound.tls", message).hint(hint));
    }
    let temporary = world.env.get("TMPDIR").filter(|folder| !folder.is_empty());
    let temporary = Path::new(temporary.unwrap_or("/tmp"));
    TrustFile::write(temporary, &bundle.with_own(root)).map_err(|fault| {
        let message = format!("the agent's trust bundle cannot be written: {fault}");
        Problem::new("TMPDIR", message).hint("set it to a folder that can be written to")
    })
}

//! Confinement of the agent: which ports it keeps, which of them would open a way round, and the proof that it holds.
//!
//! Whether this system can confine is not read off a version: a process is confined and tries to get out. `confine.rs` is the
//! lock, `cli/confine.rs` what was asked for.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use crate::config::Config;
use crate::proxy::admin::Addresses;

use super::confine::{COMMAND, THIS_PROGRAM, listed};

/// How long a confined process may take to show that it cannot get out.
pub const PROOF_TIME: Duration = Duration::from_secs(10);
/// Of what it says, so much is repeated, in characters.
const PROOF_TEXT_CHARS_MAX: usize = 1024;
/// Never allowed by a proof, and nobody listens there: unconfined, a connection is refused, which is another answer.
pub const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// The sidecar's own, for an agent calls them; its own, for user interfaces call their server; and the listed ones.
pub fn ports(at: Addresses, config: &Config, allow: &[u16]) -> BTreeSet<u16> {
    let own = [
        at.outbound.port(),
        at.inbound.port(),
        at.admin.port(),
        config.inbound.agent_port(),
    ];
    own.iter().chain(allow).copied().collect()
}

/// A port among these that leads to where credentials go, and whose it is.
pub fn open_way(config: &Config, ports: &BTreeSet<u16>) -> Option<(String, u16)> {
    let upstreams = config.outbound.upstreams.iter();
    let upstreams = upstreams.map(|upstream| &upstream.reached.origin);
    let origins = std::iter::once(&config.workspace.origin).chain(upstreams);
    origins
        .map(|origin| (origin.to_string(), origin.port()))
        .find(|(_, port)| ports.contains(port))
}

/// Confines a process to these ports and lets it try to reach the address, which must not be among them.
///
/// # Errors
/// Why it is not held.
pub async fn prove(ports: &BTreeSet<u16>, address: SocketAddr) -> Result<(), String> {
    let ports = listed(ports);
    let mut command = tokio::process::Command::new(THIS_PROGRAM);
    command
        .args([COMMAND, "--probe", &address.to_string()])
        .args((!ports.is_empty()).then(|| format!("--ports={ports}")))
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(PROOF_TIME, command.output()).await {
        Err(_) => return Err(format!("it was not proven within {PROOF_TIME:?}")),
        Ok(Err(fault)) => {
            return Err(format!(
                "no process could be started for the proof: {fault}"
            ));
        }
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text: String = text.trim().chars().take(PROOF_TEXT_CHARS_MAX).collect();
    Err(text.trim_start_matches("valetkey: ").to_owned())
}

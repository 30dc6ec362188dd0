//! This machine: the audit path, the ports, whether a child can be confined.
//!
//! Looks without making anything: a file that `doctor` made could belong to another user than the sidecar's.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use serde_json::Value;

use crate::config::Config;
use crate::config::words::ConfineMode;
use crate::proxy::admin::Addresses;
use crate::runtime::audit_file::lock_of;
use crate::runtime::http_client::{ClientLimits, HttpSend as _, HyperSend, empty, read_limited};
use crate::runtime::tls;
use crate::supervise::confine::listed;
use crate::supervise::confinement::{NOWHERE, open_way, ports as child_ports, prove};

use super::Finding;

/// Below this the log is about to be full, in bytes.
const FREE_BYTES_MIN: u64 = 16 << 20;
/// How long a sidecar beside us may take to tell who it is.
const LOCAL_TIME: Duration = Duration::from_secs(2);
/// The longest `/status` that is read.
const STATUS_BYTES_MAX: usize = 256 * 1024;

/// Writable, room left, nobody else's.
pub(super) fn audit(config: &Config) -> Finding {
    const NAME: &str = "audit log";
    let path = &config.audit.file;
    let shown = path.display();
    let remedy = "make the folder writable for the user of the sidecar, or name another audit.file";
    if let Err(fault) = writable(path) {
        return Finding::fail(NAME, format!("{shown}: {fault}"), remedy);
    }
    let held = match File::open(lock_of(path)).map(|lock| lock.try_lock()) {
        // Without a lock file nobody holds it.
        Err(_) | Ok(Ok(())) => "",
        Ok(Err(TryLockError::WouldBlock)) => ", in use by a running sidecar",
        Ok(Err(TryLockError::Error(fault))) => {
            return Finding::fail(
                NAME,
                format!("{shown} cannot be locked: {fault}"),
                "name an audit.file on a file system with locks",
            );
        }
    };
    let Some(free) = free_bytes(path) else {
        return Finding::ok(NAME, format!("{shown} is writable{held}"));
    };
    let kept = u64::try_from(config.audit.rotate_keep).unwrap_or(u64::MAX);
    let whole = config
        .audit
        .rotate_bytes
        .saturating_mul(kept.saturating_add(1));
    let (free_mib, whole_mib) = (free >> 20, whole >> 20);
    let detail =
        format!("{shown} is writable{held}; {free_mib} MiB free, at most {whole_mib} MiB needed");
    let room = "make room, or lower audit.rotate (size, keep)";
    if free < FREE_BYTES_MIN {
        Finding::fail(NAME, detail, room)
    } else if free < whole && held.is_empty() {
        Finding::warn(NAME, detail, room)
    } else {
        Finding::ok(NAME, detail)
    }
}

fn writable(path: &Path) -> io::Result<()> {
    match OpenOptions::new().append(true).open(path) {
        Ok(file) if file.metadata()?.is_file() => return Ok(()),
        Ok(_) => return Err(io::Error::other("is no regular file")),
        Err(fault) if fault.kind() == ErrorKind::NotFound => {}
        Err(fault) => return Err(fault),
    }
    let folder = existing_folder(path);
    if !folder.is_dir() {
        return Err(io::Error::other(format!(
            "{} is no folder",
            folder.display()
        )));
    }
    access(&folder, AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(|fault| io::Error::other(format!("{}: {}", folder.display(), fault.desc())))
}

/// The nearest folder above that is there; the rest is made at the start.
fn existing_folder(path: &Path) -> PathBuf {
    let folders = path.ancestors().skip(1);
    let folder = folders
        .map(|folder| {
            if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            }
        })
        .find(|folder| folder.exists());
    folder.unwrap_or_else(|| Path::new(".")).to_path_buf()
}

fn free_bytes(path: &Path) -> Option<u64> {
    let stat = statvfs(&existing_folder(path)).ok()?;
    Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Free, or ours already.
pub(super) async fn ports(config: &Config) -> Vec<Finding> {
    let beside = beside(config.admin.listen).await;
    let mut findings: Vec<Finding> = [
        ("inbound", config.inbound.listen),
        ("outbound", config.outbound.listen),
        ("admin", config.admin.listen),
    ]
    .into_iter()
    .map(|(name, address)| port(name, address, beside.as_ref()))
    .collect();
    findings.push(agent_port(config, beside.is_some()));
    findings
}

fn port(name: &str, address: SocketAddr, beside: Option<&Value>) -> Finding {
    let label = format!("port {name}");
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(&label, format!("{address} is free")),
        Err(fault) if fault.kind() == ErrorKind::AddrInUse => {
            let theirs = beside.and_then(|listeners| listeners.get(name)?.as_str());
            let ours = theirs.and_then(|at| at.parse().ok()) == Some(address);
            if ours {
                Finding::ok(&label, format!("a running sidecar listens on {address}"))
            } else {
                let remedy = format!("stop what listens there, or set {name}.listen");
                Finding::fail(
                    &label,
                    format!("{address} is taken by another process"),
                    remedy,
                )
            }
        }
        Err(fault) => {
            let remedy = format!(
                "set {name}.listen to an address of this machine and a port that this user may take"
            );
            Finding::fail(&label, format!("{address}: {fault}"), remedy)
        }
    }
}

fn agent_port(config: &Config, sidecar_runs: bool) -> Finding {
    let (agent, port) = (&config.inbound.agent, config.inbound.agent_port());
    let label = "port agent";
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Err(fault) if fault.kind() == ErrorKind::AddrInUse && sidecar_runs => {
            Finding::ok(label, format!("the agent listens at {agent}"))
        }
        Err(fault) if fault.kind() == ErrorKind::AddrInUse => Finding::warn(
            label,
            format!("something listens at {agent} already"),
            "good if that is the agent and `serve` is meant; `run` needs the port free: set inbound.agent",
        ),
        _ => Finding::ok(label, format!("{agent} is free for the agent")),
    }
}

/// Where a sidecar on the admin port says that it listens; `None` where there is none.
async fn beside(admin: SocketAddr) -> Option<Value> {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let limits = ClientLimits {
        connect_time: LOCAL_TIME,
        response_head_time: LOCAL_TIME,
        idle_connection_time: LOCAL_TIME,
    };
    let http = HyperSend::new(tls::client_config(None).ok()?, limits);
    let url = format!("http://{}/status", SocketAddr::new(ip, admin.port()));
    let response = http
        .send(Request::get(url).body(empty()).ok()?)
        .await
        .ok()?;
    let body = read_limited(response.into_body(), STATUS_BYTES_MAX)
        .await
        .ok()?;
    let status: Value = serde_json::from_slice(&body).ok()?;
    status.get("listeners").filter(|l| l.is_object()).cloned()
}

/// That a child as `run` starts it cannot reach the workspace by itself.
pub(super) async fn confinement(config: &Config) -> Finding {
    const NAME: &str = "confinement";
    let required = config.confine.mode == ConfineMode::Required;
    let bad = |detail: String, remedy: &str| {
        if required {
            Finding::fail(NAME, detail, remedy)
        } else {
            Finding::warn(NAME, detail, remedy)
        }
    };
    if config.confine.mode == ConfineMode::Off {
        return Finding::ok(
            NAME,
            match prove(&[].into(), NOWHERE).await {
                Ok(()) => "off; this system can: run --confine, or confine.mode".to_owned(),
                Err(why) => format!("off, and this system cannot: {why}"),
            },
        );
    }
    let at = Addresses {
        inbound: config.inbound.listen,
        outbound: config.outbound.listen,
        admin: config.admin.listen,
    };
    let ports = child_ports(at, config, &config.confine.allow);
    if let Some((whose, port)) = open_way(config, &ports) {
        let detail = format!("in vain: port {port} is that of {whose}");
        return bad(
            detail,
            "leave it out of confine.allow, and let neither sidecar nor agent listen on it",
        );
    }
    let origin = &config.workspace.origin;
    let found =
        tokio::net::lookup_host((origin.host().trim_matches(['[', ']']), origin.port())).await;
    let Some(workspace) = found.ok().and_then(|mut found| found.next()) else {
        return bad(
            format!("not tried: {origin} has no address"),
            "check workspace.host and DNS",
        );
    };
    match prove(&ports, workspace).await {
        Ok(()) => {
            let detail = format!(
                "a confined child cannot reach {origin} ({workspace}); it keeps ports {}",
                listed(&ports)
            );
            Finding::ok(NAME, detail)
        }
        Err(why) => bad(
            format!("a child can reach {origin} by itself: {why}"),
            "Linux 6.7 with Landlock is needed, and a container runtime that lets its calls through",
        ),
    }
}

//! Each section's values: defaults from the environment, bounds, and what sections must agree on.
//!
//! Reads top to bottom in the order of the file. Must not know YAML. Read `inbound.rs`, `outbound.rs`, `routes.rs`
//! and `limits.rs` next.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tracing::level_filters::LevelFilter;

use super::check::Checker;
use super::confine;
use super::inbound::{inbound, users};
use super::limits::Limits;
use super::outbound::outbound;
use super::policy;
use super::raw::{RawApp, RawAudit, RawConfig, RawLog, RawWorkspace};
use super::read::Given;
use super::words::{AppScopes, AuditFormat, AuditSync, LogFormat, OnFailure};
use super::{Admin, App, Audit, Config, Development, Env, Log, Workspace};
use crate::domain::identity::{ClientId, Origin, is_loopback_host};
use crate::domain::problem::Problem;
use crate::domain::secret::{Digest, Secret};

/// The shortest accepted secret of a local client, in characters (SECURITY R23: 128 bits or more).
pub const LOCAL_SECRET_CHARS_MIN: usize = 16;

const MIB: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

/// Checks everything; `folder` is where the file is, `problems` are those found while reading.
///
/// # Errors
/// All problems, unsorted.
pub fn check(
    mut raw: RawConfig,
    (env, folder): (&Env, &Path),
    problems: Vec<Problem>,
) -> Result<Config, Vec<Problem>> {
    let mut checker = Checker {
        env,
        problems,
        secret_variables: Vec::new(),
    };
    let c = &mut checker;
    later_versions(&raw, c);
    if env.development() == Development::Embedded {
        // What it says instead is in the environment.
        raw.workspace = Given::default();
        raw.app = Given::default();
    }
    let observe_until = policy::observe_until(&raw, c);
    let workspace = workspace(&raw.workspace.take(), c);
    let raw_inbound = raw.inbound.take();
    let inbound = inbound(&raw_inbound, c);
    let id = workspace.as_ref().and_then(|w| w.workspace_id.clone());
    let mut users = users(raw.users.take(), id.or_else(|| env_id(c)), c);
    let app = app(&raw.app.take(), c);
    let raw_outbound = raw.outbound.take();
    let far = workspace.as_ref().map(|w| &w.origin);
    let outbound = outbound(&raw_outbound, far, c);
    let policy = policy::check(&raw.routes, &raw.bundle, folder, c);
    if users.scopes.is_none() {
        users.scopes.clone_from(&policy.ceiling);
    }
    let audit = audit(raw.audit.take(), c);
    let confine = confine::confine(&raw.confine.take(), c);
    let raw_admin = raw.admin.take();
    let admin = Admin {
        listen: c.socket(&raw_admin.listen, loopback(9401)),
    };
    let log = log(&raw.log.take(), c);
    let limits = Limits::check(&raw.limits.take(), c);
    let listeners = [
        (&raw_inbound.listen, "inbound.listen", inbound.listen),
        (&raw_outbound.listen, "outbound.listen", outbound.listen),
        (&raw_admin.listen, "admin.listen", admin.listen),
    ];
    ports(listeners, (&raw_inbound.agent, &inbound.agent), c);
    match workspace {
        Some(workspace) if checker.problems.is_empty() => Ok(Config {
            source: None,
            digest: Digest::of(&[]),
            workspace,
            inbound,
            users,
            app,
            outbound,
            routes: policy.routes,
            policy_origin: policy.origin,
            bundle: policy.bundle,
            observe_until,
            audit,
            confine,
            admin,
            log,
            limits,
            secret_variables: checker.secret_variables,
        }),
        Some(_) | None => Err(checker.problems),
    }
}

/// Keys of the contract that this version knows but does not serve: said aloud, never ignored.
fn later_versions(raw: &RawConfig, c: &mut Checker<'_>) {
    if let Some(audit) = raw.audit.get() {
        c.not_yet(&audit.ship, "ship the audit log");
    }
}

fn workspace(raw: &RawWorkspace, c: &mut Checker<'_>) -> Option<Workspace> {
    let origin = origin(raw, c);
    let azure = origin.as_ref().and_then(|o| azure_id(o.host()));
    let id = match c.text(&raw.id) {
        Some(id) => Some(id.to_owned()),
        None => env_id(c).or(azure),
    };
    let ca_file = c.ca_file(&raw.ca_file);
    let issuer = address(&raw.issuer, c);
    let jwks_uri = address(&raw.jwks_uri, c);
    let token_endpoint = address(&raw.token_endpoint, c);
    Some(Workspace {
        origin: origin?,
        issuer,
        jwks_uri,
        token_endpoint,
        ca_file,
        workspace_id: id,
    })
}

fn origin(raw: &RawWorkspace, c: &mut Checker<'_>) -> Option<Origin> {
    const VARIABLE: &str = "DATABRICKS_HOST";
    const HINT: &str = "such as my-workspace.cloud.databricks.com, with or without https://";
    let (parsed, problem) = if raw.host.is_absent() {
        let Some(host) = c.variable(VARIABLE) else {
            let problem = Problem::new("workspace.host", "the workspace is not known");
            let hint = "set workspace.host in the file or the variable DATABRICKS_HOST";
            c.report(problem.hint(hint));
            return None;
        };
        let parsed = Origin::parse(host);
        (parsed, Problem::new(VARIABLE, ""))
    } else {
        let host = c.text(&raw.host)?;
        (Origin::parse(host), raw.host.problem(""))
    };
    parsed
        .map_err(|message| {
            let problem = Problem { message, ..problem };
            c.report(problem.hint(HINT));
        })
        .ok()
}

fn env_id(c: &Checker<'_>) -> Option<String> {
    let id = c.variable("DATABRICKS_WORKSPACE_ID")?;
    Some(id.trim().to_owned())
}

/// `adb-<workspace id>.<n>.azuredatabricks.net`.
fn azure_id(host: &str) -> Option<String> {
    let (id, rest) = host.strip_prefix("adb-")?.split_once('.')?;
    let known = rest.ends_with(".azuredatabricks.net")
        && !id.is_empty()
        && id.bytes().all(|b| b.is_ascii_digit());
    known.then(|| id.to_owned())
}

/// A pinned address: https, or http on this machine; nothing in it that could mean another host.
fn address(given: &Given<String>, c: &mut Checker<'_>) -> Option<String> {
    let text = c.text(given)?;
    let good = text.parse::<Uri>().is_ok_and(|uri| {
        let host = uri.host().unwrap_or_default();
        let scheme = uri.scheme_str().unwrap_or_default();
        !host.is_empty() && (scheme == "https" || (scheme == "http" && is_loopback_host(host)))
    });
    if good && !text.contains(['@', '#', '\\']) {
        return Some(text.to_owned());
    }
    c.report(
        given
            .problem("is no address")
            .hint("write https://HOST/PATH"),
    );
    None
}

fn app(raw: &RawApp, c: &mut Checker<'_>) -> App {
    const ID: &str = "DATABRICKS_CLIENT_ID";
    const SECRET: &str = "DATABRICKS_CLIENT_SECRET";
    let has_id = !raw.client_id.is_absent() || c.variable(ID).is_some();
    let has_secret = !raw.client_secret.is_absent() || c.variable(SECRET).is_some();
    if has_id != has_secret {
        let (missing, key, variable) = if has_id {
            ("secret", "app.client_secret", SECRET)
        } else {
            ("id", "app.client_id", ID)
        };
        let message = format!("the app's credential lacks its client {missing}");
        let hint =
            format!("set {key} in the file or the variable {variable}, or remove the other half");
        c.report(Problem::new(key, message).hint(hint));
    }
    let (id, place) = if raw.client_id.is_absent() {
        let id = c.variable(ID).map(str::to_owned);
        (id, Problem::new(ID, ""))
    } else {
        (c.sourced_text(&raw.client_id), raw.client_id.problem(""))
    };
    let client_id = id.and_then(|id| match ClientId::parse(&id) {
        Ok(id) => Some(id),
        Err(fault) => {
            let message = fault.to_string();
            c.report(Problem { message, ..place }.hint("write the service principal's client id"));
            None
        }
    });
    let client_secret = if raw.client_secret.is_absent() {
        secret_variable(SECRET, c)
    } else {
        c.secret(&raw.client_secret, 1)
    };
    App {
        client_id,
        client_secret,
        scopes: raw.scopes.get().copied().unwrap_or(AppScopes::PerRoute),
    }
}

fn secret_variable(name: &str, c: &mut Checker<'_>) -> Option<Arc<Secret>> {
    let value = c.variable(name)?;
    if value.chars().any(char::is_control) {
        let problem = Problem::new(name, "holds a line break or control character");
        c.report(problem.hint("put the value alone there"));
        return None;
    }
    Some(Arc::new(Secret::new(value.to_owned())))
}

fn audit(raw: RawAudit, c: &mut Checker<'_>) -> Audit {
    let rotate = raw.rotate.take();
    let checkpoint = raw.checkpoint.take();
    let stdout = raw.stdout.get().copied().unwrap_or(false);
    if raw.format.get().is_some() && !stdout {
        let problem = raw
            .format
            .problem("is the form of the copy on standard output, which is off");
        c.report(problem.hint(
            "set audit.stdout: true; for the file there is valetkey audit export --format ocsf",
        ));
    }
    let format = raw.format.get().copied().unwrap_or(AuditFormat::Json);
    Audit {
        file: c
            .path(&raw.file)
            .unwrap_or_else(|| "./audit/valetkey.jsonl".into()),
        on_failure: raw.on_failure.get().copied().unwrap_or(OnFailure::Refuse),
        sync: raw.sync.get().copied().unwrap_or(AuditSync::Interval),
        rotate_bytes: c.size(&rotate.size, 64 * MIB, MIB..=16 * 1024 * MIB),
        rotate_keep: c.count(&rotate.keep, 14, 1..=10_000),
        stdout: stdout.then_some(format),
        checkpoint_records: c.count(&checkpoint.records, 1_000, 1..=1_000_000),
        checkpoint_interval: c.duration(&checkpoint.interval, MINUTE, SECOND..=DAY),
        key_file: c.path(&raw.key_file),
    }
}

fn log(raw: &RawLog, c: &mut Checker<'_>) -> Log {
    let mut log = Log {
        format: raw.format.get().copied().unwrap_or(LogFormat::Json),
        level: LevelFilter::INFO,
        targets: Vec::new(),
    };
    let Some(text) = c.text(&raw.level) else {
        return log;
    };
    for part in text.split(',') {
        let (target, word) = match part.split_once('=') {
            Some((target, word)) => (Some(target.trim()), word),
            None => (None, part),
        };
        match (target, level(word.trim())) {
            (None, Some(level)) => log.level = level,
            (Some(target), Some(level)) if !target.is_empty() => {
                log.targets.push((target.to_owned(), level));
            }
            (_, _) => {
                let problem = raw.level.problem("is no level");
                let hint = "write off, error, warn, info, debug or trace, or info,valetkey=debug";
                c.report(problem.hint(hint));
                break;
            }
        }
    }
    log
}

fn level(word: &str) -> Option<LevelFilter> {
    Some(match word {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}

type Listener<'a> = (&'a Given<String>, &'static str, SocketAddr);

/// No two of us on one port, and the agent on none of ours: it would call itself for ever. Port 0 is never taken.
fn ports(listeners: [Listener<'_>; 3], agent: (&Given<String>, &Uri), c: &mut Checker<'_>) {
    let mut earlier: Vec<(&str, SocketAddr)> = Vec::new();
    for (given, name, address) in listeners {
        let clash = earlier.iter().find(|(_, other)| {
            let same = other.ip() == address.ip();
            let any = other.ip().is_unspecified() || address.ip().is_unspecified();
            address.port() != 0 && other.port() == address.port() && (same || any)
        });
        if let Some((other, _)) = clash {
            let message = format!("this port is already taken by {other}");
            let problem = Problem::new(name, message).at(given.line);
            c.report(problem.hint("give each listener its own port"));
        }
        earlier.push((name, address));
    }
    let (given, uri) = agent;
    let here = |ip: std::net::IpAddr| ip.is_loopback() || ip.is_unspecified();
    let taken = earlier
        .iter()
        .find(|(_, a)| here(a.ip()) && a.port() != 0 && Some(a.port()) == uri.port_u16());
    if let Some((other, _)) = taken {
        let message = format!("the agent's port is the one of {other}");
        let problem = Problem::new("inbound.agent", message).at(given.line);
        c.report(problem.hint("give the agent another port"));
    }
}

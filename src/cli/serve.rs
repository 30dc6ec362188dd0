//! `run`, `serve`, `demo`: the commands that stay.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::Signal;
use rustls::pki_types::CertificateDer;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::Receiver;

use crate::app::{App, Running};
use crate::config::{Config, Env, words::LogFormat};
use crate::demo;
use crate::domain::clock::SystemClock;
use crate::domain::problem::Problem;
use crate::domain::secret::Secret;
use crate::proxy::local_oidc::LocalClient;
use crate::proxy::way;
use crate::reload::Reloader;
use crate::runtime::agent_gate::ProbePace;
use crate::runtime::telemetry::{self, LogSettings};
use crate::runtime::trust_bundle::TrustBundle;
use crate::supervise::environment::wire::{self, Wire};
use crate::supervise::environment::{self, Wiring};
use crate::supervise::process::{Child, Grouping, Undumpable, make_undumpable};
use crate::supervise::trust::TrustFile;
use crate::supervise::{self, Drain};

use super::{ConfigArgument, World, complain, exit, report};

/// The client id of an agent whose environment names none.
const LOCAL_CLIENT_ID: &str = "valetkey-local-app";

/// The configuration, and the one in force: the command line may switch something on.
#[derive(Clone, Copy)]
struct Configs<'c> {
    /// What a reload is compared with.
    written: &'c Config,
    config: &'c Config,
}

/// How the agent's calls are led to the sidecar.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum WireWord {
    /// DATABRICKS_HOST is the sidecar
    Host,
    /// DATABRICKS_HOST stays the workspace, and HTTPS_PROXY is the sidecar (switches outbound.tls and outbound.forward on)
    Forward,
}

/// Hosts of a workspace that clients never ask a proxy for (`NO_PROXY`).
const NEVER_PROXIED: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The sidecar with the agent as its child; the child's exit code is ours.
pub fn run(argument: &ConfigArgument, wire: WireWord, command: &[OsString], world: &World) -> u8 {
    prepared(argument, world, |runtime, written, proof| {
        let mut config = written.clone();
        if wire == WireWord::Forward {
            config.outbound.tls = true;
            config.outbound.forward = true;
        }
        let configs = Configs {
            written,
            config: &config,
        };
        let run = run_agent(argument, configs, wire, command, world, proof);
        runtime.block_on(Box::pin(run))
    })
}

/// The sidecar alone.
pub fn serve(argument: &ConfigArgument, world: &World) -> u8 {
    prepared(argument, world, |runtime, config, _proof| {
        runtime.block_on(Box::pin(serve_alone(argument, config, world)))
    })
}

/// Everything on one machine.
pub fn demo(once: bool) -> u8 {
    match runtime() {
        Ok(runtime) => match runtime.block_on(Box::pin(demo::run(once, &mut std::io::stdout()))) {
            Ok(()) => exit::GOOD,
            Err(fault) => complain(&fault, exit::INTERNAL),
        },
        Err(code) => code,
    }
}

/// What both commands do first: read the configuration, hide our memory, start the log and the runtime.
fn prepared(
    argument: &ConfigArgument,
    world: &World,
    go: impl FnOnce(&Runtime, &Config, &Undumpable) -> u8,
) -> u8 {
    let config = match argument.load(&world.env) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let proof = match make_undumpable() {
        Ok(proof) => proof,
        Err(fault) => return complain(&fault.to_string(), exit::INTERNAL),
    };
    let json = config.log.format == LogFormat::Json;
    telemetry::install(&LogSettings {
        json,
        level: config.log.level,
        targets: config.log.targets.clone(),
    });
    match runtime() {
        Ok(runtime) => go(&runtime, &config, &proof),
        Err(code) => code,
    }
}

fn runtime() -> Result<Runtime, u8> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|fault| {
            complain(
                &format!("cannot start the runtime: {fault}"),
                exit::INTERNAL,
            )
        })
}

async fn serve_alone(argument: &ConfigArgument, config: &Config, world: &World) -> u8 {
    let local = config
        .outbound
        .local_client
        .as_ref()
        .map(|client| LocalClient {
            id: client.id.clone(),
            secret: Arc::clone(&client.secret),
        });
    if local.is_none() {
        tracing::warn!("outbound.local_client is not set: agents cannot get the app identity");
    }
    let mut signals = match supervise::listen() {
        Ok(signals) => signals,
        Err(fault) => return complain(&format!("cannot catch signals: {fault}"), exit::INTERNAL),
    };
    let configs = Configs {
        written: config,
        config,
    };
    let running = match start(argument, configs, local, ProbePace::FOREIGN, &world.env).await {
        Ok(running) => running,
        Err(code) => return code,
    };
    asked_to_stop(&mut signals).await;
    tracing::info!("stopping");
    running.stop_by(asked_to_stop(&mut signals)).await;
    exit::GOOD
}

async fn asked_to_stop(signals: &mut Receiver<Signal>) {
    while let Some(signal) = signals.recv().await {
        if supervise::is_stop(signal) {
            return;
        }
    }
    // Nobody can ask any more; that is no wish to stop.
    std::future::pending().await
}

async fn run_agent(
    argument: &ConfigArgument,
    configs: Configs<'_>,
    wire: WireWord,
    command: &[OsString],
    world: &World,
    proof: &Undumpable,
) -> u8 {
    let config = configs.config;
    let secret = match Secret::random("vkl_") {
        Ok(secret) => Arc::new(secret),
        Err(fault) => return complain(&fault.to_string(), exit::INTERNAL),
    };
    let mut wiring = wiring(config, &secret);
    let id = environment::child_client_id(&world.variables, &wiring)
        .to_string_lossy()
        .into_owned();
    let signals = match supervise::listen() {
        Ok(signals) => signals,
        Err(fault) => return complain(&format!("cannot catch signals: {fault}"), exit::INTERNAL),
    };
    let running = match start(
        argument,
        configs,
        Some(LocalClient { id, secret }),
        ProbePace::CHILD,
        &world.env,
    )
    .await
    {
        Ok(running) => running,
        Err(code) => return code,
    };
    let addresses = running.addresses();
    wiring.outbound_url = way::direct_origin(addresses.outbound, config.outbound.tls);
    if wire == WireWord::Forward {
        wiring.wire = forward_wire(config, addresses.outbound);
    }
    // Until the agent has ended.
    let trust = match running.root().map(|root| trust(root, world)).transpose() {
        Ok(trust) => trust,
        Err(problem) => {
            running.finish().await;
            return report(&[problem]);
        }
    };
    wiring.trust_file = trust.as_ref().map(|trust| trust.path().to_owned());
    wiring.admin_url = format!("http://{}", addresses.admin);
    let child_environment = environment::child_environment(&world.variables, &wiring);
    for name in child_environment.withheld() {
        tracing::warn!(
            name,
            "this variable holds a secret and was not given to the agent"
        );
    }
    let child = match Child::spawn(command, &child_environment, Grouping::for_stdin(), proof) {
        Ok(child) => child,
        Err(fault) => {
            running.finish().await;
            return complain(&fault.to_string(), fault.exit_code());
        }
    };
    let drain = Drain {
        stopping: running.stop_inbound().clone(),
        agent_gone: running.stop_outbound().clone(),
        time: running.drain_time(),
        ..Drain::new(running.drained())
    };
    let code = supervise::supervise(child, signals, drain).await;
    running.finish().await;
    code
}

/// The sidecar as the proxy in front of the workspace and the upstreams.
fn forward_wire(config: &Config, outbound: SocketAddr) -> Wire {
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
fn trust(root: &CertificateDer<'static>, world: &World) -> Result<TrustFile, Problem> {
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

/// What the child is told; the addresses are filled in once they are known.
fn wiring(config: &Config, secret: &Arc<Secret>) -> Wiring {
    let known = [
        config.app.client_secret.as_ref(),
        config
            .outbound
            .local_client
            .as_ref()
            .map(|client| &client.secret),
    ];
    Wiring {
        outbound_url: String::new(),
        wire: Wire::Host,
        trust_file: None,
        admin_url: String::new(),
        agent_host: config
            .inbound
            .agent
            .host()
            .unwrap_or("127.0.0.1")
            .trim_matches(['[', ']'])
            .to_owned(),
        agent_port: config.inbound.agent_port(),
        local_client_id: LOCAL_CLIENT_ID.to_owned(),
        local_client_secret: Arc::clone(secret),
        secret_variables: config.secret_variables.clone(),
        known_secrets: known.into_iter().flatten().cloned().collect(),
    }
}

async fn start(
    argument: &ConfigArgument,
    Configs { written, config }: Configs<'_>,
    local: Option<LocalClient>,
    pace: ProbePace,
    env: &Env,
) -> Result<Running, u8> {
    let app = App::bind(config, local, Arc::new(SystemClock))
        .await
        .map_err(|problems| report(&problems))?;
    let addresses = app.addresses();
    for (key, value) in config.summary() {
        tracing::info!(key, value, "configuration");
    }
    let reloader = Reloader::new(
        Arc::clone(app.proxy()),
        Arc::clone(app.admin()),
        written,
        argument.options(),
        env.clone(),
    )
    .map_err(|fault| complain(&format!("cannot catch SIGHUP: {fault}"), exit::INTERNAL))?;
    let running = app.start(pace);
    running.try_app_credential();
    tracing::info!(inbound = %addresses.inbound, outbound = %addresses.outbound, admin = %addresses.admin, "serving");
    if let Some(reloader) = reloader {
        tokio::spawn(reloader.watch(running.stop_outbound().clone()));
    }
    Ok(running)
}

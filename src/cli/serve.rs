//! `run`, `serve`, `demo`: the commands that stay.

use std::ffi::OsString;
use std::sync::Arc;

use nix::sys::signal::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::Receiver;

use crate::app::{App, Running};
use crate::config::{
    Config, Env,
    words::{ConfineMode, LogFormat},
};
use crate::demo;
use crate::domain::clock::SystemClock;
use crate::domain::secret::Secret;
use crate::proxy::local_oidc::LocalClient;
use crate::reload::Reloader;
use crate::runtime::agent_gate::ProbePace;
use crate::runtime::telemetry::{self, LogSettings};
use crate::supervise::environment::{self, Wiring};
use crate::supervise::process::{Child, Grouping, Undumpable, make_undumpable};
use crate::supervise::{self, Drain};

use super::confine::{self, ConfineArguments, Plan};
use super::{ConfigArgument, World, complain, exit, report};

/// The client id of an agent whose environment names none.
const LOCAL_CLIENT_ID: &str = "valetkey-local-app";

/// The sidecar with the agent as its child; the child's exit code is ours.
pub fn run(
    argument: &ConfigArgument,
    confine: &ConfineArguments,
    command: &[OsString],
    world: &World,
) -> u8 {
    prepared(argument, world, |runtime, config, proof| {
        runtime.block_on(Box::pin(async {
            let plan = match confine::plan(config, confine).await {
                Ok(plan) => plan,
                Err(code) => return code,
            };
            run_agent(argument, config, (command, plan), world, proof).await
        }))
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

/// The one that everything here runs on.
pub fn runtime() -> Result<Runtime, u8> {
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
    if config.confine.mode != ConfineMode::Off {
        tracing::warn!(
            "confine has no effect here: `serve` starts no agent; confine it where it is started"
        );
    }
    let mut signals = match supervise::listen() {
        Ok(signals) => signals,
        Err(fault) => return complain(&format!("cannot catch signals: {fault}"), exit::INTERNAL),
    };
    let running = match start(argument, config, local, ProbePace::FOREIGN, &world.env).await {
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
    config: &Config,
    (command, plan): (&[OsString], Plan),
    world: &World,
    proof: &Undumpable,
) -> u8 {
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
        config,
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
    wiring.outbound_url = format!("http://{}", addresses.outbound);
    wiring.admin_url = format!("http://{}", addresses.admin);
    let child_environment = environment::child_environment(&world.variables, &wiring);
    for name in child_environment.withheld() {
        tracing::warn!(
            name,
            "this variable holds a secret and was not given to the agent"
        );
    }
    let command = match plan.applied(command, addresses, config) {
        Ok((command, confinement)) => {
            running.admin().confined(confinement);
            command
        }
        Err(code) => {
            running.finish().await;
            return code;
        }
    };
    let child = match Child::spawn(&command, &child_environment, Grouping::for_stdin(), proof) {
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
    config: &Config,
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
        config,
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

//! `run`, `serve`, `demo`: the commands that stay.

use std::ffi::OsString;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::Receiver;

use crate::app::{App, Running};
use crate::config::{
    Config, Env,
    words::{ConfineMode, LogFormat},
};
use crate::demo;
use crate::dev::SharedDoor;
use crate::domain::clock::SystemClock;
use crate::domain::secret::Secret;
use crate::proxy::local_oidc::LocalClient;
use crate::proxy::way;
use crate::reload::Reloader;
use crate::runtime::agent_gate::ProbePace;
use crate::runtime::telemetry::{self, LogSettings};
use crate::supervise::environment::wire::Wire;
use crate::supervise::environment::{self, Wiring};
use crate::supervise::process::{Child, Grouping, Undumpable, make_undumpable};
use crate::supervise::trust::TrustFile;
use crate::supervise::{self, Drain};

use super::confine::{self, ConfineArguments, Plan};
use super::wire::{self, Configs, WireWord};
use super::{ConfigArgument, World, complain, exit, report};

/// The client id of an agent whose environment names none.
const LOCAL_CLIENT_ID: &str = "valetkey-local-app";

/// The sidecar with the agent as its child; the child's exit code is ours.
pub fn run(
    argument: &ConfigArgument,
    confine: &ConfineArguments,
    wire: WireWord,
    command: &[OsString],
    world: &World,
) -> u8 {
    prepared(argument, world, |runtime, written, proof| {
        let config = wire.applied(written);
        let configs = Configs {
            written,
            config: &config,
        };
        runtime.block_on(Box::pin(async {
            let plan = match confine::plan(&config, confine).await {
                Ok(plan) => plan,
                Err(code) => return code,
            };
            let launch = Launch {
                command,
                plan,
                wire,
                door: None,
            };
            run_agent(argument, configs, launch, world, proof).await
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
    survive_full_disks();
    install_log(&config);
    match runtime() {
        Ok(runtime) => go(&runtime, &config, &proof),
        Err(code) => code,
    }
}

/// A file that has reached the size limit of the process is a write that fails, not the end: SIGXFSZ waits for ever. Threads
/// started from here on inherit that; child processes do not.
pub fn survive_full_disks() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    if let Err(fault) = signals.thread_block() {
        tracing::debug!(%fault, "SIGXFSZ cannot be blocked");
    }
}

/// Starts the log of this process.
pub fn install_log(config: &Config) {
    telemetry::install(&LogSettings {
        json: config.log.format == LogFormat::Json,
        level: config.log.level,
        targets: config.log.targets.clone(),
    });
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
    let running = match start(
        argument,
        Configs::as_written(config),
        local,
        (None, ProbePace::FOREIGN),
        &world.env,
    )
    .await
    {
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

/// What is started, and how.
pub struct Launch<'a> {
    /// The agent's command.
    pub command: &'a [OsString],
    /// Whether it is confined.
    pub plan: Plan,
    /// How its calls are led to the sidecar.
    pub wire: WireWord,
    /// The front door of a developer's machine.
    pub door: Option<SharedDoor>,
}

/// The sidecar, then the agent; the agent's exit code.
pub async fn run_agent(
    argument: &ConfigArgument,
    configs: Configs<'_>,
    launch: Launch<'_>,
    world: &World,
    proof: &Undumpable,
) -> u8 {
    let config = configs.config;
    let secret = match Secret::random("vkl_") {
        Ok(secret) => Arc::new(secret),
        Err(fault) => return complain(&fault.to_string(), exit::INTERNAL),
    };
    let wiring = wiring(config, &secret);
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
        (launch.door.clone(), ProbePace::CHILD),
        &world.env,
    )
    .await
    {
        Ok(running) => running,
        Err(code) => return code,
    };
    let starting = Starting {
        config,
        running: &running,
        wiring,
        world,
    };
    // The trust file stays until the agent has ended.
    let (child, _trust) = match starting.agent(launch, proof).await {
        Ok(child) => child,
        Err(code) => {
            running.finish().await;
            return code;
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

/// The sidecar serves; its child is next.
struct Starting<'a> {
    config: &'a Config,
    running: &'a Running,
    wiring: Wiring,
    world: &'a World,
}

impl Starting<'_> {
    async fn agent(
        mut self,
        launch: Launch<'_>,
        proof: &Undumpable,
    ) -> Result<(Child, Option<TrustFile>), u8> {
        let Launch {
            command,
            plan,
            wire,
            door,
        } = launch;
        if let Some(door) = &door {
            open(door, self.running).await?;
        }
        let addresses = self.running.addresses();
        let secure = self.config.outbound.tls;
        self.wiring.outbound_url = way::direct_origin(addresses.outbound, secure);
        self.wiring.wire = wire.told(self.config, addresses.outbound);
        let root = self.running.root();
        let trust = root.map(|root| wire::trust(root, self.world)).transpose();
        let trust = trust.map_err(|problem| report(&[problem]))?;
        self.wiring.trust_file = trust.as_ref().map(|trust| trust.path().to_owned());
        self.wiring.admin_url = format!("http://{}", addresses.admin);
        let environment = environment::child_environment(&self.world.variables, &self.wiring);
        for name in environment.withheld() {
            tracing::warn!(
                name,
                "this variable holds a secret and was not given to the agent"
            );
        }
        let (command, confinement) = plan.applied(command, addresses, self.config)?;
        self.running.admin().confined(confinement);
        match Child::spawn(&command, &environment, Grouping::for_stdin(), proof) {
            Ok(child) => Ok((child, trust)),
            Err(fault) => Err(complain(&fault.to_string(), fault.exit_code())),
        }
    }
}

/// Tries the front door out and says aloud that there is one.
async fn open(door: &SharedDoor, running: &Running) -> Result<(), u8> {
    let user =
        { door.try_out(running.proxy()).await }.map_err(|why| complain(&why, exit::CONFIG))?;
    let (source, inbound) = (door.describe(), running.addresses().inbound);
    running.admin().develops(source.clone());
    tracing::warn!(%user, %source, %inbound, "DEVELOPMENT MODE: the sidecar plays the front door; whoever reaches the inbound listener without a token acts as this user. Never in production");
    Ok(())
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
    (door, pace): (Option<SharedDoor>, ProbePace),
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
    let running = app.start_behind(door, pace);
    running.try_app_credential();
    tracing::info!(inbound = %addresses.inbound, outbound = %addresses.outbound, admin = %addresses.admin, "serving");
    if let Some(reloader) = reloader {
        tokio::spawn(reloader.watch(running.stop_outbound().clone()));
    }
    Ok(running)
}

//! `dev`: `run` with the sidecar as its own front door.
//!
//! One argument switches: with `--as USER` everything runs against the embedded workspace, without it against the real one, as
//! whoever is logged in. The rest of the configuration is the same file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use crate::config::{Config, Development, Env};
use crate::demo::TOKEN_SCOPES;
use crate::dev::claims::workspace_of;
use crate::dev::databricks_cli::DatabricksCli;
use crate::dev::source::{Origin, Source};
use crate::dev::{FrontDoor, SharedDoor};
use crate::domain::bundle::DEFAULT_USER_SCOPES;
use crate::domain::clock::SystemClock;
use crate::domain::secret::Secret;
use crate::embedded::workspace::{EmbeddedUser, Workspace, WorkspaceOptions};
use crate::supervise::process::make_undumpable;

use super::confine::{self, ConfineArguments};
use super::serve::{Launch, install_log, run_agent, runtime, survive_full_disks};
use super::wire::{Configs, WireWord};
use super::{ConfigArgument, World, complain, exit};

const HOST: &str = "DATABRICKS_HOST";
const WORKSPACE_ID: &str = "DATABRICKS_WORKSPACE_ID";
const TOKEN: &str = "DATABRICKS_TOKEN";

/// Run the agent on this machine as yourself: the sidecar plays the platform's front door too
#[derive(clap::Args)]
pub struct Dev {
    /// A user of the embedded workspace, such as alice@example.com, instead of the real workspace
    #[arg(long = "as", value_name = "USER", conflicts_with = "profile")]
    user: Option<String>,
    /// The profile of the Databricks CLI whose login is used; else DATABRICKS_TOKEN, else the login for DATABRICKS_HOST
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    confine: ConfineArguments,
    /// The agent's command, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// The sidecar behind its own front door, with the agent as its child.
pub fn dev(arguments: &Dev, world: &World) -> u8 {
    survive_full_disks();
    match runtime() {
        Ok(runtime) => runtime.block_on(Box::pin(develop(arguments, world))),
        Err(code) => code,
    }
}

async fn develop(arguments: &Dev, world: &World) -> u8 {
    let proof = match make_undumpable() {
        Ok(proof) => proof,
        Err(fault) => return complain(&fault.to_string(), exit::INTERNAL),
    };
    let (mut source, world) = match prepare(arguments, world).await {
        Ok(prepared) => prepared,
        Err(why) => return complain(&why, exit::CONFIG),
    };
    let config = match arguments.config.load(&world.env) {
        Ok(config) => config,
        Err(code) => return code,
    };
    install_log(&config);
    source.set_scopes(scopes(&config));
    let plan = match confine::plan(&config, &arguments.confine).await {
        Ok(plan) => plan,
        Err(code) => return code,
    };
    let door: SharedDoor = Arc::new(FrontDoor::new(source, config.inbound.token_header.clone()));
    let launch = Launch {
        command: &arguments.command,
        plan,
        wire: WireWord::Host,
        door: Some(door),
    };
    let configs = Configs::as_written(&config);
    run_agent(&arguments.config, configs, launch, &world, &proof).await
}

/// The source of tokens, and the world as the configuration and the agent are to see it.
async fn prepare(arguments: &Dev, world: &World) -> Result<(Source, World), String> {
    let clock = Arc::new(SystemClock);
    if let Some(email) = &arguments.user {
        let workspace = embedded(email).await?;
        let app = workspace.app();
        let more = [
            (HOST, workspace.url()),
            (WORKSPACE_ID, workspace.workspace_id().to_owned()),
            ("DATABRICKS_CLIENT_ID", app.client_id.clone()),
            (
                "DATABRICKS_CLIENT_SECRET",
                app.client_secret.expose().to_owned(),
            ),
        ];
        let world = changed(world, Development::Embedded, more);
        let origin = Origin::Embedded {
            workspace: Box::new(workspace),
            email: email.clone(),
            scopes: TOKEN_SCOPES.to_owned(),
        };
        return Ok((Source::new(origin, clock), world));
    }
    let token = world
        .env
        .get(TOKEN)
        .filter(|token| !token.trim().is_empty());
    let origin = match (&arguments.profile, token) {
        (None, Some(token)) => Origin::Variable(Arc::new(Secret::new(token.trim().to_owned()))),
        (profile, _) => Origin::Cli(DatabricksCli {
            profile: profile.clone(),
            host: known_host(arguments, &world.env),
            variables: world.variables.clone(),
        }),
    };
    let source = Source::new(origin, clock);
    let claims = source.token().await?.claims;
    // What nobody wrote down, the token itself says; the sidecar verifies it against what is in force in the end.
    let learned = [
        (HOST, claims.issuer.as_deref().and_then(workspace_of)),
        (WORKSPACE_ID, claims.audience),
    ];
    let learned = learned
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let unknown = learned.filter(|(name, _)| world.env.get(name).is_none());
    let world = changed(world, Development::Real, unknown);
    Ok((source, world))
}

async fn embedded(email: &str) -> Result<Workspace, String> {
    let mut options = WorkspaceOptions::default();
    if !options.users.iter().any(|user| user.email == email) {
        // Somebody without the grants that only the first user has.
        options.users.push(EmbeddedUser::new(email, email));
    }
    Workspace::start(options)
        .await
        .map_err(|fault| format!("the embedded workspace did not start: {fault}"))
}

fn changed(
    world: &World,
    development: Development,
    more: impl IntoIterator<Item = (&'static str, String)>,
) -> World {
    let more: BTreeMap<String, String> = more
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let mut variables = world.variables.clone();
    variables.extend(more.iter().map(|(name, value)| (name.into(), value.into())));
    World {
        variables,
        env: world.env.clone().developing(development, more),
    }
}

/// The host of the file counts before the environment's; a file that is not whole yet says nothing.
fn known_host(arguments: &Dev, env: &Env) -> Option<String> {
    let probe = env.clone().developing(Development::Real, BTreeMap::new());
    let config = Config::load(&arguments.config.options(), &probe).ok();
    let written = config.map(|config| config.workspace.origin.to_string());
    written.or_else(|| env.get(HOST).map(str::to_owned))
}

/// As the platform does: what the app asks of its users, and the two that every token has.
fn scopes(config: &Config) -> String {
    config.users.scopes.as_ref().map_or_else(
        || TOKEN_SCOPES.to_owned(),
        |ceiling| format!("{ceiling} {}", DEFAULT_USER_SCOPES.join(" ")),
    )
}

//! `run --confine`: what was asked for, whether this system can do it, and the hidden command that does it.
//!
//! `supervise/confinement.rs` proves that it holds, `supervise/confine.rs` is the lock.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;

use clap::ValueEnum;

use crate::config::Config;
use crate::config::words::ConfineMode;
use crate::proxy::admin::{Addresses, Confinement};
use crate::supervise::confine::{self, listed};
use crate::supervise::confinement::{NOWHERE, PROOF_TIME, open_way, ports, prove};
use crate::supervise::process::spawn_error;

use super::{complain, exit};

/// What `run` takes.
#[derive(clap::Args, Default)]
pub struct ConfineArguments {
    /// Let the child connect by TCP to the sidecar's ports only (Linux 6.7); alone it means `required`
    #[arg(long, value_enum, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "required")]
    confine: Option<Mode>,
    /// Also let it connect to this TCP port, on any host; repeat it, or separate by commas
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    confine_allow: Vec<u16>,
}

/// The words of `confine.mode`.
#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Confined, or not started
    Required,
    /// Confined where the system can
    BestEffort,
    /// Not confined
    Off,
}

/// The hidden command.
#[derive(clap::Args)]
pub struct ConfinedExec {
    /// The ports that may be connected to
    #[arg(long, value_delimiter = ',')]
    ports: Vec<u16>,
    /// Only try to connect there, and exit 0 if the system forbids it
    #[arg(long, value_name = "IP:PORT")]
    probe: Option<SocketAddr>,
    /// What to become
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Restricts itself, then becomes the command: nothing of this program is left.
pub fn exec(arguments: &ConfinedExec) -> u8 {
    let ports = arguments.ports.iter().copied().collect();
    if let Err(fault) = confine::restrict(&ports) {
        return complain(&fault.to_string(), exit::INTERNAL);
    }
    if let Some(address) = arguments.probe {
        return match TcpStream::connect_timeout(&address, PROOF_TIME / 2) {
            Err(fault) if fault.kind() == ErrorKind::PermissionDenied => exit::GOOD,
            Err(fault) => complain(&format!("the system let it try: {fault}"), exit::NO),
            Ok(_) => complain("it got there", exit::NO),
        };
    }
    let Some((program, rest)) = arguments.command.split_first() else {
        return complain("no command to run", exit::USAGE);
    };
    let fault = std::process::Command::new(program).args(rest).exec();
    let fault = spawn_error(program.to_string_lossy().into_owned(), fault);
    complain(&fault.to_string(), fault.exit_code())
}

/// How the child is going to be started.
pub enum Plan {
    /// As it is.
    Off,
    /// As it is, because this system cannot confine it.
    Unavailable(String),
    /// Confined to the sidecar's ports and these.
    Confined {
        /// From file and command line.
        allow: Vec<u16>,
        /// Whether it must not be started otherwise.
        required: bool,
    },
}

/// What file and command line ask for, as far as this system can: proven before anything is served.
///
/// # Errors
/// The exit code, after the reason was told: it is required and cannot be done.
pub async fn plan(config: &Config, arguments: &ConfineArguments) -> Result<Plan, u8> {
    let mode = match arguments.confine {
        None => config.confine.mode,
        Some(Mode::Required) => ConfineMode::Required,
        Some(Mode::BestEffort) => ConfineMode::BestEffort,
        Some(Mode::Off) => ConfineMode::Off,
    };
    let required = match mode {
        ConfineMode::Off => return Ok(Plan::Off),
        ConfineMode::BestEffort => false,
        ConfineMode::Required => true,
    };
    match prove(&BTreeSet::new(), NOWHERE).await {
        Ok(()) => Ok(Plan::Confined {
            allow: [&config.confine.allow[..], &arguments.confine_allow].concat(),
            required,
        }),
        Err(why) if required => Err(complain(
            &format!(
                "the agent was not started, because confine is required: {why}\nwrite `best-effort` to start it unconfined where there is no other way"
            ),
            exit::INTERNAL,
        )),
        Err(why) => Ok(Plan::Unavailable(why)),
    }
}

impl Plan {
    /// The command that the child is started by, and what `/status` says of it.
    ///
    /// # Errors
    /// The exit code, after the reason was told: one of the ports is the workspace's own.
    pub fn applied(
        self,
        command: &[OsString],
        at: Addresses,
        config: &Config,
    ) -> Result<(Vec<OsString>, Confinement), u8> {
        let unconfined =
            |state: &'static str, detail: String| (command.to_vec(), Confinement { state, detail });
        let (allow, required) = match self {
            Self::Off => return Ok(unconfined("off", String::new())),
            Self::Unavailable(why) => {
                tracing::warn!(%why, "the agent is NOT confined: it can reach the workspace around the sidecar, if it finds a credential");
                return Ok(unconfined("unavailable", why));
            }
            Self::Confined { allow, required } => (allow, required),
        };
        let ports = ports(at, config, &allow);
        if let Some((whose, port)) = open_way(config, &ports) {
            let why = format!(
                "port {port} is that of {whose}: a child that may connect to it can go round the sidecar; \
                 leave it out of confine.allow, and let neither sidecar nor agent listen on it"
            );
            if required {
                return Err(complain(&why, exit::CONFIG));
            }
            tracing::warn!(%why, "the agent is confined in vain");
            return Ok((
                confine::confined(command, &ports),
                Confinement {
                    state: "in_vain",
                    detail: why,
                },
            ));
        }
        let detail = format!("TCP connections to ports {} only", listed(&ports));
        tracing::info!(ports = %listed(&ports), "the agent is confined: TCP connections to these ports only, on any host; UDP and Unix sockets are not covered");
        let state = "confined";
        Ok((
            confine::confined(command, &ports),
            Confinement { state, detail },
        ))
    }
}

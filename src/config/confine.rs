//! `confine`: how far `run` keeps its child from walking around the sidecar, and the ports it may connect to besides.
//!
//! Only what was written; `cli/confine.rs` joins it with the command line and with the sidecar's own ports, and
//! `supervise/confine.rs` makes it true.

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::Checker;
use super::raw::List;
use super::read::Given;
use super::words::ConfineMode;

/// How the agent that `run` starts is kept from walking around the sidecar (Linux).
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfine {
    /// Whether the child may make TCP connections to the sidecar's ports and the listed ones only. Default: off.
    pub mode: Given<ConfineMode>,
    /// Further TCP ports that it may connect to, on any host: a database, a local collector. Default: none.
    pub allow: List<u64>,
}

/// `confine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confine {
    /// Off, as far as the system can, or no start.
    pub mode: ConfineMode,
    /// Ports besides the sidecar's own.
    pub allow: Vec<u16>,
}

/// Checks what the file says.
pub(super) fn confine(raw: &RawConfine, c: &mut Checker<'_>) -> Confine {
    let mut allow = Vec::new();
    for item in raw.allow.get().into_iter().flatten() {
        let Some(number) = item.get() else { continue };
        match u16::try_from(*number) {
            Ok(port) if port > 0 => allow.push(port),
            Ok(_) | Err(_) => {
                let problem = item.problem("is no TCP port");
                c.report(problem.hint("write 1 to 65535"));
            }
        }
    }
    Confine {
        mode: raw.mode.get().copied().unwrap_or(ConfineMode::Off),
        allow,
    }
}

//! Confinement: this process, and whatever it becomes by `exec`, makes TCP connections to listed ports only (Linux).
//!
//! Must not know why these ports. `run` starts itself anew with the hidden command `confined-exec`, which restricts itself and
//! then becomes the agent: a hook between fork and exec would need `unsafe`. `cli/confine.rs` is that command.
//!
//! Two locks, because one does not close. **Landlock** (ABI 4, Linux 6.7) checks `connect` of TCP sockets by their port. It does
//! not see MPTCP and SMC sockets, which fall back to plain TCP with any server, nor data that opens a connection by itself
//! (`MSG_FASTOPEN`): both were seen to walk past it on Linux 6.18. A **seccomp** filter refuses those, and io_uring, whose
//! operations no filter sees. All of it holds for descendants and cannot be taken off; neither can privileges be gained
//! (`no_new_privs`).
//!
//! What this is not: a port is a port on every host, for the kernel knows no addresses here; UDP (and so DNS), Unix sockets and what
//! an unconfined process can be talked into over one stay open. Listening stays allowed.

use std::collections::BTreeSet;
use std::ffi::OsString;

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineFault {
    /// No Landlock with rules for TCP.
    #[error(
        "this kernel cannot restrict TCP connections: Landlock with ABI 4 (Linux 6.7) is missing, switched off, or forbidden by the container's seccomp profile ({0})"
    )]
    Landlock(String),
    /// The filter was refused.
    #[error(
        "the system takes no seccomp filter ({0}); without one Landlock can be walked around by MPTCP and TCP Fast Open"
    )]
    Seccomp(String),
    /// Another system than Linux.
    #[cfg(not(target_os = "linux"))]
    #[error("only Linux can confine a process")]
    System,
}

/// The hidden command that a confined child begins as.
pub const COMMAND: &str = "confined-exec";
/// This very program, whatever has become of its file.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// The command that confines itself to these ports and then becomes `command`.
pub fn confined(command: &[OsString], ports: &BTreeSet<u16>) -> Vec<OsString> {
    let own = [
        THIS_PROGRAM.into(),
        COMMAND.into(),
        "--ports".into(),
        listed(ports).into(),
        "--".into(),
    ];
    own.into_iter().chain(command.iter().cloned()).collect()
}

/// As the command line takes them.
pub fn listed(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    ports.join(",")
}

/// From here on this thread, and what it starts, connects to these ports only. Call it while there is one thread.
///
/// # Errors
/// [`ConfineFault`]; nothing must be started then, for the restriction may be half there.
#[cfg(target_os = "linux")]
pub fn restrict(ports: &BTreeSet<u16>) -> Result<(), ConfineFault> {
    landlock_to(ports).map_err(|fault| ConfineFault::Landlock(fault.to_string()))?;
    filter::install().map_err(|fault| ConfineFault::Seccomp(fault.to_string()))
}

/// Only Linux has a way.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn restrict(_ports: &BTreeSet<u16>) -> Result<(), ConfineFault> {
    Err(ConfineFault::System)
}

#[cfg(target_os = "linux")]
fn landlock_to(ports: &BTreeSet<u16>) -> Result<(), landlock::RulesetError> {
    use landlock::{
        AccessNet, CompatLevel, Compatible as _, NetPort, Ruleset, RulesetAttr as _,
        RulesetCreatedAttr as _,
    };
    let allowed = ports
        .iter()
        .map(|port| Ok::<_, landlock::RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    // A hard requirement: every step fails where the kernel lacks it, and "fully enforced" needs no second look.
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessNet::ConnectTcp)?
        .create()?
        .add_rules(allowed)?
        .restrict_self()?;
    Ok(())
}

/// The calls that Landlock's check of `connect` does not see.
#[cfg(target_os = "linux")]
mod filter {
    use std::collections::BTreeMap;

    use nix::libc;
    use seccompiler::{
        BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
        SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    };

    /// Sockets that are no TCP to Landlock and speak TCP to anybody: protocols of `AF_INET`, and a family.
    const IPPROTO_SMC: u64 = 256;
    const IPPROTO_MPTCP: u64 = 262;
    const AF_SMC: u64 = 43;
    const MSG_FASTOPEN: u64 = 0x2000_0000;
    /// The second table of system calls on x86_64, for the few kernels that have it.
    const SECOND_TABLE: Option<i64> = if cfg!(target_arch = "x86_64") {
        Some(0x4000_0000)
    } else {
        None
    };

    type Rules = BTreeMap<i64, Vec<SeccompRule>>;

    /// Three filters, for a filter has one error; each error is one for which programs have a fallback.
    pub(super) fn install() -> Result<(), Error> {
        apply(sockets()?, libc::EPROTONOSUPPORT)?;
        apply(fast_open()?, libc::EOPNOTSUPP)?;
        let setup = libc::SYS_io_uring_setup;
        apply(both(setup, setup, &[]), libc::ENOSYS)
    }

    fn sockets() -> Result<Rules, BackendError> {
        let rules = [
            when(2, SeccompCmpOp::Eq, IPPROTO_MPTCP)?,
            when(2, SeccompCmpOp::Eq, IPPROTO_SMC)?,
            when(0, SeccompCmpOp::Eq, AF_SMC)?,
        ];
        Ok(both(libc::SYS_socket, libc::SYS_socket, &rules))
    }

    fn fast_open() -> Result<Rules, BackendError> {
        // Which argument holds the flags, and the call's numbers.
        let calls = [
            (3, libc::SYS_sendto, libc::SYS_sendto),
            (2, libc::SYS_sendmsg, 518),
            (3, libc::SYS_sendmmsg, 538),
        ];
        let mut rules = Rules::new();
        for (argument, call, second) in calls {
            let masked = SeccompCmpOp::MaskedEq(MSG_FASTOPEN);
            rules.extend(both(call, second, &[when(argument, masked, MSG_FASTOPEN)?]));
        }
        Ok(rules)
    }

    fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    }

    /// The rules for a call by its number and, where there is one, by its number in the second table; no rules = always.
    fn both(number: i64, second: i64, rules: &[SeccompRule]) -> Rules {
        let numbers = [Some(number), SECOND_TABLE.map(|bit| bit | second)];
        let numbers = numbers.into_iter().flatten();
        numbers.map(|number| (number, rules.to_vec())).collect()
    }

    fn apply(rules: Rules, errno: i32) -> Result<(), Error> {
        let refuse = SeccompAction::Errno(errno.unsigned_abs());
        let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?;
        let program = BpfProgram::try_from(filter)?;
        seccompiler::apply_filter(&program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_says_its_ports_and_keeps_the_arguments_as_they_are() {
        let command = ["agent".into(), "--json".into(), "two words".into()];
        let confined = confined(&command, &BTreeSet::from([9400, 443]));
        let expected = [
            "/proc/self/exe",
            "confined-exec",
            "--ports",
            "443,9400",
            "--",
            "agent",
            "--json",
            "two words",
        ];
        assert_eq!(confined, expected.map(OsString::from));
    }
}

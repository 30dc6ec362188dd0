//! The commands of PRODUCT 2: argument grammar, dispatch, exit codes. With its parts the only place that prints and that
//! reads the environment.
//!
//! `cli/serve.rs` runs the sidecar, `cli/policy.rs` answers questions about a configuration, `cli/bundle.rs` derives one,
//! `cli/policy_test.rs` tests one, `cli/catalog.rs` lists
//! what can be called, `cli/audit.rs` reads the log.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::json;

use crate::config::{self, Config, Env, LoadOptions};
use crate::domain::audit::chain::RECORD_SCHEMA;
use crate::domain::problem::Problem;
use crate::supervise::environment::Variables;

mod audit;
mod bundle;
mod catalog;
mod confine;
mod dev;
mod doctor;
mod health;
mod policy;
mod policy_test;
mod serve;
mod wire;

/// Exit codes (sysexits where they fit).
pub mod exit {
    /// Good.
    pub const GOOD: u8 = 0;
    /// The answer is no.
    pub const NO: u8 = 1;
    /// Bad usage.
    pub const USAGE: u8 = 64;
    /// A fault of the program or its machine.
    pub const INTERNAL: u8 = 70;
    /// Bad configuration.
    pub const CONFIG: u8 = 78;
}

/// An authenticating sidecar for AI agents on Databricks: the agent never holds a secret worth stealing.
#[derive(Parser)]
#[command(name = "valetkey", version, about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the sidecar, then CMD as its child, wired to it
    Run {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(flatten)]
        confine: confine::ConfineArguments,
        /// How the agent's calls are led to the sidecar
        #[arg(long, value_enum, default_value_t = wire::WireWord::Host)]
        wire: wire::WireWord,
        /// The agent's command, after `--`
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// The sidecar alone (container sidecar, systemd)
    Serve {
        #[command(flatten)]
        config: ConfigArgument,
    },
    Dev(dev::Dev),
    /// Everything on one machine, nothing to configure
    Demo {
        /// End after the tour
        #[arg(long)]
        once: bool,
    },
    /// Validate and print the effective policy as a table
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print the catalogue instead: every operation, or those of a family such as sql
        #[arg(long, value_name = "FAMILY", num_args = 0..=1, default_missing_value = "*")]
        catalog: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether a call would be allowed, as whom, and by which route
    Explain(policy::Explain),
    /// Make policies and compare them
    Policy {
        #[command(subcommand)]
        command: Policy,
    },
    /// Read the audit log
    Audit {
        #[command(subcommand)]
        command: audit::Audit,
    },
    /// Test the environment: host, discovery, keys, clock, credential, resources, audit path, ports, confinement
    Doctor {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Exit 0 when the local sidecar is ready (container probes)
    Healthcheck {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print what `/readyz` says
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the configuration file
    Schema {
        /// Of a record of the audit log instead
        #[arg(long)]
        audit: bool,
    },
    /// Print a completion script
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// What `run --confine` starts the agent by
    #[command(hide = true)]
    ConfinedExec(confine::ConfinedExec),
}

/// The commands of `policy`.
#[derive(Subcommand)]
enum Policy {
    FromBundle(bundle::FromBundle),
    Test(policy_test::PolicyTest),
}

/// Where the configuration is.
#[derive(clap::Args, Clone)]
struct ConfigArgument {
    /// The configuration file; else $VALETKEY_CONFIG, else ./valetkey.yaml, else the environment alone
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn options(&self) -> LoadOptions {
        LoadOptions {
            config: self.config.clone(),
            ..LoadOptions::default()
        }
    }

    /// Loads the configuration, or prints every mistake.
    fn load(&self, env: &Env) -> Result<Config, u8> {
        self.try_load(env).map_err(|problems| report(&problems))
    }

    fn try_load(&self, env: &Env) -> Result<Config, Vec<Problem>> {
        Config::load(&self.options(), env)
    }
}

/// Everything the commands need from outside.
struct World {
    /// The environment as it is, for a child.
    variables: Variables,
    /// The part of it that is UTF-8, for the configuration.
    env: Env,
}

/// The whole program: arguments in, exit code out.
pub fn main(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(fault) => {
            // Help and version are asked for; everything else is bad usage.
            let code = if fault.use_stderr() {
                exit::USAGE
            } else {
                exit::GOOD
            };
            let _ = fault.print();
            return code;
        }
    };
    let variables: Variables = variables.into_iter().collect();
    let text: BTreeMap<String, String> = variables
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned())))
        .collect();
    let world = World {
        variables,
        env: Env::from(text),
    };
    match arguments.command {
        Command::Run {
            config,
            confine,
            wire,
            command,
        } => serve::run(&config, &confine, wire, &command, &world),
        Command::Serve { config } => serve::serve(&config, &world),
        Command::Dev(arguments) => dev::dev(&arguments, &world),
        Command::Demo { once } => serve::demo(once),
        Command::Check {
            catalog: Some(family),
            json,
            ..
        } => catalog::list(&family, json),
        Command::Check { config, json, .. } => policy::check(&config, json, &world.env),
        Command::Explain(question) => policy::explain(&question, &world.env),
        Command::Policy { command } => match command {
            Policy::FromBundle(arguments) => bundle::from_bundle(&arguments, &world.env),
            Policy::Test(arguments) => policy_test::test(&arguments, &world.env),
        },
        Command::Audit { command } => audit::read(command, &world.env),
        Command::Doctor { config, json } => doctor::examine(&config, json, &world.env),
        Command::Healthcheck { config, json } => health::check(&config, json, &world.env),
        Command::Schema { audit: true } => print(RECORD_SCHEMA),
        Command::Schema { audit: false } => print(&format!("{:#}\n", config::schema::schema())),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "valetkey", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::ConfinedExec(arguments) => confine::exec(&arguments),
    }
}

/// Writes to standard output; a reader that has gone (`| head`) is no fault.
fn print(text: &str) -> u8 {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => exit::GOOD,
        Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => exit::GOOD,
        Err(fault) => complain(
            &format!("cannot write to standard output: {fault}"),
            exit::INTERNAL,
        ),
    }
}

/// Says on standard error why the command ends.
fn complain(text: &str, code: u8) -> u8 {
    // With standard error gone too there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "valetkey: {text}");
    code
}

/// A mistake for programs.
fn problem_json(problem: &Problem) -> serde_json::Value {
    let line = (problem.line > 0).then_some(problem.line);
    json!({"file": problem.file, "line": line, "key": problem.key, "message": problem.message, "hint": problem.hint})
}

/// Prints every mistake, one a line.
fn report(problems: &[Problem]) -> u8 {
    report_in("the configuration", problems)
}

fn report_in(place: &str, problems: &[Problem]) -> u8 {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    let count = if lines.len() == 1 {
        "1 problem".to_owned()
    } else {
        format!("{} problems", lines.len())
    };
    complain(
        &format!("{count} in {place}\n{}", lines.join("\n")),
        exit::CONFIG,
    )
}

/// A table with aligned columns, two blanks between them.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter().fold(String::new(), |mut text, row| {
        let line = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect::<Vec<_>>()
            .join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_has_no_mistake() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn tables_align_their_columns() {
        let rows = [
            vec!["a".into(), "bb".into()],
            vec!["ccc".into(), "d".into()],
        ];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }

    #[test]
    fn bad_usage_and_help_have_their_codes() {
        let run = |words: &[&str]| main(words.iter().map(OsString::from), []);
        assert_eq!(run(&["valetkey", "--version"]), exit::GOOD);
        assert_eq!(run(&["valetkey", "nonsense"]), exit::USAGE);
        assert_eq!(run(&["valetkey", "run"]), exit::USAGE);
    }
}

//! argv and environment in, exit code out. Everything else is in `cli.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(valetkey::cli::main(
        std::env::args_os(),
        std::env::vars_os(),
    ))
}

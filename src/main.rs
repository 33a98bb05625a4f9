/*! The `qualm` command: it only maps errors to exit codes. */

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match qualm::cli::run(qualm::cli::Cli::parse()) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit.code())
        }
    }
}

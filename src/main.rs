/*! The `qualm` command: it only maps errors to exit codes. */

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(qualm::cli::main().code())
}

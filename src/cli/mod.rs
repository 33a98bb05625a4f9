/*!
The command line: arguments, and one file a command. What a command does stands in the other rooms.
*/

mod args;
mod console;
mod diff;
mod error;
mod inspect;
mod run;
mod run_args;
mod stats;

pub use args::{Cli, Command};
pub use error::Failure;

use crate::suite::exit::Exit;

/// Runs the command that the arguments ask for.
pub fn run(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Some(Command::Diff(args)) => diff::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Stats(args)) => stats::run(&args),
        Some(Command::Run(args)) => run::run(&args),
        None => run::run(&cli.run),
    }
}

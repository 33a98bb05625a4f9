/*!
The command line: arguments, and one file a command. What a command does stands in the other rooms.
*/

mod args;
mod baselines;
mod check;
mod color;
mod compare;
mod console;
mod diff;
mod error;
mod explain;
mod falsify;
mod generate;
mod github;
pub mod harness;
mod init;
mod inspect;
mod map;
mod merge;
mod one_pair;
mod progress;
mod report;
mod rerun;
mod run;
mod run_args;
mod stats;

pub use args::{Cli, Command};
pub use error::Failure;

use crate::codec::simd;
use crate::suite::exit::Exit;
use run::Caller;

/// Runs the command that the arguments ask for.
pub fn run(cli: Cli) -> Result<Exit, Failure> {
    simd::level()?;
    match cli.command {
        Some(Command::Diff(args)) => diff::run(&args),
        Some(Command::Map(args)) => map::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Falsify(args)) => falsify::run(&args),
        Some(Command::Init(args)) => init::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Stats(args)) => stats::run(&args),
        Some(Command::Run(args)) => run::run(&args, Caller::CommandLine),
        Some(Command::Rerun(args)) => rerun::run(*args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Pending(args)) => baselines::pending(&args),
        Some(Command::Review(args)) => baselines::review(&args),
        Some(Command::Accept(args)) => baselines::accept(&args),
        Some(Command::Reject(args)) => baselines::reject(&args),
        Some(Command::Prune(args)) => baselines::prune(&args),
        Some(Command::Merge(args)) => merge::run(&args),
        Some(Command::Report(args)) => report::run(&args),
        Some(Command::Schema(args)) => generate::schema(&args),
        Some(Command::Completions(args)) => generate::completions(&args),
        Some(Command::Man(args)) => generate::man(&args),
        None => run::run(&cli.run, Caller::CommandLine),
    }
}

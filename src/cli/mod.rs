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
mod model_args;
mod progress;
mod rank;
mod report;
mod rerun;
mod run;
mod run_args;
mod section;
mod stats;
mod streams;
mod threads;
mod verify;

pub use args::{Cli, Command};
pub use error::Failure;

use crate::codec::simd;
use crate::suite::exit::Exit;
use crate::{disk, internal};
use run::Caller;

/// The program: reads the process's arguments, runs the command, and says on standard error why it
/// failed. Whatever happens, the exit code means what it says.
pub fn main() -> Exit {
    match harness::arguments::<Cli>() {
        Ok(cli) => end(guarded(|| run(cli)), "error"),
        Err(exit) => exit,
    }
}

/// Runs a command such that a panic in it is an internal error, and a signal leaves nothing behind.
fn guarded(command: impl FnOnce() -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    internal::keep_panics();
    disk::clear_on_signals();
    let command_line: Vec<String> =
        std::env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    let doing = format_args!("running `qualm {}`", command_line.join(" "));
    internal::guard(doing, command).map_err(|error| Failure::new(Exit::Internal, error))?
}

/// The exit code of a command; why it failed is said, after a word of its own.
fn end(result: Result<Exit, Failure>, word: &str) -> Exit {
    result.unwrap_or_else(|failure| {
        // What is rendered begins with the word already; cargo-nextest looks for its own.
        let said = failure.rendered && word == "error";
        let message = if said { format!("{failure}\n") } else { format!("{word}: {failure}\n") };
        if failure.rendered {
            streams::tell_rendered(|_| message);
        } else {
            streams::tell(format_args!("{}", message.trim_end()));
        }
        failure.exit
    })
}

/// Runs the command that the arguments ask for.
pub fn run(cli: Cli) -> Result<Exit, Failure> {
    simd::level()?;
    match cli.command {
        Some(Command::Diff(args)) => diff::run(&args),
        Some(Command::Map(args)) => map::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Rank(args)) => rank::run(&args),
        Some(Command::Verify(args)) => Ok(verify::run(&args)),
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

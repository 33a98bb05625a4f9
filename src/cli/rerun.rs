/*!
`qualm rerun`: what failed, once more.

Its reports go into a directory of their own: a record of a few tests must not stand where the record
of the whole suite stood.
*/

use std::io::Write as _;

use super::Failure;
use super::args::RerunArgs;
use super::report::read_record;
use super::run::{self, Caller};
use super::streams;
use crate::suite::exit::Exit;
use crate::suite::record::TestOutcome;

/// Reads what failed from a record and runs exactly that.
pub fn run(args: RerunArgs) -> Result<Exit, Failure> {
    let RerunArgs { from, run: mut args, .. } = args;
    let from = from.unwrap_or_else(|| args.out_dir.join("contract.json"));
    let contract = read_record(&from)?;
    let selection = args.selection();
    let tests = contract.specs.iter().flat_map(|spec| &spec.pairs).flat_map(|pair| &pair.tests);
    let failed: Vec<String> = tests
        .filter(|test| matches!(test.outcome, TestOutcome::Failed | TestOutcome::Error))
        .filter(|test| selection.selects(&test.id, true))
        .map(|test| test.id.clone())
        .collect();
    if failed.is_empty() {
        writeln!(streams::text(), "nothing failed in {}", from.display())?;
        return Ok(Exit::Ok);
    }
    args.filters = failed;
    args.exact = true;
    args.include_ignored = true;
    args.granularity = None;
    args.out_dir.push("rerun");
    run::run(&args, Caller::CommandLine)
}

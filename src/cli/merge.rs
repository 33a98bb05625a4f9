/*! `qualm merge DIR|FILE…`: the shards of a run put together. */

use std::time::Instant;

use super::args::{MergeArgs, PlaceArgs};
use super::color;
use super::console::Console;
use super::run::{
    attach_evidence, mark, report_options, tell_github, tell_what_next, warn_of_spec, write_reports,
};
use super::{Failure, streams};
use crate::disk;
use crate::model::scheme::knows_qtype;
use crate::suite::baseline::Baselines;
use crate::suite::blob;
use crate::suite::exit::Exit;
use crate::suite::merge::{self, Loaded};

/// Reads the shards, judges what only the whole can say, and reports as one run would have.
pub fn run(args: &MergeArgs) -> Result<Exit, Failure> {
    let started = Instant::now();
    let incomplete = |error: &dyn std::fmt::Display| Failure::new(Exit::MergeIncomplete, error);
    let paths = blob::find(&args.paths).map_err(|error| incomplete(&error))?;
    let loaded = paths.iter().map(|path| Loaded::read(path)).collect();
    let shards = merge::gather(loaded, args.allow_missing).map_err(|error| incomplete(&error))?;
    let PlaceArgs { snapshots, out_dir } = &args.places;
    disk::sweep(out_dir);
    disk::sweep(snapshots);
    let stale = mark(out_dir)?;
    let baselines = Baselines::new(snapshots, out_dir, false, None)?;
    let mut console = Console::new(args.format, color::on_stdout(args.color));
    console.verbose = args.verbose;
    console.begin(shards.count());
    let mut contract = merge::merge(shards, &baselines, knows_qtype, &mut console)
        .map_err(|error| incomplete(&error))?;
    attach_evidence(&mut contract, out_dir);
    let reports = report_options(args.junit_dialect, args.junit_cases);
    write_reports(out_dir, &mut contract, &reports)?;
    stale.finish()?;
    let printed = console.end(&contract, started.elapsed().as_secs_f64());
    warn_of_spec(&contract);
    tell_what_next(&contract);
    let printed = printed.and(tell_github(&contract, args.format, &mut console));
    Ok(streams::printed(printed, Exit::from_code(contract.exit_code)))
}

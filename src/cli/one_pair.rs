/*! A run over one pair that the command line names, with no spec file and no baseline. */

use std::path::Path;

use super::Failure;
use super::threads::thread_count;
use crate::report::draft::{quoted, template};
use crate::spec::{self, Granularity, LoadOptions, Quantized};
use crate::suite::exit::Exit;
use crate::suite::plan::{self, Choice};
use crate::suite::record::PairRecord;
use crate::suite::select::Selection;
use crate::suite::{self, Listener, Options};

struct Silent;

impl Listener for Silent {}

/// Runs a spec of one pair, given as text. The models are those of the command line, whatever their
/// paths are made of: a text may not be able to say them. With `settle`, checks that hold are only counted.
pub fn measure(
    text: &str,
    reference: &Path,
    quantized: &Path,
    threads: Option<usize>,
    settle: bool,
) -> Result<PairRecord, Failure> {
    // Paths on the command line are taken as they are: the shell has replaced variables.
    let options =
        LoadOptions { env: &|name| Some(format!("${{{name}}}")), ..LoadOptions::default() };
    let mut spec = spec::parse(text.as_bytes(), Path::new("pair.toml"), Path::new(""), &options)
        .map_err(|errors| Failure::new(Exit::Usage, errors))?;
    for pair in &mut spec.pairs {
        reference.clone_into(&mut pair.reference.path);
        if let Quantized::File(model) = &mut pair.quantized {
            quantized.clone_into(&mut model.path);
        }
    }
    let specs = [spec];
    let choice = Choice {
        selection: Selection::default(),
        tags: Vec::new(),
        shard: None,
        no_baseline: true,
        granularity: Some(Granularity::Tensor),
        benchmarks: false,
    };
    let plan = plan::plan(&specs, &choice).map_err(|e| Failure::new(Exit::Internal, e))?;
    let options = Options {
        threads: thread_count(threads),
        baselines: None,
        max_fail: None,
        warnings_fail: false,
        nothing_passes: false,
        settle,
    };
    let contract = suite::run(&plan, &options, None, &mut Silent);
    let mut pairs = contract.specs.into_iter().flat_map(|spec| spec.pairs);
    let pair = pairs.next().ok_or_else(|| Failure::new(Exit::Internal, "no pair ran"))?;
    match pair.tests.iter().find(|test| suite::is_internal(test)) {
        Some(test) => Err(Failure::new(Exit::Internal, test.reason.as_deref().unwrap_or_default())),
        None => Ok(pair),
    }
}

/// Adds the map that a command line names to the spec of one pair.
pub fn push_map(text: &mut String, map: Option<&Path>) {
    if let Some(map) = map {
        text.extend(["map = ", &literal(&map.to_string_lossy()), "\n"]);
    }
}

/// A string of a spec, in which braces are braces.
pub fn literal(text: &str) -> String {
    quoted(&template(text))
}

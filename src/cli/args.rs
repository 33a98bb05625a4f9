/*! The arguments of every command. */

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use regex::Regex;

use super::run_args::{Color, Format, JunitCases, JunitDialect, RunArgs};
use super::threads::threads;
use crate::report::compare::LEAST_BYTES;
use crate::suite::exit::Exit;

/// A cargo-test-style regression harness for quantized neural-network weights.
#[derive(Debug, Parser)]
#[command(
    name = "qualm",
    version,
    about,
    after_help = Exit::help(),
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// What to do; without one, the suite is run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Arguments of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the suite: specs/**/*.toml (the default command)
    Run(Box<RunArgs>),
    /// Run again what failed in the last run
    Rerun(Box<RerunArgs>),
    /// Compare two models tensor by tensor (the contract CRUX-B-20's surface)
    Diff(DiffArgs),
    /// Judge a pair with no spec and no baseline: 0 healthy, 5 damaged, 6 unreadable
    Check(CheckArgs),
    /// Prove that the suite can fail: inject faults in memory, and see which ones its gates notice
    Falsify(FalsifyArgs),
    /// Write a spec for a pair, with bounds drawn from what it measures
    Init(InitArgs),
    /// Quantize a float model in memory and print the errors, as llama-quantize-stats does
    Stats(StatsArgs),
    /// Show which tensors of a checkpoint each converted tensor is made of, and how
    Map(MapArgs),
    /// List the tensors of a model: type, shape, size, non-finite values
    Inspect(InspectArgs),
    /// Show every bound that applies to a test, and where it is written
    Explain(ExplainArgs),
    /// List baselines that are new or changed
    Pending(PendingArgs),
    /// Look at baselines that are new or changed, and accept or reject them
    Review(ReviewArgs),
    /// Accept baselines that are new or changed
    Accept(AcceptArgs),
    /// Reject baselines that are new or changed
    Reject(RejectArgs),
    /// Remove snapshots that no pair refers to any more
    Prune(PruneArgs),
    /// Put the shards of a run together, and report as one run would have
    Merge(MergeArgs),
    /// Make reports again from a contract.json
    Report(ReportArgs),
    /// Tell what has changed between two runs: 0 nothing fails anew, 101 something does
    Compare(CompareArgs),
    /// Print the JSON schema of specs, or of contract.json
    Schema(SchemaArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man(ManArgs),
}

/// Arguments of `qualm rerun`.
#[derive(Debug, Args)]
pub struct RerunArgs {
    /// What failed or could not be judged (the default, and all there is)
    #[arg(long)]
    pub failed: bool,
    /// The contract.json of the run [default: that of --out-dir]
    #[arg(long, value_name = "CONTRACT")]
    pub from: Option<PathBuf>,
    /// Arguments of `run`; filters choose among what failed
    #[command(flatten)]
    pub run: RunArgs,
}

/// Arguments of `qualm diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The reference model: a file, a directory, or an index of shards
    #[arg(value_name = "REF")]
    pub reference: PathBuf,
    /// The quantized model, in any format
    #[arg(value_name = "QUANT")]
    pub quantized: PathBuf,
    /// Print JSON instead of tab-separated values
    #[arg(long)]
    pub json: bool,
    /// Fail if any tensor's cosine is below this, in [-1, 1]
    #[arg(long, value_name = "COSINE", default_value_t = crate::metrics::CONTRACT_COSINE, allow_negative_numbers = true,
          value_parser = cosine, conflicts_with = "no_threshold")]
    pub threshold: f64,
    /// Report only: no cosine makes the command fail
    #[arg(long)]
    pub no_threshold: bool,
    /// Accept tensors that only one of the models holds
    #[arg(long)]
    pub allow_missing: bool,
    /// Accepted for compatibility: `diff` always compares a quantization round trip
    #[arg(long, hide = true)]
    pub quant_roundtrip: bool,
    /// A file of rules for converted tensors, before the built-in ones; `none` for no rules at all
    #[arg(long, value_name = "FILE|none")]
    pub map: Option<PathBuf>,
    /// Threads to read and measure with [default: one per core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// Arguments of `qualm map`.
#[derive(Debug, Args)]
pub struct MapArgs {
    /// The reference model: a file, a directory, or an index of shards
    #[arg(value_name = "REF")]
    pub reference: PathBuf,
    /// The quantized model, in any format
    #[arg(value_name = "QUANT")]
    pub quantized: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// A file of rules for converted tensors, before the built-in ones; `none` for no rules at all
    #[arg(long, value_name = "FILE|none")]
    pub map: Option<PathBuf>,
}

/// Arguments of `qualm inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The model: a file, a directory, or an index of shards
    pub model: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Read headers alone: the values are not looked at, and not counted
    #[arg(long, conflicts_with = "digest")]
    pub headers: bool,
    /// Print the SHA-256 of each tensor's decoded f32 values (little-endian, row-major)
    #[arg(long)]
    pub digest: bool,
    /// Threads to read with [default: one per core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// Arguments of `qualm check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The reference model: a file, a directory, or an index of shards
    #[arg(value_name = "REF")]
    pub reference: PathBuf,
    /// The quantized model, in any format
    #[arg(value_name = "QUANT")]
    pub quantized: PathBuf,
    /// The types that tensors must be stored in; may be given several times
    #[arg(long, value_name = "GLOB=TYPE[,TYPE]", value_parser = qtype_rule)]
    pub qtype: Vec<QtypeArg>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// A file of rules for converted tensors, before the built-in ones; `none` for no rules at all
    #[arg(long, value_name = "FILE|none")]
    pub map: Option<PathBuf>,
    /// Threads to read and measure with [default: one per core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// `GLOB=TYPE[,TYPE]`.
#[derive(Clone, Debug)]
pub struct QtypeArg {
    /// Tensors.
    pub glob: String,
    /// Types or schemes, one of which each must have.
    pub types: Vec<String>,
}

fn qtype_rule(text: &str) -> Result<QtypeArg, String> {
    let usage = || format!("{text:?} is not GLOB=TYPE[,TYPE]");
    let (glob, types) = text.rsplit_once('=').ok_or_else(usage)?;
    let types: Vec<String> = types.split(',').map(|ty| ty.trim().to_owned()).collect();
    if glob.is_empty() || types.iter().any(String::is_empty) {
        return Err(usage());
    }
    Ok(QtypeArg { glob: glob.to_owned(), types })
}

/// Arguments of `qualm falsify`.
#[derive(Debug, Args)]
pub struct FalsifyArgs {
    /// A spec file or a directory of specs [default: specs]
    #[arg(value_name = "SPEC")]
    pub spec: Vec<PathBuf>,
    /// Only pairs whose id contains this; may be given several times
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Only pairs with this tag; may be given several times
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Apply this profile of the specs
    #[arg(long, value_name = "NAME", env = "QUALM_PROFILE")]
    pub profile: Option<String>,
    /// Threads to work with [default: one per core]
    #[arg(long, value_name = "N", env = "RUST_TEST_THREADS", value_parser = threads)]
    pub test_threads: Option<usize>,
    /// Where falsify.json is written; a later run with the same directory reports it as evidence
    #[arg(long, value_name = "DIR", default_value = "target/qualm")]
    pub out_dir: PathBuf,
    /// Where the snapshots of the baselines are; nothing is written there
    #[arg(long, value_name = "DIR", default_value = "snapshots")]
    pub snapshots: PathBuf,
    /// Leave the baselines alone: what does the suite notice on its own?
    #[arg(long)]
    pub no_baseline: bool,
    /// Print falsify.json instead of tables
    #[arg(long)]
    pub json: bool,
    /// List the faults, and inject nothing
    #[arg(long)]
    pub list: bool,
}

/// Arguments of `qualm init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The reference model: a file, a directory, or an index of shards
    #[arg(value_name = "REF")]
    pub reference: PathBuf,
    /// The quantized model, in any format
    #[arg(value_name = "QUANT")]
    pub quantized: PathBuf,
    /// The spec to write, or `-` for standard output [default: specs/QUANT.toml]
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Name of the pair [default: the type that most of it is stored in]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Overwrite the spec
    #[arg(long)]
    pub force: bool,
    /// A file of rules for converted tensors, before the built-in ones; `none` for no rules at all
    #[arg(long, value_name = "FILE|none")]
    pub map: Option<PathBuf>,
    /// Threads to read and measure with [default: one per core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// Arguments of `qualm compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The contract.json of the run before
    pub old: PathBuf,
    /// The contract.json of the run now
    pub new: PathBuf,
    /// Print Markdown, for a comment on a merge request
    #[arg(long)]
    pub markdown: bool,
    /// Print at most so many bytes, at least 4096; what does not fit is counted
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = budget)]
    pub max_bytes: usize,
}

fn budget(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if n >= LEAST_BYTES => Ok(n),
        Ok(_) => Err(format!("must be at least {LEAST_BYTES}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Arguments of `qualm stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// The float model: a file, a directory, or an index of shards
    pub model: PathBuf,
    /// Types to quantize to, separated by commas, or `all`
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', default_value = "all")]
    pub types: Vec<String>,
    /// Only tensors whose name matches this regular expression; may be given several times
    #[arg(long, value_name = "REGEX")]
    pub include: Vec<Regex>,
    /// Leave out tensors whose name matches this regular expression; may be given several times
    #[arg(long, value_name = "REGEX")]
    pub exclude: Vec<Regex>,
    /// Print the distribution of the errors, too
    #[arg(long)]
    pub histogram: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Threads to quantize with [default: one per core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// Where snapshots and pending files are.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// Where the snapshots of the baselines are
    #[arg(long, value_name = "DIR", default_value = "snapshots")]
    pub snapshots: PathBuf,
    /// Where reports, and in CI pending files, are written
    #[arg(long, value_name = "DIR", default_value = "target/qualm")]
    pub out_dir: PathBuf,
}

/// Arguments of `qualm explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A test's id, as `qualm run --list` prints it
    #[arg(value_name = "TEST-ID")]
    pub id: String,
    /// A spec file or a directory of specs [default: specs]
    #[arg(long, value_name = "PATH")]
    pub spec: Vec<PathBuf>,
    /// Apply this profile of the specs
    #[arg(long, value_name = "NAME", env = "QUALM_PROFILE")]
    pub profile: Option<String>,
}

/// Arguments of `qualm pending`.
#[derive(Debug, Args)]
pub struct PendingArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `qualm review`.
#[derive(Debug, Args)]
pub struct ReviewArgs {
    /// Only snapshots whose name contains one of these
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub places: PlaceArgs,
}

/// Arguments of `qualm accept`.
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// Only snapshots whose name contains one of these
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Recorded with the baseline
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Accept what is worse although the spec says `ratchet`; needs a reason
    #[arg(long, requires = "reason")]
    pub allow_worse: bool,
    /// Take pending files from the artefact of a CI run: a directory or a ZIP file
    #[arg(long, value_name = "DIR|ZIP")]
    pub from: Vec<PathBuf>,
    /// Only say what would be accepted
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub places: PlaceArgs,
}

/// Arguments of `qualm reject`.
#[derive(Debug, Args)]
pub struct RejectArgs {
    /// Only snapshots whose name contains one of these
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub places: PlaceArgs,
}

/// Arguments of `qualm prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// A spec file or a directory of specs [default: specs]
    #[arg(long, value_name = "PATH")]
    pub spec: Vec<PathBuf>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub places: PlaceArgs,
}

/// Arguments of `qualm merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// What the shards wrote: blob-M-of-N.json, or directories that hold such files at any depth
    #[arg(value_name = "DIR|FILE", required = true)]
    pub paths: Vec<PathBuf>,
    /// Report the tests of shards that are missing as errors, instead of refusing to merge
    #[arg(long)]
    pub allow_missing: bool,
    /// What junit.xml may hold, as in `run`
    #[arg(long, value_name = "DIALECT", default_value = "rich")]
    pub junit_dialect: JunitDialect,
    /// Which tests junit.xml lists, as in `run`
    #[arg(long, value_name = "CASES", default_value = "all")]
    pub junit_cases: JunitCases,
    /// How to print the tests
    #[arg(long, value_name = "FORMAT", default_value = "pretty")]
    pub format: Format,
    /// When to colour the output
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub places: PlaceArgs,
}

/// Arguments of `qualm report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The contract.json of a run
    pub contract: PathBuf,
    /// Write JUnit XML to this file
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// What the JUnit XML may hold: properties and attributes, or only what every reader takes
    #[arg(long, value_name = "DIALECT", default_value = "rich")]
    pub junit_dialect: JunitDialect,
    /// Which tests the JUnit XML lists
    #[arg(long, value_name = "CASES", default_value = "all")]
    pub junit_cases: JunitCases,
    /// Write Markdown to this file
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write tab-separated values to this file
    #[arg(long, value_name = "FILE")]
    pub tsv: Option<PathBuf>,
    /// Write HTML to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Where all reports go if none is asked for
    #[arg(long, value_name = "DIR", default_value = "target/qualm")]
    pub out_dir: PathBuf,
}

/// Which schema to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// Of spec files.
    Spec,
    /// Of contract.json.
    Contract,
}

/// Arguments of `qualm schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Which one
    #[arg(value_enum, default_value = "spec")]
    pub kind: SchemaKind,
}

/// Arguments of `qualm completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `qualm man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write one page a command into this directory instead of printing
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

fn cosine(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (-1.0..=1.0).contains(&value) => Ok(value),
        Ok(value) => Err(format!("{value} is not a cosine: it must lie in [-1, 1]")),
        Err(error) => Err(error.to_string()),
    }
}

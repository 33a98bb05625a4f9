/*! The arguments of every command. */

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use regex::Regex;

use super::run_args::RunArgs;
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
    /// Compare two models tensor by tensor (the contract CRUX-B-20's surface)
    Diff(DiffArgs),
    /// Quantize a float model in memory and print the errors, as llama-quantize-stats does
    Stats(StatsArgs),
    /// List the tensors of a model: type, shape, size, non-finite values
    Inspect(InspectArgs),
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
    #[arg(long, value_name = "COSINE", default_value_t = 0.95, allow_negative_numbers = true,
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
    /// Threads to read and measure with [default: one per core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// Arguments of `qualm inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The model: a file, a directory, or an index of shards
    pub model: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print the SHA-256 of each tensor's decoded f32 values (little-endian, row-major)
    #[arg(long)]
    pub digest: bool,
    /// Threads to read with [default: one per core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
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

fn cosine(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (-1.0..=1.0).contains(&value) => Ok(value),
        Ok(value) => Err(format!("{value} is not a cosine: it must lie in [-1, 1]")),
        Err(error) => Err(error.to_string()),
    }
}

pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must not be 0".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(error.to_string()),
    }
}

/// The number of threads to use: what was asked for, or one per core.
pub fn thread_count(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

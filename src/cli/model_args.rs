/*! The arguments of commands that are given models on the command line. */

use std::path::{Path, PathBuf};

use clap::Args;
use regex::Regex;

use super::threads::{thread_count, threads};
use crate::pairs::{QtypeRule, Request};

/// How pairs of models are read.
#[derive(Debug, Args)]
pub struct ReadingArgs {
    /// A file of rules for converted tensors, before the built-in ones; `none` for no rules at all
    #[arg(long, value_name = "FILE|none")]
    pub map: Option<PathBuf>,
    /// Threads to read and measure with [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

impl ReadingArgs {
    /// What is to be read in this way, and judged.
    pub fn request<'a>(&'a self, reference: &'a Path, quantized: &'a [PathBuf]) -> Request<'a> {
        let threads = thread_count(self.threads);
        Request { map: self.map.as_deref(), ..Request::of(reference, quantized, threads) }
    }
}

/// Arguments of `qualm diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The reference model: a file, a directory, an index of shards, or an address (hf://, https://, s3://, gs://,
    /// az://)
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
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// Arguments of `qualm map`.
#[derive(Debug, Args)]
pub struct MapArgs {
    /// The reference model: a file, a directory, an index of shards, or an address (hf://, https://, s3://, gs://,
    /// az://)
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
    /// The model: a file, a directory, an index of shards, or an address (hf://, https://, s3://, gs://,
    /// az://)
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
    #[arg(short = 'j', long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// Arguments of `qualm check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The reference model: a file, a directory, an index of shards, or an address (hf://, https://, s3://, gs://,
    /// az://)
    #[arg(value_name = "REF")]
    pub reference: PathBuf,
    /// The quantized models, in any format
    #[arg(value_name = "QUANT", required = true)]
    pub quantized: Vec<PathBuf>,
    /// The types that tensors must be stored in; may be given several times
    #[arg(long, value_name = "GLOB=TYPE[,TYPE]", value_parser = qtype_rule)]
    pub qtype: Vec<QtypeRule>,
    /// Look at this share of the values alone: some rows of each matrix
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub sample: Option<f64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// Arguments of `qualm rank`.
#[derive(Debug, Args)]
pub struct RankArgs {
    /// The reference model: a file, a directory, an index of shards, or an address (hf://, https://, s3://, gs://,
    /// az://)
    #[arg(value_name = "REF")]
    pub reference: PathBuf,
    /// The quantized models, in any format
    #[arg(value_name = "QUANT", required = true)]
    pub quantized: Vec<PathBuf>,
    /// The types that tensors must be stored in; may be given several times
    #[arg(long, value_name = "GLOB=TYPE[,TYPE]", value_parser = qtype_rule)]
    pub qtype: Vec<QtypeRule>,
    /// The KLD that was measured of one of the models, in nats: levels are then stated after it
    #[arg(long, value_name = "NAME=KLD", value_parser = anchor)]
    pub anchor: Option<AnchorArg>,
    /// Write the ranking as a page to this file, too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// `NAME=KLD`.
#[derive(Clone, Debug)]
pub struct AnchorArg {
    /// A model of the command line: its path, file name, or file name without its ending.
    pub name: String,
    /// In nats.
    pub kld: f64,
}

fn anchor(text: &str) -> Result<AnchorArg, String> {
    let (name, kld) = text.rsplit_once('=').ok_or_else(|| format!("{text:?} is not NAME=KLD"))?;
    match kld.trim().parse::<f64>() {
        Ok(kld) if kld > 0.0 && kld.is_finite() => Ok(AnchorArg { name: name.to_owned(), kld }),
        Ok(kld) => Err(format!("{kld} is no KLD: it must be above 0")),
        Err(error) => Err(format!("{kld:?} is no number: {error}")),
    }
}

fn qtype_rule(text: &str) -> Result<QtypeRule, String> {
    let usage = || format!("{text:?} is not GLOB=TYPE[,TYPE]");
    let (glob, types) = text.rsplit_once('=').ok_or_else(usage)?;
    let types: Vec<String> = types.split(',').map(|ty| ty.trim().to_owned()).collect();
    if glob.is_empty() || types.iter().any(String::is_empty) {
        return Err(usage());
    }
    Ok(QtypeRule { glob: glob.to_owned(), types })
}

/// Arguments of `qualm verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The models: files, directories, or indexes of shards
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Threads to read with [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// Arguments of `qualm init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The reference model: a file, a directory, an index of shards, or an address (hf://, https://, s3://, gs://,
    /// az://)
    #[arg(value_name = "REF")]
    pub reference: PathBuf,
    /// The quantized models, in any format: one pair each
    #[arg(value_name = "QUANT", required = true)]
    pub quantized: Vec<PathBuf>,
    /// The spec to write, or `-` for standard output [default: specs/QUANT.toml; of several, specs/REF.toml]
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Name of the pair [default: the type that most of it is stored in; of several, the file's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Overwrite the spec
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// Arguments of `qualm stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// The float model: a file, a directory, an index of shards, or an address (hf://, https://, s3://, gs://,
    /// az://)
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
    #[arg(short = 'j', long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// `1%`, or `0.01`.
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), 0.01),
        None => (text, 1.0),
    };
    match number.parse::<f64>().map(|it| it * unit) {
        Ok(share) if (1e-6..=1.0).contains(&share) => Ok(share),
        Ok(_) => Err(format!("{text:?} is no share: it must be above 0 and at most 100%")),
        Err(error) => Err(error.to_string()),
    }
}

fn cosine(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (-1.0..=1.0).contains(&value) => Ok(value),
        Ok(value) => Err(format!("{value} is not a cosine: it must lie in [-1, 1]")),
        Err(error) => Err(error.to_string()),
    }
}

/*! The commands, and the arguments of those that are given no models. */

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use super::model_args::{
    AnchorArg, CheckArgs, DiffArgs, InitArgs, InspectArgs, MapArgs, RankArgs, StatsArgs, VerifyArgs,
};
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

/// What help shows below the options of a command.
fn examples(lines: &[&str]) -> String {
    lines.iter().fold("Examples:".to_owned(), |text, line| text + "\n  " + line)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the suite: specs/**/*.toml (the default command)
    #[command(after_help = examples(&["qualm run", "qualm run q4_k_m --tag release", "qualm run -q --partition size:1/4"]))]
    Run(Box<RunArgs>),
    /// Run again what failed in the last run
    #[command(after_help = examples(&["qualm rerun", "qualm rerun q4_k_m --from artefact/contract.json"]))]
    Rerun(Box<RerunArgs>),
    /// Compare two models tensor by tensor (the contract CRUX-B-20's surface)
    #[command(after_help = examples(&["qualm diff f16.gguf q8_0.gguf", "qualm diff checkpoint/ q4_k_m.gguf --json"]))]
    Diff(DiffArgs),
    /// Judge models against their reference, with no spec and no baseline: 0 healthy, 5 damaged, 6 unreadable
    #[command(after_help = examples(&["qualm check f16.gguf q4_k_m.gguf", "qualm check f16.gguf q*.gguf --json", "qualm check bf16/ nvfp4/ --qtype '*.experts.*.weight=NVFP4'"]))]
    Check(CheckArgs),
    /// Rank many quantized models of one reference by size, quality and expected damage
    #[command(after_help = examples(&["qualm rank f16.gguf q*.gguf > card.md", "qualm rank f16.gguf q*.gguf --html ranking.html", "qualm rank f16.gguf q4_k_m.gguf q2_k.gguf --anchor q4_k_m=0.021 --json"]))]
    Rank(RankArgs),
    /// Judge models without a reference: readable, finite, nothing zero, planes whole, metadata sane
    #[command(after_help = examples(&["qualm verify q4_k_m.gguf", "qualm verify checkpoint/ q*.gguf --json"]))]
    Verify(VerifyArgs),
    /// Prove that the suite can fail: inject faults in memory, and see which ones its gates notice
    #[command(after_help = examples(&["qualm falsify", "qualm falsify specs/release.toml --no-baseline", "qualm falsify --list"]))]
    Falsify(FalsifyArgs),
    /// Write a spec for a pair, with bounds drawn from what it measures
    #[command(after_help = examples(&["qualm init f16.gguf q4_k_m.gguf", "qualm init checkpoint/ q4_k_m.gguf --out specs/release.toml"]))]
    Init(InitArgs),
    /// Quantize a float model in memory and print the errors, as llama-quantize-stats does
    #[command(after_help = examples(&["qualm stats f16.gguf --type q4_0,q4_k", "qualm stats f16.gguf --include ffn_down --histogram"]))]
    Stats(StatsArgs),
    /// Show which tensors of a checkpoint each converted tensor is made of, and how
    #[command(after_help = examples(&["qualm map checkpoint/ f16.gguf", "qualm map checkpoint/ f16.gguf --map rules.toml --json"]))]
    Map(MapArgs),
    /// List the tensors of a model: type, shape, size, non-finite values
    #[command(after_help = examples(&["qualm inspect q4_k_m.gguf", "qualm inspect checkpoint/ --headers", "qualm inspect q4_k_m.gguf --json --digest"]))]
    Inspect(InspectArgs),
    /// Show every bound and gate that applies to a test, where it is written, and its value in the last run
    #[command(after_help = examples(&["qualm explain release::q4_k_m::blk.0.ffn_down.weight", "qualm explain \"release::q4_k_m::(structure)\""]))]
    Explain(ExplainArgs),
    /// List baselines that are new or changed
    #[command(after_help = examples(&["qualm pending", "qualm pending --json"]))]
    Pending(PendingArgs),
    /// Look at baselines that are new or changed, and accept or reject them
    #[command(after_help = examples(&["qualm review", "qualm review q4_k_m"]))]
    Review(ReviewArgs),
    /// Accept baselines that are new or changed
    #[command(after_help = examples(&["qualm accept q4_k_m --reason \"new encoder\"", "qualm accept --dry-run", "qualm accept --from artefact.zip"]))]
    Accept(AcceptArgs),
    /// Reject baselines that are new or changed
    #[command(after_help = examples(&["qualm reject q4_k_m", "qualm reject --dry-run"]))]
    Reject(RejectArgs),
    /// Remove snapshots that no pair refers to any more
    #[command(after_help = examples(&["qualm prune --dry-run", "qualm prune --spec specs/release.toml"]))]
    Prune(PruneArgs),
    /// Put the shards of a run together, and report as one run would have
    #[command(after_help = examples(&["qualm merge target/shards", "qualm merge blob-1-of-2.json blob-2-of-2.json --out-dir target/qualm"]))]
    Merge(MergeArgs),
    /// Make reports again from a contract.json
    #[command(after_help = examples(&["qualm report contract.json --junit junit.xml", "qualm report contract.json --html report.html --sarif report.sarif"]))]
    Report(ReportArgs),
    /// Tell what has changed between two runs: 0 nothing fails anew, 101 something does
    #[command(after_help = examples(&["qualm compare old/contract.json target/qualm/contract.json", "qualm compare old/contract.json new/contract.json --markdown > comment.md"]))]
    Compare(CompareArgs),
    /// Print the JSON schema of specs, or of contract.json
    #[command(after_help = examples(&["qualm schema > spec.schema.json", "qualm schema contract"]))]
    Schema(SchemaArgs),
    /// Print a completion script for a shell
    #[command(after_help = examples(&["qualm completions bash > ~/.local/share/bash-completion/completions/qualm", "qualm completions nushell > qualm-completions.nu"]))]
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(after_help = examples(&["qualm man > qualm.1", "qualm man --dir share/man/man1"]))]
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
    #[arg(short = 'j', long, value_name = "N", env = "RUST_TEST_THREADS", value_parser = threads)]
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
    /// The contract.json of the run whose values are shown [default: target/qualm/contract.json, if it is there]
    #[arg(long, value_name = "CONTRACT")]
    pub from: Option<PathBuf>,
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
    /// Print every failure with all that is known of it, however many there are
    #[arg(long)]
    pub verbose: bool,
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
    /// Write SARIF to this file, for code scanning
    #[arg(long, value_name = "FILE")]
    pub sarif: Option<PathBuf>,
    /// Write GitLab's Code Quality JSON to this file
    #[arg(long, value_name = "FILE")]
    pub code_quality: Option<PathBuf>,
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
    pub shell: Shell,
}

/// A shell that there are completions for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bourne Again Shell.
    Bash,
    /// Elvish.
    Elvish,
    /// Friendly interactive shell.
    Fish,
    /// Nushell.
    Nushell,
    /// PowerShell.
    #[value(name = "powershell")]
    Pwsh,
    /// Z shell.
    Zsh,
}

/// Arguments of `qualm man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write one page a command into this directory instead of printing
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The words of a line as a shell takes them, without where the output goes.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for c in line.split_once(" > ").map_or(line, |(command, _)| command).chars() {
            match (c, quote) {
                ('\'' | '"', None) => quote = Some(c),
                (c, Some(open)) if c == open => quote = None,
                (' ', None) => words.push(String::new()),
                (c, _) => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    #[test]
    fn every_command_has_examples_that_it_takes_and_its_manual_page_shows_them() {
        let command = Cli::command();
        let mut commands = 0;
        for sub in command.get_subcommands() {
            commands += 1;
            let name = sub.get_name();
            let help = sub.get_after_help().unwrap_or_else(|| panic!("{name}")).to_string();
            let lines =
                help.strip_prefix("Examples:\n").unwrap_or_else(|| panic!("{name}: {help}"));
            let mut page = Vec::new();
            clap_mangen::Man::new(sub.clone()).render(&mut page).unwrap();
            let page = String::from_utf8(page).unwrap().replace('\\', "");
            let mut examples = 0;
            for line in lines.lines() {
                let line = line.trim();
                examples += 1;
                let words = words(line);
                assert_eq!(words[..2], ["qualm", name], "{line}");
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
                let first = line.split(['\'', '"', '~']).next().unwrap_or_default();
                assert!(page.contains(first), "{line} in\n{page}");
            }
            assert!((2..=3).contains(&examples), "{name} has {examples}");
        }
        assert!(commands > 20);
    }
}

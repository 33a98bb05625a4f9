/*!
The arguments of `qualm run`: libtest's, to the letter, and qualm's own.

`cargo test -- ARGS` hands the same arguments to every test binary of a workspace, so that nothing
that libtest takes may be refused here.
*/

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Failure;
use super::threads::threads;
use crate::report::{Cases, Dialect};
use crate::spec::Granularity;
use crate::suite::exit::Exit;
use crate::suite::schedulers;
use crate::suite::select::{Ignored, Selection};
use crate::suite::shard::{Deal, Shard};

/// Arguments of `qualm run`, and of a test binary that qualm is the harness of.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// Run only tests whose id contains one of these
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Filters and --skip name whole ids
    #[arg(long)]
    pub exact: bool,
    /// Leave out tests whose id contains this; may be given several times
    #[arg(long, value_name = "FILTER")]
    pub skip: Vec<String>,
    /// List the tests and benchmarks instead of running them
    #[arg(long)]
    pub list: bool,
    /// Run only the tests that a spec skips
    #[arg(long, conflicts_with = "include_ignored")]
    pub ignored: bool,
    /// Run the tests that a spec skips like the others
    #[arg(long)]
    pub include_ignored: bool,
    /// Threads to read and measure with [default: one per core]
    #[arg(short = 'j', long, value_name = "N", env = "RUST_TEST_THREADS", value_parser = threads)]
    pub test_threads: Option<usize>,
    /// One character a test instead of one line; the same as --format terse
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print the progress of the run
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// When to colour the output
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Print what passing tests found, too
    #[arg(long)]
    pub show_output: bool,
    /// Accepted: the output of tests is never captured
    #[arg(long, alias = "nocapture")]
    pub no_capture: bool,
    /// Stop after the first failure; the same as --max-fail 1
    #[arg(long)]
    pub fail_fast: bool,

    /// A spec file or a directory of specs; may be given several times [default: specs]
    #[arg(long, value_name = "PATH", help_heading = "qualm")]
    pub spec: Vec<PathBuf>,
    /// Run only pairs with this tag; may be given several times
    #[arg(long, value_name = "TAG", help_heading = "qualm")]
    pub tag: Vec<String>,
    /// Apply this profile of the specs
    #[arg(long, value_name = "NAME", env = "QUALM_PROFILE", help_heading = "qualm")]
    pub profile: Option<String>,
    /// Run only one part of the suite: slice:M/N, hash:M/N or size:M/N
    #[arg(long, value_name = "MODE:M/N", help_heading = "qualm", group = "sharding")]
    pub partition: Option<Shard>,
    /// The same as --partition size:M/N
    #[arg(long, value_name = "M/N", value_parser = by_size, help_heading = "qualm",
          group = "sharding")]
    pub shard: Option<Shard>,
    /// Take M and N from the scheduler's environment: Slurm, GitLab, Kubernetes, …
    #[arg(long, value_name = "MODE", value_parser = deal, num_args = 0..=1, require_equals = true,
          default_missing_value = "size", help_heading = "qualm", group = "sharding")]
    pub shard_from_env: Option<Deal>,
    /// Where reports are written
    #[arg(long, value_name = "DIR", default_value = "target/qualm", help_heading = "qualm")]
    pub out_dir: PathBuf,
    /// What junit.xml may hold: properties and attributes, or only what every reader takes
    #[arg(long, value_name = "DIALECT", default_value = "rich", help_heading = "qualm")]
    pub junit_dialect: JunitDialect,
    /// Which tests junit.xml lists
    #[arg(long, value_name = "CASES", default_value = "all", help_heading = "qualm")]
    pub junit_cases: JunitCases,
    /// Where the snapshots of the baselines are
    #[arg(long, value_name = "DIR", default_value = "snapshots", help_heading = "qualm")]
    pub snapshots: PathBuf,
    /// Leave the baselines alone
    #[arg(long, help_heading = "qualm")]
    pub no_baseline: bool,
    /// What makes a test fail: a violated `fail` bound, or a violated `warn` bound, too
    #[arg(long, value_name = "LEVEL", default_value = "error", help_heading = "qualm")]
    pub fail_level: FailLevel,
    /// Stop after so many failures
    #[arg(long, value_name = "N", help_heading = "qualm")]
    pub max_fail: Option<u64>,
    /// What to do if no test is selected
    /// [default: fail; pass in a harness whose filters match none]
    #[arg(long, value_name = "ACTION", help_heading = "qualm")]
    pub no_tests: Option<NoTests>,
    /// Print every failure with all that is known of it, however many there are
    #[arg(long, help_heading = "qualm")]
    pub verbose: bool,
    /// Name the pairs that took longest
    #[arg(long, value_name = "N", help_heading = "qualm")]
    pub slowest: Option<usize>,

    /// What counts as one test in lists, filters and shards [default: tensor; in a harness, what
    /// the spec says, or pair]
    #[arg(long, value_name = "WHAT", env = "QUALM_GRANULARITY", help_heading = "qualm")]
    pub granularity: Option<PairOrTensor>,

    /// Taken for libtest's sake
    #[command(flatten)]
    pub compatible: Compatible,
}

/// libtest's arguments that mean nothing here.
#[derive(Debug, Default, Args)]
pub struct Compatible {
    #[arg(short = 'Z', hide = true, value_name = "FLAG", value_parser = ["unstable-options"])]
    unstable: Vec<String>,
    #[arg(long, hide = true)]
    pub test: bool,
    #[arg(long, hide = true)]
    pub bench: bool,
    #[arg(long, hide = true, value_name = "PATH")]
    pub logfile: Option<PathBuf>,
    #[arg(long, hide = true)]
    shuffle: bool,
    #[arg(long, hide = true, value_name = "SEED")]
    shuffle_seed: Option<u64>,
    #[arg(long, hide = true)]
    report_time: bool,
    #[arg(long, hide = true)]
    ensure_time: bool,
    #[arg(long, hide = true)]
    exclude_should_panic: bool,
    #[arg(long, hide = true)]
    force_run_in_process: bool,
}

/// What `junit.xml` may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum JunitDialect {
    /// Properties and attributes beyond the oldest schema.
    #[default]
    Rich,
    /// Only what every reader takes.
    Strict,
}

impl From<JunitDialect> for Dialect {
    fn from(dialect: JunitDialect) -> Self {
        match dialect {
            JunitDialect::Rich => Self::Rich,
            JunitDialect::Strict => Self::Strict,
        }
    }
}

/// Which tests `junit.xml` lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum JunitCases {
    /// Every test.
    #[default]
    All,
    /// Those that did not pass.
    Failed,
}

impl From<JunitCases> for Cases {
    fn from(cases: JunitCases) -> Self {
        match cases {
            JunitCases::All => Self::All,
            JunitCases::Failed => Self::Failed,
        }
    }
}

/// What counts as one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PairOrTensor {
    /// A pair with all its tensors and gates.
    Pair,
    /// A tensor, or one of a pair's own gates.
    Tensor,
}

/// How the progress of a run is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line a test.
    #[default]
    Pretty,
    /// One character a test.
    Terse,
    /// One JSON object an event, as libtest's.
    Json,
    /// Nothing but JUnit XML, once the run is over.
    Junit,
}

/// When output is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// If standard output is a terminal.
    #[default]
    Auto,
    /// Even if it is not.
    Always,
    /// Not at all.
    Never,
}

/// What makes a test fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FailLevel {
    /// A violated `warn` bound.
    Warn,
    /// A violated `fail` bound.
    #[default]
    Error,
}

/// What to do if no test is selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NoTests {
    /// Nothing.
    Pass,
    /// Say so.
    Warn,
    /// Exit with code 4.
    #[default]
    Fail,
}

fn by_size(text: &str) -> Result<Shard, String> {
    Shard::of(Deal::Size, text).unwrap_or_else(|| Err(format!("{text:?} is no shard: write M/N")))
}

fn deal(text: &str) -> Result<Deal, String> {
    Deal::from_name(text).ok_or_else(|| "write slice, hash or size".to_owned())
}

impl RunArgs {
    /// The part of the suite that is asked for, if it is not all.
    pub fn part(&self) -> Result<Option<Shard>, Failure> {
        let Some(deal) = self.shard_from_env else { return Ok(self.partition.or(self.shard)) };
        let shard = schedulers::shard(deal, &|name| std::env::var(name).ok());
        shard.map(Some).map_err(|problem| Failure::new(Exit::Usage, problem))
    }

    /// libtest's filters.
    pub fn selection(&self) -> Selection {
        Selection {
            filters: self.filters.clone(),
            exact: self.exact,
            skip: self.skip.clone(),
            ignored: if self.ignored {
                Ignored::Only
            } else if self.include_ignored {
                Ignored::Included
            } else {
                Ignored::Reported
            },
        }
    }

    /// What counts as one test, if it is said.
    pub fn granularity(&self) -> Option<Granularity> {
        self.granularity.map(|granularity| match granularity {
            PairOrTensor::Pair => Granularity::Pair,
            PairOrTensor::Tensor => Granularity::Tensor,
        })
    }

    /// Whether anything but the suite itself says which tests run.
    pub fn narrows(&self) -> bool {
        !self.filters.is_empty() || !self.skip.is_empty() || self.ignored
    }

    /// The format to print in.
    pub fn format(&self) -> Format {
        self.format.unwrap_or(if self.quiet { Format::Terse } else { Format::Pretty })
    }

    /// After how many failures to stop.
    pub fn most_failures(&self) -> Option<u64> {
        if self.fail_fast { Some(1) } else { self.max_fail }
    }
}

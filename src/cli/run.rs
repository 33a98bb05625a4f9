/*!
`qualm run`: loads the specs, plans, runs, prints, and writes the reports.
*/

use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::color;
use super::console::{self, Console};
use super::github;
use super::progress::{Bar, Watched};
use super::run_args::{Color, FailLevel, Format, JunitCases, JunitDialect, NoTests, RunArgs};
use super::threads::thread_count;
use super::{Failure, streams};
use crate::baseline::file_stem;
use crate::disk::{self, Unfinished};
use crate::model::scheme::knows_qtype;
use crate::report::{self, Report, numbers};
use crate::shown::one_line;
use crate::spec::{self, Granularity, LoadOptions, Spec};
use crate::suite::baseline::Baselines;
use crate::suite::blob::{Blob, PlanRecord};
use crate::suite::exit::Exit;
use crate::suite::falsify::record::Falsification;
use crate::suite::plan::{self, Choice, Plan};
use crate::suite::record::{BaselineStatus, Contract, Level, TestOutcome};
use crate::suite::shard::Shard;
use crate::suite::{self, Options, SPEC_CHECK};

/// Where specs are looked for if no `--spec` says otherwise.
const DEFAULT_ROOT: &str = "specs";

/// Who asks for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The command line: a test is a tensor, and a run without tests is a failure.
    CommandLine,
    /// cargo or cargo-nextest, for a test binary: a test is what the spec says, or a pair; and
    /// filters may be meant for the other binaries of the workspace.
    TestBinary,
}

/// Runs the suite, or lists it.
pub fn run(args: &RunArgs, caller: Caller) -> Result<Exit, Failure> {
    if args.compatible.logfile.is_some() {
        streams::tell(format_args!(
            "warning: `--logfile` is deprecated and does nothing here; see --out-dir"
        ));
    }
    let stale = if args.list || is_one_of_many(args, caller) { None } else { Some(begin(args)?) };
    let selection = args.selection();
    let wanted = |name: &str| selection.may_select_below(name);
    let profile = args.profile.as_deref();
    let specs = load_some(&SpecArgs { spec: &args.spec, profile }, &wanted)?;
    if !is_one_of_many(args, caller) {
        print_warnings(&specs);
    }
    let choice = Choice {
        selection: selection.clone(),
        tags: args.tag.clone(),
        shard: args.part()?,
        no_baseline: args.no_baseline,
        granularity: match caller {
            Caller::CommandLine => args.granularity().or(Some(Granularity::Tensor)),
            Caller::TestBinary => args.granularity(),
        },
        benchmarks: args.compatible.bench && !args.compatible.test,
    };
    let mut plan = plan::plan(&specs, &choice).map_err(|e| Failure::new(Exit::SpecInvalid, e))?;
    if args.list {
        let mut out = streams::text_or_json(args.format() == Format::Json);
        console::list(&mut out, &plan, args.format())?;
        out.flush()?;
        // The process ends: taking a large plan apart would last as long as listing it.
        mem::forget(plan);
        mem::forget(specs);
        return Ok(Exit::Ok);
    }
    if plan.pairs.is_empty() {
        let exit = no_tests(&plan, args, caller)?;
        stale.map_or(Ok(()), Unfinished::withdraw)?;
        return Ok(exit);
    }
    plan::expand(&mut plan, args.no_baseline);
    execute(&plan, args, caller, stale)
}

/// Before anything can go wrong: what killed runs left over goes, and the reports of an earlier run
/// are marked until those of this one are there.
fn begin(args: &RunArgs) -> Result<Unfinished, Failure> {
    let pending = args.out_dir.join("pending");
    for directory in [&args.out_dir, &args.snapshots, &pending, &pending.join(&args.snapshots)] {
        disk::sweep(directory);
    }
    let Some(Shard { index, total, .. }) = args.part()? else { return mark(&args.out_dir) };
    // A shard that ends early must be missed.
    let blob = args.out_dir.join(Blob::file_name(index, total));
    let old = |error| Failure::new(Exit::Internal, format_args!("{}: {error}", blob.display()));
    disk::remove_if_present(&blob).map_err(old)?;
    mark(&shard_directory(&args.out_dir, index, total))
}

/// Marks the reports in a directory until others take their place.
pub fn mark(directory: &Path) -> Result<Unfinished, Failure> {
    let reports = report::REPORTS.map(Report::file_name);
    Unfinished::begin(directory, &reports).map_err(|error| {
        Failure::new(Exit::Internal, format_args!("cannot write {}: {error}", directory.display()))
    })
}

fn shard_directory(out: &Path, index: u64, total: u64) -> PathBuf {
    out.join(format!("shard-{index}-of-{total}"))
}

/// A process that a runner starts for a single test: what all have in common was said when the tests
/// were listed.
fn is_one_of_many(args: &RunArgs, caller: Caller) -> bool {
    caller == Caller::TestBinary && args.exact && !args.list
}

/// Which specs to load, and how.
pub struct SpecArgs<'a> {
    /// Files and directories; none stands for [`DEFAULT_ROOT`].
    pub spec: &'a [PathBuf],
    /// The profile to apply.
    pub profile: Option<&'a str>,
}

/// Loads every spec; all problems of all files are reported before giving up.
pub fn load_specs(args: &SpecArgs) -> Result<Vec<Spec>, Failure> {
    let specs = load_some(args, &|_| true)?;
    print_warnings(&specs);
    Ok(specs)
}

fn print_warnings(specs: &[Spec]) {
    for warning in specs.iter().flat_map(|spec| &spec.warnings) {
        streams::tell_rendered(|color| warning.render(color));
    }
}

/// Loads the specs whose name is wanted.
fn load_some(args: &SpecArgs, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Spec>, Failure> {
    let profile = args.profile.map(str::to_owned);
    let options = LoadOptions { profile, knows_qtype, ..LoadOptions::default() };
    let roots: Vec<PathBuf> =
        if args.spec.is_empty() { vec![DEFAULT_ROOT.into()] } else { args.spec.to_vec() };
    let (mut specs, mut problems) = (Vec::new(), Vec::new());
    let (mut all, mut files) = (true, Vec::new());
    for root in &roots {
        for path in discover(root)? {
            if spec::name(&path, spec::below(root)).is_some_and(|name| !wanted(&name)) {
                all = false;
            } else {
                files.push((path, spec::below(root)));
            }
        }
    }
    for loaded in spec::load_all(&files, &options) {
        match loaded {
            Ok(spec) => specs.push(spec),
            Err(errors) => problems.push(errors.render(color::on_stderr(Color::Auto))),
        }
    }
    if problems.is_empty() {
        if all {
            known_profile(&specs, args.profile)?;
        }
        Ok(specs)
    } else {
        Err(Failure::rendered(Exit::SpecInvalid, problems.join("\n").trim_end()))
    }
}

/// A profile that no spec defines would leave all bounds as they are, and nobody would know.
fn known_profile(specs: &[Spec], asked: Option<&str>) -> Result<(), Failure> {
    let Some(asked) = asked else { return Ok(()) };
    let mut known: Vec<&str> =
        specs.iter().flat_map(|spec| &spec.profiles).map(String::as_str).collect();
    if known.contains(&asked) {
        return Ok(());
    }
    known.sort_unstable();
    known.dedup();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let problem = format!("no spec defines the profile {asked:?}; there are: {known}");
    Err(Failure::new(Exit::Usage, problem))
}

fn discover(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let paths = spec::discover(root).map_err(|error| {
        let help = if root == Path::new(DEFAULT_ROOT) {
            "; make a spec with `qualm init REF QUANT`, or name one with --spec"
        } else {
            ""
        };
        Failure::new(Exit::SpecInvalid, format_args!("{error}{help}"))
    })?;
    if paths.is_empty() {
        let problem = format!("{}: holds no spec (*.toml)", root.display());
        return Err(Failure::new(Exit::NoTests, problem));
    }
    Ok(paths)
}

fn no_tests(plan: &Plan, args: &RunArgs, caller: Caller) -> Result<Exit, Failure> {
    // `cargo test NAME` hands its filter to every test binary of a workspace; but who names a test
    // exactly means one that is there.
    let meant_for_others = caller == Caller::TestBinary && args.narrows() && !args.exact;
    let default = if meant_for_others { NoTests::Pass } else { NoTests::Fail };
    let message = "no tests selected: no filter, tag or spec matches one";
    match args.no_tests.unwrap_or(default) {
        NoTests::Fail => return Err(Failure::new(Exit::NoTests, message)),
        NoTests::Warn => streams::tell(format_args!("warning: {message}")),
        NoTests::Pass => {}
    }
    let mut console = console(args);
    console.begin(0);
    let options = Options { nothing_passes: true, ..Options::of(1) };
    let contract = suite::run(plan, &options, None, &mut console);
    console.end(&contract, 0.0)?;
    Ok(Exit::Ok)
}

fn console(args: &RunArgs) -> Console {
    let mut console = Console::new(args.format(), color::on_stdout(args.color));
    console.show_output = args.show_output;
    console.verbose = args.verbose;
    console.slowest = args.slowest.unwrap_or(0);
    console
}

/// The baselines, unless they are to be left alone.
fn baselines(args: &RunArgs, in_shard: bool) -> Result<Option<Baselines>, Failure> {
    if args.no_baseline {
        return Ok(None);
    }
    Baselines::new(&args.snapshots, &args.out_dir, in_shard, None)
        .map(Some)
        .map_err(|error| Failure::new(Exit::Usage, error))
}

fn execute(
    plan: &Plan,
    args: &RunArgs,
    caller: Caller,
    stale: Option<Unfinished>,
) -> Result<Exit, Failure> {
    let started = Instant::now();
    let warnings_fail = args.fail_level == FailLevel::Warn;
    let options = Options {
        threads: thread_count(args.test_threads),
        baselines: baselines(args, plan.shard.is_some())?,
        max_fail: args.most_failures(),
        warnings_fail,
        // libtest is green where all tests are ignored.
        nothing_passes: match args.no_tests {
            Some(choice) => choice != NoTests::Fail,
            None => caller == Caller::TestBinary || args.compatible.bench,
        },
        settle: false,
    };
    let part = plan.shard.map(|shard| {
        let record = PlanRecord::of(plan, args.profile.as_deref(), warnings_fail);
        (shard, record)
    });
    let partition = part.as_ref().map(|(shard, record)| Blob::partition(record, shard.index));
    let mut console = console(args);
    console.begin(plan.count());
    let bar = Bar::of_plan(plan);
    let mut watched = Watched::new(&mut console, bar.as_ref());
    let mut contract = suite::run(plan, &options, partition, &mut watched);
    drop(bar);
    if is_one_of_many(args, caller) {
        explain(&contract);
    }
    let reports = report_options(args.junit_dialect, args.junit_cases);
    if let Some((Shard { index, total, .. }, record)) = part {
        let directory = shard_directory(&args.out_dir, index, total);
        write_reports(&directory, &mut contract, &reports)?;
        let blob = Blob::new(plan, record, index, contract);
        write_blob(&args.out_dir, &blob)?;
        contract = blob.contract;
    } else {
        attach_evidence(&mut contract, &args.out_dir);
        write_reports(&reports_directory(plan, args, caller), &mut contract, &reports)?;
    }
    stale.map_or(Ok(()), Unfinished::finish)?;
    let mut printed = console.end(&contract, started.elapsed().as_secs_f64());
    if !is_one_of_many(args, caller) {
        warn_of_spec(&contract);
        tell_what_next(&contract);
        printed = printed.and(tell_github(&contract, args.format(), &mut console));
    }
    let exit = Exit::from_code(contract.exit_code);
    if exit == Exit::NoTests {
        streams::tell(format_args!(
            "error: all selected tests are ignored, nothing was compared; --include-ignored runs \
             them, --no-tests pass is content with that"
        ));
    }
    Ok(streams::printed(printed, exit))
}

/// Adds what an earlier `qualm falsify` left in the output directory, where it still applies.
pub fn attach_evidence(contract: &mut Contract, out: &Path) {
    match Falsification::read(out) {
        Ok(None) => {}
        Ok(Some(found)) => suite::falsify::attach(contract, &found),
        Err(problem) => streams::tell(format_args!("warning: {problem}")),
    }
}

/// What to do about a run in which nothing but baselines is new or changed.
pub fn tell_what_next(contract: &Contract) {
    if Exit::from_code(contract.exit_code) != Exit::BaselinesPending {
        return;
    }
    let pairs = || contract.specs.iter().flat_map(|spec| &spec.pairs);
    let count = |status| pairs().filter(|pair| pair.baseline.status == status).count() as u64;
    let (new, changed) = (count(BaselineStatus::New), count(BaselineStatus::Changed));
    let what = match (new, changed) {
        (_, 0) => format!("{} new", counted_baselines(new)),
        (0, _) => format!("{} changed", counted_baselines(changed)),
        _ => format!("{} new and {changed} changed", counted_baselines(new)),
    };
    streams::tell(format_args!(
        "note: every bound holds; only {what}. `qualm review` shows what was measured, `qualm accept` makes it the \
         baseline; `*.snap.new` belongs into .gitignore"
    ));
}

fn counted_baselines(count: u64) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", numbers::counted(count, "baseline"))
}

/// What the models show to be of no use in a spec, which fails no test.
pub fn warn_of_spec(contract: &Contract) {
    let pairs = contract.specs.iter().flat_map(|spec| &spec.pairs);
    for check in pairs.flat_map(|pair| &pair.tests).flat_map(|test| &test.checks) {
        if check.check == SPEC_CHECK && check.level == Level::Warn {
            let place = check.source.as_ref().map(report::place).unwrap_or_default();
            let message = one_line(&check.message);
            streams::tell(format_args!("warning: {message}\n  --> {place}"));
        }
    }
}

/// Processes that run one test each must not overwrite each other's reports.
fn reports_directory(plan: &Plan, args: &RunArgs, caller: Caller) -> PathBuf {
    match plan.pairs.as_slice() {
        [only] if is_one_of_many(args, caller) => {
            let test = match only.granularity {
                Granularity::Pair => only.pair.name.clone(),
                Granularity::Tensor => only
                    .tests
                    .iter()
                    .fold(only.pair.name.clone(), |name, test| name + "::" + &test.part),
            };
            args.out_dir.join("tests").join(file_stem(&only.spec.name, &test))
        }
        _ => args.out_dir.clone(),
    }
}

/// Annotations and a job summary, where a run is a step of GitHub's; JSON events stay alone.
pub fn tell_github(contract: &Contract, format: Format, console: &mut Console) -> io::Result<()> {
    match format {
        Format::Json | Format::Junit => github::tell(contract, &mut streams::raw_err()),
        Format::Pretty | Format::Terse => github::tell(contract, console.commands()?),
    }
}

/// What the arguments say about reports.
pub fn report_options(dialect: JunitDialect, cases: JunitCases) -> report::Options {
    report::Options {
        junit_dialect: dialect.into(),
        junit_cases: cases.into(),
        ..report::Options::default()
    }
}

/// Writes every report into a directory.
pub fn write_reports(
    directory: &Path,
    contract: &mut Contract,
    options: &report::Options,
) -> Result<(), Failure> {
    let warnings = report::write_all(directory, contract, options)
        .map_err(|error| Failure::new(Exit::Internal, error))?;
    for warning in warnings {
        streams::tell(format_args!("warning: {warning}"));
    }
    Ok(())
}

/// Writes what `qualm merge` reads, and tells Bazel that its shards were honoured.
fn write_blob(directory: &Path, blob: &Blob) -> Result<(), Failure> {
    let internal = |error: &dyn std::fmt::Display| Failure::new(Exit::Internal, error);
    let bytes = blob.to_bytes().map_err(|error| internal(&error))?;
    let path = directory.join(Blob::file_name(blob.index, blob.plan.total));
    report::write_file(&path, &bytes).map_err(|error| internal(&error))?;
    if let Some(status) = std::env::var_os("TEST_SHARD_STATUS_FILE") {
        disk::append(Path::new(&status), b"")?;
    }
    Ok(())
}

/// cargo-nextest takes a failure's message from the first line of standard error that begins with
/// `Error: `: the gravest comes first.
fn explain(contract: &Contract) {
    for outcome in [TestOutcome::Error, TestOutcome::Failed] {
        let tests = contract.specs.iter().flat_map(|spec| &spec.pairs).flat_map(|it| &it.tests);
        for test in tests.filter(|test| test.outcome == outcome) {
            let reason = test.reason.as_deref().unwrap_or_default();
            let (id, reason) = (one_line(&test.id), one_line(reason));
            streams::tell(format_args!("Error: {id}: {reason}"));
        }
    }
}

/*!
`qualm run`: loads the specs, plans, runs, prints, and writes the reports.
*/

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Failure;
use super::args::thread_count;
use super::color;
use super::console::{Console, one_line};
use super::github;
use super::progress::{Bar, Watched};
use super::run_args::{Color, FailLevel, Format, NoTests, RunArgs};
use crate::codec::TensorType;
use crate::model::scheme;
use crate::report;
use crate::spec::{self, Granularity, LoadOptions, Spec};
use crate::suite::baseline::Baselines;
use crate::suite::exit::Exit;
use crate::suite::falsify::record::Falsification;
use crate::suite::plan::{self, Choice, Plan};
use crate::suite::record::{Contract, Level, TestOutcome};
use crate::suite::{self, Options, SPEC_CHECK};

/// Where specs are looked for if no `--spec` says otherwise.
const DEFAULT_ROOT: &str = "specs";

/// Runs the suite, or lists it; `default` is what counts as one test if nothing else is said.
pub fn run(args: &RunArgs, default: Granularity) -> Result<Exit, Failure> {
    if args.compatible.logfile.is_some() {
        eprintln!("warning: --logfile is deprecated and does nothing; see --out-dir");
    }
    let selection = args.selection();
    let wanted = |name: &str| selection.may_select_below(name);
    let profile = args.profile.as_deref();
    let specs = load_some(&SpecArgs { spec: &args.spec, profile }, &wanted)?;
    let choice = Choice {
        selection: selection.clone(),
        tags: args.tag.clone(),
        shard: args.partition,
        no_baseline: args.no_baseline,
        granularity: args.granularity(default),
    };
    let mut plan = plan::plan(&specs, &choice).map_err(|e| Failure::new(Exit::SpecInvalid, e))?;
    if args.list {
        return list(&plan, args);
    }
    if plan.all_shards == 0 {
        return no_tests(args);
    }
    plan::expand(&mut plan, args.no_baseline);
    execute(&plan, args, choice.granularity)
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
    load_some(args, &|_| true)
}

/// Loads the specs whose name is wanted.
fn load_some(args: &SpecArgs, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Spec>, Failure> {
    let profile = args.profile.map(str::to_owned);
    let options = LoadOptions { profile, knows_qtype, ..LoadOptions::default() };
    let roots: Vec<PathBuf> =
        if args.spec.is_empty() { vec![DEFAULT_ROOT.into()] } else { args.spec.to_vec() };
    let (mut specs, mut problems) = (Vec::new(), Vec::new());
    let mut all = true;
    for root in &roots {
        for path in discover(root)? {
            if spec::name(&path, below(root)).is_some_and(|name| !wanted(&name)) {
                all = false;
                continue;
            }
            match spec::load(&path, below(root), &options) {
                Ok(spec) => specs.push(spec),
                Err(errors) => problems.push(errors.render(color::on_stderr(Color::Auto))),
            }
        }
    }
    for warning in specs.iter().flat_map(|spec| &spec.warnings) {
        eprint!("{}", warning.render(color::on_stderr(Color::Auto)));
    }
    if problems.is_empty() {
        if all {
            known_profile(&specs, args.profile)?;
        }
        Ok(specs)
    } else {
        Err(Failure::new(Exit::SpecInvalid, problems.join("\n").trim_end()))
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

/// Is this what `qualm inspect` prints as a type: an element or block type, or a scheme?
fn knows_qtype(name: &str) -> bool {
    TensorType::from_name(name).is_some() || scheme::names_scheme(name)
}

/// The directory below which a spec's name begins.
fn below(root: &Path) -> &Path {
    if root.is_file() { root.parent().unwrap_or(root) } else { root }
}

/// `--list`: one test a line, as cargo-nextest reads it.
fn list(plan: &Plan, args: &RunArgs) -> Result<Exit, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut count = 0;
    let mut line = |id: &str| {
        count += 1;
        writeln!(out, "{}: test", one_line(id))
    };
    for pair in &plan.pairs {
        if pair.tests.is_empty() {
            line(&pair.id)?;
        }
        for test in &pair.tests {
            line(&test.id)?;
        }
    }
    if args.format() == Format::Pretty {
        let plural = if count == 1 { "" } else { "s" };
        writeln!(out, "\n{count} test{plural}, 0 benchmarks")?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn no_tests(args: &RunArgs) -> Result<Exit, Failure> {
    let message = "no tests selected: no filter, tag or spec matches one";
    match args.no_tests {
        NoTests::Pass => Ok(Exit::Ok),
        NoTests::Warn => {
            eprintln!("warning: {message}");
            Ok(Exit::Ok)
        }
        NoTests::Fail => Err(Failure::new(Exit::NoTests, message)),
    }
}

/// The baselines, unless they are to be left alone.
fn baselines(args: &RunArgs) -> Result<Option<Baselines>, Failure> {
    if args.no_baseline {
        return Ok(None);
    }
    Baselines::new(&args.snapshots, &args.out_dir, None)
        .map(Some)
        .map_err(|error| Failure::new(Exit::Usage, error))
}

fn execute(plan: &Plan, args: &RunArgs, granularity: Granularity) -> Result<Exit, Failure> {
    let started = Instant::now();
    let options = Options {
        threads: thread_count(args.test_threads),
        baselines: baselines(args)?,
        max_fail: args.most_failures(),
        warnings_fail: args.fail_level == FailLevel::Warn,
    };
    let out = io::BufWriter::new(io::stdout().lock());
    let mut console = Console::new(out, granularity, args.format(), color::on_stdout(args.color));
    console.show_output = args.show_output;
    console.begin(match granularity {
        Granularity::Pair => plan.pairs.len() as u64,
        Granularity::Tensor => plan.tests().count() as u64,
    });
    let bar = Bar::new(plan);
    let mut contract = suite::run(plan, &options, &mut Watched::new(&mut console, bar.as_ref()));
    drop(bar);
    attach_evidence(&mut contract, args);
    let reports = report::Options {
        junit_dialect: args.junit_dialect.into(),
        junit_cases: args.junit_cases.into(),
        ..report::Options::default()
    };
    let warnings = report::write_all(&args.out_dir, &contract, &reports)
        .map_err(|error| Failure::new(Exit::Internal, error))?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    console.end(&contract, started.elapsed().as_secs_f64())?;
    warn_of_spec(&contract);
    if std::env::var_os("NEXTEST").is_some() {
        explain_to_nextest(&contract);
    } else if args.format() == Format::Json {
        github::tell(&contract, &mut io::stderr().lock())?;
    } else {
        github::tell(&contract, &mut console)?;
    }
    Ok(Exit::from_code(contract.exit_code))
}

/// Adds what an earlier `qualm falsify` left in the output directory, where it still applies.
fn attach_evidence(contract: &mut Contract, args: &RunArgs) {
    match Falsification::read(&args.out_dir) {
        Ok(None) => {}
        Ok(Some(found)) => suite::falsify::attach(contract, &found),
        Err(problem) => eprintln!("warning: {problem}"),
    }
}

/// What the models show to be of no use in a spec, which fails no test.
fn warn_of_spec(contract: &Contract) {
    let pairs = contract.specs.iter().flat_map(|spec| &spec.pairs);
    for check in pairs.flat_map(|pair| &pair.tests).flat_map(|test| &test.checks) {
        if check.check == SPEC_CHECK && check.level == Level::Warn {
            let place = check.source.as_ref().map(report::place).unwrap_or_default();
            eprintln!("warning: {}\n  --> {place}", one_line(&check.message));
        }
    }
}

/// cargo-nextest takes a failure's message from the first line of standard error that begins with
/// `Error: `.
fn explain_to_nextest(contract: &Contract) {
    for pair in contract.specs.iter().flat_map(|spec| &spec.pairs) {
        for test in &pair.tests {
            if let (Some(reason), TestOutcome::Failed | TestOutcome::Error) =
                (&test.reason, test.outcome)
            {
                eprintln!("Error: {}: {}", one_line(&test.id), one_line(reason));
            }
        }
    }
}

/*!
`qualm run`: loads the specs, plans, runs, prints, and writes the reports.
*/

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Failure;
use super::args::thread_count;
use super::console::{Console, one_line, wants_color};
use super::run_args::{FailLevel, Format, NoTests, RunArgs};
use crate::report;
use crate::spec::{self, LoadOptions, Spec};
use crate::suite::baseline::Baselines;
use crate::suite::exit::Exit;
use crate::suite::plan::{self, Choice, Plan};
use crate::suite::{self, Options};

/// Where specs are looked for if no `--spec` says otherwise.
const DEFAULT_ROOT: &str = "specs";

/// Runs the suite, or lists it.
pub fn run(args: &RunArgs) -> Result<Exit, Failure> {
    if args.compatible.logfile.is_some() {
        eprintln!("warning: --logfile is deprecated and does nothing; see --out-dir");
    }
    let specs = load_specs(args)?;
    let choice = Choice {
        selection: args.selection(),
        tags: args.tag.clone(),
        shard: args.partition,
        no_baseline: args.no_baseline,
    };
    let plan = plan::plan(&specs, &choice).map_err(|e| Failure::new(Exit::SpecInvalid, e))?;
    if args.list {
        return list(&plan, args);
    }
    if plan.all_shards == 0 {
        return no_tests(args);
    }
    execute(&plan, args)
}

/// Loads every spec; all problems of all files are reported before giving up.
pub fn load_specs(args: &RunArgs) -> Result<Vec<Spec>, Failure> {
    let options = LoadOptions { profile: args.profile.clone(), ..LoadOptions::default() };
    let roots: Vec<PathBuf> =
        if args.spec.is_empty() { vec![DEFAULT_ROOT.into()] } else { args.spec.clone() };
    let (mut specs, mut problems) = (Vec::new(), Vec::new());
    for root in &roots {
        for path in discover(root)? {
            match spec::load(&path, below(root), &options) {
                Ok(spec) => specs.push(spec),
                Err(errors) => problems.push(errors.render(io::stderr().is_terminal())),
            }
        }
    }
    for warning in specs.iter().flat_map(|spec| &spec.warnings) {
        eprint!("{}", warning.render(io::stderr().is_terminal()));
    }
    if problems.is_empty() {
        Ok(specs)
    } else {
        Err(Failure::new(Exit::SpecInvalid, problems.join("\n").trim_end()))
    }
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

/// The directory below which a spec's name begins.
fn below(root: &Path) -> &Path {
    if root.is_file() { root.parent().unwrap_or(root) } else { root }
}

/// `--list`: one test a line, as cargo-nextest reads it.
fn list(plan: &Plan, args: &RunArgs) -> Result<Exit, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut count = 0;
    for test in plan.tests() {
        writeln!(out, "{}: test", one_line(&test.id))?;
        count += 1;
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

fn execute(plan: &Plan, args: &RunArgs) -> Result<Exit, Failure> {
    let started = Instant::now();
    let options = Options {
        threads: thread_count(args.test_threads),
        baselines: baselines(args)?,
        max_fail: args.most_failures(),
        warnings_fail: args.fail_level == FailLevel::Warn,
    };
    let out = io::BufWriter::new(io::stdout().lock());
    let mut console = Console::new(out, args.format(), wants_color(args.color), args.show_output);
    console.begin(plan.tests().count() as u64);
    let contract = suite::run(plan, &options, &mut console);
    let warnings = report::write_all(&args.out_dir, &contract, &report::Options::default())
        .map_err(|error| Failure::new(Exit::Internal, error))?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    console.end(&contract, started.elapsed().as_secs_f64())?;
    Ok(Exit::from_code(contract.exit_code))
}

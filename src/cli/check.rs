/*!
`qualm check REF QUANT`: the verdict on a pair with no spec and no baseline.

It is a run of a spec of one pair that says nothing but which types are asked for: structure,
integrity, and the contract's cosine gate where nothing better is known.
*/

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Failure;
use super::args::{CheckArgs, thread_count};
use crate::spec::{self, Granularity, LoadOptions};
use crate::suite::exit::Exit;
use crate::suite::plan::{self, Choice};
use crate::suite::record::{PairRecord, TestKind, TestOutcome, TestRecord};
use crate::suite::select::Selection;
use crate::suite::{self, Listener, Options};

/// The contract's cosine gate.
const COSINE: f64 = 0.95;

/// Something that is wrong with the pair.
struct Problem<'a> {
    tensor: &'a str,
    check: String,
    message: String,
    diagnosis: Option<&'a str>,
}

/// Judges a pair: 0 healthy, 5 damaged, 6 unreadable.
pub fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    let text = spec_text(args);
    // Paths on the command line are relative to the working directory, as those of a spec in it are.
    let options =
        LoadOptions { env: &|name| Some(format!("${{{name}}}")), ..LoadOptions::default() };
    let spec = spec::parse(text.as_bytes(), Path::new("check.toml"), Path::new(""), &options)
        .map_err(|errors| Failure::new(Exit::Usage, errors))?;
    let specs = [spec];
    let choice = Choice {
        selection: Selection::default(),
        tags: Vec::new(),
        shard: None,
        no_baseline: true,
        granularity: Granularity::Tensor,
    };
    let plan = plan::plan(&specs, &choice).map_err(|e| Failure::new(Exit::Internal, e))?;
    let options = Options {
        threads: thread_count(args.threads),
        baselines: None,
        max_fail: None,
        warnings_fail: false,
    };
    let contract = suite::run(&plan, &options, &mut Silent);
    let pairs = contract.specs.iter().flat_map(|spec| &spec.pairs);
    let pair =
        pairs.into_iter().next().ok_or_else(|| Failure::new(Exit::Internal, "no pair ran"))?;
    let problems = problems(pair);
    let unreadable = pair.tests.iter().any(|test| test.outcome == TestOutcome::Error);
    let exit = match (unreadable, problems.is_empty()) {
        (true, _) => Exit::InputError,
        (false, false) => Exit::ValidationFailed,
        (false, true) => Exit::Ok,
    };
    print(args, pair, &problems, exit)?;
    Ok(exit)
}

struct Silent;

impl Listener for Silent {}

/// The spec: one pair, and the types that the command line asks for.
fn spec_text(args: &CheckArgs) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |path: &PathBuf| quote(&path.to_string_lossy());
    let mut text = format!(
        "schema = 1\n[[pair]]\nname = \"pair\"\nreference = {}\nquantized = {}\n",
        path(&args.reference),
        path(&args.quantized)
    );
    for rule in &args.qtype {
        let types: Vec<String> = rule.types.iter().map(|ty| quote(ty)).collect();
        let (glob, types) = (quote(&rule.glob), types.join(", "));
        let _ = write!(text, "[[pair.qtype]]\ntensors = {glob}\nis = [{types}]\n");
    }
    text
}

/// Everything that is wrong, tensors first.
fn problems(pair: &PairRecord) -> Vec<Problem<'_>> {
    let mut problems = Vec::new();
    for test in &pair.tests {
        let tensor = match test.kind {
            TestKind::Tensor => test.id.strip_prefix(&format!("{}::", pair.id)).unwrap_or(&test.id),
            _ => "",
        };
        if matches!(test.outcome, TestOutcome::Failed | TestOutcome::Error) {
            let check = worst(test).unwrap_or_else(|| "readable".to_owned());
            let message = test.reason.clone().unwrap_or_default();
            problems.push(Problem { tensor, check, message, diagnosis: None });
        } else if let Some(cosine) = below_contract(pair, test, tensor) {
            let message = format!("cosine {cosine:.6} < {COSINE} ({tensor})");
            problems.push(Problem { tensor, check: "cosine".to_owned(), message, diagnosis: None });
        }
    }
    problems.sort_by_key(|problem| problem.tensor.is_empty());
    problems
}

fn worst(test: &TestRecord) -> Option<String> {
    let violated = crate::gate::CheckOutcome::Violated;
    test.checks.iter().find(|check| check.outcome == violated).map(|check| check.check.clone())
}

/// The contract's gate speaks where no expectation of the type does.
fn below_contract(pair: &PairRecord, test: &TestRecord, tensor: &str) -> Option<f64> {
    let expected = test.checks.iter().any(|check| check.check == "integrity.sqnr_expected");
    let row = pair.tensors.iter().find(|row| !expected && row.tensor == tensor)?;
    (row.cosine.0 < COSINE).then_some(row.cosine.0)
}

fn print(
    args: &CheckArgs,
    pair: &PairRecord,
    problems: &[Problem],
    exit: Exit,
) -> Result<(), Failure> {
    let verdict = match exit {
        Exit::Ok => "healthy",
        Exit::InputError => "unreadable",
        _ => "damaged",
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.json {
        let mut at_fault: Vec<&str> =
            problems.iter().map(|problem| problem.tensor).filter(|name| !name.is_empty()).collect();
        at_fault.dedup();
        let list: Vec<_> = problems
            .iter()
            .map(|problem| {
                json!({
                    "tensor": problem.tensor,
                    "check": problem.check,
                    "message": problem.message,
                    "diagnosis": problem.diagnosis,
                })
            })
            .collect();
        let object = json!({
            "reference": args.reference.to_string_lossy(),
            "quantized": args.quantized.to_string_lossy(),
            "verdict": verdict,
            "healthy": exit == Exit::Ok,
            "exit_code": exit.code(),
            "tensors_at_fault": at_fault,
            "problems": list,
            "global": pair.global,
            "tensors": pair.tensors,
            "notes": pair.notes,
        });
        writeln!(out, "{object:#}")?;
    } else {
        let global = pair.global.as_ref();
        let facts = global.map_or_else(String::new, |global| {
            format!(
                ": {} tensors, cosine {:.6}, SQNR {:.2} dB",
                global.tensors, global.cosine.0, global.sqnr_db.0
            )
        });
        writeln!(out, "{verdict}{facts}")?;
        for note in &pair.notes {
            writeln!(out, "  note: {note}")?;
        }
        for problem in problems {
            writeln!(out, "  {}: {}", problem.check, problem.message)?;
            if let Some(diagnosis) = problem.diagnosis {
                writeln!(out, "    likely cause: {diagnosis}")?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

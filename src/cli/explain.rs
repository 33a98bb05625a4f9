/*!
`qualm explain TEST-ID`: every bound and gate that applies to a test, where it is written, and what the last run
made of it.
*/

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use super::args::ExplainArgs;
use super::report::read_record;
use super::run::{SpecArgs, load_specs};
use super::{Failure, streams};
use crate::counterpart::{self, Choice};
use crate::metrics::{Direction, Metric};
use crate::model;
use crate::report::numbers;
use crate::shown::one_line;
use crate::spec::{
    ByDefault, Effective, Gate, Location, Origin, Pair, Quantized, Resolver, Setting, Spec,
};
use crate::suite::exit::Exit;
use crate::suite::record::{CheckOutcome, Contract, Level, TestKind, TestOutcome, TestRecord};
use crate::suite::{id, plan};

/// A stream to which each `writeln!` adds one line, whatever the names and reasons in it hold.
struct Lines(streams::Out);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_fmt(&mut self, line: fmt::Arguments) -> io::Result<()> {
        let line = line.to_string();
        self.0.write_all(one_line(line.trim_end_matches('\n')).as_bytes())?;
        self.0.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Explains one test, or, given `SPEC::PAIR`, every kind of bound of the pair.
pub fn run(args: &ExplainArgs) -> Result<Exit, Failure> {
    let specs = load_specs(&SpecArgs { spec: &args.spec, profile: args.profile.as_deref() })?;
    let (spec, pair, part) = find(&specs, &args.id)?;
    refuse_unknown(&specs, pair, &args.id)?;
    let last = last_run(args)?;
    let resolver = spec.resolver(pair).map_err(|e| Failure::new(Exit::SpecInvalid, e))?;
    let mut out = Lines(streams::text());
    writeln!(out, "{}", args.id)?;
    writeln!(out, "  pair {} at {}", pair.name, pair.at)?;
    match id::pair_test(part) {
        Some(TestKind::Global) => global(&mut out, &resolver)?,
        Some(TestKind::Structure) => {
            structure(&mut out, pair)?;
            let of_models = OF_MODELS.into_iter();
            for gate in of_models.filter(|gate| !(pair.is_alone() && gate.compares())) {
                gate_line(&mut out, gate, pair.integrity.get(gate))?;
            }
        }
        Some(TestKind::Baseline) => baseline(&mut out, pair)?,
        _ => {
            let name = id::tensor_of_part(part);
            origin(&mut out, pair, name)?;
            tensor(&mut out, &resolver, name)?;
            if !pair.is_alone() {
                baseline(&mut out, pair)?;
            }
        }
    }
    let tests = last.iter().flat_map(|last| &last.specs).flat_map(|spec| &spec.pairs);
    if let Some(test) = tests.flat_map(|pair| &pair.tests).find(|test| test.id == args.id) {
        outcome(&mut out, test)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// The spec and pair that an id begins with, and the rest of it.
fn find<'a, 'i>(specs: &'a [Spec], id: &'i str) -> Result<(&'a Spec, &'a Pair, &'i str), Failure> {
    for spec in specs {
        let Some(rest) = id.strip_prefix(&spec.name).and_then(|rest| rest.strip_prefix("::"))
        else {
            continue;
        };
        for pair in &spec.pairs {
            if let Some(part) = rest.strip_prefix(&pair.name).and_then(|it| it.strip_prefix("::")) {
                return Ok((spec, pair, part));
            }
        }
    }
    let mut known: Vec<String> = specs
        .iter()
        .flat_map(|spec| spec.pairs.iter().map(move |pair| format!("{}::{}", spec.name, pair.name)))
        .collect();
    known.sort_by_key(|pair| std::cmp::Reverse(ordered(strsim::jaro(pair, id))));
    let near: Vec<String> = known.into_iter().take(3).map(|pair| format!("{pair}::…")).collect();
    let problem = format!("no pair has the id {id:?}; the nearest are {}", near.join(", "));
    Err(Failure::new(Exit::NoTests, problem))
}

/// A test that no pair has: a slip. Where the models cannot be opened, nobody knows their tensors.
fn refuse_unknown(specs: &[Spec], pair: &Pair, id: &str) -> Result<(), Failure> {
    let choice = plan::Choice { no_baseline: false, ..plan::Choice::of_tensors() };
    let plan = plan::plan(specs, &choice).map_err(|e| Failure::new(Exit::SpecInvalid, e))?;
    let Some(planned) = plan.pairs.iter().find(|it| std::ptr::eq(it.pair, pair)) else {
        return Ok(());
    };
    let ids = || planned.tests.iter().map(|test| &*test.id);
    let known = planned.tests.iter().any(|test| test.kind == TestKind::Tensor);
    if !known || ids().any(|known| known == id) {
        return Ok(());
    }
    let mut near: Vec<&str> = ids().collect();
    near.sort_by_key(|known| std::cmp::Reverse(ordered(strsim::jaro(known, id))));
    near.truncate(3);
    let problem = format!("no test has the id {id:?}; the nearest are {}", near.join(", "));
    Err(Failure::new(Exit::NoTests, problem))
}

/// The record of the last run, if there is one; one that is asked for by name must be there.
fn last_run(args: &ExplainArgs) -> Result<Option<Contract>, Failure> {
    if let Some(path) = &args.from {
        return read_record(path).map(Some);
    }
    let path = Path::new(LAST_RUN);
    Ok(if path.is_file() { read_record(path).ok() } else { None })
}

/// Where a run leaves its record if it is not told otherwise.
const LAST_RUN: &str = "target/qualm/contract.json";

/// What the last run made of the test: every check with its value and bound.
fn outcome(out: &mut impl Write, test: &TestRecord) -> io::Result<()> {
    let word = match test.outcome {
        TestOutcome::Passed => "passed",
        TestOutcome::Failed => "failed",
        TestOutcome::Error => "could not be judged",
        TestOutcome::Ignored => "was not run",
    };
    let reason = test.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
    writeln!(out, "  in the last run it {word}{reason}")?;
    for check in &test.checks {
        let word = match check.outcome {
            CheckOutcome::Held => "held",
            CheckOutcome::Violated if check.level == Level::Warn => "violated, a warning",
            CheckOutcome::Violated => "violated",
            CheckOutcome::Waived => "waived",
            CheckOutcome::NotJudged => "not judged",
        };
        let number = |value: f64| numbers::metric(&check.check, value);
        let numbers = match (check.value, check.bound) {
            (Some(value), Some(bound)) => {
                let (value, bound) = numbers::checked(&check.check, value.0, bound.0);
                format!(" {value} (bound {bound})")
            }
            (Some(value), None) => format!(" {}", number(value.0)),
            _ => String::new(),
        };
        writeln!(out, "    {}{numbers} {word}: {}", check.check, check.message)?;
    }
    if let Some(diagnosis) = &test.diagnosis {
        writeln!(out, "    cause: {diagnosis}")?;
    }
    Ok(())
}

fn ordered(similarity: f64) -> u64 {
    (similarity * 1e6) as u64
}

/// What the tensor is made of, where the pair has a map and its models can be opened.
fn origin(out: &mut impl Write, pair: &Pair, name: &str) -> io::Result<()> {
    let Quantized::File(quantized) = &pair.quantized else { return Ok(()) };
    let map = Choice::of(pair);
    if !map.may_apply(&pair.reference.path, &quantized.path) {
        return Ok(());
    }
    let models = [&pair.reference.path, &quantized.path].map(|path| model::open(path));
    let [Ok(reference), Ok(mut quantized)] = models else { return Ok(()) };
    match counterpart::pair_up(reference, &mut quantized, &map) {
        Ok(mapped) => match mapped.recipes.get(name) {
            Some(recipe) => writeln!(out, "  made of {}", one_line(&recipe.to_string())),
            None => Ok(()),
        },
        Err(error) => writeln!(out, "  its map cannot be used: {}", one_line(&error.to_string())),
    }
}

fn tensor(out: &mut impl Write, resolver: &Resolver, name: &str) -> io::Result<()> {
    let tensor = resolver.tensor(name);
    if let Some(skip) = tensor.skip() {
        writeln!(out, "  skipped: {} ({})", skip.reason, skip.at)?;
    }
    if tensor.may_be_missing() {
        writeln!(out, "  may be missing from the quantized model")?;
    }
    writeln!(out, "  NaN and infinity fail, whatever the bounds")?;
    let mut bounded = false;
    for effective in tensor.bounds() {
        bounded = true;
        bound(out, &effective, resolver.pair())?;
    }
    if resolver.pair().is_alone() {
        writeln!(out, "  there is no reference, and no metric")?;
    } else if !bounded {
        writeln!(out, "  no metric is bounded")?;
    }
    for (_, rule) in tensor.qtypes() {
        let list = |names: &[String]| names.join(", ");
        if !rule.is.is_empty() {
            writeln!(out, "  type is one of {} ({})", list(&rule.is), rule.at)?;
        }
        if !rule.not.is_empty() {
            writeln!(out, "  type is none of {} ({})", list(&rule.not), rule.at)?;
        }
    }
    if let Some(scheme) = tensor.scheme() {
        writeln!(out, "  scheme is {} ({})", scheme.is, scheme.at)?;
    }
    for companions in tensor.companions() {
        let suffixes = companions.suffixes.join(", ");
        writeln!(out, "  must have beside it: {suffixes} ({})", companions.at)?;
    }
    if let Some(glob) = tensor.nonzero() {
        writeln!(out, "  must not be all zero ({})", glob.at)?;
    }
    if let Some(transform) = tensor.transform() {
        writeln!(out, "  what the converter did is done to the reference ({})", transform.at)?;
    }
    if let Some(file) = &resolver.pair().quantize_stats {
        writeln!(out, "  rmse agrees with {} to 1e-5 ({})", file.written, file.at)?;
    }
    let alone = resolver.pair().is_alone();
    let applies = |gate: &Gate| !(OF_MODELS.contains(gate) || alone && gate.compares());
    for gate in Gate::ALL.into_iter().filter(applies) {
        gate_line(out, gate, tensor.integrity(gate))?;
    }
    Ok(())
}

/// Gates that judge a pair as a whole.
const OF_MODELS: [Gate; 2] = [Gate::Quantized, Gate::Config];

/// What a spec says about a gate, or else its default.
fn gate_line(out: &mut impl Write, gate: Gate, setting: Option<&Setting>) -> io::Result<()> {
    match (setting, gate.by_default()) {
        (Some(setting), _) => integrity(out, gate, setting),
        (None, ByDefault::On) => writeln!(out, "  integrity.{gate} on (default)"),
        (None, ByDefault::Fail(bound)) => {
            writeln!(out, "  integrity.{gate} fail unless <= {bound} (default)")
        }
        (None, ByDefault::Warn(bound)) => {
            writeln!(out, "  integrity.{gate} warn unless <= {bound} (default)")
        }
    }
}

fn integrity(out: &mut impl Write, gate: Gate, setting: &Setting) -> io::Result<()> {
    match setting {
        Setting::On { at } => writeln!(out, "  integrity.{gate} on ({at})"),
        Setting::Bound(bound) => {
            writeln!(out, "  integrity.{gate}{} ({})", limits(bound.fail, bound.warn, ""), bound.at)
        }
        Setting::Off { reason, at } => writeln!(out, "  integrity.{gate} off: {reason} ({at})"),
    }
}

/// ` fail 0.5, warn 0.4`, each after `sign`.
fn limits(fail: Option<f64>, warn: Option<f64>, sign: &str) -> String {
    let parts = [("fail", fail), ("warn", warn)];
    let parts = parts
        .iter()
        .filter_map(|(name, value)| Some(format!(" {name} unless {sign}{}", (*value)?)));
    parts.collect::<Vec<_>>().join(",")
}

fn bound(out: &mut impl Write, effective: &Effective, pair: &Pair) -> io::Result<()> {
    let metric = effective.metric;
    let sign = match metric.direction() {
        Direction::Higher => ">= ",
        Direction::Lower => "<= ",
        Direction::One => "within 1 +- ",
    };
    let limits = limits(effective.bound.fail, effective.bound.warn, sign);
    let from = match effective.origin {
        Origin::Threshold => "threshold".to_owned(),
        Origin::Rule(index) => {
            match pair.rules.get(index).and_then(|rule| rule.reason.as_deref()) {
                Some(reason) => format!("rule {}: {reason}", index + 1),
                None => format!("rule {}", index + 1),
            }
        }
    };
    writeln!(out, "  {metric}{limits}  [{from}]  {}", effective.bound.at)?;
    if let Some((index, floor)) = effective.waiver
        && let Some(waiver) = pair.waivers.get(index)
    {
        let until = waiver.until.value;
        writeln!(
            out,
            "    waived down to {floor} until {until}: {} ({})",
            waiver.reason, waiver.at
        )?;
    }
    if let Some(waiver) = effective.expired.and_then(|index| pair.waivers.get(index)) {
        writeln!(out, "    a waiver expired on {} ({})", waiver.until.value, waiver.at)?;
    }
    Ok(())
}

fn global(out: &mut impl Write, resolver: &Resolver) -> io::Result<()> {
    writeln!(out, "  all float tensors that are not skipped, as one vector")?;
    for metric in Metric::ALL {
        if let Some(effective) = resolver.global_bound(metric) {
            bound(out, &effective, resolver.pair())?;
        }
    }
    for group in &resolver.pair().groups {
        let bounds: Vec<String> = group
            .bounds
            .iter()
            .filter_map(|(metric, bound)| Some(format!("{metric} {}", bound.fail?)))
            .collect();
        let (least, bounds) = (group.min_pass_fraction.value, bounds.join(", "));
        writeln!(out, "  group: {least} of its tensors hold {bounds} ({})", group.at)?;
    }
    Ok(())
}

fn structure(out: &mut impl Write, pair: &Pair) -> io::Result<()> {
    if pair.is_alone() {
        writeln!(
            out,
            "  every plane is there, and metadata and configuration agree with the tensors"
        )?;
        if let Some(bits) = &pair.bits_per_weight {
            writeln!(out, "  bits per weight are bounded ({})", bits.at)?;
        }
        return Ok(());
    }
    writeln!(out, "  every tensor of each model is in the other, with the same shape")?;
    let mut allowed = |what: &str, globs: &[crate::spec::Pattern]| -> io::Result<()> {
        for glob in globs {
            writeln!(out, "  {what} {:?} ({})", glob.text, glob.at)?;
        }
        Ok(())
    };
    allowed("may be missing:", &pair.allow_missing)?;
    allowed("may be extra:", &pair.allow_extra)?;
    allowed("metadata must be equal:", &pair.metadata_equal)?;
    allowed("must not be all zero:", &pair.nonzero)?;
    if let Some(least) = &pair.min_quantized {
        writeln!(out, "  at least {} tensors are quantized ({})", least.value, least.at)?;
    }
    Ok(())
}

fn baseline(out: &mut impl Write, pair: &Pair) -> io::Result<()> {
    let tolerance = &pair.baseline;
    let place = tolerance.at.as_ref().map_or_else(|| "default".to_owned(), Location::to_string);
    if tolerance.off {
        return writeln!(out, "  there is no baseline ({place})");
    }
    writeln!(
        out,
        "  a metric may move by {} + {} * |old| ({place})",
        tolerance.abs, tolerance.rel
    )?;
    if tolerance.ratchet { writeln!(out, "  it may only improve") } else { Ok(()) }
}

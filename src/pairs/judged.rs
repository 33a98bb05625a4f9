/*!
Pairs that are named one by one, judged with no spec and no baseline: what `check` and `rank` do.

Each is a run of a spec that says nothing but which types are asked for: structure, integrity, and the
contract's cosine gate where nothing better is known.
*/

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Error;
use super::request::{self, QtypeRule, Request, Watch};
use crate::diagnose::{self, Cause, Diagnosis};
use crate::model::scheme;
use crate::report::note_lines;
use crate::shown::unsigned_zeros;
use crate::suite::exit::Exit;
use crate::suite::id;
use crate::suite::record::{
    CheckOutcome, CheckRecord, GateCounts, GlobalRow, Level, Number, PairRecord, SampleRecord,
    TensorRow, TestKind, TestOutcome, TestRecord,
};
use crate::suite::{SPEC_CHECK, swapped};

/// A pair and what is wrong with it.
pub struct Judged {
    reference: PathBuf,
    /// The quantized model, as it was given.
    pub quantized: PathBuf,
    /// What was measured and judged.
    pub pair: PairRecord,
    /// What is wrong, tensors first.
    pub findings: Vec<Finding>,
    /// What is only to be known of; it leaves the verdict as it is.
    pub warnings: Vec<Finding>,
    /// 0 healthy, 5 damaged, 6 unreadable.
    pub exit: Exit,
}

/// What `--json` prints of a pair.
#[derive(Serialize)]
pub struct Object<'a> {
    reference: Cow<'a, str>,
    quantized: Cow<'a, str>,
    /// `healthy`, `sampled`, `damaged` or `unreadable`.
    verdict: &'static str,
    /// None where nothing was found in a part of the values.
    healthy: Option<bool>,
    exit_code: u8,
    /// Every tensor that a finding is about, by its name in the reference.
    tensors_at_fault: Vec<&'a str>,
    findings: &'a [Finding],
    warnings: &'a [Finding],
    global: Option<&'a GlobalRow>,
    tensors: &'a [TensorRow],
    gates: GateCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<&'a SampleRecord>,
    notes: Vec<String>,
}

/// Something that is wrong with the pair.
#[derive(Serialize)]
pub struct Finding {
    /// The tensor, by its name in the reference; none for the whole model.
    pub tensor: Option<String>,
    /// What does not hold: `integrity.gain`, `finite`, `missing`, `qtype`, `cosine`, `readable`, …
    pub gate: String,
    /// The value, if the gate is about a number.
    pub value: Option<Number>,
    /// Its bound.
    pub bound: Option<Number>,
    /// One line for people.
    pub message: String,
    /// The likely cause, if something speaks for one.
    pub diagnosis: Option<Diagnosis>,
}

/// Judges every quantized model of a request, in its order.
pub fn judge(request: &Request, watch: Watch) -> Result<Vec<Judged>, Error> {
    refuse_unknown_types(request.qtype)?;
    let pairs = request::measure(request, watch)?;
    let judge = |(quantized, pair): (&PathBuf, _)| judge_one(request, quantized, pair);
    request.quantized.iter().zip(pairs).map(judge).collect()
}

/// The exit code of several: unreadable before damaged before healthy.
pub fn exit(judged: &[Judged]) -> Exit {
    let has = |exit| judged.iter().any(|it| it.exit == exit);
    let worst = [Exit::InputError, Exit::ValidationFailed].into_iter().find(|exit| has(*exit));
    worst.unwrap_or(Exit::Ok)
}

impl Judged {
    /// The verdict in a word.
    pub fn verdict(&self) -> &'static str {
        match self.exit {
            Exit::Ok if self.pair.sample.is_some() => "sampled",
            Exit::Ok => "healthy",
            Exit::InputError => "unreadable",
            _ => "damaged",
        }
    }

    /// What has become of the gates of all tensors.
    pub fn gates(&self) -> GateCounts {
        let mut gates = GateCounts::default();
        self.pair.tests.iter().for_each(|test| gates.add(&test.gates()));
        gates
    }

    /// For `--json`.
    pub fn object(&self) -> Object<'_> {
        let tensors = self.findings.iter().filter_map(|finding| finding.tensor.as_deref());
        let mut tensors_at_fault: Vec<&str> = tensors.collect();
        tensors_at_fault.sort_unstable();
        tensors_at_fault.dedup();
        Object {
            reference: self.reference.to_string_lossy(),
            quantized: self.quantized.to_string_lossy(),
            verdict: self.verdict(),
            healthy: (self.verdict() != "sampled").then_some(self.exit == Exit::Ok),
            sample: self.pair.sample.as_ref(),
            exit_code: self.exit.code(),
            tensors_at_fault,
            findings: &self.findings,
            warnings: &self.warnings,
            global: self.pair.global.as_ref(),
            tensors: &self.pair.tensors,
            gates: self.gates(),
            notes: note_lines(&self.pair),
        }
    }
}

fn judge_one(request: &Request, quantized: &Path, pair: PairRecord) -> Result<Judged, Error> {
    refuse_idle_rules(&pair)?;
    let mut findings = findings(&pair);
    if swapped::is_swapped(&pair) {
        findings = vec![models_swapped(findings.len())];
    }
    let unreadable = pair.tests.iter().any(|test| test.outcome == TestOutcome::Error);
    let exit = match (unreadable, findings.is_empty()) {
        (true, _) => Exit::InputError,
        (false, false) => Exit::ValidationFailed,
        (false, true) => Exit::Ok,
    };
    let (reference, quantized) = (request.reference.to_owned(), quantized.to_owned());
    let warnings = pair.tests.iter().flat_map(|test| violated(&pair, test, Level::Warn)).collect();
    Ok(Judged { reference, quantized, pair, findings, warnings, exit })
}

/// A `--qtype` that names no type can only fail: a slip, not a verdict.
fn refuse_unknown_types(rules: &[QtypeRule]) -> Result<(), Error> {
    let mut types = rules.iter().flat_map(|rule| rule.types.iter().map(move |ty| (rule, ty)));
    let Some((rule, ty)) = types.find(|(_, ty)| !scheme::knows_qtype(ty)) else { return Ok(()) };
    let glob = &rule.glob;
    let problem = format!(
        "--qtype {glob}={ty}: {ty:?} is no type or scheme; `qualm inspect` shows what a model has"
    );
    Err(Error::new(Exit::Usage, problem))
}

/// A `--qtype` whose glob matches nothing asks for nothing: a slip, not a verdict.
fn refuse_idle_rules(pair: &PairRecord) -> Result<(), Error> {
    let checks = pair.tests.iter().flat_map(|test| &test.checks);
    let idle = checks.filter(|it| it.check == SPEC_CHECK && it.outcome == CheckOutcome::Violated);
    let idle: Vec<&str> = idle.map(|check| check.message.as_str()).collect();
    if idle.is_empty() {
        return Ok(());
    }
    Err(Error::new(Exit::Usage, format_args!("--qtype: {}", idle.join("; "))))
}

/// The one finding of a pair whose models changed places.
fn models_swapped(others: usize) -> Finding {
    let message = format!(
        "the two models are swapped: the pair holds the other way round (REF is the quantized one); \
         its {others} findings as given are left out"
    );
    Finding {
        tensor: None,
        gate: "pair".to_owned(),
        value: None,
        bound: None,
        diagnosis: Some(Diagnosis::certain(Cause::Swapped, "the pair holds the other way round")),
        message,
    }
}

/// Everything that is wrong, tensors first.
fn findings(pair: &PairRecord) -> Vec<Finding> {
    if let Some(error) = &pair.error {
        return unreadable(pair, error);
    }
    let known = Known::of(pair);
    let mut findings: Vec<Finding> =
        pair.tests.iter().flat_map(|test| of_test(pair, test, &known)).collect();
    if findings.iter().any(|finding| finding.tensor.is_some()) {
        // All tensors as one are bad because these are.
        findings.retain(|finding| finding.gate != WHOLE);
    }
    findings.sort_by_key(|finding| finding.tensor.is_none());
    findings
}

/// Gate name of a failure of all tensors taken as one.
const WHOLE: &str = "global";

/// Why the pair could not be opened: one finding for each tensor that the error names.
fn unreadable(pair: &PairRecord, error: &str) -> Vec<Finding> {
    let finding = |tensor: Option<String>| Finding {
        tensor,
        gate: "readable".to_owned(),
        value: None,
        bound: None,
        message: error.to_owned(),
        diagnosis: pair.diagnosis.clone(),
    };
    let named = pair.error_tensors.iter().map(|name| finding(Some(logical(pair, name))));
    let mut findings: Vec<Finding> = named.collect();
    findings.dedup_by(|a, b| a.tensor == b.tensor);
    if findings.is_empty() { vec![finding(None)] } else { findings }
}

/// The reference's tensor that a stored one belongs to: itself, or the weight whose plane it is.
fn logical(pair: &PairRecord, name: &str) -> String {
    let tensors = || pair.tests.iter().filter_map(|test| tensor_of(pair, test));
    let stem = |name: &str| name.rsplit_once('.').map_or("", |(stem, _)| stem).to_owned();
    tensors()
        .find(|it| *it == name)
        .or_else(|| tensors().find(|it| !stem(it).is_empty() && stem(it) == stem(name)))
        .unwrap_or(name)
        .to_owned()
}

fn tensor_of<'a>(pair: &PairRecord, test: &'a TestRecord) -> Option<&'a str> {
    id::tensor(&pair.id, test.kind, &test.id)
}

/// What a pair's record says of its tensors, to be looked up.
struct Known<'a> {
    rows: HashMap<&'a str, &'a TensorRow>,
    /// The tensor of each finding, by the check and the message that the structure test has for it.
    about: HashMap<(&'a str, String), &'a str>,
    /// Tensor, check and message of what the tensors' own tests say is violated.
    said: HashSet<(&'a str, &'a str, &'a str)>,
}

impl<'a> Known<'a> {
    fn of(pair: &'a PairRecord) -> Self {
        let mut about = HashMap::new();
        for finding in pair.findings.iter().filter(|it| !it.tensor.is_empty()) {
            let message = format!("{}: {}", finding.tensor, finding.message);
            about.entry((finding.kind.as_str(), message)).or_insert(finding.tensor.as_str());
        }
        let of_tensor = |test: &'a TestRecord| Some((tensor_of(pair, test)?, &test.checks));
        let said = pair.tests.iter().filter_map(of_tensor).flat_map(|(tensor, checks)| {
            let violated = checks.iter().filter(|it| it.outcome == CheckOutcome::Violated);
            violated.map(move |it| (tensor, it.check.as_str(), it.message.as_str()))
        });
        Self { rows: pair.rows(), about, said: said.collect() }
    }
}

/// What a test found.
fn of_test(pair: &PairRecord, test: &TestRecord, known: &Known) -> Vec<Finding> {
    let tensor = tensor_of(pair, test);
    if test.outcome == TestOutcome::Error {
        let gate = if tensor.is_some() { "readable" } else { "comparable" };
        return vec![Finding {
            tensor: tensor.map(str::to_owned),
            gate: gate.to_owned(),
            value: None,
            bound: None,
            message: test.reason.clone().unwrap_or_default(),
            diagnosis: test.diagnosis.clone(),
        }];
    }
    let own = violated(pair, test, Level::Fail);
    match test.kind {
        TestKind::Tensor => {
            let below =
                tensor.and_then(|it| known.rows.get(it)).and_then(|row| below_contract(row));
            own.chain(below).collect()
        }
        TestKind::Structure => {
            let checks = violated_checks(test, Level::Fail);
            checks.flat_map(|check| of_structure(pair, check, known)).collect()
        }
        _ => own.map(|own| Finding { gate: WHOLE.to_owned(), ..own }).collect(),
    }
}

fn violated_checks(test: &TestRecord, level: Level) -> impl Iterator<Item = &CheckRecord> {
    let violated =
        move |it: &&CheckRecord| it.outcome == CheckOutcome::Violated && it.level == level;
    test.checks.iter().filter(violated)
}

/// The checks of a test that are violated, as they stand there.
fn violated<'t>(
    pair: &PairRecord,
    test: &'t TestRecord,
    level: Level,
) -> impl Iterator<Item = Finding> + use<'t> {
    let tensor = tensor_of(pair, test).map(str::to_owned);
    let fails = level == Level::Fail;
    violated_checks(test, level).map(move |check| Finding {
        tensor: tensor.clone(),
        gate: check.check.clone(),
        value: check.value,
        bound: check.bound,
        message: check.message.clone(),
        diagnosis: test.diagnosis.clone().filter(|_| fails),
    })
}

/// A check of the structure, for the tensor that it is about.
fn of_structure(pair: &PairRecord, check: &CheckRecord, known: &Known) -> Vec<Finding> {
    let finding = |tensor: Option<&str>, message: String| Finding {
        tensor: tensor.map(str::to_owned),
        gate: check.check.clone(),
        value: check.value,
        bound: check.bound,
        message,
        diagnosis: diagnose::of_check(check),
    };
    if check.check == "quantized" {
        let matrices = pair.tensors.iter().filter(|row| row.shape.len() > 1);
        let mut findings: Vec<Finding> =
            matrices.map(|row| finding(Some(&row.tensor), check.message.clone())).collect();
        if findings.is_empty() {
            findings.push(finding(None, check.message.clone()));
        }
        return findings;
    }
    let tensor = known.about.get(&(check.check.as_str(), check.message.clone())).copied();
    // The test of a tensor of the reference says it already.
    let said = tensor.is_some_and(|it| known.said.contains(&(it, &*check.check, &*check.message)));
    if said { Vec::new() } else { vec![finding(tensor, check.message.clone())] }
}

/// The contract's gate, as far as the tensor's type can hold it.
fn below_contract(row: &TensorRow) -> Option<Finding> {
    let tensor = &row.tensor;
    let (cosine, least) = (row.cosine.0, row.least_cosine.0);
    row.is_below_contract().then(|| Finding {
        tensor: Some(tensor.clone()),
        gate: "cosine".to_owned(),
        value: Some(row.cosine),
        bound: Some(row.least_cosine),
        message: unsigned_zeros(format!(
            "cosine {cosine:.6} < {least:.6} ({tensor}, {})",
            row.qtype
        )),
        diagnosis: None,
    })
}

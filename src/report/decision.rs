/*!
What a person decides by: per pair one sentence, its causes, and the facts that speak for or against the quantized
model. The page, the Markdown report and the job summary begin with it.
*/

use std::collections::HashMap;

use super::failure::{known_models, movement_text};
use super::groups::groups;
use super::located::{is_bad, is_violated, pairs};
use super::markdown::baseline_word;
use super::numbers;
use super::text::one_line;
use crate::metrics::functions::{log10, pow};
use crate::suite::record::{
    BaselineRecord, BaselineStatus, Contract, ModelRecord, PairRecord, TensorRow, TestKind,
    TestOutcome,
};

/// Causes that a decision names.
const CAUSES: usize = 6;

/// Types that a model is said to hold.
const TYPES: usize = 4;

/// Digits of a digest: enough to tell files apart at a glance.
const DIGEST: usize = 12;

/// What to do with a pair's quantized model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Advice {
    /// Everything holds.
    Ship,
    /// Everything holds but warnings.
    ShipWarned,
    /// Everything holds; the baseline is to be looked at.
    Review,
    /// Only a part of the suite was run, or nothing of this pair.
    Open,
    /// A test fails.
    DoNotShip,
    /// It could not be judged.
    NotJudged,
}

impl Advice {
    /// The words before the pair's name.
    pub fn words(self) -> &'static str {
        match self {
            Self::Ship | Self::ShipWarned => "Ship",
            Self::Review => "Review the baseline of",
            Self::Open => "Undecided:",
            Self::DoNotShip => "Do not ship",
            Self::NotJudged => "Could not judge",
        }
    }

    /// The mark that goes with it in Markdown.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Ship => "✅",
            Self::ShipWarned => "⚠️",
            Self::Review => "📸",
            Self::Open => "⏭️",
            Self::DoNotShip => "❌",
            Self::NotJudged => "💥",
        }
    }

    fn of(contract: &Contract, pair: &PairRecord) -> Self {
        let any = |outcome| pair.tests.iter().any(|test| test.outcome == outcome);
        let failed = |kind: fn(TestKind) -> bool| {
            pair.tests.iter().any(|it| it.outcome == TestOutcome::Failed && kind(it.kind))
        };
        if pair.error.is_some() || any(TestOutcome::Error) {
            Self::NotJudged
        } else if failed(|kind| kind != TestKind::Baseline) {
            Self::DoNotShip
        } else if failed(|_| true) {
            Self::Review
        } else if !any(TestOutcome::Passed) || is_part(contract) {
            Self::Open
        } else if pair.tests.iter().any(|test| test.checks.iter().any(is_violated)) {
            Self::ShipWarned
        } else {
            Self::Ship
        }
    }
}

/// Was anything left out that might have spoken against a model?
fn is_part(contract: &Contract) -> bool {
    contract.partition.is_some() || contract.summary.filtered_out > 0
}

/// One pair, ready for a decision.
pub struct Decision<'a> {
    /// The pair.
    pub pair: &'a PairRecord,
    /// Its place among all pairs, from 1.
    pub number: usize,
    /// What to do.
    pub advice: Advice,
    /// Why, in the rest of the sentence, without a full stop.
    pub sentence: String,
    /// What is behind the failures, the worst first.
    pub causes: Vec<String>,
    /// Causes that were left out.
    pub more_causes: usize,
    /// What each fact is called, and what it is.
    pub facts: Vec<(String, String)>,
}

/// The decisions of a run, those that need attention first.
pub fn decisions<'a>(contract: &'a Contract) -> Vec<Decision<'a>> {
    let mut causes: HashMap<&str, Vec<String>> = HashMap::new();
    for group in groups(contract) {
        let Some(first) = group.tests.first() else { continue };
        causes.entry(&first.pair.id).or_default().push(group.to_string());
    }
    let decide = |(at, (_, pair)): (usize, (_, &'a PairRecord))| {
        let mut causes = causes.remove(pair.id.as_str()).unwrap_or_default();
        let more_causes = causes.len().saturating_sub(CAUSES);
        causes.truncate(CAUSES);
        let advice = Advice::of(contract, pair);
        Decision {
            pair,
            number: at + 1,
            advice,
            sentence: sentence(contract, pair, advice),
            causes: if pair.error.is_some() { Vec::new() } else { causes },
            more_causes,
            facts: facts(pair),
        }
    };
    let mut all: Vec<Decision> = pairs(contract).enumerate().map(decide).collect();
    all.sort_by_key(|it| std::cmp::Reverse(it.advice));
    all
}

fn sentence(contract: &Contract, pair: &PairRecord, advice: Advice) -> String {
    let count = |outcome| pair.tests.iter().filter(|it| it.outcome == outcome).count() as u64;
    let ignored = count(TestOutcome::Ignored);
    let run = pair.tests.len() as u64 - ignored;
    let tests = numbers::counted(run, "test");
    let bad = pair.tests.iter().filter(|test| is_bad(test)).count() as u64;
    let verb = if bad == 1 { "fails" } else { "fail" };
    let fail = format!("{} of {tests} {verb}", numbers::count(bad));
    let hold = match run {
        1 => "its test holds".to_owned(),
        _ => format!("all {tests} hold"),
    };
    let mut words = match (advice, &pair.error) {
        (_, Some(error)) => one_line(error).into_owned(),
        (Advice::NotJudged | Advice::DoNotShip, None) => fail,
        (Advice::Review, None) => match pair.baseline.status {
            BaselineStatus::New => {
                "all bounds hold; there is no baseline yet (qualm review, qualm accept)".to_owned()
            }
            _ => "all bounds hold; the numbers are not those of the baseline (qualm review)"
                .to_owned(),
        },
        (Advice::Open, None) if run == 0 => "no test of it was run".to_owned(),
        (Advice::Open, None) if contract.partition.is_some() => {
            format!("{hold} that this shard ran")
        }
        (Advice::Open, None) => format!("{hold} that were selected"),
        (Advice::ShipWarned, None) => {
            let checks = pair.tests.iter().flat_map(|test| &test.checks);
            let warnings = checks.filter(|check| is_violated(check)).count() as u64;
            format!("{hold}, with {}", numbers::counted(warnings, "warning"))
        }
        (Advice::Ship, None) => hold,
    };
    if ignored > 0 && run > 0 {
        words = format!("{words}; {} not run", numbers::count(ignored));
    }
    words
}

fn facts(pair: &PairRecord) -> Vec<(String, String)> {
    let known = known_models(pair);
    let mut facts: Vec<(String, String)> =
        known.iter().map(|(role, model)| (role.clone(), described(model))).collect();
    let bits = pair.global.as_ref().map(|global| global.bits_per_weight.0);
    match (&pair.reference, &pair.quantized, &pair.roundtrip) {
        (Some(reference), Some(quantized), None) => {
            let share = quantized.bytes as f64 / reference.bytes.max(1) as f64 * 100.0;
            facts.push((
                "size".to_owned(),
                format!(
                    "{}, {share:.0} % of the reference, {} bits per weight",
                    numbers::bytes(quantized.bytes),
                    numbers::bits(quantized.bits_per_weight.0),
                ),
            ));
        }
        (.., Some(_)) => {
            facts.extend(bits.map(|bits| {
                ("size".to_owned(), format!("{} bits per weight", numbers::bits(bits)))
            }));
        }
        (None, Some(model), None) => facts.push((
            "size".to_owned(),
            format!(
                "{}, {} bits per weight",
                numbers::bytes(model.bytes),
                numbers::bits(model.bits_per_weight.0)
            ),
        )),
        _ => {}
    }
    if pair.alone {
        return facts;
    }
    facts.extend(quality(pair).map(|words| ("SQNR".to_owned(), words)));
    facts.push(("baseline".to_owned(), against_baseline(&pair.baseline)));
    facts
}

/// `TinyLlama: models/tiny.gguf, Q4_K 82 %, F32 18 %, 1.2 GiB, header SHA-256 0f0f0f0f0f0f…`.
fn described(model: &ModelRecord) -> String {
    let name = model.name.as_ref().map(|name| format!("{}: ", one_line(name)));
    let size: u64 = model.files.iter().map(|file| file.size).sum();
    let (files, digest) = match model.files.as_slice() {
        [file] => {
            let digest = file.header_sha256.get(..DIGEST).unwrap_or(&file.header_sha256);
            (numbers::bytes(size), format!(", header SHA-256 {digest}…"))
        }
        files => (format!("{} in {} files", numbers::bytes(size), files.len()), String::new()),
    };
    let types: Vec<(&str, u64)> =
        model.types.iter().map(|it| (it.qtype.as_str(), it.bytes)).collect();
    let types = match types.as_slice() {
        [] => model.format.clone(),
        types => numbers::shares(types, TYPES).join(", "),
    };
    format!("{}{}, {types}, {files}{digest}", name.unwrap_or_default(), one_line(&model.path))
}

/// `22.31 dB, 44.10 dB expected of these types on this reference`.
fn quality(pair: &PairRecord) -> Option<String> {
    let found = pair.global.as_ref()?.metrics()?.sqnr_db;
    Some(match expected_sqnr(&pair.tensors) {
        Some(expected) if found.is_finite() => {
            format!("{}, {} expected of these types", numbers::db(found), numbers::db(expected))
        }
        _ if found == f64::INFINITY => "no error at all".to_owned(),
        _ => numbers::db(found),
    })
}

/// The SQNR of all tensors as one vector if each had the error that its type gives on this reference; where that
/// is not known, the error that it has. None where it is known of none.
fn expected_sqnr(rows: &[TensorRow]) -> Option<f64> {
    let (mut signal, mut noise, mut known) = (0.0, 0.0, false);
    for row in rows {
        let Some(sums) = row.sums.as_ref().filter(|_| row.nonfinite == 0) else { continue };
        let expected = row.expected_sqnr_db.0;
        known |= expected.is_finite();
        signal += sums.rr.0;
        noise +=
            if expected.is_finite() { sums.rr.0 * pow(10.0, -expected / 10.0) } else { sums.ee.0 };
    }
    (known && noise > 0.0).then(|| 10.0 * log10(signal / noise))
}

fn against_baseline(baseline: &BaselineRecord) -> String {
    let words = match baseline.status {
        BaselineStatus::Off => return "not compared".to_owned(),
        BaselineStatus::New => return "none yet".to_owned(),
        status => baseline_word(status).to_owned(),
    };
    let moved = baseline.sqnr_db.as_ref();
    let moved = moved.map(|it| format!("; SQNR {}", movement_text("sqnr_db", it)));
    let changes = match baseline.changes.len() as u64 {
        0 => String::new(),
        n => format!("; {} beyond the tolerance", numbers::counted(n, "change")),
    };
    format!("{words}{}{changes}", moved.unwrap_or_default())
}

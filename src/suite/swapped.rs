/*!
A pair whose models changed places: it fails as given, and what the spec demands holds the other way round.
*/

use super::plan::{self, Choice, PlannedPair};
use super::record::{CheckOutcome, Level, PairRecord, TestKind, TestOutcome, TestRecord};
use crate::diagnose::{Cause, Diagnosis};
use crate::spec::{Quantized, Spec};

/// What shows it.
const EVIDENCE: &str = "the two models are swapped: the pair holds the other way round";

/// What is said of the pair.
const NOTE: &str = "the two models are swapped: the pair holds the other way round (the reference is the quantized one)";

/// Says of every failed test of a pair that the models are swapped, if that is so. `judge` runs a pair whose
/// models have changed places; it is only asked where what is called the reference takes fewer bits.
pub fn explain(
    planned: &PlannedPair,
    record: &mut PairRecord,
    judge: impl FnOnce(&PlannedPair) -> PairRecord,
) {
    if is_suspect(record)
        && let Some(spec) = turned(planned)
        && let Ok(plan) = plan::plan(std::slice::from_ref(&spec), &Choice::of_tensors())
        && let [pair] = plan.pairs.as_slice()
        && holds(&judge(pair))
    {
        mark(record);
    }
}

/// What a part of a pair has shown holds for all of it.
pub fn spread(record: &mut PairRecord) {
    if is_swapped(record) {
        mark(record);
    }
}

/// Whether the models of a pair were found to be swapped.
pub fn is_swapped(record: &PairRecord) -> bool {
    let says = |it: &Diagnosis| it.cause == Cause::Swapped && it.evidence == EVIDENCE;
    record.tests.iter().any(|test| test.diagnosis.as_ref().is_some_and(says))
}

fn mark(record: &mut PairRecord) {
    for test in record.tests.iter_mut().filter(|test| fails(test) || is_hopeless(test)) {
        // With names that are read the wrong way round, there is nothing in common: that can be judged now.
        test.outcome = TestOutcome::Failed;
        test.diagnosis = Some(Diagnosis::certain(Cause::Swapped, EVIDENCE));
    }
    record.notes.retain(|note| note != NOTE);
    record.notes.push(NOTE.to_owned());
}

/// Whether the models may be swapped: tests fail, and the reference takes fewer bits.
fn is_suspect(record: &PairRecord) -> bool {
    let (Some(a), Some(b)) = (&record.reference, &record.quantized) else { return false };
    a.bits_per_weight.0 < b.bits_per_weight.0
        && record.tests.iter().any(|test| test.kind != TestKind::Global && fails(test))
}

/// Whether values or structure fail a test: a warning that was asked to be a failure says nothing of the models.
fn fails(test: &TestRecord) -> bool {
    test.kind != TestKind::Baseline
        && test.outcome == TestOutcome::Failed
        && test
            .checks
            .iter()
            .any(|it| it.outcome == CheckOutcome::Violated && it.level == Level::Fail)
}

/// Whether a test could not be judged because the models have nothing in common.
fn is_hopeless(test: &TestRecord) -> bool {
    let nothing = |it: &Diagnosis| it.cause == Cause::NothingCompared;
    test.outcome == TestOutcome::Error && test.diagnosis.as_ref().is_some_and(nothing)
}

/// Whether a pair has tests and all of them hold, as does the contract's bound.
fn holds(record: &PairRecord) -> bool {
    let passed =
        |test: &TestRecord| matches!(test.outcome, TestOutcome::Passed | TestOutcome::Ignored);
    record.tests.iter().any(|test| test.outcome == TestOutcome::Passed)
        && record.tests.iter().all(passed)
        && !record.tensors.iter().any(super::record::TensorRow::is_below_contract)
}

/// A spec of this pair alone, in which the models have changed places.
fn turned(planned: &PlannedPair) -> Option<Spec> {
    let mut pair = planned.pair.clone();
    let Quantized::File(quantized) = &mut pair.quantized else { return None };
    std::mem::swap(&mut pair.reference, quantized);
    pair.ignore = None;
    Some(Spec { pairs: vec![pair], ..planned.spec.clone() })
}

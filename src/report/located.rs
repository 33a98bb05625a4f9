/*!
Tests with the pair and the spec that they belong to, in the order of the record.
*/

use crate::suite::record::{
    CheckOutcome, CheckRecord, Contract, PairRecord, SpecRecord, TestOutcome, TestRecord,
};

/// A test with the pair and the spec that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Located<'a> {
    /// The spec.
    pub spec: &'a SpecRecord,
    /// The pair.
    pub pair: &'a PairRecord,
    /// The test.
    pub test: &'a TestRecord,
}

/// Is this a check that does not hold and that no waiver covers?
pub fn is_violated(check: &CheckRecord) -> bool {
    check.outcome == CheckOutcome::Violated
}

/// Is this a test that makes the run fail?
pub fn is_bad(test: &TestRecord) -> bool {
    matches!(test.outcome, TestOutcome::Failed | TestOutcome::Error)
}

/// Every test of a run, in order of specs, pairs and tests.
pub fn tests(contract: &Contract) -> impl Iterator<Item = Located<'_>> {
    pairs(contract)
        .flat_map(|(spec, pair)| pair.tests.iter().map(move |test| Located { spec, pair, test }))
}

/// Every pair of a run with its spec, in order.
pub fn pairs(contract: &Contract) -> impl Iterator<Item = (&SpecRecord, &PairRecord)> {
    contract.specs.iter().flat_map(|spec| spec.pairs.iter().map(move |pair| (spec, pair)))
}

/// The last part of a test's id: the tensor's name, or `(structure)`, `(global)`, `(baseline)`.
pub fn last_part<'a>(pair: &PairRecord, test: &'a TestRecord) -> &'a str {
    let rest = test.id.strip_prefix(pair.id.as_str());
    rest.and_then(|rest| rest.strip_prefix("::")).unwrap_or(&test.id)
}

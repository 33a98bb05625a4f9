/*!
Which failure is worse than another: one measure for every bound, and the order that follows from it.
*/

use std::cmp::{Ordering, Reverse};

use super::located::{Located, is_bad, is_violated, tests};
use crate::metrics::Metric;
use crate::metrics::functions::log10;
use crate::spec::Gate;
use crate::suite::record::{CheckRecord, Contract, Level, TestKind, TestOutcome, TestRecord};

/// The violated check that a test failed for: the worst of the failing ones, else of the warnings.
pub fn worst_check(test: &TestRecord) -> Option<&CheckRecord> {
    let violated = test.checks.iter().filter(|check| is_violated(check));
    violated.min_by(|a, b| {
        let is_warning = |check: &CheckRecord| check.level == Level::Warn;
        is_warning(a).cmp(&is_warning(b)).then(excess(b).total_cmp(&excess(a)))
    })
}

/// How a value and its bound compare.
enum Scale {
    /// 1 - cos ≈ (Σe²/Σr²)/2 for small errors.
    Cosine,
    /// Decibels, the larger the better.
    Gain,
    /// Decibels that are missing, the smaller the better.
    Loss,
    /// A size of errors, the smaller the better: energy is its square.
    Size,
    /// A size of an error's energy.
    Energy,
    /// A distance of the value from 1.
    FromOne,
    /// There is no bound to be beyond: parts of a tensor vanished or are others. How bad that is, the other
    /// checks of the tensor say.
    Parts,
    /// It holds or it does not: NaN, a missing tensor, a changed type.
    Absolute,
}

impl Scale {
    fn of(check: &str) -> Self {
        let name = check.strip_prefix("integrity.").unwrap_or(check);
        let gate = Gate::ALL.into_iter().find(|gate| gate.name() == name);
        match (check == name, Metric::from_name(name), gate) {
            (true, Some(Metric::Cosine), _) => Self::Cosine,
            (true, Some(Metric::SqnrDb), _) => Self::Gain,
            (true, Some(Metric::Gain), _) => Self::FromOne,
            (true, Some(Metric::Rmse | Metric::RelRmse | Metric::MaxAbs), _)
            | (false, _, Some(Gate::Gain | Gate::Offset | Gate::WorstBlock | Gate::Displaced)) => {
                Self::Size
            }
            (false, _, Some(Gate::WorstRow)) => Self::Energy,
            (false, _, Some(Gate::SqnrExpected | Gate::Scales)) => Self::Loss,
            (false, _, Some(Gate::Conversion | Gate::Column | Gate::Zero)) => Self::Parts,
            _ => Self::Absolute,
        }
    }
}

/// How far a value is beyond its bound, in dB: the error's energy over the energy that the bound allows, so
/// that all metrics and gates compare. Infinite for what is not about a number.
pub fn excess(check: &CheckRecord) -> f64 {
    let scale = Scale::of(&check.check);
    if matches!(scale, Scale::Parts) {
        return 0.0;
    }
    let (Some(value), Some(bound)) = (check.value, check.bound) else { return f64::INFINITY };
    let (value, bound) = (value.0, bound.0);
    let excess = match scale {
        Scale::Cosine => 10.0 * log10((1.0 - value) / (1.0 - bound)),
        Scale::Gain => bound - value,
        Scale::Loss => value - bound,
        Scale::Size => 20.0 * log10(value / bound),
        Scale::Energy => 10.0 * log10(value / bound),
        Scale::FromOne => 20.0 * log10((value - 1.0).abs() / bound),
        Scale::Parts | Scale::Absolute => f64::INFINITY,
    };
    if excess.is_nan() { f64::INFINITY } else { excess }
}

/// Where a test stands in the order of how bad tests are.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Gravity<'t> {
    class: u8,
    sums_up: bool,
    excess: Reverse<i64>,
    id: Natural<'t>,
}

/// Orders tests by how bad they are, the worst first: what could not be judged, then failures by
/// [`excess`], then the rest. What sums a pair up, `(global)` and `(baseline)`, comes after the tensors that
/// explain it. Ties keep the natural order of their ids. It looks at every check, so that a sort is to ask once.
pub fn gravity(test: &TestRecord) -> Gravity<'_> {
    let class = match test.outcome {
        TestOutcome::Error => 0,
        TestOutcome::Failed => 1,
        TestOutcome::Passed => 2,
        TestOutcome::Ignored => 3,
    };
    let sums_up = matches!(test.kind, TestKind::Global | TestKind::Baseline);
    let worst = worst_check(test).map_or(f64::NEG_INFINITY, excess);
    // Integers in the order of `f64::total_cmp`.
    let bits = worst.to_bits() as i64;
    let excess = Reverse(bits ^ ((bits >> 63) as u64 >> 1) as i64);
    Gravity { class, sums_up, excess, id: Natural(&test.id) }
}

/// A name in the order in which people count.
#[derive(PartialEq, Eq)]
struct Natural<'t>(&'t str);

impl Ord for Natural<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        natural(self.0, other.0)
    }
}

impl PartialOrd for Natural<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The tests that fail a run, the worst first.
pub fn worst_first(contract: &Contract) -> Vec<Located<'_>> {
    let mut bad: Vec<Located> = tests(contract).filter(|it| is_bad(it.test)).collect();
    bad.sort_by_cached_key(|it| gravity(it.test));
    bad
}

/// Compares names as people count: layer 2 before layer 10.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    while let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number, rest) = split_number(left);
            let (other, other_rest) = split_number(right);
            (left, right) = (rest, other_rest);
            number.len().cmp(&other.len()).then_with(|| number.cmp(other))
        } else {
            (left, right) = (&left[x.len_utf8()..], &right[y.len_utf8()..]);
            x.cmp(&y)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    // Leading zeros alone may tell two names apart.
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// The digits that a text begins with, without leading zeros, and the rest.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.trim_start_matches('0'), rest)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, check};
    use super::*;

    #[test]
    fn excess_compares_metrics_and_gates() {
        let two = 10.0 * log10(2.0);
        for (name, value, bound, expected, why) in [
            ("cosine", 0.98, 0.99, two, "twice the energy"),
            ("sqnr_db", 10.0, 20.0, 10.0, "dB"),
            ("rmse", 0.2, 0.1, 2.0 * two, "energy is the square"),
            ("gain", 1.2, 0.1, 2.0 * two, "distance from 1"),
            ("gain", 0.8, 0.1, 2.0 * two, "on both sides"),
            ("integrity.gain", 0.1, 0.05, 2.0 * two, "a distance already"),
            ("integrity.sqnr_expected", 7.5, 1.5, 6.0, "dB below what the type gives"),
            ("integrity.worst_row", 0.04, 0.02, two, "a drop of a cosine"),
            ("integrity.worst_block", 30.0, 3.0, 20.0, "a ratio of rms errors"),
            ("integrity.displaced", 10.0, 1.0, 20.0, "a ratio"),
            ("integrity.zero", 0.0, 0.0, 0.0, "how bad, other gates say"),
            ("finite", 3.0, 0.0, f64::INFINITY, "no number to compare"),
            ("cosine", f64::NAN, 0.99, f64::INFINITY, "NaN is the worst"),
            ("cosine", 0.9, 1.0, f64::INFINITY, "nothing was allowed"),
        ] {
            let excess = excess(&check(name, value, bound));
            let close = (excess - expected).abs() < 1e-9 || excess == expected;
            assert!(close, "{name}: {why}: {excess}");
        }
    }

    #[test]
    fn what_sums_up_comes_after_what_explains_it() {
        let failed = |id: &str, checks| sample::judged(id, checks);
        let mut baseline = failed("s::p::(baseline)", vec![check("missing", 0.0, 1.0)]);
        baseline.kind = TestKind::Baseline;
        let mut tests = [
            baseline,
            failed("s::p::blk.10.a", vec![check("cosine", 0.5, 0.9)]),
            failed("s::p::blk.2.a", vec![check("cosine", 0.5, 0.9)]),
            failed("s::p::blk.3.a", vec![check("integrity.gain", 40.0, 0.05)]),
        ];
        tests.sort_by(|a, b| gravity(a).cmp(&gravity(b)));
        let ids: Vec<&str> = tests.iter().map(|test| test.id.as_str()).collect();
        assert_eq!(ids, ["s::p::blk.3.a", "s::p::blk.2.a", "s::p::blk.10.a", "s::p::(baseline)"]);
    }

    #[test]
    fn natural_order() {
        for pair in [
            ["blk.2.a", "blk.10.a"],
            ["a", "b"],
            ["a", "a1"],
            ["blk.2", "blk.2.a"],
            ["9", "18446744073709551616"],
            ["a01", "a1"],
        ] {
            assert_eq!(natural(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(natural(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(natural("blk.2", "blk.2"), Ordering::Equal);
    }
}

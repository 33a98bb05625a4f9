/*!
A value against its bound: pass, warn, waived or fail.
*/

use super::{Bound, Group};
use crate::metrics::Metric;

/// Where a bound comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The thresholds.
    Threshold,
    /// The pair's rule of this index.
    Rule(usize),
}

/// The bound that decides a metric of a tensor.
#[derive(Clone, Debug)]
pub struct Effective<'a> {
    /// The metric.
    pub metric: Metric,
    /// The bound.
    pub bound: &'a Bound,
    /// Where it comes from.
    pub origin: Origin,
    /// Index of the live waiver with the lowest floor, and the floor.
    pub waiver: Option<(usize, f64)>,
    /// Index of an expired waiver that would have applied.
    pub expired: Option<usize>,
}

/// What a value is worth against its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Within every bound.
    Pass,
    /// Beyond the warning bound, within the failing one.
    Warn,
    /// Beyond the failing bound, within the floor of the pair's waiver of this index.
    Waived(usize),
    /// Beyond the failing bound and any floor; NaN always is.
    Fail,
}

impl Bound {
    /// What a value of a metric is worth against this bound.
    pub fn judge(&self, metric: Metric, value: f64) -> Judgement {
        if value.is_nan() || self.fail.is_some_and(|fail| !metric.holds(value, fail)) {
            Judgement::Fail
        } else if self.warn.is_some_and(|warn| !metric.holds(value, warn)) {
            Judgement::Warn
        } else {
            Judgement::Pass
        }
    }
}

impl Effective<'_> {
    /// What a value is worth against the bound and its waiver.
    pub fn judge(&self, value: f64) -> Judgement {
        match (self.bound.judge(self.metric, value), self.waiver) {
            (Judgement::Fail, Some((waiver, floor))) if self.metric.holds(value, floor) => {
                Judgement::Waived(waiver)
            }
            (judgement, _) => judgement,
        }
    }
}

impl Group {
    /// Does a tensor with these values hold all bounds of the group? A metric that it does not
    /// have is NaN and holds nothing.
    pub fn holds(&self, value: impl Fn(Metric) -> f64) -> bool {
        self.bounds
            .iter()
            .all(|(metric, bound)| bound.judge(metric, value(metric)) != Judgement::Fail)
    }
}

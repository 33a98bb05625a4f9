/*!
Bounds on metrics, as a spec states them.
*/

use super::Location;
use crate::metrics::Metric;

/// The failing and the warning bound of one metric or gate; both are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Beyond it the test fails.
    pub fail: Option<f64>,
    /// Beyond it the test warns; at least as strict as `fail`.
    pub warn: Option<f64>,
    /// Where it is written.
    pub at: Location,
}

/// Bounds per metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds(Vec<(Metric, Bound)>);

impl Bounds {
    /// The bound of a metric.
    pub fn get(&self, metric: Metric) -> Option<&Bound> {
        self.0.iter().find(|(of, _)| *of == metric).map(|(_, bound)| bound)
    }

    /// Sets the bound of a metric, in place of an earlier one.
    pub fn set(&mut self, metric: Metric, bound: Bound) {
        if let Some((_, old)) = self.0.iter_mut().find(|(of, _)| *of == metric) {
            *old = bound;
        } else {
            let place = self.0.partition_point(|(of, _)| *of < metric);
            self.0.insert(place, (metric, bound));
        }
    }

    /// Takes every bound that `over` has in place of its own.
    pub fn override_with(&mut self, over: &Self) {
        for (metric, bound) in over.iter() {
            self.set(metric, bound.clone());
        }
    }

    /// The bounds in the order of [`Metric::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Metric, &Bound)> {
        self.0.iter().map(|(metric, bound)| (*metric, bound))
    }

    /// True if nothing is bounded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What must hold for each tensor, and for the pair as one vector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// For each tensor that no rule decides.
    pub tensor: Bounds,
    /// For all float tensors of the pair as one vector.
    pub global: Bounds,
}

impl Thresholds {
    /// Takes every bound that `over` has in place of its own.
    pub fn override_with(&mut self, over: &Self) {
        self.tensor.override_with(&over.tensor);
        self.global.override_with(&over.global);
    }
}

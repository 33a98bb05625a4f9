/*!
What a baseline keeps of a measured pair: structure and metrics, no verdicts.
*/

use std::collections::BTreeMap;

use crate::metrics::{Metric, Metrics};

/// A value per metric; none where the metric does not apply (integers, booleans, empty tensors).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Values([Option<f64>; Metric::ALL.len()]);

/// What was measured of one tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Type or scheme in the quantized model.
    pub qtype: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// Number of elements.
    pub numel: u64,
    /// The metrics.
    pub values: Values,
    /// Stored bits per element of the quantized tensor, scales included.
    pub bits_per_weight: f64,
    /// NaN or infinite elements of either side.
    pub nonfinite: u64,
}

/// What was measured of all float tensors of a pair as one vector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Global {
    /// Number of tensors that take part.
    pub tensors: u64,
    /// Number of elements.
    pub numel: u64,
    /// The metrics.
    pub values: Values,
    /// NaN or infinite elements of either side.
    pub nonfinite: u64,
}

/// What was measured of one pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    /// All float tensors as one vector; none if there is none.
    pub global: Option<Global>,
    /// Tensors by their name in the reference.
    pub tensors: BTreeMap<String, Entry>,
}

impl Values {
    /// The value of a metric.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(metric as usize).copied().flatten()
    }

    fn bits(&self) -> [Option<u64>; Metric::ALL.len()] {
        self.0.map(|value| value.map(bits))
    }

    /// The same with the value of one metric replaced.
    #[must_use]
    pub fn with(mut self, metric: Metric, value: Option<f64>) -> Self {
        if let Some(slot) = self.0.get_mut(metric as usize) {
            *slot = value;
        }
        self
    }
}

/// The bits of a number, the same for every NaN.
fn bits(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

impl Measurement {
    /// Are two measurements the same to the last bit? NaN is the same as NaN here, for the question
    /// is whether two files hold the same.
    pub(super) fn same_bits(&self, other: &Self) -> bool {
        let entry = |a: &Entry, b: &Entry| {
            (&a.qtype, &a.shape, a.numel, a.nonfinite) == (&b.qtype, &b.shape, b.numel, b.nonfinite)
                && bits(a.bits_per_weight) == bits(b.bits_per_weight)
                && a.values.bits() == b.values.bits()
        };
        let global = |g: &Global| (g.tensors, g.numel, g.nonfinite, g.values.bits());
        self.global.as_ref().map(global) == other.global.as_ref().map(global)
            && self.tensors.len() == other.tensors.len()
            && self
                .tensors
                .iter()
                .zip(&other.tensors)
                .all(|((name, a), (other, b))| name == other && entry(a, b))
    }

    /// Every whole number in it.
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> {
        let global = self.global.iter().flat_map(|g| [g.tensors, g.numel, g.nonfinite]);
        let tensors = self.tensors.values();
        let tensors =
            tensors.flat_map(|t| [t.numel, t.nonfinite].into_iter().chain(t.shape.clone()));
        global.chain(tensors)
    }
}

impl From<&Metrics> for Values {
    fn from(m: &Metrics) -> Self {
        Metric::ALL.into_iter().fold(Self::default(), |values, metric| {
            let value = match metric {
                Metric::Cosine => m.cosine,
                Metric::SqnrDb => m.sqnr_db,
                Metric::Rmse => m.rmse,
                Metric::RelRmse => m.rel_rmse,
                Metric::MaxAbs => m.max_abs,
                Metric::Gain => m.gain,
            };
            values.with(metric, Some(value))
        })
    }
}

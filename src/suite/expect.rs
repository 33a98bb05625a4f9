/*!
What a pair's spec says about one tensor: which bounds hold for it, whether it is skipped, may be
missing, or has another name.
*/

use crate::gate::Applied;
use crate::metrics::Metric;
use crate::spec::Pair;

/// A pair's demands, ready to be asked about tensors.
pub struct Expectations<'a> {
    pair: &'a Pair,
}

impl<'a> Expectations<'a> {
    /// Makes a pair's globs ready.
    pub fn of(pair: &'a Pair) -> Self {
        Self { pair }
    }

    /// Why a tensor is not compared, if the spec skips it.
    pub fn skipped(&self, _tensor: &str) -> Option<&'a str> {
        None
    }

    /// May the quantized model lack this tensor?
    pub fn may_be_missing(&self, _tensor: &str) -> bool {
        false
    }

    /// May the quantized model alone have this tensor?
    pub fn may_be_extra(&self, _tensor: &str) -> bool {
        false
    }

    /// The reference's name of a tensor of the quantized model.
    pub fn reference_name(&self, quantized: &str) -> String {
        quantized.to_owned()
    }

    /// The bound of a metric for one tensor.
    pub fn bound(&self, metric: Metric, _tensor: &str) -> Option<Applied<'a>> {
        self.pair.thresholds.tensor.get(metric).map(|bound| Applied {
            bound,
            reason: None,
            waiver: None,
        })
    }

    /// The bound of a metric for the pair as one vector.
    pub fn global_bound(&self, metric: Metric) -> Option<Applied<'a>> {
        let bound = self.pair.thresholds.global.get(metric)?;
        Some(Applied { bound, reason: None, waiver: None })
    }
}

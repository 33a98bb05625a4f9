/*!
The one table of integrity gates, and what a spec says about them.

Integrity gates judge a pair without baseline and calibration data. Their default bounds belong to
the gates themselves; a spec overrides a bound, or switches a gate off with a reason.
*/

use std::fmt;

use super::{Bound, Location};

/// An integrity gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gate {
    /// Every decoded value and every scale is finite.
    Finite,
    /// The norm is kept.
    Gain,
    /// The mean is kept.
    Offset,
    /// The noise is what the tensor's type gives.
    SqnrExpected,
    /// No single row is much worse than the rest.
    WorstRow,
    /// No single block is much worse than the rest.
    WorstBlock,
    /// No row or block is zero on one side only.
    Zero,
    /// Scales, zero points and other companion planes are complete.
    Companion,
    /// Something was quantized at all.
    Quantized,
}

impl Gate {
    /// Every gate, in the order in which reports print them.
    pub const ALL: [Self; 9] = [
        Self::Finite,
        Self::Gain,
        Self::Offset,
        Self::SqnrExpected,
        Self::WorstRow,
        Self::WorstBlock,
        Self::Zero,
        Self::Companion,
        Self::Quantized,
    ];

    /// Name, least legal bound (`None`: the gate is on or off), what it demands.
    const fn info(self) -> (&'static str, Option<f64>, &'static str) {
        match self {
            Self::Finite => ("finite", None, "No NaN or infinity in the weights or their scales."),
            Self::Gain => ("gain", Some(0.0), "Largest |gain - 1|, gain = sqrt(Σq² / Σr²)."),
            Self::Offset => {
                ("offset", Some(0.0), "Largest |mean error| relative to the reference's rms.")
            }
            Self::SqnrExpected => (
                "sqnr_expected",
                Some(0.0),
                "Largest shortfall of the SQNR, in dB, from what the tensor's type gives.",
            ),
            Self::WorstRow => (
                "worst_row",
                Some(0.0),
                "Largest drop of a row's cosine below what the tensor's type gives.",
            ),
            Self::WorstBlock => (
                "worst_block",
                Some(1.0),
                "Largest ratio of a block's error to the worst that the tensor's type gives.",
            ),
            Self::Zero => ("zero", None, "No row or block is zero on one side only."),
            Self::Companion => (
                "companion",
                None,
                "Scales, zero points and other companion planes are there, and not all zero.",
            ),
            Self::Quantized => (
                "quantized",
                None,
                "At least one tensor is stored in another type than the reference's.",
            ),
        }
    }

    /// The name in specs and reports.
    pub const fn name(self) -> &'static str {
        self.info().0
    }

    /// The least bound that makes sense; `None` if the gate is only on or off.
    pub const fn least_bound(self) -> Option<f64> {
        self.info().1
    }

    /// What the gate demands, and what its bound means. The smaller a bound, the stricter.
    pub const fn doc(self) -> &'static str {
        self.info().2
    }

    /// Finds a gate by its exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|gate| gate.name() == name)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a spec says about one gate.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// On, with the gate's own bound.
    On {
        /// Where it is written.
        at: Location,
    },
    /// On, with this bound.
    Bound(Bound),
    /// Off.
    Off {
        /// Why.
        reason: String,
        /// Where it is written.
        at: Location,
    },
}

/// What a spec says about the gates; a gate that it does not name has its defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Integrity(Vec<(Gate, Setting)>);

impl Integrity {
    /// What is said about a gate.
    pub fn get(&self, gate: Gate) -> Option<&Setting> {
        self.0.iter().find(|(of, _)| *of == gate).map(|(_, setting)| setting)
    }

    /// Says something about a gate, in place of what was said.
    pub fn set(&mut self, gate: Gate, setting: Setting) {
        match self.0.iter_mut().find(|(of, _)| *of == gate) {
            Some((_, old)) => *old = setting,
            None => self.0.push((gate, setting)),
        }
    }

    /// Takes everything that `over` says in place of its own.
    pub fn override_with(&mut self, over: &Self) {
        for (gate, setting) in over.iter() {
            self.set(gate, setting.clone());
        }
    }

    /// What is said, in the order of the spec.
    pub fn iter(&self) -> impl Iterator<Item = (Gate, &Setting)> {
        self.0.iter().map(|(gate, setting)| (*gate, setting))
    }

    /// True if nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

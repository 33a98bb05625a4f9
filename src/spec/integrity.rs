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
    /// Every element of a conversion between floats is the reference's.
    Conversion,
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
    /// The codes are where some sound way of rounding would have put them.
    Displaced,
    /// The scales suit the weights.
    Scales,
    /// No column is zero in every row on one side only.
    Column,
    /// No row or block is zero on one side only.
    Zero,
    /// Scales, zero points and other companion planes are complete.
    Companion,
    /// Something was quantized at all.
    Quantized,
    /// The configuration agrees with what is stored.
    Config,
}

/// What a gate does where no spec says anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ByDefault {
    /// It has no bound: it holds or it does not.
    On,
    /// Beyond this bound its test fails.
    Fail(f64),
    /// Beyond this bound it warns.
    Warn(f64),
}

/// A row of the table of gates.
struct Row {
    name: &'static str,
    /// `None`: the gate is only on or off.
    least_bound: Option<f64>,
    by_default: ByDefault,
    demands: &'static str,
    /// Why the default is what it is.
    why: &'static str,
}

/// The table of gates, in the order of [`Gate::ALL`]; `docs/integrity.md` is tested against it.
static TABLE: [Row; Gate::ALL.len()] = [
    Row {
        name: "finite",
        least_bound: None,
        by_default: ByDefault::On,
        demands: "No NaN or infinity in the weights or their scales.",
        why: "A model that computes with one gives NaN.",
    },
    Row {
        name: "conversion",
        least_bound: None,
        by_default: ByDefault::On,
        demands: "Every element of a float tensor is the reference's, as the tensor's type holds it, or all \
                  lie on a grid.",
        why: "However it rounds, a conversion gives one of a value's two neighbours.",
    },
    Row {
        name: "gain",
        least_bound: Some(0.0),
        by_default: ByDefault::Fail(0.05),
        demands: "Largest |gain - 1|, gain = sqrt(Σq² / Σr²).",
        why: "Sound encoders keep the norm to a tenth of their relative error, which is taken off.",
    },
    Row {
        name: "offset",
        least_bound: Some(0.0),
        by_default: ByDefault::Fail(0.05),
        demands: "Largest |mean error| relative to the reference's rms.",
        why: "Rounding errors have no mean; a lost minimum or zero point has.",
    },
    Row {
        name: "sqnr_expected",
        least_bound: Some(0.0),
        by_default: ByDefault::Fail(1.5),
        demands: "Largest shortfall of the SQNR, in dB, from what the tensor's type gives.",
        why: "Sound encoders of one type differ by less than 1 dB, a second quantization costs 2.",
    },
    Row {
        name: "worst_row",
        least_bound: Some(0.0),
        by_default: ByDefault::Fail(0.02),
        demands: "Largest drop of a row's cosine below what the tensor's type gives.",
        why: "Rows of sound encoders differ by less than 0.001 where the type has four bits or more.",
    },
    Row {
        name: "worst_block",
        least_bound: Some(1.0),
        by_default: ByDefault::Fail(3.0),
        demands: "Largest ratio of a block's error to the worst that the tensor's type gives.",
        why: "Blocks of sound encoders differ by an eighth; a negated one is ten times as loud.",
    },
    Row {
        name: "displaced",
        least_bound: Some(0.0),
        by_default: ByDefault::Fail(1.0),
        demands: "Furthest displacement of codes from the nearest ones on the tensor's own grid, relative to \
                  what sound rounding does.",
        why: "Error feedback and trained rounding displace without structure, damage by a constant, in \
              proportion to the weights, or by more than one step.",
    },
    Row {
        name: "scales",
        least_bound: Some(0.0),
        by_default: ByDefault::Warn(6.0),
        demands: "Largest loss in dB, against plain rounding, of the nearest codes that the stored scales allow.",
        why: "Clipping and coarse scales are a choice; from one bit on, one to know about.",
    },
    Row {
        name: "column",
        least_bound: None,
        by_default: ByDefault::On,
        demands: "Every column of a matrix has something of its own reference: none is zero, negated or another's.",
        why: "Over sixteen rows or more, half of the cosine that the type gives is half way to values that \
              know nothing of the reference.",
    },
    Row {
        name: "zero",
        least_bound: None,
        by_default: ByDefault::On,
        demands: "No row or block is zero on one side only.",
        why: "Only values that the type itself rounds to zero may vanish.",
    },
    Row {
        name: "companion",
        least_bound: None,
        by_default: ByDefault::On,
        demands: "Scales, zero points and other companion planes are there, and not all zero.",
        why: "Codes mean nothing without them.",
    },
    Row {
        name: "quantized",
        least_bound: None,
        by_default: ByDefault::On,
        demands: "At least one tensor is stored in another type than the reference's.",
        why: "A model that was not quantized is perfect, and not what was asked for.",
    },
    Row {
        name: "config",
        least_bound: None,
        by_default: ByDefault::On,
        demands: "The configuration agrees with what is stored.",
        why: "Engines build a model from the configuration, and misread planes that do not fit.",
    },
];

impl Gate {
    /// Every gate, in the order in which reports print them.
    pub const ALL: [Self; 14] = [
        Self::Finite,
        Self::Conversion,
        Self::Gain,
        Self::Offset,
        Self::SqnrExpected,
        Self::WorstRow,
        Self::WorstBlock,
        Self::Displaced,
        Self::Scales,
        Self::Column,
        Self::Zero,
        Self::Companion,
        Self::Quantized,
        Self::Config,
    ];

    /// The gate's row in the table.
    const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The name in specs and reports.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The least bound that makes sense; `None` if the gate is only on or off.
    pub const fn least_bound(self) -> Option<f64> {
        self.row().least_bound
    }

    /// What holds where no spec says anything.
    pub const fn by_default(self) -> ByDefault {
        self.row().by_default
    }

    /// The bound where no spec says anything; 0 for a gate that is only on or off.
    pub const fn default_bound(self) -> f64 {
        match self.row().by_default {
            ByDefault::On => 0.0,
            ByDefault::Fail(bound) | ByDefault::Warn(bound) => bound,
        }
    }

    /// From here on a bound is none, because nothing can break it: cosines differ by at most 2, and no
    /// damage is a million times what is allowed.
    pub const fn no_bound(self) -> f64 {
        match self {
            Self::WorstRow => 2.0,
            _ => 1e6,
        }
    }

    /// Whether the gate compares with a reference; the others judge one model, too.
    pub const fn compares(self) -> bool {
        !matches!(self, Self::Finite | Self::Zero | Self::Companion | Self::Config)
    }

    /// What the gate demands, and what its bound means. The smaller a bound, the stricter.
    pub const fn doc(self) -> &'static str {
        self.row().demands
    }

    /// Why the default is what it is.
    pub const fn why(self) -> &'static str {
        self.row().why
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

impl Setting {
    /// Where it is written.
    pub fn at(&self) -> &Location {
        match self {
            Self::On { at } | Self::Off { at, .. } => at,
            Self::Bound(bound) => &bound.at,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_gates_and_the_documentation_lists_them() {
        let docs = include_str!("../../docs/integrity.md");
        for (index, gate) in Gate::ALL.into_iter().enumerate() {
            assert_eq!(gate as usize, index);
            assert_eq!(Gate::from_name(gate.name()), Some(gate));
            let default = match gate.by_default() {
                ByDefault::On => "on".to_owned(),
                ByDefault::Fail(bound) => bound.to_string(),
                ByDefault::Warn(bound) => format!("{bound}, warns"),
            };
            let demands = gate.doc().replace('|', "\\|");
            let row = format!("| `{gate}` | {demands} | {default} | {} |\n", gate.why());
            assert!(docs.contains(&row), "docs/integrity.md needs\n{row}");
        }
    }
}

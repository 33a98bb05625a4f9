/*!
The one table of gate metrics: name, unit, good direction, formula, and the legal range of a bound.

Specs, gates, baselines and reports look metrics up here. Computing them is [`super::Metrics`]'s
work; this table is vocabulary and every room may know it.
*/

use std::fmt;

/// A metric that a spec can bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Cosine of the angle between reference and quantized values.
    Cosine,
    /// Signal-to-quantization-noise ratio in decibel.
    SqnrDb,
    /// Root mean square error.
    Rmse,
    /// Root mean square error relative to the reference's root mean square.
    RelRmse,
    /// Largest absolute error.
    MaxAbs,
    /// Ratio of the norms, quantized to reference.
    Gain,
}

/// Which values of a metric are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The higher the better; a bound is the least value that passes.
    Higher,
    /// The lower the better; a bound is the largest value that passes.
    Lower,
    /// The nearer to 1 the better; a bound is the largest `|value - 1|` that passes.
    One,
}

impl Direction {
    /// True if `a` is a better value than `b`, or as good.
    pub fn at_least(self, a: f64, b: f64) -> bool {
        match self {
            Self::Higher => a >= b,
            Self::Lower => a <= b,
            Self::One => (a - 1.0).abs() <= (b - 1.0).abs(),
        }
    }
}

/// One row of the table of metrics.
struct MetricInfo {
    name: &'static str,
    unit: &'static str,
    direction: Direction,
    /// Least and largest legal bound.
    range: (f64, f64),
    doc: &'static str,
}

impl Metric {
    /// Every metric, in the order in which reports print them.
    pub const ALL: [Self; 6] =
        [Self::Cosine, Self::SqnrDb, Self::Rmse, Self::RelRmse, Self::MaxAbs, Self::Gain];

    const fn info(self) -> MetricInfo {
        use Direction::{Higher, Lower, One};
        let (name, unit, direction, range, doc) = match self {
            Self::Cosine => (
                "cosine",
                "",
                Higher,
                (-1.0, 1.0),
                "Cosine of the angle between reference and quantized values, \
                 Σrq / (|r| |q|); the least value that passes.",
            ),
            Self::SqnrDb => (
                "sqnr_db",
                "dB",
                Higher,
                (f64::MIN, f64::MAX),
                "Signal-to-quantization-noise ratio in dB, 10 log10(Σr² / Σe²); the least value \
                 that passes.",
            ),
            Self::Rmse => (
                "rmse",
                "",
                Lower,
                (0.0, f64::MAX),
                "Root mean square error in units of the weights, sqrt(Σe² / n); the largest value \
                 that passes.",
            ),
            Self::RelRmse => (
                "rel_rmse",
                "",
                Lower,
                (0.0, f64::MAX),
                "Error relative to the reference, sqrt(Σe² / Σr²); the largest value that passes.",
            ),
            Self::MaxAbs => (
                "max_abs",
                "",
                Lower,
                (0.0, f64::MAX),
                "Largest absolute error in units of the weights, max |e|; the largest value that \
                 passes.",
            ),
            Self::Gain => (
                "gain",
                "",
                One,
                (0.0, f64::MAX),
                "Distance of the norm ratio sqrt(Σq² / Σr²) from 1; the largest |gain - 1| that \
                 passes.",
            ),
        };
        MetricInfo { name, unit, direction, range, doc }
    }

    /// The name in specs and reports (`sqnr_db`).
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// The unit of values and bounds: `dB`, or nothing.
    pub const fn unit(self) -> &'static str {
        self.info().unit
    }

    /// Which values are good.
    pub const fn direction(self) -> Direction {
        self.info().direction
    }

    /// What it measures, with its formula (r reference, q quantized, e = q - r), and what a bound
    /// means.
    pub const fn doc(self) -> &'static str {
        self.info().doc
    }

    /// The least and the largest legal bound; both finite.
    pub const fn bound_range(self) -> (f64, f64) {
        self.info().range
    }

    /// Finds a metric by its exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Does this value pass this bound? A NaN passes nothing.
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self.direction() {
            Direction::Higher => value >= bound,
            Direction::Lower => value <= bound,
            Direction::One => (value - 1.0).abs() <= bound,
        }
    }

    /// Is bound `a` at least as strict as bound `b`?
    pub fn at_least_as_strict(self, a: f64, b: f64) -> bool {
        match self.direction() {
            Direction::Higher => a >= b,
            Direction::Lower | Direction::One => a <= b,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for metric in Metric::ALL {
            assert_eq!(Metric::from_name(metric.name()), Some(metric));
        }
        assert_eq!(Metric::from_name("Cosine"), None);
    }

    #[test]
    fn bounds_hold_in_the_good_direction() {
        // metric, value, bound, holds, why
        for (metric, value, bound, holds, why) in [
            (Metric::Cosine, 0.95, 0.95, true, "equal passes"),
            (Metric::Cosine, 0.949, 0.95, false, "below"),
            (Metric::SqnrDb, f64::INFINITY, 20.0, true, "no error at all"),
            (Metric::Rmse, 1e-3, 1e-3, true, "equal passes"),
            (Metric::Rmse, 2e-3, 1e-3, false, "above"),
            (Metric::Gain, 0.97, 0.05, true, "within 0.05 below 1"),
            (Metric::Gain, 1.06, 0.05, false, "0.06 above 1"),
        ] {
            assert_eq!(metric.holds(value, bound), holds, "{metric} {value} {bound}: {why}");
        }
        for metric in Metric::ALL {
            for bound in [-1.0, 0.0, 1.0, f64::MAX, f64::MIN] {
                assert!(!metric.holds(f64::NAN, bound), "{metric}: NaN passes nothing");
            }
        }
    }
}

/*!
How a measurement moved against a baseline.

Numbers may move by `abs + rel · |old|`; beyond that, each metric's good direction says whether the
movement is better or worse. Structure (tensors that came or went, types, shapes, storage, counts of
NaN and infinity) is compared exactly: no tolerance covers it.
*/

use std::fmt;

use super::{Entry, Global, Measurement, Values};
use crate::metrics::{Direction, Metric};

/// By how much a number may move: `abs + rel · |old|`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// In the metric's own unit.
    pub abs: f64,
    /// In parts of the old value's magnitude.
    pub rel: f64,
}

/// A tolerance per metric.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerances([Tolerance; Metric::ALL.len()]);

/// How a number moved, seen from the metric's good side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Bit for bit.
    Same,
    /// Inside the tolerance.
    Within,
    /// Beyond the tolerance, in the good direction.
    Better,
    /// Beyond the tolerance, in the bad direction; or one side is NaN or not there.
    Worse,
}

/// How one metric moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricMove {
    /// The metric.
    pub metric: Metric,
    /// In the baseline.
    pub old: Option<f64>,
    /// Now.
    pub new: Option<f64>,
    /// The movement.
    pub kind: Move,
}

/// A difference that no tolerance covers.
#[derive(Clone, Debug, PartialEq)]
pub enum Structure {
    /// Not in the baseline.
    Added,
    /// Only in the baseline.
    Removed,
    /// Another type or scheme.
    Retyped {
        /// In the baseline.
        old: String,
        /// Now.
        new: String,
    },
    /// Another shape or number of elements.
    Reshaped {
        /// In the baseline.
        old: Vec<u64>,
        /// Now.
        new: Vec<u64>,
    },
    /// Another number of elements, though the shape (or the number of tensors) is the same.
    Resized {
        /// In the baseline.
        old: u64,
        /// Now.
        new: u64,
    },
    /// Stored in more or fewer bits per element.
    Restored {
        /// In the baseline.
        old: f64,
        /// Now.
        new: f64,
    },
    /// More or fewer elements are NaN or infinite.
    NonFinite {
        /// In the baseline.
        old: u64,
        /// Now.
        new: u64,
    },
}

/// One tensor, or all of them as one vector, against the baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorComparison {
    /// The tensor's name; `(global)` for all of them.
    pub name: String,
    /// What no tolerance covers.
    pub structure: Vec<Structure>,
    /// Every metric that either side has; none for what was added or removed.
    pub moves: Vec<MetricMove>,
}

/// A measurement against a baseline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// All float tensors as one vector; none if neither side has it.
    pub global: Option<TensorComparison>,
    /// Every tensor of either side, by name.
    pub tensors: Vec<TensorComparison>,
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// Everything is the same or within its tolerance.
    Held,
    /// Something is better, nothing worse, and the structure is the same.
    Better,
    /// Something is worse, or the structure is another.
    Changed,
}

impl Tolerance {
    /// How a number moved.
    ///
    /// An infinity is within the tolerance of nothing but itself, as for `numpy.isclose`. NaN is
    /// worse than everything, itself included: it vouches for nothing.
    pub fn judge(self, metric: Metric, old: f64, new: f64) -> Move {
        if old.is_nan() || new.is_nan() {
            return Move::Worse;
        }
        if old.to_bits() == new.to_bits() {
            return Move::Same;
        }
        let finite = old.is_finite() && new.is_finite();
        if old == new || (finite && (new - old).abs() <= self.abs + self.rel * old.abs()) {
            return Move::Within;
        }
        match metric.direction() {
            Direction::Higher if new > old => Move::Better,
            Direction::Lower if new < old => Move::Better,
            Direction::One if (new - 1.0).abs() < (old - 1.0).abs() => Move::Better,
            _ => Move::Worse,
        }
    }
}

impl Tolerances {
    /// The same tolerance for every metric.
    pub fn all(tolerance: Tolerance) -> Self {
        Self([tolerance; Metric::ALL.len()])
    }

    /// The tolerance of a metric.
    pub fn get(&self, metric: Metric) -> Tolerance {
        self.0.get(metric as usize).copied().unwrap_or_default()
    }

    /// The same with the tolerance of one metric replaced.
    #[must_use]
    pub fn with(mut self, metric: Metric, tolerance: Tolerance) -> Self {
        if let Some(slot) = self.0.get_mut(metric as usize) {
            *slot = tolerance;
        }
        self
    }

    /// The smallest parts of all, as they are recorded beside a baseline: `abs 1e-9, rel 1e-6`.
    pub(super) fn record(&self) -> String {
        let least = |part: fn(&Tolerance) -> f64| self.0.iter().map(part).fold(f64::MAX, f64::min);
        format!("abs {:?}, rel {:?}", least(|t| t.abs), least(|t| t.rel))
    }

    /// Reads what [`Tolerances::record`] wrote; what it did not write is no tolerance at all.
    pub(super) fn from_record(text: Option<&str>) -> Self {
        let read = |text: &str| {
            let (abs, rel) = text.strip_prefix("abs ")?.split_once(", rel ")?;
            let number = |t: &str| t.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
            Some(Tolerance { abs: number(abs)?, rel: number(rel)? })
        };
        Self::all(text.and_then(read).unwrap_or_default())
    }

    fn moves(&self, old: &Values, new: &Values) -> Vec<MetricMove> {
        let judged = |metric| {
            let (old, new) = (old.get(metric), new.get(metric));
            let kind = match (old, new) {
                (None, None) => return None,
                (Some(old), Some(new)) => self.get(metric).judge(metric, old, new),
                _ => Move::Worse,
            };
            Some(MetricMove { metric, old, new, kind })
        };
        Metric::ALL.into_iter().filter_map(judged).collect()
    }
}

/// Compares a measurement with a baseline.
pub fn compare(old: &Measurement, new: &Measurement, tolerances: &Tolerances) -> Comparison {
    let names: std::collections::BTreeSet<&String> =
        old.tensors.keys().chain(new.tensors.keys()).collect();
    let tensor = |name: &String| {
        let (structure, moves) = match (old.tensors.get(name), new.tensors.get(name)) {
            (Some(old), Some(new)) => {
                (entry_structure(old, new), tolerances.moves(&old.values, &new.values))
            }
            (Some(_), None) => (vec![Structure::Removed], Vec::new()),
            _ => (vec![Structure::Added], Vec::new()),
        };
        TensorComparison { name: name.clone(), structure, moves }
    };
    let global = match (&old.global, &new.global) {
        (None, None) => None,
        (Some(old), Some(new)) => {
            Some((global_structure(old, new), tolerances.moves(&old.values, &new.values)))
        }
        (Some(_), None) => Some((vec![Structure::Removed], Vec::new())),
        (None, Some(_)) => Some((vec![Structure::Added], Vec::new())),
    };
    let global = global.map(|(structure, moves)| TensorComparison {
        name: "(global)".to_owned(),
        structure,
        moves,
    });
    Comparison { global, tensors: names.into_iter().map(tensor).collect() }
}

fn entry_structure(old: &Entry, new: &Entry) -> Vec<Structure> {
    let mut found = Vec::new();
    if old.qtype != new.qtype {
        found.push(Structure::Retyped { old: old.qtype.clone(), new: new.qtype.clone() });
    }
    if old.shape != new.shape {
        found.push(Structure::Reshaped { old: old.shape.clone(), new: new.shape.clone() });
    } else if old.numel != new.numel {
        found.push(Structure::Resized { old: old.numel, new: new.numel });
    }
    // The stored size is a whole number of bytes: it is the same or it is not.
    if old.bits_per_weight != new.bits_per_weight {
        let (old, new) = (old.bits_per_weight, new.bits_per_weight);
        found.push(Structure::Restored { old, new });
    }
    if old.nonfinite != new.nonfinite {
        found.push(Structure::NonFinite { old: old.nonfinite, new: new.nonfinite });
    }
    found
}

/// The number of tensors follows from the tensors themselves, so that only a count that changed
/// without them is worth a word.
fn global_structure(old: &Global, new: &Global) -> Vec<Structure> {
    let mut found = Vec::new();
    if old.numel != new.numel || old.tensors != new.tensors {
        found.push(Structure::Resized { old: old.numel, new: new.numel });
    }
    if old.nonfinite != new.nonfinite {
        found.push(Structure::NonFinite { old: old.nonfinite, new: new.nonfinite });
    }
    found
}

impl TensorComparison {
    /// The movement of a metric.
    pub fn movement(&self, metric: Metric) -> Option<&MetricMove> {
        self.moves.iter().find(|m| m.metric == metric)
    }

    fn any(&self, kind: Move) -> bool {
        self.moves.iter().any(|m| m.kind == kind)
    }

    /// True if everything is the same or within its tolerance.
    pub fn held(&self) -> bool {
        self.structure.is_empty() && !self.any(Move::Better) && !self.any(Move::Worse)
    }

    /// What moved beyond its tolerance, one line each.
    pub fn changes(&self) -> Vec<String> {
        let name = &self.name;
        let structure = self.structure.iter().map(|s| format!("{name}: {s}"));
        let moved = |m: &&MetricMove| matches!(m.kind, Move::Better | Move::Worse);
        let moves = self.moves.iter().filter(moved).map(|m| format!("{name}: {m}"));
        structure.chain(moves).collect()
    }
}

impl Comparison {
    /// The global comparison, then every tensor's.
    pub fn all(&self) -> impl Iterator<Item = &TensorComparison> {
        self.global.iter().chain(&self.tensors)
    }

    /// The comparison of a tensor of either side.
    pub fn tensor(&self, name: &str) -> Option<&TensorComparison> {
        let at = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name)).ok()?;
        self.tensors.get(at)
    }

    /// What it comes to.
    pub fn trend(&self) -> Trend {
        if self.all().any(|t| !t.structure.is_empty() || t.any(Move::Worse)) {
            Trend::Changed
        } else if self.all().any(|t| t.any(Move::Better)) {
            Trend::Better
        } else {
            Trend::Held
        }
    }

    /// What moved beyond its tolerance, one line each.
    pub fn changes(&self) -> Vec<String> {
        self.all().flat_map(TensorComparison::changes).collect()
    }

    /// What is worse than the baseline, or can no longer be compared with it: all that `ratchet`
    /// holds against a measurement. A tensor that was added had nothing to be worse than, and the
    /// global vector grows with it.
    pub fn regressions(&self) -> Vec<String> {
        let added = self.tensors.iter().any(|t| t.structure.contains(&Structure::Added));
        let grew =
            |s: &Structure| matches!(s, Structure::Resized { old, new } if added && new > old);
        let mut found = Vec::new();
        for t in self.all() {
            let global = self.global.as_ref().is_some_and(|g| std::ptr::eq(g, t));
            for s in &t.structure {
                if *s != Structure::Added && !(global && grew(s)) {
                    found.push(format!("{}: {s}", t.name));
                }
            }
            let worse = t.moves.iter().filter(|m| m.kind == Move::Worse);
            found.extend(worse.map(|m| format!("{}: {m}", t.name)));
        }
        found
    }
}

impl Move {
    /// `same`, `within`, `better` or `worse`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Within => "within",
            Self::Better => "better",
            Self::Worse => "worse",
        }
    }
}

impl fmt::Display for MetricMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: Option<f64>| value.map_or("none".to_owned(), |v| format!("{v:?}"));
        write!(
            f,
            "{} {} -> {} ({})",
            self.metric.name(),
            show(self.old),
            show(self.new),
            self.kind.name()
        )
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("added"),
            Self::Removed => f.write_str("removed"),
            Self::Retyped { old, new } => write!(f, "type {old} -> {new}"),
            Self::Reshaped { old, new } => write!(f, "shape {old:?} -> {new:?}"),
            Self::Resized { old, new } => write!(f, "elements {old} -> {new}"),
            Self::Restored { old, new } => write!(f, "bits per weight {old:?} -> {new:?}"),
            Self::NonFinite { old, new } => write!(f, "non-finite elements {old} -> {new}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;

    #[test]
    fn movements() {
        use Metric::{Cosine, Gain, MaxAbs, RelRmse, Rmse, SqnrDb};
        use Move::{Better, Same, Within, Worse};
        // metric, abs, rel, old, new, movement, why
        for (metric, abs, rel, old, new, expected, why) in [
            (Cosine, 0.0, 0.0, 0.99, 0.99, Same, "bit for bit"),
            (Cosine, 1e-3, 0.0, 0.99, 0.9895, Within, "inside, downwards"),
            (Cosine, 1e-3, 0.0, 0.99, 0.9905, Within, "inside, upwards"),
            (Cosine, 0.125, 0.0, 0.5, 0.625, Within, "the edge belongs to it"),
            (Cosine, 1e-4, 0.0, 0.99, 0.995, Better, "higher is better"),
            (Cosine, 1e-4, 0.0, 0.99, 0.985, Worse, "lower is worse"),
            (Rmse, 0.0, 0.25, 4.0, 5.0, Within, "a quarter of the old value"),
            (Rmse, 0.0, 0.25, 5.0, 4.0 - 0.5, Better, "lower is better"),
            (Rmse, 0.0, 0.25, 4.0, 5.5, Worse, "higher is worse"),
            (RelRmse, 0.0, 1.0, 0.0, 1e-300, Worse, "a part of nothing is nothing"),
            (MaxAbs, 1e-9, 0.0, 0.0, 1e-9, Within, "the absolute part is for zeros"),
            (MaxAbs, 0.0, 0.0, 0.0, -0.0, Within, "equal, though not bit for bit"),
            (SqnrDb, 0.0, 1.0, INF, INF, Same, "no error, still no error"),
            (SqnrDb, 0.0, 1.0, INF, 300.0, Worse, "a part of infinity covers nothing"),
            (SqnrDb, 1.0, 1.0, 300.0, INF, Better, "no error any more"),
            (SqnrDb, INF, 0.0, INF, 300.0, Worse, "not even an infinite tolerance"),
            (SqnrDb, 0.0, 1.0, f64::NEG_INFINITY, INF, Better, "from all to nothing"),
            (Rmse, 0.0, 1.0, 1.0, INF, Worse, "an overflow"),
            (Gain, 1e-6, 0.0, 1.01, 1.005, Better, "nearer to 1 from above"),
            (Gain, 1e-6, 0.0, 0.9, 0.95, Better, "nearer to 1 from below"),
            (Gain, 1e-6, 0.0, 1.005, 1.01, Worse, "away from 1"),
            (Gain, 1e-6, 0.0, 0.75, 1.25, Worse, "as far on the other side is no gain"),
            (Gain, 1e-6, 0.0, 0.9, 1.05, Better, "past 1, but nearer"),
            (Cosine, 1.0, 1.0, NAN, NAN, Worse, "NaN vouches for nothing"),
            (Cosine, 1.0, 1.0, 0.9, NAN, Worse, "lost"),
            (Cosine, INF, 1.0, NAN, 1.0, Worse, "nothing to compare with"),
        ] {
            let found = Tolerance { abs, rel }.judge(metric, old, new);
            assert_eq!(found, expected, "{metric} {old} -> {new}: {why}");
        }
    }

    fn entry(qtype: &str, shape: &[u64], cosine: Option<f64>) -> Entry {
        Entry {
            qtype: qtype.into(),
            shape: shape.to_vec(),
            numel: shape.iter().product(),
            values: Values::default().with(Metric::Cosine, cosine),
            bits_per_weight: 8.5,
            nonfinite: 0,
        }
    }

    fn measured(entries: &[(&str, Entry)]) -> Measurement {
        let tensors = entries.iter().map(|(name, e)| ((*name).to_owned(), e.clone())).collect();
        Measurement { global: None, tensors }
    }

    #[test]
    fn no_tolerance_covers_structure() {
        let endless = Tolerances::all(Tolerance { abs: 1e300, rel: 1e300 });
        let base = entry("q8_0", &[4, 4], Some(0.9));
        let old = measured(&[("t", base.clone())]);
        // new, change, regression, why
        for (new, change, regression, why) in [
            (vec![], "t: removed", true, "gone"),
            (vec![("t", base.clone()), ("u", base.clone())], "u: added", false, "new"),
            (vec![("t", entry("q4_0", &[4, 4], Some(0.9)))], "t: type q8_0 -> q4_0", true, "type"),
            (
                vec![("t", entry("q8_0", &[2, 8], Some(0.9)))],
                "t: shape [4, 4] -> [2, 8]",
                true,
                "as many elements in another shape",
            ),
            (
                vec![("t", Entry { bits_per_weight: 4.5, ..base.clone() })],
                "t: bits per weight 8.5 -> 4.5",
                true,
                "the same type name, other storage",
            ),
            (
                vec![("t", Entry { nonfinite: 1, ..base.clone() })],
                "t: non-finite elements 0 -> 1",
                true,
                "one NaN",
            ),
            (
                vec![("t", entry("q8_0", &[4, 4], None))],
                "t: cosine 0.9 -> none (worse)",
                true,
                "a value that went",
            ),
        ] {
            let found = compare(&old, &measured(&new), &endless);
            assert_eq!(found.trend(), Trend::Changed, "{why}");
            assert_eq!(found.changes(), [change], "{why}");
            assert_eq!(!found.regressions().is_empty(), regression, "{why}");
        }
        let none = Measurement::default();
        let global = Measurement { global: Some(Global::default()), ..none.clone() };
        assert_eq!(compare(&global, &none, &endless).changes(), ["(global): removed"]);
        assert_eq!(compare(&none, &global, &endless).changes(), ["(global): added"]);
    }

    #[test]
    fn trends() {
        let of =
            |a, b| measured(&[("a", entry("q", &[1], Some(a))), ("b", entry("q", &[1], Some(b)))]);
        let tolerances = Tolerances::all(Tolerance { abs: 1e-3, rel: 0.0 });
        // a and b now (0.9 before), trend, why
        for (a, b, expected, why) in [
            (0.9, 0.9, Trend::Held, "same"),
            (0.9005, 0.8995, Trend::Held, "within"),
            (0.95, 0.9, Trend::Better, "one better"),
            (0.95, 0.85, Trend::Changed, "better does not pay for worse"),
            (0.9, 0.85, Trend::Changed, "worse"),
            (f64::NAN, 0.9, Trend::Changed, "NaN"),
        ] {
            assert_eq!(compare(&of(0.9, 0.9), &of(a, b), &tolerances).trend(), expected, "{why}");
        }
    }

    #[test]
    fn a_ratchet_lets_a_model_grow() {
        let global = |tensors, numel| Some(Global { tensors, numel, ..Global::default() });
        let t = entry("q8_0", &[4], Some(0.9));
        let old = Measurement { global: global(1, 4), ..measured(&[("t", t.clone())]) };
        let grown = measured(&[("t", t.clone()), ("u", t.clone())]);
        let grown = Measurement { global: global(2, 8), ..grown };
        let found = compare(&old, &grown, &Tolerances::default());
        assert_eq!(found.trend(), Trend::Changed);
        assert!(found.regressions().is_empty(), "{:?}", found.regressions());
        let shrunk = compare(&grown, &old, &Tolerances::default());
        assert_eq!(shrunk.regressions(), ["(global): elements 8 -> 4", "u: removed"]);
    }

    /// The definition of `numpy.isclose(new, old, rtol=rel, atol=abs, equal_nan=False)`.
    fn isclose(new: f64, old: f64, tolerance: Tolerance) -> bool {
        if new.is_finite() && old.is_finite() {
            (new - old).abs() <= tolerance.abs + tolerance.rel * old.abs()
        } else {
            new == old
        }
    }

    proptest! {
        #[test]
        fn close_as_numpy_has_it(
            i in 0..6usize,
            old in any::<u64>().prop_map(f64::from_bits),
            near in -2.0..2.0f64,
            other in any::<u64>().prop_map(f64::from_bits),
            abs in 0.0..1.0f64,
            rel in 0.0..1.0f64,
        ) {
            let tolerance = Tolerance { abs, rel };
            let metric = Metric::ALL[i];
            for new in [other, old, -old, old + near * abs, old * (1.0 + near * rel), 1.0] {
                let found = tolerance.judge(metric, old, new);
                prop_assert_eq!(matches!(found, Move::Same | Move::Within), isclose(new, old, tolerance));
                if found == Move::Better {
                    prop_assert!(metric.direction().at_least(new, old));
                    prop_assert_eq!(tolerance.judge(metric, new, old) == Move::Better, false);
                }
                // What is worse under a tolerance is worse without one.
                let strict = Tolerance::default().judge(metric, old, new);
                if matches!(found, Move::Better | Move::Worse) {
                    prop_assert_eq!(strict, found);
                }
                if found == Move::Same {
                    prop_assert_eq!(strict, Move::Same);
                }
            }
        }

        #[test]
        fn a_measurement_holds_against_itself(
            cosines in proptest::collection::btree_map(any::<String>(), -1.0..1.0f64, 0..8)
        ) {
            let tensors = cosines.iter().map(|(n, c)| (n.clone(), entry("q", &[2], Some(*c)))).collect();
            let m = Measurement { global: None, tensors };
            let found = compare(&m, &m, &Tolerances::default());
            prop_assert_eq!(found.trend(), Trend::Held);
            prop_assert!(found.changes().is_empty() && found.all().all(TensorComparison::held));
            for name in cosines.keys() {
                prop_assert!(found.tensor(name).is_some());
            }
        }
    }
}

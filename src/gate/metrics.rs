/*!
Metric bounds against measured metrics.
*/

use super::check::{CheckOutcome, CheckRecord, Level, Number, Source};
use crate::metrics::{Direction, Metric, Metrics};
use crate::spec::{Bound, Location};

/// A bound as it applies to one tensor, or to the whole pair.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// The bound that decides.
    pub bound: &'a Bound,
    /// Why it is what it is, if the spec says so.
    pub reason: Option<&'a str>,
    /// The floor of a waiver that covers the tensor.
    pub waiver: Option<Floor<'a>>,
}

/// A waiver's floor.
#[derive(Clone, Copy, Debug)]
pub struct Floor<'a> {
    /// The least good value that the waiver lets pass.
    pub value: f64,
    /// Where it is written.
    pub at: &'a Location,
    /// Why.
    pub reason: &'a str,
}

impl From<&Location> for Source {
    fn from(at: &Location) -> Self {
        Self {
            file: at.file.to_string_lossy().into_owned(),
            line: u64::from(at.line),
            column: u64::from(at.column),
        }
    }
}

/// Which value a metric has.
pub fn value_of(metrics: &Metrics, metric: Metric) -> f64 {
    match metric {
        Metric::Cosine => metrics.cosine,
        Metric::SqnrDb => metrics.sqnr_db,
        Metric::Rmse => metrics.rmse,
        Metric::RelRmse => metrics.rel_rmse,
        Metric::MaxAbs => metrics.max_abs,
        Metric::Gain => metrics.gain,
    }
}

/// Checks one metric: its failing bound, then its warning bound. `subject` ends the message: the
/// tensor and its qtype.
pub fn check_metric(
    metric: Metric,
    value: f64,
    applied: &Applied,
    subject: &str,
    checks: &mut Vec<CheckRecord>,
) {
    for (level, bound) in [(Level::Fail, applied.bound.fail), (Level::Warn, applied.bound.warn)] {
        let Some(bound) = bound else { continue };
        let mut check = CheckRecord {
            check: metric.name().to_owned(),
            outcome: CheckOutcome::Held,
            level,
            value: Some(Number(value)),
            bound: Some(Number(bound)),
            message: message(metric, value, bound, subject),
            source: Some(Source::from(&applied.bound.at)),
            reason: applied.reason.map(str::to_owned),
            movement: None,
        };
        if !metric.holds(value, bound) {
            check.outcome = CheckOutcome::Violated;
            if let Some(floor) = applied.waiver.filter(|floor| metric.holds(value, floor.value)) {
                check.outcome = CheckOutcome::Waived;
                check.reason = Some(floor.reason.to_owned());
                check.message = format!("{}; waived down to {}", check.message, floor.value);
                check.source = Some(Source::from(floor.at));
            }
        }
        checks.push(check);
    }
}

/// `cosine 0.981200 < 0.990000 (blk.0.ffn_down.weight, Q4_0)`; the sign says what is the case.
fn message(metric: Metric, value: f64, bound: f64, subject: &str) -> String {
    let holds = metric.holds(value, bound);
    let (shown, sign) = match (metric.direction(), holds) {
        (Direction::Higher, true) => (format!("{metric} {}", Shown(value)), ">="),
        (Direction::Lower, true) => (format!("{metric} {}", Shown(value)), "<="),
        (Direction::One, true) => (format!("|{metric} {} - 1|", Shown(value)), "<="),
        (Direction::Higher, false) => (format!("{metric} {}", Shown(value)), "<"),
        (Direction::Lower, false) => (format!("{metric} {}", Shown(value)), ">"),
        (Direction::One, false) => (format!("|{metric} {} - 1|", Shown(value)), ">"),
    };
    let sign = if value.is_nan() { "is not within" } else { sign };
    format!("{shown} {sign} {} ({subject})", Shown(bound))
}

/// A number for people: fixed digits where they say something, an exponent where they would not.
struct Shown(f64);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let magnitude = self.0.abs();
        if magnitude == 0.0 || (1e-3..1e6).contains(&magnitude) || !magnitude.is_finite() {
            write!(f, "{:.6}", self.0)
        } else {
            write!(f, "{:.6e}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::Source as Text;

    fn outcomes(
        value: f64,
        fail: f64,
        warn: Option<f64>,
        floor: Option<f64>,
    ) -> Vec<(Level, CheckOutcome)> {
        let at = Text::new(Path::new("s.toml"), "x").locate(0..1);
        let bound = Bound { fail: Some(fail), warn, at: at.clone() };
        let waiver = floor.map(|value| Floor { value, at: &at, reason: "why" });
        let mut checks = Vec::new();
        let applied = Applied { bound: &bound, reason: None, waiver };
        check_metric(Metric::Cosine, value, &applied, "t, Q4_0", &mut checks);
        checks.iter().map(|check| (check.level, check.outcome)).collect()
    }

    #[test]
    fn bounds_and_floors() {
        use CheckOutcome::{Held, Violated, Waived};
        use Level::{Fail, Warn};
        for (value, warn, floor, expected, why) in [
            (0.95, None, None, vec![(Fail, Held)], "a bound is inclusive"),
            (0.94, None, None, vec![(Fail, Violated)], "below"),
            (f64::NAN, None, None, vec![(Fail, Violated)], "NaN passes nothing"),
            (f64::NAN, None, Some(0.0), vec![(Fail, Violated)], "not even a waiver"),
            (0.96, Some(0.99), None, vec![(Fail, Held), (Warn, Violated)], "a warning"),
            (0.90, None, Some(0.90), vec![(Fail, Waived)], "down to the floor"),
            (0.89, None, Some(0.90), vec![(Fail, Violated)], "not below it"),
        ] {
            assert_eq!(outcomes(value, 0.95, warn, floor), expected, "{why}");
        }
    }
}

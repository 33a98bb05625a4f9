/*!
Metric bounds against measured metrics.
*/

use super::check::{CheckOutcome, CheckRecord, Level, Number, Source};
use crate::metrics::{Direction, Metric, Metrics};
use crate::spec::{Effective, Judgement, Location, Origin, Pair};

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
    effective: &Effective,
    pair: &Pair,
    value: f64,
    subject: &str,
    checks: &mut Vec<CheckRecord>,
) {
    let metric = effective.metric;
    for (level, bound) in [(Level::Fail, effective.bound.fail), (Level::Warn, effective.bound.warn)]
    {
        let Some(bound) = bound else { continue };
        let holds = metric.holds(value, bound);
        checks.push(CheckRecord {
            check: metric.name().to_owned(),
            outcome: if holds { CheckOutcome::Held } else { CheckOutcome::Violated },
            level,
            value: Some(Number(value)),
            bound: Some(Number(bound)),
            message: message(metric, value, bound, subject),
            source: Some(Source::from(&effective.bound.at)),
            reason: reason(effective, pair),
            movement: None,
        });
    }
    if let Some(failing) = checks
        .iter_mut()
        .rev()
        .find(|check| check.level == Level::Fail && check.check == metric.name())
    {
        excuse(failing, effective, pair, value);
    }
}

/// Why the bound is what it is, if the rule that it comes from says so.
fn reason(effective: &Effective, pair: &Pair) -> Option<String> {
    match effective.origin {
        Origin::Threshold => None,
        Origin::Rule(index) => pair.rules.get(index)?.reason.clone(),
    }
}

/// A waiver lets a violation pass down to its floor; one that has expired says so.
fn excuse(check: &mut CheckRecord, effective: &Effective, pair: &Pair, value: f64) {
    if check.outcome != CheckOutcome::Violated {
        return;
    }
    let waiver = |index: usize| pair.waivers.get(index);
    if let Judgement::Waived(index) = effective.judge(value)
        && let (Some(waiver), Some((_, floor))) = (waiver(index), effective.waiver)
    {
        check.outcome = CheckOutcome::Waived;
        check.message =
            format!("{}; waived down to {floor} until {}", check.message, waiver.until.value);
        check.reason = Some(waiver.reason.clone());
        check.source = Some(Source::from(&waiver.at));
    } else if let Some(waiver) = effective.expired.and_then(waiver) {
        check.message = format!(
            "{}; the waiver at {} expired on {}",
            check.message, waiver.at, waiver.until.value
        );
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
    use crate::spec::{self, Date, LoadOptions};

    fn outcomes(value: f64, spec: &str) -> Vec<(Level, CheckOutcome)> {
        let text =
            format!("schema = 1\n[[pair]]\nname = 'p'\nreference = 'r'\nquantized = 'q'\n{spec}\n");
        let today = Date { year: 2026, month: 6, day: 1 };
        let options = LoadOptions { today, ..LoadOptions::default() };
        let path = Path::new("s.toml");
        let spec = spec::parse(text.as_bytes(), path, Path::new(""), &options).unwrap();
        let pair = &spec.pairs[0];
        let resolver = spec.resolver(pair).unwrap();
        let mut checks = Vec::new();
        let effective = resolver.bound_for(Metric::Cosine, "t").unwrap();
        check_metric(&effective, pair, value, "t, Q4_0", &mut checks);
        checks.iter().map(|check| (check.level, check.outcome)).collect()
    }

    #[test]
    fn bounds_and_floors() {
        use CheckOutcome::{Held, Violated, Waived};
        use Level::{Fail, Warn};
        let plain = "thresholds.tensor.cosine = 0.95";
        let both = "thresholds.tensor.cosine = { fail = 0.95, warn = 0.99 }";
        let waived = |until| {
            format!(
                "{plain}\n[[pair.waive]]\ntensors = 't'\ncosine = 0.90\nreason = 'x'\nuntil = {until}"
            )
        };
        let (live, dead) = (waived("2026-06-01"), waived("2026-05-31"));
        for (value, spec, expected, why) in [
            (0.95, plain, vec![(Fail, Held)], "a bound is inclusive"),
            (0.94, plain, vec![(Fail, Violated)], "below"),
            (f64::NAN, plain, vec![(Fail, Violated)], "NaN passes nothing"),
            (f64::NAN, &live, vec![(Fail, Violated)], "not even a waiver"),
            (0.96, both, vec![(Fail, Held), (Warn, Violated)], "a warning"),
            (0.90, &live, vec![(Fail, Waived)], "down to the floor, on the last day"),
            (0.89, &live, vec![(Fail, Violated)], "not below it"),
            (0.93, &dead, vec![(Fail, Violated)], "not after it"),
        ] {
            assert_eq!(outcomes(value, spec), expected, "{why}");
        }
    }
}

/*!
The table of judges, and the outcome of each: held, violated, or not judged with a reason.

No gate is silent: a tensor has one outcome of every gate of the table, or two where a spec gives a
bound for failing and one for warning.
*/

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::suspect::{Finding, NotJudged, Ruling, Suspect};
use super::{
    column, conversion, displaced, gain, offset, scales, sqnr, worst_block, worst_row, zero,
};
use crate::gate::check::{CheckOutcome, CheckRecord, Level, Number, Source};
use crate::spec::{ByDefault, Gate, Setting};

/// How much of a tensor a gate sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// Its sums: damage to a part must be large to move them.
    Whole,
    /// Parts that vanished, and nothing else.
    Vanished,
    /// Its rows, blocks or elements.
    Parts,
}

/// One gate: what it is called, how much it sees, who judges.
struct Judge {
    gate: Gate,
    sight: Sight,
    rule: fn(&Suspect, f64) -> Ruling,
}

/// Every gate that judges the values of a tensor, in the order of reports.
static JUDGES: [Judge; 10] = [
    Judge { gate: Gate::Conversion, sight: Sight::Parts, rule: conversion::judge },
    Judge { gate: Gate::Gain, sight: Sight::Whole, rule: gain::judge },
    Judge { gate: Gate::Offset, sight: Sight::Whole, rule: offset::judge },
    Judge { gate: Gate::SqnrExpected, sight: Sight::Whole, rule: sqnr::judge },
    Judge { gate: Gate::WorstRow, sight: Sight::Parts, rule: worst_row::judge },
    Judge { gate: Gate::WorstBlock, sight: Sight::Parts, rule: worst_block::judge },
    Judge { gate: Gate::Displaced, sight: Sight::Parts, rule: displaced::judge },
    Judge { gate: Gate::Scales, sight: Sight::Whole, rule: scales::judge },
    Judge { gate: Gate::Column, sight: Sight::Vanished, rule: column::judge },
    Judge { gate: Gate::Zero, sight: Sight::Vanished, rule: zero::judge },
];

/// What checks of the gates of this table are called.
const PREFIX: &str = "integrity.";

/// Check name of how far the gates could judge a tensor; there is none where they judged its parts.
pub const JUDGED: &str = "judged";

/// Why a gate of a tensor without elements, or with NaN or infinity, does not judge.
const EMPTY: &str = "the tensor holds no element";
const NONFINITE: &str = "the tensor holds NaN or infinite values";

/// Runs every gate; `setting` says what the spec says about it.
pub fn check_integrity<'s>(
    suspect: &Suspect,
    setting: impl Fn(Gate) -> Option<&'s Setting>,
    checks: &mut Vec<CheckRecord>,
) {
    for row in &JUDGES {
        let setting = setting(row.gate);
        for (level, bound) in levels(row.gate, setting) {
            let ruling = match setting {
                Some(Setting::Off { reason, .. }) => Err(NotJudged(format!("off: {reason}"))),
                _ if suspect.sums.n == 0 => Err(NotJudged::because(EMPTY)),
                _ if suspect.sums.nonfinite() > 0 => Err(NotJudged::because(NONFINITE)),
                None | Some(Setting::On { .. }) if suspect.is_converted() => Ok(Finding {
                    holds: true,
                    value: None,
                    message: conversion::EVERY_ELEMENT.to_owned(),
                }),
                _ => (row.rule)(suspect, bound),
            };
            checks.push(record(row.gate, setting, (level, bound), ruling, suspect.subject));
        }
    }
}

/// The bounds that a gate is held to, and how grave each is.
fn levels(gate: Gate, setting: Option<&Setting>) -> Vec<(Level, f64)> {
    match setting {
        Some(Setting::Bound(bound)) => [(Level::Fail, bound.fail), (Level::Warn, bound.warn)]
            .into_iter()
            .filter_map(|(level, bound)| Some((level, bound?)))
            .collect(),
        _ => match gate.by_default() {
            ByDefault::Warn(bound) => vec![(Level::Warn, bound)],
            ByDefault::Fail(bound) => vec![(Level::Fail, bound)],
            ByDefault::On => vec![(Level::Fail, 0.0)],
        },
    }
}

/// The outcome of a gate, as reports keep it.
fn record(
    gate: Gate,
    setting: Option<&Setting>,
    (level, bound): (Level, f64),
    ruling: Ruling,
    subject: &str,
) -> CheckRecord {
    let source = match setting {
        Some(Setting::Bound(bound)) => Some(Source::from(&bound.at)),
        Some(Setting::On { at } | Setting::Off { at, .. }) => Some(Source::from(at)),
        None => None,
    };
    let name = format!("{PREFIX}{gate}");
    let check = CheckRecord {
        bound: gate.least_bound().map(|_| Number(bound)),
        source,
        ..CheckRecord::fact(name, CheckOutcome::NotJudged, level, String::new())
    };
    match ruling {
        Ok(finding) => CheckRecord {
            outcome: CheckOutcome::of(finding.holds),
            value: finding.value.map(Number),
            message: format!("{} ({subject})", finding.message),
            ..check
        },
        Err(NotJudged(reason)) => CheckRecord {
            message: format!("{gate} is not judged: {reason} ({subject})"),
            reason: Some(reason),
            ..check
        },
    }
}

/// How far the gates on values could judge a tensor, from little to all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coverage {
    /// No gate on values judged it, for this reason.
    Nothing(String),
    /// Only its sums were judged, for this reason.
    WholeOnly(String),
    /// Its parts were judged.
    Parts,
    /// No gate was to judge it: its values are NaN, or there is none, or the spec switched gates off.
    Exempt,
}

/// How far the gates judged the tensor that these checks are about.
pub fn coverage(checks: &[CheckRecord]) -> Coverage {
    let outcome = |gate: Gate| {
        checks.iter().find(|check| check.check.strip_prefix(PREFIX) == Some(gate.name()))
    };
    let judged = |check: &CheckRecord| check.outcome != CheckOutcome::NotJudged;
    let (mut sums, mut parts, mut why) = (false, false, None);
    for row in &JUDGES {
        let Some(check) = outcome(row.gate) else { continue };
        match row.sight {
            Sight::Parts => parts |= judged(check),
            Sight::Whole | Sight::Vanished => sums |= judged(check),
        }
        let reason = check.reason.as_deref().filter(|_| !judged(check));
        if let Some(reason) = reason.filter(|_| row.sight == Sight::Parts || why.is_none()) {
            why = Some(reason);
        }
    }
    let exempt = |reason: &str| [EMPTY, NONFINITE].contains(&reason) || reason.starts_with("off: ");
    match (parts, sums, why) {
        (true, ..) => Coverage::Parts,
        (_, _, None) => Coverage::Exempt,
        (_, _, Some(reason)) if exempt(reason) => Coverage::Exempt,
        (_, true, Some(reason)) => Coverage::WholeOnly(reason.to_owned()),
        (_, false, Some(reason)) => Coverage::Nothing(reason.to_owned()),
    }
}

/// What has become of the gates, counted over tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateCounts {
    /// They hold.
    pub held: u64,
    /// They do not.
    pub violated: u64,
    /// They could not look, or the spec switched them off or waived them; each says why.
    pub not_judged: u64,
}

impl GateCounts {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.held += other.held;
        self.violated += other.violated;
        self.not_judged += other.not_judged;
    }
}

/// Counts the integrity gates among the checks of one test; one with two bounds counts once, as it
/// fared with the stricter.
pub fn gate_counts(checks: &[CheckRecord]) -> GateCounts {
    let mut counts = GateCounts::default();
    for gate in Gate::ALL {
        let is_of_gate = |check: &&CheckRecord| {
            check.check.strip_prefix(PREFIX).unwrap_or(&check.check) == gate.name()
        };
        let outcomes = || checks.iter().filter(is_of_gate).map(|check| check.outcome);
        if outcomes().any(|it| it == CheckOutcome::Violated) {
            counts.violated += 1;
        } else if outcomes().any(|it| it == CheckOutcome::Held) {
            counts.held += 1;
        } else if outcomes().next().is_some() {
            counts.not_judged += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, outcome: CheckOutcome, reason: Option<&str>) -> CheckRecord {
        CheckRecord {
            check: name.to_owned(),
            outcome,
            level: Level::Fail,
            value: None,
            bound: None,
            message: String::new(),
            source: None,
            reason: reason.map(str::to_owned),
            movement: None,
        }
    }

    #[test]
    fn coverage_is_what_the_finest_gate_saw() {
        use CheckOutcome::{Held, NotJudged, Violated};
        let gates = |gain, sqnr, row: (CheckOutcome, Option<&str>)| {
            vec![
                check("integrity.gain", gain, Some("g")),
                check("integrity.sqnr_expected", sqnr, Some("s")),
                check("integrity.worst_row", row.0, row.1),
            ]
        };
        let lost = || "why".to_owned();
        for (checks, expected, what) in [
            (gates(Held, Held, (Held, None)), Coverage::Parts, "all"),
            (gates(Held, NotJudged, (Violated, None)), Coverage::Parts, "violated is judged"),
            (gates(Held, NotJudged, (NotJudged, Some("why"))), Coverage::WholeOnly(lost()), "sums"),
            (
                gates(NotJudged, NotJudged, (NotJudged, Some("why"))),
                Coverage::Nothing(lost()),
                "nothing",
            ),
            (gates(NotJudged, NotJudged, (NotJudged, Some(EMPTY))), Coverage::Exempt, "empty"),
            (gates(NotJudged, NotJudged, (NotJudged, Some("off: x"))), Coverage::Exempt, "off"),
            (vec![check("exact", Held, None)], Coverage::Exempt, "integers"),
        ] {
            assert_eq!(coverage(&checks), expected, "{what}");
        }
    }

    #[test]
    fn gates_are_counted_once_and_metrics_are_none() {
        use CheckOutcome::{Held, NotJudged, Violated, Waived};
        let checks = [
            check("integrity.gain", Held, None),
            check("integrity.gain", Violated, None),
            check("integrity.offset", NotJudged, Some("why")),
            check("finite", Held, None),
            check("companion", Waived, None),
            check("cosine", Violated, None),
        ];
        assert_eq!(gate_counts(&checks), GateCounts { held: 1, violated: 1, not_judged: 2 });
    }
}

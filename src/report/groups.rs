/*!
Failures by what is behind them: one line for all tensors that share a cause, with their layers and roles read
from their names.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::failure::failure_kind;
use super::gravity::worst_first;
use super::located::{Located, last_part};
use super::place::{Place, place};
use super::text::one_line;
use crate::diagnose::Certainty;
use crate::suite::record::{Contract, TestKind};

/// Roles that a line names, and runs of layers of each.
const ROLES: usize = 3;
const RUNS: usize = 4;

/// Beginnings of the evidence that tell groups of one cause apart.
const CLAUSES: usize = 4;

/// Failures of one pair with one cause.
pub struct Group<'a> {
    /// The failures, the worst first.
    pub tests: Vec<Located<'a>>,
    /// The cause, or the kind of the failure where none is known.
    what: String,
    /// What they share of the cause's evidence.
    detail: Option<String>,
}

/// The failures of a run by pair and cause, the worst group first. What the evidence begins with (`factor 1.5`)
/// tells groups apart where a few beginnings cover all failures of a cause; else it says something about single
/// tensors.
pub fn groups(contract: &Contract) -> Vec<Group<'_>> {
    groups_of(worst_first(contract))
}

/// The same of some failures, the worst first.
fn groups_of(bad: Vec<Located<'_>>) -> Vec<Group<'_>> {
    let mut clauses: BTreeMap<(&str, String), BTreeMap<Option<String>, usize>> = BTreeMap::new();
    for located in &bad {
        let of_cause = clauses.entry((&located.pair.id, what(located))).or_default();
        *of_cause.entry(clause(located)).or_default() += 1;
    }
    let tells = |of_cause: &BTreeMap<Option<String>, usize>| {
        of_cause.len() <= CLAUSES && of_cause.iter().all(|(clause, n)| clause.is_some() && *n > 1)
    };
    let mut groups: Vec<Group> = Vec::new();
    for located in bad {
        let what = what(&located);
        let key = (located.pair.id.as_str(), what.clone());
        let detail = clauses.get(&key).filter(|it| tells(it)).and_then(|_| clause(&located));
        let same = |group: &&mut Group| {
            group.what == what
                && group.detail == detail
                && group.tests.first().is_some_and(|first| first.pair.id == located.pair.id)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.tests.push(located),
            None => groups.push(Group { tests: vec![located], what, detail }),
        }
    }
    groups
}

/// The cause as a word, or the kind of the failure.
fn what(located: &Located) -> String {
    let diagnosis = located.test.diagnosis.as_ref();
    diagnosis.map_or_else(|| failure_kind(located.test), |it| it.cause.to_string())
}

/// The first clause of the evidence.
fn clause(located: &Located) -> Option<String> {
    let evidence = &located.test.diagnosis.as_ref()?.evidence;
    let end = evidence.find([':', ';']).unwrap_or(evidence.len());
    Some(one_line(evidence.get(..end)?).into_owned())
}

/// The groups as lines; where failures of several pairs are told, each names its pair.
pub fn group_lines(contract: &Contract) -> Vec<String> {
    group_lines_of(worst_first(contract))
}

/// The same of some failures, the worst first.
pub fn group_lines_of(bad: Vec<Located<'_>>) -> Vec<String> {
    let groups = groups_of(bad);
    let pair = |group: &Group| group.tests.first().map(|first| first.pair.id.clone());
    let several = groups.windows(2).any(|two| pair(&two[0]) != pair(&two[1]));
    let line = |group: &Group| match pair(group).filter(|_| several) {
        Some(pair) => format!("{group} in {}", one_line(&pair)),
        None => group.to_string(),
    };
    groups.iter().map(line).collect()
}

impl fmt::Display for Group<'_> {
    /// `50 × scale-factor (blk.0–49.ffn_down, factor 1.5)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.tests.iter().map(|it| match it.test.kind {
            TestKind::Tensor => place(last_part(it.pair, it.test)),
            // `(structure)` and the like have no layer.
            _ => Place { stack: None, layer: 0, role: last_part(it.pair, it.test).to_owned() },
        });
        let sure = |it: &Located| {
            it.test.diagnosis.as_ref().is_none_or(|it| it.certainty == Certainty::Certain)
        };
        let probably = if self.tests.iter().all(sure) { "" } else { "probably " };
        let places = places(names);
        // `(global)` needs no parentheses of its own, and of a baseline there is but one.
        if let Some(part) = places.strip_prefix('(').and_then(|it| it.strip_suffix(')')) {
            let part = if part == self.what { String::new() } else { format!(" ({part})") };
            return write!(f, "{} × {probably}{}{part}", self.tests.len(), self.what);
        }
        write!(f, "{} × {probably}{} ({}", self.tests.len(), self.what, one_line(&places))?;
        if let Some(detail) = &self.detail {
            write!(f, ", {detail}")?;
        }
        f.write_str(")")
    }
}

/// `blk.0–49.ffn_down, blk.3.attn_q and 2 more`: roles in order of their names, layers as runs.
fn places(places: impl Iterator<Item = Place>) -> String {
    let mut roles: BTreeMap<(Option<String>, String), BTreeSet<u64>> = BTreeMap::new();
    for place in places {
        roles.entry((place.stack, place.role)).or_default().insert(place.layer);
    }
    let named = roles.iter().take(ROLES).map(|((stack, role), layers)| match stack {
        Some(stack) => format!("{stack}.{}.{role}", runs(layers)),
        None => role.clone(),
    });
    let named = named.collect::<Vec<_>>().join(", ");
    match roles.len().saturating_sub(ROLES) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// `0–49`, or `{0–3,7,9–12}`.
fn runs(layers: &BTreeSet<u64>) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &layer in layers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(layer) => *last = layer,
            _ => runs.push((layer, layer)),
        }
    }
    let shown = |(first, last): &(u64, u64)| {
        if first == last { first.to_string() } else { format!("{first}–{last}") }
    };
    let mut named: Vec<String> = runs.iter().take(RUNS).map(shown).collect();
    if runs.len() > RUNS {
        named.push("…".to_owned());
    }
    match named.as_slice() {
        [one] => one.clone(),
        several => format!("{{{}}}", several.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::suite::record::{Cause, Diagnosis};

    #[test]
    fn layers_are_runs() {
        for (layers, expected) in [
            (&[3][..], "3"),
            (&[0, 1, 2, 3], "0–3"),
            (&[0, 1, 3], "{0–1,3}"),
            (&[0, 2, 4, 6, 8], "{0,2,4,6,…}"),
            (&[u64::MAX - 1, u64::MAX], "18446744073709551614–18446744073709551615"),
        ] {
            assert_eq!(runs(&layers.iter().copied().collect()), expected);
        }
    }

    #[test]
    fn failures_are_grouped_by_cause_and_shared_evidence() {
        let failed = |name: &str, cause: Option<Diagnosis>| {
            let mut test =
                sample::judged(&format!("s::p::{name}"), vec![sample::check("cosine", 0.5, 0.9)]);
            test.diagnosis = cause;
            test
        };
        let factor = |by: f64| {
            Some(Diagnosis::certain(
                Cause::ScaleFactor,
                format!("factor {by}: divided by that, {by} dB"),
            ))
        };
        let mut tests: Vec<_> =
            (0..50).map(|n| failed(&format!("blk.{n}.ffn_down.weight"), factor(1.5))).collect();
        tests.extend((0..2).map(|n| failed(&format!("blk.{n}.attn_q.weight"), factor(2.0))));
        tests.extend((3..6).map(|n| {
            let evidence = format!("row {n} and row 9 changed places; put back, all is well");
            failed(
                &format!("blk.{n}.attn_k.weight"),
                Some(Diagnosis::likely(Cause::RopePermuted, evidence)),
            )
        }));
        tests.push(failed("output.weight", None));
        let pair = sample::pair("s", "p", Vec::new(), tests);
        let contract = sample::run(vec![sample::spec("s", vec![pair])]);
        let mut lines: Vec<String> = groups(&contract).iter().map(ToString::to_string).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "1 × threshold.cosine (output.weight)",
                "2 × scale-factor (blk.0–1.attn_q, factor 2)",
                "3 × probably rope-permuted (blk.3–5.attn_k)",
                "50 × scale-factor (blk.0–49.ffn_down, factor 1.5)",
            ]
        );
    }
}

/*!
Groups of tensors of which a fraction must hold the group's bounds.
*/

use super::check::{CheckOutcome, CheckRecord, Level, Number, Source};
use super::metrics::value_of;
use crate::metrics::Metrics;
use crate::spec::Resolver;

/// Names that a message lists.
const LISTED: usize = 3;

/// Checks every group of the pair; `members` are its measured float tensors, those that could not be
/// measured without metrics, which hold nothing.
pub fn check_groups<'n>(
    resolver: &Resolver,
    members: impl Iterator<Item = (&'n str, Option<Metrics>)>,
    checks: &mut Vec<CheckRecord>,
) {
    let groups = &resolver.pair().groups;
    if groups.is_empty() {
        return;
    }
    let mut counts = vec![(0u64, Vec::new()); groups.len()];
    for (name, metrics) in members {
        for (index, group) in resolver.tensor(name).groups() {
            let (count, beyond) = &mut counts[index];
            *count += 1;
            let value = |metric| metrics.as_ref().map_or(f64::NAN, |it| value_of(it, metric));
            if !group.holds(value) {
                beyond.push(name);
            }
        }
    }
    for (group, (count, beyond)) in groups.iter().zip(counts) {
        let held = count - beyond.len() as u64;
        // Of no tensors at all, no fraction holds anything.
        let fraction = held as f64 / count as f64;
        let least = group.min_pass_fraction.value;
        let holds = fraction >= least;
        let bounds: Vec<String> = group
            .bounds
            .iter()
            .filter_map(|(metric, bound)| Some(format!("{metric} {}", bound.fail?)))
            .collect();
        let more = if beyond.len() > LISTED { ", …" } else { "" };
        let names = beyond[..beyond.len().min(LISTED)].join(", ");
        let beyond = if names.is_empty() { names } else { format!(" (beyond: {names}{more})") };
        let bounds = bounds.join(", ");
        let message =
            format!("{held} of {count} tensors hold {bounds}, {least} of them must{beyond}");
        checks.push(CheckRecord {
            check: "group".to_owned(),
            outcome: if holds { CheckOutcome::Held } else { CheckOutcome::Violated },
            level: Level::Fail,
            value: Some(Number(fraction)),
            bound: Some(Number(least)),
            message,
            source: Some(Source::from(&group.at)),
            reason: group.reason.clone(),
            movement: None,
        });
    }
}

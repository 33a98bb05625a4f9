/*! What a checkpoint's configuration says about its quantization, against what is stored. */

use std::collections::BTreeMap;

use super::check::{CheckOutcome, CheckRecord, Level};
use super::contract::excuse;
use crate::model::Model;
use crate::model::configuration::{Code, Severity};
use crate::spec::{Gate, Setting};

/// Name patterns that a message lists.
const LISTED: usize = 3;

/// One check for each kind of contradiction, or one that there is none; none at all if no quantization
/// is configured.
pub fn check_config(model: &Model, setting: Option<&Setting>, checks: &mut Vec<CheckRecord>) {
    let Some(configuration) = &model.configuration else { return };
    let mut grouped: BTreeMap<(Code, Severity, &str), Vec<&str>> = BTreeMap::new();
    for finding in configuration {
        grouped
            .entry((finding.code, finding.severity, &finding.message))
            .or_default()
            .push(&finding.module);
    }
    let mut add = |outcome: CheckOutcome, level: Level, message: String| {
        let name = format!("integrity.{}", Gate::Config);
        let mut check = CheckRecord::fact(name, outcome, level, message);
        excuse(&mut check, setting);
        checks.push(check);
    };
    if grouped.is_empty() {
        let message = "the configuration agrees with what is stored";
        add(CheckOutcome::Held, Level::Fail, message.to_owned());
    }
    for ((code, severity, message), modules) in grouped {
        let level = match severity {
            Severity::Error => Level::Fail,
            Severity::Warning => Level::Warn,
        };
        let subject = subject(&modules);
        add(CheckOutcome::Violated, level, format!("{}: {subject}{message}", code.name()));
    }
}

/// The modules of a finding, those of all layers in one; ends so that the finding can follow.
fn subject(modules: &[&str]) -> String {
    let mut patterns: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for module in modules.iter().filter(|module| !module.is_empty()) {
        patterns.entry(pattern(module)).or_insert((0, module)).0 += 1;
    }
    let names: Vec<String> = patterns
        .iter()
        .take(LISTED)
        .map(|(pattern, (count, first))| match count {
            1 => (*first).to_owned(),
            _ => format!("{pattern} ({count} modules, first {first})"),
        })
        .collect();
    match (names.is_empty(), patterns.len().saturating_sub(LISTED)) {
        (true, _) => String::new(),
        (false, 0) => format!("{}: ", names.join(", ")),
        (false, more) => format!("{} and {more} more: ", names.join(", ")),
    }
}

/// A name with `*` for its numbers.
fn pattern(name: &str) -> String {
    let parts = name.split('.').map(|part| {
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) { "*" } else { part }
    });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_all_layers_are_one() {
        for (modules, expected) in [
            (&[""][..], ""),
            (&["lm_head"], "lm_head: "),
            (&["a.0.q", "a.1.q"], "a.*.q (2 modules, first a.0.q): "),
            (&["a", "b", "c", "d"], "a, b, c and 1 more: "),
        ] {
            assert_eq!(subject(modules), expected);
        }
    }
}

/*!
What does not hold: failures with everything that is known of them, warnings, waivers.
*/

use std::fmt::Write as _;

use super::markup::{State, code, esc, left_out};
use crate::diagnose::Certainty;
use crate::report::failure::{movement_text, place};
use crate::report::gravity::{excess, worst_first};
use crate::report::groups::group_lines;
use crate::report::located::{Located, is_bad, is_violated, last_part, tests};
use crate::report::numbers;
use crate::suite::record::{CheckOutcome, CheckRecord, Contract, Level, TestOutcome};

/// Causes that are listed before failures.
const GROUPS: usize = 20;

/// Failures that are told in full, and items of every other list.
const MOST: usize = 100;

/// The failures, the worst first; the first few are open.
pub fn failures(page: &mut String, contract: &Contract) {
    let bad = worst_first(contract);
    if bad.is_empty() {
        return;
    }
    let title = if bad.len() == 1 { "The failure" } else { "Failures, the worst first" };
    let _ =
        writeln!(page, "<section aria-labelledby=\"failures\"><h2 id=\"failures\">{title}</h2>");
    if bad.len() > 1 {
        let groups = group_lines(contract);
        page.push_str("<ul class=\"causes\">");
        for line in groups.iter().take(GROUPS) {
            let _ = writeln!(page, "<li>{}</li>", esc(line));
        }
        page.push_str("</ul>\n");
        left_out(page, groups.len().saturating_sub(GROUPS), "cause", "contract.json");
    }
    for (at, located) in bad.iter().take(MOST).enumerate() {
        entry(page, located, at < 5, is_violated);
    }
    left_out(page, bad.len().saturating_sub(MOST), "failure", "contract.json");
    page.push_str("</section>\n");
}

/// Warnings of tests that passed, and what waivers let pass.
pub fn warnings_and_waivers(page: &mut String, contract: &Contract) {
    let waived: fn(&CheckRecord) -> bool = |check| check.outcome == CheckOutcome::Waived;
    for (id, title, shown) in [
        ("warnings", "Warnings", is_violated as fn(&CheckRecord) -> bool),
        ("waived", "Waived", waived),
    ] {
        let found: Vec<Located> = tests(contract)
            .filter(|it| (id == "waived" || !is_bad(it.test)) && it.test.checks.iter().any(shown))
            .collect();
        if found.is_empty() {
            continue;
        }
        let _ = writeln!(page, "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{title}</h2>");
        for located in found.iter().take(MOST) {
            entry(page, located, false, shown);
        }
        left_out(page, found.len().saturating_sub(MOST), "test", "contract.json");
        page.push_str("</section>\n");
    }
}

/// One test, and those of its checks that `shown` picks.
fn entry(page: &mut String, located: &Located, open: bool, shown: fn(&CheckRecord) -> bool) {
    let (pair, test) = (located.pair, located.test);
    let state = State::of(test);
    let open = if open { " open=\"open\"" } else { "" };
    let _ = writeln!(
        page,
        "<details class=\"entry {}\"{open}><summary>{} <b>{}</b> <span class=\"of\">{}</span></summary>",
        state.class(),
        state.badge(),
        code(last_part(pair, test)),
        esc(&pair.id),
    );
    // A warning says nothing more where the failing bound of the same metric is violated, too.
    let failed = |it: &CheckRecord| is_violated(it) && it.level == Level::Fail;
    let said = |check: &CheckRecord| {
        check.level == Level::Warn
            && test.checks.iter().any(|it| failed(it) && it.check == check.check)
    };
    let shown = |check: &&CheckRecord| shown(check) && !said(check);
    let mut checks: Vec<&CheckRecord> = test.checks.iter().filter(shown).collect();
    checks.sort_by(|a, b| {
        let warning = |check: &CheckRecord| check.level == Level::Warn;
        warning(a).cmp(&warning(b)).then(excess(b).total_cmp(&excess(a)))
    });
    // A reason that no check gives; the others are the checks' own words.
    if let Some(reason) = &test.reason
        && test.outcome != TestOutcome::Passed
        && !checks.iter().any(|check| check.message == *reason)
    {
        let _ = writeln!(page, "<p class=\"what\">{}</p>", esc(reason));
    }
    for check in checks {
        described(page, check);
    }
    if let Some(diagnosis) = &test.diagnosis {
        let sure =
            if diagnosis.certainty == Certainty::Certain { "cause" } else { "probable cause" };
        let _ = writeln!(
            page,
            "<p class=\"what\"><b>{sure}</b> {}: {}</p>",
            code(&diagnosis.cause.to_string()),
            esc(&diagnosis.evidence)
        );
    }
    page.push_str("</details>\n");
}

/// A check: its words, then value, bound, place, reason and movement.
fn described(page: &mut String, check: &CheckRecord) {
    let warning = if check.level == Level::Warn { "<b>warning</b> " } else { "" };
    let _ = write!(page, "<p class=\"what\">{warning}{}</p><dl>", esc(&check.message));
    let mut fact = |name: &str, markup: &str| {
        let _ = write!(page, "<div><dt>{name}</dt><dd>{markup}</dd></div>");
    };
    match (check.value, check.bound) {
        (Some(value), Some(bound)) => {
            let (value, bound) = numbers::compared(&check.check, value.0, bound.0);
            fact(&esc(&check.check), &format!("<b>{value}</b>"));
            fact("bound", &bound);
        }
        (Some(value), None) => fact(&esc(&check.check), &numbers::metric(&check.check, value.0)),
        _ => fact("check", &esc(&check.check)),
    }
    if let Some(movement) = &check.movement {
        fact("baseline", &esc(&movement_text(&check.check, movement)));
    }
    if let Some(source) = &check.source {
        fact("written in", &code(&place(source)));
    }
    if let Some(reason) = &check.reason {
        fact("because", &esc(reason));
    }
    page.push_str("</dl>\n");
}

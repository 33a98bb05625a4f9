/*!
What does not hold: failures with everything that is known of them, warnings, waivers.
*/

use std::fmt::Write as _;

use super::markup::{State, code, esc, left_out};
use crate::diagnose::Certainty;
use crate::report::failure::{movement_text, place};
use crate::report::gravity::{excess, worst_check, worst_first};
use crate::report::located::{Located, is_bad, is_violated, last_part, pairs, tests};
use crate::report::numbers;
use crate::suite::record::{CheckOutcome, CheckRecord, Contract, Level, TestOutcome};

/// Failures up to which all of them are open: a row says the most important when it is closed.
const OPEN: usize = 2;

/// Failures that are told in full, and items of every other list.
const MOST: usize = 100;

/// The failures, the worst first.
pub fn failures(page: &mut String, contract: &Contract) {
    let bad = worst_first(contract);
    if bad.is_empty() {
        return;
    }
    let title = if bad.len() == 1 { "The failure" } else { "Failures, the worst first" };
    let _ =
        writeln!(page, "<section aria-labelledby=\"failures\"><h2 id=\"failures\">{title}</h2>");
    for located in bad.iter().take(MOST) {
        entry(page, contract, located, bad.len() <= OPEN, is_violated);
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
            entry(page, contract, located, false, shown);
        }
        left_out(page, found.len().saturating_sub(MOST), "test", "contract.json");
        page.push_str("</section>\n");
    }
}

/// One test, and those of its checks that `shown` picks.
fn entry(
    page: &mut String,
    contract: &Contract,
    located: &Located,
    open: bool,
    shown: fn(&CheckRecord) -> bool,
) {
    let (pair, test) = (located.pair, located.test);
    let of_several = pairs(contract).nth(1).map(|_| esc(&pair.id)).unwrap_or_default();
    let state = State::of(test);
    let open = if open { " open=\"open\"" } else { "" };
    let _ = writeln!(
        page,
        "<details class=\"entry {}\"{open}><summary>{}<span class=\"who\"><b>{}</b> <span \
         class=\"of\">{of_several}</span></span>{}</summary>",
        state.class(),
        state.badge(),
        code(last_part(pair, test)),
        gist(located, shown),
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

/// What a closed row says: value and expectation of the worst check, and the cause.
fn gist(located: &Located, shown: fn(&CheckRecord) -> bool) -> String {
    let (pair, test) = (located.pair, located.test);
    let worst = worst_check(test).or_else(|| test.checks.iter().find(|check| shown(check)));
    let name = last_part(pair, test);
    let row = pair.tensors.iter().find(|row| row.tensor == name);
    let said = worst.map(|check| &check.message).or(test.reason.as_ref());
    // The row's own name and type say nothing new.
    let who = row.map(|row| format!(" ({name}, {})", row.qtype)).unwrap_or_default();
    let said = said.map_or("", |said| said.strip_suffix(who.as_str()).unwrap_or(said));
    let mut gist = format!("<span class=\"says\">{}", esc(said));
    let told = worst.is_some_and(|check| check.check.ends_with("sqnr_expected"));
    let expected = row.filter(|row| !told && row.expected_sqnr_db.0.is_finite());
    if let Some((row, found)) = expected.and_then(|row| Some((row, row.metrics()?.sqnr_db))) {
        let (found, expected) = (numbers::db(found), numbers::db(row.expected_sqnr_db.0));
        let _ = write!(gist, " <span class=\"of\">SQNR {found}, {expected} expected</span>");
    }
    gist.push_str("</span>");
    if let Some(diagnosis) = &test.diagnosis {
        let sure = if diagnosis.certainty == Certainty::Certain { "" } else { "probably " };
        let (cause, evidence) = (esc(&diagnosis.cause.to_string()), esc(&diagnosis.evidence));
        let _ = write!(gist, "<span class=\"why\"><b>{sure}{cause}</b>: {evidence}</span>");
    }
    gist
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
            let (value, bound) = numbers::checked(&check.check, value.0, bound.0);
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

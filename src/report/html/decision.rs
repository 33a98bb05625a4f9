/*!
What a person decides by, above everything else: one card a pair.
*/

use std::fmt::Write as _;

use super::markup::{State, cut, esc, left_out};
use crate::report::decision::{Advice, Decision, decisions};
use crate::report::numbers;
use crate::suite::record::Contract;

/// Pairs that have a card; the table of pairs has them all.
const CARDS: usize = 8;

/// The decisions, those that need attention first.
pub fn decide(page: &mut String, contract: &Contract) {
    let all = decisions(contract);
    if all.is_empty() {
        return;
    }
    page.push_str("<section aria-labelledby=\"decision\"><h2 id=\"decision\">Decision</h2>\n");
    for decision in all.iter().take(CARDS) {
        card(page, decision);
    }
    left_out(page, all.len().saturating_sub(CARDS), "pair", "contract.json");
    page.push_str("</section>\n");
}

fn class(advice: Advice) -> &'static str {
    let state = match advice {
        Advice::Ship => State::Passed,
        Advice::ShipWarned | Advice::Review => State::Warned,
        Advice::Open => State::Ignored,
        Advice::DoNotShip => State::Failed,
        Advice::NotJudged => State::Error,
    };
    state.class()
}

fn card(page: &mut String, decision: &Decision) {
    let _ = writeln!(
        page,
        "<article class=\"decision {}\"><h3><b>{}</b> <a href=\"#pair-{}\"><code>{}</code></a>: {}.</h3>",
        class(decision.advice),
        decision.advice.words(),
        decision.number,
        cut(&decision.pair.id),
        cut(&decision.sentence),
    );
    if !decision.causes.is_empty() {
        page.push_str("<ul class=\"causes\">");
        for cause in &decision.causes {
            let _ = writeln!(page, "<li>{}</li>", esc(cause));
        }
        if decision.more_causes > 0 {
            let more = numbers::counted(decision.more_causes as u64, "cause");
            let _ = writeln!(page, "<li>{more} more</li>");
        }
        page.push_str("</ul>\n");
    }
    page.push_str("<dl>");
    for (name, words) in &decision.facts {
        let _ = write!(page, "<div><dt>{}</dt><dd>{}</dd></div>", esc(name), cut(words));
    }
    page.push_str("</dl></article>\n");
}

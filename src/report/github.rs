/*!
What GitHub Actions shows of a run: annotations on lines of the spec, and the job summary.
*/

use std::fmt::Write as _;

use super::issue::{Issue, Severity, issues};
use super::markdown::{self, Page};
use super::numbers;
use super::text::one_line;
use crate::suite::record::Contract;

/// GitHub shows ten annotations of a kind and step and drops the rest unseen: so many are told, and
/// one more says how many are left.
const MOST: usize = 9;

/// Rows of a table and items of a list in the summary.
const ROWS: usize = 200;

/// Workflow commands: failures, the worst first, then warnings, at most nine in all. `path` makes a
/// spec's path relative to the root of the checkout.
pub fn annotations(contract: &Contract, path: impl Fn(&str) -> String) -> Vec<String> {
    let all = issues(contract);
    let mut lines: Vec<String> = all.iter().take(MOST).map(|it| annotation(it, &path)).collect();
    if all.len() > MOST {
        let kind = all.get(MOST).map_or("error", kind);
        let more = numbers::count((all.len() - MOST) as u64);
        lines.push(format!(
            "::{kind} title=qualm::+{more} more: see the job summary or contract.json"
        ));
    }
    lines
}

fn kind(issue: &Issue) -> &'static str {
    if issue.severity == Severity::Warning { "warning" } else { "error" }
}

fn annotation(issue: &Issue, path: impl Fn(&str) -> String) -> String {
    let source = issue.source;
    format!(
        "::{} file={},line={},col={},title={}::{}",
        kind(issue),
        property(&path(&source.file)),
        source.line,
        source.column,
        property(&one_line(&issue.located.test.id)),
        data(&issue.lines().join("\n")),
    )
}

/// The value of a property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The message of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The job summary: Markdown of at most `limit` bytes.
pub fn summary(contract: &Contract, limit: usize) -> String {
    let mut page = Page::new(limit);
    markdown::verdict(&mut page, contract);
    markdown::decide(&mut page, contract);
    markdown::failures(&mut page, contract, ROWS);
    markdown::pair_table(&mut page, contract, ROWS);
    markdown::warnings_and_waivers(&mut page, contract, ROWS);
    markdown::notes(&mut page, contract, ROWS);
    let mut text = page.finish();
    let _ = writeln!(text);
    text
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn shown(contract: &Contract) -> Vec<String> {
        annotations(contract, str::to_owned)
    }

    #[test]
    fn the_worst_nine_and_how_many_more() {
        let contract = sample::contract();
        let lines = shown(&contract);
        assert_eq!(lines.len(), 10);
        assert!(lines[0].starts_with(
            "::error file=specs/minilm.toml,line=8,col=1,title=minilm%3A%3Agone%3A%3A(structure)::"
        ));
        let bad = contract.summary.failed + contract.summary.errors;
        assert!(
            lines[9].starts_with(&format!("::error title=qualm::+{} more", bad - 9)),
            "{}",
            lines[9]
        );
    }

    #[test]
    fn a_failure_stands_on_the_line_of_its_bound() {
        let mut contract = sample::contract();
        contract.specs.truncate(1);
        let lines = shown(&contract);
        let line = lines.iter().find(|line| line.contains("q4_0%3A%3Ablk.0.ffn_down")).unwrap();
        assert!(line.contains("file=specs/minilm.toml,line=12,col=10,"), "{line}");
        assert!(
            line.contains("::cosine 0.981200 < 0.990000 (blk.0.ffn_down.weight, Q4_0)%0A"),
            "{line}"
        );
    }

    #[test]
    fn no_name_breaks_out_of_its_command() {
        for name in sample::HOSTILE {
            let mut bad = sample::check("cosine", 0.7, 0.95);
            bad.message = format!("cosine 0.7 < 0.95 ({name})");
            let test = sample::judged(&format!("s::p::{name}"), vec![bad]);
            let pair = sample::pair("s", "p", Vec::new(), vec![test]);
            let lines = shown(&sample::run(vec![sample::spec("s", vec![pair])]));
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].contains(|c: char| c.is_control()), "{}", lines[0]);
            let title = lines[0].split("title=").nth(1).unwrap().split("::").next().unwrap();
            assert!(!title.contains([':', ',']), "{title}");
        }
    }

    #[test]
    fn the_summary_has_the_notes_of_a_pair() {
        let mut pair = sample::pair("s", "p", Vec::new(), Vec::new());
        pair.notes.push("reference: left out beside the model: pytorch_model.bin".to_owned());
        let text = summary(&sample::run(vec![sample::spec("s", vec![pair])]), 10_000);
        let notes = text.split("## Notes").nth(1).unwrap();
        assert!(notes.contains("left out beside the model: pytorch"), "{text}");
    }

    #[test]
    fn the_summary_keeps_its_limit() {
        let tests = (0..5000)
            .map(|n| {
                sample::judged(&format!("s::p::t{n}"), vec![sample::check("cosine", 0.5, 0.9)])
            })
            .collect();
        let pair = sample::pair("s", "p", Vec::new(), tests);
        let contract = sample::run(vec![sample::spec("s", vec![pair])]);
        let text = summary(&contract, 10_000);
        assert!(text.len() <= 10_000, "{}", text.len());
        assert!(
            text.starts_with("# ❌ qualm: FAILED\n") && text.contains("failures more"),
            "{text}"
        );
    }
}

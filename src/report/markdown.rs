/*!
A Markdown page with a size budget, and the parts that the contract report, the job summary and the
comparison share.
*/

use std::fmt::Write as _;

use super::decision::decisions;
use super::failure::{failure_lines, waiver_lines};
use super::gravity::worst_first;
use super::located::{Located, is_bad, pairs, tests};
use super::numbers;
use super::text::{code, one_line, prose};
use crate::suite::record::{
    BaselineStatus, CheckOutcome, Contract, PairRecord, TestOutcome, TestRecord, Verdict,
};

/// What the obligations are.
pub const OBLIGATIONS: &str = "CRUX-B-20 is the contract that qualm keeps: what a comparison of quantized weights \
     must report, and when it must fail. Each row is one of its rules, and what in this run shows that it held.";

/// Pairs that the decision tells all about; the table of pairs has them all.
const DECISIONS: usize = 8;

/// Bytes that are kept free for the lines that say what was left out.
const RESERVE: usize = 2048;

/// A page that does not grow beyond its limit: what no longer fits is counted instead.
#[derive(Debug)]
pub struct Page {
    text: String,
    limit: usize,
}

impl Page {
    /// An empty page of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { text: String::new(), limit: limit.saturating_sub(RESERVE) }
    }

    /// Adds a line if it fits.
    pub fn line(&mut self, line: &str) -> bool {
        let fits = self.text.len() + line.len() < self.limit;
        if fits {
            self.text.push_str(line);
            self.text.push('\n');
        }
        fits
    }

    /// Adds a heading with blank lines around it.
    pub fn heading(&mut self, level: usize, words: &str) {
        let marks = "#".repeat(level);
        self.line(&format!("\n{marks} {words}\n"));
    }

    /// Adds a table of at most `most` rows; `columns` are headings, those of numbers with a leading
    /// `>`. Says how many rows were left out and where they are.
    pub fn table(
        &mut self,
        columns: &[&str],
        rows: impl ExactSizeIterator<Item = Vec<String>>,
        most: usize,
    ) {
        let total = rows.len();
        let names: Vec<&str> = columns.iter().map(|name| name.trim_start_matches('>')).collect();
        let rules = columns.iter().map(|name| if name.starts_with('>') { "--:" } else { "---" });
        let rules: Vec<&str> = rules.collect();
        let mut shown = 0;
        if self.line(&format!("| {} |\n| {} |", names.join(" | "), rules.join(" | "))) {
            for row in rows.take(most) {
                let cells: Vec<String> = row.iter().map(|cell| bars_escaped(cell)).collect();
                if !self.line(&format!("| {} |", cells.join(" | "))) {
                    break;
                }
                shown += 1;
            }
        }
        self.left_out(total - shown, "row");
    }

    /// Says that something did not fit; says nothing if nothing is missing.
    pub fn left_out(&mut self, count: usize, noun: &str) {
        if count > 0 {
            let more = numbers::counted(count as u64, noun);
            self.note(&format!("\n*{more} more: see contract.json.*"));
        }
    }

    /// Adds a line that says what was left out; there is room for some of them.
    pub fn note(&mut self, line: &str) {
        if self.text.len() < self.limit + RESERVE / 2 {
            self.text.push_str(line);
            self.text.push('\n');
        }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// A bar ends a cell unless a backslash precedes it, also inside a code span.
fn bars_escaped(cell: &str) -> String {
    let mut safe = String::with_capacity(cell.len());
    let mut before = ' ';
    for c in cell.chars() {
        if c == '|' && before != '\\' {
            safe.push('\\');
        }
        safe.push(c);
        before = c;
    }
    safe
}

/// The verdict as a word, for headings.
pub fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "FAILED",
        Verdict::Error => "ERROR",
        Verdict::Pending => "baselines pending",
        Verdict::Sampled => "sampled",
    }
}

/// The mark that goes with a verdict.
fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "✅",
        Verdict::Failed => "❌",
        Verdict::Error => "💥",
        Verdict::Pending => "📸",
        Verdict::Sampled => "🎲",
    }
}

/// The mark of a pair: the worst outcome of its tests.
pub fn pair_mark(pair: &PairRecord) -> &'static str {
    let any = |outcome| pair.tests.iter().any(|test| test.outcome == outcome);
    if pair.error.is_some() || any(TestOutcome::Error) {
        "💥"
    } else if any(TestOutcome::Failed) {
        "❌"
    } else if any(TestOutcome::Passed) {
        "✅"
    } else {
        "⏭️"
    }
}

/// Heading and counts: what a reader in a hurry needs.
pub fn verdict(page: &mut Page, contract: &Contract) {
    page.line(&format!("# {} qualm: {}\n", mark(contract.verdict), verdict_word(contract.verdict)));
    page.line(&format!("{}; exit code {}.", summary(contract), contract.exit_code));
    if let Some(partition) = &contract.partition {
        page.line(&format!(
            "\nThis is shard {} of {} (`{}`) of a suite of {}.",
            partition.index,
            partition.total,
            one_line(&partition.mode),
            numbers::counted(partition.tests, "test")
        ));
    }
}

/// The counts of a run in one sentence, without a full stop.
pub fn summary(contract: &Contract) -> String {
    let summary = &contract.summary;
    let mut parts = vec![format!(
        "{} of {} passed",
        numbers::count(summary.passed),
        numbers::counted(summary.tests, "test")
    )];
    for (count, words) in [
        (summary.failed, "failed"),
        (summary.errors, "could not be judged"),
        (summary.ignored, "ignored"),
        (summary.warnings, "warned"),
        (summary.filtered_out, "filtered out"),
    ] {
        if count > 0 {
            parts.push(format!("{} {words}", numbers::count(count)));
        }
    }
    if summary.pending > 0 {
        parts.push(format!("{} pending", numbers::counted(summary.pending, "baseline")));
    }
    parts.push(numbers::gates(&summary.gates));
    parts.join(", ")
}

/// What a person decides by: per pair one sentence, its causes, and the facts.
pub fn decide(page: &mut Page, contract: &Contract) {
    let all = decisions(contract);
    if all.is_empty() {
        return;
    }
    page.heading(2, "Decision");
    for (at, decision) in all.iter().take(DECISIONS).enumerate() {
        if at > 0 {
            page.line("");
        }
        page.line(&format!(
            "{} **{}** {}: {}.\n",
            decision.advice.mark(),
            decision.advice.words(),
            code(&decision.pair.id),
            prose(&decision.sentence)
        ));
        for cause in &decision.causes {
            page.line(&format!("- {}", prose(cause)));
        }
        page.left_out(decision.more_causes, "cause");
        if !decision.causes.is_empty() {
            page.line("");
        }
        let facts = decision.facts.iter();
        let rows: Vec<_> = facts.map(|(name, words)| vec![prose(name), prose(words)]).collect();
        if !rows.is_empty() {
            page.table(&["", ""], rows.into_iter(), DECISIONS);
        }
    }
    page.left_out(all.len().saturating_sub(DECISIONS), "pair");
}

/// One row a pair.
pub fn pair_table(page: &mut Page, contract: &Contract, most: usize) {
    page.heading(2, "Pairs");
    let rows: Vec<Vec<String>> = pairs(contract).map(|(_, pair)| pair_row(pair)).collect();
    let columns = [
        "",
        "pair",
        ">passed",
        ">tensors",
        ">bits/weight",
        ">cosine",
        ">SQNR",
        ">RMSE",
        ">largest error",
        "baseline",
    ];
    page.table(&columns, rows.into_iter(), most);
}

fn pair_row(pair: &PairRecord) -> Vec<String> {
    let passed = pair.tests.iter().filter(|test| test.outcome == TestOutcome::Passed).count();
    let run = pair.tests.iter().filter(|test| test.outcome != TestOutcome::Ignored).count();
    let bits = pair.quantized.as_ref().map(|model| numbers::bits(model.bits_per_weight.0));
    // What is judged alone has no rows of a comparison.
    let tensors = match &pair.quantized {
        Some(model) if pair.alone => model.tensors,
        _ => pair.tensors.len() as u64,
    };
    let mut row = vec![
        pair_mark(pair).to_owned(),
        code(&pair.id),
        format!("{passed}/{run}"),
        numbers::count(tensors),
        bits.unwrap_or_default(),
    ];
    match &pair.global {
        Some(global) => {
            let sqnr = global.metrics().map_or(global.sqnr_db.0, |metrics| metrics.sqnr_db);
            row.extend([
                numbers::cosine(global.cosine.0),
                numbers::db(sqnr),
                numbers::magnitude(global.rmse.0),
                numbers::magnitude(global.max_abs.0),
            ]);
        }
        None => row.extend([const { String::new() }; 4]),
    }
    row.push(baseline_word(pair.baseline.status).to_owned());
    row
}

/// A baseline's state in a word.
pub fn baseline_word(status: BaselineStatus) -> &'static str {
    match status {
        BaselineStatus::Off => "off",
        BaselineStatus::New => "new",
        BaselineStatus::Held => "held",
        BaselineStatus::Better => "better",
        BaselineStatus::Changed => "changed",
    }
}

/// Failures with everything that is known of them, the worst first.
pub fn failures(page: &mut Page, contract: &Contract, most: usize) {
    let bad = worst_first(contract);
    if bad.is_empty() {
        return;
    }
    page.heading(2, if bad.len() == 1 { "Failure" } else { "Failures, the worst first" });
    let mut shown = 0;
    for located in bad.iter().take(most) {
        if !page.line(&entry(located.test, &failure_lines(located.test))) {
            break;
        }
        shown += 1;
    }
    page.left_out(bad.len() - shown, "failure");
}

/// Warnings of tests that passed, and what waivers let pass.
pub fn warnings_and_waivers(page: &mut Page, contract: &Contract, most: usize) {
    let warned = |it: &Located| !is_bad(it.test) && !failure_lines(it.test).is_empty();
    let waived =
        |it: &Located| it.test.checks.iter().any(|check| check.outcome == CheckOutcome::Waived);
    let warnings: Vec<Located> = tests(contract).filter(warned).collect();
    let waivers: Vec<Located> = tests(contract).filter(waived).collect();
    for (title, found, lines) in [
        ("Warnings", warnings, failure_lines as fn(&TestRecord) -> Vec<String>),
        ("Waived", waivers, waiver_lines),
    ] {
        if found.is_empty() {
            continue;
        }
        page.heading(2, title);
        let mut shown = 0;
        for located in found.iter().take(most) {
            if !page.line(&entry(located.test, &lines(located.test))) {
                break;
            }
            shown += 1;
        }
        page.left_out(found.len() - shown, "test");
    }
}

/// What is odd about models, or left out beside them, by pair.
pub fn notes(page: &mut Page, contract: &Contract, most: usize) {
    let pairs = pairs(contract).filter(|(_, pair)| !pair.notes.is_empty());
    let items: Vec<String> = pairs
        .flat_map(|(_, pair)| {
            pair.notes.iter().map(|note| format!("- **{}**: {}", code(&pair.id), prose(note)))
        })
        .collect();
    if items.is_empty() {
        return;
    }
    page.heading(2, "Notes");
    let shown = items.iter().take(most).take_while(|item| page.line(item)).count();
    page.left_out(items.len() - shown, "note");
}

/// A test as an item of a list, with one nested item a line.
fn entry(test: &TestRecord, lines: &[String]) -> String {
    let mut item = format!("- **{}**", code(&test.id));
    for line in lines {
        // Lines that explain the one above are indented by two blanks.
        let (indent, line) = match line.strip_prefix("  ") {
            Some(detail) => ("    ", prose(detail)),
            None => ("  ", code(line)),
        };
        let _ = write!(item, "\n{indent}- {line}");
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_its_limit_and_counts_what_is_left_out() {
        let limit = 4096;
        let mut page = Page::new(limit);
        let rows = (0..1000u64).map(|n| vec![code(&format!("tensor|{n}")), numbers::count(n)]);
        page.table(&["name", ">n"], rows.collect::<Vec<_>>().into_iter(), 500);
        let text = page.finish();
        assert!(text.len() <= limit, "{}", text.len());
        let rows = text.lines().filter(|line| line.starts_with("| `")).count();
        assert!(text.contains(&format!("*{} rows more", 1000 - rows)), "{text}");
        assert!(text.contains("| `tensor\\|0` | 0 |"));
    }

    #[test]
    fn at_most_so_many_rows() {
        let mut page = Page::new(1 << 20);
        let rows: Vec<Vec<String>> = (0..11).map(|n| vec![n.to_string()]).collect();
        page.table(&["n"], rows.into_iter(), 10);
        assert!(page.finish().ends_with("| 9 |\n\n*1 row more: see contract.json.*\n"));
    }
}

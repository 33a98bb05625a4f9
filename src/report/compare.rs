/*!
Two runs against each other: what fails anew, still, or no longer, what came and went, and which
tensors moved most.
*/

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use super::failure::cause_first;
use super::gravity::gravity;
use super::groups::group_lines_of;
use super::located::{Located, is_bad, pairs, tests};
use super::markdown::Page;
use super::numbers;
use super::text::{code, one_line, prose};
use crate::suite::id;
use crate::suite::record::{Contract, PairRecord, TestKind, TestOutcome};

/// Movements that are told, worse and better.
const MOVEMENTS: usize = 10;
/// Causes that are told of what fails anew.
const CAUSES: usize = 20;

/// What a size budget is worth at least.
pub const LEAST_BYTES: usize = 4096;

/// How a comparison is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For terminals.
    Text,
    /// For comments on merge requests.
    Markdown,
}

/// What has changed from one run to another.
#[derive(Debug, Default)]
pub struct Comparison<'a> {
    /// Bad now, and not before.
    pub newly_failing: Vec<Located<'a>>,
    /// Bad before and now.
    pub still_failing: Vec<Located<'a>>,
    /// Bad before, passed now.
    pub fixed: Vec<Located<'a>>,
    /// Ran before, ignored now.
    pub no_longer_run: Vec<Located<'a>>,
    /// Only in the new run, and not bad.
    pub added: Vec<Located<'a>>,
    /// Only in the old run.
    pub removed: Vec<Located<'a>>,
    /// Tensors and whole pairs whose error moved, the worst first.
    pub movements: Vec<Movement>,
}

/// How a tensor's error moved.
#[derive(Debug)]
pub struct Movement {
    /// `SPEC::PAIR::TENSOR` or `SPEC::PAIR::(global)`.
    pub id: String,
    /// SQNR in dB, before and now; NaN for what has none.
    pub sqnr: (f64, f64),
    /// Bits per weight, before and now.
    pub bits: (f64, f64),
}

impl Movement {
    /// dB lost; positive is worse.
    pub fn lost(&self) -> f64 {
        let (old, new) = self.sqnr;
        match (old.is_nan(), new.is_nan()) {
            (true, true) => 0.0,
            (false, true) => f64::INFINITY,
            (true, false) => f64::NEG_INFINITY,
            _ if old == new => 0.0,
            _ => old - new,
        }
    }
}

impl<'a> Comparison<'a> {
    /// Compares two runs, test by test and tensor by tensor.
    pub fn new(old: &'a Contract, new: &'a Contract) -> Self {
        let before: HashMap<&str, Located> =
            tests(old).map(|it| (it.test.id.as_str(), it)).collect();
        let now: HashMap<&str, Located> = tests(new).map(|it| (it.test.id.as_str(), it)).collect();
        let mut comparison = Self::default();
        for located in tests(new) {
            let list = match before.get(located.test.id.as_str()) {
                Some(old) => comparison.list_of(old, &located),
                None if is_bad(located.test) => Some(&mut comparison.newly_failing),
                None => Some(&mut comparison.added),
            };
            if let Some(list) = list {
                list.push(located);
            }
        }
        comparison.removed =
            tests(old).filter(|it| !now.contains_key(it.test.id.as_str())).collect();
        for list in [&mut comparison.newly_failing, &mut comparison.still_failing] {
            list.sort_by_cached_key(|it| gravity(it.test));
        }
        comparison.movements = movements(old, new);
        comparison
    }

    fn list_of(&mut self, old: &Located, new: &Located) -> Option<&mut Vec<Located<'a>>> {
        match (is_bad(old.test), is_bad(new.test), new.test.outcome) {
            (false, true, _) => Some(&mut self.newly_failing),
            (true, true, _) => Some(&mut self.still_failing),
            (true, false, TestOutcome::Passed) => Some(&mut self.fixed),
            (_, false, TestOutcome::Ignored) if old.test.outcome != TestOutcome::Ignored => {
                Some(&mut self.no_longer_run)
            }
            _ => None,
        }
    }

    /// Everything in one line.
    pub fn headline(&self) -> String {
        let parts = [
            (self.newly_failing.len(), "newly failing"),
            (self.still_failing.len(), "still failing"),
            (self.fixed.len(), "fixed"),
            (self.no_longer_run.len(), "no longer run"),
            (self.added.len(), "added"),
            (self.removed.len(), "removed"),
        ];
        let words = parts.map(|(count, words)| format!("{} {words}", numbers::count(count as u64)));
        words.join(", ")
    }

    /// The comparison in at most `limit` bytes; what does not fit is counted.
    pub fn render(&self, style: Style, limit: usize) -> String {
        let mut page = Page::new(limit.max(LEAST_BYTES));
        match style {
            Style::Text => page.line(&self.headline()),
            Style::Markdown => {
                let mark = if self.newly_failing.is_empty() { "✅" } else { "❌" };
                page.line(&format!("# {mark} qualm: {}", self.headline()))
            }
        };
        self.causes(&mut page, style);
        // What is told in full takes a part of the bytes; beyond it a test has its first line, which says the cause.
        let (full, first, name) =
            (limit / 2, Told { bytes: 0, lines: 1 }, Told { bytes: 0, lines: 0 });
        for (title, list, told) in [
            ("Newly failing", &self.newly_failing, Told { bytes: full, lines: 1 }),
            ("Still failing", &self.still_failing, first),
            ("Fixed", &self.fixed, name),
            ("No longer run", &self.no_longer_run, first),
            ("Removed", &self.removed, name),
            ("Added", &self.added, name),
        ] {
            section(&mut page, style, title, list, told);
        }
        self.moved(&mut page, style);
        page.finish()
    }

    /// What is behind the new failures.
    fn causes(&self, page: &mut Page, style: Style) {
        if self.newly_failing.len() < 2 {
            return;
        }
        let groups = group_lines_of(self.newly_failing.clone());
        heading(page, style, "Causes of what fails anew", groups.len());
        for line in groups.iter().take(CAUSES) {
            page.line(&match style {
                Style::Text => format!("  {line}"),
                Style::Markdown => format!("- {}", prose(line)),
            });
        }
        left_out(page, style, groups.len().saturating_sub(CAUSES), "cause");
    }

    fn moved(&self, page: &mut Page, style: Style) {
        let worse = self.movements.iter().take_while(|it| it.lost() > 0.0);
        let better = self.movements.iter().rev().take_while(|it| it.lost() < 0.0);
        for (title, moved) in [
            ("Worst movements", worse.collect::<Vec<_>>()),
            ("Best movements", better.collect::<Vec<_>>()),
        ] {
            if moved.is_empty() {
                continue;
            }
            heading(page, style, title, moved.len());
            let mut shown = 0;
            for movement in moved.iter().take(MOVEMENTS) {
                if !page.line(&movement_line(movement, style)) {
                    break;
                }
                shown += 1;
            }
            left_out(page, style, moved.len() - shown, "tensor");
        }
    }
}

/// Every tensor and every whole that both runs measured and that is not the same.
fn movements(old: &Contract, new: &Contract) -> Vec<Movement> {
    let before: HashMap<&str, &PairRecord> =
        pairs(old).map(|(_, pair)| (pair.id.as_str(), pair)).collect();
    let mut movements = Vec::new();
    for (_, pair) in pairs(new) {
        let Some(old) = before.get(pair.id.as_str()) else { continue };
        let (olds, news) = (values(old), values(pair));
        for (id, (sqnr, bits)) in news {
            let Some(&(old_sqnr, old_bits)) = olds.get(&id) else { continue };
            movements.push(Movement { id, sqnr: (old_sqnr, sqnr), bits: (old_bits, bits) });
        }
    }
    movements.retain(|movement| movement.lost() != 0.0);
    movements.sort_by(|a, b| b.lost().total_cmp(&a.lost()).then_with(|| a.id.cmp(&b.id)));
    movements
}

/// SQNR and bits per weight of a pair's tensors, and of the whole, by test.
fn values(pair: &PairRecord) -> BTreeMap<String, (f64, f64)> {
    let mut values: BTreeMap<String, (f64, f64)> = pair
        .tensors
        .iter()
        .filter(|row| row.sums.is_some() || row.error.is_some())
        .map(|row| {
            let sqnr = row.metrics().map_or(f64::NAN, |metrics| metrics.sqnr_db);
            (id::of_tensor(&pair.id, &row.tensor), (sqnr, row.bits_per_weight.0))
        })
        .collect();
    if let Some(global) = &pair.global {
        let sqnr = global.metrics().map_or(f64::NAN, |metrics| metrics.sqnr_db);
        values.insert(
            id::of(&pair.id, TestKind::Global, "(global)"),
            (sqnr, global.bits_per_weight.0),
        );
    }
    values
}

fn heading(page: &mut Page, style: Style, title: &str, count: usize) {
    match style {
        Style::Text => page.line(&format!("\n{title} ({count}):")),
        Style::Markdown => page.line(&format!("\n## {title} ({count})\n")),
    };
}

/// How much is told of the tests of a list.
#[derive(Clone, Copy)]
struct Told {
    /// Bytes for tests that are told in full.
    bytes: usize,
    /// Lines of each test after those.
    lines: usize,
}

/// One list.
fn section(page: &mut Page, style: Style, title: &str, list: &[Located], told: Told) {
    if list.is_empty() {
        return;
    }
    heading(page, style, title, list.len());
    let (mut shown, mut room) = (0, told.bytes);
    for located in list {
        let full = entry(located, style, usize::MAX);
        room = room.saturating_sub(full.len());
        let shortened = || entry(located, style, told.lines);
        if !page.line(&if room > 0 { full } else { shortened() }) {
            break;
        }
        shown += 1;
    }
    left_out(page, style, list.len() - shown, "test");
}

fn entry(located: &Located, style: Style, told: usize) -> String {
    let test = located.test;
    let mut lines = cause_first(test);
    if lines.is_empty() {
        lines.extend(test.reason.clone());
    }
    lines.truncate(told);
    let mut entry = match style {
        Style::Text => format!("  {}", one_line(&test.id)),
        Style::Markdown => format!("- {}", code(&test.id)),
    };
    for line in lines {
        let _ = match style {
            Style::Text => write!(entry, "\n    {}", one_line(&line)),
            Style::Markdown => write!(entry, "\n  - {}", prose(line.trim_start())),
        };
    }
    entry
}

fn movement_line(movement: &Movement, style: Style) -> String {
    let (old, new) = movement.sqnr;
    let moved = match movement.lost() {
        lost if lost.is_finite() => format!(" ({:+.2} dB)", -lost),
        _ => String::new(),
    };
    let (before, now) = movement.bits;
    let bits = if before == now || before.is_nan() && now.is_nan() {
        String::new()
    } else {
        format!(", {} to {} bits per weight", numbers::bits(before), numbers::bits(now))
    };
    let words = format!("SQNR {} to {}{moved}{bits}", numbers::db(old), numbers::db(new));
    match style {
        Style::Text => format!("  {}: {words}", one_line(&movement.id)),
        Style::Markdown => format!("- {}: {words}", code(&movement.id)),
    }
}

fn left_out(page: &mut Page, style: Style, count: usize, noun: &str) {
    if count > 0 {
        let more = numbers::counted(count as u64, noun);
        page.note(&match style {
            Style::Text => format!("  … and {more} more"),
            Style::Markdown => format!("\n*{more} more.*"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, check, judged};
    use super::*;
    use crate::suite::record::{Cause, Diagnosis, TestRecord};

    fn run(tests: Vec<TestRecord>, errors: &[(&str, f32)]) -> Contract {
        let rows =
            errors.iter().map(|(name, error)| sample::row(name, "Q4_0", 64, *error)).collect();
        sample::run(vec![sample::spec("s", vec![sample::pair("s", "p", rows, tests)])])
    }

    fn test(name: &str, cosine: f64) -> TestRecord {
        judged(&format!("s::p::{name}"), vec![check("cosine", cosine, 0.9)])
    }

    fn ignored(name: &str) -> TestRecord {
        sample::test(&format!("s::p::{name}"), TestOutcome::Ignored)
    }

    #[test]
    fn every_test_is_in_the_list_it_belongs_to() {
        let (good, bad) = (0.95, 0.5);
        let old = run(
            vec![
                test("a", good),
                test("b", bad),
                test("c", bad),
                test("d", good),
                test("e", bad),
                test("f", good),
                test("k", good),
            ],
            &[],
        );
        let new = run(
            vec![
                test("a", bad),
                test("b", bad),
                test("c", good),
                test("g", bad),
                test("h", good),
                ignored("e"),
                ignored("f"),
                test("k", good),
            ],
            &[],
        );
        let comparison = Comparison::new(&old, &new);
        let names = |list: &[Located]| -> Vec<String> {
            list.iter().map(|it| it.test.id.rsplit("::").next().unwrap().to_owned()).collect()
        };
        for (list, expected) in [
            (&comparison.newly_failing, &["a", "g"][..]),
            (&comparison.still_failing, &["b"]),
            (&comparison.fixed, &["c"]),
            (&comparison.no_longer_run, &["e", "f"]),
            (&comparison.added, &["h"]),
            (&comparison.removed, &["d"]),
        ] {
            assert_eq!(names(list), expected);
        }
        assert_eq!(
            comparison.headline(),
            "2 newly failing, 1 still failing, 1 fixed, 2 no longer run, 1 added, 1 removed"
        );
    }

    #[test]
    fn movements_are_sorted_by_what_was_lost() {
        let old = run(Vec::new(), &[("a", 0.1), ("b", 0.1), ("c", 0.1), ("d", 0.0)]);
        let mut new = run(Vec::new(), &[("a", 0.2), ("b", 0.1), ("c", 0.05), ("d", 0.1)]);
        new.specs[0].pairs[0].global = None;
        let comparison = Comparison::new(&old, &new);
        let ids: Vec<&str> = comparison.movements.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["s::p::d", "s::p::a", "s::p::c"], "exact before, worse, better");
        let text = comparison.render(Style::Text, 1 << 16);
        assert!(text.contains("Worst movements (2):\n  s::p::d: SQNR ∞ to "), "{text}");
        assert!(text.contains("Best movements (1):\n  s::p::c: SQNR "), "{text}");
    }

    #[test]
    fn two_equal_runs_have_nothing_to_say() {
        let contract = sample::contract();
        let comparison = Comparison::new(&contract, &contract);
        assert!(comparison.newly_failing.is_empty() && comparison.movements.is_empty());
        assert_eq!(
            comparison.still_failing.len() as u64,
            contract.summary.failed + contract.summary.errors
        );
    }

    #[test]
    fn causes_come_first_and_a_failure_is_told_in_full_while_there_is_room() {
        let many = |n: usize, cosine: f64| {
            let mut bad = test(&format!("blk.{n}.ffn_down.weight"), cosine);
            if cosine < 0.9 {
                let factor = "factor 2: divided by that, all is well".to_owned();
                bad.diagnosis = Some(Diagnosis::certain(Cause::ScaleFactor, factor));
                bad.checks.extend((1..6).map(|n| check("rmse", f64::from(n), 0.5)));
            }
            bad
        };
        let old = run((0..40).map(|n| many(n, 0.95)).collect(), &[]);
        let new = run((0..40).map(|n| many(n, 0.5)).collect(), &[]);
        let comparison = Comparison::new(&old, &new);
        for style in [Style::Text, Style::Markdown] {
            let text = comparison.render(style, 1 << 16);
            let cause = text.find("40 × scale-factor (blk.0–39.ffn").expect("the group");
            assert!(cause < text.find("Newly failing").unwrap(), "{text}");
            assert_eq!(text.matches("rmse 5 against 0.5").count(), 40, "every line of all: {text}");
            let text = comparison.render(style, 14_000);
            assert!(text.len() <= 14_000);
            assert!((1..40).contains(&text.matches("rmse 5 against 0.5").count()), "{text}");
            assert_eq!(
                text.matches("cause: scale-factor").count(),
                40,
                "the cause of each: {text}"
            );
        }
    }

    #[test]
    fn the_budget_is_kept_and_the_headline_is_first() {
        let tests = |cosine: f64| (0..3000).map(|n| test(&format!("t{n}"), cosine)).collect();
        let (old, new) = (run(tests(0.95), &[]), run(tests(0.5), &[]));
        let comparison = Comparison::new(&old, &new);
        for (style, first) in
            [(Style::Text, "3,000 newly"), (Style::Markdown, "# ❌ qualm: 3,000 newly")]
        {
            let text = comparison.render(style, 8000);
            assert!(text.len() <= 8000 && text.starts_with(first), "{}", text.len());
            assert!(text.contains(" tests more"), "{text}");
        }
    }
}

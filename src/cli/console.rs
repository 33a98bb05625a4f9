/*!
The run on standard output, in libtest's words: pretty, terse, and JSON events.
*/

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Instant;

use serde_json::json;

use super::run_args::Format;
use super::section::{Section, Told};
use super::streams::{self, Out};
use crate::report;
use crate::shown::one_line;
use crate::spec::{Granularity, Location};
use crate::suite::Listener;
use crate::suite::plan::{Plan, PlannedPair, PlannedTest};
use crate::suite::record::{
    Contract, GateCounts, PairRecord, Summary, TestKind, TestOutcome, TestRecord,
};

/// Tests that a line of terse output holds, as libtest's.
const TERSE_WIDTH: u64 = 88;

/// Prints the events of a run.
pub struct Console {
    out: Out,
    format: Format,
    color: bool,
    /// Print what passing tests found, too.
    pub show_output: bool,
    /// Print every failure, however many there are.
    pub verbose: bool,
    /// Name so many pairs that took longest.
    pub slowest: usize,
    /// Pairs that count as one test.
    whole: HashSet<String>,
    /// Whether the pair whose turn it is does.
    is_whole: bool,
    begun: Instant,
    /// Seconds of each pair.
    took: Vec<(f64, String)>,
    tests: u64,
    done: u64,
    /// Marks on the current line of terse output.
    column: u64,
    /// The first write that failed; printed events are not worth stopping the run for.
    failed: Option<io::Error>,
}

impl Console {
    /// Prints to standard output.
    pub fn new(format: Format, color: bool) -> Self {
        let out = match format {
            Format::Json => streams::json(),
            _ => streams::colored(color),
        };
        Self {
            out,
            format,
            color,
            show_output: false,
            verbose: false,
            slowest: 0,
            whole: HashSet::new(),
            is_whole: false,
            begun: Instant::now(),
            took: Vec::new(),
            tests: 0,
            done: 0,
            column: 0,
            failed: None,
        }
    }

    /// Standard output for commands to the system that reads it.
    pub fn commands(&mut self) -> io::Result<&mut impl Write> {
        self.out.itself()
    }

    /// The run begins.
    pub fn begin(&mut self, tests: u64) {
        self.tests = tests;
        match self.format {
            Format::Json => {
                self.event(&json!({"type": "suite", "event": "started", "test_count": tests}));
            }
            Format::Junit => {}
            Format::Pretty | Format::Terse => {
                let plural = if tests == 1 { "" } else { "s" };
                self.print(format_args!("\nrunning {tests} test{plural}\n"));
            }
        }
    }

    /// The run is over.
    pub fn end(&mut self, contract: &Contract, seconds: f64) -> io::Result<()> {
        let summary = self.summary(contract);
        let bad = summary.failed + summary.errors;
        if self.format == Format::Junit {
            let junit = report::by_name("junit")
                .map(|junit| junit.render(contract, &report::Options::default()))
                .transpose()
                .map_err(io::Error::other)?;
            self.out.write_all(&junit.map(|it| it.bytes).unwrap_or_default())?;
        } else if self.format == Format::Json {
            self.event(&json!({
                "type": "suite",
                "event": if bad == 0 { "ok" } else { "failed" },
                "passed": summary.passed,
                "failed": bad,
                "ignored": summary.ignored,
                "measured": 0,
                "filtered_out": summary.filtered_out,
                "exec_time": seconds,
            }));
        } else {
            self.close(contract, summary, seconds);
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.out.flush()
    }

    /// Counts of what counts as a test here.
    fn summary(&self, contract: &Contract) -> Summary {
        let mut summary =
            Summary { filtered_out: contract.summary.filtered_out, ..Summary::default() };
        let mut count = |outcome| match outcome {
            TestOutcome::Passed => summary.passed += 1,
            TestOutcome::Ignored => summary.ignored += 1,
            TestOutcome::Failed | TestOutcome::Error => summary.failed += 1,
        };
        for pair in contract.specs.iter().flat_map(|spec| &spec.pairs) {
            if self.whole.contains(&pair.id) {
                count(as_test(pair).outcome);
            } else {
                pair.tests.iter().for_each(|test| count(test.outcome));
            }
        }
        summary
    }

    fn close(&mut self, contract: &Contract, summary: Summary, seconds: f64) {
        if self.show_output {
            self.section("successes", contract, &|test| test.outcome == TestOutcome::Passed);
        }
        // What passed with a warning is told whether or not passing tests are.
        let warned = |test: &TestRecord| {
            test.outcome == TestOutcome::Passed && !report::failure_lines(test).is_empty()
        };
        self.section("warnings", contract, &warned);
        self.notes(contract);
        self.failures(contract);
        self.name_slowest();
        let failed = summary.failed + summary.errors;
        let (word, style) = if failed == 0 { ("ok", "32") } else { ("FAILED", "31") };
        let word = self.paint(word, style);
        let gates = &contract.summary.gates;
        if *gates != GateCounts::default() {
            self.print(format_args!("\n{}", report::numbers::gates(gates)));
        }
        self.print(format_args!(
            "\ntest result: {word}. {} passed; {failed} failed; {} ignored; 0 measured; {} filtered \
             out; finished in {seconds:.2}s\n\n",
            summary.passed, summary.ignored, summary.filtered_out
        ));
    }

    /// What is odd about models, or left out beside them, by pair.
    fn notes(&mut self, contract: &Contract) {
        let pairs = contract.specs.iter().flat_map(|spec| &spec.pairs);
        let notes = pairs.flat_map(|pair| pair.notes.iter().map(|note| (pair.id.as_str(), note)));
        for (at, (id, note)) in notes.enumerate() {
            if at == 0 {
                self.print(format_args!("\nnotes:\n"));
            }
            self.print(format_args!("    {}: {}\n", one_line(id), one_line(note)));
        }
    }

    /// `--slowest N`.
    fn name_slowest(&mut self) {
        let mut took = std::mem::take(&mut self.took);
        took.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        if self.slowest > 0 && !took.is_empty() {
            self.print(format_args!("\nslowest pairs:\n"));
        }
        for (seconds, id) in took.iter().take(self.slowest) {
            self.print(format_args!("    {seconds:8.2}s {}\n", one_line(id)));
        }
    }

    /// The details of each test, and once more the names of what counts as one.
    fn section(&mut self, title: &str, contract: &Contract, belongs: &dyn Fn(&TestRecord) -> bool) {
        let told = self.told(contract, belongs);
        if !told.is_empty() {
            self.print_section(title, &Section::new(&told, Vec::new()));
        }
    }

    /// `failures:`, the worst first below what is behind them; without `--verbose` no longer than a screen
    /// or two.
    fn failures(&mut self, contract: &Contract) {
        let mut told = self.told(contract, &|test| is_bad(test.outcome));
        if told.is_empty() {
            return;
        }
        told.sort_by_cached_key(|(_, test)| report::gravity(test));
        let groups = if told.len() > 1 { report::group_lines(contract) } else { Vec::new() };
        let section = Section::new(&told, groups);
        let section = if self.verbose { section } else { section.shortened() };
        self.print_section("failures", &section);
    }

    /// The tests that belong to a section, each with the name of what counts as one.
    fn told<'c>(&self, contract: &'c Contract, belongs: &dyn Fn(&TestRecord) -> bool) -> Told<'c> {
        let mut told = Told::new();
        for pair in contract.specs.iter().flat_map(|spec| &spec.pairs) {
            let of_pair = pair.tests.iter().filter(|test| belongs(test));
            if !self.whole.contains(&pair.id) {
                told.extend(of_pair.map(|test| (test.id.as_str(), test)));
                continue;
            }
            // A pair that failed is no success for those of its tests that passed.
            let of_pair: Vec<&TestRecord> = of_pair.collect();
            let alike = |test: &&TestRecord| is_bad(test.outcome) == is_bad(as_test(pair).outcome);
            if of_pair.first().is_some_and(alike) {
                told.extend(of_pair.into_iter().map(|test| (pair.id.as_str(), test)));
            }
        }
        told
    }

    fn print_section(&mut self, title: &str, section: &Section) {
        self.print(format_args!("\n{title}:\n\n"));
        for group in &section.groups {
            self.print(format_args!("    {group}\n"));
        }
        if !section.groups.is_empty() {
            self.print(format_args!("\n"));
        }
        for line in section.blocks.iter().flatten() {
            self.print(format_args!("{line}\n"));
        }
        self.print(format_args!("\n{title}:\n"));
        for name in &section.names {
            self.print(format_args!("    {name}\n"));
        }
    }

    fn pretty(&mut self, test: &TestRecord) {
        let id = one_line(&test.id);
        let (word, style) = word(test);
        let word = self.paint(word, style);
        match (&test.reason, test.outcome) {
            (Some(reason), TestOutcome::Ignored) => {
                self.print(format_args!("test {id} ... {word}, {}\n", one_line(reason)));
            }
            _ => self.print(format_args!("test {id} ... {word}\n")),
        }
    }

    /// A mark a test; a failing one has a line of its own.
    fn terse(&mut self, test: &TestRecord) {
        let tests = self.tests;
        if matches!(test.outcome, TestOutcome::Failed | TestOutcome::Error) {
            if self.column > 0 {
                let before = self.done - 1;
                self.print(format_args!(" {before}/{tests}\n"));
                self.column = 0;
            }
            let word = self.paint("FAILED", "31");
            self.print(format_args!("{} --- {word}\n", one_line(&test.id)));
            return;
        }
        let ignored = test.outcome == TestOutcome::Ignored;
        let mark = if ignored { self.paint("i", "33") } else { self.paint(".", "32") };
        self.print(format_args!("{mark}"));
        self.column += 1;
        if self.column == TERSE_WIDTH {
            let done = self.done;
            self.print(format_args!(" {done}/{tests}\n"));
            self.column = 0;
        }
    }

    fn json(&mut self, test: &TestRecord) {
        self.event(&json!({"type": "test", "event": "started", "name": test.id}));
        let event = match test.outcome {
            TestOutcome::Passed => "ok",
            TestOutcome::Ignored => "ignored",
            TestOutcome::Failed | TestOutcome::Error => "failed",
        };
        let mut line = json!({"type": "test", "name": test.id, "event": event});
        match (&test.reason, test.outcome) {
            (Some(reason), TestOutcome::Ignored) => line["message"] = json!(reason),
            (_, TestOutcome::Failed | TestOutcome::Error) => {
                line["stdout"] = json!(report::failure_lines(test).join("\n") + "\n");
            }
            _ => {}
        }
        self.event(&line);
    }

    fn event(&mut self, event: &serde_json::Value) {
        self.print(format_args!("{event}\n"));
    }

    fn paint(&self, text: &str, style: &str) -> String {
        if self.color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn print(&mut self, text: std::fmt::Arguments) {
        if let Err(error) = self.out.write_fmt(text) {
            self.failed.get_or_insert(error);
        }
    }
}

/// A pair as one test: it is as bad as the worst of its tests, and ignored if all of them are.
pub fn as_test(pair: &PairRecord) -> TestRecord {
    let rank = |test: &&TestRecord| match test.outcome {
        TestOutcome::Error => 3,
        TestOutcome::Failed => 2,
        TestOutcome::Passed => 1,
        TestOutcome::Ignored => 0,
    };
    // Of equals the first: its reason is the headline.
    let worst = pair.tests.iter().rev().max_by_key(rank);
    TestRecord {
        id: pair.id.clone(),
        kind: TestKind::Structure,
        outcome: worst.map_or(TestOutcome::Ignored, |test| test.outcome),
        reason: worst.and_then(|test| test.reason.clone()),
        checks: Vec::new(),
        settled: None,
        diagnosis: worst.and_then(|test| test.diagnosis.clone()),
    }
}

impl Listener for Console {
    fn pair(&mut self, pair: &PlannedPair) {
        self.is_whole = pair.granularity == Granularity::Pair;
        if self.is_whole {
            self.whole.insert(pair.id.clone());
        }
        self.begun = Instant::now();
    }

    fn test(&mut self, test: &TestRecord) {
        if !self.is_whole {
            self.done_with(test);
        }
    }

    fn pair_done(&mut self, pair: &PairRecord) {
        self.took.push((self.begun.elapsed().as_secs_f64(), pair.id.clone()));
        if self.is_whole {
            self.done_with(&as_test(pair));
        }
    }
}

impl Console {
    fn done_with(&mut self, test: &TestRecord) {
        self.done += 1;
        match self.format {
            Format::Pretty => self.pretty(test),
            Format::Terse => self.terse(test),
            Format::Json => self.json(test),
            Format::Junit => {}
        }
    }
}

/// `--list`: one test a line, as cargo-nextest reads it, or an event a test.
pub fn list(out: &mut impl Write, plan: &Plan, format: Format) -> io::Result<()> {
    let mut entries: Vec<Entry> = Vec::new();
    for pair in plan.pairs_here() {
        let at = &pair.pair.at;
        if pair.granularity == Granularity::Pair {
            let (id, ignored) = (&pair.id, pair.ignored.is_some());
            let why = pair.pair.ignore.as_deref().unwrap_or_default();
            entries.push(Entry { id, ignored, why, at });
        } else {
            entries.extend(pair.tests_here().map(|test| Entry::of(test, at)));
        }
    }
    if format == Format::Json {
        return list_json(out, &entries);
    }
    for entry in &entries {
        out.write_all(one_line(entry.id).as_bytes())?;
        out.write_all(b": test\n")?;
    }
    if format == Format::Pretty {
        let plural = if entries.len() == 1 { "" } else { "s" };
        if !entries.is_empty() {
            writeln!(out)?;
        }
        writeln!(out, "{} test{plural}, 0 benchmarks", entries.len())?;
    }
    Ok(())
}

/// A test in a list.
struct Entry<'a> {
    id: &'a str,
    ignored: bool,
    /// Why it is ignored, unless it is asked for.
    why: &'a str,
    at: &'a Location,
}

impl<'a> Entry<'a> {
    fn of(test: &'a PlannedTest, at: &'a Location) -> Self {
        let why = test.ignored.as_deref().unwrap_or_default();
        Self { id: &test.id, ignored: test.ignored.is_some(), why, at }
    }
}

/// The events of libtest's discovery.
fn list_json(out: &mut impl Write, entries: &[Entry]) -> io::Result<()> {
    writeln!(out, "{}", json!({"type": "suite", "event": "discovery"}))?;
    for Entry { id, ignored, why, at } in entries {
        let event = json!({
            "type": "test",
            "event": "discovered",
            "name": id,
            "ignore": ignored,
            "ignore_message": why,
            "source_path": at.file.to_string_lossy(),
            "start_line": at.line,
            "start_col": at.column,
            "end_line": at.line,
            "end_col": at.column + (at.end - at.start),
        });
        writeln!(out, "{event}")?;
    }
    let event = json!({
        "type": "suite",
        "event": "completed",
        "tests": entries.len(),
        "benchmarks": 0,
        "total": entries.len(),
        "ignored": entries.iter().filter(|entry| entry.ignored).count(),
    });
    writeln!(out, "{event}")
}

fn is_bad(outcome: TestOutcome) -> bool {
    matches!(outcome, TestOutcome::Failed | TestOutcome::Error)
}

fn word(test: &TestRecord) -> (&'static str, &'static str) {
    match test.outcome {
        TestOutcome::Passed => ("ok", "32"),
        TestOutcome::Ignored => ("ignored", "33"),
        TestOutcome::Failed | TestOutcome::Error => ("FAILED", "31"),
    }
}

/// What is printed beside the events of the run.
impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

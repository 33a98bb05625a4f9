/*!
The run on standard output, in libtest's words: pretty, terse, and JSON events.
*/

use std::io::{self, Write};

use serde_json::json;

use super::run_args::Format;
use crate::report;
use crate::spec::Granularity;
use crate::suite::Listener;
use crate::suite::record::{Contract, PairRecord, Summary, TestKind, TestOutcome, TestRecord};

/// Tests that a line of terse output holds, as libtest's.
const TERSE_WIDTH: u64 = 88;

/// Prints the events of a run.
pub struct Console<W> {
    out: W,
    granularity: Granularity,
    format: Format,
    color: bool,
    /// Print what passing tests found, too.
    pub show_output: bool,
    tests: u64,
    done: u64,
    /// The first write that failed; printed events are not worth stopping the run for.
    failed: Option<io::Error>,
}

impl<W: Write> Console<W> {
    /// Prints to `out`.
    pub fn new(out: W, granularity: Granularity, format: Format, color: bool) -> Self {
        let show_output = false;
        Self { out, granularity, format, color, show_output, tests: 0, done: 0, failed: None }
    }

    /// The run begins.
    pub fn begin(&mut self, tests: u64) {
        self.tests = tests;
        if self.format == Format::Json {
            self.event(&json!({"type": "suite", "event": "started", "test_count": tests}));
        } else {
            let plural = if tests == 1 { "" } else { "s" };
            self.print(format_args!("\nrunning {tests} test{plural}\n"));
        }
    }

    /// The run is over.
    pub fn end(&mut self, contract: &Contract, seconds: f64) -> io::Result<()> {
        let summary = self.summary(contract);
        let bad = summary.failed + summary.errors;
        if self.format == Format::Json {
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
        if self.granularity == Granularity::Tensor {
            return contract.summary;
        }
        let mut summary =
            Summary { filtered_out: contract.summary.filtered_out, ..Summary::default() };
        for pair in contract.specs.iter().flat_map(|spec| &spec.pairs) {
            match as_test(pair).outcome {
                TestOutcome::Passed => summary.passed += 1,
                TestOutcome::Ignored => summary.ignored += 1,
                TestOutcome::Failed | TestOutcome::Error => summary.failed += 1,
            }
        }
        summary
    }

    fn close(&mut self, contract: &Contract, summary: Summary, seconds: f64) {
        if self.format == Format::Terse && !self.done.is_multiple_of(TERSE_WIDTH) {
            self.print(format_args!("\n"));
        }
        let tests = || contract.specs.iter().flat_map(|spec| &spec.pairs).flat_map(|p| &p.tests);
        if self.show_output {
            self.section("successes", tests().filter(|test| test.outcome == TestOutcome::Passed));
        }
        // What passed with a warning is told whether or not passing tests are.
        let warned = |test: &&TestRecord| {
            test.outcome == TestOutcome::Passed && !report::failure_lines(test).is_empty()
        };
        self.section("warnings", tests().filter(warned));
        let bad =
            |test: &&TestRecord| matches!(test.outcome, TestOutcome::Failed | TestOutcome::Error);
        self.section("failures", tests().filter(bad));
        let failed = summary.failed + summary.errors;
        let (word, style) = if failed == 0 { ("ok", "32") } else { ("FAILED", "31") };
        let word = self.paint(word, style);
        self.print(format_args!(
            "\ntest result: {word}. {} passed; {failed} failed; {} ignored; 0 measured; {} filtered \
             out; finished in {seconds:.2}s\n\n",
            summary.passed, summary.ignored, summary.filtered_out
        ));
    }

    /// `failures:` with the details of each test, and once more with their names alone.
    fn section<'a>(&mut self, title: &str, tests: impl Iterator<Item = &'a TestRecord>) {
        let tests: Vec<&TestRecord> = tests.collect();
        if tests.is_empty() {
            return;
        }
        self.print(format_args!("\n{title}:\n\n"));
        for test in &tests {
            self.print(format_args!("---- {} ----\n", one_line(&test.id)));
            for line in report::failure_lines(test) {
                self.print(format_args!("{line}\n"));
            }
            self.print(format_args!("\n"));
        }
        self.print(format_args!("\n{title}:\n"));
        for test in &tests {
            self.print(format_args!("    {}\n", one_line(&test.id)));
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

    fn terse(&mut self, test: &TestRecord) {
        let (mark, style) = match test.outcome {
            TestOutcome::Passed => (".", "32"),
            TestOutcome::Ignored => ("i", "33"),
            TestOutcome::Failed | TestOutcome::Error => ("F", "31"),
        };
        let mark = self.paint(mark, style);
        self.print(format_args!("{mark}"));
        if self.done.is_multiple_of(TERSE_WIDTH) {
            let (done, tests) = (self.done, self.tests);
            self.print(format_args!(" {done}/{tests}\n"));
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
        diagnosis: worst.and_then(|test| test.diagnosis.clone()),
    }
}

impl<W: Write> Listener for Console<W> {
    fn test(&mut self, test: &TestRecord) {
        if self.granularity == Granularity::Tensor {
            self.done_with(test);
        }
    }

    fn pair_done(&mut self, pair: &PairRecord) {
        if self.granularity == Granularity::Pair {
            self.done_with(&as_test(pair));
        }
    }
}

impl<W: Write> Console<W> {
    fn done_with(&mut self, test: &TestRecord) {
        self.done += 1;
        match self.format {
            Format::Pretty => self.pretty(test),
            Format::Terse => self.terse(test),
            Format::Json => self.json(test),
        }
    }
}

fn word(test: &TestRecord) -> (&'static str, &'static str) {
    match test.outcome {
        TestOutcome::Passed => ("ok", "32"),
        TestOutcome::Ignored => ("ignored", "33"),
        TestOutcome::Failed | TestOutcome::Error => ("FAILED", "31"),
    }
}

/// A name as one line: what would break the line, or drive a terminal, is escaped.
pub fn one_line(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect()
    } else {
        text.to_owned()
    }
}

/// What is printed beside the events of the run.
impl<W: Write> Write for Console<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

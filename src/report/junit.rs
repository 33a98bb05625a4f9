/*!
`junit.xml`: one `testsuite` a pair, one `testcase` a test, built with `junit-report`.

This file decides what the document says. What the crate cannot write, or writes wrongly, is the
work of [`super::junit_repair`].
*/

use std::collections::{HashMap, HashSet};

use junit_report::{Duration, OffsetDateTime, ReportBuilder, TestCase, TestResult, TestSuite};

use super::failure::{failure_kind, failure_lines, headline, waiver_lines};
use super::format::{Cases, Dialect, Options, Rendered, Report, ReportError};
use super::gravity::{gravity, worst_check};
use super::junit_repair::{Additions, CaseAdditions, Properties, SuiteAdditions, as_trace, repair};
use super::located::{is_bad, is_violated, last_part, pairs};
use super::markdown::baseline_word;
use super::numbers;
use super::text::xml;
use crate::suite::record::{
    CheckOutcome, Contract, GateCounts, JUDGED, PairRecord, SpecRecord, TensorRow, TestKind,
    TestOutcome, TestRecord,
};

/// Renders `junit.xml`.
#[derive(Debug)]
pub struct Junit;

impl Report for Junit {
    fn name(&self) -> &'static str {
        "junit"
    }

    fn file_name(&self) -> &'static str {
        "junit.xml"
    }

    fn about(&self) -> &'static str {
        "JUnit XML for CI systems"
    }

    fn render(&self, contract: &Contract, options: &Options) -> Result<Rendered, ReportError> {
        let mut chosen = Chosen::new(contract, options.junit_cases);
        let mut bytes = document(contract, &chosen, options.junit_dialect)?;
        let mut warnings = Vec::new();
        if bytes.len() > options.junit_limit && options.junit_cases == Cases::Failed {
            let before = chosen.listed();
            while bytes.len() > options.junit_limit && chosen.listed() > 0 {
                chosen.shrink(options.junit_limit as f64 / bytes.len() as f64);
                bytes = document(contract, &chosen, options.junit_dialect)?;
            }
            warnings.push(format!(
                "junit.xml lists the worst {} of {}, to stay below {}",
                chosen.listed(),
                numbers::counted(before as u64, "test"),
                numbers::bytes(options.junit_limit as u64)
            ));
        } else if bytes.len() > options.junit_limit {
            warnings.push(format!(
                "junit.xml has {}, more than many readers take; --junit-cases failed lists \
                 only what did not pass",
                numbers::bytes(bytes.len() as u64)
            ));
        }
        Ok(Rendered { bytes, warnings })
    }
}

/// The tests that the document lists, per pair.
struct Chosen<'a> {
    suites: Vec<(&'a SpecRecord, &'a PairRecord, Vec<&'a TestRecord>)>,
}

impl<'a> Chosen<'a> {
    fn new(contract: &'a Contract, cases: Cases) -> Self {
        let mut suites = Vec::new();
        for (spec, pair) in pairs(contract) {
            let mut tests: Vec<&TestRecord> = pair.tests.iter().collect();
            if cases == Cases::Failed {
                tests.retain(|test| has_something_to_say(test));
                tests.sort_by_cached_key(|test| gravity(test));
            }
            suites.push((spec, pair, tests));
        }
        Self { suites }
    }

    fn listed(&self) -> usize {
        self.suites.iter().map(|(_, _, tests)| tests.len()).sum()
    }

    /// Keeps the worst part of all listed tests: less than `share` of them.
    fn shrink(&mut self, share: f64) {
        let mut all: Vec<&TestRecord> =
            self.suites.iter().flat_map(|(_, _, tests)| tests.iter().copied()).collect();
        all.sort_by_cached_key(|test| gravity(test));
        let keep = ((all.len() as f64 * share * 0.9) as usize).min(all.len().saturating_sub(1));
        let kept: HashSet<*const TestRecord> =
            all[..keep].iter().map(|test| std::ptr::from_ref(*test)).collect();
        for (_, _, tests) in &mut self.suites {
            tests.retain(|test| kept.contains(&std::ptr::from_ref(*test)));
        }
    }
}

fn has_something_to_say(test: &TestRecord) -> bool {
    test.outcome != TestOutcome::Passed
        || test.checks.iter().any(|check| match check.outcome {
            CheckOutcome::Held => false,
            CheckOutcome::NotJudged => check.check == JUDGED,
            CheckOutcome::Violated | CheckOutcome::Waived => true,
        })
}

/// Builds the document and repairs it.
fn document(
    contract: &Contract,
    chosen: &Chosen,
    dialect: Dialect,
) -> Result<Vec<u8>, ReportError> {
    let mut names = Names::default();
    let mut report = ReportBuilder::new();
    let mut additions = Additions::default();
    let mut counts = Counts::default();
    for (spec, pair, tests) in &chosen.suites {
        let mut suite = TestSuite::new(&xml(&pair.id));
        suite.package = xml(&spec.name);
        // The crate would say when this line ran; the attribute is replaced or taken away.
        suite.timestamp = OffsetDateTime::UNIX_EPOCH;
        let unjudged = unjudged_pair(pair);
        let mut cases = Vec::new();
        let rows = pair.rows();
        for test in tests.iter().copied().chain(unjudged.as_ref()) {
            let (case, addition) = test_case((spec, pair, test), &rows, dialect, &mut names);
            suite.add_testcase(case);
            cases.push(addition);
        }
        let mut properties = suite_properties(contract, spec, pair, tests.len());
        if dialect == Dialect::Strict {
            // Some readers take the properties of all suites for those of one, and stumble over names
            // that are there twice.
            suite.system_out = Some(as_trace(&assignments(&properties).join("\n")));
            properties.clear();
        }
        counts.add(&suite);
        additions.suites.push(SuiteAdditions {
            timestamp: contract.time.as_ref().and_then(|time| timestamp(&time.started)),
            time: format!("{:.3}", pair.seconds),
            skipped: suite.skipped(),
            properties,
            cases,
        });
        report.add_testsuite(suite);
    }
    additions.root = root_attributes(contract, &counts, dialect);
    let mut built = Vec::new();
    report.build().write_xml(&mut built).map_err(ReportError::junit)?;
    repair(&built, &additions)
}

/// Properties as lines, for where there is no better place.
fn assignments(properties: &Properties) -> Vec<String> {
    properties.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Counts of the cases that the document lists: readers compare them with what they find.
#[derive(Default)]
struct Counts {
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
}

impl Counts {
    fn add(&mut self, suite: &TestSuite) {
        self.tests += suite.tests();
        self.failures += suite.failures();
        self.errors += suite.errors();
        self.skipped += suite.skipped();
    }
}

/// A pair that could not be judged has a case that says so even if none of its tests was selected.
fn unjudged_pair(pair: &PairRecord) -> Option<TestRecord> {
    let error = pair.error.as_ref()?;
    if pair.tests.iter().any(|test| test.outcome == TestOutcome::Error) {
        return None;
    }
    Some(TestRecord {
        id: format!("{}::(pair)", pair.id),
        kind: TestKind::Structure,
        outcome: TestOutcome::Error,
        reason: Some(error.clone()),
        checks: Vec::new(),
        settled: None,
        diagnosis: None,
    })
}

/// Sees to it that no two cases have the same name: GitLab counts only the first of them.
#[derive(Default)]
struct Names(HashSet<(String, String)>);

impl Names {
    fn unique(&mut self, class: &str, name: String) -> String {
        if self.0.insert((class.to_owned(), name.clone())) {
            return name;
        }
        let mut number = 2;
        loop {
            let next = format!("{name} ({number})");
            if self.0.insert((class.to_owned(), next.clone())) {
                return next;
            }
            number += 1;
        }
    }
}

fn test_case(
    (spec, pair, test): (&SpecRecord, &PairRecord, &TestRecord),
    rows: &HashMap<&str, &TensorRow>,
    dialect: Dialect,
    names: &mut Names,
) -> (TestCase, CaseAdditions) {
    // Jenkins splits class names at dots into packages; what remains is spec.pair.
    let part = |text: &str| xml(text).replace('.', "_");
    let class = format!("{}.{}", part(&spec.name), part(&pair.name));
    let name = match last_part(pair, test) {
        "" => "(unnamed)".to_owned(),
        name => xml(name),
    };
    let mut case = TestCase::success(&names.unique(&class, name), Duration::ZERO);
    case.classname = Some(class);
    case.result = result(test, dialect);
    let mut added = CaseAdditions::default();
    let properties = case_properties(pair, test, rows);
    match dialect {
        Dialect::Rich => {
            let source = worst_check(test).and_then(|check| check.source.as_ref());
            let source = source.unwrap_or(&pair.source);
            case.filepath = Some(xml(&source.file));
            added.attributes = vec![
                ("line", source.line.to_string()),
                ("assertions", test.checks.len().to_string()),
            ];
            added.properties = properties;
            let said = if is_bad(test) { waiver_lines(test) } else { remarks(test) };
            case.system_out = (!said.is_empty()).then(|| as_trace(&said.join("\n")));
        }
        Dialect::Strict => {
            let mut lines = assignments(&properties);
            lines.extend(if is_bad(test) { waiver_lines(test) } else { remarks(test) });
            case.system_out = (!lines.is_empty()).then(|| as_trace(&lines.join("\n")));
        }
    }
    (case, added)
}

/// What a test that did not fail has to say: warnings, waivers.
fn remarks(test: &TestRecord) -> Vec<String> {
    let mut lines = failure_lines(test);
    lines.extend(waiver_lines(test));
    lines
}

fn result(test: &TestRecord, dialect: Dialect) -> TestResult {
    let reason = || test.reason.clone().unwrap_or_else(|| "no reason given".to_owned());
    let lines = match failure_lines(test) {
        lines if lines.is_empty() => vec![reason()],
        lines => lines,
    };
    let message = headline(test).unwrap_or_else(reason);
    let message = xml(&message).replace('\n', " ");
    let cause = Some(as_trace(&lines.join("\n")));
    match test.outcome {
        TestOutcome::Passed => TestResult::Success,
        TestOutcome::Failed => {
            TestResult::Failure { type_: xml(&failure_kind(test)), message, cause }
        }
        TestOutcome::Error => TestResult::Error { type_: "input".to_owned(), message, cause },
        TestOutcome::Ignored => {
            let cause = Some(as_trace(&reason()));
            // By junit-4.xsd an ignored test has text alone.
            let (type_, message) = match dialect {
                Dialect::Rich => ("ignored".to_owned(), xml(&reason()).replace('\n', " ")),
                Dialect::Strict => (String::new(), String::new()),
            };
            TestResult::SkippedWithCause { type_, message, cause }
        }
    }
}

fn case_properties(
    pair: &PairRecord,
    test: &TestRecord,
    rows: &HashMap<&str, &TensorRow>,
) -> Properties {
    let mut properties = Vec::new();
    let name = last_part(pair, test);
    match test.kind {
        TestKind::Tensor => {
            if let Some(row) = rows.get(name) {
                properties = tensor_properties(row);
            }
        }
        TestKind::Global => properties = global_properties(pair, ""),
        _ => {}
    }
    if let Some(diagnosis) = &test.diagnosis {
        properties.push(("cause".to_owned(), diagnosis.cause.to_string()));
    }
    let count = |outcome| test.checks.iter().filter(|check| check.outcome == outcome).count();
    let violated = test.checks.iter().filter(|check| is_violated(check)).count();
    for (name, count) in [
        ("violated", violated),
        ("waived", count(CheckOutcome::Waived)),
        ("not_judged", count(CheckOutcome::NotJudged)),
    ] {
        if count > 0 {
            properties.push((name.to_owned(), count.to_string()));
        }
    }
    properties
}

fn tensor_properties(row: &TensorRow) -> Properties {
    let mut properties = vec![
        ("qtype".to_owned(), xml(&row.qtype)),
        ("numel".to_owned(), row.numel.to_string()),
        ("verdict".to_owned(), xml(&row.verdict)),
    ];
    for (name, value) in [
        ("rmse", row.rmse),
        ("cosine", row.cosine),
        ("max_abs", row.max_abs),
        ("sqnr_db", row.sqnr_db),
        ("gain", row.gain),
        ("bits_per_weight", row.bits_per_weight),
        ("rd_gap_db", row.rd_gap_db),
        ("wasted_bits", row.wasted_bits),
    ] {
        if value.0.is_finite() {
            properties.push((name.to_owned(), value.0.to_string()));
        }
    }
    if row.nonfinite > 0 {
        properties.push(("nonfinite".to_owned(), row.nonfinite.to_string()));
    }
    properties
}

fn global_properties(pair: &PairRecord, prefix: &str) -> Properties {
    let Some(global) = &pair.global else { return Vec::new() };
    [
        ("rmse", global.rmse),
        ("cosine", global.cosine),
        ("max_abs", global.max_abs),
        ("sqnr_db", global.sqnr_db),
        ("gain", global.gain),
        ("bits_per_weight", global.bits_per_weight),
        ("rd_gap_db", global.rd_gap_db),
        ("wasted_bits", global.wasted_bits),
    ]
    .into_iter()
    .filter(|(_, value)| value.0.is_finite())
    .map(|(name, value)| (format!("{prefix}{name}"), value.0.to_string()))
    .collect()
}

/// The facts of a pair.
fn suite_properties(
    contract: &Contract,
    spec: &SpecRecord,
    pair: &PairRecord,
    listed: usize,
) -> Properties {
    let mut properties = vec![
        ("qualm.version".to_owned(), xml(&contract.harness.version)),
        ("spec".to_owned(), xml(&spec.path)),
        ("spec.sha256".to_owned(), xml(&spec.sha256)),
        ("baseline".to_owned(), baseline_word(pair.baseline.status).to_owned()),
    ];
    let quantized = if pair.alone { "model" } else { "quantized" };
    for (role, model) in [("reference", &pair.reference), (quantized, &pair.quantized)] {
        if let Some(model) = model {
            properties.push((role.to_owned(), xml(&model.path)));
            let bits = model.bits_per_weight.0.to_string();
            properties.push((format!("{role}.bits_per_weight"), bits));
        }
    }
    properties.extend(pair.roundtrip.iter().map(|ty| ("roundtrip".to_owned(), xml(ty))));
    properties.extend(global_properties(pair, "global."));
    let mut gates = GateCounts::default();
    pair.tests.iter().for_each(|test| gates.add(&test.gates()));
    for (name, count) in [
        ("gates.held", gates.held),
        ("gates.violated", gates.violated),
        ("gates.not_judged", gates.not_judged),
    ] {
        properties.push((name.to_owned(), count.to_string()));
    }
    for (number, note) in (1..).zip(&pair.notes) {
        properties.push((format!("note.{number}"), xml(note)));
    }
    let left_out = pair.tests.len() - listed;
    if left_out > 0 {
        properties.push(("tests.not_listed".to_owned(), left_out.to_string()));
    }
    properties
}

fn root_attributes(
    contract: &Contract,
    counts: &Counts,
    dialect: Dialect,
) -> Vec<(&'static str, String)> {
    let mut attributes = vec![
        ("name", xml(&contract.harness.name)),
        ("tests", counts.tests.to_string()),
        ("failures", counts.failures.to_string()),
        ("errors", counts.errors.to_string()),
    ];
    if dialect == Dialect::Rich {
        attributes.push(("skipped", counts.skipped.to_string()));
    }
    if let Some(time) = contract.time.as_ref().filter(|time| time.seconds.is_finite()) {
        attributes.push(("time", format!("{:.3}", time.seconds)));
    }
    attributes
}

/// A timestamp in whole seconds; none if the record's is no RFC 3339 in UTC.
fn timestamp(started: &str) -> Option<String> {
    let seconds = started.get(..19)?;
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let shaped: String = seconds.chars().map(shape).collect();
    (shaped == "0000-00-00T00:00:00" && started.ends_with('Z')).then(|| format!("{seconds}Z"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quick_junit::{NonSuccessKind, Report as Parsed, TestCaseStatus};
    use roxmltree::{Document, Node};

    use super::super::sample::{self, HOSTILE, check, judged};
    use super::*;

    fn render(contract: &Contract, dialect: Dialect, cases: Cases) -> String {
        let options = Options { junit_dialect: dialect, junit_cases: cases, ..Options::default() };
        String::from_utf8(Junit.render(contract, &options).unwrap().bytes).unwrap()
    }

    fn attribute(node: Node, name: &str) -> String {
        node.attribute(name).unwrap_or_else(|| panic!("no {name} in {node:?}")).to_owned()
    }

    #[test]
    fn quick_junit_reads_outcomes_and_counts() {
        let text = render(&sample::contract(), Dialect::Rich, Cases::All);
        let report = Parsed::deserialize_from_str(&text).unwrap();
        let times: Vec<_> = report.test_suites.iter().map(|it| it.time).collect();
        assert_eq!(times[0], Some(std::time::Duration::from_millis(1250)), "as the record says");
        let counts: Vec<_> = report
            .test_suites
            .iter()
            .map(|it| (it.name.as_str(), it.tests, it.failures, it.errors))
            .collect();
        assert_eq!(
            counts,
            [
                ("minilm::q4_0", 8, 4, 0),
                ("minilm::gone", 1, 0, 1),
                ("minilm::q8_0", 4, 0, 0),
                ("dir/hostile.v2::names.x", HOSTILE.len(), HOSTILE.len(), 0),
            ]
        );
        let case = &report.test_suites[0].test_cases[3];
        assert_eq!(case.name.as_str(), "blk.0.ffn_down.weight");
        assert_eq!(case.classname.as_ref().unwrap().as_str(), "minilm.q4_0");
        let TestCaseStatus::NonSuccess { kind, message, ty, description, .. } = &case.status else {
            panic!("{case:?}")
        };
        let message = message.as_ref().unwrap().as_str();
        assert_eq!(*kind, NonSuccessKind::Failure);
        assert_eq!(message, "cosine 0.981200 < 0.990000 (blk.0.ffn_down.weight, Q4_0)");
        assert_eq!(ty.as_ref().unwrap().as_str(), "threshold.cosine");
        let text = description.as_ref().unwrap().as_str();
        assert!(
            text.starts_with(&format!("{message}\n  bound: specs/minilm.toml:12:10")),
            "{text}"
        );
        let cosine = case.properties.iter().find(|it| it.name.as_str() == "cosine").unwrap();
        let row = sample::contract().specs[0].pairs[0]
            .tensors
            .iter()
            .find(|row| row.tensor == "blk.0.ffn_down.weight")
            .unwrap()
            .cosine
            .0;
        assert_eq!(cosine.value.as_str().parse::<f64>().unwrap(), row);
    }

    #[test]
    fn skipped_tests_are_counted_and_say_why() {
        for dialect in [Dialect::Rich, Dialect::Strict] {
            let text = render(&sample::contract(), dialect, Cases::All);
            let document = Document::parse(&text).unwrap();
            let suite = document.descendants().find(|it| it.has_tag_name("testsuite")).unwrap();
            assert_eq!(attribute(suite, "skipped"), "1");
            let skipped = suite.descendants().find(|it| it.has_tag_name("skipped")).unwrap();
            assert_eq!(skipped.text(), Some("rotary table, not a weight"));
            let message = (dialect == Dialect::Rich).then_some("rotary table, not a weight");
            assert_eq!(skipped.attribute("message"), message);
        }
    }

    #[test]
    fn waivers_are_visible_though_the_test_passes() {
        for (dialect, cases) in [
            (Dialect::Rich, Cases::All),
            (Dialect::Strict, Cases::All),
            (Dialect::Rich, Cases::Failed),
        ] {
            let text = render(&sample::contract(), dialect, cases);
            let document = Document::parse(&text).unwrap();
            let case = document
                .descendants()
                .find(|it| it.attribute("name") == Some("token_embd.weight"))
                .unwrap();
            let out = case.children().find(|it| it.has_tag_name("system-out")).unwrap();
            assert!(out.text().unwrap().contains("(tied embeddings, issue 42)"), "{out:?}");
            assert!(!case.children().any(|it| it.has_tag_name("failure")));
        }
    }

    /// Hostile names: well-formed, apart, and as they were where XML can hold them.
    #[test]
    fn names_survive_as_far_as_xml_lets_them() {
        for dialect in [Dialect::Rich, Dialect::Strict] {
            let text = render(&sample::contract(), dialect, Cases::All);
            let document = Document::parse(&text).unwrap();
            let names: Vec<&str> = document
                .descendants()
                .filter(|it| it.attribute("classname") == Some("dir/hostile_v2.names_x"))
                .map(|it| it.attribute("name").unwrap())
                .collect();
            let expected: Vec<String> = HOSTILE.iter().map(|name| xml(name)).collect();
            assert_eq!(names, expected);
            assert!(!text.contains("CDATA"));
        }
    }

    #[test]
    fn two_cases_never_have_the_same_name() {
        let names = ["a", "\x1b[1ma", "a (2)", "b\0", "b\u{1}"];
        let tests = names
            .iter()
            .map(|name| judged(&format!("s::p::{name}"), vec![check("cosine", 0.1, 0.9)]))
            .collect();
        let contract =
            sample::run(vec![sample::spec("s", vec![sample::pair("s", "p", Vec::new(), tests)])]);
        let text = render(&contract, Dialect::Rich, Cases::All);
        let document = Document::parse(&text).unwrap();
        let names: HashSet<&str> = document
            .descendants()
            .filter(|it| it.has_tag_name("testcase"))
            .map(|it| it.attribute("name").unwrap())
            .collect();
        assert_eq!(names.len(), 5, "{names:?}");
    }

    /// What `junit-10.xsd` (Jenkins' xunit plugin) and `junit-4.xsd` both allow.
    #[test]
    fn the_strict_dialect_has_only_what_both_schemas_know() {
        let allowed = |tag: &str| -> &[&str] {
            match tag {
                "testsuite" => &[
                    "id",
                    "name",
                    "package",
                    "tests",
                    "errors",
                    "failures",
                    "hostname",
                    "time",
                    "skipped",
                    "timestamp",
                ],
                "testcase" => &["name", "time", "classname"],
                "failure" | "error" => &["type", "message"],
                "property" => &["name", "value"],
                "testsuites" => &["name", "tests", "failures", "errors", "time"],
                "properties" | "skipped" | "system-out" => &[],
                other => panic!("{other} is in no schema"),
            }
        };
        let text = render(&sample::contract(), Dialect::Strict, Cases::All);
        for node in Document::parse(&text).unwrap().descendants().filter(Node::is_element) {
            let tag = node.tag_name().name();
            for attribute in node.attributes() {
                let name = attribute.name();
                assert!(allowed(tag).contains(&name), "{tag} has {name}");
            }
            if tag == "properties" {
                assert!(node.parent().unwrap().has_tag_name("testsuite"));
            }
        }
        assert!(text.contains("\ncosine="), "metrics are in system-out");
    }

    #[test]
    fn without_a_time_there_is_none() {
        let mut contract = sample::contract();
        contract.time = None;
        for dialect in [Dialect::Rich, Dialect::Strict] {
            let text = render(&contract, dialect, Cases::All);
            assert!(!text.contains("timestamp="), "{text}");
            Document::parse(&text).unwrap();
        }
        contract.time = Some(crate::suite::record::Time {
            started: "yesterday \"<é".to_owned(),
            seconds: f64::NAN,
        });
        assert!(!render(&contract, Dialect::Rich, Cases::All).contains("timestamp="));
    }

    #[test]
    fn failed_lists_what_did_not_pass_with_the_worst_first() {
        let text = render(&sample::contract(), Dialect::Rich, Cases::Failed);
        let document = Document::parse(&text).unwrap();
        let suite = document.descendants().find(|it| it.has_tag_name("testsuite")).unwrap();
        let names: Vec<&str> = suite
            .children()
            .filter(|it| it.has_tag_name("testcase"))
            .map(|it| it.attribute("name").unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "(structure)",
                "blk.0.attn_nan.weight",
                "blk.0.ffn_down.weight",
                "(baseline)",
                "token_embd.weight",
                "blk.0.attn_rot_embd",
            ]
        );
        assert!(text.contains("<property name=\"tests.not_listed\" value=\"2\"/>"));
    }

    #[test]
    fn beyond_the_size_limit_the_worst_stay() {
        let tests: Vec<TestRecord> = (0..500)
            .map(|n| {
                let value = 0.9 - f64::from(n) / 1000.0;
                judged(&format!("s::p::t{n:03}"), vec![check("cosine", value, 0.95)])
            })
            .collect();
        let contract =
            sample::run(vec![sample::spec("s", vec![sample::pair("s", "p", Vec::new(), tests)])]);
        let options =
            |cases| Options { junit_cases: cases, junit_limit: 20_000, ..Options::default() };
        let all = Junit.render(&contract, &options(Cases::All)).unwrap();
        assert!(all.bytes.len() > 20_000 && all.warnings[0].contains("--junit-cases failed"));
        let failed = Junit.render(&contract, &options(Cases::Failed)).unwrap();
        assert!(failed.bytes.len() <= 20_000, "{}", failed.bytes.len());
        assert!(failed.warnings[0].starts_with("junit.xml lists the worst "));
        let text = String::from_utf8(failed.bytes).unwrap();
        let document = Document::parse(&text).unwrap();
        let mut names = document.descendants().filter(|it| it.has_tag_name("testcase"));
        assert_eq!(names.next().unwrap().attribute("name"), Some("t499"), "the lowest cosine");
        assert!(!text.contains("t000"));
    }

    #[test]
    fn a_pair_that_could_not_be_judged_is_never_silent() {
        let mut pair = sample::pair("s", "p", Vec::new(), Vec::new());
        pair.error = Some("no such file".to_owned());
        let contract = sample::run(vec![sample::spec("s", vec![pair])]);
        let text = render(&contract, Dialect::Rich, Cases::Failed);
        let document = Document::parse(&text).unwrap();
        let error = document.descendants().find(|it| it.has_tag_name("error")).unwrap();
        assert_eq!(error.text(), Some("no such file"));
    }

    proptest! {
        #[test]
        fn any_text_gives_a_document_that_parses_and_says_it(
            name in ".*",
            message in "(.|\n|\r|\u{0}|\u{1b}|]]>|<!--|&)*",
            reason in "\\PC*",
        ) {
            let mut failed = check("cosine", 0.1, 0.9);
            failed.message = message.clone();
            failed.reason = Some(reason.clone());
            let mut skipped = sample::test(&format!("s::p::{reason}{name}"), TestOutcome::Ignored);
            skipped.reason = Some(message.clone());
            let tests = vec![judged(&format!("s::p::{name}"), vec![failed]), skipped];
            let pair = sample::pair("s", "p", vec![sample::row(&name, &reason, 4, 0.5)], tests);
            let contract = sample::run(vec![sample::spec("s", vec![pair])]);
            for dialect in [Dialect::Rich, Dialect::Strict] {
                let text = render(&contract, dialect, Cases::All);
                let document = Document::parse(&text).unwrap();
                if let Err(error) = Parsed::deserialize_from_str(&text) {
                    prop_assert!(false, "{error}\n{text}");
                }
                let case = document.descendants().find(|it| it.has_tag_name("testcase")).unwrap();
                let expected = if name.is_empty() { "(unnamed)".to_owned() } else { xml(&name) };
                prop_assert_eq!(case.attribute("name").unwrap(), expected);
                let failure = case.children().find(|it| it.has_tag_name("failure")).unwrap();
                let expected = failure_lines(&contract.specs[0].pairs[0].tests[0]).join("\n");
                prop_assert_eq!(failure.text().unwrap_or_default(), xml(&expected));
                let skipped = document.descendants().find(|it| it.has_tag_name("skipped")).unwrap();
                prop_assert_eq!(skipped.text().unwrap_or_default(), xml(&message));
            }
        }
    }
}

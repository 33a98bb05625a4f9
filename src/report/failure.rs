/*!
What a failed test says, line by line, in the terminal, in JUnit and in Markdown.
*/

use std::collections::{BTreeMap, HashMap};

use super::gravity::{excess, worst_check};
use super::located::{is_violated, last_part};
use super::numbers;
use super::text::one_line;
use crate::metrics::Metric;
use crate::suite::record::{
    CheckOutcome, CheckRecord, JUDGED, Level, ModelRecord, Movement, MovementKind, PairRecord,
    SampleRecord, Source, TestOutcome, TestRecord,
};

/// Why a test failed or could not be judged: violated checks first, the worst at the top, each with value, bound, tensor
/// and qtype, where the bound is written and why, and how the value moved against the baseline.
/// Violated warnings follow. Empty for a test with nothing to say.
pub fn failure_lines(test: &TestRecord) -> Vec<String> {
    let mut lines = said_lines(test);
    lines.extend(cause_line(test));
    lines
}

/// The same, the cause first.
pub fn cause_first(test: &TestRecord) -> Vec<String> {
    cause_line(test).into_iter().chain(said_lines(test)).collect()
}

/// What a test failed for, in one line: its cause, or else what [`failure_lines`] say first.
pub fn headline(test: &TestRecord) -> Option<String> {
    let cause = cause_line(test).map(|line| line.trim_start_matches("cause: ").to_owned());
    cause.or_else(|| said_lines(test).into_iter().next())
}

/// What the checks of a test say.
fn said_lines(test: &TestRecord) -> Vec<String> {
    let mut lines = Vec::new();
    let violated = |level| move |check: &&CheckRecord| is_violated(check) && check.level == level;
    if test.outcome == TestOutcome::Error {
        lines.extend(test.reason.iter().map(|reason| one_line(reason).into_owned()));
    }
    let mut failed: Vec<&CheckRecord> = test.checks.iter().filter(violated(Level::Fail)).collect();
    failed.sort_by(|a, b| excess(b).total_cmp(&excess(a)));
    for check in failed {
        lines.extend(check_lines(check, ""));
    }
    // Under `--fail-level warn` a warning is the reason.
    for check in test.checks.iter().filter(violated(Level::Warn)) {
        let prefix = if test.outcome == TestOutcome::Failed && lines.is_empty() {
            "(warning) "
        } else {
            "warning: "
        };
        lines.extend(check_lines(check, prefix));
    }
    if test.outcome == TestOutcome::Failed
        && let Some(reason) = &test.reason
        && !test.checks.iter().any(|check| is_violated(check) && check.message == *reason)
    {
        lines.insert(0, one_line(reason).into_owned());
    }
    lines
}

/// The diagnosis, unless a violated check has said the same.
fn cause_line(test: &TestRecord) -> Option<String> {
    let diagnosis = test.diagnosis.as_ref()?;
    let said = test.reason.as_deref().into_iter();
    let mut said = said.chain(test.checks.iter().map(|check| check.message.as_str()));
    let new = !said.any(|message| message == diagnosis.evidence);
    new.then(|| format!("cause: {}", one_line(&diagnosis.to_string())))
}

/// What waivers let pass, line by line.
pub fn waiver_lines(test: &TestRecord) -> Vec<String> {
    let waived = test.checks.iter().filter(|check| check.outcome == CheckOutcome::Waived);
    waived.flat_map(|check| check_lines(check, "waived: ")).collect()
}

/// Floats that hold quantized values: one line a grid, with the first of the tensors concerned.
fn recovered_lines(pair: &PairRecord) -> impl Iterator<Item = String> {
    let mut grids: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for row in &pair.tensors {
        if let Some(grid) = &row.recovered {
            grids.entry((grid, &row.qtype)).or_default().push(&row.tensor);
        }
    }
    grids.into_iter().map(|((grid, qtype), mut names)| {
        names.sort_unstable();
        format!("{qtype} values that lie on a grid ({grid}): {}", first_names(&names))
    })
}

/// What is to be noted of a pair: what is odd, floats that hold quantized values, and what no gate could
/// look into.
pub fn note_lines(pair: &PairRecord) -> Vec<String> {
    let notes = pair.notes.iter().cloned();
    let notes = pair.sample.iter().map(sample_line).chain(notes);
    notes.chain(recovered_lines(pair)).chain(not_judged_lines(pair)).collect()
}

/// What a spot check reads, and what it can see.
pub fn sample_line(sample: &SampleRecord) -> String {
    let SampleRecord { bytes, of, finds, weakest, seed, requests, .. } = sample;
    let asked = if *requests > 0 { format!(" in {requests} requests") } else { String::new() };
    format!(
        "a spot check, seed {seed}: {} of {} of values ({:.2} %){asked}; damage to {:.0} % of the rows of any matrix is \
         found with 99 % probability (least is seen of {weakest})",
        numbers::bytes(*bytes),
        numbers::bytes(*of),
        *bytes as f64 / (*of).max(1) as f64 * 100.0,
        (finds.0 * 100.0).ceil(),
    )
}

/// The first names, and how many more there are.
fn first_names(names: &[&str]) -> String {
    const NAMED: usize = 3;
    let named = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// What no gate could look into: one line a reason, with the first of the tensors concerned.
fn not_judged_lines(pair: &PairRecord) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for test in &pair.tests {
        let judged = test
            .checks
            .iter()
            .filter(|check| check.check == JUDGED && check.outcome == CheckOutcome::NotJudged);
        for reason in judged.filter_map(|check| check.reason.as_deref()) {
            let name = last_part(pair, test);
            let at = *known.entry(reason).or_insert(reasons.len());
            match reasons.get_mut(at) {
                Some((_, names)) => names.push(name),
                None => reasons.push((reason, vec![name])),
            }
        }
    }
    let line = |(reason, names): (&str, Vec<&str>)| {
        format!("judged as a whole only, because {reason}: {}", first_names(&names))
    };
    reasons.into_iter().map(line).collect()
}

/// The message of a check; below it, indented, the place of the bound with its reason, and the
/// movement.
fn check_lines(check: &CheckRecord, prefix: &str) -> Vec<String> {
    let mut lines = vec![format!("{prefix}{}", one_line(&check.message))];
    match (&check.source, &check.reason) {
        (Some(source), Some(reason)) => {
            lines.push(format!("  bound: {} ({})", place(source), one_line(reason)));
        }
        (Some(source), None) => lines.push(format!("  bound: {}", place(source))),
        (None, Some(reason)) => lines.push(format!("  reason: {}", one_line(reason))),
        (None, None) => {}
    }
    if let Some(movement) = &check.movement {
        lines.push(format!("  baseline: {}", movement_text(&check.check, movement)));
    }
    lines
}

/// `file:line:column`, as editors and terminals link it.
pub fn place(source: &Source) -> String {
    format!("{}:{}:{}", one_line(&source.file), source.line, source.column)
}

/// How a value moved: `was 0.995120, now 0.981200: worse`.
pub fn movement_text(check: &str, movement: &Movement) -> String {
    let (old, new) = numbers::compared(check, movement.old.0, movement.new.0);
    match movement.kind {
        MovementKind::Same => format!("{new}, as before"),
        MovementKind::Within => format!("was {old}, now {new}: within the tolerance"),
        MovementKind::Better => format!("was {old}, now {new}: better"),
        MovementKind::Worse => format!("was {old}, now {new}: worse"),
    }
}

/// The kind of a failure: `threshold.cosine`, `structure.missing`, `baseline.rmse`, `input`, ….
pub fn failure_kind(test: &TestRecord) -> String {
    if test.outcome == TestOutcome::Error {
        return "input".to_owned();
    }
    let Some(check) = worst_check(test) else { return "failed".to_owned() };
    let name = check.check.as_str();
    if name == "baseline" || name.contains('.') {
        name.to_owned()
    } else if Metric::from_name(name).is_some() {
        format!("threshold.{name}")
    } else if matches!(name, "finite" | "exact") {
        format!("values.{name}")
    } else {
        format!("structure.{name}")
    }
}

/// The models of a pair that could be opened, each with the part it plays.
pub fn known_models(pair: &PairRecord) -> Vec<(String, &ModelRecord)> {
    let quantized = match &pair.roundtrip {
        Some(ty) => format!("round trip through {ty}"),
        None if pair.alone => "model".to_owned(),
        None => "quantized".to_owned(),
    };
    [("reference".to_owned(), &pair.reference), (quantized, &pair.quantized)]
        .into_iter()
        .filter_map(|(role, model)| Some((role, model.as_ref()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::gravity::worst_first;
    use super::super::located::tests;
    use super::super::sample::{self, check, movement};
    use super::*;

    #[test]
    fn a_failure_says_value_bound_place_and_movement() {
        let contract = sample::contract();
        let lines = |id: &str| {
            let test = tests(&contract).find(|it| it.test.id == id).unwrap().test;
            failure_lines(test)
        };
        assert_eq!(
            lines("minilm::q4_0::blk.0.ffn_down.weight"),
            [
                "cosine 0.981200 < 0.990000 (blk.0.ffn_down.weight, Q4_0)",
                "  bound: specs/minilm.toml:12:10 (small GQA projections)",
                "  baseline: was 0.995120, now 0.981200: worse",
                "warning: sqnr_db 14.20 < 20.00 (blk.0.ffn_down.weight, Q4_0)",
                "  bound: specs/minilm.toml:13:10",
            ]
        );
        assert_eq!(lines("minilm::q4_0::blk.0.attn_q.weight"), Vec::<String>::new());
        assert_eq!(
            lines("minilm::gone::(structure)"),
            ["models/gone.gguf: no such file; check the path"]
        );
    }

    #[test]
    fn waivers_say_their_reason() {
        let contract = sample::contract();
        let lines: Vec<_> = tests(&contract).flat_map(|it| waiver_lines(it.test)).collect();
        assert_eq!(
            lines,
            [
                "waived: cosine 0.931000 < 0.990000 (token_embd.weight, Q4_0); waived down to 0.9",
                "  bound: specs/minilm.toml:20:3 (tied embeddings, issue 42)",
            ]
        );
    }

    #[test]
    fn a_reason_that_no_check_gives_comes_first() {
        let mut test = sample::test("s::p::t", TestOutcome::Failed);
        test.reason = Some("0.96 of the group passed, 0.99 asked".to_owned());
        test.checks = vec![check("cosine", 0.5, 0.9)];
        assert_eq!(failure_lines(&test)[0], "0.96 of the group passed, 0.99 asked");
        test.reason = Some(test.checks[0].message.clone());
        assert_eq!(failure_lines(&test)[0], test.checks[0].message);
    }

    #[test]
    fn kinds() {
        let contract = sample::contract();
        let kinds: Vec<(&str, String)> = worst_first(&contract)
            .iter()
            .filter(|it| it.spec.name == "minilm")
            .map(|it| (it.test.id.as_str(), failure_kind(it.test)))
            .collect();
        assert_eq!(
            kinds,
            [
                ("minilm::gone::(structure)", "input".to_owned()),
                ("minilm::q4_0::(structure)", "structure.missing".to_owned()),
                ("minilm::q4_0::blk.0.attn_nan.weight", "values.finite".to_owned()),
                ("minilm::q4_0::blk.0.ffn_down.weight", "threshold.cosine".to_owned()),
                ("minilm::q4_0::(baseline)", "baseline".to_owned()),
            ]
        );
    }

    #[test]
    fn movements() {
        use MovementKind::{Better, Same, Within, Worse};
        for (old, new, kind, expected) in [
            (0.9, 0.9, Same, "0.900000, as before"),
            (0.9, 0.9000000001, Within, "was 0.9000000000, now 0.9000000001: within the tolerance"),
            (0.9, 0.95, Better, "was 0.900000, now 0.950000: better"),
            (0.9, f64::NAN, Worse, "was 0.900000, now NaN: worse"),
        ] {
            assert_eq!(movement_text("cosine", &movement(old, new, kind)), expected);
        }
    }
}

/*!
What a failed test says, line by line, in the terminal, in JUnit and in Markdown; and which failure
is worse than another.
*/

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::f64::consts::LN_10;

use super::numbers;
use super::text::one_line;
use crate::metrics::Metric;
use crate::metrics::functions;
use crate::suite::record::{
    CheckOutcome, CheckRecord, Contract, JUDGED, Level, ModelRecord, Movement, MovementKind,
    PairRecord, Source, SpecRecord, TestOutcome, TestRecord,
};

/// A test with the pair and the spec that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Located<'a> {
    /// The spec.
    pub spec: &'a SpecRecord,
    /// The pair.
    pub pair: &'a PairRecord,
    /// The test.
    pub test: &'a TestRecord,
}

/// Why a test failed or could not be judged: violated checks first, the worst at the top, each with value, bound, tensor
/// and qtype, where the bound is written and why, and how the value moved against the baseline.
/// Violated warnings follow. Empty for a test with nothing to say.
pub fn failure_lines(test: &TestRecord) -> Vec<String> {
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
    lines.extend(cause_line(test));
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
    notes.chain(recovered_lines(pair)).chain(not_judged_lines(pair)).collect()
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

/// Is this a check that does not hold and that no waiver covers?
pub fn is_violated(check: &CheckRecord) -> bool {
    check.outcome == CheckOutcome::Violated
}

/// Is this a test that makes the run fail?
pub fn is_bad(test: &TestRecord) -> bool {
    matches!(test.outcome, TestOutcome::Failed | TestOutcome::Error)
}

/// The violated check that a test failed for: the worst of the failing ones, else of the warnings.
pub fn worst_check(test: &TestRecord) -> Option<&CheckRecord> {
    let violated = test.checks.iter().filter(|check| is_violated(check));
    violated.min_by(|a, b| {
        let is_warning = |check: &CheckRecord| check.level == Level::Warn;
        is_warning(a).cmp(&is_warning(b)).then(excess(b).total_cmp(&excess(a)))
    })
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

/// How far a value is beyond its bound: the natural logarithm of the error's energy over the energy
/// that the bound allows, so that all metrics compare. Infinite for what is not about a number: NaN,
/// a missing tensor, a changed type.
pub fn excess(check: &CheckRecord) -> f64 {
    let (Some(value), Some(bound)) = (check.value, check.bound) else { return f64::INFINITY };
    let (value, bound) = (value.0, bound.0);
    let excess = match Metric::from_name(&check.check) {
        // 1 - cos ≈ (Σe²/Σr²)/2 for small errors.
        Some(Metric::Cosine) => functions::ln((1.0 - value) / (1.0 - bound)),
        Some(Metric::SqnrDb) => (bound - value) * LN_10 / 10.0,
        Some(Metric::Rmse | Metric::RelRmse | Metric::MaxAbs) => 2.0 * functions::ln(value / bound),
        Some(Metric::Gain) => 2.0 * functions::ln((value - 1.0).abs() / bound),
        None => f64::INFINITY,
    };
    if excess.is_nan() { f64::INFINITY } else { excess }
}

/// Where a test stands in the order of how bad tests are.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Gravity<'t> {
    class: u8,
    excess: Reverse<i64>,
    id: &'t str,
}

/// Orders tests by how bad they are, the worst first: what could not be judged, then failures by
/// [`excess`], then the rest; ties keep the order of their ids. It looks at every check, so that a sort
/// is to ask once.
pub fn gravity(test: &TestRecord) -> Gravity<'_> {
    let class = match test.outcome {
        TestOutcome::Error => 0,
        TestOutcome::Failed => 1,
        TestOutcome::Passed => 2,
        TestOutcome::Ignored => 3,
    };
    let worst = worst_check(test).map_or(f64::NEG_INFINITY, excess);
    // Integers in the order of `f64::total_cmp`.
    let bits = worst.to_bits() as i64;
    let excess = Reverse(bits ^ ((bits >> 63) as u64 >> 1) as i64);
    Gravity { class, excess, id: &test.id }
}

/// Every test of a run, in order of specs, pairs and tests.
pub fn tests(contract: &Contract) -> impl Iterator<Item = Located<'_>> {
    pairs(contract)
        .flat_map(|(spec, pair)| pair.tests.iter().map(move |test| Located { spec, pair, test }))
}

/// Every pair of a run with its spec, in order.
pub fn pairs(contract: &Contract) -> impl Iterator<Item = (&SpecRecord, &PairRecord)> {
    contract.specs.iter().flat_map(|spec| spec.pairs.iter().map(move |pair| (spec, pair)))
}

/// The tests that fail a run, the worst first.
pub fn worst_first(contract: &Contract) -> Vec<Located<'_>> {
    let mut bad: Vec<Located> = tests(contract).filter(|it| is_bad(it.test)).collect();
    bad.sort_by_cached_key(|it| gravity(it.test));
    bad
}

/// The last part of a test's id: the tensor's name, or `(structure)`, `(global)`, `(baseline)`.
pub fn last_part<'a>(pair: &PairRecord, test: &'a TestRecord) -> &'a str {
    let rest = test.id.strip_prefix(pair.id.as_str());
    rest.and_then(|rest| rest.strip_prefix("::")).unwrap_or(&test.id)
}

/// The models of a pair that could be opened, each with the part it plays.
pub fn known_models(pair: &PairRecord) -> Vec<(String, &ModelRecord)> {
    let quantized = match &pair.roundtrip {
        Some(ty) => format!("round trip through {ty}"),
        None => "quantized".to_owned(),
    };
    [("reference".to_owned(), &pair.reference), (quantized, &pair.quantized)]
        .into_iter()
        .filter_map(|(role, model)| Some((role, model.as_ref()?)))
        .collect()
}

#[cfg(test)]
mod tests {
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
    fn excess_compares_metrics() {
        for (metric, value, bound, expected, why) in [
            ("cosine", 0.98, 0.99, 2f64.ln(), "twice the energy"),
            ("sqnr_db", 10.0, 20.0, 10f64.ln(), "10 dB are ten times the energy"),
            ("rmse", 0.2, 0.1, 4f64.ln(), "energy is the square"),
            ("gain", 1.2, 0.1, 4f64.ln(), "distance from 1"),
            ("gain", 0.8, 0.1, 4f64.ln(), "on both sides"),
            ("cosine", f64::NAN, 0.99, f64::INFINITY, "NaN is the worst"),
            ("cosine", 0.9, 1.0, f64::INFINITY, "nothing was allowed"),
        ] {
            let excess = excess(&check(metric, value, bound));
            let close = (excess - expected).abs() < 1e-9 || excess == expected;
            assert!(close, "{why}: {excess}");
        }
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
                ("minilm::q4_0::(baseline)", "baseline".to_owned()),
                ("minilm::q4_0::(structure)", "structure.missing".to_owned()),
                ("minilm::q4_0::blk.0.attn_nan.weight", "values.finite".to_owned()),
                ("minilm::q4_0::blk.0.ffn_down.weight", "threshold.cosine".to_owned()),
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

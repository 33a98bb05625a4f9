/*!
The obligations of the contract CRUX-B-20, judged from what a run recorded.

Each is held, violated, or not exercised, and says what shows it: nothing is reported as held that
this run did not look at.
*/

use std::collections::BTreeMap;

use super::record::{CheckOutcome, Obligation, ObligationStatus, PairRecord, SCHEMA, TestOutcome};
use crate::codec::TensorType;

/// Check name of a comparison with `llama-quantize-stats`.
pub const PARITY_CHECK: &str = "parity.rmse";

/// Judges every obligation over the pairs of a run.
pub fn judge(pairs: &[&PairRecord]) -> Vec<Obligation> {
    let sorted = rows_sorted(pairs);
    let gate = threshold_gate(pairs);
    let parity = quantize_stats_parity(pairs);
    [
        (
            "FALSIFY-CRUX-B-20-001",
            "rows are sorted by RMSE, descending, and each carries qtype, cosine and RMSE",
            sorted.clone(),
        ),
        (
            "FALSIFY-CRUX-B-20-002",
            "the exit code is not 0 when any cosine is below its threshold",
            gate.clone(),
        ),
        (
            "FALSIFY-CRUX-B-20-003",
            "per-tensor RMSE agrees with llama-quantize-stats to 1e-5",
            parity.clone(),
        ),
        (
            "CB2-EQ-001",
            "the equivalence behind 003: the same values through the same decode",
            parity,
        ),
        ("CB2-INV-002", "rows are sorted, and the schema of the report is stable", {
            let mut verdict = sorted;
            verdict.evidence.push(format!("contract.json has schema version {SCHEMA}"));
            verdict
        }),
        ("CB2-INV-003", "a tensor below its cosine threshold makes the run fail", gate),
        (
            "monotone",
            "the squared error does not decrease as the bit width of a quantizer family decreases",
            monotone(pairs),
        ),
        (
            "falsifiable",
            "every fault that `qualm falsify` injects fails a gate, or is allowed with a reason",
            falsifiable(pairs),
        ),
    ]
    .into_iter()
    .map(|(id, rule, verdict)| Obligation {
        id: id.to_owned(),
        rule: rule.to_owned(),
        status: verdict.status,
        evidence: verdict.evidence,
    })
    .collect()
}

#[derive(Clone)]
struct Verdict {
    status: ObligationStatus,
    evidence: Vec<String>,
}

impl Verdict {
    /// Violated by any counterexample, else held if something was looked at.
    fn new(counterexamples: Vec<String>, evidence: Vec<String>) -> Self {
        let (status, evidence) = match (counterexamples.is_empty(), evidence.is_empty()) {
            (false, _) => (ObligationStatus::Violated, counterexamples),
            (true, false) => (ObligationStatus::Held, evidence),
            (true, true) => (ObligationStatus::NotExercised, Vec::new()),
        };
        Self { status, evidence }
    }
}

fn rows_sorted(pairs: &[&PairRecord]) -> Verdict {
    let (mut wrong, mut rows) = (Vec::new(), 0);
    for pair in pairs {
        rows += pair.tensors.len();
        let falls = pair.tensors.windows(2).find(|two| two[0].rmse.0 < two[1].rmse.0);
        if let Some([_, second]) = falls {
            wrong.push(format!("{}: {:?} is out of order", pair.id, second.tensor));
        }
        if let Some(row) = pair.tensors.iter().find(|row| row.qtype.is_empty()) {
            wrong.push(format!("{}: {:?} has no qtype", pair.id, row.tensor));
        }
    }
    let evidence = format!("{rows} rows of {} pairs are in order", pairs.len());
    Verdict::new(wrong, if rows > 0 { vec![evidence] } else { Vec::new() })
}

/// Every cosine bound that was applied: a value below it, NaN included, must have failed its test.
fn threshold_gate(pairs: &[&PairRecord]) -> Verdict {
    let (mut wrong, mut below, mut above) = (Vec::new(), 0u64, 0u64);
    for test in pairs.iter().flat_map(|pair| &pair.tests) {
        for check in test.checks.iter().filter(|check| check.check == "cosine") {
            let (Some(value), Some(bound)) = (check.value, check.bound) else { continue };
            // NaN is not at or above any bound.
            let holds = value.0 >= bound.0;
            if holds {
                above += 1;
            } else {
                below += 1;
            }
            let said_so = (check.outcome == CheckOutcome::Held) == holds;
            let failing = check.outcome == CheckOutcome::Violated
                && check.level == super::record::Level::Fail;
            if !said_so || failing && test.outcome == TestOutcome::Passed {
                wrong.push(format!("{}: {}", test.id, check.message));
            }
        }
    }
    let evidence =
        format!("{above} cosines at or above their bound, {below} below it, each reported so");
    Verdict::new(wrong, if above + below > 0 { vec![evidence] } else { Vec::new() })
}

fn quantize_stats_parity(pairs: &[&PairRecord]) -> Verdict {
    let (mut wrong, mut evidence) = (Vec::new(), Vec::new());
    for pair in pairs {
        let checks = pair.tests.iter().flat_map(|test| &test.checks);
        let (mut count, mut worst) = (0, 0f64);
        for check in checks.filter(|check| check.check == PARITY_CHECK) {
            count += 1;
            if let (Some(value), Some(bound)) = (check.value, check.bound) {
                worst = worst.max((value.0 - bound.0).abs());
            }
            if check.outcome != CheckOutcome::Held {
                wrong.push(format!("{}: {}", pair.id, check.message));
            }
        }
        if count > 0 {
            evidence.push(format!("{}: {count} tensors agree, furthest {worst:.2e}", pair.id));
        }
    }
    Verdict::new(wrong, evidence)
}

/// Round trips of one reference through one family of quantizers, by falling bits per weight.
fn monotone(pairs: &[&PairRecord]) -> Verdict {
    /// Bits per weight, type, Σe², elements.
    type RoundTrip = (f64, TensorType, f64, u64);
    // By reference and family.
    let mut families: BTreeMap<(String, &str), Vec<RoundTrip>> = BTreeMap::new();
    for pair in pairs {
        let (Some(name), Some(global), Some(reference)) =
            (&pair.roundtrip, &pair.global, &pair.reference)
        else {
            continue;
        };
        let Some(ty) = TensorType::from_name(name) else { continue };
        let digests: Vec<&str> =
            reference.files.iter().map(|file| file.header_sha256.as_str()).collect();
        families.entry((digests.join(","), family(ty))).or_default().push((
            ty.bits_per_weight(),
            ty,
            global.sums.ee.0,
            global.numel,
        ));
    }
    let (mut wrong, mut evidence) = (Vec::new(), Vec::new());
    for ((_, family), mut types) in families {
        types.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        types.dedup_by_key(|(_, ty, _, _)| *ty);
        if types.len() < 2 || types.windows(2).any(|two| two[0].3 != two[1].3) {
            continue;
        }
        let chain: Vec<String> =
            types.iter().map(|(_, ty, ee, _)| format!("{ty} Σe²={ee:.6e}")).collect();
        let line = format!("{family}: {}", chain.join(" ≤ "));
        let rises = types.windows(2).all(|two| two[0].0 == two[1].0 || two[0].2 <= two[1].2);
        if rises { evidence.push(line) } else { wrong.push(line) }
    }
    Verdict::new(wrong, evidence)
}

/// What `qualm falsify` found on the specs and models of this run.
fn falsifiable(pairs: &[&PairRecord]) -> Verdict {
    let (mut wrong, mut evidence, mut without) = (Vec::new(), Vec::new(), 0);
    for pair in pairs.iter().filter(|pair| !pair.alone) {
        let Some(found) = &pair.falsified else {
            without += 1;
            continue;
        };
        let counts = &found.counts;
        evidence.push(format!(
            "{}: {} faults of {} kinds: {} killed ({} by the baseline alone), {} allowed, {} \
             without effect",
            pair.id,
            counts.mutants,
            found.faults,
            counts.killed,
            counts.by_baseline_alone,
            counts.allowed,
            counts.no_effect
        ));
        let survivors = found.survivors.iter();
        wrong.extend(survivors.map(|survivor| format!("{}: {survivor} survived", pair.id)));
        if !found.sound {
            wrong.push(format!("{}: nothing was injected, for it did not pass", pair.id));
        }
    }
    if wrong.is_empty() && without > 0 && !evidence.is_empty() {
        let message = format!("{without} of {} pairs were not falsified", pairs.len());
        return Verdict { status: ObligationStatus::NotExercised, evidence: vec![message] };
    }
    Verdict::new(wrong, evidence)
}

/// The quantizers whose types differ in their bit width alone, by the ending of the name.
fn family(ty: TensorType) -> &'static str {
    let name = ty.name();
    match name {
        _ if name.starts_with("IQ") => "IQ",
        _ if name.starts_with("TQ") => "TQ",
        _ if name.ends_with("_K") => "K",
        _ if name.ends_with("_1") => "_1",
        // Q1_0 and Q2_0 are of another make than Q4_0, Q5_0 and Q8_0.
        "Q1_0" | "Q2_0" => "low _0",
        _ if name.ends_with("_0") => "_0",
        _ => name,
    }
}

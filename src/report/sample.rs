/*!
Records of runs for the tests of reports: passed, failed, not judged, ignored, waived, moved, and
names that no format likes.
*/

use crate::metrics::{DB_PER_BIT, Metric, Metrics, piece, rate_distortion_gap, verdict};
use crate::suite::global_row;
use crate::suite::record::*;
use crate::suite::sort_rows;

/// Names that break parsers.
pub const HOSTILE: [&str; 12] = [
    "quote\" and 'apostrophe'",
    "<script>alert(1)</script> & co",
    "cdata ]]> end",
    "\x1b[31mred\x1b[0m and bare \x1b",
    "nul \0 and bell \x07",
    "noncharacters \u{fffe}\u{ffff}",
    "crab 🦀 and é",
    "tab\tline\nfeed\rreturn",
    "pipe | star * `tick` _under_ @mention #1",
    "\u{202e}reversed\u{2028}line",
    "../../etc/passwd; %0A::error::x",
    "  leading and trailing  ",
];

/// A measured tensor of `n` weights with errors of relative size `error`.
pub fn row(name: &str, qtype: &str, n: usize, error: f32) -> TensorRow {
    // Weights that any machine computes alike: a fixed recurrence, no library functions.
    let mut state = 12345u32;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / 8388608.0 - 1.0
    };
    let r: Vec<f32> = (0..n).map(|_| next() * 0.1).collect();
    let q: Vec<f32> = r.iter().map(|&r| r + next() * 0.1 * error).collect();
    let sums = piece(&r, &q);
    let metrics = Metrics::from_moments(&sums).unwrap_or(Metrics::PERFECT);
    let bits = match qtype {
        "Q8_0" => 8.5,
        "Q4_0" => 4.5,
        "Q2_K" => 2.625,
        _ => 16.0,
    };
    TensorRow {
        tensor: name.to_owned(),
        qtype: qtype.to_owned(),
        numel: n as u64,
        rmse: Number(metrics.rmse),
        cosine: Number(metrics.cosine),
        max_abs: Number(metrics.max_abs),
        verdict: verdict(metrics.cosine).to_owned(),
        reference_qtype: "F32".to_owned(),
        shape: vec![n as u64],
        sqnr_db: Number(metrics.sqnr_db),
        expected_sqnr_db: Number(f64::NAN),
        least_cosine: Number(0.95),
        recovered: None,
        rel_rmse: Number(metrics.rel_rmse),
        gain: Number(metrics.gain),
        mean_error: Number(metrics.mean_error),
        bits_per_weight: Number(bits),
        rd_gap_db: Number(rate_distortion_gap(bits, metrics.sqnr_db)),
        wasted_bits: Number(rate_distortion_gap(bits, metrics.sqnr_db) / DB_PER_BIT),
        stored_bytes: (n as f64 * bits / 8.0) as u64,
        nonfinite: 0,
        made_of: None,
        worst_expert: None,
        first_difference: None,
        error: None,
        sums: Some(Sums::from(&sums)),
    }
}

/// A row whose quantized values hold NaN.
pub fn nan_row(name: &str) -> TensorRow {
    let sums = piece(&[1.0, 2.0], &[f32::NAN, 2.0]);
    let nan = Number(f64::NAN);
    TensorRow {
        rmse: nan,
        cosine: nan,
        max_abs: nan,
        verdict: verdict(f64::NAN).to_owned(),
        sqnr_db: nan,
        recovered: None,
        rel_rmse: nan,
        gain: nan,
        mean_error: nan,
        rd_gap_db: nan,
        wasted_bits: nan,
        nonfinite: 1,
        sums: Some(Sums::from(&sums)),
        ..row(name, "Q4_0", 2, 0.0)
    }
}

/// A bound on a metric, held or violated as the metric says.
pub fn check(metric: &str, value: f64, bound: f64) -> CheckRecord {
    let holds = Metric::from_name(metric).is_some_and(|it| it.holds(value, bound));
    CheckRecord {
        check: metric.to_owned(),
        outcome: if holds { CheckOutcome::Held } else { CheckOutcome::Violated },
        level: Level::Fail,
        value: Some(Number(value)),
        bound: Some(Number(bound)),
        message: format!("{metric} {value} against {bound}"),
        source: Some(source(12, 10)),
        reason: None,
        movement: None,
    }
}

/// A check that is about a fact.
pub fn fact(name: &str, outcome: CheckOutcome, message: &str) -> CheckRecord {
    CheckRecord {
        check: name.to_owned(),
        outcome,
        level: Level::Fail,
        value: None,
        bound: None,
        message: message.to_owned(),
        source: None,
        reason: None,
        movement: None,
    }
}

/// A movement.
pub fn movement(old: f64, new: f64, kind: MovementKind) -> Movement {
    Movement { old: Number(old), new: Number(new), kind }
}

/// A place in `specs/minilm.toml`.
pub fn source(line: u64, column: u64) -> Source {
    Source { file: "specs/minilm.toml".to_owned(), line, column }
}

/// A test without checks.
pub fn test(id: &str, outcome: TestOutcome) -> TestRecord {
    let kind = match id.rsplit("::").next() {
        Some("(structure)") => TestKind::Structure,
        Some("(global)") => TestKind::Global,
        Some("(baseline)") => TestKind::Baseline,
        _ => TestKind::Tensor,
    };
    TestRecord {
        id: id.to_owned(),
        kind,
        outcome,
        reason: None,
        checks: Vec::new(),
        settled: None,
        diagnosis: None,
    }
}

/// A test that passed or failed as its checks say, with the reason that the run gives it.
pub fn judged(id: &str, checks: Vec<CheckRecord>) -> TestRecord {
    let failing = checks
        .iter()
        .find(|it| it.outcome == CheckOutcome::Violated && it.level == Level::Fail)
        .map(|it| it.message.clone());
    let outcome = if failing.is_some() { TestOutcome::Failed } else { TestOutcome::Passed };
    TestRecord { reason: failing, checks, ..test(id, outcome) }
}

/// A pair with these rows and tests.
pub fn pair(spec: &str, name: &str, rows: Vec<TensorRow>, tests: Vec<TestRecord>) -> PairRecord {
    let global = global_row(&rows);
    let mut tensors = rows;
    sort_rows(&mut tensors);
    let bits = tensors.first().map_or(f64::NAN, |row| row.bits_per_weight.0);
    PairRecord {
        id: format!("{spec}::{name}"),
        name: name.to_owned(),
        description: None,
        tags: vec!["gguf".to_owned()],
        source: source(8, 1),
        reference: Some(model("models/minilm-f32.safetensors", "safetensors", &tensors, 32.0)),
        quantized: Some(model(&format!("models/minilm-{name}.gguf"), "gguf", &tensors, bits)),
        seconds: 1.25,
        alone: false,
        roundtrip: None,
        error: None,
        error_tensors: Vec::new(),
        diagnosis: None,
        global,
        findings: Vec::new(),
        tensors,
        tests,
        baseline: BaselineRecord::default(),
        sample: None,
        falsified: None,
        examined: Vec::new(),
        notes: Vec::new(),
    }
}

fn model(path: &str, format: &str, rows: &[TensorRow], bits: f64) -> ModelRecord {
    let parameters: u64 = rows.iter().map(|row| row.numel).sum();
    ModelRecord {
        path: path.to_owned(),
        name: None,
        format: format.to_owned(),
        files: vec![FileRecord {
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
            size: parameters * 4,
            header_sha256: "0f".repeat(32),
            revision: None,
        }],
        tensors: rows.len() as u64,
        parameters,
        bytes: (parameters as f64 * bits / 8.0) as u64,
        bits_per_weight: Number(bits),
        types: types(format, rows),
    }
}

/// The types of the quantized side; the reference is of one type.
fn types(format: &str, rows: &[TensorRow]) -> Vec<TypeRecord> {
    let mut types: Vec<TypeRecord> = Vec::new();
    for row in rows {
        let (qtype, bytes) = if format == "gguf" {
            (row.qtype.as_str(), row.stored_bytes)
        } else {
            ("F32", row.numel * 4)
        };
        match types.iter_mut().find(|it| it.qtype == qtype) {
            Some(known) => {
                *known = TypeRecord {
                    tensors: known.tensors + 1,
                    bytes: known.bytes + bytes,
                    ..known.clone()
                }
            }
            None => types.push(TypeRecord { qtype: qtype.to_owned(), tensors: 1, bytes }),
        }
    }
    types.sort_by_key(|it| std::cmp::Reverse(it.bytes));
    types
}

/// A spec with these pairs.
pub fn spec(name: &str, pairs: Vec<PairRecord>) -> SpecRecord {
    SpecRecord {
        name: name.to_owned(),
        path: format!("specs/{name}.toml"),
        sha256: "ab".repeat(32),
        description: Some("all-MiniLM-L6-v2, block 0".to_owned()),
        tags: vec!["release".to_owned()],
        pairs,
    }
}

/// A run over these specs, its counts in order.
pub fn run(specs: Vec<SpecRecord>) -> Contract {
    let mut summary = Summary { filtered_out: 3, ..Summary::default() };
    for test in specs.iter().flat_map(|spec| &spec.pairs).flat_map(|pair| &pair.tests) {
        summary.tests += 1;
        match test.outcome {
            TestOutcome::Passed => summary.passed += 1,
            TestOutcome::Failed => summary.failed += 1,
            TestOutcome::Error => summary.errors += 1,
            TestOutcome::Ignored => summary.ignored += 1,
        }
        let warned =
            |it: &&CheckRecord| it.level == Level::Warn && it.outcome == CheckOutcome::Violated;
        summary.warnings += test.checks.iter().filter(warned).count() as u64;
        summary.gates.add(&test.gates());
    }
    let (verdict, exit_code) = match (summary.errors, summary.failed) {
        (0, 0) => (Verdict::Passed, 0),
        (0, _) => (Verdict::Failed, 101),
        _ => (Verdict::Error, 6),
    };
    Contract {
        schema: SCHEMA,
        harness: Harness { name: "qualm".to_owned(), version: "0.1.0".to_owned() },
        time: Some(Time { started: "2026-11-23T09:30:00Z".to_owned(), seconds: 0.214 }),
        partition: None,
        verdict,
        exit_code,
        summary,
        obligations: obligations(),
        specs,
    }
}

fn obligations() -> Vec<Obligation> {
    [
        ("FALSIFY-CRUX-B-20-001", "rows are sorted by RMSE", ObligationStatus::Held),
        ("FALSIFY-CRUX-B-20-002", "below the threshold is not 0", ObligationStatus::Violated),
        ("monotone", "fewer bits, no less error", ObligationStatus::NotExercised),
    ]
    .map(|(id, rule, status)| Obligation {
        id: id.to_owned(),
        rule: rule.to_owned(),
        status,
        evidence: vec!["minilm::q4_0 <6 rows> | [x]".to_owned()],
    })
    .to_vec()
}

/// Some of everything.
pub fn contract() -> Contract {
    run(vec![
        spec("minilm", vec![quantized(), gone(), clean()]),
        spec("dir/hostile.v2", vec![hostile()]),
    ])
}

/// A run in which everything passed.
pub fn passing() -> Contract {
    run(vec![spec("minilm", vec![clean()])])
}

fn clean() -> PairRecord {
    let id = |part: &str| format!("minilm::q8_0::{part}");
    let rows = vec![
        row("blk.0.attn_q.weight", "Q8_0", 256, 0.004),
        row("blk.0.ffn_down.weight", "Q8_0", 256, 0.005),
    ];
    let tests = vec![
        judged(&id("(structure)"), vec![fact("quantized", CheckOutcome::Held, "2 of 2 tensors")]),
        judged(&id("blk.0.attn_q.weight"), vec![check("cosine", 0.99999, 0.9999)]),
        judged(&id("blk.0.ffn_down.weight"), vec![check("cosine", 0.99998, 0.9999)]),
        judged(&id("(global)"), vec![check("cosine", 0.99999, 0.9999)]),
    ];
    pair("minilm", "q8_0", rows, tests)
}

fn gone() -> PairRecord {
    let reason = "models/gone.gguf: no such file; check the path";
    let mut missing = test("minilm::gone::(structure)", TestOutcome::Error);
    missing.reason = Some(reason.to_owned());
    PairRecord {
        reference: None,
        quantized: None,
        error: Some(reason.to_owned()),
        ..pair("minilm", "gone", Vec::new(), vec![missing])
    }
}

fn quantized() -> PairRecord {
    let id = |part: &str| format!("minilm::q4_0::{part}");
    let rows = vec![
        row("token_embd.weight", "Q4_0", 512, 0.35),
        row("blk.0.attn_q.weight", "Q4_0", 256, 0.05),
        row("blk.0.attn_norm.weight", "F32", 32, 0.0),
        row("blk.0.ffn_down.weight", "Q4_0", 256, 0.2),
        nan_row("blk.0.attn_nan.weight"),
    ];
    let mut held = check("cosine", 0.9991, 0.99);
    held.movement = Some(movement(0.9991, 0.9991, MovementKind::Same));
    let mut skipped = test(&id("blk.0.attn_rot_embd"), TestOutcome::Ignored);
    skipped.reason = Some("rotary table, not a weight".to_owned());
    let nan = "1 NaN or infinite values in the quantized tensor (blk.0.attn_nan.weight, Q4_0)";
    let tests = vec![
        judged(
            &id("(structure)"),
            vec![
                fact(
                    "missing",
                    CheckOutcome::Violated,
                    "blk.1.attn_k.weight: only in the reference",
                ),
                fact(
                    "extra",
                    CheckOutcome::Held,
                    "rope_freqs: only in the quantized model, allowed",
                ),
            ],
        ),
        judged(&id("token_embd.weight"), vec![waived()]),
        judged(&id("blk.0.attn_q.weight"), vec![held]),
        judged(&id("blk.0.ffn_down.weight"), violated()),
        TestRecord {
            diagnosis: Some(Diagnosis::certain(Cause::NanScale, "the scale of block 0 is NaN")),
            ..judged(
                &id("blk.0.attn_nan.weight"),
                vec![fact("finite", CheckOutcome::Violated, nan)],
            )
        },
        skipped,
        judged(&id("(global)"), vec![check("cosine", 0.9951, 0.98)]),
        judged(
            &id("(baseline)"),
            vec![fact(
                "baseline",
                CheckOutcome::Violated,
                "worse than snapshots/minilm__q4_0.snap: blk.0.ffn_down.weight cosine",
            )],
        ),
    ];
    let mut pair = pair("minilm", "q4_0", rows, tests);
    pair.description = Some("the oldest 4-bit type".to_owned());
    pair.notes.push("quantized: file_type says Q4_1".to_owned());
    pair.findings = vec![
        finding("missing", "blk.1.attn_k.weight", "only in the reference", false),
        finding("extra", "rope_freqs", "only in the quantized model", true),
    ];
    pair.baseline = BaselineRecord {
        status: BaselineStatus::Changed,
        path: Some("snapshots/minilm__q4_0.snap".to_owned()),
        pending: Some("snapshots/minilm__q4_0.snap.new".to_owned()),
        sqnr_db: Some(movement(27.5, 14.2, MovementKind::Worse)),
        changes: vec!["blk.0.ffn_down.weight: cosine 0.99512 -> 0.9812".to_owned()],
    };
    pair
}

fn waived() -> CheckRecord {
    CheckRecord {
        outcome: CheckOutcome::Waived,
        message: "cosine 0.931000 < 0.990000 (token_embd.weight, Q4_0); waived down to 0.9"
            .to_owned(),
        source: Some(source(20, 3)),
        reason: Some("tied embeddings, issue 42".to_owned()),
        ..check("cosine", 0.931, 0.99)
    }
}

fn violated() -> Vec<CheckRecord> {
    let failed = CheckRecord {
        message: "cosine 0.981200 < 0.990000 (blk.0.ffn_down.weight, Q4_0)".to_owned(),
        reason: Some("small GQA projections".to_owned()),
        movement: Some(movement(0.99512, 0.9812, MovementKind::Worse)),
        ..check("cosine", 0.9812, 0.99)
    };
    let warned = CheckRecord {
        level: Level::Warn,
        message: "sqnr_db 14.20 < 20.00 (blk.0.ffn_down.weight, Q4_0)".to_owned(),
        source: Some(source(13, 10)),
        ..check("sqnr_db", 14.2, 20.0)
    };
    vec![failed, warned]
}

fn hostile() -> PairRecord {
    let prefix = "dir/hostile.v2::names.x";
    let rows = HOSTILE.iter().map(|name| row(name, "Q4_0", 64, 0.5)).collect();
    let tests = HOSTILE
        .iter()
        .map(|name| {
            let mut bad = check("cosine", 0.7, 0.95);
            bad.message = format!("cosine 0.700000 < 0.950000 ({name}, Q4_0)");
            bad.reason = Some(format!("because of {name}"));
            judged(&format!("{prefix}::{name}"), vec![bad])
        })
        .collect();
    let mut pair = pair("dir/hostile.v2", "names.x", rows, tests);
    pair.description = Some("\x1b[1mbold\x1b[0m <b>]]>".to_owned());
    pair.findings = HOSTILE.iter().map(|name| finding("extra", name, name, true)).collect();
    pair
}

/// Something that does not fit.
pub fn finding(kind: &str, tensor: &str, message: &str, allowed: bool) -> FindingRecord {
    FindingRecord {
        kind: kind.to_owned(),
        tensor: tensor.to_owned(),
        message: message.to_owned(),
        allowed,
    }
}

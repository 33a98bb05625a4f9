/*! What specs say is done: waivers, skips, renames, groups, importance, folds, printed statistics. */

use std::fs;

use serde_json::Value;

use crate::program::*;

const A: &[u64] = &[8, 64];

/// A matrix, and one that has lost some of its accuracy: its cosine is about 0.98.
fn worn() -> (Vec<f32>, Vec<f32>) {
    let mut random = Random(11);
    let r = random.normals(512);
    let q = r.iter().map(|value| value + 0.2 * random.normal()).collect();
    (r, q)
}

/// A suite of `a` (worn) and `b` (rounded only), with the integrity gates off.
fn suite(lines: &str) -> Suite {
    let suite = Suite::new();
    let (r, q) = worn();
    suite.models(
        &[("a", "F32", A, f32s(&r)), ("b", "F32", A, f32s(&r))],
        &[("a", "BF16", A, bf16s(&q)), ("b", "BF16", A, bf16s(&r))],
    );
    suite.spec(&format!("{OFF}\n{lines}"));
    suite
}

/// What this file is not about.
const OFF: &str = "integrity = { conversion = \"off\", column = \"off\", displaced = \"off\", scales = \"off\", finite = \"off\", gain = \"off\", offset = \"off\", sqnr_expected = \"off\", worst_row = \"off\", worst_block = \"off\", zero = \"off\", companion = \"off\", quantized = \"off\", reason = \"tests of other things\" }\nthresholds.tensor.cosine = 0.99";

fn outcome(contract: &Value, id: &str) -> Value {
    let specs = contract["specs"].as_array().unwrap().iter();
    let pairs = specs.flat_map(|spec| spec["pairs"].as_array().unwrap());
    let mut tests = pairs.flat_map(|pair| pair["tests"].as_array().unwrap());
    tests.find(|test| test["id"] == id).unwrap_or_else(|| panic!("no {id}"))["outcome"].clone()
}

#[test]
fn waivers_excuse_down_to_their_floor_and_until_their_day() {
    let waive = |tensors: &str, floor: f64, until: &str| {
        format!(
            "[[pair.waive]]\ntensors = \"{tensors}\"\ncosine = {floor}\nreason = \"known\"\nuntil = {until}"
        )
    };
    for (lines, code, says, why) in [
        (String::new(), 101, "< 0.990000 (a, BF16)", "no waiver"),
        (waive("a", 0.95, "2999-12-31"), 0, "", "a live one"),
        (waive("a", 0.985, "2999-12-31"), 101, "< 0.990000", "below the floor"),
        (waive("a", 0.95, "2020-01-01"), 101, "expired on 2020-01-01", "an old one"),
        (
            format!("{}\n{}", waive("a", 0.95, "2999-12-31"), waive("b", 0.5, "2999-12-31")),
            0,
            "the waiver is not needed: every tensor holds its normal bound",
            "an unused one is warned of",
        ),
    ] {
        let suite = suite(&lines);
        let ran = suite.qualm(&["run", "--no-baseline"]).exits(code).says(says);
        if why.contains("unused") {
            assert!(ran.err.contains("warning: "), "{ran}");
            assert!(ran.err.contains("specs/s.toml:"), "{ran}");
            let strict = suite.qualm(&["run", "--no-baseline", "--fail-level", "warn"]);
            strict.exits(101).says("the waiver is not needed");
        }
        if why == "an old one" {
            assert!(ran.err.contains("warning"), "{ran}");
        }
    }
}

#[test]
fn a_rule_that_decides_nothing_is_warned_of() {
    let rule = |tensors: &str| format!("[[pair.rule]]\ntensors = \"{tensors}\"\ncosine = 0.9\n");
    let suite = suite(&format!("{}{}", rule("*"), rule("a")));
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(0);
    assert!(ran.err.contains("the rule decides nothing"), "{ran}");
    // The other way round both are of use.
    suite.spec(&format!("{OFF}\n{}{}", rule("a"), rule("*")));
    assert!(suite.qualm(&["run", "--no-baseline"]).exits(0).err.is_empty());
}

#[test]
fn skipped_tensors_are_ignored_with_their_reason_and_can_be_asked_for() {
    let suite = suite("skip = { tensors = \"a\", reason = \"not of interest\" }");
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(0);
    ran.says("test s::p::a ... ignored, not of interest").says("1 ignored");
    assert_eq!(outcome(&suite.contract(), "s::p::a"), "ignored");
    suite.qualm(&["run", "--no-baseline", "--ignored"]).exits(101);
    suite.qualm(&["run", "--no-baseline", "--include-ignored"]).exits(101);
}

#[test]
fn names_are_rewritten_in_order_before_anything_is_looked_up() {
    let suite = Suite::new();
    let (r, _) = worn();
    suite.models(
        &[("model.layers.0.q.weight", "F32", A, f32s(&r))],
        &[("blk.0.attn_q.weight", "BF16", A, bf16s(&r))],
    );
    suite.spec("rename = [{ from = '^blk\\.(\\d+)\\.', to = 'model.layers.${1}.' }, { from = 'attn_q', to = 'q' }]");
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(0);
    ran.says("test s::p::model.layers.0.q.weight ... ok");
    suite.spec("rename = { from = '^.*$', to = 'x' }");
    suite.qualm(&["run", "--no-baseline"]).exits(6).says("no tensor is in both models");
}

#[test]
fn two_tensors_of_one_renamed_name_are_a_failure() {
    let suite = suite("rename = { from = '^[ab]$', to = 'a' }\nallow_missing = \"b\"");
    suite.qualm(&["run", "--no-baseline"]).exits(101).says("both answer to it");
}

#[test]
fn a_group_passes_by_the_fraction_of_its_tensors() {
    let group = |fraction: f64| {
        format!(
            "thresholds.tensor.cosine = 0.5\n[[pair.group]]\ntensors = \"*\"\ncosine = 0.99\nmin_pass_fraction = {fraction}\nreason = \"half may be worn\""
        )
    };
    let off = OFF.replace("\nthresholds.tensor.cosine = 0.99", "");
    for (fraction, code) in [(0.5, 0), (0.51, 101), (1.0, 101)] {
        let suite = suite("");
        suite.spec(&format!("{off}\n{}", group(fraction)));
        let ran = suite.qualm(&["run", "--no-baseline"]).exits(code);
        if code != 0 {
            let text =
                format!("1 of 2 tensors hold cosine 0.99, {fraction} of them must (beyond: a)");
            ran.says(&text).says("half may be worn");
            assert_eq!(outcome(&suite.contract(), "s::p::(global)"), "failed");
            assert_eq!(outcome(&suite.contract(), "s::p::a"), "passed");
        }
    }
    // A tensor that holds NaN holds no bound of a group either.
    let suite = suite("");
    let (r, _) = worn();
    suite.models(
        &[("a", "F32", A, f32s(&r)), ("b", "F32", A, f32s(&r))],
        &[("a", "BF16", A, bf16s(&[f32::NAN; 512])), ("b", "BF16", A, bf16s(&r))],
    );
    suite.spec(&format!("{off}\n{}", group(1.0)));
    suite.qualm(&["run", "--no-baseline"]).exits(101).says("1 of 2 tensors hold cosine 0.99");
}

#[test]
fn environment_variables_in_paths_are_filled_in_or_missed() {
    let suite = suite("");
    let text = suite.read("specs/s.toml").replace("../q.safetensors", "${QUANTS}/q.safetensors");
    suite.write("specs/s.toml", text);
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(3);
    let ran = ran.says("the environment variable `QUANTS` is not set");
    assert!(ran.err.contains('^'), "a caret below the place: {ran}");
    let mut with = command(suite.path());
    with.args(["run", "--no-baseline"]).env("QUANTS", suite.path());
    assert_eq!(run(&mut with).code, 101, "the worn tensor fails, but it was found");
    // Reports keep the variable, so that they are the same on every machine.
    let contract = suite.contract();
    let path = &contract["specs"][0]["pairs"][0]["quantized"]["path"];
    assert_eq!(path, "${QUANTS}/q.safetensors");
}

#[test]
fn environment_variables_in_names_and_tags_are_filled_in_or_missed() {
    let suite = suite("tags = [\"${BUILD}\", \"{bits}\"]");
    let text = suite.read("specs/s.toml").replace("\"p\"", "\"p-${BUILD}\"");
    suite.write("specs/s.toml", &text);
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(3);
    ran.says("the environment variable `BUILD` is not set").says("set it: BUILD=… qualm");
    let with = |value: &str, arguments: &[&str]| {
        run(command(suite.path()).args(arguments).env("BUILD", value))
    };
    with("b7", &["run", "--list", "--tag", "b7"]).exits(0).says("s::p-b7");
    with("b8", &["run", "--no-baseline", "--tag", "b7"]).exits(4);
    with("b7", &["run", "--no-baseline", "--tag", "b7"]).exits(101).says("s::p-b7::a");
    assert_eq!(
        suite.contract()["specs"][0]["pairs"][0]["tags"],
        serde_json::json!(["b7", "{bits}"])
    );
    with("a::b", &["run"]).exits(3).says("must not hold `::`");
    suite.write("specs/s.toml", text.replace("${BUILD}", "$${BUILD}"));
    suite.qualm(&["run", "--list", "--tag", "${BUILD}"]).exits(0).says("s::p-${BUILD}");
}

#[test]
fn all_problems_of_a_spec_are_reported_at_once_with_their_places() {
    let suite = suite("");
    suite.write(
        "specs/s.toml",
        "schema = 1\ntresholds = 1\n[[pair]]\nname = \"p\"\nreference = \"../r.safetensors\"\n\
         quantized = \"../q.safetensors\"\nthresholds.tensor.cosine = nan\n\
         thresholds.tensor.rmse = -1\nskip = { tensors = \"[\", reason = \"\" }\n",
    );
    suite.write("specs/t.toml", "schema = 1\npair = 3\n");
    let ran = suite.qualm(&["run"]).exits(3);
    for text in [
        "specs/s.toml:2:1",
        "did you mean `thresholds`?",
        "specs/s.toml:7:28",
        "specs/s.toml:8:26",
        "specs/s.toml:9:20",
        "specs/t.toml:2:8",
        "thresholds.tensor.cosine = nan",
        "^",
    ] {
        assert!(ran.err.contains(text), "{text:?} in {ran}");
    }
    assert!(ran.out.is_empty(), "nothing was run: {ran}");
    assert!(!suite.path().join("target").exists(), "nothing was written");
}

#[test]
fn an_id_that_is_there_twice_is_an_error_with_both_places() {
    let suite = suite(
        "[[pair]]\nname = \"p\"\nreference = \"../r.safetensors\"\nquantized = \"../q.safetensors\"",
    );
    let ran = suite.qualm(&["run"]).exits(3).says("two pairs are called `p`");
    assert!(ran.err.matches("s.toml:").count() >= 1, "{ran}");
    // Two roots may hold specs of one name.
    let suite = self::suite("");
    let text = suite.read("specs/s.toml");
    suite.write("more/s.toml", text);
    let ran = suite.qualm(&["run", "--spec", "specs", "--spec", "more"]).exits(3);
    ran.says("the id s::p is there twice").says("specs/s.toml:3:8").says("more/s.toml:3:8");
}

#[test]
fn explain_says_what_was_applied() {
    let suite = suite(
        "thresholds.tensor.rmse = { fail = 0.5, warn = 0.1 }\nthresholds.global.sqnr_db = 3\n\
         [[pair.rule]]\ntensors = \"a\"\ncosine = 0.97\nmax_abs = 2.5\nreason = \"known to be worn\"\n\
         [[pair.rule]]\ntensors = [\"a\", \"b\"]\nmax_abs = 0.25\ngain = 0.5\n\
         [[pair.waive]]\ntensors = \"a\"\nrmse = 0.9\nreason = \"later\"\nuntil = 2999-01-01",
    );
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    let embedded = qualm(
        &repository(""),
        &["run", "--no-baseline", "minilm-attention", "--out-dir", arg(&suite.path().join("out"))],
    );
    embedded.exits(0);
    let ours = suite.contract();
    let theirs: Value = serde_json::from_str(&suite.read("out/contract.json")).unwrap();
    let mut bounds = 0;
    for (contract, directory, most) in
        [(ours, suite.path().to_owned(), 10), (theirs, repository(""), 12)]
    {
        let specs = contract["specs"].as_array().unwrap().iter();
        let pairs = specs.flat_map(|spec| spec["pairs"].as_array().unwrap());
        let tests: Vec<&Value> = pairs.flat_map(|pair| pair["tests"].as_array().unwrap()).collect();
        // A sample, evenly spaced: each costs a process.
        for test in tests.iter().step_by((tests.len() / most).max(1)) {
            let id = test["id"].as_str().unwrap();
            let explained = qualm(&directory, &["explain", id]).exits(0).out;
            for check in test["checks"].as_array().unwrap() {
                let metrics = ["cosine", "sqnr_db", "rmse", "rel_rmse", "max_abs", "gain"];
                let metric = check["check"].as_str().unwrap();
                let (Some(bound), true) = (check["bound"].as_f64(), metrics.contains(&metric))
                else {
                    continue;
                };
                bounds += 1;
                let source = &check["source"];
                let place = format!(
                    "{}:{}:{}",
                    source["file"].as_str().unwrap(),
                    source["line"],
                    source["column"]
                );
                let level = check["level"].as_str().unwrap();
                let line = explained
                    .lines()
                    .find(|line| line.trim_start().starts_with(&format!("{metric} ")));
                let line = line.unwrap_or_else(|| panic!("{id} {metric}: {explained}"));
                let sign = format!("{level} unless ");
                let number = line.split(&sign).nth(1);
                let number = number.unwrap_or_else(|| panic!("{id} {metric}: {line}"));
                let number = number.trim_start_matches("within 1 +- ");
                let number = number.trim_start_matches([' ', '>', '<', '=']);
                let number = number.split([',', ' ']).next().unwrap();
                assert_eq!(number.parse::<f64>().unwrap(), bound, "{id} {metric}: {line}");
                assert!(line.ends_with(&place), "{id}: {line} is not at {place}");
            }
        }
    }
    assert!(bounds >= 20, "{bounds} bounds were looked at");
    let explained = suite.qualm(&["explain", "s::p::a"]).exits(0);
    explained.says("rule 1: known to be worn").says("waived down to 0.9 until 2999-01-01: later");
    suite.qualm(&["explain", "s::x::a"]).exits(4).says("s::p::…");
}

/// The mean square of each column plus 1e-8, all in f32, row after row: what the golden files used.
fn column_weights(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0f32; columns];
    for row in values.chunks_exact(columns) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x * x;
        }
    }
    let rows = (values.len() / columns) as f32;
    sums.iter().map(|sum| sum / rows + 1e-8).collect()
}

/// Name, shape and values of the tensors of a safetensors file of F32.
fn read_f32(path: &std::path::Path) -> Vec<(String, Vec<u64>, Vec<f32>)> {
    let bytes = fs::read(path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let entries = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    entries
        .map(|(name, entry)| {
            let at =
                |index: usize| entry["data_offsets"][index].as_u64().unwrap() as usize + 8 + len;
            let values = bytes[at(0)..at(1)].as_chunks::<4>().0;
            let values = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
            (name.clone(), serde_json::from_value(entry["shape"].clone()).unwrap(), values)
        })
        .collect()
}

#[test]
fn round_trips_by_importance_are_ggmls() {
    let suite = Suite::new();
    let reference = data("ggml/reference.safetensors");
    let tensors = read_f32(&reference);
    assert_eq!(tensors.len(), 2);
    let weights: Vec<(String, Vec<u64>, Vec<f32>)> = tensors
        .iter()
        .map(|(name, shape, values)| {
            let columns = shape[1] as usize;
            (name.clone(), vec![columns as u64], column_weights(values, columns))
        })
        .collect();
    let stored: Vec<Stored> = weights
        .iter()
        .map(|(name, shape, values)| (&**name, "F32", &**shape, f32s(values)))
        .collect();
    suite.write("imatrix.safetensors", safetensors(&stored));
    let expected: Value =
        serde_json::from_slice(&fs::read(data("ggml/expected.json")).unwrap()).unwrap();
    let spec = "schema = 1\n[integrity]\nsqnr_expected = \"off\"\nreason = \"x\"\n".to_owned();
    let types: Vec<&String> = expected.as_object().unwrap().keys().collect();
    let with_matrix = |ty: &str| -> bool {
        let tensors = expected[ty].get("tensors").unwrap_or(&expected[ty]);
        let one = tensors.as_object().unwrap().values().find(|value| value.is_object()).unwrap();
        one.get("imatrix").or(expected[ty].get("imatrix")) == Some(&Value::Bool(true))
    };
    let types: Vec<&&String> = types.iter().filter(|ty| with_matrix(ty)).collect();
    assert_eq!(types.len(), 5, "the types that need a matrix: {types:?}");
    let pair = |ty: &&&String| {
        format!(
            "[[pair]]\nname = \"{ty}\"\nreference = {reference:?}\nroundtrip = \"{ty}\"\nimatrix = \"../imatrix.safetensors\"\n"
        )
    };
    let spec = spec + &types.iter().map(pair).collect::<String>();
    suite.write("specs/s.toml", spec);
    suite.qualm(&["run", "--no-baseline"]);
    let contract = suite.contract();
    let pairs = contract["specs"][0]["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), types.len());
    for pair in pairs {
        let ty = pair["name"].as_str().unwrap();
        assert_eq!(pair["error"], Value::Null);
        let published = expected[ty].get("tensors").unwrap_or(&expected[ty]);
        for row in pair["tensors"].as_array().unwrap() {
            let published = &published[row["tensor"].as_str().unwrap()];
            for metric in ["rmse", "cosine", "max_abs"] {
                let (a, b) = (row[metric].as_f64().unwrap(), published[metric].as_f64().unwrap());
                assert!((a - b).abs() <= 1e-9 * b.abs(), "{ty} {metric}: {a} is not {b}");
            }
        }
    }
}

#[test]
fn an_importance_matrix_that_does_not_fit_is_no_pass() {
    let (r, _) = worn();
    let wide: &[u64] = &[2, 256];
    for (name, columns, ty, says) in [
        ("a", 200, "q4_0", "the importance matrix has 200 columns, which do not fit [2, 256]"),
        ("other", 256, "iq2_xs", "the importance matrix has nothing for it, and IQ2_XS needs it"),
    ] {
        let suite = Suite::new();
        suite.write("r.safetensors", safetensors(&[("a", "F32", wide, f32s(&r))]));
        let weights = f32s(&vec![1.0; columns]);
        suite.write("i.safetensors", safetensors(&[(name, "F32", &[columns as u64], weights)]));
        suite.write("specs/s.toml", format!("schema = 1\n[[pair]]\nname = \"p\"\nreference = \"../r.safetensors\"\nroundtrip = \"{ty}\"\nimatrix = \"../i.safetensors\"\n"));
        suite.qualm(&["run", "--no-baseline"]).exits(101).says(says);
    }
    let suite = Suite::new();
    suite.write("r.safetensors", safetensors(&[("a", "F32", wide, f32s(&r))]));
    suite.write("specs/s.toml", "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"../r.safetensors\"\nroundtrip = \"q4_0\"\nimatrix = \"../gone.gguf\"\n");
    suite.qualm(&["run", "--no-baseline"]).exits(6).says("gone.gguf");
}

fn obligation(contract: &Value, id: &str) -> Value {
    let mut all = contract["obligations"].as_array().unwrap().iter();
    all.find(|it| it["id"] == id).unwrap_or_else(|| panic!("no {id}")).clone()
}

#[test]
fn parity_with_llama_quantize_stats_is_held_with_evidence_and_can_fail() {
    let model = repository("specs/models/minilm-block0-f16.gguf");
    let printed =
        fs::read_to_string(repository("specs/models/minilm-block0.quantize-stats.txt")).unwrap();
    let suite = Suite::new();
    suite.write("specs/s.toml", format!("schema = 1\n[[pair]]\nname = \"p\"\nreference = {model:?}\nroundtrip = \"q4_0\"\nquantize_stats = \"../stats.txt\"\n"));
    suite.write("stats.txt", &printed);
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    let held = obligation(&suite.contract(), "FALSIFY-CRUX-B-20-003");
    assert_eq!(held["status"], "held");
    assert!(held["evidence"][0].as_str().unwrap().contains("6 tensors agree"), "{held}");
    // Off by more than 1e-5 in one tensor.
    let line = printed.lines().find(|line| line.starts_with("q4_0::blk.0.attn_q")).unwrap();
    let rmse = line.split("rmse ").nth(1).unwrap().split(',').next().unwrap();
    let off = line.replace(rmse, &format!("{:.8}", rmse.parse::<f64>().unwrap() + 1.1e-5));
    suite.write("stats.txt", printed.replace(line, &off));
    suite.qualm(&["run", "--no-baseline"]).exits(101).says("llama-quantize-stats");
    let violated = obligation(&suite.contract(), "FALSIFY-CRUX-B-20-003");
    assert_eq!(violated["status"], "violated");
    assert!(violated["evidence"][0].as_str().unwrap().contains("attn_q"), "{violated}");
    suite.write("stats.txt", printed.replace("blk.0", "blk.7"));
    suite.qualm(&["run", "--no-baseline"]).exits(101).says("names no tensor of the reference");
    suite.write("stats.txt", "nothing");
    suite.qualm(&["run", "--no-baseline"]).exits(6).says("holds no line of llama-quantize-stats");
    let text = suite.read("specs/s.toml").replace("quantize_stats = \"../stats.txt\"\n", "");
    suite.write("specs/s.toml", text);
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    let open = obligation(&suite.contract(), "FALSIFY-CRUX-B-20-003");
    assert_eq!(open["status"], "not_exercised");
}

#[test]
fn the_error_must_fall_with_more_bits_and_is_seen_not_to() {
    let suite = Suite::new();
    let pair = |name: &str| {
        format!(
            "[[pair]]\nname = \"{name}\"\nreference = \"../r.safetensors\"\nroundtrip = \"{name}\"\n"
        )
    };
    suite.write(
        "specs/s.toml",
        format!("schema = 1\n{OFF}\n{}{}", pair("q4_0"), pair("q8_0"))
            .replace("thresholds.tensor.cosine = 0.99", ""),
    );
    suite.write("r.safetensors", safetensors(&[("a", "F32", A, f32s(&worn().0))]));
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    let held = obligation(&suite.contract(), "monotone");
    assert_eq!(held["status"], "held", "{held}");
    // Values of the four-bit lattice, which the eight-bit one does not hold.
    let lattice: Vec<f32> =
        (0..512).map(|i| if i % 32 == 0 { -8.0 } else { (i % 16) as f32 - 8.0 }).collect();
    suite.write("r.safetensors", safetensors(&[("a", "F32", A, f32s(&lattice))]));
    suite.qualm(&["run", "--no-baseline"]);
    let violated = obligation(&suite.contract(), "monotone");
    assert_eq!(violated["status"], "violated", "{violated}");
}

/// A norm, a weight behind it with its columns multiplied, and another whose columns may be.
struct Folded {
    norm: Vec<f32>,
    divided: Vec<f32>,
    factors: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
}

impl Folded {
    const NORM: &str = "model.layers.0.input_layernorm.weight";
    const Q: &str = "model.layers.0.self_attn.q_proj.weight";
    const K: &str = "model.layers.0.self_attn.k_proj.weight";

    fn new() -> Self {
        let mut random = Random(3);
        let [q, k] = [2048, 2048].map(|len| random.normals(len));
        let norm: Vec<f32> = random.normals(64).iter().map(|value| value.abs() + 0.5).collect();
        let factors: Vec<f32> = random.normals(64).iter().map(|it| (it * 0.5).exp()).collect();
        let divided = norm.iter().zip(&factors).map(|(value, factor)| value / factor).collect();
        Self { norm, divided, factors, q, k }
    }

    /// Values with every column multiplied by its factor.
    fn multiplied(&self, values: &[f32]) -> Vec<f32> {
        values.iter().enumerate().map(|(i, value)| value * self.factors[i % 64]).collect()
    }

    fn write(&self, suite: &Suite, norm: &[f32], q: &[f32], k: &[f32]) {
        let (shape, vector): (&[u64], &[u64]) = (&[32, 64], &[64]);
        suite.models(
            &[
                (Self::NORM, "F32", vector, f32s(&self.norm)),
                (Self::Q, "F32", shape, f32s(&self.q)),
                (Self::K, "F32", shape, f32s(&self.k)),
            ],
            &[
                (Self::NORM, "F32", vector, f32s(norm)),
                (Self::Q, "BF16", shape, bf16s(q)),
                (Self::K, "BF16", shape, bf16s(k)),
            ],
        );
    }
}

#[test]
fn scales_folded_into_a_norm_are_taken_out_where_they_cancel() {
    let suite = Suite::new();
    let it = Folded::new();
    let (q, k) = (it.multiplied(&it.q), it.multiplied(&it.k));
    it.write(&suite, &it.divided, &q, &k);
    let says = format!("scales of 64 columns are folded out of {}", Folded::K);
    let diff = suite.qualm(&["diff", "r.safetensors", "q.safetensors"]).exits(5);
    diff.says(&says).says("no damage by itself");
    suite.spec("thresholds.tensor.cosine = 0.9999");
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    let notes = suite.contract()["specs"][0]["pairs"][0]["notes"].to_string();
    assert!(notes.contains("taken out"), "{notes}");
    let check = || suite.qualm(&["check", "r.safetensors", "q.safetensors"]);
    check().exits(0);
    // Damage beside a fold is still damage.
    let mut row = q.clone();
    row[..64].fill(3.0);
    it.write(&suite, &it.divided, &row, &k);
    check().exits(5).says(Folded::Q);
    // A weight that was left out computes something else, and so does one column of another factor.
    it.write(&suite, &it.divided, &q, &it.k);
    check().exits(5).says("fold: ").says(&format!("and not, or not all, out of {}", Folded::K));
    let mut one = it.divided.clone();
    one[7] *= 2.0;
    it.write(&suite, &one, &q, &k);
    check().exits(5).says("fold: ").says(Folded::Q);
}

#[test]
fn scales_folded_into_another_weight_are_taken_out_and_named_where_the_spec_says_not_to() {
    let suite = Suite::new();
    let mut random = Random(3);
    let (up, down) = ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight");
    let (shape, turned): (&[u64], &[u64]) = (&[64, 32], &[32, 64]);
    let [of_up, of_down] = [2048, 2048].map(|len| random.normals(len));
    let factors: Vec<f32> = random.normals(64).iter().map(|it| (it * 0.5).exp()).collect();
    let rows: Vec<f32> = of_up.iter().enumerate().map(|(i, it)| it / factors[i / 32]).collect();
    let columns: Vec<f32> =
        of_down.iter().enumerate().map(|(i, it)| it * factors[i % 64]).collect();
    suite.models(
        &[(up, "F32", shape, f32s(&of_up)), (down, "F32", turned, f32s(&of_down))],
        &[(up, "BF16", shape, bf16s(&rows)), (down, "BF16", turned, bf16s(&columns))],
    );
    suite.spec("thresholds.tensor.cosine = 0.99\nunfold = false");
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(101);
    ran.says(&format!("scales of 64 columns are folded out of {down} into {up}"))
        .says("`unfold = true` in the pair takes them out before comparing");
    suite.spec("thresholds.tensor.cosine = 0.9999");
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    // A row that has not its factor computes something else.
    let mut lost = rows.clone();
    lost[32..64].iter_mut().for_each(|it| *it *= 3.0);
    suite.models(
        &[(up, "F32", shape, f32s(&of_up)), (down, "F32", turned, f32s(&of_down))],
        &[(up, "BF16", shape, bf16s(&lost)), (down, "BF16", turned, bf16s(&columns))],
    );
    suite.qualm(&["run", "--no-baseline"]).exits(101);
}

#[test]
fn a_stated_scheme_must_be_the_one_and_excuses_a_scale_that_there_is_not() {
    let suite = Suite::new();
    let shape: &[u64] = &[4, 32];
    let codes: Vec<u8> = (0..128).map(|i| [0x38, 0xB8, 0x40, 0x30][i % 4]).collect();
    let values: Vec<f32> = (0..128).map(|i| [1.0, -1.0, 2.0, 0.5][i % 4]).collect();
    suite.write("r.safetensors", safetensors(&[("l.weight", "F32", shape, f32s(&values))]));
    suite.write("q/model.safetensors", safetensors(&[("l.weight", "F8_E4M3", shape, codes)]));
    suite.write(
        "q/config.json",
        r#"{"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}"#,
    );
    let spec = |lines: &str| {
        suite.spec(lines);
        let text = suite.read("specs/s.toml").replace("../q.safetensors", "../q");
        suite.write("specs/s.toml", text);
    };
    spec("");
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(101);
    ran.says("l.weight_scale is missing");
    spec("scheme = { tensors = \"l.*\", is = \"fp8-plain-cast\" }");
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    suite.qualm(&["explain", "s::p::l.weight"]).exits(0).says("scheme is fp8-plain-cast");
    spec("scheme = { tensors = \"l.*\", is = \"NVFP4\" }");
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(101);
    ran.says("l.weight is stored as F8_E4M3, the spec says NVFP4");
}

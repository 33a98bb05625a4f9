/*! Several quantized models of one reference: `check` of several, and `rank`. */

use std::fmt::Write as _;

use qualm::codec::TensorType;
use qualm::rank::nominal_t2;
use serde_json::Value;

use crate::forge::gguf::{Gguf, id};
use crate::program::*;

const SHAPE: &[u64] = &[64, 256];

/// A language model of two layers whose embedding is its output as well.
const NAMES: [&str; 5] = [
    "token_embd.weight",
    "blk.0.attn_q.weight",
    "blk.0.ffn_down.weight",
    "blk.1.attn_q.weight",
    "blk.1.ffn_down.weight",
];

fn weights() -> Vec<Vec<f32>> {
    let mut random = Random(17);
    NAMES.iter().map(|_| random.normals(64 * 256)).collect()
}

fn reference() -> Vec<u8> {
    let add = |file: Gguf, (name, values): (&&str, Vec<f32>)| file.f32(name, SHAPE, &values);
    NAMES.iter().zip(weights()).fold(Gguf::new(), add).bytes()
}

/// The model with all of its tensors in one type; `change` is done to the values of a tensor before.
fn quantized(ty: TensorType, imatrix: bool, change: impl Fn(&str, &mut [f32])) -> Vec<u8> {
    let ggml = ty.info().ggml_id.expect("a type of ggml");
    let mut file = Gguf::new();
    if imatrix {
        file = file.text("quantize.imatrix.file", "calibration.dat");
    }
    for (name, mut values) in NAMES.iter().zip(weights()) {
        change(name, &mut values);
        let mut blocks = vec![0; ty.bytes_for(values.len() as u64).unwrap() as usize];
        let even = [1.0; 256];
        let columns = ty.requires_imatrix().then_some(&even[..]);
        ty.quantize(&values, columns, &mut blocks).unwrap();
        file = file.tensor(name, SHAPE, ggml, blocks);
    }
    file.bytes()
}

fn sound(ty: TensorType) -> Vec<u8> {
    quantized(ty, false, |_, _| {})
}

/// A suite with the reference and these files.
fn suite(files: &[(&str, Vec<u8>)]) -> Suite {
    let suite = Suite::new();
    suite.write("f32.gguf", reference());
    for (name, bytes) in files {
        suite.write(&format!("{name}.gguf"), bytes);
    }
    suite
}

/// One tensor has a hundredth of its size.
fn shrunk(name: &str, values: &mut [f32]) {
    if name == "blk.1.ffn_down.weight" {
        for value in values.iter_mut() {
            *value *= 0.01;
        }
    }
}

#[test]
fn several_models_are_judged_as_each_alone() {
    let suite = suite(&[
        ("q8_0", sound(TensorType::Q8_0)),
        ("broken", quantized(TensorType::Q4_0, false, shrunk)),
        ("cut", sound(TensorType::Q4_0)[..20_000].to_vec()),
    ]);
    let check = |arguments: &[&str]| {
        suite.qualm(&[&["check", "f32.gguf"], arguments, &["--json"]].concat())
    };
    for (files, code) in [
        (&["q8_0.gguf", "broken.gguf", "cut.gguf"][..], 6),
        (&["broken.gguf", "q8_0.gguf"], 5),
        (&["cut.gguf", "q8_0.gguf"], 6),
    ] {
        let all = check(files).exits(code).json();
        let models = all["models"].as_array().expect("models");
        for (file, object) in files.iter().zip(models) {
            assert_eq!(*object, check(&[file]).json(), "{file}: as if it were alone");
        }
        assert_eq!(models.len(), files.len());
    }
    let text = suite.qualm(&["check", "f32.gguf", "q8_0.gguf", "broken.gguf"]).exits(5);
    text.says("q8_0.gguf: healthy")
        .says("broken.gguf: damaged")
        .says("2 models: 1 healthy, 1 damaged");
}

#[test]
fn types_of_ggml_are_ranked_as_their_nominal_errors_wherever_the_order_is_sure() {
    use TensorType::{
        IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4_NL, IQ4_XS, Q2_K, Q3_K, Q4_0,
        Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0,
    };
    let types = [
        IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4_NL, IQ4_XS, Q2_K, Q3_K, Q4_0,
        Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0,
    ];
    let files: Vec<(&str, Vec<u8>)> = types.iter().map(|ty| (ty.name(), sound(*ty))).collect();
    let suite = suite(&files);
    let names: Vec<String> = types.iter().map(|ty| format!("{}.gguf", ty.name())).collect();
    let mut arguments = vec!["rank", "f32.gguf"];
    arguments.extend(names.iter().map(String::as_str));
    arguments.push("--json");
    let report = suite.qualm(&arguments).exits(0).json();
    let models = report["models"].as_array().unwrap();
    assert_eq!(models.len(), types.len());
    let place =
        |ty: TensorType| models.iter().position(|model| model["name"] == ty.name()).unwrap();
    for a in types {
        let score = models[place(a)]["score"]["value"].as_f64().unwrap();
        // Tied embedding, and the mean over two layers.
        let expected = nominal_t2(a).unwrap() * (3.09 + 0.42 + 0.69);
        assert!((score / expected - 1.0).abs() < 1e-9, "{a}: {score} instead of {expected}");
        for b in types {
            let (t2, other) = (nominal_t2(a).unwrap(), nominal_t2(b).unwrap());
            if t2 * 1.15 <= other {
                assert!(place(a) < place(b), "{a} before {b}");
            }
        }
    }
    let order = |better: &str, worse: &str| {
        let orders = report["orders"].as_array().unwrap();
        let found = orders.iter().find(|it| it["better"] == better && it["worse"] == worse);
        found.unwrap_or_else(|| panic!("{better} {worse}"))["confidence"].clone()
    };
    for (better, worse, expected, why) in [
        ("Q8_0", "Q4_K", "clear", "far apart"),
        ("Q4_K", "Q4_0", "likely", "a ratio of 1.33"),
        ("IQ4_NL", "IQ4_XS", "not separable", "a ratio of 1.02"),
        ("Q5_K", "Q5_0", "not separable", "both below 0.01"),
        ("Q6_K", "Q5_K", "clear", "a big step below 0.01"),
    ] {
        assert_eq!(order(better, worse), expected, "{better} {worse}: {why}");
    }
    let front: Vec<&str> =
        report["front"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(front.first(), Some(&"IQ1_S"), "the smallest: {front:?}");
    assert_eq!(front.last(), Some(&"Q8_0"), "the best: {front:?}");
    assert!(!front.contains(&"Q5_0"), "Q5_K is as large and loses less: {front:?}");
    for model in models {
        let zone = model["score"]["zone"].as_str().unwrap();
        let level = &model["score"]["kld"];
        assert_eq!(level.is_object(), zone == "ok", "a level in the zone alone: {model}");
    }
}

#[test]
fn a_ranking_says_what_is_odd_and_exits_as_check_does() {
    let suite = suite(&[
        ("q8_0", sound(TensorType::Q8_0)),
        ("q4_k", sound(TensorType::Q4_K)),
        ("q4_k-imatrix", quantized(TensorType::Q4_K, true, |_, _| {})),
        ("q6_k-broken", quantized(TensorType::Q6_K, false, shrunk)),
    ]);
    let files = ["q8_0.gguf", "q4_k.gguf", "q4_k-imatrix.gguf", "q6_k-broken.gguf"];
    let rank = |more: &[&str]| suite.qualm(&[&["rank", "f32.gguf"], &files[..], more].concat());
    let report = rank(&["--json"]).exits(5).json();
    let model = |name: &str| {
        let models = report["models"].as_array().unwrap();
        models.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name}"))
    };
    assert_eq!(model("q8_0")["rank"], 1);
    assert_eq!(model("q6_k-broken")["verdict"], "damaged");
    assert_eq!(model("q6_k-broken")["score"]["basis"], "mixed", "the damaged tensor as measured");
    assert_eq!(model("q4_k")["imatrix"], false);
    assert_eq!(model("q4_k-imatrix")["imatrix"], true);
    let text = rank(&[]).exits(5);
    assert_eq!(text.out, report["markdown"], "one text for terminals and model cards");
    let text = text
        .says("# Quantizations of `f32`")
        .says("dB below what the type gives here")
        .says("blk.1.ffn_down.weight")
        .says("Thireus")
        .says("token_embd")
        .says("imatrix");
    let rows: Vec<usize> = text
        .out
        .lines()
        .filter(|it| it.starts_with('|'))
        .map(|it| it.matches(" | ").count())
        .collect();
    assert_eq!(rows.len(), 2 + files.len());
    assert!(rows.iter().all(|count| *count == rows[0]), "every row has every column: {rows:?}");

    rank(&["--html", "page/rank.html"]).exits(5);
    let page = suite.read("page/rank.html");
    for part in ["<svg", "q6_k-broken", "Thireus", "dB below what the type gives here"] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn an_anchor_gives_levels_and_slips_are_usage_errors() {
    let suite = suite(&[("q4_k", sound(TensorType::Q4_K)), ("q3_k", sound(TensorType::Q3_K))]);
    let rank = |more: &[&str]| {
        suite.qualm(&[&["rank", "f32.gguf", "q4_k.gguf", "q3_k.gguf", "--json"], more].concat())
    };
    let level = |report: &Value| report["models"][1]["score"]["kld"].clone();
    let free = level(&rank(&[]).exits(0).json());
    assert_eq!(free["from"], "typical");
    let ratio = free["high"].as_f64().unwrap() / free["low"].as_f64().unwrap();
    assert!((ratio - 9.0).abs() < 1e-9, "a factor of three either way");
    for name in ["q4_k", "q4_k.gguf"] {
        let anchored = level(&rank(&["--anchor", &format!("{name}=0.02")]).exits(0).json());
        assert_eq!(anchored["from"], "anchor");
        let expected = 0.02 * 0.020898 / 0.0049982;
        let found = anchored["estimate"].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-6, "{found} instead of {expected}");
    }
    for (more, says) in [
        (&["--anchor", "q5=0.1"][..], "none of the models has this name"),
        (&["--anchor", "q4_k"], "is not NAME=KLD"),
        (&["--anchor", "q4_k=-1"], "must be above 0"),
        (&["--anchor", "q4_k=NaN"], "must be above 0"),
        (&["q4_k.gguf"], "is given twice"),
    ] {
        rank(more).exits(2).says(says);
    }
}

#[test]
fn what_has_no_score_says_why_and_is_ranked_by_its_error() {
    let mut lacking = Gguf::new();
    let values = weights();
    for (name, values) in NAMES.iter().zip(&values).skip(1) {
        lacking = lacking.tensor(name, SHAPE, id::TENSOR_F16, {
            values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()
        });
    }
    let suite = suite(&[
        ("q4_0", sound(TensorType::Q4_0)),
        ("lacking", lacking.bytes()),
        ("cut", sound(TensorType::Q4_0)[..20_000].to_vec()),
    ]);
    let report = suite
        .qualm(&["rank", "f32.gguf", "cut.gguf", "lacking.gguf", "q4_0.gguf", "--json"])
        .exits(6)
        .json();
    let models = report["models"].as_array().unwrap();
    let names: Vec<&str> = models.iter().filter_map(|model| model["name"].as_str()).collect();
    assert_eq!(names, ["q4_0", "lacking", "cut"], "a model that lacks a tensor does not win");
    let why = |at: usize| models[at]["no_score"].as_str().unwrap_or_default().to_owned();
    assert!(why(1).contains("token_embd.weight"), "{}", why(1));
    assert!(!why(2).is_empty());
    assert_eq!(report["front"], serde_json::json!(["q4_0"]), "the others are not to be shipped");
}

#[test]
fn names_of_models_tell_them_apart_and_are_shown_safely() {
    let suite =
        suite(&[("a/model", sound(TensorType::Q4_0)), ("b/model", sound(TensorType::Q8_0))]);
    let hostile = "x|y`z<b>\u{202e}.gguf";
    suite.write(hostile, sound(TensorType::Q5_0));
    let ran = suite.qualm(&["rank", "f32.gguf", "a/model.gguf", "b/model.gguf", hostile]).exits(0);
    let ran = ran.says("`a/model.gguf`").says("`b/model.gguf`");
    assert!(!ran.out.contains('\u{202e}'), "{ran}");
    let table = ran.out.lines().filter(|line| line.starts_with('|')).fold(
        String::new(),
        |mut all, line| {
            let _ = writeln!(all, "{line}");
            all
        },
    );
    assert!(table.contains("x\\|y"), "a bar in a name ends no cell: {table}");
}

#[test]
fn a_spec_is_drafted_for_several_models() {
    let suite = suite(&[("q8", sound(TensorType::Q8_0)), ("q4", sound(TensorType::Q4_0))]);
    suite.qualm(&["init", "f32.gguf", "q8.gguf", "q4.gguf"]).exits(0).says("specs/f32.toml");
    let spec = suite.read("specs/f32.toml");
    assert_eq!(spec.matches("[[pair]]").count(), 2, "{spec}");
    assert_eq!(spec.matches("schema = 1").count(), 1, "{spec}");
    suite.qualm(&["run", "--no-baseline", "-j", "1"]).exits(0).says("f32::q4::(global) ... ok");
    for (arguments, says) in [
        (&["q8.gguf", "q4.gguf", "--name", "x", "--force"][..], "--name is for one model"),
        (&["q8.gguf", "q8.gguf", "--force"], "two of the models are called q8"),
    ] {
        suite.qualm(&[&["init", "f32.gguf"], arguments].concat()).exits(2).says(says);
    }
}

#[test]
fn a_first_run_says_what_to_do_and_no_error_is_said_twice() {
    let suite = suite(&[("q8", sound(TensorType::Q8_0))]);
    let spec = "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"../f32.gguf\"\nquantized = \"../q8.gguf\"\n";
    suite.write("specs/s.toml", spec);
    let first = suite.qualm(&["run"]).exits(8);
    let ends = "`qualm accept` makes it the baseline; `*.snap.new` belongs into .gitignore";
    assert!(first.err.trim_end().ends_with(ends), "{first}");
    assert!(first.err.contains("only 1 baseline is new"), "{first}");
    suite.qualm(&["accept"]).exits(0);
    let second = suite.qualm(&["run"]).exits(0);
    assert!(second.err.is_empty(), "{second}");
    suite.write("specs/s.toml", format!("{spec}thresholds.tensor.cosin = 0.9\n"));
    let wrong = suite.qualm(&["run"]).exits(3);
    assert_eq!(wrong.err.matches("error").count(), 1, "{wrong}");
    suite.qualm(&["check", "-j", "1", "f32.gguf", "q8.gguf"]).exits(0);
    suite.qualm(&["rank", "--help"]).exits(0).says("Examples:").says("--anchor q4_k_m=0.021");
}

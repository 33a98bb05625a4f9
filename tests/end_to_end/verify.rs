/*! One model without a reference. */

use std::fs;
use std::path::PathBuf;

use qualm::codec::TensorType;
use serde_json::Value;

use crate::forge::gguf::{Gguf, array, id, string};
use crate::program::*;

/// A small sound GGUF file of a language model with two layers.
fn head() -> Gguf {
    let tokens: Vec<u8> = ["a", "b", "c", "d"].iter().flat_map(string).collect();
    Gguf::new()
        .text("general.architecture", "llama")
        .u32("general.file_type", 2)
        .u32("llama.block_count", 2)
        .u32("llama.embedding_length", 64)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .entry("tokenizer.ggml.tokens", id::ARRAY, &array(id::STRING, 4, &tokens))
}

fn values(len: usize) -> Vec<f32> {
    Random(23).normals(len)
}

fn q4_0(values: &[f32]) -> Vec<u8> {
    let mut blocks = vec![0; values.len() / 32 * 18];
    TensorType::Q4_0.quantize(values, None, &mut blocks).unwrap();
    blocks
}

/// The tensors; `change` is done to each one's values.
fn tensors(mut file: Gguf, change: impl Fn(&str, &mut [f32])) -> Gguf {
    for (name, shape) in [
        ("blk.0.attn_norm.weight", &[64][..]),
        ("blk.0.attn_q.weight", &[64, 64]),
        ("blk.1.ffn_down_exps.weight", &[4, 64, 64]),
        ("token_embd.weight", &[4, 64]),
    ] {
        let mut values = values(shape.iter().product::<u64>() as usize);
        change(name, &mut values);
        file = match shape.len() {
            1 => file.f32(name, shape, &values),
            _ => file.tensor(name, shape, id::TENSOR_Q4_0, q4_0(&values)),
        };
    }
    file
}

fn verify(bytes: &[u8]) -> Value {
    let suite = Suite::new();
    suite.write("m.gguf", bytes);
    let ran = suite.qualm(&["verify", "m.gguf", "--json"]);
    let report = ran.json();
    assert_eq!(report["exit_code"], ran.code, "{ran}");
    report
}

/// Exit code, and gates and tensors of what was found.
fn found(report: &Value) -> (i64, Vec<(String, String)>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    let findings = findings.map(|it| (text(&it["gate"]), text(&it["tensor"])));
    (report["exit_code"].as_i64().unwrap(), findings.collect())
}

#[test]
fn values_that_no_model_has() {
    let set = |of: &'static str, range: std::ops::Range<usize>, to: f32| {
        move |name: &str, values: &mut [f32]| {
            if name == of {
                values[range.clone()].fill(to);
            }
        }
    };
    let (q, exps, norm) =
        ("blk.0.attn_q.weight", "blk.1.ffn_down_exps.weight", "blk.0.attn_norm.weight");
    for (change, expected, why) in [
        (set("", 0..0, 0.0), None, "sound"),
        (set(q, 0..64 * 64, 0.0), Some(("integrity.zero", q)), "all zero"),
        (set(q, 0..33 * 64, 0.0), Some(("integrity.zero", q)), "more than half of the rows"),
        (set(q, 0..64, 0.0), None, "one row is a warning"),
        (set(exps, 64 * 64..2 * 64 * 64, 0.0), Some(("integrity.zero", exps)), "one expert"),
        (set("token_embd.weight", 0..64, 0.0), None, "a token that nothing was trained on"),
        (set(norm, 3..4, f32::NAN), Some(("finite", norm)), "NaN"),
        (set(norm, 3..4, f32::INFINITY), Some(("finite", norm)), "infinity"),
        (set(norm, 0..64, 0.0), None, "a vector may be zero"),
    ] {
        let report = verify(&tensors(head(), change).bytes());
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(gate, tensor)| ((*gate).to_owned(), (*tensor).to_owned()))
            .collect();
        let code = if expected.is_empty() { 0 } else { 5 };
        assert_eq!(found(&report), (code, expected), "{why}: {report}");
    }
    let warned = verify(&tensors(head(), set(q, 0..64, 0.0)).bytes());
    assert_eq!(warned["warnings"][0]["tensor"], q);
    let half = |_: &str, _: &mut [f32]| {};
    let mut scales = tensors(head(), half).bytes();
    // A NaN scale of a block of the experts: 0x7E00 in half precision.
    let at = scales.len() - 4 * 64 / 32 * 18 - 18;
    scales[at..at + 2].copy_from_slice(&[0x00, 0x7E]);
    assert_eq!(found(&verify(&scales)).1[0].0, "finite");
}

#[test]
fn metadata_that_contradict_the_tensors() {
    let even = |_: &str, _: &mut [f32]| {};
    let without = |key: &str| {
        let replaced = ["llama.block_count", "llama.embedding_length"];
        let mut file = Gguf::new().u32("general.file_type", 2);
        if key != "general.architecture" {
            file = file.text("general.architecture", "llama");
        }
        for (of, value) in replaced.into_iter().zip([2, 64]) {
            if of != key {
                file = file.u32(of, value);
            }
        }
        file
    };
    let tokens: Vec<u8> = ["a", "b", "c"].iter().flat_map(string).collect();
    let three = array(id::STRING, 3, &tokens);
    for (file, expected, why) in [
        (without(""), None, "sound"),
        (without("llama.block_count"), None, "a key that is not there claims nothing"),
        (without("general.architecture"), Some("general.architecture"), "no architecture"),
        (
            without("llama.block_count").u32("llama.block_count", 3),
            Some("no tensor of layer 2"),
            "a layer lost",
        ),
        (
            without("llama.block_count").u32("llama.block_count", 1),
            Some("a tensor of layer 1"),
            "one too many",
        ),
        (
            without("llama.embedding_length").u32("llama.embedding_length", 128),
            Some("rows of 64"),
            "another width",
        ),
        (
            without("").entry("tokenizer.ggml.tokens", id::ARRAY, &three),
            Some("3 tokens"),
            "another vocabulary",
        ),
        (
            without("").entry("llama.rope.freq_base", id::F32, &f32::NAN.to_le_bytes()),
            Some("llama.rope.freq_base"),
            "NaN",
        ),
        (
            without("")
                .u32("llama.attention.head_count", 4)
                .u32("llama.attention.head_count_kv", 3),
            Some("no multiple"),
            "heads that do not divide",
        ),
    ] {
        let report = verify(&tensors(file, even).bytes());
        let messages: Vec<&str> = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| {
                assert_eq!(it["gate"], "metadata", "{why}");
                it["message"].as_str().unwrap()
            })
            .collect();
        match expected {
            None => assert!(messages.is_empty(), "{why}: {messages:?}"),
            Some(text) => {
                assert!(messages.len() == 1 && messages[0].contains(text), "{why}: {messages:?}");
            }
        }
    }
    let floats = without("").f32("blk.0.a.weight", &[4, 4], &values(16)).f32(
        "blk.1.a.weight",
        &[4, 4],
        &values(16),
    );
    let message = verify(&floats.bytes())["findings"][0]["message"].to_string();
    assert!(message.contains("no tensor is quantized"), "{message}");
}

#[test]
fn what_cannot_be_read_and_several_models() {
    let even = |_: &str, _: &mut [f32]| {};
    let suite = Suite::new();
    let sound = tensors(head(), even).bytes();
    suite.write("sound.gguf", &sound);
    suite.write("cut.gguf", &sound[..sound.len() - 500]);
    suite.write("zeroed.gguf", tensors(head(), zeroed).bytes());
    for (files, code) in [
        (&["sound.gguf"][..], 0),
        (&["zeroed.gguf", "sound.gguf"], 5),
        (&["zeroed.gguf", "cut.gguf"], 6),
        (&["gone.gguf"], 6),
    ] {
        let ran = suite.qualm(&[&["verify"], files, &["--json"]].concat()).exits(code);
        let report = ran.json();
        match files {
            [_] => assert_eq!(report["exit_code"], code),
            several => {
                let models = report["models"].as_array().unwrap();
                assert_eq!(models.len(), several.len());
                for (file, model) in several.iter().zip(models) {
                    assert_eq!(model["model"], *file);
                    let alone = suite.qualm(&["verify", file, "--json"]).json();
                    assert_eq!(*model, alone, "as if it were alone");
                }
            }
        }
        suite.qualm(&[&["verify"], files].concat()).exits(code);
    }
    suite.qualm(&["verify", "zeroed.gguf"]).exits(5).says("damaged").says("all values are zero");
    suite.qualm(&["verify"]).exits(2);
}

/// A suite with one pair that is `m.gguf` alone.
fn suite(change: impl Fn(&str, &mut [f32]), lines: &str) -> Suite {
    let suite = Suite::new();
    suite.write("m.gguf", tensors(head(), change).bytes());
    let text = format!("schema = 1\n[[pair]]\nname = \"p\"\nverify = \"../m.gguf\"\n{lines}\n");
    suite.write("specs/s.toml", text);
    suite
}

fn zeroed(name: &str, values: &mut [f32]) {
    if name == "blk.0.attn_q.weight" {
        values.fill(0.0);
    }
}

#[test]
fn a_spec_may_judge_a_model_without_a_reference() {
    let even = |_: &str, _: &mut [f32]| {};
    let sound =
        suite(even, "bits_per_weight = 8.0\nqtype = { tensors = \"*attn_q*\", is = \"Q4_0\" }");
    let ran = sound.qualm(&["run"]).exits(0);
    for test in ["blk.0.attn_q.weight", "token_embd.weight", "(structure)"] {
        assert!(ran.out.contains(&format!("test s::p::{test} ... ok")), "{test}: {ran}");
    }
    assert!(!ran.out.contains("(global)") && !ran.out.contains("(baseline)"), "{ran}");
    assert!(!sound.path().join("snapshots").exists(), "nothing waits to be accepted");
    let list = sound.qualm(&["run", "--list", "--format", "terse"]).exits(0);
    assert_eq!(list.out.lines().filter(|line| line.ends_with(": test")).count(), 5, "{list}");
    let pair = &sound.contract()["specs"][0]["pairs"][0];
    assert_eq!((&pair["alone"], &pair["reference"]), (&true.into(), &Value::Null));
    assert_eq!(pair["quantized"]["types"][0]["qtype"], "Q4_0");
    for (report, says) in [
        ("contract.md", "| model | "),
        ("report.html", "<dt>model</dt><dd>../m.gguf, Q4_0 "),
        ("junit.xml", "name=\"model\" value=\"../m.gguf\""),
    ] {
        let text = sound.read(&format!("target/qualm/{report}"));
        assert!(text.contains(says), "{says} in {report}: {text}");
    }
    sound.qualm(&["falsify"]).exits(4).says("of two models");
    sound.qualm(&["explain", "s::p::token_embd.weight"]).exits(0).says("integrity.zero on");
    let explained = sound.qualm(&["explain", "s::p::(structure)"]).exits(0).says("every plane");
    assert!(!explained.out.contains("integrity.quantized"), "{explained}");

    let damaged = suite(zeroed, "");
    let ran = damaged.qualm(&["run"]).exits(101);
    assert!(ran.out.contains("test s::p::blk.0.attn_q.weight ... FAILED"), "{ran}");
    ran.says("all values are zero");
    let junit = damaged.read("target/qualm/junit.xml");
    assert!(junit.contains("failures=\"1\"") && junit.contains("all values are zero"), "{junit}");
    damaged.qualm(&["run", "--exact", "s::p::token_embd.weight"]).exits(0);
    let off = "integrity = { zero = \"off\", reason = \"pruned\" }";
    suite(zeroed, off).qualm(&["run"]).exits(0);
    let asked = suite(even, "qtype = { tensors = \"*attn_q*\", is = \"Q8_0\" }");
    asked.qualm(&["run"]).exits(101).says("is stored as Q4_0, Q8_0 is asked for");
    let small = suite(even, "bits_per_weight = 2.0");
    small.qualm(&["run"]).exits(101).says("bits per weight");
    let idle = suite(even, "skip = { tensors = \"nothing\", reason = \"x\" }");
    idle.qualm(&["run"]).exits(3).says("matches no tensor");
    sound.write("m.gguf", "GGUF");
    sound.qualm(&["run"]).exits(6);
    let compared = suite(even, "thresholds.tensor.cosine = 0.9");
    compared.qualm(&["run"]).exits(3).says("`thresholds` in a pair with `verify`");
}

/// Every model below a directory of the test data.
fn models(below: &str, is_model: impl Fn(&PathBuf) -> bool) -> Vec<PathBuf> {
    let mut models: Vec<PathBuf> = fs::read_dir(data(below))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .flat_map(|path| {
            let files = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            files.chain([path.clone()]).filter(|it| is_model(it)).collect::<Vec<_>>()
        })
        .collect();
    models.sort();
    models
}

#[test]
fn what_others_wrote_is_healthy() {
    let is = |path: &PathBuf, end: &str| path.to_string_lossy().ends_with(end);
    let mut all = models("hf-gguf", |path| is(path, ".gguf") || path.join("config.json").is_file());
    assert!(all.len() > 20, "{}", all.len());
    all.extend(models("schemes", |path| is(path, "/model.safetensors")));
    for model in ["minilm-block0-f16.gguf", "minilm-block0-q4_k_m.gguf", "minilm-block0-q8_0.gguf"]
    {
        all.push(repository("specs/models").join(model));
    }
    let mut arguments = vec!["verify", "--json"];
    arguments.extend(all.iter().map(|path| arg(path)));
    let report = qualm(&repository(""), &arguments).json();
    for model in report["models"].as_array().unwrap() {
        let name = model["model"].as_str().unwrap();
        if name.contains("gptq-2bit") {
            // The tool that wrote it lowers packed zero points a word at a time.
            let findings = model["findings"].as_array().unwrap();
            let says = |it: &serde_json::Value| it["message"].to_string().contains("borrowed");
            assert!(findings.len() == 1 && says(&findings[0]), "{findings:?}");
        } else {
            assert_eq!(model["findings"], serde_json::json!([]), "{name}");
        }
    }
}

/*!
Checkpoints against what the converter made of them: `tests/data/hf-gguf/`.
*/

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::*;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(data("hf-gguf")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    assert!(cases.len() >= 19);
    cases
}

fn rows(json: &Value) -> BTreeMap<&str, &Value> {
    let rows = json["tensors"].as_array().expect("rows");
    rows.iter().map(|row| (row["tensor"].as_str().unwrap(), row)).collect()
}

/// The converter's single-precision exponential is not ours: both are within a few units of the last place.
fn computes(rule: &Value) -> bool {
    rule.to_string().contains("neg_exp")
}

#[test]
fn both_files_are_healthy_and_have_the_published_metrics() {
    for case in cases() {
        let expected = json(&case.join("expected.json"));
        let rules = expected["tensors"].as_array().unwrap();
        let rules: BTreeMap<&str, &Value> =
            rules.iter().map(|rule| (rule["gguf"].as_str().unwrap(), rule)).collect();
        qualm(&case, &["check", ".", "model-f.gguf"]).exits(0);
        let check = qualm(&case, &["check", ".", "model-q.gguf", "--json"]).exits(0).json();
        let rows = rows(&check);
        let published = expected["quant"].as_array().unwrap();
        let only = expected["gguf_only"].as_array().unwrap().len();
        assert_eq!(rows.len(), published.len().max(rules.len() + only), "{}", case.display());
        for published in published {
            let name = published["gguf"].as_str().unwrap();
            if rules.get(name).is_some_and(|rule| computes(rule)) {
                continue;
            }
            for metric in ["rmse", "cosine", "max_abs", "sqnr_db"] {
                let (ours, theirs) = (&rows[name][metric], &published[metric]);
                match (ours.as_f64(), theirs.as_f64()) {
                    (Some(a), Some(b)) => {
                        let close = (a - b).abs() <= 6e-9 * a.abs().max(b.abs());
                        assert!(close, "{} {name} {metric}: {a}, {b}", case.display());
                    }
                    (a, b) => assert_eq!(a, b, "{} {name} {metric}", case.display()),
                }
            }
        }
    }
}

#[test]
fn a_wrong_map_or_none_is_damage() {
    let case = data("hf-gguf/llama");
    qualm(&case, &["check", ".", "model-q.gguf", "--map", "none"])
        .exits(6)
        .says("no tensor is in both models");
    let suite = Suite::new();
    // As for a class that does not permute query and key rows.
    suite.write(
        "plain.toml",
        "[classes]\nLlamaForCausalLM = { gguf = \"llama\", text = [\"decoder\"] }\n",
    );
    let map = suite.path().join("plain.toml");
    let ran = qualm(&case, &["check", ".", "model-q.gguf", "--map", arg(&map)]).exits(5);
    let ran = ran.says("blk.0.attn_q.weight").says("blk.1.attn_k.weight");
    assert!(!ran.out.contains("blk.0.attn_v.weight"), "{}", ran.out);
    suite.write("bad.toml", "[classes]\nX = { gguf = \"x\", text = [\"nothing\"] }\n");
    let map = suite.path().join("bad.toml");
    qualm(&case, &["map", ".", "model-q.gguf", "--map", arg(&map)])
        .exits(6)
        .says("X names the group nothing, which is not there");
}

#[test]
fn the_other_direction_works_where_all_can_be_undone() {
    for case in ["llama", "deepseek3", "qwen35", "gpt-oss-mxfp4", "falcon-new", "llama-fuseqkv"] {
        let ran = qualm(&data("hf-gguf").join(case), &["map", "model-f.gguf", ".", "--json"]);
        let map = ran.exits(0).json();
        for row in map["tensors"].as_array().unwrap() {
            assert_eq!(row["problem"], Value::Null, "{case}: {row}");
        }
        assert_eq!(map["only_quantized"].as_array().unwrap().len(), 0, "{case}");
    }
    let case = data("hf-gguf/llama");
    qualm(&case, &["diff", "model-f.gguf", "."])
        .exits(0)
        .says("model.layers.0.self_attn.q_proj.weight");
}

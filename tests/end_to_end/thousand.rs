/*! A thousand tensors of which two hundred are damaged, in four ways: what a person sees of that. */

use qualm::codec::TensorType;

use crate::forge::gguf::{Gguf, id};
use crate::program::*;

const SHAPE: &[u64] = &[8, 256];
const ROLES: [&str; 4] = ["attn_q", "attn_output", "ffn_up", "ffn_down"];
const LAYERS: usize = 250;
const DAMAGED: usize = 50;

/// What is done to the first layers of each role.
fn damage(role: usize, values: &mut [f32]) {
    match role {
        0 => each(values, |value| -value),
        1 => values[1024..].fill(0.0),
        2 => each(values, |value| value + 0.5),
        _ => each(values, |value| value * 1.5),
    }
}

fn each(values: &mut [f32], change: impl Fn(f32) -> f32) {
    for value in values {
        *value = change(*value);
    }
}

fn suite() -> Suite {
    let suite = Suite::new();
    let mut random = Random(41);
    let (mut reference, mut quantized) = (Gguf::new(), Gguf::new());
    for layer in 0..LAYERS {
        for (role, name) in ROLES.iter().enumerate() {
            let mut values = random.normals(8 * 256);
            let name = format!("blk.{layer}.{name}.weight");
            reference = reference.f32(&name, SHAPE, &values);
            if layer < DAMAGED {
                damage(role, &mut values);
            }
            let mut blocks = vec![0; values.len() / 32 * 34];
            TensorType::Q8_0.quantize(&values, None, &mut blocks).unwrap();
            quantized = quantized.tensor(&name, SHAPE, id::TENSOR_Q8_0, blocks);
        }
    }
    suite.write("r.gguf", reference.bytes());
    suite.write("q.gguf", quantized.bytes());
    let spec = "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"../r.gguf\"\nquantized = \"../q.gguf\"\n";
    suite.write("specs/s.toml", spec);
    suite
}

/// Ids in the order in which a text has them, each once.
fn order<'a>(text: &str, ids: &[&'a str]) -> Vec<&'a str> {
    let mut found: Vec<(usize, &str)> = ids
        .iter()
        .filter_map(|id| {
            let ends =
                |at: usize| !text[at + id.len()..].starts_with(|c: char| c.is_alphanumeric());
            Some((text.match_indices(id).map(|(at, _)| at).find(|at| ends(*at))?, *id))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, id)| id).collect()
}

#[test]
fn the_worst_comes_first_and_causes_are_grouped() {
    let suite = suite();
    let ran = suite.qualm(&["run", "-q"]).exits(101);
    let (_, told) = ran.out.split_once("\nfailures:\n").expect("failures");
    assert!(told.lines().count() < 60, "{} lines\n{told}", told.lines().count() + 1);
    for role in ["attn_q, factor -1", "attn_output", "ffn_up", "ffn_down, factor 1.5"] {
        let line = told.lines().find(|line| line.contains(&format!("(blk.0–49.{role}")));
        let line = line.unwrap_or_else(|| panic!("no line for {role}\n{told}"));
        assert!(line.trim_start().starts_with("50 × "), "{role}: {line}");
        assert!(!line.contains("integrity."), "a cause and no gate: {line}");
        assert_eq!(role.contains("factor"), line.contains("scale-factor"), "{line}");
    }

    let contract = suite.contract();
    let tests = contract["specs"][0]["pairs"][0]["tests"].as_array().unwrap();
    let failed = tests.iter().filter(|test| test["outcome"] == "failed");
    let ids: Vec<&str> = failed.map(|test| test["id"].as_str().unwrap()).collect();
    let tensors: Vec<&str> = ids.iter().copied().filter(|id| id.contains("blk")).collect();
    assert_eq!(tensors.len(), 4 * DAMAGED);
    let names = told.rsplit_once("failures:\n").unwrap().1;
    let worst: Vec<&str> = order(names, &ids).into_iter().take(30).collect();
    assert_eq!(worst.len(), 30, "{names}");
    assert!(worst.iter().all(|id| tensors.contains(id)), "what sums up comes last: {worst:?}");
    suite.qualm(&["report", "target/qualm/contract.json"]).exits(0);
    for file in ["target/qualm/report.html", "target/qualm/contract.md"] {
        let text = suite.read(file);
        let (before, failures) = text.split_once("the worst first").expect(file);
        let tails: Vec<String> = worst.iter().map(|id| id.replace("s::p::", "")).collect();
        let tails: Vec<&str> = tails.iter().map(String::as_str).collect();
        assert_eq!(order(failures, &tails), tails, "{file}: the same order");
        assert_eq!(before.matches("50 × ").count(), 4, "{file}: causes first");
        assert!(before.contains("Do not ship"), "{file}: a decision");
        assert!(text.len() < 1_000_000, "{file}: {}", text.len());
    }

    let all = suite.qualm(&["run", "-q", "--verbose"]).exits(101).out;
    assert_eq!(all.matches("\n---- ").count(), ids.len(), "--verbose tells all");
    assert!(all.contains(&format!("    {}\n", ids[ids.len() - 1])));
}

#[test]
fn explain_tells_every_gate_and_knows_what_is_there() {
    let suite = suite();
    let id = "s::p::blk.3.ffn_down.weight";
    let before = suite.qualm(&["explain", id]).exits(0).out;
    for part in [
        "integrity.gain fail unless <= 0.05 (default)",
        "integrity.scales warn unless <= 6 (default)",
        "may move by",
    ] {
        assert!(before.contains(part), "{part}\n{before}");
    }
    assert!(!before.contains("in the last run"), "there is none: {before}");
    suite.qualm(&["run", "-q", "blk.3.ffn_down"]).exits(101);
    let after = suite.qualm(&["explain", id]).exits(0);
    after.says("in the last run it failed").says("integrity.gain").says("cause: scale-factor");
    suite.qualm(&["explain", "s::p::blk.3.ffn_dwn.weight"]).exits(4).says(id);
    suite.qualm(&["explain", id, "--from", "gone.json"]).exits(6);
}

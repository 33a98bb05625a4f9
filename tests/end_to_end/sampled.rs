/*! Spot checks: `--sample`, and `sample` in a pair. */

use std::fs;

use crate::program::*;

fn models(suite: &Suite) {
    for name in ["minilm-block0-f16.gguf", "minilm-block0-q8_0.gguf"] {
        fs::copy(repository("specs/models").join(name), suite.path().join(name)).unwrap();
    }
}

const PAIR: [&str; 2] = ["minilm-block0-f16.gguf", "minilm-block0-q8_0.gguf"];

#[test]
fn a_spot_check_that_finds_nothing_says_that_it_is_one() {
    let suite = Suite::new();
    models(&suite);
    let [r, q] = PAIR;
    let ran = suite.qualm(&["check", "--sample", "2%", r, q]).exits(0);
    let ran = ran.says("sampled: ").says("a spot check").says("99 % probability");
    assert!(!ran.out.contains("healthy"), "{ran}");
    let few = suite.qualm(&["check", "--json", "--sample", "0.02", r, q]).exits(0).json();
    assert_eq!((&few["verdict"], few["healthy"].is_null()), (&"sampled".into(), true));
    let number = |key: &str| few["sample"][key].as_f64().unwrap();
    assert!(number("bytes") < number("of") * 0.05, "{few}");
    assert!(number("finds") < 0.5);
    let all = suite.qualm(&["check", "--json", r, q]).exits(0).json();
    let numel = |it: &serde_json::Value| {
        let rows = it["tensors"].as_array().unwrap();
        rows.iter().map(|row| row["numel"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(numel(&few), numel(&all), "rows speak of whole tensors");
    suite.qualm(&["check", "--json", "--sample", "100%", r, q]).exits(0).says("\"healthy\": true");
    for wrong in ["0", "101%", "x"] {
        suite.qualm(&["check", "--sample", wrong, r, q]).exits(2);
    }
}

#[test]
fn a_spot_check_finds_what_concerns_much_of_a_matrix() {
    let suite = Suite::new();
    models(&suite);
    let [r, q] = PAIR;
    let sound = fs::read(suite.path().join(q)).unwrap();
    for part in 1..4 {
        let mut bytes = sound.clone();
        let quarter = bytes.len() / 4;
        for byte in &mut bytes[quarter * part..quarter * (part + 1)] {
            *byte ^= 0x2a;
        }
        suite.write("damaged.gguf", bytes);
        suite.qualm(&["check", "--sample", "2%", r, "damaged.gguf"]).exits(5);
    }
    let spec = format!(
        "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"../{r}\"\nquantized = \"../{q}\"\nsample = 0.02\n"
    );
    suite.write("specs/s.toml", spec);
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    let contract: serde_json::Value =
        serde_json::from_str(&suite.read("target/qualm/contract.json")).unwrap();
    assert_eq!(contract["verdict"], "sampled");
}

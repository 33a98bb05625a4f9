/*! Every row of the table, with a file that agrees and one that does not. */

use serde_json::{Value, json};

use super::compare::contradiction;
use super::look_up::{ROWS, Sides, TOKENS, shown};
use super::table::{Setting, Settings};
use crate::counterpart::facts::Facts;
use crate::counterpart::number::Number;
use crate::model::{Format, Model, Storage, Tensor};

/// An architecture that no exception is for.
const PLAIN: &str = "qwen2";

/// The keys that a number is made of, by their first spellings.
fn keys(table: &Settings, number: &Number, within: &[&str], keys: &mut Vec<String>) {
    match number {
        Number::Literal(_) => {}
        Number::Negative(of) => self::keys(table, of, within, keys),
        Number::Pair(a, _, b) => {
            self::keys(table, a, within, keys);
            self::keys(table, b, within, keys);
        }
        Number::Name(name) => match table.spellings(name) {
            Some(spellings) if !within.contains(&name.as_str()) => {
                self::keys(table, &spellings[0], &[within, &[name]].concat(), keys);
            }
            _ if keys.contains(name) || name == "n" => {}
            _ => keys.push(name.clone()),
        },
    }
}

/// Puts a value where a path leads.
fn put(config: &mut Value, path: &str, value: Value) {
    if let Some((list, word)) = path.rsplit_once('.').filter(|(list, _)| *list == "layer_types") {
        config[list] = json!([word, "another"]);
        return;
    }
    let mut at = config;
    for part in path.split('.') {
        at = match part.parse::<usize>() {
            Ok(index) => {
                if !at.is_array() {
                    *at = json!([7, 7, 7]);
                }
                &mut at[index]
            }
            Err(_) => &mut at[part],
        };
    }
    *at = value;
}

fn embedding(rows: u64) -> Tensor {
    let (what, reason) = (String::new(), String::new());
    let storage = Storage::Undecodable { what, reason, at: None };
    Tensor { name: "token_embd.weight".to_owned(), shape: vec![rows, 8], storage }
}

fn model(tensors: Vec<Tensor>) -> Model {
    Model {
        path: "model.gguf".into(),
        format: Format::Gguf,
        files: Vec::new(),
        tensors,
        loose: Vec::new(),
        metadata: Vec::new(),
        notes: Vec::new(),
        findings: Vec::new(),
        configuration: None,
    }
}

/// What is found where the file of an architecture states this of a key.
fn found(
    of: &str,
    config: &Value,
    gguf: &[(String, Value)],
    key: &str,
    stated: Option<&Value>,
) -> Option<String> {
    let table = Settings::built_in();
    let mut facts = Facts { config: config.clone(), ..Facts::default() };
    facts.gguf.push(("general.architecture".to_owned(), of.into()));
    facts.gguf.extend(gguf.iter().cloned());
    let mut tensors = vec![embedding(33)];
    match (key, stated) {
        (ROWS, Some(rows)) => tensors = vec![embedding(rows.as_u64()?)],
        (TOKENS, Some(len)) => {
            let described = json!({"type": "array", "of": "string", "len": len, "sha256": ""});
            facts.gguf.push(("tokenizer.ggml.tokens".to_owned(), described));
        }
        (_, Some(stated)) => facts.gguf.push((format!("{of}.{key}"), stated.clone())),
        (_, None) => {}
    }
    let gguf = model(tensors);
    let sides = Sides { facts: &facts, gguf: &gguf, table };
    contradiction(&sides, key, table.of(of)[key])
}

fn as_json(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

/// One row, with each of its numbers alone.
fn numbers_are_compared(of: &str, key: &str, setting: &Setting) {
    let table = Settings::built_in();
    for number in &setting.numbers {
        let mut leaves = Vec::new();
        keys(table, number, &[], &mut leaves);
        let (mut config, mut gguf) = (json!({}), Vec::new());
        for (at, leaf) in leaves.iter().enumerate() {
            let value = json!([24, 6, 3, 2][at.min(3)]);
            match leaf.strip_prefix("gguf.") {
                Some(ROWS) => {}
                Some(key) => gguf.push((format!("{of}.{key}"), value)),
                None => put(&mut config, leaf, value),
            }
        }
        let mut facts = Facts { config: config.clone(), ..Facts::default() };
        facts.gguf.push(("general.architecture".to_owned(), of.into()));
        facts.gguf.extend(gguf.iter().cloned());
        let model = model(vec![embedding(33)]);
        let sides = Sides { facts: &facts, gguf: &model, table };
        let row = format!("{of}.{key}: {number}");
        let expected = sides.made(number, 0).unwrap_or_else(|| panic!("{row} has no value")).value;
        let right = as_json(expected);
        assert_eq!(found(of, &config, &gguf, key, Some(&right)), None, "{row}");
        let wrong = as_json(expected + 16.0);
        let message =
            found(of, &config, &gguf, key, Some(&wrong)).unwrap_or_else(|| panic!("{row}"));
        let full =
            if key == ROWS || key == TOKENS { key.to_owned() } else { format!("{of}.{key}") };
        assert!(message.starts_with(&format!("{full} is {}", shown(&wrong))), "{row}: {message}");
        for leaf in &leaves {
            let leaf = leaf.strip_prefix("gguf.").unwrap_or(leaf);
            let leaf = leaf.strip_suffix(".sliding_attention").unwrap_or(leaf);
            let leaf = leaf.strip_suffix(".linear_attention").unwrap_or(leaf);
            assert!(message.contains(leaf), "{row}: {message} does not name {leaf}");
        }
        assert!(
            message.contains(&shown(&right)) || leaves[0].contains("layer_types"),
            "{row}: {message}"
        );
    }
}

#[test]
fn every_row_finds_a_contradiction_and_names_both_sides() {
    let table = Settings::built_in();
    let common = table.common().keys().map(|key| (PLAIN, key.as_str()));
    let mut rows = 0;
    for (of, key) in common.chain(table.exceptions()) {
        let Some(setting) = table.of(of).get(key).copied() else { continue };
        if setting.words.is_empty() && setting.list.is_empty() {
            numbers_are_compared(of, key, setting);
        }
        rows += 1;
    }
    assert!(rows > 250, "{rows} rows");
}

#[test]
fn words_and_lists_are_compared() {
    let table = Settings::built_in();
    for (key, setting) in table.of(PLAIN) {
        for (word, meant) in &setting.words {
            for number in &setting.numbers {
                let Number::Name(path) = number else { panic!("{key}: a word needs a key") };
                let mut config = json!({});
                put(&mut config, path, json!(word));
                assert_eq!(found(PLAIN, &config, &[], key, Some(meant)), None, "{key}");
                let message = found(PLAIN, &config, &[], key, Some(&json!(77))).unwrap();
                assert!(message.contains(path) && message.contains(word), "{message}");
            }
        }
        for path in &setting.list {
            let mut config = json!({});
            put(&mut config, path, json!([8, 4, 2]));
            assert_eq!(found(PLAIN, &config, &[], key, Some(&json!([8, 4, 2, 0]))), None, "{key}");
            let message = found(PLAIN, &config, &[], key, Some(&json!([8, 4, 3, 0]))).unwrap();
            assert!(message.contains("[8,4,3,0]") && message.contains("[8,4,2]"), "{message}");
        }
    }
}

#[test]
fn a_missing_key_is_what_loaders_take_for_it() {
    let layers = [(format!("{PLAIN}.block_count"), json!(2))];
    let lengths = [
        (format!("{PLAIN}.embedding_length"), json!(64)),
        (format!("{PLAIN}.attention.head_count"), json!(4)),
    ];
    let gguf: Vec<(String, Value)> = layers.iter().chain(&lengths).cloned().collect();
    for (key, config, expected) in [
        ("rope.freq_base", json!({"rope_theta": 10000.0}), None),
        (
            "rope.freq_base",
            json!({"rope_theta": 5e5}),
            Some(
                "qwen2.rope.freq_base is not there, which loaders take for 10000, and config.json says rope_theta = 500000",
            ),
        ),
        ("attention.key_length", json!({"head_dim": 16}), None),
        (
            "attention.key_length",
            json!({"head_dim": 32}),
            Some(
                "qwen2.attention.key_length is not there, which loaders take for 16, and config.json says head_dim = 32",
            ),
        ),
        (
            "attention.head_count_kv",
            json!({"num_attention_heads": 4, "num_key_value_heads": 4}),
            None,
        ),
        (
            "attention.head_count_kv",
            json!({"num_attention_heads": 4, "num_key_value_heads": 2}),
            Some(
                "qwen2.attention.head_count_kv is not there, which loaders take for 4, and config.json says num_key_value_heads = 2",
            ),
        ),
        ("rope.scaling.type", json!({"rope_scaling": {"type": "default"}}), None),
        (
            "rope.scaling.type",
            json!({"rope_scaling": {"type": "yarn"}}),
            Some(
                "qwen2.rope.scaling.type is not there, and config.json says rope_scaling.type = \"yarn\"",
            ),
        ),
        ("block_count", json!({}), None),
    ] {
        assert_eq!(found(PLAIN, &config, &gguf, key, None).as_deref(), expected, "{key} {config}");
    }
    let config = json!({"rope_theta": 5e5});
    assert_eq!(found(PLAIN, &config, &[], "rope.freq_base", None), None, "no language model");
}

#[test]
fn values_are_compared_whatever_their_type() {
    for (stated, said, agrees) in [
        (json!(9.999999974752427e-07), json!(1e-6), true),
        (json!(1e-6), json!(1e-6), true),
        (json!(1e-5), json!(1e-6), false),
        (json!(1), json!(1.0), true),
        (json!(true), json!(1), true),
        (json!("NaN"), json!(1.0), false),
        (json!(16777217), json!(16777216), false),
        (json!(0.2199999988079071), json!(0.22), true),
    ] {
        let config = json!({"norm_eps": said});
        let key = "attention.layer_norm_rms_epsilon";
        assert_eq!(
            found(PLAIN, &config, &[], key, Some(&stated)).is_none(),
            agrees,
            "{stated} {said}"
        );
    }
    // The text model's own table comes first, and says where it is.
    let config = json!({"hidden_size": 1, "text_config": {"hidden_size": 64}});
    let message = found(PLAIN, &config, &[], "embedding_length", Some(&json!(65))).unwrap();
    assert_eq!(
        message,
        "qwen2.embedding_length is 65, and config.json says text_config.hidden_size = 64"
    );
}

#[test]
fn a_computed_tensor_that_is_not_there_is_missed() {
    for (of, key, kind, expected) in [
        (
            "llama",
            "rope_freqs.weight",
            "llama3",
            Some(
                "there is no rope_freqs.weight, and config.json says rope_scaling.rope_type = \"llama3\"",
            ),
        ),
        ("llama", "rope_freqs.weight", "default", None),
        (
            "phi3",
            "rope_factors_long.weight",
            "longrope",
            Some(
                "there is no rope_factors_long.weight, and config.json says rope_scaling.rope_type = \"longrope\"",
            ),
        ),
    ] {
        let config = json!({"rope_scaling": {"rope_type": kind}});
        assert_eq!(found(of, &config, &[], key, None).as_deref(), expected, "{of} {kind}");
    }
}

#[test]
fn the_documentation_has_every_row() {
    let text = include_str!("../../../docs/configuration.md");
    let table = text.split("<!-- settings: begin -->\n").nth(1).unwrap();
    let table = table.split("<!-- settings: end -->").next().unwrap();
    let keys = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut keys: Vec<&str> = keys.collect();
    keys.sort_unstable();
    let known: Vec<&str> = Settings::built_in().common().keys().map(String::as_str).collect();
    assert_eq!(keys, known);
}

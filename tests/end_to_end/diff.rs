/*! `qualm diff`, the contract's surface. */

use std::fs;

use crate::program::*;

/// The contract's first implementation on three pairs of real weights.
const PAIRS: [(&str, &str, i32); 3] = [
    ("minilm-attn0-bf16", "BF16", 0),
    ("minilm-attn0-int8-f16", "F16", 0),
    ("minilm-attn0-int3-f16", "F16", 5),
];

fn models(quantized: &str) -> [String; 2] {
    let path = |name: &str| repository(&format!("specs/models/{name}.safetensors"));
    [path("minilm-attn0-f32"), path(quantized)].map(|path| arg(&path).to_owned())
}

fn close(a: f64, b: f64, relative: f64) -> bool {
    (a - b).abs() <= relative * a.abs().max(b.abs())
}

#[test]
fn rows_order_values_and_exit_codes_are_those_of_the_contract() {
    let codes = fs::read_to_string(data("apr-diff/exit-codes.txt")).unwrap();
    for (name, _, code) in PAIRS {
        assert!(codes.contains(&format!("{name}.tsv exit {code}")), "{name}");
        let [r, q] = models(name);
        let ran = qualm(&repository(""), &["diff", &r, &q, "--quant-roundtrip"]).exits(code);
        let expected = fs::read_to_string(data(&format!("apr-diff/{name}.tsv"))).unwrap();
        let (mut ours, mut theirs) = (ran.out.lines(), expected.lines());
        assert_eq!(ours.next(), theirs.next(), "the header");
        assert_eq!(ran.out.lines().count(), expected.lines().count(), "{name}");
        for (ours, theirs) in ours.zip(theirs) {
            let (a, b): (Vec<&str>, Vec<&str>) =
                (ours.split('\t').collect(), theirs.split('\t').collect());
            assert_eq!(a.len(), 7);
            for column in [0, 1, 2, 6] {
                assert_eq!(a[column], b[column], "{name}: {ours}");
            }
            for column in [3, 4, 5] {
                let (a, b) = (a[column].parse().unwrap(), b[column].parse().unwrap());
                assert!(close(a, b, 1e-6), "{name}: {ours} is not {theirs}");
            }
        }
        assert_eq!(qualm(&repository(""), &["diff", &r, &q, "--no-threshold"]).code, 0);
    }
}

#[test]
fn json_has_the_contracts_keys_first() {
    let top = ["reference", "quantized", "threshold", "tensors", "any_below_threshold"];
    let row = ["tensor", "qtype", "numel", "rmse", "cosine", "max_abs", "verdict"];
    for (name, qtype, code) in PAIRS {
        let [r, q] = models(name);
        let ran = qualm(&repository(""), &["diff", &r, &q, "--json"]).exits(code);
        let json = ran.json();
        // The order of keys is that of the text, which a parsed object need not keep.
        let place = |text: &str, key: &str| text.find(&format!("\"{key}\":")).expect("the key");
        let places: Vec<usize> = top[..4].iter().map(|key| place(&ran.out, key)).collect();
        assert!(places.is_sorted());
        let first = &ran.out[ran.out.find("\"tensors\"").unwrap()..];
        let places: Vec<usize> = row.iter().map(|key| place(first, key)).collect();
        assert!(places.is_sorted() && places[6] < place(first, "shape"), "{places:?}");
        assert_eq!(json["threshold"], 0.95);
        assert_eq!(json["any_below_threshold"], code == 5);
        let rows = json["tensors"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["qtype"] == qtype));
        let rmse: Vec<f64> = rows.iter().map(|row| row["rmse"].as_f64().unwrap()).collect();
        assert!(rmse.is_sorted_by(|a, b| a >= b), "by RMSE, descending");
        let open = qualm(&repository(""), &["diff", &r, &q, "--json", "--no-threshold"]).exits(0);
        assert!(open.json()["threshold"].is_null());
        assert_eq!(open.json()["any_below_threshold"], code == 5, "the contract's");
    }
}

#[test]
fn thresholds_outside_of_the_cosines_are_usage_errors() {
    let [r, q] = models("minilm-attn0-int8-f16");
    for (threshold, code) in [
        ("nan", 2),
        ("NaN", 2),
        ("1.000001", 2),
        ("-1.5", 2),
        ("inf", 2),
        ("-inf", 2),
        ("", 2),
        ("0,95", 2),
        ("-1", 0),
        ("0.999", 0),
        ("1", 5),
    ] {
        let flag = format!("--threshold={threshold}");
        let ran = qualm(&repository(""), &["diff", &r, &q, &flag]);
        assert_eq!(ran.code, code, "{threshold:?}: {ran}");
        assert_eq!(ran.out.is_empty(), code == 2, "{threshold:?} prints rows or says why not");
    }
    qualm(&repository(""), &["diff", &r]).exits(2);
    qualm(&repository(""), &["diff", &r, &q, "--no-such-flag"]).exits(2);
    qualm(&repository(""), &["diff", &r, &q, "--threshold", "0.9", "--no-threshold"]).exits(2);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let [r, q] = models("minilm-attn0-int8-f16");
    let one = qualm(&repository(""), &["diff", &r, &q, "--json", "--threads", "1"]);
    for threads in ["2", "3", "7", "64"] {
        let more = qualm(&repository(""), &["diff", &r, &q, "--json", "--threads", threads]);
        assert_eq!(one.out, more.out, "{threads} threads");
    }
}

/*!
Published values through the program: ggml's own files, the checkpoints of every scheme's own tool, and
what `llama-quantize-stats` printed.
*/

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::*;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn rows(json: &Value, key: &str) -> BTreeMap<String, Value> {
    let rows = json["tensors"].as_array().expect("rows");
    rows.iter().map(|row| (row[key].as_str().unwrap().to_owned(), row.clone())).collect()
}

/// Both null, or equal to 1e-9 of the larger.
#[track_caller]
fn agrees(ours: &Value, published: &Value, what: &str) {
    match (ours.as_f64(), published.as_f64()) {
        (Some(a), Some(b)) => {
            assert!((a - b).abs() <= 1e-9 * a.abs().max(b.abs()), "{what}: {a} is not {b}");
        }
        (a, b) => assert_eq!(a, b, "{what}"),
    }
}

const METRICS: [&str; 4] = ["rmse", "cosine", "max_abs", "sqnr_db"];

#[test]
fn ggml_files_have_the_published_metrics_and_digests() {
    let expected = json(&data("ggml/expected.json"));
    let expected = expected.as_object().unwrap();
    assert_eq!(expected.len(), 28);
    let reference = data("ggml/reference.safetensors");
    for (ty, tensors) in expected {
        let file = data(&format!("ggml/{ty}.gguf"));
        let diff =
            qualm(&data(""), &["diff", arg(&reference), arg(&file), "--json", "--no-threshold"]);
        let diff = rows(&diff.exits(0).json(), "tensor");
        let inspect = qualm(&data(""), &["inspect", arg(&file), "--json", "--digest"]);
        let inspect = rows(&inspect.exits(0).json(), "name");
        let tensors = tensors.get("tensors").unwrap_or(tensors).as_object().unwrap();
        assert_eq!(diff.len(), 2);
        for (name, values) in tensors.iter().filter(|(_, values)| values.is_object()) {
            for metric in METRICS {
                agrees(&diff[name][metric], &values[metric], &format!("{ty} {name} {metric}"));
            }
            let digest = &inspect[name]["decoded_sha256"];
            assert_eq!(*digest, values["dequantized_sha256"], "{ty} {name}");
            assert_eq!(inspect[name]["nonfinite"], 0);
        }
    }
}

/// The values of a decode in f32: the tool's own, or where it computes in a narrower type, those of
/// its formula.
fn in_f32(values: &Value) -> &Value {
    let formula = &values["f32_formula"];
    if formula.get("dequantized_f32_sha256").is_some() { formula } else { values }
}

#[test]
fn every_scheme_has_its_tools_digests_and_metrics() {
    let mut cases: Vec<_> =
        fs::read_dir(data("schemes")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.is_dir());
    assert_eq!(cases.len(), 70);
    let (mut compared, mut padded) = (0, Vec::new());
    for case in cases {
        let expected = json(&case.join("expected.json"));
        let expected = expected["tensors"].as_object().unwrap();
        let what = case.file_name().unwrap().to_string_lossy().into_owned();
        let inspect = qualm(&case, &["inspect", ".", "--json", "--digest"]).exits(0).json();
        let by_name = rows(&inspect, "name");
        for (name, values) in expected {
            let digest = &by_name[name]["decoded_sha256"];
            let shape = values["shape"].as_array().unwrap().iter();
            let numel: u64 = shape.map(|extent| extent.as_u64().unwrap()).product();
            if by_name[name]["numel"] == numel {
                assert_eq!(*digest, in_f32(values)["dequantized_f32_sha256"], "{what} {name}");
            } else {
                // Without its reference, nothing says where the padding begins.
                padded.push(format!("{what} {name}"));
            }
            let planes = by_name[name]["planes"].as_array();
            let bytes = planes
                .map(|it| it.iter().map(|p| p["stored_bytes"].as_u64().unwrap()).sum::<u64>());
            assert_eq!(
                bytes.unwrap_or(by_name[name]["stored_bytes"].as_u64().unwrap()),
                by_name[name]["stored_bytes"].as_u64().unwrap(),
                "{what} {name}: every plane counts"
            );
        }
        if !case.join("reference.safetensors").exists() {
            continue;
        }
        compared += 1;
        let diff =
            ["diff", "reference.safetensors", "model.safetensors", "--json", "--no-threshold"];
        let sharded = case.join("model.safetensors.index.json").exists();
        let model = if sharded { "model.safetensors.index.json" } else { "model.safetensors" };
        let diff =
            diff.map(|argument| if argument == "model.safetensors" { model } else { argument });
        let diff = rows(&qualm(&case, &diff).exits(0).json(), "tensor");
        for (name, values) in expected {
            for metric in METRICS {
                let expected = in_f32(values).get(metric).unwrap_or(&values[metric]);
                agrees(&diff[name][metric], expected, &format!("{what} {name} {metric}"));
            }
        }
    }
    assert_eq!(compared, 16);
    padded.sort();
    let known = [
        "exl2 encoder.layer.1.output.dense.weight",
        "exl3-mul1 embeddings.word_embeddings.weight",
        "exl3-mul1 encoder.layer.0.attention.self.value.bias",
        "exl3-mul1 encoder.layer.0.attention.self.value.weight",
    ];
    assert_eq!(padded, known);
}

/// `type::tensor`, rmse, maxerr, 95pct, median of every line that names a tensor.
fn printed(text: &str) -> Vec<(String, [f64; 4])> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(": rmse ")?;
        name.contains("::").then(|| {
            let number = |text: &str| text.trim().parse().expect("a number");
            let parts: Vec<&str> = rest.split(", ").collect();
            let after = |text: &str, sign: char| number(text.split_once(sign).unwrap().1);
            let values = [
                number(parts[0]),
                after(parts[1], ' '),
                after(parts[2], '<'),
                after(parts[3], '<'),
            ];
            (name.trim().to_owned(), values)
        })
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn stats_prints_what_llama_quantize_stats_does() {
    let model = repository("specs/models/minilm-block0-f16.gguf");
    let theirs = repository("specs/models/minilm-block0.quantize-stats.txt");
    let theirs = printed(&fs::read_to_string(theirs).unwrap());
    assert_eq!(theirs.len(), 72);
    let types = "f16,q4_0,q4_1,q5_0,q5_1,q8_0,q2_K,q3_K,q4_K,q5_K,q6_K,iq4_nl";
    let ran = qualm(&repository(""), &["stats", arg(&model), "--type", types]).exits(0);
    let ours: BTreeMap<String, [f64; 4]> = printed(&ran.out).into_iter().collect();
    let legacy = ["f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"];
    for (name, theirs) in theirs {
        let ours = ours.get(&name).unwrap_or_else(|| panic!("{name} is not printed"));
        let exact = legacy.iter().any(|ty| name.starts_with(&format!("{ty}::")));
        for (column, what) in ["rmse", "maxerr", "95pct", "median"].iter().enumerate() {
            let (a, b) = (ours[column], theirs[column]);
            let most = match column {
                0 | 1 if exact => 0.0,
                0 | 1 => 1e-5,
                // A bucket of the histogram.
                _ => 2.001e-4,
            };
            assert!((a - b).abs() <= most, "{name} {what}: {a} is not {b}");
        }
    }
}

#[test]
fn stats_json_has_its_documented_shape() {
    let model = repository("specs/models/minilm-block0-f16.gguf");
    let arguments = [
        "stats",
        arg(&model),
        "--type",
        "q4_0,Q6_k",
        "--json",
        "--include",
        "attn_[qk]",
        "--exclude",
        "bias",
    ];
    let json = qualm(&repository(""), &arguments).exits(0).json();
    let types = json["types"].as_array().unwrap();
    let names: Vec<&str> = types.iter().map(|ty| ty["qtype"].as_str().unwrap()).collect();
    assert_eq!(names, ["q4_0", "q6_K"]);
    for ty in types {
        for key in ["rmse", "max_abs", "p95", "median"] {
            assert!(ty[key].is_f64(), "{key}");
        }
        let tensors = ty["tensors"].as_array().unwrap();
        let names: Vec<&str> = tensors.iter().map(|row| row["tensor"].as_str().unwrap()).collect();
        assert_eq!(names, ["blk.0.attn_k.weight", "blk.0.attn_q.weight"]);
        for row in tensors {
            for key in ["rmse", "max_abs", "p95", "median"] {
                assert!(row[key].is_f64(), "{key}");
            }
            assert_eq!(row["encoded_sha256"].as_str().unwrap().len(), 64);
        }
    }
}

#[test]
fn reference_quantizers_give_the_published_blocks_through_stats() {
    const TYPES: &str = "q4_0,q5_1,q8_0,q4_K,tq2_0,mxfp4";
    let expected = json(&data("ggml/expected.json"));
    let reference = data("ggml/reference.safetensors");
    let stats =
        qualm(&data(""), &["stats", arg(&reference), "--json", "--type", TYPES]).exits(0).json();
    let mut checked = 0;
    // One of each family; tests/ggml_encode.rs has them all.
    for ty in stats["types"].as_array().unwrap() {
        let name = ty["qtype"].as_str().unwrap();
        let published = &expected[name];
        for row in ty["tensors"].as_array().unwrap() {
            let tensor = row["tensor"].as_str().unwrap();
            let published = published.get("tensors").unwrap_or(published);
            if let Some(digest) = published[tensor].get("from_float_ref_sha256") {
                assert_eq!(row["encoded_sha256"], *digest, "{name} {tensor}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 12, "both tensors of each type have a published digest");
}

/// Types whose rows carry numbers of their own, or lie interleaved, as `ik_llama.cpp` itself quantizes them.
const ROW_TYPES: [&str; 7] =
    ["iq4_ks", "iq5_ks", "iq1_bn", "iq2_bn", "q8_KV", "q8_k_r8", "q8_k_r16"];

/// What two numbers of the library and of ours may differ by: its sums are in another order.
fn is_near(ours: &serde_json::Value, theirs: &serde_json::Value) -> bool {
    let [ours, theirs] = [ours, theirs].map(|it| it.as_f64().unwrap());
    (ours - theirs).abs() <= 1e-6 * theirs.abs()
}

#[test]
fn types_with_rows_give_the_library_s_blocks_and_errors_through_stats() {
    let expected = json(&data("ggml-ik/expected.json"));
    let reference = data("ggml/reference.safetensors");
    let types = ROW_TYPES.join(",");
    let stats =
        qualm(&data(""), &["stats", arg(&reference), "--json", "--type", &types]).exits(0).json();
    let of_types = stats["types"].as_array().unwrap();
    assert_eq!(of_types.len(), ROW_TYPES.len());
    for (name, ty) in ROW_TYPES.iter().zip(of_types) {
        let rows = ty["tensors"].as_array().unwrap();
        assert_eq!(rows.len(), 2, "{name}");
        for row in rows {
            let tensor = row["tensor"].as_str().unwrap();
            let published = &expected[name][tensor];
            assert_eq!(
                row["encoded_sha256"], published["from_float_ref_sha256"],
                "{name} {tensor}"
            );
            for key in ["rmse", "max_abs"] {
                let theirs = &published["from_float_ref"][key];
                assert!(is_near(&row[key], theirs), "{name} {tensor} {key}: {row} is not {theirs}");
            }
        }
    }
}

#[test]
fn types_with_rows_give_the_library_s_errors_through_round_trips() {
    let expected = json(&data("ggml-ik/expected.json"));
    let suite = Suite::new();
    std::fs::copy(data("ggml/reference.safetensors"), suite.path().join("r.safetensors")).unwrap();
    let pair = |name: &&str| {
        format!(
            "[[pair]]\nname = \"{name}\"\nreference = \"../r.safetensors\"\nroundtrip = \"{name}\"\n"
        )
    };
    let pairs: String = ROW_TYPES.iter().map(pair).collect();
    suite.write("specs/s.toml", format!("schema = 1\n{pairs}"));
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    let contract = suite.contract();
    let pairs = contract["specs"][0]["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), ROW_TYPES.len());
    for (name, pair) in ROW_TYPES.iter().zip(pairs) {
        let rows = pair["tensors"].as_array().unwrap();
        assert_eq!(rows.len(), 2, "{name}");
        for row in rows {
            let tensor = row["tensor"].as_str().unwrap();
            for key in ["rmse", "max_abs", "cosine", "sqnr_db"] {
                let theirs = &expected[name][tensor]["from_float_ref"][key];
                assert!(is_near(&row[key], theirs), "{name} {tensor} {key}: {row} is not {theirs}");
            }
        }
    }
}

#[test]
fn stats_takes_any_float_model_and_says_what_it_cannot_quantize() {
    let suite = Suite::new();
    let mut random = Random(9);
    let odd: &[u64] = &[3, 33];
    suite.write(
        "m.safetensors",
        safetensors(&[
            ("even", "BF16", &[4, 64], bf16s(&random.normals(256))),
            ("odd", "F32", odd, f32s(&random.normals(99))),
            ("ids", "I32", &[2], i32s(&[1, 2])),
        ]),
    );
    let ran = suite.qualm(&["stats", "m.safetensors", "--type", "q4_0,q4_K"]).exits(0);
    for text in [
        "q4_0::odd",
        "not quantizable: 99 elements are not whole blocks of 32",
        "not quantizable: 99 elements are not whole blocks of 256",
    ] {
        assert!(ran.out.contains(text), "{text:?} in {ran}");
    }
    assert!(!ran.out.contains("ids"), "integers are no weights: {ran}");
    let json = suite.qualm(&["stats", "m.safetensors", "--type", "q8_0", "--json"]).json();
    let ty = &json["types"][0];
    assert_eq!(ty["tensors"].as_array().unwrap().len(), 1);
    assert_eq!(ty["not_quantizable"][0]["tensor"], "odd");
    suite.qualm(&["stats", "m.safetensors", "--type", "q9"]).exits(2).says("q9");
    suite.qualm(&["stats", "m.safetensors", "--include", "nope"]).exits(4);
    let histogram = suite.qualm(&["stats", "m.safetensors", "--type", "q4_0", "--histogram"]);
    let counts = histogram.out.lines().filter(|line| line.starts_with('['));
    let total: u64 =
        counts.take(150).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(total, 256, "every value is in one bucket");
}

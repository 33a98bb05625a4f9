/*!
Checkpoints whose values lie on no plain grid: sound ones are healthy, and a damaged row, scale, order or
code book is found.
*/

use std::path::{Path, PathBuf};

use crate::program::*;

const CASES: [&str; 8] = [
    "exl3-mul1-rates",
    "exl3-mul1",
    "exl2",
    "aqlm-2x8",
    "vptq",
    "ct-sparse24-fp8",
    "gptq-marlin",
    "ct-marlin24-w8",
];

fn case(name: &str) -> PathBuf {
    data("schemes").join(name)
}

/// A checkpoint with other bytes in one plane.
fn damaged(suite: &Suite, from: &Path, plane: &str, change: fn(&mut [u8])) {
    let mut bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let offsets = json[plane]["data_offsets"].as_array().unwrap_or_else(|| panic!("{plane}"));
    let [begin, end] = [0, 1].map(|i| 8 + header + offsets[i].as_u64().unwrap() as usize);
    change(&mut bytes[begin..end]);
    suite.write("q/model.safetensors", bytes);
    suite.write("q/config.json", std::fs::read(from.join("config.json")).unwrap());
}

#[test]
fn sound_checkpoints_are_healthy() {
    let suite = Suite::new();
    for name in CASES {
        let directory = case(name);
        let reference = directory.join("reference.safetensors");
        let ran = suite.qualm(&["check", arg(&reference), arg(&directory)]);
        assert_eq!(ran.code, 0, "{name}: {ran}");
    }
}

/// A half times four.
fn louder(half: &mut [u8]) {
    half[1] += 8;
}

/// The first attention matrix of the checkpoint.
const QUERY: &str = "encoder.layer.0.attention.self.query";

/// A change to the bytes of a plane.
type Change = fn(&mut [u8]);

/// Checkpoint, module, plane, what is done to it, and why that is damage.
const DAMAGES: [(&str, &str, &str, Change, &str); 21] = [
    (
        "exl3-mul1-rates",
        "encoder.layer.1.attention.output.dense",
        "svh",
        (|bytes| louder(&mut bytes[10..12])),
        "one output's factor",
    ),
    (
        "exl3-mul1-rates",
        "encoder.layer.0.attention.output.dense",
        "trellis",
        |bytes| bytes[..768].reverse(),
        "a row of tiles of three bits",
    ),
    (
        "exl3-mul1",
        "encoder.layer.0.attention.self.value",
        "suh",
        |bytes| bytes[20..22].copy_from_slice(&[0, 0x7E]),
        "one input's factor is NaN",
    ),
    (
        "exl3-mul1",
        "embeddings.word_embeddings",
        "trellis",
        |bytes| bytes[260..520].fill(0x55),
        "a row",
    ),
    ("exl2", QUERY, "q_scale_max", |bytes| louder(&mut bytes[2..4]), "a group's largest scale"),
    ("exl2", QUERY, "q_invperm", |bytes| bytes.rotate_left(4), "every input is the one after it"),
    ("exl2", QUERY, "q_invperm", |bytes| bytes[..8].fill(0), "no permutation any more"),
    ("aqlm-2x8", QUERY, "scales", |bytes| louder(&mut bytes[6..8]), "one row's scale"),
    ("aqlm-2x8", QUERY, "codes", |bytes| bytes[480..576].fill(7), "one row's codes"),
    (
        "aqlm-2x8",
        QUERY,
        "codebooks",
        |bytes| bytes[32..34].copy_from_slice(&[0, 0x7C]),
        "an entry of a code book is infinite",
    ),
    ("vptq", QUERY, "indices", |bytes| bytes[..672].fill(0), "a row of vectors"),
    ("vptq", QUERY, "perm", |bytes| bytes.rotate_left(2), "every column is the one after it"),
    (
        "vptq",
        "encoder.layer.1.output.dense",
        "centroids.weight",
        |bytes| bytes.fill(0),
        "a code book of nothing",
    ),
    (
        "ct-sparse24-fp8",
        QUERY,
        "weight_scale",
        |bytes| bytes[15] += 1,
        "one row's scale, four times as large",
    ),
    (
        "ct-sparse24-fp8",
        QUERY,
        "bitmask",
        |bytes| bytes[..48].iter_mut().for_each(|byte| *byte = !*byte),
        "a row keeps what it should not",
    ),
    ("ct-sparse24-fp8", QUERY, "bitmask", |bytes| bytes[3] = 0xFF, "a row keeps too many"),
    (
        "gptq-marlin",
        "encoder.layer.0.intermediate.dense",
        "s",
        |bytes| louder(&mut bytes[40..42]),
        "the scale of one output's group",
    ),
    (
        "gptq-marlin",
        "encoder.layer.1.intermediate.dense",
        "B",
        |bytes| bytes.iter_mut().for_each(|byte| *byte = byte.rotate_left(4)),
        "nibbles changed places",
    ),
    (
        "ct-marlin24-w8",
        "encoder.layer.1.intermediate.dense",
        "meta",
        |bytes| bytes.fill(0x44),
        "the first two of each four were kept, it says",
    ),
    (
        "ct-marlin24-w8",
        "encoder.layer.1.intermediate.dense",
        "meta",
        |bytes| bytes[77] = 0,
        "an input is kept twice",
    ),
    (
        "ct-marlin24-w8",
        "encoder.layer.2.intermediate.dense",
        "scale_packed",
        |bytes| louder(&mut bytes[8..10]),
        "one output's scale",
    ),
];

#[test]
fn damage_to_each_kind_of_plane_is_found() {
    for (name, module, plane, change, why) in DAMAGES {
        let suite = Suite::new();
        damaged(&suite, &case(name), &format!("{module}.{plane}"), change);
        let reference = case(name).join("reference.safetensors");
        let ran = suite.qualm(&["check", arg(&reference), "q"]);
        let found = ran.code != 0 && ran.to_string().contains(module);
        assert!(found, "{name}: {module}.{plane}: {why}: {ran}");
    }
}

/// `falsify` puts a number of a code book out of all measure, and the gates notice.
#[test]
fn a_damaged_entry_of_a_code_book_is_noticed() {
    for name in ["aqlm-2x8", "vptq"] {
        let suite = Suite::new();
        let path = |path: PathBuf| path.to_string_lossy().replace('\\', "/");
        let (reference, quantized) =
            (path(case(name).join("reference.safetensors")), path(case(name)));
        suite.write(
            "specs/s.toml",
            format!(
                "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"{reference}\"\nquantized = \"{quantized}\"\n"
            ),
        );
        let ran = suite.qualm(&["falsify"]);
        let found = suite.read("target/qualm/falsify.json");
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let mutants = found["pairs"][0]["mutants"].as_array().unwrap();
        let of_books = mutants.iter().filter(|it| it["fault"] == "book-entry");
        let outcomes: Vec<&str> = of_books.map(|it| it["outcome"].as_str().unwrap()).collect();
        assert!(!outcomes.is_empty(), "{name}: {ran}");
        assert!(outcomes.iter().all(|it| *it == "killed"), "{name}: {outcomes:?}, {ran}");
    }
}

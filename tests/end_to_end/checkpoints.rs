/*! Quantized checkpoints through the program: damaged planes, refusals, layouts, shards. */

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::*;

/// A stored tensor: name, dtype, shape, bytes.
type Owned = (String, String, Vec<u64>, Vec<u8>);

fn read(path: &Path) -> Vec<Owned> {
    let bytes = fs::read(path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let entries = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    let mut tensors: Vec<Owned> = entries
        .map(|(name, entry)| {
            let at =
                |index: usize| entry["data_offsets"][index].as_u64().unwrap() as usize + 8 + len;
            let shape = serde_json::from_value(entry["shape"].clone()).unwrap();
            let dtype = entry["dtype"].as_str().unwrap().to_owned();
            (name.clone(), dtype, shape, bytes[at(0)..at(1)].to_vec())
        })
        .collect();
    tensors.sort();
    tensors
}

fn write(tensors: &[Owned]) -> Vec<u8> {
    let stored: Vec<Stored> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (&**name, &**dtype, &**shape, bytes.clone()))
        .collect();
    safetensors(&stored)
}

/// A copy of a published checkpoint with its reference, to be damaged.
fn copy(case: &str) -> Suite {
    let suite = Suite::new();
    for entry in fs::read_dir(data("schemes").join(case)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "reference.safetensors" {
            suite.write("r.safetensors", fs::read(&path).unwrap());
        } else if name != "expected.json" {
            suite.write(&format!("q/{name}"), fs::read(&path).unwrap());
        }
    }
    suite.write("specs/s.toml", "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"../r.safetensors\"\nquantized = \"../q\"\n");
    suite
}

/// What is done to the first plane whose name ends in a suffix.
enum Damage {
    Removed,
    Shaped(&'static [u64]),
    Zeroed,
    /// Every value is this, in the plane's own type.
    Filled(&'static [u8]),
    /// A plane that belongs to nothing is put beside it.
    Beside(&'static str),
}

#[test]
fn damaged_planes_fail_the_structure_and_are_named() {
    use Damage::{Beside, Filled, Removed, Shaped, Zeroed};
    for (case, suffix, damage) in [
        ("gptq-4bit-desc-act", ".scales", Removed),
        ("gptq-4bit-desc-act", ".scales", Zeroed),
        ("gptq-4bit-desc-act", ".scales", Filled(&[0x00, 0x7C])),
        ("gptq-4bit-desc-act", ".scales", Shaped(&[3, 4])),
        ("gptq-4bit-desc-act", ".qzeros", Removed),
        ("gptq-4bit-desc-act", ".g_idx", Shaped(&[7])),
        ("awq-gemm-4bit", ".scales", Removed),
        ("awq-gemm-4bit", ".scales", Filled(&[0x01, 0x7E])),
        ("fp8-block-ragged", ".weight_scale_inv", Removed),
        ("fp8-block-ragged", ".weight_scale_inv", Zeroed),
        ("fp8-block-ragged", ".weight_scale_inv", Filled(&[0, 0, 0xC0, 0x7F])),
        ("fp8-block-ragged", ".weight_scale_inv", Shaped(&[5, 5])),
        ("ct-nvfp4", ".weight_scale", Removed),
        ("ct-nvfp4", ".weight_global_scale", Removed),
        ("ct-nvfp4", ".weight_global_scale", Filled(&[0, 0, 0x80, 0x7F])),
        ("ct-nvfp4", ".weight_packed", Beside(".weight_zero_point")),
        ("mlx-mixed-bits", ".biases", Removed),
        ("mlx-mixed-bits", ".scales", Shaped(&[1, 1])),
        ("quanto", "._scale", Removed),
        ("quanto", "._shift", Removed),
        ("gpt-oss-mxfp4", "_scales", Removed),
    ] {
        let suite = copy(case);
        let file = suite.path().join("q/model.safetensors");
        let mut tensors = read(&file);
        let at = tensors.iter().position(|tensor| tensor.0.ends_with(suffix));
        let at = at.unwrap_or_else(|| panic!("{case} has no {suffix}"));
        let mut plane = tensors[at].0.clone();
        let what = match damage {
            Removed => {
                tensors.remove(at);
                "removed"
            }
            Shaped(shape) => {
                let width = tensors[at].3.len() / tensors[at].2.iter().product::<u64>() as usize;
                tensors[at].2 = shape.to_vec();
                let len = shape.iter().product::<u64>() as usize * width;
                tensors[at].3.resize(len, 1);
                "shaped"
            }
            Zeroed => {
                tensors[at].3.fill(0);
                "zeroed"
            }
            Filled(value) => {
                let len = tensors[at].3.len();
                tensors[at].3 = value.iter().copied().cycle().take(len).collect();
                "filled"
            }
            Beside(other) => {
                plane = plane.replace(suffix, other);
                tensors.push((plane.clone(), "I8".to_owned(), vec![2], vec![1, 1]));
                "beside"
            }
        };
        fs::write(&file, write(&tensors)).unwrap();
        // An index that lists what is not there is another fault, and another test's.
        let _ = fs::remove_file(suite.path().join("q/model.safetensors.index.json"));
        let diff = suite.qualm(&["diff", "r.safetensors", "q", "--no-threshold"]);
        let run = suite.qualm(&["run", "--no-baseline"]);
        for (ran, codes) in [(diff, 5), (run, 101)] {
            assert_eq!(ran.code, codes, "{case} {suffix} {what}: {ran}");
            let said = ran.out.contains(&plane) || ran.err.contains(&plane);
            assert!(said, "{case} {suffix} {what}: {plane} is not named: {ran}");
        }
    }
}

#[test]
fn what_is_not_decoded_is_refused_by_name_and_the_others_go_on() {
    let b = || ("b", "F32", &[2][..], f32s(&[1.0, 2.0]));
    for (what, planes, says) in [(
        "unknown",
        vec![
            ("x.weight", "U8", &[2u64, 8][..], vec![1; 16]),
            ("x.weight_scale", "F32", &[5, 1], vec![1; 20]),
        ],
        &[".weight U8 [2, 8]", ".weight_scale F32 [5, 1]"][..],
    )] {
        let suite = Suite::new();
        let x = ("x.weight", "F32", &[4, 8][..], f32s(&[0.5; 32]));
        let mut quantized = planes;
        quantized.push(b());
        suite.models(&[x, b()], &quantized);
        suite.spec("integrity = { quantized = \"off\", reason = \"x\" }");
        let diff = suite.qualm(&["diff", "r.safetensors", "q.safetensors"]).exits(6);
        assert!(diff.out.lines().any(|line| line.starts_with("b\tF32\t2\t")), "{what}: {diff}");
        let run = suite.qualm(&["run", "--no-baseline"]).exits(6);
        assert!(run.out.contains("test s::p::b ... ok"), "{what}: {run}");
        let inspect = suite.qualm(&["inspect", "q.safetensors"]).exits(6);
        for ran in [diff, run, inspect] {
            for text in says {
                assert!(ran.out.contains(text) || ran.err.contains(text), "{what}: {text}: {ran}");
            }
        }
    }
}

/// A GGUF file of F32 tensors and of tensors whose type id is what it is.
fn gguf(tensors: &[(&str, u32, u64, Vec<u8>)]) -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut header = [b"GGUF", &3u32.to_le_bytes()[..]].concat();
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend(0u64.to_le_bytes());
    let mut data = Vec::new();
    for (name, ty, len, bytes) in tensors {
        header.extend(string(name));
        header.extend(1u32.to_le_bytes());
        header.extend(len.to_le_bytes());
        header.extend(ty.to_le_bytes());
        header.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    header.resize(header.len().next_multiple_of(32), 0);
    [header, data].concat()
}

#[test]
fn gguf_types_that_are_removed_foreign_or_unknown_are_named_and_do_not_stop_the_others() {
    for (id, says) in [(4, "Q4_2"), (37, "removed"), (136, "ik_llama"), (999, "999")] {
        let suite = Suite::new();
        let sound = f32s(&[1.0, 2.0, 3.0, 4.0]);
        suite.write("q.gguf", gguf(&[("a", 0, 4, sound.clone()), ("odd", id, 256, vec![7; 256])]));
        suite.write("r.gguf", gguf(&[("a", 0, 4, sound), ("odd", 0, 256, f32s(&[0.5; 256]))]));
        suite.write("specs/s.toml", "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"../r.gguf\"\nquantized = \"../q.gguf\"\nintegrity.quantized = \"off\"\nintegrity.reason = \"x\"\n");
        let diff = suite.qualm(&["diff", "r.gguf", "q.gguf"]).exits(6);
        assert!(diff.out.lines().any(|line| line.starts_with("a\tF32\t4\t")), "{id}: {diff}");
        let run = suite.qualm(&["run", "--no-baseline"]).exits(6);
        assert!(run.out.contains("test s::p::a ... ok"), "{id}: {run}");
        let inspect = suite.qualm(&["inspect", "q.gguf", "--digest"]).exits(6);
        for ran in [diff, run, inspect] {
            assert!(ran.out.contains(says) || ran.err.contains(says), "{id}: {says}: {ran}");
        }
    }
}

#[test]
fn a_split_model_is_one_model_from_any_shard_or_its_directory() {
    let suite = Suite::new();
    for no in 1..=3 {
        let name = format!("split-0000{no}-of-00003.gguf");
        suite.write(&format!("split/{name}"), fs::read(data("gguf").join(&name)).unwrap());
    }
    let rows = |path: &str| {
        let ran = suite.qualm(&["inspect", path, "--json", "--digest"]).exits(0);
        ran.json()["tensors"].clone()
    };
    let whole = rows("split");
    assert_eq!(whole.as_array().unwrap().len(), 5);
    for no in 1..=3 {
        assert_eq!(rows(&format!("split/split-0000{no}-of-00003.gguf")), whole);
    }
    suite.qualm(&["diff", "split", "split/split-00003-of-00003.gguf"]).exits(0);
    fs::remove_file(suite.path().join("split/split-00002-of-00003.gguf")).unwrap();
    suite.qualm(&["inspect", "split"]).exits(6).says("split-00002-of-00003.gguf");
}

#[test]
fn a_sharded_checkpoint_is_one_model_from_its_index_or_its_directory() {
    let suite = copy("bnb-nf4-sharded");
    let diff = |model: &str| {
        let ran = suite.qualm(&["diff", "r.safetensors", model, "--json", "--no-threshold"]);
        ran.exits(0).json()["tensors"].clone()
    };
    assert_eq!(diff("q"), diff("q/model.safetensors.index.json"));
    fs::remove_file(suite.path().join("q/model-00002-of-00004.safetensors")).unwrap();
    suite.qualm(&["diff", "r.safetensors", "q"]).exits(6).says("model-00002-of-00004.safetensors");
}

/// Experts of one layer, one by one: gate, up and down.
fn experts(prefix: &str, count: u64) -> Vec<(String, Vec<f32>)> {
    let mut random = Random(51);
    let mut matrices = Vec::new();
    for expert in 0..count {
        for name in ["gate_proj", "up_proj", "down_proj"] {
            let name = format!("{prefix}.experts.{expert}.{name}.weight");
            matrices.push((name, random.normals(32 * 64)));
        }
    }
    matrices
}

#[test]
fn experts_meet_in_either_layout_on_either_side() {
    let single = experts("model.layers.0.mlp", 3);
    let shape = |name: &str| if name.contains("down") { vec![64, 32] } else { vec![32, 64] };
    let one_by_one = |bytes: fn(&[f32]) -> Vec<u8>, dtype: &str| -> Vec<Owned> {
        single
            .iter()
            .map(|(name, v)| (name.clone(), dtype.to_owned(), shape(name), bytes(v)))
            .collect()
    };
    let pick = |kind: &'static str| {
        single.iter().filter(move |(name, _)| name.contains(kind)).map(|(_, v)| v)
    };
    let fused: Vec<f32> = pick("gate_proj")
        .zip(pick("up_proj"))
        .flat_map(|(g, u)| [g.clone(), u.clone()].concat())
        .collect();
    let down: Vec<f32> = pick("down_proj").flatten().copied().collect();
    let stacked = |bytes: fn(&[f32]) -> Vec<u8>, dtype: &str| -> Vec<Owned> {
        let name = |name: &str| format!("model.layers.0.mlp.experts.{name}");
        vec![
            (name("down_proj"), dtype.to_owned(), vec![3, 64, 32], bytes(&down)),
            (name("gate_up_proj"), dtype.to_owned(), vec![3, 64, 64], bytes(&fused)),
        ]
    };
    for (what, r, q, rows) in [
        ("stacked against single", stacked(f32s, "F32"), one_by_one(bf16s, "BF16"), 2),
        ("single against stacked", one_by_one(f32s, "F32"), stacked(bf16s, "BF16"), 9),
        ("single against single", one_by_one(f32s, "F32"), one_by_one(bf16s, "BF16"), 9),
    ] {
        let suite = Suite::new();
        suite.write("r.safetensors", write(&r));
        suite.write("q.safetensors", write(&q));
        suite.spec("thresholds.tensor.cosine = 0.99999");
        let diff = suite.qualm(&["diff", "r.safetensors", "q.safetensors", "--json"]).exits(0);
        let json = diff.json();
        let found = json["tensors"].as_array().unwrap();
        assert_eq!(found.len(), rows, "{what}");
        assert!(found.iter().all(|row| row["sqnr_db"].as_f64().unwrap() > 50.0), "{what}: {diff}");
        suite.qualm(&["run", "--no-baseline"]).exits(0);
    }
}

/*!
Quantized safetensors checkpoints as their own tools write them, against the values that those tools
(or, where a tool computes in a narrower type, its formula in f32) decode them to.
*/

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use qualm::model::{self, Model, Scratch, Storage, Tensor, hex};
use serde_json::Value;
use sha2::{Digest, Sha256};

mod forge;

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schemes");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    assert_eq!(cases.len(), 57);
    cases
}

fn expected(case: &Path) -> BTreeMap<String, Value> {
    let text = std::fs::read(case.join("expected.json")).unwrap();
    let value: Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(value["tensors"].clone()).unwrap()
}

fn decode(model: &Model, tensor: &Tensor, range: Range<u64>, scratch: &mut Scratch) -> Vec<f32> {
    let mut values = vec![f32::NAN; (range.end - range.start) as usize];
    tensor.decode(&model.files, range, scratch, &mut values).unwrap();
    values
}

fn sha256(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    hex(&Sha256::digest(bytes))
}

/// The digest of the values that a decode in f32 must give.
fn digest(expected: &Value) -> &str {
    let formula = &expected["f32_formula"]["dequantized_f32_sha256"];
    formula.as_str().or(expected["dequantized_f32_sha256"].as_str()).unwrap()
}

#[test]
fn every_case_decodes_to_the_published_values() {
    let mut wrong = Vec::new();
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let model = model::open(&case).unwrap();
        let by_name = model.by_name();
        let expected = expected(&case);
        for finding in &model.findings {
            wrong.push(format!("{name}: {finding:?}"));
        }
        for tensor in &model.tensors {
            if !expected.contains_key(&tensor.name) && !tensor.name.ends_with("_bias") {
                wrong.push(format!("{name}: {} {} is left over", tensor.name, tensor.qtype()));
            }
        }
        for (tensor_name, expected) in &expected {
            let Some(&index) = by_name.get(tensor_name.as_str()) else {
                wrong.push(format!("{name}: {tensor_name} is missing"));
                continue;
            };
            let tensor = &model.tensors[index];
            let shape: Vec<u64> = serde_json::from_value(expected["shape"].clone()).unwrap();
            let known = match &tensor.storage {
                Storage::Joined(weight) => weight.shape_is_known(),
                Storage::Plain { .. } => true,
                Storage::Undecodable { reason, .. } => {
                    wrong.push(format!("{name}: {tensor_name}: {reason}"));
                    continue;
                }
            };
            if known && tensor.shape != shape {
                wrong.push(format!("{name}: {tensor_name} has shape {:?}", tensor.shape));
                continue;
            }
            let values = decode(&model, tensor, 0..tensor.numel(), &mut Scratch::default());
            if sha256(&values) != digest(expected) {
                wrong.push(format!("{name}: {tensor_name} {} has other values", tensor.qtype()));
            }
            if let Storage::Joined(weight) = &tensor.storage {
                let found = weight.check_planes(&model.files, &mut Scratch::default()).unwrap();
                if !found.is_empty() {
                    wrong.push(format!("{name}: {found:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A pseudo-random sequence, the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end.max(1)
    }
}

#[test]
fn every_range_decodes_to_its_part_of_the_whole() {
    let mut random = Random(7);
    for case in cases() {
        let model = model::open(&case).unwrap();
        // One scratch for all, as a thread has: tiles and buffers of one weight must not leak into
        // another.
        let mut scratch = Scratch::default();
        for tensor in model.tensors.iter().filter(|t| matches!(t.storage, Storage::Joined(_))) {
            let numel = tensor.numel();
            let whole = decode(&model, tensor, 0..numel, &mut Scratch::default());
            let mut ranges = Vec::new();
            let mut start = 0;
            while start < numel {
                let longest = [1, 40, 700, 5000][random.below(4) as usize];
                let end = (start + 1 + random.below(longest)).min(numel);
                ranges.push(start..end);
                start = end;
            }
            // In order, as the engine asks, and then some out of order.
            for _ in 0..20 {
                let start = random.below(numel);
                ranges.push(start..start + random.below(numel - start) + 1);
            }
            for range in ranges {
                let part = decode(&model, tensor, range.clone(), &mut scratch);
                let expected = &whole[range.start as usize..range.end as usize];
                let same = part.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{}: {} {range:?}", case.display(), tensor.name);
            }
        }
    }
}

/// A checkpoint's own description of a tensor, with its bytes.
#[derive(Clone, Debug)]
struct Stored {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    data: Vec<u8>,
}

fn stored(file: &Path) -> Vec<Stored> {
    let bytes = std::fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
        .map(|(name, entry)| {
            let [begin, end]: [usize; 2] =
                serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            Stored {
                name,
                dtype: entry["dtype"].as_str().unwrap().to_owned(),
                shape: serde_json::from_value(entry["shape"].clone()).unwrap(),
                data: data[begin..end].to_vec(),
            }
        })
        .collect()
}

fn write(tensors: &[Stored]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let begin = data.len();
        data.extend(&tensor.data);
        let offsets = [begin, data.len()];
        let entry = serde_json::json!({
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets,
        });
        header.insert(tensor.name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    forge::safetensors_raw(header.len() as u64, &header, &data)
}

const DTYPES: &[(&str, u64)] = &[
    ("U8", 1),
    ("I8", 1),
    ("I32", 4),
    ("U32", 4),
    ("I64", 8),
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("F8_E4M3", 1),
    ("F8_E8M0", 1),
    ("BOOL", 1),
];

/// Puts one fault into one plane: it stays a well-formed safetensors file.
fn damage(tensors: &mut Vec<Stored>, random: &mut Random) {
    let index = random.below(tensors.len() as u64) as usize;
    let tensor = &mut tensors[index];
    let dimension = random.below(tensor.shape.len() as u64) as usize;
    match random.below(6) {
        0 => {
            tensors.remove(index);
            return;
        }
        1 => tensor.dtype = DTYPES[random.below(DTYPES.len() as u64) as usize].0.to_owned(),
        2 => tensor.shape.insert(dimension, [0, 1, 2, 7][random.below(4) as usize]),
        3 if !tensor.shape.is_empty() => {
            tensor.shape.remove(dimension);
        }
        _ if !tensor.shape.is_empty() => {
            let extent = tensor.shape[dimension];
            let options = [0, 1, extent / 2, extent.saturating_sub(1), extent + 1, extent * 2];
            tensor.shape[dimension] = options[random.below(6) as usize];
        }
        _ => {}
    }
    let width =
        DTYPES.iter().find(|(name, _)| *name == tensor.dtype).map_or(1, |(_, width)| *width);
    let len = tensor.shape.iter().product::<u64>() * width;
    let fill = [0, 0xFF, random.below(256) as u8][random.below(3) as usize];
    if random.below(2) == 0 {
        tensor.data = vec![fill; len as usize];
    }
    tensor.data.resize(len as usize, fill);
}

#[test]
fn damaged_planes_are_errors_or_findings_and_never_a_panic() {
    let mut random = Random(11);
    let mut faults = 0;
    for case in cases() {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&case).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
        let original: Vec<Stored> = files.iter().flat_map(|file| stored(file)).collect();
        let directory = tempfile::tempdir().unwrap();
        if random.below(2) == 0 && case.join("config.json").exists() {
            let to = directory.path().join("config.json");
            std::fs::copy(case.join("config.json"), to).unwrap();
        }
        for _ in 0..40 {
            let mut tensors = original.clone();
            for _ in 0..=random.below(2) {
                damage(&mut tensors, &mut random);
            }
            let path = directory.path().join("model.safetensors");
            std::fs::write(&path, write(&tensors)).unwrap();
            let model = model::open(&path).unwrap();
            let mut scratch = Scratch::default();
            faults += model.findings.len();
            for tensor in &model.tensors {
                let numel = tensor.numel().min(100_000);
                let mut values = vec![0.0; numel as usize];
                let start = random.below(numel);
                let range = start..numel;
                let part = &mut values[start as usize..];
                let _ = tensor.decode(&model.files, range, &mut scratch, part);
                if let Storage::Joined(weight) = &tensor.storage {
                    let _ = weight.check_planes(&model.files, &mut scratch);
                }
            }
        }
    }
    assert!(faults > 500, "{faults}");
}

#[test]
fn a_header_length_that_looks_like_a_pickle_is_none() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let header = format!("{header}{}", " ".repeat(640 - header.len()));
    let model = model::from_bytes(Path::new("model"), forge::safetensors(&header, 1)).unwrap();
    assert_eq!(model.tensors.len(), 1);
}

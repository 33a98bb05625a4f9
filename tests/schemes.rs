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

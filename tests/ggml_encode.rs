/*!
ggml's quantizers against ggml: two real weight matrices quantized to every type, by their SHA-256.
*/

use std::path::{Path, PathBuf};

use qualm::codec::{QuantizeError, TYPES, TensorType};
use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ggml").join(name)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

struct Golden {
    expected: Value,
    reference: Vec<u8>,
}

impl Golden {
    fn load() -> Self {
        let expected = std::fs::read_to_string(data("expected.json")).unwrap();
        Self {
            expected: serde_json::from_str(&expected).unwrap(),
            reference: std::fs::read(data("reference.safetensors")).unwrap(),
        }
    }

    /// Calls `check` with type, name, values, columns and expectations of every quantized tensor.
    fn each(&self, mut check: impl FnMut(TensorType, &str, &[f32], usize, &Value)) {
        let reference = SafeTensors::deserialize(&self.reference).unwrap();
        for (ty, tensors) in self.expected.as_object().unwrap() {
            let ty = TensorType::from_name(ty).unwrap();
            for (name, expected) in tensors.as_object().unwrap() {
                let tensor = reference.tensor(name).unwrap();
                let values: Vec<f32> =
                    tensor.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
                check(ty, name, &values, tensor.shape()[1], expected);
            }
        }
    }
}

fn blocks_for(ty: TensorType, values: &[f32]) -> Vec<u8> {
    // Not zero: a byte that the encoder leaves out must not pass for one.
    vec![0xA5; ty.bytes_for(values.len() as u64).unwrap() as usize]
}

/// The mean square of each column plus 1e-8, all in f32, row after row: what the golden files used.
fn column_weights(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0f32; columns];
    for row in values.chunks_exact(columns) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x * x;
        }
    }
    let rows = (values.len() / columns) as f32;
    sums.iter().map(|sum| sum / rows + 1e-8).collect()
}

#[test]
fn reference_quantizers_give_the_bytes_of_ggml() {
    let (mut checked, mut wrong) = (0, Vec::new());
    Golden::load().each(|ty, name, values, _, expected| {
        let encode = ty.info().encode;
        let Some(expected) = expected.get("from_float_ref_sha256") else {
            assert!(encode.is_none(), "{ty} has no reference quantizer in ggml");
            return;
        };
        let mut blocks = blocks_for(ty, values);
        if let Some(encode) = encode {
            encode(values, &mut blocks);
        }
        if sha256(&blocks) != expected.as_str().unwrap() {
            wrong.push(format!("{ty} {name}"));
        }
        checked += 1;
    });
    assert_eq!(wrong, [""; 0]);
    assert_eq!(checked, 46);
}

#[test]
fn chunk_quantizers_give_the_bytes_of_ggml() {
    let (mut checked, mut wrong) = (0, Vec::new());
    Golden::load().each(|ty, name, values, columns, expected| {
        if ty == TensorType::F32 {
            return;
        }
        let weights = column_weights(values, columns);
        let weights = expected["imatrix"].as_bool().unwrap().then_some(&weights[..]);
        let mut blocks = blocks_for(ty, values);
        let done = ty.quantize(values, weights, &mut blocks);
        if done.is_err() || sha256(&blocks) != expected["quantized_sha256"].as_str().unwrap() {
            wrong.push(format!("{ty} {name} {done:?}"));
        }
        checked += 1;
    });
    assert_eq!(wrong, [""; 0]);
    assert_eq!(checked, 54);
}

#[test]
fn the_checked_way_in_refuses_what_does_not_fit() {
    let all = vec![1.0; 512];
    let ones = vec![1.0; 512];
    for (ty, values, weights, bytes, expected, why) in [
        (TensorType::I8, 512, None, 512, "no quantizer here", "an exact type"),
        (TensorType::IQ2_XS, 512, None, 148, "requires an importance matrix", "as in ggml"),
        (TensorType::Q4_K, 500, None, 288, "500 values", "not whole super-blocks"),
        (TensorType::Q4_K, 512, None, 287, "287 bytes", "too small an output"),
        (TensorType::Q4_K, 512, Some(0), 288, "0 column weights", "an empty matrix"),
        (TensorType::Q4_K, 512, Some(384), 288, "384 column weights", "rows of 1.5 super-blocks"),
        (
            TensorType::Q8_0,
            512,
            Some(96),
            544,
            "96 column weights",
            "rows do not divide the values",
        ),
    ]
        as [(TensorType, usize, Option<usize>, usize, &str, &str); 7]
    {
        let mut blocks = vec![0; bytes];
        let weights = weights.map(|columns| &ones[..columns]);
        let error = ty.quantize(&all[..values], weights, &mut blocks).unwrap_err();
        assert!(error.to_string().contains(expected), "{why}: {error}");
    }
    let _: QuantizeError = QuantizeError::NoEncoder(TensorType::I8);
    assert!(TYPES.iter().filter(|row| row.ty.requires_imatrix()).count() <= 3);
}

/*!
The quantizers of the types of `ik_llama.cpp` against that library, on real weights: where the table says
so the same bits, everywhere an SQNR within half a decibel of the library's own.
*/

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qualm::codec::{Class, Frame, TYPES, TensorType, TypeInfo};
use qualm::model::{self, Scratch};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Values and columns of each reference matrix.
fn references() -> BTreeMap<String, (Vec<f32>, usize)> {
    read(&data("ggml/reference.safetensors"))
}

/// Values and columns of each matrix of a file.
fn read(path: &Path) -> BTreeMap<String, (Vec<f32>, usize)> {
    let model = model::open(path).unwrap();
    let read = |tensor: &model::Tensor| {
        let mut values = vec![0.0; tensor.numel() as usize];
        let (all, scratch) = (0..tensor.numel(), &mut Scratch::default());
        tensor.decode(&model.files, all, scratch, &mut values).unwrap();
        (tensor.name.clone(), (values, tensor.shape[1] as usize))
    };
    model.tensors.iter().map(read).collect()
}

/// The rows of a matrix as the type's quantizer leaves them; a type with one scale for all takes all.
fn through(ty: TensorType, values: &[f32], columns: usize) -> Option<Vec<f32>> {
    let whole = matches!(ty.info().rows.map(|rows| rows.frame), Some(Frame::Whole { .. }));
    let run = if whole { values.len() } else { columns };
    let rows: Option<Vec<Vec<f32>>> = values.chunks_exact(run).map(|row| ty.through(row)).collect();
    rows.map(|rows| rows.concat())
}

fn sqnr_db(reference: &[f32], values: &[f32]) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (&r, &x) in reference.iter().zip(values) {
        signal += f64::from(r) * f64::from(r);
        noise += (f64::from(x) - f64::from(r)).powi(2);
    }
    10.0 * (signal / noise).log10()
}

/// Types of the fork, with what the library makes of the two matrices.
fn types() -> Vec<(&'static TypeInfo, BTreeMap<String, Value>)> {
    let text = std::fs::read_to_string(data("ggml-ik/expected.json")).unwrap();
    let expected: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&text).unwrap();
    let find = |name: &String| TYPES.iter().find(|row| row.ggml_name == Some(name)).unwrap();
    expected.iter().map(|(name, tensors)| (find(name), tensors.clone())).collect()
}

#[test]
fn every_quantizer_has_the_sqnr_of_the_library() {
    let references = references();
    let mut wrong = Vec::new();
    for (info, tensors) in types() {
        if info.class == Class::Float {
            continue;
        }
        for (name, golden) in &tensors {
            let (values, columns) = &references[name];
            // Where the library needs an importance matrix, ours are all one.
            let expected =
                golden.get("from_float_ref").unwrap_or(golden)["sqnr_db"].as_f64().unwrap();
            let twin = through(info.ty, values, *columns);
            let found = twin.map(|twin| sqnr_db(values, &twin));
            if !found.is_some_and(|found| (found - expected).abs() <= 0.5) {
                wrong.push(format!("{} {name}: {found:?} dB, {expected} expected", info.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn where_the_table_says_so_the_bits_are_the_same() {
    let references = references();
    let mut checked = 0;
    for (info, tensors) in types().into_iter().filter(|(it, _)| it.ty.has_reference_quantizer()) {
        for (name, golden) in &tensors {
            let (values, columns) = &references[name];
            let size = |shape: &[u64]| info.ty.bytes_of(shape).unwrap() as usize;
            let bytes: Vec<u8> = if let Some(codec) = info.rows {
                let (encode, rows) = (codec.encode.expect("a quantizer"), codec.frame.rows());
                let units = values.chunks_exact(rows * columns).flat_map(|x| {
                    let mut bytes = vec![0xA5; size(&[rows as u64, *columns as u64])];
                    encode(x, *columns, None, &mut bytes);
                    bytes
                });
                units.collect()
            } else {
                let mut bytes = vec![0xA5; size(&[values.len() as u64])];
                info.encode.expect("a quantizer")(values, &mut bytes);
                bytes
            };
            assert_eq!(sha256(&bytes), golden["from_float_ref_sha256"], "{} {name}", info.name);
            checked += 1;
        }
    }
    assert_eq!(checked, 2 * 10);
}

/// Quantizing what was quantized changes little: the quantizers find their own grid again, or nearly so.
#[test]
fn zeros_stay_zeros_and_no_value_is_too_odd() {
    for info in TYPES.iter().filter(|info| info.rows.is_some() || info.name.starts_with("IQ")) {
        let len = 2 * info.block_len.max(64);
        let zeros = info.ty.through(&vec![0.0; len]).expect("a quantizer");
        assert!(zeros.iter().all(|value| *value == 0.0), "{}", info.name);
        for odd in [f32::NAN, f32::INFINITY, f32::MAX, 1e-42] {
            let mut values = vec![0.01; len];
            values[3] = odd;
            // No panic; what comes of it is not said.
            let through = info.ty.through(&values).expect("a quantizer");
            assert_eq!(through.len(), len, "{} {odd}", info.name);
        }
    }
}

/*!
The types of `ik_llama.cpp` against that library: chosen units bit for bit, whole matrices and experts by
their SHA-256, and the metrics that others computed from them.
*/

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qualm::codec::{Frame, TYPES, TensorType};
use qualm::model::{self, Model, Scratch, Tensor};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ggml-ik").join(name)
}

fn json(name: &str) -> BTreeMap<String, Value> {
    serde_json::from_str(&std::fs::read_to_string(data(name)).unwrap()).unwrap()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn sha256_of(values: &[f32]) -> String {
    sha256(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

fn tensor<'a>(model: &'a Model, name: &str) -> &'a Tensor {
    model.tensors.iter().find(|tensor| tensor.name == name).expect("the tensor")
}

fn decode(model: &Model, tensor: &Tensor, start: u64, end: u64) -> Vec<f32> {
    // Not zero: a value that the decoder leaves out must not pass for one.
    let mut values = vec![12345.678; (end - start) as usize];
    tensor.decode(&model.files, start..end, &mut Scratch::default(), &mut values).unwrap();
    values
}

#[test]
fn chosen_units_decode_to_the_bits_of_the_library() {
    let text = std::fs::read_to_string(data("blocks.jsonl")).unwrap();
    for line in text.lines() {
        let golden: Value = serde_json::from_str(line).unwrap();
        let ty = TensorType::from_ggml_id(golden["id"].as_u64().unwrap() as u32).unwrap();
        let info = ty.info();
        assert_eq!(info.ggml_name, golden["type"].as_str());
        let (rows, columns) = (golden["rows"].as_u64().unwrap(), golden["cols"].as_u64().unwrap());
        let bytes = from_hex(golden["bytes_hex"].as_str().unwrap());
        assert_eq!(ty.bytes_of(&[rows, columns]), Ok(bytes.len() as u64), "{ty}");
        let mut values = vec![12345.678; (rows * columns) as usize];
        if let Some(codec) = info.rows {
            let (meta, blocks) = bytes.split_at(codec.frame.meta());
            assert_eq!(codec.frame.rows() as u64, rows, "{ty}: a unit");
            (codec.decode)(meta, blocks, 0..rows as usize, &mut values);
        } else {
            info.decode.expect("a decoder")(&bytes, &mut values);
        }
        assert_eq!(sha256_of(&values), golden["f32le_sha256"], "{ty}, {}", golden["fill"]);
    }
    assert_eq!(text.lines().count(), 98);
}

/// As stored, and, where the values have zeros of both signs, or the hash leaves the sign out.
fn assert_decodes(values: &[f32], golden: &Value, what: &str) {
    let no_negative_zero: Vec<f32> = values.iter().map(|value| value + 0.0).collect();
    let hashes = [sha256_of(values), sha256_of(&no_negative_zero)];
    let plain = golden["dequantized_sha256"] == hashes[0];
    let unsigned = golden.get("dequantized_sha256_no_negative_zero");
    assert!(plain, "{what}");
    assert!(unsigned.is_none_or(|hash| *hash == hashes[1]), "{what}: zeros");
}

fn reference(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ggml/reference.safetensors");
    let model = model::open(&path).unwrap();
    let tensor = tensor(&model, name);
    decode(&model, tensor, 0, tensor.numel())
}

/// The metrics between a reference and its decode, in f64 with the sums in element order.
fn assert_metrics(reference: &[f32], values: &[f32], golden: &Value, what: &str) {
    let (mut ee, mut rr, mut xx, mut rx, mut max_abs) = (0.0, 0.0, 0.0, 0.0, 0.0f64);
    for (&r, &x) in reference.iter().zip(values) {
        let (r, x) = (f64::from(r), f64::from(x));
        let e = x - r;
        (ee, rr, xx, rx) = (ee + e * e, rr + r * r, xx + x * x, rx + r * x);
        max_abs = max_abs.max(e.abs());
    }
    for (name, value) in [
        ("rmse", (ee / values.len() as f64).sqrt()),
        ("cosine", rx / (rr.sqrt() * xx.sqrt())),
        ("max_abs", max_abs),
        ("sqnr_db", 10.0 * (rr / ee).log10()),
    ] {
        let expected = golden[name].as_f64().unwrap();
        assert!(
            (value - expected).abs() <= 1e-9 * expected.abs().max(1.0),
            "{what}: {name} {value}"
        );
    }
}

#[test]
fn whole_matrices_decode_to_the_golden_hashes() {
    let expected = json("expected.json");
    assert_eq!(expected.len(), 50);
    for (type_name, tensors) in &expected {
        let path = data(&format!("{type_name}.gguf"));
        let bytes = std::fs::read(&path).unwrap();
        let model = model::open(&path).unwrap();
        let tensors = tensors.as_object().unwrap();
        assert_eq!(model.tensors.len(), tensors.len(), "{type_name}");
        assert!(model.notes.is_empty(), "{type_name}: {:?}", model.notes);
        for (name, golden) in tensors {
            let what = format!("{type_name} {name}");
            let tensor = tensor(&model, name);
            let ty = TensorType::from_name(tensor.qtype()).unwrap();
            assert_eq!(ty.info().ggml_name, Some(type_name.as_str()));
            let at = tensor.extent().unwrap();
            let stored = &bytes[at.offset as usize..(at.offset + at.len) as usize];
            assert_eq!(sha256(stored), golden["quantized_sha256"], "{what}: stored");
            let values = decode(&model, tensor, 0, tensor.numel());
            assert_decodes(&values, golden, &what);
            assert_metrics(&reference(name), &values, golden, &what);
        }
    }
}

#[test]
fn stacked_experts_decode_in_any_range() {
    let model = model::open(&data("experts.gguf")).unwrap();
    let embedding = reference("embedding.weight");
    for (name, golden) in json("experts.json") {
        let tensor = tensor(&model, &name);
        assert_eq!(tensor.qtype(), golden["type"].as_str().unwrap().to_uppercase());
        let values = decode(&model, tensor, 0, tensor.numel());
        assert_decodes(&values, &golden, &name);
        assert_metrics(&embedding, &values, &golden, &name);
        let (row, expert) = (tensor.shape[2], tensor.shape[1] * tensor.shape[2]);
        for (start, end) in [
            (expert - 1, expert + 1),
            (expert + 3 * row, expert + 4 * row),
            (row / 2 + 1, 2 * expert + 3),
            (2 * expert, 3 * expert),
        ] {
            let part = decode(&model, tensor, start, end);
            let expected = &values[start as usize..end as usize];
            assert!(
                part.iter().map(|v| v.to_bits()).eq(expected.iter().map(|v| v.to_bits())),
                "{name}"
            );
        }
    }
}

/// The table's rows of the fork are what its own file says: merged rows have the size of plain ones.
#[test]
fn merging_rows_does_not_change_their_size() {
    for info in TYPES {
        let Some(codec) = info.rows else { continue };
        let Some(base) = codec.base else { continue };
        let rows = codec.frame.rows() as u64;
        let [merged, plain] = [info.ty, base].map(|ty| ty.bytes_of(&[rows, 512]).unwrap());
        // A row of Q8_KV has the sum of its codes beside the scale.
        let sums = if base == TensorType::Q8_KV { 4 * rows } else { 0 };
        assert_eq!(merged + sums, plain, "{}", info.name);
        assert!(matches!(codec.frame, Frame::Rows { rows: 4.., .. }), "{}", info.name);
    }
}

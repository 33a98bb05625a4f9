/*!
No false alarm: a sound quantization to any type passes `qualm check`, heavy tails and all, from whatever
few pieces of it are quantized again to know what to expect.
*/

use std::process::Command;

use qualm::codec::{Class, TYPES, TensorType, TypeInfo};

#[allow(dead_code, unreachable_pub)]
#[path = "../bench/generate.rs"]
mod generate;

/// Enough tensors that one in fifty that is taken for damaged would show.
const PARAMS: f64 = 6e7;

#[test]
fn every_type_passes_as_its_quantizer_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    let reference = directory.path().join("reference.gguf");
    let quantized = directory.path().join("quantized.gguf");
    let shapes = generate::transformer(PARAMS);
    let values = generate::weights(0);
    generate::write_model(&reference, TensorType::F16, &shapes, &values).unwrap();
    let mut damaged = Vec::new();
    let is_quantized = |row: &&TypeInfo| row.class == Class::Quantized && row.ggml_id.is_some();
    for row in TYPES.iter().filter(is_quantized).filter(|row| generate::can_encode(row.ty)) {
        generate::write_model(&quantized, row.ty, &shapes, &values).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_qualm"));
        let checked = check.arg("check").args([&reference, &quantized]).output().unwrap();
        if checked.status.code() != Some(0) {
            damaged.push(format!("{}: {}", row.name, String::from_utf8_lossy(&checked.stdout)));
        }
    }
    assert!(damaged.is_empty(), "{}", damaged.join("\n"));
}

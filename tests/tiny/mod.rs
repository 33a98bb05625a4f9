//! Models of a few kilobytes, the same on every machine.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

fn values(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / 8388608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A model of four blocks; `change` may alter a tensor, or leave it out.
pub fn write_model(path: &Path, half: bool, change: &dyn Fn(&str, &mut Vec<f32>) -> bool) {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for block in 0..4u32 {
        for (part, rows) in [("attn", 8), ("ffn", 24), ("norm", 1)] {
            let name = format!("blk.{block}.{part}.weight");
            let mut data = values(block * 7 + rows, rows as usize * 64);
            if !change(&name, &mut data) {
                continue;
            }
            let shape = if rows == 1 { vec![64] } else { vec![rows as usize, 64] };
            let is_half = half && rows > 1;
            let bytes: Vec<u8> = if is_half {
                data.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
            } else {
                data.iter().flat_map(|v| v.to_le_bytes()).collect()
            };
            tensors.push((name, if is_half { Dtype::F16 } else { Dtype::F32 }, shape, bytes));
        }
        let ids: Vec<u8> = (0..5i64).flat_map(i64::to_le_bytes).collect();
        tensors.push((format!("blk.{block}.ids"), Dtype::I64, vec![5], ids));
    }
    tensors.push(("empty".to_owned(), Dtype::F32, vec![0], Vec::new()));
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        })
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

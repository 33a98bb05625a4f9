/*!
`qualm check` on files of every type of `ik_llama.cpp`: those that the library made of real weights and
those that our quantizers make of normal and heavy-tailed ones are healthy; one damaged row is found.
*/

mod forge;

use std::path::{Path, PathBuf};
use std::process::Command;

use forge::gguf::Gguf;
use qualm::codec::{Class, Frame, TYPES, TypeInfo};
use qualm::model;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Exit code and output of `qualm check`.
fn check(reference: &Path, quantized: &Path) -> (Option<i32>, String) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_qualm"));
    let checked = check.arg("check").args([reference, quantized]).output().unwrap();
    let text = [checked.stdout, checked.stderr].concat();
    (checked.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// The types of the fork that files have, with the name of the library's file.
fn types() -> impl Iterator<Item = (&'static TypeInfo, PathBuf)> {
    let file = |info: &'static TypeInfo| {
        let path = data(&format!("ggml-ik/{}.gguf", info.ggml_name?));
        path.exists().then_some((info, path))
    };
    TYPES.iter().filter_map(file)
}

#[test]
fn what_the_library_made_is_healthy() {
    let reference = data("ggml/reference.safetensors");
    let mut wrong = Vec::new();
    for (info, path) in types() {
        let (code, text) = check(&reference, &path);
        if code != Some(0) {
            wrong.push(format!("{} ({code:?}): {text}", info.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Reverses the bytes of the blocks of one row, or of one unit of merged rows, in the middle of a tensor.
#[test]
fn one_damaged_row_is_found() {
    let reference = data("ggml/reference.safetensors");
    let directory = tempfile::tempdir().unwrap();
    let damaged = directory.path().join("damaged.gguf");
    let mut missed = Vec::new();
    for (info, path) in types() {
        let model = model::open(&path).unwrap();
        let tensor = model.tensors.iter().find(|tensor| tensor.shape == [128, 256]).unwrap();
        let at = tensor.extent().unwrap();
        let (rows, meta) = match info.rows.map(|rows| rows.frame) {
            Some(Frame::Rows { rows, meta }) => (rows, rows * meta),
            // A row may have no code but zero: below.
            Some(Frame::Whole { .. }) => continue,
            None => (1, 0),
        };
        let unit = at.len as usize / (128 / rows);
        let start = at.offset as usize + 128 / rows / 2 * unit;
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[start + meta..start + unit].reverse();
        std::fs::write(&damaged, bytes).unwrap();
        let (code, text) = check(&reference, &damaged);
        if code != Some(5) || !text.contains("embedding.weight") {
            missed.push(format!("{} ({code:?}): {text}", info.name));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// The scale of one row, or of all, twice as large.
#[test]
fn one_damaged_scale_is_found() {
    let reference = data("ggml/reference.safetensors");
    let directory = tempfile::tempdir().unwrap();
    let damaged = directory.path().join("damaged.gguf");
    let mut missed = Vec::new();
    for (info, path) in types() {
        let (rows, meta) = match info.rows.map(|rows| rows.frame) {
            Some(Frame::Rows { rows, meta: meta @ 1.. }) => (rows, meta),
            Some(Frame::Whole { tail }) => (0, tail),
            _ => continue,
        };
        let model = model::open(&path).unwrap();
        let tensor = model.tensors.iter().find(|tensor| tensor.shape == [128, 256]).unwrap();
        let at = tensor.extent().unwrap();
        let start = match rows {
            0 => at.len - meta as u64,
            rows => at.len / (128 / rows as u64) * 5,
        };
        let start = (at.offset + start) as usize;
        let mut bytes = std::fs::read(&path).unwrap();
        // One more in the exponent.
        if meta == 2 {
            bytes[start + 1] += 4;
        } else {
            let bits = u32::from_le_bytes(*bytes[start..].first_chunk().unwrap());
            bytes[start..start + 4].copy_from_slice(&(bits + (1 << 23)).to_le_bytes());
        }
        std::fs::write(&damaged, bytes).unwrap();
        let (code, text) = check(&reference, &damaged);
        if code != Some(5) || !text.contains("embedding.weight") {
            missed.push(format!("{} ({code:?}): {text}", info.name));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Values of about a normal distribution; with tails, one in fifty is larger by up to ten times.
fn weights(tails: bool) -> Vec<f32> {
    let mut state = 7u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut weight = || {
        let normal = (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        let larger = if tails && uniform() < 0.02 { 1.0 + 9.0 * uniform() } else { 1.0 };
        0.02 * normal * larger
    };
    (0..32 * 512).map(|_| weight()).collect()
}

#[test]
fn what_our_quantizers_make_is_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let [reference, quantized] = ["r.gguf", "q.gguf"].map(|name| directory.path().join(name));
    let mut wrong = Vec::new();
    for tails in [false, true] {
        let values = weights(tails);
        let file = Gguf::new().f32("blk.0.ffn_up.weight", &[32, 512], &values);
        std::fs::write(&reference, file.bytes()).unwrap();
        for info in TYPES.iter().filter(|it| it.class == Class::Quantized) {
            let Some(bytes) = encode(info, &values) else { continue };
            let ty = info.ggml_id.unwrap();
            let file = Gguf::new().tensor("blk.0.ffn_up.weight", &[32, 512], ty, bytes);
            std::fs::write(&quantized, file.bytes()).unwrap();
            let (code, text) = check(&reference, &quantized);
            if code != Some(0) {
                wrong.push(format!("{} tails {tails} ({code:?}): {text}", info.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// 32 rows of 512, by the type's own quantizer; none if it is no type of the fork or has none.
fn encode(info: &TypeInfo, values: &[f32]) -> Option<Vec<u8>> {
    let id = info.ggml_id?;
    let Some(codec) = info.rows else {
        let mut bytes = vec![0; info.ty.bytes_for(values.len() as u64)? as usize];
        let encode = info.encode_chunk.filter(|_| (133..=141).contains(&id))?;
        encode(values, &mut bytes);
        return Some(bytes);
    };
    let encode = codec.encode?;
    let rows = match codec.frame {
        Frame::Rows { rows, .. } => rows,
        Frame::Whole { .. } => 32,
    };
    let size = info.ty.bytes_of(&[rows as u64, 512]).ok()? as usize;
    let unit = |values: &[f32]| {
        let mut bytes = vec![0; size];
        encode(values, 512, None, &mut bytes);
        bytes
    };
    Some(values.chunks_exact(rows * 512).flat_map(unit).collect())
}

/// Tools take the one scale of `I2_S` from the largest magnitude or from the mean one.
#[test]
fn one_scale_for_all_is_healthy_wherever_it_is_from() {
    let directory = tempfile::tempdir().unwrap();
    let [reference, quantized] = ["r.gguf", "q.gguf"].map(|name| directory.path().join(name));
    for tails in [false, true] {
        let values = weights(tails);
        let file = Gguf::new().f32("blk.0.ffn_up.weight", &[32, 512], &values);
        std::fs::write(&reference, file.bytes()).unwrap();
        let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let mean = values.iter().map(|x| x.abs()).sum::<f32>() / values.len() as f32;
        for scale in [largest, mean] {
            let row_of = |at: usize| &values[512 * at..512 * (at + 1)];
            let codes = |&at: &usize| row_of(at).iter().filter(|x| x.abs() > scale / 2.0).count();
            let fullest = (0..32).max_by_key(codes).unwrap();
            let check_with = |stored: f32, row_moved: Option<usize>| {
                let mut bytes = vec![0u8; values.len() / 4 + 32];
                for (i, x) in values.iter().enumerate() {
                    let code = ((x / scale).round().clamp(-1.0, 1.0) + 1.0) as u8;
                    bytes[32 * (i / 128) + i % 32] |= code << (6 - 2 * (i % 128 / 32));
                }
                if let Some(row) = row_moved {
                    bytes[128 * row..128 * (row + 1)].rotate_left(5);
                }
                bytes[values.len() / 4..][..4].copy_from_slice(&stored.to_le_bytes());
                let file = Gguf::new().tensor("blk.0.ffn_up.weight", &[32, 512], 36, bytes);
                std::fs::write(&quantized, file.bytes()).unwrap();
                check(&reference, &quantized)
            };
            let (code, text) = check_with(scale, None);
            assert_eq!(code, Some(0), "tails {tails} scale {scale}: {text}");
            for damaged in [2.0 * scale, 0.5 * scale] {
                let (code, text) = check_with(damaged, None);
                assert_eq!(code, Some(5), "tails {tails} {scale} as {damaged}: {text}");
            }
            let (code, text) = check_with(scale, Some(fullest));
            assert_eq!(code, Some(5), "tails {tails} scale {scale}, a row moved: {text}");
        }
    }
}

/// What an index stood for until June 2025: QTIP's linear congruence, of whose states two halves are summed up.
fn former(index: u32, count: usize) -> Vec<f32> {
    let mut state = index.wrapping_add(4096);
    let next = |_| {
        state = state.wrapping_mul(89_226_354).wrapping_add(64_248_484);
        let word = (state & 0x8fff_8fff) ^ 0x3b60_3b60;
        let half = |bits: u32| half::f16::from_bits(bits as u16).to_f32();
        half(word) + half(word >> 16)
    };
    (0..count).map(next).collect()
}

/// Trellis types meant other values once, under the same ids: such a file is damaged, and the cause says so.
#[test]
fn trellis_types_of_before_june_2025_are_told_by_their_values() {
    let directory = tempfile::tempdir().unwrap();
    let [reference, quantized] = ["r.gguf", "q.gguf"].map(|name| directory.path().join(name));
    let (rows, columns) = (32usize, 512usize);
    for (name, block_len, per_group) in [("IQ2_KT", 68, 8), ("IQ3_KT", 100, 8)] {
        let info = TYPES.iter().find(|it| it.name == name).unwrap();
        let mut state = 11u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as u32
        };
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        for _ in 0..rows {
            bytes.extend(0.01f32.to_le_bytes());
            for _ in 0..columns / 256 {
                // All scales are that of code 12; every index is a random one.
                bytes.extend([0xCC; 4]);
                let indices: Vec<u32> = (0..32).map(|_| random() & 0xFFFF).collect();
                bytes.extend(indices.iter().flat_map(|it| (*it as u16).to_le_bytes()));
                let signs: Vec<u8> = (0..block_len - 68).map(|_| random() as u8).collect();
                for (k, index) in indices.iter().enumerate() {
                    for (i, value) in former(*index, per_group).into_iter().enumerate() {
                        let value = match signs.get(k % 4 * 8 + i) {
                            None => value,
                            Some(signs) if signs >> (k / 4) & 1 == 1 => -value.abs(),
                            Some(_) => value.abs(),
                        };
                        // What the search for an index leaves.
                        let noise = (random() as f32 / (1u32 << 24) as f32 - 0.5) * 0.8;
                        values.push(0.02 * (value + noise));
                    }
                }
                bytes.extend(signs);
            }
        }
        let file = Gguf::new().f32("blk.0.ffn_up.weight", &[32, 512], &values);
        std::fs::write(&reference, file.bytes()).unwrap();
        let id = info.ggml_id.unwrap();
        let file = Gguf::new().tensor("blk.0.ffn_up.weight", &[32, 512], id, bytes);
        std::fs::write(&quantized, file.bytes()).unwrap();
        let (code, text) = check(&reference, &quantized);
        assert_eq!(code, Some(5), "{name}: {text}");
        assert!(text.contains("cause: former-trellis"), "{name}: {text}");
        // Random indices are no such file.
        values.reverse();
        let file = Gguf::new().f32("blk.0.ffn_up.weight", &[32, 512], &values);
        std::fs::write(&reference, file.bytes()).unwrap();
        let (code, text) = check(&reference, &quantized);
        assert!(code == Some(5) && !text.contains("former-trellis"), "{name}: {text}");
    }
}

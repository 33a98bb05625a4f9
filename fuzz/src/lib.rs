/*!
What the fuzz targets do with their input: plain functions, so that a test on stable Rust can play
the corpus back (`tests/fuzz_corpus.rs` includes this file).

Each panics when a law is broken; for hostile input an error is a right answer, a panic never is.
*/

mod files;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod reads;

use std::path::Path;

pub use files::{archive, blob, configuration, directory, numbers, record, snapshot, spec};
use qualm::codec::rows::EncodeUnitFn;
use qualm::codec::{RowCodec, TYPES, TypeInfo};
use qualm::model::scheme::SCHEMES;
use qualm::model::{self, Model, Scratch, Storage, Tensor};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use reads::reads;

/// Elsewhere reads go as they go.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn reads(_: &[u8]) {}

/// Elements that are decoded at each end of a tensor.
const EDGE: u64 = 700;

/// A target: what it is called, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 14] = [
    ("gguf", container),
    ("safetensors", container),
    ("scheme", scheme),
    ("decode", decode),
    ("encode", encode),
    ("spec", spec),
    ("snapshot", snapshot),
    ("record", record),
    ("blob", blob),
    ("archive", archive),
    ("numbers", numbers),
    ("configuration", configuration),
    ("directory", directory),
    ("reads", reads),
];

/// Opens the input as a model; what opens must be in bounds and decode.
pub fn container(data: &[u8]) {
    match model::from_bytes(Path::new("input"), data.to_vec()) {
        Ok(model) => check_model(&model, data.len() as u64),
        Err(error) => assert!(error.to_string().starts_with("input: "), "{error}"),
    }
}

fn check_model(model: &Model, len: u64) {
    let names: Vec<&str> = model.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "sorted, and no name twice");
    let stored: u64 = model.tensors.iter().map(Tensor::stored_bytes).sum();
    assert!(stored <= len, "no byte belongs to two tensors");
    assert_eq!(model.files[0].header_sha256.len(), 64);
    for tensor in &model.tensors {
        if let Storage::Plain { ty, at } = &tensor.storage {
            assert_eq!(ty.bytes_for(tensor.numel()), Some(at.len), "{}", tensor.name);
        }
        if let Some(at) = tensor.extent() {
            assert!(at.offset + at.len <= len, "{} is in bounds", tensor.name);
        }
        if let Storage::Joined(weight) = &tensor.storage {
            let _ = weight.check_planes(&model.files, &mut Scratch::default());
        }
        let numel = tensor.numel();
        read(model, tensor, 0..numel.min(EDGE));
        read(model, tensor, numel.saturating_sub(EDGE)..numel);
    }
}

/// Decodes a range; every value must be written, or there is an error.
fn read(model: &Model, tensor: &Tensor, range: std::ops::Range<u64>) {
    let mut scratch = Scratch::default();
    let [first, second] = [1.0f32, 2.0].map(|unwritten| {
        let mut values = vec![unwritten; (range.end - range.start) as usize];
        tensor.decode(&model.files, range.clone(), &mut scratch, &mut values).map(|()| values)
    });
    match (first, second) {
        (Ok(first), Ok(second)) => assert_same(&first, &second, &tensor.name),
        (first, second) => assert_eq!(first.is_err(), second.is_err()),
    }
}

fn assert_same(a: &[f32], b: &[f32], what: &str) {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    assert!(a.len() == b.len() && a.iter().zip(b).all(same), "{what}: {a:?} is not {b:?}");
}

/// Builds a sound safetensors file out of planes that the input describes, four bytes each, and
/// fills them with the bytes that follow: what a scheme joins, or does not, must be in bounds and
/// decode or say why not. An empty description ends the list.
pub fn scheme(mut data: &[u8]) {
    const TYPES: [(&str, usize); 16] = [
        ("U8", 1),
        ("I8", 1),
        ("F8_E4M3", 1),
        ("F8_E8M0", 1),
        ("F16", 2),
        ("F32", 4),
        ("I32", 4),
        ("I64", 8),
        ("I16", 2),
        ("BF16", 2),
        ("U16", 2),
        ("U32", 4),
        ("BOOL", 1),
        ("F8_E5M2", 1),
        ("F64", 8),
        ("U64", 8),
    ];
    const LARGEST: usize = 1 << 16;
    let suffixes = suffixes();
    let mut planes = std::collections::BTreeMap::new();
    while let Some((&[suffix, ty, rows, columns], rest)) = data.split_first_chunk::<4>() {
        data = rest;
        if [suffix, ty, rows, columns] == [0; 4] {
            break;
        }
        // The lower bits choose the type, the upper ones the rank, what is peculiar to tiles, groups and
        // code books, and the base name.
        let (dtype, width) = TYPES[usize::from(ty & 7 | ty >> 2 & 8)];
        let (r, c) = (usize::from(rows), usize::from(columns));
        let shape = match (ty >> 6 & 1, ty >> 3 & 3) {
            (0, 0) => vec![],
            (0, 1) => vec![c],
            (0, 2) => vec![r, c],
            (0, _) => vec![2, r, c],
            (_, 0) => vec![2, r, 1, c],
            (_, 1) => vec![r, c, 16],
            (_, 2) => vec![r, if c == 0 { 256 } else { c * 17 }],
            _ => vec![r, c, 40],
        };
        let len = shape.iter().product::<usize>() * width;
        let base = if ty & 0x80 == 0 { "model.layers.0.x" } else { "model.layers.0.y" };
        let name = format!("{base}{}", suffixes[usize::from(suffix) % suffixes.len()]);
        if len <= LARGEST {
            planes.insert(name, (dtype, shape, len));
        }
    }
    let mut header = Vec::new();
    let mut end = 0;
    for (name, (dtype, shape, len)) in &planes {
        let begin = end;
        end += len;
        header.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", header.join(","));
    let mut file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let pattern: &[u8] = if data.is_empty() { &[0] } else { data };
    file.extend(pattern.iter().cycle().take(end));
    let len = file.len() as u64;
    let model = model::from_bytes(Path::new("input"), file).expect("a sound file");
    check_model(&model, len);
}

/// Every suffix that a plane of a scheme may have, once.
pub fn suffixes() -> Vec<&'static str> {
    let mut suffixes: Vec<&str> = Vec::new();
    for suffix in SCHEMES.iter().flat_map(|scheme| scheme.suffixes) {
        if !suffixes.contains(suffix) {
            suffixes.push(suffix);
        }
    }
    suffixes
}

/// The first byte chooses a type, the others are blocks of it: decoding writes every value, and a
/// block decodes to the same values alone as among others.
pub fn decode(data: &[u8]) {
    let Some((row, rest)) = choose(data) else { return };
    if let Some(codec) = row.rows {
        decode_rows(row, &codec, rest);
    }
    let Some(decode) = row.decode else { return };
    let blocks = &rest[..rest.len() - rest.len() % row.block_bytes];
    let len = blocks.len() / row.block_bytes * row.block_len;
    let [whole, again] = [1.0f32, 2.0].map(|unwritten| {
        let mut values = vec![unwritten; len];
        decode(blocks, &mut values);
        values
    });
    assert_same(&whole, &again, row.name);
    let mut alone = vec![0.0; row.block_len];
    for (block, expected) in
        blocks.chunks_exact(row.block_bytes).zip(whole.chunks_exact(row.block_len))
    {
        decode(block, &mut alone);
        assert_same(&alone, expected, row.name);
    }
}

/// A unit of rows: the metadata, then whole merged blocks. Each row decodes to the same values alone as
/// among the others.
fn decode_rows(row: &TypeInfo, codec: &RowCodec, data: &[u8]) {
    let Some((meta, rest)) = data.split_at_checked(codec.frame.meta()) else { return };
    let rows = codec.frame.rows();
    let merged = row.block_bytes * rows;
    let blocks = &rest[..rest.len() - rest.len() % merged];
    let columns = blocks.len() / merged * row.block_len;
    let [whole, again] = [1.0f32, 2.0].map(|unwritten| {
        let mut values = vec![unwritten; rows * columns];
        (codec.decode)(meta, blocks, 0..rows, &mut values);
        values
    });
    assert_same(&whole, &again, row.name);
    let mut alone = vec![0.0; columns];
    for (k, expected) in whole.chunks_exact(columns.max(1)).enumerate() {
        (codec.decode)(meta, blocks, k..k + 1, &mut alone);
        assert_same(&alone, expected, row.name);
    }
}

/// The first byte chooses a type, the others are the upper halves of f32 values: whatever they are,
/// encoding them ends, fills the blocks, and gives the same blocks again; they decode.
pub fn encode(data: &[u8]) {
    let Some((row, rest)) = choose(data) else { return };
    let value = |bytes: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    let values: Vec<f32> = rest.as_chunks::<2>().0.iter().map(value).collect();
    let values = &values[..values.len() - values.len() % row.block_len];
    if let Some(codec) = row.rows
        && let Some(encode) = codec.encode
        && !values.is_empty()
    {
        encode_rows(row, &codec, encode, values);
    }
    if let Some(encode) = row.encode {
        check_blocks(row, values.len(), |blocks| encode(values, blocks));
    }
    if let Some(encode) = row.encode_chunk {
        check_blocks(row, values.len(), |blocks| encode(values, blocks));
    }
    if let Some(encode) = row.encode_weighted
        && !values.is_empty()
    {
        // One row of values, weighted by its own magnitudes in reverse: any non-negative numbers.
        let weights: Vec<f32> = values.iter().rev().map(|value| value.abs()).collect();
        check_blocks(row, values.len(), |blocks| encode(values, &weights, blocks));
    }
}

/// The values are the first row of a unit, the others are zero.
fn encode_rows(row: &TypeInfo, codec: &RowCodec, encode: EncodeUnitFn, values: &[f32]) {
    // A few blocks: some quantizers search for long.
    let columns = values.len().min(row.block_len * 2);
    let rows = codec.frame.rows();
    let mut unit = values[..columns].to_vec();
    unit.resize(rows * columns, 0.0);
    let len = row.ty.bytes_of(&[rows as u64, columns as u64]).expect("whole blocks") as usize;
    let [first, second] = [0x55u8, 0xAA].map(|unwritten| {
        let mut bytes = vec![unwritten; len];
        encode(&unit, columns, None, &mut bytes);
        bytes
    });
    assert_eq!(first, second, "{}: every byte is written", row.name);
}

fn check_blocks(row: &TypeInfo, len: usize, encode: impl Fn(&mut [u8])) {
    let [first, second] = [0x55u8, 0xAA].map(|unwritten| {
        let mut blocks = vec![unwritten; len / row.block_len * row.block_bytes];
        encode(&mut blocks);
        blocks
    });
    assert_eq!(first, second, "{}: every byte is written", row.name);
    if let Some(decode) = row.decode {
        decode(&first, &mut vec![0.0; len]);
    }
}

fn choose(data: &[u8]) -> Option<(&'static TypeInfo, &[u8])> {
    let (&first, rest) = data.split_first()?;
    Some((&TYPES[usize::from(first) % TYPES.len()], rest))
}

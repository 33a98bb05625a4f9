/*!
ggml's decoders against ggml: chosen blocks bit for bit, whole quantized matrices by their SHA-256.
*/

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qualm::codec::TensorType;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ggml").join(name)
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn decode(ty: TensorType, blocks: &[u8]) -> Vec<f32> {
    let row = ty.info();
    assert_eq!(blocks.len() % row.block_bytes, 0, "whole blocks");
    // Not zero: a value that the decoder leaves out must not pass for one.
    let mut values = vec![12345.678; blocks.len() / row.block_bytes * row.block_len];
    row.decode.expect("a decoder")(blocks, &mut values);
    values
}

#[test]
fn chosen_blocks_decode_to_the_bits_of_ggml() {
    let text = std::fs::read_to_string(data("blocks.jsonl")).unwrap();
    let mut types = 0;
    for line in text.lines() {
        let golden: Value = serde_json::from_str(line).unwrap();
        let ty = TensorType::from_ggml_id(golden["id"].as_u64().unwrap() as u32).unwrap();
        assert_eq!(ty.name(), golden["type"].as_str().unwrap());
        let row = ty.info();
        assert_eq!(row.block_len as u64, golden["block"].as_u64().unwrap(), "{ty}");
        assert_eq!(row.block_bytes as u64, golden["bytes"].as_u64().unwrap(), "{ty}");
        let blocks = golden["blocks_hex"].as_array().unwrap();
        let expected = golden["f32le_hex"].as_array().unwrap();
        assert_eq!((blocks.len(), expected.len()), (8, 8), "{ty}");
        for (n, (block, expected)) in blocks.iter().zip(expected).enumerate() {
            let values = decode(ty, &from_hex(block.as_str().unwrap()));
            let expected = from_hex(expected.as_str().unwrap());
            let (expected, _) = expected.as_chunks::<4>();
            assert_eq!(values.len(), expected.len(), "{ty}");
            for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
                let expected = f32::from_le_bytes(*expected);
                assert_eq!(
                    value.to_bits(),
                    expected.to_bits(),
                    "{ty}, block {n}, element {i}: {value} is not {expected}"
                );
            }
        }
        types += 1;
    }
    assert_eq!(types, 25);
}

/// Name, type id and stored bytes of each tensor: just enough of GGUF for files that are sound.
fn gguf_tensors(file: &[u8]) -> BTreeMap<String, (u32, Vec<u64>, usize)> {
    struct Reader<'a>(&'a [u8], usize);
    impl Reader<'_> {
        fn number(&mut self, bytes: usize) -> u64 {
            let mut word = [0; 8];
            word[..bytes].copy_from_slice(&self.0[self.1..self.1 + bytes]);
            self.1 += bytes;
            u64::from_le_bytes(word)
        }
        fn text(&mut self) -> String {
            let len = self.number(8) as usize;
            self.1 += len;
            String::from_utf8(self.0[self.1 - len..self.1].to_vec()).unwrap()
        }
    }
    let mut reader = Reader(file, 8);
    let (tensors, entries) = (reader.number(8), reader.number(8));
    for _ in 0..entries {
        reader.text();
        match reader.number(4) {
            4 => drop(reader.number(4)),
            8 => drop(reader.text()),
            kind => panic!("metadata of kind {kind}"),
        }
    }
    let infos: Vec<_> = (0..tensors)
        .map(|_| {
            let name = reader.text();
            let rank = reader.number(4);
            let shape: Vec<u64> = (0..rank).map(|_| reader.number(8)).collect();
            (name, (reader.number(4) as u32, shape, reader.number(8) as usize))
        })
        .collect();
    let start = reader.1.next_multiple_of(32);
    infos
        .into_iter()
        .map(|(name, (id, shape, offset))| (name, (id, shape, start + offset)))
        .collect()
}

#[test]
fn whole_matrices_decode_to_the_golden_hashes() {
    let text = std::fs::read_to_string(data("expected.json")).unwrap();
    let expected: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 28);
    for (type_name, tensors) in &expected {
        let file = std::fs::read(data(&format!("{type_name}.gguf"))).unwrap();
        let stored = gguf_tensors(&file);
        assert_eq!(stored.len(), tensors.len(), "{type_name}");
        for (name, golden) in tensors {
            let (id, shape, start) = &stored[name];
            let ty = TensorType::from_ggml_id(*id).unwrap();
            assert_eq!(ty.info().ggml_name, Some(type_name.as_str()));
            let len = ty.bytes_for(shape.iter().product()).unwrap() as usize;
            let blocks = &file[*start..*start + len];
            assert_eq!(sha256(blocks), golden["quantized_sha256"], "{type_name} {name}: stored");
            let values = decode(ty, blocks);
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!(sha256(&bytes), golden["dequantized_sha256"], "{type_name} {name}");
        }
    }
}

/*!
Model files made byte by byte, for tests: well-formed ones, and ones with a fault put in.

Writing follows the descriptions of the formats and shares nothing with the readers under test.
*/
#![allow(dead_code)] // Each test binary uses a part of it.

pub mod gguf;

/// A safetensors file: the header as given, and as many zero bytes of data.
pub fn safetensors(header: &str, data: usize) -> Vec<u8> {
    safetensors_raw(header.len() as u64, header.as_bytes(), &vec![0; data])
}

/// A safetensors file whose claimed header length need not be true.
pub fn safetensors_raw(claimed: u64, header: &[u8], data: &[u8]) -> Vec<u8> {
    [&claimed.to_le_bytes(), header, data].concat()
}

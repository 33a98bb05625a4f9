/*!
Types of `ik_llama.cpp` with one scale for a row or a tensor and codes that are plain integers: the
ternary `IQ1_BN`, `IQ2_BN`, `IQ2_BN_R4` and `I2_S` (of the `BitNet` project), `Q8_KV`, and what the program
makes of 8-bit codes as it loads a model: `Q8_KV_R8`, `Q8_K_R8`, `Q8_K_R16`.
*/

use super::merged::bytes_of_row;
use crate::codec::ggml::bytes::{f16_at, field, scale};
use crate::codec::isa::Isa;
use crate::codec::rows::row_decoders;

row_decoders! {
    /// `IQ1_BN`: D f16; 12 bytes of five base-3 digits each, and one whose first four digits are the
    /// sixteenth elements; `D (digit - 1)`.
    iq1_bn: 2 + 13 => 64, iq1_bn_block;
    /// `IQ2_BN`: D f32; 16 bytes of four 2-bit codes, 16 elements apart; `D (q - 1)`.
    iq2_bn: 4 + 16 => 64, iq2_bn_block;
    /// `IQ2_BN_R4`: four rows of `IQ2_BN`, four bytes of each in turn; a byte's codes are four elements
    /// apart.
    iq2_bn_r4: 4 + 64 => 64, iq2_bn_r4_block;
    /// `I2_S`: 32 bytes of four 2-bit codes, 32 elements apart, the first in the upper bits; behind all
    /// blocks D f32 and 28 bytes that are not used; `D (q - 1)`.
    i2_s: 32 + 32 => 128, i2_s_block;
    /// `Q8_KV`: D f32 and the sum of the row's codes; i8 codes; `D q`.
    q8_kv: 8 + 32 => 32, q8_kv_block;
    /// `Q8_KV_R8`: D f32; eight rows of i8 codes, four of each row in turn; `D q`.
    q8_kv_r8: 4 + 256 => 32, q8_kv_r8_block;
    /// `Q8_K_R8`: eight d f16; i8 codes of eight rows, four of each row in turn; `d q`.
    q8_k_r8: 0 + 2064 => 256, q8_k_r8_block;
    /// `Q8_K_R16`: sixteen d f16; codes of sixteen rows, four of each row in turn, 128 more than they
    /// stand for; `d q - 128 d`.
    q8_k_r16: 0 + 4128 => 256, q8_k_r16_block;
}

#[inline(always)]
fn iq1_bn_block(
    isa: impl Isa,
    meta: &[u8; 2],
    block: &[u8; 13],
    _row: usize,
    values: &mut [f32; 64],
) {
    const POWERS: [u8; 5] = [81, 27, 9, 3, 1];
    let d = f16_at::<0, _>(isa, meta);
    let digit = |byte: u8, n: usize| {
        let fraction = u16::from(byte.wrapping_mul(POWERS[n]));
        ((fraction + (fraction >> 1)) >> 7) as i8 - 1
    };
    let mut codes = [0; 64];
    for (a, codes) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        for (t, code) in codes[..15].iter_mut().enumerate() {
            *code = digit(block[3 * a + t / 5], t % 5);
        }
        codes[15] = digit(block[12], a);
    }
    scale(isa, &codes, d, values);
}

#[inline(always)]
fn iq2_bn_block(
    isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 16],
    _row: usize,
    values: &mut [f32; 64],
) {
    let d = f32::from_le_bytes(*meta);
    for (n, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        scale(isa, &block.map(|byte| ((byte >> (2 * n)) & 3) as i8 - 1), d, values);
    }
}

#[inline(always)]
fn iq2_bn_r4_block(
    isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 64],
    row: usize,
    values: &mut [f32; 64],
) {
    let d = f32::from_le_bytes(*meta);
    let quarters = bytes_of_row::<4, 16>(block, 0, row);
    for (values, bytes) in
        values.as_chunks_mut::<16>().0.iter_mut().zip(quarters.as_chunks::<4>().0)
    {
        let mut codes = [0; 16];
        for (n, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *codes = bytes.map(|byte| ((byte >> (2 * n)) & 3) as i8 - 1);
        }
        scale(isa, &codes, d, values);
    }
}

#[inline(always)]
fn i2_s_block(
    isa: impl Isa,
    meta: &[u8; 32],
    block: &[u8; 32],
    _row: usize,
    values: &mut [f32; 128],
) {
    let d = f32::from_le_bytes(*field::<0, 4, _>(meta));
    for (n, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        scale(isa, &block.map(|byte| ((byte >> (6 - 2 * n)) & 3) as i8 - 1), d, values);
    }
}

#[inline(always)]
fn q8_kv_block(
    isa: impl Isa,
    meta: &[u8; 8],
    block: &[u8; 32],
    _row: usize,
    values: &mut [f32; 32],
) {
    scale(isa, &block.map(|q| q as i8), f32::from_le_bytes(*field::<0, 4, _>(meta)), values);
}

#[inline(always)]
fn q8_kv_r8_block(
    isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 256],
    row: usize,
    values: &mut [f32; 32],
) {
    let codes = bytes_of_row::<8, 32>(block, 0, row);
    scale(isa, &codes.map(|q| q as i8), f32::from_le_bytes(*meta), values);
}

#[inline(always)]
fn q8_k_r8_block(
    isa: impl Isa,
    _meta: &[u8; 0],
    block: &[u8; 2064],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = super::merged::f16_of_row(isa, block, 0, row & 7);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let codes = bytes_of_row::<8, 32>(block, 16 + 256 * ib, row);
        scale(isa, &codes.map(|q| q as i8), d, values);
    }
}

#[inline(always)]
fn q8_k_r16_block(
    isa: impl Isa,
    _meta: &[u8; 0],
    block: &[u8; 4128],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = super::merged::f16_of_row(isa, block, 0, row & 15);
    let offset = -128.0 * d;
    for (ib, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let codes = bytes_of_row::<16, 16>(block, 32 + 256 * ib, row);
        *values = isa.widen_u8(codes).map(|q| d * q + offset);
    }
}

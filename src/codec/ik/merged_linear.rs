/*!
Mainline types with linear codes whose rows `ik_llama.cpp` merges: `Q4_0_R8`, `Q5_0_R4`, `Q6_0_R4`,
`Q8_0_R8`, `MXFP4_R8`, `BF16_R16`, and `Q2_K_R4` to `Q6_K_R4`.

Offsets are those of a merged block; the rows' own scales stand first, one after the other.
*/

use super::merged::{
    IN_TURN, Q5_ORDER, Q6_0_ORDER, Q6_K_ORDER, Q50_ORDER, bytes_of_row, codes, f16_of_row, halves,
    nibble_of, nibbles, pair_of, pairs, with_bit, with_pair,
};
use crate::codec::ggml::bytes::{field, scale, scale_halves};
use crate::codec::ggml::grids::E2M1_DOUBLED;
use crate::codec::ggml::micro::half_e8m0;
use crate::codec::isa::Isa;
use crate::codec::rows::row_decoders;

row_decoders! {
    /// `Q4_0_R8`: eight d f16, codes; `d (q - 8)`.
    q4_0_r8: 0 + 144 => 32, q4_0_r8_block;
    /// `Q5_0_R4`: four d f16, fifth bits, codes; `d q - 16 d`.
    q5_0_r4: 0 + 88 => 32, q5_0_r4_block;
    /// `Q6_0_R4`: four d f16, upper bit pairs, codes; `d q - 32 d`.
    q6_0_r4: 0 + 104 => 32, q6_0_r4_block;
    /// `Q8_0_R8`: eight d f16, i8 codes; `d q`.
    q8_0_r8: 0 + 272 => 32, q8_0_r8_block;
    /// `MXFP4_R8`: eight E8M0 scales, codes; `2^(e - 127)` times the code's E2M1 value.
    mxfp4_r8: 0 + 136 => 32, mxfp4_r8_block;
    /// `BF16_R16`: two values of each of sixteen rows in turn.
    bf16_r16: 0 + 64 => 2, bf16_r16_block;
    /// `Q2_K_R4`: four d f16, four dmin f16, scale and offset nibbles, codes; `d sc q - dmin m`.
    q2_k_r4: 0 + 336 => 256, q2_k_r4_block;
    /// `Q3_K_R4`: four d f16, upper and lower scale bits, third bits, codes; `d sc (q - 4)`.
    q3_k_r4: 0 + 440 => 256, q3_k_r4_block;
    /// `Q4_K_R4`: four d f16, four dmin f16, upper and lower bits of scales and offsets, codes;
    /// `d sc q - dmin m`.
    q4_k_r4: 0 + 576 => 256, q4_k_r4_block;
    /// `Q5_K_R4`: as `Q4_K_R4`, with fifth bits before the codes.
    q5_k_r4: 0 + 704 => 256, q5_k_r4_block;
    /// `Q6_K_R4`: four d f16, i8 scales, upper bit pairs, codes; `d sc (q - 32)`.
    q6_k_r4: 0 + 840 => 256, q6_k_r4_block;
}

/// The codes of 32 elements of one of eight rows: a byte holds elements 16 apart.
#[inline(always)]
pub(super) fn nibbles_of_eight(block: &[u8], at: usize, row: usize) -> [u8; 32] {
    crate::codec::ggml::bytes::nibbles(&bytes_of_row::<8, 16>(block, at, row))
}

#[inline(always)]
fn q4_0_r8_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 144],
    row: usize,
    values: &mut [f32; 32],
) {
    let codes = nibbles_of_eight(block, 16, row).map(|q| q as i8 - 8);
    scale(isa, &codes, f16_of_row(isa, block, 0, row & 7), values);
}

#[inline(always)]
fn mxfp4_r8_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 136],
    row: usize,
    values: &mut [f32; 32],
) {
    let codes = isa.look_up(&E2M1_DOUBLED, nibbles_of_eight(block, 8, row));
    scale(isa, &codes, half_e8m0(block[row & 7]), values);
}

/// `d q + m` of codes below 128: the two products that these types round once.
#[inline(always)]
fn scale_add(isa: impl Isa, codes: [u8; 32], d: f32, m: f32, values: &mut [f32; 32]) {
    let codes = codes.as_chunks::<16>().0;
    for (values, codes) in values.as_chunks_mut::<16>().0.iter_mut().zip(codes) {
        *values = isa.widen_u8(*codes).map(|code| d * code + m);
    }
}

#[inline(always)]
fn q5_0_r4_block(isa: impl Isa, _: &[u8; 0], block: &[u8; 88], row: usize, values: &mut [f32; 32]) {
    let d = f16_of_row(isa, block, 0, row & 3);
    let quarters = with_bit(nibbles(block, 24, 0, row), block, (8, &Q50_ORDER), (0, row), 4);
    scale_add(isa, codes(quarters), d, -16.0 * d, values);
}

#[inline(always)]
fn q6_0_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 104],
    row: usize,
    values: &mut [f32; 32],
) {
    let d = f16_of_row(isa, block, 0, row & 3);
    let quarters = with_pair(nibbles(block, 40, 0, row), block, (8, &Q6_0_ORDER), (0, row));
    scale_add(isa, codes(quarters), d, -32.0 * d, values);
}

#[inline(always)]
fn q8_0_r8_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 272],
    row: usize,
    values: &mut [f32; 32],
) {
    let codes = bytes_of_row::<8, 32>(block, 16, row).map(|q| q as i8);
    scale(isa, &codes, f16_of_row(isa, block, 0, row & 7), values);
}

#[inline(always)]
fn bf16_r16_block(_: impl Isa, _: &[u8; 0], block: &[u8; 64], row: usize, values: &mut [f32; 2]) {
    let [a, b, c, d] = bytes_of_row::<16, 4>(block, 0, row);
    *values = [[0, 0, a, b], [0, 0, c, d]].map(f32::from_le_bytes);
}

#[inline(always)]
fn q2_k_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 336],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_of_row(isa, block, 0, row & 3);
    let dmin = f16_of_row(isa, block, 8, row & 3);
    let scales = field::<16, 64, _>(block);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let codes = codes(pairs(block, 80, ib, row));
        let halves = halves(ib, row).map(|u| scales[u]);
        let values = values.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
        for ((values, codes), byte) in values.zip(halves) {
            let (scale, offset) = (d * f32::from(byte & 15), dmin * f32::from(byte >> 4));
            *values = isa.widen_u8(*codes).map(|code| scale * code - offset);
        }
    }
}

#[inline(always)]
fn q3_k_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 440],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_of_row(isa, block, 0, row & 3);
    let (high, low) = (field::<8, 16, _>(block), field::<24, 32, _>(block));
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let quarters = with_bit(pairs(block, 184, ib, row), block, (56, &IN_TURN), (ib, row), 2);
        let sc = halves(ib, row)
            .map(|u| (nibble_of(low, u) | pair_of(high, u) << 4) as i8 - 32)
            .map(|sc| d * f32::from(sc));
        scale_halves(isa, &codes(quarters).map(|q| q as i8 - 4), sc, values);
    }
}

/// Scales and offsets of `Q4_K_R4` and `Q5_K_R4`: d sc, dmin m of group `ib` of a row.
#[inline(always)]
fn scale_and_offset(isa: impl Isa, block: &[u8], ib: usize, row: usize) -> [f32; 2] {
    let (row, w) = (row & 3, 4 * ib + (row & 3));
    let (high, low) = (block[16 + w % 16] >> (4 * (w / 16)), block[32 + w]);
    let (sc, m) = (low & 15 | (high & 3) << 4, low >> 4 | (high >> 2 & 3) << 4);
    [f16_of_row(isa, block, 0, row) * f32::from(sc), f16_of_row(isa, block, 8, row) * f32::from(m)]
}

#[inline(always)]
fn q4_k_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 576],
    row: usize,
    values: &mut [f32; 256],
) {
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let [scale, offset] = scale_and_offset(isa, block, ib, row);
        scale_add(isa, codes(nibbles(block, 64, ib, row)), scale, -offset, values);
    }
}

#[inline(always)]
fn q5_k_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 704],
    row: usize,
    values: &mut [f32; 256],
) {
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let [scale, offset] = scale_and_offset(isa, block, ib, row);
        let quarters = with_bit(nibbles(block, 192, ib, row), block, (64, &Q5_ORDER), (ib, row), 4);
        scale_add(isa, codes(quarters), scale, -offset, values);
    }
}

#[inline(always)]
fn q6_k_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 840],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_of_row(isa, block, 0, row & 3);
    let scales = field::<8, 64, _>(block);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let quarters = with_pair(nibbles(block, 328, ib, row), block, (72, &Q6_K_ORDER), (ib, row));
        let sc = halves(ib, row).map(|u| d * f32::from(scales[u] as i8));
        scale_halves(isa, &codes(quarters).map(|q| q as i8 - 32), sc, values);
    }
}

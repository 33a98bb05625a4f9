/*!
Types with codebooks whose rows `ik_llama.cpp` merges four at a time: `IQ2_XXS_R4`, `IQ2_XS_R4`,
`IQ2_S_R4`, `IQ3_XXS_R4`, `IQ3_S_R4`; and `IQ1_S_R4` and `IQ1_M_R4`, which are types of their own: blocks
of 32 elements under a scale of the row.
*/

use super::merged::{f16_of_row, nibble_of};
use crate::codec::ggml::bytes::{f16_at, field, scale, scale_halves};
use crate::codec::ggml::grids;
use crate::codec::ggml::iq::{joined, shifted_row, signed};
use crate::codec::isa::Isa;
use crate::codec::rows::row_decoders;

row_decoders! {
    /// `IQ2_XXS_R4`: four d f16, four bytes of signs and scale for each group, indices;
    /// `d (2 sc + 1) / 8` times the row and its signs.
    iq2_xxs_r4: 0 + 264 => 256, iq2_xxs_r4_block;
    /// `IQ2_XS_R4`: four d f16, a u16 of index and signs for each eight elements, scale nibbles; as
    /// `IQ2_XXS_R4`.
    iq2_xs_r4: 0 + 296 => 256, iq2_xs_r4_block;
    /// `IQ2_S_R4`: four d f16, low and upper index bits, signs, scale nibbles; as `IQ2_XXS_R4`.
    iq2_s_r4: 0 + 328 => 256, iq2_s_r4_block;
    /// `IQ3_XXS_R4`: as `IQ2_XXS_R4`, with an index for each four elements; `d (2 sc + 1) / 4`.
    iq3_xxs_r4: 0 + 392 => 256, iq3_xxs_r4_block;
    /// `IQ3_S_R4`: four d f16, low and upper index bits, signs, scale nibbles; `d (2 sc + 1)`.
    iq3_s_r4: 0 + 440 => 256, iq3_s_r4_block;
    /// `IQ1_S_R4`: D f16; indices, then for each row a u16 of upper index bits, scale and shift;
    /// `D (2 sc + 1) (row ± 1/8)`.
    iq1_s_r4: 2 + 24 => 32, iq1_s_r4_block;
    /// `IQ1_M_R4`: D f16; indices, upper index bits and shifts, scale nibbles; `D sc (row ± 1/8)`.
    iq1_m_r4: 2 + 28 => 32, iq1_m_r4_block;
}

/// The four bytes at `at`.
#[inline(always)]
fn four(block: &[u8], at: usize) -> [u8; 4] {
    [block[at], block[at + 1], block[at + 2], block[at + 3]]
}

/// Signs and scale code of a group: the lowest bits are the scale; the others are signs, of which each
/// is stored as its difference from the next.
#[inline(always)]
fn signs_and_scale(bytes: [u8; 4]) -> ([u8; 4], u8) {
    let mut code = 0;
    for (l, byte) in bytes.into_iter().enumerate() {
        code |= (byte & 1) << l;
    }
    let signs = bytes.map(|byte| {
        let stored = byte & 0xFE;
        stored ^ stored >> 1
    });
    (signs, code)
}

#[inline(always)]
fn iq2_xxs_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 264],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = 0.125 * f16_of_row(isa, block, 0, row & 3);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let w = 4 * ib + (row & 3);
        let (signs, sc) = signs_and_scale(four(block, 8 + 4 * w));
        let rows = four(block, 136 + 4 * w).map(|index| grids::IQ2_XXS[usize::from(index)]);
        scale(isa, &signed(isa, rows, signs), d * f32::from(2 * sc + 1), values);
    }
}

#[inline(always)]
fn iq3_xxs_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 392],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = 0.25 * f16_of_row(isa, block, 0, row & 3);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let w = 4 * ib + (row & 3);
        let (signs, sc) = signs_and_scale(four(block, 8 + 4 * w));
        let mut rows = [[0; 4]; 8];
        for (t, row) in rows.iter_mut().enumerate() {
            *row = grids::IQ3_XXS[usize::from(block[136 + 8 * w + t])];
        }
        scale(isa, &signed(isa, joined(rows), signs), d * f32::from(2 * sc + 1), values);
    }
}

/// The scales of the two halves of a group, from its nibbles.
#[inline(always)]
fn two_scales(d: f32, nibbles: u8) -> [f32; 2] {
    [nibbles & 15, nibbles >> 4].map(|sc| d * f32::from(2 * sc + 1))
}

#[inline(always)]
fn iq2_xs_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 296],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = 0.125 * f16_of_row(isa, block, 0, row & 3);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let w = 4 * ib + (row & 3);
        let (mut rows, mut signs) = ([[0; 8]; 4], [0; 4]);
        for l in 0..4 {
            let at = 8 + 8 * w + 2 * l;
            let code = u16::from_le_bytes([block[at], block[at + 1]]);
            rows[l] = grids::IQ2_XS[usize::from(code & 511)];
            // Seven bits, each stored as its difference from the one before.
            let stored = (code >> 9) as u8;
            signs[l] = stored ^ stored << 1;
        }
        scale_halves(isa, &signed(isa, rows, signs), two_scales(d, block[264 + w]), values);
    }
}

#[inline(always)]
fn iq2_s_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 328],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = 0.125 * f16_of_row(isa, block, 0, row & 3);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let w = 4 * ib + (row & 3);
        let (low, upper) = (four(block, 8 + 4 * w), block[136 + w]);
        let mut rows = [[0; 8]; 4];
        for (l, row) in rows.iter_mut().enumerate() {
            *row = grids::IQ2_S[usize::from(low[l]) | (usize::from(upper) >> (2 * l) & 3) << 8];
        }
        let signs = four(block, 168 + 4 * w);
        scale_halves(isa, &signed(isa, rows, signs), two_scales(d, block[296 + w]), values);
    }
}

#[inline(always)]
fn iq3_s_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 440],
    row: usize,
    values: &mut [f32; 256],
) {
    let row = row & 3;
    let d = f16_of_row(isa, block, 0, row);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let w = 4 * ib + row;
        let upper = usize::from(block[264 + w]);
        // Byte c of the signs has one bit for element c of each four.
        let signs = four(block, 296 + 4 * w);
        let (mut rows, mut by_row) = ([[0; 4]; 8], [0; 4]);
        for (t, magnitudes) in rows.iter_mut().enumerate() {
            let low = usize::from(block[8 + 32 * ib + row + 8 * (t % 4) + 4 * (t / 4)]);
            *magnitudes = grids::IQ3_S[low | (upper >> t & 1) << 8];
            for (c, byte) in signs.into_iter().enumerate() {
                by_row[t / 2] |= (byte >> t & 1) << (4 * (t % 2) + c);
            }
        }
        let sc = nibble_of(field::<424, 16, _>(block), w);
        scale(isa, &signed(isa, joined(rows), by_row), d * f32::from(1 + 2 * sc), values);
    }
}

#[inline(always)]
fn iq1_s_r4_block(
    isa: impl Isa,
    meta: &[u8; 2],
    block: &[u8; 24],
    row: usize,
    values: &mut [f32; 32],
) {
    let row = row & 3;
    let head = u16::from_le_bytes([block[16 + 2 * row], block[17 + 2 * row]]);
    let d = f16_at::<0, _>(isa, meta) * f32::from(2 * ((head >> 12) & 7) + 1);
    let shift = if head & 0x8000 == 0 { 0.125 } else { -0.125 };
    for (l, values) in values.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let index = usize::from(block[4 * l + row]) | usize::from(head >> (3 * l) & 7) << 8;
        shifted_row(index, d, shift, values);
    }
}

#[inline(always)]
fn iq1_m_r4_block(
    isa: impl Isa,
    meta: &[u8; 2],
    block: &[u8; 28],
    row: usize,
    values: &mut [f32; 32],
) {
    let row = row & 3;
    let d = f16_at::<0, _>(isa, meta);
    let scales = [block[24 + row] & 15, block[24 + row] >> 4].map(|sc| d * f32::from(sc));
    for (l, values) in values.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let nibble = block[16 + 4 * (l / 2) + row] >> (4 * (l % 2)) & 15;
        let shift = if nibble & 8 == 0 { 0.125 } else { -0.125 };
        let index = usize::from(block[4 * l + row]) | usize::from(nibble & 7) << 8;
        shifted_row(index, scales[l / 2], shift, values);
    }
}

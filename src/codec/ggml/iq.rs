/*!
The types with codebooks, 256 elements in a super-block: `IQ1_S`, `IQ1_M`, `IQ2_XXS`, `IQ2_XS`,
`IQ2_S`, `IQ3_XXS`, `IQ3_S`, and `IQ4_XS` with its table of sixteen values.

Eight elements are a row of a grid (two rows for the three-bit types), with eight signs; 32
elements are a group with a scale of its own, or two.
*/

use super::bytes::{f16_at, field, nibbles, scale, scale_halves, u16_at};
use super::grids::{self, IQ4_VALUES, even_signs};
use crate::codec::isa::Isa;
use crate::codec::simd::decoders;

decoders! {
    /// `IQ2_XXS`: d f16, for each group four indices and a u32 of four 7-bit sign fields and a
    /// scale; `d (sc + 0.5) / 4` times the row and its signs.
    iq2_xxs: 66 => 256, iq2_xxs_block;
    /// `IQ2_XS`: d f16, for each row a u16 of 9 bits of index and 7 of signs, then scale nibbles
    /// for each 16 elements; as `IQ2_XXS`.
    iq2_xs: 74 => 256, iq2_xs_block;
    /// `IQ2_S`: d f16, 32 bytes of indices, 32 of signs, 8 of upper index bits, 8 of scale nibbles
    /// for each 16 elements; as `IQ2_XXS`.
    iq2_s: 82 => 256, iq2_s_block;
    /// `IQ3_XXS`: d f16, 64 bytes of indices, for each group a u32 of four 7-bit sign fields and a
    /// scale; `d (sc + 0.5) / 2` times the rows and their signs.
    iq3_xxs: 98 => 256, iq3_xxs_block;
    /// `IQ3_S`: d f16, 64 bytes of indices, 8 of upper index bits, 32 of signs, 4 of scale nibbles;
    /// `d (2 sc + 1)` times the rows and their signs.
    iq3_s: 110 => 256, iq3_s_block;
    /// `IQ1_S`: d f16, 32 bytes of indices, for each group a u16 of upper index bits, scale and
    /// shift; `d (2 sc + 1) (row ± 1/8)`.
    iq1_s: 50 => 256, iq1_s_block;
    /// `IQ1_M`: 32 bytes of indices, 16 of upper index bits and shifts, 8 of scales whose upper
    /// nibbles are d; as `IQ1_S`, a scale for each 16 elements, a shift for each row.
    iq1_m: 56 => 256, iq1_m_block;
    /// `IQ4_XS`: d f16, 10 bytes of 6-bit scales, codes as in `IQ4_NL` for each group;
    /// `d (sc - 32)` times the code's value.
    iq4_xs: 136 => 256, iq4_xs_block;
}

#[inline(always)]
fn iq2_xxs_block(isa: impl Isa, block: &[u8; 66], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let (groups, _) = field::<2, 64, _>(block).as_chunks::<8>();
    for (values, group) in values.as_chunks_mut::<32>().0.iter_mut().zip(groups) {
        let rows = field::<0, 4, _>(group).map(|index| grids::IQ2_XXS[usize::from(index)]);
        let signs = u32::from_le_bytes(*field::<4, 4, _>(group));
        let d = d * (0.5 + (signs >> 28) as f32) * 0.25;
        scale(isa, &signed(isa, rows, four_signs(signs)), d, values);
    }
}

#[inline(always)]
fn iq2_xs_block(isa: impl Isa, block: &[u8; 74], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let (groups, _) = field::<2, 64, _>(block).as_chunks::<8>();
    let nibbles = field::<66, 8, _>(block);
    let (values, _) = values.as_chunks_mut::<32>();
    for ((values, group), &nibble) in values.iter_mut().zip(groups).zip(nibbles) {
        let fields = pairs(group);
        let rows = fields.map(|field| grids::IQ2_XS[usize::from(field & 511)]);
        let signs = fields.map(|field| even_signs((field >> 9) as u8));
        scale_halves(isa, &signed(isa, rows, signs), iq2_scales(d, nibble), values);
    }
}

#[inline(always)]
fn iq2_s_block(isa: impl Isa, block: &[u8; 82], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let indices = field::<2, 32, _>(block).as_chunks::<4>().0;
    let signs = field::<34, 32, _>(block).as_chunks::<4>().0;
    let upper = field::<66, 8, _>(block);
    let nibbles = field::<74, 8, _>(block);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let mut rows = [[0; 8]; 4];
        for (l, (row, &low)) in rows.iter_mut().zip(&indices[ib]).enumerate() {
            let high = (usize::from(upper[ib]) >> (2 * l)) & 3;
            *row = grids::IQ2_S[usize::from(low) | high << 8];
        }
        scale_halves(isa, &signed(isa, rows, signs[ib]), iq2_scales(d, nibbles[ib]), values);
    }
}

#[inline(always)]
fn iq3_xxs_block(isa: impl Isa, block: &[u8; 98], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let indices = field::<2, 64, _>(block).as_chunks::<8>().0;
    let words = field::<66, 32, _>(block).as_chunks::<4>().0;
    let (values, _) = values.as_chunks_mut::<32>();
    for ((values, indices), word) in values.iter_mut().zip(indices).zip(words) {
        let rows = indices.map(|index| grids::IQ3_XXS[usize::from(index)]);
        let signs = u32::from_le_bytes(*word);
        let d = d * (0.5 + (signs >> 28) as f32) * 0.5;
        scale(isa, &signed(isa, joined(rows), four_signs(signs)), d, values);
    }
}

#[inline(always)]
fn iq3_s_block(isa: impl Isa, block: &[u8; 110], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let indices = field::<2, 64, _>(block).as_chunks::<8>().0;
    let upper = field::<66, 8, _>(block);
    let signs = field::<74, 32, _>(block).as_chunks::<4>().0;
    let nibbles = field::<106, 4, _>(block);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let mut rows = [[0; 4]; 8];
        for (l, (row, &low)) in rows.iter_mut().zip(&indices[ib]).enumerate() {
            let high = (usize::from(upper[ib]) >> l) & 1;
            *row = grids::IQ3_S[usize::from(low) | high << 8];
        }
        let nibble = (nibbles[ib / 2] >> (4 * (ib % 2))) & 15;
        let d = d * f32::from(1 + 2 * nibble);
        scale(isa, &signed(isa, joined(rows), signs[ib]), d, values);
    }
}

#[inline(always)]
fn iq1_s_block(isa: impl Isa, block: &[u8; 50], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let indices = field::<2, 32, _>(block).as_chunks::<4>().0;
    let heads = field::<34, 16, _>(block).as_chunks::<2>().0;
    let (values, _) = values.as_chunks_mut::<32>();
    for ((values, indices), head) in values.iter_mut().zip(indices).zip(heads) {
        let head = u16::from_le_bytes(*head);
        let d = d * f32::from(2 * ((head >> 12) & 7) + 1);
        let shift = if head & 0x8000 == 0 { 0.125 } else { -0.125 };
        let (rows, _) = values.as_chunks_mut::<8>();
        for (l, (values, &low)) in rows.iter_mut().zip(indices).enumerate() {
            shifted_row(
                usize::from(low) | (usize::from(head >> (3 * l)) & 7) << 8,
                d,
                shift,
                values,
            );
        }
    }
}

#[inline(always)]
fn iq1_m_block(isa: impl Isa, block: &[u8; 56], values: &mut [f32; 256]) {
    let words = pairs(field::<48, 8, _>(block));
    let d = isa.f16(iq1_m_scale_bits(words));
    let indices = field::<0, 32, _>(block).as_chunks::<4>().0;
    let heads = field::<32, 16, _>(block).as_chunks::<2>().0;
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let scales = words[ib / 2] >> (6 * (ib % 2));
        let scales = [scales & 7, (scales >> 3) & 7].map(|s| d * f32::from(2 * s + 1));
        let head = u16::from_le_bytes(heads[ib]);
        let (rows, _) = values.as_chunks_mut::<8>();
        for (l, (values, &low)) in rows.iter_mut().zip(&indices[ib]).enumerate() {
            let nibble = usize::from(head >> (4 * l)) & 15;
            let shift = if nibble & 8 == 0 { 0.125 } else { -0.125 };
            shifted_row(usize::from(low) | (nibble & 7) << 8, scales[l / 2], shift, values);
        }
    }
}

#[inline(always)]
fn iq4_xs_block(isa: impl Isa, block: &[u8; 136], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let high = u16_at::<2, _>(block);
    let low = field::<4, 4, _>(block);
    let packed = field::<8, 128, _>(block).as_chunks::<16>().0;
    let (values, _) = values.as_chunks_mut::<32>();
    for (ib, (values, packed)) in values.iter_mut().zip(packed).enumerate() {
        let low = (low[ib / 2] >> (4 * (ib % 2))) & 15;
        let high = (high >> (2 * ib)) as u8 & 3;
        let d = d * f32::from((low | high << 4) as i8 - 32);
        scale(isa, &isa.look_up(&IQ4_VALUES, nibbles(packed)), d, values);
    }
}

/// The bits of the f16 scale of `IQ1_M`: the upper nibbles of four words, lowest first.
#[inline(always)]
pub fn iq1_m_scale_bits(words: [u16; 4]) -> u16 {
    (words[0] >> 12) | ((words[1] >> 12) << 4) | ((words[2] >> 12) << 8) | (words[3] & 0xF000)
}

/// `d (row + shift)` for a row of the one-bit grid.
#[inline(always)]
pub(in crate::codec) fn shifted_row(index: usize, d: f32, shift: f32, values: &mut [f32; 8]) {
    for (value, code) in values.iter_mut().zip(grids::IQ1[index & 2047]) {
        *value = d * (f32::from(code as i8) + shift);
    }
}

/// The scales of the two halves of a group, from its nibbles.
#[inline(always)]
fn iq2_scales(d: f32, nibbles: u8) -> [f32; 2] {
    [nibbles & 15, nibbles >> 4].map(|nibble| d * (0.5 + f32::from(nibble)) * 0.25)
}

/// Magnitudes of 32 elements with their signs.
#[inline(always)]
pub(in crate::codec) fn signed(isa: impl Isa, rows: [[u8; 8]; 4], signs: [u8; 4]) -> [i8; 32] {
    let mut codes = [0; 32];
    let masks = isa.bit_masks(signs);
    for ((code, magnitude), mask) in codes.iter_mut().zip(rows.as_flattened()).zip(masks) {
        *code = (magnitude ^ mask).wrapping_sub(mask) as i8;
    }
    codes
}

/// Four 7-bit sign fields to signs of 32 elements.
#[inline(always)]
fn four_signs(fields: u32) -> [u8; 4] {
    [0, 7, 14, 21].map(|at| even_signs((fields >> at) as u8))
}

#[inline(always)]
pub(in crate::codec) fn joined(rows: [[u8; 4]; 8]) -> [[u8; 8]; 4] {
    let mut joined = [[0; 8]; 4];
    joined.as_flattened_mut().copy_from_slice(rows.as_flattened());
    joined
}

#[inline(always)]
fn pairs(bytes: &[u8; 8]) -> [u16; 4] {
    let word = u64::from_le_bytes(*bytes);
    [0, 16, 32, 48].map(|at| (word >> at) as u16)
}

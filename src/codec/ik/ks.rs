/*!
Types of `ik_llama.cpp` with a scale in front of each row, 256 elements in a super-block: `IQ4_KS`,
`IQ5_KS`, `IQ4_KSS`, `IQ2_KS`, `IQ3_KS`, `IQ2_KL`.

The row's scale is an f32 or f16 `D`; 32 elements have a small scale `sc`, and a bit that chooses the
second form of the value table. Two products round: `D sc` first, then times the value.
*/

use super::k::{bit_pairs, nibbles_of_64, with_bit};
use super::values::{PAIRS, V2_SHIFT, V3_SHIFT, V4_SHIFT, V5_SHIFT};
use super::{five_bits, four_bits, three_bits, two_bits};
use crate::codec::ggml::bytes::{f16_at, field, nibbles, scale, u16_at};
use crate::codec::isa::Isa;
use crate::codec::rows::row_decoders;

row_decoders! {
    /// `IQ4_KS`: D f32; for each group a byte of scale and table bit, then codes; `D ((S & 0xFE) - 127)`
    /// times the code's value.
    iq4_ks: 4 + 136 => 256, iq4_ks_block;
    /// `IQ5_KS`: as `IQ4_KS`, with 32 bytes of fifth bits behind.
    iq5_ks: 4 + 168 => 256, iq5_ks_block;
    /// `IQ4_KSS`: D f32; 64 words that hold codes in a Gray-like form, the lowest bit of each a bit of
    /// the group's scale; as `IQ4_KS`.
    iq4_kss: 4 + 128 => 256, iq4_kss_block;
    /// `IQ2_KS`: D f16; a u16 of table and upper scale bits, 4 bytes of scale nibbles, 64 of codes;
    /// `D (sc - 16)` times the code's value.
    iq2_ks: 2 + 70 => 256, iq2_ks_block;
    /// `IQ3_KS`: D f16; a u16 of upper scale and table bits, 4 bytes of scale nibbles, 64 of low code
    /// bits, 32 of third bits; `D (sc - 16)` times the code's value.
    iq3_ks: 2 + 102 => 256, iq3_ks_block;
    /// `IQ2_KL`: D f16; a u16 of upper scale bits, 4 bytes of scale nibbles, 64 of low code bits, 16 of
    /// fifth bits; `D (sc - 32)` times the values of the pair that the code stands for.
    iq2_kl: 2 + 86 => 256, iq2_kl_block;
}

/// The scale and the table shift in a byte of `IQ4_KS` and its kin.
#[inline(always)]
pub(super) fn scale_and_shift(byte: u8, shift: i8) -> (f32, [i8; 2]) {
    let shift = if byte & 1 == 0 { 0 } else { shift };
    (f32::from(i16::from(byte & 0xFE) - 127), [shift; 2])
}

#[inline(always)]
fn iq4_ks_block(
    isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 136],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f32::from_le_bytes(*meta);
    let scales = field::<0, 8, _>(block);
    let packed = field::<8, 128, _>(block).as_chunks::<16>().0;
    for (h, (values, packed)) in values.as_chunks_mut::<32>().0.iter_mut().zip(packed).enumerate() {
        let (sc, shift) = scale_and_shift(scales[h], V4_SHIFT);
        scale(isa, &four_bits(isa, nibbles(packed), shift), d * sc, values);
    }
}

#[inline(always)]
fn iq5_ks_block(
    isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 168],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f32::from_le_bytes(*meta);
    let scales = field::<0, 8, _>(block);
    for (h, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let codes =
            with_bit(nibbles_of_64(field::<8, 128, _>(block), h), field::<136, 32, _>(block), h, 4);
        let (sc, shift) = scale_and_shift(scales[h], V5_SHIFT);
        scale(isa, &five_bits(isa, codes, shift), d * sc, values);
    }
}

#[inline(always)]
fn iq4_kss_block(
    isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 128],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f32::from_le_bytes(*meta);
    let groups = block.as_chunks::<16>().0;
    for (values, group) in values.as_chunks_mut::<32>().0.iter_mut().zip(groups) {
        let (mut byte, mut packed) = (0, [0; 16]);
        for (k, (word, out)) in
            group.as_chunks::<2>().0.iter().zip(packed.as_chunks_mut::<2>().0).enumerate()
        {
            let word = u16::from_le_bytes(*word);
            byte |= (word as u8 & 1) << k;
            let word = word & 0xFFFE;
            *out = (word ^ word >> 1).to_le_bytes();
        }
        let (sc, shift) = scale_and_shift(byte, V4_SHIFT);
        scale(isa, &four_bits(isa, nibbles(&packed), shift), d * sc, values);
    }
}

#[inline(always)]
fn iq2_ks_block(
    isa: impl Isa,
    meta: &[u8; 2],
    block: &[u8; 70],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_at::<0, _>(isa, meta);
    let extra = u16_at::<0, _>(block);
    let low = field::<2, 4, _>(block);
    for (h, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = (low[h / 2] >> (4 * (h % 2))) & 15;
        let sc = (low | ((extra >> (8 + h) & 1) as u8) << 4) as i8 - 16;
        let shift = if extra >> h & 1 == 0 { 0 } else { V2_SHIFT };
        let codes = bit_pairs(field::<6, 64, _>(block), h);
        scale(isa, &two_bits(isa, codes, [shift; 2]), d * f32::from(sc), values);
    }
}

#[inline(always)]
fn iq3_ks_block(
    isa: impl Isa,
    meta: &[u8; 2],
    block: &[u8; 102],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_at::<0, _>(isa, meta);
    let extra = u16_at::<0, _>(block);
    let low = field::<2, 4, _>(block);
    for (h, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = (low[h % 4] >> (4 * (h / 4))) & 15;
        let sc = (low | ((extra >> h & 1) as u8) << 4) as i8 - 16;
        let shift = if extra >> (8 + h) & 1 == 0 { 0 } else { V3_SHIFT };
        let codes =
            with_bit(bit_pairs(field::<6, 64, _>(block), h), field::<70, 32, _>(block), h, 2);
        scale(isa, &three_bits(isa, codes, [shift; 2]), d * f32::from(sc), values);
    }
}

#[inline(always)]
fn iq2_kl_block(
    isa: impl Isa,
    meta: &[u8; 2],
    block: &[u8; 86],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_at::<0, _>(isa, meta);
    let high = u16_at::<0, _>(block);
    let low = field::<2, 4, _>(block);
    let packed = field::<6, 64, _>(block).as_chunks::<16>().0;
    let fifth = field::<70, 16, _>(block);
    for (h, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = (low[h % 4] >> (4 * (h / 4))) & 15;
        let sc = (low | ((high >> (2 * h) & 3) as u8) << 4) as i8 - 32;
        let mut pairs = [0; 32];
        let bytes = packed[h / 2].iter().zip(fifth);
        for (pair, (&byte, &fifth)) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            let code = (byte >> (4 * (h % 2))) & 15 | (fifth >> h & 1) << 4;
            *pair = PAIRS[usize::from(code)];
        }
        scale(isa, &pairs, d * f32::from(sc), values);
    }
}

/*!
Types with value tables whose rows `ik_llama.cpp` merges: `IQ4_NL_R4`, `IQ4_XS_R8`, `IQ2_K_R4` to
`IQ5_K_R4`, `IQ4_KS_R4`, `IQ5_KS_R4`.
*/

use super::ks::scale_and_shift;
use super::merged::{
    IN_TURN, IQ5_ORDER, bit_of, bytes_of_row, codes, f16_of_row, halves, nibble_of, nibbles,
    pair_of, pairs, with_bit,
};
use super::values::{V2_SHIFT, V3_SHIFT, V4, V4_SHIFT, V5_SHIFT};
use super::{five_bits, four_bits, three_bits, two_bits};
use crate::codec::ggml::bytes::{field, scale, scale_halves};
use crate::codec::isa::Isa;
use crate::codec::rows::row_decoders;

row_decoders! {
    /// `IQ4_NL_R4`: four d f16, codes; `d` times the code's value.
    iq4_nl_r4: 0 + 72 => 32, iq4_nl_r4_block;
    /// `IQ4_XS_R8`: eight d f16, upper and lower scale bits, codes; `d (sc - 32)` times the code's value.
    iq4_xs_r8: 0 + 1088 => 256, iq4_xs_r8_block;
    /// `IQ2_K_R4`: four d f16, table bits, scale nibbles, codes; as `IQ2_K`.
    iq2_k_r4: 0 + 304 => 256, iq2_k_r4_block;
    /// `IQ3_K_R4`: four d f16, table bits, signs of scales, scale nibbles, codes, third bits; as `IQ3_K`.
    iq3_k_r4: 0 + 440 => 256, iq3_k_r4_block;
    /// `IQ4_K_R4`: four d f16, table bits, upper and lower scale bits, codes; as `IQ4_K`.
    iq4_k_r4: 0 + 576 => 256, iq4_k_r4_block;
    /// `IQ5_K_R4`: as `IQ4_K_R4`, with fifth bits behind.
    iq5_k_r4: 0 + 704 => 256, iq5_k_r4_block;
    /// `IQ4_KS_R4`: D f32 of each row; bytes of scale and table bit, codes; as `IQ4_KS`.
    iq4_ks_r4: 4 + 544 => 256, iq4_ks_r4_block;
    /// `IQ5_KS_R4`: as `IQ4_KS_R4`, with fifth bits behind.
    iq5_ks_r4: 4 + 672 => 256, iq5_ks_r4_block;
}

#[inline(always)]
fn iq4_nl_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 72],
    row: usize,
    values: &mut [f32; 32],
) {
    let codes = isa.look_up(&V4, codes(nibbles(block, 8, 0, row)));
    scale(isa, &codes, f16_of_row(isa, block, 0, row & 3), values);
}

#[inline(always)]
fn iq4_xs_r8_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 1088],
    row: usize,
    values: &mut [f32; 256],
) {
    let row = row & 7;
    let d = f16_of_row(isa, block, 0, row);
    let (high, low) = (field::<16, 16, _>(block), field::<32, 32, _>(block));
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let w = 8 * ib + row;
        let sc = (nibble_of(low, w) | pair_of(high, w) << 4) as i8 - 32;
        // A byte holds elements 4 apart.
        let packed = bytes_of_row::<8, 16>(block, 64 + 128 * ib, row);
        let mut codes = [0; 32];
        for (codes, packed) in
            codes.as_chunks_mut::<8>().0.iter_mut().zip(packed.as_chunks::<4>().0)
        {
            for (i, &byte) in packed.iter().enumerate() {
                codes[i] = byte & 15;
                codes[i + 4] = byte >> 4;
            }
        }
        scale(isa, &isa.look_up(&V4, codes), d * f32::from(sc), values);
    }
}

/// What the table bits of the two halves of group `ib` of a row add to their values.
#[inline(always)]
fn shifts(extra: &[u8; 8], ib: usize, row: usize, shift: i8) -> [i8; 2] {
    [0, 4].map(|half| if extra[half + (row & 3)] >> ib & 1 == 0 { 0 } else { shift })
}

#[inline(always)]
fn iq2_k_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 304],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_of_row(isa, block, 0, row & 3);
    let (extra, low) = (field::<8, 8, _>(block), field::<16, 32, _>(block));
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let shifts = shifts(extra, ib, row, V2_SHIFT);
        let values_of = two_bits(isa, codes(pairs(block, 48, ib, row)), shifts);
        let sc = halves(ib, row).map(|u| d * f32::from(nibble_of(low, u) as i8 - 8));
        scale_halves(isa, &values_of, sc, values);
    }
}

#[inline(always)]
fn iq3_k_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 440],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_of_row(isa, block, 0, row & 3);
    let (extra, signs, low) =
        (field::<8, 8, _>(block), field::<16, 8, _>(block), field::<24, 32, _>(block));
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let quarters = with_bit(pairs(block, 56, ib, row), block, (312, &IN_TURN), (ib, row), 2);
        let shifts = shifts(extra, ib, row, V3_SHIFT);
        let values_of = three_bits(isa, codes(quarters), shifts);
        let sc = halves(ib, row).map(|u| {
            let sc = 2 * nibble_of(low, u) as i8 + 1;
            d * f32::from(if bit_of(signs, u) == 0 { sc } else { -sc })
        });
        scale_halves(isa, &values_of, sc, values);
    }
}

/// `d (sc - 32)` of the two halves of group `ib` of a row of `IQ4_K_R4` and `IQ5_K_R4`.
#[inline(always)]
fn six_bit_scales(block: &[u8], d: f32, ib: usize, row: usize) -> [f32; 2] {
    let (high, low) = (&block[16..32], &block[32..64]);
    halves(ib, row).map(|u| d * f32::from((nibble_of(low, u) | pair_of(high, u) << 4) as i8 - 32))
}

#[inline(always)]
fn iq4_k_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 576],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_of_row(isa, block, 0, row & 3);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let shifts = shifts(field::<8, 8, _>(block), ib, row, V4_SHIFT);
        let values_of = four_bits(isa, codes(nibbles(block, 64, ib, row)), shifts);
        scale_halves(isa, &values_of, six_bit_scales(block, d, ib, row), values);
    }
}

#[inline(always)]
fn iq5_k_r4_block(
    isa: impl Isa,
    _: &[u8; 0],
    block: &[u8; 704],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = f16_of_row(isa, block, 0, row & 3);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let quarters =
            with_bit(nibbles(block, 64, ib, row), block, (576, &IQ5_ORDER), (ib, row), 4);
        let shifts = shifts(field::<8, 8, _>(block), ib, row, V5_SHIFT);
        let values_of = five_bits(isa, codes(quarters), shifts);
        scale_halves(isa, &values_of, six_bit_scales(block, d, ib, row), values);
    }
}

#[inline(always)]
fn iq4_ks_r4_block(
    isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 544],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = f32::from_le_bytes(*meta);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (sc, shift) = scale_and_shift(block[4 * ib + (row & 3)], V4_SHIFT);
        let values_of = four_bits(isa, codes(nibbles(block, 32, ib, row)), shift);
        scale(isa, &values_of, d * sc, values);
    }
}

#[inline(always)]
fn iq5_ks_r4_block(
    isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 672],
    row: usize,
    values: &mut [f32; 256],
) {
    let d = f32::from_le_bytes(*meta);
    for (ib, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (sc, shift) = scale_and_shift(block[4 * ib + (row & 3)], V5_SHIFT);
        let quarters =
            with_bit(nibbles(block, 32, ib, row), block, (544, &IQ5_ORDER), (ib, row), 4);
        scale(isa, &five_bits(isa, codes(quarters), shift), d * sc, values);
    }
}

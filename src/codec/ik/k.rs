/*!
Types of `ik_llama.cpp` whose blocks stand alone: `Q6_0` and the non-linear K-quants `IQ2_K`, `IQ3_K`,
`IQ4_K`, `IQ5_K`, `IQ6_K`.

A super-block has one f16 scale and a small scale for each 16 elements, and for each of them a bit that
chooses the second form of the value table.
*/

use super::values::{V2_SHIFT, V3_SHIFT, V4_SHIFT, V5_SHIFT, V6_SHIFT, six_bits};
use super::{five_bits, four_bits, three_bits, two_bits};
use crate::codec::ggml::bytes::{f16_at, field, nibbles, scale, scale_halves, u16_at};
use crate::codec::isa::Isa;
use crate::codec::simd::decoders;

decoders! {
    /// `Q6_0`: d f16, 8 bytes of upper bit pairs, 16 of low nibbles; `d (q - 32)`.
    q6_0: 26 => 32, q6_0_block;
    /// `IQ2_K`: d f16, a u16 of table bits, 8 bytes of scale nibbles, 64 of codes; `d (sc - 8)` times
    /// the code's value.
    iq2_k: 76 => 256, iq2_k_block;
    /// `IQ3_K`: d f16, a u16 of table bits, a u16 of the scales' signs, 8 bytes of scale nibbles, 64 of
    /// low code bits, 32 of third bits; `± d (2 sc + 1)` times the code's value.
    iq3_k: 110 => 256, iq3_k_block;
    /// `IQ4_K`: d f16, a u16 of table bits, 4 bytes of upper and 8 of lower scale bits, 128 of codes;
    /// `d (sc - 32)` times the code's value.
    iq4_k: 144 => 256, iq4_k_block;
    /// `IQ5_K`: as `IQ4_K`, with 32 bytes of fifth bits behind.
    iq5_k: 176 => 256, iq5_k_block;
    /// `IQ6_K`: d f16, a u16 of table bits, 16 i8 scales, 128 bytes of low nibbles, 64 of upper bit
    /// pairs; `d sc` times the code's value.
    iq6_k: 212 => 256, iq6_k_block;
}

#[inline(always)]
fn q6_0_block(isa: impl Isa, block: &[u8; 26], values: &mut [f32; 32]) {
    let mut codes = nibbles(field::<10, 16, _>(block));
    let high = field::<2, 8, _>(block);
    for (t, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        // Eight elements: the first, second, third and fourth have bits 0, 4, 2 and 6.
        let shift = 4 * (t % 2) + 2 * (t / 2);
        for (code, &bits) in codes.iter_mut().zip(high) {
            *code |= ((bits >> shift) & 3) << 4;
        }
    }
    scale(isa, &codes.map(|q| q as i8 - 32), f16_at::<0, _>(isa, block), values);
}

#[inline(always)]
fn iq2_k_block(isa: impl Isa, block: &[u8; 76], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let extra = u16_at::<2, _>(block);
    let scales = field::<4, 8, _>(block);
    for (h, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let codes = bit_pairs(field::<12, 64, _>(block), h);
        let values_of = two_bits(isa, codes, shifts(extra, h, V2_SHIFT));
        let sc = nibble_pair(scales[h]).map(|sc| d * f32::from(sc as i8 - 8));
        scale_halves(isa, &values_of, sc, values);
    }
}

#[inline(always)]
fn iq3_k_block(isa: impl Isa, block: &[u8; 110], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let extra = u16_at::<2, _>(block);
    let signs = u16_at::<4, _>(block);
    let scales = field::<6, 8, _>(block);
    for (h, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let codes =
            with_bit(bit_pairs(field::<14, 64, _>(block), h), field::<78, 32, _>(block), h, 2);
        let values_of = three_bits(isa, codes, shifts(extra, h, V3_SHIFT));
        let mut sc = nibble_pair(scales[h]).map(|sc| 2 * sc as i8 + 1);
        for (half, sc) in sc.iter_mut().enumerate() {
            *sc = if signs >> (2 * h + half) & 1 == 0 { *sc } else { -*sc };
        }
        scale_halves(isa, &values_of, sc.map(|sc| d * f32::from(sc)), values);
    }
}

#[inline(always)]
fn iq4_k_block(isa: impl Isa, block: &[u8; 144], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let extra = u16_at::<2, _>(block);
    let scales = six_bit_scales(field::<4, 4, _>(block), field::<8, 8, _>(block));
    let packed = field::<16, 128, _>(block).as_chunks::<16>().0;
    for (h, (values, packed)) in values.as_chunks_mut::<32>().0.iter_mut().zip(packed).enumerate() {
        let values_of = four_bits(isa, nibbles(packed), shifts(extra, h, V4_SHIFT));
        let sc = [scales[2 * h], scales[2 * h + 1]].map(|sc| d * f32::from(sc));
        scale_halves(isa, &values_of, sc, values);
    }
}

#[inline(always)]
fn iq5_k_block(isa: impl Isa, block: &[u8; 176], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let extra = u16_at::<2, _>(block);
    let scales = six_bit_scales(field::<4, 4, _>(block), field::<8, 8, _>(block));
    for (h, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let codes = with_bit(
            nibbles_of_64(field::<16, 128, _>(block), h),
            field::<144, 32, _>(block),
            h,
            4,
        );
        let values_of = five_bits(isa, codes, shifts(extra, h, V5_SHIFT));
        let sc = [scales[2 * h], scales[2 * h + 1]].map(|sc| d * f32::from(sc));
        scale_halves(isa, &values_of, sc, values);
    }
}

#[inline(always)]
fn iq6_k_block(isa: impl Isa, block: &[u8; 212], values: &mut [f32; 256]) {
    let d = f16_at::<0, _>(isa, block);
    let extra = u16_at::<2, _>(block);
    let scales = field::<4, 16, _>(block).map(|sc| d * f32::from(sc as i8));
    let upper = field::<148, 64, _>(block).as_chunks::<32>().0;
    for (h, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let mut codes = nibbles_of_64(field::<20, 128, _>(block), h);
        for (code, &bits) in codes.iter_mut().zip(&upper[h / 4]) {
            *code |= ((bits >> (2 * (h % 4))) & 3) << 4;
        }
        let halves = values.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
        for (half, (values, codes)) in halves.enumerate() {
            let g = 2 * h + half;
            let shift = if extra >> g & 1 == 0 { 0.0 } else { V6_SHIFT };
            *values = isa.widen_u8(*codes).map(|code| scales[g] * (six_bits(code) + shift));
        }
    }
}

/// What the table bits of the two halves of group `h` add to their values.
#[inline(always)]
fn shifts(extra: u16, h: usize, shift: i8) -> [i8; 2] {
    [0, 1].map(|half| if extra >> (2 * h + half) & 1 == 0 { 0 } else { shift })
}

#[inline(always)]
fn nibble_pair(byte: u8) -> [u8; 2] {
    [byte & 15, byte >> 4]
}

/// The sixteen signed scales of `IQ4_K` and `IQ5_K`: low nibbles and upper bit pairs.
#[inline(always)]
fn six_bit_scales(high: &[u8; 4], low: &[u8; 8]) -> [i8; 16] {
    let mut scales = [0; 16];
    for (g, scale) in scales.iter_mut().enumerate() {
        let low = (low[g / 2] >> (4 * (g % 2))) & 15;
        let high = (high[g / 4] >> (2 * (g % 4))) & 3;
        *scale = (low | high << 4) as i8 - 32;
    }
    scales
}

/// The 2-bit codes of group `h`: four groups share 32 bytes.
#[inline(always)]
pub(super) fn bit_pairs(packed: &[u8; 64], h: usize) -> [u8; 32] {
    packed.as_chunks::<32>().0[h / 4].map(|byte| (byte >> (2 * (h % 4))) & 3)
}

/// The nibbles of group `h`: two groups share 32 bytes.
#[inline(always)]
pub(super) fn nibbles_of_64(packed: &[u8; 128], h: usize) -> [u8; 32] {
    packed.as_chunks::<32>().0[h / 2].map(|byte| (byte >> (4 * (h % 2))) & 15)
}

/// Codes with one more bit, `at`: bit `h` of the byte that belongs to the element.
#[inline(always)]
pub(super) fn with_bit(mut codes: [u8; 32], bits: &[u8; 32], h: usize, at: u32) -> [u8; 32] {
    for (code, &bits) in codes.iter_mut().zip(bits) {
        *code |= ((bits >> h) & 1) << at;
    }
    codes
}

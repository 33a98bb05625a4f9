/*! Types of one or two bits without codebook: `TQ1_0`, `TQ2_0`, `Q1_0`, `Q2_0`. */

use super::bytes::{f16_at, field, scale};
use crate::codec::isa::Isa;
use crate::codec::simd::decoders;

decoders! {
    /// `TQ1_0`: 52 bytes of five (the last four: four) base-3 digits each, d f16; `d (digit - 1)`.
    tq1_0: 54 => 256, tq1_0_block;
    /// `TQ2_0`: 64 bytes of 2-bit codes, d f16; `d (q - 1)`.
    tq2_0: 66 => 256, tq2_0_block;
    /// `Q1_0`: d f16, 128 bits; `d` where the bit is set, else `-d`.
    q1_0: 18 => 128, q1_0_block;
    /// `Q2_0`: d f16, 16 bytes of four consecutive 2-bit codes; `d (q - 1)`.
    q2_0: 18 => 64, q2_0_block;
}

#[inline(always)]
fn tq1_0_block(isa: impl Isa, block: &[u8; 54], values: &mut [f32; 256]) {
    let d = f16_at::<52, _>(isa, block);
    let (wide, rest) = values.split_at_mut(160);
    let (narrow, last) = rest.split_at_mut(80);
    ternary_digits(*field::<0, 32, _>(block), d, wide);
    ternary_digits(*field::<32, 16, _>(block), d, narrow);
    ternary_digits(*field::<48, 4, _>(block), d, last);
}

/// Decodes `values.len() / N` digits of each byte, the first digits of all bytes first.
///
/// A byte is a fraction of 256, read in base 3: the next digit is what three times the fraction
/// carries out of eight bits, the rest is the next fraction.
#[inline(always)]
fn ternary_digits<const N: usize>(mut fractions: [u8; N], d: f32, values: &mut [f32]) {
    for values in values.as_chunks_mut::<N>().0 {
        let digits = fractions.map(|x| i8::from(x >= 86) + i8::from(x >= 171) - 1);
        *values = digits.map(|digit| d * f32::from(digit));
        fractions = fractions.map(|x| x.wrapping_mul(3));
    }
}

#[inline(always)]
fn tq2_0_block(isa: impl Isa, block: &[u8; 66], values: &mut [f32; 256]) {
    let d = f16_at::<64, _>(isa, block);
    let packed = field::<0, 64, _>(block).as_chunks::<32>().0;
    for (values, packed) in values.as_chunks_mut::<128>().0.iter_mut().zip(packed) {
        for (k, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            scale(isa, &packed.map(|byte| ((byte >> (2 * k)) & 3) as i8 - 1), d, values);
        }
    }
}

#[inline(always)]
fn q1_0_block(isa: impl Isa, block: &[u8; 18], values: &mut [f32; 128]) {
    let d = f16_at::<0, _>(isa, block).to_bits();
    let bits = field::<2, 16, _>(block).as_chunks::<4>().0;
    for (values, bits) in values.as_chunks_mut::<32>().0.iter_mut().zip(bits) {
        // A negation and not a product with -1: the sign of a NaN flips too, as in ggml.
        for (value, mask) in values.iter_mut().zip(isa.bit_masks(*bits)) {
            *value = f32::from_bits(d ^ (u32::from(!mask & 0x80) << 24));
        }
    }
}

#[inline(always)]
fn q2_0_block(isa: impl Isa, block: &[u8; 18], values: &mut [f32; 64]) {
    let d = f16_at::<0, _>(isa, block);
    let mut codes = [0; 64];
    for (codes, &byte) in codes.as_chunks_mut::<4>().0.iter_mut().zip(field::<2, 16, _>(block)) {
        // Bits 2k and 2k + 1 of the byte go to the bottom of byte k.
        let byte = u32::from(byte);
        let spread = (byte | byte << 6 | byte << 12 | byte << 18) & 0x0303_0303;
        *codes = spread.to_le_bytes();
    }
    scale(isa, &codes.map(|q| q as i8 - 1), d, values);
}

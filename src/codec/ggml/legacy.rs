/*!
The types with 32 elements in a block: `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0`, `Q8_1`, `IQ4_NL`.

Where codes have four bits, byte k holds element k in its low nibble and element k + 16 in its high
one; the fifth bits of all elements are one 32-bit word.
*/

use super::bytes::{f16_at, field, nibbles, scale};
use super::grids::IQ4_VALUES;
use crate::codec::isa::Isa;
use crate::codec::simd::decoders;

decoders! {
    /// `Q4_0`: d f16, codes; `d (q - 8)`.
    q4_0: 18 => 32, q4_0_block;
    /// `Q4_1`: d f16, m f16, codes; `d q + m`.
    q4_1: 20 => 32, q4_1_block;
    /// `Q5_0`: d f16, fifth bits u32, codes; `d (q - 16)`.
    q5_0: 22 => 32, q5_0_block;
    /// `Q5_1`: d f16, m f16, fifth bits u32, codes; `d q + m`.
    q5_1: 24 => 32, q5_1_block;
    /// `Q8_0`: d f16, i8 codes; `d q`.
    q8_0: 34 => 32, q8_0_block;
    /// `Q8_1`: d f16, the codes' sum times d, i8 codes; `d q`.
    q8_1: 36 => 32, q8_1_block;
    /// `IQ4_NL`: d f16, codes; `d` times the code's value in [`IQ4_VALUES`].
    iq4_nl: 18 => 32, iq4_nl_block;
}

#[inline(always)]
fn q4_0_block(isa: impl Isa, block: &[u8; 18], values: &mut [f32; 32]) {
    let codes = nibbles(field::<2, 16, _>(block)).map(|q| q as i8 - 8);
    scale(isa, &codes, f16_at::<0, _>(isa, block), values);
}

#[inline(always)]
fn q4_1_block(isa: impl Isa, block: &[u8; 20], values: &mut [f32; 32]) {
    let codes = nibbles(field::<4, 16, _>(block));
    scale_add(isa, &codes, f16_at::<0, _>(isa, block), f16_at::<2, _>(isa, block), values);
}

#[inline(always)]
fn q5_0_block(isa: impl Isa, block: &[u8; 22], values: &mut [f32; 32]) {
    let codes = five_bits(isa, *field::<2, 4, _>(block), field::<6, 16, _>(block));
    scale(isa, &codes.map(|q| q as i8 - 16), f16_at::<0, _>(isa, block), values);
}

#[inline(always)]
fn q5_1_block(isa: impl Isa, block: &[u8; 24], values: &mut [f32; 32]) {
    let codes = five_bits(isa, *field::<4, 4, _>(block), field::<8, 16, _>(block));
    scale_add(isa, &codes, f16_at::<0, _>(isa, block), f16_at::<2, _>(isa, block), values);
}

#[inline(always)]
fn q8_0_block(isa: impl Isa, block: &[u8; 34], values: &mut [f32; 32]) {
    let codes = field::<2, 32, _>(block).map(|q| q as i8);
    scale(isa, &codes, f16_at::<0, _>(isa, block), values);
}

#[inline(always)]
fn q8_1_block(isa: impl Isa, block: &[u8; 36], values: &mut [f32; 32]) {
    let codes = field::<4, 32, _>(block).map(|q| q as i8);
    scale(isa, &codes, f16_at::<0, _>(isa, block), values);
}

#[inline(always)]
fn iq4_nl_block(isa: impl Isa, block: &[u8; 18], values: &mut [f32; 32]) {
    let codes = isa.look_up(&IQ4_VALUES, nibbles(field::<2, 16, _>(block)));
    scale(isa, &codes, f16_at::<0, _>(isa, block), values);
}

/// Nibbles with their fifth bits.
#[inline(always)]
fn five_bits(isa: impl Isa, fifth: [u8; 4], packed: &[u8; 16]) -> [u8; 32] {
    let mut codes = nibbles(packed);
    for (code, mask) in codes.iter_mut().zip(isa.bit_masks(fifth)) {
        *code |= mask & 16;
    }
    codes
}

/// `d * code + m`.
#[inline(always)]
fn scale_add(isa: impl Isa, codes: &[u8; 32], d: f32, m: f32, values: &mut [f32; 32]) {
    let codes = codes.as_chunks::<16>().0;
    for (values, codes) in values.as_chunks_mut::<16>().0.iter_mut().zip(codes) {
        *values = isa.widen_u8(*codes).map(|code| d * code + m);
    }
}

/*!
The trellis types of `ik_llama.cpp`: `IQ1_KT`, `IQ2_KT`, `IQ3_KT`, `IQ4_KT`.

A row has an f32 scale `D`; 32 elements have a small scale; a group of eight elements (`IQ4_KT`: four) is
an index from which a generator makes its values. No state runs from one group to the next. All but `IQ1_KT` had
another generator until June 2025.
*/

use super::values::{TRELLIS_OFFSET, TRELLIS_SECOND, V4, trellis};
use crate::codec::ggml::bytes::field;
use crate::codec::isa::Isa;
use crate::codec::rows::row_decoders;
use crate::codec::trellis::three_inst;

row_decoders! {
    /// `IQ1_KT`: 8 bytes of scale nibbles and thirteenth index bits, 32 of low index bits, 16 of the
    /// nibbles above.
    iq1_kt: 4 + 56 => 256, iq1_kt_block;
    /// `IQ2_KT`: 4 bytes of scale nibbles, 32 indices of 16 bits.
    iq2_kt: 4 + 68 => 256, iq2_kt_block::<false>;
    /// `IQ3_KT`: as `IQ2_KT`, of whose values the magnitudes count, with 32 bytes of signs behind.
    iq3_kt: 4 + 100 => 256, iq3_kt_block::<false>;
    /// `IQ4_KT`: 8 words of scale, half and upper index bits, 64 bytes of low index bits, 32 of the
    /// nibbles above; groups of four.
    iq4_kt: 4 + 128 => 256, iq4_kt_block::<false>;
    /// `IQ2_KT` by the former generator.
    former_iq2_kt: 4 + 68 => 256, iq2_kt_block::<true>;
    /// `IQ3_KT` by the former generator.
    former_iq3_kt: 4 + 100 => 256, iq3_kt_block::<true>;
    /// `IQ4_KT` by the former generator.
    former_iq4_kt: 4 + 128 => 256, iq4_kt_block::<true>;
}

/// What follows a state. Until June 2025 the library had the generator of QTIP, under the same type ids and in
/// blocks of the same size; but for a factor, these are the values that it gave.
#[inline(always)]
fn generate<const N: usize, const FORMER: bool>(state: u32) -> [f32; N] {
    if FORMER { three_inst(state) } else { trellis(state) }
}

#[inline(always)]
fn iq1_kt_block(
    _isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 56],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f32::from_le_bytes(*meta);
    let (heads, low, high) =
        (field::<0, 8, _>(block), field::<8, 32, _>(block), field::<40, 16, _>(block));
    for (k, values) in values.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let head = heads[k / 4];
        let scale = d * f32::from(V4[usize::from(head & 15)]);
        let nibble = (high[k % 16] >> (4 * (k / 16))) & 15;
        let last = (head >> (4 + k % 4)) & 1;
        let index = u32::from(low[k]) | u32::from(nibble) << 8 | u32::from(last) << 12;
        *values = trellis(index + TRELLIS_OFFSET).map(|value| scale * value);
    }
}

/// The scale of group `h` of `IQ2_KT` and `IQ3_KT`: the first four in the low nibbles.
#[inline(always)]
fn scale_code(scales: &[u8; 4], h: usize) -> u8 {
    (scales[h % 4] >> (4 * (h / 4))) & 15
}

#[inline(always)]
fn iq2_kt_block<const FORMER: bool>(
    _isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 68],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f32::from_le_bytes(*meta);
    let scales = field::<0, 4, _>(block);
    let indices = field::<4, 64, _>(block).as_chunks::<2>().0;
    let groups = values.as_chunks_mut::<8>().0.iter_mut().zip(indices);
    for (k, (values, index)) in groups.enumerate() {
        let scale = d * f32::from(V4[usize::from(scale_code(scales, k / 4))]);
        let index = u32::from(u16::from_le_bytes(*index));
        *values = generate::<8, FORMER>(index + TRELLIS_OFFSET).map(|value| scale * value);
    }
}

#[inline(always)]
fn iq3_kt_block<const FORMER: bool>(
    _isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 100],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f32::from_le_bytes(*meta);
    let scales = field::<0, 4, _>(block);
    let indices = field::<4, 64, _>(block).as_chunks::<2>().0;
    let signs = field::<68, 32, _>(block).as_chunks::<8>().0;
    let groups = values.as_chunks_mut::<8>().0.iter_mut().zip(indices);
    for (k, (values, index)) in groups.enumerate() {
        let h = k / 4;
        let scale = d * f32::from(scale_code(scales, h));
        let index = u32::from(u16::from_le_bytes(*index));
        let magnitudes = generate::<8, FORMER>(index + TRELLIS_OFFSET);
        for ((value, magnitude), signs) in values.iter_mut().zip(magnitudes).zip(signs[k % 4]) {
            let sign = u32::from(signs >> h & 1) << 31;
            *value = f32::from_bits((scale * magnitude.abs()).to_bits() ^ sign);
        }
    }
}

#[inline(always)]
fn iq4_kt_block<const FORMER: bool>(
    _isa: impl Isa,
    meta: &[u8; 4],
    block: &[u8; 128],
    _row: usize,
    values: &mut [f32; 256],
) {
    let d = f32::from_le_bytes(*meta);
    let heads = field::<0, 32, _>(block).as_chunks::<4>().0;
    let (low, high) = (field::<32, 64, _>(block), field::<96, 32, _>(block));
    for (k, values) in values.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let head = u32::from_le_bytes(heads[k / 8]);
        let scale = d * (((head & 255) >> 1) as i32 - 64) as f32;
        let offset = TRELLIS_OFFSET + TRELLIS_SECOND * (head & 1);
        let nibble = (high[k % 32] >> (4 * (k / 32))) & 15;
        let upper = (head >> (8 + 3 * (k % 8))) & 7;
        let index = u32::from(low[k]) | u32::from(nibble) << 8 | upper << 12;
        *values = generate::<4, FORMER>(index + offset).map(|value| scale * value);
    }
}

/*!
The K-quants, 256 elements in a super-block: `Q2_K`, `Q3_K`, `Q4_K`, `Q5_K`, `Q6_K`, `Q8_K`.

A super-block has one or two f16 scales and small integer scales for each 16 or 32 elements.
*/

use super::bytes::{f16_at, field, scale, scale_halves};
use crate::codec::isa::Isa;
use crate::codec::simd::decoders;

decoders! {
    /// `Q2_K`: 16 bytes of scale and offset nibbles, 64 of codes, d f16, dmin f16;
    /// `d sc q - dmin m` for each 16 elements.
    q2_k: 84 => 256, q2_k_block;
    /// `Q3_K`: 32 bytes of third bits, 64 of codes, 12 of 6-bit scales, d f16;
    /// `d sc (q - 4)` for each 16 elements, q with its third bit.
    q3_k: 110 => 256, q3_k_block;
    /// `Q4_K`: d f16, dmin f16, 12 bytes of 6-bit scales and offsets, 128 of codes;
    /// `d sc q - dmin m` for each 32 elements.
    q4_k: 144 => 256, q4_k_block;
    /// `Q5_K`: as `Q4_K`, with 32 bytes of fifth bits before the codes.
    q5_k: 176 => 256, q5_k_block;
    /// `Q6_K`: 128 bytes of low nibbles, 64 of upper bit pairs, 16 i8 scales, d f16;
    /// `d sc (q - 32)` for each 16 elements.
    q6_k: 210 => 256, q6_k_block;
    /// `Q8_K`: d f32, i8 codes, 16 sums of codes; `d q`.
    q8_k: 292 => 256, q8_k_block;
}

#[inline(always)]
fn q2_k_block(isa: impl Isa, block: &[u8; 84], values: &mut [f32; 256]) {
    let d = f16_at::<80, _>(isa, block);
    let dmin = f16_at::<82, _>(isa, block);
    let packed = field::<0, 16, _>(block);
    let scales = packed.map(|byte| d * f32::from(byte & 15));
    let offsets = packed.map(|byte| dmin * f32::from(byte >> 4));
    let (values, _) = values.as_chunks_mut::<32>();
    for (group, values) in values.iter_mut().enumerate() {
        let codes = bit_pairs(field::<16, 64, _>(block), group);
        let halves = values.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
        for (half, (values, codes)) in halves.enumerate() {
            let at = 2 * group + half;
            scale_subtract(isa, codes, scales[at], offsets[at], values);
        }
    }
}

#[inline(always)]
fn q3_k_block(isa: impl Isa, block: &[u8; 110], values: &mut [f32; 256]) {
    let d = f16_at::<108, _>(isa, block);
    let scales = q3_k_scales(field::<96, 12, _>(block)).map(|sc| d * f32::from(sc));
    let third = field::<0, 32, _>(block);
    let (values, _) = values.as_chunks_mut::<32>();
    for (group, values) in values.iter_mut().enumerate() {
        let mut codes = bit_pairs(field::<32, 64, _>(block), group).map(|q| q as i8);
        for (code, &bits) in codes.iter_mut().zip(third) {
            *code -= if bits & (1 << group) == 0 { 4 } else { 0 };
        }
        scale_halves(isa, &codes, [scales[2 * group], scales[2 * group + 1]], values);
    }
}

#[inline(always)]
fn q4_k_block(isa: impl Isa, block: &[u8; 144], values: &mut [f32; 256]) {
    let (scales, offsets) = scales_and_offsets(isa, field::<0, 16, _>(block));
    let (values, _) = values.as_chunks_mut::<64>();
    let packed = field::<16, 128, _>(block).as_chunks::<32>().0;
    for (pair, (values, packed)) in values.iter_mut().zip(packed).enumerate() {
        let (low, high) = (2 * pair, 2 * pair + 1);
        let (first, second) = halves(values);
        scale_subtract(isa, &packed.map(|q| q & 15), scales[low], offsets[low], first);
        scale_subtract(isa, &packed.map(|q| q >> 4), scales[high], offsets[high], second);
    }
}

#[inline(always)]
fn q5_k_block(isa: impl Isa, block: &[u8; 176], values: &mut [f32; 256]) {
    let (scales, offsets) = scales_and_offsets(isa, field::<0, 16, _>(block));
    let fifth = field::<16, 32, _>(block);
    let (values, _) = values.as_chunks_mut::<64>();
    let packed = field::<48, 128, _>(block).as_chunks::<32>().0;
    for (pair, (values, packed)) in values.iter_mut().zip(packed).enumerate() {
        let (low, high) = (2 * pair, 2 * pair + 1);
        let (first, second) = halves(values);
        let mut codes = packed.map(|q| q & 15);
        for (code, &bits) in codes.iter_mut().zip(fifth) {
            *code |= if bits & (1 << low) == 0 { 0 } else { 16 };
        }
        scale_subtract(isa, &codes, scales[low], offsets[low], first);
        let mut codes = packed.map(|q| q >> 4);
        for (code, &bits) in codes.iter_mut().zip(fifth) {
            *code |= if bits & (1 << high) == 0 { 0 } else { 16 };
        }
        scale_subtract(isa, &codes, scales[high], offsets[high], second);
    }
}

#[inline(always)]
fn q6_k_block(isa: impl Isa, block: &[u8; 210], values: &mut [f32; 256]) {
    let d = f16_at::<208, _>(isa, block);
    let scales = field::<192, 16, _>(block).map(|sc| d * f32::from(sc as i8));
    let low = field::<0, 128, _>(block).as_chunks::<64>().0;
    let high = field::<128, 64, _>(block).as_chunks::<32>().0;
    let (values, _) = values.as_chunks_mut::<128>();
    for (n, ((values, low), high)) in values.iter_mut().zip(low).zip(high).enumerate() {
        for (k, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = &low.as_chunks::<32>().0[k % 2];
            let mut codes = [0; 32];
            for ((code, &low), &high) in codes.iter_mut().zip(low).zip(high) {
                let nibble = (low >> (4 * (k / 2))) & 15;
                *code = (nibble | ((high >> (2 * k)) & 3) << 4) as i8 - 32;
            }
            let first = 8 * n + 2 * k;
            scale_halves(isa, &codes, [scales[first], scales[first + 1]], values);
        }
    }
}

#[inline(always)]
fn q8_k_block(isa: impl Isa, block: &[u8; 292], values: &mut [f32; 256]) {
    let d = f32::from_le_bytes(*field::<0, 4, _>(block));
    scale(isa, &field::<4, 256, _>(block).map(|q| q as i8), d, values);
}

/// The 2-bit codes of elements 32 `group` to 32 `group` + 31 of `Q2_K` and `Q3_K`: four groups
/// share 32 bytes.
#[inline(always)]
fn bit_pairs(packed: &[u8; 64], group: usize) -> [u8; 32] {
    packed.as_chunks::<32>().0[group / 4].map(|byte| (byte >> (2 * (group % 4))) & 3)
}

#[inline(always)]
fn halves(values: &mut [f32; 64]) -> (&mut [f32; 32], &mut [f32; 32]) {
    match values.as_chunks_mut::<32>().0 {
        [first, second] => (first, second),
        _ => unreachable!(),
    }
}

/// `d * code - m`, of a multiple of sixteen codes.
#[inline(always)]
fn scale_subtract<const N: usize>(
    isa: impl Isa,
    codes: &[u8; N],
    d: f32,
    m: f32,
    values: &mut [f32; N],
) {
    const { assert!(N.is_multiple_of(16)) };
    let codes = codes.as_chunks::<16>().0;
    for (values, codes) in values.as_chunks_mut::<16>().0.iter_mut().zip(codes) {
        *values = isa.widen_u8(*codes).map(|code| d * code - m);
    }
}

/// `d sc` and `dmin m` of the eight groups of `Q4_K` and `Q5_K`, from a block's first 16 bytes.
#[inline(always)]
fn scales_and_offsets(isa: impl Isa, head: &[u8; 16]) -> ([f32; 8], [f32; 8]) {
    let d = f16_at::<0, _>(isa, head);
    let dmin = f16_at::<2, _>(isa, head);
    let (scales, offsets) = q4_k_scales(field::<4, 12, _>(head));
    (scales.map(|sc| d * f32::from(sc)), offsets.map(|m| dmin * f32::from(m)))
}

/// The 6-bit scales and offsets of `Q4_K` and `Q5_K`.
///
/// Twelve bytes, four at a time: the first four hold scales 0 to 3 and the upper bits of scales 4
/// to 7, the next four likewise for offsets, the last four the lower nibbles of scales and offsets
/// 4 to 7.
#[inline(always)]
pub fn q4_k_scales(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let [a, b, c] = words(packed);
    let scales = [a & 0x3F3F_3F3F, (c & 0x0F0F_0F0F) | (a >> 2) & 0x3030_3030];
    let offsets = [b & 0x3F3F_3F3F, (c >> 4) & 0x0F0F_0F0F | (b >> 2) & 0x3030_3030];
    (bytes(scales), bytes(offsets))
}

/// The sixteen signed 6-bit scales of `Q3_K`: low nibbles in eight bytes, upper pairs in four.
#[inline(always)]
pub fn q3_k_scales(packed: &[u8; 12]) -> [i8; 16] {
    let [a, b, c] = words(packed);
    let low = [a, b, a >> 4, b >> 4];
    let high = [c << 4, c << 2, c, c >> 2];
    let mut scales = [0; 16];
    for (j, scale) in scales.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let word = (low[j] & 0x0F0F_0F0F) | (high[j] & 0x3030_3030);
        *scale = word.to_le_bytes().map(|sc| sc as i8 - 32);
    }
    scales
}

#[inline(always)]
fn words(packed: &[u8; 12]) -> [u32; 3] {
    [
        u32::from_le_bytes(*field::<0, 4, _>(packed)),
        u32::from_le_bytes(*field::<4, 4, _>(packed)),
        u32::from_le_bytes(*field::<8, 4, _>(packed)),
    ]
}

#[inline(always)]
fn bytes(words: [u32; 2]) -> [u8; 8] {
    (u64::from(words[0]) | u64::from(words[1]) << 32).to_le_bytes()
}

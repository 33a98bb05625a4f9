/*!
Encoders of the ternary types TQ1_0 and TQ2_0, and of the one- and two-bit types Q1_0 and Q2_0.

One scale a block, from the block alone: these types have no search and ignore importance matrices.
*/

use super::c_arithmetic::{self as c, f16_bits, round_long, truncate};
use super::encode_blocks as walk;

/// The block's scale, its largest magnitude, and the scale's reciprocal (0 for 0).
#[inline(always)]
fn scale(x: &[f32]) -> (f32, f32) {
    let d = x.iter().fold(0.0, |magnitude, x| c::max(magnitude, x.abs()));
    (d, c::reciprocal_or_zero(d))
}

/// Packs `trits` base-3 digits, the first the most significant, as the fraction of 256 that a
/// decoder multiplies back out of the byte: ceil(number * 256 / 3^5).
#[inline(always)]
fn pack_trits(trits: impl Iterator<Item = i32>) -> u8 {
    let number = trits.fold(0u8, |number, trit| number.wrapping_mul(3).wrapping_add(trit as u8));
    ((u16::from(number) * 256).wrapping_add(242) / 243) as u8
}

/// `TQ1_0`: five trits a byte; the last four bytes hold four.
pub fn tq1_0(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x: &[f32; 256], block: &mut [u8; 54]| {
        let (d, inverse) = scale(x);
        let trit = |i: usize| round_long(x[i] * inverse) + 1;
        for (m, packed) in block[..32].iter_mut().enumerate() {
            *packed = pack_trits((0..5).map(|n| trit(m + 32 * n)));
        }
        for m in 0..16 {
            block[32 + m] = pack_trits((0..5).map(|n| trit(160 + m + 16 * n)));
        }
        for m in 0..4 {
            // A fifth digit of 0 moves the first value to the most significant place.
            let trits = (0..4).map(|n| trit(240 + m + 4 * n)).chain([0]);
            block[48 + m] = pack_trits(trits);
        }
        block[52..].copy_from_slice(&f16_bits(d).to_le_bytes());
    });
}

/// `TQ2_0`: four trits a byte, 32 elements apart.
pub fn tq2_0(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x: &[f32; 256], block: &mut [u8; 66]| {
        let (d, inverse) = scale(x);
        let halves = x.as_chunks::<128>().0.iter().zip(block.as_chunks_mut::<32>().0);
        for (x, bytes) in halves {
            for (m, byte) in bytes.iter_mut().enumerate() {
                *byte = (0..4).fold(0, |byte, n| {
                    let trit = round_long(x[m + 32 * n] * inverse) + 1;
                    byte | ((trit & 3) as u8) << (2 * n)
                });
            }
        }
        block[64..].copy_from_slice(&f16_bits(d).to_le_bytes());
    });
}

/// `Q1_0`: one bit an element, set for x >= 0; the scale is the mean magnitude.
pub fn q1_0(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x: &[f32; 128], block: &mut [u8; 18]| {
        let mut sum = 0.0;
        for x in x {
            sum += x.abs();
        }
        block[..2].copy_from_slice(&f16_bits(sum / 128.0).to_le_bytes());
        for (byte, x) in block[2..].iter_mut().zip(x.as_chunks::<8>().0) {
            *byte = x.iter().rev().fold(0, |byte, &x| byte << 1 | u8::from(x >= 0.0));
        }
    });
}

/// `Q2_0`: levels -1 to 2; the scale is the largest magnitude, so that 2 is not reached.
pub fn q2_0(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x: &[f32; 64], block: &mut [u8; 18]| {
        let mut d = 0.0;
        for x in x {
            // Not `c::max`: here a NaN is passed over.
            d = if x.abs() > d { x.abs() } else { d };
        }
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        for (byte, x) in block[2..].iter_mut().zip(x.as_chunks::<4>().0) {
            *byte = x.iter().rev().fold(0, |byte, &x| {
                let level = truncate((x * inverse).round()).wrapping_add(1).clamp(0, 3);
                byte << 2 | level as u8
            });
        }
    });
}

/*!
Encoders of the microscaling types MXFP4 and NVFP4: E2M1 values under one small scale a group.

No search, and importance matrices are ignored.
*/

use super::c_arithmetic::truncate;
use super::encode_blocks as walk;
use super::grids::E2M1_DOUBLED;

/// The code whose value lies nearest to `x`; the lower code of a tie.
#[inline(always)]
fn nearest_code(x: f32, half_scale: f32) -> u8 {
    let (mut best, mut best_error) = (0, x.abs());
    for (code, &value) in E2M1_DOUBLED.iter().enumerate().skip(1) {
        let error = (f32::from(value) * half_scale - x).abs();
        if error < best_error {
            (best, best_error) = (code as u8, error);
        }
    }
    best
}

/// The largest magnitude, NaN passed over.
#[inline(always)]
fn magnitude(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |magnitude, x| if magnitude < x.abs() { x.abs() } else { magnitude })
}

/// Two codes a byte, the second half of the group in the upper nibbles.
#[inline(always)]
fn pack(x: &[f32], half_scale: f32, bytes: &mut [u8]) {
    let (low, high) = x.split_at(bytes.len());
    for ((byte, &low), &high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = nearest_code(low, half_scale) | nearest_code(high, half_scale) << 4;
    }
}

/// The E8M0 code that puts the magnitude between 4 and 8: floor(log2(magnitude)) - 2.
///
/// log2 rounds to f32 first, so that a magnitude just below a power of two counts as that power.
/// Below 2^-125 the code wraps, as it does in ggml.
fn e8m0_scale(magnitude: f32) -> u8 {
    if magnitude > 0.0 {
        let log2 = f64::from(magnitude).log2() as f32;
        truncate(log2.floor() - 2.0 + 127.0) as u8
    } else {
        0
    }
}

/// 2^(code - 128), with subnormals for 0 and 1.
fn half_e8m0(code: u8) -> f32 {
    f32::from_bits(if code < 2 { 0x0020_0000 << code } else { u32::from(code - 1) << 23 })
}

/// `MXFP4`.
pub fn mxfp4(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x: &[f32; 32], block: &mut [u8; 17]| {
        let code = e8m0_scale(magnitude(x));
        block[0] = code;
        pack(x, half_e8m0(code), &mut block[1..]);
    });
}

/// The unsigned E4M3 code nearest to `x`, halves up; never 0x7F, and 0 for what is not positive.
fn ue4m3_scale(x: f32) -> u8 {
    const LARGEST: u8 = 0x7E;
    if !(x > 0.0) {
        return 0;
    }
    let bits = x.min(448.0).to_bits();
    let exponent = (bits >> 23) as i32 - 127 + 7;
    if exponent <= 0 {
        // Subnormal: whole multiples of 2^-9, without rounding up into the normal range.
        return (x * 512.0 + 0.5).min(7.0) as u8;
    }
    // Exponent and mantissa carry into each other; the top exponent is out of reach.
    let rounded = (exponent << 3) + (bits >> 20 & 7) as i32 + (bits >> 19 & 1) as i32;
    if rounded >= 15 << 3 { LARGEST } else { rounded as u8 }
}

/// Half the value of an unsigned E4M3 code.
fn half_ue4m3(code: u8) -> f32 {
    if code == 0x7F { 0.0 } else { crate::codec::float::E4M3[usize::from(code & 0x7F)] * 0.5 }
}

/// `NVFP4`: four groups of 16, each with its scale; the tensor's own scale is not part of it.
pub fn nvfp4(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x: &[f32; 64], block: &mut [u8; 36]| {
        let (scales, codes) = block.split_at_mut(4);
        let groups = x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<8>().0);
        for ((x, bytes), scale) in groups.zip(scales) {
            *scale = ue4m3_scale(magnitude(x) / 6.0);
            pack(x, half_ue4m3(*scale), bytes);
        }
    });
}

/*!
Encoders of the plain half-width floats, rounding to nearest, ties to even.
*/

use half::bf16;

use super::c_arithmetic::f16_bits;
use super::encode_blocks as walk;

/// `F16`; every NaN becomes the quiet NaN of its sign.
pub fn f16(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |&[x], block| *block = f16_bits(x).to_le_bytes());
}

/// `BF16`; NaN keeps its upper mantissa bits and becomes quiet.
pub fn bf16(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |&[x], block| *block = bf16::from_f32(x).to_le_bytes());
}

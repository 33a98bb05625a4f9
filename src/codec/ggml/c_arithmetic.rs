/*!
The arithmetic of ggml's C code where Rust's own differs: roundings, casts, and the f16 of a scale.

The quantizers must give the bits of an x86-64 build without fused multiply-add, so each function
here states what that build computes, out-of-range and NaN operands included.
*/

use half::f16;

/// Below this largest magnitude, ggml's searches take a group for all zero.
pub(super) const GROUP_MAX_EPS: f32 = 1e-15;

/// 1.5 * 2^23: added to an f32, it leaves the nearest integer, ties to even, in the low mantissa.
pub(super) const NEAREST_MAGIC: f32 = 12582912.0;

/// The nearest integer, ties to even, for |x| < 2^22; beyond, whatever the mantissa bits say.
#[inline(always)]
pub(in crate::codec) fn nearest_int(x: f32) -> i32 {
    ((x + NEAREST_MAGIC).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// `(int) x`: towards zero; NaN and anything beyond i32 become `i32::MIN` (`cvttss2si`).
#[inline(always)]
pub(in crate::codec) fn truncate(x: f32) -> i32 {
    if (-2147483648.0..2147483648.0).contains(&x) { x as i32 } else { i32::MIN }
}

/// `(int) lroundf(x)`: halves away from zero, through a 64-bit integer cut to its low half.
#[inline(always)]
pub(super) fn round_long(x: f32) -> i32 {
    if (-9223372036854775808.0..9223372036854775808.0).contains(&x) {
        x.round() as i64 as i32
    } else {
        0
    }
}

/// `MAX(a, b)`: unlike `f32::max`, a NaN on either side gives `b`.
#[inline(always)]
pub(super) fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// 1 / d, and 0 for d = 0.
#[inline(always)]
pub(super) fn reciprocal_or_zero(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The f16 nearest to `x`, ties to even; NaN becomes the one quiet NaN of its sign.
#[inline(always)]
pub(in crate::codec) fn f16_bits(x: f32) -> u16 {
    const INFINITE: u32 = 0x7f80_0000;
    /// 2^16: from 65520 on, rounding already carried into f16's infinity.
    const TOO_LARGE: u32 = 0x4780_0000;
    /// 2^-14, the smallest normal f16.
    const NORMAL: u32 = 0x3880_0000;
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = if magnitude >= TOO_LARGE {
        if magnitude > INFINITE { 0x7e00 } else { 0x7c00 }
    } else if magnitude < NORMAL {
        // Adding 0.5 aligns the mantissa with f16's subnormals, and the addition rounds.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        // Rebias the exponent by 15 - 127 and round off 13 bits, ties to even.
        let odd = (magnitude >> 13) & 1;
        magnitude.wrapping_add(0xc800_0fff).wrapping_add(odd) >> 13
    };
    (bits >> 16 & 0x8000) as u16 | rounded as u16
}

/// `x` as an f16 and back, as a decoder will see it.
#[inline(always)]
pub(super) fn f16_round_trip(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// The sum of squares, in element order.
pub(super) fn sum_of_squares(values: &[f32]) -> f32 {
    let mut sum = 0.0;
    for &x in values {
        sum += x * x;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_agrees_with_half_on_every_rounding_boundary() {
        for high in 0..=0xffffu32 {
            for low in [0u32, 1, 0x0fff, 0x1000, 0x1001, 0x1fff] {
                let x = f32::from_bits(high << 16 | low);
                if !x.is_nan() {
                    assert_eq!(f16_bits(x), f16::from_f32(x).to_bits(), "{x:e}");
                }
            }
        }
        assert_eq!(f16_bits(f32::from_bits(0x7f80_0001)), 0x7e00, "a signalling NaN");
        assert_eq!(f16_bits(f32::from_bits(0xffc1_2345)), 0xfe00, "the sign of NaN stays");
    }

    #[test]
    fn casts_are_those_of_the_c_build() {
        for (x, nearest, truncated, long) in [
            (0.5, 0, 0, 1),
            (1.5, 2, 1, 2),
            (-2.5, -2, -2, -3),
            (f32::INFINITY, -0x0040_0000, i32::MIN, 0),
            (f32::NAN, 0, i32::MIN, 0),
            (4294967296.0 * 2.0, 0x0040_0000 - 0x0040_0000, i32::MIN, 0),
        ] {
            assert_eq!(truncate(x), truncated, "truncate {x}");
            assert_eq!(round_long(x), long, "round_long {x}");
            if x.abs() < 4194304.0 || !x.is_finite() {
                assert_eq!(nearest_int(x), nearest, "nearest_int {x}");
            }
        }
    }
}

/*!
The value tables of `ik_llama.cpp`'s non-linear types, and the generator of its trellis types.

The numbers are format constants, as that project's `ggml-common.h` and `iqk_quantize.cpp` define them;
copyright (c) 2024-2026 Iwan Kawrakow, MIT licence. Each table has a second form that a bit of the block
chooses, in which all values are a constant higher.
*/

/// Values of 2-bit codes.
pub static V2: [i8; 4] = [-31, -13, 1, 17];
/// What the second form of [`V2`] adds.
pub const V2_SHIFT: i8 = 5;

/// Values of 3-bit codes.
pub static V3: [i8; 8] = [-63, -40, -23, -10, 1, 13, 28, 47];
/// What the second form of [`V3`] adds.
pub const V3_SHIFT: i8 = 4;

/// Values of 4-bit codes: those of `IQ4_NL`.
pub use crate::codec::ggml::grids::IQ4_VALUES as V4;
/// What the second form of [`V4`] adds.
pub const V4_SHIFT: i8 = 4;

/// Values of 5-bit codes.
pub static V5: [i8; 32] = [
    -126, -114, -103, -92, -83, -74, -65, -57, -50, -43, -36, -30, -24, -18, -12, -6, -1, 5, 11,
    17, 23, 29, 36, 43, 51, 59, 68, 77, 87, 97, 109, 121,
];
/// What the second form of [`V5`] adds.
pub const V5_SHIFT: i8 = 2;

/// What the second form of the cubic of [`six_bits`] adds.
pub const V6_SHIFT: f32 = 1.0;

/// Value of a 6-bit code of `IQ6_K`: a cubic, evaluated in f32 from the highest power down.
#[inline(always)]
pub fn six_bits(code: f32) -> f32 {
    -127.0 + code * (6.2568 + code * (-0.11218 + code * 0.0011972))
}

/// Pairs of values of the 5-bit codes of `IQ2_KL`.
pub static PAIRS: [[i8; 2]; 32] = [
    [-63, -23],
    [-63, 13],
    [-40, -63],
    [-40, -10],
    [-40, 13],
    [-40, 47],
    [-23, -40],
    [-23, -23],
    [-23, 1],
    [-23, 13],
    [-23, 28],
    [-10, -63],
    [-10, 1],
    [-10, 13],
    [-10, 47],
    [1, -23],
    [1, -10],
    [1, 1],
    [1, 13],
    [1, 28],
    [13, -40],
    [13, -23],
    [13, -10],
    [13, 1],
    [13, 13],
    [28, -63],
    [28, -23],
    [28, 1],
    [28, 28],
    [28, 47],
    [47, -23],
    [47, 13],
];

/// Factor from one state of the trellis generator to the next.
const MULTIPLIER: u32 = 0xCBAC_1FED;
/// What is added to an index to make the generator's first state.
pub const TRELLIS_OFFSET: u32 = 4096;
/// What `IQ4_KT` adds to that where the block chooses its second half.
pub const TRELLIS_SECOND: u32 = 32768;

/// Powers of [`MULTIPLIER`], from the first on.
const POWERS: [u32; 8] = {
    let mut powers = [MULTIPLIER; 8];
    let mut k = 1;
    while k < 8 {
        powers[k] = powers[k - 1].wrapping_mul(MULTIPLIER);
        k += 1;
    }
    powers
};

/// The `N` values that follow a state, from -126 to 126: each state has the sum of six bits of each of
/// its four bytes.
#[inline(always)]
pub fn trellis<const N: usize>(state: u32) -> [f32; N] {
    let mut values = [0.0; N];
    for (value, power) in values.iter_mut().zip(POWERS) {
        let bytes = state.wrapping_mul(power) & 0x3F3F_3F3F;
        *value = ((bytes.wrapping_mul(0x0101_0101) >> 24) as i32 - 126) as f32;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first values of some indices, as the project's own generator gives them.
    #[test]
    fn the_generator_gives_the_known_values() {
        for (index, expected) in [
            (0, [-47, -36, -39, -86, -38, -38, -47, -35]),
            (1, [21, 1, 59, -23, 33, 8, 13, 43]),
            (2, [-37, -25, 29, -23, 105, -11, -53, -70]),
            (4095, [-34, 15, 13, 18, -85, -58, 36, -23]),
            (8191, [-17, -22, -28, 59, -59, -33, 51, 5]),
            (32767, [-44, -54, -78, -15, 29, -9, 19, -21]),
            (65535, [26, -32, -16, -9, -25, -62, 17, 10]),
        ] {
            let expected = expected.map(|value| value as f32);
            assert_eq!(trellis::<8>(index + TRELLIS_OFFSET), expected, "index {index}");
        }
    }
}

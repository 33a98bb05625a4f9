/*!
Encoders of the types with plain integer codes: `Q6_0`, `Q8_KV`, and the ternary `IQ1_BN`, `IQ2_BN` and
`I2_S`, and the 8-bit codes that a program makes as it loads a model.

Ternary values are zero below half of the largest magnitude, which is the scale.
*/

use crate::codec::ggml::c_arithmetic::{f16_bits, nearest_int};

/// `Q6_0`: of the scales that map the extreme value to about -32 or to about 31, the one that leaves
/// least, errors counting by the square of the value.
pub fn q6_0(values: &[f32], blocks: &mut [u8]) {
    let blocks = blocks.as_chunks_mut::<26>().0;
    for (x, block) in values.as_chunks::<32>().0.iter().zip(blocks) {
        let extreme = x.iter().fold(0.0f32, |e, &x| if e.abs() < x.abs() { x } else { e });
        let level = |inverse: f32, x: f32| nearest_int(inverse * x).clamp(-32, 31);
        let sums = |inverse: f32| {
            x.iter().fold((0.0f32, 0.0f32), |(above, below), &x| {
                let q = level(inverse, x) as f32;
                (above + x * x * x * q, below + x * x * q * q)
            })
        };
        let near = |end: f32| (-9i8..=9).map(move |step| end + 0.1 * f32::from(step));
        let tries = std::iter::once(32.0).chain(near(32.0)).map(|end| -end / extreme);
        let tries = tries.chain(near(31.0).map(|end| end / extreme));
        let (mut best, mut d, mut inverse) = (0.0, 0.0, 0.0);
        for tried in tries.filter(|_| extreme != 0.0) {
            let (above, below) = sums(tried);
            if below > 0.0 && above * above > best * below {
                d = above / below;
                best = d * above;
                inverse = tried;
            }
        }
        block.fill(0);
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        for (i, &x) in x.iter().enumerate() {
            let level = (level(inverse, x) + 32) as u8;
            block[10 + i % 16] |= (level & 15) << (4 * (i / 16));
            block[2 + i % 8] |= (level >> 4) << (4 * (i / 8 % 2) + 2 * (i / 16));
        }
    }
}

/// `Q8_KV`: the scale maps the largest magnitude to 127; behind it the sum of the codes.
pub fn q8_kv(values: &[f32], _columns: usize, _weights: Option<&[f32]>, unit: &mut [u8]) {
    let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let d = largest / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let (head, codes) = unit.split_at_mut(8);
    let mut sum = 0i32;
    for (&x, byte) in values.iter().zip(codes) {
        let code = nearest_int(x * inverse);
        sum = sum.wrapping_add(code);
        *byte = code as u8;
    }
    head[..4].copy_from_slice(&d.to_le_bytes());
    head[4..].copy_from_slice(&sum.to_le_bytes());
}

/// The largest magnitude, and -1, 0 or 1 for each value: zero below half of it.
fn ternary(values: &[f32]) -> (f32, impl Iterator<Item = u8>) {
    let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let half = 0.5 * largest;
    let digit = move |x: &f32| if x.abs() < half { 1 } else { 2 * u8::from(*x > 0.0) };
    (largest, values.iter().map(digit))
}

/// `I2_S`: all rows at once.
pub fn i2_s(values: &[f32], _columns: usize, _weights: Option<&[f32]>, unit: &mut [u8]) {
    let (largest, digits) = ternary(values);
    unit.fill(0);
    for (i, digit) in digits.enumerate() {
        unit[32 * (i / 128) + i % 32] |= digit << (6 - 2 * (i % 128 / 32));
    }
    let at = values.len() / 4;
    unit[at..at + 4].copy_from_slice(&largest.to_le_bytes());
}

/// `IQ2_BN`.
pub fn iq2_bn(values: &[f32], _columns: usize, _weights: Option<&[f32]>, unit: &mut [u8]) {
    let (scale, digits) = row_ternary(values);
    unit.fill(0);
    unit[..4].copy_from_slice(&scale.to_le_bytes());
    for (i, digit) in digits.into_iter().enumerate() {
        unit[4 + 16 * (i / 64) + i % 16] |= digit << (2 * (i % 64 / 16));
    }
}

/// `IQ1_BN`: five digits to a byte, as the fraction of 256 that they are in base 3.
pub fn iq1_bn(values: &[f32], _columns: usize, _weights: Option<&[f32]>, unit: &mut [u8]) {
    let (scale, digits) = row_ternary(values);
    let (head, blocks) = unit.split_at_mut(2);
    head.copy_from_slice(&f16_bits(scale).to_le_bytes());
    for (digits, block) in digits.as_chunks::<64>().0.iter().zip(blocks.as_chunks_mut::<13>().0) {
        // The first digit is the lowest.
        let byte = |places: [usize; 5]| {
            let digits = places.map(|at| digits.get(at).copied().unwrap_or(0));
            let number =
                digits.iter().rev().fold(0, |number, &digit| 3 * number + u32::from(digit));
            (number * 256).div_ceil(243) as u8
        };
        for (at, out) in block[..12].iter_mut().enumerate() {
            let first = 16 * (at / 3) + 5 * (at % 3);
            *out = byte([0, 1, 2, 3, 4].map(|n| first + n));
        }
        block[12] = byte([15, 31, 47, 63, 64]);
    }
}

/// The scale of a row of ternary values, and its digits.
fn row_ternary(values: &[f32]) -> (f32, Vec<u8>) {
    let (largest, digits) = ternary(values);
    (largest, digits.collect())
}

/// Largest magnitudes to 127, super-block by super-block: scales as f16, and codes.
fn eight_bits(values: &[f32]) -> impl Iterator<Item = (u16, [i8; 256])> {
    values.as_chunks::<256>().0.iter().map(|x| {
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
        let d = if largest == 0.0 { 0.0 } else { 1.0 / inverse };
        (f16_bits(d), x.map(|x| nearest_int(x * inverse) as i8))
    })
}

/// Merges `ROWS` rows of 8-bit codes, which are stored `more` higher.
fn merge_eight_bits<const ROWS: usize>(values: &[f32], columns: usize, more: u8, unit: &mut [u8]) {
    let bytes = ROWS * 258;
    for (k, row) in values.chunks_exact(columns).enumerate() {
        for ((d, codes), block) in eight_bits(row).zip(unit.chunks_exact_mut(bytes)) {
            block[2 * k..2 * k + 2].copy_from_slice(&d.to_le_bytes());
            for (i, code) in codes.into_iter().enumerate() {
                block[2 * ROWS + 4 * ROWS * (i / 4) + 4 * k + i % 4] =
                    (code as u8).wrapping_add(more);
            }
        }
    }
}

/// `Q8_K_R8`.
pub fn q8_k_r8(values: &[f32], columns: usize, _weights: Option<&[f32]>, unit: &mut [u8]) {
    merge_eight_bits::<8>(values, columns, 0, unit);
}

/// `Q8_K_R16`.
pub fn q8_k_r16(values: &[f32], columns: usize, _weights: Option<&[f32]>, unit: &mut [u8]) {
    merge_eight_bits::<16>(values, columns, 128, unit);
}

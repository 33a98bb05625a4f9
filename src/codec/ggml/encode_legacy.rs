/*!
Encoders of the 32-element blocks Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.

The reference quantizers round to one scale taken from the extremes of the block. With an importance
matrix (which Q8_0 ignores) the scale is searched for, see `encode_fit`.
*/

use super::c_arithmetic::{self as c, f16_bits, truncate};
use super::encode_blocks as walk;
use super::encode_fit::{AffineSearch, affine, symmetric};
use super::encode_lanes::{Lanes, encoder, gather, scatter};

const LEN: usize = 32;

/// Two levels a byte, the second half of the block in the upper nibbles.
#[inline(always)]
fn pack_nibbles(levels: &[u8; LEN], bytes: &mut [u8]) {
    for (j, byte) in bytes.iter_mut().enumerate() {
        *byte = levels[j] & 15 | levels[j + LEN / 2] << 4;
    }
}

/// The fifth bit of each level, element i in bit i.
#[inline(always)]
fn fifth_bits(levels: &[u8; LEN]) -> [u8; 4] {
    let bits = levels.iter().rev().fold(0u32, |bits, &level| bits << 1 | u32::from(level >> 4 & 1));
    bits.to_le_bytes()
}

/// A level from `shifted`, the scaled value plus a half step: truncated and at most `top`.
///
/// ggml goes through an 8-bit signed integer; a level that is negative there (a scale so small that
/// its reciprocal overflows) keeps its bits.
#[inline(always)]
fn level(shifted: f32, top: i8) -> u8 {
    (truncate(shifted) as i8).min(top) as u8
}

/// The first value of largest magnitude.
#[inline(always)]
fn signed_extreme(x: &[f32; LEN]) -> f32 {
    let (mut magnitude, mut extreme) = (0.0, 0.0);
    for &x in x {
        if magnitude < x.abs() {
            (magnitude, extreme) = (x.abs(), x);
        }
    }
    extreme
}

/// Smallest and largest value.
#[inline(always)]
fn range(x: &[f32; LEN]) -> (f32, f32) {
    let (mut min, mut max) = (f32::MAX, -f32::MAX);
    for &x in x {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    (min, max)
}

/// Scale and levels about `bound`: the extreme value gets level 0.
#[inline(always)]
fn centred(x: &[f32; LEN], bound: i8) -> (u16, [u8; LEN]) {
    let d = signed_extreme(x) / -f32::from(bound);
    let inverse = c::reciprocal_or_zero(d);
    let levels = x.map(|x| level(x * inverse + (f32::from(bound) + 0.5), 2 * bound - 1));
    (f16_bits(d), levels)
}

/// `Q4_0`, the reference quantizer.
pub fn q4_0(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x, block: &mut [u8; 18]| {
        let (d, levels) = centred(x, 8);
        block[..2].copy_from_slice(&d.to_le_bytes());
        // Not `pack_nibbles`: a wrapped level keeps all its bits, as in ggml.
        for (j, byte) in block[2..].iter_mut().enumerate() {
            *byte = levels[j] | levels[j + LEN / 2] << 4;
        }
    });
}

/// `Q5_0`, the reference quantizer.
pub fn q5_0(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x, block: &mut [u8; 22]| {
        let (d, levels) = centred(x, 16);
        block[..2].copy_from_slice(&d.to_le_bytes());
        block[2..6].copy_from_slice(&fifth_bits(&levels));
        pack_nibbles(&levels, &mut block[6..]);
    });
}

/// `Q4_1`, the reference quantizer.
pub fn q4_1(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x, block: &mut [u8; 20]| {
        let (min, max) = range(x);
        let d = (max - min) / 15.0;
        let inverse = c::reciprocal_or_zero(d);
        let levels = x.map(|x| level((x - min) * inverse + 0.5, 15));
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        block[2..4].copy_from_slice(&f16_bits(min).to_le_bytes());
        for (j, byte) in block[4..].iter_mut().enumerate() {
            *byte = levels[j] | levels[j + LEN / 2] << 4;
        }
    });
}

/// `Q5_1`, the reference quantizer.
pub fn q5_1(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x, block: &mut [u8; 24]| {
        let (min, max) = range(x);
        let d = (max - min) / 31.0;
        let inverse = c::reciprocal_or_zero(d);
        let levels = x.map(|x| truncate((x - min) * inverse + 0.5) as u8);
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        block[2..4].copy_from_slice(&f16_bits(min).to_le_bytes());
        block[4..8].copy_from_slice(&fifth_bits(&levels));
        pack_nibbles(&levels, &mut block[8..]);
    });
}

/// `Q8_0`, the reference quantizer.
pub fn q8_0(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x: &[f32; LEN], block: &mut [u8; 34]| {
        let magnitude = x.iter().fold(0.0, |magnitude, x| c::max(magnitude, x.abs()));
        let d = magnitude / 127.0;
        let inverse = c::reciprocal_or_zero(d);
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        for (byte, &x) in block[2..].iter_mut().zip(x) {
            *byte = truncate((x * inverse).round()) as u8;
        }
    });
}

/// The fits of up to eight blocks of a row, side by side.
struct Fits {
    scale: [f32; 16],
    min: [f32; 16],
    levels: [[u8; LEN]; 16],
}

/// Which levels a weighted search may use.
#[derive(Clone, Copy)]
enum Shape {
    /// x = scale * (level - bound).
    Centred(i32),
    /// x = scale * level - minimum, levels up to this.
    Affine(i32),
}

/// Fits `V::COUNT` blocks at once.
#[inline(always)]
fn fit<V: Lanes>(shape: Shape, x: &[f32], weights: &[f32], fits: &mut Fits) {
    let x: [V; LEN] = gather(x);
    let weights: [V; LEN] = gather(weights);
    let mut levels = [V::splat(0.0); LEN];
    let (scale, min) = match shape {
        Shape::Centred(bound) => (symmetric(bound, &x, &weights, &mut levels), V::splat(0.0)),
        Shape::Affine(top) => {
            let search = AffineSearch {
                top,
                first: -0.9,
                step: 0.05,
                last: 36,
                absolute: false,
                clamp_first: true,
            };
            affine(search, &x, &weights, &mut levels)
        }
    };
    scale.store(&mut fits.scale);
    min.store(&mut fits.min);
    scatter(&levels, fits.levels.as_flattened_mut());
}

/// Fits every block of every row under the importance of its values, and hands each fit to `write`.
#[inline(always)]
fn weighted<V: Lanes, const BYTES: usize>(
    shape: Shape,
    values: &[f32],
    column_weights: &[f32],
    blocks: &mut [u8],
    write: impl Fn(f32, f32, &[u8; LEN], &mut [u8; BYTES]),
) {
    let mut fits = Fits { scale: [0.0; 16], min: [0.0; 16], levels: [[0; LEN]; 16] };
    let mut importance = [0.0; 16 * LEN];
    walk::each_row(values, column_weights.len(), blocks, |row: &[[f32; LEN]], blocks| {
        let row_values = row.as_flattened();
        let sigma2 = c::sum_of_squares(row_values) / row_values.len() as f32;
        let batches = row.chunks(V::COUNT).zip(blocks.chunks_mut(V::COUNT));
        for ((x, blocks), columns) in batches.zip(column_weights.chunks(V::COUNT * LEN)) {
            let x = x.as_flattened();
            walk::importance(x, columns, sigma2, &mut importance);
            if blocks.len() == V::COUNT {
                fit::<V>(shape, x, &importance, &mut fits);
                for (i, block) in blocks.iter_mut().enumerate() {
                    write(fits.scale[i], fits.min[i], &fits.levels[i], block);
                }
            } else {
                let x = x.chunks(LEN).zip(importance.chunks(LEN));
                for ((x, importance), block) in x.zip(blocks) {
                    fit::<f32>(shape, x, importance, &mut fits);
                    write(fits.scale[0], fits.min[0], &fits.levels[0], block);
                }
            }
        }
    });
}

#[inline(always)]
fn q4_0_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let write = |d: f32, _min: f32, levels: &[u8; LEN], block: &mut [u8; 18]| {
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        pack_nibbles(levels, &mut block[2..]);
    };
    weighted::<V, 18>(Shape::Centred(8), values, column_weights, blocks, write);
}

#[inline(always)]
fn q5_0_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let write = |d: f32, _min: f32, levels: &[u8; LEN], block: &mut [u8; 22]| {
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        block[2..6].copy_from_slice(&fifth_bits(levels));
        pack_nibbles(levels, &mut block[6..]);
    };
    weighted::<V, 22>(Shape::Centred(16), values, column_weights, blocks, write);
}

#[inline(always)]
fn q4_1_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let write = |d: f32, min: f32, levels: &[u8; LEN], block: &mut [u8; 20]| {
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        block[2..4].copy_from_slice(&f16_bits(-min).to_le_bytes());
        pack_nibbles(levels, &mut block[4..]);
    };
    weighted::<V, 20>(Shape::Affine(15), values, column_weights, blocks, write);
}

#[inline(always)]
fn q5_1_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let write = |d: f32, min: f32, levels: &[u8; LEN], block: &mut [u8; 24]| {
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        block[2..4].copy_from_slice(&f16_bits(-min).to_le_bytes());
        block[4..8].copy_from_slice(&fifth_bits(levels));
        pack_nibbles(levels, &mut block[8..]);
    };
    weighted::<V, 24>(Shape::Affine(31), values, column_weights, blocks, write);
}

encoder! {
    /// `Q4_0` with an importance matrix.
    q4_0_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = q4_0_lanes
}
encoder! {
    /// `Q4_1` with an importance matrix.
    q4_1_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = q4_1_lanes
}
encoder! {
    /// `Q5_0` with an importance matrix.
    q5_0_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = q5_0_lanes
}
encoder! {
    /// `Q5_1` with an importance matrix.
    q5_1_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = q5_1_lanes
}

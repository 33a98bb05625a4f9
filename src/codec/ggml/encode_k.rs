/*!
Encoders of the K types Q2_K to Q6_K: super-blocks of 256 in groups of 16 or 32, with quantized scales.

Each encoder fits every group (`encode_fit`), quantizes the groups' scales (and minima) under
one f16 scale, and then rounds the values again to what a decoder will see.
*/

use super::c_arithmetic::{self as c, GROUP_MAX_EPS, f16_bits, f16_round_trip, nearest_int};
use super::encode_blocks as walk;
use super::encode_fit::{AffineSearch, affine, extreme, positive, symmetric, symmetric_by_descent};
use super::encode_lanes::{Lanes, encoder, gather, scatter};

const LEN: usize = 256;

/// The fitted groups of a super-block; the first `LEN` / group length scales and minima count.
struct Groups {
    scale: [f32; 16],
    min: [f32; 16],
    levels: [u8; LEN],
}

impl Groups {
    fn new() -> Self {
        Self { scale: [0.0; 16], min: [0.0; 16], levels: [0; LEN] }
    }

    /// Fits groups of `N` values, `V::COUNT` at a time: `fit` gets the group's elements and its
    /// offset, fills in the levels and returns scale and minimum.
    #[inline(always)]
    fn fit<V: Lanes, const N: usize>(
        &mut self,
        x: &[f32; LEN],
        mut fit: impl FnMut(&[V; N], usize, &mut [V; N]) -> (V, V),
    ) {
        for batch in (0..LEN / N).step_by(V::COUNT) {
            let at = batch * N;
            let mut levels = [V::splat(0.0); N];
            let (scale, min) = fit(&gather(&x[at..]), at, &mut levels);
            scale.store(&mut self.scale[batch..]);
            min.store(&mut self.min[batch..]);
            scatter(&levels, &mut self.levels[at..at + V::COUNT * N]);
        }
    }

    /// Rounds each value of groups of `N` to the level nearest under (`scale`, `min`) of its group;
    /// groups whose scale is 0 keep the levels of their fit.
    #[inline(always)]
    fn requantize<const N: usize>(
        &mut self,
        x: &[f32; LEN],
        (low, high): (i32, i32),
        scale_and_min: impl Fn(usize) -> (f32, f32),
    ) {
        let groups = x.as_chunks::<N>().0.iter().zip(self.levels.as_chunks_mut::<N>().0);
        for (group, (x, levels)) in groups.enumerate() {
            let (scale, min) = scale_and_min(group);
            if scale == 0.0 {
                continue;
            }
            for (level, &x) in levels.iter_mut().zip(x) {
                *level = (nearest_int((x + min) / scale).max(low).min(high) - low) as u8;
            }
        }
    }
}

/// Two low bits of each level, four a byte, 32 elements apart within each half.
#[inline(always)]
fn pack_two_bits(levels: &[u8; LEN], bytes: &mut [u8]) {
    let halves = levels.as_chunks::<128>().0.iter().zip(bytes.as_chunks_mut::<32>().0);
    for (half, bytes) in halves {
        for (l, byte) in bytes.iter_mut().enumerate() {
            let bits = |k: usize| (half[l + 32 * k] & 3) << (2 * k);
            *byte = bits(0) | bits(1) | bits(2) | bits(3);
        }
    }
}

/// The largest of the first `count` values, at least 0; NaN is passed over.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, &x| if x > largest { x } else { largest })
}

// ---- Q2_K

/// Writes scales, the f16 pair and the levels of a Q2_K block; scale bytes hold 4 + 4 bits.
#[inline(always)]
fn write_q2_k(
    x: &[f32; LEN],
    groups: &mut Groups,
    scales: [u8; 16],
    (d, dmin): (u16, u16),
    block: &mut [u8; 84],
) {
    let (d_value, dmin_value) = (f16_round_trip(d), f16_round_trip(dmin));
    groups.requantize::<16>(x, (0, 3), |j| {
        (d_value * f32::from(scales[j] & 15), dmin_value * f32::from(scales[j] >> 4))
    });
    block[..16].copy_from_slice(&scales);
    pack_two_bits(&groups.levels, &mut block[16..80]);
    block[80..82].copy_from_slice(&d.to_le_bytes());
    block[82..].copy_from_slice(&dmin.to_le_bytes());
}

/// Quantizes 16 scales or minima to four bits under one f16, the largest mapped to 15.
#[inline(always)]
fn four_bit_scales(values: &[f32; 16]) -> ([u8; 16], u16) {
    let largest = largest(values);
    if largest > 0.0 {
        let inverse = 15.0 / largest;
        (values.map(|x| nearest_int(inverse * x) as u8), f16_bits(largest / 15.0))
    } else {
        ([0; 16], 0)
    }
}

#[inline(always)]
fn q2_k_lanes<V: Lanes>(values: &[f32], blocks: &mut [u8]) {
    const SEARCH: AffineSearch = AffineSearch {
        top: 3,
        first: -0.5,
        step: 0.1,
        last: 15,
        absolute: true,
        clamp_first: false,
    };
    let mut groups = Groups::new();
    walk::each(values, blocks, |x, block| {
        groups.fit::<V, 16>(x, |x, _, levels| affine(SEARCH, x, &x.map(V::abs), levels));
        let (scales, d) = four_bit_scales(&groups.scale);
        let (mins, dmin) = four_bit_scales(&groups.min);
        let scales = std::array::from_fn(|j| scales[j] | mins[j] << 4);
        write_q2_k(x, &mut groups, scales, (d, dmin), block);
    });
}

/// The search of the weighted encoders with minima.
const fn weighted_search(top: i32) -> AffineSearch {
    AffineSearch { top, first: -0.9, step: 0.05, last: 36, absolute: false, clamp_first: true }
}

/// The sum of each `N` values.
#[inline(always)]
fn group_sums<const N: usize>(values: &[f32; LEN]) -> [f32; 16] {
    let mut sums = [0.0; 16];
    for (sum, group) in sums.iter_mut().zip(values.as_chunks::<N>().0) {
        for x in group {
            *sum += x;
        }
    }
    sums
}

#[inline(always)]
fn q2_k_weighted_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let mut groups = Groups::new();
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x, columns, block| {
        walk::importance(x, columns, c::sum_of_squares(x) / 256.0, &mut weights);
        groups.fit::<V, 16>(x, |x, at, levels| {
            affine(weighted_search(3), x, &gather::<V, 16>(&weights[at..]), levels)
        });
        let sums = group_sums::<16>(&weights);
        let (mut scales, mut mins) = ([0; 16], [0; 16]);
        let d = f16_bits(positive(15, &groups.scale, &sums, &mut scales));
        let dmin = f16_bits(positive(15, &groups.min, &sums, &mut mins));
        let scales = std::array::from_fn(|j| scales[j] | mins[j] << 4);
        write_q2_k(x, &mut groups, scales, (d, dmin), block);
    });
}

// ---- Q3_K

/// Writes a Q3_K block from its f16 scale and the groups' six-bit scales, 32 standing for 0.
#[inline(always)]
fn write_q3_k(
    x: &[f32; LEN],
    groups: &mut Groups,
    scales: [u8; 16],
    d: u16,
    block: &mut [u8; 110],
) {
    let d_value = f16_round_trip(d);
    groups.requantize::<16>(x, (-4, 3), |j| (d_value * f32::from(scales[j] as i8 - 32), 0.0));
    let (high, rest) = block.split_at_mut(32);
    for (m, byte) in high.iter_mut().enumerate() {
        // The third bit of elements 32 apart.
        *byte = (0..8).fold(0, |byte, k| byte | (groups.levels[m + 32 * k] >> 2 & 1) << k);
    }
    pack_two_bits(&groups.levels, &mut rest[..64]);
    let packed = &mut rest[64..76];
    for j in 0..8 {
        packed[j] = scales[j] & 15 | scales[j + 8] << 4;
    }
    for j in 0..4 {
        packed[8 + j] = (0..4).fold(0, |byte, k| byte | scales[j + 4 * k] >> 4 << (2 * k));
    }
    rest[76..].copy_from_slice(&d.to_le_bytes());
}

#[inline(always)]
fn q3_k_lanes<V: Lanes>(values: &[f32], blocks: &mut [u8]) {
    let mut groups = Groups::new();
    walk::each(values, blocks, |x, block| {
        groups.fit::<V, 16>(x, |x, _, levels| (symmetric_by_descent(4, x, levels), V::splat(0.0)));
        let (extreme, _) = extreme(&groups.scale);
        if extreme == 0.0 {
            // No scale at all: the packed scales are zero bytes, which stand for -32.
            write_q3_k(x, &mut groups, [0; 16], 0, block);
            return;
        }
        let inverse = -32.0 / extreme;
        let scales = groups
            .scale
            .map(|x| (i32::from(nearest_int(inverse * x) as i8).clamp(-32, 31) + 32) as u8);
        write_q3_k(x, &mut groups, scales, f16_bits(1.0 / inverse), block);
    });
}

#[inline(always)]
fn q3_k_weighted_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let mut groups = Groups::new();
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x, columns, block| {
        walk::importance(x, columns, 2.0 * c::sum_of_squares(x) / 256.0, &mut weights);
        groups.fit::<V, 16>(x, |x, at, levels| {
            (symmetric(4, x, &gather::<V, 16>(&weights[at..]), levels), V::splat(0.0))
        });
        let sums = group_sums::<16>(&weights);
        let mut scales = [0.0; 16];
        let d = symmetric(32, &groups.scale, &sums, &mut scales);
        let scales = scales.map(|level| level as u8);
        write_q3_k(x, &mut groups, scales, f16_bits(d), block);
    });
}

// ---- Q4_K and Q5_K

/// The search of the reference quantizers.
const fn reference_search(top: i32, first: f32, last: i32) -> AffineSearch {
    AffineSearch { top, first, step: 0.1, last, absolute: false, clamp_first: false }
}

/// The eight pairs of six-bit scale and minimum in twelve bytes.
#[inline(always)]
fn pack_six_bit_pairs(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    packed[..4].copy_from_slice(&scales[..4]);
    packed[4..8].copy_from_slice(&mins[..4]);
    for j in 4..8 {
        packed[j + 4] = scales[j] & 15 | mins[j] << 4;
        packed[j - 4] |= scales[j] >> 4 << 6;
        packed[j] |= mins[j] >> 4 << 6;
    }
    packed
}

/// The pair of group `j`, as a decoder reads it.
#[inline(always)]
fn six_bit_pair(packed: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}

/// Writes the common head of Q4_K and Q5_K and rounds the levels, which go up to `top`.
#[inline(always)]
fn write_head(
    x: &[f32; LEN],
    groups: &mut Groups,
    top: i32,
    packed: [u8; 12],
    (d, dmin): (u16, u16),
    head: &mut [u8],
) {
    let (d_value, dmin_value) = (f16_round_trip(d), f16_round_trip(dmin));
    groups.requantize::<32>(x, (0, top), |j| {
        let (scale, min) = six_bit_pair(&packed, j);
        (d_value * f32::from(scale), dmin_value * f32::from(min))
    });
    head[..2].copy_from_slice(&d.to_le_bytes());
    head[2..4].copy_from_slice(&dmin.to_le_bytes());
    head[4..16].copy_from_slice(&packed);
}

/// The low four bits of each level, 32 elements apart in a byte.
#[inline(always)]
fn pack_four_bits(levels: &[u8; LEN], bytes: &mut [u8]) {
    let quarters = levels.as_chunks::<64>().0.iter().zip(bytes.as_chunks_mut::<32>().0);
    for (quarter, bytes) in quarters {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = quarter[l] & 15 | quarter[l + 32] << 4;
        }
    }
}

/// Writes the levels of Q4_K.
#[inline(always)]
fn write_q4_k(groups: &Groups, body: &mut [u8]) {
    pack_four_bits(&groups.levels, body);
}

/// Writes the levels of Q5_K: the fifth bits first.
#[inline(always)]
fn write_q5_k(groups: &Groups, body: &mut [u8]) {
    let (high, low) = body.split_at_mut(32);
    for (m, byte) in high.iter_mut().enumerate() {
        *byte = (0..8).fold(0, |byte, k| byte | (groups.levels[m + 32 * k] >> 4 & 1) << k);
    }
    pack_four_bits(&groups.levels, low);
}

/// Quantizes eight scales or minima to six bits, the largest mapped to 63.
#[inline(always)]
fn six_bit_scales(values: &[f32; 16]) -> ([u8; 8], u16) {
    let values = &values[..8];
    let largest = largest(values);
    let inverse = if largest > 0.0 { 63.0 / largest } else { 0.0 };
    let levels = std::array::from_fn(|j| (nearest_int(inverse * values[j]) as u8).min(63));
    (levels, f16_bits(largest / 63.0))
}

#[inline(always)]
fn with_minima<V: Lanes, const BYTES: usize>(
    search: AffineSearch,
    values: &[f32],
    blocks: &mut [u8],
    write_levels: impl Fn(&Groups, &mut [u8]),
) {
    let mut groups = Groups::new();
    walk::each(values, blocks, |x, block: &mut [u8; BYTES]| {
        groups.fit::<V, 32>(x, |x, _, levels| {
            let mut sum = V::splat(0.0);
            for &x in x {
                sum = sum + x * x;
            }
            let typical = (sum / V::splat(32.0)).sqrt();
            affine(search, x, &x.map(|x| typical + x.abs()), levels)
        });
        let (scales, d) = six_bit_scales(&groups.scale);
        let (mins, dmin) = six_bit_scales(&groups.min);
        let packed = pack_six_bit_pairs(&scales, &mins);
        let (head, body) = block.split_at_mut(16);
        write_head(x, &mut groups, search.top, packed, (d, dmin), head);
        write_levels(&groups, body);
    });
}

#[inline(always)]
fn with_minima_weighted<V: Lanes, const BYTES: usize>(
    top: i32,
    values: &[f32],
    column_weights: &[f32],
    blocks: &mut [u8],
    write_levels: impl Fn(&Groups, &mut [u8]),
) {
    let mut groups = Groups::new();
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x, columns, block: &mut [u8; BYTES]| {
        walk::importance(x, columns, 2.0 * c::sum_of_squares(x) / 256.0, &mut weights);
        groups.fit::<V, 32>(x, |x, at, levels| {
            affine(weighted_search(top), x, &gather::<V, 32>(&weights[at..]), levels)
        });
        let sums = group_sums::<32>(&weights);
        let (mut scales, mut mins) = ([0; 8], [0; 8]);
        let d = f16_bits(positive(63, &groups.scale[..8], &sums[..8], &mut scales));
        let dmin = f16_bits(positive(63, &groups.min[..8], &sums[..8], &mut mins));
        if top == 31 {
            // ggml limits the levels of Q5_K here and not those of Q4_K; it shows if one wrapped.
            (scales, mins) = (scales.map(|l| l.min(63)), mins.map(|l| l.min(63)));
        }
        let packed = pack_six_bit_pairs(&scales, &mins);
        let (head, body) = block.split_at_mut(16);
        write_head(x, &mut groups, top, packed, (d, dmin), head);
        write_levels(&groups, body);
    });
}

#[inline(always)]
fn q4_k_lanes<V: Lanes>(values: &[f32], blocks: &mut [u8]) {
    with_minima::<V, 144>(reference_search(15, -1.0, 20), values, blocks, write_q4_k);
}

#[inline(always)]
fn q5_k_lanes<V: Lanes>(values: &[f32], blocks: &mut [u8]) {
    with_minima::<V, 176>(reference_search(31, -0.5, 15), values, blocks, write_q5_k);
}

#[inline(always)]
fn q4_k_weighted_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    with_minima_weighted::<V, 144>(15, values, column_weights, blocks, write_q4_k);
}

#[inline(always)]
fn q5_k_weighted_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    with_minima_weighted::<V, 176>(31, values, column_weights, blocks, write_q5_k);
}

// ---- Q6_K

/// Quantizes the groups' scales to eight bits and writes a Q6_K block.
#[inline(always)]
fn write_q6_k(x: &[f32; LEN], groups: &mut Groups, block: &mut [u8; 210]) {
    let (extreme, magnitude) = extreme(&groups.scale);
    if magnitude < GROUP_MAX_EPS {
        block.fill(0);
        return;
    }
    let inverse = -128.0 / extreme;
    let d = f16_bits(1.0 / inverse);
    let scales = groups.scale.map(|x| nearest_int(inverse * x).min(127) as i8);
    let d_value = f16_round_trip(d);
    groups.requantize::<16>(x, (-32, 31), |j| (d_value * f32::from(scales[j]), 0.0));

    let (low, rest) = block.split_at_mut(128);
    let (high, rest) = rest.split_at_mut(64);
    let halves = groups.levels.as_chunks::<128>().0.iter().zip(low.as_chunks_mut::<64>().0);
    for ((half, low), high) in halves.zip(high.as_chunks_mut::<32>().0) {
        for l in 0..32 {
            let [q0, q1, q2, q3] = [half[l], half[l + 32], half[l + 64], half[l + 96]];
            low[l] = q0 & 15 | q2 << 4;
            low[l + 32] = q1 & 15 | q3 << 4;
            high[l] = q0 >> 4 | q1 >> 4 << 2 | q2 >> 4 << 4 | q3 >> 4 << 6;
        }
    }
    for (byte, scale) in rest.iter_mut().zip(scales) {
        *byte = scale as u8;
    }
    rest[16..].copy_from_slice(&d.to_le_bytes());
}

#[inline(always)]
fn q6_k_lanes<V: Lanes>(values: &[f32], blocks: &mut [u8]) {
    let mut groups = Groups::new();
    walk::each(values, blocks, |x, block| {
        groups.fit::<V, 16>(x, |x, _, levels| {
            (symmetric(32, x, &x.map(|x| x * x), levels), V::splat(0.0))
        });
        write_q6_k(x, &mut groups, block);
    });
}

#[inline(always)]
fn q6_k_weighted_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let mut groups = Groups::new();
    walk::each_weighted(values, column_weights, blocks, |x, columns: &[f32; LEN], block| {
        groups.fit::<V, 16>(x, |x, at, levels| {
            (symmetric(32, x, &gather::<V, 16>(&columns[at..]), levels), V::splat(0.0))
        });
        write_q6_k(x, &mut groups, block);
    });
}

encoder! {
    /// `Q2_K`, the reference quantizer.
    q2_k(values: &[f32], blocks: &mut [u8]) = q2_k_lanes
}
encoder! {
    /// `Q2_K` with an importance matrix.
    q2_k_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = q2_k_weighted_lanes
}
encoder! {
    /// `Q3_K`, the reference quantizer.
    q3_k(values: &[f32], blocks: &mut [u8]) = q3_k_lanes
}
encoder! {
    /// `Q3_K` with an importance matrix.
    q3_k_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = q3_k_weighted_lanes
}
encoder! {
    /// `Q4_K`, the reference quantizer.
    q4_k(values: &[f32], blocks: &mut [u8]) = q4_k_lanes
}
encoder! {
    /// `Q4_K` with an importance matrix.
    q4_k_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = q4_k_weighted_lanes
}
encoder! {
    /// `Q5_K`, the reference quantizer.
    q5_k(values: &[f32], blocks: &mut [u8]) = q5_k_lanes
}
encoder! {
    /// `Q5_K` with an importance matrix.
    q5_k_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = q5_k_weighted_lanes
}
encoder! {
    /// `Q6_K`, the reference quantizer.
    q6_k(values: &[f32], blocks: &mut [u8]) = q6_k_lanes
}
encoder! {
    /// `Q6_K` with an importance matrix.
    q6_k_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = q6_k_weighted_lanes
}

/*!
Encoders of IQ4_NL and IQ4_XS: sixteen unevenly spaced values under a searched scale.

IQ4_NL is the one type whose reference quantizer differs from the chunk quantizer without an
importance matrix: the reference takes the scale from the extreme value alone.
*/

use super::c_arithmetic::{self as c, GROUP_MAX_EPS, f16_bits, nearest_int};
use super::encode_blocks as walk;
use super::encode_fit::extreme;
use super::encode_lanes::{Lanes, encoder, gather};
use super::grids::IQ4_VALUES;

/// Elements under one scale.
const GROUP: usize = 32;

/// How many scales the chunk quantizers try on either side of the first.
const TRIES: i32 = 7;

/// Where code j + 1 takes over from code j, doubled to be whole: the sum of their values.
const DOUBLED_BOUNDS: [f32; 15] = {
    let mut bounds = [0.0; 15];
    let mut j = 0;
    while j < 15 {
        bounds[j] = (IQ4_VALUES[j] as i32 + IQ4_VALUES[j + 1] as i32) as f32;
        j += 1;
    }
    bounds
};

/// The value nearest to `x`; the upper of a tie.
#[inline(always)]
fn nearest_value<V: Lanes>(x: V) -> V {
    let doubled = x + x;
    let mut value = V::splat(f32::from(IQ4_VALUES[0]));
    for (bound, pair) in DOUBLED_BOUNDS.into_iter().zip(IQ4_VALUES.windows(2)) {
        let step = V::splat(f32::from(pair[1]) - f32::from(pair[0]));
        let reached = doubled.not_lt(V::splat(bound));
        value = value + V::select(reached, step, V::splat(0.0));
    }
    value
}

/// The codes of the values nearest to `inverse` * x.
#[inline(always)]
fn nearest_codes(inverse: f32, x: &[f32; GROUP]) -> [u8; GROUP] {
    let doubled = x.map(|x| inverse * x + inverse * x);
    let mut codes = [0; GROUP];
    for bound in DOUBLED_BOUNDS {
        for (code, x) in codes.iter_mut().zip(doubled) {
            *code += u8::from(!(x < bound));
        }
    }
    codes
}

/// The weighted sums of value * x and value^2 for the values nearest to `inverse` * x.
#[inline(always)]
fn sums<V: Lanes>(inverse: V, x: &[V; GROUP], weights: &[V; GROUP]) -> (V, V) {
    let (mut sum_qx, mut sum_q2) = (V::splat(0.0), V::splat(0.0));
    for (&x, &w) in x.iter().zip(weights) {
        let q = nearest_value(inverse * x);
        sum_qx = sum_qx + w * q * x;
        sum_q2 = sum_q2 + w * q * q;
    }
    (sum_qx, sum_q2)
}

/// Fits x = scale * value: the first scale maps the extreme to an end of the values, `tries` more
/// on either side of the lower end; each is corrected by weighted least squares.
///
/// Returns the scale and the inverse of the first trial; both 0 for a group of zeros.
#[inline(always)]
fn fit<V: Lanes>(tries: Option<i32>, x: &[V; GROUP], weights: &[V; GROUP]) -> (V, V) {
    let zero = V::splat(0.0);
    let lowest = f32::from(IQ4_VALUES[0]);
    let (extreme, magnitude) = extreme(x);
    let first = if tries.is_some() { -extreme } else { extreme };
    let first_inverse = V::splat(1.0) / (first / V::splat(lowest));
    let (sum_qx, sum_q2) = sums(first_inverse, x, weights);
    let mut scale = V::select(sum_q2.gt(zero), sum_qx / sum_q2, zero);
    let mut best = scale * sum_qx;
    if let Some(tries) = tries {
        for trial in -tries..=tries {
            let inverse = V::splat(trial as f32 + lowest) / extreme;
            let (sum_qx, sum_q2) = sums(inverse, x, weights);
            let better = sum_q2.gt(zero) & (sum_qx * sum_qx).gt(best * sum_q2);
            scale = V::select(better, sum_qx / sum_q2, scale);
            best = V::select(better, scale * sum_qx, best);
        }
    }
    let all_zero = magnitude.lt(V::splat(GROUP_MAX_EPS));
    (V::select(all_zero, zero, scale), V::select(all_zero, zero, first_inverse))
}

/// Fits the `V::COUNT` groups that start at `x`; writes as many scales and first inverses.
#[inline(always)]
fn fit_groups<V: Lanes>(
    tries: Option<i32>,
    x: &[f32],
    weights: &[f32],
    scales: &mut [f32],
    inverses: &mut [f32],
) {
    let (scale, inverse) = fit::<V>(tries, &gather(x), &gather(weights));
    scale.store(scales);
    inverse.store(inverses);
}

/// The weights of a group: by importance, or x^2 without a matrix.
#[inline(always)]
fn weigh(x: &[f32], columns: Option<&[f32]>, sigma2: f32, weights: &mut [f32]) {
    match columns {
        Some(columns) => walk::importance(x, columns, sigma2, weights),
        None => {
            for (weight, x) in weights.iter_mut().zip(x) {
                *weight = x * x;
            }
        }
    }
}

/// Two codes a byte, the second half of the group in the upper nibbles.
#[inline(always)]
fn pack(codes: &[u8; GROUP], bytes: &mut [u8]) {
    for (j, byte) in bytes.iter_mut().enumerate() {
        *byte = codes[j] | codes[j + GROUP / 2] << 4;
    }
}

/// IQ4_NL over a flat run of blocks; `columns` repeat from row to row.
#[inline(always)]
fn iq4_nl_blocks<V: Lanes>(
    tries: Option<i32>,
    values: &[f32],
    columns: Option<&[f32]>,
    blocks: &mut [u8],
) {
    let columns = columns.map(|columns| columns.as_chunks::<GROUP>().0);
    let (mut scales, mut inverses) = ([0.0; 16], [0.0; 16]);
    let mut weights = [0.0; 16 * GROUP];
    let batches = values.as_chunks::<GROUP>().0.chunks(V::COUNT);
    let batches = batches.zip(blocks.as_chunks_mut::<18>().0.chunks_mut(V::COUNT));
    for (batch, (x, blocks)) in batches.enumerate() {
        for (i, (x, weights)) in x.iter().zip(weights.chunks_mut(GROUP)).enumerate() {
            let block = batch * V::COUNT + i;
            let columns = columns.and_then(|columns| columns.get(block % columns.len().max(1)));
            let sigma2 = c::sum_of_squares(x) * (2.0 / GROUP as f32);
            weigh(x, columns.map(|columns| &columns[..]), sigma2, weights);
        }
        if x.len() == V::COUNT {
            fit_groups::<V>(tries, x.as_flattened(), &weights, &mut scales, &mut inverses);
        } else {
            for (i, x) in x.iter().enumerate() {
                let weights = &weights[i * GROUP..];
                fit_groups::<f32>(tries, x, weights, &mut scales[i..], &mut inverses[i..]);
            }
        }
        for (i, (x, block)) in x.iter().zip(blocks).enumerate() {
            let inverse =
                if tries.is_some() { c::reciprocal_or_zero(scales[i]) } else { inverses[i] };
            block[..2].copy_from_slice(&f16_bits(scales[i]).to_le_bytes());
            pack(&nearest_codes(inverse, x), &mut block[2..]);
        }
    }
}

/// One IQ4_XS block: eight groups whose scales have six bits under one f16.
#[inline(always)]
fn iq4_xs_block<V: Lanes>(x: &[f32; 256], columns: Option<&[f32]>, block: &mut [u8; 136]) {
    let mut weights = [0.0; 256];
    weigh(x, columns, c::sum_of_squares(x) * (2.0 / 256.0), &mut weights);
    let (mut scales, mut inverses) = ([0.0; 8], [0.0; 8]);
    for group in (0..8).step_by(V::COUNT) {
        let (x, weights) = (&x[group * GROUP..], &weights[group * GROUP..]);
        fit_groups::<V>(Some(TRIES), x, weights, &mut scales[group..], &mut inverses[group..]);
    }

    let d = -extreme(&scales).0 / 32.0;
    let inverse = c::reciprocal_or_zero(d);
    block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
    block[2..8].fill(0);
    let mut high = 0u16;
    for (ib, (x, scale)) in x.as_chunks::<GROUP>().0.iter().zip(scales).enumerate() {
        let level = nearest_int(inverse * scale).clamp(-32, 31);
        let group_inverse = c::reciprocal_or_zero(d * level as f32);
        pack(&nearest_codes(group_inverse, x), &mut block[8 + 16 * ib..24 + 16 * ib]);
        let level = (level + 32) as u8;
        block[4 + ib / 2] |= (level & 15) << (4 * (ib % 2));
        high |= u16::from(level >> 4) << (2 * ib);
    }
    block[2..4].copy_from_slice(&high.to_le_bytes());
}

#[inline(always)]
fn iq4_nl_lanes<V: Lanes>(values: &[f32], blocks: &mut [u8]) {
    iq4_nl_blocks::<V>(None, values, None, blocks);
}

#[inline(always)]
fn iq4_nl_chunk_lanes<V: Lanes>(values: &[f32], blocks: &mut [u8]) {
    iq4_nl_blocks::<V>(Some(TRIES), values, None, blocks);
}

#[inline(always)]
fn iq4_nl_weighted_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    iq4_nl_blocks::<V>(Some(TRIES), values, Some(column_weights), blocks);
}

#[inline(always)]
fn iq4_xs_lanes<V: Lanes>(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x, block| iq4_xs_block::<V>(x, None, block));
}

#[inline(always)]
fn iq4_xs_weighted_lanes<V: Lanes>(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    walk::each_weighted(values, column_weights, blocks, |x, columns: &[f32; 256], block| {
        iq4_xs_block::<V>(x, Some(columns), block);
    });
}

encoder! {
    /// `IQ4_NL`, the reference quantizer.
    iq4_nl(values: &[f32], blocks: &mut [u8]) = iq4_nl_lanes
}
encoder! {
    /// `IQ4_NL`, the chunk quantizer without an importance matrix.
    iq4_nl_chunk(values: &[f32], blocks: &mut [u8]) = iq4_nl_chunk_lanes
}
encoder! {
    /// `IQ4_NL` with an importance matrix.
    iq4_nl_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = iq4_nl_weighted_lanes
}
encoder! {
    /// `IQ4_XS`, the reference quantizer.
    iq4_xs(values: &[f32], blocks: &mut [u8]) = iq4_xs_lanes
}
encoder! {
    /// `IQ4_XS` with an importance matrix.
    iq4_xs_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) = iq4_xs_weighted_lanes
}

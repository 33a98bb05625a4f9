/*!
Encoders of IQ1_S and IQ1_M: rows of eight levels -1, 0 and 1 from a grid, all shifted up or down by
an eighth, a three-bit scale for each 32 or 16 elements.

The best split of a group into the three levels is found exactly: its values are sorted, and every
pair of boundaries is scored from prefix sums, under either shift.
*/

use std::ops::Range;

use super::c_arithmetic::{self as c, f16_bits, nearest_int};
use super::encode_blocks as walk;
use super::encode_grid::{Grid, costs, iq1};
use super::encode_grid_fit::scale_level;
use crate::codec::isa::{Isa, Scalar};
use crate::codec::simd::{self, Kernel};

const LEN: usize = 256;

/// How far the levels are shifted.
const DELTA: f32 = 0.125;
/// What the levels stand for, shifted up.
const UP: [f32; 3] = [-1.0 + DELTA, DELTA, 1.0 + DELTA];
/// What the levels stand for, shifted down.
const DOWN: [f32; 3] = [-1.0 - DELTA, -DELTA, 1.0 - DELTA];

/// The group's element numbers, by ascending value; equal values keep their order.
fn sorted<const N: usize>(x: &[f32; N]) -> [usize; N] {
    let mut order = std::array::from_fn(|i| i);
    // Not `sort_by`: a NaN compares equal to everything, which is no order to sort by.
    for i in 1..N {
        let mut j = i;
        while j > 0 && x[order[j]] < x[order[j - 1]] {
            order.swap(j, j - 1);
            j -= 1;
        }
    }
    order
}

/// A split of the sorted group into levels 0, 1 and 2, with its scale.
struct Split<S> {
    scale: f32,
    bounds: (usize, usize),
    shift: S,
}

/// The level of each element under a split.
fn split_levels<const N: usize>(order: &[usize; N], (low, high): (usize, usize)) -> [u8; N] {
    let mut levels = [0; N];
    for (place, &i) in order.iter().enumerate() {
        levels[i] = u8::from(place >= low) + u8::from(place >= high);
    }
    levels
}

/// Puts rows on the grid under a scale: the points' indices, and whether all were on it already.
fn place<const ROWS: usize>(
    grid: &Grid<8>,
    levels: &[[u8; 8]; ROWS],
    scale: f32,
    x: &[[f32; 8]; ROWS],
    weights: &[[f32; 8]; ROWS],
    values: [&[f32; 3]; ROWS],
) -> ([u16; ROWS], bool) {
    let mut all_on = true;
    let indices = std::array::from_fn(|row| {
        let code = Grid::<8>::code(levels[row]);
        if grid.contains(code) {
            return grid.index(code);
        }
        all_on = false;
        let costs = costs(scale, values[row], &x[row], &weights[row]);
        // Once a row, after the search: not worth a kernel.
        grid.index(grid.nearest(Scalar, code, &costs))
    });
    (indices, all_on)
}

/// The weighted sums of value * x and value^2 over rows of grid points, each value times `factor`.
fn sums<const ROWS: usize>(
    grid: &Grid<8>,
    indices: &[u16; ROWS],
    x: &[[f32; 8]; ROWS],
    weights: &[[f32; 8]; ROWS],
    values: [&[f32; 3]; ROWS],
    factor: f32,
    (mut sum_qx, mut sum_q2): (f32, f32),
) -> (f32, f32) {
    for row in 0..ROWS {
        let code = grid.point(indices[row]);
        for (i, (x, w)) in x[row].iter().zip(&weights[row]).enumerate() {
            // Grid points have no fourth level.
            let q = values[row][Grid::<8>::level(code, i) % 3] * factor;
            sum_qx += w * q * x;
            sum_q2 += w * q * q;
        }
    }
    (sum_qx, sum_q2)
}

/// The largest magnitude of a group.
fn magnitude(x: &[f32]) -> f32 {
    x[1..].iter().fold(x[0].abs(), |largest, x| c::max(largest, x.abs()))
}

/// Splits that are scored side by side.
const LANES: usize = 8;

/// The weighted sums of value * x and value^2 of several splits under one shift.
struct Scored<S> {
    sum_qx: [f32; LANES],
    sum_q2: [f32; LANES],
    shift: S,
}

impl<S> Scored<S> {
    /// Whether the split in a lane does better than a score.
    #[inline(always)]
    #[allow(clippy::needless_bitwise_bool, reason = "no branch: lanes are compared side by side")]
    fn beats(&self, score: f32, lane: usize) -> bool {
        let (sum_qx, sum_q2) = (self.sum_qx[lane], self.sum_q2[lane]);
        (sum_q2 > 0.0) & (sum_qx * sum_qx > score * sum_q2)
    }
}

/// The best split so far.
struct Best<S> {
    split: Option<Split<S>>,
    score: f32,
}

impl<S: Copy> Best<S> {
    #[inline(always)]
    fn new() -> Self {
        Self { split: None, score: -f32::MAX }
    }

    /// Takes in the splits at `low` and each of `highs`, which lie in the lanes, under each shift. Of
    /// equals the first wins.
    #[inline(always)]
    fn take(&mut self, low: usize, highs: Range<usize>, scored: &[Scored<S>]) {
        // Mostly none beats the score, which all lanes tell at once.
        let mut any = false;
        for it in scored {
            for lane in 0..LANES {
                any |= it.beats(self.score, lane);
            }
        }
        if !any {
            return;
        }
        for (lane, high) in highs.enumerate() {
            for it in scored {
                if it.beats(self.score, lane) {
                    let scale = it.sum_qx[lane] / it.sum_q2[lane];
                    self.score = scale * it.sum_qx[lane];
                    self.split = Some(Split { scale, bounds: (low, high), shift: it.shift });
                }
            }
        }
    }
}

// ---- IQ1_S

/// What the search of a group of IQ1_S leaves to be packed.
#[derive(Clone, Copy)]
struct FitS {
    scale: f32,
    indices: [u16; 4],
    down: bool,
}

/// Scores every split of a sorted group under both shifts; `None` if none scores.
fn best_split_s(order: &[usize; 32], x: &[f32; 32], weights: &[f32; 32]) -> Option<Split<bool>> {
    let (mut sum_x, mut sum_w) = ([0.0; 32 + LANES], [0.0; 32 + LANES]);
    for (j, &i) in order.iter().enumerate() {
        sum_x[j + 1] = sum_x[j] + weights[i] * x[i];
        sum_w[j + 1] = sum_w[j] + weights[i];
    }
    // Beyond the last split, lanes hold it again.
    for sum in [&mut sum_x, &mut sum_w] {
        let last = sum[32];
        sum[33..].fill(last);
    }
    simd::dispatch(BestSplitS { sum_x: &sum_x, sum_w: &sum_w })
}

/// [`best_split_s`] as a kernel, over prefix sums of the sorted group.
struct BestSplitS<'a> {
    sum_x: &'a [f32; 32 + LANES],
    sum_w: &'a [f32; 32 + LANES],
}

impl Kernel for BestSplitS<'_> {
    type Output = Option<Split<bool>>;

    #[inline(always)]
    fn run(self, _: impl Isa) -> Option<Split<bool>> {
        let mut best = Best::new();
        for low in 0..=32 {
            for first in (low..=32).step_by(LANES) {
                let parts = |sum: &[f32; 32 + LANES]| {
                    let below = sum[low] - sum[0];
                    std::array::from_fn(|lane| {
                        let high = sum[first + lane];
                        [below, high - sum[low], sum[32] - high]
                    })
                };
                let (xs, ws): ([[f32; 3]; LANES], [[f32; 3]; LANES]) =
                    (parts(self.sum_x), parts(self.sum_w));
                let scored = [(false, &UP), (true, &DOWN)].map(|(down, v)| Scored {
                    sum_qx: xs.map(|[x0, x1, x2]| x0 * v[0] + x1 * v[1] + x2 * v[2]),
                    sum_q2: ws
                        .map(|[w0, w1, w2]| w0 * v[0] * v[0] + w1 * v[1] * v[1] + w2 * v[2] * v[2]),
                    shift: down,
                });
                best.take(low, first..(first + LANES).min(33), &scored);
            }
        }
        best.split
    }
}

/// Fits one group of IQ1_S.
fn fit_s(x: &[f32; 32], weights: &[f32; 32]) -> FitS {
    /// Below this largest magnitude ggml takes a group for all zero.
    const EPSILON: f32 = 1e-12;
    const ZERO: FitS = FitS { scale: 0.0, indices: [0; 4], down: false };
    if magnitude(x) < EPSILON {
        return ZERO;
    }
    let order = sorted(x);
    let Some(split) = best_split_s(&order, x, weights) else { return ZERO };
    let mut levels = split_levels(&order, split.bounds);
    let (mut scale, mut down) = (split.scale, split.shift);
    if scale < 0.0 {
        levels = levels.map(|level| 2 - level);
        (scale, down) = (-scale, !down);
    }
    let grid = iq1();
    let values = [if down { &DOWN } else { &UP }; 4];
    let (x, weights) = (rows(x), rows(weights));
    let (indices, all_on) = place(grid, &rows(&levels), scale, &x, &weights, values);
    if !all_on {
        let (sum_qx, sum_q2) = sums(grid, &indices, &x, &weights, values, 1.0, (0.0, 0.0));
        if sum_qx > 0.0 && sum_q2 > 0.0 {
            scale = sum_qx / sum_q2;
        }
    }
    FitS { scale, indices, down }
}

/// A group as rows of eight.
fn rows<T: Copy + Default, const N: usize, const ROWS: usize>(group: &[T; N]) -> [[T; 8]; ROWS] {
    let mut rows = [[T::default(); 8]; ROWS];
    rows.as_flattened_mut().copy_from_slice(group);
    rows
}

/// `IQ1_S`; ggml has no quantizer for it without an importance matrix.
pub fn iq1_s_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    /// ggml's correction of the block's scale, found by trial.
    const CORRECTION: f32 = 1.125;
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x: &[f32; LEN], columns, block| {
        let block: &mut [u8; 50] = block;
        walk::importance(x, columns, 2.0 * c::sum_of_squares(x) / 256.0, &mut weights);
        block.fill(0);
        let (low, high) = block[2..].split_at_mut(32);
        let bytes = low.as_chunks_mut::<4>().0.iter_mut().zip(high.as_chunks_mut::<2>().0);
        let groups = x.as_chunks::<32>().0.iter().zip(weights.as_chunks::<32>().0);
        let mut fits = [None; 8];
        for ((to, (x, weights)), (low, high)) in fits.iter_mut().zip(groups).zip(bytes) {
            let fit = fit_s(x, weights);
            *low = fit.indices.map(|index| index as u8);
            let upper = fit.indices.iter().rev().fold(0, |bits, index| bits << 3 | index >> 8);
            *high = upper.to_le_bytes();
            *to = Some(fit);
        }
        let largest = fits.iter().flatten().fold(0.0, |largest, fit| c::max(largest, fit.scale));
        if largest == 0.0 {
            return;
        }
        let d = largest / 15.0;
        let inverse = 1.0 / d;
        block[..2].copy_from_slice(&f16_bits(d * CORRECTION).to_le_bytes());
        for (high, fit) in block[34..].as_chunks_mut::<2>().0.iter_mut().zip(fits.iter().flatten())
        {
            let level = scale_level(inverse, fit.scale, 7) | u8::from(fit.down) << 3;
            high[1] |= level << 4;
        }
    });
}

// ---- IQ1_M

/// What the search of a group of IQ1_M leaves to be packed; each row has a shift of its own.
#[derive(Clone, Copy)]
struct FitM {
    scale: f32,
    indices: [u16; 2],
    down: [bool; 2],
}

impl FitM {
    /// What the levels of each row stand for.
    fn values(&self) -> [&'static [f32; 3]; 2] {
        self.down.map(|down| if down { &DOWN } else { &UP })
    }
}

/// Prefix sums over the sorted group of the elements of one row.
struct Prefix {
    x: [f32; 16 + LANES],
    w: [f32; 16 + LANES],
}

impl Prefix {
    fn new(order: &[usize; 16], row: usize, x: &[f32; 16], weights: &[f32; 16]) -> Self {
        let mut prefix = Self { x: [0.0; 16 + LANES], w: [0.0; 16 + LANES] };
        for (j, &i) in order.iter().enumerate() {
            let (mut sum_x, mut sum_w) = (prefix.x[j], prefix.w[j]);
            if i / 8 == row {
                sum_x += weights[i] * x[i];
                sum_w += weights[i];
            }
            (prefix.x[j + 1], prefix.w[j + 1]) = (sum_x, sum_w);
        }
        // Beyond the last split, lanes hold it again.
        for sum in [&mut prefix.x, &mut prefix.w] {
            let last = sum[16];
            sum[17..].fill(last);
        }
        prefix
    }

    /// The row's sums of value * x and value^2 for splits at `low` and at `first` and after. As
    /// neighbouring values differ by 1, they follow from the totals less the prefixes.
    #[inline(always)]
    fn sums(&self, low: usize, first: usize, values: &[f32; 3]) -> ([f32; LANES], [f32; LANES]) {
        let [v0, v1, v2] = values;
        let (step_low, step_high) = (v0 * v0 - v1 * v1, v1 * v1 - v2 * v2);
        let qx = |lane| self.x[16] * v2 - (self.x[low] + self.x[first + lane]);
        let q2 =
            |lane| self.w[16] * v2 * v2 + self.w[low] * step_low + self.w[first + lane] * step_high;
        (std::array::from_fn(qx), std::array::from_fn(q2))
    }
}

/// Scores every split of a sorted group under the four pairs of shifts; `None` if none scores. A
/// kernel, over the prefix sums of each row.
struct BestSplitM([Prefix; 2]);

impl Kernel for BestSplitM {
    type Output = Option<Split<[bool; 2]>>;

    #[inline(always)]
    fn run(self, _: impl Isa) -> Option<Split<[bool; 2]>> {
        let Self(rows) = self;
        let mut best = Best::new();
        for low in 0..=16 {
            for first in (low..=16).step_by(LANES) {
                let sums = rows
                    .each_ref()
                    .map(|row| [row.sums(low, first, &UP), row.sums(low, first, &DOWN)]);
                let scored = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(upper, lower)| {
                    let ((qx, q2), (more_qx, more_q2)) = (sums[0][upper], sums[1][lower]);
                    Scored {
                        sum_qx: std::array::from_fn(|lane| qx[lane] + more_qx[lane]),
                        sum_q2: std::array::from_fn(|lane| q2[lane] + more_q2[lane]),
                        shift: [upper == 1, lower == 1],
                    }
                });
                best.take(low, first..(first + LANES).min(17), &scored);
            }
        }
        best.split
    }
}

/// Fits one group of IQ1_M.
fn fit_m(x: &[f32; 16], weights: &[f32; 16]) -> FitM {
    /// Below this largest magnitude ggml takes a group for all zero.
    const EPSILON: f32 = 1e-7;
    const ZERO: FitM = FitM { scale: 0.0, indices: [0; 2], down: [false; 2] };
    if magnitude(x) < EPSILON {
        return ZERO;
    }
    let order = sorted(x);
    let prefixes = [0, 1].map(|row| Prefix::new(&order, row, x, weights));
    let Some(split) = simd::dispatch(BestSplitM(prefixes)) else { return ZERO };
    let mut levels = split_levels(&order, split.bounds);
    let mut fit = FitM { scale: split.scale, indices: [0; 2], down: split.shift };
    if fit.scale < 0.0 {
        levels = levels.map(|level| 2 - level);
        fit.scale = -fit.scale;
        fit.down = fit.down.map(|down| !down);
    }
    let grid = iq1();
    let values = fit.values();
    let (x, weights) = (rows(x), rows(weights));
    let (indices, all_on) = place(grid, &rows(&levels), fit.scale, &x, &weights, values);
    if !all_on {
        let (sum_qx, sum_q2) = sums(grid, &indices, &x, &weights, values, 1.0, (0.0, 0.0));
        if sum_qx > 0.0 && sum_q2 > 0.0 {
            fit.scale = sum_qx / sum_q2;
        }
    }
    fit.indices = indices;
    fit
}

/// One IQ1_M block from its weights: 32 bytes of low index bits, 16 of high ones and shifts, and
/// eight of scales, in whose upper nibbles lies the block's own.
fn iq1_m_block(x: &[f32; LEN], weights: &[f32; LEN], block: &mut [u8; 56]) {
    /// ggml's correction of the block's scale, found by trial.
    const CORRECTION: f32 = 1.1125;
    let (x, _) = x.as_chunks::<16>();
    let (weights, _) = weights.as_chunks::<16>();
    let mut fits = [None; 16];
    for (to, (x, weights)) in fits.iter_mut().zip(x.iter().zip(weights)) {
        *to = Some(fit_m(x, weights));
    }
    block.fill(0);
    let (low, rest) = block.split_at_mut(32);
    let (high, scales) = rest.split_at_mut(16);
    let bytes = low.as_chunks_mut::<2>().0.iter_mut().zip(high.iter_mut());
    for (fit, (low, high)) in fits.iter().flatten().zip(bytes) {
        *low = fit.indices.map(|index| index as u8);
        *high = (fit.indices[0] >> 8 | fit.indices[1] >> 8 << 4) as u8;
    }
    let largest = fits.iter().flatten().fold(0.0, |largest, fit| c::max(largest, fit.scale));
    if largest == 0.0 {
        return;
    }

    // With the groups' scales rounded, the block's scale is fitted once more.
    let mut d = largest / 15.0;
    let inverse = 1.0 / d;
    let mut words = [0u16; 4];
    let mut total = (0.0, 0.0);
    for (ib, fit) in fits.iter().flatten().enumerate() {
        let level = nearest_int(0.5 * (inverse * fit.scale - 1.0)).clamp(0, 7);
        words[ib / 4] |= (level as u16) << (3 * (ib % 4));
        high[ib] |= u8::from(fit.down[0]) << 3 | u8::from(fit.down[1]) << 7;
        let factor = (2 * level + 1) as f32;
        let (x, weights) = (rows(&x[ib]), rows(&weights[ib]));
        total = sums(iq1(), &fit.indices, &x, &weights, fit.values(), factor, total);
    }
    if total.1 > 0.0 {
        d = total.0 / total.1;
    }
    let bits = f16_bits(d * CORRECTION);
    for (k, (bytes, word)) in scales.as_chunks_mut::<2>().0.iter_mut().zip(words).enumerate() {
        *bytes = (word | (bits >> (4 * k) & 15) << 12).to_le_bytes();
    }
}

/// `IQ1_M`, the chunk quantizer without an importance matrix; ggml has no reference quantizer.
pub fn iq1_m_chunk(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x: &[f32; LEN], block| {
        iq1_m_block(x, &x.map(|x| x * x), block);
    });
}

/// `IQ1_M` with an importance matrix.
pub fn iq1_m_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x: &[f32; LEN], columns, block| {
        walk::importance(x, columns, 2.0 * c::sum_of_squares(x) / 256.0, &mut weights);
        iq1_m_block(x, &weights, block);
    });
}

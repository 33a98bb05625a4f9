/*!
The searches for scales that ggml's block quantizers share: given a group of values and how much each
matters, find the scale (and minimum) whose rounded levels lie nearest.

Every search is generic over [`Lanes`] and holds one group a lane; `x`, `weights` and `levels` are
indexed by the element within the group. Sums run in element order, in f32, as in ggml.
*/

use super::c_arithmetic::{self as c, GROUP_MAX_EPS, nearest_int};
use super::encode_lanes::Lanes;

/// The value of largest magnitude and that magnitude; the first one wins a tie.
#[inline(always)]
pub(super) fn extreme<V: Lanes>(x: &[V]) -> (V, V) {
    let mut magnitude = V::splat(0.0);
    let mut value = V::splat(0.0);
    for &x in x {
        let larger = x.abs().gt(magnitude);
        magnitude = V::select(larger, x.abs(), magnitude);
        value = V::select(larger, x, value);
    }
    (value, magnitude)
}

/// The level of `x` for a scale of which `inverse` is the reciprocal.
#[inline(always)]
fn signed_level<V: Lanes>(bound: i32, inverse: V, x: V) -> V {
    (inverse * x).nearest_within(-bound, bound - 1)
}

/// The weighted sums of level * x and of level^2.
#[inline(always)]
fn signed_sums<V: Lanes>(bound: i32, inverse: V, x: &[V], weights: &[V]) -> (V, V) {
    let (mut sum_lx, mut sum_l2) = (V::splat(0.0), V::splat(0.0));
    for (&x, &w) in x.iter().zip(weights) {
        let l = signed_level(bound, inverse, x);
        sum_lx = sum_lx + w * x * l;
        sum_l2 = sum_l2 + w * l * l;
    }
    (sum_lx, sum_l2)
}

/// Fits x = scale * (level - `bound`), levels 0 to 2 `bound` - 1: tries the scale that maps the
/// extreme value to -`bound`, then 18 near it, each corrected by weighted least squares.
///
/// Returns the scale; a group of zeros gives scale 0 and levels 0.
#[inline(always)]
pub(super) fn symmetric<V: Lanes>(bound: i32, x: &[V], weights: &[V], levels: &mut [V]) -> V {
    let zero = V::splat(0.0);
    let (extreme, magnitude) = extreme(x);
    let mut inverse = V::splat(-bound as f32) / extreme;
    let (sum_lx, sum_l2) = signed_sums(bound, inverse, x, weights);
    let mut scale = V::select(sum_l2.ne(zero), sum_lx / sum_l2, zero);
    let mut best = scale * sum_lx;
    for step in (-9..=9).filter(|&step| step != 0) {
        let candidate = V::splat(-(bound as f32 + 0.1 * step as f32)) / extreme;
        let (sum_lx, sum_l2) = signed_sums(bound, candidate, x, weights);
        let better = sum_l2.gt(zero) & (sum_lx * sum_lx).gt(best * sum_l2);
        scale = V::select(better, sum_lx / sum_l2, scale);
        best = V::select(better, scale * sum_lx, best);
        inverse = V::select(better, candidate, inverse);
    }

    let all_zero = magnitude.lt(V::splat(GROUP_MAX_EPS));
    for (level, &x) in levels.iter_mut().zip(x) {
        let l = signed_level(bound, inverse, x) + V::splat(bound as f32);
        *level = V::select(all_zero, zero, l);
    }
    V::select(all_zero, zero, scale)
}

/// Fits x = scale * (level - `bound`) as [`symmetric`] does, weighted by x^2, from one scale:
/// then moves one level after another while that lowers the error, five rounds at most.
#[inline(always)]
pub(super) fn symmetric_by_descent<V: Lanes>(bound: i32, x: &[V], levels: &mut [V]) -> V {
    const ROUNDS: usize = 5;
    let zero = V::splat(0.0);
    let (extreme, magnitude) = extreme(x);
    let inverse = V::splat(-bound as f32) / extreme;
    let (mut sum_lx, mut sum_l2) = (zero, zero);
    for (level, &x) in levels.iter_mut().zip(x) {
        let l = signed_level(bound, inverse, x);
        let w = x * x;
        *level = l;
        sum_lx = sum_lx + w * x * l;
        sum_l2 = sum_l2 + w * l * l;
    }
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (level, &x) in levels.iter_mut().zip(x) {
            let w = x * x;
            let rest_lx = sum_lx - w * x * *level;
            let rest_l2 = sum_l2 - w * *level * *level;
            let l = (x * rest_l2 / rest_lx).nearest_within(-bound, bound - 1);
            let new_lx = rest_lx + w * x * l;
            let new_l2 = rest_l2 + w * l * l;
            let better = rest_lx.gt(zero)
                & l.ne(*level)
                & new_l2.gt(zero)
                & (new_lx * new_lx * sum_l2).gt(sum_lx * sum_lx * new_l2);
            if V::any(better) {
                changed = true;
                *level = V::select(better, l, *level);
                sum_lx = V::select(better, new_lx, sum_lx);
                sum_l2 = V::select(better, new_l2, sum_l2);
            }
        }
        if !changed {
            break;
        }
    }
    let all_zero = magnitude.lt(V::splat(GROUP_MAX_EPS));
    for level in levels {
        *level = V::select(all_zero, zero, *level + V::splat(bound as f32));
    }
    let scale = V::select(sum_l2.gt(zero), sum_lx / sum_l2, zero);
    V::select(all_zero, zero, scale)
}

/// What an affine search tries.
#[derive(Clone, Copy)]
pub(super) struct AffineSearch {
    /// The highest level; the lowest is 0.
    pub top: i32,
    /// The first candidate maps the range to `top` + `first` steps.
    pub first: f32,
    /// How many steps more from one candidate to the next.
    pub step: f32,
    /// The number of the last candidate; the first is 0.
    pub last: i32,
    /// Judge by absolute rather than squared differences.
    pub absolute: bool,
    /// Clamp before rounding: a trial whose minimum lies near the maximum cannot overflow it.
    pub clamp_first: bool,
}

impl AffineSearch {
    /// The level of `scaled`, which is x less the minimum, over the scale.
    #[inline(always)]
    fn level<V: Lanes>(self, scaled: V) -> V {
        if !self.clamp_first {
            return scaled.nearest_within(0, self.top);
        }
        let top = V::splat(self.top as f32);
        let clamped = V::select(scaled.lt(top), scaled, top);
        V::select(scaled.gt(V::splat(0.0)), clamped.nearest_within(0, self.top), V::splat(0.0))
    }

    /// The weighted error of levels under a scale and a minimum.
    #[inline(always)]
    fn error<V: Lanes>(self, scale: V, min: V, x: &[V], weights: &[V], levels: &[V]) -> V {
        let mut sum = V::splat(0.0);
        for ((&x, &w), &level) in x.iter().zip(weights).zip(levels) {
            let difference = scale * level + min - x;
            sum = sum + w * if self.absolute { difference.abs() } else { difference * difference };
        }
        sum
    }
}

/// Smallest and largest value, the smallest at most 0.
#[inline(always)]
fn range<V: Lanes>(x: &[V]) -> (V, V) {
    let zero = V::splat(0.0);
    let (mut min, mut max) = (x[0], x[0]);
    for &x in &x[1..] {
        min = V::select(x.lt(min), x, min);
        max = V::select(x.gt(max), x, max);
    }
    (V::select(min.gt(zero), zero, min), max)
}

/// The sums of the weights and of the weighted values.
#[inline(always)]
fn weighted_sums<V: Lanes>(x: &[V], weights: &[V]) -> (V, V) {
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for (&x, &w) in x.iter().zip(weights).skip(1) {
        sum_w = sum_w + w;
        sum_x = sum_x + w * x;
    }
    (sum_w, sum_x)
}

/// Fits x = scale * level - minimum, levels 0 to `search.top`, minimum >= 0: tries a row of scales,
/// each corrected by weighted least squares; the minimum of the best fit so far serves each trial.
///
/// Returns scale and minimum; a group of equal values gives scale 0 and levels 0.
#[inline(always)]
pub(super) fn affine<V: Lanes>(
    search: AffineSearch,
    x: &[V],
    weights: &[V],
    levels: &mut [V],
) -> (V, V) {
    let zero = V::splat(0.0);
    let (lowest, max) = range(x);
    let (sum_w, sum_x) = weighted_sums(x, weights);
    let flat = max.eq(lowest);

    let mut min = lowest;
    let first_inverse = V::splat(search.top as f32) / (max - min);
    let mut scale = V::splat(1.0) / first_inverse;
    for (level, &x) in levels.iter_mut().zip(x) {
        *level = (first_inverse * (x - lowest)).nearest_within(0, search.top);
    }
    let mut best = search.error(scale, min, x, weights, levels);

    // The inverse scale and minimum that gave the best levels; 0 until a trial improves on the first.
    let (mut improved, mut best_inverse, mut best_min) = (zero, zero, zero);
    for trial in 0..=search.last {
        let steps = search.first + search.step * trial as f32 + search.top as f32;
        let inverse = V::splat(steps) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        for ((level, &x), &w) in levels.iter_mut().zip(x).zip(weights) {
            let l = search.level(inverse * (x - min));
            *level = l;
            sum_l = sum_l + w * l;
            sum_l2 = sum_l2 + w * l * l;
            sum_xl = sum_xl + w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        let trial_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        let above = trial_min.gt(zero);
        let trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let trial_scale = V::select(above, sum_xl / sum_l2, trial_scale);
        let trial_min = V::select(above, zero, trial_min);
        let error = search.error(trial_scale, trial_min, x, weights, levels);
        let better = determinant.gt(zero) & error.lt(best);
        best = V::select(better, error, best);
        improved = V::select(better, V::splat(1.0), improved);
        best_inverse = V::select(better, inverse, best_inverse);
        best_min = V::select(better, min, best_min);
        scale = V::select(better, trial_scale, scale);
        min = V::select(better, trial_min, min);
    }

    let improved = improved.gt(zero);
    for (level, &x) in levels.iter_mut().zip(x) {
        let first = (first_inverse * (x - lowest)).nearest_within(0, search.top);
        let l = V::select(improved, search.level(best_inverse * (x - best_min)), first);
        *level = V::select(flat, zero, l);
    }
    (V::select(flat, zero, scale), -V::select(flat, lowest, min))
}

/// Fits x = scale * level for values that should not be negative, levels 0 to `top`: the best of
/// nine scales, then moves one level after another while that lowers the error, five rounds at most.
///
/// Levels are bytes: a negative value's level wraps, as ggml's does.
pub(super) fn positive(top: i32, x: &[f32], weights: &[f32], levels: &mut [u8]) -> f32 {
    let largest = x.iter().fold(0.0, |largest, &x| c::max(largest, x));
    if largest < GROUP_MAX_EPS {
        levels.fill(0);
        return 0.0;
    }
    let inverse = best_positive_inverse(top, largest, x, weights);
    let (mut sum_lx, mut sum_l2) = (0.0, 0.0);
    for ((&x, &w), level) in x.iter().zip(weights).zip(levels.iter_mut()) {
        let l = nearest_int(inverse * x).min(top);
        *level = l as u8;
        sum_lx += w * x * l as f32;
        sum_l2 += w * l as f32 * l as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((&x, &w), level) in x.iter().zip(weights).zip(levels.iter_mut()) {
            let old = f32::from(*level);
            let rest_lx = sum_lx - w * x * old;
            let rest_l2 = sum_l2 - w * old * old;
            if !(rest_lx > 0.0 && rest_l2 > 0.0) {
                continue;
            }
            let l = nearest_int(x * rest_l2 / rest_lx).min(top);
            if l == i32::from(*level) {
                continue;
            }
            let new_lx = rest_lx + w * x * l as f32;
            let new_l2 = rest_l2 + w * l as f32 * l as f32;
            if new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2 {
                *level = l as u8;
                (sum_lx, sum_l2) = (new_lx, new_l2);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }
}

/// The reciprocal scale of the nine around `top` / `largest` with the smallest squared error.
fn best_positive_inverse(top: i32, largest: f32, x: &[f32], weights: &[f32]) -> f32 {
    let error = |inverse: f32, level: &dyn Fn(i32) -> i32| {
        let scale = 1.0 / inverse;
        let mut sum = 0.0;
        for (&x, &w) in x.iter().zip(weights) {
            let difference = x - scale * level(nearest_int(inverse * x)) as f32;
            sum += w * difference * difference;
        }
        sum
    };
    // ggml keeps the first trial's levels in bytes, so that a negative one wraps; later trials don't.
    let mut best_inverse = top as f32 / largest;
    let mut best = error(best_inverse, &|l| i32::from(l as u8));
    for step in (-4..=4).filter(|&step| step != 0) {
        let inverse = (0.1 * step as f32 + top as f32) / largest;
        let error = error(inverse, &|l| l.min(top));
        if error < best {
            (best, best_inverse) = (error, inverse);
        }
    }
    best_inverse
}

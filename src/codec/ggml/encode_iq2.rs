/*!
Encoders of IQ2_XXS, IQ2_XS and IQ2_S: rows of eight magnitudes from a grid, signs apart, a four-bit
scale for each 32 or 16 elements.
*/

use super::c_arithmetic::{self as c, GROUP_MAX_EPS, f16_bits};
use super::encode_blocks as walk;
use super::encode_fit::positive;
use super::encode_grid::{self, Grid};
use super::encode_grid_fit::{
    GridSearch, Group, Regrid, scale_level, split_even_signs, split_signs,
};

const LEN: usize = 256;

/// What the search of a group leaves to be packed; all zero for a group of zeros.
#[derive(Clone, Copy)]
struct Fit<const ROWS: usize> {
    scale: f32,
    indices: [u16; ROWS],
    signs: [u8; ROWS],
}

impl<const ROWS: usize> Fit<ROWS> {
    const ZERO: Self = Self { scale: 0.0, indices: [0; ROWS], signs: [0; ROWS] };

    /// Turns points into indices, and a negative scale, with all signs, around.
    fn new(grid: &Grid<8>, scale: f32, codes: [u16; ROWS], signs: [u8; ROWS], mask: u8) -> Self {
        let indices = codes.map(|code| grid.index(code));
        if scale < 0.0 {
            return Self { scale: -scale, indices, signs: signs.map(|signs| !signs & mask) };
        }
        Self { scale, indices, signs }
    }
}

/// A group with its signs taken off, the largest magnitude, and the signs.
#[inline]
fn prepare<const ROWS: usize>(
    x: &[[f32; 8]],
    weights: &[[f32; 8]],
    even: bool,
) -> (Group<ROWS, 8>, f32, [u8; ROWS]) {
    let mut group =
        Group { x: [[0.0; 8]; ROWS], weights: [[0.0; 8]; ROWS], row_weights: [[0.0; 8]; ROWS] };
    let mut signs = [0; ROWS];
    for row in 0..ROWS {
        group.weights[row] = weights[row];
        group.row_weights[row] = weights[row].map(f32::sqrt);
        (group.x[row], signs[row]) =
            if even { split_even_signs(&x[row], &weights[row]) } else { split_signs(&x[row]) };
    }
    let x = group.x.as_flattened();
    let largest = x[1..].iter().fold(x[0], |largest, &x| c::max(largest, x));
    (group, largest, signs)
}

/// The largest scale of a block, at least 0.
fn largest_scale<const ROWS: usize>(fits: &[Fit<ROWS>]) -> f32 {
    fits.iter().fold(0.0, |largest, fit| c::max(largest, fit.scale))
}

/// Fits a group of IQ2_XXS, whose trials start from the best scale for free levels.
fn fit_xxs(x: &[[f32; 8]], weights: &[[f32; 8]]) -> Fit<4> {
    const SEARCH: GridSearch = GridSearch { levels: 3, tries: 6, step: 0.1, regrid: Regrid::All };
    let (group, largest, signs) = prepare::<4>(x, weights, true);
    if largest < GROUP_MAX_EPS {
        return Fit::ZERO;
    }
    let mut free_levels = [0; 32];
    let (x, weights) = (group.x.as_flattened(), group.weights.as_flattened());
    let scale = positive(SEARCH.levels + 1, x, weights, &mut free_levels);
    let largest = scale * SEARCH.levels as f32;
    if largest <= 0.0 {
        return Fit::ZERO;
    }
    let (grid, mut codes) = (encode_grid::iq2_xxs(), [0; 4]);
    let scale = group.fit(grid, SEARCH, (scale, largest), &mut codes);
    Fit::new(grid, scale, codes, signs, 127)
}

/// Fits a group of IQ2_XS (`even` signs) or IQ2_S; groups below `epsilon` count as zero.
fn fit_pair(
    grid: &Grid<8>,
    x: &[[f32; 8]],
    weights: &[[f32; 8]],
    even: bool,
    epsilon: f32,
) -> Fit<2> {
    const SEARCH: GridSearch = GridSearch { levels: 3, tries: 9, step: 0.1, regrid: Regrid::Off };
    let (group, largest, signs) = prepare::<2>(x, weights, even);
    if largest < epsilon {
        return Fit::ZERO;
    }
    let mut codes = [0; 2];
    let scale = group.fit(grid, SEARCH, (largest / 5.0, largest), &mut codes);
    Fit::new(grid, scale, codes, signs, if even { 127 } else { 255 })
}

/// `IQ2_XXS`; ggml has no quantizer for it without an importance matrix.
pub fn iq2_xxs_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x: &[f32; LEN], columns, block| {
        let block: &mut [u8; 66] = block;
        walk::importance(x, columns, c::sum_of_squares(x) / 256.0, &mut weights);
        let groups = x.as_chunks::<8>().0.chunks(4).zip(weights.as_chunks::<8>().0.chunks(4));
        let mut fits = [Fit::ZERO; 8];
        for (fit, (x, weights)) in fits.iter_mut().zip(groups) {
            *fit = fit_xxs(x, weights);
        }
        block.fill(0);
        let largest = largest_scale(&fits);
        if largest == 0.0 {
            return;
        }
        let d = largest / 31.0;
        let inverse = 1.0 / d;
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        for (bytes, fit) in block[2..].as_chunks_mut::<8>().0.iter_mut().zip(&fits) {
            let mut word = u32::from(scale_level(inverse, fit.scale, 15)) << 28;
            for (k, (&index, &signs)) in fit.indices.iter().zip(&fit.signs).enumerate() {
                bytes[k] = index as u8;
                word |= u32::from(signs) << (7 * k);
            }
            bytes[4..].copy_from_slice(&word.to_le_bytes());
        }
    });
}

/// Scale nibbles of 16 groups, the first of a pair in the lower nibble.
fn scale_nibbles(d: f32, fits: &[Fit<2>; 16], bytes: &mut [u8]) {
    let inverse = 1.0 / d;
    for (byte, pair) in bytes.iter_mut().zip(fits.as_chunks::<2>().0) {
        let [low, high] = pair.map(|fit| scale_level(inverse, fit.scale, 15));
        *byte = low | high << 4;
    }
}

/// `IQ2_XS`; ggml has no quantizer for it without an importance matrix.
pub fn iq2_xs_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let grid = encode_grid::iq2_xs();
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x: &[f32; LEN], columns, block| {
        let block: &mut [u8; 74] = block;
        walk::importance(x, columns, c::sum_of_squares(x) / 256.0, &mut weights);
        let groups = x.as_chunks::<8>().0.chunks(2).zip(weights.as_chunks::<8>().0.chunks(2));
        let mut fits = [Fit::ZERO; 16];
        for (fit, (x, weights)) in fits.iter_mut().zip(groups) {
            *fit = fit_pair(grid, x, weights, true, GROUP_MAX_EPS);
        }
        block.fill(0);
        let largest = largest_scale(&fits);
        if largest == 0.0 {
            return;
        }
        let d = largest / 31.0;
        block[..2].copy_from_slice(&f16_bits(d).to_le_bytes());
        let rows = fits.iter().flat_map(|fit| fit.indices.into_iter().zip(fit.signs));
        for (bytes, (index, signs)) in block[2..66].as_chunks_mut::<2>().0.iter_mut().zip(rows) {
            *bytes = (index | u16::from(signs) << 9).to_le_bytes();
        }
        scale_nibbles(d, &fits, &mut block[66..]);
    });
}

/// One IQ2_S block from its weights.
fn iq2_s_block(x: &[f32; LEN], weights: &[f32; LEN], block: &mut [u8; 82]) {
    /// Below this largest magnitude ggml takes a group for all zero.
    const EPSILON: f32 = 1e-8;
    /// ggml's correction of the block's scale, found by trial.
    const CORRECTION: f32 = 0.9875;
    let grid = encode_grid::iq2_s();
    let groups = x.as_chunks::<8>().0.chunks(2).zip(weights.as_chunks::<8>().0.chunks(2));
    let mut fits = [Fit::ZERO; 16];
    for (fit, (x, weights)) in fits.iter_mut().zip(groups) {
        *fit = fit_pair(grid, x, weights, false, EPSILON);
    }
    block.fill(0);
    let rows = fits.iter().flat_map(|fit| fit.indices.into_iter().zip(fit.signs));
    for (row, (index, signs)) in rows.enumerate() {
        block[2 + row] = index as u8;
        block[34 + row] = signs;
        block[66 + row / 4] |= ((index >> 8) as u8) << (2 * (row % 4));
    }
    let largest = largest_scale(&fits);
    if largest == 0.0 {
        return;
    }
    let d = largest / 31.0;
    block[..2].copy_from_slice(&f16_bits(d * CORRECTION).to_le_bytes());
    scale_nibbles(d, &fits, &mut block[74..]);
}

/// `IQ2_S`, the reference quantizer.
pub fn iq2_s(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x: &[f32; LEN], block| {
        let sigma2 = 2.0 * c::sum_of_squares(x) / 256.0;
        iq2_s_block(x, &x.map(|x| 0.25 * sigma2 + x * x), block);
    });
}

/// `IQ2_S` with an importance matrix.
pub fn iq2_s_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x: &[f32; LEN], columns, block| {
        walk::importance(x, columns, 2.0 * c::sum_of_squares(x) / 256.0, &mut weights);
        iq2_s_block(x, &weights, block);
    });
}

/*!
Encoders of IQ3_XXS and IQ3_S: rows of four magnitudes from a grid, signs apart for each eight, a
four-bit scale for each 32 elements.
*/

use super::c_arithmetic::{self as c, f16_bits};
use super::encode_blocks as walk;
use super::encode_grid::{self, Grid};
use super::encode_grid_fit::{
    GridSearch, Group, Regrid, scale_level, split_even_signs, split_signs,
};

const LEN: usize = 256;

/// What the search of a group leaves to be packed.
#[derive(Clone, Copy)]
struct Fit {
    scale: f32,
    indices: [u16; 8],
    signs: [u8; 4],
}

impl Fit {
    const ZERO: Self = Self { scale: 0.0, indices: [0; 8], signs: [0; 4] };
}

/// How the two types differ.
struct Kind {
    grid: &'static Grid<4>,
    search: GridSearch,
    /// Seven sign bits for eight values, their number even.
    even_signs: bool,
    /// Whether a group of this largest magnitude counts as zero.
    is_zero: fn(f32) -> bool,
}

/// Fits one group; `None` for a group of zeros.
fn fit(kind: &Kind, x: &[[f32; 8]], weights: &[[f32; 8]]) -> Option<Fit> {
    let mut magnitudes = [[0.0; 8]; 4];
    let mut signs = [0; 4];
    for row in 0..4 {
        (magnitudes[row], signs[row]) = if kind.even_signs {
            split_even_signs(&x[row], &weights[row])
        } else {
            split_signs(&x[row])
        };
    }
    let flat = magnitudes.as_flattened();
    let largest = flat[1..].iter().fold(flat[0], |largest, &x| c::max(largest, x));
    if (kind.is_zero)(largest) {
        return None;
    }
    let mut group = Group { x: [[0.0; 4]; 8], weights: [[0.0; 4]; 8], row_weights: [[0.0; 4]; 8] };
    group.x.as_flattened_mut().copy_from_slice(flat);
    group.weights.as_flattened_mut().copy_from_slice(weights.as_flattened());
    group.row_weights = group.weights.map(|row| row.map(f32::sqrt));
    let mut codes = [0; 8];
    let scale = group.fit(kind.grid, kind.search, (largest / 15.0, largest), &mut codes);
    let indices = codes.map(|code| kind.grid.index(code));
    let mask = if kind.even_signs { 127 } else { 255 };
    Some(if scale < 0.0 {
        Fit { scale: -scale, indices, signs: signs.map(|signs| !signs & mask) }
    } else {
        Fit { scale, indices, signs }
    })
}

/// Fits the eight groups of a block.
fn fit_block(kind: &Kind, x: &[f32; LEN], weights: &[f32; LEN]) -> [Option<Fit>; 8] {
    let mut fits = [None; 8];
    let groups = x.as_chunks::<8>().0.chunks(4).zip(weights.as_chunks::<8>().0.chunks(4));
    for (to, (x, weights)) in fits.iter_mut().zip(groups) {
        *to = fit(kind, x, weights);
    }
    fits
}

/// The groups' scales, 0 for a group of zeros, and the largest.
fn scales(fits: &[Option<Fit>; 8]) -> ([f32; 8], f32) {
    let scales = fits.map(|fit| fit.map_or(0.0, |fit| fit.scale));
    (scales, scales.iter().fold(0.0, |largest, &scale| c::max(largest, scale)))
}

/// One IQ3_XXS block from its weights.
fn iq3_xxs_block(x: &[f32; LEN], weights: &[f32; LEN], block: &mut [u8; 98]) {
    /// ggml's correction of the block's scale, found by trial.
    const CORRECTION: f32 = 1.0125;
    let kind = Kind {
        grid: encode_grid::iq3_xxs(),
        search: GridSearch { levels: 8, tries: 15, step: 0.2, regrid: Regrid::Off },
        even_signs: true,
        is_zero: |largest| largest < 1e-8,
    };
    let fits = fit_block(&kind, x, weights);
    block.fill(0);
    let (scales, largest) = scales(&fits);
    if largest == 0.0 {
        return;
    }
    let d = largest / 31.0;
    let inverse = 1.0 / d;
    block[..2].copy_from_slice(&f16_bits(d * CORRECTION).to_le_bytes());
    let (rows, words) = block[2..].split_at_mut(64);
    let bytes = rows.as_chunks_mut::<8>().0.iter_mut().zip(words.as_chunks_mut::<4>().0);
    for ((fit, scale), (rows, word)) in fits.iter().zip(scales).zip(bytes) {
        let fit = fit.unwrap_or(Fit::ZERO);
        *rows = fit.indices.map(|index| index as u8);
        let level = u32::from(scale_level(inverse, scale, 15)) << 28;
        let signs = fit.signs.iter().rev().fold(0, |word, &signs| word << 7 | u32::from(signs));
        *word = (level | signs).to_le_bytes();
    }
}

/// One IQ3_S block from its weights.
fn iq3_s_block(x: &[f32; LEN], weights: &[f32; LEN], block: &mut [u8; 110]) {
    /// ggml's correction of the block's scale, found by trial.
    const CORRECTION: f32 = 1.033;
    let kind = Kind {
        grid: encode_grid::iq3_s(),
        search: GridSearch { levels: 8, tries: 9, step: 0.2, regrid: Regrid::AllIfAnyOff },
        even_signs: false,
        is_zero: |largest| largest == 0.0,
    };
    let fits = fit_block(&kind, x, weights);
    block.fill(0);
    let (rows, rest) = block[2..].split_at_mut(64);
    let (high, rest) = rest.split_at_mut(8);
    let (signs, _) = rest.split_at_mut(32);
    // A group of zeros takes no room: in ggml the later groups' low index bits and signs move up,
    // while the high bits stay in place.
    let mut to = rows.as_chunks_mut::<8>().0.iter_mut().zip(signs.as_chunks_mut::<4>().0);
    for (fit, high) in fits.iter().zip(high) {
        let Some(fit) = fit else { continue };
        if let Some((rows, signs)) = to.next() {
            *rows = fit.indices.map(|index| index as u8);
            *signs = fit.signs;
        }
        *high = fit.indices.iter().rev().fold(0, |bits, index| bits << 1 | (index >> 8) as u8);
    }
    let (scales, largest) = scales(&fits);
    if largest == 0.0 {
        return;
    }
    let d = largest / 31.0;
    let inverse = 1.0 / d;
    block[..2].copy_from_slice(&f16_bits(d * CORRECTION).to_le_bytes());
    for (byte, pair) in block[106..].iter_mut().zip(scales.as_chunks::<2>().0) {
        let [low, high] = pair.map(|scale| scale_level(inverse, scale, 15));
        *byte = low | high << 4;
    }
}

/// The weights without an importance matrix.
fn squares(x: &[f32; LEN]) -> [f32; LEN] {
    x.map(|x| x * x)
}

/// `IQ3_XXS`, the reference quantizer.
pub fn iq3_xxs(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x, block| iq3_xxs_block(x, &squares(x), block));
}

/// `IQ3_XXS` with an importance matrix.
pub fn iq3_xxs_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x: &[f32; LEN], columns, block| {
        walk::importance(x, columns, 2.0 * c::sum_of_squares(x) / 256.0, &mut weights);
        iq3_xxs_block(x, &weights, block);
    });
}

/// `IQ3_S`, the reference quantizer.
pub fn iq3_s(values: &[f32], blocks: &mut [u8]) {
    walk::each(values, blocks, |x, block| iq3_s_block(x, &squares(x), block));
}

/// `IQ3_S` with an importance matrix.
pub fn iq3_s_weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
    let mut weights = [0.0; LEN];
    walk::each_weighted(values, column_weights, blocks, |x: &[f32; LEN], columns, block| {
        walk::importance(x, columns, 2.0 * c::sum_of_squares(x) / 256.0, &mut weights);
        iq3_s_block(x, &weights, block);
    });
}

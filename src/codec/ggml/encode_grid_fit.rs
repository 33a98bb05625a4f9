/*!
The search that IQ2 and IQ3 share: a scale for a group of magnitudes whose rows lie on a grid.

For each trial scale every row is rounded, and moved to the nearest grid point if it is off the grid;
the trial with the best weighted correlation wins. Signs are taken off before and stored apart.
*/

use super::c_arithmetic::nearest_int;
use super::encode_grid::{Grid, costs};
use crate::codec::isa::Isa;
use crate::codec::simd::{self, Kernel};

/// Trials that are summed up side by side.
const TRIALS: usize = 8;

/// Which rows are placed on the grid anew under the winning scale.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Regrid {
    /// Every row.
    All,
    /// Every row, if no trial won or any row had been off the grid.
    AllIfAnyOff,
    /// The rows that had been off the grid.
    Off,
}

/// What a search tries.
#[derive(Clone, Copy)]
pub(super) struct GridSearch {
    /// One more than the highest level.
    pub levels: i32,
    /// Trials on either side of the middle one.
    pub tries: i32,
    /// How much the magnitude of the maximum changes from trial to trial, in steps of a level's half.
    pub step: f32,
    /// The last refinement.
    pub regrid: Regrid,
}

/// A group of `ROWS` rows of `WIDTH` elements, ready to search.
pub(super) struct Group<const ROWS: usize, const WIDTH: usize> {
    /// Magnitudes; one a row is negative where the row's signs were made even.
    pub x: [[f32; WIDTH]; ROWS],
    /// The weights of the sums.
    pub weights: [[f32; WIDTH]; ROWS],
    /// The weights within a row, to choose a grid point: the square roots.
    pub row_weights: [[f32; WIDTH]; ROWS],
}

impl<const ROWS: usize, const WIDTH: usize> Group<ROWS, WIDTH> {
    /// The magnitudes of the levels: 2 l + 1.
    const VALUES: [f32; 8] = Grid::<WIDTH>::repeat([1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]);

    /// The weighted sums of value * x and value^2 for the rows' codes, of several trials side by side.
    #[inline(always)]
    fn sums(&self, isa: impl Isa, codes: &[[u32; TRIALS]; ROWS]) -> ([f32; TRIALS], [f32; TRIALS]) {
        let (mut sum_qx, mut sum_q2) = ([0.0; TRIALS], [0.0; TRIALS]);
        for ((x, weights), codes) in self.x.iter().zip(&self.weights).zip(codes) {
            for (i, (x, w)) in x.iter().zip(weights).enumerate() {
                let levels = Grid::<WIDTH>::levels(*codes, i);
                let values = isa.look_up_f32(&Self::VALUES, levels);
                for ((sum_qx, sum_q2), q) in sum_qx.iter_mut().zip(&mut sum_q2).zip(values) {
                    *sum_qx += w * x * q;
                    *sum_q2 += w * q * q;
                }
            }
        }
        (sum_qx, sum_q2)
    }

    /// Row `row` rounded under several scales, given as their inverses.
    #[inline(always)]
    fn round(&self, row: usize, levels: i32, inverses: &[f32; TRIALS]) -> [u32; TRIALS] {
        let mut codes = [0; TRIALS];
        for (i, x) in self.x[row].iter().enumerate() {
            for (code, inverse) in codes.iter_mut().zip(inverses) {
                let level = nearest_int(0.5 * (inverse * x - 1.0)).min(levels - 1).max(0);
                *code |= (level as u32) << (Grid::<WIDTH>::BITS * i);
            }
        }
        codes
    }

    /// The point for row `row` under a scale, and whether its rounded `code` is one.
    #[inline(always)]
    fn place(
        &self,
        isa: impl Isa,
        grid: &Grid<WIDTH>,
        code: u32,
        scale: f32,
        row: usize,
    ) -> (u16, bool) {
        let code = code as u16;
        if grid.contains(code) {
            return (code, true);
        }
        let costs = costs(scale, &Self::VALUES, &self.x[row], &self.row_weights[row]);
        (grid.nearest(isa, code, &costs), false)
    }

    /// Searches for the group's scale and puts the rows' points into `codes`; `middle` is the scale
    /// if no trial does better than nothing, and `largest` what the trials map to the top value.
    pub fn fit(
        &self,
        grid: &Grid<WIDTH>,
        search: GridSearch,
        scales: (f32, f32),
        codes: &mut [u16; ROWS],
    ) -> f32 {
        simd::dispatch(Fit { group: self, grid, search, scales, codes })
    }
}

/// [`Group::fit`] as a kernel.
struct Fit<'a, const ROWS: usize, const WIDTH: usize> {
    group: &'a Group<ROWS, WIDTH>,
    grid: &'a Grid<WIDTH>,
    search: GridSearch,
    scales: (f32, f32),
    codes: &'a mut [u16; ROWS],
}

impl<const ROWS: usize, const WIDTH: usize> Kernel for Fit<'_, ROWS, WIDTH> {
    type Output = f32;

    #[inline(always)]
    fn run(self, isa: impl Isa) -> f32 {
        let Self { group, grid, search, scales: (middle, largest), codes } = self;
        let top_value = (2 * search.levels - 1) as f32;
        let (mut scale, mut best) = (middle, 0.0);
        let mut on_grid = [search.regrid == Regrid::Off; ROWS];
        *codes = [0; ROWS];
        for first in (-search.tries..=search.tries).step_by(TRIALS) {
            let trials = first..(first + TRIALS as i32).min(search.tries + 1);
            let mut trial_codes = [[0; TRIALS]; ROWS];
            let mut trial_on_grid = [[false; TRIALS]; ROWS];
            let inverses: [f32; TRIALS] = std::array::from_fn(|at| {
                (top_value + (first + at as i32) as f32 * search.step) / largest
            });
            for row in 0..ROWS {
                let rounded = group.round(row, search.levels, &inverses);
                for at in 0..trials.len() {
                    let scale = 1.0 / inverses[at];
                    let (code, on) = group.place(isa, grid, rounded[at], scale, row);
                    trial_codes[row][at] = u32::from(code);
                    trial_on_grid[row][at] = on;
                }
            }
            let (sum_qx, sum_q2) = group.sums(isa, &trial_codes);
            for at in 0..trials.len() {
                let (sum_qx, sum_q2) = (sum_qx[at], sum_q2[at]);
                if sum_q2 > 0.0 && sum_qx * sum_qx > best * sum_q2 {
                    scale = sum_qx / sum_q2;
                    best = scale * sum_qx;
                    for row in 0..ROWS {
                        codes[row] = trial_codes[row][at] as u16;
                        on_grid[row] = trial_on_grid[row][at];
                    }
                }
            }
        }
        if search.regrid == Regrid::All {
            on_grid = [false; ROWS];
        }
        if scale > 0.0 && on_grid.contains(&false) {
            if search.regrid != Regrid::Off {
                on_grid = [false; ROWS];
            }
            let inverses = [1.0 / scale; TRIALS];
            for row in (0..ROWS).filter(|&row| !on_grid[row]) {
                let [rounded, ..] = group.round(row, search.levels, &inverses);
                codes[row] = group.place(isa, grid, rounded, scale, row).0;
            }
            let mut last = [[0; TRIALS]; ROWS];
            for (last, &mut code) in last.iter_mut().zip(codes) {
                last[0] = u32::from(code);
            }
            let ([sum_qx, ..], [sum_q2, ..]) = group.sums(isa, &last);
            if sum_q2 > 0.0 {
                scale = sum_qx / sum_q2;
            }
        }
        scale
    }
}

/// Takes the signs off eight values: magnitudes, and a bit set for each value that is not >= 0.
#[inline]
pub(super) fn split_signs(x: &[f32; 8]) -> ([f32; 8], u8) {
    let mut signs = 0;
    let magnitudes = std::array::from_fn(|i| {
        if x[i] >= 0.0 {
            x[i]
        } else {
            signs |= 1 << i;
            -x[i]
        }
    });
    (magnitudes, signs)
}

/// As [`split_signs`], with an even number of set bits, of which the lower seven are stored: if need
/// be, the value that matters least takes the wrong sign, its magnitude becoming negative.
#[inline]
pub(super) fn split_even_signs(x: &[f32; 8], weights: &[f32; 8]) -> ([f32; 8], u8) {
    let (mut magnitudes, mut signs) = split_signs(x);
    if signs.count_ones() % 2 == 1 {
        let mut least = 0;
        let mut smallest = weights[0] * x[0] * x[0];
        for i in 1..8 {
            let loss = weights[i] * x[i] * x[i];
            if loss < smallest {
                (smallest, least) = (loss, i);
            }
        }
        magnitudes[least] = -magnitudes[least];
        signs ^= 1 << least;
    }
    (magnitudes, signs & 127)
}

/// The four-bit level of a group's scale, scale = d (2 level + 1).
#[inline]
pub(super) fn scale_level(inverse: f32, scale: f32, top: i32) -> u8 {
    nearest_int(0.5 * (inverse * scale - 1.0)).min(top).max(0) as u8
}

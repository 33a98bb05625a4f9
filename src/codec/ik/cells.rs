/*!
Books of vectors, sorted into cells so that the entry nearest to a vector is found without a look at all
of them.

Each axis is cut by the same walls, and a cell has the entries that lie between the same ones on every
axis. A search looks through the cell that a vector lies in, then through those behind its nearest walls,
and leaves out a cell whose walls are farther away than the best entry so far. That is not always the
nearest of all, but nearly so, at a small part of the cost; without walls there is one cell, and it is.
*/

use crate::codec::isa::Isa;
use crate::codec::simd::{Kernel, dispatch};

/// Entries that are looked at together.
const LANES: usize = 16;

/// Walls that a search looks across, one by one and together.
const ACROSS: usize = 3;

/// Entries side by side: their codes, and value `i` of each, for each `i`.
#[derive(Clone)]
struct Lanes<const DIM: usize> {
    codes: [u32; LANES],
    values: [[f32; LANES]; DIM],
}

/// A book sorted into cells.
pub(super) struct Cells<const DIM: usize> {
    /// Where every axis is cut.
    walls: &'static [f32],
    /// The entries of each cell, the last lanes filled up with the last entry.
    cells: Vec<Vec<Lanes<DIM>>>,
}

impl<const DIM: usize> Cells<DIM> {
    /// A book of entries, whose codes are 0, 1, ….
    pub fn new(entries: impl Iterator<Item = [f32; DIM]>, walls: &'static [f32]) -> Self {
        let parts = walls.len() + 1;
        let mut members = vec![Vec::new(); parts.pow(DIM as u32)];
        let part = |value: f32| walls.iter().filter(|&&wall| value > wall).count();
        for (code, entry) in (0..).zip(entries) {
            let cell = entry.iter().fold(0, |cell, &value| cell * parts + part(value));
            members[cell].push((code, entry));
        }
        let lanes = |members: &[(u32, [f32; DIM])]| {
            let member = |lane: usize| members[lane.min(members.len() - 1)];
            Lanes {
                codes: std::array::from_fn(|lane| member(lane).0),
                values: std::array::from_fn(|i| std::array::from_fn(|lane| member(lane).1[i])),
            }
        };
        let cells = members.iter().map(|members| members.chunks(LANES).map(lanes).collect());
        Self { walls, cells: cells.collect() }
    }

    /// The code of the entry nearest to `y` under the weights, or of one nearly as near.
    pub fn nearest(&self, y: &[f32; DIM], weights: &[f32; DIM]) -> u32 {
        dispatch(Nearest { book: self, y, weights })
    }
}

/// Finds the entry nearest to `y` among those of the nearest cells, the first of several alike.
struct Nearest<'a, const DIM: usize> {
    book: &'a Cells<DIM>,
    y: &'a [f32; DIM],
    weights: &'a [f32; DIM],
}

impl<const DIM: usize> Kernel for Nearest<'_, DIM> {
    type Output = u32;

    #[inline(always)]
    fn run(self, _isa: impl Isa) -> u32 {
        let Self { book, y, weights } = self;
        // The cell that y lies in, and the nearest wall of each axis: what to cross it costs, and which
        // cell lies behind it.
        let parts = book.walls.len() + 1;
        let (mut cell, mut stride) = (0, 1);
        let mut across = [(f32::INFINITY, 0isize); DIM];
        for i in (0..DIM).rev() {
            for &wall in book.walls {
                let above = y[i] > wall;
                cell += stride * usize::from(above);
                let cost = weights[i] * (y[i] - wall) * (y[i] - wall);
                if cost < across[i].0 {
                    let step = stride as isize;
                    across[i] = (cost, if above { -step } else { step });
                }
            }
            stride *= parts;
        }
        // The nearest walls first.
        for first in 0..ACROSS.min(DIM) {
            for other in first + 1..DIM {
                if across[other].0 < across[first].0 {
                    across.swap(first, other);
                }
            }
        }
        let mut best = ([f32::INFINITY; LANES], [0u32; LANES]);
        let mut least = f32::INFINITY;
        for chosen in 0..1usize << ACROSS.min(DIM) {
            let (mut cost, mut at) = (0.0, cell as isize);
            for (wall, (more, step)) in across[..ACROSS.min(DIM)].iter().enumerate() {
                if chosen >> wall & 1 == 1 {
                    cost += more;
                    at += step;
                }
            }
            if cost >= least {
                continue;
            }
            let Some(entries) = book.cells.get(at as usize) else { continue };
            for lanes in entries {
                let mut errors = [0.0f32; LANES];
                for ((values, y), w) in lanes.values.iter().zip(y).zip(weights) {
                    for (error, value) in errors.iter_mut().zip(values) {
                        let difference = value - y;
                        *error += w * difference * difference;
                    }
                }
                let found = best.0.iter_mut().zip(&mut best.1);
                for ((least, code), (error, other)) in found.zip(errors.iter().zip(&lanes.codes)) {
                    let better = error < least;
                    *least = if better { *error } else { *least };
                    *code = if better { *other } else { *code };
                }
            }
            least = best.0.into_iter().fold(f32::INFINITY, f32::min);
        }
        let lane = best.0.iter().position(|error| *error == least).unwrap_or(0);
        best.1[lane]
    }
}

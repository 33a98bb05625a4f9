/*!
The grids of the IQ types as the encoders search them: which point of a grid lies nearest.

A point is eight (IQ1, IQ2) or four (IQ3) levels, packed into a code of 2 or 3 bits a level, the first
element lowest; level l stands for the magnitude 2 l + 1. Only some codes are on a grid. For every
other code ggml prepares its neighbours, the points of the grid at the two or three smallest
distances, and searches those alone; their order decides ties. The tables are built at first use.
*/

use std::sync::OnceLock;

use super::grids;
use crate::codec::isa::Isa;

/// Neighbours that are looked at together.
const LANES: usize = 8;

/// A grid of points of `WIDTH` levels.
pub(super) struct Grid<const WIDTH: usize> {
    /// Codes of the points, by index; the index is what a block stores.
    codes: &'static [u16],
    /// What to do for each code.
    places: Vec<Place>,
    /// The neighbours of all codes that are not on the grid, one list after another, nearest first,
    /// by index within a distance; the last is repeated until the list has a multiple of `LANES`.
    neighbours: Vec<u16>,
}

/// What a code is to a grid.
#[derive(Clone, Copy)]
enum Place {
    /// A point, with its index.
    On(u16),
    /// No point: its neighbours are these of the list.
    Off { start: u32, end: u32 },
}

/// The error of each element at each level, to choose a point by the sum.
pub(super) type Costs<const WIDTH: usize> = [[f32; 8]; WIDTH];

impl<const WIDTH: usize> Grid<WIDTH> {
    /// Bits of a level within a code.
    pub const BITS: usize = if WIDTH == 8 { 2 } else { 3 };
    /// The bits of the lowest level.
    const LEVEL: u32 = (1 << Self::BITS) - 1;

    /// Prepares a grid whose points use levels below `levels`, with the neighbours at the
    /// `distances` smallest distances.
    fn new(codes: &'static [u16], levels: u16, distances: usize) -> Self {
        let mut places = vec![Place::Off { start: 0, end: 0 }; 1 << (Self::BITS * WIDTH)];
        for (index, &code) in codes.iter().enumerate() {
            places[usize::from(code)] = Place::On(index as u16);
        }
        // The distance of a code to a point is that of its lower half and that of its upper half. For
        // each half and each distance, a set of the points there: bits by index.
        let half = Self::BITS * WIDTH / 2;
        let mask = (1usize << half) - 1;
        let is_reachable =
            |code: usize| (0..WIDTH).all(|i| Self::level(code as u16, i) < usize::from(levels));
        let farthest = WIDTH / 2 * usize::from(levels - 1).pow(2);
        let words = codes.len().div_ceil(64);
        let halves = |shift: usize| {
            let mut sets = vec![0u64; (mask + 1) * (farthest + 1) * words];
            let of_halves = sets.chunks_mut((farthest + 1) * words).enumerate();
            for (from, sets) in of_halves.filter(|(from, _)| is_reachable(*from)) {
                let distances: Vec<usize> =
                    (0..=mask).map(|to| Self::distance(from as u16, to as u16).into()).collect();
                for (index, &point) in codes.iter().enumerate() {
                    let distance = distances[usize::from(point) >> shift & mask];
                    sets[distance * words + index / 64] |= 1 << (index % 64);
                }
            }
            sets
        };
        let (lower, upper) = (halves(0), halves(half));
        let set = |half: usize, distance: usize| {
            let start = (half * (farthest + 1) + distance) * words;
            start..start + words
        };
        let mut neighbours: Vec<u16> = Vec::new();
        let mut there = vec![0u64; words];
        for code in 0..places.len() {
            if !matches!(places[code], Place::Off { .. }) || !is_reachable(code) {
                continue;
            }
            let start = neighbours.len();
            let mut found = 0;
            for distance in 0..=2 * farthest {
                there.fill(0);
                for of_lower in distance.saturating_sub(farthest)..=distance.min(farthest) {
                    let lower = &lower[set(code & mask, of_lower)];
                    let upper = &upper[set(code >> half, distance - of_lower)];
                    for ((there, lower), upper) in there.iter_mut().zip(lower).zip(upper) {
                        *there |= lower & upper;
                    }
                }
                for (word, &bits) in there.iter().enumerate() {
                    let mut bits = bits;
                    while bits != 0 {
                        neighbours.push(codes[64 * word + bits.trailing_zeros() as usize]);
                        bits &= bits - 1;
                    }
                }
                found += usize::from(there.iter().any(|&bits| bits != 0));
                if found == distances {
                    break;
                }
            }
            if let Some(&last) = neighbours.last() {
                let filled = (neighbours.len() - start).next_multiple_of(LANES);
                neighbours.resize(start + filled, last);
            }
            places[code] = Place::Off { start: start as u32, end: neighbours.len() as u32 };
        }
        Self { codes, places, neighbours }
    }

    /// The squared distance of two codes, in levels.
    fn distance(a: u16, b: u16) -> u8 {
        (0..WIDTH).map(|i| Self::level(a, i).abs_diff(Self::level(b, i)).pow(2) as u8).sum()
    }

    /// The level of element `i`.
    #[inline(always)]
    pub fn level(code: u16, i: usize) -> usize {
        usize::from(code) >> (Self::BITS * i) & Self::LEVEL as usize
    }

    /// The levels of element `i` of eight codes, to look up by: in their lower three bits, of which
    /// the third is another element's if a level has two. Tables for it are [repeated](Self::repeat).
    #[inline(always)]
    pub fn levels(codes: [u32; 8], i: usize) -> [u32; 8] {
        codes.map(|code| code >> (Self::BITS * i))
    }

    /// A table of the levels, so that a third bit does not matter where a level has two.
    #[inline(always)]
    pub const fn repeat(table: [f32; 8]) -> [f32; 8] {
        let [a, b, c, d, ..] = table;
        if WIDTH == 8 { [a, b, c, d, a, b, c, d] } else { table }
    }

    /// The code of `WIDTH` levels.
    #[inline(always)]
    pub fn code(levels: [u8; WIDTH]) -> u16 {
        levels.iter().rev().fold(0, |code, &level| code << Self::BITS | u16::from(level))
    }

    /// The code of the point with this index.
    #[inline(always)]
    pub fn point(&self, index: u16) -> u16 {
        self.codes[usize::from(index)]
    }

    /// The index of the point with this code; 0, which is all lowest levels, for any other code.
    #[inline(always)]
    pub fn index(&self, code: u16) -> u16 {
        match self.places.get(usize::from(code)) {
            Some(&Place::On(index)) => index,
            _ => 0,
        }
    }

    /// Whether a code is a point.
    #[inline(always)]
    pub fn contains(&self, code: u16) -> bool {
        matches!(self.places.get(usize::from(code)), Some(Place::On(_)))
    }

    /// Of the neighbours of a code, the first with the smallest sum of costs.
    ///
    /// If no sum is finite, any point serves: ggml then searches on, or gives up.
    #[inline(always)]
    pub fn nearest(&self, isa: impl Isa, code: u16, costs: &Costs<WIDTH>) -> u16 {
        let Some(&Place::Off { start, end }) = self.places.get(usize::from(code)) else {
            return code;
        };
        let neighbours = &self.neighbours[start as usize..end as usize];
        let (mut least, mut nearest) = (f32::MAX, 0);
        for points in neighbours.as_chunks::<LANES>().0 {
            let codes = points.map(u32::from);
            let mut sums = [0.0; LANES];
            for (i, costs) in costs.iter().enumerate() {
                let costs = isa.look_up_f32(costs, Self::levels(codes, i));
                for (sum, cost) in sums.iter_mut().zip(costs) {
                    *sum += cost;
                }
            }
            let (sum, first) = isa.first_least(sums);
            if sum < least {
                (least, nearest) = (sum, points[first & (LANES - 1)]);
            }
        }
        nearest
    }
}

/// The costs weight * (scale * value - x)^2 of the values of the levels.
#[inline(always)]
pub(super) fn costs<const WIDTH: usize, const LEVELS: usize>(
    scale: f32,
    values: &[f32; LEVELS],
    x: &[f32; WIDTH],
    weights: &[f32; WIDTH],
) -> Costs<WIDTH> {
    let mut costs = [[0.0; 8]; WIDTH];
    for ((costs, &x), &w) in costs.iter_mut().zip(x).zip(weights) {
        for (cost, value) in costs.iter_mut().zip(values) {
            let difference = scale * value - x;
            *cost = w * difference * difference;
        }
        *costs = Grid::<WIDTH>::repeat(*costs);
    }
    costs
}

macro_rules! grid {
    ($(#[$doc:meta])* $name:ident: $width:literal, $codes:ident, $levels:literal, $distances:literal) => {
        $(#[$doc])*
        pub(super) fn $name() -> &'static Grid<$width> {
            static GRID: OnceLock<Grid<$width>> = OnceLock::new();
            GRID.get_or_init(|| Grid::new(&grids::$codes, $levels, $distances))
        }
    };
}
grid! {
    /// The grid of `IQ2_XXS`.
    iq2_xxs: 8, IQ2_XXS_CODES, 3, 2
}
grid! {
    /// The grid of `IQ2_XS`.
    iq2_xs: 8, IQ2_XS_CODES, 3, 2
}
grid! {
    /// The grid of `IQ2_S`.
    iq2_s: 8, IQ2_S_CODES, 3, 1
}
grid! {
    /// The grid of `IQ1_S` and `IQ1_M`.
    iq1: 8, IQ1_CODES, 3, 3
}
grid! {
    /// The grid of `IQ3_XXS`.
    iq3_xxs: 4, IQ3_XXS_CODES, 8, 2
}
grid! {
    /// The grid of `IQ3_S`.
    iq3_s: 4, IQ3_S_CODES, 8, 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::isa::Scalar;

    fn check<const WIDTH: usize>(grid: &Grid<WIDTH>, levels: usize, distances: usize) {
        for (code, place) in grid.places.iter().enumerate() {
            let code = code as u16;
            let Place::Off { start, end } = *place else {
                assert_eq!(grid.point(grid.index(code)), code);
                continue;
            };
            let neighbours = &grid.neighbours[start as usize..end as usize];
            if (0..WIDTH).any(|i| Grid::<WIDTH>::level(code, i) >= levels) {
                assert!(neighbours.is_empty(), "unreachable codes have no list");
                continue;
            }
            let distance = |point: &u16| Grid::<WIDTH>::distance(code, *point);
            assert_eq!(neighbours.len() % LANES, 0, "whole vectors");
            let mut neighbours = neighbours.to_vec();
            neighbours.dedup();
            let key = |point: &u16| (distance(point), grid.index(*point));
            assert!(neighbours.is_sorted_by_key(key), "nearest first, then by index");
            let mut all: Vec<u8> = grid.codes.iter().map(distance).collect();
            all.sort_unstable();
            all.dedup();
            let limit = all[distances.min(all.len()) - 1];
            let expected = grid.codes.iter().filter(|point| distance(point) <= limit).count();
            assert_eq!(neighbours.len(), expected, "every point within the distance");
        }
    }

    #[test]
    fn every_code_knows_its_neighbours() {
        check(iq2_xxs(), 3, 2);
        check(iq2_xs(), 3, 2);
        check(iq2_s(), 3, 1);
        check(iq1(), 3, 3);
        check(iq3_xxs(), 8, 2);
        check(iq3_s(), 8, 3);
    }

    #[test]
    fn costs_that_are_not_finite_still_give_a_point() {
        let off = (0..4096).find(|&code| !iq3_s().contains(code)).unwrap();
        assert!(iq3_s().contains(iq3_s().nearest(Scalar, off, &[[f32::NAN; 8]; 4])));
    }
}

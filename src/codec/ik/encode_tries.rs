/*!
The search of `ik_llama.cpp` for `IQ3_K` to `IQ6_K`, `IQ4_KS` and `IQ5_KS`, which gives the bits of its
scalar code (of `IQ3_K`, nearly so).

A group tries the scales that map its extreme value to whole numbers around the end of the table, in both
forms and with both signs; the levels of the small scales follow from the largest, and the large scale is
corrected by weighted least squares in the end. As there, products are taken from left to right, and sums
in the order of the elements.
*/

use super::encode_fit::{Group, Run};
use crate::codec::ggml::c_arithmetic::{nearest_int, truncate};

/// The search of a type.
pub(super) struct Tries {
    /// Values of the codes, ascending, and those of the second form.
    pub forms: [Vec<f32>; 2],
    /// Values that share a small scale.
    pub group: usize,
    /// So many scales on either side of the table's end.
    pub around: i16,
    /// Whether a group's scale is corrected once more under the codes that it leads to.
    pub refit: bool,
    /// What the mean square of the super-block counts beside a value's own.
    pub variance: f32,
    /// The part of that which counts where there are no importances.
    pub share: f32,
    /// The large scale for the largest small one.
    pub large: fn(f32) -> f32,
    /// The level of a small scale in parts of the large one.
    pub level: fn(f32) -> i32,
    /// The least level, and the distance between levels.
    pub levels: (i32, i32),
    /// The code where a level is zero.
    pub zero: u32,
    /// Whether the terms of two elements half a group apart are added up before they are added to the sums.
    pub pairs: bool,
    /// The level's index where all values are zero, and all codes; none if such a run is like any other.
    pub blank: Option<usize>,
}

/// Elements of a super-block.
const LEN: usize = 256;

/// Σ w q x and Σ w q².
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    above: f32,
    below: f32,
}

impl Sums {
    fn add(&mut self, w: f32, q: f32, x: f32) {
        self.above += w * q * x;
        self.below += w * q * q;
    }

    /// The scale that suits best, if there is one.
    pub fn scale(self) -> Option<f32> {
        (self.below > 0.0).then(|| self.above / self.below)
    }
}

/// How much each value's error counts, in a super-block.
type Weights = [f32; LEN];

impl Tries {
    fn weights(&self, x: &[f32; LEN], importances: Option<&[f32]>) -> Weights {
        let square = x.iter().fold(0.0, |sum, x| sum + x * x);
        let variance = self.variance * square / LEN as f32;
        std::array::from_fn(|i| {
            let square = x[i] * x[i];
            match importances {
                Some(importances) => importances[i] * (variance + square).sqrt(),
                None if self.share == 0.0 => square,
                None => self.share * variance + square,
            }
        })
    }

    /// The code of the nearest value, the upper one if two are as near.
    fn nearest(values: &[f32], y: f32) -> usize {
        // As a cast to an integer in C, which gives the least one.
        if truncate(y) == i32::MIN {
            return 0;
        }
        let last = values.len() - 1;
        let below = values.partition_point(|&value| value <= y).saturating_sub(1).min(last - 1);
        below + usize::from(y - values[below] >= values[below + 1] - y)
    }

    /// The sums for a scale's inverse and for its negative.
    fn try_inverse(values: &[f32], inverse: f32, x: &[f32], weights: &[f32]) -> [Sums; 2] {
        let mut both = [Sums::default(); 2];
        for (&x, &w) in x.iter().zip(weights) {
            let y = inverse * x;
            both[0].add(w, values[Self::nearest(values, y)], x);
            both[1].add(w, values[Self::nearest(values, -y)], x);
        }
        both
    }

    /// Scale and form of a group; the scale is 0 for zeros.
    fn group_scale(&self, x: &[f32], weights: &[f32]) -> (f32, usize) {
        let extreme = x.iter().fold(0.0f32, |e, &x| if x.abs() > e.abs() { x } else { e });
        if extreme == 0.0 {
            return (0.0, 0);
        }
        let [plain, _] = &self.forms;
        let [plus, minus] = Self::try_inverse(plain, 1.0 / (-extreme / plain[0]), x, weights);
        let mut found = (plus.above / plus.below, 0);
        let mut best = found.0 * plus.above;
        let mut take = |sums: Sums, form: usize, found: &mut (f32, usize)| {
            if sums.below > 0.0 && sums.above * sums.above > best * sums.below {
                *found = (sums.above / sums.below, form);
                best = found.0 * sums.above;
            }
        };
        take(minus, 0, &mut found);
        for step in -self.around..=self.around {
            for (form, values) in self.forms.iter().enumerate() {
                let inverse = (f32::from(step) + values[0]) / extreme;
                for sums in Self::try_inverse(values, inverse, x, weights) {
                    take(sums, form, &mut found);
                }
            }
        }
        if self.refit && found.0 != 0.0 {
            let [sums, _] = Self::try_inverse(&self.forms[found.1], 1.0 / found.0, x, weights);
            found.0 = sums.scale().unwrap_or(found.0);
        }
        found
    }

    /// The search in a run of super-blocks under one large scale.
    pub fn run(&self, x: &[f32], importances: Option<&[f32]>) -> Run {
        let blocks = x.as_chunks::<LEN>().0.iter().enumerate();
        let weights: Vec<Weights> = blocks
            .map(|(at, x)| self.weights(x, importances.and_then(|all| all.get(at * LEN..))))
            .collect();
        let weights = weights.as_flattened();
        let groups = || x.chunks_exact(self.group).zip(weights.chunks_exact(self.group));
        let scales: Vec<(f32, usize)> = groups().map(|(x, w)| self.group_scale(x, w)).collect();
        let largest = |e: f32, &(s, _): &(f32, usize)| if s.abs() > e.abs() { s } else { e };
        let extreme = scales.iter().fold(0.0, largest);
        let len = self.group;
        if let Some(level) = self.blank.filter(|_| extreme == 0.0) {
            let group = Group { level, form: 0, codes: vec![0; len] };
            return Run { scale: 0.0, groups: vec![group; scales.len()] };
        }
        let scale = (self.large)(extreme);
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let mut sums = Sums::default();
        let mut found = Vec::with_capacity(scales.len());
        for ((x, weights), (small, form)) in groups().zip(scales) {
            let level = (self.level)(inverse * small);
            found.push(self.group_at(scale, (level, form), (x, weights), &mut sums));
        }
        Run { scale: sums.scale().unwrap_or(scale), groups: found }
    }

    /// Codes of a group under a level of the large scale and a form, which add to the sums.
    fn group_at(
        &self,
        large: f32,
        (level, form): (i32, usize),
        (x, weights): (&[f32], &[f32]),
        sums: &mut Sums,
    ) -> Group {
        let (least, step) = self.levels;
        let index = ((level - least) / step) as usize;
        let scale = large * level as f32;
        if scale == 0.0 {
            return Group { level: index, form, codes: vec![self.zero; x.len()] };
        }
        let values = &self.forms[form];
        let inverse = 1.0 / scale;
        let codes: Vec<u32> = x.iter().map(|x| Self::nearest(values, inverse * x) as u32).collect();
        let term = |i: usize| {
            let (w, q) = (weights[i], values[codes[i] as usize] * level as f32);
            [w * q * x[i], w * q * q]
        };
        if self.pairs {
            let half = x.len() / 2;
            for i in 0..half {
                let ([a, b], [c, d]) = (term(i), term(i + half));
                sums.above += a + c;
                sums.below += b + d;
            }
        } else {
            for [above, below] in (0..x.len()).map(term) {
                sums.above += above;
                sums.below += below;
            }
        }
        Group { level: index, form, codes }
    }
}

/// A level between two others.
pub(super) fn whole(scale: f32, least: i32, most: i32) -> i32 {
    nearest_int(scale).clamp(least, most)
}

/*!
The levels of a tensor's own grid, and where an element is on them.

Some tools choose codes with scales that are rounded to their stored type only afterwards (MLX in BF16): the
grid in the file is then not quite the one that was used. How far it can be off is known from the type.
*/

use crate::model::Rounding;

/// Displacements below this part of a step are the arithmetic's own rounding.
const EXACT: f64 = 0.01;

/// So far from half way between two levels either is the nearest, where scales were rounded after the codes were
/// chosen; where they matter more, it is found how far they were.
const SLIGHT: f64 = 0.1;

/// How far the scale that fits codes best, where some columns count for more, may be from the one that they were
/// chosen with: a code of c is right from c - 1/2 to c + 1/2 steps, and of codes up to 2 about half are off.
const REFITTED: f64 = 1.0 / 3.0;

/// Levels of the types whose codes are not chosen again.
const REFITTED_LEVELS: usize = 32;

/// Scales that are tried to either side.
const TRIED: i32 = 8;

/// Levels from which on symmetric quantizers often leave the lowest one out (-127 to 127).
const WIDE: usize = 16;

/// The levels of a grid.
pub struct Ladder {
    levels: Vec<f64>,
    /// The distance of all neighbours, if it is one.
    even: Option<f64>,
    /// Where to look for a value among levels that are not even.
    places: Places,
    /// How far its stored scales may be from those that the codes were chosen with.
    rounding: Rounding,
}

/// One element on its grid.
pub struct Placed {
    /// The nearest level.
    pub nearest: f64,
    /// How far the quantized value is from it; 0 if it is as near to the reference.
    pub d: f64,
    /// The distance of the two levels that the reference lies between.
    pub step: f64,
    /// Where the quantized value is between the lowest level, 0, and the highest, 1.
    pub height: f64,
    /// Index of the level nearest to the quantized value; none if the grid is a single value.
    pub code: Option<usize>,
}

impl Placed {
    /// The nearest level; exactly zero, if that is one.
    pub fn level(&self) -> f32 {
        if self.nearest.abs() < EXACT * self.step { 0.0 } else { self.nearest as f32 }
    }
}

/// One element: of the reference, as quantized, and the ends of its grid.
#[derive(Clone, Copy, Debug)]
pub struct Element {
    /// The reference.
    pub r: f64,
    /// As quantized.
    pub q: f64,
    /// The lowest level.
    pub low: f64,
    /// The highest one.
    pub high: f64,
}

impl Element {
    /// The same with the other sign of its value and of its scale.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { r: self.r, q: -self.q, low: -self.low, high: -self.high }
    }

    /// The same with its code counted from the other end.
    #[must_use]
    pub fn reflected(self) -> Self {
        Self { q: self.low + self.high - self.q, ..self }
    }
}

/// How far the scale and the offset of a group are from those that its codes were chosen with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drift {
    scale: f64,
    offset: f64,
}

impl Ladder {
    /// Of these levels, ascending, if there are two.
    pub fn new(levels: &[f32], rounding: Rounding) -> Option<Self> {
        let levels: Vec<f64> = levels.iter().map(|&level| f64::from(level)).collect();
        let (first, last) = (*levels.first()?, *levels.last()?);
        let even = (last - first) / (levels.len().checked_sub(1)?.max(1)) as f64;
        let is_even = levels.windows(2).all(|two| (two[1] - two[0] - even).abs() < 1e-9 * even);
        let even = is_even.then_some(even);
        let places = if is_even { Places::default() } else { Places::of(&levels) };
        (first < last).then_some(Self { levels, even, places, rounding })
    }

    /// The same levels where scales were fitted again to codes that were not chosen again; none if it is so already.
    pub fn refitted(&self) -> Option<Self> {
        if self.levels.len() > REFITTED_LEVELS {
            return None;
        }
        let offset = if self.levels[0] == 0.0 { REFITTED } else { 0.0 };
        let rounding = Rounding { scale: REFITTED, offset, ..self.rounding };
        let (levels, places) = (self.levels.clone(), self.places.clone());
        (self.rounding != rounding).then_some(Self { levels, even: self.even, places, rounding })
    }

    /// Number of levels.
    pub fn count(&self) -> usize {
        self.levels.len()
    }

    /// Whether all neighbours are as far apart.
    pub fn is_even(&self) -> bool {
        self.even.is_some()
    }

    /// Whether rounding the stored scales can have moved no level by more than a small part of a step.
    pub fn is_exact(&self) -> bool {
        let (first, last) = self.ends();
        let gap = self.even.unwrap_or(0.0);
        self.rounding.offset == 0.0
            && self.rounding.scale * first.abs().max(last.abs()) <= SLIGHT * gap
    }

    /// Whether zero is a level of the grid between these ends.
    pub fn has_zero(&self, low: f64, high: f64) -> bool {
        if low == high {
            return low == 0.0 && self.levels[0] < 0.0;
        }
        let steps = (self.levels.len() - 1) as f64;
        let at = -low / (high - low) * steps;
        self.even.is_none() || (at - at.round()).abs() < 1e-3
    }

    /// The first and the last level.
    fn ends(&self) -> (f64, f64) {
        (self.levels[0], self.levels[self.levels.len() - 1])
    }

    /// The distance of neighbouring levels, with its sign, on the grid of an element, if it is one.
    pub fn step(&self, at: &Element) -> Option<f64> {
        let (first, last) = self.ends();
        Some(self.even? * (at.high - at.low) / (last - first))
    }

    /// What the scale of an element is, and what was added to it.
    pub fn scale(&self, at: &Element) -> (f64, f64) {
        let (first, last) = self.ends();
        let scale = (at.high - at.low) / (last - first);
        (scale, at.low - first * scale)
    }

    /// The part of a value that its scale was multiplied with, and the part that was added to it.
    fn parts(&self, at: &Element) -> (f64, f64) {
        if self.rounding.offset == 0.0 {
            return (at.q, 0.0);
        }
        let (first, last) = self.ends();
        let offset = at.low - first * (at.high - at.low) / (last - first);
        (at.q - offset, offset)
    }

    /// How far the value of an element may be from the one that its code was chosen with.
    fn slack(&self, at: &Element) -> f64 {
        let (scaled, offset) = self.parts(at);
        self.rounding.scale * scaled.abs() + self.rounding.offset * offset.abs()
    }

    /// How far the scales that the codes were chosen with are from the stored ones: what explains the errors of
    /// a group best, and no more than rounding them to their stored type can have done. Nothing, where that
    /// is a small part of a step.
    pub fn drift(&self, elements: &(impl Iterator<Item = Element> + Clone)) -> Drift {
        let (mut n, mut x, mut xx, mut e, mut xe) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let (mut offset, mut matters, mut left) = (0f64, false, 0.0);
        for at in elements.clone() {
            let placed = self.place(&at, &Drift::default());
            let step = placed.step;
            left += placed.d * placed.d;
            if step == 0.0 || at.r < at.low.min(at.high) - step || at.r > at.low.max(at.high) + step
            {
                continue;
            }
            let (scaled, added) = self.parts(&at);
            let error = at.q - at.r;
            matters |= self.slack(&at) > SLIGHT * step;
            offset = added;
            n += 1.0;
            x += scaled;
            xx += scaled * scaled;
            e += error;
            xe += scaled * error;
        }
        if left == 0.0 || !matters || xx == 0.0 {
            return Drift::default();
        }
        let spread = n * xx - x * x;
        let most = self.rounding.offset * offset.abs();
        let fitted = if spread > 0.0 { (xx * e - x * xe) / spread } else { 0.0 };
        let offset = fitted.clamp(-most, most);
        let most = self.rounding.scale;
        let drift = Drift { scale: ((xe - offset * x) / xx).clamp(-most, most), offset };
        // Who rounds otherwise than to nearest has errors that no scale explains.
        let displaced = |drift: &Drift| {
            elements.clone().map(|at| self.place(&at, drift).d.powi(2)).sum::<f64>()
        };
        let mut best = (left, Drift::default());
        let mut consider = |drift: Drift| {
            let left = displaced(&drift);
            if left < best.0 {
                best = (left, drift);
            }
            best.0 > 0.0
        };
        // Where it may be far off, weights that were clipped hide it.
        if consider(drift) && most >= REFITTED {
            (-TRIED..=TRIED).all(|at| {
                consider(Drift { scale: most * f64::from(at) / f64::from(TRIED), ..drift })
            });
        }
        best.1
    }

    /// The largest magnitude of which nothing is left, since the type that scales are stored in rounds its own to
    /// nothing.
    pub fn lost_below(&self) -> f64 {
        let (first, last) = self.ends();
        self.rounding.least * first.abs().max(last.abs())
    }

    /// The levels between these ends.
    pub fn between(&self, low: f64, high: f64) -> Rungs<'_> {
        let (first, last) = self.ends();
        let scale = (high - low) / (last - first);
        let is_one = scale == 0.0 || !scale.is_finite();
        let step = self.even.map_or(0.0, |even| even * scale);
        let [per_scale, per_step, per_height] = [scale, step, high - low].map(f64::recip);
        let is_stored = self.rounding.scale == 0.0 && self.rounding.offset == 0.0;
        let is_lopsided = (low + high + step).abs() < EXACT * step.abs();
        let lowest_is_spare = self.even.is_some() && self.levels.len() >= WIDE && is_lopsided;
        Rungs {
            lowest_is_spare,
            ladder: self,
            low,
            high,
            scale,
            step,
            per_scale,
            per_step,
            per_height,
            is_one,
            is_stored,
        }
    }

    /// Where an element is, on the grid whose scales have drifted since its code was chosen.
    pub fn place(&self, at: &Element, drift: &Drift) -> Placed {
        self.between(at.low, at.high).place(at.r, at.q, drift)
    }
}

/// The levels of a ladder under one scale.
pub struct Rungs<'l> {
    ladder: &'l Ladder,
    low: f64,
    high: f64,
    scale: f64,
    /// Of even levels.
    step: f64,
    per_scale: f64,
    per_step: f64,
    per_height: f64,
    /// Whether all levels are one.
    is_one: bool,
    /// Whether codes were chosen with the very scales that are stored.
    is_stored: bool,
    /// Whether there is one level more below zero than above, which many quantizers never use.
    lowest_is_spare: bool,
}

impl Rungs<'_> {
    /// Goes on between two ends, which most neighbours have in common.
    pub fn move_to(&mut self, low: f64, high: f64) {
        if (self.low, self.high) != (low, high) {
            *self = self.ladder.between(low, high);
        }
    }

    /// Where an element of the reference, `r`, is, and as quantized, `q`, if the scales have drifted since its code
    /// was chosen.
    pub fn place(&self, r: f64, q: f64, drift: &Drift) -> Placed {
        if self.is_one {
            return Placed { nearest: self.low, d: 0.0, step: 0.0, height: 0.0, code: None };
        }
        let (mut r, mut slack) = (r, 0.0);
        if !self.is_stored {
            let at = Element { r, q, low: self.low, high: self.high };
            r += drift.offset + drift.scale * self.ladder.parts(&at).0;
            slack = self.ladder.slack(&at);
        }
        let (index, nearest, step) = self.nearest(r);
        let height = (q - self.low) * self.per_height;
        let d = q - nearest;
        if d.abs() < EXACT * step {
            return Placed { nearest, d: 0.0, step, height, code: Some(index) };
        }
        let (code, ..) = self.nearest(q);
        let tie = EXACT * step + (2.0 * slack).min(SLIGHT * step);
        let is_as_near = (q - r).abs() <= (nearest - r).abs() * (1.0 + 1e-5) + tie;
        let is_clipped = self.lowest_is_spare && code == 1 && index == 0;
        let d = if is_as_near || is_clipped { 0.0 } else { d };
        Placed { nearest, d, step, height, code: Some(code) }
    }

    /// The level nearest to a value, its index, and the distance of the two that the value lies between.
    fn nearest(&self, value: f64) -> (usize, f64, f64) {
        let levels = &self.ladder.levels;
        let last = levels.len() - 1;
        if self.ladder.even.is_some() {
            let index = ((value - self.low) * self.per_step).clamp(0.0, last as f64);
            // Half way between two, the upper one.
            let index = (index + 0.5) as u32;
            return (index as usize, self.low + f64::from(index) * self.step, self.step.abs());
        }
        let value = levels[0] + (value - self.low) * self.per_scale;
        let above = self.ladder.places.find(levels, value).clamp(1, last);
        let (a, b) = (levels[above - 1], levels[above]);
        let index = if value - a <= b - value { above - 1 } else { above };
        let nearest = self.low + (levels[index] - levels[0]) * self.scale;
        (index, nearest, ((b - a) * self.scale).abs())
    }
}

/// Where to begin to look for values among levels: for each sign, exponent and three bits of the mantissa.
#[derive(Clone, Default)]
struct Places(Vec<u16>);

impl Places {
    /// Bits of an f32 below those that are looked at.
    const BELOW: u32 = 20;

    fn of(levels: &[f64]) -> Self {
        let count = 1u32 << (32 - Self::BELOW);
        let mut places = vec![0; count as usize];
        let mut at = 0;
        // From the most negative values on.
        for key in (count / 2..count).rev().chain(0..count / 2) {
            let least = if key < count / 2 { 0 } else { (1 << Self::BELOW) - 1 };
            let least = f64::from(f32::from_bits(key << Self::BELOW | least));
            while at < levels.len() && levels[at] < least {
                at += 1;
            }
            places[key as usize] = at as u16;
        }
        Self(places)
    }

    /// The number of levels below a value.
    fn find(&self, levels: &[f64], value: f64) -> usize {
        let mut at = usize::from(self.0[((value as f32).to_bits() >> Self::BELOW) as usize]);
        while at > 0 && levels[at - 1] >= value {
            at -= 1;
        }
        while at < levels.len() && levels[at] < value {
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantizer_may_leave_the_lowest_level_out() {
        let levels = |count: i32| (-count / 2..count / 2).map(|it| it as f32).collect::<Vec<_>>();
        for (count, low, high, r, q, d, why) in [
            (16, -8.0, 7.0, -9.0, -7.0, 0.0, "clipped at minus seven"),
            (16, -8.0, 7.0, -9.0, -8.0, 0.0, "clipped at minus eight"),
            (16, -8.0, 7.0, -9.0, -6.0, 2.0, "two steps off"),
            (16, -4.0, 11.0, -4.2, -3.0, 1.0, "a zero point: the lowest level is as good as any"),
            (4, -2.0, 1.0, -2.0, -1.0, 1.0, "of so few levels each counts"),
        ] {
            let ladder = Ladder::new(&levels(count), Rounding::default()).unwrap();
            let placed = ladder.place(&Element { r, q, low, high }, &Drift::default());
            assert_eq!(placed.d, d, "{why}");
        }
    }

    #[test]
    fn levels_are_found_where_bisection_finds_them() {
        let uneven = [
            vec![-6.0, -1.0, -0.25, 0.0, 0.25, 1.0, 6.0],
            vec![1e-30, 1e-29, 3.0, 3.000_001, 3.1, 1e30],
            (0..200).map(|at| f64::from(at) * f64::from(at) - 1000.0).collect(),
        ];
        for levels in uneven {
            let places = Places::of(&levels);
            let around = levels.iter().flat_map(|level| {
                [-1.0, 0.0, 1.0].map(|way| level * (1.0 + way * f64::EPSILON) + way * 1e-40)
            });
            let wide = (-80..80).map(|at| f64::from(at).powi(5) * 1e-3);
            for value in around.chain(wide).chain([0.0, -0.0, 1e300, -1e300]) {
                let expected = levels.partition_point(|&level| level < value);
                assert_eq!(places.find(&levels, value), expected, "{value} in {levels:?}");
            }
        }
    }
}

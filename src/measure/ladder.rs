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

/// The levels of a grid.
pub struct Ladder {
    levels: Vec<f64>,
    /// The distance of all neighbours, if it is one.
    even: Option<f64>,
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
        (first < last).then_some(Self { levels, even, rounding })
    }

    /// The same levels where scales were fitted again to codes that were not chosen again; none if it is so already.
    pub fn refitted(&self) -> Option<Self> {
        if self.levels.len() > REFITTED_LEVELS {
            return None;
        }
        let offset = if self.levels[0] == 0.0 { REFITTED } else { 0.0 };
        let rounding = Rounding { scale: REFITTED, offset, ..self.rounding };
        let levels = self.levels.clone();
        (self.rounding != rounding).then_some(Self { levels, even: self.even, rounding })
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

    /// The level nearest to `value`, and the distance of the two that it lies between.
    fn nearest(&self, value: f64) -> (f64, f64) {
        let (first, last) = self.ends();
        if let Some(even) = self.even {
            let index = ((value - first) / even).round().clamp(0.0, (self.levels.len() - 1) as f64);
            return (first + index * even, even);
        }
        let above = self.levels.partition_point(|&level| level < value);
        let above = above.clamp(1, self.levels.len() - 1);
        let (a, b) = (self.levels[above - 1], self.levels[above]);
        let nearest = if value - a <= b - value { a } else { b };
        (nearest.clamp(first, last), b - a)
    }

    /// The index of the level nearest to `value`.
    fn code(&self, value: f64) -> usize {
        if let Some(even) = self.even {
            return ((value - self.levels[0]) / even).round().max(0.0) as usize;
        }
        let nearest = self.nearest(value).0;
        self.levels.partition_point(|&level| level < nearest)
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

    /// Where an element is, on the grid whose scales have drifted since its code was chosen.
    pub fn place(&self, at: &Element, drift: &Drift) -> Placed {
        let Element { q, low, high, .. } = *at;
        let (scaled, _) = self.parts(at);
        let r = at.r + drift.offset + drift.scale * scaled;
        let (first, last) = self.ends();
        let scale = (high - low) / (last - first);
        if scale == 0.0 || !scale.is_finite() {
            return Placed { nearest: low, d: 0.0, step: 0.0, height: 0.0, code: None };
        }
        let (level, gap) = self.nearest(first + (r - low) / scale);
        let nearest = low + (level - first) * scale;
        let step = (gap * scale).abs();
        let d = q - nearest;
        let tie = EXACT * step + (2.0 * self.slack(at)).min(SLIGHT * step);
        let is_as_near = (q - r).abs() <= (nearest - r).abs() * (1.0 + 1e-5) + tie;
        let d = if d.abs() < EXACT * step || is_as_near { 0.0 } else { d };
        let code = Some(self.code(first + (q - low) / scale));
        Placed { nearest, d, step, height: (q - low) / (high - low), code }
    }
}

/*!
Faults of a scale, a zero point, a sign, undone on single elements and the grid that they lie on, and the measure
of what is left: how far codes are from the nearest ones of the grid as it then is.
*/

use super::bench::{Bench, Noise};
use super::scales::has_minimums;
use crate::measure::displaced::{Line, Reader};
use crate::measure::ladder::{Drift, Element, Ladder};
use crate::measure::own::median;
use crate::metrics::functions;
use crate::model::{Scratch, Storage, Tensor};

/// Noise beyond that of the nearest levels that rounding to nearest does not come to, in squared steps: a quarter of
/// the elements displaced by one, as the gate `displaced` has it.
const LEAST: f64 = 1.0 / 4.0;

/// What was BF16 on the way is off by up to this part of itself.
const HALF_UNIT: f64 = 1.0 / 256.0;

/// How much more of it than the median row a part may have: error feedback passes errors on, and leaves some rows
/// four times as much.
const ROOM: f64 = 4.0;

/// Most of it in a single part, as the expectation of rows with error feedback has it.
const FARTHEST: f64 = 4.0;

/// The part of the noise that must go for something to have been undone: a factor that fits takes a little off
/// whatever the fault is.
const GONE: f64 = 0.5;

/// Most of it that a way of rounding adds to the median row: where inputs nearly depend on each other, error feedback
/// goes on for steps.
const MOST: f64 = 4.0;

/// Standard errors of a part of few elements.
const SURE: f64 = 3.0;

/// Rows that the median is taken of.
const TYPICAL: usize = 33;

/// A factor by less is none, and a negative one a sign.
const FACTOR: f64 = 0.1;
const SIGN: f64 = 0.5;

/// Times that a factor is fitted, without what was clipped the time before.
const FITS: usize = 3;

/// Rows of a tensor with a grid of its own, element by element.
pub struct Lines<'a> {
    /// What reads more of them.
    pub reader: Reader<'a>,
    /// Rows, ascending, and what was read of each.
    pub rows: Vec<(u64, Line)>,
    /// The first column that was read.
    pub first: u64,
    /// What this file's way of rounding adds to the noise of the nearest levels, in squared steps.
    pub rounding: f64,
    /// What can be undone.
    pub undoings: Vec<Undo>,
}

impl<'a> Lines<'a> {
    /// Reads columns from `first` on, as many as the sample has, of these rows; none without a grid of its own.
    pub fn read(bench: &Bench<'a>, rows: &[u64], first: u64) -> Option<Self> {
        let subject = bench.subject;
        let sides = [(subject.reference, subject.r()), (subject.quantized, subject.q())];
        let reader = Reader::new(sides[0], sides[1], bench.row_len)?;
        let mut scratch = Scratch::default();
        let end = bench.row_len.min(first + bench.width as u64);
        let line = |&row: &u64| {
            let start = row * bench.row_len;
            Some((row, reader.line(start + first..start + end, &mut scratch).ok()?))
        };
        let rows: Vec<(u64, Line)> = rows.iter().map(line).collect::<Option<_>>()?;
        let mut undoings = UNDOINGS.to_vec();
        undoings.retain(|undo| !undo.keeps_offset() || stores_offsets(subject.q()));
        let mut lines = Self { reader, rows, first, rounding: 0.0, undoings };
        lines.rounding = lines.typical();
        Some(lines)
    }

    /// The rows before and after a row.
    pub fn beside(&self, row: u64) -> Vec<(u64, Line)> {
        let mut scratch = Scratch::default();
        let (len, row_len) =
            (self.rows.first().map_or(0, |it| it.1.elements.len()), self.reader.row_len());
        let mut found = Vec::new();
        for other in [row + 1, row.wrapping_sub(1)] {
            // After the last row comes the first.
            let other = if other == self.reader.rows() { 0 } else { other };
            let start = other.wrapping_mul(row_len).wrapping_add(self.first);
            if other < self.reader.rows()
                && let Ok(line) = self.reader.line(start..start + len as u64, &mut scratch)
            {
                found.push((other, line));
            }
        }
        found
    }

    /// The levels.
    pub fn ladder(&self) -> &Ladder {
        self.reader.ladder()
    }

    /// A row as it is.
    pub fn left(&self, line: &Line) -> Left {
        Left::of(self.ladder(), line.elements.iter().copied())
    }

    /// What the median row has, as it is or with a fault undone in all of them.
    fn typical(&self) -> f64 {
        let ladder = self.ladder();
        let step = self.rows.len().div_ceil(TYPICAL);
        let rows: Vec<&Line> = self.rows.iter().map(|(_, line)| line).step_by(step).collect();
        let of = |undo: Option<Undo>| {
            let all = rows.iter().map(|line| {
                let parts: Vec<&[usize]> = line.groups.iter().map(Vec::as_slice).collect();
                match undo {
                    Some(undo) => {
                        undo.of(ladder, line, &parts).map_or(f64::MAX, |it| it.left.excess())
                    }
                    None => self.left(line).excess(),
                }
            });
            median(all.collect())
        };
        let as_it_is = of(None);
        // Where nothing is wrong with the median row, nothing can be undone in it.
        if as_it_is <= LEAST / 2.0 {
            return as_it_is.max(0.0);
        }
        let undone = self.undoings.iter().map(|undo| of(Some(*undo))).fold(f64::MAX, f64::min);
        let typical = if undone < as_it_is * GONE { undone } else { as_it_is };
        typical.clamp(0.0, MOST)
    }

    /// Whether the file was rounded otherwise than to nearest.
    pub fn feeds_back(&self) -> bool {
        self.rounding * ROOM > LEAST
    }

    /// Whether a part has no more noise beyond that of the nearest levels than this file's way of rounding leaves.
    pub fn is_fine(&self, left: &Left) -> bool {
        let chance = SURE * (self.rounding / left.n.max(1.0)).sqrt();
        let room = LEAST.max(ROOM * self.rounding) + chance;
        left.ee - left.nearest <= room * left.ss + HALF_UNIT * HALF_UNIT * left.rr
    }

    /// Whether undoing has left a part no worse than this file's way of rounding leaves it, and has taken away
    /// most of its noise.
    pub fn is_undone(&self, before: &Left, left: &Left) -> bool {
        let is_fed_back = self.feeds_back() && left.excess() <= FARTHEST;
        let is_sound =
            left.n > 0.0 && (self.is_fine(left) || is_fed_back) && left.ee * 2.0 <= left.rr;
        is_sound && left.ee <= before.ee * GONE
    }
}

/// Whether offsets are stored beside the scales, so that one may be wrong without the other.
fn stores_offsets(tensor: &Tensor) -> bool {
    match &tensor.storage {
        Storage::Plain { ty, .. } => has_minimums(*ty),
        Storage::Joined(weight) => {
            weight.planes().iter().any(|plane| plane.name.ends_with("biases"))
        }
        Storage::Undecodable { .. } => false,
    }
}

/// What is left of a part: its noise, and that of the nearest levels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Left {
    /// Number of elements that have more than one level.
    pub n: f64,
    /// Σ r².
    pub rr: f64,
    /// Σ (q - r)².
    pub ee: f64,
    /// The same of the nearest levels.
    pub nearest: f64,
    /// Σ of the squared local steps.
    pub ss: f64,
}

impl Left {
    /// Of these elements.
    pub fn of(ladder: &Ladder, elements: impl Iterator<Item = Element>) -> Self {
        let mut left = Self::default();
        elements.for_each(|at| left.take(ladder, &at));
        left
    }

    /// Takes in an element.
    pub fn take(&mut self, ladder: &Ladder, at: &Element) {
        let placed = ladder.place(at, &Drift::default());
        if placed.step == 0.0 {
            return;
        }
        let error = (at.q - at.r).powi(2);
        let nearest = if placed.d == 0.0 { error } else { (placed.nearest - at.r).powi(2) };
        // Of what was clipped, a code beside the outermost one is no further off than that.
        let is_clipped = at.r < at.low.min(at.high) || at.r > at.low.max(at.high);
        self.n += 1.0;
        self.rr += at.r * at.r;
        self.ee += error;
        self.nearest += if is_clipped { nearest.max(error - placed.d * placed.d) } else { nearest };
        self.ss += placed.step * placed.step;
    }

    /// Adds those of other elements.
    pub fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.rr += other.rr;
        self.ee += other.ee;
        self.nearest += other.nearest;
        self.ss += other.ss;
    }

    /// Noise beyond that of the nearest levels, in squared steps.
    pub fn excess(&self) -> f64 {
        if self.ss > 0.0 { (self.ee - self.nearest) / self.ss } else { 0.0 }
    }

    /// Signal-to-noise ratio, in dB.
    pub fn sqnr_db(&self) -> f64 {
        Noise { rr: self.rr, ee: self.ee }.sqnr_db()
    }

    /// The same of the nearest levels, and what a way of rounding adds to them.
    pub fn expected_db(&self, rounding: f64) -> f64 {
        Noise { rr: self.rr, ee: self.nearest + rounding * self.ss }.sqnr_db()
    }
}

/// What is wrong with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its scale.
    Scale,
    /// Its zero point.
    Zero,
    /// Its sign.
    Sign,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Scale, Self::Zero, Self::Sign];
}

/// A way to undo it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// A factor for each scale, that fits best: of the values, or of what was added to the zero of their levels.
    Factor {
        /// Whether what was added stays.
        keeps_offset: bool,
    },
    /// One step for all of it: of the grid, or of the codes on it.
    Steps {
        /// Whether the grid moves.
        of_grid: bool,
    },
    /// The sign of the values and of their scale.
    Negated,
    /// Codes counted from the other end.
    Reflected,
}

/// All of them.
const UNDOINGS: [Undo; 6] = [
    Undo::Factor { keeps_offset: false },
    Undo::Factor { keeps_offset: true },
    Undo::Steps { of_grid: true },
    Undo::Steps { of_grid: false },
    Undo::Negated,
    Undo::Reflected,
];

/// What undoing gave.
#[derive(Clone, Debug)]
pub struct Undone {
    /// What is left.
    pub left: Left,
    /// What was multiplied with, for each scale, or the step that was taken off.
    pub by: Vec<f64>,
}

impl Undo {
    fn keeps_offset(self) -> bool {
        self == Self::Factor { keeps_offset: true }
    }

    /// What it undoes.
    pub fn kind(self) -> Kind {
        match self {
            Self::Factor { .. } => Kind::Scale,
            Self::Steps { .. } => Kind::Zero,
            Self::Negated | Self::Reflected => Kind::Sign,
        }
    }

    /// Undoes it in parts of a row that have a scale each; none if there is nothing to undo.
    pub fn of(self, ladder: &Ladder, line: &Line, parts: &[&[usize]]) -> Option<Undone> {
        let elements = || parts.iter().map(|part| part.iter().map(|&at| line.elements[at]));
        let mut left = Left::default();
        let mut by = Vec::new();
        match self {
            Self::Factor { keeps_offset } => {
                for part in elements() {
                    let offset = |at: &Element| if keeps_offset { ladder.scale(at).1 } else { 0.0 };
                    let factor = factor(&part, &offset);
                    part.for_each(|at| left.take(ladder, &scaled(at, factor, offset(&at))));
                    by.push(factor);
                }
                // Where nothing but the sign is wrong, the scale is not.
                let least = if by.iter().any(|by| *by < 0.0) { SIGN } else { FACTOR };
                by.iter().any(|by| functions::ln(by.abs()).abs() > least).then_some(())?;
            }
            Self::Steps { of_grid } => {
                let (mut steps, mut n) = (0.0, 0.0);
                for at in elements().flatten() {
                    let step = ladder.step(&at)?;
                    if step != 0.0 {
                        steps += (at.q - at.r) / step;
                        n += 1.0;
                    }
                }
                let off = (steps / f64::max(n, 1.0)).round();
                // More than one is not two conventions.
                if off.abs() != 1.0 {
                    return None;
                }
                for at in elements().flatten() {
                    left.take(ladder, &moved(at, off * ladder.step(&at)?, of_grid));
                }
                by.push(off);
            }
            Self::Reflected => {
                for at in elements().flatten() {
                    ladder.step(&at)?;
                    left.take(ladder, &at.reflected());
                }
            }
            Self::Negated => {
                elements().flatten().for_each(|at| left.take(ladder, &at.negated()));
            }
        }
        Some(Undone { left, by })
    }
}

/// What brings the values closest to the reference, counted from their offset; 1 if nothing does. What lies beyond
/// the grid as it then is was clipped, and says nothing.
fn factor(
    part: &(impl Iterator<Item = Element> + Clone),
    offset: &impl Fn(&Element) -> f64,
) -> f64 {
    let mut factor = 1.0;
    for time in 0..FITS {
        let (mut qq, mut rq) = (0.0, 0.0);
        for at in part.clone() {
            let offset = offset(&at);
            let grid = scaled(at, factor, offset);
            let reach = grid.low.min(grid.high)..=grid.low.max(grid.high);
            if time == 0 || reach.contains(&at.r) {
                let (q, r) = (at.q - offset, at.r - offset);
                qq += q * q;
                rq += r * q;
            }
        }
        let fitted = rq / qq;
        if !fitted.is_finite() || fitted == 0.0 {
            break;
        }
        factor = fitted;
    }
    factor
}

fn scaled(at: Element, by: f64, offset: f64) -> Element {
    let of = |value: f64| offset + (value - offset) * by;
    Element { r: at.r, q: of(at.q), low: of(at.low), high: of(at.high) }
}

fn moved(at: Element, by: f64, of_grid: bool) -> Element {
    let of_grid = if of_grid { by } else { 0.0 };
    Element { r: at.r, q: at.q - by, low: at.low - of_grid, high: at.high - of_grid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rounding;

    const STEP: f64 = 0.5;

    /// A row of two groups of 32, rounded to the nearest of 16 levels around zero, and then damaged.
    fn line(damage: impl Fn(f64) -> f64, of_grid: bool) -> Line {
        let element = |at: usize| {
            let r = (at as f64 * 0.7).sin() * 3.4;
            let q = (r / STEP).round().clamp(-8.0, 7.0) * STEP;
            let ends = [-8.0 * STEP, 7.0 * STEP].map(|end| if of_grid { damage(end) } else { end });
            Element { r, q: damage(q), low: ends[0], high: ends[1] }
        };
        let groups = vec![(0..32).collect(), (32..64).collect()];
        Line { elements: (0..64).map(element).collect(), groups }
    }

    #[test]
    fn the_right_undoing_leaves_what_rounding_leaves_and_no_other_does() {
        let levels: Vec<f32> = (-8..8).map(|level| level as f32).collect();
        let ladder = Ladder::new(&levels, Rounding::default()).unwrap();
        let sound = Left::of(&ladder, line(|q| q, true).elements.into_iter());
        for (damage, of_grid, right, why) in [
            ((|q| q * 2.0) as fn(f64) -> f64, true, Kind::Scale, "twice the scale"),
            (|q| q / STEP, true, Kind::Scale, "a scale of one"),
            (|q| q * -1.7, true, Kind::Scale, "another scale of the other sign"),
            (|q| q + STEP, true, Kind::Zero, "a step, with the grid"),
            (|q| q - STEP, false, Kind::Zero, "a step, without the grid"),
            (|q| -q, true, Kind::Sign, "the sign of the scale"),
            (|q| -q - STEP, false, Kind::Sign, "codes from the other end"),
        ] {
            let line = line(damage, of_grid);
            let parts: Vec<&[usize]> = line.groups.iter().map(Vec::as_slice).collect();
            let before = Left::of(&ladder, line.elements.iter().copied());
            assert!(before.excess() > 2.0 * LEAST, "{why}: {before:?}");
            for kind in Kind::ALL {
                let undone =
                    UNDOINGS.iter().filter(|undo| undo.kind() == kind && !undo.keeps_offset());
                let left = undone.filter_map(|undo| undo.of(&ladder, &line, &parts));
                let best = left.map(|it| it.left.ee).fold(f64::INFINITY, f64::min);
                assert_eq!(
                    best < sound.ee * 1.2,
                    kind == right,
                    "{why}: {kind:?} {best} {sound:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_clipped_does_not_pull_the_factor() {
        let levels: Vec<f32> = (-8..8).map(|level| level as f32).collect();
        let ladder = Ladder::new(&levels, Rounding::default()).unwrap();
        let sound = line(|q| q * 3.0, true);
        let mut clipped = sound.clone();
        clipped.elements[5].r = 40.0;
        clipped.elements[5].q = clipped.elements[5].high;
        let [without, with] = [sound, clipped].map(|line| {
            let all: Vec<usize> = (0..64).collect();
            let undo = Undo::Factor { keeps_offset: false };
            undo.of(&ladder, &line, &[&all]).unwrap().by[0]
        });
        assert!((with / without - 1.0).abs() < 0.01, "{with} {without}");
    }
}

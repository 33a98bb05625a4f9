/*!
Sums over displacements: of a group, of a row, and what a group takes up of its levels.
*/

use super::run_sums::RunSums;

/// Sums over a run of elements: d = quantized - nearest level.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shift {
    /// Number of elements.
    pub n: f64,
    /// Number of those that are displaced.
    pub moved: f64,
    /// Σ d.
    pub d: f64,
    /// Σ d².
    pub dd: f64,
    /// Σ d·r.
    pub dr: f64,
    /// Σ r².
    pub rr: f64,
    /// Σ of the squared nearest levels.
    pub nn: f64,
    /// Σ of the squared local steps of the grid.
    pub ss: f64,
    /// Σ d in steps.
    pub steps: f64,
    /// Σ d² in steps.
    pub square_steps: f64,
}

impl Shift {
    /// Adds the sums of other elements.
    pub fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.moved += other.moved;
        self.d += other.d;
        self.dd += other.dd;
        self.dr += other.dr;
        self.rr += other.rr;
        self.nn += other.nn;
        self.ss += other.ss;
        self.steps += other.steps;
        self.square_steps += other.square_steps;
    }

    /// Root mean square displacement, in steps.
    pub fn rms(&self) -> f64 {
        (self.square_steps / self.n.max(1.0)).sqrt()
    }

    /// Mean displacement, in steps.
    pub fn mean(&self) -> f64 {
        self.steps / self.n.max(1.0)
    }

    /// The part of the displacement's power that a constant explains.
    pub fn constant(&self) -> f64 {
        let power = self.square_steps * self.n;
        if power == 0.0 { 0.0 } else { self.steps * self.steps / power }
    }

    /// Slope of the displacement on the reference, and how many of its standard errors that is; nothing, where so
    /// few are displaced that one large weight is all of it.
    pub fn slope(&self) -> (f64, f64) {
        if self.rr == 0.0 || self.dd == 0.0 || self.moved < FEWEST_MOVED {
            return (0.0, 0.0);
        }
        let slope = self.dr / self.rr;
        let left = (self.dd - slope * self.dr).max(1e-12 * self.dd);
        (slope, self.dr / (self.rr * left / (self.n - 1.0).max(1.0)).sqrt())
    }

    /// The part of the displacement that is in proportion to the reference: its rms, in steps, with its
    /// sign; 0 where it may be chance.
    pub fn along(&self) -> f64 {
        let (slope, sure) = self.slope();
        if sure.abs() < SURE || self.ss == 0.0 { 0.0 } else { slope * (self.rr / self.ss).sqrt() }
    }

    /// The displacement in squared steps, and its power in parts of that of the nearest levels.
    pub fn missed(&self) -> Option<(f64, f64)> {
        let part = if self.nn > 0.0 { self.dd / self.nn } else { f64::INFINITY };
        (self.dd > 0.0 && self.ss > 0.0).then(|| (self.dd / self.ss * self.n, part))
    }

    /// Root mean square of the grid's local steps.
    pub fn step(&self) -> f64 {
        (self.ss / self.n.max(1.0)).sqrt()
    }
}

/// How much of the displacement is in proportion to the reference, by a factor of its own in each of many runs
/// of elements: in groups that share a scale, or in columns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slopes {
    /// Number of runs in which codes are displaced.
    pub runs: f64,
    /// Power of the displacement that the runs' factors explain.
    pub explained: f64,
    /// What they would explain of it by chance.
    pub chance: f64,
    /// Power of the displacement.
    pub power: f64,
    /// Σ d·r.
    pub dr: f64,
    /// Σ r².
    pub rr: f64,
    /// Σ of the squared local steps, of all runs.
    pub ss: f64,
}

impl Slopes {
    /// Takes in the sums of one more run.
    pub(super) fn take(&mut self, shift: &Shift) {
        self.ss += shift.ss;
        if shift.n < FEWEST_SLOPED || shift.dd == 0.0 || shift.rr == 0.0 {
            return;
        }
        self.runs += 1.0;
        self.explained += shift.dr * shift.dr / shift.rr;
        self.chance += shift.dd / shift.n;
        self.power += shift.dd;
        self.dr += shift.dr;
        self.rr += shift.rr;
    }

    /// Adds those of other runs.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.explained += other.explained;
        self.chance += other.chance;
        self.power += other.power;
        self.dr += other.dr;
        self.rr += other.rr;
        self.ss += other.ss;
    }

    /// The rms displacement in proportion to the reference by what the runs' factors differ in, in steps, and
    /// what part of all displacement it is; none if it may be chance.
    pub fn own(&self) -> Option<(f64, f64)> {
        let alike = if self.rr > 0.0 { self.dr * self.dr / self.rr } else { 0.0 };
        let own = self.explained - self.chance - alike;
        // What a run explains by chance is chi-squared with one degree of freedom.
        let sure = own > SURE * self.chance * (2.0 / self.runs.max(1.0)).sqrt();
        (sure && self.ss > 0.0).then(|| ((own / self.ss).sqrt(), own / self.power))
    }
}

/// Fewest elements of a run of which a factor says something.
const FEWEST_SLOPED: f64 = 4.0;

/// A group of elements of one row that share a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Row, counted over the whole tensor.
    pub row: u64,
    /// Column of its first element.
    pub first: u64,
    /// Its displacement.
    pub shift: Shift,
    /// Its rms displacement over the row's largest step.
    pub reach: f64,
    /// The largest magnitude of the reference; where the grid is a single value, the furthest from that.
    pub largest: f64,
    /// Whether zero is one of its levels, as with integer zero points.
    pub has_zero: bool,
}

/// A piece of a row: as it is, as the nearest levels would have it, and its steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Piece {
    /// The quantized values.
    pub actual: RunSums,
    /// The nearest levels.
    pub nearest: RunSums,
    /// Σ of the squared local steps.
    pub ss: f64,
}

/// What a group takes up of its levels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The heights of its codes, from 0, the lowest level, to 1, the highest.
    heights: (f64, f64),
    /// The reference's least and largest value.
    values: (f64, f64),
}

impl Default for Span {
    fn default() -> Self {
        let nothing = (f64::INFINITY, f64::NEG_INFINITY);
        Self { heights: nothing, values: nothing }
    }
}

impl Span {
    pub(super) fn take(&mut self, height: f64, value: f64) {
        for (ends, at) in [(&mut self.heights, height), (&mut self.values, value)] {
            *ends = (ends.0.min(at), ends.1.max(at));
        }
    }

    /// Adds that of other elements.
    pub(super) fn add(&mut self, other: &Self) {
        for (ends, of) in [(&mut self.heights, other.heights), (&mut self.values, other.values)] {
            *ends = (ends.0.min(of.0), ends.1.max(of.1));
        }
    }

    /// The part of the levels that it spans. Of weights of one sign it is counted from zero, and only to one
    /// side: a grid around zero has no use for the other.
    pub(super) fn part(&self, low: f64, high: f64) -> f64 {
        let (lowest, highest) = self.heights;
        let zero = -low / (high - low);
        // With a negative step, the lowest level is the largest value.
        let above = match self.values {
            (least, _) if least >= 0.0 => Some(high > low),
            (_, most) if most <= 0.0 => Some(high < low),
            _ => None,
        };
        let one_sided = match above {
            Some(true) if (0.0..1.0).contains(&zero) => (highest - zero) / (1.0 - zero),
            Some(false) if zero > 0.0 && zero <= 1.0 => (zero - lowest) / zero,
            _ => 0.0,
        };
        (highest - lowest).max(one_sided.min(1.0))
    }
}

/// One row.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its index.
    pub row: u64,
    /// Its pieces, in order.
    pub pieces: Vec<Piece>,
    /// All of it.
    pub shift: Shift,
    /// The largest local step.
    pub top: f64,
    /// The largest magnitude of the reference.
    pub largest: f64,
    /// Number of its groups.
    pub group_count: usize,
    /// The largest part of the levels, from the lowest code to the highest, that a group's codes span; 1 for
    /// levels that are not even.
    pub span: f64,
    /// The most negative slope of the displacement on the reference in a run of 32 elements.
    pub turned: f64,
    /// The codes that occur.
    pub codes: Codes,
    /// Its groups that stand out, by the measures of [`Group`].
    pub groups: Groups,
    /// What of the displacement is in proportion to the reference in each of its groups.
    pub slopes: Slopes,
}

/// Elements of the shortest run that codes are compared with their reference in.
pub(super) const RUN: usize = 32;

/// Which of up to 256 codes occur.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codes([u64; 4]);

impl Codes {
    pub(super) fn insert(&mut self, code: usize) {
        if let Some(word) = self.0.get_mut(code / 64) {
            *word |= 1 << (code % 64);
        }
    }

    /// Adds those of other elements.
    pub fn join(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
    }

    fn has(&self, code: usize) -> bool {
        self.0.get(code / 64).is_some_and(|word| word >> (code % 64) & 1 == 1)
    }

    /// Whether the codes are those of a coarser grid: several occur, and nearly all of them without either
    /// of their neighbours.
    pub fn are_sparse(&self) -> bool {
        let all = || (0..256).filter(|&code| self.has(code));
        let alone = |code: &usize| {
            !self.has(code + 1) && code.checked_sub(1).is_none_or(|below| !self.has(below))
        };
        let count = all().count();
        count >= FEWEST_CODES && all().filter(alone).count() * 10 >= count * 9
    }
}

/// So many codes say whether there are others between them.
const FEWEST_CODES: usize = 3;

/// Fewest displaced elements that a slope can be told from.
const FEWEST_MOVED: f64 = 4.0;

/// The groups that stand out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Groups {
    /// Largest rms displacement in the group's own steps.
    pub far: Option<Group>,
    /// Largest rms displacement in the row's largest step.
    pub reach: Option<Group>,
    /// Largest mean displacement that a constant explains for the most part.
    pub constant: Option<Group>,
    /// Largest displacement in proportion to the reference.
    pub collinear: Option<Group>,
    /// The largest weights whose grid is a single value: their scale is zero.
    pub dead: Option<Group>,
}

/// Fewest elements of a group that is looked at on its own.
const SMALLEST: f64 = 16.0;

/// Fewest elements of a group of which a slope says something.
const SLOPED: f64 = 32.0;

/// Standard errors from which on a slope is none by chance.
const SURE: f64 = 6.0;

impl Groups {
    pub(super) fn take(&mut self, group: Group) {
        let shift = &group.shift;
        let keep = |kept: &mut Option<Group>, key: &dyn Fn(&Group) -> f64| {
            if kept.as_ref().is_none_or(|kept| key(&group) > key(kept)) {
                *kept = Some(group);
            }
        };
        if shift.ss == 0.0 {
            keep(&mut self.dead, &|it| it.largest);
        }
        if shift.n < SMALLEST || shift.dd == 0.0 {
            return;
        }
        keep(&mut self.far, &|it| it.shift.rms());
        keep(&mut self.reach, &|it| it.reach);
        if shift.constant() > 0.5 {
            keep(&mut self.constant, &|it| it.shift.mean().abs());
        }
        if shift.n >= SLOPED && shift.along() != 0.0 {
            keep(&mut self.collinear, &|it| it.shift.along().abs());
        }
    }
}

impl Row {
    /// Brings what depends on all of the row to its final unit.
    pub(super) fn finish(&mut self) {
        let Groups { far, reach, constant, collinear, dead } = &mut self.groups;
        for group in [far, reach, constant, collinear, dead].into_iter().flatten() {
            group.reach = if self.top > 0.0 { group.reach / self.top } else { 0.0 };
        }
    }

    /// The sums of its pieces.
    pub fn whole(&self) -> Piece {
        let mut whole = Piece::default();
        for piece in &self.pieces {
            whole.actual.add(&piece.actual);
            whole.nearest.add(&piece.nearest);
            whole.ss += piece.ss;
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_one_sign_span_one_side_of_a_grid() {
        for (heights, values, grid, expected, why) in [
            ([0.0, 1.0], [-1.0, 1.0], (-1.0, 1.0), 1.0, "both sides"),
            ([0.75, 1.0], [0.5, 1.0], (-1.0, 1.0), 1.0, "positive, the outermost level"),
            ([0.0, 0.2], [-1.0, -0.6], (-1.0, 1.0), 1.0, "negative, the outermost level"),
            ([0.0, 0.2], [0.6, 1.0], (1.0, -1.0), 1.0, "positive, with a negative step"),
            ([0.6, 0.7], [0.5, 1.0], (-1.0, 1.0), 0.4, "positive, a bit never used"),
            ([0.3, 0.7], [-0.4, 0.4], (-1.0, 1.0), 0.4, "both sides, a bit never used"),
            ([0.0, 0.4], [2.0, 2.4], (2.0, 3.0), 0.4, "no zero among the levels"),
        ] {
            let mut span = Span::default();
            heights.into_iter().zip(values).for_each(|(height, value)| span.take(height, value));
            assert!((span.part(grid.0, grid.1) - expected).abs() < 1e-12, "{why}: {span:?}");
        }
    }

    #[test]
    fn codes_without_neighbours_are_those_of_a_coarser_grid() {
        let of = |codes: &[usize]| {
            let mut all = Codes::default();
            for &code in codes {
                all.insert(code);
            }
            all
        };
        for (codes, sparse, why) in [
            (&[1, 3, 5, 7, 9, 11, 13][..], true, "every second one"),
            (&[1, 3, 6, 8, 10, 13, 15], true, "seven levels spread over fifteen"),
            (&[7, 8, 9], false, "ternary"),
            (&[0, 15], false, "two say nothing"),
            (&[4, 5, 6, 7, 8, 9, 10, 20, 40, 63, 64, 128, 255], false, "dense, and a long tail"),
            (&[0, 63, 127, 191, 255], true, "at the ends of words"),
            (&[62, 63, 64, 65], false, "across words"),
        ] {
            assert_eq!(of(codes).are_sparse(), sparse, "{why}");
        }
    }
}

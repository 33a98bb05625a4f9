/*!
How far a tensor's codes are from the nearest ones on its own grid.

The grid is what the file says: each element's levels under its stored scale and zero point. Beside the
noise that the nearest levels give on the reference, this is all that there is to say about how the codes
were chosen: in steps of the grid, rounding to nearest displaces nothing, trained and stochastic rounding
and error feedback displace without structure, and damage displaces by a constant, in proportion to
the reference, or beyond what any rounding does.
*/

use std::ops::Range;

use super::run_sums::RunSums;
use crate::metrics::PIECE;
use crate::model::{Model, OwnGrid, Scratch, Storage, Tensor};

/// Displacements below this part of a step are the arithmetic's own rounding.
const EXACT: f64 = 0.01;

/// Elements of a group where the scales do not say which elements share one.
const GROUP: usize = 64;

/// Most elements that are read at a time.
const READ: u64 = 64 * 1024;

/// Sums over a run of elements: d = quantized - nearest level.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shift {
    /// Number of elements.
    pub n: f64,
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

    /// Slope of the displacement on the reference, and how many of its standard errors that is.
    pub fn slope(&self) -> (f64, f64) {
        if self.rr == 0.0 || self.dd == 0.0 {
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
    fn take(&mut self, shift: &Shift) {
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

/// Sums down the columns of rows, or down those parts of them that share a scale.
#[derive(Clone, Debug)]
pub struct Columns {
    sums: Vec<Shift>,
    /// The ends of the grid that each column had last, if parts that share a scale are asked for.
    ends: Option<Vec<[u32; 2]>>,
    slopes: Slopes,
}

impl Columns {
    /// Of rows of so many elements.
    pub fn new(row_len: u64, by_scales: bool) -> Self {
        let len = row_len as usize;
        let ends = by_scales.then(|| vec![[0; 2]; len]);
        Self { sums: vec![Shift::default(); len], ends, slopes: Slopes::default() }
    }

    /// How much of the displacement is in proportion to the reference in each column, or part of one.
    pub fn slopes(mut self) -> Slopes {
        self.sums.iter().for_each(|column| self.slopes.take(column));
        self.slopes
    }

    fn take(&mut self, run: &Run, placed: &[Placed]) {
        for (i, (at, r)) in placed.iter().zip(run.r).enumerate() {
            let (index, r) = (run.column as usize + i, f64::from(*r));
            let column = &mut self.sums[index];
            if let Some(ends) = &mut self.ends {
                let own = [run.low[i].to_bits(), run.high[i].to_bits()];
                if std::mem::replace(&mut ends[index], own) != own {
                    self.slopes.take(&std::mem::take(column));
                }
            }
            column.n += 1.0;
            column.dd += at.d * at.d;
            column.dr += at.d * r;
            column.rr += r * r;
            column.ss += at.step * at.step;
        }
    }
}

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
    /// The largest magnitude of the reference.
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
struct Span {
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
    fn take(&mut self, height: f64, value: f64) {
        for (ends, at) in [(&mut self.heights, height), (&mut self.values, value)] {
            *ends = (ends.0.min(at), ends.1.max(at));
        }
    }

    /// The part of the levels that it spans. Of weights of one sign it is counted from zero, and only to one
    /// side: a grid around zero has no use for the other.
    fn part(&self, low: f64, high: f64) -> f64 {
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
    /// The codes that occur.
    pub codes: Codes,
    /// Its groups that stand out, by the measures of [`Group`].
    pub groups: Groups,
    /// What of the displacement is in proportion to the reference in each of its groups.
    pub slopes: Slopes,
}

/// Which of up to 256 codes occur.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codes([u64; 4]);

impl Codes {
    fn insert(&mut self, code: usize) {
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
    fn take(&mut self, group: Group) {
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

/// Both sides of a tensor and its own grid.
pub struct Reader<'a> {
    sides: [(&'a Model, &'a Tensor); 2],
    grid: OwnGrid,
    levels: Ladder,
    row_len: u64,
}

impl<'a> Reader<'a> {
    /// Of a tensor that has a grid of its own.
    pub fn new(
        reference: (&'a Model, &'a Tensor),
        quantized: (&'a Model, &'a Tensor),
        row_len: u64,
    ) -> Option<Self> {
        let grid = quantized.1.own_grid()?;
        let levels = Ladder::of(&grid.levels)?;
        Some(Self { sides: [reference, quantized], grid, levels, row_len })
    }

    /// Elements of a row.
    pub fn row_len(&self) -> u64 {
        self.row_len
    }

    /// Whether factors of the columns are stored beside the codes.
    pub fn has_column_factors(&self) -> bool {
        matches!(&self.sides[1].1.storage, Storage::Joined(weight) if weight.has_column_factors())
    }

    /// Whether hardly any elements of the first row share a scale: those that do lie below each other, as in a
    /// weight that is packed along its columns.
    pub fn is_turned(&self, scratch: &mut Scratch) -> Result<bool, String> {
        let end = self.row_len.min(PIECE as u64);
        let [low, high] = self.ends(0..end, scratch)?;
        Ok(self.rows() > 1 && end > 1 && !groups(&low, &high).shared)
    }

    /// Number of levels of the grid.
    pub fn levels(&self) -> usize {
        self.levels.levels.len()
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.sides[0].1.numel() / self.row_len
    }

    /// Measures a run of consecutive rows, and adds them to the sums of their columns, if these are asked for.
    pub fn rows_in(
        &self,
        rows: Range<u64>,
        mut columns: Option<&mut Columns>,
        scratch: &mut Scratch,
    ) -> Result<Vec<Row>, String> {
        let at_once = (READ / self.row_len).max(1);
        let mut measured = Vec::new();
        let mut first = rows.start;
        while first < rows.end {
            let last = (first + at_once).min(rows.end);
            let mut parts: Vec<Row> =
                (first..last).map(|row| Row { row, ..Row::default() }).collect();
            let mut start = first * self.row_len;
            while start < last * self.row_len {
                let end = (start + READ.max(if at_once > 1 { self.row_len * at_once } else { 0 }))
                    .min(last * self.row_len);
                self.read(start..end, &mut parts, columns.as_deref_mut(), scratch)?;
                start = end;
            }
            for row in &mut parts {
                row.finish();
            }
            measured.append(&mut parts);
            first = last;
        }
        Ok(measured)
    }

    /// What the nearest levels make of a run of the reference's values, as sums.
    pub fn nearest(
        &self,
        range: Range<u64>,
        r: &[f32],
        scratch: &mut Scratch,
    ) -> Result<RunSums, String> {
        let ends = self.ends(range, scratch)?;
        let [low, high] = &ends;
        let mut sums = RunSums::default();
        for ((&r, &low), &high) in r.iter().zip(low).zip(high) {
            let [r, low, high] = [r, low, high].map(f64::from);
            sums.take(r, self.levels.place(r, r, low, high).nearest);
        }
        for values in ends {
            scratch.give_floats(values);
        }
        Ok(sums)
    }

    /// The lowest and the highest level of a run of elements.
    fn ends(&self, range: Range<u64>, scratch: &mut Scratch) -> Result<[Vec<f32>; 2], String> {
        let mut ends = [const { Vec::new() }; 2];
        for (end, values) in [&self.grid.lowest, &self.grid.highest].into_iter().zip(&mut ends) {
            *values = scratch.take_floats();
            values.resize((range.end - range.start) as usize, 0.0);
            end.decode(&self.sides[1].0.files, range.clone(), scratch, values)
                .map_err(|error| format!("quantized: {error}"))?;
        }
        Ok(ends)
    }

    /// Reads a run of elements and adds it to the rows that it belongs to.
    fn read(
        &self,
        range: Range<u64>,
        rows: &mut [Row],
        mut columns: Option<&mut Columns>,
        scratch: &mut Scratch,
    ) -> Result<(), String> {
        let len = (range.end - range.start) as usize;
        let quantized = &self.sides[1].0.files;
        let tensors = [
            (self.sides[0].1, &self.sides[0].0.files),
            (self.sides[1].1, quantized),
            (&self.grid.lowest, quantized),
            (&self.grid.highest, quantized),
        ];
        let mut values = [const { Vec::new() }; 4];
        let sides = ["reference", "quantized", "quantized", "quantized"];
        for (((tensor, files), values), side) in tensors.into_iter().zip(&mut values).zip(sides) {
            *values = scratch.take_floats();
            values.resize(len, 0.0);
            tensor
                .decode(files, range.clone(), scratch, values)
                .map_err(|error| format!("{side}: {error}"))?;
        }
        let first = rows.first().map_or(0, |row| row.row);
        let mut at = range.start;
        while at < range.end {
            let row = at / self.row_len;
            let end = ((row + 1) * self.row_len).min(range.end);
            let part = (at - range.start) as usize..(end - range.start) as usize;
            let [r, q, low, high] = &values;
            let run = Run {
                r: &r[part.clone()],
                q: &q[part.clone()],
                low: &low[part.clone()],
                high: &high[part],
                column: at % self.row_len,
            };
            let columns = columns.as_deref_mut();
            self.levels.measure(&run, &mut rows[(row - first) as usize], columns);
            at = end;
        }
        for values in values {
            scratch.give_floats(values);
        }
        Ok(())
    }
}

/// Consecutive elements of one row.
struct Run<'a> {
    r: &'a [f32],
    q: &'a [f32],
    low: &'a [f32],
    high: &'a [f32],
    column: u64,
}

/// The levels of a grid.
struct Ladder {
    levels: Vec<f64>,
    /// The distance of all neighbours, if it is one.
    even: Option<f64>,
}

/// One element on its grid.
struct Placed {
    nearest: f64,
    d: f64,
    step: f64,
    /// Where the quantized value is between the lowest level, 0, and the highest, 1.
    height: f64,
    /// Index of the level nearest to the quantized value; none if the grid is a single value.
    code: Option<usize>,
}

impl Ladder {
    fn of(levels: &[f32]) -> Option<Self> {
        let levels: Vec<f64> = levels.iter().map(|&level| f64::from(level)).collect();
        let (first, last) = (*levels.first()?, *levels.last()?);
        let even = (last - first) / (levels.len().checked_sub(1)?.max(1)) as f64;
        let is_even = levels.windows(2).all(|two| (two[1] - two[0] - even).abs() < 1e-9 * even);
        (first < last).then_some(Self { levels, even: is_even.then_some(even) })
    }

    /// Whether zero is a level of the grid between these ends.
    fn has_zero(&self, low: f64, high: f64) -> bool {
        let steps = (self.levels.len() - 1) as f64;
        let at = -low / (high - low) * steps;
        self.even.is_none() || (at - at.round()).abs() < 1e-3
    }

    /// The level nearest to `value`, and the distance of the two that it lies between.
    fn nearest(&self, value: f64) -> (f64, f64) {
        let (first, last) = (self.levels[0], self.levels[self.levels.len() - 1]);
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

    fn place(&self, r: f64, q: f64, low: f64, high: f64) -> Placed {
        let (first, last) = (self.levels[0], self.levels[self.levels.len() - 1]);
        let scale = (high - low) / (last - first);
        if scale == 0.0 || !scale.is_finite() {
            return Placed { nearest: low, d: 0.0, step: 0.0, height: 0.0, code: None };
        }
        let (level, gap) = self.nearest(first + (r - low) / scale);
        let nearest = low + (level - first) * scale;
        let step = (gap * scale).abs();
        let d = q - nearest;
        let is_as_near = (q - r).abs() <= (nearest - r).abs() * (1.0 + 1e-5) + EXACT * step;
        let d = if d.abs() < EXACT * step || is_as_near { 0.0 } else { d };
        let code = Some(self.code(first + (q - low) / scale));
        Placed { nearest, d, step, height: (q - low) / (high - low), code }
    }

    /// Adds a run of a row to its sums.
    fn measure(&self, run: &Run, row: &mut Row, columns: Option<&mut Columns>) {
        let len = run.r.len();
        let placed: Vec<Placed> = (0..len)
            .map(|i| {
                let [r, q, low, high] =
                    [run.r[i], run.q[i], run.low[i], run.high[i]].map(f64::from);
                self.place(r, q, low, high)
            })
            .collect();
        if let Some(columns) = columns {
            columns.take(run, &placed);
        }
        for start in (0..len).step_by(PIECE) {
            let range = start..(start + PIECE).min(len);
            let mut piece = Piece::default();
            for i in range {
                let (r, q) = (f64::from(run.r[i]), f64::from(run.q[i]));
                // Half way between two levels, the file's own choice is a nearest one.
                let p = if placed[i].d == 0.0 { q } else { placed[i].nearest };
                piece.actual.take(r, q);
                piece.nearest.take(r, p);
                piece.ss += placed[i].step * placed[i].step;
            }
            row.pieces.push(piece);
        }
        row.top = placed.iter().fold(row.top, |top, at| top.max(at.step));
        row.largest = run.r.iter().fold(row.largest, |most, r| most.max(f64::from(r.abs())));
        let of_groups = groups(run.low, run.high);
        let mut shifts = vec![Shift::default(); of_groups.count];
        let mut firsts = vec![usize::MAX; of_groups.count];
        let mut largest = vec![0f64; of_groups.count];
        let mut spans = vec![Span::default(); of_groups.count];
        for (i, at) in placed.iter().enumerate() {
            let group = of_groups.of[i] as usize;
            let r = f64::from(run.r[i]);
            if let Some(code) = at.code {
                row.codes.insert(code);
            }
            let shift = &mut shifts[group];
            firsts[group] = firsts[group].min(i);
            largest[group] = largest[group].max(r.abs());
            spans[group].take(at.height, r);
            shift.n += 1.0;
            shift.d += at.d;
            shift.dd += at.d * at.d;
            shift.dr += at.d * r;
            shift.rr += r * r;
            shift.nn += at.nearest * at.nearest;
            shift.ss += at.step * at.step;
            if self.even.is_some() && at.step > 0.0 {
                let steps = at.d / at.step;
                shift.steps += steps;
                shift.square_steps += steps * steps;
            }
        }
        let measured = shifts.into_iter().zip(firsts).zip(largest).zip(spans);
        for (((mut shift, first), largest), span) in measured {
            if self.even.is_none() && shift.ss > 0.0 {
                // Local steps differ within a group of float codes: its rms is the unit.
                let step = shift.step();
                shift.steps = shift.d / step;
                shift.square_steps = shift.dd / (step * step);
            }
            row.shift.add(&shift);
            let (low, high) = (f64::from(run.low[first]), f64::from(run.high[first]));
            let has_zero = self.has_zero(low, high);
            let column = run.column + first as u64;
            let reach = (shift.dd / shift.n).sqrt();
            let span = if self.even.is_some() { span.part(low, high) } else { 1.0 };
            row.span = row.span.max(span);
            row.group_count += 1;
            row.slopes.take(&shift);
            row.groups.take(Group { row: row.row, first: column, shift, reach, largest, has_zero });
        }
    }
}

impl Row {
    /// Brings what depends on all of the row to its final unit.
    fn finish(&mut self) {
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

/// Which elements share a scale.
struct Sharing {
    of: Vec<u32>,
    count: usize,
    /// Whether they share one; if not, they are only put together.
    shared: bool,
}

/// Elements whose grids are the same are one group, whether they are neighbours or not; where hardly any
/// are (factors of columns), runs of [`GROUP`] elements.
fn groups(low: &[f32], high: &[f32]) -> Sharing {
    let len = low.len();
    let key = |i: usize| u64::from(low[i].to_bits()) << 32 | u64::from(high[i].to_bits());
    let mut of = Vec::with_capacity(len);
    let (mut count, mut shared) = (0u32, true);
    for i in 0..len {
        count += u32::from(i == 0 || key(i) != key(i - 1));
        of.push(count - 1);
    }
    if len > 0 && (count as usize) * 8 > len {
        let mut places: std::collections::HashMap<u64, u32> = std::collections::HashMap::new();
        for (i, of) in of.iter_mut().enumerate() {
            let next = places.len() as u32;
            *of = *places.entry(key(i)).or_insert(next);
        }
        count = places.len() as u32;
        if (count as usize) * 8 > len {
            of = (0..len).map(|i| (i / GROUP) as u32).collect();
            count = len.div_ceil(GROUP) as u32;
            shared = false;
        }
    }
    Sharing { of, count: count as usize, shared }
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
    fn half_way_between_two_levels_either_is_the_nearest() {
        let ladder = Ladder::of(&[0.0, 1.0, 2.0, 3.0]).unwrap();
        for q in [-1.0, 0.0] {
            let run =
                Run { r: &[-0.5; 32], q: &[q; 32], low: &[-2.0; 32], high: &[1.0; 32], column: 0 };
            let mut row = Row::default();
            ladder.measure(&run, &mut row, None);
            let whole = row.whole();
            assert_eq!(whole.nearest, whole.actual, "the file's own choice");
            assert_eq!(row.shift.dd, 0.0);
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

/*!
How far a tensor's codes are from the nearest ones on its own grid.

The grid is what the file says: each element's levels under its stored scale and zero point. Beside the
noise that the nearest levels give on the reference, this is all that there is to say about how the codes
were chosen: in steps of the grid, rounding to nearest displaces nothing, trained and stochastic rounding
and error feedback displace without structure, and damage displaces by a constant, in proportion to
the reference, or beyond what any rounding does.
*/

use std::ops::Range;

use super::ladder::{Drift, Element, Ladder, Placed};
use super::pair::Pair;
use super::run_sums::RunSums;
use super::shift::{Group, Piece, RUN, Row, Shift, Slopes, Span};
use crate::metrics::PIECE;
use crate::model::{Model, OwnGrid, Scratch, Storage, Tensor};

/// Elements of a group where the scales do not say which elements share one.
const GROUP: usize = 64;

/// Most elements that are read at a time.
const READ: u64 = 64 * 1024;

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
        let levels = Ladder::new(&grid.levels, grid.rounding)?;
        Some(Self { sides: [reference, quantized], grid, levels, row_len })
    }

    /// The same where scales were fitted to the codes once more, with an importance matrix, and codes were not
    /// chosen again (Q4_0, Q4_1, Q5_0, Q5_1 of ggml); none if that is known already.
    pub fn refitted(&self) -> Option<Self> {
        let levels = self.levels.refitted()?;
        Some(Self { sides: self.sides, grid: self.grid.clone(), levels, row_len: self.row_len })
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
        self.levels.count()
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

    /// What the nearest levels make of a run of the reference's values, as sums, and the largest step among them.
    pub fn nearest(
        &self,
        range: Range<u64>,
        r: &[f32],
        scratch: &mut Scratch,
    ) -> Result<(RunSums, f64), String> {
        let (mut sums, mut top) = (RunSums::default(), 0f64);
        self.each_nearest(range, r, scratch, |at, placed| {
            sums.take(f64::from(r[at]), placed.nearest);
            top = top.max(placed.step);
        })?;
        Ok((sums, top))
    }

    /// Hands out where each of a run of the reference's values is on the grid.
    pub fn each_nearest(
        &self,
        range: Range<u64>,
        r: &[f32],
        scratch: &mut Scratch,
        mut each: impl FnMut(usize, Placed),
    ) -> Result<(), String> {
        let ends = self.ends(range, scratch)?;
        let [low, high] = &ends;
        let mut rungs = self.levels.between(0.0, 0.0);
        for (at, ((&r, &low), &high)) in r.iter().zip(low).zip(high).enumerate() {
            let [r, low, high] = [r, low, high].map(f64::from);
            rungs.move_to(low, high);
            each(at, rungs.place(r, r, &Drift::default()));
        }
        for values in ends {
            scratch.give_floats(values);
        }
        Ok(())
    }

    /// The levels of the grid.
    pub fn ladder(&self) -> &Ladder {
        &self.levels
    }

    /// Elements of one row, both sides of them, and which of them share a scale.
    pub fn line(&self, range: Range<u64>, scratch: &mut Scratch) -> Result<Line, String> {
        let [(reference, r), (quantized, q)] = self.sides;
        let pair = Pair { r, q, reference, quantized };
        let [r, q] = pair.read(range.clone(), scratch)?;
        let [low, high] = self.ends(range, scratch)?;
        let run = Run { r: &r, q: &q, low: &low, high: &high, column: 0 };
        let elements = (0..r.len()).map(|i| run.element(i)).collect();
        let sharing = groups(&low, &high);
        let mut groups = vec![Vec::new(); if sharing.shared { sharing.count } else { 1 }];
        for (i, &group) in sharing.of.iter().enumerate() {
            groups[if sharing.shared { group as usize } else { 0 }].push(i);
        }
        for values in [low, high] {
            scratch.give_floats(values);
        }
        Ok(Line { elements, groups })
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
            measure(&self.levels, &run, &mut rows[(row - first) as usize], columns);
            at = end;
        }
        for values in values {
            scratch.give_floats(values);
        }
        Ok(())
    }
}

/// Elements of one row.
#[derive(Clone, Debug)]
pub struct Line {
    /// In their order.
    pub elements: Vec<Element>,
    /// The places of those that share a scale; of all, where hardly any do.
    pub groups: Vec<Vec<usize>>,
}

/// Consecutive elements of one row.
struct Run<'a> {
    r: &'a [f32],
    q: &'a [f32],
    low: &'a [f32],
    high: &'a [f32],
    column: u64,
}

/// Adds a run of a row to its sums.
fn measure(ladder: &Ladder, run: &Run, row: &mut Row, columns: Option<&mut Columns>) {
    let len = run.r.len();
    let of_groups = groups(run.low, run.high);
    let drifts = drifts(ladder, run, &of_groups);
    let mut sums = vec![GroupSums::default(); of_groups.count];
    let mut placed = Vec::with_capacity(len);
    let mut rungs = ladder.between(0.0, 0.0);
    let mut start = 0;
    while start < len {
        // Neighbours that share a scale.
        let group = of_groups.of[start] as usize;
        let others = of_groups.of[start..].iter().position(|&of| of as usize != group);
        let end = others.map_or(len, |count| start + count);
        let drift = drifts.get(group).copied().unwrap_or_default();
        let mut of_run = GroupSums { first: start, ..GroupSums::default() };
        for i in start..end {
            let Element { r, q, low, high } = run.element(i);
            rungs.move_to(low, high);
            let at = rungs.place(r, q, &drift);
            of_run.take(r, &at, ladder);
            at.code.into_iter().for_each(|code| row.codes.insert(code));
            placed.push(at);
        }
        sums[group].add(&of_run);
        start = end;
    }
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
    let runs = placed.chunks_exact(RUN).zip(run.r.chunks_exact(RUN));
    row.turned = runs.fold(row.turned, |least, (placed, r)| least.min(slope(placed, r)));
    row.top = placed.iter().fold(row.top, |top, at| top.max(at.step));
    row.largest = run.r.iter().fold(row.largest, |most, r| most.max(f64::from(r.abs())));
    for GroupSums { mut shift, first, largest, span } in sums {
        if !ladder.is_even() && shift.ss > 0.0 {
            // Local steps differ within a group of float codes: its rms is the unit.
            let step = shift.step();
            shift.steps = shift.d / step;
            shift.square_steps = shift.dd / (step * step);
        }
        row.slopes.take(&shift);
        row.shift.add(&shift);
        let (low, high) = (f64::from(run.low[first]), f64::from(run.high[first]));
        let has_zero = ladder.has_zero(low, high);
        let column = run.column + first as u64;
        let reach = (shift.dd / shift.n).sqrt();
        let span = if ladder.is_even() { span.part(low, high) } else { 1.0 };
        row.span = row.span.max(span);
        row.group_count += 1;
        row.groups.take(Group { row: row.row, first: column, shift, reach, largest, has_zero });
    }
}

/// Sums over the elements of a row that share a scale.
#[derive(Clone)]
struct GroupSums {
    shift: Shift,
    /// The first of them.
    first: usize,
    /// The largest magnitude of the reference; of a group that is a single value, how far it is from that.
    largest: f64,
    span: Span,
}

impl Default for GroupSums {
    fn default() -> Self {
        Self { shift: Shift::default(), first: usize::MAX, largest: 0.0, span: Span::default() }
    }
}

impl GroupSums {
    fn take(&mut self, r: f64, at: &Placed, ladder: &Ladder) {
        let shift = &mut self.shift;
        let size = match at.step == 0.0 {
            true if r.abs() <= ladder.lost_below() => 0.0,
            true => r - at.nearest,
            false => r,
        };
        self.largest = self.largest.max(size.abs());
        self.span.take(at.height, r);
        shift.n += 1.0;
        shift.rr += r * r;
        shift.nn += at.nearest * at.nearest;
        shift.ss += at.step * at.step;
        if at.d == 0.0 {
            return;
        }
        shift.moved += 1.0;
        shift.d += at.d;
        shift.dd += at.d * at.d;
        shift.dr += at.d * r;
        if ladder.is_even() && at.step > 0.0 {
            let steps = at.d / at.step;
            shift.steps += steps;
            shift.square_steps += steps * steps;
        }
    }

    /// Adds others that share the scale.
    fn add(&mut self, other: &Self) {
        self.shift.add(&other.shift);
        self.first = self.first.min(other.first);
        self.largest = self.largest.max(other.largest);
        self.span.add(&other.span);
    }
}

/// Slope of the displacement of a run on the reference.
fn slope(placed: &[Placed], r: &[f32]) -> f64 {
    let (mut dr, mut rr) = (0.0, 0.0);
    for (at, r) in placed.iter().zip(r) {
        dr += at.d * f64::from(*r);
        rr += f64::from(*r).powi(2);
    }
    if rr > 0.0 { dr / rr } else { 0.0 }
}

/// How far the scales of each group have drifted; nothing of all, if they are stored as they were.
fn drifts(ladder: &Ladder, run: &Run, groups: &Sharing) -> Vec<Drift> {
    if ladder.is_exact() {
        return Vec::new();
    }
    let mut members = vec![Vec::new(); groups.count];
    groups.of.iter().enumerate().for_each(|(i, &group)| members[group as usize].push(i));
    members.iter().map(|of| ladder.drift(&of.iter().map(|&i| run.element(i)))).collect()
}

impl Run<'_> {
    fn element(&self, i: usize) -> Element {
        let [r, q, low, high] = [self.r[i], self.q[i], self.low[i], self.high[i]].map(f64::from);
        Element { r, q, low, high }
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
            shared = false;
            of = (0..len).map(|i| (i / GROUP) as u32).collect();
            count = len.div_ceil(GROUP) as u32;
        }
    }
    Sharing { of, count: count as usize, shared }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rounding;

    #[test]
    fn half_way_between_two_levels_either_is_the_nearest() {
        let ladder = Ladder::new(&[0.0, 1.0, 2.0, 3.0], Rounding::default()).unwrap();
        for q in [-1.0, 0.0] {
            let run =
                Run { r: &[-0.5; 32], q: &[q; 32], low: &[-2.0; 32], high: &[1.0; 32], column: 0 };
            let mut row = Row::default();
            measure(&ladder, &run, &mut row, None);
            let whole = row.whole();
            assert_eq!(whole.nearest, whole.actual, "the file's own choice");
            assert_eq!(row.shift.dd, 0.0);
        }
    }
}

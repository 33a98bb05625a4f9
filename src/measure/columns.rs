/*!
Input columns that have nothing of their own reference: zero in every row, negated, or another column's.

A row hardly shows two columns that changed places, and all of its rows do. So a few runs of rows are read from
all over a matrix; a column whose cosine is far below what its type gives is held against that on more of them.
*/

use std::collections::HashSet;
use std::ops::Range;

use super::displaced::Reader;
use super::grid::Grid;
use super::pair::Pair;
use super::plan;
use super::run_sums::RunSums;
use super::twin::Both;
use crate::metrics::{Columns, PIECE};
use crate::model::Scratch;

/// Fewest rows of a matrix whose columns are looked at, and in how many of them a column's type must not round it
/// to zero for it to be missed: with fewer, coarse types have columns of zeros by chance.
const FEWEST: usize = 16;

/// Consecutive rows that are read together: some weights are stored by columns.
const RUN: u64 = 16;

/// One row in so many is read at first, and at most [`FIRST`].
const PART: u64 = 8;

/// Rows that are read at first.
const FIRST: u64 = 64;

/// Rows that a suspect column is looked at in.
const CLOSELY: u64 = 256;

/// A column is suspect below this cosine: coarse types give 0.6.
const SUSPECT: f64 = 0.5;

/// It is lost where its cosine, and so many standard errors of one of unrelated values, are below this part of what
/// the type gives: half way to values that know nothing of the reference.
const SURE: f64 = 3.0;
const PLAIN: f64 = 0.5;

/// The same where signs are not free, so that importances may leave nothing of a column: that is not negative.
const BOOK: f64 = 0.0;

/// One code in so many is not the nearest one where errors are fed back.
const FEEDBACK: u64 = 50;

/// Suspect columns of a matrix whose values are kept, to tell which one is in another's place.
const KEPT: usize = 64;

/// Longest row of which columns are looked for.
const LONGEST: u64 = 1 << 20;

/// Sums down all columns: of squares of the reference and of the quantized values, and of their products.
struct ColumnSums {
    rr: Vec<f64>,
    xx: Vec<f64>,
    rx: Vec<f64>,
}

impl ColumnSums {
    fn new(len: usize) -> Self {
        Self { rr: vec![0.0; len], xx: vec![0.0; len], rx: vec![0.0; len] }
    }

    /// Takes in a row.
    fn take(&mut self, r: &[f32], q: &[f32]) {
        let sums = self.rr.iter_mut().zip(&mut self.xx).zip(&mut self.rx);
        for (((rr, xx), rx), (&r, &q)) in sums.zip(r.iter().zip(q)) {
            let (r, q) = (f64::from(r), f64::from(q));
            *rr += r * r;
            *xx += q * q;
            *rx += r * q;
        }
    }

    fn is_suspect(&self, at: usize) -> bool {
        let (rr, xx, rx) = (self.rr[at], self.xx[at], self.rx[at]);
        rr > 0.0 && (xx == 0.0 || rx < SUSPECT * (rr * xx).sqrt())
    }
}

/// Sums over the rows of a column, and of what its type makes of the reference.
#[derive(Clone, Copy, Default)]
struct Column {
    both: Both,
    /// Rows in which its type does not round it to zero.
    there: usize,
}

/// A column that is looked at closely, with its values on both sides.
#[derive(Default)]
struct Suspect {
    at: usize,
    /// Whether what its type gives is asked for.
    needs_twin: bool,
    column: Column,
    r: Vec<f32>,
    q: Vec<f32>,
}

impl Suspect {
    /// Whether it is surely another column, or negated: error feedback, with inputs that nearly depend on each other,
    /// leaves nothing of a column either, but no other one in its place.
    fn is_another(&self, others: &[Self]) -> bool {
        let half = self.column.expected() / 2.0;
        let is_of = |other: &Self| {
            let is_kept = !self.q.is_empty() && !other.r.is_empty();
            other.at != self.at && is_kept && RunSums::of(&other.r, &self.q).cosine().abs() > half
        };
        self.column.is_zero() || self.column.cosine() < -half || others.iter().any(is_of)
    }
}

impl Column {
    fn take(&mut self, r: f32, q: f32) {
        self.both.actual.take(f64::from(r), f64::from(q));
    }

    fn expect(&mut self, r: f32, twin: f32) {
        self.both.twin.take(f64::from(r), f64::from(twin));
        self.there += usize::from(twin != 0.0);
    }

    fn is_zero(&self) -> bool {
        self.both.actual.xx == 0.0
    }

    /// Cosine with the reference.
    fn cosine(&self) -> f64 {
        self.both.actual.cosine()
    }

    /// What the type gives; 0 where it was not asked for.
    fn expected(&self) -> f64 {
        if self.both.twin.n > 0 { self.both.twin.cosine() } else { 0.0 }
    }

    fn is_lost(&self, rows: u64, part: f64) -> bool {
        let chance = SURE / (rows as f64).sqrt();
        let half = part * self.expected();
        // Of a column of which the type leaves no more than chance, nothing can be told but that it is zero.
        let speaks = part == BOOK || half > chance;
        self.there >= FEWEST && (self.is_zero() || speaks && self.cosine() + chance < half)
    }
}

impl Pair<'_> {
    /// Lost columns of all matrices of the tensor; none if they cannot be looked for.
    pub fn lost_columns(&self, scratch: &mut Scratch) -> Result<Option<Columns>, String> {
        let row_len = plan::row_len(&self.q.shape);
        let merged = self.q.shape.last() != Some(&row_len);
        let Some(grid) = Grid::of(self.q, row_len) else { return Ok(None) };
        let slice_len = match plan::slice_len(&self.q.shape) {
            0 => self.q.numel(),
            len => len,
        };
        let rows = slice_len / row_len;
        if merged || row_len > LONGEST || rows < FEWEST as u64 {
            return Ok(None);
        }
        let mut lost = Columns::default();
        for slice in 0..self.q.numel() / slice_len {
            let first = slice * rows;
            let found = self.of_matrix(first..first + rows, row_len, &grid, scratch)?;
            for Suspect { at, column, .. } in found {
                lost.take(at as u64, column.cosine(), column.expected(), column.is_zero());
            }
        }
        Ok(Some(lost))
    }

    /// The lost columns of one matrix.
    fn of_matrix(
        &self,
        rows: Range<u64>,
        row_len: u64,
        grid: &Grid,
        scratch: &mut Scratch,
    ) -> Result<Vec<Suspect>, String> {
        let count = rows.end - rows.start;
        let few = (count / PART).clamp(RUN, FIRST);
        let mut columns = ColumnSums::new(row_len as usize);
        for run in runs(&rows, few) {
            let [r, q] = self.read(run.start * row_len..run.end * row_len, scratch)?;
            for (r, q) in r.chunks(row_len as usize).zip(q.chunks(row_len as usize)) {
                columns.take(r, q);
            }
        }
        let own = Reader::new((self.reference, self.r), (self.quantized, self.q), row_len);
        // Quantizers that search code books are slow: only columns of zeros, of which there are few, are worth it.
        let is_book = matches!(grid, Grid::Blocks(_)) && own.is_none();
        let suspects = (0..row_len as usize).filter(|&at| columns.is_suspect(at));
        let is_zero = |at: usize| columns.xx[at] == 0.0;
        let mut suspects: Vec<Suspect> = suspects
            .map(|at| Suspect { at, needs_twin: !is_book || is_zero(at), ..Suspect::default() })
            .collect();
        if is_book && suspects.iter().filter(|it| it.needs_twin).count() > KEPT {
            suspects.retain(|it| !it.needs_twin);
        }
        if suspects.is_empty() {
            return Ok(suspects);
        }
        let mut is_suspect = vec![false; row_len as usize];
        for it in &suspects {
            is_suspect[it.at] = true;
        }
        let (mut moved, mut all) = (0u64, 0u64);
        let mut seen = 0;
        for run in runs(&rows, if is_book { FIRST } else { CLOSELY }) {
            let range = run.start * row_len..run.end * row_len;
            let [r, q] = self.read(range.clone(), scratch)?;
            let mut nearest = Vec::new();
            if let Some(own) = &own {
                nearest.resize(r.len(), 0f32);
                own.each_nearest(range, &r, scratch, |at, it| {
                    // A scale or a factor of zero says nothing of what should be there.
                    nearest[at] = if it.step > 0.0 { it.level() } else { f32::NAN };
                    if !is_suspect[at % row_len as usize] {
                        all += 1;
                        moved += u64::from((f64::from(q[at]) - it.nearest).abs() > it.step / 4.0);
                    }
                })?;
            }
            let mut nearest = nearest.chunks(row_len as usize);
            for (r, q) in r.chunks(row_len as usize).zip(q.chunks(row_len as usize)) {
                expect(&mut suspects, grid, nearest.next(), r, q);
                seen += 1;
            }
        }
        let part = if is_book { BOOK } else { PLAIN };
        suspects.retain(|it| it.column.is_lost(seen, part));
        // Where all other codes are the nearest ones, nothing was made up for.
        let is_nearest = own.is_some() && moved * FEEDBACK < all;
        if grid.is_tuned() && !is_nearest {
            let others = |it: &Suspect| it.is_another(&suspects).then_some(it.at);
            let are: HashSet<usize> = suspects.iter().filter_map(others).collect();
            suspects.retain(|it| are.contains(&it.at));
        }
        Ok(suspects)
    }
}

/// Adds a row to the sums of suspect columns, and what the type makes of the reference there: its nearest levels, or
/// plain quantization.
fn expect(suspects: &mut [Suspect], grid: &Grid, nearest: Option<&[f32]>, r: &[f32], q: &[f32]) {
    let part = if grid.is_local() { PIECE } else { r.len() };
    let mut known: Option<(usize, Option<Vec<f32>>)> = None;
    for (place, suspect) in suspects.iter_mut().enumerate() {
        let at = suspect.at;
        suspect.column.take(r[at], q[at]);
        if place < KEPT {
            suspect.r.push(r[at]);
            suspect.q.push(q[at]);
        }
        if let Some(nearest) = nearest.filter(|it| !it[at].is_nan()) {
            suspect.column.expect(r[at], nearest[at]);
            continue;
        }
        if !suspect.needs_twin {
            suspect.column.there += usize::from(r[at] != 0.0);
            continue;
        }
        let start = at / part * part;
        if known.as_ref().is_none_or(|(of, _)| *of != start) {
            known = Some((start, grid.quantize(&r[start..(start + part).min(r.len())])));
        }
        if let Some((_, Some(twin))) = &known {
            suspect.column.expect(r[at], twin[at - start]);
        }
    }
}

/// Runs of rows from all over a matrix, about so many rows in all.
fn runs(rows: &Range<u64>, wanted: u64) -> impl Iterator<Item = Range<u64>> {
    let (start, count) = (rows.start, rows.end - rows.start);
    let runs = wanted.div_ceil(RUN).min(count.div_ceil(RUN)).max(1);
    (0..runs).map(move |at| {
        let first = count.saturating_sub(RUN) * at / (runs - 1).max(1);
        // Runs that would overlap are cut.
        let next = count.saturating_sub(RUN) * (at + 1) / (runs - 1).max(1);
        let end = if at + 1 == runs { count } else { next.min(first + RUN) };
        start + first..start + end.min(first + RUN).max(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_in_order_and_visit_no_row_twice() {
        for (count, wanted) in
            [(16, 16), (17, 64), (31, 64), (100, 64), (4096, 64), (300, 256), (256, 256)]
        {
            let all: Vec<u64> = runs(&(5..5 + count), wanted).flatten().collect();
            assert!(
                all.is_sorted() && all.windows(2).all(|two| two[0] < two[1]),
                "{count}: {all:?}"
            );
            assert!(all.iter().all(|row| (5..5 + count).contains(row)), "{count}: {all:?}");
            assert!(
                all.len() as u64 >= count.min(wanted) * 15 / 16,
                "{count}, {wanted}: {}",
                all.len()
            );
        }
    }

    #[test]
    fn a_column_is_lost_half_way_to_one_that_knows_nothing_of_its_reference() {
        let sums = |cosine| RunSums { n: 64, rr: 1.0, xx: 1.0, rx: cosine, ..RunSums::default() };
        let of = |cosine, expected| {
            let both = Both { actual: sums(cosine), twin: sums(expected) };
            Column { both, there: 64 }
        };
        for (cosine, expected, rows, lost, why) in [
            (-0.9, 0.98, 64, true, "negated"),
            (-0.2, 0.13, 256, false, "hardly anything was left of it"),
            (0.05, 0.98, 256, true, "exchanged"),
            (0.05, 0.98, 16, false, "exchanged, but of few rows"),
            (0.45, 0.6, 256, false, "one bit"),
            (0.9, 0.98, 256, false, "sound"),
            (0.0, 0.2, 256, false, "nearly rounded to nothing"),
        ] {
            assert_eq!(of(cosine, expected).is_lost(rows, PLAIN), lost, "{why}");
        }
    }
}

/*!
Where in a tensor the damage is: the worst row, slice and block, and those that are zero on one side.

A row is the last dimension (with those before it while it is very short), a slice is one index of
the outermost of three or more dimensions (an expert), a block is a piece of a row. All of it comes
from the sums of the pieces that the metrics need anyway, in their order: of equals, the first is
kept. Rows, slices and blocks that hold a NaN or an infinity are passed over; those are counted.
*/

use std::ops::Range;

use super::functions;
use super::kernels::Sheet;
use super::{Moments, PIECE, Sums, Total};

/// What the pass found out about the parts of one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Locals {
    /// Elements of a row.
    pub row_len: u64,
    /// Elements of a slice; 0 if the tensor has no slices.
    pub slice_len: u64,
    /// Σ r⁴; see [`Locals::kurtosis`].
    pub r4: f64,
    /// Rows.
    pub rows: Groups,
    /// Slices along the outermost of three or more dimensions.
    pub slices: Groups,
    /// Blocks: pieces of [`PIECE`] elements, counted from the start of each row.
    pub blocks: Blocks,
    /// Elements that a conversion does not explain; `None` if the pair is no conversion between floats.
    pub unlike: Option<Tally>,
    /// Columns that have nothing of their reference, which their type does not lead to expect; `None` if that
    /// was not looked for.
    pub columns: Option<Columns>,
    /// First element of the reference that is NaN or infinite.
    pub first_nonfinite_reference: Option<u64>,
    /// First element of the quantized tensor that is NaN or infinite.
    pub first_nonfinite_quantized: Option<u64>,
}

/// The extremes of a tensor's rows, or of its slices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Groups {
    /// The one with the lowest cosine; those with a zero side are passed over, and counted in `zero`.
    pub worst: Option<Group>,
    /// The one with the largest gain; those with a zero side are passed over.
    pub loudest: Option<Group>,
    /// The one with the smallest gain; those with a zero side are passed over.
    pub quietest: Option<Group>,
    /// Those that are zero on one side only.
    pub zero: OneSided,
}

/// One row or slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Its index, counted over the whole tensor.
    pub index: u64,
    /// Σ r².
    pub rr: f64,
    /// Σ q².
    pub qq: f64,
    /// Σ e².
    pub ee: f64,
    /// Σ r·q.
    pub rq: f64,
}

/// The blocks with the largest error, and those that are zero on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Blocks {
    /// Largest error: highest Σe²/n. `None` if there is no error at all.
    pub worst: Option<Block>,
    /// Largest error relative to the reference: highest Σe²/Σr², where Σr² is not zero.
    pub worst_relative: Option<Block>,
    /// Those that are zero on one side only.
    pub zero: OneSided,
}

/// One block of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// Row, counted over the whole tensor.
    pub row: u64,
    /// Index in the row; the block begins at element `index * PIECE` of it.
    pub index: u64,
    /// Elements; [`PIECE`] but for the last block of a row.
    pub len: u64,
    /// Σ r².
    pub rr: f64,
    /// Σ e².
    pub ee: f64,
}

/// Rows, slices or blocks that are zero on one side only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OneSided {
    /// All zero in the reference, not in the quantized tensor.
    pub reference: Tally,
    /// All zero in the quantized tensor, not in the reference.
    pub quantized: Tally,
}

/// Columns of a matrix that have nothing of their reference.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Columns {
    /// Those that are zero in every row that was looked at.
    pub dead: Tally,
    /// The others: negated, or another column's.
    pub unrelated: Tally,
    /// Cosines of the first of the others: what it has, and what its type gives.
    pub cosines: [f64; 2],
}

impl Columns {
    /// Counts a column.
    pub fn take(&mut self, at: u64, cosine: f64, expected: f64, is_dead: bool) {
        if !is_dead && self.unrelated.count == 0 {
            self.cosines = [cosine, expected];
        }
        let tally = if is_dead { &mut self.dead } else { &mut self.unrelated };
        tally.join(&Tally { count: 1, first: Some(at) });
    }
}

/// How many, and which came first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Index of the first; of a block, that of its first element in the tensor.
    pub first: Option<u64>,
}

impl Locals {
    /// Kurtosis of the reference about zero, `n Σr⁴ / (Σr²)²`: 3 for a Gaussian, more for heavy
    /// tails; `None` if the reference is all zero or not finite.
    pub fn kurtosis(&self, sums: &Moments) -> Option<f64> {
        let kurtosis = sums.n as f64 * (self.r4 / sums.rr / sums.rr);
        kurtosis.is_finite().then_some(kurtosis)
    }

    /// The rows and blocks that stand out and lie within some rows, counted from the first of these.
    #[must_use]
    pub fn within(&self, rows: &Range<u64>) -> Self {
        let row = |it: Option<Group>| {
            let it = it.filter(|it| rows.contains(&it.index))?;
            Some(Group { index: it.index - rows.start, ..it })
        };
        let block = |it: Option<Block>| {
            let it = it.filter(|it| rows.contains(&it.row))?;
            Some(Block { row: it.row - rows.start, ..it })
        };
        let Self { row_len, rows: of, blocks, .. } = *self;
        Self {
            row_len,
            rows: Groups {
                worst: row(of.worst),
                loudest: row(of.loudest),
                quietest: row(of.quietest),
                zero: OneSided::default(),
            },
            blocks: Blocks {
                worst: block(blocks.worst),
                worst_relative: block(blocks.worst_relative),
                zero: OneSided::default(),
            },
            ..Self::default()
        }
    }

    /// The row whose gain is furthest from 1 in |ln gain|.
    pub fn worst_gain(&self) -> Option<Group> {
        self.rows.worst_gain()
    }
}

impl Groups {
    /// The one whose gain is furthest from 1 in |ln gain|; of equals, the louder.
    pub fn worst_gain(&self) -> Option<Group> {
        let distance = |group: &Group| functions::ln(group.qq / group.rr).abs();
        match (self.loudest, self.quietest) {
            (Some(loud), Some(quiet)) if distance(&quiet) > distance(&loud) => Some(quiet),
            (loud, _) => loud,
        }
    }

    fn join(&mut self, next: &Self, records: &mut GroupRecords) {
        keep(&mut self.worst, next.worst, |new, old| new.cosine_key() < old.cosine_key());
        keep(&mut self.loudest, next.loudest, |new, old| new.gain_key() > old.gain_key());
        keep(&mut self.quietest, next.quietest, |new, old| new.gain_key() < old.gain_key());
        self.zero.join(&next.zero);
        *records = GroupRecords {
            cosine: self.worst.map_or(f64::INFINITY, |group| group.cosine_key()),
            loudest: self.loudest.map_or(f64::NEG_INFINITY, |group| group.gain_key()),
            quietest: self.quietest.map_or(f64::INFINITY, |group| group.gain_key()),
        };
    }

    /// Takes in one more; `records` are the keys of those kept so far.
    fn take(&mut self, index: u64, sums: &Sums, records: &mut GroupRecords) {
        let (rr, qq) = (sums.rr(), sums.qq());
        let group = Group { index, rr, qq, ee: sums.ee(), rq: sums.rq() };
        let cosine = group.cosine_key();
        if rr == 0.0 || qq == 0.0 {
            self.zero.take(index, rr, qq);
            return;
        }
        if !(rr + qq).is_finite() {
            return;
        }
        let gain = group.gain_key();
        if gain > records.loudest {
            records.loudest = gain;
            self.loudest = Some(group);
        }
        if gain < records.quietest {
            records.quietest = gain;
            self.quietest = Some(group);
        }
        if cosine < records.cosine {
            records.cosine = cosine;
            self.worst = Some(group);
        }
    }
}

/// Keys of the groups kept so far, so that a comparison costs no division.
#[derive(Clone, Copy, Debug)]
struct GroupRecords {
    cosine: f64,
    loudest: f64,
    quietest: f64,
}

impl Default for GroupRecords {
    fn default() -> Self {
        Self { cosine: f64::INFINITY, loudest: f64::NEG_INFINITY, quietest: f64::INFINITY }
    }
}

/// Replaces `old` by `new` if there is no old one, or if the new one is more extreme.
#[inline]
fn keep<T>(old: &mut Option<T>, new: Option<T>, exceeds: impl Fn(&T, &T) -> bool) {
    if let Some(new) = new
        && old.as_ref().is_none_or(|old| exceeds(&new, old))
    {
        *old = Some(new);
    }
}

impl Group {
    /// Cosine; 0 if one side is zero.
    pub fn cosine(&self) -> f64 {
        let sums = Moments { rr: self.rr, qq: self.qq, ee: self.ee, rq: self.rq, ..<_>::default() };
        super::cosine(&sums)
    }

    /// `sqrt(Σq²/Σr²)`.
    pub fn gain(&self) -> f64 {
        (self.qq / self.rr).sqrt()
    }

    /// `10 log10(Σr²/Σe²)` in dB; infinite if the error is zero.
    pub fn sqnr_db(&self) -> f64 {
        if self.ee == 0.0 { f64::INFINITY } else { 10.0 * functions::log10(self.rr / self.ee) }
    }

    /// Grows with the cosine: its square, with its sign.
    fn cosine_key(&self) -> f64 {
        if self.rr == 0.0 || self.qq == 0.0 {
            return 0.0;
        }
        self.rq * self.rq.abs() / (self.rr * self.qq)
    }

    /// Grows with the gain: its square.
    fn gain_key(&self) -> f64 {
        self.qq / self.rr
    }
}

impl Block {
    /// `sqrt(Σe²/n)`; in units of the weights.
    pub fn rmse(&self) -> f64 {
        (self.ee / self.len as f64).sqrt()
    }

    /// `sqrt(Σe²/Σr²)`; infinite if the reference is all zero here.
    pub fn rel_rmse(&self) -> f64 {
        (self.ee / self.rr).sqrt()
    }

    /// `10 log10(Σr²/Σe²)` in dB.
    pub fn sqnr_db(&self) -> f64 {
        10.0 * functions::log10(self.rr / self.ee)
    }
}

impl OneSided {
    /// True if any is.
    pub fn any(&self) -> bool {
        self.reference.count + self.quantized.count > 0
    }

    /// Counts the one at `index` if exactly one of its sides is zero.
    fn take(&mut self, index: u64, rr: f64, qq: f64) {
        let tally = match (rr == 0.0, qq == 0.0) {
            (true, false) => &mut self.reference,
            (false, true) => &mut self.quantized,
            _ => return,
        };
        tally.join(&Tally { count: 1, first: Some(index) });
    }

    fn join(&mut self, next: &Self) {
        self.reference.join(&next.reference);
        self.quantized.join(&next.quantized);
    }
}

impl Tally {
    pub(super) fn join(&mut self, next: &Self) {
        self.count += next.count;
        self.first = self.first.or(next.first);
    }
}

/// How a tensor is cut into rows and slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Elements of a row; not zero.
    pub row_len: u64,
    /// Elements of a slice, a multiple of `row_len`; 0 if the tensor has no slices.
    pub slice_len: u64,
}

/// What is known of a run of elements of one tensor.
///
/// A run is made of whole rows, or it lies inside one row; and so it is with slices.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    layout: Layout,
    start: u64,
    /// First element that has not been taken in.
    at: u64,
    whole_rows: bool,
    whole_slices: bool,
    total: Total,
    /// Maximum and counts; the sums are in `total`.
    counts: Moments,
    locals: Locals,
    /// The sums since the last row's end.
    row: Sums,
    /// The sums of whole rows since the last slice's end.
    slice: Sums,
    row_records: GroupRecords,
    slice_records: GroupRecords,
    block_records: BlockRecords,
}

impl Part {
    /// Nothing yet of the elements in `range`.
    pub fn new(layout: Layout, range: &Range<u64>) -> Self {
        let whole = |len: u64| range.start.is_multiple_of(len) && range.end.is_multiple_of(len);
        Self {
            layout,
            start: range.start,
            at: range.start,
            whole_rows: whole(layout.row_len),
            whole_slices: whole(layout.slice_len),
            total: Total::default(),
            counts: Moments::default(),
            locals: Locals {
                row_len: layout.row_len,
                slice_len: layout.slice_len,
                ..Locals::default()
            },
            row: Sums::default(),
            slice: Sums::default(),
            row_records: GroupRecords::default(),
            slice_records: GroupRecords::default(),
            block_records: BlockRecords::default(),
        }
    }

    /// An empty beginning, to which all of a tensor's runs are joined.
    pub fn beginning(layout: Layout) -> Self {
        // Rows and slices end in `join` alone.
        Self { whole_rows: false, whole_slices: false, ..Self::new(layout, &(0..0)) }
    }

    /// The sums and the local statistics.
    pub fn finish(&self) -> (Moments, Locals) {
        let sums = Moments {
            n: self.at - self.start,
            max_abs: self.counts.max_abs,
            reference_nonfinite: self.counts.reference_nonfinite,
            quantized_nonfinite: self.counts.quantized_nonfinite,
            ..self.total.moments()
        };
        (sums, Locals { r4: self.total.r4(), ..self.locals })
    }

    /// Takes in a run of `len` elements that a kernel has summed up: whole rows, or the next whole
    /// pieces of one.
    ///
    /// Returns true if one of them is NaN or infinite; the caller counts them then, through
    /// [`Part::nonfinite`].
    pub fn take(&mut self, sheet: &mut Sheet, len: u64) -> bool {
        let row_len = self.layout.row_len;
        let stop = self.at + len;
        let first_row = self.at / row_len;
        let mut first_block = (self.at - first_row * row_len) / PIECE as u64;
        let mut pieces = sheet.pieces.as_slice();
        let mut squares = 0.0;
        for (row, sums) in (first_row..).zip(&sheet.rows) {
            squares += sums.rr() + sums.qq();
            let row_end = ((row + 1) * row_len).min(stop);
            let count = (row_end - self.at).div_ceil(PIECE as u64) as usize;
            let Some((of_row, others)) = pieces.split_at_checked(count) else { break };
            pieces = others;
            let place = Place { row, first_block, start: self.at, end: row_end };
            self.locals.blocks.take(&place, of_row, &mut self.block_records);
            self.at = row_end;
            self.row = *sums;
            sheet.row = *sums;
            if row_end == (row + 1) * row_len {
                sheet.row = Sums::default();
                if self.whole_rows {
                    self.end_row(row);
                }
            }
            first_block = 0;
        }
        self.total = sheet.total;
        self.counts.max_abs = sheet.max_abs;
        // The square of an f32 cannot overflow f64: a finite sum proves that all elements are finite.
        !squares.is_finite()
    }

    fn end_row(&mut self, row: u64) {
        self.locals.rows.take(row, &self.row, &mut self.row_records);
        if self.layout.slice_len > 0 {
            self.slice.add(&self.row);
            if self.whole_slices && self.at.is_multiple_of(self.layout.slice_len) {
                self.end_slice();
            }
        }
        self.row = Sums::default();
    }

    fn end_slice(&mut self) {
        let index = self.at / self.layout.slice_len - 1;
        self.locals.slices.take(index, &self.slice, &mut self.slice_records);
        self.slice = Sums::default();
    }

    /// Counts an element that is not finite on one side or both.
    pub fn nonfinite(&mut self, index: u64, reference: bool, quantized: bool) {
        self.counts.reference_nonfinite += u64::from(reference);
        self.counts.quantized_nonfinite += u64::from(quantized);
        note_first(&mut self.locals.first_nonfinite_reference, reference.then_some(index));
        note_first(&mut self.locals.first_nonfinite_quantized, quantized.then_some(index));
    }

    /// Takes in the elements that a conversion does not explain, of the run that follows what was counted.
    pub fn unlike(&mut self, found: &Tally) {
        self.locals.unlike.get_or_insert_default().join(found);
    }

    /// Adds the run that follows to a [`Part::beginning`].
    pub fn join(&mut self, next: &Part) {
        self.total.join(&next.total);
        self.counts.add(&next.counts);
        self.at = next.at;
        let (locals, more) = (&mut self.locals, &next.locals);
        if let Some(unlike) = &more.unlike {
            locals.unlike.get_or_insert_default().join(unlike);
        }
        note_first(&mut locals.first_nonfinite_reference, more.first_nonfinite_reference);
        note_first(&mut locals.first_nonfinite_quantized, more.first_nonfinite_quantized);
        locals.blocks.join(&more.blocks);
        locals.rows.join(&more.rows, &mut self.row_records);
        locals.slices.join(&more.slices, &mut self.slice_records);
        self.slice.add(&next.slice);
        if !next.whole_rows {
            self.row.add(&next.row);
            if self.at.is_multiple_of(self.layout.row_len) {
                self.end_row(self.at / self.layout.row_len - 1);
            }
        }
        let slice_len = self.layout.slice_len;
        if slice_len > 0 && !next.whole_slices && self.at.is_multiple_of(slice_len) {
            self.end_slice();
        }
    }
}

fn note_first(first: &mut Option<u64>, next: Option<u64>) {
    *first = first.or(next);
}

/// What the blocks kept so far have.
#[derive(Clone, Copy, Debug)]
struct BlockRecords {
    /// Σe² and length of the worst.
    worst: (f64, f64),
    /// Σe² and Σr² of the relatively worst.
    relative: (f64, f64),
}

impl Default for BlockRecords {
    fn default() -> Self {
        Self { worst: (0.0, 1.0), relative: (0.0, 1.0) }
    }
}

/// Where in a tensor consecutive blocks of a row lie.
struct Place {
    row: u64,
    /// Index in the row of the first block.
    first_block: u64,
    /// First element of the first block.
    start: u64,
    /// First element behind the last block.
    end: u64,
}

impl Blocks {
    /// Takes in the blocks of a row, or some of them.
    fn take(&mut self, place: &Place, sums: &[Sums], records: &mut BlockRecords) {
        let (mut worst, mut relative) = (records.worst, records.relative);
        for (at, sums) in sums.iter().enumerate() {
            let (rr, qq, ee) = (sums.rr(), sums.qq(), sums.ee());
            let start = place.start + (at * PIECE) as u64;
            let len = (place.end - start).min(PIECE as u64);
            let block =
                || Block { row: place.row, index: place.first_block + at as u64, len, rr, ee };
            let n = len as f64;
            // a/b > c/d as a·d > c·b: no division, and a NaN exceeds nothing.
            if ee * worst.1 > worst.0 * n && ee.is_finite() {
                worst = (ee, n);
                self.worst = Some(block());
            }
            if ee * relative.1 > relative.0 * rr && ee.is_finite() && rr > 0.0 {
                relative = (ee, rr);
                self.worst_relative = Some(block());
            }
            if rr == 0.0 || qq == 0.0 {
                self.zero.take(start, rr, qq);
            }
        }
        *records = BlockRecords { worst, relative };
    }

    fn join(&mut self, next: &Self) {
        keep(&mut self.worst, next.worst, |new, old| {
            new.ee * old.len as f64 > old.ee * new.len as f64
        });
        keep(&mut self.worst_relative, next.worst_relative, |new, old| {
            new.ee * old.rr > old.ee * new.rr
        });
        self.zero.join(&next.zero);
    }
}

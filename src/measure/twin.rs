/*!
The undamaged twin: what the same rows of the reference give when they are quantized to the same type
without any fault.

A tensor's error depends on its type and on its own values (heavy tails, tiny scales, lattices), so
that no fixed bound is right for all. Quantizing a bounded sample of the reference again says what is
to be expected of exactly these rows: ggml's types through their own quantizers, schemes through
plain rounding on the same kind of grid. The sample is evenly spaced rows, and the rows that stood out.
*/

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::grid::Grid;
use super::plan;
use super::{Matched, Measured};
use crate::codec::{Class, TensorType};
use crate::metrics::{CONTRACT_COSINE, Locals, PIECE};
use crate::model::{Model, Scratch, Tensor};

/// Elements of the evenly spaced sample.
const SAMPLE: u64 = 8 * 1024;

/// The sample is taken in so many parts, each spread over the tensor, until it says enough.
const PARTS: u64 = 16;

/// It does when its noise is not so many dB above its twin's: two thirds of what the gates allow.
const SETTLED: f64 = 1.0;

/// How far a row may be from what the sample leads to expect, as a ratio of Σe², before its pieces are
/// asked for their own twins: 1.5 dB, with which the gates pass it.
const ORDINARY: f64 = 1.4;

/// The same as a distance of the gains, of which the gates allow 0.05.
const ORDINARY_GAIN: f64 = 0.04;

/// How much larger the rms error of a piece may be than that of the sample's worst before it is asked
/// for its own twin: two thirds of what the gate allows.
const QUIET: f64 = 2.0;

/// Elements of a row beyond which only its first part is looked at.
const LONGEST: u64 = 64 * 1024;

/// Sums over a run of elements: r reference, x quantized (or its twin), e = x - r.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunSums {
    /// Number of elements.
    pub n: u64,
    /// Σ r².
    pub rr: f64,
    /// Σ x².
    pub xx: f64,
    /// Σ e².
    pub ee: f64,
    /// Σ r·x.
    pub rx: f64,
}

impl RunSums {
    fn of(reference: &[f32], other: &[f32]) -> Self {
        let mut sums = Self { n: reference.len() as u64, ..Self::default() };
        for (&r, &x) in reference.iter().zip(other) {
            let (r, x) = (f64::from(r), f64::from(x));
            let e = x - r;
            sums.rr += r * r;
            sums.xx += x * x;
            sums.ee += e * e;
            sums.rx += r * x;
        }
        sums
    }

    fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.rr += other.rr;
        self.xx += other.xx;
        self.ee += other.ee;
        self.rx += other.rx;
    }

    /// Signal-to-noise ratio in dB; infinite without an error.
    pub fn sqnr_db(&self) -> f64 {
        if self.ee == 0.0 { f64::INFINITY } else { 10.0 * (self.rr / self.ee).log10() }
    }

    /// Ratio of the norms; 1 if both are zero.
    pub fn gain(&self) -> f64 {
        if self.rr == 0.0 && self.xx == 0.0 { 1.0 } else { (self.xx / self.rr).sqrt() }
    }

    /// Cosine; 1 if both sides are zero, 0 if one is.
    pub fn cosine(&self) -> f64 {
        match (self.rr == 0.0, self.xx == 0.0) {
            (true, true) => 1.0,
            (false, false) => self.rx / (self.rr.sqrt() * self.xx.sqrt()),
            _ => 0.0,
        }
    }

    /// The part of the power that is noise: 1 - cosine^2.
    fn lost(&self) -> f64 {
        1.0 - self.cosine() * self.cosine()
    }

    /// How far a gain is from what it should be, these being a twin's sums: from 1, or from the twin's,
    /// whichever is nearer. Coarse types scatter: a tenth of the twin's own relative error is taken off.
    pub fn gain_distance(&self, gain: f64) -> f64 {
        let from_one = (gain - 1.0).abs();
        if self.rr == 0.0 || self.xx == 0.0 {
            return from_one;
        }
        let from_twin = (gain / self.gain() - 1.0).abs();
        (from_one.min(from_twin) - 0.1 * (self.ee / self.rr).sqrt()).max(0.0)
    }

    /// Whether these sums of a row or piece are much like those of its twin, or of what is expected.
    fn is_like(&self, twin: &Self) -> bool {
        self.ee <= ORDINARY * twin.ee
            && self.lost() <= ORDINARY * twin.lost()
            && twin.gain_distance(self.gain()) <= ORDINARY_GAIN
    }

    /// What these sums lead to expect of other elements, of which these are the reference's.
    fn expected_of(&self, other: &Self) -> Self {
        let ratio = if self.rr == 0.0 { 0.0 } else { other.rr / self.rr };
        Self {
            n: other.n,
            rr: other.rr,
            xx: self.xx * ratio,
            ee: self.ee * ratio,
            rx: self.rx * ratio,
        }
    }

    /// Root mean square error.
    pub fn rms(&self) -> f64 {
        if self.n == 0 { 0.0 } else { (self.ee / self.n as f64).sqrt() }
    }
}

/// The same elements, as they are and as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Both {
    /// The quantized tensor.
    pub actual: RunSums,
    /// Its undamaged twin.
    pub twin: RunSums,
}

impl Both {
    fn add(&mut self, other: &Self) {
        self.actual.add(&other.actual);
        self.twin.add(&other.twin);
    }

    /// Whether this sample of a tensor says enough, being so like its twin, and so much like the whole,
    /// that every gate that looks at them passes.
    fn settles(&self, whole: &RunSums) -> bool {
        let expected = self.twin.sqnr_db();
        let allowed = self.twin.lost() * 10f64.powf(SETTLED / 10.0);
        self.actual.sqnr_db() >= expected - SETTLED
            // The gate allows the whole, of other elements than the twin's, twice as much.
            && whole.sqnr_db() >= expected - 2.0 * SETTLED
            && self.twin.gain_distance(whole.gain()) <= ORDINARY_GAIN
            && (whole.cosine() >= CONTRACT_COSINE || whole.lost() <= allowed)
    }
}

/// A row that stood out, beside its twin.
#[derive(Clone, Debug)]
pub struct RowTwin {
    /// Its index.
    pub row: u64,
    /// All of it.
    pub whole: Both,
    /// Its pieces, in order. One that is not much louder than the sample's worst may have no twin of
    /// its own: the twin's sums are empty.
    pub pieces: Vec<Both>,
}

/// A tensor's sample beside its twin.
#[derive(Clone, Debug)]
pub struct Twin {
    /// The evenly spaced rows.
    pub sample: Both,
    /// The worst rms error of a piece of the sample's twin.
    pub worst_piece: f64,
    /// Rows that stood out in the pass over the whole tensor.
    pub rows: Vec<RowTwin>,
    /// Whether the type is only rounded to, so that nothing but rounding may differ.
    pub conversion: bool,
    /// Whether the grid was only guessed, from values that repeat.
    pub guessed: bool,
    /// Whether the scheme's tools trade plain error for less harm (GPTQ, AWQ and their kin).
    pub tuned: bool,
}

/// What is to be expected of a tensor, or in a few words why that is not known.
pub type Expectation = Result<Twin, String>;

/// Measures the twins of all matched tensors, in the order of `matched`. A tensor that cannot be read
/// again becomes [`Measured::Unreadable`].
pub fn twins(
    reference: &Model,
    quantized: &Model,
    matched: &[Matched],
    measured: &mut [Measured],
    threads: usize,
) -> Vec<Expectation> {
    let next = AtomicUsize::new(0);
    let nothing = || Ok(Err("it was not measured".to_owned()));
    let results: Mutex<Vec<Result<Expectation, String>>> =
        Mutex::new(matched.iter().map(|_| nothing()).collect());
    let work = || {
        let mut scratch = Scratch::default();
        while let Some((index, (pair, measured))) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            matched.get(index).zip(measured.get(index)).map(|job| (index, job))
        } {
            let Measured::Values { sums, locals } = measured else { continue };
            if sums.nonfinite() > 0 || sums.n == 0 {
                continue;
            }
            let sides = Sides {
                r: &reference.tensors[pair.reference],
                q: &quantized.tensors[pair.quantized],
                reference,
                quantized,
            };
            let whole = RunSums { n: sums.n, rr: sums.rr, xx: sums.qq, ee: sums.ee, rx: sums.rq };
            let twin = sides.twin(locals, &whole, &mut scratch);
            let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            results[index] = twin.map(|twin| twin.ok_or_else(|| NO_GRID.to_owned()));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(matched.len()) {
            scope.spawn(work);
        }
        work();
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let read = |(result, measured): (Result<Expectation, String>, &mut Measured)| {
        result.unwrap_or_else(|reason| {
            *measured = Measured::Unreadable { reason: reason.clone() };
            Err(reason)
        })
    };
    results.into_iter().zip(measured).map(read).collect()
}

/// Why there is no twin.
const NO_GRID: &str = "the grid of its type is not known, or cannot take its rows";

/// A row of the reference, or the beginning of one, as an undamaged tensor of `like`'s type would hold
/// it; none if its grid is not known or cannot take it.
pub fn quantize_like(like: &Tensor, row_len: u64, values: &[f32]) -> Option<Vec<f32>> {
    Grid::of(like, row_len)?.quantize(values)
}

/// Values through a type and back.
pub fn through(ty: TensorType, values: &[f32]) -> Option<Vec<f32>> {
    match ty.info().class {
        Class::Float => Grid::Float(ty).quantize(values),
        Class::Quantized => Grid::Blocks(ty).quantize(values),
        Class::Exact => None,
    }
}

struct Sides<'a> {
    r: &'a Tensor,
    q: &'a Tensor,
    reference: &'a Model,
    quantized: &'a Model,
}

/// A run of both sides, and its twin.
struct Row {
    r: Vec<f32>,
    q: Vec<f32>,
    twin: Vec<f32>,
}

impl Sides<'_> {
    /// The twin of a tensor of which the pass found these rows and blocks, and these sums.
    fn twin(
        &self,
        locals: &Locals,
        whole: &RunSums,
        scratch: &mut Scratch,
    ) -> Result<Option<Twin>, String> {
        let row_len = plan::row_len(&self.r.shape);
        let Some(mut grid) = Grid::of(self.q, row_len) else { return Ok(None) };
        let rows = self.r.numel() / row_len;
        if grid.is_conversion()
            && let Some(row) =
                self.run(rows / 2 * row_len..(rows / 2 + 1) * row_len, &grid, scratch)?
            && row.q != row.twin
            && let Some(lattice) = Grid::lattice(&row.q)
        {
            grid = lattice;
        }
        let mut twin = Twin {
            sample: Both::default(),
            worst_piece: 0.0,
            rows: Vec::new(),
            conversion: grid.is_conversion(),
            guessed: matches!(grid, Grid::Lattice { .. }),
            tuned: grid.is_tuned(),
        };
        // Pieces of many rows say more than few whole rows.
        let part = if grid.is_local() { row_len.min(PIECE as u64) } else { row_len };
        let parts_of_row = row_len / part;
        let parts = rows * parts_of_row;
        let wanted = (SAMPLE / part).clamp(1, parts.max(1));
        let Some(step) = parts.checked_div(wanted).filter(|&step| step > 0) else {
            return Ok(None);
        };
        let taken_in = PARTS.min(wanted);
        for first in 0..taken_in {
            for at in (first..wanted).step_by(taken_in as usize) {
                // From the middle of each stretch, so that neither end is favoured; and from another
                // place of each row.
                let index = at * step + step / 2;
                let shift = if step < parts_of_row { 0 } else { at };
                let place = (index + shift) % parts_of_row * part;
                let start = index / parts_of_row * row_len + place;
                let Some(row) = self.run(start..start + part, &grid, scratch)? else {
                    return Ok(None);
                };
                for piece in pieces(&row) {
                    twin.sample.add(&piece);
                    twin.worst_piece = twin.worst_piece.max(piece.twin.rms());
                }
            }
            if twin.sample.settles(whole) {
                break;
            }
        }
        for index in standing_out(locals) {
            let start = index * row_len;
            let range = start..(start + row_len).min(self.r.numel());
            let row = if grid.is_local() {
                self.row_in_pieces(range, &grid, &twin, scratch)?
            } else {
                self.run(range, &grid, scratch)?.map(|row| {
                    let pieces: Vec<Both> = pieces(&row).collect();
                    let mut whole = Both::default();
                    for piece in &pieces {
                        whole.add(piece);
                    }
                    (whole, pieces)
                })
            };
            twin.rows.extend(row.map(|(whole, pieces)| RowTwin { row: index, whole, pieces }));
        }
        Ok(Some(twin))
    }

    /// A row and its pieces beside their twins, of which only those are made that are needed: of pieces
    /// that are much louder than the sample's or zero on one side; if the row as a whole is not what
    /// the sample leads to expect, of those that are not; and if that does not explain it, of all. For
    /// all others, the row's twin has what the sample leads to expect.
    fn row_in_pieces(
        &self,
        range: Range<u64>,
        grid: &Grid,
        twin: &Twin,
        scratch: &mut Scratch,
    ) -> Result<Option<(Both, Vec<Both>)>, String> {
        let Some([r, q]) = self.read(range, scratch)? else { return Ok(None) };
        let sides = || r.chunks(PIECE).zip(q.chunks(PIECE));
        let expected = |actual: &RunSums| twin.sample.twin.expected_of(actual);
        // Gives twins to the pieces that have none and need one; none if the grid cannot take them.
        let quantize = |pieces: &mut [Both], needs: &dyn Fn(&RunSums) -> bool| {
            for (Both { actual, twin }, (r, _)) in pieces.iter_mut().zip(sides()) {
                if twin.n == 0 && needs(actual) {
                    *twin = RunSums::of(r, &grid.quantize(r)?);
                }
            }
            Some(())
        };
        let sum_up = |pieces: &[Both]| {
            let mut whole = Both::default();
            for &Both { actual, twin } in pieces {
                let twin = if twin.n > 0 { twin } else { expected(&actual) };
                whole.add(&Both { actual, twin });
            }
            whole
        };
        let mut pieces: Vec<Both> = sides()
            .map(|(r, q)| Both { actual: RunSums::of(r, q), twin: RunSums::default() })
            .collect();
        let loudest = QUIET * twin.worst_piece;
        let stands_out =
            |actual: &RunSums| actual.rms() > loudest || (actual.rr == 0.0) != (actual.xx == 0.0);
        let is_unlike = |actual: &RunSums| !actual.is_like(&expected(actual));
        let mut whole = Both::default();
        for needs in [&stands_out as &dyn Fn(&RunSums) -> bool, &is_unlike, &|_| true] {
            if quantize(&mut pieces, needs).is_none() {
                return Ok(None);
            }
            whole = sum_up(&pieces);
            if whole.actual.is_like(&whole.twin) {
                break;
            }
        }
        Ok(Some((whole, pieces)))
    }

    /// Reads a run of both sides and quantizes the reference's; none if the grid cannot take it.
    fn run(
        &self,
        range: Range<u64>,
        grid: &Grid,
        scratch: &mut Scratch,
    ) -> Result<Option<Row>, String> {
        let Some([r, q]) = self.read(range, scratch)? else { return Ok(None) };
        Ok(grid.quantize(&r).map(|twin| Row { r, q, twin }))
    }

    /// Reads a run of both sides, or its first part if it is too long.
    fn read(
        &self,
        range: Range<u64>,
        scratch: &mut Scratch,
    ) -> Result<Option<[Vec<f32>; 2]>, String> {
        let start = range.start;
        let end = range.end.min(start + LONGEST).min(self.r.numel());
        if start >= end {
            return Ok(None);
        }
        let len = (end - start) as usize;
        let (mut r, mut q) = (vec![0.0; len], vec![0.0; len]);
        self.r
            .decode(&self.reference.files, start..end, scratch, &mut r)
            .map_err(|error| format!("reference: {error}"))?;
        self.q
            .decode(&self.quantized.files, start..end, scratch, &mut q)
            .map_err(|error| format!("quantized: {error}"))?;
        Ok(Some([r, q]))
    }
}

fn both(row: &Row, range: Range<usize>) -> Both {
    let r = &row.r[range.clone()];
    Both { actual: RunSums::of(r, &row.q[range.clone()]), twin: RunSums::of(r, &row.twin[range]) }
}

fn pieces(row: &Row) -> impl Iterator<Item = Both> + '_ {
    let len = row.r.len();
    (0..len).step_by(PIECE).map(move |start| both(row, start..(start + PIECE).min(len)))
}

/// Rows to look at one by one.
fn standing_out(locals: &Locals) -> Vec<u64> {
    let groups = [locals.rows.worst, locals.rows.loudest, locals.rows.quietest];
    let blocks = [locals.blocks.worst, locals.blocks.worst_relative];
    let mut rows: Vec<u64> = groups.iter().flatten().map(|group| group.index).collect();
    rows.extend(blocks.iter().flatten().map(|block| block.row));
    let zero = locals.blocks.zero;
    let firsts = [zero.reference.first, zero.quantized.first];
    rows.extend(firsts.iter().flatten().map(|element| element / locals.row_len.max(1)));
    rows.sort_unstable();
    rows.dedup();
    rows
}

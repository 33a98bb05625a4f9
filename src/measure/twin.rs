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
use crate::metrics::{Locals, PIECE};
use crate::model::{Model, ReadError, Scratch, Tensor};

/// Most elements of the evenly spaced sample.
const SAMPLE: u64 = 32 * 1024;

/// Least elements of the sample of a type that is quantized to quickly.
const LEAST_SAMPLE: u64 = 2 * 1024;

/// A larger part of a tensor than one in so many is not quantized again: the whole tensor is read and
/// summed up in the time that a quantizer takes for so much of it.
const SHARE: u64 = 128;

/// Elements of the sample of a tensor.
fn sample_len(numel: u64, slowness: u64) -> u64 {
    // Types whose quantizer searches have a short one already.
    if slowness > 1 { SAMPLE / slowness } else { (numel / SHARE).clamp(LEAST_SAMPLE, SAMPLE) }
}

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
}

/// A row that stood out, beside its twin.
#[derive(Clone, Debug)]
pub struct RowTwin {
    /// Its index.
    pub row: u64,
    /// All of it.
    pub whole: Both,
    /// Its pieces, in order.
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

/// Measures the twins of all matched tensors that have one, in the order of `matched`.
pub fn twins(
    reference: &Model,
    quantized: &Model,
    matched: &[Matched],
    measured: &[Measured],
    threads: usize,
) -> Vec<Option<Twin>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Twin>>> = Mutex::new(vec![None; matched.len()]);
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
            let twin = sides.twin(locals, &mut scratch).ok().flatten();
            let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            results[index] = twin;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(matched.len()) {
            scope.spawn(work);
        }
        work();
    });
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

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

/// One row of both sides, and its twin.
struct Row {
    r: Vec<f32>,
    q: Vec<f32>,
    twin: Vec<f32>,
}

impl Sides<'_> {
    fn twin(&self, locals: &Locals, scratch: &mut Scratch) -> Result<Option<Twin>, ReadError> {
        let row_len = plan::row_len(&self.r.shape);
        let Some(mut grid) = Grid::of(self.q, row_len) else { return Ok(None) };
        let rows = self.r.numel() / row_len;
        if grid.is_conversion()
            && let Some(row) = self.row(rows / 2, row_len, &grid, scratch)?
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
        let len = sample_len(self.r.numel(), grid.slowness());
        let wanted = (len / row_len).clamp(1, rows.max(1));
        let Some(step) = rows.checked_div(wanted) else { return Ok(None) };
        for at in 0..wanted {
            // From the middle of each stretch, so that neither end is favoured.
            let Some(row) = self.row(at * step + step / 2, row_len, &grid, scratch)? else {
                return Ok(None);
            };
            for piece in pieces(&row) {
                twin.sample.add(&piece);
                twin.worst_piece = twin.worst_piece.max(piece.twin.rms());
            }
        }
        for index in standing_out(locals) {
            if let Some(row) = self.row(index, row_len, &grid, scratch)? {
                let (mut whole, pieces) = (Both::default(), pieces(&row).collect::<Vec<_>>());
                for piece in &pieces {
                    whole.add(piece);
                }
                twin.rows.push(RowTwin { row: index, whole, pieces });
            }
        }
        Ok(Some(twin))
    }

    /// Reads a row of both sides and quantizes the reference's; none if the grid cannot take it.
    fn row(
        &self,
        index: u64,
        row_len: u64,
        grid: &Grid,
        scratch: &mut Scratch,
    ) -> Result<Option<Row>, ReadError> {
        let start = index * row_len;
        let end = (start + row_len.min(LONGEST)).min(self.r.numel());
        if start >= end {
            return Ok(None);
        }
        let len = (end - start) as usize;
        let (mut r, mut q) = (vec![0.0; len], vec![0.0; len]);
        self.r.decode(&self.reference.files, start..end, scratch, &mut r)?;
        self.q.decode(&self.quantized.files, start..end, scratch, &mut q)?;
        Ok(grid.quantize(&r).map(|twin| Row { r, q, twin }))
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

/*!
The undamaged twin: what the same rows of the reference give when they are quantized to the same type
without any fault.

A tensor's error depends on its type and on its own values (heavy tails, tiny scales, lattices), so
that no fixed bound is right for all. Quantizing a bounded sample of the reference again says what is
to be expected of exactly these rows: ggml's types through their own quantizers, schemes through
plain rounding on the same kind of grid. The sample is evenly spaced rows, and the rows that stood out.
*/

use std::ops::Range;

use super::displaced::Reader;
use super::experts;
use super::grid::Grid;
use super::ladder::Ladder;
use super::own::Own;
use super::pair::Pair;
use super::parallel::in_parallel;
use super::recover::{self, Recovered};
use super::run_sums::ORDINARY_GAIN;
pub use super::run_sums::RunSums;
use super::{Matched, Measured};
use super::{own, plan};
use crate::codec::{Class, TensorType};
use crate::metrics::functions;
use crate::metrics::{CONTRACT_COSINE, Locals, PIECE};
use crate::model::{Model, Scratch, Storage, Tensor};

/// Elements of the evenly spaced sample.
const SAMPLE: u64 = 8 * 1024;

/// The sample is taken in so many parts, each spread over the tensor, until it says enough.
const PARTS: u64 = 16;

/// It does when its noise is not so many dB above its twin's: two thirds of what the gates allow.
const SETTLED: f64 = 1.0;

/// Of each matrix of a stack, this part of a tensor's sample is looked at: there are many of them.
const SHARE: u64 = 4;

/// How much more noise the scales that an importance matrix leads to may cost: 3 dB.
const IMPORTANCES: f64 = 2.0;

/// A row may vanish if its largest weight is below this part of the tensor's rms: hundreds of times less
/// than what f32, with 24 bits, keeps of it beside the others in any sum.
const NEGLIGIBLE: f64 = 1e-10;

/// How much larger the rms error of a piece may be than that of the sample's worst before it is asked
/// for its own twin: two thirds of what the gate allows.
const QUIET: f64 = 2.0;

/// Elements that share a scale in most of ggml's types, and the part of a run, one in so many, that may be clipped.
const NEAR: usize = 32;
const CLIPPED: u64 = 32;

/// Elements of a row beyond which only its first part is looked at.
const LONGEST: u64 = 64 * 1024;

/// The same elements, as they are and as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Both {
    /// The quantized tensor.
    pub actual: RunSums,
    /// Its undamaged twin.
    pub twin: RunSums,
}

impl Both {
    /// Adds other elements.
    pub fn add(&mut self, other: &Self) {
        self.actual.add(&other.actual);
        self.twin.add(&other.twin);
    }

    /// Whether this sample of a tensor says enough, being so like its twin, and so much like the whole,
    /// that every gate that looks at them passes.
    fn settles(&self, whole: &RunSums) -> bool {
        let expected = self.twin.sqnr_db();
        let allowed = self.twin.lost() * functions::pow(10.0, SETTLED / 10.0);
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
    /// Which of its pieces comes first here: of a very long row only the stretches that stood out are
    /// looked at.
    pub first: u64,
    /// All of it that is looked at.
    pub whole: Both,
    /// Its pieces, in order. One that is not much louder than the sample's worst may have no twin of
    /// its own: the twin's sums are empty.
    pub pieces: Vec<Both>,
}

/// A tensor's sample beside its twin.
#[derive(Clone, Debug, Default)]
pub struct Twin {
    /// The evenly spaced rows.
    pub sample: Both,
    /// The worst rms error of a piece of the sample's twin.
    pub worst_piece: f64,
    /// Rows that stood out in the pass over the whole tensor.
    pub rows: Vec<RowTwin>,
    /// Whether the type is only rounded to, so that nothing but rounding may differ.
    pub conversion: bool,
    /// Whether the scheme's tools trade plain error for less harm (GPTQ, AWQ and their kin).
    pub tuned: bool,
    /// Where its codes are on its own grid, if it has one.
    pub own: Option<Own>,
    /// What rounding to nearest gives on a sample with scales taken from the extremes, where that is not
    /// what is expected of the tensor.
    pub plain: Option<RunSums>,
    /// First element of the first block that is zero although its type would not have made it so.
    pub lost: Option<u64>,
    /// The grid that the values lie on although they are stored as floats.
    pub recovered: Option<Recovered>,
    /// Whether hardly any piece of the sample is what plain quantization gives, bit for bit: codes were chosen for some
    /// columns more than for others, or by another quantizer.
    pub weighed: bool,
    /// Of a stack, its matrices, each beside its own twin: what is said here of the stack is what they say
    /// together, and its own codes and rows are theirs.
    pub experts: Vec<Expert>,
}

impl Twin {
    /// Rows that were looked at alone, of a stack those of its matrices.
    pub fn all_rows(&self) -> impl Iterator<Item = &RowTwin> {
        self.rows.iter().chain(self.experts.iter().flat_map(|it| &it.twin.rows))
    }

    /// Whether it, or a matrix of it, was rounded otherwise than to nearest, as tools of its kind do.
    pub fn feeds_back(&self) -> bool {
        let own = self.own.as_ref().is_some_and(|own| own.feedback);
        own || self.experts.iter().any(|it| it.twin.feeds_back())
    }
}

/// A matrix of a stack.
#[derive(Clone, Debug)]
pub struct Expert {
    /// Name and type, for messages.
    pub subject: String,
    /// Its sample and its twin.
    pub twin: Twin,
}

/// How closely tensors are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Elements of all tensors of the reference: of few, all rows are looked at.
    pub elements: u64,
    /// The sample is this part of the usual one.
    pub share: u64,
}

impl Effort {
    /// The usual one, for a reference of so many elements.
    fn of(elements: u64) -> Self {
        Self { elements, share: 1 }
    }
}

/// What is to be expected of a tensor, or in a few words why that is not known.
pub type Expectation = Result<Twin, String>;

/// Elements of all tensors of a reference, the same for every part of it: of few, all rows are looked at.
pub fn elements_of(reference: &Model) -> u64 {
    reference.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.numel()))
}

/// Looks at matched tensors of a reference of so many `elements` a second time: for lost columns, which go into
/// `measured`, and for their twins, in the order of `matched`. A tensor that cannot be read again becomes
/// [`Measured::Unreadable`].
pub fn twins(
    reference: &Model,
    quantized: &Model,
    matched: &[Matched],
    measured: &mut [Measured],
    elements: u64,
    threads: usize,
) -> Vec<Expectation> {
    let results = in_parallel(matched.len(), threads, Scratch::for_samples, |index, scratch| {
        let pair = &matched[index];
        let (sums, locals) = match &measured[index] {
            Measured::Values { sums, locals } if sums.n > 0 && sums.nonfinite() == 0 => {
                (sums, locals)
            }
            _ => return Ok((None, Err("it was not measured".to_owned()))),
        };
        let sides = Sides {
            r: &reference.tensors[pair.reference],
            q: &quantized.tensors[pair.quantized],
            reference,
            quantized,
            effort: Effort::of(elements),
        };
        let columns = match locals.unlike {
            None => sides.pair().lost_columns(scratch)?,
            Some(_) => None,
        };
        let whole = RunSums { n: sums.n, rr: sums.rr, xx: sums.qq, ee: sums.ee, rx: sums.rq };
        let twin = match sides.recovered(locals, scratch)? {
            Some(twin) => Some(twin),
            None => sides.twin(locals, &whole, scratch)?,
        };
        Ok((columns, twin.ok_or_else(|| NO_GRID.to_owned())))
    });
    let settle = |(result, measured): (Result<_, String>, &mut Measured)| match result {
        Ok((columns, twin)) => {
            if let Measured::Values { locals, .. } = measured {
                locals.columns = columns;
            }
            twin
        }
        Err(reason) => {
            *measured = Measured::Unreadable { reason: reason.clone() };
            Err(reason)
        }
    };
    results.into_iter().zip(measured).map(settle).collect()
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
    effort: Effort,
}

/// A run of both sides, and its twin.
struct Row {
    r: Vec<f32>,
    q: Vec<f32>,
    twin: Vec<f32>,
}

impl Sides<'_> {
    /// The twin on the grid that the values of a tensor lie on that is stored as floats, and is no
    /// conversion.
    fn recovered(&self, locals: &Locals, scratch: &mut Scratch) -> Result<Option<Twin>, String> {
        if locals.unlike.is_none_or(|unlike| unlike.count == 0) {
            return Ok(None);
        }
        recover::recover(&self.pair(), scratch)
    }

    fn pair(&self) -> Pair<'_> {
        let Self { r, q, reference, quantized, .. } = *self;
        Pair { r, q, reference, quantized }
    }

    /// The twin of a tensor of which the pass found these rows and blocks, and these sums.
    fn twin(
        &self,
        locals: &Locals,
        whole: &RunSums,
        scratch: &mut Scratch,
    ) -> Result<Option<Twin>, String> {
        let stack = self.stack(locals, scratch)?;
        let twin = if stack.is_some() {
            stack
        } else {
            let grid = Grid::of(self.q, plan::row_len(&self.r.shape));
            self.expectation(grid, locals, Some(whole), scratch)?
        };
        let Some(twin) = twin else { return Ok(None) };
        let rms = (whole.rr / whole.n.max(1) as f64).sqrt();
        let lost = self.lost(locals, plan::row_len(&self.r.shape), rms, scratch)?;
        Ok(Some(Twin { lost, ..twin }))
    }

    /// What the matrices of a stack lead to expect of it, each by what its own type gives; none if it is no
    /// stack of matrices of which that is known.
    fn stack(&self, locals: &Locals, scratch: &mut Scratch) -> Result<Option<Twin>, String> {
        let Some(matrices) = experts::in_a_row(self.r, self.q) else { return Ok(None) };
        let row_len = plan::row_len(&self.r.shape);
        let mut stack = Twin::default();
        for matrix in matrices {
            let (r, q) = (&matrix.reference, &matrix.quantized);
            let effort = Effort { share: SHARE, ..self.effort };
            let sides = Sides { r, q, effort, ..*self };
            let first = matrix.start / row_len;
            let within = locals.within(&(first..first + q.numel() / row_len));
            let grid = Grid::of(&matrix.source, row_len);
            let Some(twin) = sides.expectation(grid, &within, None, scratch)? else {
                return Ok(None);
            };
            stack.sample.add(&twin.sample);
            stack.worst_piece = stack.worst_piece.max(twin.worst_piece);
            stack.tuned |= twin.tuned;
            let subject = format!("{}, {}", q.name, q.qtype());
            stack.experts.push(Expert { subject, twin });
        }
        Ok(Some(stack))
    }

    /// The twin of a tensor on a grid of this kind of which the pass found these rows and blocks, and these
    /// sums, if any.
    fn expectation(
        &self,
        grid: Option<Grid>,
        locals: &Locals,
        whole: Option<&RunSums>,
        scratch: &mut Scratch,
    ) -> Result<Option<Twin>, String> {
        let row_len = plan::row_len(&self.r.shape);
        let reader = Reader::new((self.reference, self.r), (self.quantized, self.q), row_len);
        let out = standing_out(locals);
        // ggml's quantizers round to nearest, and choose scales better than a file's own need be.
        let blocks = match &self.q.storage {
            Storage::Plain { .. } => self.q.class() == Class::Quantized,
            Storage::Joined(weight) => {
                let first = weight.planes().first();
                first.is_some_and(|plane| plane.ty.info().class == Class::Quantized)
            }
            Storage::Undecodable { .. } => false,
        };
        let own = match &reader {
            Some(reader) => own::twin(reader, self.effort, &out, !blocks, scratch)?,
            None => None,
        };
        Ok(match (own, grid) {
            (Some(own), Some(grid)) if blocks => {
                let plain = self.plain(&grid, reader.as_ref(), Some(locals), whole, scratch)?;
                Some(plain.map_or_else(
                    || own.clone(),
                    |plain| Twin { own: own.own.clone(), plain: Some(plain.sample.twin), ..plain },
                ))
            }
            (Some(own), Some(grid)) => {
                let plain = self.plain(&grid, None, None, whole, scratch)?;
                Some(Twin { plain: plain.map(|plain| plain.sample.twin), ..own })
            }
            (Some(own), None) => Some(own),
            (None, Some(grid)) => self.plain(&grid, None, Some(locals), whole, scratch)?,
            (None, None) => None,
        })
    }

    /// The first element of the first block that is zero in the quantized tensor alone, where the
    /// type itself does not round its row's values there to nothing; a whole row must be negligible
    /// beside the tensor's `rms` as well.
    fn lost(
        &self,
        locals: &Locals,
        row_len: u64,
        rms: f64,
        scratch: &mut Scratch,
    ) -> Result<Option<u64>, String> {
        let Some(first) = locals.blocks.zero.quantized.first else { return Ok(None) };
        let grid = Grid::of(self.q, row_len);
        let own = self.q.own_grid().and_then(|grid| Ladder::new(&grid.levels, grid.rounding));
        let lost_below = own.map_or(0.0, |own| own.lost_below());
        let mut start = first / row_len * row_len;
        while start < self.r.numel() {
            let row_end = (start / row_len + 1) * row_len;
            let Some([r, q]) = self.read(start..row_end, scratch)? else { return Ok(None) };
            let is_gone = |q: &[f32]| q.iter().all(|&value| value == 0.0);
            let gone = |(r, q): (&[f32], &[f32])| is_gone(q) && !is_gone(r);
            let largest = r.iter().fold(0f64, |most, &r| most.max(f64::from(r.abs())));
            let negligible = largest <= NEGLIGIBLE * rms;
            // A scale that holds for all of a tensor may leave nothing of a row.
            if is_gone(&q)
                && !negligible
                && largest > lost_below
                && !matches!(grid, Some(Grid::Own { .. }))
            {
                return Ok(Some(start));
            }
            let quantized = self.q.class() == Class::Quantized;
            if !(quantized && negligible) && r.chunks(PIECE).zip(q.chunks(PIECE)).any(gone) {
                let sound = match &grid {
                    Some(grid) => self.quantized(grid, start, &r, scratch)?,
                    None => None,
                };
                let sound = sound.unwrap_or_else(|| r.clone());
                let pieces = r.chunks(PIECE).zip(q.chunks(PIECE)).zip(sound.chunks(PIECE));
                let tiny = |r: &[f32]| r.iter().all(|r| f64::from(r.abs()) <= lost_below);
                let lost = pieces
                    .enumerate()
                    .find(|(_, (both, sound))| gone(*both) && !is_gone(sound) && !tiny(both.0));
                if let Some((index, _)) = lost {
                    return Ok(Some(start + (index * PIECE) as u64));
                }
            }
            start += r.len() as u64;
        }
        Ok(None)
    }

    /// The twin by plain quantization of a sample and of the rows that stood out.
    fn plain(
        &self,
        grid: &Grid,
        reader: Option<&Reader>,
        locals: Option<&Locals>,
        whole: Option<&RunSums>,
        scratch: &mut Scratch,
    ) -> Result<Option<Twin>, String> {
        let row_len = plan::row_len(&self.r.shape);
        let rows = self.r.numel() / row_len;
        let (conversion, tuned) = (grid.is_conversion(), grid.is_tuned());
        let mut twin = Twin { conversion, tuned, ..Twin::default() };
        // Pieces of many rows say more than few whole rows.
        let part = if grid.is_local() { row_len.min(PIECE as u64) } else { row_len };
        let parts_of_row = row_len / part;
        let parts = rows * parts_of_row;
        let wanted = (SAMPLE / self.effort.share / part).clamp(1, parts.max(1));
        let Some(step) = parts.checked_div(wanted).filter(|&step| step > 0) else {
            return Ok(None);
        };
        let (mut taken, mut same) = (0u64, 0u64);
        let taken_in = PARTS.min(wanted);
        for first in 0..taken_in {
            for at in (first..wanted).step_by(taken_in as usize) {
                // From the middle of each stretch, so that neither end is favoured; and from another
                // place of each row.
                let index = at * step + step / 2;
                let shift = if step < parts_of_row { 0 } else { at };
                let place = (index + shift) % parts_of_row * part;
                let start = index / parts_of_row * row_len + place;
                let Some(row) = self.run(start..start + part, grid, scratch)? else {
                    return Ok(None);
                };
                let allowance = Allowance { reader, alone: false, weighed: false };
                for piece in allowance.pieces(&row, start, scratch)? {
                    taken += 1;
                    same += u64::from(piece.actual == piece.twin);
                    twin.sample.add(&piece);
                    twin.worst_piece = twin.worst_piece.max(piece.twin.rms());
                }
            }
            if twin.sample.settles(whole.unwrap_or(&twin.sample.actual)) {
                break;
            }
        }
        twin.weighed = 2 * same < taken;
        let runs = |locals: &Locals| runs_standing_out(locals, row_len, grid.is_local());
        for range in locals.map(runs).unwrap_or_default() {
            let start = range.start;
            let index = range.start / row_len;
            let first = (range.start - index * row_len) / PIECE as u64;
            let row = if grid.is_local() {
                self.row_in_pieces(range, grid, reader, &twin, scratch)?
            } else if let Some(row) = self.run(range, grid, scratch)? {
                let allowance = Allowance { reader, alone: true, weighed: twin.weighed };
                let pieces = allowance.pieces(&row, start, scratch)?;
                let mut whole = Both::default();
                for piece in &pieces {
                    whole.add(piece);
                }
                Some((whole, pieces))
            } else {
                None
            };
            twin.rows.extend(row.map(|(whole, pieces)| RowTwin {
                row: index,
                first,
                whole,
                pieces,
            }));
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
        reader: Option<&Reader>,
        twin: &Twin,
        scratch: &mut Scratch,
    ) -> Result<Option<(Both, Vec<Both>)>, String> {
        let first = range.start;
        let Some([r, q]) = self.read(range, scratch)? else { return Ok(None) };
        let sides = || r.chunks(PIECE).zip(q.chunks(PIECE));
        let expected = |actual: &RunSums| twin.sample.twin.expected_of(actual);
        // Gives twins to the pieces that have none and need one; none if the grid cannot take them.
        let mut quantize = |pieces: &mut [Both], needs: &dyn Fn(&RunSums) -> bool| {
            let allowance = Allowance { reader, alone: true, weighed: twin.weighed };
            let starts = (first..).step_by(PIECE);
            for ((both, (r, q)), start) in pieces.iter_mut().zip(sides()).zip(starts) {
                if both.twin.n == 0 && needs(&both.actual) {
                    let Some(plain) = grid.quantize(r) else { return Ok(false) };
                    *both = allowance.both(start, [r, q, &plain], scratch)?;
                }
            }
            Ok::<bool, String>(true)
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
            if !quantize(&mut pieces, needs)? {
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
        let start = range.start;
        let Some([r, q]) = self.read(range, scratch)? else { return Ok(None) };
        let twin = self.quantized(grid, start, &r, scratch)?;
        Ok(twin.map(|twin| Row { r, q, twin }))
    }

    /// What a grid makes of a run of the reference; none if it cannot take it.
    fn quantized(
        &self,
        grid: &Grid,
        start: u64,
        r: &[f32],
        scratch: &mut Scratch,
    ) -> Result<Option<Vec<f32>>, String> {
        match grid {
            Grid::Own { .. } => self.own(start, r, scratch),
            grid => Ok(grid.quantize(r)),
        }
    }

    /// What the weight itself makes of a run of the reference; none if it cannot say.
    fn own(
        &self,
        start: u64,
        r: &[f32],
        scratch: &mut Scratch,
    ) -> Result<Option<Vec<f32>>, String> {
        let Storage::Joined(weight) = &self.q.storage else { return Ok(None) };
        let mut read = |range: Range<u64>, scratch: &mut Scratch, values: &mut [f32]| {
            self.r.decode(&self.reference.files, range, scratch, values)
        };
        let (range, mut twin) = (start..start + r.len() as u64, r.to_vec());
        let known = weight.requantized(&self.quantized.files, range, &mut read, scratch, &mut twin);
        let known = known.map_err(|error| format!("quantized: {error}"))?;
        Ok(known.then_some(twin))
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
        self.pair().read(start..end, scratch).map(Some)
    }
}

/// What excuses noise beyond that of plain quantization: importances trade plain error for less harm.
struct Allowance<'a> {
    /// The tensor's own grid, if it has one.
    reader: Option<&'a Reader<'a>>,
    /// Whether a row or block is judged alone. The tensor as a whole must not lose more than [`IMPORTANCES`]; what
    /// a part of it loses by its scales is a choice, as long as its codes are the nearest ones.
    alone: bool,
    /// Whether the sample shows an importance matrix.
    weighed: bool,
}

impl Allowance<'_> {
    /// A run from element `start` on beside its twin, which plain quantization gives where no more is excused.
    fn both(
        &self,
        start: u64,
        [r, q, plain]: [&[f32]; 3],
        scratch: &mut Scratch,
    ) -> Result<Both, String> {
        let (actual, plainly) = (RunSums::of(r, q), RunSums::of(r, plain));
        let both = Both { actual, twin: plainly };
        if actual.is_like(&plainly) {
            return Ok(both);
        }
        let Some(reader) = self.reader else {
            return Ok(if self.alone && self.weighed { book(both, [r, q, plain]) } else { both });
        };
        let (own, step) = reader.nearest(start..start + r.len() as u64, r, scratch)?;
        // Where steps are too small for displacement to be judged, it says nothing of the codes.
        let is_choice = self.alone && step >= own::COARSE_SCALES;
        let most = if is_choice { f64::INFINITY } else { IMPORTANCES * plainly.ee };
        let twin = if own.ee <= plainly.ee {
            plainly
        } else if own.ee <= most {
            own
        } else {
            RunSums { ee: most, xx: plainly.xx + most - plainly.ee, ..plainly }
        };
        Ok(Both { actual, twin })
    }

    /// The pieces of a run, the first of which begins at element `start`, beside their twins.
    fn pieces(&self, row: &Row, start: u64, scratch: &mut Scratch) -> Result<Vec<Both>, String> {
        let runs = row.r.chunks(PIECE).zip(row.q.chunks(PIECE)).zip(row.twin.chunks(PIECE));
        let starts = (start..).step_by(PIECE);
        runs.zip(starts)
            .map(|(((r, q), twin), start)| self.both(start, [r, q, twin], scratch))
            .collect()
    }
}

/// A run of a type with code books beside its twin: what importances may cost there is not known from the scales.
fn book(both: Both, values: [&[f32]; 3]) -> Both {
    let both = without_clipped(values).unwrap_or(both);
    let is_excused = both.actual.ee > both.twin.ee && both.actual.ee <= IMPORTANCES * both.twin.ee;
    if is_excused { Both { twin: both.actual, ..both } } else { both }
}

/// A run beside its twin without the weights that are beyond everything that stands near them in the file: an
/// importance matrix may give up a few of them for the sake of the others. None if there are too many.
fn without_clipped([r, q, plain]: [&[f32]; 3]) -> Option<Both> {
    let mut both = Both::default();
    let runs = r.chunks(NEAR).zip(q.chunks(NEAR)).zip(plain.chunks(NEAR));
    for ((r, q), plain) in runs {
        let reach = q.iter().fold(0f32, |most, q| most.max(q.abs()));
        for ((&r, &q), &plain) in r.iter().zip(q).zip(plain) {
            if r.abs() <= reach || r.signum() != q.signum() {
                both.actual.take(f64::from(r), f64::from(q));
                both.twin.take(f64::from(r), f64::from(plain));
            }
        }
    }
    (both.actual.n * CLIPPED >= r.len() as u64 * (CLIPPED - 1)).then_some(both)
}

/// Rows to look at one by one.
fn standing_out(locals: &Locals) -> Vec<u64> {
    let row_len = locals.row_len.max(1);
    let mut rows: Vec<u64> =
        elements_standing_out(locals, row_len).into_iter().map(|it| it / row_len).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// An element of everything that stood out.
fn elements_standing_out(locals: &Locals, row_len: u64) -> Vec<u64> {
    let groups = [locals.rows.worst, locals.rows.loudest, locals.rows.quietest];
    let blocks = [locals.blocks.worst, locals.blocks.worst_relative];
    let mut elements: Vec<u64> = groups.iter().flatten().map(|it| it.index * row_len).collect();
    let blocks = blocks.iter().flatten();
    elements.extend(blocks.map(|block| block.row * row_len + block.index * PIECE as u64));
    let zero = locals.blocks.zero;
    elements.extend([zero.reference.first, zero.quantized.first].iter().flatten());
    elements
}

/// Runs to look at one by one: rows, and of very long ones, where their pieces are quantized alone, the
/// stretches in which something stood out.
fn runs_standing_out(locals: &Locals, row_len: u64, is_local: bool) -> Vec<Range<u64>> {
    let stretch = if is_local { LONGEST } else { row_len };
    let mut runs: Vec<(u64, u64)> = elements_standing_out(locals, row_len)
        .into_iter()
        .map(|element| {
            let (row, place) = (element / row_len * row_len, element % row_len);
            let start = place / stretch * stretch;
            (row + start, row + (start + stretch).min(row_len))
        })
        .collect();
    runs.sort_unstable();
    runs.dedup();
    runs.into_iter().map(|(start, end)| start..end).collect()
}

/*!
One failed tensor on the bench: a bounded sample of both sides, and the yardstick of every experiment.

An experiment undoes a suspected fault on the sample. It has succeeded if what is left is no worse
than what quantizing the reference's own rows to the tensor's type gives.
*/

use std::cell::RefCell;
use std::ops::Range;

use crate::measure::Matched;
use crate::measure::twin::{Twin, quantize_like};
use crate::metrics::Locals;
use crate::metrics::functions;
use crate::model::{Model, Scratch, Tensor};

/// Most elements of the sample, each side.
const SAMPLE: usize = 128 * 1024;

/// Most columns of a row that are looked at; whole blocks of every type.
const WIDEST: u64 = 4096;

/// Elements that are quantized again to know what to expect.
const YARDSTICK: usize = 8 * 1024;

/// SQNR of an exact copy: more is not asked for.
const EXACT: f64 = 50.0;

/// What an experiment may fall short of its expectation, in dB.
const SLACK: f64 = 3.0;

/// What poor scales may cost, as the gate `scales` has it.
const POOR: f64 = 6.0;

/// What error feedback and clipping may cost on top, in dB.
const TUNED: f64 = 4.0;

/// A tensor that failed, and where to look.
pub struct Subject<'a> {
    /// The reference model.
    pub reference: &'a Model,
    /// The quantized model.
    pub quantized: &'a Model,
    /// The tensor on both sides; where the shapes differ, as many elements, or rows of the same shape.
    pub at: Matched,
    /// All tensors that both models hold.
    pub all: &'a [Matched],
    /// Where the extremes are, if they are known.
    pub locals: Option<&'a Locals>,
    /// What is to be expected, if that is known.
    pub twin: Option<&'a Twin>,
}

impl<'a> Subject<'a> {
    /// The tensor in the reference.
    pub fn r(&self) -> &'a Tensor {
        &self.reference.tensors[self.at.reference]
    }

    /// The tensor in the quantized model.
    pub fn q(&self) -> &'a Tensor {
        &self.quantized.tensors[self.at.quantized]
    }
}

/// The sample.
pub struct Bench<'a> {
    /// What is examined.
    pub subject: &'a Subject<'a>,
    /// Elements of a row.
    pub row_len: u64,
    /// Rows of the tensor.
    pub row_count: u64,
    /// Columns that the sample has of each row, from the first on.
    pub width: usize,
    /// Rows of the sample, ascending.
    pub rows: Vec<u64>,
    /// The reference's values, row by row.
    pub r: Vec<f32>,
    /// The quantized values.
    pub q: Vec<f32>,
    /// SQNR that an undamaged tensor would have, in dB.
    pub expected: f64,
    scratch: RefCell<Scratch>,
}

impl<'a> Bench<'a> {
    /// Reads the sample; none if there is nothing to read, or it cannot be read.
    pub fn new(subject: &'a Subject<'a>) -> Option<Self> {
        let tensor = subject.r();
        let numel = tensor.numel();
        let last = tensor.shape.last().copied().unwrap_or(1).max(1);
        let row_len = subject.locals.map_or(last, |locals| locals.row_len.max(1));
        let row_count = numel.checked_div(row_len).filter(|&rows| rows > 0)?;
        let width = row_len.min(WIDEST) as usize;
        let mut bench = Self {
            subject,
            row_len,
            row_count,
            width,
            rows: rows(subject, row_count, width),
            r: Vec::new(),
            q: Vec::new(),
            expected: EXACT,
            scratch: RefCell::default(),
        };
        for at in 0..bench.rows.len() {
            let start = bench.rows[at] * row_len;
            let range = start..start + width as u64;
            bench.r.extend(bench.reference(range.clone())?);
            bench.q.extend(bench.quantized(range)?);
        }
        bench.expected = bench.yardstick();
        Some(bench)
    }

    /// Reads values of the reference.
    pub fn reference(&self, range: Range<u64>) -> Option<Vec<f32>> {
        self.read(self.subject.reference, self.subject.r(), range)
    }

    /// Reads values of the quantized tensor.
    pub fn quantized(&self, range: Range<u64>) -> Option<Vec<f32>> {
        self.read(self.subject.quantized, self.subject.q(), range)
    }

    /// Reads values of any tensor.
    pub fn read(&self, model: &Model, tensor: &Tensor, range: Range<u64>) -> Option<Vec<f32>> {
        if range.end > tensor.numel() {
            return None;
        }
        let mut values = vec![0.0; (range.end - range.start) as usize];
        let mut scratch = self.scratch.borrow_mut();
        tensor.decode(&model.files, range, &mut scratch, &mut values).ok()?;
        Some(values)
    }

    /// Both sides of a row of the sample.
    pub fn row(&self, at: usize) -> (&[f32], &[f32]) {
        let range = at * self.width..(at + 1) * self.width;
        (&self.r[range.clone()], &self.q[range])
    }

    /// The sample's rows.
    pub fn pairs(&self) -> impl Iterator<Item = (&[f32], &[f32])> {
        (0..self.rows.len()).map(|at| self.row(at))
    }

    /// The least SQNR that counts as undamaged.
    pub fn least(&self) -> f64 {
        (self.expected.min(EXACT) - self.slack()).max(3.0)
    }

    fn slack(&self) -> f64 {
        // What its own grid gives takes the file's way of rounding into account.
        let tuned = self.subject.twin.is_some_and(|twin| twin.tuned && twin.own.is_none());
        SLACK + if tuned { TUNED } else { 0.0 }
    }

    /// Is this what an undamaged tensor would have?
    pub fn is_sound(&self, sqnr_db: f64) -> bool {
        sqnr_db >= self.least()
    }

    /// The sample's SQNR as it is.
    pub fn actual(&self) -> f64 {
        sqnr(&self.r, &self.q)
    }

    /// The sample's SQNR after `undo`, which is given place in the sample, column and value.
    pub fn undone(&self, undo: impl Fn(usize, usize, f32) -> f64) -> f64 {
        let mut sums = Noise::default();
        for at in 0..self.rows.len() {
            let (r, q) = self.row(at);
            for (column, (&r, &q)) in r.iter().zip(q).enumerate() {
                sums.add(f64::from(r), undo(at, column, q));
            }
        }
        sums.sqnr_db()
    }

    /// `22.41 dB, 22.50 expected`: how every experiment ends.
    pub fn score(&self, sqnr_db: f64) -> String {
        let show = |db: f64| if db > EXACT { "an exact".to_owned() } else { format!("{db:.1} dB") };
        let had = self.actual();
        let had = if had.is_nan() { "none".to_owned() } else { format!("{had:.1} dB") };
        let of = if self.expected > EXACT { "exact" } else { "" };
        let expected = if of.is_empty() {
            format!("{:.1} dB expected", self.expected)
        } else {
            "exactness expected".to_owned()
        };
        format!("{} match where there was {had}, {expected}", show(sqnr_db))
    }

    /// What the same rows would have if they were quantized now.
    fn yardstick(&self) -> f64 {
        if let Some(twin) = self.subject.twin
            && twin.sample.twin.rr > 0.0
        {
            // Scales that are lost give nothing; those that were chosen are not so poor.
            let plain = twin.plain.filter(|plain| plain.rr > 0.0).map(|plain| plain.sqnr_db());
            return twin.sample.twin.sqnr_db().max(plain.map_or(f64::MIN, |db| db - POOR));
        }
        let mut noise = Noise::default();
        let step = (self.r.len() / YARDSTICK).max(1);
        for at in (0..self.rows.len()).step_by(step) {
            let (r, _) = self.row(at);
            let Some(twin) = quantize_like(self.subject.q(), self.row_len, r) else { return EXACT };
            r.iter().zip(&twin).for_each(|(&r, &x)| noise.add(f64::from(r), f64::from(x)));
        }
        noise.sqnr_db()
    }

    /// A row of the sample as quantizing it now would make it.
    pub fn twin_row(&self, at: usize) -> Option<Vec<f32>> {
        quantize_like(self.subject.q(), self.row_len, self.row(at).0)
    }

    /// Is a part of a row no worse than the same part of its twin?
    pub fn is_sound_beside(&self, twin: Option<&[f32]>, r: &[f32], x: &[f32]) -> bool {
        match twin {
            Some(twin) => sqnr(r, x) >= sqnr(r, twin).min(EXACT) - self.slack(),
            None => self.is_sound(sqnr(r, x)),
        }
    }

    /// Places in the sample of rows that are worse than quantizing them now would make them.
    pub fn bad_rows(&self) -> Vec<usize> {
        let is_bad = |&at: &usize| {
            let (r, q) = self.row(at);
            let actual = sqnr(r, q);
            if r == q || actual >= self.least() - 1.0 {
                return false;
            }
            // Rows with heavy tails are legitimately worse than the rest.
            match quantize_like(self.subject.q(), self.row_len, r) {
                Some(twin) => !(actual >= sqnr(r, &twin) - SLACK),
                None => true,
            }
        };
        (0..self.rows.len()).filter(is_bad).collect()
    }
}

/// Evenly spaced rows, and those that stood out, as many as the sample may hold.
fn rows(subject: &Subject, row_count: u64, width: usize) -> Vec<u64> {
    let most = (SAMPLE / width.max(1)).clamp(8, 512) as u64;
    let mut rows: Vec<u64> = if row_count <= most {
        (0..row_count).collect()
    } else {
        (0..most).map(|at| at * row_count / most).collect()
    };
    if let Some(locals) = subject.locals {
        let groups = [locals.rows.worst, locals.rows.loudest, locals.rows.quietest];
        rows.extend(groups.iter().flatten().map(|group| group.index));
        let blocks = [locals.blocks.worst, locals.blocks.worst_relative];
        rows.extend(blocks.iter().flatten().map(|block| block.row));
        let zero = [locals.rows.zero.reference.first, locals.rows.zero.quantized.first];
        rows.extend(zero.iter().flatten());
        let elements = [
            locals.blocks.zero.quantized.first,
            locals.first_nonfinite_quantized,
            locals.first_nonfinite_reference,
        ];
        rows.extend(elements.iter().flatten().map(|at| at / locals.row_len.max(1)));
    }
    rows.push(row_count - 1);
    rows.retain(|&row| row < row_count);
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Signal and noise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noise {
    /// Σ r².
    pub rr: f64,
    /// Σ (x - r)².
    pub ee: f64,
}

impl Noise {
    /// Takes in a value.
    pub fn add(&mut self, r: f64, x: f64) {
        self.rr += r * r;
        self.ee += (x - r) * (x - r);
    }

    /// Signal-to-noise ratio; NaN if a value was not finite, -infinity without a signal.
    pub fn sqnr_db(&self) -> f64 {
        match (self.rr == 0.0, self.ee == 0.0) {
            (_, true) => f64::INFINITY,
            (true, false) => f64::NEG_INFINITY,
            _ => 10.0 * functions::log10(self.rr / self.ee),
        }
    }
}

/// SQNR of two runs of values.
pub fn sqnr(r: &[f32], x: &[f32]) -> f64 {
    let mut noise = Noise::default();
    r.iter().zip(x).for_each(|(&r, &x)| noise.add(f64::from(r), f64::from(x)));
    noise.sqnr_db()
}

/// The factor that brings r closest to x, in the sense of least squares; 0 if r is zero.
pub fn gain(r: &[f32], x: &[f32]) -> f64 {
    let (mut rr, mut rx) = (0.0, 0.0);
    for (&r, &x) in r.iter().zip(x) {
        rr += f64::from(r) * f64::from(r);
        rx += f64::from(r) * f64::from(x);
    }
    if rr == 0.0 { 0.0 } else { rx / rr }
}

/// Cosine of two runs of values; 0 if one is zero.
pub fn cosine(r: &[f32], x: &[f32]) -> f64 {
    let (mut rr, mut xx, mut rx) = (0.0f32, 0.0f32, 0.0f32);
    for (&r, &x) in r.iter().zip(x) {
        rr += r * r;
        xx += x * x;
        rx += r * x;
    }
    if rr == 0.0 || xx == 0.0 {
        0.0
    } else {
        f64::from(rx) / (f64::from(rr) * f64::from(xx)).sqrt()
    }
}

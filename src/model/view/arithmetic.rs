/*!
Values that are computed element by element, and factors that need a pass over the whole tensor first.

All arithmetic is that of f32; a narrower type's is this and a cast.
*/

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::gather::Fetch;
use crate::metrics::functions;
use crate::model::{ReadError, Scratch};

/// Elements that a first pass decodes at a time.
const PIECE: u64 = 64 * 1024;

/// What is computed.
#[derive(Debug)]
pub enum Op {
    /// Something is added.
    Add(f32),
    /// Multiplied by a number.
    Mul(f32),
    /// Divided by a number.
    Div(f32),
    /// -exp(x).
    NegExp,
    /// ln(-x), the way back from -exp(x).
    LnNeg,
    /// Multiplied by a factor for each index of an axis, `inner` elements apart.
    MulAlong { factors: Arc<[f32]>, inner: u64 },
    /// Divided by a factor for each index of an axis, `inner` elements apart.
    DivAlong { factors: Arc<[f32]>, inner: u64 },
    /// Anything else that depends on an element's index and value alone.
    Each(Function),
    /// `BitNet`: s = max(mean |x|, 1e-5); round(x/s) within -1..1, times s.
    Ternary(FirstPass),
    /// Each column divided by its L2 norm plus eps.
    ColumnNorm { columns: u64, eps: f64, pass: FirstPass },
}

/// Changes values in place, the first of which is the element of an index.
type Change = dyn Fn(u64, &mut [f32]) + Send + Sync;

/// A change that shows nothing of itself.
pub struct Function(pub Arc<Change>);

impl fmt::Debug for Function {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Function")
    }
}

/// What a pass over the whole tensor found, once it was made.
#[derive(Debug, Default)]
pub struct FirstPass(Mutex<Option<Arc<[f32]>>>);

impl FirstPass {
    /// The factors; `find` makes the pass if nobody has. Threads that come meanwhile wait.
    fn factors(
        &self,
        find: impl FnOnce() -> Result<Vec<f32>, ReadError>,
    ) -> Result<Arc<[f32]>, ReadError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(factors) = &*kept {
            return Ok(Arc::clone(factors));
        }
        let factors: Arc<[f32]> = find()?.into();
        *kept = Some(Arc::clone(&factors));
        Ok(factors)
    }
}

impl Op {
    /// The operation once more, if it is a sum or a product with what does not depend on the values.
    pub fn affine(&self) -> Option<Self> {
        Some(match self {
            Self::Add(by) => Self::Add(*by),
            Self::Mul(by) => Self::Mul(*by),
            Self::Div(by) => Self::Div(*by),
            Self::MulAlong { factors, inner } => {
                Self::MulAlong { factors: Arc::clone(factors), inner: *inner }
            }
            Self::DivAlong { factors, inner } => {
                Self::DivAlong { factors: Arc::clone(factors), inner: *inner }
            }
            _ => return None,
        })
    }

    /// Whether every value depends on all.
    pub fn needs_all(&self) -> bool {
        matches!(self, Self::Ternary(_) | Self::ColumnNorm { .. })
    }

    /// Computes the values of elements from `start` on, in place. `numel` elements are `source`'s.
    pub fn apply(
        &self,
        start: u64,
        numel: u64,
        values: &mut [f32],
        source: &mut Fetch<'_>,
    ) -> Result<(), ReadError> {
        match self {
            Self::Add(by) => each(values, |value| value + by),
            Self::Mul(by) => each(values, |value| value * by),
            Self::Div(by) => each(values, |value| value / by),
            Self::NegExp => each(values, |value| -functions::exp(f64::from(value)) as f32),
            Self::LnNeg => each(values, |value| functions::ln(-f64::from(value)) as f32),
            Self::MulAlong { factors, inner } => {
                along(factors, *inner, start, values, |value, factor| value * factor);
            }
            Self::DivAlong { factors, inner } => {
                along(factors, *inner, start, values, |value, factor| value / factor);
            }
            Self::Each(Function(apply)) => apply(start, values),
            Self::Ternary(pass) => {
                // The converter multiplies and divides by the inverse.
                let inverse = 1.0 / pass.factors(|| mean_magnitude(numel, source))?[0];
                each(values, |value| {
                    (value * inverse).round_ties_even().clamp(-1.0, 1.0) / inverse
                });
            }
            Self::ColumnNorm { columns, eps, pass } => {
                let factors = pass.factors(|| column_norms(*columns, *eps, numel, source))?;
                along(&factors, 1, start, values, |value, factor| value / factor);
            }
        }
        Ok(())
    }
}

fn each(values: &mut [f32], apply: impl Fn(f32) -> f32) {
    for value in values {
        *value = apply(*value);
    }
}

/// Applies each index's factor, index after index of `inner` elements.
fn along(
    factors: &[f32],
    inner: u64,
    start: u64,
    values: &mut [f32],
    apply: impl Fn(f32, f32) -> f32,
) {
    let (mut index, mut left) = (start / inner, inner - start % inner);
    let mut rest = values;
    while !rest.is_empty() {
        if inner == 1 {
            // A row, or what is left of one.
            let first = (index % factors.len() as u64) as usize;
            let len = rest.len().min(factors.len() - first);
            let (row, next) = rest.split_at_mut(len);
            let pairs = row.iter_mut().zip(&factors[first..]);
            pairs.for_each(|(value, factor)| *value = apply(*value, *factor));
            (rest, index) = (next, index + len as u64);
            continue;
        }
        let factor = factors[(index % factors.len() as u64) as usize];
        let (run, next) = rest.split_at_mut(rest.len().min(left as usize));
        each(run, |value| apply(value, factor));
        (rest, index, left) = (next, index + 1, inner);
    }
}

/// Hands out all values, piece after piece.
fn pass(
    numel: u64,
    source: &mut Fetch<'_>,
    each: &mut dyn FnMut(Range<u64>, &[f32]),
) -> Result<(), ReadError> {
    let (mut scratch, mut values) = (Scratch::default(), Vec::new());
    let mut start = 0;
    while start < numel {
        let end = (start + PIECE).min(numel);
        values.resize((end - start) as usize, 0.0);
        source(start..end, &mut scratch, &mut values)?;
        each(start..end, &values);
        start = end;
    }
    Ok(())
}

fn mean_magnitude(numel: u64, source: &mut Fetch<'_>) -> Result<Vec<f32>, ReadError> {
    let mut sum = 0.0;
    pass(numel, source, &mut |_, values| {
        sum += values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
    })?;
    let mean = sum / numel.max(1) as f64;
    // A NaN stays one.
    Ok(vec![if mean < 1e-5 { 1e-5 } else { mean as f32 }])
}

fn column_norms(
    columns: u64,
    eps: f64,
    numel: u64,
    source: &mut Fetch<'_>,
) -> Result<Vec<f32>, ReadError> {
    let mut squares = vec![0f64; columns as usize];
    pass(numel, source, &mut |range, values| {
        for (at, value) in range.zip(values) {
            squares[(at % columns) as usize] += f64::from(*value) * f64::from(*value);
        }
    })?;
    Ok(squares.iter().map(|square| (square.sqrt() + eps) as f32).collect())
}

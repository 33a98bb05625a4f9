/*!
Finds folded scales where norms differ, or rows of a weight, and the columns of the weights behind them match once
the same factors are taken out.
*/

use super::fold::{Fold, Producer, Rename, applied, folds_by_tensor};
use super::inputs::{FED_BY_NORM, WIDEST, is_norm, module};
use crate::codec::Class;
use crate::metrics::functions;
use crate::model::{Model, ReadError, Scratch, SourceFile, Tensor};

/// Rows (or columns) of a weight that are looked at.
const SAMPLES: u64 = 64;

/// How far the logarithms of the factors must spread for a fold, root mean square: quantization and
/// rounding stay below.
const LEAST_SPREAD: f64 = 0.02;

/// How far a column's factor may be off, in parts of it.
const OFF: f64 = 0.3;

/// Standard errors by which a column's factor may be off by chance.
const CHANCE: f64 = 6.0;

/// Columns whose weights are not so many times the weight's usual error say nothing: half a step of its grid is 1.7
/// times its rms error, and what is smaller is rounded to nothing.
const LOUD: f64 = 2.0;

/// Largest standard error of what is said of all columns together.
const UNSURE: f64 = 0.08;

/// The spread of estimated factors in parts of the weight's relative error that quantizers of few bits give rows alone.
const BY_CHANCE: f64 = 0.25;

/// The error of a weight must fall to this part of its square when the factors are taken out.
const CLEAR: f64 = 0.25;

/// A weight whose rows feed the columns of another, by the end of their modules' names.
const FED_BY_ROWS: &[(&str, &str)] = &[
    ("up_proj", "down_proj"),
    ("w3", "w2"),
    ("v_proj", "o_proj"),
    ("fc1", "fc2"),
    ("ffn_up", "ffn_down"),
    ("attn_v", "attn_output"),
];

/// Finds the folds into norms; quickly, if the norms are alike.
pub fn into_norms(
    reference: &Model,
    quantized: &Model,
    rename: Rename,
) -> Result<Vec<Fold>, ReadError> {
    let by_name = reference.by_name();
    let mut differ = false;
    for norm in quantized.tensors.iter().filter(|tensor| is_norm(tensor)) {
        let name = rename(&norm.name);
        let Some(&own) = by_name.get(name.as_str()) else { continue };
        let own = &reference.tensors[own];
        let comparable = own.shape == norm.shape && own.class() != Class::Exact;
        if comparable && norm.class() != Class::Exact {
            let own = Side::of(reference).values(own)?;
            let other = Side::of(quantized).values(norm)?;
            differ |= NORMS.iter().any(|one| unlike(&own, &other, *one).is_some());
        }
    }
    if !differ {
        return Ok(Vec::new());
    }
    let tensors = renamed(quantized, rename);
    let pair = Pair::of(reference, quantized, &tensors);
    pair.norms()
}

/// What a norm adds to its weight: nothing, or one (Gemma).
const NORMS: [f32; 2] = [0.0, 1.0];

/// The factors between two norms, if they are too unlike for quantization and rounding.
fn unlike(own: &[f32], other: &[f32], one: f32) -> Option<Vec<f32>> {
    ratios(own, other, one).filter(|factors| spread(factors) > LEAST_SPREAD)
}

/// Finds the folds between two models.
pub fn folds(reference: &Model, quantized: &Model, rename: Rename) -> Result<Vec<Fold>, ReadError> {
    let tensors = renamed(quantized, rename);
    let pair = Pair::of(reference, quantized, &tensors);
    // What norms explain must be gone before weights are held against each other.
    let (mut found, broken): (Vec<_>, Vec<_>) = pair.norms()?.into_iter().partition(Fold::cancels);
    let known = folds_by_tensor(&found);
    let unfolded: Vec<Tensor> = tensors.iter().map(|tensor| applied(tensor, &known)).collect();
    let quantized = Side { files: &quantized.files, tensors: &unfolded };
    let pair = Pair { quantized, ..pair };
    let mut estimated = Vec::new();
    for tensor in &unfolded {
        estimated.extend(pair.rows(tensor)?);
    }
    found.extend(estimated);
    found.extend(broken);
    Ok(found)
}

/// The tensors of a model under the reference's names, sorted by them.
fn renamed(model: &Model, rename: Rename) -> Vec<Tensor> {
    let name = |tensor: &Tensor| Tensor { name: rename(&tensor.name), ..tensor.clone() };
    let mut tensors: Vec<Tensor> = model.tensors.iter().map(name).collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

/// The fold of named weights into a named norm, as a specification declares it.
pub fn declared(
    reference: &Model,
    quantized: &Model,
    rename: Rename,
    norm: &str,
    consumers: Vec<String>,
) -> Result<Fold, ReadError> {
    let tensors = renamed(quantized, rename);
    let pair = Pair::of(reference, quantized, &tensors);
    let missing = || ReadError::Corrupt(format!("{norm:?} is no norm of both models"));
    let (own, other) = pair.both(norm).ok_or_else(missing)?;
    let (own, other) = (pair.reference.values(own)?, pair.quantized.values(other)?);
    let kind = Producer::Norm { plus_one: false };
    let factors = ratios(&own, &other, 0.0).ok_or_else(missing)?;
    let left_out = Vec::new();
    Ok(Fold { producer: norm.to_owned(), kind, consumers, left_out, factors: factors.into() })
}

/// One of the two models.
#[derive(Clone, Copy)]
struct Side<'a> {
    files: &'a [SourceFile],
    /// Sorted by name.
    tensors: &'a [Tensor],
}

impl<'a> Side<'a> {
    fn of(model: &'a Model) -> Self {
        Self { files: &model.files, tensors: &model.tensors }
    }

    fn find(&self, name: &str) -> Option<&'a Tensor> {
        let index = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[index])
    }

    /// The tensors whose names begin with `prefix`.
    fn below(&self, prefix: &str) -> impl Iterator<Item = &'a Tensor> {
        let start = self.tensors.partition_point(|tensor| tensor.name.as_str() < prefix);
        self.tensors[start..].iter().take_while(move |tensor| tensor.name.starts_with(prefix))
    }

    /// All values of a vector.
    fn values(&self, tensor: &Tensor) -> Result<Vec<f32>, ReadError> {
        let mut values = vec![0.0; tensor.numel().min(WIDEST) as usize];
        let range = 0..values.len() as u64;
        tensor.decode(self.files, range, &mut Scratch::default(), &mut values)?;
        Ok(values)
    }
}

/// Whether the columns of a weight were multiplied by factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Multiplied,
    /// Some columns by others.
    Partly,
    AsItWas,
    Unclear,
}

/// Sums over a column of a weight on both sides.
#[derive(Clone, Copy, Default)]
struct Column {
    n: f64,
    /// Σ r².
    rr: f64,
    /// Σ r·q.
    rq: f64,
    /// Σ (q - s·r)², the error if it was multiplied by s.
    with: f64,
    /// The error if all columns were multiplied alike.
    without: f64,
}

impl Column {
    fn take(&mut self, r: f64, q: f64, s: f64, otherwise: f64) {
        self.n += 1.0;
        self.rr += r * r;
        self.rq += r * q;
        self.with += (q - s * r).powi(2);
        self.without += (q - otherwise * r).powi(2);
    }

    /// Whether it was multiplied by something else than `s`, where errors are `usual` ones.
    fn is_off(&self, s: f64, usual: f64) -> bool {
        if self.rr == 0.0 {
            return false;
        }
        let rms = (self.rr / self.n).sqrt();
        let slope = self.rq / self.rr;
        let chance = CHANCE * usual / self.n.sqrt();
        let loud = s.max(slope.abs()) * rms > LOUD * usual;
        loud && (slope - s).abs() * rms > chance.max(OFF * s * rms)
    }
}

/// Mean square error of the median column.
fn median<'a>(
    columns: impl Iterator<Item = (&'a Column, &'a f32)>,
    error: fn(&Column) -> f64,
) -> f64 {
    let mut errors: Vec<f64> = columns.map(|(it, _)| error(it) / it.n.max(1.0)).collect();
    errors.sort_by(f64::total_cmp);
    errors.get(errors.len() / 2).copied().unwrap_or(0.0)
}

/// What a row was multiplied by as a whole; 1 where that cannot be told.
fn row_factor(own: &[f32], other: &[f32], factors: Option<&[f32]>) -> f64 {
    let (mut rr, mut rq) = (0.0, 0.0);
    for (at, (r, q)) in own.iter().zip(other).enumerate() {
        let s = factors.map_or(1.0, |it| f64::from(it[at]));
        if !s.is_nan() {
            let r = f64::from(*r) * s;
            rr += r * r;
            rq += r * f64::from(*q);
        }
    }
    if rq > 0.0 { rq / rr } else { 1.0 }
}

/// Which part of the logarithms of the factors is in the columns, beside what all of them have in common: 1 if they
/// were multiplied, 0 if not; none if that is uncertain.
fn share<'a>(columns: impl Iterator<Item = (&'a Column, &'a f32)>, usual: f64) -> Option<f64> {
    let mut pairs = Vec::new();
    for (column, s) in columns {
        let (slope, s) = (column.rq / column.rr, f64::from(*s));
        if slope > 0.0 && (column.rr / column.n).sqrt() * slope.min(s) > LOUD * usual {
            pairs.push((functions::ln(s), functions::ln(slope)));
        }
    }
    let n = pairs.len() as f64;
    let sum = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
    let (mean_s, mean_c) = (sum(&|it| it.0) / n, sum(&|it| it.1) / n);
    let ss = sum(&|it| (it.0 - mean_s).powi(2));
    let sc = sum(&|it| (it.0 - mean_s) * (it.1 - mean_c));
    let cc = sum(&|it| (it.1 - mean_c).powi(2));
    let share = sc / ss;
    let left = (cc - share * sc).max(0.0);
    (n > 2.0 && (left / (n - 2.0) / ss).sqrt() < UNSURE).then_some(share)
}

/// The two models, whose tensors have the same names.
struct Pair<'a> {
    reference: Side<'a>,
    quantized: Side<'a>,
}

/// r/q of each element (both raised by `one`), if none is negative or not finite; NaN where both are zero, so that
/// any factor would do.
fn ratios(reference: &[f32], quantized: &[f32], one: f32) -> Option<Vec<f32>> {
    let ratio = |(r, q): (&f32, &f32)| (r + one) / (q + one);
    let ratios: Vec<f32> = reference.iter().zip(quantized).map(ratio).collect();
    let known = |ratio: &&f32| !ratio.is_nan();
    let usable = ratios.iter().filter(known).all(|ratio| ratio.is_normal() && *ratio > 0.0);
    (usable && ratios.iter().any(|ratio| !ratio.is_nan())).then_some(ratios)
}

/// Root mean square of the logarithms about their mean: how far from one common factor.
fn spread(factors: &[f32]) -> f64 {
    let known = || factors.iter().filter(|factor| !factor.is_nan());
    let logarithms = || known().map(|factor| functions::ln(f64::from(*factor)));
    let count = known().count().max(1) as f64;
    let mean = logarithms().sum::<f64>() / count;
    (logarithms().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

impl<'a> Pair<'a> {
    /// The reference, and the quantized model with its tensors under the reference's names.
    fn of(reference: &'a Model, quantized: &'a Model, tensors: &'a [Tensor]) -> Self {
        let quantized = Side { files: &quantized.files, tensors };
        Self { reference: Side::of(reference), quantized }
    }

    /// All folds into norms.
    fn norms(&self) -> Result<Vec<Fold>, ReadError> {
        let found = self.quantized.tensors.iter().map(|tensor| self.norm(tensor));
        found.filter_map(Result::transpose).collect()
    }

    /// The tensors of one name in both models, if they are alike.
    fn both(&self, name: &str) -> Option<(&Tensor, &Tensor)> {
        let (own, other) = (self.reference.find(name)?, self.quantized.find(name)?);
        let alike = own.shape == other.shape && own.class() != Class::Exact;
        (alike && other.class() != Class::Exact).then_some((own, other))
    }

    /// The fold into a norm, if there is one.
    fn norm(&self, norm: &Tensor) -> Result<Option<Fold>, ReadError> {
        let Some((prefix, name)) = module(&norm.name) else { return Ok(None) };
        let fed = FED_BY_NORM.iter().find(|(norms, _)| norms.contains(&name));
        let (Some((_, fed)), Some((own, other))) = (fed, self.both(&norm.name)) else {
            return Ok(None);
        };
        if !is_norm(norm) {
            return Ok(None);
        }
        let own = self.reference.values(own)?;
        let other = self.quantized.values(other)?;
        if own == other {
            return Ok(None);
        }
        for one in NORMS {
            let Some(mut factors) = unlike(&own, &other, one) else { continue };
            let (mut consumers, mut left_out, mut any) = (Vec::new(), Vec::new(), false);
            for tensor in self.quantized.below(prefix) {
                let behind = module(&tensor.name).is_some_and(|(parent, name)| {
                    let rest = parent.strip_prefix(prefix);
                    rest.is_some_and(|it| it.is_empty() || it.starts_with('.') || prefix.is_empty())
                        && rest.is_some_and(|it| !it.contains("norm"))
                        && fed.contains(&name)
                });
                if !behind {
                    continue;
                }
                self.complete(&tensor.name, &mut factors)?;
                let fit = self.fit(&tensor.name, &factors, true)?;
                any |= matches!(fit, Fit::Multiplied | Fit::Partly);
                match fit {
                    Fit::Multiplied => consumers.push(tensor.name.clone()),
                    Fit::AsItWas | Fit::Partly => left_out.push(tensor.name.clone()),
                    Fit::Unclear => {}
                }
            }
            if any {
                // What no weight tells is as it was.
                factors.iter_mut().filter(|factor| factor.is_nan()).for_each(|it| *it = 1.0);
                let (producer, kind) = (norm.name.clone(), Producer::Norm { plus_one: one > 0.0 });
                let factors = factors.into();
                return Ok(Some(Fold { producer, kind, consumers, left_out, factors }));
            }
        }
        Ok(None)
    }

    /// Whether a weight is clearly closer to the reference with its columns multiplied by the factors, or as it is.
    ///
    /// Factors that are estimated are too rough for single columns, where errors hide them.
    /// Errors are those of the quantized weight as it is stored: there its grid makes them alike in all columns.
    fn fit(&self, name: &str, factors: &[f32], are_known: bool) -> Result<Fit, ReadError> {
        let Some((own, other)) = self.both(name) else { return Ok(Fit::Unclear) };
        let width = factors.len() as u64;
        if own.shape.len() < 2 || own.shape.last() != Some(&width) {
            return Ok(Fit::Unclear);
        }
        let mut columns = vec![Column::default(); factors.len()];
        self.rows_of(own, other, width, |_, own, other| {
            // Rows may have factors of their own, which are another fold.
            let (with, without) =
                (row_factor(own, other, Some(factors)), row_factor(own, other, None));
            for (((r, q), s), column) in own.iter().zip(other).zip(factors).zip(&mut columns) {
                let [r, q, s] = [*r, *q, *s].map(f64::from);
                column.take(r, q / with, s, without / with);
            }
        })?;
        let known = || columns.iter().zip(factors).filter(|(_, s)| !s.is_nan());
        // Of the median column, so that a few that have others do not hide the factors of all.
        let (with, without) = (median(known(), |it| it.with), median(known(), |it| it.without));
        let usual = with.sqrt();
        let off = |(column, s): (&Column, &f32)| column.is_off(f64::from(*s), usual);
        Ok(match (with < CLEAR * without, without < CLEAR * with) {
            // All must have the factors, not only most.
            (true, _) if known().any(off) => Fit::Partly,
            (true, _) => Fit::Multiplied,
            (_, true) => Fit::AsItWas,
            // Where the grid is so coarse that its errors hide the factors, all columns together tell.
            _ => match share(known(), usual) {
                Some(share) if share > 0.75 && are_known && known().any(off) => Fit::Partly,
                Some(share) if share > 0.75 => Fit::Multiplied,
                Some(share) if share < 0.25 => Fit::AsItWas,
                _ => Fit::Unclear,
            },
        })
    }

    /// Factors that a norm does not tell, for it lets nothing through there, from the columns of a weight behind it.
    fn complete(&self, name: &str, factors: &mut [f32]) -> Result<(), ReadError> {
        let Some((own, other)) = self.both(name) else { return Ok(()) };
        if !factors.iter().any(|factor| factor.is_nan()) {
            return Ok(());
        }
        let width = factors.len() as u64;
        if own.shape.len() < 2 || own.shape.last() != Some(&width) {
            return Ok(());
        }
        let mut columns = vec![Column::default(); factors.len()];
        self.rows_of(own, other, width, |_, own, other| {
            for ((r, q), column) in own.iter().zip(other).zip(&mut columns) {
                let [r, q] = [*r, *q].map(f64::from);
                column.take(r, q, 1.0, 1.0);
            }
        })?;
        for (factor, column) in factors.iter_mut().zip(columns).filter(|(it, _)| it.is_nan()) {
            let slope = (column.rq / column.rr) as f32;
            if slope.is_normal() && slope > 0.0 {
                *factor = slope;
            }
        }
        Ok(())
    }

    /// Hands out evenly spaced rows of both tensors.
    fn rows_of(
        &self,
        own: &Tensor,
        other: &Tensor,
        width: u64,
        mut each: impl FnMut(u64, &[f32], &[f32]),
    ) -> Result<(), ReadError> {
        let rows = own.numel() / width;
        let mut scratch = Scratch::default();
        let mut values = [vec![0.0; width as usize], vec![0.0; width as usize]];
        for sample in 0..rows.min(SAMPLES) {
            let row = sample * rows / rows.min(SAMPLES);
            let range = row * width..(row + 1) * width;
            own.decode(self.reference.files, range.clone(), &mut scratch, &mut values[0])?;
            other.decode(self.quantized.files, range, &mut scratch, &mut values[1])?;
            each(row, &values[0], &values[1]);
        }
        Ok(())
    }

    /// The fold between a weight's rows and another's columns, if there is one.
    fn rows(&self, producer: &Tensor) -> Result<Option<Fold>, ReadError> {
        let Some((parent, name)) = module(&producer.name) else { return Ok(None) };
        let Some((_, next)) = FED_BY_ROWS.iter().find(|(from, _)| *from == name) else {
            return Ok(None);
        };
        let consumer = format!("{parent}.{next}.weight");
        let (Some((own, other)), Some((own_next, _))) =
            (self.both(&producer.name), self.both(&consumer))
        else {
            return Ok(None);
        };
        let (&[rows, cols], &[_, inputs]) = (&own.shape[..], &own_next.shape[..]) else {
            return Ok(None);
        };
        if rows != inputs || !(2..=WIDEST).contains(&rows) || cols == 0 {
            return Ok(None);
        }
        let guessed = self.row_factors(own, other, SAMPLES)?;
        if guessed
            .is_none_or(|(factors, error)| spread(&factors) <= LEAST_SPREAD.max(BY_CHANCE * error))
        {
            return Ok(None);
        }
        let Some((factors, _)) = self.row_factors(own, other, rows)? else { return Ok(None) };
        let fit = self.fit(&consumer, &factors, false)?;
        let (consumers, left_out) = match fit {
            Fit::Multiplied => (vec![consumer], Vec::new()),
            Fit::Partly => (Vec::new(), vec![consumer]),
            Fit::AsItWas | Fit::Unclear => return Ok(None),
        };
        let (producer, kind) = (producer.name.clone(), Producer::Rows);
        Ok(Some(Fold { producer, kind, consumers, left_out, factors: factors.into() }))
    }

    /// What brings `wanted` evenly spaced rows closest to the reference, and the relative error that is left; none if
    /// that is no positive factor for one of them.
    fn row_factors(
        &self,
        own: &Tensor,
        other: &Tensor,
        wanted: u64,
    ) -> Result<Option<(Vec<f32>, f64)>, ReadError> {
        let (mut lost, mut all) = (0.0, 0.0);
        let (rows, cols) = (own.shape[0], own.shape[1]);
        let wanted = wanted.min(rows);
        let width = cols.min(8 * SAMPLES);
        let mut factors = vec![0f32; wanted as usize];
        let mut scratch = Scratch::default();
        let mut values = [vec![0.0; width as usize], vec![0.0; width as usize]];
        for (at, factor) in factors.iter_mut().enumerate() {
            let row = at as u64 * rows / wanted;
            let range = row * cols..row * cols + width;
            own.decode(self.reference.files, range.clone(), &mut scratch, &mut values[0])?;
            other.decode(self.quantized.files, range, &mut scratch, &mut values[1])?;
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let (power, common) = (dot(&values[1], &values[1]), dot(&values[0], &values[1]));
            let reference = dot(&values[0], &values[0]);
            all += reference;
            lost += if power > 0.0 { reference - common * common / power } else { reference };
            // A row of zeros is one with any factor.
            let is_zero = power == 0.0 && values[0].iter().all(|&r| r == 0.0);
            *factor = if is_zero { 1.0 } else { (common / power) as f32 };
            if !(factor.is_normal() && *factor > 0.0) {
                return Ok(None);
            }
        }
        let error = if all > 0.0 { (lost.max(0.0) / all).sqrt() } else { 0.0 };
        Ok(Some((factors, error)))
    }
}

/*!
Scales that a quantizer folded out of a weight: AWQ, `SmoothQuant` and their kin multiply the columns of
a weight by s and divide what comes before it, a norm or another weight's rows, by s. The model
computes the same; compared tensor by tensor, both look damaged.

Finds such folds where norms differ and the weights behind them match once the same factors are taken
out, and takes them out.
*/

use std::collections::HashMap;
use std::sync::Arc;

use crate::codec::Class;
use crate::metrics::functions;
use crate::model::view::{View, ViewError};
use crate::model::{Model, ReadError, Scratch, SourceFile, Tensor};

/// Longest vector of factors: no layer is wider.
const WIDEST: u64 = 1 << 20;

/// Rows (or columns) of a weight that are looked at.
const SAMPLES: u64 = 64;

/// How far the logarithms of the factors must spread for a fold, root mean square: quantization and
/// rounding stay below.
const LEAST_SPREAD: f64 = 0.02;

/// How far a column's factor may be off.
const OFF: f64 = 0.3;

/// Standard errors by which a column's factor may be off by chance.
const CHANCE: f64 = 6.0;

/// Columns of less than this part of the mean power say nothing.
const LOUD: f64 = 0.01;

/// The error of a weight must fall to this part of its square when the factors are taken out.
const CLEAR: f64 = 0.25;

/// What was divided by the factors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Producer {
    /// A norm's weight.
    Norm {
        /// The norm multiplies by one more than its weight (Gemma).
        plus_one: bool,
    },
    /// The rows of a weight, and its bias. The factors are estimated from the weights.
    Rows,
}

/// Factors between two tensors.
#[derive(Clone, Debug)]
pub struct Fold {
    /// Name of the tensor that was divided.
    pub producer: String,
    /// What it is.
    pub kind: Producer,
    /// Names of the weights whose columns were multiplied.
    pub consumers: Vec<String>,
    /// Names of weights behind the producer whose columns were not: there nothing cancels.
    pub left_out: Vec<String>,
    factors: Arc<[f32]>,
}

impl Fold {
    /// Whether the model computes what it did: every weight behind the producer has the factors.
    pub fn cancels(&self) -> bool {
        self.left_out.is_empty()
    }

    /// The bias beside the producer, which was divided with it.
    fn bias(&self) -> Option<String> {
        self.producer.strip_suffix("weight").map(|module| format!("{module}bias"))
    }

    /// A sentence for people.
    pub fn describe(&self) -> String {
        let how = if self.kind == Producer::Rows { " (estimated)" } else { "" };
        let not = match &self.left_out[..] {
            [] => String::new(),
            left_out => format!(", and not, or not all, out of {}", left_out.join(", ")),
        };
        format!(
            "scales of {} columns are folded out of {} into {}{how}{not}",
            self.factors.len(),
            if self.consumers.is_empty() {
                "weights".to_owned()
            } else {
                self.consumers.join(", ")
            },
            self.producer
        )
    }
}

/// The folds that change each tensor, or should, by its reference name; in their order.
pub fn folds_by_tensor(folds: &[Fold]) -> HashMap<String, Vec<&Fold>> {
    let mut by_tensor: HashMap<String, Vec<&Fold>> = HashMap::new();
    for fold in folds {
        let mut names: Vec<String> = [&fold.consumers[..], &fold.left_out].concat();
        names.push(fold.producer.clone());
        names.extend(fold.bias());
        names.sort();
        names.dedup();
        for name in names {
            by_tensor.entry(name).or_default().push(fold);
        }
    }
    by_tensor
}

/// Roles of a weight that is fed by a norm or another weight, by the end of its module's name.
const FED_BY_NORM: &[(&[&str], &[&str])] = &[
    (
        &["input_layernorm", "attention_norm", "ln_1", "norm1", "attn_norm"],
        &[
            "q_proj",
            "k_proj",
            "v_proj",
            "qkv_proj",
            "wq",
            "wk",
            "wv",
            "c_attn",
            "query_key_value",
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_qkv",
        ],
    ),
    (
        &["post_attention_layernorm", "pre_feedforward_layernorm", "ffn_norm", "ln_2", "norm2"],
        &[
            "gate_proj",
            "up_proj",
            "gate_up_proj",
            "w1",
            "w3",
            "gate",
            "fc1",
            "c_fc",
            "router",
            "ffn_gate",
            "ffn_up",
            "ffn_gate_inp",
            "ffn_gate_exps",
            "ffn_up_exps",
        ],
    ),
];

/// A weight whose rows feed the columns of another, by the end of their modules' names.
const FED_BY_ROWS: &[(&str, &str)] = &[
    ("up_proj", "down_proj"),
    ("w3", "w2"),
    ("v_proj", "o_proj"),
    ("fc1", "fc2"),
    ("ffn_up", "ffn_down"),
    ("attn_v", "attn_output"),
];

/// The quantized model's name for a tensor to the reference's.
pub type Rename<'a> = &'a dyn Fn(&str) -> String;

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

/// Whether a tensor is a norm that weights are folded into.
fn is_norm(tensor: &Tensor) -> bool {
    let known = |name| FED_BY_NORM.iter().any(|(norms, _)| norms.contains(&name));
    tensor.shape.len() == 1
        && (2..=WIDEST).contains(&tensor.numel())
        && module(&tensor.name).is_some_and(|(_, name)| known(name))
}

/// The factors between two norms, if they are too unlike for quantization and rounding.
fn unlike(own: &[f32], other: &[f32], one: f32) -> Option<Vec<f32>> {
    ratios(own, other, one).filter(|factors| spread(factors) > LEAST_SPREAD)
}

/// Finds the folds between two models.
pub fn folds(reference: &Model, quantized: &Model, rename: Rename) -> Result<Vec<Fold>, ReadError> {
    let tensors = renamed(quantized, rename);
    let pair = Pair::of(reference, quantized, &tensors);
    let mut found = pair.norms()?;
    // What norms explain must be gone before weights are held against each other.
    found.retain(Fold::cancels);
    let known = folds_by_tensor(&found);
    let unfolded: Vec<Tensor> = tensors.iter().map(|tensor| applied(tensor, &known)).collect();
    let quantized = Side { files: &quantized.files, tensors: &unfolded };
    let pair = Pair { quantized, ..pair };
    let mut estimated = Vec::new();
    for tensor in &unfolded {
        estimated.extend(pair.rows(tensor)?);
    }
    found.extend(estimated);
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

/// Takes folds out of the quantized model: weights and norms become comparable.
pub fn unfold(quantized: &mut Model, folds: &[Fold], rename: Rename) {
    let folds = folds_by_tensor(folds);
    for tensor in &mut quantized.tensors {
        let named = Tensor { name: rename(&tensor.name), ..tensor.clone() };
        tensor.storage = applied(&named, &folds).storage;
    }
}

/// A tensor without the folds that concern it.
fn applied(tensor: &Tensor, folds: &HashMap<String, Vec<&Fold>>) -> Tensor {
    let Some(folds) = folds.get(&tensor.name).filter(|_| tensor.class() != Class::Exact) else {
        return tensor.clone();
    };
    let view = folds.iter().fold(View::of(tensor), |view, fold| {
        // Factors that do not fit are another tensor's.
        without(&view, &tensor.name, fold).unwrap_or(view)
    });
    view.into_tensor(&tensor.name)
}

/// A tensor without one fold.
fn without(view: &View, name: &str, fold: &Fold) -> Result<View, ViewError> {
    let factors = Arc::clone(&fold.factors);
    let columns = view.shape().len().saturating_sub(1);
    if fold.consumers.iter().any(|consumer| consumer == name) {
        view.div_along(columns, factors)
    } else if fold.producer == name {
        match fold.kind {
            Producer::Norm { plus_one: true } => {
                Ok(view.add(1.0).mul_along(columns, factors)?.add(-1.0))
            }
            Producer::Norm { plus_one: false } => view.mul_along(columns, factors),
            Producer::Rows => view.mul_along(0, factors),
        }
    } else if fold.bias().as_deref() == Some(name) {
        view.mul_along(columns, factors)
    } else {
        Ok(view.clone())
    }
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

/// The two models, whose tensors have the same names.
struct Pair<'a> {
    reference: Side<'a>,
    quantized: Side<'a>,
}

/// The last part of a module's name, and what is before it: `layers.0.mlp` and `up_proj`.
fn module(name: &str) -> Option<(&str, &str)> {
    let module = name.strip_suffix(".weight")?;
    Some(module.rsplit_once('.').unwrap_or(("", module)))
}

/// r/q of each element (both raised by `one`), if none is zero or not finite.
fn ratios(reference: &[f32], quantized: &[f32], one: f32) -> Option<Vec<f32>> {
    let ratio = |(r, q): (&f32, &f32)| (r + one) / (q + one);
    let ratios: Vec<f32> = reference.iter().zip(quantized).map(ratio).collect();
    ratios.iter().all(|ratio| ratio.is_normal() && *ratio > 0.0).then_some(ratios)
}

/// Root mean square of the logarithms about their mean: how far from one common factor.
fn spread(factors: &[f32]) -> f64 {
    let logarithms = || factors.iter().map(|factor| functions::ln(f64::from(*factor)));
    let count = factors.len().max(1) as f64;
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
            let Some(factors) = unlike(&own, &other, one) else { continue };
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
                let fit = self.fit(&tensor.name, &factors)?;
                any |= matches!(fit, Fit::Multiplied | Fit::Partly);
                match fit {
                    Fit::Multiplied => consumers.push(tensor.name.clone()),
                    Fit::AsItWas | Fit::Partly => left_out.push(tensor.name.clone()),
                    Fit::Unclear => {}
                }
            }
            if any {
                let (producer, kind) = (norm.name.clone(), Producer::Norm { plus_one: one > 0.0 });
                let factors = factors.into();
                return Ok(Some(Fold { producer, kind, consumers, left_out, factors }));
            }
        }
        Ok(None)
    }

    /// Whether a weight comes clearly closer to the reference once its columns are divided, or was so before.
    fn fit(&self, name: &str, factors: &[f32]) -> Result<Fit, ReadError> {
        let Some((own, other)) = self.both(name) else { return Ok(Fit::Unclear) };
        let width = factors.len() as u64;
        if own.shape.len() < 2 || own.shape.last() != Some(&width) {
            return Ok(Fit::Unclear);
        }
        let (mut before, mut after, mut power, mut rows) = (0.0, 0.0, 0.0, 0u64);
        // Of each column Σ r·q/s and Σ r²: all must have the factors, not only most.
        let mut columns = vec![(0f64, 0f64); factors.len()];
        self.rows_of(own, other, width, |_, own, other| {
            rows += 1;
            for (((r, q), s), column) in own.iter().zip(other).zip(factors).zip(&mut columns) {
                let divided = q / s;
                before += f64::from(r - q).powi(2);
                after += f64::from(r - divided).powi(2);
                power += f64::from(*r).powi(2);
                column.0 += f64::from(*r) * f64::from(divided);
                column.1 += f64::from(*r).powi(2);
            }
        })?;
        let chance = CHANCE * (after / power / rows.max(1) as f64).sqrt();
        let loud = power / factors.len() as f64 * LOUD;
        let off = |(rq, rr): &(f64, f64)| *rr > loud && (rq / rr - 1.0).abs() > chance.max(OFF);
        Ok(match (after < CLEAR * before, before < CLEAR * after) {
            (true, _) if columns.iter().any(off) => Fit::Partly,
            (true, _) => Fit::Multiplied,
            (_, true) => Fit::AsItWas,
            _ => Fit::Unclear,
        })
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
        // The factor that brings each row closest to the reference.
        let mut factors = vec![0f32; rows as usize];
        let width = cols.min(8 * SAMPLES);
        let mut scratch = Scratch::default();
        let mut values = [vec![0.0; width as usize], vec![0.0; width as usize]];
        for (row, factor) in factors.iter_mut().enumerate() {
            let range = row as u64 * cols..row as u64 * cols + width;
            own.decode(self.reference.files, range.clone(), &mut scratch, &mut values[0])?;
            other.decode(self.quantized.files, range, &mut scratch, &mut values[1])?;
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            *factor = (dot(&values[0], &values[1]) / dot(&values[1], &values[1])) as f32;
        }
        let usable = factors.iter().all(|factor| factor.is_normal() && *factor > 0.0);
        if !usable
            || spread(&factors) <= LEAST_SPREAD
            || self.fit(&consumer, &factors)? != Fit::Multiplied
        {
            return Ok(None);
        }
        let (producer, kind) = (producer.name.clone(), Producer::Rows);
        let (consumers, left_out) = (vec![consumer], Vec::new());
        Ok(Some(Fold { producer, kind, consumers, left_out, factors: factors.into() }))
    }
}

/*!
Scales that a quantizer folded out of a weight: AWQ, `SmoothQuant` and their kin multiply the columns of
a weight by s and divide what comes before it, a norm or another weight's rows, by s. The model
computes the same; compared tensor by tensor, both look damaged.

What a fold is, and how it is taken out; `fold_search` finds them.
*/

use std::collections::HashMap;
use std::sync::Arc;

use crate::codec::Class;
use crate::model::view::{View, ViewError};
use crate::model::{Model, Tensor};

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
    pub(super) factors: Arc<[f32]>,
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

/// The quantized model's name for a tensor to the reference's.
pub type Rename<'a> = &'a dyn Fn(&str) -> String;

/// Takes folds out of the quantized model: weights and norms become comparable.
pub fn unfold(quantized: &mut Model, folds: &[Fold], rename: Rename) {
    let folds = folds_by_tensor(folds);
    for tensor in &mut quantized.tensors {
        let named = Tensor { name: rename(&tensor.name), ..tensor.clone() };
        tensor.storage = applied(&named, &folds).storage;
    }
}

/// A tensor without the folds that concern it.
pub(super) fn applied(tensor: &Tensor, folds: &HashMap<String, Vec<&Fold>>) -> Tensor {
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

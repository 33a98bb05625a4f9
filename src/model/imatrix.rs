/*!
Importance matrices: how much each input column of a weight matters to the quantizer.

Two files are understood. What `llama-imatrix` writes as GGUF (`general.type` is `imatrix`) has two
F32 tensors for each weight, `<name>.in_sum2` (sums of squared activations, one row for each
expert) and `<name>.counts` (how many were summed, one for each expert); a weight is their
quotient, and 1 for an expert that was never used, as `llama-quantize` reads it. Any other model
file is taken as flat: the tensor of the weight's own name has one value a column.

Nothing is said here about which tensors the columns fit; that the quantizer's caller checks.
*/

use std::collections::HashMap;
use std::path::Path;

use super::{Model, ModelError, Scratch, Storage, Tensor};
use crate::codec::Class;

/// Column weights by the weight's name: one for each column, or for experts (3-D weights) one row
/// of columns after the other. Finite and not negative.
pub type ColumnWeights = HashMap<String, Vec<f32>>;

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Reads an importance matrix from a GGUF or safetensors file.
pub fn read(path: &Path) -> Result<ColumnWeights, ModelError> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("dat")) {
        let problem = "is named like an importance matrix in the old format; convert it with \
                       `llama-imatrix --in-file X.dat --output-format gguf -o X.gguf`";
        return Err(ModelError::new(path, problem));
    }
    from_model(&super::open(path)?)
}

/// Takes the importance matrix out of an opened file.
pub fn from_model(model: &Model) -> Result<ColumnWeights, ModelError> {
    let declared = model.metadata.iter().any(|(k, v)| k == "general.type" && v == "imatrix");
    let mut weights = ColumnWeights::new();
    if declared {
        let index = model.by_name();
        let tensor = |name: &str| index.get(name).map(|&i| &model.tensors[i]);
        for counts in &model.tensors {
            if let Some(base) = counts.name.strip_suffix(COUNTS)
                && tensor(&format!("{base}{SUMS}")).is_none()
            {
                let problem = format!("there is no {base}{SUMS} that it belongs to");
                return Err(error(model, counts, problem));
            }
        }
        for sums in &model.tensors {
            let Some(base) = sums.name.strip_suffix(SUMS) else { continue };
            let Some(counts) = tensor(&format!("{base}{COUNTS}")) else {
                let problem = format!("there is no {base}{COUNTS} that belongs to it");
                return Err(error(model, sums, problem));
            };
            weights.insert(base.to_owned(), mean_squares(model, sums, counts)?);
        }
    } else {
        for tensor in &model.tensors {
            weights.insert(tensor.name.clone(), values(model, tensor)?);
        }
    }
    if weights.is_empty() {
        return Err(ModelError::new(&model.path, "holds no importance matrix: it has no tensors"));
    }
    Ok(weights)
}

/// Sums over counts, a row for each count.
fn mean_squares(model: &Model, sums: &Tensor, counts: &Tensor) -> Result<Vec<f32>, ModelError> {
    let mut weights = values(model, sums)?;
    let count_values = values(model, counts)?;
    let columns = sums.shape.last().copied().unwrap_or(1) as usize;
    if columns == 0 || weights.len() != columns * count_values.len() {
        let problem = format!(
            "its shape {:?} does not have one row for each of the {} counts",
            sums.shape,
            count_values.len()
        );
        return Err(error(model, sums, problem));
    }
    for (row, &count) in weights.chunks_exact_mut(columns).zip(&count_values) {
        for weight in row {
            *weight = if count > 0.0 { *weight / count } else { 1.0 };
        }
    }
    check(model, sums, &weights)?;
    Ok(weights)
}

/// All values of a float tensor.
fn values(model: &Model, tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    let plain = matches!(tensor.storage, Storage::Plain { .. });
    if !plain || tensor.class() != Class::Float {
        let problem = format!(
            "is stored as {}; an importance matrix is made of floating-point tensors",
            tensor.qtype()
        );
        return Err(error(model, tensor, problem));
    }
    // In bounds of the file: a float tensor has at most a few values for each of its bytes.
    let mut values = vec![0.0; tensor.numel() as usize];
    tensor
        .decode(&model.files, 0..tensor.numel(), &mut Scratch::default(), &mut values)
        .map_err(|e| error(model, tensor, e.to_string()))?;
    check(model, tensor, &values)?;
    Ok(values)
}

fn check(model: &Model, tensor: &Tensor, values: &[f32]) -> Result<(), ModelError> {
    match values.iter().position(|value| !value.is_finite() || *value < 0.0) {
        Some(at) => {
            let problem =
                format!("value {at} is {}; importances are finite and not negative", values[at]);
            Err(error(model, tensor, problem))
        }
        None => Ok(()),
    }
}

fn error(model: &Model, tensor: &Tensor, problem: String) -> ModelError {
    let error = ModelError::new(&model.path, problem).tensor(&tensor.name);
    match tensor.extent() {
        Some(at) => error.at(at.offset),
        None => error,
    }
}

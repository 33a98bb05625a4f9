/*!
A reference quantized and dequantized in memory, as a model of its own.

What a quantizer would leave alone stays as it is stored: integers, vectors, and tensors whose
length is not a multiple of the block. Without an importance matrix the reference quantizers take a
tensor as it lies, in flat blocks; with one, `ggml_quantize_chunk`'s take it row by row.
*/

use std::sync::Arc;

use crate::codec::{Class, TensorType};
use crate::model::imatrix::ColumnWeights;
use crate::model::view::{Quantizer, View};
use crate::model::{Model, ModelFinding, PlaneFault, Storage, Tensor};

/// Replaces every tensor of `model` that can be quantized to `ty` by its round trip; those that
/// cannot be for want of importances that fit are findings.
pub fn round_trip(model: &mut Model, ty: TensorType, importances: Option<&ColumnWeights>) {
    for tensor in &mut model.tensors {
        if tensor.class() != Class::Float || !has_rows(tensor) {
            continue;
        }
        let quantizer = match importances {
            None => Ok(Some(Quantizer::Flat)),
            Some(weights) => by_rows(tensor, ty, weights.get(&tensor.name).map(Vec::as_slice)),
        };
        match quantizer {
            Ok(Some(quantizer)) => {
                // What cannot go through the type stays as it is.
                if let Ok(view) = View::of(tensor).round_trip(ty, quantizer) {
                    *tensor = view.into_tensor(&tensor.name);
                }
            }
            Ok(None) => {}
            Err((fault, message)) => model.findings.push(ModelFinding {
                tensor: tensor.name.clone(),
                plane: "the importance matrix".to_owned(),
                fault,
                message,
            }),
        }
    }
}

/// Two dimensions or more: what quantizers take.
fn has_rows(tensor: &Tensor) -> bool {
    tensor.shape.iter().filter(|&&extent| extent > 1).count() >= 2
}

/// The quantizer of a tensor under an importance matrix; none if its rows are not whole blocks.
fn by_rows(
    tensor: &Tensor,
    ty: TensorType,
    weights: Option<&[f32]>,
) -> Result<Option<Quantizer>, (PlaneFault, String)> {
    let (cols, rows) = match tensor.shape.split_last() {
        Some((&cols, outer)) => (cols, outer.iter().product::<u64>()),
        None => return Ok(None),
    };
    if cols == 0 || rows == 0 || ty.bytes_for(cols).is_none() {
        return Ok(None);
    }
    let Some(weights) = weights else {
        if ty.requires_imatrix() {
            let message = format!("has nothing for it, and {ty} needs it");
            return Err((PlaneFault::Missing, message));
        }
        return Ok(Some(Quantizer::Rows { cols, importances: Vec::new(), rows_each: rows }));
    };
    let len = weights.len() as u64;
    let experts = len / cols;
    let fits = len.is_multiple_of(cols) && (experts == 1 || tensor.shape.first() == Some(&experts));
    if !fits {
        let message = format!("has {len} columns, which do not fit {:?}", tensor.shape);
        return Err((PlaneFault::Shape, message));
    }
    let importances = weights.chunks_exact(cols as usize).map(Arc::from).collect();
    Ok(Some(Quantizer::Rows { cols, importances, rows_each: rows / experts }))
}

/// The round trip of a tensor through a type's reference quantizer; none if a quantizer would leave
/// the tensor alone.
pub fn through(tensor: &Tensor, ty: TensorType) -> Option<Storage> {
    if !has_rows(tensor) {
        return None;
    }
    let view = View::of(tensor).round_trip(ty, Quantizer::Flat).ok()?;
    Some(view.into_tensor(&tensor.name).storage)
}

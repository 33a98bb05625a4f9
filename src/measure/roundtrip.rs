/*!
A reference quantized and dequantized in memory, as a model of its own.

What a quantizer would leave alone stays as it is stored: integers, vectors, and tensors whose
length is not a multiple of the block. Without an importance matrix the reference quantizers take a
tensor as it lies, in flat blocks; with one, `ggml_quantize_chunk`'s take it row by row.
*/

use std::ops::Range;
use std::sync::Arc;

use crate::codec::{Class, TensorType};
use crate::model::imatrix::ColumnWeights;
use crate::model::{
    Extent, Model, ModelFinding, Plane, PlaneFault, ReadError, Scratch, SourceFile, Storage,
    Tensor, Weight,
};

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
                if let Some(weight) = RoundTrip::of(tensor, ty, quantizer) {
                    tensor.storage = Storage::Joined(Arc::new(weight));
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

/// How a tensor goes through its quantizer.
#[derive(Debug)]
enum Quantizer {
    /// The reference quantizer, block after block.
    Flat,
    /// The chunk quantizer, row after row of so many columns; expert after expert has its own
    /// importances, if there are any.
    Rows { cols: u64, importances: Vec<Arc<[f32]>>, rows_each: u64 },
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
    RoundTrip::of(tensor, ty, Quantizer::Flat).map(|weight| Storage::Joined(Arc::new(weight)))
}

/// A tensor, and the type through which its values go.
#[derive(Debug)]
struct RoundTrip {
    source: Tensor,
    ty: TensorType,
    quantizer: Quantizer,
    plane: [Plane; 1],
}

impl RoundTrip {
    fn of(tensor: &Tensor, ty: TensorType, quantizer: Quantizer) -> Option<Self> {
        let len = ty.bytes_for(tensor.numel())?;
        if matches!(quantizer, Quantizer::Flat) && ty.info().encode.is_none() {
            return None;
        }
        let at = Extent { len, ..tensor.extent()? };
        let plane = Plane { name: tensor.name.clone(), ty, shape: tensor.shape.clone(), at };
        Some(Self { source: tensor.clone(), ty, quantizer, plane: [plane] })
    }

    /// Quantizes whole grains of values, the first of which is element `start`, into `blocks`.
    fn encode(&self, start: u64, values: &[f32], blocks: &mut [u8]) -> Result<(), ReadError> {
        let row = self.ty.info();
        match &self.quantizer {
            Quantizer::Flat => {
                let encode = row.encode.ok_or_else(|| {
                    ReadError::Undecodable(format!("{} has no reference quantizer", self.ty))
                })?;
                encode(values, blocks);
            }
            Quantizer::Rows { cols, importances, rows_each } => {
                let bytes = *cols as usize / row.block_len * row.block_bytes;
                let rows = values.chunks_exact(*cols as usize).zip(blocks.chunks_exact_mut(bytes));
                for (index, (values, blocks)) in (start / cols..).zip(rows) {
                    let weights = importances.get((index / rows_each) as usize).map(AsRef::as_ref);
                    self.ty
                        .quantize(values, weights, blocks)
                        .map_err(|error| ReadError::Undecodable(error.to_string()))?;
                }
            }
        }
        Ok(())
    }
}

impl Weight for RoundTrip {
    fn scheme(&self) -> &str {
        self.ty.name()
    }

    fn planes(&self) -> &[Plane] {
        &self.plane
    }

    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let row = self.ty.info();
        let Some(decode) = row.decode else {
            return Err(ReadError::Undecodable(format!("{} cannot be decoded", self.ty)));
        };
        // What a quantizer treats on its own: a block, or a row.
        let grain = match self.quantizer {
            Quantizer::Flat => row.block_len as u64,
            Quantizer::Rows { cols, .. } => cols,
        };
        let whole = range.start / grain * grain..range.end.div_ceil(grain) * grain;
        let count = (whole.end - whole.start) as usize;
        let (mut source, mut blocks) = (scratch.take_floats(), scratch.take_bytes());
        source.resize(count, 0.0);
        blocks.resize(count / row.block_len * row.block_bytes, 0);
        self.source.decode(files, whole.clone(), scratch, &mut source)?;
        self.encode(whole.start, &source, &mut blocks)?;
        decode(&blocks, &mut source);
        let skip = (range.start - whole.start) as usize;
        values.copy_from_slice(&source[skip..skip + values.len()]);
        scratch.give_floats(source);
        scratch.give_bytes(blocks);
        Ok(())
    }
}

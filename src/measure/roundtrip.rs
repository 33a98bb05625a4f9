/*!
A reference quantized and dequantized in memory, as a model of its own.

What a quantizer would leave alone stays as it is stored: integers, vectors, and tensors whose
length is not a multiple of the block.
*/

use std::ops::Range;
use std::sync::Arc;

use crate::codec::{Class, TensorType};
use crate::model::{Extent, Model, Plane, ReadError, Scratch, SourceFile, Storage, Tensor, Weight};

/// Replaces every tensor of `model` that can be quantized to `ty` by its round trip.
pub fn round_trip(model: &mut Model, ty: TensorType) {
    for tensor in &mut model.tensors {
        if tensor.class() == Class::Float
            && let Some(storage) = through(tensor, ty)
        {
            tensor.storage = storage;
        }
    }
}

/// The round trip of a tensor through a type; none if a quantizer would leave the tensor alone.
pub fn through(tensor: &Tensor, ty: TensorType) -> Option<Storage> {
    RoundTrip::of(tensor, ty).map(|weight| Storage::Joined(Arc::new(weight)))
}

/// A tensor, and the type through which its values go.
#[derive(Debug)]
struct RoundTrip {
    source: Tensor,
    ty: TensorType,
    plane: [Plane; 1],
}

impl RoundTrip {
    fn of(tensor: &Tensor, ty: TensorType) -> Option<Self> {
        let matrix = tensor.shape.iter().filter(|&&extent| extent > 1).count() >= 2;
        let len = ty.bytes_for(tensor.numel())?;
        if !matrix || ty.info().encode.is_none() {
            return None;
        }
        let at = Extent { len, ..tensor.extent()? };
        let plane = Plane { name: tensor.name.clone(), ty, shape: tensor.shape.clone(), at };
        Some(Self { source: tensor.clone(), ty, plane: [plane] })
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
        let (Some(encode), Some(decode)) = (row.encode, row.decode) else {
            return Err(ReadError::Undecodable(format!("{} has no quantizer", self.ty)));
        };
        // The reference quantizers treat each block on its own.
        let len = row.block_len as u64;
        let whole = range.start / len * len..range.end.div_ceil(len) * len;
        let mut source = vec![0.0; (whole.end - whole.start) as usize];
        self.source.decode(files, whole.clone(), scratch, &mut source)?;
        let mut blocks = vec![0; source.len() / row.block_len * row.block_bytes];
        encode(&source, &mut blocks);
        decode(&blocks, &mut source);
        let skip = (range.start - whole.start) as usize;
        values.copy_from_slice(&source[skip..skip + values.len()]);
        Ok(())
    }
}

/*!
The part of a weight that is left when padding is cut off; and the vectors beside weights (biases), which
are padded with them.
*/

use std::ops::Range;
use std::sync::Arc;

use crate::codec::Class;
use crate::model::{
    Extent, Grid, Model, Plane, PlaneFinding, ReadError, ReadReference, Scratch, SourceFile,
    Storage, Tensor, Weight,
};

/// The biases beside the matrices of `quantized` whose shape is not the reference's, and the outputs of
/// those: what [`cut_biases`] needs when shapes have been adopted.
pub fn padded_outputs(reference: &Model, quantized: &Model) -> Vec<(String, u64)> {
    let by_name = reference.by_name();
    let bias = |tensor: &Tensor| {
        let &index = by_name.get(tensor.name.as_str())?;
        let (&[stored, _], Storage::Joined(_)) = (&tensor.shape[..], &tensor.storage) else {
            return None;
        };
        let differs = reference.tensors[index].shape != tensor.shape;
        let module = tensor.name.strip_suffix("weight").filter(|_| differs)?;
        Some((format!("{module}bias"), stored))
    };
    quantized.tensors.iter().filter_map(bias).collect()
}

/// Cuts the biases of weights that turned out to be padded to the reference's shape.
pub fn cut_biases(reference: &Model, quantized: &mut Model, outputs: &[(String, u64)]) {
    let (wanted, stored) = (reference.by_name(), quantized.by_name());
    let found: Vec<(usize, usize, u64)> = outputs
        .iter()
        .filter_map(|(bias, len)| {
            let name = bias.as_str();
            Some((*wanted.get(name)?, *stored.get(name)?, *len))
        })
        .collect();
    for (reference_index, index, len) in found {
        let shape = &reference.tensors[reference_index].shape;
        cut_vector(&mut quantized.tensors[index], shape, len);
    }
}

/// Shortens a vector of `stored` elements to the reference's length.
fn cut_vector(tensor: &mut Tensor, wanted: &[u64], stored: u64) {
    let (Storage::Plain { ty, at }, &[len]) = (&mut tensor.storage, wanted) else { return };
    if tensor.shape == [stored] && len < stored && ty.info().block_len == 1 {
        *at = Extent { len: len * ty.info().block_bytes as u64, ..*at };
        tensor.shape = vec![len];
    }
}

/// The upper left part of a matrix.
#[derive(Debug)]
pub struct Cut {
    weight: Arc<dyn Weight>,
    /// Columns as they are stored.
    pitch: u64,
    rows: u64,
    cols: u64,
}

impl Cut {
    /// The first rows and columns of a weight whose rows are `pitch` columns long.
    pub fn new(weight: Arc<dyn Weight>, pitch: u64, (rows, cols): (u64, u64)) -> Self {
        Self { weight, pitch, rows, cols }
    }
}

impl Weight for Cut {
    fn scheme(&self) -> &str {
        self.weight.scheme()
    }

    fn planes(&self) -> &[Plane] {
        self.weight.planes()
    }

    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        if self.cols == self.pitch {
            return self.weight.decode(files, range, scratch, values);
        }
        let mut rest = values;
        let mut start = range.start;
        while start < range.end {
            let (row, col) = (start / self.cols, start % self.cols);
            let len = (self.cols - col).min(range.end - start);
            let (values, next) = rest.split_at_mut(len as usize);
            let at = row * self.pitch + col;
            self.weight.decode(files, at..at + len, scratch, values)?;
            rest = next;
            start += len;
        }
        Ok(())
    }

    fn activation_planes(&self) -> &[Plane] {
        self.weight.activation_planes()
    }

    fn shape_is_known(&self) -> bool {
        self.weight.shape_is_known()
    }

    fn class(&self) -> Class {
        self.weight.class()
    }

    fn grids(&self) -> Vec<Grid> {
        self.weight.grids()
    }

    fn requantized(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        read: ReadReference,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<bool, ReadError> {
        // What lies beyond the reference is zero there.
        let (rows, cols, pitch) = (self.rows, self.cols, self.pitch);
        let mut read = |range: Range<u64>, scratch: &mut Scratch, values: &mut [f32]| {
            let (row, col) = (range.start / pitch, range.start % pitch);
            values.fill(0.0);
            let end = if row < rows { (col + values.len() as u64).min(cols) } else { 0 };
            match values.get_mut(..end.saturating_sub(col) as usize) {
                Some(inside) if !inside.is_empty() => {
                    let start = row * cols + col;
                    read(start..start + inside.len() as u64, scratch, inside)
                }
                _ => Ok(()),
            }
        };
        let mut rest = values;
        let mut start = range.start;
        while start < range.end {
            let (row, col) = (start / cols, start % cols);
            let len = (cols - col).min(range.end - start);
            let (values, next) = rest.split_at_mut(len as usize);
            let at = row * pitch + col;
            if !self.weight.requantized(files, at..at + len, &mut read, scratch, values)? {
                return Ok(false);
            }
            rest = next;
            start += len;
        }
        Ok(true)
    }

    fn check_planes(
        &self,
        files: &[SourceFile],
        scratch: &mut Scratch,
    ) -> Result<Vec<PlaneFinding>, ReadError> {
        self.weight.check_planes(files, scratch)
    }
}

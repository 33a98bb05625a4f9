/*!
A tensor of the reference and the one that answers to it, read side by side.
*/

use std::ops::Range;

use crate::model::{Model, Scratch, Tensor};

/// The two tensors, and their models.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// The reference.
    pub r: &'a Tensor,
    /// The tensor that may hold quantized values.
    pub q: &'a Tensor,
    /// The model of `r`.
    pub reference: &'a Model,
    /// The model of `q`.
    pub quantized: &'a Model,
}

impl Pair<'_> {
    /// A run of both sides.
    pub fn read(&self, range: Range<u64>, scratch: &mut Scratch) -> Result<[Vec<f32>; 2], String> {
        let len = (range.end - range.start) as usize;
        let (mut r, mut q) = (vec![0.0; len], vec![0.0; len]);
        self.r
            .decode(&self.reference.files, range.clone(), scratch, &mut r)
            .map_err(|error| format!("reference: {error}"))?;
        self.q
            .decode(&self.quantized.files, range, scratch, &mut q)
            .map_err(|error| format!("quantized: {error}"))?;
        Ok([r, q])
    }
}

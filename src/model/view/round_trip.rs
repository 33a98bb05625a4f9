/*! Values that go through a type: quantized and dequantized, or rounded to a narrower float. */

use std::ops::Range;
use std::sync::Arc;

use super::gather::Fetch;
use crate::codec::TensorType;
use crate::model::{ReadError, Scratch};

/// How values go through a type.
#[derive(Clone, Debug)]
pub enum Quantizer {
    /// The reference quantizer, block after block.
    Flat,
    /// The reference quantizer of a type whose rows have a form of their own, row after row of so many
    /// columns.
    Each {
        /// Elements of a row.
        cols: u64,
    },
    /// The chunk quantizer, row after row of so many columns; expert after expert has its own
    /// importances, if there are any.
    Rows {
        /// Elements of a row.
        cols: u64,
        /// Importances of an expert's columns.
        importances: Vec<Arc<[f32]>>,
        /// Rows of an expert.
        rows_each: u64,
    },
}

/// A way through a type.
#[derive(Debug)]
pub struct RoundTrip {
    pub ty: TensorType,
    pub quantizer: Quantizer,
    /// The values are not quantized but rounded, as in the arithmetic of a narrower float.
    pub is_cast: bool,
}

impl RoundTrip {
    /// The range as what a quantizer treats on its own: blocks, or rows.
    pub fn whole(&self, range: &Range<u64>) -> Range<u64> {
        let grain = match self.quantizer {
            Quantizer::Flat => self.ty.info().block_len as u64,
            Quantizer::Each { cols } | Quantizer::Rows { cols, .. } => cols,
        };
        range.start / grain * grain..range.end.div_ceil(grain) * grain
    }

    /// Decodes a range; `source` decodes one of the source.
    pub fn read(
        &self,
        range: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
        source: &mut Fetch<'_>,
    ) -> Result<(), ReadError> {
        let row = self.ty.info();
        let undecodable = || ReadError::Undecodable(format!("{} cannot be decoded", self.ty));
        let whole = self.whole(range);
        let count = (whole.end - whole.start) as usize;
        let skip = (range.start - whole.start) as usize;
        if let Quantizer::Each { cols } = self.quantizer {
            let mut trip = scratch.take_floats();
            trip.resize(count, 0.0);
            source(whole, scratch, &mut trip)?;
            for row in trip.chunks_exact_mut(cols as usize) {
                let through = self.ty.through(row).ok_or_else(undecodable)?;
                row.copy_from_slice(&through);
            }
            values.copy_from_slice(&trip[skip..skip + values.len()]);
            scratch.give_floats(trip);
            return Ok(());
        }
        let decode = row.decode.ok_or_else(undecodable)?;
        let (mut trip, mut blocks) = (scratch.take_floats(), scratch.take_bytes());
        trip.resize(count, 0.0);
        blocks.resize(count / row.block_len * row.block_bytes, 0);
        source(whole.clone(), scratch, &mut trip)?;
        self.encode(whole.start, &trip, &mut blocks)?;
        decode(&blocks, &mut trip);
        values.copy_from_slice(&trip[skip..skip + values.len()]);
        scratch.give_floats(trip);
        scratch.give_bytes(blocks);
        Ok(())
    }

    /// Quantizes whole grains of values, the first of which is element `start`, into `blocks`.
    fn encode(&self, start: u64, values: &[f32], blocks: &mut [u8]) -> Result<(), ReadError> {
        let row = self.ty.info();
        match &self.quantizer {
            Quantizer::Flat | Quantizer::Each { .. } => {
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

/*!
The checked way into the encoders: lengths and importance weights are looked at before any block is.
*/

use super::{Class, Frame, TensorType};

/// Why a tensor cannot be quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantizeError {
    /// Nothing encodes this type.
    #[error("type {0} has no quantizer here; choose a ggml block type")]
    NoEncoder(TensorType),
    /// The type is meaningless without an importance matrix.
    #[error("type {0} requires an importance matrix; give one, or choose another type")]
    ImatrixRequired(TensorType),
    /// The values are not whole blocks, or the output has another size than they need.
    #[error("{values} values do not make {bytes} bytes of type {ty}")]
    Length {
        /// The type to encode.
        ty: TensorType,
        /// How many values were given.
        values: usize,
        /// How many bytes there were to fill.
        bytes: usize,
    },
    /// The importance weights do not stand for one row of whole blocks.
    #[error(
        "{columns} column weights do not divide {values} values into rows of whole {ty} blocks"
    )]
    Columns {
        /// The type to encode.
        ty: TensorType,
        /// How many values were given.
        values: usize,
        /// How many weights were given.
        columns: usize,
    },
}

impl TensorType {
    /// Whether ggml refuses to quantize to this type without an importance matrix.
    pub fn requires_imatrix(self) -> bool {
        let row = self.info();
        row.encode_chunk.is_none() && row.encode_weighted.is_some()
    }

    /// Quantizes rows as ggml's `ggml_quantize_chunk` does, which is how model files are made.
    ///
    /// `column_weights` are the importance of each column, so that their number is the length of a
    /// row; from an imatrix file they are `in_sum2 / counts`. Types whose quantizer has no use for
    /// them ignore them.
    pub fn quantize(
        self,
        values: &[f32],
        column_weights: Option<&[f32]>,
        blocks: &mut [u8],
    ) -> Result<(), QuantizeError> {
        let row = self.info();
        if row.class == Class::Exact
            || (row.encode_chunk.is_none() && row.encode_weighted.is_none())
        {
            return Err(QuantizeError::NoEncoder(self));
        }
        if self.bytes_for(values.len() as u64) != Some(blocks.len() as u64) {
            let (values, bytes) = (values.len(), blocks.len());
            return Err(QuantizeError::Length { ty: self, values, bytes });
        }
        if let Some(weights) = column_weights {
            let (values_len, columns) = (values.len(), weights.len());
            let whole = columns > 0 && columns % row.block_len == 0 && values_len % columns == 0;
            if !whole {
                return Err(QuantizeError::Columns { ty: self, values: values_len, columns });
            }
            if let Some(encode) = row.encode_weighted {
                encode(values, weights, blocks);
                return Ok(());
            }
        }
        match row.encode_chunk {
            Some(encode) => encode(values, blocks),
            None => return Err(QuantizeError::ImatrixRequired(self)),
        }
        Ok(())
    }

    /// A row of values, or the beginning of one, as a quantizer of this type leaves it, without an
    /// importance matrix where that is possible; none if nothing quantizes to the type, or if the
    /// values are not whole blocks.
    ///
    /// A row that files merge with others is quantized as it would be alone.
    pub fn through(self, values: &[f32]) -> Option<Vec<f32>> {
        let info = self.info();
        let Some(codec) = info.rows else {
            let mut blocks = vec![0; self.bytes_for(values.len() as u64)? as usize];
            let flat = vec![1.0; values.len()];
            let weights = self.requires_imatrix().then_some(flat.as_slice());
            self.quantize(values, weights, &mut blocks).ok()?;
            let mut through = vec![0.0; values.len()];
            (info.decode?)(&blocks, &mut through);
            return Some(through);
        };
        if let Some(base) = codec.base {
            return base.through(values);
        }
        let (rows, columns) = (codec.frame.rows(), values.len());
        let mut unit = vec![0; self.bytes_of(&[rows as u64, columns as u64]).ok()? as usize];
        // The other rows of the unit are zero, which costs nothing.
        let mut whole = values.to_vec();
        whole.resize(rows * columns, 0.0);
        (codec.encode?)(&whole, columns, None, &mut unit);
        let mut through = vec![0.0; columns];
        let meta = codec.frame.meta();
        let (head, blocks) = match codec.frame {
            Frame::Rows { .. } => unit.split_at(meta),
            Frame::Whole { .. } => {
                let (blocks, tail) = unit.split_at(unit.len() - meta);
                (tail, blocks)
            }
        };
        (codec.decode)(head, blocks, 0..1, &mut through);
        Some(through)
    }

    /// Whether the quantizer finds a scale for a whole row, or more, so that a part of a row is not
    /// quantized as it would be alone.
    pub fn scales_rows(self) -> bool {
        self.info().rows.is_some_and(|rows| rows.frame.meta() > 0)
    }
}

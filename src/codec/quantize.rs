/*!
The checked way into the encoders: lengths and importance weights are looked at before any block is.
*/

use super::{Class, TensorType};

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
}

/*! How many bytes a tensor of a type and a shape has, and which shapes a type can have. */

use super::rows::Frame;
use super::types::TensorType;

/// Why a tensor of a type cannot have a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A row is not whole blocks.
    #[error("its rows of {columns} are not whole {ty} blocks of {}", ty.info().block_len)]
    Columns {
        /// The type.
        ty: TensorType,
        /// Elements of a row.
        columns: u64,
    },
    /// All elements together are not whole blocks, of a type whose blocks run on from row to row.
    #[error("its {elements} elements are not whole {ty} blocks of {}", ty.info().block_len)]
    Elements {
        /// The type.
        ty: TensorType,
        /// Elements of the tensor.
        elements: u64,
    },
    /// The rows of a matrix are not whole units of merged rows.
    #[error("its matrices of {rows} rows are not whole units of {ty}, which merges {merged} rows")]
    Rows {
        /// The type.
        ty: TensorType,
        /// Rows of a matrix.
        rows: u64,
        /// Rows of a unit.
        merged: usize,
    },
    /// The size overflows.
    #[error("its size in bytes overflows")]
    TooLarge,
}

impl TensorType {
    /// Stored bytes of a tensor of this shape, outermost dimension first.
    pub fn bytes_of(self, shape: &[u64]) -> Result<u64, ShapeError> {
        let info = self.info();
        let (&columns, outer) = shape.split_last().unwrap_or((&1, &[]));
        let product = |extents: &[u64]| {
            let product = extents.iter().try_fold(1u64, |n, &extent| n.checked_mul(extent));
            product.ok_or(ShapeError::TooLarge)
        };
        let rows = if outer.contains(&0) { 0 } else { product(outer)? };
        let len = info.block_len as u64;
        // What is one run of blocks, its metadata, and how many there are.
        let (run, meta, runs) = match info.rows.map(|rows| rows.frame) {
            Some(Frame::Whole { tail }) => {
                let elements = if columns == 0 || rows == 0 { 0 } else { product(shape)? };
                if !elements.is_multiple_of(len) {
                    return Err(ShapeError::Elements { ty: self, elements });
                }
                (elements, tail, 1)
            }
            Some(Frame::Rows { rows: merged, meta }) => {
                let each = outer.last().copied().unwrap_or(1);
                if !each.is_multiple_of(merged as u64) {
                    return Err(ShapeError::Rows { ty: self, rows: each, merged });
                }
                (columns, meta, rows)
            }
            None => (columns, 0, rows),
        };
        if !run.is_multiple_of(len) {
            return Err(ShapeError::Columns { ty: self, columns });
        }
        if run == 0 || runs == 0 {
            return Ok(0);
        }
        let bytes = (run / len).checked_mul(info.block_bytes as u64);
        let bytes = bytes.and_then(|bytes| bytes.checked_add(meta as u64)?.checked_mul(runs));
        bytes.ok_or(ShapeError::TooLarge)
    }

    /// Stored bytes of `elements` values of a type whose size follows from their number; `None` if
    /// they are not whole blocks or overflow, or if the shape has a say in it.
    pub fn bytes_for(self, elements: u64) -> Option<u64> {
        let row = self.info();
        let len = row.block_len as u64;
        (row.rows.is_none() && elements.is_multiple_of(len))
            .then(|| (elements / len).checked_mul(row.block_bytes as u64))?
    }

    /// Stored bits per element in the limit of long rows, scales included.
    pub fn bits_per_weight(self) -> f64 {
        let row = self.info();
        (row.block_bytes * 8) as f64 / row.block_len as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_from_shapes() {
        use TensorType as T;
        for (ty, shape, expected, why) in [
            (T::Q8_0, &[3u64, 64][..], Ok(3 * 68), "blocks alone"),
            (T::IQ4_KS, &[4, 3, 512], Ok(12 * (4 + 272)), "a scale in front of each row"),
            (T::IQ4_KS, &[512], Ok(4 + 272), "one row"),
            (T::IQ4_KS, &[], Err("rows of 1 are not"), "a scalar"),
            (T::IQ4_KS, &[2, 384], Err("rows of 384 are not"), "a block and a half"),
            (T::Q8_KV, &[2, 64], Ok(2 * (8 + 64)), "scale and sum in front"),
            (T::Q8_KV_R8, &[8, 64], Ok(8 * (4 + 64)), "merged rows have no sums"),
            (T::IQ4_K_R4, &[2, 8, 256], Ok(16 * 144), "merged rows"),
            (T::IQ4_K_R4, &[8, 2, 256], Err("of 2 rows"), "units do not cross experts"),
            (T::IQ4_K_R4, &[256], Err("of 1 rows"), "a vector has no rows to merge"),
            (T::BF16_R16, &[16, 10], Ok(320), "pairs of columns"),
            (T::BF16_R16, &[16, 9], Err("rows of 9 are not"), "half a pair"),
            (T::I2_S, &[3, 128], Ok(3 * 32 + 32), "one scale behind all"),
            (T::I2_S, &[4, 96], Ok(96 + 32), "blocks run on from row to row"),
            (T::I2_S, &[3, 96], Err("288 elements are not"), "not whole blocks"),
            (T::I2_S, &[0, 96], Ok(0), "nothing, not even a scale"),
            (T::IQ4_KS, &[0, 256], Ok(0), "no row, no scale"),
            (T::IQ4_KS, &[u64::MAX, 1 << 32], Err("overflows"), "beyond 64 bits"),
            (T::I2_S, &[u64::MAX, 1 << 32], Err("overflows"), "beyond 64 bits"),
        ] {
            match (ty.bytes_of(shape), expected) {
                (Ok(bytes), Ok(expected)) => assert_eq!(bytes, expected, "{ty} {shape:?}: {why}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{ty} {shape:?}: {why}: {error}");
                }
                (got, _) => panic!("{ty} {shape:?}: {why}: {got:?}"),
            }
        }
    }
}

/*!
How the encoders walk a tensor: whole blocks, or rows with one importance weight a column.

Each walker takes complete blocks only and never reads past either slice; that the lengths fit is
checked where a tensor enters the program.
*/

/// Calls `encode` for each block of `LEN` values and its `BYTES` bytes.
#[inline(always)]
pub(super) fn each<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    blocks: &mut [u8],
    mut encode: impl FnMut(&[f32; LEN], &mut [u8; BYTES]),
) {
    for (x, block) in values.as_chunks().0.iter().zip(blocks.as_chunks_mut().0) {
        encode(x, block);
    }
}

/// Calls `encode` for each block with the importance weights of its columns; a row has as many
/// columns as there are weights.
#[inline(always)]
pub(super) fn each_weighted<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    column_weights: &[f32],
    blocks: &mut [u8],
    mut encode: impl FnMut(&[f32; LEN], &[f32; LEN], &mut [u8; BYTES]),
) {
    let weights = column_weights.as_chunks().0.iter().cycle();
    let blocks = blocks.as_chunks_mut().0;
    for ((x, weights), block) in values.as_chunks().0.iter().zip(weights).zip(blocks) {
        encode(x, weights, block);
    }
}

/// Calls `encode` for each row and its bytes.
pub(super) fn each_row<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    columns: usize,
    blocks: &mut [u8],
    mut encode: impl FnMut(&[[f32; LEN]], &mut [[u8; BYTES]]),
) {
    let blocks_per_row = (columns / LEN).max(1);
    let rows = values.as_chunks().0.chunks(blocks_per_row);
    for (row, blocks) in rows.zip(blocks.as_chunks_mut().0.chunks_mut(blocks_per_row)) {
        encode(row, blocks);
    }
}

/// ggml's importance of each value: the column's weight times sqrt(`sigma2` + x^2).
#[inline(always)]
pub(super) fn importance(x: &[f32], column_weights: &[f32], sigma2: f32, weights: &mut [f32]) {
    for ((weight, &x), &column) in weights.iter_mut().zip(x).zip(column_weights) {
        *weight = column * (sigma2 + x * x).sqrt();
    }
}

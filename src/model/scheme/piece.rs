/*! Cutting a range of elements into rectangles. */

use std::ops::Range;

/// Elements that are decoded at a time.
const PIECE: u64 = 64 * 1024;

/// A rectangle of one matrix of a stack that is contiguous in row-major order.
#[derive(Debug)]
pub struct Piece {
    /// Which matrix.
    pub matrix: u64,
    /// Rows of it.
    pub rows: Range<u64>,
    /// Columns of it; all of them if there is more than one row.
    pub cols: Range<u64>,
}

impl Piece {
    /// The longest that begins at element `start`, ends at or before `end`, and is not too large, of
    /// a stack of `height` x `width` matrices: whole rows, or a part of one.
    pub fn at(start: u64, end: u64, (height, width): (u64, u64)) -> Self {
        let (row, col) = (start / width, start % width);
        let (matrix, row) = (row / height, row % height);
        let left = end - start;
        if col != 0 || left < width || width > PIECE {
            let cols = col..col + left.min(width - col).min(PIECE);
            return Self { matrix, rows: row..row + 1, cols };
        }
        let rows = (left / width).min(height - row).min(PIECE / width);
        Self { matrix, rows: row..row + rows, cols: 0..width }
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        (self.rows.end - self.rows.start) * (self.cols.end - self.cols.start)
    }
}

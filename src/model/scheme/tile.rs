/*!
Cutting a range of elements into rectangles, and tiles: decoded parts of a weight whose stored order
is not its logical one, which a thread keeps from one chunk to the next.
*/

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{ReadError, Scratch};

/// Elements that are decoded at a time.
pub const PIECE: u64 = 64 * 1024;

/// Tiles that a thread keeps: each side of a comparison may need one for itself and one for what it
/// is a view of.
const TILES: usize = 4;

/// A number that tells the tiles of one weight from those of all others.
pub fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

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

/// A decoded part of a weight.
#[derive(Debug, Default)]
pub struct Tile {
    id: u64,
    /// Which matrix of a stack.
    pub matrix: u64,
    /// Rows of it.
    pub rows: Range<u64>,
    /// Columns of it.
    pub cols: Range<u64>,
    /// Row by row.
    pub values: Vec<f32>,
}

/// Decodes a piece of weight `id`, whose matrices are `height` x `width`, out of tiles that `fill`
/// fills where none is kept.
pub fn decode(
    id: u64,
    size: (u64, u64),
    piece: &Piece,
    scratch: &mut Scratch,
    values: &mut [f32],
    fill: &mut dyn FnMut(&mut Tile, &mut Scratch) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut rest = values;
    for row in piece.rows.clone() {
        let mut col = piece.cols.start;
        while col < piece.cols.end {
            let tile = find(id, size, (piece.matrix, row, col), scratch, fill)?;
            let end = tile.cols.end.min(piece.cols.end);
            let width = tile.cols.end - tile.cols.start;
            let from = ((row - tile.rows.start) * width + col - tile.cols.start) as usize;
            let (part, next) = rest.split_at_mut((end - col) as usize);
            part.copy_from_slice(&tile.values[from..from + part.len()]);
            rest = next;
            col = end;
        }
    }
    Ok(())
}

/// The kept tile that holds an element, or a new one that begins with it.
fn find<'a>(
    id: u64,
    (height, width): (u64, u64),
    (matrix, row, col): (u64, u64, u64),
    scratch: &'a mut Scratch,
    fill: &mut dyn FnMut(&mut Tile, &mut Scratch) -> Result<(), ReadError>,
) -> Result<&'a Tile, ReadError> {
    let holds = |tile: &Tile| {
        (tile.id, tile.matrix) == (id, matrix)
            && tile.rows.contains(&row)
            && tile.cols.contains(&col)
    };
    if let Some(place) = scratch.tiles.iter().position(holds) {
        scratch.tiles[..=place].rotate_right(1);
        return Ok(&scratch.tiles[0]);
    }
    let full = scratch.tiles.len() >= TILES;
    let mut tile = if full { scratch.tiles.pop() } else { None }.unwrap_or_default();
    // As many rows as a thread takes at a time, so that each tile is decoded once.
    tile.rows = row..height.min(row + (PIECE / width).max(1) * 16);
    tile.cols = if width <= PIECE { 0..width } else { col..width.min(col + PIECE) };
    (tile.id, tile.matrix) = (id, matrix);
    let len = (tile.rows.end - tile.rows.start) * (tile.cols.end - tile.cols.start);
    tile.values.resize(len as usize, 0.0);
    fill(&mut tile, scratch)?;
    scratch.tiles.insert(0, tile);
    Ok(&scratch.tiles[0])
}

/// Writes the rows of `from`, `len` values each, as columns of `to`, whose rows are `pitch` apart.
pub fn transpose(from: &[f32], len: usize, to: &mut [f32], pitch: usize) {
    // Squares keep both sides in cache lines that are already loaded.
    const SIDE: usize = 16;
    let rows = from.len() / len;
    for row in (0..rows).step_by(SIDE) {
        for col in (0..len).step_by(SIDE) {
            for col in col..(col + SIDE).min(len) {
                let to = &mut to[col * pitch + row..];
                let end = (row + SIDE).min(rows);
                for (to, row) in to.iter_mut().zip(row..end) {
                    *to = from[row * len + col];
                }
            }
        }
    }
}

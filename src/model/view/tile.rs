/*!
Tiles: decoded runs of a weight whose stored order is not its logical one, which a thread keeps from
one chunk to the next, so that no stored row is read once for each of its elements.
*/

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::gather::Fetch;
use crate::model::{ReadError, Scratch};

/// Elements of a tile: as many as a thread takes at a time, so that each tile is decoded once.
const LARGEST: u64 = 16 * 64 * 1024;

/// Tiles that a thread keeps: each side of a comparison may need one for itself and one for what it
/// is a view of.
const KEPT: usize = 4;

/// A decoded run of a weight.
#[derive(Debug)]
pub struct Tile {
    id: u64,
    range: Range<u64>,
    values: Vec<f32>,
}

impl Default for Tile {
    fn default() -> Self {
        Self { id: 0, range: 0..0, values: Vec::new() }
    }
}

/// How a weight is cut into tiles.
#[derive(Debug)]
pub struct Tiles {
    /// Tells the tiles of one weight from those of all others.
    id: u64,
    /// Elements of a row.
    row: u64,
    /// Elements of a block of rows; no tile reaches over its end.
    block: u64,
    /// Rows that only come together.
    unit: u64,
}

/// The clone belongs to another weight: its tiles are its own.
impl Clone for Tiles {
    fn clone(&self) -> Self {
        let Self { row, block, unit, .. } = *self;
        Self { row, block, unit, ..Self::new(row, 1) }
    }
}

impl Tiles {
    /// Of a weight of blocks of `rows` rows of `row` elements each.
    pub fn new(row: u64, rows: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, row: row.max(1), block: row.saturating_mul(rows).max(1), unit: 1 }
    }

    /// Tiles of whole units of rows, but for the end of a block. A tile is as long as a unit at least.
    #[must_use]
    pub fn of_units(self, rows: u64) -> Self {
        Self { unit: rows.max(1), ..self }
    }

    /// The tile that is made for an element: whole rows from its own on, or a part of one. For samples, one of those
    /// that all of the weight is cut into, so that others find theirs in it.
    fn around(&self, at: u64, is_for_samples: bool) -> Range<u64> {
        let block = (at / self.block + 1).saturating_mul(self.block);
        let row = at / self.row * self.row;
        if self.row > LARGEST && self.unit == 1 {
            return at..(at + LARGEST).min(row + self.row);
        }
        let start = at / self.block * self.block;
        let unit = self.row.saturating_mul(self.unit);
        let len = (LARGEST / unit).max(1).saturating_mul(unit);
        let aligned_to = if is_for_samples { len } else { unit };
        let first = start + (at - start) / aligned_to * aligned_to;
        first..first.saturating_add(len).min(block)
    }

    /// Decodes a range out of tiles; `fill` decodes those that are not kept.
    pub fn decode(
        &self,
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
        fill: &mut Fetch<'_>,
    ) -> Result<(), ReadError> {
        let mut rest = values;
        let mut at = range.start;
        while at < range.end {
            let tile = self.find(at, scratch, fill)?;
            let end = tile.range.end.min(range.end);
            let (part, next) = rest.split_at_mut((end - at) as usize);
            let from = (at - tile.range.start) as usize;
            part.copy_from_slice(&tile.values[from..from + part.len()]);
            rest = next;
            at = end;
        }
        Ok(())
    }

    /// The tile that holds an element, kept or new.
    fn find<'a>(
        &self,
        at: u64,
        scratch: &'a mut Scratch,
        fill: &mut Fetch<'_>,
    ) -> Result<&'a Tile, ReadError> {
        let holds = |tile: &Tile| tile.id == self.id && tile.range.contains(&at);
        if let Some(place) = scratch.tiles.iter().position(holds) {
            scratch.tiles[..=place].rotate_right(1);
            return Ok(&scratch.tiles[0]);
        }
        let full = scratch.tiles.len() >= KEPT;
        let mut tile = if full { scratch.tiles.pop() } else { None }.unwrap_or_default();
        (tile.id, tile.range) = (self.id, self.around(at, scratch.is_for_samples));
        tile.values.resize((tile.range.end - tile.range.start) as usize, 0.0);
        fill(tile.range.clone(), scratch, &mut tile.values)?;
        scratch.tiles.insert(0, tile);
        Ok(&scratch.tiles[0])
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_of_any_size() {
        for (rows, len, pitch) in [(1, 1, 1), (16, 16, 16), (17, 33, 20), (40, 5, 64), (64, 48, 64)]
        {
            let from: Vec<f32> = (0..rows * len).map(|at| at as f32).collect();
            let mut to = vec![-1.0; (len - 1) * pitch + rows];
            transpose(&from, len, &mut to, pitch);
            for (at, &value) in to.iter().enumerate() {
                let (col, row) = (at / pitch, at % pitch);
                let expected = if row < rows { from[row * len + col] } else { -1.0 };
                assert_eq!(value, expected, "{rows} x {len}: row {row}, column {col}");
            }
        }
    }
}

/*!
How the work is cut: tensors into chunks, chunks into units that one thread takes at a time.

The cut depends on the shapes alone, never on the number of threads, because the chunks are part of
the order of summation.
*/

use std::ops::Range;

use crate::metrics::PIECE;

/// Most elements of a chunk.
pub const CHUNK: u64 = 64 * 1024;

/// Elements after which a unit is full.
const UNIT: u64 = 16 * CHUNK;

/// Fewest elements of a row; shorter trailing dimensions are merged, as in a 3x3 convolution.
const SHORTEST_ROW: u64 = 32;

/// Elements of a row: the last dimension, merged with those before it until it is long enough.
pub fn row_len(shape: &[u64]) -> u64 {
    let mut len = 1;
    for &extent in shape.iter().rev() {
        len *= extent;
        if len >= SHORTEST_ROW {
            break;
        }
    }
    len.max(1)
}

/// Elements of a chunk: whole rows, or a whole number of pieces of one row that is longer.
pub fn chunk_len(row_len: u64) -> u64 {
    const { assert!(CHUNK.is_multiple_of(PIECE as u64)) };
    if row_len >= CHUNK { CHUNK } else { CHUNK / row_len * row_len }
}

/// The chunk that begins at `start`, of a tensor of `numel` elements: up to the next row's end if
/// the row is longer than a chunk.
fn chunk_at(start: u64, numel: u64, row_len: u64) -> Range<u64> {
    let mut end = start + chunk_len(row_len);
    if row_len > CHUNK {
        end = end.min((start / row_len + 1) * row_len);
    }
    start..end.min(numel)
}

/// A run of elements of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Index of the job.
    pub job: usize,
    /// Elements, in row-major order.
    pub range: Range<u64>,
}

/// The length and row length of each job, in order.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Number of elements.
    pub numel: u64,
    /// Elements of a row, as [`row_len`] gives them.
    pub row_len: u64,
}

/// Hands out units in order.
pub struct Cursor<'a> {
    jobs: &'a [Extent],
    job: usize,
    start: u64,
    /// Number of the next unit.
    pub unit: u64,
}

impl<'a> Cursor<'a> {
    /// Begins with the first element of the first job.
    pub fn new(jobs: &'a [Extent]) -> Self {
        Self { jobs, job: 0, start: 0, unit: 0 }
    }

    /// Fills `chunks` with the next unit and returns its number; `None` when all is handed out.
    /// An empty tensor gets one empty chunk.
    pub fn next(&mut self, chunks: &mut Vec<Chunk>) -> Option<u64> {
        chunks.clear();
        let mut elements = 0;
        while elements < UNIT && self.job < self.jobs.len() {
            let extent = self.jobs[self.job];
            let range = chunk_at(self.start, extent.numel, extent.row_len);
            // Opening a tensor costs something even if it is tiny.
            elements += (range.end - range.start).max(1024);
            self.start = range.end;
            chunks.push(Chunk { job: self.job, range });
            if self.start >= extent.numel {
                self.job += 1;
                self.start = 0;
            }
        }
        if chunks.is_empty() {
            return None;
        }
        self.unit += 1;
        Some(self.unit - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_trailing_dimensions_of_a_useful_length() {
        for (shape, expected) in [
            (&[768u64, 384][..], 384),
            (&[64, 64, 3], 192),
            (&[], 1),
            (&[5], 5),
            (&[0, 512], 512),
            (&[16, 3, 3], 9 * 16),
        ] {
            assert_eq!(row_len(shape), expected, "{shape:?}");
        }
    }

    #[test]
    fn chunks_cover_every_element_once_and_never_cut_a_short_row() {
        let jobs: Vec<Extent> = [
            (0, 1),
            (1, 1),
            (65536, 256),
            (1_000_000, 1000),
            (700_001, 700_001),
            (400_000, 200_000),
        ]
        .map(|(numel, row_len)| Extent { numel, row_len })
        .to_vec();
        let mut cursor = Cursor::new(&jobs);
        let (mut chunks, mut all) = (Vec::new(), Vec::new());
        while cursor.next(&mut chunks).is_some() {
            all.extend(chunks.iter().cloned());
        }
        for (job, extent) in jobs.iter().enumerate() {
            let mut expected = 0;
            for chunk in all.iter().filter(|chunk| chunk.job == job) {
                assert_eq!(chunk.range.start, expected);
                expected = chunk.range.end;
                let (first, last) = (
                    chunk.range.start / extent.row_len,
                    (chunk.range.end.max(1) - 1) / extent.row_len,
                );
                let whole = chunk.range.start % extent.row_len == 0
                    && (chunk.range.end % extent.row_len == 0);
                assert!(whole || first == last, "{chunk:?} cuts a row");
            }
            assert_eq!(expected, extent.numel);
        }
    }
}

/*!
How the work is cut: tensors into chunks, chunks into units that one thread takes at a time.

The cut depends on the shapes alone, never on the number of threads, because the chunks are part of
the order of summation.
*/

use std::ops::Range;

use crate::metrics::{Layout, PIECE};

/// Most elements of a chunk.
pub const CHUNK: u64 = 64 * 1024;

/// Elements after which a unit is full.
const UNIT: u64 = 4 * CHUNK;

/// What opening a tensor costs, in elements.
const OPENING: u64 = 4096;

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

/// Elements of a slice, one index of the outermost of three or more dimensions; 0 if rows are as long.
pub fn slice_len(shape: &[u64]) -> u64 {
    let [_, inner @ ..] = shape else { return 0 };
    let len: u64 = inner.iter().product();
    if inner.len() >= 2 && len > row_len(shape) { len } else { 0 }
}

/// The chunk that begins at `start`, of a tensor of `numel` elements.
///
/// A chunk is made of whole rows, or of a whole number of pieces of one row that is longer; and of
/// whole slices, or of rows of one slice that is longer.
fn chunk_at(start: u64, extent: Extent) -> Range<u64> {
    const { assert!(CHUNK.is_multiple_of(PIECE as u64)) };
    let Layout { row_len, slice_len } = extent.layout;
    let grain = [slice_len, row_len].into_iter().find(|len| (1..=CHUNK).contains(len));
    let mut end = start + grain.map_or(CHUNK, |len| CHUNK / len * len);
    for len in [row_len, slice_len] {
        if len > CHUNK {
            end = end.min((start / len + 1) * len);
        }
    }
    start..end.min(extent.numel)
}

/// Threads beyond this number would find nothing to do.
pub fn most_threads(jobs: &[Extent]) -> usize {
    let work: u64 = jobs.iter().map(|extent| extent.numel.max(OPENING)).sum();
    (work / CHUNK + 1).min(1024) as usize
}

/// A run of elements of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Index of the job.
    pub job: usize,
    /// Elements, in row-major order.
    pub range: Range<u64>,
}

/// How much there is to do of each job, and how it is cut.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Number of elements.
    pub numel: u64,
    /// Rows and slices.
    pub layout: Layout,
}

impl Extent {
    /// Of a tensor of this shape, whose product does not overflow.
    pub fn of(shape: &[u64]) -> Self {
        let numel = if shape.contains(&0) { 0 } else { shape.iter().product() };
        if numel == 0 {
            return Self { numel, layout: Layout { row_len: 1, slice_len: 0 } };
        }
        Self { numel, layout: Layout { row_len: row_len(shape), slice_len: slice_len(shape) } }
    }
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
            let range = chunk_at(self.start, extent);
            elements += (range.end - range.start).max(OPENING);
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
    fn slices_are_the_outermost_of_three_dimensions() {
        for (shape, expected, why) in [
            (&[8u64, 64, 32][..], 2048, "experts"),
            (&[64, 32], 0, "a matrix has rows only"),
            (&[16, 3, 3], 0, "the row is the whole"),
            (&[2, 2, 4, 32], 256, "four dimensions"),
            (&[], 0, "a scalar"),
        ] {
            assert_eq!(slice_len(shape), expected, "{shape:?}: {why}");
        }
    }

    #[test]
    fn chunks_cover_every_element_once_and_cut_rows_and_slices_only_if_they_must() {
        let shapes: [&[u64]; 11] = [
            &[0],
            &[],
            &[256, 256],
            &[1000, 1000],
            &[700_001],
            &[2, 200_000],
            &[24, 64, 64],
            &[3, 50, 2000],
            &[3, 3, 70_000],
            &[0, 512],
            &[70, 1000, 33],
        ];
        let jobs: Vec<Extent> = shapes.iter().map(|shape| Extent::of(shape)).collect();
        let mut cursor = Cursor::new(&jobs);
        let (mut chunks, mut all) = (Vec::new(), Vec::new());
        while cursor.next(&mut chunks).is_some() {
            all.extend(chunks.iter().cloned());
        }
        for (job, extent) in jobs.iter().enumerate() {
            let mut expected = 0;
            for Chunk { range, .. } in all.iter().filter(|chunk| chunk.job == job) {
                assert_eq!(range.start, expected);
                assert!(range.end - range.start <= CHUNK);
                expected = range.end;
                for len in [extent.layout.row_len, extent.layout.slice_len] {
                    let whole = range.start.is_multiple_of(len) && range.end.is_multiple_of(len);
                    let inside = len > CHUNK && range.start / len == (range.end - 1) / len;
                    assert!(len == 0 || whole || inside, "{:?}: {range:?}", shapes[job]);
                }
            }
            assert_eq!(expected, extent.numel);
        }
    }
}

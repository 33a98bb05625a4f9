/*!
Input columns that died: zero in every row of the quantized matrix, though its type does not round them
to zero.

Rows are read from all over the matrix until no column is left that was zero in all of them, which takes a
few where there is none. Those that are left are compared with what the type makes of the reference, and
only if one should not be zero, all rows are read.
*/

use super::grid::Grid;
use super::plan;
use super::{Matched, Measured};
use crate::metrics::Tally;
use crate::model::{Model, Scratch, Tensor};

/// Rows of a column that its type must not round to zero for it to be missed: with fewer, coarse types have
/// columns of zeros by chance.
const FEWEST: usize = 16;

/// Rows that are read before the columns that are left are looked at closely.
const FIRST: u64 = 64;

/// Longest row of which columns are looked for.
const LONGEST: u64 = 1 << 20;

/// Looks for dead columns in every matched tensor whose grid is known. A tensor that cannot be read again
/// becomes [`Measured::Unreadable`].
pub fn dead_columns(
    reference: &Model,
    quantized: &Model,
    matched: &[Matched],
    measured: &mut [Measured],
) {
    let mut scratch = Scratch::default();
    for (matched, measured) in matched.iter().zip(measured) {
        let Measured::Values { sums, locals } = measured else { continue };
        if sums.n == 0 || sums.nonfinite() > 0 || locals.unlike.is_some() {
            continue;
        }
        let sides = Sides {
            r: &reference.tensors[matched.reference],
            q: &quantized.tensors[matched.quantized],
            reference,
            quantized,
        };
        match sides.dead_columns(&mut scratch) {
            Ok(dead) => locals.dead_columns = dead,
            Err(reason) => *measured = Measured::Unreadable { reason },
        }
    }
}

struct Sides<'a> {
    r: &'a Tensor,
    q: &'a Tensor,
    reference: &'a Model,
    quantized: &'a Model,
}

impl Sides<'_> {
    /// Dead columns of all matrices of the tensor; none if they cannot be looked for.
    fn dead_columns(&self, scratch: &mut Scratch) -> Result<Option<Tally>, String> {
        let row_len = plan::row_len(&self.q.shape);
        let merged = self.q.shape.last() != Some(&row_len);
        let Some(grid) = Grid::of(self.q, row_len) else { return Ok(None) };
        let slice_len = match plan::slice_len(&self.q.shape) {
            0 => self.q.numel(),
            len => len,
        };
        let rows = slice_len / row_len;
        if merged || row_len > LONGEST || rows < FEWEST as u64 {
            return Ok(None);
        }
        let mut dead = Tally::default();
        for slice in 0..self.q.numel() / slice_len {
            let first = slice * rows;
            let found = self.of_matrix(first..first + rows, row_len, &grid, scratch)?;
            dead.count += found.count;
            dead.first = dead.first.or(found.first);
        }
        Ok(Some(dead))
    }

    fn of_matrix(
        &self,
        rows: std::ops::Range<u64>,
        row_len: u64,
        grid: &Grid,
        scratch: &mut Scratch,
    ) -> Result<Tally, String> {
        let len = row_len as usize;
        let (mut q, mut r) = (vec![0f32; len], vec![0f32; len]);
        let count = rows.end - rows.start;
        let mut left: Vec<usize> = (0..len).collect();
        let mut expected = vec![0usize; len];
        // Multiples of an odd step that has no divisor with the count visit every row once.
        let step = stride(count);
        let row = |at: u64| {
            let row = rows.start + at * step % count;
            row * row_len..(row + 1) * row_len
        };
        for at in 0..count {
            self.q
                .decode(&self.quantized.files, row(at), scratch, &mut q)
                .map_err(|error| format!("quantized: {error}"))?;
            left.retain(|&column| q[column] == 0.0);
            if at + 1 == FIRST.min(count) && !left.is_empty() {
                for at in 0..=at {
                    self.r
                        .decode(&self.reference.files, row(at), scratch, &mut r)
                        .map_err(|error| format!("reference: {error}"))?;
                    let is_there = left.iter().any(|&column| r[column] != 0.0);
                    let Some(twin) = is_there.then(|| grid.quantize(&r)).flatten() else {
                        continue;
                    };
                    for &column in &left {
                        expected[column] += usize::from(twin[column] != 0.0);
                    }
                }
                left.retain(|&column| expected[column] >= FEWEST);
            }
            if left.is_empty() {
                return Ok(Tally::default());
            }
        }
        Ok(Tally { count: left.len() as u64, first: left.first().map(|column| *column as u64) })
    }
}

/// A number that shares no divisor with `count`, near the golden section of it.
fn stride(count: u64) -> u64 {
    let shares = |a: u64| {
        let (mut a, mut b) = (a, count);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a > 1
    };
    let mut step = (count as f64 * 0.618) as u64;
    while step > 1 && shares(step) {
        step -= 1;
    }
    step.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_visit_every_row_once() {
        for count in [1, 2, 3, 16, 17, 100, 4096, 11_008] {
            let step = stride(count);
            let mut seen: Vec<u64> = (0..count).map(|at| at * step % count).collect();
            seen.sort_unstable();
            assert!(seen.iter().enumerate().all(|(at, row)| at as u64 == *row), "{count}");
        }
    }
}

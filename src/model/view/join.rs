/*! Runs of several parts that alternate: where each lies, and how a range of the whole is decoded. */

use std::ops::Range;

use super::ViewError;
use crate::model::{ReadError, Scratch};

/// Elements that are decoded at a time where parts alternate.
const BATCH: u64 = 64 * 1024;

/// Parts beside each other along an axis.
#[derive(Clone, Debug)]
pub struct Join {
    /// Elements of each part's run, one for each index of the axes before the joined one.
    pub runs: Vec<u64>,
    /// Sum of the runs: how far a run is from the next of its part.
    pub pitch: u64,
}

/// Decodes a range of the part of an index.
type Decode<'a> =
    dyn FnMut(usize, Range<u64>, &mut Scratch, &mut [f32]) -> Result<(), ReadError> + 'a;

impl Join {
    /// Joins parts of these shapes along an axis; returns the shape as well.
    pub fn new(shapes: &[&[u64]], axis: usize) -> Result<(Self, Vec<u64>), ViewError> {
        let first = *shapes.first().ok_or(ViewError::Empty)?;
        if axis >= first.len() {
            return Err(ViewError::Axis { axis, shape: first.to_vec() });
        }
        let inner = first[axis + 1..].iter().fold(1u64, |n, extent| n.saturating_mul(*extent));
        let (mut extent, mut runs) = (0u64, Vec::with_capacity(shapes.len()));
        for shape in shapes {
            let fits = shape.len() == first.len()
                && (0..first.len()).all(|at| at == axis || shape[at] == first[at]);
            if !fits {
                let (first, other) = (first.to_vec(), shape.to_vec());
                return Err(ViewError::Ragged { axis, first, other });
            }
            extent = extent.saturating_add(shape[axis]);
            runs.push(shape[axis].saturating_mul(inner));
        }
        let mut shape = first.to_vec();
        shape[axis] = extent;
        let pitch = runs.iter().fold(0u64, |sum, run| sum.saturating_add(*run));
        Ok((Self { runs, pitch }, shape))
    }

    /// Where the first run of each part begins, and how long its runs are.
    pub fn places(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut end = 0;
        self.runs.iter().map(move |&run| {
            end += run;
            (end - run, run)
        })
    }

    /// Decodes a range; `decode` decodes one of a part.
    pub fn read(
        &self,
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
        decode: &mut Decode<'_>,
    ) -> Result<(), ReadError> {
        let mut rest = values;
        let mut at = range.start;
        while at < range.end {
            let row = at / self.pitch;
            let rows = ((range.end - at) / self.pitch).min(BATCH / self.pitch);
            let whole = at == row * self.pitch && rows > 1;
            let end = row * self.pitch + if whole { rows } else { 1 } * self.pitch;
            let end = end.min(range.end);
            let (values, others) = rest.split_at_mut((end - at) as usize);
            if whole {
                self.rows(row..row + rows, scratch, values, decode)?;
            } else {
                let within = at - row * self.pitch..end - row * self.pitch;
                self.row(row, &within, scratch, values, decode)?;
            }
            rest = others;
            at = end;
        }
        Ok(())
    }

    /// Decodes a part of one run of each part.
    fn row(
        &self,
        row: u64,
        within: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
        decode: &mut Decode<'_>,
    ) -> Result<(), ReadError> {
        let mut rest = values;
        for (part, (start, run)) in self.places().enumerate() {
            let wanted = within.start.max(start)..within.end.min(start + run);
            if wanted.start < wanted.end {
                let (values, others) = rest.split_at_mut((wanted.end - wanted.start) as usize);
                let from = row * run + wanted.start - start;
                decode(part, from..from + values.len() as u64, scratch, values)?;
                rest = others;
            }
        }
        Ok(())
    }

    /// Decodes whole rows part by part.
    fn rows(
        &self,
        rows: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
        decode: &mut Decode<'_>,
    ) -> Result<(), ReadError> {
        let mut own = scratch.take_floats();
        for (part, (start, run)) in self.places().enumerate().filter(|(_, (_, run))| *run > 0) {
            own.resize(((rows.end - rows.start) * run) as usize, 0.0);
            decode(part, rows.start * run..rows.end * run, scratch, &mut own)?;
            let lines = values.chunks_exact_mut(self.pitch as usize);
            for (line, own) in lines.zip(own.chunks_exact(run as usize)) {
                line[start as usize..(start + run) as usize].copy_from_slice(own);
            }
        }
        scratch.give_floats(own);
        Ok(())
    }
}

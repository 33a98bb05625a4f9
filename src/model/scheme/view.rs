/*!
Views of expert matrices: a stack put together from experts that are stored apart, or a part taken out
of a stack, in either orientation.
*/

use std::ops::Range;

use super::tile::{self, Piece, Tile, transpose};
use crate::model::{
    Extent, Plane, PlaneFinding, ReadError, Scratch, SourceFile, Storage, Tensor, Weight,
};

/// One expert's matrix [out, in] within a tensor.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The tensor that holds it.
    pub source: Tensor,
    /// Element at which the expert begins.
    pub base: u64,
    /// Columns of the matrix as it is stored.
    pub pitch: u64,
    /// Stored as [in, ...] with the outputs as columns.
    pub transposed: bool,
    /// Stored row (column, if transposed) of the first output.
    pub first: u64,
    /// Distance between outputs: 2 where gate and up are interleaved.
    pub step: u64,
    /// Outputs.
    pub outs: u64,
    /// Inputs.
    pub ins: u64,
}

impl Unit {
    /// Decodes a rectangle, outputs as rows.
    fn rectangle(
        &self,
        files: &[SourceFile],
        outs: &Range<u64>,
        ins: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let width = (ins.end - ins.start) as usize;
        if self.transposed {
            return self.stored_transposed(files, outs, ins, scratch, values);
        }
        let row = |out: u64| self.base + (self.first + out * self.step) * self.pitch;
        if self.step == 1 && width as u64 == self.pitch {
            let range = row(outs.start)..row(outs.end);
            return self.source.decode(files, range, scratch, values);
        }
        for (out, values) in outs.clone().zip(values.chunks_exact_mut(width)) {
            let start = row(out) + ins.start;
            self.source.decode(files, start..start + width as u64, scratch, values)?;
        }
        Ok(())
    }

    /// The same, where each stored row is one input.
    fn stored_transposed(
        &self,
        files: &[SourceFile],
        outs: &Range<u64>,
        ins: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let width = (ins.end - ins.start) as usize;
        let span = (outs.end - outs.start - 1) * self.step + 1;
        let mut row = scratch.take_floats();
        row.resize(span as usize, 0.0);
        for (col, input) in ins.clone().enumerate() {
            let start = self.base + input * self.pitch + self.first + outs.start * self.step;
            self.source.decode(files, start..start + span, scratch, &mut row)?;
            for (out, value) in row.iter().step_by(self.step as usize).enumerate() {
                values[out * width + col] = *value;
            }
        }
        scratch.give_floats(row);
        Ok(())
    }
}

/// A weight of `matrices` stacked matrices, each of which is some units below each other.
#[derive(Debug)]
pub struct View {
    id: u64,
    scheme: String,
    units: Vec<Unit>,
    /// Units of one matrix.
    per_matrix: usize,
    /// Whether the inputs are rows.
    transposed: bool,
    /// Rows of outputs of a matrix, and inputs.
    size: (u64, u64),
    planes: Vec<Plane>,
    /// Units whose sources are checked: one for each source.
    checked: Vec<usize>,
}

impl View {
    /// Stacks units, `per_matrix` below each other; all must have the same inputs.
    pub fn new(units: Vec<Unit>, per_matrix: usize, transposed: bool) -> Self {
        let first = &units[..per_matrix.min(units.len())];
        let outs = first.iter().map(|unit| unit.outs).sum();
        let ins = first.first().map_or(0, |unit| unit.ins);
        let scheme = units.first().map_or("", |unit| unit.source.qtype());
        let same = units.iter().all(|unit| unit.source.qtype() == scheme);
        let scheme = if same { scheme } else { "mixed" }.to_owned();
        let mut checked: Vec<usize> = Vec::new();
        for (i, unit) in units.iter().enumerate() {
            if unit.base == 0 && unit.first == 0 {
                checked.push(i);
            }
        }
        let planes = units.iter().flat_map(share).collect();
        let id = tile::new_id();
        Self { id, scheme, units, per_matrix, transposed, size: (outs, ins), planes, checked }
    }

    /// Decodes outputs and inputs of a matrix, outputs as rows.
    fn rectangle(
        &self,
        files: &[SourceFile],
        matrix: u64,
        outs: &Range<u64>,
        ins: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let width = ins.end - ins.start;
        let first = matrix as usize * self.per_matrix;
        let mut rest = values;
        let mut begin = 0;
        for unit in &self.units[first..first + self.per_matrix] {
            let of_unit = outs.start.max(begin)..outs.end.min(begin + unit.outs);
            if of_unit.start < of_unit.end {
                let own = of_unit.start - begin..of_unit.end - begin;
                let (part, next) = rest.split_at_mut(((own.end - own.start) * width) as usize);
                unit.rectangle(files, &own, ins, scratch, part)?;
                rest = next;
            }
            begin += unit.outs;
        }
        Ok(())
    }

    /// Fills a tile of the view's own orientation.
    fn fill(
        &self,
        files: &[SourceFile],
        tile: &mut Tile,
        scratch: &mut Scratch,
    ) -> Result<(), ReadError> {
        let Tile { matrix, rows, cols, values, .. } = tile;
        if !self.transposed {
            return self.rectangle(files, *matrix, rows, cols, scratch, values);
        }
        let mut turned = scratch.take_floats();
        turned.resize(values.len(), 0.0);
        self.rectangle(files, *matrix, cols, rows, scratch, &mut turned)?;
        let height = (rows.end - rows.start) as usize;
        transpose(&turned, height, values, (cols.end - cols.start) as usize);
        scratch.give_floats(turned);
        Ok(())
    }
}

/// The part of a unit in its source's planes, for counting bytes.
fn share(unit: &Unit) -> Vec<Plane> {
    let whole = u128::from(unit.source.numel().max(1));
    let part = u128::from(unit.outs * unit.ins);
    let planes = match &unit.source.storage {
        Storage::Joined(weight) => weight.planes().to_vec(),
        Storage::Plain { ty, at } => {
            let Tensor { name, shape, .. } = &unit.source;
            vec![Plane { name: name.clone(), ty: *ty, shape: shape.clone(), at: *at }]
        }
        Storage::Undecodable { .. } => Vec::new(),
    };
    let share = |at: Extent| Extent { len: (u128::from(at.len) * part / whole) as u64, ..at };
    planes.into_iter().map(|plane| Plane { at: share(plane.at), ..plane }).collect()
}

impl Weight for View {
    fn scheme(&self) -> &str {
        &self.scheme
    }

    fn planes(&self) -> &[Plane] {
        &self.planes
    }

    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let (outs, ins) = self.size;
        let size = if self.transposed { (ins, outs) } else { (outs, ins) };
        let turned = self.transposed || self.units.iter().any(|unit| unit.transposed);
        let mut rest = values;
        let mut start = range.start;
        while start < range.end {
            let piece = Piece::at(start, range.end, size);
            let (values, next) = rest.split_at_mut(piece.len() as usize);
            if turned {
                let mut fill =
                    |tile: &mut Tile, scratch: &mut Scratch| self.fill(files, tile, scratch);
                tile::decode(self.id, size, &piece, scratch, values, &mut fill)?;
            } else {
                let Piece { matrix, rows, cols } = &piece;
                self.rectangle(files, *matrix, rows, cols, scratch, values)?;
            }
            rest = next;
            start += piece.len();
        }
        Ok(())
    }

    fn check_planes(
        &self,
        files: &[SourceFile],
        scratch: &mut Scratch,
    ) -> Result<Vec<PlaneFinding>, ReadError> {
        let mut findings = Vec::new();
        for &unit in &self.checked {
            if let Storage::Joined(weight) = &self.units[unit].source.storage {
                findings.append(&mut weight.check_planes(files, scratch)?);
            }
        }
        Ok(findings)
    }
}

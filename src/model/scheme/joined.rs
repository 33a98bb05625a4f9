/*!
The one weight that all schemes share: codes, what a code stands for, and grids of scales and zero
points over them.

Works on rectangles of one matrix at a time, in buffers that do not grow with the weight. Weights
that are stored transposed are decoded in tiles, which the thread keeps for its next chunks.
*/

use std::ops::Range;
use std::sync::Arc;

use super::check;
use super::codes::Codes;
use super::grid::{At, Cells, Grid, Table, runs};
use super::piece::Piece;
use super::planes::Planes;
pub use super::planes::Role;
use crate::model::view::{Tiles, transpose};
use crate::model::{
    self, OwnGrid, Plane, PlaneFinding, ReadError, Rounding, Scratch, SourceFile, Storage, Tensor,
    Weight,
};

/// Elements of a strip of the stored matrix that is decoded for a tile.
const STRIP: u64 = 32 * 1024;

/// How the codes lie: in the weight's row-major order, or with its last two dimensions swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Number of matrices.
    pub matrices: u64,
    /// Rows of a matrix as it is stored.
    pub rows: u64,
    /// Columns of a matrix as it is stored.
    pub cols: u64,
    /// Whether the weight is the transpose of what is stored.
    pub transposed: bool,
}

/// What a zero point does.
#[derive(Clone, Debug)]
pub enum Zero {
    /// There is none: code * scale.
    None,
    /// (code - zero) * scale.
    Before(Grid),
    /// code * scale + minimum.
    Plus(Grid),
    /// code * scale - shift.
    Minus(Grid),
}

/// A weight made of codes and grids.
#[derive(Clone, Debug)]
pub struct Joined {
    /// In which it is decoded if it is stored transposed.
    tiles: Tiles,
    /// Name in reports.
    pub scheme: String,
    /// How the codes lie.
    pub dims: Dims,
    /// The codes.
    pub codes: Codes,
    /// Every code stands for the first entry of the table, whatever is stored.
    one_level: bool,
    /// What each code stands for.
    pub table: Box<Table>,
    /// Multiplied.
    pub scale: Grid,
    /// Subtracted or added.
    pub zero: Zero,
    /// One more factor for each column of the stored matrix, multiplied last.
    pub columns: Option<Grid>,
    /// One more factor for each row of the stored matrix, multiplied last.
    pub rows: Option<Grid>,
    /// The factors of columns and rows divide: what comes before the matrix multiplies by them.
    pub divides: bool,
    /// One more factor for every element, multiplied last.
    pub last_factor: Option<f32>,
    /// The stored planes.
    pub parts: Planes,
    /// Whether the planes say the logical shape; if not, only the number of elements is known.
    pub shape_is_known: bool,
    /// Rows and columns were padded to a multiple of this, so that the weight may be smaller.
    pub padding: u64,
    /// Other weights that the same planes could be, with their shapes: nothing but the shape of the
    /// original tells which.
    pub readings: Vec<(Vec<u64>, Joined)>,
}

impl Joined {
    /// A weight of one plane of codes; scales and the other planes are filled in by the scheme.
    pub fn new(scheme: impl Into<String>, dims: Dims, codes: Codes, table: Box<Table>) -> Self {
        Self {
            tiles: Tiles::new(dims.rows, dims.cols),
            scheme: scheme.into(),
            dims,
            codes,
            one_level: false,
            table,
            scale: Grid::constant(1.0),
            zero: Zero::None,
            columns: None,
            rows: None,
            divides: false,
            last_factor: None,
            parts: Planes::default(),
            shape_is_known: true,
            padding: 1,
            readings: Vec::new(),
        }
    }

    /// Counts a stored plane as part of the weight.
    pub fn add(&mut self, plane: &Plane, role: Role) {
        self.parts.add(plane, role);
    }

    /// The weight with every code at one level.
    fn at_level(&self, level: f32) -> Tensor {
        let codes = self.codes.clone();
        let mut weight = Self::new(&*self.scheme, self.dims, codes, Box::new([level; 256]));
        weight.one_level = true;
        weight.scale = self.scale.clone();
        weight.zero = self.zero.clone();
        weight.columns.clone_from(&self.columns);
        weight.last_factor = self.last_factor;
        weight.parts = self.parts.clone();
        Tensor {
            name: String::new(),
            shape: vec![self.dims.matrices, self.dims.rows, self.dims.cols],
            storage: Storage::Joined(Arc::new(weight)),
        }
    }

    /// What the types of scales and zero points leave open.
    fn rounding(&self) -> Rounding {
        let offset = match &self.zero {
            Zero::None => 0.0,
            Zero::Before(grid) | Zero::Plus(grid) | Zero::Minus(grid) => grid.half_unit(),
        };
        Rounding { scale: self.scale.half_unit(), offset, least: self.scale.least() }
    }

    /// Decodes a rectangle of one stored matrix, row by row.
    fn rectangle(
        &self,
        files: &[SourceFile],
        matrix: u64,
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let width = (cols.end - cols.start) as usize;
        let mut codes = scratch.take_bytes();
        codes.resize(values.len(), 0);
        if self.one_level {
            codes.fill(0);
        } else {
            self.codes.read(files, matrix, rows, cols, scratch, &mut codes)?;
        }
        let scales = self.scale.load(files, matrix, rows, cols, scratch)?;
        let zeros = match &self.zero {
            Zero::None => None,
            Zero::Before(grid) | Zero::Plus(grid) | Zero::Minus(grid) => {
                Some(grid.load(files, matrix, rows, cols, scratch)?)
            }
        };
        let mut spread = [scratch.take_floats(), scratch.take_floats()];
        for buffer in &mut spread {
            buffer.resize(width, 0.0);
        }
        let lines = codes.chunks_exact(width).zip(values.chunks_exact_mut(width));
        for (row, (codes, values)) in rows.clone().zip(lines) {
            self.line(row, cols.start, codes, &scales, zeros.as_ref(), &mut spread, values);
        }
        if let Some(columns) = &self.columns {
            let factors = columns.load(files, matrix, &(0..1), cols, scratch)?;
            factors.spread(0, cols.start, &mut spread[0]);
            for values in values.chunks_exact_mut(width) {
                let pairs = values.iter_mut().zip(&spread[0]);
                if self.divides {
                    pairs.for_each(|(value, factor)| *value /= factor);
                } else {
                    pairs.for_each(|(value, factor)| *value *= factor);
                }
            }
            factors.give_back(scratch);
        }
        if let Some(of_rows) = &self.rows {
            let factors = of_rows.load(files, matrix, rows, &(0..1), scratch)?;
            for (row, values) in rows.clone().zip(values.chunks_exact_mut(width)) {
                factors.spread(row, 0, &mut spread[0][..1]);
                let factor = spread[0][0];
                for value in values {
                    *value = if self.divides { *value / factor } else { *value * factor };
                }
            }
            factors.give_back(scratch);
        }
        if let Some(factor) = self.last_factor {
            for value in values.iter_mut() {
                *value *= factor;
            }
        }
        scratch.give_bytes(codes);
        scales.give_back(scratch);
        if let Some(zeros) = zeros {
            zeros.give_back(scratch);
        }
        for buffer in spread {
            scratch.give_floats(buffer);
        }
        Ok(())
    }

    /// Decodes a row of a rectangle.
    #[allow(clippy::too_many_arguments)]
    fn line(
        &self,
        row: u64,
        start: u64,
        codes: &[u8],
        scales: &Cells,
        zeros: Option<&Cells>,
        [scale, zero]: &mut [Vec<f32>; 2],
        values: &mut [f32],
    ) {
        let table = &*self.table;
        if let (None, (cells, At::Blocks { block, first })) = (zeros, scales.row(row))
            && *block > 1
        {
            for (cell, run) in runs(start, values.len(), *block) {
                let scale = cells[(cell - first) as usize];
                for (value, &code) in values[run.clone()].iter_mut().zip(&codes[run]) {
                    *value = table[usize::from(code)] * scale;
                }
            }
            return;
        }
        scales.spread(row, start, scale);
        let Some(zeros) = zeros else {
            for ((value, &code), scale) in values.iter_mut().zip(codes).zip(&*scale) {
                *value = table[usize::from(code)] * scale;
            }
            return;
        };
        zeros.spread(row, start, zero);
        let terms = codes.iter().zip(scale.iter().zip(&*zero));
        let terms = terms.map(|(&code, (&scale, &zero))| (table[usize::from(code)], scale, zero));
        let pairs = values.iter_mut().zip(terms);
        match self.zero {
            Zero::Before(_) => pairs.for_each(|(value, (q, s, z))| *value = (q - z) * s),
            Zero::Plus(_) => pairs.for_each(|(value, (q, s, z))| *value = q * s + z),
            Zero::Minus(_) | Zero::None => pairs.for_each(|(value, (q, s, z))| *value = q * s - z),
        }
    }

    /// Decodes a piece of a transposed weight from the stored rectangle that it is the transpose of.
    fn columns_of(
        &self,
        files: &[SourceFile],
        piece: &Piece,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let mut turned = scratch.take_floats();
        turned.resize(values.len(), 0.0);
        self.rectangle(files, piece.matrix, &piece.cols, &piece.rows, scratch, &mut turned)?;
        let height = (piece.rows.end - piece.rows.start) as usize;
        transpose(&turned, height, values, (piece.cols.end - piece.cols.start) as usize);
        scratch.give_floats(turned);
        Ok(())
    }

    /// Decodes the strips of the stored matrix that a tile is the transpose of: whole rows of one
    /// matrix, or a part of a row.
    fn fill(
        &self,
        files: &[SourceFile],
        range: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let (rows, col) = (range.start / self.dims.rows, range.start % self.dims.rows);
        let (matrix, row) = (rows / self.dims.cols, rows % self.dims.cols);
        let width = (range.end - range.start).min(self.dims.rows - col);
        let height = (range.end - range.start) / width;
        // Strips that begin and end on whole words of codes.
        let step = (STRIP / height).max(32) / 32 * 32;
        let mut strip = scratch.take_floats();
        let mut start = col;
        while start < col + width {
            let end = ((start / 32 + step / 32) * 32).min(col + width);
            strip.resize(((end - start) * height) as usize, 0.0);
            self.rectangle(
                files,
                matrix,
                &(start..end),
                &(row..row + height),
                scratch,
                &mut strip,
            )?;
            let at = (start - col) as usize;
            transpose(&strip, height as usize, &mut values[at..], width as usize);
            start = end;
        }
        scratch.give_floats(strip);
        Ok(())
    }
}

impl Weight for Joined {
    fn scheme(&self) -> &str {
        &self.scheme
    }

    fn planes(&self) -> &[Plane] {
        &self.parts.stored
    }

    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        if self.dims.transposed && !self.one_level {
            return self.tiles.decode(range, scratch, values, &mut |range, scratch, values| {
                self.fill(files, &range, scratch, values)
            });
        }
        let Dims { rows, cols, transposed, .. } = self.dims;
        let size = if transposed { (cols, rows) } else { (rows, cols) };
        let mut rest = values;
        let mut start = range.start;
        while start < range.end {
            let piece = Piece::at(start, range.end, size);
            let (values, next) = rest.split_at_mut(piece.len() as usize);
            if transposed {
                // Without codes, the columns that are asked for cost less than a tile.
                self.columns_of(files, &piece, scratch, values)?;
            } else {
                let Piece { matrix, rows, cols } = &piece;
                self.rectangle(files, *matrix, rows, cols, scratch, values)?;
            }
            rest = next;
            start += piece.len();
        }
        Ok(())
    }

    fn activation_planes(&self) -> &[Plane] {
        &self.parts.activations
    }

    fn shape_is_known(&self) -> bool {
        self.shape_is_known
    }

    fn reshaped(&self, shape: &[u64]) -> Option<Arc<dyn Weight>> {
        if let Some((_, reading)) = self.readings.iter().find(|(other, _)| other == shape) {
            return Some(Arc::new(reading.clone()));
        }
        let Dims { matrices: 1, rows, cols, transposed: false } = self.dims else { return None };
        let &[own_rows, own_cols] = shape else { return None };
        let padded = |len: u64| len.checked_next_multiple_of(self.padding);
        if padded(own_rows) != Some(rows) || padded(own_cols) != Some(cols) {
            return None;
        }
        let dims = Dims { rows: own_rows, cols: own_cols, ..self.dims };
        Some(Arc::new(Self { tiles: Tiles::new(dims.rows, dims.cols), dims, ..self.clone() }))
    }

    fn has_column_factors(&self) -> bool {
        self.columns.is_some()
    }

    fn grids(&self) -> Vec<model::Grid> {
        self.parts.grids()
    }

    fn own_grid(&self) -> Option<OwnGrid> {
        let codes = 1usize << self.codes.bits();
        let entries = self.table.iter().take(codes).copied();
        let mut levels: Vec<f32> = entries.filter(|level| level.is_finite()).collect();
        // Codes may be stored in more bits than they have.
        let bits = self.scheme.strip_prefix("INT").and_then(|bits| bits.parse::<u32>().ok());
        if let Some(bits) = bits.filter(|bits| (1..self.codes.bits()).contains(bits)) {
            let count = (1u64 << bits) as f32;
            let first = if levels.iter().any(|&level| level < 0.0) { -count / 2.0 } else { 0.0 };
            levels.retain(|level| (first..first + count).contains(level));
        }
        levels.sort_by(f32::total_cmp);
        levels.dedup();
        let (&first, &last) = (levels.first()?, levels.last()?);
        (first < last).then(|| OwnGrid {
            levels: levels.into(),
            lowest: self.at_level(first),
            highest: self.at_level(last),
            rounding: self.rounding(),
        })
    }

    fn check_planes(
        &self,
        files: &[SourceFile],
        scratch: &mut Scratch,
    ) -> Result<Vec<PlaneFinding>, ReadError> {
        check::planes(&self.parts, files, scratch)
    }
}

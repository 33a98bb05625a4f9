/*!
A weight whose stored order is its own: vectors of a code book, tiles of a kernel, rotated blocks. What
all of them share is here; each scheme says how a rectangle is decoded.
*/

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use super::check;
use super::cut::Cut;
use super::piece::Piece;
use super::planes::{Planes, Role};
use crate::model::view::Tiles;
use crate::model::{
    Grid, Plane, PlaneFinding, ReadError, ReadReference, Scratch, SourceFile, Weight,
};

/// How the values of a matrix are stored.
pub trait Layout: Debug + Send + Sync {
    /// Rows and columns of the smallest part that can be decoded alone, if that is dearer than the rows
    /// that are asked for: rectangles begin at multiples of it, end there or with the matrix, and the
    /// thread keeps them for its next chunks. `None`: any rectangle is decoded as it is asked for.
    fn unit(&self) -> Option<(u64, u64)>;

    /// Decodes rows and columns of the matrix into `values`, row by row. Neither is empty.
    fn rectangle(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError>;

    /// What sound quantization makes of the reference's values of a rectangle, which are in `values` and
    /// are replaced; `read` gives others, by element. `false` if that is not known.
    fn expect(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        read: ReadReference,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<bool, ReadError>;
}

/// A matrix in a layout of its own.
#[derive(Clone, Debug)]
pub struct Laid {
    scheme: String,
    /// Rows and columns, padding included.
    size: (u64, u64),
    /// Rows and columns that the stored size was padded to multiples of, with what is no part of the
    /// weight.
    padding: Option<(u64, u64)>,
    layout: Arc<dyn Layout>,
    /// Tiles of whole units, if it has such and a unit of whole rows is not too long to keep.
    tiles: Option<Tiles>,
    /// The stored planes.
    pub parts: Planes,
}

/// Elements of a row beyond which no unit of whole rows is kept.
const LONGEST: u64 = 64 * 1024;

impl Laid {
    /// A matrix of `rows` x `cols`; its planes are added by the scheme.
    pub fn new(scheme: impl Into<String>, size: (u64, u64), layout: impl Layout + 'static) -> Self {
        let (scheme, layout) = (scheme.into(), Arc::new(layout));
        let (rows, cols) = size;
        let unit = layout.unit().filter(|_| cols <= LONGEST);
        let tiles = unit.map(|(unit, _)| Tiles::new(cols, rows).of_units(unit));
        Self { scheme, size, padding: None, layout, tiles, parts: Planes::default() }
    }

    /// Counts a stored plane as part of the weight.
    #[must_use]
    pub fn with(mut self, plane: &Plane, role: Role) -> Self {
        self.parts.add(plane, role);
        self
    }

    /// The stored size may be padded to multiples of these rows and columns.
    #[must_use]
    pub fn padded(mut self, rows: u64, cols: u64) -> Self {
        self.padding = Some((rows, cols));
        self
    }
}

impl Laid {
    /// Decodes a range in rectangles, each by itself: what comes together with it is thrown away.
    fn pieces(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let mut rest = values;
        let mut start = range.start;
        while start < range.end {
            let piece = Piece::at(start, range.end, self.size);
            let (values, next) = rest.split_at_mut(piece.len() as usize);
            let (rows, cols) = (&piece.rows, &piece.cols);
            match self.layout.unit() {
                None => self.layout.rectangle(files, rows, cols, scratch, values)?,
                Some(unit) => {
                    let whole = |part: &Range<u64>, unit: u64, end: u64| {
                        part.start / unit * unit..part.end.next_multiple_of(unit).min(end)
                    };
                    let around =
                        [whole(rows, unit.0, self.size.0), whole(cols, unit.1, self.size.1)];
                    let [outer, inner] = around.clone().map(|it| (it.end - it.start) as usize);
                    let mut block = scratch.take_floats();
                    block.resize(outer * inner, 0.0);
                    let [all_rows, all_cols] = &around;
                    self.layout.rectangle(files, all_rows, all_cols, scratch, &mut block)?;
                    let width = (cols.end - cols.start) as usize;
                    let lines =
                        block.chunks_exact(inner).skip((rows.start - all_rows.start) as usize);
                    for (values, line) in values.chunks_exact_mut(width).zip(lines) {
                        let from = (cols.start - all_cols.start) as usize;
                        values.copy_from_slice(&line[from..from + width]);
                    }
                    scratch.give_floats(block);
                }
            }
            rest = next;
            start += piece.len();
        }
        Ok(())
    }
}

impl Weight for Laid {
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
        match &self.tiles {
            Some(tiles) => tiles.decode(range, scratch, values, &mut |range, scratch, values| {
                let (rows, cols) =
                    (range.start / self.size.1..range.end / self.size.1, 0..self.size.1);
                self.layout.rectangle(files, &rows, &cols, scratch, values)
            }),
            None => self.pieces(files, range, scratch, values),
        }
    }

    fn activation_planes(&self) -> &[Plane] {
        &self.parts.activations
    }

    fn reshaped(&self, shape: &[u64]) -> Option<Arc<dyn Weight>> {
        let ((by_rows, by_cols), &[rows, cols]) = (self.padding?, shape) else { return None };
        let padded =
            (rows.checked_next_multiple_of(by_rows), cols.checked_next_multiple_of(by_cols));
        let fits = padded == (Some(self.size.0), Some(self.size.1));
        fits.then(|| {
            Arc::new(Cut::new(Arc::new(self.clone()), self.size.1, (rows, cols))) as Arc<dyn Weight>
        })
    }

    fn grids(&self) -> Vec<Grid> {
        self.parts.grids()
    }

    fn requantized(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        read: ReadReference,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<bool, ReadError> {
        let mut rest = values;
        let mut start = range.start;
        while start < range.end {
            let piece = Piece::at(start, range.end, self.size);
            let (values, next) = rest.split_at_mut(piece.len() as usize);
            if !self.layout.expect(files, &piece.rows, &piece.cols, read, scratch, values)? {
                return Ok(false);
            }
            rest = next;
            start += piece.len();
        }
        Ok(true)
    }

    fn check_planes(
        &self,
        files: &[SourceFile],
        scratch: &mut Scratch,
    ) -> Result<Vec<PlaneFinding>, ReadError> {
        check::planes(&self.parts, files, scratch)
    }
}

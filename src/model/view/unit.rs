/*!
Units of judgement: the matrices that were quantized on their own, of which a logical tensor is made.
An expert is one; a stack of experts is not.
*/

use super::View;
use super::expression::Body;
use super::layout::{Axis, Layout, Place};
use crate::model::Tensor;

/// A stored matrix as a part of a logical tensor: row r of the part is the tensor's elements from
/// `start + r * pitch` on, `cols` of them.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The stored tensor that holds the matrix.
    pub source: Tensor,
    /// Which matrix of that tensor: 0, unless it is a stack.
    pub matrix: u64,
    /// First element of the part.
    pub start: u64,
    /// Rows of the part.
    pub rows: u64,
    /// Elements of a row of the part.
    pub cols: u64,
    /// From one row to the next.
    pub pitch: u64,
    /// Rows of the logical tensor run down the columns of the stored matrix.
    pub transposed: bool,
}

/// Matrices, rows and columns of a shape.
fn matrices(shape: &[u64]) -> (u64, u64, u64) {
    match shape {
        [] => (1, 1, 1),
        [cols] => (1, 1, *cols),
        [outer @ .., rows, cols] => (outer.iter().product(), *rows, *cols),
    }
}

/// The matrices of a stored tensor, as the whole of it.
fn stored(tensor: &Tensor) -> Vec<Unit> {
    let (count, rows, cols) = matrices(&tensor.shape);
    let unit = |matrix| {
        let source = tensor.clone();
        let start = matrix * rows * cols;
        Unit { source, matrix, start, rows, cols, pitch: cols, transposed: false }
    };
    (0..count).map(unit).collect()
}

/// One part that is the whole of a view, of the matrix that its first element is from.
fn whole(view: &View, source: &Tensor, first: u64, transposed: bool) -> Unit {
    let (outer, rows, cols) = matrices(view.shape());
    let (_, height, width) = matrices(&source.shape);
    let matrix = first / (height * width).max(1);
    let rows = outer * rows;
    Unit { source: source.clone(), matrix, start: 0, rows, cols, pitch: cols, transposed }
}

impl Tensor {
    /// The matrices that were quantized on their own, in the order of their first elements. A tensor
    /// in which they alternate is one part, of the first of them.
    pub fn units(&self) -> Vec<Unit> {
        match self.view() {
            _ if self.numel() == 0 => Vec::new(),
            Some(view) => {
                let mut units = view.shaped(&self.shape).units();
                units.sort_by_key(|unit| unit.start);
                let (.., cols) = matrices(&self.shape);
                together(units, cols)
            }
            None => stored(self),
        }
    }
}

impl View {
    /// The units of a view that is not empty.
    fn units(&self) -> Vec<Unit> {
        match &self.node.body {
            Body::Stored(tensor) => stored(tensor),
            Body::Constant(_) => Vec::new(),
            Body::Computed { source, .. } | Body::RoundTrip { source, .. } => source.units(),
            Body::Joined { parts, join, .. } => {
                let places = parts.iter().zip(join.places()).filter(|(_, (_, run))| *run > 0);
                let units = places.flat_map(|(part, (start, run))| {
                    let units = part.units().into_iter();
                    units.map(move |unit| joined(unit, start, run, join.pitch))
                });
                let units: Option<Vec<Vec<Unit>>> = units.collect();
                units.map_or_else(|| self.as_one(), |units| units.concat())
            }
            Body::Moved { source, layout, .. } => match &source.node.body {
                Body::Stored(tensor) => self.moved_stored(tensor, layout),
                _ => self.moved_view(source, layout),
            },
        }
    }

    /// The units of a movement of a stored tensor.
    fn moved_stored(&self, tensor: &Tensor, layout: &Layout) -> Vec<Unit> {
        let (count, height, width) = matrices(&tensor.shape);
        let matrix = height * width;
        let turned = layout.axes.last().is_some_and(|axis| match axis.place {
            Place::Step(step) => height > 1 && step >= width && step < matrix,
            Place::Table(_) => false,
        });
        if count == 1 {
            return vec![whole(self, tensor, layout.offset, turned)];
        }
        // Leading axes that go from matrix to matrix.
        let goes = |axis: &&Axis| match &axis.place {
            Place::Step(step) => step.is_multiple_of(matrix),
            Place::Table(places) => places.iter().all(|place| place.is_multiple_of(matrix)),
        };
        let leading = layout.axes.iter().take_while(goes).count();
        let (outer, inner) = layout.axes.split_at(leading);
        let len: u64 = inner.iter().map(|axis| axis.extent).product();
        let reach = |axis: &Axis| match &axis.place {
            Place::Step(step) => (axis.extent - 1) * step,
            Place::Table(places) => places.iter().copied().max().unwrap_or(0),
        };
        let within = layout.offset % matrix + inner.iter().map(reach).sum::<u64>() < matrix;
        let (.., cols) = matrices(self.shape());
        if !within && layout.axes.len() == 1 && leading == 0 && layout.run().is_some() {
            return self.run_of_matrices(tensor, layout.offset);
        }
        if !within || !len.is_multiple_of(cols) {
            return vec![whole(self, tensor, layout.offset, turned)];
        }
        let parts: u64 = outer.iter().map(|axis| axis.extent).product();
        let unit = |part: u64| {
            let from = layout.offset + super::layout::at(outer, part);
            let (start, rows) = (part * len, len / cols);
            let source = tensor.clone();
            Unit {
                source,
                matrix: from / matrix,
                start,
                rows,
                cols,
                pitch: cols,
                transposed: turned,
            }
        };
        (0..parts).map(unit).collect()
    }

    /// The units of a run of a stack, from element `first` on.
    fn run_of_matrices(&self, tensor: &Tensor, first: u64) -> Vec<Unit> {
        let (.., height, width) = matrices(&tensor.shape);
        let (matrix, end) = (height * width, first + self.numel());
        let mut units = Vec::new();
        let mut at = first;
        while at < end {
            let stop = ((at / matrix + 1) * matrix).min(end);
            let len = stop - at;
            let cols = if len.is_multiple_of(width) { width } else { len };
            let rows = len / cols;
            let (source, matrix) = (tensor.clone(), at / matrix);
            let start = at - first;
            units.push(Unit { source, matrix, start, rows, cols, pitch: cols, transposed: false });
            at = stop;
        }
        units
    }

    /// The units of a movement of a view: of a run, those of the view; else one.
    fn moved_view(&self, source: &View, layout: &Layout) -> Vec<Unit> {
        let units = source.units();
        if let Some(run) = layout.run() {
            let inside = |unit: &Unit| {
                unit.start >= run.start
                    && unit.start + (unit.rows - 1) * unit.pitch + unit.cols <= run.end
            };
            let moved = |unit: Unit| Unit { start: unit.start - run.start, ..unit };
            let inside: Vec<Unit> = units.iter().filter(|unit| inside(unit)).cloned().collect();
            let covered: u64 = inside.iter().map(|unit| unit.rows * unit.cols).sum();
            if covered == run.end - run.start {
                return inside.into_iter().map(moved).collect();
            }
        }
        self.as_one()
    }

    /// One part, of the first stored tensor.
    fn as_one(&self) -> Vec<Unit> {
        self.sources().next().map(|source| whole(self, source, 0, false)).into_iter().collect()
    }
}

/// Puts runs of one matrix together that follow each other, as rows of `cols` elements.
fn together(units: Vec<Unit>, cols: u64) -> Vec<Unit> {
    let mut merged: Vec<Unit> = Vec::with_capacity(units.len());
    for unit in units {
        let is_run = |unit: &Unit| unit.rows == 1 || unit.pitch == unit.cols;
        if let Some(last) = merged.last_mut()
            && is_run(last)
            && is_run(&unit)
            && last.start + last.rows * last.cols == unit.start
            && (last.matrix, last.transposed) == (unit.matrix, unit.transposed)
            && last.source.name == unit.source.name
        {
            let len = last.rows * last.cols + unit.rows * unit.cols;
            let whole = last.start.is_multiple_of(cols) && len.is_multiple_of(cols);
            let cols = if whole { cols } else { len };
            (last.rows, last.cols, last.pitch) = (len / cols, cols, cols);
        } else {
            merged.push(unit);
        }
    }
    merged
}

/// A part's unit in the whole, in which the part's runs of `run` elements begin at `start` and lie
/// `pitch` apart: one unit for each run that it reaches over, unless its rows are the runs. `None` if
/// its rows are cut.
fn joined(unit: Unit, start: u64, run: u64, pitch: u64) -> Option<Vec<Unit>> {
    let place = |at: u64| at / run * pitch + start + at % run;
    let end = unit.start + (unit.rows - 1) * unit.pitch + unit.cols;
    if end <= (unit.start / run + 1) * run {
        return Some(vec![Unit { start: place(unit.start), ..unit }]);
    }
    let lines_up = unit.pitch.is_multiple_of(run) && unit.start % run + unit.cols <= run;
    if lines_up {
        let (start, pitch) = (place(unit.start), unit.pitch / run * pitch);
        return Some(vec![Unit { start, pitch, ..unit }]);
    }
    // Rows that are shorter than a run: some of them make up each.
    let whole_rows = run.is_multiple_of(unit.pitch) && unit.start.is_multiple_of(run);
    if whole_rows && unit.pitch == unit.cols {
        let rows = run / unit.pitch;
        let parts = (0..unit.rows.div_ceil(rows)).map(|part| {
            let left = unit.rows - part * rows;
            let start = place(unit.start + part * run);
            Unit { start, rows: rows.min(left), ..unit.clone() }
        });
        return Some(parts.collect());
    }
    None
}

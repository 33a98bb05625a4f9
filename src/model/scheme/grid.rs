/*!
Grids of scales and zero points: how they are stored, which element each cell belongs to, and how
the cells of a rectangle are read.
*/

use std::ops::Range;

use super::codes::Codes;
use crate::codec::TensorType;
use crate::model::{Extent, Plane, ReadError, Scratch, SourceFile};

/// Rows of cells whose wanted parts lie closer together than this are read in one go.
const SMALL_GAP: usize = 1024;

/// Most cells that one read takes for the sake of its gaps.
const LARGEST_SPAN: usize = 64 * 1024;

/// How far quantizing scales in their turn moves them: the levels of 8 bits are 0.014 of the largest of their block
/// apart, of which a scale may be a thirtieth.
const NESTED: f64 = 0.25;

/// What each of the 256 codes stands for.
pub type Table = [f32; 256];

/// Where the cells' values come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A plane of floats or integers, one value a cell.
    Plane {
        /// Where it lies.
        at: Extent,
        /// The type of its elements; `U8` planes that hold E8M0 or E4M3 bits are given as such.
        ty: TensorType,
        /// Stored with the columns of the grid as rows.
        transposed: bool,
    },
    /// A plane of packed codes and what they stand for.
    Codes(Codes, Box<Table>),
    /// A plane of floats in tiles of 128 rows by 4 columns, as block-scaled matrix products read it:
    /// row r and column c of a tile are at `r % 32 * 16 + r / 32 * 4 + c`.
    Tiled {
        /// Where it lies.
        at: Extent,
        /// The type of its elements.
        ty: TensorType,
        /// Tiles beside each other.
        across: u64,
        /// Tiles below each other.
        down: u64,
    },
    /// Codes whose scales are quantized in their turn: `map[code] * scales[cell / block] + offset`
    /// (bitsandbytes' double quantization). One row of cells.
    Nested {
        /// The codes, one byte a cell.
        at: Extent,
        /// What each code stands for.
        map: Box<Table>,
        /// F32 scales of the codes.
        scales: Extent,
        /// Cells that share a scale.
        block: u64,
        /// Added last.
        offset: f32,
    },
    /// The same for every element.
    Constant(f32),
}

/// A scalar that every cell of a matrix is combined with.
#[derive(Clone, Debug, Default)]
pub enum Factor {
    /// None.
    #[default]
    One,
    /// Multiplied; one for all matrices, or one each.
    Times(Vec<f32>),
    /// Divided by; one for all matrices, or one each.
    Over(Vec<f32>),
}

/// Which group an element belongs to, one entry a row or a column (`g_idx`).
#[derive(Clone, Debug)]
pub struct Index {
    /// Name of the plane.
    pub name: String,
    /// Where it lies.
    pub at: Extent,
    /// `I32` or `I64`.
    pub ty: TensorType,
    /// Number of groups.
    pub groups: u64,
}

impl Index {
    /// Checks that `plane` has one entry for each of `len` rows or columns.
    pub fn new(plane: &Plane, len: u64, groups: u64) -> Result<Self, String> {
        if !matches!(plane.ty, TensorType::I32 | TensorType::I64) || plane.numel() != len {
            return Err(format!(
                "is {} {:?}, not one I32 group for each of {len} columns",
                plane.ty, plane.shape
            ));
        }
        Ok(Self { name: plane.name.clone(), at: plane.at, ty: plane.ty, groups })
    }

    /// Reads the groups of a run of entries.
    fn read(
        &self,
        files: &[SourceFile],
        range: &Range<u64>,
        scratch: &mut Scratch,
    ) -> Result<Vec<u32>, ReadError> {
        let width = self.ty.info().block_bytes as u64;
        let mut bytes = scratch.take_bytes();
        bytes.resize(((range.end - range.start) * width) as usize, 0);
        files[self.at.file].read_at(self.at.offset + range.start * width, &mut bytes)?;
        let groups = bytes.chunks_exact(width as usize).enumerate().map(|(i, bytes)| {
            let group = little_endian(bytes, true);
            u32::try_from(group).ok().filter(|&group| u64::from(group) < self.groups).ok_or_else(
                || {
                    ReadError::Corrupt(format!(
                        "{:?} sends column {} to group {group}, but there are {} groups",
                        self.name,
                        range.start + i as u64,
                        self.groups
                    ))
                },
            )
        });
        let groups = groups.collect();
        scratch.give_bytes(bytes);
        groups
    }
}

/// An integer of up to eight bytes.
pub fn little_endian(bytes: &[u8], signed: bool) -> i64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let unused = 64 - 8 * bytes.len() as u32;
    let value = i64::from_le_bytes(word) << unused;
    if signed { value >> unused } else { (value as u64 >> unused) as i64 }
}

/// A grid of cells over each of the matrices of a weight.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The values of the cells.
    pub source: Source,
    /// Rows of cells over one matrix.
    pub rows: u64,
    /// Columns of cells over one matrix.
    pub cols: u64,
    /// Rows and columns of elements that share a cell.
    pub block: (u64, u64),
    /// Sends each row of elements to a row of cells instead.
    pub row_index: Option<Index>,
    /// Sends each column of elements to a column of cells instead.
    pub col_index: Option<Index>,
    /// One grid serves all matrices.
    pub shared: bool,
    /// Combined with every cell.
    pub factor: Factor,
}

impl Grid {
    /// One value for every element.
    pub fn constant(value: f32) -> Self {
        Self {
            source: Source::Constant(value),
            rows: 1,
            cols: 1,
            block: (u64::MAX, u64::MAX),
            row_index: None,
            col_index: None,
            shared: true,
            factor: Factor::One,
        }
    }

    /// `rows` x `cols` cells of `block` elements, read from `source`.
    pub fn new(source: Source, (rows, cols): (u64, u64), block: (u64, u64)) -> Self {
        Self { source, rows, cols, block, ..Self::constant(1.0) }.shared(false)
    }

    /// Whether one grid serves all matrices.
    #[must_use]
    pub fn shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// Half of the smallest scale that is not stored as zero, where it is one that weights come near to.
    pub fn least(&self) -> f64 {
        match (&self.source, &self.factor) {
            (
                Source::Plane { ty: TensorType::F8_E4M3, .. }
                | Source::Tiled { ty: TensorType::F8_E4M3, .. },
                Factor::One,
            ) => 1.0 / 1024.0,
            _ => 0.0,
        }
    }

    /// How far rounding to the type in which the cells are stored moves them, relative to them, where it is done
    /// after codes were chosen: of floats narrower than those that tools compute in. Powers of two and 8-bit
    /// scales are chosen first.
    pub fn half_unit(&self) -> f64 {
        let ty = match self.source {
            Source::Plane { ty, .. } | Source::Tiled { ty, .. } => ty,
            Source::Nested { .. } => return NESTED,
            Source::Codes(..) | Source::Constant(_) => return 0.0,
        };
        match ty {
            TensorType::F16 => 1.0 / 2048.0,
            TensorType::BF16 => 1.0 / 256.0,
            _ => 0.0,
        }
    }

    /// Reads the cells that the elements of a rectangle need.
    pub fn load(
        &self,
        files: &[SourceFile],
        matrix: u64,
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
    ) -> Result<Cells, ReadError> {
        let (row_at, cell_rows) = match &self.row_index {
            None => {
                let cells = rows.start / self.block.0..(rows.end - 1) / self.block.0 + 1;
                (At::Blocks { block: self.block.0, first: cells.start }, vec![cells])
            }
            Some(index) => gather(&index.read(files, rows, scratch)?, rows.start),
        };
        let (col_at, cell_cols) = match &self.col_index {
            None => {
                let cells = cols.start / self.block.1..(cols.end - 1) / self.block.1 + 1;
                (At::Blocks { block: self.block.1, first: cells.start }, cells)
            }
            Some(index) => {
                let at = index.read(files, cols, scratch)?;
                (At::Index { place: at, start: cols.start }, 0..self.cols)
            }
        };
        let width = (cell_cols.end - cell_cols.start) as usize;
        let height: u64 = cell_rows.iter().map(|rows| rows.end - rows.start).sum();
        let mut values = scratch.take_floats();
        values.resize(height as usize * width, 0.0);
        let mut rest = &mut values[..];
        for rows in cell_rows {
            let (part, next) = rest.split_at_mut((rows.end - rows.start) as usize * width);
            self.read(files, matrix, &rows, &cell_cols, scratch, part)?;
            rest = next;
        }
        self.combine(matrix, &mut values);
        Ok(Cells { values, width, row_at, col_at })
    }

    fn combine(&self, matrix: u64, values: &mut [f32]) {
        let of = |factors: &[f32]| match factors {
            [one] => *one,
            many => many.get(matrix as usize).copied().unwrap_or(f32::NAN),
        };
        match &self.factor {
            Factor::One => {}
            Factor::Times(factors) => {
                let factor = of(factors);
                for value in values.iter_mut() {
                    *value *= factor;
                }
            }
            Factor::Over(factors) => {
                let factor = of(factors);
                for value in values.iter_mut() {
                    *value /= factor;
                }
            }
        }
    }

    /// Reads a rectangle of cells.
    fn read(
        &self,
        files: &[SourceFile],
        matrix: u64,
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let matrix = if self.shared { 0 } else { matrix };
        let width = (cols.end - cols.start) as usize;
        match &self.source {
            Source::Constant(value) => values.fill(*value),
            Source::Codes(codes, table) => {
                let mut bytes = scratch.take_bytes();
                bytes.resize(values.len(), 0);
                codes.read(files, matrix, rows, cols, scratch, &mut bytes)?;
                for (value, &code) in values.iter_mut().zip(&bytes) {
                    *value = table[usize::from(code)];
                }
                scratch.give_bytes(bytes);
            }
            Source::Nested { at, map, scales, block, offset } => {
                nested(files, *at, *scales, *block, cols, scratch, |i, code, scale| {
                    values[i] = map[usize::from(code)] * scale + offset;
                })?;
            }
            Source::Plane { at, ty, transposed: false } => {
                let start = (matrix * self.rows + rows.start) * self.cols + cols.start;
                if width as u64 == self.cols {
                    return numbers(files, *at, *ty, start, values, scratch);
                }
                let pitch = self.cols as usize;
                let span = (values.len() / width - 1) * pitch + width;
                if pitch - width <= SMALL_GAP && span <= LARGEST_SPAN {
                    let mut lines = scratch.take_floats();
                    lines.resize(span, 0.0);
                    numbers(files, *at, *ty, start, &mut lines, scratch)?;
                    for (values, line) in values.chunks_exact_mut(width).zip(lines.chunks(pitch)) {
                        values.copy_from_slice(&line[..width]);
                    }
                    scratch.give_floats(lines);
                    return Ok(());
                }
                for (row, values) in values.chunks_exact_mut(width).enumerate() {
                    let start = start + row as u64 * self.cols;
                    numbers(files, *at, *ty, start, values, scratch)?;
                }
            }
            Source::Tiled { at, ty, across, down } => {
                let tiles = cols.start / 4..(cols.end - 1) / 4 + 1;
                let mut of_tiles = scratch.take_floats();
                of_tiles.resize(((tiles.end - tiles.start) * 512) as usize, 0.0);
                for strip in rows.start / 128..=(rows.end - 1) / 128 {
                    let start = ((matrix * down + strip) * across + tiles.start) * 512;
                    numbers(files, *at, *ty, start, &mut of_tiles, scratch)?;
                    for row in rows.start.max(strip * 128)..rows.end.min((strip + 1) * 128) {
                        let line = (row - rows.start) as usize * width;
                        let in_tile = row % 32 * 16 + row % 128 / 32 * 4;
                        for (value, col) in values[line..line + width].iter_mut().zip(cols.clone())
                        {
                            let tile = (col / 4 - tiles.start) * 512;
                            *value = of_tiles[(tile + in_tile + col % 4) as usize];
                        }
                    }
                }
                scratch.give_floats(of_tiles);
            }
            Source::Plane { at, ty, transposed: true } => {
                let mut column = scratch.take_floats();
                column.resize((rows.end - rows.start) as usize, 0.0);
                for col in cols.clone() {
                    let start = (matrix * self.cols + col) * self.rows + rows.start;
                    numbers(files, *at, *ty, start, &mut column, scratch)?;
                    for (row, value) in column.iter().enumerate() {
                        values[row * width + (col - cols.start) as usize] = *value;
                    }
                }
                scratch.give_floats(column);
            }
        }
        Ok(())
    }
}

/// Reads doubly quantized cells and hands out each code with its scale.
fn nested(
    files: &[SourceFile],
    at: Extent,
    scales: Extent,
    block: u64,
    cells: &Range<u64>,
    scratch: &mut Scratch,
    mut each: impl FnMut(usize, u8, f32),
) -> Result<(), ReadError> {
    let mut codes = scratch.take_bytes();
    codes.resize((cells.end - cells.start) as usize, 0);
    files[at.file].read_at(at.offset + cells.start, &mut codes)?;
    let first = cells.start / block;
    let mut of_blocks = scratch.take_floats();
    of_blocks.resize(((cells.end - 1) / block + 1 - first) as usize, 0.0);
    numbers(files, scales, TensorType::F32, first, &mut of_blocks, scratch)?;
    for (i, &code) in codes.iter().enumerate() {
        each(i, code, of_blocks[((cells.start + i as u64) / block - first) as usize]);
    }
    scratch.give_bytes(codes);
    scratch.give_floats(of_blocks);
    Ok(())
}

/// Reads a run of numbers of a plane as f32; integers beyond 24 bits are rounded.
pub fn numbers(
    files: &[SourceFile],
    at: Extent,
    ty: TensorType,
    start: u64,
    values: &mut [f32],
    scratch: &mut Scratch,
) -> Result<(), ReadError> {
    let row = ty.info();
    let width = row.block_bytes;
    let mut bytes = scratch.take_bytes();
    bytes.resize(values.len() * width, 0);
    files[at.file].read_at(at.offset + start * width as u64, &mut bytes)?;
    if let Some(decode) = row.decode {
        decode(&bytes, values);
    } else {
        let signed =
            matches!(ty, TensorType::I8 | TensorType::I16 | TensorType::I32 | TensorType::I64);
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(width)) {
            *value = little_endian(bytes, signed) as f32;
        }
    }
    scratch.give_bytes(bytes);
    Ok(())
}

/// Whether a plane of this type holds plain numbers, one to an element.
pub fn is_number(ty: TensorType) -> bool {
    use TensorType::{BOOL, C64};
    let row = ty.info();
    row.block_len == 1 && !matches!(ty, BOOL | C64)
}

/// The distinct groups of an index in order, as runs, and each entry's place among them.
fn gather(groups: &[u32], start: u64) -> (At, Vec<Range<u64>>) {
    let mut distinct = groups.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let mut runs: Vec<Range<u64>> = Vec::new();
    for &group in &distinct {
        let group = u64::from(group);
        match runs.last_mut() {
            Some(run) if run.end == group => run.end += 1,
            _ => runs.push(group..group + 1),
        }
    }
    let place = groups.iter().map(|group| distinct.partition_point(|other| other < group) as u32);
    (At::Index { place: place.collect(), start }, runs)
}

/// Cuts `len` columns from `start` on where their cells change: the cell, and the columns that share
/// it, counted from `start`.
pub fn runs(start: u64, len: usize, block: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    let end = start + len as u64;
    let mut at = start;
    std::iter::from_fn(move || {
        let cell = at / block;
        let next = (cell + 1).saturating_mul(block).min(end);
        let run = (at - start) as usize..(next - start) as usize;
        (at < end).then(|| {
            at = next;
            (cell, run)
        })
    })
}

/// Where the cell of a row or column of elements is among the cells that were read.
#[derive(Debug)]
pub enum At {
    /// `index / block - first`.
    Blocks {
        /// Elements of a block.
        block: u64,
        /// The first cell that was read.
        first: u64,
    },
    /// Looked up.
    Index {
        /// One entry for each element from `start` on.
        place: Vec<u32>,
        /// The first element.
        start: u64,
    },
}

/// Cells that were read for a rectangle of elements.
#[derive(Debug)]
pub struct Cells {
    values: Vec<f32>,
    width: usize,
    row_at: At,
    col_at: At,
}

impl Cells {
    /// The cells of one row of elements, and where each column's is among them.
    pub fn row(&self, row: u64) -> (&[f32], &At) {
        let place = match &self.row_at {
            At::Blocks { block, first } => (row / block - first) as usize,
            At::Index { place, start } => place[(row - start) as usize] as usize,
        };
        (&self.values[place * self.width..(place + 1) * self.width], &self.col_at)
    }

    /// Writes the cell of each of the columns of a row from `start` on.
    pub fn spread(&self, row: u64, start: u64, values: &mut [f32]) {
        let (cells, at) = self.row(row);
        match at {
            At::Blocks { block: 1, .. } => values.copy_from_slice(&cells[..values.len()]),
            At::Blocks { block, first } => {
                for (cell, run) in runs(start, values.len(), *block) {
                    values[run].fill(cells[(cell - first) as usize]);
                }
            }
            At::Index { place, .. } => {
                for (value, &place) in values.iter_mut().zip(place) {
                    *value = cells[place as usize];
                }
            }
        }
    }

    /// Returns the buffer.
    pub fn give_back(self, scratch: &mut Scratch) {
        scratch.give_floats(self.values);
    }
}

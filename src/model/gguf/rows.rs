/*!
GGUF tensors of types whose rows have a form of their own: a scale in front of each row, rows that are
merged, a scale behind the whole tensor ([`crate::codec::rows`]).

Where the bytes of an element lie follows from the shape, so that such a tensor is no run of blocks; it
decodes any range of itself from the units that hold the range.
*/

use std::ops::Range;
use std::sync::Arc;

use crate::codec::{Class, End, Frame, Levels, RowCodec, TensorType};
use crate::model::{
    Extent, OwnGrid, Plane, ReadError, ReadReference, Rounding, Scratch, SourceFile, Storage,
    Tensor, Weight,
};

/// A tensor of units.
#[derive(Debug)]
struct Units {
    plane: [Plane; 1],
    layout: Layout,
    /// The end of the levels that all codes are read as, if not as they are.
    end: Option<(&'static Levels, End)>,
}

/// How a tensor of a type lies in its bytes.
#[derive(Clone, Copy)]
struct Layout {
    ty: TensorType,
    codec: RowCodec,
    /// Elements of a row of a unit.
    columns: u64,
    /// Rows of a unit.
    rows: u64,
    /// Bytes of a unit's metadata.
    meta: usize,
    /// Bytes of a block of all rows of a unit.
    block: u64,
}

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in rows of {}", self.ty, self.columns)
    }
}

/// The storage of a tensor whose bytes were held against its shape; none if its type is one of blocks
/// that stand alone.
pub fn storage(name: &str, ty: TensorType, shape: &[u64], at: Extent) -> Option<Storage> {
    let codec = ty.info().rows?;
    let plane = Plane { name: name.to_owned(), ty, shape: shape.to_vec(), at };
    let columns = match codec.frame {
        Frame::Rows { .. } => shape.last().copied().unwrap_or(1),
        Frame::Whole { .. } => plane.numel(),
    };
    let rows = codec.frame.rows();
    let layout = Layout {
        ty,
        codec,
        columns,
        rows: rows as u64,
        meta: codec.frame.meta(),
        block: (ty.info().block_bytes * rows) as u64,
    };
    Some(Storage::Joined(Arc::new(Units { plane: [plane], layout, end: None })))
}

impl Layout {
    /// Bytes of the blocks of a unit.
    fn blocks_len(&self) -> u64 {
        self.columns / self.ty.info().block_len as u64 * self.block
    }

    /// Where the metadata and the blocks of a unit begin.
    fn places(&self, unit: u64) -> (u64, u64) {
        let start = unit * (self.meta as u64 + self.blocks_len());
        match self.codec.frame {
            Frame::Rows { .. } => (start, start + self.meta as u64),
            Frame::Whole { .. } => (start + self.blocks_len(), start),
        }
    }
}

/// A rectangle of a unit: some of its rows, and some of their columns.
struct Part {
    unit: u64,
    rows: Range<u64>,
    columns: Range<u64>,
}

impl Units {
    /// The part of the unit that holds element `at` and begins with it: up to `end`, whole rows or a
    /// piece of one.
    fn part(&self, at: u64, end: u64) -> Part {
        let Layout { columns, rows, .. } = self.layout;
        let (row, column) = (at / columns, at % columns);
        let (unit, first) = (row / rows, row % rows);
        let whole = (end - at) / columns;
        if column > 0 || whole == 0 {
            let stop = columns.min(column + (end - at));
            return Part { unit, rows: first..first + 1, columns: column..stop };
        }
        Part { unit, rows: first..rows.min(first + whole), columns: 0..columns }
    }

    /// Decodes a part into `values`.
    fn decode_part(
        &self,
        files: &[SourceFile],
        part: &Part,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let layout = &self.layout;
        let at = self.plane[0].at;
        let len = layout.ty.info().block_len as u64;
        let blocks = part.columns.start / len..part.columns.end.div_ceil(len);
        let (meta_at, blocks_at) = layout.places(part.unit);
        let first = blocks_at + blocks.start * layout.block;
        let size = ((blocks.end - blocks.start) * layout.block) as usize;
        let bytes = scratch.bytes(layout.meta + size);
        let (meta, blocks_read) = bytes.split_at_mut(layout.meta);
        files[at.file].read_at(at.offset + meta_at, meta)?;
        files[at.file].read_at(at.offset + first, blocks_read)?;
        if let Some((levels, end)) = self.end {
            levels.fill(end, blocks_read);
        }
        let rows = part.rows.start as usize..part.rows.end as usize;
        let held = (blocks.end - blocks.start) * len;
        if held * (part.rows.end - part.rows.start) == values.len() as u64 {
            (layout.codec.decode)(meta, blocks_read, rows, values);
            return Ok(());
        }
        // A piece of one row that does not begin and end between blocks.
        let mut whole = vec![0.0; held as usize];
        (layout.codec.decode)(meta, blocks_read, rows, &mut whole);
        let skip = (part.columns.start - blocks.start * len) as usize;
        values.copy_from_slice(&whole[skip..skip + values.len()]);
        Ok(())
    }
}

impl Weight for Units {
    fn scheme(&self) -> &str {
        self.layout.ty.name()
    }

    fn planes(&self) -> &[Plane] {
        &self.plane
    }

    fn class(&self) -> Class {
        self.layout.ty.info().class
    }

    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let (mut at, mut rest) = (range.start, values);
        while !rest.is_empty() {
            let part = self.part(at, range.end);
            let count = (part.rows.end - part.rows.start) * (part.columns.end - part.columns.start);
            let (here, after) = rest.split_at_mut(count as usize);
            self.decode_part(files, &part, scratch, here)?;
            at += count;
            rest = after;
        }
        Ok(())
    }

    fn own_grid(&self) -> Option<OwnGrid> {
        let levels = Levels::of(self.layout.ty)?;
        let [plane] = &self.plane;
        let filled = |end| Tensor {
            name: plane.name.clone(),
            shape: plane.shape.clone(),
            storage: Storage::Joined(Arc::new(Self {
                plane: [plane.clone()],
                layout: self.layout,
                end: Some((levels, end)),
            })),
        };
        Some(OwnGrid {
            levels: levels.values().into(),
            lowest: filled(End::Lowest),
            highest: filled(End::Highest),
            rounding: Rounding::default(),
        })
    }

    /// Where one scale holds for all of a tensor, part of it says nothing about it: the nearest of its
    /// multiples by -1, 0 and 1.
    fn requantized(
        &self,
        files: &[SourceFile],
        _range: Range<u64>,
        _read: ReadReference,
        _scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<bool, ReadError> {
        let Frame::Whole { .. } = self.layout.codec.frame else { return Ok(false) };
        let (at, mut scale) = (self.plane[0].at, [0; 4]);
        files[at.file].read_at(at.offset + self.layout.places(0).0, &mut scale)?;
        let scale = f32::from_le_bytes(scale);
        let nearest = |value: f32| scale * (value / scale).round().clamp(-1.0, 1.0);
        for value in values {
            *value = if scale == 0.0 { 0.0 } else { nearest(*value) };
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::codec::TYPES;

    /// Every range of a tensor is that part of the whole, whatever rows and blocks it cuts.
    #[test]
    fn any_range_is_that_part_of_the_whole() {
        for info in TYPES.iter().filter(|info| info.rows.is_some()) {
            let columns = 2 * info.block_len.max(64) as u64;
            let shape = [2, 16, columns];
            let len = info.ty.bytes_of(&shape).unwrap();
            // Small bytes keep most scales finite.
            let bytes: Vec<u8> = (0..len + 3).map(|at| (at * 37 % 59) as u8).collect();
            let files = [SourceFile::from_bytes(Path::new("memory"), bytes)];
            let at = Extent { file: 0, offset: 3, len };
            let Some(Storage::Joined(weight)) = storage("t", info.ty, &shape, at) else {
                panic!("{} has rows", info.name)
            };
            let decode = |range: Range<u64>| {
                let mut values = vec![12345.678; (range.end - range.start) as usize];
                weight.decode(&files, range, &mut Scratch::default(), &mut values).unwrap();
                values.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            };
            let numel = 32 * columns;
            let whole = decode(0..numel);
            assert!(whole.iter().any(|bits| *bits != whole[0]), "{}", info.name);
            for (start, end, why) in [
                (0, 0, "nothing"),
                (0, 1, "one element"),
                (columns - 1, columns + 1, "the end of a row and the next one's beginning"),
                (5, 5 * columns + 7, "ragged rows, over units"),
                (columns * 3, columns * 4, "one row"),
                (columns * 3, columns * 13, "rows of several units"),
                (columns * 15 + 1, columns * 17 - 1, "over the boundary of experts"),
                (numel - 1, numel, "the last element"),
            ] {
                let expected = &whole[start as usize..end as usize];
                assert_eq!(decode(start..end), expected, "{}: {why}", info.name);
            }
        }
    }
}

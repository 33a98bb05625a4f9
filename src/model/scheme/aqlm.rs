/*!
AQLM: groups of a row's weights as sums of vectors out of code books, times a scale of the row.
*/

use std::ops::Range;

use super::affine::scale_type;
use super::book::Book;
use super::grid::{Grid, Source, little_endian};
use super::group::{Context, Found, Group, Match};
use super::joined::Role;
use super::laid::{Laid, Layout};
use super::sound::{Found as Error, Search, noisy};
use crate::codec::TensorType;
use crate::model::{Extent, ReadError, ReadReference, Scratch, SourceFile};

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] = &[".codes", ".codebooks", ".scales"];

const SCHEME: &str = "AQLM";

/// Joins codes, code books and scales.
pub fn build(group: &Group, _: &Context) -> Match {
    let lone_codes = group.get(".codes").is_some_and(|codes| {
        matches!(codes.ty, TensorType::I8 | TensorType::I16) && codes.shape.len() == 3
    });
    if !group.has(".codebooks") && !lone_codes {
        return Ok(None);
    }
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let codes = group.need(SCHEME, ".codes")?;
    let books = group.need(SCHEME, ".codebooks")?;
    let scale = group.need(SCHEME, ".scales")?;
    let integers = matches!(codes.ty, TensorType::I8 | TensorType::I16 | TensorType::I32);
    let (&[out_groups, in_groups, count], true) = (&codes.shape[..], integers) else {
        let message = format!("is {} {:?}, not codes [out, in, books]", codes.ty, codes.shape);
        return Err(misfit(".codes", message));
    };
    let (&[stored, entries, height, width], Some((ty, Role::Scale))) =
        (&books.shape[..], scale_type(books))
    else {
        let message = format!("is {} {:?}, not books of vectors of numbers", books.ty, books.shape);
        return Err(misfit(".codebooks", message));
    };
    if stored != count || !entries.is_power_of_two() || entries > 1 << 16 || height * width == 0 {
        let message = format!("has shape {:?} for {count} codes a group", books.shape);
        return Err(misfit(".codebooks", message));
    }
    let (rows, cols) = (out_groups.saturating_mul(height), in_groups.saturating_mul(width));
    let per_group = scale.numel() == out_groups.saturating_mul(in_groups);
    let (Some((scale_ty, Role::Scale)), true) =
        (scale_type(scale), per_group || scale.numel() == out_groups)
    else {
        let message = format!(
            "is {} {:?}, not one scale for each of {out_groups} rows",
            scale.ty, scale.shape
        );
        return Err(misfit(".scales", message));
    };
    let (scale_cols, scale_width) = if per_group { (in_groups, width) } else { (1, u64::MAX) };
    let source = Source::Plane { at: scale.at, ty: scale_ty, transposed: false };
    let layout = Vectors {
        codes: codes.at,
        bytes: codes.ty.info().block_bytes,
        in_groups,
        count: count as usize,
        entries: entries as usize,
        vector: (height as usize, width as usize),
        book: Book::new(books.at, ty, books.numel())
            .map_err(|message| misfit(".codebooks", message))?,
        scale: Grid::new(source, (out_groups, scale_cols), (height, scale_width)),
    };
    let weight = Laid::new(SCHEME, (rows, cols), layout)
        .with(codes, Role::Codes)
        .with(books, Role::Book)
        .with(scale, Role::Scale);
    Ok(Some(Found::new(vec![rows, cols], weight)))
}

/// The layout: a code of each book for each group.
#[derive(Debug)]
struct Vectors {
    codes: Extent,
    /// Bytes of a code.
    bytes: usize,
    in_groups: u64,
    /// Books.
    count: usize,
    /// Vectors of a book: a power of two; stored codes are signed, and count modulo it.
    entries: usize,
    /// Rows and columns of a vector.
    vector: (usize, usize),
    book: Book,
    scale: Grid,
}

impl Vectors {
    /// Adds up the vectors of the groups of a line, `line` being their row in each vector.
    fn sum(&self, book: &[f32], codes: &[u8], line: usize, sums: &mut [f32]) {
        let (height, width) = self.vector;
        let groups = codes.chunks_exact(self.bytes * self.count);
        for (codes, sums) in groups.zip(sums.chunks_exact_mut(width)) {
            sums.fill(0.0);
            for (which, code) in codes.chunks_exact(self.bytes).enumerate() {
                let code = little_endian(code, true) as usize & (self.entries - 1);
                let at = ((which * self.entries + code) * height + line) * width;
                for (sum, value) in sums.iter_mut().zip(&book[at..at + width]) {
                    *sum += value;
                }
            }
        }
    }
}

impl Layout for Vectors {
    fn unit(&self) -> Option<(u64, u64)> {
        None
    }

    fn rectangle(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let (height, width) = (self.vector.0 as u64, self.vector.1 as u64);
        let groups = cols.start / width..cols.end.div_ceil(width);
        let line_bytes = (groups.end - groups.start) as usize * self.bytes * self.count;
        let (mut bytes, mut sums, mut factors) =
            (scratch.take_bytes(), scratch.take_floats(), scratch.take_floats());
        bytes.resize(line_bytes, 0);
        sums.resize(((groups.end - groups.start) * width) as usize, 0.0);
        let len = (cols.end - cols.start) as usize;
        factors.resize(len, 0.0);
        let skip = (cols.start - groups.start * width) as usize;
        let book = self.book.take(files, scratch)?;
        let scales = self.scale.load(files, 0, rows, cols, scratch)?;
        for (row, values) in rows.clone().zip(values.chunks_exact_mut(len)) {
            let (group, line) = (row / height, (row % height) as usize);
            if line == 0 || row == rows.start {
                let first =
                    (group * self.in_groups + groups.start) * (self.bytes * self.count) as u64;
                files[self.codes.file].read_at(self.codes.offset + first, &mut bytes)?;
            }
            self.sum(&book.values, &bytes, line, &mut sums);
            scales.spread(row, cols.start, &mut factors);
            for ((value, sum), factor) in values.iter_mut().zip(&sums[skip..]).zip(&factors) {
                *value = sum * factor;
            }
        }
        scales.give_back(scratch);
        book.give_back(scratch);
        scratch.give_bytes(bytes);
        scratch.give_floats(sums);
        scratch.give_floats(factors);
        Ok(())
    }

    fn expect(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        read: ReadReference,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<bool, ReadError> {
        let (height, width) = self.vector;
        let all = self.in_groups * width as u64;
        let groups = cols.start / width as u64..cols.end.div_ceil(width as u64);
        let span = groups.start * width as u64..groups.end * width as u64;
        let (mut lines, mut factors) = (scratch.take_floats(), scratch.take_floats());
        let pitch = (span.end - span.start) as usize;
        lines.resize(pitch * height, 0.0);
        factors.resize(pitch, 0.0);
        let book = self.book.take(files, scratch)?;
        let books = book.values.chunks_exact(self.entries * height * width).collect();
        let search = Search { books, len: height * width };
        let step =
            search.step((rows.end - rows.start).div_ceil(height as u64) as usize * pitch / width);
        let len = (cols.end - cols.start) as usize;
        let (mut vector, mut sum) = (vec![0.0; search.len], vec![0.0; search.len]);
        for (row, values) in rows.clone().zip(values.chunks_exact_mut(len)) {
            let (top, within) =
                (row / height as u64 * height as u64, (row % height as u64) as usize);
            for (line, row) in lines.chunks_exact_mut(pitch).zip(top..) {
                let start = row * all + span.start;
                read(start..start + pitch as u64, scratch, line)?;
            }
            let scales = self.scale.load(files, 0, &(row..row + 1), &span, scratch)?;
            scales.spread(row, span.start, &mut factors);
            scales.give_back(scratch);
            let mut error = Error::default();
            let mut found = Vec::new();
            for group in (0..pitch / width).step_by(step) {
                let scale = factors[group * width];
                for (i, element) in vector.iter_mut().enumerate() {
                    let value = lines[i / width * pitch + group * width + i % width];
                    *element = if scale == 0.0 { 0.0 } else { value / scale };
                }
                search.nearest(&vector, &mut sum);
                error.add(&vector, &sum);
                found.push((group, sum[within * width..(within + 1) * width].to_vec()));
            }
            let (distortion, signal) = error.distortion();
            for (col, value) in (cols.start..).zip(values.iter_mut()) {
                let scale = factors[(col - span.start) as usize];
                *value = noisy(*value, row * all + col, distortion, signal * scale);
            }
            for (group, part) in found {
                for (at, sum) in (group * width..).zip(part) {
                    let col = span.start + at as u64;
                    if cols.contains(&col) {
                        values[(col - cols.start) as usize] = sum * factors[at];
                    }
                }
            }
        }
        book.give_back(scratch);
        scratch.give_floats(lines);
        scratch.give_floats(factors);
        Ok(true)
    }
}

/*!
VPTQ: each column's outputs in vectors out of a code book, with a second book for what is left, columns
of outliers with a book of their own, an order of columns, and a scale and shift of each.

The planes alone do not say how long a vector is: `config_for_layers` of the configuration does.
*/

use std::ops::Range;

use serde_json::Value;

use super::affine::scale_type;
use super::book::{Book, Loaded};
use super::exl2::inverse;
use super::grid::{is_number, little_endian, numbers};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::Role;
use super::laid::{Laid, Layout};
use super::sound::{Found as Error, Search, noisy};
use crate::codec::TensorType;
use crate::model::{Extent, Plane, ReadError, ReadReference, Scratch, SourceFile};

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] = &[
    ".indices",
    ".centroids.weight",
    ".res_indices",
    ".res_centroids.weight",
    ".outlier_indices",
    ".outlier_centroids.weight",
    ".perm",
    ".weight_scale",
    ".weight_bias",
];

/// Suffixes that no other scheme has.
const OWN: &[&str] = &[".centroids.weight", ".res_centroids.weight", ".outlier_centroids.weight"];

const SCHEME: &str = "VPTQ";

/// Joins the indices of a matrix with their books.
pub fn build(group: &Group, context: &Context) -> Match {
    let settings = &context.config.setting("config_for_layers")[&group.base];
    let configured = settings.is_object() && group.has(".indices");
    if !configured && !OWN.iter().any(|suffix| group.has(suffix)) {
        return Ok(None);
    }
    let Some(settings) = Settings::read(settings) else {
        let reason = "the planes do not say how long a vector is; config.json must have \
                      config_for_layers with vector_lens, num_centroids, in_features and \
                      out_features of this module";
        return Err(Trouble::Refused { scheme: SCHEME.into(), reason: reason.into() });
    };
    let Settings { outs, ins, outliers, groups, group_len, .. } = settings;
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let reached = groups.checked_mul(group_len).and_then(|cols| cols.checked_add(outliers));
    group.need(SCHEME, ".indices")?;
    if outliers > ins || reached.is_none_or(|cols| cols < ins) {
        let message = format!(
            "is for {groups} groups of {group_len} columns and {outliers} outliers, but the \
             configuration says {ins} inputs"
        );
        return Err(misfit(".indices", message));
    }
    let mut used: Vec<(&Plane, Role)> = Vec::new();
    let main = Vectors::main(group, &settings, &mut used)?;
    let outlier = match outliers {
        0 => None,
        _ => Some(Vectors::outliers(group, &settings, &mut used)?),
    };
    let mut order = None;
    if settings.permuted {
        let plane = group.need(SCHEME, ".perm")?;
        let integers = matches!(plane.ty, TensorType::I16 | TensorType::U16 | TensorType::I32);
        if !integers || plane.numel() != ins {
            let message = format!("is {} {:?}, not one for each of {ins}", plane.ty, plane.shape);
            return Err(misfit(".perm", message));
        }
        order = Some((plane.name.clone(), plane.at, plane.ty));
        used.push((plane, Role::Setting));
    }
    let mut columns = None;
    if settings.normed {
        let of = |suffix| -> Result<(&Plane, (Extent, TensorType)), Trouble> {
            let plane = group.need(SCHEME, suffix)?;
            match scale_type(plane) {
                Some((ty, Role::Scale)) if plane.numel() == ins => Ok((plane, (plane.at, ty))),
                _ => {
                    let message =
                        format!("is {} {:?}, not one for each of {ins}", plane.ty, plane.shape);
                    Err(misfit(suffix, message))
                }
            }
        };
        let (scale, shift) = (of(".weight_scale")?, of(".weight_bias")?);
        columns = Some((scale.1, shift.1));
        used.extend([(scale.0, Role::Scale), (shift.0, Role::Zero)]);
    }
    let layout = Quantized { outs, ins, outliers, main, outlier, order, columns };
    let mut weight = Laid::new(SCHEME, (outs, ins), layout);
    for (plane, role) in used {
        weight = weight.with(plane, role);
    }
    Ok(Some(Found::new(vec![outs, ins], weight)))
}

/// What the configuration says of a module.
struct Settings {
    outs: u64,
    ins: u64,
    outliers: u64,
    groups: u64,
    group_len: u64,
    /// Elements of a vector, entries of its book and of the residuals'; of outliers, then of the rest.
    vectors: [(u64, u64, u64); 2],
    packed: bool,
    permuted: bool,
    normed: bool,
}

impl Settings {
    fn read(module: &Value) -> Option<Self> {
        let size = |key: &str| module[key].as_u64().filter(|&size| size < 1 << 40);
        // -1 stands for none.
        let pair = |key: &str| -> Option<[u64; 2]> {
            let of = |i: usize| Some(u64::try_from(module[key].get(i)?.as_i64()?).unwrap_or(0));
            Some([of(0)?, of(1)?])
        };
        let lens = pair("vector_lens")?;
        let books = pair("num_centroids")?;
        let residuals = pair("num_res_centroids").unwrap_or([0, 0]);
        let flag = |key: &str| module[key].as_bool().unwrap_or(false);
        let along_outputs = module["vector_quant_dim"].as_str().unwrap_or("out") == "out";
        let settings = Self {
            outs: size("out_features")?,
            ins: size("in_features")?,
            outliers: size("outlier_size").unwrap_or(0),
            groups: size("group_num").unwrap_or(1),
            group_len: size("group_size")?,
            vectors: [0, 1].map(|i| (lens[i], books[i], residuals[i])),
            packed: module["is_indice_packed"].as_bool().unwrap_or(true),
            permuted: flag("enable_perm"),
            normed: flag("enable_norm"),
        };
        let [_, (len, entries, _)] = settings.vectors;
        let sane = |&(len, entries, residuals): &(u64, u64, u64)| {
            len <= 1 << 16 && entries <= 1 << 16 && residuals <= 1 << 16
        };
        let whole = settings.group_len > 0 && settings.groups > 0 && len > 0 && entries > 0;
        (along_outputs && whole && settings.vectors.iter().all(sane)).then_some(settings)
    }
}

/// How the indices of one kind of columns are stored.
#[derive(Debug)]
enum Indices {
    /// Streams of 32-bit words, the lowest bits first, index and residual index of each column.
    Packed {
        at: Extent,
        /// Words of a row of vectors.
        words: u64,
    },
    /// Sixteen bits an index, in planes of their own.
    Plain { index: Extent, residual: Option<Extent> },
}

/// Columns that share their books, group by group.
#[derive(Debug)]
struct Vectors {
    name: String,
    indices: Indices,
    /// Columns of a group as they are stored.
    cols: u64,
    /// Rows of vectors.
    rows: u64,
    /// Elements of a vector.
    len: u64,
    /// Entries of the book, and of the residuals'.
    entries: [u64; 2],
    book: Book,
    residuals: Option<Book>,
}

/// Bits that an index takes.
fn index_bits(entries: u64) -> u32 {
    entries.next_power_of_two().trailing_zeros()
}

impl Vectors {
    fn main<'a>(
        group: &'a Group,
        settings: &Settings,
        used: &mut Vec<(&'a Plane, Role)>,
    ) -> Result<Self, Trouble> {
        let (len, entries, residual_entries) = settings.vectors[1];
        let Settings { groups, group_len: cols, .. } = *settings;
        let plane = group.need(SCHEME, ".indices")?;
        let rows = settings.outs.div_ceil(len);
        used.push((plane, Role::Codes));
        let indices = if settings.packed {
            let bits = u64::from(index_bits(entries) + residual_bits(residual_entries));
            let words = cols.saturating_mul(bits).div_ceil(32);
            if plane.ty != TensorType::I32 || plane.shape != [groups, rows, words] {
                let message = format!(
                    "is {} {:?}, not I32 {:?}: {bits} bits an index",
                    plane.ty,
                    plane.shape,
                    [groups, rows, words]
                );
                return Err(group.fault(SCHEME, ".indices", message));
            }
            Indices::Packed { at: plane.at, words }
        } else {
            let index = plain(group, ".indices", [groups, rows, cols])?;
            let mut residual = None;
            if residual_entries > 0 {
                residual = Some(plain(group, ".res_indices", [groups, rows, cols])?);
                used.push((group.need(SCHEME, ".res_indices")?, Role::Codes));
            }
            Indices::Plain { index, residual }
        };
        let book = book_of(group, ".centroids.weight", groups, entries * len, used)?;
        let residuals = match residual_entries {
            0 => None,
            n => Some(book_of(group, ".res_centroids.weight", groups, n * len, used)?),
        };
        let entries = [entries, residual_entries];
        let name = plane.name.clone();
        Ok(Self { name, indices, cols, rows, len, entries, book, residuals })
    }

    fn outliers<'a>(
        group: &'a Group,
        settings: &Settings,
        used: &mut Vec<(&'a Plane, Role)>,
    ) -> Result<Self, Trouble> {
        let (len, entries, _) = settings.vectors[0];
        let plane = group.need(SCHEME, ".outlier_indices")?;
        if len == 0 || entries == 0 {
            let message = "is there, but the configuration gives outliers no vectors";
            return Err(group.fault(SCHEME, ".outlier_indices", message));
        }
        let (rows, cols) = (settings.outs.div_ceil(len), settings.outliers);
        let index = plain(group, ".outlier_indices", [1, rows, cols])?;
        used.push((plane, Role::Codes));
        let book = book_of(group, ".outlier_centroids.weight", 1, entries * len, used)?;
        let indices = Indices::Plain { index, residual: None };
        let (name, entries) = (plane.name.clone(), [entries, 0]);
        Ok(Self { name, indices, cols, rows, len, entries, book, residuals: None })
    }

    /// Reads the indices of a row of vectors of a group, a pair for each column: `wanted` of them.
    fn read(
        &self,
        files: &[SourceFile],
        (group, row): (u64, u64),
        wanted: usize,
        scratch: &mut Scratch,
        pairs: &mut Vec<[u32; 2]>,
    ) -> Result<(), ReadError> {
        let line = group * self.rows + row;
        let mut bytes = scratch.take_bytes();
        pairs.clear();
        match &self.indices {
            Indices::Packed { at, words } => {
                bytes.resize(*words as usize * 4 + 8, 0);
                let end = bytes.len() - 8;
                files[at.file].read_at(at.offset + line * words * 4, &mut bytes[..end])?;
                let (low, high) = (index_bits(self.entries[0]), residual_bits(self.entries[1]));
                pairs.extend((0..wanted).map(|col| {
                    let bit = col * (low + high) as usize;
                    let run = bytes[bit / 8..bit / 8 + 8].try_into().unwrap_or_default();
                    let both = u64::from_le_bytes(run) >> (bit % 8);
                    let index = both & ((1 << low) - 1);
                    let residual = both >> low & ((1 << high) - 1);
                    [index as u32, residual as u32]
                }));
            }
            Indices::Plain { index, residual } => {
                bytes.resize(wanted * 2, 0);
                let place = line * self.cols * 2;
                files[index.file].read_at(index.offset + place, &mut bytes)?;
                let number = |bytes: &[u8]| little_endian(bytes, false) as u32;
                pairs.extend(bytes.chunks_exact(2).map(|bytes| [number(bytes), 0]));
                if let Some(residual) = residual {
                    files[residual.file].read_at(residual.offset + place, &mut bytes)?;
                    for (pair, bytes) in pairs.iter_mut().zip(bytes.chunks_exact(2)) {
                        pair[1] = number(bytes);
                    }
                }
            }
        }
        scratch.give_bytes(bytes);
        self.check(row, pairs)
    }

    /// Refuses an index beyond its book.
    fn check(&self, row: u64, pairs: &[[u32; 2]]) -> Result<(), ReadError> {
        for (col, pair) in pairs.iter().enumerate() {
            for (index, entries) in pair.iter().zip(self.entries) {
                if u64::from(*index) >= entries.max(1) {
                    return Err(ReadError::Corrupt(format!(
                        "{:?} names vector {index} in column {col} of row {row}, but the book has \
                         {entries}",
                        self.name
                    )));
                }
            }
        }
        Ok(())
    }

    /// A search through the books of a group.
    fn search<'a>(&self, books: &'a Books, group: usize) -> Search<'a> {
        let len = self.len as usize;
        let of = |values: &'a [f32], entries: u64| {
            let numbers = entries as usize * len;
            &values[group * numbers..(group + 1) * numbers]
        };
        let mut all = vec![of(&books.main.values, self.entries[0])];
        if let Some(residuals) = &books.residuals {
            all.push(of(&residuals.values, self.entries[1]));
        }
        Search { books: all, len }
    }

    /// Element `within` of the vectors of a group, one for each column.
    fn gather(
        &self,
        books: &Books,
        (group, within): (usize, usize),
        pairs: &[[u32; 2]],
        part: &mut [f32],
    ) {
        let len = self.len as usize;
        let begin = |entries: u64| group * entries as usize * len + within;
        let values = &books.main.values[begin(self.entries[0])..];
        for (value, [index, _]) in part.iter_mut().zip(pairs) {
            *value = values[*index as usize * len];
        }
        if let Some(residuals) = &books.residuals {
            let values = &residuals.values[begin(self.entries[1])..];
            for (value, [_, index]) in part.iter_mut().zip(pairs) {
                *value += values[*index as usize * len];
            }
        }
    }
}

/// The same of residuals, of which there may be none.
fn residual_bits(entries: u64) -> u32 {
    if entries == 0 { 0 } else { index_bits(entries) }
}

/// Indices of sixteen bits, whatever type they are said to have.
fn plain(group: &Group, suffix: &str, shape: [u64; 3]) -> Result<Extent, Trouble> {
    let plane = group.need(SCHEME, suffix)?;
    let wide = plane.ty.info().block_bytes == 2 && is_number(plane.ty);
    if !wide || plane.shape != shape {
        let message = format!("is {} {:?}, not 16-bit indices {shape:?}", plane.ty, plane.shape);
        return Err(group.fault(SCHEME, suffix, message));
    }
    Ok(plane.at)
}

/// A book of `len` numbers for each group.
fn book_of<'a>(
    group: &'a Group,
    suffix: &str,
    groups: u64,
    len: u64,
    used: &mut Vec<(&'a Plane, Role)>,
) -> Result<Book, Trouble> {
    let plane = group.need(SCHEME, suffix)?;
    let (Some((ty, Role::Scale)), true) = (scale_type(plane), plane.shape == [groups, len]) else {
        let message =
            format!("is {} {:?}, not {groups} books of {len} numbers", plane.ty, plane.shape);
        return Err(group.fault(SCHEME, suffix, message));
    };
    used.push((plane, Role::Book));
    Book::new(plane.at, ty, groups * len).map_err(|message| group.fault(SCHEME, suffix, message))
}

/// The layout: vectors along the outputs.
#[derive(Debug)]
struct Quantized {
    outs: u64,
    ins: u64,
    outliers: u64,
    main: Vectors,
    outlier: Option<Vectors>,
    order: Option<(String, Extent, TensorType)>,
    columns: Option<((Extent, TensorType), (Extent, TensorType))>,
}

impl Quantized {
    /// The stored column of each input.
    fn stored(&self, files: &[SourceFile], scratch: &mut Scratch) -> Result<Vec<u32>, ReadError> {
        let Some((name, at, ty)) = &self.order else { return Ok((0..self.ins as u32).collect()) };
        let width = ty.info().block_bytes;
        let mut bytes = scratch.take_bytes();
        bytes.resize(self.ins as usize * width, 0);
        files[at.file].read_at(at.offset, &mut bytes)?;
        let entries = bytes.chunks_exact(width).map(|bytes| little_endian(bytes, false) as usize);
        let places = inverse(name, entries);
        scratch.give_bytes(bytes);
        places
    }
}

impl Layout for Quantized {
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
        let stored = self.stored(files, scratch)?;
        let width = (cols.end - cols.start) as usize;
        let (mut line, mut scale, mut shift) =
            (scratch.take_floats(), scratch.take_floats(), scratch.take_floats());
        line.resize(self.ins as usize, 0.0);
        if let Some(((scale_at, scale_ty), (shift_at, shift_ty))) = self.columns {
            scale.resize(width, 0.0);
            shift.resize(width, 0.0);
            numbers(files, scale_at, scale_ty, cols.start, &mut scale, scratch)?;
            numbers(files, shift_at, shift_ty, cols.start, &mut shift, scratch)?;
        }
        let books = Books::take(&self.main, files, scratch)?;
        let outlier_books = match &self.outlier {
            Some(outlier) => Some(Books::take(outlier, files, scratch)?),
            None => None,
        };
        let mut main = Lines::default();
        let mut outlier = Lines::default();
        for (row, values) in rows.clone().zip(values.chunks_exact_mut(width)) {
            let (first, rest) = line.split_at_mut(self.outliers as usize);
            if let (Some(vectors), Some(books)) = (&self.outlier, &outlier_books) {
                outlier.write(vectors, books, files, row, scratch, first)?;
            }
            main.write(&self.main, &books, files, row, scratch, rest)?;
            let columns = &stored[cols.start as usize..cols.end as usize];
            for (value, &column) in values.iter_mut().zip(columns) {
                *value = line[column as usize];
            }
            if self.columns.is_some() {
                for ((value, scale), shift) in values.iter_mut().zip(&scale).zip(&shift) {
                    *value = *value * scale + shift;
                }
            }
        }
        books.give_back(scratch);
        if let Some(books) = outlier_books {
            books.give_back(scratch);
        }
        for buffer in [line, scale, shift] {
            scratch.give_floats(buffer);
        }
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
        let stored = self.stored(files, scratch)?;
        let width = (cols.end - cols.start) as usize;
        let (mut scale, mut shift) = (vec![1.0; width], vec![0.0; width]);
        if let Some(((scale_at, scale_ty), (shift_at, shift_ty))) = self.columns {
            numbers(files, scale_at, scale_ty, cols.start, &mut scale, scratch)?;
            numbers(files, shift_at, shift_ty, cols.start, &mut shift, scratch)?;
        }
        let kinds = self.outlier.iter().map(|vectors| (vectors, true));
        for (vectors, outliers) in kinds.chain([(&self.main, false)]) {
            // The columns of this kind, and the group of each.
            let columns: Vec<(usize, usize)> = stored[cols.start as usize..cols.end as usize]
                .iter()
                .enumerate()
                .filter(|(_, stored)| (u64::from(**stored) < self.outliers) == outliers)
                .map(|(col, stored)| {
                    let place = if outliers { 0 } else { u64::from(*stored) - self.outliers };
                    (col, (place / vectors.cols) as usize)
                })
                .collect();
            let books = Books::take(vectors, files, scratch)?;
            for (row, values) in rows.clone().zip(values.chunks_exact_mut(width)) {
                let lines = Reference { row, ins: self.ins, outs: self.outs, cols };
                let normed = (&scale[..], &shift[..]);
                lines.expect(vectors, &books, &columns, normed, read, scratch, values)?;
            }
            books.give_back(scratch);
        }
        Ok(true)
    }
}

/// A row of the reference, and those that share its vectors.
struct Reference<'a> {
    row: u64,
    ins: u64,
    outs: u64,
    cols: &'a Range<u64>,
}

impl Reference<'_> {
    /// Replaces the values of some columns by what a search through their books gives.
    #[allow(clippy::too_many_arguments, reason = "what a weight and its reference are made of")]
    fn expect(
        &self,
        vectors: &Vectors,
        books: &Books,
        columns: &[(usize, usize)],
        (scale, shift): (&[f32], &[f32]),
        read: ReadReference,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let width = values.len();
        let top = self.row / vectors.len * vectors.len;
        let height = (vectors.len.min(self.outs - top)) as usize;
        let mut lines = scratch.take_floats();
        lines.resize(height * width, 0.0);
        for (line, row) in lines.chunks_exact_mut(width).zip(top..) {
            let start = row * self.ins + self.cols.start;
            read(start..start + width as u64, scratch, line)?;
        }
        let within = (self.row - top) as usize;
        let (mut vector, mut sum) = (vec![0.0; height], vec![0.0; vectors.len as usize]);
        let mut error = Error::default();
        let mut found = Vec::new();
        let step = vectors.search(books, 0).step(columns.len());
        for &(col, group) in columns.iter().step_by(step) {
            for (element, line) in vector.iter_mut().zip(lines.chunks_exact(width)) {
                let value = (line[col] - shift[col]) / scale[col];
                *element = if value.is_finite() { value } else { 0.0 };
            }
            vectors.search(books, group).nearest(&vector, &mut sum);
            error.add(&vector, &sum);
            found.push((col, sum[within]));
        }
        let (distortion, signal) = error.distortion();
        for &(col, _) in columns {
            let (scale, shift) = (scale[col], shift[col]);
            let element = self.row * self.ins + self.cols.start + col as u64;
            let value = noisy(values[col] - shift, element, distortion, signal * scale);
            values[col] = value + shift;
        }
        for (col, sum) in found {
            values[col] = sum * scale[col] + shift[col];
        }
        scratch.give_floats(lines);
        Ok(())
    }
}

/// The books of one kind of columns.
struct Books {
    main: Loaded,
    residuals: Option<Loaded>,
}

impl Books {
    fn take(
        vectors: &Vectors,
        files: &[SourceFile],
        scratch: &mut Scratch,
    ) -> Result<Self, ReadError> {
        let main = vectors.book.take(files, scratch)?;
        let residuals = match &vectors.residuals {
            Some(book) => Some(book.take(files, scratch)?),
            None => None,
        };
        Ok(Self { main, residuals })
    }

    fn give_back(self, scratch: &mut Scratch) {
        self.main.give_back(scratch);
        if let Some(residuals) = self.residuals {
            residuals.give_back(scratch);
        }
    }
}

/// The indices of a row of vectors, which its rows of weights share.
#[derive(Default)]
struct Lines {
    row: Option<u64>,
    groups: Vec<Vec<[u32; 2]>>,
}

impl Lines {
    /// Writes a row of weights in the stored order of columns.
    fn write(
        &mut self,
        vectors: &Vectors,
        books: &Books,
        files: &[SourceFile],
        row: u64,
        scratch: &mut Scratch,
        line: &mut [f32],
    ) -> Result<(), ReadError> {
        let row_of_vectors = row / vectors.len;
        let parts = line.chunks_mut(vectors.cols as usize);
        if self.row != Some(row_of_vectors) {
            self.groups.resize_with(parts.len(), Vec::new);
            let lens = parts.map(|part| part.len()).collect::<Vec<usize>>();
            for (group, (pairs, wanted)) in self.groups.iter_mut().zip(lens).enumerate() {
                vectors.read(files, (group as u64, row_of_vectors), wanted, scratch, pairs)?;
            }
            self.row = Some(row_of_vectors);
        }
        let within = (row % vectors.len) as usize;
        let parts = line.chunks_mut(vectors.cols as usize);
        for (group, (pairs, part)) in self.groups.iter().zip(parts).enumerate() {
            vectors.gather(books, (group, within), pairs, part);
        }
        Ok(())
    }
}

/*!
EXL2: groups of input rows of falling bit width, in an order of their own, with 4-bit scales below a
largest scale of the group.

Outputs are padded to multiples of 32; the reference's shape says where the weight ends.
*/

use std::ops::Range;

use super::affine::{offset, scale_type, unsigned};
use super::codes::{Codes, Order, Packing};
use super::grid::{little_endian, numbers};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::Role;
use super::laid::{Laid, Layout};
use super::sound::rounded;
use crate::codec::TensorType;
use crate::model::{Extent, Plane, ReadError, ReadReference, Scratch, SourceFile};

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] = &[
    ".q_weight",
    ".q_groups",
    ".q_scale",
    ".q_scale_max",
    ".q_invperm",
    ".q_perm",
    ".q_group_map",
];

/// Suffixes that no other scheme has.
const OWN: &[&str] = &[".q_weight", ".q_groups", ".q_scale_max", ".q_invperm", ".q_perm"];

const SCHEME: &str = "EXL2";

/// Outputs that share a word of scales are padded to this many.
const PADDING: u64 = 32;

/// Rows that are decoded at a time.
const STRIP: u64 = 32;

/// Joins the groups of a matrix.
pub fn build(group: &Group, context: &Context) -> Match {
    if !OWN.iter().any(|suffix| group.has(suffix)) {
        return Ok(None);
    }
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let codes = group.need(SCHEME, ".q_weight")?;
    let table = group.need(SCHEME, ".q_groups")?;
    let scale = group.need(SCHEME, ".q_scale")?;
    let largest = group.need(SCHEME, ".q_scale_max")?;
    let order = match group.get(".q_perm") {
        Some(plane) if !group.has(".q_invperm") => Permutation::of(group, ".q_perm", plane, false)?,
        _ => Permutation::of(group, ".q_invperm", group.need(SCHEME, ".q_invperm")?, true)?,
    };
    let (&[words, outs], TensorType::I32) = (&codes.shape[..], codes.ty) else {
        let message = format!("is {} {:?}, not I32 [words, out]", codes.ty, codes.shape);
        return Err(misfit(".q_weight", message));
    };
    let spans = spans(group, context, table, (words, order.len))?;
    let count = spans.len() as u64;
    if scale.ty != TensorType::I32 || outs % 8 != 0 || scale.shape != [count, outs / 8] {
        let message =
            format!("is {} {:?} for {count} groups and {outs} outputs", scale.ty, scale.shape);
        return Err(misfit(".q_scale", message));
    }
    let Some((largest_ty, Role::Scale)) = scale_type(largest).filter(|_| largest.numel() == count)
    else {
        let message = format!("is {} {:?} for {count} groups", largest.ty, largest.shape);
        return Err(misfit(".q_scale_max", message));
    };
    let four_bits = Packing::Across { bits: 4, order: Order::LowFirst };
    let scales = Codes::new(scale.at, four_bits, 1, (count, outs / 2), (count, outs))
        .map_err(|message| misfit(".q_scale", message))?;
    let groups: Result<Vec<Part>, Trouble> = spans
        .iter()
        .map(|span| {
            let bytes = |words: u64| words * outs * 4;
            let at = Extent {
                offset: codes.at.offset + bytes(span.words.start),
                len: bytes(span.words.end - span.words.start),
                ..codes.at
            };
            let packing = Packing::Down { bits: span.bits, unit: 4, order: Order::LowFirst };
            let stored = (span.words.end - span.words.start, outs * 4);
            let size = (span.rows.end - span.rows.start, outs);
            let codes = Codes::new(at, packing, 1, stored, size)
                .map_err(|message| misfit(".q_groups", message))?;
            Ok(Part { codes, rows: span.rows.clone(), bits: span.bits })
        })
        .collect();
    let (ins, size) = (order.len, (outs, order.len));
    let layout = Mixed { groups: groups?, scales, largest: (largest.at, largest_ty), order };
    let mut weight = Laid::new(SCHEME, size, layout)
        .with(codes, Role::Codes)
        .with(table, Role::Setting)
        .with(scale, Role::Setting)
        .with(largest, Role::Scale);
    for suffix in [".q_invperm", ".q_perm", ".q_group_map"] {
        if let Some(plane) = group.get(suffix) {
            weight = weight.with(plane, Role::Setting);
        }
    }
    Ok(Some(Found::new(vec![outs, ins], weight.padded(PADDING, 1))))
}

/// What the table of groups says of one of them.
struct Span {
    bits: u32,
    words: Range<u64>,
    rows: Range<u64>,
}

/// Reads the table: the width and the first row of words of each group; the last takes the rest.
fn spans(
    group: &Group,
    context: &Context,
    table: &Plane,
    (words, ins): (u64, u64),
) -> Result<Vec<Span>, Trouble> {
    let misfit = |message: String| group.fault(SCHEME, ".q_groups", message);
    if table.ty != TensorType::I16 || table.numel() == 0 || !table.numel().is_multiple_of(2) {
        return Err(misfit(format!("is {} {:?}, not I16 pairs", table.ty, table.shape)));
    }
    let entries = context.integers(table)?;
    let (entries, _) = entries.as_chunks::<2>();
    // The first row may need all sixteen bits.
    let first = |entry: &[i64; 2]| u64::from(entry[1] as u16);
    let mut spans = Vec::with_capacity(entries.len());
    let mut row = 0;
    for (i, entry) in entries.iter().enumerate() {
        let start = first(entry);
        let next = entries.get(i + 1).map(first);
        let end = next.unwrap_or(words);
        let bits = u32::try_from(entry[0]).ok().filter(|bits| (1..=8).contains(bits));
        let (Some(bits), true) = (bits, start < end && end <= words && (i > 0 || start == 0))
        else {
            return Err(misfit(format!(
                "gives group {i} {} bits and the words {start} to {end} of {words}",
                entry[0]
            )));
        };
        let fit = (end - start) * 32 / u64::from(bits);
        let rows = if next.is_some() { fit } else { ins.saturating_sub(row) };
        if rows > fit || row + rows > ins {
            return Err(misfit(format!("has groups of more or fewer than {ins} rows")));
        }
        spans.push(Span { bits, words: start..end, rows: row..row + rows });
        row += rows;
    }
    if row == ins { Ok(spans) } else { Err(misfit(format!("has groups of {row} rows, not {ins}"))) }
}

/// Which stored row each input is.
#[derive(Debug)]
struct Permutation {
    name: String,
    at: Extent,
    ty: TensorType,
    len: u64,
    /// Entry i is the stored row of input i, not the input of stored row i.
    of_inputs: bool,
}

impl Permutation {
    fn of(group: &Group, suffix: &str, plane: &Plane, of_inputs: bool) -> Result<Self, Trouble> {
        let integers = matches!(plane.ty, TensorType::I32 | TensorType::I16);
        if !integers || plane.shape.len() != 1 || plane.numel() > u64::from(u32::MAX) {
            let message = format!("is {} {:?}, not one I32 an input", plane.ty, plane.shape);
            return Err(group.fault(SCHEME, suffix, message));
        }
        let (name, at, ty) = (plane.name.clone(), plane.at, plane.ty);
        Ok(Self { name, at, ty, len: plane.numel(), of_inputs })
    }

    /// The input of each stored row.
    fn inputs(&self, files: &[SourceFile], scratch: &mut Scratch) -> Result<Vec<u32>, ReadError> {
        let width = self.ty.info().block_bytes;
        let mut bytes = scratch.take_bytes();
        bytes.resize(self.len as usize * width, 0);
        files[self.at.file].read_at(self.at.offset, &mut bytes)?;
        let entries = bytes.chunks_exact(width).map(|bytes| little_endian(bytes, false) as usize);
        let inputs = if self.of_inputs {
            inverse(&self.name, entries)
        } else {
            let entries: Vec<usize> = entries.collect();
            // Inverted twice, so that it is known to be a permutation.
            inverse(&self.name, entries.iter().copied())
                .map(|_| entries.iter().map(|&entry| entry as u32).collect())
        };
        scratch.give_bytes(bytes);
        inputs
    }
}

/// Where each number of a permutation stands; an error if it is none.
pub fn inverse(
    name: &str,
    entries: impl ExactSizeIterator<Item = usize>,
) -> Result<Vec<u32>, ReadError> {
    let mut places = vec![u32::MAX; entries.len()];
    for (i, entry) in entries.enumerate() {
        match places.get_mut(entry) {
            Some(place) if *place == u32::MAX => *place = i as u32,
            _ => {
                let what = if entry < places.len() { "a second time" } else { "out of range" };
                let message = format!("{name:?} is no permutation: entry {i} is {entry}, {what}");
                return Err(ReadError::Corrupt(message));
            }
        }
    }
    Ok(places)
}

/// A group of rows of one width.
#[derive(Debug)]
struct Part {
    codes: Codes,
    rows: Range<u64>,
    bits: u32,
}

/// The layout: groups below each other, inputs as rows.
#[derive(Debug)]
struct Mixed {
    groups: Vec<Part>,
    scales: Codes,
    largest: (Extent, TensorType),
    order: Permutation,
}

impl Mixed {
    /// (code + 1)² times the group's largest scale over 256, for a run of outputs.
    fn scales(
        &self,
        files: &[SourceFile],
        group: u64,
        outs: &Range<u64>,
        scratch: &mut Scratch,
        scales: &mut [f32],
    ) -> Result<(), ReadError> {
        let mut largest = [0.0];
        numbers(files, self.largest.0, self.largest.1, group, &mut largest, scratch)?;
        let mut codes = scratch.take_bytes();
        codes.resize(scales.len(), 0);
        self.scales.read(files, 0, &(group..group + 1), outs, scratch, &mut codes)?;
        let table = unsigned();
        for (scale, &code) in scales.iter_mut().zip(&codes) {
            let root = table[usize::from(code)] + 1.0;
            *scale = root * root * largest[0] / 256.0;
        }
        scratch.give_bytes(codes);
        Ok(())
    }
}

impl Layout for Mixed {
    fn unit(&self) -> Option<(u64, u64)> {
        Some((1, 1))
    }

    fn rectangle(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let inputs = self.order.inputs(files, scratch)?;
        let (height, width) = ((rows.end - rows.start) as usize, (cols.end - cols.start) as usize);
        let (mut codes, mut scales) = (scratch.take_bytes(), scratch.take_floats());
        scales.resize(height, 0.0);
        for (index, part) in self.groups.iter().enumerate() {
            self.scales(files, index as u64, rows, scratch, &mut scales)?;
            let table = offset(part.bits);
            let len = part.rows.end - part.rows.start;
            for start in (0..len).step_by(STRIP as usize) {
                let strip = start..(start + STRIP).min(len);
                codes.resize((strip.end - strip.start) as usize * height, 0);
                part.codes.read(files, 0, &strip, rows, scratch, &mut codes)?;
                for (row, codes) in strip.zip(codes.chunks_exact(height)) {
                    let input = u64::from(inputs[(part.rows.start + row) as usize]);
                    if !cols.contains(&input) {
                        continue;
                    }
                    let column = values[(input - cols.start) as usize..].iter_mut().step_by(width);
                    for ((value, &code), scale) in column.zip(codes).zip(&scales) {
                        *value = scale * table[usize::from(code)];
                    }
                }
            }
        }
        scratch.give_bytes(codes);
        scratch.give_floats(scales);
        Ok(())
    }

    fn expect(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        _: ReadReference,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<bool, ReadError> {
        let inputs = self.order.inputs(files, scratch)?;
        let (height, width) = ((rows.end - rows.start) as usize, (cols.end - cols.start) as usize);
        let mut scales = scratch.take_floats();
        scales.resize(height, 0.0);
        for (index, part) in self.groups.iter().enumerate() {
            self.scales(files, index as u64, rows, scratch, &mut scales)?;
            for &input in &inputs[part.rows.start as usize..part.rows.end as usize] {
                if !cols.contains(&u64::from(input)) {
                    continue;
                }
                let start = (u64::from(input) - cols.start) as usize;
                let column = values[start..].iter_mut().step_by(width);
                for (value, scale) in column.zip(&scales) {
                    *value = rounded(*value, *scale, part.bits);
                }
            }
        }
        scratch.give_floats(scales);
        Ok(true)
    }
}

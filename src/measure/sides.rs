/*!
One chunk of the two tensors of a pair: read, decoded in blocks that stay in the first-level cache,
and summed up or compared at once.
*/

use std::fmt::Display;
use std::ops::Range;

use super::fold::Outcome;
use crate::codec::simd::Level;
use crate::codec::{Class, TensorType, TypeInfo};
use crate::metrics::{
    Layout, Origin, PIECE, Part, Rule, Sheet, Tally, Values, sum_rows, sum_rows_wide, unlike,
};
use crate::model::{ReadError, Scratch, SourceFile, Storage, Tensor};

/// Most elements that are decoded at a time: two sides of f32 in a first-level cache.
const RUN: u64 = 4096;

/// Buffers of one thread, kept from chunk to chunk.
#[derive(Default)]
pub struct Buffers {
    scratch: Scratch,
    reference: Buffer,
    quantized: Buffer,
    sheet: Sheet,
    /// Doubles of a run.
    wide: [Vec<f64>; 2],
}

/// Buffers of one side.
#[derive(Default)]
struct Buffer {
    /// The stored bytes of a chunk.
    bytes: Vec<u8>,
    /// Decoded values of a run, or of a chunk if the weight cannot be decoded in runs.
    values: Vec<f32>,
}

/// A tensor, and the files of its model.
pub type Side<'a> = (&'a Tensor, &'a [SourceFile]);

/// The two tensors of a job; their shapes are equal.
pub struct Sides<'a> {
    /// The reference.
    pub reference: Side<'a>,
    /// The quantized tensor.
    pub quantized: Side<'a>,
}

/// Why a side cannot be read: its part, its file, and what went wrong.
pub fn unreadable((tensor, files): Side, part: &str, error: &dyn Display) -> String {
    let error = error.to_string();
    let path = |file: &SourceFile| file.path.display().to_string();
    let path = match (tensor.extent().and_then(|at| files.get(at.file)), files) {
        (Some(file), _) | (None, [file]) => Some(path(file)),
        // Where a tensor of an unknown type ends, and so which file holds it, may not be known.
        (None, [first, .., last]) => Some(format!("(one of {} … {})", path(first), path(last))),
        (None, []) => None,
    };
    match path.filter(|path| !error.contains(path)) {
        Some(path) => format!("{part} {path}: {error}"),
        None => format!("{part}: {error}"),
    }
}

/// The float type that a tensor's values are stored in; `None` if it is quantized.
pub fn float_type(tensor: &Tensor) -> Option<TensorType> {
    let ty = match &tensor.storage {
        Storage::Plain { ty, .. } => *ty,
        Storage::Joined(weight) => TensorType::from_name(weight.scheme())?,
        Storage::Undecodable { .. } => return None,
    };
    (ty.info().class == Class::Float).then_some(ty)
}

/// What a conversion of `reference` may have changed; `None` if `quantized` is not stored as floats.
pub fn rule(reference: &Tensor, quantized: &Tensor) -> Option<Rule> {
    let computes = |tensor: &Tensor| match &tensor.storage {
        Storage::Joined(weight) => weight.computes(),
        _ => false,
    };
    let origin = match float_type(reference) {
        Some(ty) if !computes(reference) => Origin::Stored(ty),
        _ => Origin::Computed,
    };
    Rule::new(origin, float_type(quantized)?, computes(quantized))
}

fn is_double(tensor: &Tensor) -> bool {
    matches!(tensor.storage, Storage::Plain { ty: TensorType::F64, .. })
}

impl Sides<'_> {
    /// Sums up the elements of `range`, and counts those that a conversion does not explain.
    pub fn sum(
        &self,
        range: &Range<u64>,
        layout: Layout,
        level: Level,
        buffers: &mut Buffers,
    ) -> Result<Outcome, String> {
        let rule = rule(self.reference.0, self.quantized.0);
        if is_double(self.reference.0) || is_double(self.quantized.0) {
            return self.sum_doubles(range, layout, rule.as_ref(), buffers);
        }
        let Buffers { scratch, reference, quantized, sheet, .. } = buffers;
        let (r_source, r_values) = load(self.reference, range, layout, scratch, reference)
            .map_err(|error| unreadable(self.reference, "reference", &error))?;
        let (q_source, q_values) = load(self.quantized, range, layout, scratch, quantized)
            .map_err(|error| unreadable(self.quantized, "quantized", &error))?;
        let mut part = Part::new(layout, range);
        sheet.reset();
        let mut at = range.start;
        while at < range.end {
            let next = run_end(at, range.end, layout.row_len);
            let run = (at - range.start) as usize..(next - range.start) as usize;
            let len = run.len();
            let r = r_source.values(run.clone(), r_values);
            let q = q_source.values(run, q_values);
            sum_rows(level, r, q, layout.row_len as usize, sheet);
            if let Some(rule) = &rule {
                part.unlike(&conversion(level, rule, (r, q), sheet, at));
            }
            if part.take(sheet, len as u64) {
                for (index, (r, q)) in (at..).zip(r.iter().zip(q.iter())) {
                    part.nonfinite(index, !r.is_finite(), !q.is_finite());
                }
            }
            at = next;
        }
        Ok(Outcome::Values(part))
    }

    /// The same in double precision, where one side is stored so.
    fn sum_doubles(
        &self,
        range: &Range<u64>,
        layout: Layout,
        rule: Option<&Rule>,
        buffers: &mut Buffers,
    ) -> Result<Outcome, String> {
        let Buffers { scratch, reference, quantized, sheet, wide: [r, q] } = buffers;
        let mut part = Part::new(layout, range);
        sheet.reset();
        let mut at = range.start;
        while at < range.end {
            let next = run_end(at, range.end, layout.row_len);
            doubles(self.reference, at..next, scratch, reference, r)
                .map_err(|error| format!("reference: {error}"))?;
            doubles(self.quantized, at..next, scratch, quantized, q)
                .map_err(|error| format!("quantized: {error}"))?;
            sum_rows_wide(r, q, layout.row_len as usize, sheet);
            if let Some(rule) = rule {
                let largest = r.iter().fold(0.0, |most, r| r.abs().max(most));
                let rule = rule.for_run(largest);
                let mut tally = Tally::default();
                for (index, (r, q)) in (at..).zip(r.iter().zip(q.iter())) {
                    if !rule.allows(*r, *q) {
                        tally.count += 1;
                        tally.first = tally.first.or(Some(index));
                    }
                }
                part.unlike(&tally);
            }
            if part.take(sheet, next - at) {
                for (index, (r, q)) in (at..).zip(r.iter().zip(q.iter())) {
                    part.nonfinite(index, !r.is_finite(), !q.is_finite());
                }
            }
            at = next;
        }
        Ok(Outcome::Values(part))
    }

    /// Compares the elements of `range` bit for bit.
    pub fn compare(&self, range: &Range<u64>, buffers: &mut Buffers) -> Result<Outcome, String> {
        let (r, width) = read_stored(self.reference, range, &mut buffers.reference.bytes)
            .map_err(|error| unreadable(self.reference, "reference", &error))?;
        let (q, _) = read_stored(self.quantized, range, &mut buffers.quantized.bytes)
            .map_err(|error| unreadable(self.quantized, "quantized", &error))?;
        let first = if r == q { None } else { r.iter().zip(q).position(|(r, q)| r != q) };
        let first_difference = first.map(|at| range.start + (at / width) as u64);
        Ok(Outcome::Exact { first_difference })
    }
}

/// The elements of a run, the first of which is `start`, that a conversion does not explain. A run
/// without any error needs no look, and one of a rule that allows none only if there is one.
fn conversion(
    level: Level,
    rule: &Rule,
    (r, q): (Values, Values),
    sheet: &Sheet,
    start: u64,
) -> Tally {
    if sheet.pieces.iter().all(|piece| piece.ee() == 0.0) {
        return Tally::default();
    }
    let found = unlike(level, rule, r, q);
    Tally { first: found.first.map(|at| start + at), ..found }
}

/// Reads a run as doubles.
fn doubles(
    (tensor, files): Side,
    range: Range<u64>,
    scratch: &mut Scratch,
    buffer: &mut Buffer,
    values: &mut Vec<f64>,
) -> Result<(), ReadError> {
    values.clear();
    if is_double(tensor) {
        let (bytes, _) = read_stored((tensor, files), &range, &mut buffer.bytes)?;
        values.extend(bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)));
    } else {
        let singles = at_least(&mut buffer.values, (range.end - range.start) as usize);
        tensor.decode(files, range, scratch, singles)?;
        values.extend(singles.iter().map(|value| f64::from(*value)));
    }
    Ok(())
}

/// Where the run that begins at `at` ends: whole rows if they are short, whole pieces of one row.
fn run_end(at: u64, end: u64, row_len: u64) -> u64 {
    let len =
        if row_len <= RUN { RUN / row_len * row_len } else { RUN.min(row_len - at % row_len) };
    (at + len).min(end)
}

/// A chunk of one side, ready to be taken in runs.
enum Source<'a> {
    /// Values that a kernel can take as they are.
    Whole(Values<'a>),
    /// Blocks to decode run by run.
    Blocks(&'static TypeInfo, &'a [u8]),
}

impl Source<'_> {
    /// The values of a run, decoded into `values` if need be.
    fn values<'v>(&'v self, run: Range<usize>, values: &'v mut [f32]) -> Values<'v> {
        match self {
            Self::Whole(whole) => whole.slice(run),
            Self::Blocks(row, bytes) => {
                let stored = |at: usize| at / row.block_len * row.block_bytes;
                let values = &mut values[..run.len()];
                if let Some(decode) = row.decode {
                    decode(&bytes[stored(run.start)..stored(run.end)], values);
                }
                Values::Decoded(values)
            }
        }
    }
}

/// Reads the chunk's stored bytes, or its values if those cannot be had block by block. The second
/// result is where runs are to be decoded.
fn load<'b>(
    (tensor, files): Side,
    range: &Range<u64>,
    layout: Layout,
    scratch: &mut Scratch,
    buffer: &'b mut Buffer,
) -> Result<(Source<'b>, &'b mut [f32]), ReadError> {
    let Buffer { bytes, values } = buffer;
    if let Storage::Plain { ty, .. } = tensor.storage
        && ty.info().class != Class::Exact
        && ty.info().decode.is_some()
        && cuts_at_blocks(ty, layout)
    {
        let (bytes, _) = read_stored((tensor, files), range, bytes)?;
        let source = match ty {
            TensorType::F32 => Source::Whole(Values::F32(bytes)),
            TensorType::F16 => Source::Whole(Values::F16(bytes)),
            TensorType::BF16 => Source::Whole(Values::BF16(bytes)),
            _ => Source::Blocks(ty.info(), bytes),
        };
        return Ok((source, at_least(values, RUN as usize)));
    }
    let values = at_least(values, (range.end - range.start) as usize);
    tensor.decode(files, range.clone(), scratch, values)?;
    Ok((Source::Whole(Values::Decoded(values)), &mut []))
}

/// True if every run begins and ends between blocks.
fn cuts_at_blocks(ty: TensorType, layout: Layout) -> bool {
    let len = ty.info().block_len;
    layout.row_len.is_multiple_of(len as u64) && PIECE.is_multiple_of(len)
}

/// Reads the stored bytes of whole blocks; also returns the bytes of a block.
fn read_stored<'b>(
    (tensor, files): Side,
    range: &Range<u64>,
    bytes: &'b mut Vec<u8>,
) -> Result<(&'b [u8], usize), ReadError> {
    let Storage::Plain { ty, at } = tensor.storage else {
        return Err(ReadError::Undecodable(format!("{} has no stored elements", tensor.qtype())));
    };
    let row = ty.info();
    let stored = |element: u64| element / row.block_len as u64 * row.block_bytes as u64;
    let start = stored(range.start);
    let bytes = at_least(bytes, (stored(range.end) - start) as usize);
    files[at.file].read_at(at.offset + start, bytes)?;
    Ok((bytes, row.block_bytes))
}

/// The first `len` places of a buffer that only ever grows, from a cache line's start on: vector
/// loads that cross lines are slow.
fn at_least<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    const LINE: usize = 64;
    let slack = LINE / size_of::<T>();
    if buffer.len() < len + slack {
        buffer.resize(len + slack, T::default());
    }
    let start = buffer.as_ptr().align_offset(LINE).min(slack);
    &mut buffer[start..start + len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_at_rows_or_at_pieces_of_one_row() {
        for (at, end, row_len, expected, why) in [
            (0, 65536, 1000, 4000, "whole rows"),
            (64000, 65000, 1000, 65000, "what is left"),
            (0, 65536, 5000, 4096, "pieces of a long row"),
            (4096, 65536, 5000, 5000, "the end of a long row"),
            (0, 3, 1, 3, "rows of one element"),
        ] {
            assert_eq!(run_end(at, end, row_len), expected, "{why}");
        }
    }
}

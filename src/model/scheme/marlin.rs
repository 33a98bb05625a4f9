/*!
Marlin: codes in the order in which the tensor cores of its kernel want them, in chunks of 16 rows of
inputs and 64 outputs; GPTQ's `marlin` format and the 2:4 sparse one of compressed-tensors, whose
metadata say which of the inputs were kept.

Symmetric codes alone, one scale for a group or for all inputs of an output, in an order of their own.
*/

use std::ops::Range;

use super::affine::scale_type;
use super::grid::numbers;
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::Role;
use super::laid::{Laid, Layout};
use super::sound::{pruned, rounded};
use crate::codec::TensorType;
use crate::model::{Extent, Plane, ReadError, ReadReference, Scratch, SourceFile};

/// Every suffix of GPTQ's format.
pub const SUFFIXES: &[&str] = &[".B", ".s", ".workspace"];

/// Every suffix of the sparse format, of compressed-tensors and of GPTQ.
pub const SPARSE_SUFFIXES: &[&str] =
    &[".weight_packed", ".scale_packed", ".meta", ".B_24", ".B_meta", ".s", ".workspace"];

/// Rows of stored codes of a chunk.
const ROWS: u64 = 16;

/// Outputs of a chunk.
const COLS: u64 = 64;

/// Codes of a chunk.
const CHUNK: usize = (ROWS * COLS) as usize;

/// How the kernel takes the codes of a word.
const NIBBLES: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// The same, of a word of four bytes.
const BYTES: [usize; 4] = [0, 2, 1, 3];

/// Rows of the codes that one thread of the kernel holds.
const LANES: [usize; 4] = [0, 1, 8, 9];

/// Joins GPTQ's marlin weights: (q - 8) * scale.
pub fn build(group: &Group, _: &Context) -> Match {
    const SCHEME: &str = "GPTQ4";
    let Some(codes) = group.get(".B") else { return Ok(None) };
    let (&[words, width], TensorType::I32) = (&codes.shape[..], codes.ty) else { return Ok(None) };
    let scale = group.need(SCHEME, ".s")?;
    let (ins, outs) = (words.saturating_mul(ROWS), width / 2);
    let places = dense_places();
    let tiled = Tiled::new(group, SCHEME, (".B", codes), (".s", scale), (ins, outs), 4, places)?;
    let groups = tiled.groups;
    let columns = std::array::from_fn(|x| {
        if groups > 1 {
            x / 8 + 8 * (x % 8)
        } else {
            let x = x % 32;
            x / 8 * 2 + [0, 1, 8, 9, 16, 17, 24, 25][x % 8]
        }
    });
    let period = if groups > 1 { 64 } else { 32 };
    let tiled = tiled.with_scales(&columns, period);
    Ok(Some(finish(group, SCHEME, tiled, &[".B", ".s"], (outs, ins))))
}

/// Joins 2:4 sparse marlin weights of four or eight bits: (q - half) * scale where a weight was kept.
pub fn build_sparse(group: &Group, _: &Context) -> Match {
    const SCHEME: &str = "SPARSE24-INT4";
    let names = [[".weight_packed", ".scale_packed", ".meta"], [".B_24", ".s", ".B_meta"]];
    let own = |names: &&[&'static str; 3]| {
        group.has(names[0]) && (group.has(names[2]) || group.has(".scale_packed"))
            || names[2] == ".B_meta" && group.has(".B_24")
    };
    let Some(&[codes_suffix, scale_suffix, meta_suffix]) = names.iter().find(own) else {
        return Ok(None);
    };
    let codes = group.need(SCHEME, codes_suffix)?;
    let scale = group.need(SCHEME, scale_suffix)?;
    let meta = group.need(SCHEME, meta_suffix)?;
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let (&[words, width], &[_, outs]) = (&codes.shape[..], &scale.shape[..]) else {
        let message = format!("has shape {:?}: no matrix", codes.shape);
        return Err(misfit(codes_suffix, message));
    };
    let bits = [4u32, 8]
        .into_iter()
        .find(|bits| width.checked_mul(2) == outs.checked_mul(u64::from(*bits)));
    let Some(bits) = bits.filter(|_| codes.ty == TensorType::I32) else {
        let message = format!(
            "is {} {:?}: neither 4 nor 8 bits for the {outs} outputs of the scales",
            codes.ty, codes.shape
        );
        return Err(misfit(codes_suffix, message));
    };
    if meta.ty != TensorType::I16 || meta.shape != [words, outs.saturating_mul(2)] {
        let message = format!("is {} {:?}, not I16 {:?}", meta.ty, meta.shape, [words, outs * 2]);
        return Err(misfit(meta_suffix, message));
    }
    let scheme = if bits == 4 { SCHEME } else { "SPARSE24-INT8" };
    let ins = words.saturating_mul(2 * ROWS);
    let (codes, scale) = ((codes_suffix, codes), (scale_suffix, scale));
    let mut tiled =
        Tiled::new(group, scheme, codes, scale, (ins, outs), bits, sparse_places(bits))?;
    tiled.meta = Some(Meta { name: meta.name.clone(), at: meta.at });
    // The tool compares the group with the kept half.
    let grouped = ins / tiled.groups < ins / 2;
    let columns =
        std::array::from_fn(
            |x| {
                if grouped { x / 8 * 8 + [0, 4, 1, 5, 2, 6, 3, 7][x % 8] } else { x }
            },
        );
    let used = [codes_suffix, scale_suffix, meta_suffix];
    Ok(Some(finish(group, scheme, tiled.with_scales(&columns, 64), &used, (outs, ins))))
}

/// The weight with its planes.
fn finish(
    group: &Group,
    scheme: &str,
    tiled: Tiled,
    used: &[&'static str],
    size: (u64, u64),
) -> Found {
    let mut weight = Laid::new(scheme, size, tiled);
    for suffix in used.iter().chain(&[".workspace"]) {
        let role = match *suffix {
            ".s" | ".scale_packed" => Role::Scale,
            ".B" | ".B_24" | ".weight_packed" => Role::Codes,
            _ => Role::Setting,
        };
        if let Some(plane) = group.get(suffix) {
            weight = weight.with(plane, role);
        }
    }
    Found::new(vec![size.0, size.1], weight)
}

/// Row and output in a chunk of the code at each place, for each place of four bits.
fn dense_places() -> Vec<(u8, u8)> {
    let place = |p: usize| {
        let (a, u) = (p / 8, NIBBLES[p % 8]);
        let (i, j) = (a / 4, a % 4);
        (2 * (i % 4) + LANES[u % 4], 16 * j + i / 4 + 8 * (u / 4))
    };
    (0..CHUNK).map(place).map(|(row, col)| (row as u8, col as u8)).collect()
}

/// The same of the sparse format.
fn sparse_places(bits: u32) -> Vec<(u8, u8)> {
    let order: &[usize] = if bits == 4 { &NIBBLES } else { &BYTES };
    let place = |p: usize| {
        let q = p / order.len() * order.len() + order[p % order.len()];
        let (i, j, u) = (q / 32, q / 8 % 4, q % 8);
        let at =
            16 * (2 * (i % 4) + LANES[u % 4]) + 256 * (i / 8) + 8 * (i / 4 % 2) + 4 * (u / 4) + j;
        (at % 256 / 16, at / 256 * 16 + at % 16)
    };
    (0..CHUNK).map(place).map(|(row, col)| (row as u8, col as u8)).collect()
}

/// The layout: rows of chunks.
#[derive(Debug)]
struct Tiled {
    codes: Extent,
    bits: u32,
    /// Where the codes of a chunk belong.
    places: Vec<(u8, u8)>,
    outs: u64,
    scale: (Extent, TensorType),
    /// Groups of inputs, and inputs of a group.
    groups: u64,
    group_len: u64,
    /// Where in a run of stored scales that of each output is.
    scale_places: Vec<usize>,
    /// Which inputs were kept, if not all were.
    meta: Option<Meta>,
}

impl Tiled {
    fn new(
        group: &Group,
        scheme: &str,
        (codes_suffix, codes): (&str, &Plane),
        (scale_suffix, scale): (&str, &Plane),
        (ins, outs): (u64, u64),
        bits: u32,
        places: Vec<(u8, u8)>,
    ) -> Result<Self, Trouble> {
        let whole = outs % COLS == 0 && outs > 0 && ins > 0;
        let chunk = CHUNK as u64 * u64::from(bits) / 8;
        let chunks = codes.shape.first().and_then(|rows| rows.checked_mul(outs / COLS));
        if !whole || chunks.and_then(|n| n.checked_mul(chunk)) != Some(codes.at.len) {
            let message = format!(
                "has shape {:?}, which is not chunks of {ROWS} x {COLS} codes of {bits} bits",
                codes.shape
            );
            return Err(group.fault(scheme, codes_suffix, message));
        }
        let (&[groups, stored], Some((ty, Role::Scale))) = (&scale.shape[..], scale_type(scale))
        else {
            let message = format!("is {} {:?}, not scales", scale.ty, scale.shape);
            return Err(group.fault(scheme, scale_suffix, message));
        };
        let chunk_ins = ins / codes.shape[0];
        if stored != outs || groups == 0 || ins % groups != 0 || ins / groups % chunk_ins != 0 {
            let message =
                format!("has shape {:?} for {ins} inputs and {outs} outputs", scale.shape);
            return Err(group.fault(scheme, scale_suffix, message));
        }
        Ok(Self {
            codes: codes.at,
            bits,
            places,
            outs,
            scale: (scale.at, ty),
            groups,
            group_len: ins / groups,
            scale_places: Vec::new(),
            meta: None,
        })
    }

    /// `columns` says which output of a run of `period` each stored scale belongs to.
    fn with_scales(mut self, columns: &[usize; 64], period: usize) -> Self {
        self.scale_places = vec![0; period];
        for (x, &column) in columns[..period].iter().enumerate() {
            self.scale_places[column] = x;
        }
        self
    }

    /// Inputs of a row of chunks.
    fn chunk_ins(&self) -> u64 {
        if self.meta.is_some() { 2 * ROWS } else { ROWS }
    }

    /// The scales of a run of outputs in a group.
    fn scales(
        &self,
        files: &[SourceFile],
        group: u64,
        outs: &Range<u64>,
        scratch: &mut Scratch,
        scales: &mut [f32],
    ) -> Result<(), ReadError> {
        let mut stored = scratch.take_floats();
        stored.resize(scales.len(), 0.0);
        let (at, ty) = self.scale;
        numbers(files, at, ty, group * self.outs + outs.start, &mut stored, scratch)?;
        let period = self.scale_places.len();
        for (runs, stored) in scales.chunks_mut(period).zip(stored.chunks(period)) {
            for (scale, &place) in runs.iter_mut().zip(&self.scale_places) {
                *scale = stored[place];
            }
        }
        scratch.give_floats(stored);
        Ok(())
    }

    /// The codes of a row of chunks, less half their range: `outs` outputs in each of 16 rows.
    fn codes(
        &self,
        files: &[SourceFile],
        row: u64,
        outs: &Range<u64>,
        scratch: &mut Scratch,
        codes: &mut [f32],
    ) -> Result<(), ReadError> {
        let chunk_bytes = CHUNK * self.bits as usize / 8;
        let count = codes.len() / CHUNK;
        let mut bytes = scratch.take_bytes();
        bytes.resize(count * chunk_bytes, 0);
        let chunk = row * (self.outs / COLS) + outs.start / COLS;
        let at = self.codes.offset + chunk * chunk_bytes as u64;
        files[self.codes.file].read_at(at, &mut bytes)?;
        let width = (outs.end - outs.start) as usize;
        let half = 1i32 << (self.bits - 1);
        for (index, bytes) in bytes.chunks_exact(chunk_bytes).enumerate() {
            for (p, &(row, col)) in self.places.iter().enumerate() {
                let code = match self.bits {
                    4 => bytes[p / 2] >> (p % 2 * 4) & 15,
                    _ => bytes[p],
                };
                let at = usize::from(row) * width + index * COLS as usize + usize::from(col);
                codes[at] = (i32::from(code) - half) as f32;
            }
        }
        scratch.give_bytes(bytes);
        Ok(())
    }
}

/// Metadata: four bits for each four inputs of an output, the places of the two that were kept.
#[derive(Debug)]
struct Meta {
    name: String,
    at: Extent,
}

/// The metadata of some outputs in a row of chunks.
struct Kept {
    words: Vec<u8>,
}

impl Meta {
    /// Reads a row for the outputs `outs` of `all`, which are whole chunks.
    fn read(
        &self,
        files: &[SourceFile],
        row: u64,
        all: u64,
        outs: &Range<u64>,
        scratch: &mut Scratch,
    ) -> Result<Kept, ReadError> {
        let mut words = scratch.take_bytes();
        words.resize((outs.end - outs.start) as usize * 4, 0);
        files[self.at.file].read_at(self.at.offset + (row * all + outs.start) * 4, &mut words)?;
        let kept = Kept { words };
        for out in 0..(outs.end - outs.start) as usize {
            for word in [0, 1].map(|half| kept.word(out, half)) {
                let same = |quad: u16| word >> (4 * quad) & 3 == word >> (4 * quad + 2) & 3;
                if let Some(quad) = (0..4).find(|&quad| same(quad)) {
                    return Err(ReadError::Corrupt(format!(
                        "{:?} keeps one input twice, of the four of output {} behind input {}",
                        self.name,
                        outs.start + out as u64,
                        row * 2 * ROWS + u64::from(quad) * 4
                    )));
                }
            }
        }
        Ok(kept)
    }
}

impl Kept {
    /// The word of sixteen inputs of an output, in the first or second half of the row.
    fn word(&self, out: usize, half: usize) -> u16 {
        let (chunk, out) = (out / 64, out % 64);
        let place = 2 * (out % 2) + out % 8 / 4 + 32 * (out % 4 / 2) + 4 * (out / 8);
        // Pairs of two by two words are turned.
        let (place, half) = match (place % 2, half) {
            (0, 1) => (place + 1, 0),
            (1, 0) => (place - 1, 1),
            same => (place, same.1),
        };
        let at = 2 * (2 * (chunk * 64 + place) + half);
        u16::from_le_bytes([self.words[at], self.words[at + 1]])
    }

    /// The input, of the row's 32, that stored row `row` of an output is.
    fn input(&self, out: usize, row: usize) -> usize {
        let quad = row / 2;
        let word = self.word(out, quad / 4);
        let nibble = word >> (4 * (quad % 4));
        4 * quad + usize::from(if row.is_multiple_of(2) { nibble & 3 } else { nibble >> 2 & 3 })
    }
}

impl Layout for Tiled {
    fn unit(&self) -> Option<(u64, u64)> {
        Some((COLS, self.chunk_ins()))
    }

    fn rectangle(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let (height, width) = ((rows.end - rows.start) as usize, (cols.end - cols.start) as usize);
        let (mut codes, mut scales) = (scratch.take_floats(), scratch.take_floats());
        codes.resize(height * ROWS as usize, 0.0);
        scales.resize(height, 0.0);
        let mut group = u64::MAX;
        values.fill(0.0);
        let step = self.chunk_ins();
        for start in cols.clone().step_by(step as usize) {
            self.codes(files, start / step, rows, scratch, &mut codes)?;
            if start / self.group_len != group {
                group = start / self.group_len;
                self.scales(files, group, rows, scratch, &mut scales)?;
            }
            let kept = match &self.meta {
                Some(meta) => Some(meta.read(files, start / step, self.outs, rows, scratch)?),
                None => None,
            };
            let at = (start - cols.start) as usize;
            for (row, codes) in codes.chunks_exact(height).enumerate() {
                let lines = values[at..].chunks_mut(width);
                for (out, ((line, code), scale)) in lines.zip(codes).zip(&scales).enumerate() {
                    let input = kept.as_ref().map_or(row, |kept| kept.input(out, row));
                    line[input] = scale * code;
                }
            }
            if let Some(kept) = kept {
                scratch.give_bytes(kept.words);
            }
        }
        scratch.give_floats(codes);
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
        if !cols.start.is_multiple_of(4) || !cols.end.is_multiple_of(4) {
            return Ok(false);
        }
        if self.meta.is_some() {
            pruned(values);
        }
        // Scales lie in runs of outputs.
        let period = self.scale_places.len() as u64;
        let outs = rows.start / period * period..rows.end.div_ceil(period) * period;
        let width = (cols.end - cols.start) as usize;
        let mut scales = scratch.take_floats();
        scales.resize((outs.end - outs.start) as usize, 0.0);
        let mut group = u64::MAX;
        for (input, col) in cols.clone().zip(0..) {
            if input / self.group_len != group {
                group = input / self.group_len;
                self.scales(files, group, &outs, scratch, &mut scales)?;
            }
            let scales = &scales[(rows.start - outs.start) as usize..];
            for (line, scale) in values.chunks_exact_mut(width).zip(scales) {
                line[col] = rounded(line[col], *scale, self.bits);
            }
        }
        scratch.give_floats(scales);
        Ok(true)
    }
}

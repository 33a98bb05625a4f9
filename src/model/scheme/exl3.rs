/*!
EXL3: weights rotated in blocks of 128 x 128 and coded as a trellis, tile by tile; and its quantized
embeddings, rotated in groups of 256 along each row.

Both are padded with zeros to whole blocks or groups; the reference's shape says where the weight ends.
*/

use std::ops::Range;

use super::affine::scale_type;
use super::grid::numbers;
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::Role;
use super::laid::{Laid, Layout};
use super::sound::noisy;
use crate::codec::TensorType;
use crate::codec::trellis::{BLOCK, Block, Codebook, GROUP, Rate, TILE, decode_group};
use crate::model::{Extent, Plane, ReadError, ReadReference, Scratch, SourceFile};

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] =
    &[".trellis", ".suh", ".svh", ".su", ".sv", ".mcg", ".mul1", ".signs", ".scale"];

/// Suffixes that no other scheme has.
const OWN: &[&str] = &[".trellis", ".suh", ".svh", ".mcg", ".mul1"];

const SCHEME: &str = "EXL3";

/// Joins a matrix (a trellis of three dimensions) or an embedding (two).
pub fn build(group: &Group, context: &Context) -> Match {
    if !OWN.iter().any(|suffix| group.has(suffix)) {
        return Ok(None);
    }
    let trellis = group.need(SCHEME, ".trellis")?;
    match trellis.shape[..] {
        [_, _, _] if trellis.ty == TensorType::I16 => matrix(group, context, trellis),
        [_, _] if trellis.ty == TensorType::I16 => embedding(group, trellis),
        _ => {
            let message = format!(
                "is {} {:?}, not I16 tiles of a matrix or groups of an embedding",
                trellis.ty, trellis.shape
            );
            Err(group.fault(SCHEME, ".trellis", message))
        }
    }
}

fn matrix(group: &Group, context: &Context, trellis: &Plane) -> Match {
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let &[row_tiles, col_tiles, words] = &trellis.shape[..] else { return Ok(None) };
    let (ins, outs) = (row_tiles * TILE as u64, col_tiles * TILE as u64);
    if group.has(".scale") {
        let reason = "its planes are those of a pre-release of exllamav3 (a tensor `scale`), which no \
                      release reads; convert the model again";
        return Err(Trouble::Refused { scheme: SCHEME.into(), reason: reason.into() });
    }
    let book = codebook(group)?;
    let rate = Rate::of_words(words).filter(|rate| rate.is_whole() || book == Codebook::Mul1);
    let rate = rate.ok_or_else(|| {
        let message =
            format!("has tiles of {words} words: no rate that the code book {book:?} has");
        misfit(".trellis", message)
    })?;
    if ins % BLOCK as u64 != 0 || outs % BLOCK as u64 != 0 || ins == 0 || outs == 0 {
        let message =
            format!("has {ins} inputs and {outs} outputs, which are not blocks of {BLOCK}");
        return Err(misfit(".trellis", message));
    }
    let inputs = factors(group, [".suh", ".su"], ins)?;
    let outputs = factors(group, [".svh", ".sv"], outs)?;
    let planes = [inputs.plane(), outputs.plane()].map(|(plane, role)| (plane.clone(), role));
    let layout = Matrix {
        at: trellis.at,
        ins,
        col_tiles,
        rate,
        book,
        inputs: inputs.source(),
        outputs: outputs.source(),
    };
    let mut weight = Laid::new(SCHEME, (outs, ins), layout).with(trellis, Role::Codes);
    for (plane, role) in planes {
        weight = weight.with(&plane, role);
    }
    let mut notes = Vec::new();
    for suffix in [".mcg", ".mul1"] {
        if let Some(plane) = group.get(suffix) {
            weight = weight.with(plane, Role::Setting);
            let stated = context.integers(plane)?.first().copied().unwrap_or(0) as u32;
            if stated != book.multiplier() {
                notes.push(format!(
                    "{}: states the multiplier {stated}; exllamav3 always takes {}, and so does qualm",
                    plane.name,
                    book.multiplier()
                ));
            }
        }
    }
    let weight = weight.padded(BLOCK as u64, BLOCK as u64);
    Ok(Some(Found { notes, ..Found::new(vec![outs, ins], weight) }))
}

/// The code book: told by which tensor is there.
fn codebook(group: &Group) -> Result<Codebook, Trouble> {
    match (group.has(".mcg"), group.has(".mul1")) {
        (false, false) => Ok(Codebook::ThreeInst),
        (true, false) => Ok(Codebook::Mcg),
        (false, true) => Ok(Codebook::Mul1),
        (true, true) => {
            let message = "is there beside .mul1, which names another code book";
            Err(group.fault(SCHEME, ".mcg", message))
        }
    }
}

/// Factors of inputs or outputs: numbers, or only their signs.
enum Factors<'a> {
    Numbers(&'a Plane, TensorType),
    Signs(&'a Plane),
}

/// Finds the factors of `len` inputs or outputs under their name or the old one.
fn factors<'a>(group: &'a Group, [new, old]: [&str; 2], len: u64) -> Result<Factors<'a>, Trouble> {
    if let (None, Some(plane)) = (group.get(new), group.get(old)) {
        let fits = plane.ty == TensorType::I16 && plane.numel() * 16 == len;
        let message = format!("is {} {:?}, not one bit for each of {len}", plane.ty, plane.shape);
        return fits
            .then_some(Factors::Signs(plane))
            .ok_or_else(|| group.fault(SCHEME, old, message));
    }
    let plane = group.need(SCHEME, new)?;
    match scale_type(plane) {
        Some((ty, Role::Scale)) if plane.numel() == len => Ok(Factors::Numbers(plane, ty)),
        _ => {
            let message =
                format!("is {} {:?}, not one factor for each of {len}", plane.ty, plane.shape);
            Err(group.fault(SCHEME, new, message))
        }
    }
}

impl Factors<'_> {
    fn plane(&self) -> (&Plane, Role) {
        match self {
            Self::Numbers(plane, _) => (plane, Role::Scale),
            Self::Signs(plane) => (plane, Role::Setting),
        }
    }

    fn source(&self) -> FactorSource {
        match self {
            Self::Numbers(plane, ty) => FactorSource::Numbers(plane.at, *ty),
            Self::Signs(plane) => FactorSource::Signs(plane.at),
        }
    }
}

/// Where the factors lie.
#[derive(Debug)]
enum FactorSource {
    Numbers(Extent, TensorType),
    /// Bit i % 16 of word i / 16 is set where factor i is -1.
    Signs(Extent),
}

impl FactorSource {
    fn read(
        &self,
        files: &[SourceFile],
        start: u64,
        scratch: &mut Scratch,
        factors: &mut [f32],
    ) -> Result<(), ReadError> {
        match self {
            Self::Numbers(at, ty) => numbers(files, *at, *ty, start, factors, scratch),
            Self::Signs(at) => {
                let first = (start % 8) as usize;
                let bytes = scratch.bytes((first + factors.len()).div_ceil(8));
                files[at.file].read_at(at.offset + start / 8, bytes)?;
                for (i, factor) in (first..).zip(factors.iter_mut()) {
                    *factor = if bytes[i / 8] >> (i % 8) & 1 == 0 { 1.0 } else { -1.0 };
                }
                Ok(())
            }
        }
    }
}

/// A matrix as it is stored: inputs as rows of tiles.
#[derive(Debug)]
struct Matrix {
    at: Extent,
    ins: u64,
    col_tiles: u64,
    rate: Rate,
    book: Codebook,
    inputs: FactorSource,
    outputs: FactorSource,
}

impl Matrix {
    /// Reads the tiles of the block whose first input and output are given.
    fn tiles(
        &self,
        files: &[SourceFile],
        (input, output): (u64, u64),
        tiles: &mut [u8],
    ) -> Result<(), ReadError> {
        let row = tiles.len() / (BLOCK / TILE);
        for (i, tiles) in tiles.chunks_exact_mut(row).enumerate() {
            let tile = (input / TILE as u64 + i as u64) * self.col_tiles + output / TILE as u64;
            let at = self.at.offset + tile * self.rate.tile_bytes() as u64;
            files[self.at.file].read_at(at, tiles)?;
        }
        Ok(())
    }
}

impl Layout for Matrix {
    fn unit(&self) -> Option<(u64, u64)> {
        Some((BLOCK as u64, BLOCK as u64))
    }

    fn rectangle(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let width = (cols.end - cols.start) as usize;
        let mut tiles = scratch.take_bytes();
        tiles.resize((BLOCK / TILE).pow(2) * self.rate.tile_bytes(), 0);
        let (mut work, mut block) = (scratch.take_floats(), scratch.take_floats());
        work.resize(BLOCK * BLOCK, 0.0);
        block.resize(BLOCK * BLOCK, 0.0);
        let (mut inputs, mut outputs) = ([0.0; BLOCK], [0.0; BLOCK]);
        let lines = values.chunks_exact_mut(BLOCK * width);
        for (output, lines) in rows.clone().step_by(BLOCK).zip(lines) {
            self.outputs.read(files, output, scratch, &mut outputs)?;
            for input in cols.clone().step_by(BLOCK) {
                self.inputs.read(files, input, scratch, &mut inputs)?;
                self.tiles(files, (input, output), &mut tiles)?;
                let (rate, values) = (self.rate, self.book.values());
                let (inputs, outputs) = (&inputs, &outputs);
                let coded = Block { tiles: &tiles, rate, values, inputs, outputs };
                coded.decode(&mut work, &mut block);
                let at = (input - cols.start) as usize;
                for (line, row) in lines.chunks_exact_mut(width).zip(block.as_chunks::<BLOCK>().0) {
                    line[at..at + BLOCK].copy_from_slice(row);
                }
            }
        }
        scratch.give_bytes(tiles);
        scratch.give_floats(work);
        scratch.give_floats(block);
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
        let width = (cols.end - cols.start) as usize;
        let mut inputs = scratch.take_floats();
        inputs.resize(width, 0.0);
        self.inputs.read(files, cols.start, scratch, &mut inputs)?;
        let distortion = Codebook::distortion(self.rate);
        for (row, line) in rows.clone().zip(values.chunks_exact_mut(width)) {
            let mut output = [0.0];
            self.outputs.read(files, row, scratch, &mut output)?;
            // The rotation spreads the noise evenly over a block; the factors are what is left.
            let signal = self.book.spread() * output[0];
            let element = row * self.ins + cols.start;
            for ((value, element), input) in line.iter_mut().zip(element..).zip(&inputs) {
                *value = noisy(*value, element, distortion, signal * input);
            }
        }
        scratch.give_floats(inputs);
        Ok(true)
    }
}

fn embedding(group: &Group, trellis: &Plane) -> Match {
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let &[rows, row_words] = &trellis.shape[..] else { return Ok(None) };
    let signs = group.need(SCHEME, ".signs")?;
    let (Some((ty, Role::Scale)), &[groups, 256]) = (scale_type(signs), &signs.shape[..]) else {
        let message = format!("is {} {:?}, not 256 signs a group", signs.ty, signs.shape);
        return Err(misfit(".signs", message));
    };
    // A scale, and sixteen words for each bit of a code.
    let bits = |bits: &u64| groups > 0 && groups.checked_mul(1 + 16 * bits) == Some(row_words);
    let Some(bits) = (1..=8).find(bits) else {
        let message = format!(
            "has {row_words} words a row, which no width from 1 to 8 bits gives for {groups} groups"
        );
        return Err(misfit(".trellis", message));
    };
    let layout = Embedding { at: trellis.at, groups, bits: bits as u32, signs: (signs.at, ty) };
    let cols = groups * GROUP as u64;
    let weight = Laid::new(SCHEME, (rows, cols), layout)
        .with(trellis, Role::Codes)
        .with(signs, Role::Scale)
        .padded(1, GROUP as u64);
    Ok(Some(Found::new(vec![rows, cols], weight)))
}

/// Rows of groups, each a scale and its codes.
#[derive(Debug)]
struct Embedding {
    at: Extent,
    groups: u64,
    bits: u32,
    signs: (Extent, TensorType),
}

impl Layout for Embedding {
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
        let side = GROUP as u64;
        let (first, last) = (cols.start / side, cols.end.div_ceil(side));
        let (signs_at, ty) = self.signs;
        let mut signs = scratch.take_floats();
        signs.resize((last - first) as usize * GROUP, 0.0);
        numbers(files, signs_at, ty, first * side, &mut signs, scratch)?;
        let group_bytes = 2 * (1 + 16 * self.bits as usize);
        let mut bytes = scratch.take_bytes();
        bytes.resize((last - first) as usize * group_bytes, 0);
        let width = (cols.end - cols.start) as usize;
        let mut group = [0.0; GROUP];
        for (row, values) in rows.clone().zip(values.chunks_exact_mut(width)) {
            let at = (row * self.groups + first) * group_bytes as u64;
            files[self.at.file].read_at(self.at.offset + at, &mut bytes)?;
            let groups = bytes.chunks_exact(group_bytes).zip(signs.as_chunks::<GROUP>().0);
            for (start, (bytes, signs)) in (first * side..).step_by(GROUP).zip(groups) {
                let (scale, words) = bytes.split_at(2);
                let scale = half::f16::from_le_bytes([scale[0], scale[1]]).to_f32();
                decode_group(words, self.bits, scale, signs, &mut group);
                let (from, to) = (start.max(cols.start), (start + side).min(cols.end));
                values[(from - cols.start) as usize..(to - cols.start) as usize]
                    .copy_from_slice(&group[(from - start) as usize..(to - start) as usize]);
            }
        }
        scratch.give_bytes(bytes);
        scratch.give_floats(signs);
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
        let width = (cols.end - cols.start) as usize;
        let mut signs = scratch.take_floats();
        signs.resize(width, 0.0);
        let (at, ty) = self.signs;
        numbers(files, at, ty, cols.start, &mut signs, scratch)?;
        let rate = Rate::of_words(16 * u64::from(self.bits));
        let distortion = rate.map_or(1.0, Codebook::distortion);
        let group_bytes = 2 * (1 + 16 * u64::from(self.bits));
        for (row, line) in rows.clone().zip(values.chunks_exact_mut(width)) {
            let mut start = cols.start;
            for run in runs(line, cols.start, GROUP as u64) {
                let mut scale = [0; 2];
                let group = row * self.groups + start / GROUP as u64;
                let place = self.at.offset + group * group_bytes;
                files[self.at.file].read_at(place, &mut scale)?;
                let signal = Codebook::Mul1.spread() * half::f16::from_le_bytes(scale).to_f32();
                let element = row * self.groups * GROUP as u64 + start;
                let signs = &signs[(start - cols.start) as usize..];
                start += run.len() as u64;
                for ((value, element), sign) in run.iter_mut().zip(element..).zip(signs) {
                    *value = noisy(*value, element, distortion, signal * sign);
                }
            }
        }
        scratch.give_floats(signs);
        Ok(true)
    }
}

/// Cuts a line that begins at column `start` where its groups end.
fn runs(line: &mut [f32], start: u64, len: u64) -> impl Iterator<Item = &mut [f32]> {
    let first = ((len - start % len) as usize).min(line.len());
    let (first, rest) = line.split_at_mut(first);
    std::iter::once(first).chain(rest.chunks_mut(len as usize))
}

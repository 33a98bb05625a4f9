/*!
Faults of stored bytes, undone on the bytes themselves: byte order, packing, labels, places, single
bits, data of a neighbour.
*/

use super::bench::{Bench, Noise, sqnr};
use super::{Cause, Diagnosis};
use crate::codec::{Class, TensorType};
use crate::model::{Extent, Format, Storage, Tensor};

/// Where in a block of a type its parts lie.
struct Parts {
    ty: TensorType,
    /// Offsets of two-byte scales.
    halves: &'static [usize],
    /// Bytes that are scales each.
    exponents: (usize, usize),
    /// Two codes a byte.
    codes: (usize, usize),
    /// Two scales a byte.
    scales: (usize, usize),
}

const fn parts(
    ty: TensorType,
    halves: &'static [usize],
    exponents: (usize, usize),
    codes: (usize, usize),
    scales: (usize, usize),
) -> Parts {
    Parts { ty, halves, exponents, codes, scales }
}

const NONE: (usize, usize) = (0, 0);

/// The layouts of ggml's blocks, as ggml-common.h has them.
const PARTS: &[Parts] = &[
    parts(TensorType::Q4_0, &[0], NONE, (2, 18), NONE),
    parts(TensorType::Q4_1, &[0, 2], NONE, (4, 20), NONE),
    parts(TensorType::Q5_0, &[0], NONE, (6, 22), NONE),
    parts(TensorType::Q5_1, &[0, 2], NONE, (8, 24), NONE),
    parts(TensorType::Q8_0, &[0], NONE, NONE, NONE),
    parts(TensorType::Q2_K, &[80, 82], NONE, NONE, (0, 16)),
    parts(TensorType::Q3_K, &[108], NONE, NONE, NONE),
    parts(TensorType::Q4_K, &[0, 2], NONE, (16, 144), NONE),
    parts(TensorType::Q5_K, &[0, 2], NONE, (48, 176), NONE),
    parts(TensorType::Q6_K, &[208], NONE, (0, 128), NONE),
    parts(TensorType::IQ2_XXS, &[0], NONE, NONE, NONE),
    parts(TensorType::IQ2_XS, &[0], NONE, NONE, (66, 74)),
    parts(TensorType::IQ2_S, &[0], NONE, NONE, (74, 82)),
    parts(TensorType::IQ3_XXS, &[0], NONE, NONE, NONE),
    parts(TensorType::IQ3_S, &[0], NONE, NONE, (106, 110)),
    parts(TensorType::IQ1_S, &[0], NONE, NONE, NONE),
    parts(TensorType::IQ4_NL, &[0], NONE, (2, 18), NONE),
    parts(TensorType::IQ4_XS, &[0], NONE, (8, 136), (4, 8)),
    parts(TensorType::TQ1_0, &[52], NONE, NONE, NONE),
    parts(TensorType::TQ2_0, &[64], NONE, NONE, NONE),
    parts(TensorType::MXFP4, &[], (0, 1), (1, 17), NONE),
    parts(TensorType::NVFP4, &[], (0, 4), (4, 36), NONE),
    parts(TensorType::Q1_0, &[0], NONE, NONE, NONE),
    parts(TensorType::Q2_0, &[0], NONE, NONE, NONE),
];

/// A tensor that is one run of bytes.
struct Stored<'a> {
    bench: &'a Bench<'a>,
    ty: TensorType,
    at: Extent,
}

impl<'a> Stored<'a> {
    fn of(bench: &'a Bench<'a>) -> Option<Self> {
        match &bench.subject.q().storage {
            Storage::Plain { ty, at } if ty.info().decode.is_some() => {
                let whole = bench.row_len.is_multiple_of(ty.info().block_len as u64);
                whole.then_some(Self { bench, ty: *ty, at: *at })
            }
            _ => None,
        }
    }

    fn parts(&self) -> Option<&'static Parts> {
        PARTS.iter().find(|parts| parts.ty == self.ty)
    }

    /// Bytes of elements.
    fn bytes_of(&self, elements: u64) -> u64 {
        let info = self.ty.info();
        elements / info.block_len as u64 * info.block_bytes as u64
    }

    /// The stored bytes of a row of the sample, from `shift` bytes beside their place.
    fn row(&self, at: usize, shift: i64) -> Option<Vec<u8>> {
        let start = self.bytes_of(self.bench.rows[at] * self.bench.row_len);
        let mut bytes = vec![0; self.bytes_of(self.bench.width as u64) as usize];
        let offset = (self.at.offset + start).checked_add_signed(shift)?;
        let inside =
            offset >= self.at.offset && offset + bytes.len() as u64 <= self.at.offset + self.at.len;
        // Beyond its own region there is a neighbour, of which only short tensors need a part.
        if !inside && self.bench.rows.len() > 4 {
            return None;
        }
        self.bench.subject.quantized.files[self.at.file].read_at(offset, &mut bytes).ok()?;
        Some(bytes)
    }

    /// What bytes decode to as `ty`.
    fn decode(ty: TensorType, bytes: &[u8], len: usize) -> Option<Vec<f32>> {
        let mut values = vec![0.0; len];
        (ty.info().decode?)(bytes, &mut values);
        Some(values)
    }

    /// SQNR of the sample with `change` done to the bytes of each row, which lie `shift` away.
    fn score(&self, ty: TensorType, shift: i64, change: impl Fn(&mut [u8])) -> Option<f64> {
        let mut noise = Noise::default();
        let mut read = 0;
        // The shift may lead beyond the region for the outermost rows.
        for at in 0..self.bench.rows.len() {
            let Some(mut bytes) = self.row(at, shift) else { continue };
            change(&mut bytes);
            let values = Self::decode(ty, &bytes, self.bench.width)?;
            let (r, _) = self.bench.row(at);
            r.iter().zip(&values).for_each(|(&r, &x)| noise.add(f64::from(r), f64::from(x)));
            read += 1;
        }
        (read * 2 > self.bench.rows.len()).then(|| noise.sqnr_db())
    }

    fn each_block(&self, change: impl Fn(&mut [u8])) -> impl Fn(&mut [u8]) {
        let len = self.ty.info().block_bytes;
        move |bytes: &mut [u8]| bytes.chunks_exact_mut(len).for_each(&change)
    }
}

fn swap_nibbles(bytes: &mut [u8], (from, to): (usize, usize)) {
    for byte in &mut bytes[from..to] {
        *byte = byte.rotate_left(4);
    }
}

/// Another label, byte order or packing of the same bytes.
pub fn read_otherwise(bench: &Bench) -> Option<Diagnosis> {
    let stored = Stored::of(bench)?;
    let sound = |score: Option<f64>| {
        score.filter(|&score| bench.is_sound(score) && !bench.is_sound(bench.actual()))
    };
    let found = |cause, how: &str, score: f64| {
        Some(Diagnosis::certain(cause, format!("{how}, {}", bench.score(score))))
    };
    for (from, to, cause) in [
        (TensorType::F16, TensorType::BF16, Cause::Bf16MisreadAsF16),
        (TensorType::BF16, TensorType::F16, Cause::F16MisreadAsBf16),
    ] {
        if stored.ty == from
            && let Some(score) = sound(stored.score(to, 0, |_| {}))
        {
            return found(cause, &format!("read as {to}"), score);
        }
    }
    let width = stored.ty.info().block_bytes;
    if stored.ty.info().class == Class::Float && width > 1 {
        let reverse = |bytes: &mut [u8]| bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        if let Some(score) = sound(stored.score(stored.ty, 0, reverse)) {
            return found(Cause::ByteSwapped, "read in the other byte order", score);
        }
    }
    let parts = stored.parts()?;
    if !parts.halves.is_empty() {
        let swap =
            stored.each_block(|block| parts.halves.iter().for_each(|&at| block.swap(at, at + 1)));
        if let Some(score) = sound(stored.score(stored.ty, 0, swap)) {
            return found(Cause::ByteSwapped, "with the scales in the other byte order", score);
        }
    }
    for (range, what) in [(parts.codes, "codes"), (parts.scales, "scales")] {
        let swap = stored.each_block(|block| swap_nibbles(block, range));
        if range != NONE
            && let Some(score) = sound(stored.score(stored.ty, 0, swap))
        {
            let how = format!("with the two {what} of every byte exchanged");
            return found(Cause::NibbleSwapped, &how, score);
        }
    }
    None
}

/// Data that begin at another byte than the header says.
pub fn misaligned(bench: &Bench) -> Option<Diagnosis> {
    let stored = Stored::of(bench)?;
    let gguf = bench.subject.quantized.format == Format::Gguf;
    let shifts: &[i64] =
        if gguf { &[-32, -96, -224, -16, -8, 32, 96, 224, 16, 8] } else { &[-8, 8] };
    for &shift in shifts {
        let score = stored.score(stored.ty, shift, |_| {})?;
        if bench.is_sound(score) && !bench.is_sound(bench.actual()) {
            let way = if shift < 0 { "before" } else { "behind" };
            let why = format!(
                "read {} bytes {way} the place that the header names, {}",
                shift.abs(),
                bench.score(score)
            );
            return Some(Diagnosis::certain(Cause::Misaligned, why));
        }
    }
    None
}

/// A tensor whose end is the beginning of the one that follows it in the file.
pub fn short_region(bench: &Bench) -> Option<Diagnosis> {
    /// Bytes by which the neighbour's beginning is recognized.
    const NEEDLE: usize = 64;
    let (model, at) = (bench.subject.quantized, bench.subject.q().extent()?);
    let next = following(&model.tensors, at)?;
    let end = at.offset + at.len;
    let tail = (at.len / 2).min(4 << 20) as usize;
    let mut haystack = vec![0; tail];
    model.files[at.file].read_at(end - tail as u64, &mut haystack).ok()?;
    let mut head = vec![0; tail.min(next.1.len as usize)];
    model.files[at.file].read_at(next.1.offset, &mut head).ok()?;
    let needle = head.get(..NEEDLE)?;
    // A run of one byte is found anywhere.
    if needle.iter().all(|byte| *byte == needle[0]) {
        return None;
    }
    let place = haystack.windows(NEEDLE).position(|window| window == needle)?;
    let overlap = haystack.len() - place;
    if overlap > head.len() || haystack[place..] != head[..overlap] {
        return None;
    }
    let why = format!("its last {overlap} bytes are the first of {}, which follows it", next.0);
    Some(Diagnosis::certain(Cause::ShortRegion, why))
}

/// The tensor that follows in the file.
fn following(tensors: &[Tensor], at: Extent) -> Option<(&str, Extent)> {
    let extents =
        tensors.iter().filter_map(|tensor| Some((tensor.name.as_str(), tensor.extent()?)));
    let after = extents.filter(|(_, it)| it.file == at.file && it.offset >= at.offset + at.len);
    after.min_by_key(|(_, it)| it.offset)
}

/// A bit of a scale: every bit of every scale of a bad block is tried.
pub fn flipped_bit(bench: &Bench, bad: &[usize]) -> Option<Diagnosis> {
    let stored = Stored::of(bench)?;
    let parts = stored.parts()?;
    let info = stored.ty.info();
    for &at in bad.iter().take(4) {
        let bytes = stored.row(at, 0)?;
        let twin = bench.twin_row(at);
        for (index, block) in bytes.chunks_exact(info.block_bytes).enumerate() {
            let range = index * info.block_len..(index + 1) * info.block_len;
            let (r, q) = (&bench.row(at).0[range.clone()], &bench.row(at).1[range.clone()]);
            let twin = twin.as_ref().map(|twin| &twin[range.clone()]);
            let had = sqnr(r, q);
            if bench.is_sound_beside(twin, r, q) {
                continue;
            }
            let halves = parts.halves.iter().flat_map(|&at| [at, at + 1]);
            for byte in halves.chain(parts.exponents.0..parts.exponents.1) {
                for bit in 0..8 {
                    let mut block = block.to_vec();
                    block[byte] ^= 1 << bit;
                    let values = Stored::decode(stored.ty, &block, info.block_len)?;
                    let score = sqnr(r, &values);
                    if !(bench.is_sound_beside(twin, r, &values) && score > had + 6.0) {
                        continue;
                    }
                    let half = parts.halves.iter().any(|&at| byte == at + 1);
                    let sign = half && bit == 7;
                    let cause = if sign { Cause::SignFlipped } else { Cause::ScaleBitFlip };
                    let why = format!(
                        "with bit {bit} of byte {byte} flipped, a scale, block {index} of row {} has \
                         {score:.1} dB where there was {had:.1}",
                        bench.rows[at]
                    );
                    return Some(Diagnosis::certain(cause, why));
                }
            }
        }
    }
    None
}

/// The minimums of all blocks of a type that has them are zero.
pub fn minimums_lost(bench: &Bench) -> Option<Diagnosis> {
    let stored = Stored::of(bench)?;
    if !super::scales::has_minimums(stored.ty) {
        return None;
    }
    let minimum = *stored.parts()?.halves.get(1)?;
    for at in 0..bench.rows.len() {
        let bytes = stored.row(at, 0)?;
        let mut blocks = bytes.chunks_exact(stored.ty.info().block_bytes);
        if blocks.any(|block| block[minimum] != 0 || block[minimum + 1] & 0x7f != 0) {
            return None;
        }
    }
    let negative =
        bench.r.iter().any(|&value| value < 0.0) && bench.q.iter().all(|&value| value >= 0.0);
    negative.then(|| {
        let why = "the minimum of every block is 0, although the reference has negative values";
        Diagnosis::certain(Cause::MinLost, why)
    })
}

/// An NVFP4 scale byte that is NaN in E4M3, which ggml reads as 0.
pub fn nan_byte(bench: &Bench, bad: &[usize]) -> Option<Diagnosis> {
    let at = match &bench.subject.q().storage {
        Storage::Plain { ty: TensorType::NVFP4, at } => *at,
        Storage::Joined(weight) => {
            let blocks = weight.planes().first()?;
            (blocks.ty == TensorType::NVFP4).then_some(blocks.at)?
        }
        _ => return None,
    };
    let stored = Stored { bench, ty: TensorType::NVFP4, at };
    for &place in bad {
        for (index, block) in stored.row(place, 0)?.chunks_exact(36).enumerate() {
            if let Some(byte) = block[..4].iter().find(|byte| **byte & 0x7f == 0x7f) {
                let why = format!(
                    "a scale in block {index} of row {} is the byte {byte:#04x}, which is NaN in E4M3 \
                     and read as 0",
                    bench.rows[place]
                );
                return Some(Diagnosis::certain(Cause::NanScale, why));
            }
        }
    }
    None
}

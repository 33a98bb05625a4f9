/*!
Sums of pieces, fast: one kernel an instruction set, straight from stored floats where it can.

[`piece_sums`] is the definition; every kernel gives its bits. What the machine has, and what
`QUALM_SIMD` asks for, is [`crate::codec::simd`]'s knowledge.
*/

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod quarters;
mod unlike;
mod widen;

pub use unlike::unlike;

use std::ops::Range;

use half::{bf16, f16};

use super::{PIECE, Sums, Total, piece_sums};
use crate::codec::simd::Level;

/// A run of values as a kernel takes them.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Decoded.
    Decoded(&'a [f32]),
    /// Stored little-endian f32.
    F32(&'a [u8]),
    /// Stored little-endian IEEE binary16.
    F16(&'a [u8]),
    /// Stored little-endian bfloat16.
    BF16(&'a [u8]),
}

impl<'a> Values<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Decoded(values) => values.len(),
            Self::F32(bytes) => bytes.len() / 4,
            Self::F16(bytes) | Self::BF16(bytes) => bytes.len() / 2,
        }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of a range, which must lie within the run.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Self::Decoded(values) => Self::Decoded(&values[range]),
            Self::F32(bytes) => Self::F32(&bytes[range.start * 4..range.end * 4]),
            Self::F16(bytes) => Self::F16(&bytes[range.start * 2..range.end * 2]),
            Self::BF16(bytes) => Self::BF16(&bytes[range.start * 2..range.end * 2]),
        }
    }

    /// Each value in turn.
    pub fn iter(self) -> impl Iterator<Item = f32> + 'a {
        (0..self.len()).map(move |index| self.at(index))
    }

    /// The value at `index`, which must be below the length.
    #[inline]
    fn at(&self, index: usize) -> f32 {
        match self {
            Self::Decoded(values) => values[index],
            Self::F32(bytes) => f32::from_le_bytes(bytes.as_chunks().0[index]),
            Self::F16(bytes) => f16::from_le_bytes(bytes.as_chunks().0[index]).to_f32(),
            Self::BF16(bytes) => bf16::from_le_bytes(bytes.as_chunks().0[index]).to_f32(),
        }
    }
}

/// Sums up a run of values with the kernel of an instruction set: rows of `row_len` values that begin
/// with the first one, the last of which may be shorter. The first row goes on from `sheet.row`.
///
/// Takes as many values as the shorter side has. Without the instruction set, and where the machine
/// lacks it, the portable kernel runs.
pub fn sum_rows(level: Level, r: Values, q: Values, row_len: usize, sheet: &mut Sheet) {
    let len = r.len().min(q.len());
    let row_len = row_len.max(1);
    sheet.pieces.clear();
    sheet.rows.clear();
    let rows = len.div_ceil(row_len);
    let pieces = len / row_len * row_len.div_ceil(PIECE) + (len % row_len).div_ceil(PIECE);
    sheet.rows.reserve(rows);
    sheet.pieces.reserve(pieces);
    // SAFETY: the instruction set is there, both sides hold `len` values, and there is room for `rows`
    // and `pieces`.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if level.is_available() => avx512::sum_rows(r, q, len, row_len, sheet),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 if level.is_available() => avx2::sum_rows(r, q, len, row_len, sheet),
            #[cfg(target_arch = "aarch64")]
            Level::Neon if level.is_available() => neon::sum_rows(r, q, len, row_len, sheet),
            _ => return portable::sum_rows(r, q, len, row_len, sheet),
        }
    }
    // SAFETY: these kernels have written all of them.
    unsafe {
        sheet.rows.set_len(rows);
        sheet.pieces.set_len(pieces);
    }
}

/// Sums up a run of doubles by the definition; see [`sum_rows`]. A rare type needs no kernel.
pub fn sum_rows_wide(r: &[f64], q: &[f64], row_len: usize, sheet: &mut Sheet) {
    sheet.pieces.clear();
    sheet.rows.clear();
    let mut row_sums = sheet.row;
    for (r, q) in r.chunks(row_len.max(1)).zip(q.chunks(row_len.max(1))) {
        for (r, q) in r.chunks(PIECE).zip(q.chunks(PIECE)) {
            let (sums, max_abs) = piece_sums(r.iter().copied().zip(q.iter().copied()));
            row_sums.add(&sums);
            sheet.total.add(&sums);
            sheet.max_abs = sheet.max_abs.max(max_abs);
            sheet.pieces.push(sums);
        }
        sheet.rows.push(row_sums);
        row_sums = Sums::default();
    }
}

/// What a kernel writes: the sums of each piece and row of a run, and of all runs so far.
#[derive(Debug, Default)]
pub struct Sheet {
    /// Sums of each piece of the last run.
    pub pieces: Vec<Sums>,
    /// Sums of each row of the last run, what earlier runs held of the first row included.
    pub rows: Vec<Sums>,
    /// What earlier runs held of the row with which the next run begins.
    pub row: Sums,
    /// Sums of all runs.
    pub total: Total,
    /// Largest |e| of all runs; NaN is passed over.
    pub max_abs: f64,
}

impl Sheet {
    /// Begins anew.
    pub fn reset(&mut self) {
        self.row = Sums::default();
        self.total = Total::default();
        self.max_abs = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, element by element.
    fn sum_rows_by_definition(r: Values, q: Values, len: usize, row_len: usize, sheet: &mut Sheet) {
        let mut row_sums = sheet.row;
        for row in (0..len).step_by(row_len) {
            let row_end = (row + row_len).min(len);
            for start in (row..row_end).step_by(PIECE) {
                let range = start..(start + PIECE).min(row_end);
                let (sums, max_abs) = piece_sums(range.map(|index| (r.at(index), q.at(index))));
                row_sums.add(&sums);
                sheet.total.add(&sums);
                sheet.max_abs = sheet.max_abs.max(max_abs);
                sheet.pieces.push(sums);
            }
            sheet.rows.push(row_sums);
            row_sums = Sums::default();
        }
    }

    /// Stored little-endian values of one side, in each form that a kernel takes.
    fn forms(values: &[f32]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let f32s = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f16s = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let bf16s = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        (f32s, f16s, bf16s)
    }

    fn sides<'a>(values: &'a [f32], stored: &'a (Vec<u8>, Vec<u8>, Vec<u8>)) -> [Values<'a>; 4] {
        let (f32s, f16s, bf16s) = stored;
        [Values::Decoded(values), Values::F32(f32s), Values::F16(f16s), Values::BF16(bf16s)]
    }

    /// Bits of everything a kernel gives, or the definition; every NaN is the same NaN.
    fn bits(level: Option<Level>, r: Values, q: Values, row_len: usize) -> (Vec<u64>, u64) {
        let bits = |x: f64| if x.is_nan() { u64::MAX } else { x.to_bits() };
        let mut sheet = Sheet { row: Sums([0.5; 8]), ..Sheet::default() };
        // Twice, so that the total does not begin with zero.
        for _ in 0..2 {
            if let Some(level) = level {
                sum_rows(level, r, q, row_len, &mut sheet);
            } else {
                sheet.pieces.clear();
                sheet.rows.clear();
                sum_rows_by_definition(r, q, r.len().min(q.len()), row_len, &mut sheet);
            }
        }
        let all = [&sheet.pieces, &sheet.rows, &vec![sheet.total.sums, sheet.total.lost]];
        (all.into_iter().flatten().flat_map(|sums| sums.0.map(bits)).collect(), bits(sheet.max_abs))
    }

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            8 => -1f32..1.0,
            1 => any::<u32>().prop_map(f32::from_bits),
            1 => prop_oneof![Just(0.0), Just(-0.0), Just(f32::INFINITY), Just(f32::NAN),
                Just(f32::MAX), Just(f32::MIN_POSITIVE), Just(f32::from_bits(1)), Just(65504.0)],
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..<_>::default() })]

        #[test]
        fn every_kernel_gives_the_bits_of_the_definition(
            pairs in prop::collection::vec((value(), value()), 0..1500),
            row_len in prop_oneof![1usize..40, 200usize..600, Just(2000)],
        ) {
            let (r, q): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let (stored_r, stored_q) = (forms(&r), forms(&q));
            for r in sides(&r, &stored_r) {
                for q in sides(&q, &stored_q) {
                    let expected = bits(None, r, q, row_len);
                    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                        prop_assert_eq!(&bits(Some(level), r, q, row_len), &expected, "{:?}", level);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_cut_into_pieces_from_their_start() {
        let ones = vec![1.0; 1000];
        for (row_len, expected) in [
            (1000, vec![256.0, 256.0, 256.0, 232.0]),
            (300, vec![256.0, 44.0, 256.0, 44.0, 256.0, 44.0, 100.0]),
            (500, vec![256.0, 244.0, 256.0, 244.0]),
        ] {
            for level in Level::ALL {
                let mut sheet = Sheet::default();
                let ones = Values::Decoded(&ones);
                sum_rows(level, ones, ones, row_len, &mut sheet);
                let counts: Vec<f64> = sheet.pieces.iter().map(Sums::rq).collect();
                assert_eq!(counts, expected, "{level:?}, rows of {row_len}");
            }
        }
    }
}

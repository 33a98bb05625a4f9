/*!
Encoders of the trellis types: the search of `encode_fit` with a book that has an entry for each
index, found by its cell.
*/

use std::sync::OnceLock;

use super::cells::Cells;
use super::encode_fit::{Book, Fit, Group, Run, by_deviation, importance};
use super::values::{TRELLIS_OFFSET, TRELLIS_SECOND, V4, trellis};

/// Elements of a super-block.
const LEN: usize = 256;

/// Elements that share a small scale.
const GROUP: usize = 32;

/// The standard deviation of the generator's values: four bytes of six bits each.
const DEVIATION: f32 = 36.95;

/// About the median of their magnitudes.
const MEDIAN: f32 = 24.5;

/// Eight elements an index.
struct Eights {
    book: &'static Cells<8>,
    magnitudes: bool,
}

fn eight(code: u32) -> [f32; 8] {
    trellis(code + TRELLIS_OFFSET)
}

fn eight_magnitudes(code: u32) -> [f32; 8] {
    eight(code).map(f32::abs)
}

impl Eights {
    /// Indices of 13 bits: `IQ1_KT`.
    fn of_13_bits() -> Self {
        static BOOK: OnceLock<Cells<8>> = OnceLock::new();
        let book = BOOK.get_or_init(|| Cells::new((0..1 << 13).map(eight), &[0.0]));
        Self { book, magnitudes: false }
    }

    /// Indices of 16 bits: `IQ2_KT`.
    fn of_16_bits() -> Self {
        static BOOK: OnceLock<Cells<8>> = OnceLock::new();
        let book = BOOK.get_or_init(|| Cells::new((0..1 << 16).map(eight), &[0.0]));
        Self { book, magnitudes: false }
    }

    /// Indices of 16 bits of which the magnitudes count: `IQ3_KT`.
    fn of_magnitudes() -> Self {
        static BOOK: OnceLock<Cells<8>> = OnceLock::new();
        let book = BOOK.get_or_init(|| Cells::new((0..1 << 16).map(eight_magnitudes), &[MEDIAN]));
        Self { book, magnitudes: true }
    }
}

impl Book<8> for Eights {
    const FORMS: usize = 1;

    fn nearest(&self, _form: usize, y: &[f32; 8], weights: &[f32; 8]) -> u32 {
        self.book.nearest(y, weights)
    }

    fn entry(&self, _form: usize, code: u32) -> [f32; 8] {
        if self.magnitudes { eight_magnitudes(code) } else { eight(code) }
    }

    fn first_scale(&self, x: &[f32], weights: &[f32]) -> f32 {
        by_deviation(self, DEVIATION, &[0.9, 1.05, 1.2], x, weights)
    }
}

/// Indices of 15 bits in two halves, four elements each: `IQ4_KT`.
struct Fours(&'static [Cells<4>; 2]);

fn four(form: usize, code: u32) -> [f32; 4] {
    trellis(code + TRELLIS_OFFSET + TRELLIS_SECOND * form as u32)
}

impl Fours {
    fn new() -> Self {
        static BOOKS: OnceLock<[Cells<4>; 2]> = OnceLock::new();
        let book =
            |form| Cells::new((0..1 << 15).map(|code| four(form, code)), &[-MEDIAN, 0.0, MEDIAN]);
        Self(BOOKS.get_or_init(|| [0, 1].map(book)))
    }
}

impl Book<4> for Fours {
    const FORMS: usize = 2;

    fn nearest(&self, form: usize, y: &[f32; 4], weights: &[f32; 4]) -> u32 {
        self.0[form].nearest(y, weights)
    }

    fn entry(&self, form: usize, code: u32) -> [f32; 4] {
        four(form, code)
    }

    fn first_scale(&self, x: &[f32], weights: &[f32]) -> f32 {
        by_deviation(self, DEVIATION, &[0.75, 0.9, 1.05, 1.25, 1.5, 1.8], x, weights)
    }
}

fn put(field: &mut [u8], at: usize, value: usize) {
    field[at / 8] |= (value << (at % 8)) as u8;
}

/// Writes the scale of the row, and hands each super-block to `pack`: levels and codes of its groups.
fn write<const BYTES: usize>(
    run: &Run,
    unit: &mut [u8],
    pack: impl Fn(usize, &Group, &mut [u8; BYTES]),
) {
    unit.fill(0);
    let (head, blocks) = unit.split_at_mut(4);
    head.copy_from_slice(&run.scale.to_le_bytes());
    let each = run.groups.chunks(LEN / GROUP);
    for (groups, block) in each.zip(blocks.as_chunks_mut::<BYTES>().0) {
        for (h, group) in groups.iter().enumerate() {
            pack(h, group, block);
        }
    }
}

/// The levels of `IQ1_KT` and `IQ2_KT`: values of 4-bit codes, the code being the index.
fn value_levels() -> Vec<f32> {
    V4.iter().map(|&value| f32::from(value)).collect()
}

/// `IQ1_KT`.
pub fn iq1_kt(values: &[f32], _columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let (levels, book) = (value_levels(), Eights::of_13_bits());
    let fit = Fit { book, group: GROUP, levels: &levels, around: 1, store: |scale| scale };
    let run = fit.run::<8>(values, &importance(values, weights));
    write::<56>(&run, unit, |h, group, block| {
        block[h] |= group.level as u8;
        for (j, &code) in group.codes.iter().enumerate() {
            let (k, code) = (4 * h + j, code as usize);
            block[8 + k] = code as u8;
            put(&mut block[40 + k % 16..], 4 * (k / 16), code >> 8 & 15);
            put(&mut block[h..], 4 + j, code >> 12);
        }
    });
}

/// `IQ2_KT`.
pub fn iq2_kt(values: &[f32], _columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let (levels, book) = (value_levels(), Eights::of_16_bits());
    let fit = Fit { book, group: GROUP, levels: &levels, around: 1, store: |scale| scale };
    let run = fit.run::<8>(values, &importance(values, weights));
    write::<68>(&run, unit, |h, group, block| {
        put(&mut block[h % 4..4], 4 * (h / 4), group.level);
        for (j, &code) in group.codes.iter().enumerate() {
            block[4 + 8 * h + 2 * j..][..2].copy_from_slice(&(code as u16).to_le_bytes());
        }
    });
}

/// `IQ3_KT`.
pub fn iq3_kt(values: &[f32], _columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let levels: Vec<f32> = (0..16u8).map(f32::from).collect();
    let book = Eights::of_magnitudes();
    let fit = Fit { book, group: GROUP, levels: &levels, around: 1, store: |scale| scale };
    // The signs are stored apart.
    let magnitudes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    let run = fit.run::<8>(&magnitudes, &importance(values, weights));
    write::<100>(&run, unit, |h, group, block| {
        put(&mut block[h % 4..4], 4 * (h / 4), group.level);
        for (j, &code) in group.codes.iter().enumerate() {
            block[4 + 8 * h + 2 * j..][..2].copy_from_slice(&(code as u16).to_le_bytes());
        }
    });
    for (at, &x) in values.iter().enumerate() {
        let (block, i) = (4 + at / LEN * 100, at % LEN);
        put(&mut unit[block + 68 + i % 32..], i / 32, usize::from(x.is_sign_negative()));
    }
}

/// `IQ4_KT`.
pub fn iq4_kt(values: &[f32], _columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let levels: Vec<f32> = (-64..64i16).map(f32::from).collect();
    let fit = Fit { book: Fours::new(), group: GROUP, levels: &levels, around: 2, store: |s| s };
    let run = fit.run::<4>(values, &importance(values, weights));
    write::<128>(&run, unit, |h, group, block| {
        block[4 * h] = (2 * group.level + group.form) as u8;
        for (j, &code) in group.codes.iter().enumerate() {
            let (k, code) = (8 * h + j, code as usize);
            block[32 + k] = code as u8;
            put(&mut block[96 + k % 32..], 4 * (k / 32), code >> 8 & 15);
            let at = 8 + 3 * j;
            for bit in 0..3 {
                put(&mut block[4 * h..], at + bit, code >> (12 + bit) & 1);
            }
        }
    });
}

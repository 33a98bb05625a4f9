/*!
Encoders of the trellis types: the search of `encode_fit` with a book that has an entry for each
index, all of which are tried.
*/

use std::sync::OnceLock;

use super::encode_fit::{Book, Fit, Group, Run, by_deviation, importance};
use super::values::{TRELLIS_OFFSET, TRELLIS_SECOND, V4, trellis};
use crate::codec::isa::Isa;
use crate::codec::simd::{Kernel, dispatch};

/// Elements of a super-block.
const LEN: usize = 256;

/// Elements that share a small scale.
const GROUP: usize = 32;

/// Entries that are looked at together.
const LANES: usize = 16;

/// Value `i` of every entry, for each `i`: from a state on, one entry after the other.
struct Table<const DIM: usize> {
    columns: [Vec<i8>; DIM],
}

impl<const DIM: usize> Table<DIM> {
    fn new(entries: u32, offset: u32) -> Self {
        let mut columns = [(); DIM].map(|()| Vec::with_capacity(entries as usize));
        for index in 0..entries {
            for (column, value) in columns.iter_mut().zip(trellis::<DIM>(index + offset)) {
                column.push(value as i8);
            }
        }
        Self { columns }
    }
}

/// Finds the first of the entries nearest to `y`.
struct Nearest<'a, const DIM: usize> {
    table: &'a Table<DIM>,
    entries: usize,
    y: [f32; DIM],
    weights: [f32; DIM],
    /// Compare with the magnitudes of the entries' values.
    magnitudes: bool,
}

impl<const DIM: usize> Kernel for Nearest<'_, DIM> {
    type Output = u32;

    #[inline(always)]
    fn run(self, _isa: impl Isa) -> u32 {
        let mut best = ([f32::INFINITY; LANES], [0u32; LANES]);
        let mut columns =
            self.table.columns.each_ref().map(|column| column.as_chunks::<LANES>().0.iter());
        for at in 0..(self.entries / LANES) as u32 {
            let mut errors = [0.0f32; LANES];
            for ((column, y), w) in columns.iter_mut().zip(self.y).zip(self.weights) {
                let values = column.next().unwrap_or(&[0; LANES]);
                for (error, &value) in errors.iter_mut().zip(values) {
                    let value = f32::from(value);
                    let difference = if self.magnitudes { value.abs() } else { value } - y;
                    *error += w * difference * difference;
                }
            }
            for ((least, place), error) in best.0.iter_mut().zip(&mut best.1).zip(errors) {
                let better = error < *least;
                *least = if better { error } else { *least };
                *place = if better { at } else { *place };
            }
        }
        let mut first = (f32::INFINITY, 0);
        for (lane, (least, place)) in (0..).zip(best.0.into_iter().zip(best.1)) {
            let index = place * LANES as u32 + lane;
            if least < first.0 || (least == first.0 && index < first.1) {
                first = (least, index);
            }
        }
        first.1
    }
}

/// Indices of 16 bits (`IQ2_KT`, `IQ3_KT`) or of 13 (`IQ1_KT`), eight elements each.
struct Eights {
    table: &'static Table<8>,
    entries: u32,
    magnitudes: bool,
}

impl Eights {
    fn new(entries: u32, magnitudes: bool) -> Self {
        static TABLE: OnceLock<Table<8>> = OnceLock::new();
        let table = TABLE.get_or_init(|| Table::new(1 << 16, TRELLIS_OFFSET));
        Self { table, entries, magnitudes }
    }
}

/// The standard deviation of the generator's values: four bytes of six bits each.
const DEVIATION: f32 = 36.95;

impl Book<8> for Eights {
    const FORMS: usize = 1;

    fn nearest(&self, _form: usize, y: &[f32; 8], weights: &[f32; 8]) -> u32 {
        let y = if self.magnitudes { y.map(f32::abs) } else { *y };
        let (table, entries, magnitudes) = (self.table, self.entries as usize, self.magnitudes);
        dispatch(Nearest { table, entries, y, weights: *weights, magnitudes })
    }

    fn entry(&self, _form: usize, code: u32) -> [f32; 8] {
        let values = trellis::<8>(code + TRELLIS_OFFSET);
        if self.magnitudes { values.map(f32::abs) } else { values }
    }

    fn first_scale(&self, x: &[f32], weights: &[f32]) -> f32 {
        by_deviation(self, DEVIATION, &[0.9, 1.05, 1.2], x, weights)
    }
}

/// Indices of 15 bits in two halves (`IQ4_KT`), four elements each.
struct Fours([&'static Table<4>; 2]);

impl Fours {
    fn new() -> Self {
        static TABLES: OnceLock<[Table<4>; 2]> = OnceLock::new();
        let [first, second] = TABLES.get_or_init(|| {
            [0, TRELLIS_SECOND].map(|more| Table::new(1 << 15, TRELLIS_OFFSET + more))
        });
        Self([first, second])
    }
}

impl Book<4> for Fours {
    const FORMS: usize = 2;

    fn nearest(&self, form: usize, y: &[f32; 4], weights: &[f32; 4]) -> u32 {
        let (table, entries) = (self.0[form], 1 << 15);
        dispatch(Nearest { table, entries, y: *y, weights: *weights, magnitudes: false })
    }

    fn entry(&self, form: usize, code: u32) -> [f32; 4] {
        trellis(code + TRELLIS_OFFSET + TRELLIS_SECOND * form as u32)
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
    let (levels, book) = (value_levels(), Eights::new(1 << 13, false));
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
    let (levels, book) = (value_levels(), Eights::new(1 << 16, false));
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
    let book = Eights::new(1 << 16, true);
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

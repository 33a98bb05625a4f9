/*!
Encoders of `IQ1_S_R4` and `IQ1_M_R4`: the search of `encode_fit` with the 2048 rows of the
one-bit grid, each shifted up or down by an eighth, all of which are tried; then four rows are merged.
*/

use std::sync::OnceLock;

use half::f16;

use super::cells::Cells;
use super::encode_fit::{Book, Fit, Run, by_deviation, importance};
use crate::codec::ggml::c_arithmetic::f16_bits;
use crate::codec::ggml::grids;

/// Rows of the grid.
const ROWS: usize = grids::IQ1.len();

/// Rows that are merged.
const MERGED: usize = 4;

/// What the forms of the grid add to its values.
const SHIFTS: [f32; 2] = [0.125, -0.125];

/// The values of a grid row under a shift.
fn row_values(index: usize, shift: f32) -> [f32; 8] {
    grids::IQ1[index & 2047].map(|g| f32::from(g as i8) + shift)
}

/// What a group's deviation may be of one that has no scale.
const RATIOS: [f32; 4] = [0.9, 1.2, 1.5, 1.9];

/// The grid with one shift for a whole group, which is its form.
struct SharedShift(&'static [Cells<8>; 2]);

impl SharedShift {
    fn new() -> Self {
        static BOOKS: OnceLock<[Cells<8>; 2]> = OnceLock::new();
        let book = |shift| Cells::new((0..ROWS).map(|index| row_values(index, shift)), &[]);
        Self(BOOKS.get_or_init(|| SHIFTS.map(book)))
    }
}

impl Book<8> for SharedShift {
    const FORMS: usize = 2;

    fn nearest(&self, form: usize, y: &[f32; 8], weights: &[f32; 8]) -> u32 {
        self.0[form].nearest(y, weights)
    }

    fn entry(&self, form: usize, code: u32) -> [f32; 8] {
        row_values(code as usize, SHIFTS[form])
    }

    fn first_scale(&self, x: &[f32], weights: &[f32]) -> f32 {
        by_deviation(self, 1.0, &RATIOS, x, weights)
    }
}

/// The grid with a shift for each row, in the bit above the row's index.
struct OwnShift(&'static Cells<8>);

/// The values of a code of [`OwnShift`].
fn shifted_row(code: usize) -> [f32; 8] {
    row_values(code, SHIFTS[code / ROWS])
}

impl OwnShift {
    fn new() -> Self {
        static BOOK: OnceLock<Cells<8>> = OnceLock::new();
        Self(BOOK.get_or_init(|| Cells::new((0..2 * ROWS).map(shifted_row), &[])))
    }
}

impl Book<8> for OwnShift {
    const FORMS: usize = 1;

    fn nearest(&self, _form: usize, y: &[f32; 8], weights: &[f32; 8]) -> u32 {
        self.0.nearest(y, weights)
    }

    fn entry(&self, _form: usize, code: u32) -> [f32; 8] {
        shifted_row(code as usize)
    }

    fn first_scale(&self, x: &[f32], weights: &[f32]) -> f32 {
        by_deviation(self, 1.0, &RATIOS, x, weights)
    }
}

/// Encodes each row of a unit, writes its scale, and hands each of its groups of 32 to `pack`: merged
/// block, row, and the run's groups.
fn unit_of<const BYTES: usize, B: Book<8>>(
    fit: &Fit<B>,
    (values, columns, column_weights): (&[f32], usize, Option<&[f32]>),
    unit: &mut [u8],
    pack: impl Fn(&mut [u8; BYTES], usize, usize, &Run),
) {
    unit.fill(0);
    // Coarse types lose much of small values if large ones count by their square.
    let alike = vec![1.0; columns];
    let (head, blocks) = unit.split_at_mut(2 * MERGED);
    let heads = head.as_chunks_mut::<2>().0;
    for (k, (row, head)) in values.chunks_exact(columns).zip(heads).enumerate() {
        let run = fit.run::<8>(row, &importance(row, column_weights.or(Some(&alike))));
        *head = f16_bits(run.scale).to_le_bytes();
        for (ib, block) in blocks.as_chunks_mut::<BYTES>().0.iter_mut().enumerate() {
            pack(block, k, ib, &run);
        }
    }
}

/// A scale as an f16 and back.
fn as_f16(scale: f32) -> f32 {
    f16::from_f32(scale).to_f32()
}

/// `IQ1_S_R4`.
pub fn iq1_s_r4(values: &[f32], columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let levels: Vec<f32> = (0..8u8).map(|s| f32::from(2 * s + 1)).collect();
    let fit =
        Fit { book: SharedShift::new(), group: 32, levels: &levels, around: 1, store: as_f16 };
    unit_of::<24, _>(&fit, (values, columns, weights), unit, |block, k, ib, run| {
        let group = &run.groups[ib];
        let mut head = (group.level << 12 | group.form << 15) as u16;
        for (l, &code) in group.codes.iter().enumerate() {
            block[4 * l + k] = code as u8;
            head |= ((code >> 8 & 7) << (3 * l)) as u16;
        }
        block[16 + 2 * k..18 + 2 * k].copy_from_slice(&head.to_le_bytes());
    });
}

/// `IQ1_M_R4`.
pub fn iq1_m_r4(values: &[f32], columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let levels: Vec<f32> = (0..16u8).map(f32::from).collect();
    let fit = Fit { book: OwnShift::new(), group: 16, levels: &levels, around: 1, store: as_f16 };
    unit_of::<28, _>(&fit, (values, columns, weights), unit, |block, k, ib, run| {
        for (a, group) in run.groups[2 * ib..2 * ib + 2].iter().enumerate() {
            block[24 + k] |= (group.level << (4 * a)) as u8;
            for (l, &code) in group.codes.iter().enumerate() {
                block[8 * a + 4 * l + k] = code as u8;
                block[16 + 4 * a + k] |= ((code >> 8) << (4 * l)) as u8;
            }
        }
    });
}

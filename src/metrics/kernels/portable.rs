/*!
The kernel for every processor, without intrinsics: whole groups of [`LANES`] elements in arrays, which
compilers turn into whatever vectors the target has.
*/

use super::widen::widen;
use super::{Sheet, Values};
use crate::metrics::{LANES, PIECE, Sums, moments::Lanes};

/// Sums up rows; see [`super::sum_rows`]. Both sides hold at least `len` values.
pub fn sum_rows(r: Values, q: Values, len: usize, row_len: usize, sheet: &mut Sheet) {
    let mut row_sums = sheet.row;
    for row in (0..len).step_by(row_len) {
        let row_end = (row + row_len).min(len);
        for start in (row..row_end).step_by(PIECE) {
            let range = start..(start + PIECE).min(row_end);
            let (sums, max_abs) = piece(r.slice(range.clone()), q.slice(range));
            row_sums.add(&sums);
            sheet.total.add(&sums);
            sheet.max_abs = sheet.max_abs.max(max_abs);
            sheet.pieces.push(sums);
        }
        sheet.rows.push(row_sums);
        row_sums = Sums::default();
    }
}

fn piece(r: Values, q: Values) -> (Sums, f64) {
    let mut lanes = Lanes::default();
    let (mut r_group, mut q_group) = ([0.0; LANES], [0.0; LANES]);
    for start in (0..r.len()).step_by(LANES) {
        let range = start..(start + LANES).min(r.len());
        if range.len() < LANES {
            // Zeros on both sides leave every sum as it is.
            (r_group, q_group) = ([0.0; LANES], [0.0; LANES]);
        }
        widen(r.slice(range.clone()), &mut r_group);
        widen(q.slice(range), &mut q_group);
        lanes.add(&r_group, &q_group);
    }
    lanes.sums()
}

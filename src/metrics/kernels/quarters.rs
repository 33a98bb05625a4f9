/*!
The kernel for vectors of four f64: four lanes of all sums at a time, so that none of them leaves its
register; a piece, which lies in the first-level cache, is walked four times, once for each quarter
of its lanes. It is written once, over what [`Four`] asks of an instruction set.
*/

use super::{Sheet, Values};
use crate::metrics::{LANES, PIECE, Sums};

/// Four f64 in the registers of an instruction set.
///
/// # Safety
///
/// Its functions may be called where the machine has the instruction set, inside of a function that
/// is compiled for it; pointers lead to four values, those of f64 to aligned ones.
pub trait Four: Copy {
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f64) -> Self;
    unsafe fn store(self, to: *mut f64);
    /// Four stored f32.
    unsafe fn of_f32(from: *const u8) -> Self;
    /// Four stored IEEE binary16.
    unsafe fn of_f16(from: *const u8) -> Self;
    /// Four stored bfloat16.
    unsafe fn of_bf16(from: *const u8) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * other + to`, rounded once.
    unsafe fn mul_add(self, other: Self, to: Self) -> Self;
    /// The larger of |self| and `other`, which is never NaN; `other` if `self` is NaN.
    unsafe fn abs_max(self, other: Self) -> Self;
    /// 2 + 2 lanes of `self` and of `other`, side by side.
    unsafe fn fold_two(self, other: Self) -> Self;
    /// 1 + 1 lanes of `self` and of `other`, in turn.
    unsafe fn fold_one(self, other: Self) -> Self;
}

/// How a side stores its values.
trait Form {
    const BYTES: usize;
    unsafe fn four<V: Four>(from: *const u8) -> V;
}

struct F32;
struct F16;
struct BF16;

// SAFETY of all below: the callers run with the instruction set enabled, and the values are there.
impl Form for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn four<V: Four>(from: *const u8) -> V {
        unsafe { V::of_f32(from) }
    }
}

impl Form for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn four<V: Four>(from: *const u8) -> V {
        unsafe { V::of_f16(from) }
    }
}

impl Form for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn four<V: Four>(from: *const u8) -> V {
        unsafe { V::of_bf16(from) }
    }
}

/// Sums up rows; see [`super::sum_rows`].
///
/// # Safety
///
/// The machine has the instruction set of `V` and the caller is compiled for it, both sides hold at
/// least `len` values, and the vectors of `sheet` are empty and have room for every row and piece.
/// They are written, their lengths are not set.
#[inline(always)]
pub unsafe fn sum_rows<V: Four>(
    r: Values,
    q: Values,
    len: usize,
    row_len: usize,
    sheet: &mut Sheet,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match r {
            Values::Decoded(r) => with::<V, F32>(r.as_ptr().cast(), q, len, row_len, sheet),
            Values::F32(r) => with::<V, F32>(r.as_ptr(), q, len, row_len, sheet),
            Values::F16(r) => with::<V, F16>(r.as_ptr(), q, len, row_len, sheet),
            Values::BF16(r) => with::<V, BF16>(r.as_ptr(), q, len, row_len, sheet),
        }
    }
}

#[inline(always)]
unsafe fn with<V: Four, R: Form>(
    r: *const u8,
    q: Values,
    len: usize,
    row_len: usize,
    sheet: &mut Sheet,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match q {
            Values::Decoded(q) => rows::<V, R, F32>(r, q.as_ptr().cast(), len, row_len, sheet),
            Values::F32(q) => rows::<V, R, F32>(r, q.as_ptr(), len, row_len, sheet),
            Values::F16(q) => rows::<V, R, F16>(r, q.as_ptr(), len, row_len, sheet),
            Values::BF16(q) => rows::<V, R, BF16>(r, q.as_ptr(), len, row_len, sheet),
        }
    }
}

#[inline(always)]
unsafe fn rows<V: Four, R: Form, Q: Form>(
    mut r: *const u8,
    mut q: *const u8,
    mut len: usize,
    row_len: usize,
    sheet: &mut Sheet,
) {
    // SAFETY: the values and the places for their sums are there by the caller's promise; `Sums` is
    // two vectors of f64.
    unsafe {
        let mut pieces: *mut f64 = sheet.pieces.as_mut_ptr().cast();
        let mut rows: *mut f64 = sheet.rows.as_mut_ptr().cast();
        let mut row = load::<V>(&sheet.row);
        let mut total = load::<V>(&sheet.total.sums);
        let mut lost = load::<V>(&sheet.total.lost);
        let mut max = V::zero();
        let mut padded = Padded::default();
        while len > 0 {
            let mut left = row_len.min(len);
            len -= left;
            while left > 0 {
                let n = left.min(PIECE);
                left -= n;
                let sums = piece::<V, R, Q>(r, q, n, &mut max, &mut padded);
                store(sums, pieces);
                for half in 0..2 {
                    row[half] = row[half].add(sums[half]);
                    let rest;
                    (total[half], rest) = two_sum(total[half], sums[half]);
                    lost[half] = lost[half].add(rest);
                }
                r = r.add(n * R::BYTES);
                q = q.add(n * Q::BYTES);
                pieces = pieces.add(8);
            }
            store(row, rows);
            row = [V::zero(); 2];
            rows = rows.add(8);
        }
        store(total, sheet.total.sums.0.as_mut_ptr());
        store(lost, sheet.total.lost.0.as_mut_ptr());
        let mut lanes = Sums::default();
        max.store(lanes.0.as_mut_ptr());
        sheet.max_abs = lanes.0.into_iter().fold(sheet.max_abs, f64::max);
    }
}

#[inline(always)]
unsafe fn load<V: Four>(sums: &Sums) -> [V; 2] {
    // SAFETY: the callers run with the instruction set enabled; `Sums` is aligned for it.
    unsafe { [0, 4].map(|at| V::load(sums.0.as_ptr().add(at))) }
}

/// Writes one [`Sums`].
#[inline(always)]
unsafe fn store<V: Four>([low, high]: [V; 2], to: *mut f64) {
    // SAFETY: the callers run with the instruction set enabled and name the place of a `Sums`.
    unsafe {
        low.store(to);
        high.store(to.add(4));
    }
}

/// The rounded sum, and the exact rest.
#[inline(always)]
unsafe fn two_sum<V: Four>(a: V, b: V) -> (V, V) {
    // SAFETY: the callers run with the instruction set enabled.
    unsafe {
        let sum = a.add(b);
        let b_rounded = sum.sub(a);
        let a_rounded = sum.sub(b_rounded);
        (sum, a.sub(a_rounded).add(b.sub(b_rounded)))
    }
}

/// Lanes of a vector.
const WIDTH: usize = LANES / 4;

/// Four neighbouring lanes of each sum.
#[derive(Clone, Copy)]
struct Quarter<V> {
    rr: V,
    r4: V,
    qq: V,
    ee: V,
    rq: V,
    e: V,
}

/// A piece of both sides that was not made of whole groups, filled up with zeros.
#[repr(align(64))]
struct Padded([u8; PIECE * 4], [u8; PIECE * 4]);

impl Default for Padded {
    fn default() -> Self {
        Self([0; PIECE * 4], [0; PIECE * 4])
    }
}

#[inline(always)]
unsafe fn piece<V: Four, R: Form, Q: Form>(
    mut r: *const u8,
    mut q: *const u8,
    mut n: usize,
    max: &mut V,
    padded: &mut Padded,
) -> [V; 2] {
    // SAFETY: the callers run with the instruction set enabled and hold n values on each side.
    unsafe {
        if !n.is_multiple_of(LANES) {
            // Zeros on both sides leave every sum as it is.
            let whole = n.next_multiple_of(LANES);
            padded.0[n * R::BYTES..whole * R::BYTES].fill(0);
            padded.1[n * Q::BYTES..whole * Q::BYTES].fill(0);
            r.copy_to_nonoverlapping(padded.0.as_mut_ptr(), n * R::BYTES);
            q.copy_to_nonoverlapping(padded.1.as_mut_ptr(), n * Q::BYTES);
            (r, q, n) = (padded.0.as_ptr(), padded.1.as_ptr(), whole);
        }
        let mut quarters = [Quarter::<V>::zero(); 4];
        for (at, quarter) in quarters.iter_mut().enumerate() {
            let (r, q) = (r.add(at * WIDTH * R::BYTES), q.add(at * WIDTH * Q::BYTES));
            quarter.sum_up::<R, Q>(r, q, n, max);
        }
        fold(&quarters)
    }
}

impl<V: Four> Quarter<V> {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the callers run with the instruction set enabled.
        let zero = unsafe { V::zero() };
        Self { rr: zero, r4: zero, qq: zero, ee: zero, rq: zero, e: zero }
    }

    /// Sums up the first four elements of each group of [`LANES`]; `len` is a multiple of that.
    ///
    /// The sums are written volatile, so that they are in memory from then on: the compiler would
    /// keep them there inside of the loop instead.
    #[inline(always)]
    unsafe fn sum_up<R: Form, Q: Form>(
        &mut self,
        r: *const u8,
        q: *const u8,
        len: usize,
        max: &mut V,
    ) {
        // SAFETY: as for `piece`.
        unsafe {
            let mut sums = Self::zero();
            for at in (0..len).step_by(LANES) {
                let r = R::four::<V>(r.add(at * R::BYTES));
                let q = Q::four::<V>(q.add(at * Q::BYTES));
                let e = q.sub(r);
                let square = r.mul(r);
                sums.rr = sums.rr.add(square);
                sums.r4 = square.mul_add(square, sums.r4);
                sums.qq = q.mul_add(q, sums.qq);
                sums.ee = e.mul_add(e, sums.ee);
                sums.rq = r.mul_add(q, sums.rq);
                sums.e = sums.e.add(e);
                *max = e.abs_max(*max);
            }
            (&raw mut self.rr).write_volatile(sums.rr);
            (&raw mut self.r4).write_volatile(sums.r4);
            (&raw mut self.qq).write_volatile(sums.qq);
            (&raw mut self.ee).write_volatile(sums.ee);
            (&raw mut self.rq).write_volatile(sums.rq);
            (&raw mut self.e).write_volatile(sums.e);
        }
    }
}

/// Folds the lanes of all sums in halves, into the order of [`Sums`].
#[inline(always)]
unsafe fn fold<V: Four>(quarters: &[Quarter<V>; 4]) -> [V; 2] {
    // SAFETY: the callers run with the instruction set enabled.
    unsafe {
        let rr_qq =
            eight(quarters.map(|four| four.rr)).fold_two(eight(quarters.map(|four| four.qq)));
        let e_r4 = eight(quarters.map(|four| four.e)).fold_two(eight(quarters.map(|four| four.r4)));
        let ee_rq =
            eight(quarters.map(|four| four.ee)).fold_two(eight(quarters.map(|four| four.rq)));
        [rr_qq.fold_one(e_r4), ee_rq.fold_one(V::zero())]
    }
}

/// 8 + 8 and 4 + 4 lanes.
#[inline(always)]
unsafe fn eight<V: Four>([a, b, c, d]: [V; 4]) -> V {
    unsafe { a.add(c).add(b.add(d)) }
}

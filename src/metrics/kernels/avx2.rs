/*!
The kernel for AVX2 with FMA and F16C: four lanes of all sums at a time, so that none of them leaves
its register; a piece, which lies in the first-level cache, is walked four times, once for each
quarter of its lanes.
*/

use std::arch::x86_64::*;

use super::{Sheet, Values};
use crate::metrics::{LANES, PIECE, Sums};

/// Loads four stored values as f64.
trait Load {
    const BYTES: usize;
    unsafe fn four(from: *const u8) -> __m256d;
}

struct F32;
struct F16;
struct BF16;

// SAFETY of all below: the callers run with the instruction set enabled, and the values are there.
impl Load for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn four(from: *const u8) -> __m256d {
        unsafe { _mm256_cvtps_pd(_mm_loadu_ps(from.cast())) }
    }
}

impl Load for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn four(from: *const u8) -> __m256d {
        unsafe { _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(from.cast()))) }
    }
}

impl Load for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn four(from: *const u8) -> __m256d {
        // bfloat16 is the upper half of an f32: each goes beside a zero.
        unsafe {
            let halves = _mm_loadl_epi64(from.cast());
            _mm256_cvtps_pd(_mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), halves)))
        }
    }
}

/// Sums up rows; see [`super::Kernel::sum_rows`].
///
/// # Safety
///
/// The machine has the instruction set, both sides hold at least `len` values, and the vectors of
/// `sheet` are empty and have room for every row and piece. They are written, their lengths are not
/// set.
pub unsafe fn sum_rows(r: Values, q: Values, len: usize, row_len: usize, sheet: &mut Sheet) {
    // SAFETY: the caller's promise.
    unsafe {
        match r {
            Values::Decoded(r) => with::<F32>(r.as_ptr().cast(), q, len, row_len, sheet),
            Values::F32(r) => with::<F32>(r.as_ptr(), q, len, row_len, sheet),
            Values::F16(r) => with::<F16>(r.as_ptr(), q, len, row_len, sheet),
            Values::BF16(r) => with::<BF16>(r.as_ptr(), q, len, row_len, sheet),
        }
    }
}

unsafe fn with<R: Load>(r: *const u8, q: Values, len: usize, row_len: usize, sheet: &mut Sheet) {
    // SAFETY: the caller's promise.
    unsafe {
        match q {
            Values::Decoded(q) => rows::<R, F32>(r, q.as_ptr().cast(), len, row_len, sheet),
            Values::F32(q) => rows::<R, F32>(r, q.as_ptr(), len, row_len, sheet),
            Values::F16(q) => rows::<R, F16>(r, q.as_ptr(), len, row_len, sheet),
            Values::BF16(q) => rows::<R, BF16>(r, q.as_ptr(), len, row_len, sheet),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<R: Load, Q: Load>(
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
        let mut row = load(&sheet.row);
        let mut total = load(&sheet.total.sums);
        let mut lost = load(&sheet.total.lost);
        let mut max = _mm256_setzero_pd();
        let mut padded = Padded::default();
        while len > 0 {
            let mut left = row_len.min(len);
            len -= left;
            while left > 0 {
                let n = left.min(PIECE);
                left -= n;
                let sums = piece::<R, Q>(r, q, n, &mut max, &mut padded);
                store(sums, pieces);
                for half in 0..2 {
                    row[half] = _mm256_add_pd(row[half], sums[half]);
                    let rest;
                    (total[half], rest) = two_sum(total[half], sums[half]);
                    lost[half] = _mm256_add_pd(lost[half], rest);
                }
                r = r.add(n * R::BYTES);
                q = q.add(n * Q::BYTES);
                pieces = pieces.add(8);
            }
            store(row, rows);
            row = [_mm256_setzero_pd(); 2];
            rows = rows.add(8);
        }
        store(total, sheet.total.sums.0.as_mut_ptr());
        store(lost, sheet.total.lost.0.as_mut_ptr());
        let mut lanes = [0.0; WIDTH];
        _mm256_storeu_pd(lanes.as_mut_ptr(), max);
        sheet.max_abs = lanes.into_iter().fold(sheet.max_abs, f64::max);
    }
}

#[inline(always)]
unsafe fn load(sums: &Sums) -> [__m256d; 2] {
    // SAFETY: the callers run with the instruction set enabled; `Sums` is aligned for it.
    unsafe { [0, 4].map(|at| _mm256_load_pd(sums.0.as_ptr().add(at))) }
}

/// Writes one [`Sums`].
#[inline(always)]
unsafe fn store([low, high]: [__m256d; 2], to: *mut f64) {
    // SAFETY: the callers run with the instruction set enabled and name the place of a `Sums`.
    unsafe {
        _mm256_store_pd(to, low);
        _mm256_store_pd(to.add(4), high);
    }
}

/// The rounded sum, and the exact rest.
#[inline(always)]
unsafe fn two_sum(a: __m256d, b: __m256d) -> (__m256d, __m256d) {
    // SAFETY: the callers run with the instruction set enabled.
    unsafe {
        let sum = _mm256_add_pd(a, b);
        let b_rounded = _mm256_sub_pd(sum, a);
        let a_rounded = _mm256_sub_pd(sum, b_rounded);
        let rest = _mm256_add_pd(_mm256_sub_pd(a, a_rounded), _mm256_sub_pd(b, b_rounded));
        (sum, rest)
    }
}

/// Lanes of a vector.
const WIDTH: usize = LANES / 4;

/// Four neighbouring lanes of each sum.
#[derive(Clone, Copy)]
struct Quarter {
    rr: __m256d,
    r4: __m256d,
    qq: __m256d,
    ee: __m256d,
    rq: __m256d,
    e: __m256d,
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
unsafe fn piece<R: Load, Q: Load>(
    mut r: *const u8,
    mut q: *const u8,
    mut n: usize,
    max: &mut __m256d,
    padded: &mut Padded,
) -> [__m256d; 2] {
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
        let mut quarters = [Quarter::zero(); 4];
        for (at, quarter) in quarters.iter_mut().enumerate() {
            let (r, q) = (r.add(at * WIDTH * R::BYTES), q.add(at * WIDTH * Q::BYTES));
            quarter.sum_up::<R, Q>(r, q, n, max);
        }
        fold(&quarters)
    }
}

impl Quarter {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the callers run with the instruction set enabled.
        let zero = unsafe { _mm256_setzero_pd() };
        Self { rr: zero, r4: zero, qq: zero, ee: zero, rq: zero, e: zero }
    }

    /// Sums up the first four elements of each group of [`LANES`]; `len` is a multiple of that.
    ///
    /// The sums are written volatile, so that they are in memory from then on: the compiler would
    /// keep them there inside of the loop instead.
    #[inline(always)]
    unsafe fn sum_up<R: Load, Q: Load>(
        &mut self,
        r: *const u8,
        q: *const u8,
        len: usize,
        max: &mut __m256d,
    ) {
        // SAFETY: as for `piece`.
        unsafe {
            let mut sums = Self::zero();
            let sign = _mm256_set1_pd(-0.0);
            for at in (0..len).step_by(LANES) {
                let (r, q) = (R::four(r.add(at * R::BYTES)), Q::four(q.add(at * Q::BYTES)));
                let e = _mm256_sub_pd(q, r);
                let square = _mm256_mul_pd(r, r);
                sums.rr = _mm256_add_pd(sums.rr, square);
                sums.r4 = _mm256_fmadd_pd(square, square, sums.r4);
                sums.qq = _mm256_fmadd_pd(q, q, sums.qq);
                sums.ee = _mm256_fmadd_pd(e, e, sums.ee);
                sums.rq = _mm256_fmadd_pd(r, q, sums.rq);
                sums.e = _mm256_add_pd(sums.e, e);
                // The second operand is the result if one is NaN.
                *max = _mm256_max_pd(_mm256_andnot_pd(sign, e), *max);
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
unsafe fn fold(quarters: &[Quarter; 4]) -> [__m256d; 2] {
    // SAFETY: the callers run with the instruction set enabled.
    unsafe {
        let rr_qq =
            two(four(quarters.map(|quarter| quarter.rr)), four(quarters.map(|quarter| quarter.qq)));
        let e_r4 =
            two(four(quarters.map(|quarter| quarter.e)), four(quarters.map(|quarter| quarter.r4)));
        let ee_rq =
            two(four(quarters.map(|quarter| quarter.ee)), four(quarters.map(|quarter| quarter.rq)));
        [one(rr_qq, e_r4), one(ee_rq, _mm256_setzero_pd())]
    }
}

/// 8 + 8 and 4 + 4 lanes.
#[inline(always)]
unsafe fn four([a, b, c, d]: [__m256d; 4]) -> __m256d {
    unsafe { _mm256_add_pd(_mm256_add_pd(a, c), _mm256_add_pd(b, d)) }
}

/// 2 + 2 lanes of a and of b, side by side.
#[inline(always)]
unsafe fn two(a: __m256d, b: __m256d) -> __m256d {
    unsafe {
        _mm256_add_pd(_mm256_permute2f128_pd::<0x20>(a, b), _mm256_permute2f128_pd::<0x31>(a, b))
    }
}

/// 1 + 1 lanes of a and of b, in turn.
#[inline(always)]
unsafe fn one(a: __m256d, b: __m256d) -> __m256d {
    unsafe { _mm256_add_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b)) }
}

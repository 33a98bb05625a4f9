/*!
The kernel for AVX-512: a lane group is two vectors of eight f64, elements `0..8` and `8..16` of it.
*/

use std::arch::x86_64::*;

use super::{Sheet, Values};
use crate::metrics::{LANES, PIECE};

/// Loads sixteen stored values as two vectors of f64. With a `mask`, lanes whose bit is clear become
/// zero, and their memory is not touched.
trait Load {
    const BYTES: usize;
    unsafe fn all(from: *const u8) -> [__m512d; 2];
    unsafe fn some(from: *const u8, mask: u32) -> [__m512d; 2];
}

struct F32;
struct F16;
struct BF16;

// SAFETY of all below: the callers run with the instruction set enabled, and the values are there.
impl Load for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn all(from: *const u8) -> [__m512d; 2] {
        unsafe {
            let from: *const f32 = from.cast();
            [
                _mm512_cvtps_pd(_mm256_loadu_ps(from)),
                _mm512_cvtps_pd(_mm256_loadu_ps(from.add(LANES / 2))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn some(from: *const u8, mask: u32) -> [__m512d; 2] {
        unsafe {
            let from: *const f32 = from.cast();
            let low = _mm256_maskz_loadu_ps(mask as __mmask8, from);
            let high = _mm256_maskz_loadu_ps((mask >> 8) as __mmask8, from.wrapping_add(LANES / 2));
            [_mm512_cvtps_pd(low), _mm512_cvtps_pd(high)]
        }
    }
}

impl Load for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn all(from: *const u8) -> [__m512d; 2] {
        unsafe {
            let halves: *const __m128i = from.cast();
            [
                _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128(halves))),
                _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128(halves.add(1)))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn some(from: *const u8, mask: u32) -> [__m512d; 2] {
        unsafe {
            let halves = _mm256_maskz_loadu_epi16(mask as __mmask16, from.cast());
            [
                _mm512_cvtps_pd(_mm256_cvtph_ps(_mm256_castsi256_si128(halves))),
                _mm512_cvtps_pd(_mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves))),
            ]
        }
    }
}

impl Load for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn all(from: *const u8) -> [__m512d; 2] {
        unsafe { widen(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn some(from: *const u8, mask: u32) -> [__m512d; 2] {
        unsafe { widen(_mm256_maskz_loadu_epi16(mask as __mmask16, from.cast())) }
    }
}

/// bfloat16 is the upper half of an f32.
#[inline(always)]
unsafe fn widen(halves: __m256i) -> [__m512d; 2] {
    unsafe {
        let values = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves));
        let high = _mm512_extracti64x4_epi64::<1>(values);
        [_mm512_castsi512_si256(values), high].map(|half| {
            let values = _mm256_castsi256_ps(half);
            _mm512_cvtps_pd(values)
        })
    }
}

/// Sums up rows; see [`super::sum_rows`].
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn rows<R: Load, Q: Load>(
    mut r: *const u8,
    mut q: *const u8,
    mut len: usize,
    row_len: usize,
    sheet: &mut Sheet,
) {
    // SAFETY: the values and the places for their sums are there by the caller's promise; `Sums` is
    // eight f64 on a cache line of its own.
    unsafe {
        let mut pieces: *mut f64 = sheet.pieces.as_mut_ptr().cast();
        let mut rows: *mut f64 = sheet.rows.as_mut_ptr().cast();
        let mut row = _mm512_load_pd(sheet.row.0.as_ptr());
        let mut total = _mm512_load_pd(sheet.total.sums.0.as_ptr());
        let mut lost = _mm512_load_pd(sheet.total.lost.0.as_ptr());
        let mut max = [_mm512_setzero_pd(); 2];
        while len > 0 {
            let mut left = row_len.min(len);
            len -= left;
            while left > 0 {
                let n = left.min(PIECE);
                left -= n;
                let sums = piece::<R, Q>(r, q, n, &mut max);
                _mm512_store_pd(pieces, sums);
                row = _mm512_add_pd(row, sums);
                let rest;
                (total, rest) = two_sum(total, sums);
                lost = _mm512_add_pd(lost, rest);
                r = r.add(n * R::BYTES);
                q = q.add(n * Q::BYTES);
                pieces = pieces.add(8);
            }
            _mm512_store_pd(rows, row);
            row = _mm512_setzero_pd();
            rows = rows.add(8);
        }
        _mm512_store_pd(sheet.total.sums.0.as_mut_ptr(), total);
        _mm512_store_pd(sheet.total.lost.0.as_mut_ptr(), lost);
        let max = _mm512_reduce_max_pd(_mm512_max_pd(max[0], max[1]));
        sheet.max_abs = sheet.max_abs.max(max);
    }
}

/// The rounded sum, and the exact rest.
#[inline(always)]
unsafe fn two_sum(a: __m512d, b: __m512d) -> (__m512d, __m512d) {
    unsafe {
        let sum = _mm512_add_pd(a, b);
        let b_rounded = _mm512_sub_pd(sum, a);
        let a_rounded = _mm512_sub_pd(sum, b_rounded);
        let rest = _mm512_add_pd(_mm512_sub_pd(a, a_rounded), _mm512_sub_pd(b, b_rounded));
        (sum, rest)
    }
}

/// The lanes of each sum.
struct Lanes {
    rr: [__m512d; 2],
    r4: [__m512d; 2],
    qq: [__m512d; 2],
    ee: [__m512d; 2],
    rq: [__m512d; 2],
    e: [__m512d; 2],
}

#[inline(always)]
unsafe fn piece<R: Load, Q: Load>(
    r: *const u8,
    q: *const u8,
    n: usize,
    max: &mut [__m512d; 2],
) -> __m512d {
    // SAFETY: the callers run with the instruction set enabled and hold n values on each side.
    unsafe {
        let zero = [_mm512_setzero_pd(); 2];
        let mut lanes = Lanes { rr: zero, r4: zero, qq: zero, ee: zero, rq: zero, e: zero };
        for group in 0..n / LANES {
            let (r, q) = (r.add(group * LANES * R::BYTES), q.add(group * LANES * Q::BYTES));
            add(&mut lanes, max, R::all(r), Q::all(q));
        }
        let rest = n % LANES;
        if rest > 0 {
            // Zeros on both sides leave every sum as it is.
            let mask = (1 << rest) - 1;
            let (r, q) = (r.add((n - rest) * R::BYTES), q.add((n - rest) * Q::BYTES));
            add(&mut lanes, max, R::some(r, mask), Q::some(q, mask));
        }
        fold(&lanes)
    }
}

#[inline(always)]
unsafe fn add(lanes: &mut Lanes, max: &mut [__m512d; 2], r: [__m512d; 2], q: [__m512d; 2]) {
    // SAFETY: the callers run with the instruction set enabled.
    unsafe {
        for half in 0..2 {
            let (r, q) = (r[half], q[half]);
            let e = _mm512_sub_pd(q, r);
            let square = _mm512_mul_pd(r, r);
            lanes.rr[half] = _mm512_add_pd(lanes.rr[half], square);
            lanes.r4[half] = _mm512_fmadd_pd(square, square, lanes.r4[half]);
            lanes.qq[half] = _mm512_fmadd_pd(q, q, lanes.qq[half]);
            lanes.ee[half] = _mm512_fmadd_pd(e, e, lanes.ee[half]);
            lanes.rq[half] = _mm512_fmadd_pd(r, q, lanes.rq[half]);
            lanes.e[half] = _mm512_add_pd(lanes.e[half], e);
            // The larger magnitude; the other operand if one is NaN.
            max[half] = _mm512_range_pd::<0b1011>(e, max[half]);
        }
    }
}

/// Folds the lanes of all sums at once, in halves, into the order of [`Sums`](crate::metrics::Sums).
#[inline(always)]
unsafe fn fold(lanes: &Lanes) -> __m512d {
    // SAFETY: the callers run with the instruction set enabled.
    unsafe {
        let eight = |sum: [__m512d; 2]| _mm512_add_pd(sum[0], sum[1]);
        // 4 + 4 lanes of a and of b side by side.
        let four = |a, b| {
            _mm512_add_pd(_mm512_shuffle_f64x2::<0x44>(a, b), _mm512_shuffle_f64x2::<0xEE>(a, b))
        };
        let two = |a, b| {
            _mm512_add_pd(_mm512_shuffle_f64x2::<0x88>(a, b), _mm512_shuffle_f64x2::<0xDD>(a, b))
        };
        let rr_qq = four(eight(lanes.rr), eight(lanes.qq));
        let ee_rq = four(eight(lanes.ee), eight(lanes.rq));
        let e_r4 = four(eight(lanes.e), eight(lanes.r4));
        let even = two(rr_qq, ee_rq);
        let odd = two(e_r4, _mm512_setzero_pd());
        _mm512_add_pd(_mm512_unpacklo_pd(even, odd), _mm512_unpackhi_pd(even, odd))
    }
}

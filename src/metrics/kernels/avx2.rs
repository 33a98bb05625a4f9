/*!
The kernel for AVX2 with FMA and F16C: sixteen registers hold eight lanes of all sums at a time, so
that a piece, which lies in the first-level cache, is walked twice: once for each half of its lanes.
*/

use std::arch::x86_64::*;

use super::{Sheet, Values};
use crate::metrics::{LANES, PIECE, Sums};

/// True if this machine has what the kernel needs.
pub fn is_supported() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// Loads eight stored values as f32.
trait Load {
    const BYTES: usize;
    unsafe fn eight(from: *const u8) -> __m256;
}

struct F32;
struct F16;
struct BF16;

impl Load for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn eight(from: *const u8) -> __m256 {
        unsafe { _mm256_loadu_ps(from.cast()) }
    }
}

impl Load for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn eight(from: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
}

impl Load for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn eight(from: *const u8) -> __m256 {
        // bfloat16 is the upper half of an f32.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
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
    // SAFETY: the values and the places for their sums are there by the caller's promise.
    unsafe {
        let mut pieces = sheet.pieces.as_mut_ptr();
        let mut rows = sheet.rows.as_mut_ptr();
        let mut row = sheet.row;
        let mut max = [_mm256_setzero_pd(); 2];
        while len > 0 {
            let mut left = row_len.min(len);
            len -= left;
            while left > 0 {
                let n = left.min(PIECE);
                left -= n;
                let sums = piece::<R, Q>(r, q, n, &mut max);
                pieces.write(sums);
                row.add(&sums);
                sheet.total.add(&sums);
                r = r.add(n * R::BYTES);
                q = q.add(n * Q::BYTES);
                pieces = pieces.add(1);
            }
            rows.write(row);
            row = Sums::default();
            rows = rows.add(1);
        }
        let mut lanes = [0.0; 4];
        _mm256_storeu_pd(lanes.as_mut_ptr(), _mm256_max_pd(max[0], max[1]));
        sheet.max_abs = lanes.into_iter().fold(sheet.max_abs, f64::max);
    }
}

/// Lanes `0..4` and `4..8`, or `8..12` and `12..16`, of each sum.
struct Lanes {
    rr: [__m256d; 2],
    r4: [__m256d; 2],
    qq: [__m256d; 2],
    ee: [__m256d; 2],
    rq: [__m256d; 2],
    e: [__m256d; 2],
}

#[inline(always)]
unsafe fn piece<R: Load, Q: Load>(
    r: *const u8,
    q: *const u8,
    n: usize,
    max: &mut [__m256d; 2],
) -> Sums {
    // SAFETY: the callers run with the instruction set enabled and hold n values on each side.
    unsafe {
        let whole = n / LANES * LANES;
        // What is left of the last group, filled up with zeros, which leave every sum as it is.
        let (mut r_rest, mut q_rest) = ([0u8; LANES * 4], [0u8; LANES * 4]);
        let rest = n - whole;
        r.add(whole * R::BYTES).copy_to_nonoverlapping(r_rest.as_mut_ptr(), rest * R::BYTES);
        q.add(whole * Q::BYTES).copy_to_nonoverlapping(q_rest.as_mut_ptr(), rest * Q::BYTES);
        let (r_rest, q_rest) = (r_rest.as_ptr(), q_rest.as_ptr());
        let low = half_piece::<R, Q>(r, q, whole, r_rest, q_rest, max);
        let half = LANES / 2;
        let (r, q) = (r.add(half * R::BYTES), q.add(half * Q::BYTES));
        let (r_rest, q_rest) = (r_rest.add(half * R::BYTES), q_rest.add(half * Q::BYTES));
        let high = half_piece::<R, Q>(r, q, whole, r_rest, q_rest, max);
        fold(&low, &high)
    }
}

/// One half of the lanes of every group: `whole` elements, and those of a last group.
#[inline(always)]
unsafe fn half_piece<R: Load, Q: Load>(
    r: *const u8,
    q: *const u8,
    whole: usize,
    r_rest: *const u8,
    q_rest: *const u8,
    max: &mut [__m256d; 2],
) -> Lanes {
    // SAFETY: as for `piece`.
    unsafe {
        let zero = [_mm256_setzero_pd(); 2];
        let mut lanes = Lanes { rr: zero, r4: zero, qq: zero, ee: zero, rq: zero, e: zero };
        for at in (0..whole).step_by(LANES) {
            let (r, q) = (R::eight(r.add(at * R::BYTES)), Q::eight(q.add(at * Q::BYTES)));
            add(&mut lanes, max, r, q);
        }
        add(&mut lanes, max, R::eight(r_rest), Q::eight(q_rest));
        lanes
    }
}

#[inline(always)]
unsafe fn add(lanes: &mut Lanes, max: &mut [__m256d; 2], r: __m256, q: __m256) {
    // SAFETY: the callers run with the instruction set enabled.
    unsafe {
        let sign = _mm256_set1_pd(-0.0);
        let r = [
            _mm256_cvtps_pd(_mm256_castps256_ps128(r)),
            _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(r)),
        ];
        let q = [
            _mm256_cvtps_pd(_mm256_castps256_ps128(q)),
            _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(q)),
        ];
        for half in 0..2 {
            let (r, q) = (r[half], q[half]);
            let e = _mm256_sub_pd(q, r);
            let square = _mm256_mul_pd(r, r);
            lanes.rr[half] = _mm256_add_pd(lanes.rr[half], square);
            lanes.r4[half] = _mm256_fmadd_pd(square, square, lanes.r4[half]);
            lanes.qq[half] = _mm256_fmadd_pd(q, q, lanes.qq[half]);
            lanes.ee[half] = _mm256_fmadd_pd(e, e, lanes.ee[half]);
            lanes.rq[half] = _mm256_fmadd_pd(r, q, lanes.rq[half]);
            lanes.e[half] = _mm256_add_pd(lanes.e[half], e);
            // The second operand is the result if one is NaN.
            max[half] = _mm256_max_pd(_mm256_andnot_pd(sign, e), max[half]);
        }
    }
}

/// Folds the lanes of all sums in halves, into the order of [`Sums`].
#[inline(always)]
unsafe fn fold(low: &Lanes, high: &Lanes) -> Sums {
    // SAFETY: the callers run with the instruction set enabled.
    unsafe {
        let rr_qq = two(four(low.rr, high.rr), four(low.qq, high.qq));
        let e_r4 = two(four(low.e, high.e), four(low.r4, high.r4));
        let ee_rq = two(four(low.ee, high.ee), four(low.rq, high.rq));
        let mut sums = Sums::default();
        _mm256_store_pd(sums.0.as_mut_ptr(), one(rr_qq, e_r4));
        _mm256_store_pd(sums.0.as_mut_ptr().add(4), one(ee_rq, _mm256_setzero_pd()));
        sums
    }
}

/// 8 + 8 and 4 + 4 lanes.
#[inline(always)]
unsafe fn four(low: [__m256d; 2], high: [__m256d; 2]) -> __m256d {
    unsafe { _mm256_add_pd(_mm256_add_pd(low[0], high[0]), _mm256_add_pd(low[1], high[1])) }
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

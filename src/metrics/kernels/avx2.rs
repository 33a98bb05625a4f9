/*!
Vectors of AVX2 with FMA and F16C, for the kernel of [`quarters`].
*/

use std::arch::x86_64::*;

use super::quarters::{self, Four};
use super::{Sheet, Values};

/// Sums up rows; see [`super::sum_rows`].
///
/// # Safety
///
/// The machine has the instruction set; for the rest see [`quarters::sum_rows`].
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn sum_rows(r: Values, q: Values, len: usize, row_len: usize, sheet: &mut Sheet) {
    // SAFETY: the caller's promise.
    unsafe { quarters::sum_rows::<__m256d>(r, q, len, row_len, sheet) }
}

// SAFETY of all below: by the trait's contract the callers run with the instruction set enabled, and
// the values are there.
impl Four for __m256d {
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm256_setzero_pd() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        unsafe { _mm256_load_pd(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        unsafe { _mm256_store_pd(to, self) }
    }

    #[inline(always)]
    unsafe fn of_f32(from: *const u8) -> Self {
        unsafe { _mm256_cvtps_pd(_mm_loadu_ps(from.cast())) }
    }

    #[inline(always)]
    unsafe fn of_f16(from: *const u8) -> Self {
        unsafe { _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn of_bf16(from: *const u8) -> Self {
        // bfloat16 is the upper half of an f32: each goes beside a zero.
        unsafe {
            let halves = _mm_loadl_epi64(from.cast());
            _mm256_cvtps_pd(_mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), halves)))
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm256_add_pd(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { _mm256_sub_pd(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { _mm256_mul_pd(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, to: Self) -> Self {
        unsafe { _mm256_fmadd_pd(self, other, to) }
    }

    #[inline(always)]
    unsafe fn abs_max(self, other: Self) -> Self {
        // The second operand is the result if one is NaN.
        unsafe { _mm256_max_pd(_mm256_andnot_pd(_mm256_set1_pd(-0.0), self), other) }
    }

    #[inline(always)]
    unsafe fn fold_two(self, other: Self) -> Self {
        unsafe {
            let low = _mm256_permute2f128_pd::<0x20>(self, other);
            _mm256_add_pd(low, _mm256_permute2f128_pd::<0x31>(self, other))
        }
    }

    #[inline(always)]
    unsafe fn fold_one(self, other: Self) -> Self {
        unsafe {
            let even = _mm256_unpacklo_pd(self, other);
            _mm256_add_pd(even, _mm256_unpackhi_pd(self, other))
        }
    }
}

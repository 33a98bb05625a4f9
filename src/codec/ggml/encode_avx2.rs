/*!
Eight [`Lanes`] in an AVX2 register.

Only reached through the functions that [`super::encode_lanes::encoder`] makes, after AVX2 was
detected; everything here is inlined into them. No fused multiply-add: it would change the bits.
*/

use std::arch::x86_64::{
    __m256, _CMP_EQ_OQ, _CMP_LT_OQ, _CMP_NEQ_UQ, _CMP_NLT_UQ, _mm256_add_ps, _mm256_and_ps,
    _mm256_and_si256, _mm256_andnot_ps, _mm256_blendv_ps, _mm256_castps_si256, _mm256_cmp_ps,
    _mm256_cvtepi32_ps, _mm256_div_ps, _mm256_max_epi32, _mm256_min_epi32, _mm256_movemask_ps,
    _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_ps, _mm256_sqrt_ps,
    _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_ps, _mm256_xor_ps,
};
use std::ops::{Add, BitAnd, Div, Mul, Neg, Sub};

use super::c_arithmetic::NEAREST_MAGIC;
use super::encode_lanes::Lanes;

/// Eight groups.
#[derive(Clone, Copy)]
pub(super) struct Eight(__m256);

/// One truth value for each of eight groups: all bits, or none.
#[derive(Clone, Copy)]
pub(super) struct EightMask(__m256);

macro_rules! operator {
    ($trait:ident, $method:ident, $intrinsic:ident) => {
        impl $trait for Eight {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: AVX was detected before any value of this type could exist.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    };
}
operator!(Add, add, _mm256_add_ps);
operator!(Sub, sub, _mm256_sub_ps);
operator!(Mul, mul, _mm256_mul_ps);
operator!(Div, div, _mm256_div_ps);

impl Neg for Eight {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_xor_ps(self.0, _mm256_set1_ps(-0.0)) })
    }
}

impl BitAnd for EightMask {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_and_ps(self.0, other.0) })
    }
}

impl Lanes for Eight {
    type Mask = EightMask;

    const COUNT: usize = 8;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: `Eight` is named only in kernels that run after AVX2 was detected.
        Self(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    fn gather(values: &[f32], stride: usize) -> Self {
        let at = |lane: usize| values[lane * stride];
        // SAFETY: as for `splat`.
        Self(unsafe { _mm256_setr_ps(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)) })
    }

    #[inline(always)]
    fn store(self, out: &mut [f32]) {
        let out = &mut out[..8];
        // SAFETY: as for `splat`; `out` has eight elements, and the store needs no alignment.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: as for `splat`.
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: as for `splat`.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn nearest_within(self, low: i32, high: i32) -> Self {
        // SAFETY: as for `splat`.
        Self(unsafe {
            let shifted = _mm256_castps_si256(_mm256_add_ps(self.0, _mm256_set1_ps(NEAREST_MAGIC)));
            let mantissa = _mm256_and_si256(shifted, _mm256_set1_epi32(0x007f_ffff));
            let nearest = _mm256_sub_epi32(mantissa, _mm256_set1_epi32(0x0040_0000));
            let above = _mm256_max_epi32(nearest, _mm256_set1_epi32(low));
            _mm256_cvtepi32_ps(_mm256_min_epi32(above, _mm256_set1_epi32(high)))
        })
    }

    #[inline(always)]
    fn lt(self, other: Self) -> EightMask {
        // SAFETY: as for `splat`.
        EightMask(unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) })
    }

    #[inline(always)]
    fn eq(self, other: Self) -> EightMask {
        // SAFETY: as for `splat`.
        EightMask(unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0) })
    }

    #[inline(always)]
    fn ne(self, other: Self) -> EightMask {
        // SAFETY: as for `splat`.
        EightMask(unsafe { _mm256_cmp_ps::<_CMP_NEQ_UQ>(self.0, other.0) })
    }

    #[inline(always)]
    fn not_lt(self, other: Self) -> EightMask {
        // SAFETY: as for `splat`.
        EightMask(unsafe { _mm256_cmp_ps::<_CMP_NLT_UQ>(self.0, other.0) })
    }

    #[inline(always)]
    fn select(mask: EightMask, yes: Self, no: Self) -> Self {
        // SAFETY: as for `splat`.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, mask.0) })
    }

    #[inline(always)]
    fn any(mask: EightMask) -> bool {
        // SAFETY: as for `splat`.
        unsafe { _mm256_movemask_ps(mask.0) != 0 }
    }
}

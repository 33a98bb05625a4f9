/*!
Vectors of NEON, two registers each, for the kernel of [`quarters`].
*/

use std::arch::aarch64::*;
use std::arch::asm;

use super::quarters::{self, Four};
use super::{Sheet, Values};

/// Sums up rows; see [`super::sum_rows`].
///
/// # Safety
///
/// See [`quarters::sum_rows`].
pub unsafe fn sum_rows(r: Values, q: Values, len: usize, row_len: usize, sheet: &mut Sheet) {
    // SAFETY: the caller's promise; NEON is part of the base instruction set.
    unsafe { quarters::sum_rows::<Two>(r, q, len, row_len, sheet) }
}

/// Lanes 0 and 1, lanes 2 and 3.
#[derive(Clone, Copy)]
struct Two(float64x2_t, float64x2_t);

/// Four f32 as f64.
#[inline(always)]
fn widen(values: float32x4_t) -> Two {
    // SAFETY: NEON is part of the base instruction set.
    unsafe { Two(vcvt_f64_f32(vget_low_f32(values)), vcvt_high_f64_f32(values)) }
}

// SAFETY of all below: NEON is part of the base instruction set, and the values are there by the
// trait's contract.
impl Four for Two {
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { Self(vdupq_n_f64(0.0), vdupq_n_f64(0.0)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        unsafe { Self(vld1q_f64(from), vld1q_f64(from.add(2))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        unsafe {
            vst1q_f64(to, self.0);
            vst1q_f64(to.add(2), self.1);
        }
    }

    #[inline(always)]
    unsafe fn of_f32(from: *const u8) -> Self {
        unsafe { widen(vreinterpretq_f32_u8(vld1q_u8(from))) }
    }

    #[inline(always)]
    unsafe fn of_f16(from: *const u8) -> Self {
        unsafe {
            let halves = vld1_u8(from);
            let values: float32x4_t;
            // The intrinsic takes a vector of a type that is not stable yet.
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) values, in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags));
            widen(values)
        }
    }

    #[inline(always)]
    unsafe fn of_bf16(from: *const u8) -> Self {
        // bfloat16 is the upper half of an f32.
        unsafe {
            widen(vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(vld1_u8(from)))))
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self(vaddq_f64(self.0, other.0), vaddq_f64(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { Self(vsubq_f64(self.0, other.0), vsubq_f64(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Self(vmulq_f64(self.0, other.0), vmulq_f64(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, to: Self) -> Self {
        unsafe { Self(vfmaq_f64(to.0, self.0, other.0), vfmaq_f64(to.1, self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn abs_max(self, other: Self) -> Self {
        // The number is the result if the other operand is a quiet NaN, as a difference's NaN is.
        unsafe {
            Self(vmaxnmq_f64(vabsq_f64(self.0), other.0), vmaxnmq_f64(vabsq_f64(self.1), other.1))
        }
    }

    #[inline(always)]
    unsafe fn fold_two(self, other: Self) -> Self {
        unsafe { Self(vaddq_f64(self.0, self.1), vaddq_f64(other.0, other.1)) }
    }

    #[inline(always)]
    unsafe fn fold_one(self, other: Self) -> Self {
        unsafe {
            let low = vaddq_f64(vzip1q_f64(self.0, other.0), vzip2q_f64(self.0, other.0));
            Self(low, vaddq_f64(vzip1q_f64(self.1, other.1), vzip2q_f64(self.1, other.1)))
        }
    }
}

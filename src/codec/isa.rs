/*!
The few operations that kernels leave to the instruction set: what the compiler does not find on
its own in plain loops over arrays. The provided methods are the scalar definition; an instruction
set overrides what it has an instruction for.
*/

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;
#[cfg(target_arch = "aarch64")]
use std::arch::{aarch64 as arm, asm};

/// An instruction set, as a token that a kernel is compiled for.
pub trait Isa: Copy {
    /// Widens an f16; exact. A signalling NaN becomes quiet and keeps its payload.
    #[inline(always)]
    fn f16(self, bits: u16) -> f32 {
        widen_f16(bits)
    }

    /// Widens sixteen f16.
    #[inline(always)]
    fn f16s(self, bits: [u16; 16]) -> [f32; 16] {
        bits.map(widen_f16)
    }

    /// Looks up codes below 16.
    #[inline(always)]
    fn look_up(self, table: &[i8; 16], codes: [u8; 32]) -> [i8; 32] {
        codes.map(|code| table[usize::from(code & 15)])
    }

    /// Eight elements of a table by index, of which the lower three bits count.
    #[inline(always)]
    fn look_up_f32(self, table: &[f32; 8], indices: [u32; 8]) -> [f32; 8] {
        indices.map(|index| table[index as usize & 7])
    }

    /// The least of eight that are not NaN and below `f32::MAX`, and where it is first; `f32::MAX` if
    /// there is none.
    #[inline(always)]
    fn first_least(self, values: [f32; 8]) -> (f32, usize) {
        let mut least = (f32::MAX, 0);
        for (at, value) in values.into_iter().enumerate() {
            least = if value < least.0 { (value, at) } else { least };
        }
        least
    }

    /// Sixteen signed codes as f32.
    #[inline(always)]
    fn widen_i8(self, codes: [i8; 16]) -> [f32; 16] {
        codes.map(f32::from)
    }

    /// Sixteen unsigned codes as f32.
    #[inline(always)]
    fn widen_u8(self, codes: [u8; 16]) -> [f32; 16] {
        codes.map(f32::from)
    }

    /// Element i is 0xFF where bit i (bit i % 8 of byte i / 8) is set, else 0.
    #[inline(always)]
    fn bit_masks(self, bits: [u8; 4]) -> [u8; 32] {
        let bits = u32::from_le_bytes(bits);
        std::array::from_fn(|i| 0u8.wrapping_sub((bits >> i) as u8 & 1))
    }
}

/// The scalar definition.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Isa for Scalar {}

/// x86-64 with AVX2, F16C, BMI1, BMI2 and POPCNT. A value is proof that the processor has them.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// The token, for a function that is compiled for these features.
    #[target_feature(enable = "avx2,f16c,bmi1,bmi2,popcnt")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

#[cfg(target_arch = "x86_64")]
impl Isa for Avx2 {
    #[inline(always)]
    fn f16(self, bits: u16) -> f32 {
        // SAFETY: the token is proof of F16C.
        unsafe { x86::_mm_cvtss_f32(x86::_mm_cvtph_ps(x86::_mm_cvtsi32_si128(i32::from(bits)))) }
    }

    #[inline(always)]
    fn f16s(self, bits: [u16; 16]) -> [f32; 16] {
        // SAFETY: the token is proof of F16C; loads and stores stay inside the arrays.
        unsafe {
            let mut values = [0.0; 16];
            let low = x86::_mm_loadu_si128(bits.as_ptr().cast());
            let high = x86::_mm_loadu_si128(bits.as_ptr().add(8).cast());
            x86::_mm256_storeu_ps(values.as_mut_ptr(), x86::_mm256_cvtph_ps(low));
            x86::_mm256_storeu_ps(values.as_mut_ptr().add(8), x86::_mm256_cvtph_ps(high));
            values
        }
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], codes: [u8; 32]) -> [i8; 32] {
        // SAFETY: the token is proof of AVX2; loads and stores stay inside the arrays.
        unsafe {
            let mut found = [0; 32];
            let table = x86::_mm_loadu_si128(table.as_ptr().cast());
            let codes = x86::_mm256_loadu_si256(codes.as_ptr().cast());
            let values = x86::_mm256_shuffle_epi8(x86::_mm256_broadcastsi128_si256(table), codes);
            x86::_mm256_storeu_si256(found.as_mut_ptr().cast(), values);
            found
        }
    }

    #[inline(always)]
    fn look_up_f32(self, table: &[f32; 8], indices: [u32; 8]) -> [f32; 8] {
        // SAFETY: the token is proof of AVX2; loads and the store stay inside the arrays.
        unsafe {
            let mut values = [0.0; 8];
            let table = x86::_mm256_loadu_ps(table.as_ptr());
            let indices = x86::_mm256_loadu_si256(indices.as_ptr().cast());
            let picked = x86::_mm256_permutevar8x32_ps(table, indices);
            x86::_mm256_storeu_ps(values.as_mut_ptr(), picked);
            values
        }
    }

    #[inline(always)]
    fn first_least(self, values: [f32; 8]) -> (f32, usize) {
        // SAFETY: the token is proof of AVX2; the load stays inside the array.
        unsafe {
            let most = x86::_mm256_set1_ps(f32::MAX);
            // The second operand is the result if the first is NaN.
            let values = x86::_mm256_min_ps(x86::_mm256_loadu_ps(values.as_ptr()), most);
            let least =
                x86::_mm256_min_ps(values, x86::_mm256_permute2f128_ps::<1>(values, values));
            let least = x86::_mm256_min_ps(least, x86::_mm256_permute_ps::<0x4E>(least));
            let least = x86::_mm256_min_ps(least, x86::_mm256_permute_ps::<0xB1>(least));
            let equal = x86::_mm256_cmp_ps::<{ x86::_CMP_EQ_OQ }>(values, least);
            let first = x86::_mm256_movemask_ps(equal).trailing_zeros() as usize;
            (x86::_mm256_cvtss_f32(least), first)
        }
    }

    #[inline(always)]
    fn widen_i8(self, codes: [i8; 16]) -> [f32; 16] {
        // SAFETY: the token is proof of AVX2; loads and stores stay inside the arrays.
        unsafe {
            let mut values = [0.0; 16];
            for (half, codes) in codes.as_chunks::<8>().0.iter().enumerate() {
                let codes = x86::_mm_loadl_epi64(codes.as_ptr().cast());
                let wide = x86::_mm256_cvtepi32_ps(x86::_mm256_cvtepi8_epi32(codes));
                x86::_mm256_storeu_ps(values.as_mut_ptr().add(8 * half), wide);
            }
            values
        }
    }

    #[inline(always)]
    fn widen_u8(self, codes: [u8; 16]) -> [f32; 16] {
        // SAFETY: the token is proof of AVX2; loads and stores stay inside the arrays.
        unsafe {
            let mut values = [0.0; 16];
            for (half, codes) in codes.as_chunks::<8>().0.iter().enumerate() {
                let codes = x86::_mm_loadl_epi64(codes.as_ptr().cast());
                let wide = x86::_mm256_cvtepi32_ps(x86::_mm256_cvtepu8_epi32(codes));
                x86::_mm256_storeu_ps(values.as_mut_ptr().add(8 * half), wide);
            }
            values
        }
    }

    #[inline(always)]
    fn bit_masks(self, bits: [u8; 4]) -> [u8; 32] {
        // SAFETY: the token is proof of AVX2; the store stays inside the array.
        unsafe {
            let mut masks = [0; 32];
            // Byte i gets byte i / 8 of the word, and of that byte bit i % 8.
            let byte = x86::_mm256_set_epi64x(
                0x0303_0303_0303_0303,
                0x0202_0202_0202_0202,
                0x0101_0101_0101_0101,
                0,
            );
            let bit = x86::_mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let word = x86::_mm256_set1_epi32(i32::from_le_bytes(bits));
            let chosen = x86::_mm256_and_si256(x86::_mm256_shuffle_epi8(word, byte), bit);
            let set = x86::_mm256_cmpeq_epi8(chosen, bit);
            x86::_mm256_storeu_si256(masks.as_mut_ptr().cast(), set);
            masks
        }
    }
}

/// x86-64 with what [`Avx2`] has and AVX-512 F, BW, DQ and VL. A value is proof that the processor
/// has them.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512(Avx2);

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// The token, for a function that is compiled for these features.
    #[target_feature(enable = "avx2,f16c,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn new() -> Self {
        Self(Avx2::new())
    }
}

#[cfg(target_arch = "x86_64")]
impl Isa for Avx512 {
    #[inline(always)]
    fn f16(self, bits: u16) -> f32 {
        self.0.f16(bits)
    }

    #[inline(always)]
    fn f16s(self, bits: [u16; 16]) -> [f32; 16] {
        // SAFETY: the token is proof of AVX-512 F; loads and stores stay inside the arrays.
        unsafe {
            let mut values = [0.0; 16];
            let bits = x86::_mm256_loadu_si256(bits.as_ptr().cast());
            x86::_mm512_storeu_ps(values.as_mut_ptr(), x86::_mm512_cvtph_ps(bits));
            values
        }
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], codes: [u8; 32]) -> [i8; 32] {
        self.0.look_up(table, codes)
    }

    #[inline(always)]
    fn look_up_f32(self, table: &[f32; 8], indices: [u32; 8]) -> [f32; 8] {
        self.0.look_up_f32(table, indices)
    }

    #[inline(always)]
    fn first_least(self, values: [f32; 8]) -> (f32, usize) {
        self.0.first_least(values)
    }

    #[inline(always)]
    fn widen_i8(self, codes: [i8; 16]) -> [f32; 16] {
        // SAFETY: the token is proof of AVX-512 F; the load and the store stay inside the arrays.
        unsafe {
            let mut values = [0.0; 16];
            let codes = x86::_mm_loadu_si128(codes.as_ptr().cast());
            let wide = x86::_mm512_cvtepi32_ps(x86::_mm512_cvtepi8_epi32(codes));
            x86::_mm512_storeu_ps(values.as_mut_ptr(), wide);
            values
        }
    }

    #[inline(always)]
    fn widen_u8(self, codes: [u8; 16]) -> [f32; 16] {
        // SAFETY: the token is proof of AVX-512 F; the load and the store stay inside the arrays.
        unsafe {
            let mut values = [0.0; 16];
            let codes = x86::_mm_loadu_si128(codes.as_ptr().cast());
            let wide = x86::_mm512_cvtepi32_ps(x86::_mm512_cvtepu8_epi32(codes));
            x86::_mm512_storeu_ps(values.as_mut_ptr(), wide);
            values
        }
    }

    #[inline(always)]
    fn bit_masks(self, bits: [u8; 4]) -> [u8; 32] {
        // SAFETY: the token is proof of AVX-512 BW and VL; the store stays inside the array.
        unsafe {
            let mut masks = [0; 32];
            let set = x86::_mm256_movm_epi8(u32::from_le_bytes(bits));
            x86::_mm256_storeu_si256(masks.as_mut_ptr().cast(), set);
            masks
        }
    }
}

/// aarch64, whose base instruction set NEON is part of.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug)]
pub struct Neon;

#[cfg(target_arch = "aarch64")]
impl Isa for Neon {
    #[inline(always)]
    fn f16(self, bits: u16) -> f32 {
        let value: f32;
        // SAFETY: registers alone, of the base instruction set; the intrinsic's type is not stable.
        unsafe {
            asm!("fcvt {0:s}, {0:h}", inout(vreg) f32::from_bits(u32::from(bits)) => value,
                options(pure, nomem, nostack, preserves_flags));
        }
        value
    }

    #[inline(always)]
    fn f16s(self, bits: [u16; 16]) -> [f32; 16] {
        let mut values = [0.0; 16];
        // SAFETY: NEON is part of the base instruction set; loads and stores stay inside the arrays.
        unsafe {
            for eighth in 0..2 {
                let halves = arm::vld1q_u16(bits.as_ptr().add(8 * eighth));
                let (low, high): (arm::float32x4_t, arm::float32x4_t);
                asm!("fcvtl {0:v}.4s, {2:v}.4h", "fcvtl2 {1:v}.4s, {2:v}.8h",
                    out(vreg) low, out(vreg) high, in(vreg) halves,
                    options(pure, nomem, nostack, preserves_flags));
                arm::vst1q_f32(values.as_mut_ptr().add(8 * eighth), low);
                arm::vst1q_f32(values.as_mut_ptr().add(8 * eighth + 4), high);
            }
        }
        values
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], codes: [u8; 32]) -> [i8; 32] {
        let mut found = [0; 32];
        // SAFETY: NEON is part of the base instruction set; loads and stores stay inside the arrays.
        unsafe {
            let (table, fifteen) = (arm::vld1q_s8(table.as_ptr()), arm::vdupq_n_u8(15));
            for half in 0..2 {
                let codes = arm::vandq_u8(arm::vld1q_u8(codes.as_ptr().add(16 * half)), fifteen);
                arm::vst1q_s8(found.as_mut_ptr().add(16 * half), arm::vqtbl1q_s8(table, codes));
            }
        }
        found
    }

    #[inline(always)]
    fn look_up_f32(self, table: &[f32; 8], indices: [u32; 8]) -> [f32; 8] {
        let mut values = [0.0f32; 8];
        // SAFETY: NEON is part of the base instruction set; loads and stores stay inside the arrays.
        unsafe {
            let bytes: *const u8 = table.as_ptr().cast();
            let table = arm::uint8x16x2_t(arm::vld1q_u8(bytes), arm::vld1q_u8(bytes.add(16)));
            for half in 0..2 {
                let indices = arm::vld1q_u32(indices.as_ptr().add(4 * half));
                let index = arm::vandq_u32(indices, arm::vdupq_n_u32(7));
                // The four bytes of element i are 4i to 4i + 3.
                let first = arm::vmulq_u32(index, arm::vdupq_n_u32(0x0404_0404));
                let places = arm::vaddq_u32(first, arm::vdupq_n_u32(0x0302_0100));
                let picked = arm::vqtbl2q_u8(table, arm::vreinterpretq_u8_u32(places));
                arm::vst1q_u8(values.as_mut_ptr().add(4 * half).cast(), picked);
            }
        }
        values
    }

    #[inline(always)]
    fn first_least(self, values: [f32; 8]) -> (f32, usize) {
        // SAFETY: NEON is part of the base instruction set; the loads stay inside the array.
        unsafe {
            let most = arm::vdupq_n_f32(f32::MAX);
            // The number is the result if the other operand is NaN.
            let [low, high] =
                [0, 4].map(|at| arm::vminnmq_f32(arm::vld1q_f32(values.as_ptr().add(at)), most));
            let least = arm::vminvq_f32(arm::vminq_f32(low, high));
            // A byte of ones for each that is equal.
            let equal = [low, high].map(|half| arm::vceqq_f32(half, arm::vdupq_n_f32(least)));
            let [low, high] = equal.map(|half| arm::vmovn_u32(half));
            let bytes = arm::vmovn_u16(arm::vcombine_u16(low, high));
            let first = arm::vget_lane_u64::<0>(arm::vreinterpret_u64_u8(bytes)).trailing_zeros();
            (least, first as usize / 8)
        }
    }

    #[inline(always)]
    fn bit_masks(self, bits: [u8; 4]) -> [u8; 32] {
        let mut masks = [0; 32];
        // SAFETY: NEON is part of the base instruction set; the stores stay inside the array.
        unsafe {
            let bit = arm::vcreate_u8(0x8040_2010_0804_0201);
            let bit = arm::vcombine_u8(bit, bit);
            for half in 0..2 {
                let [low, high] =
                    [bits[2 * half], bits[2 * half + 1]].map(|byte| arm::vdup_n_u8(byte));
                let set = arm::vtstq_u8(arm::vcombine_u8(low, high), bit);
                arm::vst1q_u8(masks.as_mut_ptr().add(16 * half), set);
            }
        }
        masks
    }
}

/// Widens an f16 with integer operations and one exact difference.
#[inline(always)]
fn widen_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7FFF) << 13;
    // A subnormal is the difference of two normal f32, so that no operand is slow.
    let least = (127 - 14) << 23;
    let subnormal = f32::from_bits(magnitude + least) - f32::from_bits(least);
    let normal = magnitude + least - (1 << 23);
    let finite = if bits & 0x7C00 == 0 { subnormal.to_bits() } else { normal };
    let special = magnitude | 0x7F80_0000 | u32::from(bits & 0x3FF != 0) << 22;
    let is_special = bits & 0x7C00 == 0x7C00;
    f32::from_bits(sign | if is_special { special } else { finite })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_as_in_half() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            assert_eq!(Scalar.f16(bits).to_bits(), expected.to_bits(), "{bits:#06x}");
            #[cfg(target_arch = "aarch64")]
            assert_eq!(Neon.f16(bits).to_bits(), expected.to_bits(), "{bits:#06x}");
        }
    }
}

/*!
The few operations that a decoder leaves to the instruction set.

The provided methods are the scalar definition.
*/

/// An instruction set, as a token that a kernel is compiled for.
pub trait Isa: Copy {
    /// Widens an f16; exact. A signalling NaN becomes quiet and keeps its payload.
    #[inline(always)]
    fn f16(self, bits: u16) -> f32 {
        widen_f16(bits)
    }

    /// Looks up codes below 16.
    #[inline(always)]
    fn look_up(self, table: &[i8; 16], codes: [u8; 32]) -> [i8; 32] {
        codes.map(|code| table[usize::from(code & 15)])
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

/// Widens an f16 with integer operations and one exact product.
#[inline(always)]
fn widen_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7FFF) << 13;
    // As bits of an f32 the magnitude is 2^-112 times the value, subnormal where the f16 is.
    let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let special = magnitude | 0x7F80_0000 | u32::from(bits & 0x3FF != 0) << 22;
    let is_special = bits & 0x7C00 == 0x7C00;
    f32::from_bits(sign | if is_special { special } else { finite.to_bits() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_as_in_half() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            assert_eq!(Scalar.f16(bits).to_bits(), expected.to_bits(), "{bits:#06x}");
        }
    }
}

/*!
Stored floats as f32, a group at a time and without branches, which compilers turn into vectors.
*/

use super::Values;

/// The first values of `group`, as f32.
#[inline(always)]
pub fn widen<const N: usize>(values: Values, group: &mut [f32; N]) {
    match values {
        Values::Decoded(values) => {
            for (to, value) in group.iter_mut().zip(values) {
                *to = *value;
            }
        }
        Values::F32(bytes) => {
            for (to, bytes) in group.iter_mut().zip(bytes.as_chunks().0) {
                *to = f32::from_le_bytes(*bytes);
            }
        }
        Values::BF16(bytes) => {
            for (to, bytes) in group.iter_mut().zip(bytes.as_chunks().0) {
                *to = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        Values::F16(bytes) => {
            for (to, bytes) in group.iter_mut().zip(bytes.as_chunks().0) {
                *to = of_f16(u16::from_le_bytes(*bytes));
            }
        }
    }
}

/// A binary16 as f32, without a branch: its bits as an f32 whose exponent is 112 too small.
#[inline(always)]
fn of_f16(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = f32::from_bits((bits & 0x7FFF) << 13) * f32::from_bits((127 + 112) << 23);
    let special = if bits & 0x7C00 == 0x7C00 { 0x7F80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn every_binary16_is_widened() {
        for bits in 0..=u16::MAX {
            let (fast, expected) = (of_f16(bits), f16::from_bits(bits).to_f32());
            assert!(
                fast.to_bits() == expected.to_bits() || fast.is_nan() && expected.is_nan(),
                "{bits:#x}"
            );
        }
    }
}

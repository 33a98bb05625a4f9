/*!
Microscaling types: `MXFP4` and `NVFP4`, E2M1 codes with 8-bit floating-point scales.

As in ggml, codes are looked up as doubled integers and the scale is halved; that is exact except
at the very top of the range, where it decides what overflows.
*/

use super::bytes::{field, nibbles, scale, scale_halves};
use super::grids::E2M1_DOUBLED;
use crate::codec::isa::Isa;
use crate::codec::simd::decoders;

decoders! {
    /// `MXFP4`: E8M0 scale, codes as in `Q4_0`; `2^(e - 127)` times the code's E2M1 value.
    mxfp4: 17 => 32, mxfp4_block;
    /// `NVFP4`: four E4M3 scales of 16 elements each, codes; the scale times the E2M1 value.
    ///
    /// The weight is this times a scale of the whole tensor, which is a tensor of its own.
    nvfp4: 36 => 64, nvfp4_block;
}

#[inline(always)]
fn mxfp4_block(isa: impl Isa, block: &[u8; 17], values: &mut [f32; 32]) {
    let codes = isa.look_up(&E2M1_DOUBLED, nibbles(field::<1, 16, _>(block)));
    scale(isa, &codes, half_e8m0(block[0]), values);
}

#[inline(always)]
fn nvfp4_block(isa: impl Isa, block: &[u8; 36], values: &mut [f32; 64]) {
    let [s0, s1, s2, s3] = field::<0, 4, _>(block).map(|code| HALF_UE4M3[usize::from(code)]);
    let packed = field::<4, 32, _>(block).as_chunks::<16>().0;
    let (values, _) = values.as_chunks_mut::<32>();
    for ((values, packed), scales) in values.iter_mut().zip(packed).zip([[s0, s1], [s2, s3]]) {
        let codes = isa.look_up(&E2M1_DOUBLED, nibbles_by_eight(packed));
        scale_halves(isa, &codes, scales, values);
    }
}

/// Sixteen bytes to 32 codes: low nibbles of eight bytes, their high nibbles, and so on.
#[inline(always)]
fn nibbles_by_eight(packed: &[u8; 16]) -> [u8; 32] {
    let mut codes = [0; 32];
    let packed = packed.as_chunks::<8>().0;
    for (codes, packed) in codes.as_chunks_mut::<16>().0.iter_mut().zip(packed) {
        for (i, &byte) in packed.iter().enumerate() {
            codes[i] = byte & 15;
            codes[i + 8] = byte >> 4;
        }
    }
    codes
}

/// `2^(e - 128)`, half of what the E8M0 code stands for. Codes 0 and 1 give subnormals; 255, which
/// is NaN in OCP's format, is 2^127 as in ggml.
#[inline(always)]
pub fn half_e8m0(code: u8) -> f32 {
    let code = u32::from(code);
    f32::from_bits(if code < 2 { 0x0020_0000 << code } else { (code - 1) << 23 })
}

/// Half of what a scale byte of `NVFP4` stands for: E4M3 without its sign, 0x7F is 0 as in ggml
/// (and 0xFF 480).
pub static HALF_UE4M3: [f32; 256] = half_ue4m3();

const fn half_ue4m3() -> [f32; 256] {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let (exponent, mantissa) = ((code as u32 >> 3) & 15, code as u32 & 7);
        // significand * 2^(exponent - 7 - 3), halved.
        let (significand, exponent) =
            if exponent == 0 { (mantissa, 1) } else { (mantissa + 8, exponent) };
        values[code] = significand as f32 * f32::from_bits((exponent + 127 - 11) << 23);
        code += 1;
    }
    values[0x7F] = 0.0;
    values
}

/*!
Floating-point element types: IEEE widths, bfloat16, and the 8-, 6- and 4-bit formats of OCP and AMD.

Each decoder takes little-endian elements and writes the f32 that they stand for. NaN and infinity
stay what they are. The code values are those of the OCP 8-bit floating point specification (OFP8)
and the OCP microscaling specification (MX).
*/

use super::isa::Isa;
use super::simd::{Kernel, decoders, dispatch};

decoders! {
    /// `F32`: the bytes are the value.
    f32: 4 => 1, f32_element;
    /// `BF16`: the upper half of an f32; exact.
    bf16: 2 => 1, bf16_element;
    /// `F64`: rounded to the nearest f32, ties to even; beyond f32's range it becomes infinite.
    f64: 8 => 1, f64_element;
    /// `F8_E4M3`, one byte an element: the values of [`E4M3`].
    e4m3: 1 => 1, e4m3_element;
    /// `F8_E5M2`, one byte an element: the values of [`E5M2`].
    e5m2: 1 => 1, e5m2_element;
    /// `F8_E4M3FNUZ`, one byte an element: the values of [`E4M3FNUZ`].
    e4m3fnuz: 1 => 1, e4m3fnuz_element;
    /// `F8_E5M2FNUZ`, one byte an element: the values of [`E5M2FNUZ`].
    e5m2fnuz: 1 => 1, e5m2fnuz_element;
    /// `F8_E8M0`, one byte an element, a power of two: the values of [`E8M0`].
    e8m0: 1 => 1, e8m0_element;
    /// `F4`: two [`E2M1`] codes a byte, the low nibble first.
    e2m1: 1 => 2, e2m1_pair;
}

/// `F16`: IEEE binary16; exact. A signalling NaN becomes quiet.
pub fn f16(bytes: &[u8], values: &mut [f32]) {
    dispatch(WidenF16 { bytes, values });
}

struct WidenF16<'a> {
    bytes: &'a [u8],
    values: &'a mut [f32],
}

impl Kernel for WidenF16<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        let (bits, _) = self.bytes.as_chunks::<2>();
        let (wide, tail) = self.values.as_chunks_mut::<16>();
        let (wide_bits, tail_bits) = bits.as_chunks::<16>();
        for (values, bits) in wide.iter_mut().zip(wide_bits) {
            *values = isa.f16s(bits.map(u16::from_le_bytes));
        }
        for (value, bits) in tail.iter_mut().zip(tail_bits) {
            *value = isa.f16(u16::from_le_bytes(*bits));
        }
    }
}

#[inline(always)]
fn f32_element(_: impl Isa, bytes: &[u8; 4], [value]: &mut [f32; 1]) {
    *value = f32::from_le_bytes(*bytes);
}

#[inline(always)]
fn bf16_element(_: impl Isa, bytes: &[u8; 2], [value]: &mut [f32; 1]) {
    *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
}

#[inline(always)]
fn f64_element(_: impl Isa, bytes: &[u8; 8], [value]: &mut [f32; 1]) {
    *value = f64::from_le_bytes(*bytes) as f32;
}

#[inline(always)]
fn e4m3_element(_: impl Isa, [code]: &[u8; 1], [value]: &mut [f32; 1]) {
    *value = widen_small_float(*code, 3, 7, Specials::Finite);
}

#[inline(always)]
fn e5m2_element(_: impl Isa, [code]: &[u8; 1], [value]: &mut [f32; 1]) {
    *value = widen_small_float(*code, 2, 15, Specials::Ieee);
}

#[inline(always)]
fn e4m3fnuz_element(_: impl Isa, [code]: &[u8; 1], [value]: &mut [f32; 1]) {
    *value = widen_small_float(*code, 3, 8, Specials::FiniteUnsignedZero);
}

#[inline(always)]
fn e5m2fnuz_element(_: impl Isa, [code]: &[u8; 1], [value]: &mut [f32; 1]) {
    *value = widen_small_float(*code, 2, 16, Specials::FiniteUnsignedZero);
}

#[inline(always)]
fn e8m0_element(_: impl Isa, [code]: &[u8; 1], [value]: &mut [f32; 1]) {
    let power = if *code == 0 { 1 << 22 } else { u32::from(*code) << 23 };
    *value = if *code == 255 { f32::NAN } else { f32::from_bits(power) };
}

#[inline(always)]
fn e2m1_pair(_: impl Isa, [byte]: &[u8; 1], values: &mut [f32; 2]) {
    *values = [E2M1[usize::from(byte & 15)], E2M1[usize::from(byte >> 4)]];
}

/// The value of one 8-bit code without a table and without a branch, for a vector of codes.
///
/// The magnitude's bits, put where an f32 has its exponent and mantissa, are the value but for the
/// difference of the biases. Subnormals are a difference of two normal values: subnormal operands are
/// slow on many processors.
#[inline(always)]
fn widen_small_float(code: u8, mantissa_bits: u32, bias: u32, specials: Specials) -> f32 {
    let magnitude = u32::from(code & 0x7F);
    let sign = u32::from(code & 0x80) << 24;
    let widened = magnitude << (23 - mantissa_bits);
    let least = (128 - bias) << 23;
    let subnormal = f32::from_bits(widened + least) - f32::from_bits(least);
    let normal = widened + least - (1 << 23);
    let value = if magnitude >> mantissa_bits == 0 { subnormal.to_bits() } else { normal };
    let value = f32::from_bits(value | sign);
    let infinity = 0x7F >> mantissa_bits << mantissa_bits;
    let (is_infinite, is_nan) = match specials {
        Specials::Ieee => (magnitude == infinity, magnitude > infinity),
        Specials::Finite => (false, magnitude == 0x7F),
        Specials::FiniteUnsignedZero => (false, code == 0x80),
    };
    let value = if is_infinite { f32::from_bits(0x7F80_0000 | sign) } else { value };
    if is_nan { f32::NAN } else { value }
}

/// What the all-ones exponent and the negative zero of an 8-bit format stand for.
#[derive(Clone, Copy, PartialEq)]
enum Specials {
    /// Infinities and NaN as in IEEE 754 (E5M2).
    Ieee,
    /// No infinity; NaN is the all-ones magnitude (E4M3 of OCP, "FN").
    Finite,
    /// No infinity, no negative zero: its code, 0x80, is the one NaN ("FNUZ").
    FiniteUnsignedZero,
}

/// The value of one 8-bit code with the given number of mantissa bits and exponent bias.
const fn small_float(code: u8, mantissa_bits: u32, bias: i32, specials: Specials) -> f32 {
    let magnitude = (code & 0x7F) as u32;
    let exponent = (magnitude >> mantissa_bits) as i32;
    let mantissa = magnitude & ((1 << mantissa_bits) - 1);
    let all_ones = 0x7F >> mantissa_bits;
    match specials {
        Specials::FiniteUnsignedZero if code == 0x80 => return f32::NAN,
        Specials::Finite if magnitude == 0x7F => return f32::NAN,
        Specials::Ieee if exponent == all_ones => {
            if mantissa != 0 {
                return f32::NAN;
            }
            return if code < 0x80 { f32::INFINITY } else { f32::NEG_INFINITY };
        }
        _ => {}
    }
    // significand * 2^power, both exact in f32 (the smallest is 2^-17).
    let (significand, power) = if exponent == 0 {
        (mantissa, 1 - bias - mantissa_bits as i32)
    } else {
        (mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits as i32)
    };
    let value = significand as f32 * f32::from_bits(((127 + power) as u32) << 23);
    if code < 0x80 { value } else { -value }
}

const fn table(mantissa_bits: u32, bias: i32, specials: Specials) -> [f32; 256] {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = small_float(code as u8, mantissa_bits, bias, specials);
        code += 1;
    }
    values
}

/// 2^(code - 127); 255 is NaN. Code 0 is 2^-127, an f32 subnormal.
const fn e8m0_table() -> [f32; 256] {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 255 {
        values[code] = f32::from_bits(if code == 0 { 1 << 22 } else { (code as u32) << 23 });
        code += 1;
    }
    values[255] = f32::NAN;
    values
}

/// Every value of OCP E4M3 (no infinity; 0x7F and 0xFF are NaN; the largest is 448).
pub static E4M3: [f32; 256] = table(3, 7, Specials::Finite);
/// Every value of OCP E5M2 (IEEE-like; the largest finite is 57344).
pub static E5M2: [f32; 256] = table(2, 15, Specials::Ieee);
/// Every value of E4M3FNUZ (0x80 is NaN; the largest is 240).
pub static E4M3FNUZ: [f32; 256] = table(3, 8, Specials::FiniteUnsignedZero);
/// Every value of E5M2FNUZ (0x80 is NaN; the largest is 57344).
pub static E5M2FNUZ: [f32; 256] = table(2, 16, Specials::FiniteUnsignedZero);
/// Every value of the scale type E8M0: 2^(code - 127), 255 is NaN.
pub static E8M0: [f32; 256] = e8m0_table();
/// Every value of E2M1 (FP4); codes 8 to 15 are the negatives, 8 is -0.
pub static E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The value of one 6-bit code: no infinity, no NaN.
const fn six_bits(code: u8, mantissa_bits: u32, bias: i32) -> f32 {
    let magnitude = (code & 0x1F) as u32;
    let exponent = (magnitude >> mantissa_bits) as i32;
    let mantissa = magnitude & ((1 << mantissa_bits) - 1);
    let (significand, power) = if exponent == 0 {
        (mantissa, 1 - bias - mantissa_bits as i32)
    } else {
        (mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits as i32)
    };
    let value = significand as f32 * f32::from_bits(((127 + power) as u32) << 23);
    if code < 0x20 { value } else { -value }
}

const fn six_bit_table(mantissa_bits: u32, bias: i32) -> [f32; 64] {
    let mut values = [0.0; 64];
    let mut code = 0;
    while code < 64 {
        values[code] = six_bits(code as u8, mantissa_bits, bias);
        code += 1;
    }
    values
}

/// Every value of E2M3 (FP6); the largest is 7.5.
pub static E2M3: [f32; 64] = six_bit_table(3, 1);
/// Every value of E3M2 (FP6); the largest is 28.
pub static E3M2: [f32; 64] = six_bit_table(2, 3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_give_the_tables() {
        let codes: Vec<u8> = (0..=255).collect();
        for (name, decode, table) in [
            ("E4M3", e4m3 as fn(&[u8], &mut [f32]), &E4M3),
            ("E5M2", e5m2, &E5M2),
            ("E4M3FNUZ", e4m3fnuz, &E4M3FNUZ),
            ("E5M2FNUZ", e5m2fnuz, &E5M2FNUZ),
            ("E8M0", e8m0, &E8M0),
        ] {
            let mut values = [0.0; 256];
            decode(&codes, &mut values);
            assert_eq!(values.map(f32::to_bits), table.map(f32::to_bits), "{name}");
        }
    }

    #[test]
    fn landmarks_of_the_small_formats() {
        for (value, expected, why) in [
            (E4M3[0x7E], 448.0, "largest E4M3"),
            (E4M3[0x01], 0.001953125, "smallest E4M3 subnormal, 2^-9"),
            (E4M3[0xB8], -1.0, "sign"),
            (E5M2[0x7B], 57344.0, "largest finite E5M2"),
            (E5M2[0x01], 2f32.powi(-16), "smallest E5M2 subnormal"),
            (E5M2[0xFC], f32::NEG_INFINITY, "E5M2 has infinities"),
            (E4M3FNUZ[0x7F], 240.0, "largest E4M3FNUZ"),
            (E5M2FNUZ[0x7F], 57344.0, "largest E5M2FNUZ"),
            (E5M2FNUZ[0x01], 2f32.powi(-17), "smallest E5M2FNUZ subnormal"),
            (E2M3[0x1F], 7.5, "largest E2M3"),
            (E2M3[0x21], -0.125, "smallest E2M3 subnormal, negated"),
            (E3M2[0x1F], 28.0, "largest E3M2"),
            (E3M2[0x01], 0.0625, "smallest E3M2 subnormal"),
            (E8M0[127], 1.0, "E8M0 bias"),
            (E8M0[0], 2f32.powi(-127), "E8M0 subnormal"),
            (E8M0[254], 2f32.powi(127), "largest E8M0"),
        ] {
            assert_eq!(value.to_bits(), expected.to_bits(), "{why}");
        }
        for nan in [E4M3[0x7F], E4M3[0xFF], E5M2[0x7D], E4M3FNUZ[0x80], E5M2FNUZ[0x80], E8M0[255]] {
            assert!(nan.is_nan());
        }
    }
}

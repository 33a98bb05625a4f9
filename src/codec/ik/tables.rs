/*! Codes to the values of the tables, with what the second form of a table adds to each half. */

use super::values::{V2, V3, V4, V5};
use crate::codec::isa::Isa;

/// A table of fewer than sixteen values, filled up.
const fn filled<const N: usize>(values: &[i8; N]) -> [i8; 16] {
    let mut table = [0; 16];
    let mut at = 0;
    while at < N {
        table[at] = values[at];
        at += 1;
    }
    table
}

static V2_TABLE: [i8; 16] = filled(&V2);
static V3_TABLE: [i8; 16] = filled(&V3);

/// Half of the values of 5-bit codes.
const fn half(first: usize) -> [i8; 16] {
    let mut table = [0; 16];
    let mut at = 0;
    while at < 16 {
        table[at] = V5[first + at];
        at += 1;
    }
    table
}

static V5_LOW: [i8; 16] = half(0);
static V5_HIGH: [i8; 16] = half(16);

/// Adds to the values of each half of 16.
#[inline(always)]
fn shifted(mut values: [i8; 32], shifts: [i8; 2]) -> [i8; 32] {
    for (values, shift) in values.as_chunks_mut::<16>().0.iter_mut().zip(shifts) {
        *values = values.map(|value| value + shift);
    }
    values
}

/// Values of 2-bit codes.
#[inline(always)]
pub(super) fn two_bits(isa: impl Isa, codes: [u8; 32], shifts: [i8; 2]) -> [i8; 32] {
    shifted(isa.look_up(&V2_TABLE, codes), shifts)
}

/// Values of 3-bit codes.
#[inline(always)]
pub(super) fn three_bits(isa: impl Isa, codes: [u8; 32], shifts: [i8; 2]) -> [i8; 32] {
    shifted(isa.look_up(&V3_TABLE, codes), shifts)
}

/// Values of 4-bit codes.
#[inline(always)]
pub(super) fn four_bits(isa: impl Isa, codes: [u8; 32], shifts: [i8; 2]) -> [i8; 32] {
    shifted(isa.look_up(&V4, codes), shifts)
}

/// Values of 5-bit codes.
#[inline(always)]
pub(super) fn five_bits(isa: impl Isa, codes: [u8; 32], shifts: [i8; 2]) -> [i8; 32] {
    let low_bits = codes.map(|code| code & 15);
    let (low, high) = (isa.look_up(&V5_LOW, low_bits), isa.look_up(&V5_HIGH, low_bits));
    let mut values = [0; 32];
    for (i, value) in values.iter_mut().enumerate() {
        *value = if codes[i] & 16 == 0 { low[i] } else { high[i] };
    }
    shifted(values, shifts)
}

/*! Fields of a block at fixed offsets, and the last step of every decoder: codes times scales. */

use crate::codec::isa::Isa;

/// The `N` bytes of a block that start at `AT`.
#[inline(always)]
pub(in crate::codec) fn field<const AT: usize, const N: usize, const BYTES: usize>(
    block: &[u8; BYTES],
) -> &[u8; N] {
    const { assert!(AT + N <= BYTES, "a field lies inside its block") };
    match block[AT..].first_chunk() {
        Some(field) => field,
        None => unreachable!(),
    }
}

/// The u16 at `AT`.
#[inline(always)]
pub(in crate::codec) fn u16_at<const AT: usize, const BYTES: usize>(block: &[u8; BYTES]) -> u16 {
    u16::from_le_bytes(*field::<AT, 2, BYTES>(block))
}

/// The f16 at `AT`, widened.
#[inline(always)]
pub(in crate::codec) fn f16_at<const AT: usize, const BYTES: usize>(
    isa: impl Isa,
    block: &[u8; BYTES],
) -> f32 {
    isa.f16(u16_at::<AT, BYTES>(block))
}

/// Sixteen bytes to 32 codes: the low nibbles, then the high ones.
#[inline(always)]
pub(in crate::codec) fn nibbles(packed: &[u8; 16]) -> [u8; 32] {
    let mut codes = [0; 32];
    for (i, &byte) in packed.iter().enumerate() {
        codes[i] = byte & 15;
        codes[i + 16] = byte >> 4;
    }
    codes
}

/// `d * code`, of a multiple of sixteen codes.
#[inline(always)]
pub(in crate::codec) fn scale<const N: usize>(
    isa: impl Isa,
    codes: &[i8; N],
    d: f32,
    values: &mut [f32; N],
) {
    const { assert!(N.is_multiple_of(16)) };
    let codes = codes.as_chunks::<16>().0;
    for (values, codes) in values.as_chunks_mut::<16>().0.iter_mut().zip(codes) {
        *values = isa.widen_i8(*codes).map(|code| d * code);
    }
}

/// `d * code`, with one scale for each sixteen codes.
#[inline(always)]
pub(in crate::codec) fn scale_halves(
    isa: impl Isa,
    codes: &[i8; 32],
    d: [f32; 2],
    values: &mut [f32; 32],
) {
    let codes = codes.as_chunks::<16>().0;
    for ((values, codes), d) in values.as_chunks_mut::<16>().0.iter_mut().zip(codes).zip(d) {
        scale(isa, codes, d, values);
    }
}

/*!
Where in a ggml block its scale, its minimum and its 4-bit codes lie, as far as faults need it.
*/

use std::ops::Range;

use crate::codec::{Frame, TensorType};

/// A number in a block: its first byte, and its type.
pub type Place = (usize, TensorType);

/// The scale of a block; of several, the first. None for types whose scale is spread over its bits.
pub fn scale(ty: TensorType) -> Option<Place> {
    use TensorType as T;
    let place = match ty {
        T::Q4_0
        | T::Q4_1
        | T::Q5_0
        | T::Q5_1
        | T::Q8_0
        | T::Q8_1
        | T::Q4_K
        | T::Q5_K
        | T::IQ4_NL
        | T::IQ4_XS
        | T::IQ1_S
        | T::IQ2_XXS
        | T::IQ2_XS
        | T::IQ2_S
        | T::IQ3_XXS
        | T::IQ3_S
        | T::Q1_0
        | T::Q2_0
        | T::Q6_0
        | T::IQ2_K
        | T::IQ3_K
        | T::IQ4_K
        | T::IQ5_K
        | T::IQ6_K => (0, T::F16),
        T::Q2_K => (80, T::F16),
        T::Q3_K => (108, T::F16),
        T::Q6_K => (208, T::F16),
        T::TQ1_0 => (52, T::F16),
        T::TQ2_0 => (64, T::F16),
        T::Q8_K => (0, T::F32),
        T::MXFP4 => (0, T::F8_E8M0),
        T::NVFP4 => (0, T::F8_E4M3),
        _ => return None,
    };
    Some(place)
}

/// The scale in front of each row of a type that has one.
pub fn row_scale(ty: TensorType) -> Option<TensorType> {
    match ty.info().rows?.frame {
        Frame::Rows { meta: 2, .. } => Some(TensorType::F16),
        Frame::Rows { meta: 4.., .. } => Some(TensorType::F32),
        _ => None,
    }
}

/// The minimum of a block, or the factor of its minima.
pub fn minimum(ty: TensorType) -> Option<Place> {
    use TensorType as T;
    let first = match ty {
        T::Q4_1 | T::Q5_1 | T::Q4_K | T::Q5_K => 2,
        T::Q2_K => 82,
        _ => return None,
    };
    Some((first, T::F16))
}

/// Bytes that hold two 4-bit codes, or the low four bits of two codes, each.
pub fn nibbles(ty: TensorType) -> Option<Range<usize>> {
    use TensorType as T;
    let bytes = match ty {
        T::Q4_0 | T::IQ4_NL => 2..18,
        T::Q4_1 | T::NVFP4 => 4..if ty == T::NVFP4 { 36 } else { 20 },
        T::Q5_0 => 6..22,
        T::Q5_1 => 8..24,
        T::Q4_K | T::IQ4_K | T::IQ5_K => 16..144,
        T::Q5_K => 48..176,
        T::Q6_K => 0..128,
        T::IQ4_XS => 8..136,
        T::MXFP4 => 1..17,
        T::Q6_0 => 10..26,
        T::IQ6_K => 20..148,
        _ => return None,
    };
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::TYPES;

    /// A block decodes in proportion to its scale: what ggml's own layout says, asked of the decoder.
    #[test]
    fn scales_multiply_and_minima_add() {
        for row in TYPES {
            let Some(decode) = row.decode else { continue };
            let values = |bytes: &[u8]| {
                let mut values = vec![0.0; row.block_len];
                decode(bytes, &mut values);
                values
            };
            // Small bytes keep every other number of the block finite.
            let block: Vec<u8> = (0..row.block_bytes).map(|at| (at * 37 % 50) as u8).collect();
            let with = |(at, ty): Place, bits: &[u8]| {
                assert_eq!(ty.info().block_bytes, bits.len());
                let mut block = block.clone();
                block[at..at + bits.len()].copy_from_slice(bits);
                values(&block)
            };
            if let Some(place) = scale(row.ty)
                && minimum(row.ty).is_none()
            {
                let (one, two): (&[u8], &[u8]) = match place.1 {
                    TensorType::F16 => (&[0, 0x3c], &[0, 0x40]),
                    TensorType::F32 => (&[0, 0, 0x80, 0x3f], &[0, 0, 0, 0x40]),
                    TensorType::F8_E8M0 => (&[127], &[128]),
                    _ => (&[0x38], &[0x40]),
                };
                let changed = if row.ty == TensorType::NVFP4 { 16 } else { row.block_len };
                let (one, two) = (with(place, one), with(place, two));
                let doubled: Vec<f32> = one[..changed].iter().map(|value| value * 2.0).collect();
                assert_eq!(two[..changed], doubled, "{}", row.name);
                assert!(one.iter().any(|value| *value != 0.0), "{}", row.name);
            }
            if let Some(place) = minimum(row.ty) {
                let with = with(place, &[0, 0x3c]);
                let without = self::tests::zeroed(&block, place, decode, row.block_len);
                let differs = with.iter().zip(&without).filter(|(a, b)| a != b).count();
                assert!(differs * 2 > row.block_len, "{}", row.name);
            }
        }
    }

    fn zeroed(block: &[u8], (at, _): Place, decode: fn(&[u8], &mut [f32]), len: usize) -> Vec<f32> {
        let mut block = block.to_vec();
        block[at..at + 2].fill(0);
        let mut values = vec![0.0; len];
        decode(&block, &mut values);
        values
    }

    #[test]
    fn nibbles_are_half_a_block_and_nothing_but_codes() {
        for row in TYPES {
            let Some(bytes) = nibbles(row.ty) else { continue };
            assert!(bytes.end <= row.block_bytes, "{}", row.name);
            assert_eq!(bytes.len() * 2, row.block_len, "{}", row.name);
            let holds = |place: Option<Place>| place.is_some_and(|(at, _)| bytes.contains(&at));
            assert!(!holds(scale(row.ty)) && !holds(minimum(row.ty)), "{}", row.name);
        }
    }
}

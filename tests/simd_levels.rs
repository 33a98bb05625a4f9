/*!
Every codec gives the same bits with every instruction set that this processor has.
*/

use proptest::collection::vec;
use proptest::prelude::*;
use qualm::codec::simd::{Level, with_level};
use qualm::codec::{TYPES, TypeInfo};

/// Bytes that often make zeros, infinities, NaN and subnormals of whatever scale they fall into.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        6 => any::<u8>(),
        1 => prop::sample::select(vec![0x00, 0x01, 0x03, 0x7C, 0x7E, 0x7F, 0x80, 0xFC, 0xFE, 0xFF]),
    ]
}

/// The decode at `level`, from input at an odd address.
fn decode(row: &TypeInfo, level: Level, blocks: &[u8]) -> Vec<f32> {
    let mut moved = vec![0; blocks.len() + 1];
    moved[1..].copy_from_slice(blocks);
    let mut values = vec![12345.678; blocks.len() / row.block_bytes * row.block_len];
    let decode = row.decode.expect("a row with a decoder");
    with_level(level, || decode(&moved[1..], &mut values));
    values
}

/// Bits, with all NaN as one: which NaN comes of two is for the compiler to choose (Rust leaves it
/// open), and no metric looks at more than that it is one.
fn bits(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_levels_agree(bytes in vec(byte(), 0..1500)) {
        for row in TYPES.iter().filter(|row| row.decode.is_some()) {
            let blocks = &bytes[..bytes.len() / row.block_bytes * row.block_bytes];
            let expected = decode(row, Level::Scalar, blocks);
            for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                let values = decode(row, level, blocks);
                prop_assert_eq!(values.len(), expected.len());
                for (i, (value, expected)) in values.iter().zip(&expected).enumerate() {
                    prop_assert_eq!(
                        bits(*value), bits(*expected),
                        "{} at {}, element {}: {} is not {}", row.name, level, i, value, expected
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn all_levels_agree_on_units_of_rows(bytes in vec(byte(), 0..9000)) {
        for row in TYPES {
            let Some(codec) = row.rows else { continue };
            let rows = codec.frame.rows();
            let Some((meta, rest)) = bytes.split_at_checked(codec.frame.meta()) else { continue };
            let merged = row.block_bytes * rows;
            let blocks = &rest[..rest.len() / merged * merged];
            let decode = |level| {
                let mut values = vec![12345.678; rest.len() / merged * row.block_len * rows];
                with_level(level, || (codec.decode)(meta, blocks, 0..rows, &mut values));
                values.into_iter().map(bits).collect::<Vec<u32>>()
            };
            let expected = decode(Level::Scalar);
            for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                prop_assert!(decode(level) == expected, "{} at {}", row.name, level);
            }
        }
    }
}

/// The scalar definition is what the golden data judge elsewhere at this processor's best level.
#[test]
fn every_f16_and_bf16_widens_alike() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for name in ["F16", "BF16"] {
        let row = TYPES.iter().find(|row| row.name == name).expect("a row");
        let expected: Vec<u32> = (0..=u16::MAX)
            .map(|bits| match name {
                "F16" => half::f16::from_bits(bits).to_f32().to_bits(),
                _ => u32::from(bits) << 16,
            })
            .collect();
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            let values: Vec<u32> = decode(row, level, &all).into_iter().map(f32::to_bits).collect();
            assert!(values == expected, "{name} at {level}");
        }
    }
}

/// Values of all sizes, with runs of zeros and outliers, which searching encoders treat apart.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -1.0f32..1.0,
        1 => Just(0.0),
        1 => -30.0f32..30.0,
        1 => -1e-20f32..1e-20,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn encoders_agree_at_all_levels(
        values in vec(value(), 512),
        importance in vec(1e-3f32..10.0, 512),
    ) {
        for row in TYPES {
            let encode = |level| {
                let mut plain = vec![0; values.len() / row.block_len * row.block_bytes];
                let (mut reference, mut weighted) = (plain.clone(), plain.clone());
                with_level(level, || {
                    if let Some(encode) = row.encode {
                        encode(&values, &mut reference);
                    }
                    if let Some(encode) = row.encode_chunk {
                        encode(&values, &mut plain);
                    }
                    if let Some(encode) = row.encode_weighted {
                        encode(&values, &importance, &mut weighted);
                    }
                });
                (reference, plain, weighted)
            };
            let expected = encode(Level::Scalar);
            for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                prop_assert!(encode(level) == expected, "{} at {}", row.name, level);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn encoders_of_units_agree_at_all_levels(values in vec(value(), 16 * 256)) {
        for row in TYPES {
            let Some((codec, encode)) = row.rows.and_then(|it| Some((it, it.encode?))) else {
                continue;
            };
            let rows = codec.frame.rows() as u64;
            let len = row.ty.bytes_of(&[rows, 256]).unwrap() as usize;
            let encode = |level| {
                let mut unit = vec![0; len];
                with_level(level, || encode(&values[..256 * rows as usize], 256, None, &mut unit));
                unit
            };
            let expected = encode(Level::Scalar);
            for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                prop_assert!(encode(level) == expected, "{} at {}", row.name, level);
            }
        }
    }
}

/*! One place that chooses the instruction set that decoders run with. */

use super::isa::{Isa, Scalar};

/// Decodes one block of `BYTES` bytes and `LEN` elements with any instruction set.
pub(super) trait BlockDecoder<const BYTES: usize, const LEN: usize> {
    fn decode(isa: impl Isa, block: &[u8; BYTES], values: &mut [f32; LEN]);
}

/// Decodes whole blocks.
pub(super) fn decode<D, const BYTES: usize, const LEN: usize>(blocks: &[u8], values: &mut [f32])
where
    D: BlockDecoder<BYTES, LEN>,
{
    decode_with::<D, BYTES, LEN>(Scalar, blocks, values);
}

#[inline(always)]
fn decode_with<D, const BYTES: usize, const LEN: usize>(
    isa: impl Isa,
    blocks: &[u8],
    values: &mut [f32],
) where
    D: BlockDecoder<BYTES, LEN>,
{
    let (values, _) = values.as_chunks_mut();
    for (block, values) in blocks.as_chunks().0.iter().zip(values) {
        D::decode(isa, block, values);
    }
}

/// Makes a [`DecodeFn`](super::types::DecodeFn) of each function that decodes one block.
macro_rules! decoders {
    ($($(#[$doc:meta])* $name:ident: $bytes:literal => $len:literal, $block:path;)*) => {$(
        $(#[$doc])*
        pub fn $name(blocks: &[u8], values: &mut [f32]) {
            struct Block;
            impl $crate::codec::simd::BlockDecoder<$bytes, $len> for Block {
                #[inline(always)]
                fn decode(isa: impl Isa, block: &[u8; $bytes], values: &mut [f32; $len]) {
                    $block(isa, block, values);
                }
            }
            $crate::codec::simd::decode::<Block, $bytes, $len>(blocks, values);
        }
    )*};
}
pub(super) use decoders;

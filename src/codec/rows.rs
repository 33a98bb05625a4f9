/*!
Types whose rows have a form of their own: a scale in front of a row's blocks, blocks of several rows
that are merged into one, a scale behind the whole tensor.

The bytes of such a tensor follow from its shape and not from its number of elements. What is stored
together is a *unit*: as many rows as are merged (one, where none are), their metadata first, row after
row, then their merged blocks. A codec decodes some rows of a run of merged blocks, so that any range of
elements can be had without the rest of the unit.
*/

use std::marker::PhantomData;
use std::ops::Range;

use super::isa::Isa;
use super::simd::{self, Kernel};
use super::types::TensorType;

/// How the rows of a tensor are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Units of rows: the metadata of each row, then the blocks of all of them, merged.
    Rows {
        /// Rows of a unit.
        rows: usize,
        /// Bytes of metadata that each row has.
        meta: usize,
    },
    /// All elements are one run of blocks, with so many bytes behind it that hold for all of them.
    Whole {
        /// Bytes behind the blocks.
        tail: usize,
    },
}

impl Frame {
    /// Rows that are stored together; 1 if rows do not matter.
    pub fn rows(self) -> usize {
        match self {
            Self::Rows { rows, .. } => rows,
            Self::Whole { .. } => 1,
        }
    }

    /// Bytes of metadata of a unit.
    pub fn meta(self) -> usize {
        match self {
            Self::Rows { rows, meta } => rows * meta,
            Self::Whole { tail } => tail,
        }
    }
}

/// Decodes some rows of a unit: its metadata, a run of its merged blocks, and which rows of it.
///
/// `values` takes row after row, each as long as the run: `rows.len() * blocks * block_len` values.
pub type DecodeRowsFn = fn(meta: &[u8], blocks: &[u8], rows: Range<usize>, values: &mut [f32]);

/// Encodes a unit, row-major, whose rows have so many columns, with the importance of the columns if
/// it is known, into the metadata and merged blocks that make it up.
pub type EncodeUnitFn =
    fn(values: &[f32], columns: usize, column_weights: Option<&[f32]>, unit: &mut [u8]);

/// How a type with rows of its own form is read and written.
#[derive(Clone, Copy)]
pub struct RowCodec {
    /// What its rows look like.
    pub frame: Frame,
    /// Units to values.
    pub decode: DecodeRowsFn,
    /// Rows to units, if that is known.
    pub encode: Option<EncodeUnitFn>,
    /// Whether the encoder gives the bytes that the reference quantizer gives.
    pub same_bits: bool,
    /// The type whose rows are merged: its values are the same, but for the sign of a zero.
    pub base: Option<TensorType>,
}

/// Decodes a row of one merged block of `BYTES` bytes, given the row's `META` bytes of metadata.
pub(super) trait RowDecoder<const META: usize, const BYTES: usize, const LEN: usize> {
    fn decode(
        isa: impl Isa,
        meta: &[u8; META],
        block: &[u8; BYTES],
        row: usize,
        values: &mut [f32; LEN],
    );
}

/// The kernel that decodes rows of whole merged blocks.
struct DecodeRows<'a, D, const META: usize, const BYTES: usize, const LEN: usize> {
    meta: &'a [u8],
    blocks: &'a [u8],
    rows: Range<usize>,
    values: &'a mut [f32],
    decoder: PhantomData<D>,
}

impl<D, const META: usize, const BYTES: usize, const LEN: usize> Kernel
    for DecodeRows<'_, D, META, BYTES, LEN>
where
    D: RowDecoder<META, BYTES, LEN>,
{
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        let blocks = self.blocks.as_chunks::<BYTES>().0;
        if blocks.is_empty() {
            return;
        }
        let rows = self.values.chunks_exact_mut(blocks.len() * LEN);
        for (row, values) in self.rows.zip(rows) {
            let Some(meta) = self.meta[row * META..].first_chunk() else { return };
            for (block, values) in blocks.iter().zip(values.as_chunks_mut().0) {
                D::decode(isa, meta, block, row, values);
            }
        }
    }
}

/// Decodes rows of a unit with the instruction set of this process.
pub(super) fn decode<D, const META: usize, const BYTES: usize, const LEN: usize>(
    meta: &[u8],
    blocks: &[u8],
    rows: Range<usize>,
    values: &mut [f32],
) where
    D: RowDecoder<META, BYTES, LEN>,
{
    simd::dispatch(DecodeRows::<D, META, BYTES, LEN> {
        meta,
        blocks,
        rows,
        values,
        decoder: PhantomData,
    });
}

/// Makes a [`DecodeRowsFn`] of each function that decodes one row of one merged block.
macro_rules! row_decoders {
    ($($(#[$doc:meta])* $name:ident: $meta:literal + $bytes:literal => $len:literal, $block:path;)*) => {$(
        $(#[$doc])*
        pub fn $name(meta: &[u8], blocks: &[u8], rows: std::ops::Range<usize>, values: &mut [f32]) {
            struct Block;
            impl $crate::codec::rows::RowDecoder<$meta, $bytes, $len> for Block {
                #[inline(always)]
                fn decode(
                    isa: impl Isa,
                    meta: &[u8; $meta],
                    block: &[u8; $bytes],
                    row: usize,
                    values: &mut [f32; $len],
                ) {
                    $block(isa, meta, block, row, values);
                }
            }
            $crate::codec::rows::decode::<Block, $meta, $bytes, $len>(meta, blocks, rows, values);
        }
    )*};
}
pub(super) use row_decoders;

/*!
The block types of ggml (llama.cpp): one file a family, the codebooks in [`grids`].

A block is a few scales followed by packed codes; layouts are little-endian and have no padding.
In the formulas `d` is the block's scale, `m` its offset, `q` a code. Decoders give the bits that
ggml's own give: each product is exact in f32 and at most one addition rounds, but the order of
operations is kept all the same, because non-finite scales make it visible.
*/

pub(in crate::codec) mod bytes;
pub(in crate::codec) mod c_arithmetic;
#[cfg(target_arch = "x86_64")]
mod encode_avx2;
mod encode_blocks;
mod encode_fit;
pub mod encode_float;
mod encode_grid;
mod encode_grid_fit;
pub mod encode_iq1;
pub mod encode_iq2;
pub mod encode_iq3;
pub mod encode_iq4;
pub mod encode_k;
mod encode_lanes;
pub mod encode_legacy;
pub mod encode_micro;
pub mod encode_ternary;
pub mod grids;
pub mod iq;
pub mod k;
pub mod legacy;
pub mod levels;
pub mod micro;
pub mod ternary;

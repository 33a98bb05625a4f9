/*!
Stored bytes to values and back: one table of types ([`types`]), one file a family of codecs.

Every decoder has a scalar definition; a faster path must give the same bits.
*/
// A kernel and what it calls must be one function for the instruction set that it is compiled for.
#![allow(clippy::inline_always)]

pub mod float;
pub mod ggml;
pub mod ik;
pub mod isa;
mod quantize;
pub mod rows;
pub mod simd;
mod size;
pub mod trellis;
pub mod types;

pub use ggml::levels::{End, Levels};
pub use quantize::QuantizeError;
pub use rows::{Frame, RowCodec};
pub use size::ShapeError;
pub use types::{Class, TYPES, TensorType, TypeInfo};

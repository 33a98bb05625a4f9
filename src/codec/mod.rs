/*!
Stored bytes to values and back: one table of types ([`types`]), one file a family of codecs.

Every decoder has a scalar definition; a faster path must give the same bits.
*/

pub(crate) mod float;
pub mod types;

pub use types::{Class, TYPES, TensorType, TypeInfo};

/*!
The algebra of views: a logical tensor as an expression over stored tensors.

Everything that takes values from elsewhere than where they lie is an expression of this algebra:
experts that are split or stacked, what a converter did, what a quantizer folded away, faults, round
trips. A room that knows why builds it; this room knows only how values move and how they are
computed. Any range of a view is decoded in constant memory. A [`View`] that exists is sound: its
constructors check shapes, and return a [`ViewError`] for what does not fit.
*/

mod arithmetic;
mod computed;
mod error;
mod expression;
mod gather;
mod join;
mod layout;
mod read;
mod replay;
mod round_trip;
mod step;
mod summary;
#[cfg(test)]
mod tests;
mod tile;
mod unit;

pub use error::ViewError;
pub use expression::View;
pub use round_trip::Quantizer;
pub use step::{Recipe, Step};
pub(in crate::model) use tile::{Tile, Tiles, transpose};
pub use unit::Unit;

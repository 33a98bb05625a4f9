/*!
Counterparts: what the tensors of a converted model are made of, where a converter has renamed, permuted,
split, joined or changed those of a checkpoint.

What converters do is data: `architectures/`, one file a family, in the form that `docs/architectures.md`
describes. This room finds the rules of a pair and makes of them views over the checkpoint's tensors, each
under the name of the tensor that it is to equal. It does not say whether that is so. Where no rule is
known, or where two checkpoints differ in prefixes or in the order of axes, names and shapes propose and
values decide, on a sample; that is said to be inferred.
*/

mod align;
mod apply;
mod axes;
mod computed;
mod facts;
mod infer;
mod inverse;
mod map;
mod names;
mod number;
mod one_sided;
mod prefix;
mod resolve;
mod rule;
mod sample;
mod settings;
mod table;

pub use apply::{Choice, Depth, Mapped, apply, pair_up};
pub use facts::Facts;
pub use one_sided::may_lack;
pub use settings::{Compared, compare};
pub use table::Table;

#[cfg(test)]
mod tests;

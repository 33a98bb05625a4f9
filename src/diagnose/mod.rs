/*!
Why a tensor is damaged, or a file cannot be read: causes, each with what shows it.

A cause is named only on evidence. For values, that is an experiment on a bounded sample: undo the
suspected fault, and see whether what is left is what an undamaged tensor would hold.
*/

mod cause;
mod facts;

pub use cause::{CAUSES, Cause, Certainty, Diagnosis};
pub use facts::of_check;

/*! Two checkpoints that name or lay out the same tensors in different ways. */

use super::{axes, prefix};
use crate::model::Model;

/// Gives `quantized` the reference's names and order of axes where a checkpoint keeps the same tensors
/// under other prefixes or in another layout; returns what was done, for people.
pub fn align(reference: &Model, quantized: &mut Model) -> Vec<String> {
    let mut notes = prefix::align(reference, quantized);
    notes.append(&mut axes::align(reference, quantized));
    notes
}

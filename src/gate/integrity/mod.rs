/*!
Integrity gates: damage that no spec needs to foresee. One file a gate; `table` runs them.

Every bound here is relative to the undamaged twin of the same rows, so that a coarse type, heavy
tails or tiny weights are no damage, and a fault that a whole tensor's average hides is.
*/

mod column;
mod conversion;
mod displaced;
mod gain;
mod noise;
mod offset;
mod scales;
mod sqnr;
mod suspect;
mod table;
mod worst_block;
mod worst_row;
mod zero;

pub use noise::least_cosine;
pub use suspect::Suspect;
pub use table::{Coverage, GateCounts, JUDGED, check_integrity, coverage, gate_counts};

/*!
Bounds, rules and waivers against measured values: outcomes with their reasons.
*/

mod check;
mod integrity;
mod metrics;

pub use check::{CheckOutcome, CheckRecord, Level, Movement, MovementKind, Number, Source};
pub use integrity::{Suspect, check_integrity, default_bound};
pub use metrics::{check_metric, value_of};

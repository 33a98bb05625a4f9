/*!
Bounds, rules and waivers against measured values: outcomes with their reasons.
*/

mod check;

pub use check::{CheckOutcome, CheckRecord, Level, Movement, MovementKind, Number, Source};

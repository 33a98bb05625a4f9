/*!
Two models to measurements: which tensor answers to which, and one streaming pass over both.
*/

mod cancellation;
mod columns;
pub mod displaced;
pub mod experts;
mod fit;
mod fold;
mod grid;
pub mod ladder;
pub mod own;
mod pair;
mod pairing;
mod parallel;
mod plan;
pub mod printed_stats;
pub mod recover;
mod roundtrip;
mod run_sums;
mod scan;
pub mod shift;
mod sides;
pub mod stats;
mod stream;
mod transform;
pub mod twin;

pub use grid::Grid;
pub use pairing::{Finding, FindingKind, Matched, Pairing, Policy, pair_up};
pub use parallel::{cores, in_parallel};
pub use plan::row_len;
pub use roundtrip::{round_trip, through};
pub use scan::{Depth, Scan, scan};
pub use stream::{Measured, Progress, announce, bytes_of, measure};
pub use transform::transform;

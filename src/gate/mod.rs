/*!
Bounds, rules and waivers against measured values: outcomes with their reasons.
*/

mod alone;
mod check;
mod config;
mod contract;
mod group;
mod integrity;
mod metadata;
mod metrics;

pub use alone::{Alone, check_values, check_whole};
pub use check::{CheckOutcome, CheckRecord, Level, Movement, MovementKind, Number, Source};
pub use config::check_config;
pub use contract::{
    PLAIN_CAST, PlaneProblem, check_companions, check_model, check_nonzero, check_types, excuse,
    plane_problems,
};
pub use group::check_groups;
pub use integrity::{
    Coverage, GateCounts, JUDGED, Suspect, check_integrity, coverage, gate_counts, least_cosine,
};
pub use metrics::{check_metric, value_of};

/*!
Causes that the codes show on the tensor's own grid, and how far an experiment can be trusted beside them.
*/

use super::bench::Subject;
use super::{Cause, Certainty, Diagnosis, is_helped_by_chance};
use crate::measure::twin::Twin;

/// The part of the displacement that must be in proportion to the reference for factors to be the cause.
const PROPORTIONAL: f64 = 0.3;

/// Factors of columns that are stored beside codes which were not made with them: in each column, the codes are
/// displaced in proportion to the reference, by a factor of its own.
pub fn column_factors(subject: &Subject) -> Option<Diagnosis> {
    let columns = subject.twin?.own.as_ref()?.columns.as_ref()?;
    let (size, part) = columns.own().filter(|(_, part)| *part > PROPORTIONAL)?;
    let why = format!(
        "codes are displaced by {size:.2} steps in proportion to the reference, by another factor in each column: \
         {:.0} % of their displacement",
        100.0 * part.min(1.0)
    );
    Some(Diagnosis::likely(Cause::Fold, why))
}

/// Where a tensor was rounded with error feedback or by training, a fit that helps is no proof: what is left
/// is not what the type gives in any case.
pub fn weigh(subject: &Subject, found: Diagnosis) -> Diagnosis {
    let fed_back = subject.twin.is_some_and(Twin::feeds_back);
    if fed_back && is_helped_by_chance(found.cause) {
        Diagnosis { certainty: Certainty::Likely, ..found }
    } else {
        found
    }
}

/*!
Causes that the codes show on the tensor's own grid, and how far an experiment can be trusted beside them.
*/

use super::bench::Subject;
use super::{Cause, Certainty, Diagnosis, is_helped_by_chance};
use crate::measure::shift::{Shift, Slopes};
use crate::measure::twin::Twin;

/// How far from a whole step a shared displacement may be.
const WHOLE: f64 = 0.25;

/// The part of the displacement that a constant must explain: of displacements by half a step around a
/// whole one, it explains 0.8.
const EXPLAINED: f64 = 0.7;

/// From this part on, nothing but the constant is there.
const ALL: f64 = 0.97;

/// The part of the displacement that must be in proportion to the reference for factors to be the cause.
const PROPORTIONAL: f64 = 0.3;

/// Zero points that are off: all codes of the tensor, of a row or of a group are displaced by one step.
pub fn zero_points(subject: &Subject) -> Option<Diagnosis> {
    let own = subject.twin?.own.as_ref()?;
    let is_off = |shift: &Shift| {
        let steps = shift.mean().abs();
        (steps - steps.round()).abs() < WHOLE && steps > 0.5 && shift.constant() > EXPLAINED
    };
    let all = own.rows.iter().filter(|row| is_off(&row.shift)).count();
    let found = own.rows.iter().find_map(|row| {
        if is_off(&row.shift) {
            return Some((row.shift, format!("row {}", row.row)));
        }
        let group = row.groups.constant.filter(|group| is_off(&group.shift))?;
        let (row, first, n) = (row.row, group.first, group.shift.n);
        Some((
            group.shift,
            format!("{n} elements that share a zero point, row {row} from column {first}"),
        ))
    });
    let (shift, place) = found?;
    let why = format!(
        "{place}: all codes are displaced by {:+.2} steps, which is {:.0} % of their displacement; {all} of {} \
         rows are so as a whole",
        shift.mean(),
        100.0 * shift.constant(),
        own.rows.len()
    );
    Some(if shift.constant() > ALL && !own.feedback {
        Diagnosis::certain(Cause::ZeroPointOffByOne, why)
    } else {
        Diagnosis::likely(Cause::ZeroPointOffByOne, why)
    })
}

/// Factors of columns that are stored beside codes which were not made with them: in each column, the codes are
/// displaced in proportion to the reference, by a factor of its own.
pub fn column_factors(subject: &Subject) -> Option<Diagnosis> {
    let columns = subject.twin?.own.as_ref()?.columns.as_ref()?;
    Some(Diagnosis::likely(Cause::Fold, proportional(columns, "column")?))
}

/// Scales that were made for other groups: the same in each group that shares one.
pub fn scales_moved(subject: &Subject) -> Option<Diagnosis> {
    let groups = &subject.twin?.own.as_ref()?.groups;
    Some(Diagnosis::likely(Cause::ScalesMoved, proportional(groups, "group that shares a scale")?))
}

fn proportional(slopes: &Slopes, of: &str) -> Option<String> {
    let (size, part) = slopes.own().filter(|(_, part)| *part > PROPORTIONAL)?;
    Some(format!(
        "codes are displaced by {size:.2} steps in proportion to the reference, by another factor in each {of}: \
         {:.0} % of their displacement",
        100.0 * part.min(1.0)
    ))
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

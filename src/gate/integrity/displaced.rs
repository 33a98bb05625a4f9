/*!
The codes are where some sound way of rounding would have put them.
*/

use super::suspect::{Finding, NotJudged, Ruling, Suspect};
use crate::measure::own::Own;
use crate::measure::shift::{Group, Row, Shift, Slopes};

/// Displacement of the median row, in steps: codes beyond both neighbours are not for these weights.
const ROUNDING: f64 = 1.0;

/// Mean displacement of the whole, in steps: a wrong zero point gives 1, rounding nothing.
const MEAN: f64 = 0.25;

/// Displacement in proportion to the reference: half way to codes that know nothing of it.
const SLOPE: f64 = 0.5;

/// Standard errors from which on a slope is none by chance.
const SURE: f64 = 6.0;

/// Steps in parts of the row's rms beyond which a slope says nothing.
const COARSE: f64 = 2.5;

/// Displacement of a group and of a row, in steps, where the others round to nearest: a quarter and an
/// eighth of the elements.
const NEAREST: [f64; 2] = [0.5, 0.35];

/// The power of a row's displacement in parts of that of the nearest levels, where the file rounds to nearest:
/// a row of another place misses twice as much as there is, zeros as much.
const MISSED: f64 = 0.5;

/// Fewest squared steps of such a row: what lies half way between two levels may fall to either.
const FEWEST: f64 = 6.0;

/// Displacement of a group in the row's largest steps: feedback passes on errors of half of one.
const REACH: f64 = 3.0;

/// Levels up to which offsets that are trained with codes kept take them along: what a group shares may be
/// twice as large. Integer zero points cannot be trained so.
const FEW: usize = 4;

/// The least part of its levels that some group spans, if there are several: less is a bit that was never used.
const SPAN: f64 = 0.5;

/// Levels from which on it says something.
const MANY: usize = 8;

/// The largest weight of a group without a scale, in parts of the row's: coarser than what the scales of
/// every type tell apart.
const DEAD: f64 = 1.0 / 15.0;

/// The same where an offset is left, from which the weights are so far: it is rounded, too, and was chosen for a
/// group of which some are clipped.
const OFFSET_ALONE: f64 = 0.25;

/// The part of all displacement that must be in proportion to the reference, group by group or column by column,
/// to be the scales' or the factors' fault.
const PART: f64 = 0.1;

/// Such a displacement of groups, in steps: trained scales with codes kept stay below.
const GROUPS: f64 = 0.3;

/// Such a displacement of columns.
const COLUMNS: f64 = 0.1;

/// Judges all rows that were looked at; `bound` is in parts of what sound rounding may do.
pub fn judge(suspect: &Suspect, bound: f64) -> Ruling {
    let twin = suspect.expected()?;
    let Some(own) = twin.own.as_ref().filter(|own| !own.rows.is_empty()) else {
        return Err(NotJudged::because("it has no grid of its own"));
    };
    let (value, message) = furthest(own);
    Ok(Finding { holds: value <= bound, value: Some(value), message })
}

/// What is furthest from sound rounding, as a ratio to what sound rounding may do, and in words.
fn furthest(own: &Own) -> (f64, String) {
    let mut worst = (
        own.rounding / ROUNDING,
        format!("the codes of the median row are {:.2} steps from the nearest ones", own.rounding),
    );
    let mut take = |ratio: f64, message: &dyn Fn() -> String| {
        if ratio > worst.0 {
            worst = (ratio, message());
        }
    };
    take(own.mean.abs() / MEAN, &|| {
        format!("all codes are displaced by {:.2} steps on average", own.mean)
    });
    let groups: usize = own.rows.iter().map(|row| row.group_count).sum();
    let span = own.rows.iter().fold(0f64, |most, row| most.max(row.span));
    if groups > 1 && own.levels >= MANY && span > 0.0 {
        take(SPAN / span, &|| format!("no group uses more than {span:.2} of its levels"));
    }
    for (ratio, what) in of_many(own).into_iter().flatten() {
        take(ratio, &|| what.clone());
    }
    for row in &own.rows {
        for (ratio, what) in of_row(row, !own.feedback).into_iter().flatten() {
            take(ratio, &|| format!("row {}: {what}", row.row));
        }
        for (ratio, group, what) in of_groups(row, own).into_iter().flatten() {
            take(ratio, &|| {
                format!(
                    "row {}, {} elements that share a scale from column {} on: {what}",
                    row.row, group.shift.n, group.first
                )
            });
        }
    }
    worst
}

/// What a displacement that all elements share may be by chance, in steps: half a step, and three standard
/// errors of the mean of displacements by half a step.
fn shared(shift: &Shift) -> f64 {
    0.5 + 1.5 / shift.n.sqrt()
}

fn constant(shift: &Shift) -> Option<f64> {
    (shift.constant() > 0.5).then(|| shift.mean().abs() / shared(shift))
}

/// Displacement where the file rounds to nearest, what it rounded having been BF16 on the way: a converter's
/// file lies between a checkpoint and its quantization. Half a unit in the last place of BF16 is 2^-8 of a
/// value, and a shift of h steps displaces h of the codes by one.
fn nearest_bound(bound: f64, shift: &Shift) -> f64 {
    let magnitude = if shift.ss > 0.0 { (shift.rr / shift.ss).sqrt() } else { 0.0 };
    (bound * bound + magnitude / 256.0).sqrt()
}

/// Displacement in proportion to the reference, by a factor of its own in each group, or in each column behind
/// stored factors: scales and factors that were made for other weights.
fn of_many(own: &Own) -> [Option<(f64, String)>; 2] {
    let say = |(size, part): (f64, f64), what: &str| {
        format!(
            "codes are displaced by {size:.2} steps in proportion to the reference, by another factor in each \
             {what}: {:.0} % of their displacement",
            100.0 * part.min(1.0)
        )
    };
    let groups = own.groups.own().filter(|(_, part)| own.levels > FEW && *part > PART);
    let columns = own.columns.as_ref().and_then(|columns| columns.own().zip(Some(columns)));
    let columns = columns.filter(|((_, part), _)| *part > PART);
    [
        groups.map(|found| (found.0 / GROUPS, say(found, "group that shares a scale"))),
        columns.map(|(found, slopes)| (found.0 / columns_bound(slopes, own), say(found, "column"))),
    ]
}

/// The displacement by columns that factors stored in BF16 may leave, in steps, half a unit in the last place
/// being 2^-9 of a value; and as much again as chance may.
fn columns_bound(slopes: &Slopes, own: &Own) -> f64 {
    let magnitude = if slopes.ss > 0.0 {
        let rows = own
            .rows
            .iter()
            .fold((0.0, 0.0), |(rr, ss), row| (rr + row.shift.rr, ss + row.shift.ss));
        (rows.0 / rows.1).sqrt()
    } else {
        0.0
    };
    COLUMNS + magnitude / 256.0
}

fn of_row(row: &Row, nearest: bool) -> [Option<(f64, String)>; 4] {
    let shift = &row.shift;
    let rms = (shift.rr / shift.n.max(1.0)).sqrt();
    let coarseness = if rms > 0.0 { shift.step() / rms } else { f64::INFINITY };
    let (slope, sure) = shift.slope();
    let least = (0.1 + 0.5 * coarseness).min(SLOPE);
    [
        (sure.abs() > SURE && coarseness < COARSE).then(|| {
            (slope.abs() / least, format!("codes are displaced by {slope:.2} of the reference"))
        }),
        constant(shift).map(|ratio| {
            (ratio, format!("codes are displaced by {:.2} steps alike", shift.mean()))
        }),
        nearest.then(|| {
            let rms = shift.rms();
            (
                rms / nearest_bound(NEAREST[1], shift),
                format!("codes are {rms:.2} steps from the nearest ones"),
            )
        }),
        shift.missed().filter(|(steps, _)| nearest && *steps >= FEWEST).map(|(steps, part)| {
            let part = part.min(9.99);
            let message = format!(
                "codes miss {:.0} % of what the nearest ones hold, by {steps:.0} squared steps",
                100.0 * part
            );
            (part / MISSED, message)
        }),
    ]
}

fn of_groups(row: &Row, own: &Own) -> [Option<(f64, Group, String)>; 4] {
    let groups = &row.groups;
    // A trained scale may collapse: then the row's steps are the measure.
    let row_step = row.shift.step();
    let room = |it: &Group| {
        let trained = own.levels <= FEW && !it.has_zero;
        if trained { 2.0 * (row_step / it.shift.step()).max(1.0) } else { 1.0 }
    };
    let far = if own.feedback {
        groups.reach.map(|it| {
            (
                it.reach / REACH,
                it,
                format!("codes are {:.2} of the row's largest step off", it.reach),
            )
        })
    } else {
        groups.far.map(|it| {
            let rms = it.shift.rms();
            (
                rms / nearest_bound(NEAREST[0], &it.shift),
                it,
                format!("codes are {rms:.2} steps from the nearest ones"),
            )
        })
    };
    [
        far,
        groups.constant.and_then(|it| {
            let ratio = constant(&it.shift)? / room(&it);
            Some((ratio, it, format!("codes are displaced by {:.2} steps alike", it.shift.mean())))
        }),
        groups.collinear.map(|it| {
            let slope = it.shift.slope().0;
            let ratio = it.shift.along().abs() / shared(&it.shift) / room(&it);
            (ratio, it, format!("codes are displaced by {slope:.2} of the reference"))
        }),
        groups.dead.filter(|_| row.largest > 0.0).map(|it| {
            let part = it.largest / row.largest;
            let (most, what) = if it.has_zero || !own.blocks {
                (DEAD, "largest weight")
            } else {
                (OFFSET_ALONE, "largest error")
            };
            (
                part / most,
                it,
                format!("the scale is zero, the {what} {part:.2} of the row's largest weight"),
            )
        }),
    ]
}

/*!
Why a tensor is damaged, or a file cannot be read: causes, each with what shows it.

A cause is named only on evidence. For values, that is an experiment on a bounded sample: undo the
suspected fault, and see whether what is left is what an undamaged tensor would hold.
*/

mod bench;
mod cause;
mod columns;
mod conversion;
mod displaced;
mod facts;
mod former;
mod order;
mod parts;
mod quality;
mod scales;
mod stored;
mod undo;
mod values;

pub use bench::Subject;
pub use cause::{CAUSES, Cause, Certainty, Diagnosis};
pub use facts::{of_check, of_companions, of_error, of_type};

use bench::Bench;
use undo::Lines;

use crate::metrics::Moments;

/// Rows of the sample that may be bad for the damage to be local: one in so many.
const LOCAL: usize = 4;

/// Looks for the cause in the values of a tensor whose integrity is violated.
pub fn of_values(subject: &Subject, sums: &Moments) -> Option<Diagnosis> {
    if let Some(diagnosis) = values::all_zero(sums) {
        return Some(diagnosis);
    }
    let bench = Bench::new(subject)?;
    if sums.nonfinite() > 0 {
        let first: [fn(&Bench) -> Option<Diagnosis>; 3] =
            [stored::read_otherwise, stored::misaligned, scales::planes];
        return first
            .iter()
            .find_map(|try_it| try_it(&bench))
            .or_else(|| values::nonfinite(&bench, sums));
    }
    if let Some(diagnosis) = conversion::undone(&bench) {
        return Some(diagnosis);
    }
    let bad = bench.bad_rows();
    let few = !bad.is_empty() && bad.len() * LOCAL <= bench.rows.len();
    if few && let Some(found) = in_bytes(&bench, &bad) {
        return Some(found);
    }
    // What the codes themselves say goes before what a fit happens to help.
    let columns = columns::undone(&bench).or_else(|| values::columns_zero(&bench));
    if columns.is_some() {
        return columns;
    }
    let lines = Lines::read(&bench, &parts::rows(&bench), 0);
    let by_codes = match lines.as_ref().and_then(parts::undone) {
        Some((found, false)) if found.certainty == Certainty::Certain => return Some(found),
        it => it.map(|(found, _)| found),
    };
    let displaced = lines.as_ref().map_or(0.0, parts::displaced);
    // What a factor of a row undoes was not undone on its grid.
    let unsure = |it: Diagnosis| match lines {
        Some(_) if is_helped_by_chance(it.cause) => {
            Diagnosis { certainty: Certainty::Likely, ..it }
        }
        _ => it,
    };
    let found = if few { local(&bench, &bad).map(unsure) } else { None };
    let found = found.or_else(|| whole(&bench, &bad, displaced));
    // A grid that does not reach some weights is a choice of scales.
    let found = found.map(|it| if it.cause == Cause::Clipped { unsure(it) } else { it });
    let found = found.map(|it| displaced::weigh(subject, it));
    // What undoes all of a tensor by one rule says more than what undoes its rows one by one.
    let is_sure = |it: &Diagnosis| it.certainty == Certainty::Certain;
    if found.as_ref().is_some_and(is_sure) {
        return found;
    }
    by_codes.or_else(|| displaced::column_factors(subject)).or(found)
}

/// Causes whose undoing is a fit, which error feedback can make better by chance.
fn is_helped_by_chance(cause: Cause) -> bool {
    use Cause::{Clipped, GIdxLost, Offset, RequantizedTwice, ScaleBitFlip, ScaleFactor};
    matches!(cause, Clipped | GIdxLost | Offset | RequantizedTwice | ScaleBitFlip | ScaleFactor)
}

/// Looks for the cause of a difference in shape: as many elements, or rows of the same shape.
pub fn of_shape(subject: &Subject) -> Option<Diagnosis> {
    if subject.r().numel() != subject.q().numel() {
        // Between files of one format nothing says which rows should be there.
        let converted = subject.reference.format != subject.quantized.format;
        return if converted { conversion::rows_cut(subject) } else { None };
    }
    let bench = Bench::new(subject)?;
    order::reshaped(&bench).or_else(|| order::transposed(&bench))
}

/// Causes that touch few rows, and show in the stored bytes.
fn in_bytes(bench: &Bench, bad: &[usize]) -> Option<Diagnosis> {
    values::partly_zero(bench)
        .or_else(|| stored::nan_byte(bench, bad))
        .or_else(|| stored::short_region(bench))
        .or_else(|| stored::flipped_bit(bench, bad))
}

/// Causes that touch few rows.
fn local(bench: &Bench, bad: &[usize]) -> Option<Diagnosis> {
    scales::block_factor(bench, bad)
        .or_else(|| scales::row_factor(bench, bad))
        .or_else(|| order::slices_moved(bench))
        .or_else(|| order::rows_moved(bench))
        .or_else(|| order::shifted(bench, bad))
}

/// Causes that touch the whole tensor, or much of it, of whose rows the part `displaced` is off its own grid.
fn whole(bench: &Bench, bad: &[usize], displaced: f64) -> Option<Diagnosis> {
    type Try = fn(&Bench) -> Option<Diagnosis>;
    // And whether a fit to all of the tensor is what shows it.
    let all: [(Try, bool); 17] = [
        (former::trellis, false),
        (values::codes_zero, false),
        (scales::factor, true),
        (scales::offset, true),
        (values::underflow, false),
        (scales::planes, false),
        (order::packed_otherwise, false),
        (stored::read_otherwise, false),
        (stored::misaligned, false),
        (order::transposed, false),
        (order::rows_moved, false),
        (order::slices_moved, false),
        (order::another_tensor, false),
        (values::partly_zero, false),
        (stored::minimums_lost, false),
        (scales::group_offsets, true),
        (scales::lost_index, false),
    ];
    // What is wrong with few rows is no fault of all of them.
    let is_local = displaced > 0.0 && displaced * (LOCAL as f64) < 1.0;
    // Cutting off displaces no code.
    let clipped = || if displaced > 0.0 { None } else { quality::clipped(bench) };
    let poor = || {
        let twice = quality::twice(bench).or_else(|| quality::uneven_columns(bench));
        twice.or_else(|| quality::other_weights(bench))
    };
    all.iter()
        .filter(|(_, is_fit)| !(is_local && *is_fit))
        .find_map(|(try_it, _)| try_it(bench))
        .or_else(clipped)
        .or_else(|| order::shifted(bench, bad))
        .or_else(|| if is_local { None } else { poor() })
}

/*!
Why a tensor is damaged, or a file cannot be read: causes, each with what shows it.

A cause is named only on evidence. For values, that is an experiment on a bounded sample: undo the
suspected fault, and see whether what is left is what an undamaged tensor would hold.
*/

mod bench;
mod cause;
mod conversion;
mod displaced;
mod facts;
mod former;
mod order;
mod quality;
mod scales;
mod stored;
mod values;

pub use bench::Subject;
pub use cause::{CAUSES, Cause, Certainty, Diagnosis};
pub use facts::{of_check, of_companions, of_error, of_type};

use bench::Bench;

use crate::metrics::Moments;

/// Rows of the sample that may be bad for the damage to be local: one in so many.
const LOCAL: usize = 4;

/// Looks for the cause in the values of a tensor whose integrity is violated.
pub fn of_values(subject: &Subject, sums: &Moments) -> Option<Diagnosis> {
    let found = experiments(subject, sums);
    let found = match found {
        // What the codes themselves say goes before a factor that happens to help.
        Some(it) if it.certainty == Certainty::Certain && !is_helped_by_chance(it.cause) => {
            Some(it)
        }
        found => {
            let (guess, found) = match found {
                Some(it) if is_a_last_resort(it.cause) => (Some(it), None),
                found => (None, found),
            };
            let sure = displaced::zero_points(subject);
            let sure = sure.or_else(|| displaced::column_factors(subject)).or(found);
            sure.or_else(|| displaced::scales_moved(subject)).or(guess)
        }
    };
    found.map(|it| displaced::weigh(subject, it))
}

/// Causes whose undoing is a fit, which error feedback can make better by chance.
fn is_helped_by_chance(cause: Cause) -> bool {
    use Cause::{Clipped, GIdxLost, Offset, RequantizedTwice, ScaleBitFlip, ScaleFactor};
    matches!(cause, Clipped | GIdxLost | Offset | RequantizedTwice | ScaleBitFlip | ScaleFactor)
}

/// Causes that are named where nothing else is found.
fn is_a_last_resort(cause: Cause) -> bool {
    matches!(cause, Cause::OtherWeights | Cause::OtherCheckpoint | Cause::BadImatrix)
}

/// Undoes suspected faults, one after the other.
fn experiments(subject: &Subject, sums: &Moments) -> Option<Diagnosis> {
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
    if !bad.is_empty() && bad.len() * LOCAL <= bench.rows.len() {
        local(&bench, &bad).or_else(|| whole(&bench, &bad))
    } else {
        whole(&bench, &bad)
    }
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

/// Causes that touch few rows.
fn local(bench: &Bench, bad: &[usize]) -> Option<Diagnosis> {
    values::partly_zero(bench)
        .or_else(|| stored::nan_byte(bench, bad))
        .or_else(|| stored::short_region(bench))
        .or_else(|| stored::flipped_bit(bench, bad))
        .or_else(|| scales::block_factor(bench, bad))
        .or_else(|| scales::row_factor(bench, bad))
        .or_else(|| order::slices_moved(bench))
        .or_else(|| order::rows_moved(bench))
        .or_else(|| order::shifted(bench, bad))
}

/// Causes that touch the whole tensor, or much of it.
fn whole(bench: &Bench, bad: &[usize]) -> Option<Diagnosis> {
    let all: [fn(&Bench) -> Option<Diagnosis>; 19] = [
        former::trellis,
        values::codes_zero,
        scales::factor,
        scales::offset,
        values::underflow,
        scales::planes,
        order::packed_otherwise,
        stored::read_otherwise,
        stored::misaligned,
        order::transposed,
        order::rows_moved,
        order::slices_moved,
        order::another_tensor,
        values::partly_zero,
        values::columns_zero,
        stored::minimums_lost,
        scales::group_offsets,
        scales::lost_index,
        quality::clipped,
    ];
    all.iter()
        .find_map(|try_it| try_it(bench))
        .or_else(|| order::shifted(bench, bad))
        .or_else(|| quality::twice(bench))
        .or_else(|| quality::uneven_columns(bench))
        .or_else(|| quality::other_weights(bench))
}

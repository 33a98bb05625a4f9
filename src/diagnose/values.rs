/*!
Faults that the values themselves show: NaN, infinity, and zeros where the reference has none.
*/

use super::bench::{Bench, Noise, sqnr};
use super::{Cause, Certainty, Diagnosis};
use crate::codec::{Class, TensorType};
use crate::measure::twin::quantize_like;
use crate::metrics::Moments;
use crate::model::Storage;

/// NaN and infinity: a value of its own, or all that one scale scales. Where the other values are
/// damaged as well, something else is behind both.
pub fn nonfinite(bench: &Bench, sums: &Moments) -> Option<Diagnosis> {
    let mut rest = Noise::default();
    for (&r, &q) in bench.r.iter().zip(&bench.q).filter(|(r, q)| r.is_finite() && q.is_finite()) {
        rest.add(f64::from(r), f64::from(q));
    }
    let alone = bench.is_sound(rest.sqnr_db()) || rest.rr == 0.0;
    let found = of_nonfinite(bench, sums)?;
    Some(if alone { found } else { Diagnosis { certainty: Certainty::Likely, ..found } })
}

fn of_nonfinite(bench: &Bench, sums: &Moments) -> Option<Diagnosis> {
    if sums.nonfinite() == 0 {
        return None;
    }
    if sums.quantized_nonfinite == 0 {
        let why = format!("the reference itself holds {} such values", sums.reference_nonfinite);
        return Some(Diagnosis::certain(Cause::Nan, why));
    }
    let count = sums.quantized_nonfinite;
    let first = bench.subject.locals.and_then(|locals| locals.first_nonfinite_quantized)?;
    let row = first / bench.row_len;
    let place = format!("the first at row {row}, column {}", first % bench.row_len);
    let value = *bench.quantized(first..first + 1)?.first()?;
    let of = *bench.reference(first..first + 1)?.first()?;
    let plain = match &bench.subject.q().storage {
        Storage::Plain { ty, .. } => Some(*ty),
        _ => None,
    };
    if let Some(ty) = plain.filter(|ty| ty.info().class == Class::Float) {
        return Some(if value.is_nan() {
            Diagnosis::certain(Cause::Nan, format!("{count} stored values are NaN, {place}"))
        } else if ty == TensorType::F16 && of.abs() > 65504.0 {
            let why = format!("the reference's {of:e} is beyond F16's largest, 65504: {place}");
            Diagnosis::certain(Cause::InfOverflow, why)
        } else {
            let why =
                format!("{count} stored values are infinite, {place}; the reference has {of:e}");
            Diagnosis::likely(Cause::InfOverflow, why)
        });
    }
    // An infinite scale makes infinities, and NaN of zeros; a NaN scale makes nothing but NaN.
    let start = first - first % bench.row_len;
    let values = bench.quantized(start..start + bench.row_len.min(1 << 16))?;
    // E8M0 has no infinity: what overflows there is its NaN.
    let exponents = bench.subject.q().qtype().starts_with("MX");
    let infinite = !exponents && values.iter().any(|value| value.is_infinite());
    let at = (first - start) as usize;
    let together = values.get(at..)?.iter().take_while(|value| !value.is_finite()).count();
    let what = format!("{count} values, {together} of them side by side, {place}");
    Some(if infinite {
        let why =
            format!("a scale is infinite, and with it {what}; the reference has {of:e} there");
        Diagnosis::certain(Cause::InfOverflow, why)
    } else if together > 1 {
        Diagnosis::certain(Cause::NanScale, format!("a scale is NaN, and with it {what}"))
    } else {
        Diagnosis::likely(Cause::NanScale, format!("a scale is NaN, and with it {what}"))
    })
}

/// All of the tensor is zero.
pub fn all_zero(sums: &Moments) -> Option<Diagnosis> {
    (sums.qq == 0.0 && sums.rr > 0.0 && sums.nonfinite() == 0).then(|| {
        Diagnosis::certain(Cause::Zeroed, "every value is zero, and the reference's are not")
    })
}

/// All codes of a weight that is made of planes are zero, whatever they decode to.
pub fn codes_zero(bench: &Bench) -> Option<Diagnosis> {
    /// Bytes that are read at a time, from so many places.
    const PIECE: u64 = 16 * 1024;
    const PIECES: u64 = 16;
    let Storage::Joined(weight) = &bench.subject.q().storage else { return None };
    let codes = weight.planes().first()?;
    let mut bytes = vec![0; PIECE.min(codes.at.len) as usize];
    for at in 0..PIECES {
        let offset = (codes.at.len - bytes.len() as u64) / (PIECES - 1) * at;
        bench.subject.quantized.files[codes.at.file]
            .read_at(codes.at.offset + offset, &mut bytes)
            .ok()?;
        if bytes.iter().any(|byte| *byte != 0) {
            return None;
        }
    }
    let why = format!("every code that was looked at in {} is zero", codes.name);
    Some(Diagnosis::certain(Cause::Zeroed, why))
}

/// A part of it is zero: a slice, the end, rows, columns.
pub fn partly_zero(bench: &Bench) -> Option<Diagnosis> {
    let locals = bench.subject.locals?;
    if let Some(slice) = locals.slices.zero.quantized.first {
        let count = locals.slices.zero.quantized.count;
        let why = format!("{count} slices are zero throughout, the first is {slice}");
        return Some(Diagnosis::certain(Cause::Zeroed, why));
    }
    if let Some(from) = zero_tail(bench) {
        let why =
            format!("everything from element {from} (row {}) on is zero", from / bench.row_len);
        return Some(Diagnosis::certain(Cause::ZeroedTail, why));
    }
    let rows = locals.rows.zero;
    if let Some(row) = rows.quantized.first {
        return Some(zero_row(bench, row, rows.quantized.count));
    }
    if let Some(row) = rows.reference.first {
        let count = rows.reference.count;
        let why = format!(
            "{count} rows that are zero in the reference hold values, the first is row {row}"
        );
        return Some(Diagnosis::certain(Cause::GarbageRow, why));
    }
    None
}

/// Rows that are zero on the quantized side alone: too small for their scale's type, or lost.
fn zero_row(bench: &Bench, row: u64, count: u64) -> Diagnosis {
    let start = row * bench.row_len;
    let r = bench.reference(start..start + bench.width as u64).unwrap_or_default();
    let largest = r.iter().fold(0f32, |most, value| most.max(value.abs()));
    let what = format!("{count} rows are zero, the first is row {row}");
    let twin = quantize_like(bench.subject.q(), bench.row_len, &r);
    if twin.is_some_and(|twin| twin.iter().all(|&value| value == 0.0)) {
        let why = format!(
            "{what}; its largest weight is {largest:e}, so small that its scale is zero in the type's \
             own precision"
        );
        return Diagnosis::certain(Cause::Underflow, why);
    }
    Diagnosis::certain(Cause::Zeroed, format!("{what}, where the reference reaches {largest:e}"))
}

/// The element from which on all is zero, if the reference is not, and there are at least 16.
fn zero_tail(bench: &Bench) -> Option<u64> {
    let numel = bench.subject.r().numel();
    let zeros_at_end = |from: u64, to: u64| -> Option<u64> {
        let values = bench.quantized(from..to)?;
        Some(values.iter().rev().take_while(|value| **value == 0.0).count() as u64)
    };
    let (mut end, step) = (numel, bench.row_len.min(1 << 16));
    // As far back as a bounded number of reads leads.
    for _ in 0..4096 {
        let from = end.saturating_sub(step);
        let zeros = zeros_at_end(from, end)?;
        end -= zeros;
        if zeros < step || end == 0 {
            break;
        }
    }
    let len = (numel - end).min(4096);
    let reference = bench.reference(numel - len..numel)?;
    let lost = reference.iter().filter(|value| **value != 0.0).count() as u64;
    (numel - end >= 16 && lost * 2 > len).then_some(end)
}

/// Columns that are zero in every row of the sample.
pub fn columns_zero(bench: &Bench) -> Option<Diagnosis> {
    // Error feedback leaves nothing of some columns: the gate has looked at what should be there.
    let found = bench.subject.locals.and_then(|locals| locals.columns);
    if bench.rows.len() < 4 || found.is_some_and(|columns| columns.dead.count == 0) {
        return None;
    }
    let is_lost = |column: &usize| {
        let mut lost = 0;
        bench.pairs().all(|(r, q)| {
            lost += usize::from(r[*column] != 0.0);
            q[*column] == 0.0
        }) && lost * 2 > bench.rows.len()
    };
    let columns: Vec<usize> = (0..bench.width).filter(is_lost).collect();
    let first = columns.first()?;
    let score = bench.undone(|at, column, q| {
        if columns.binary_search(&column).is_ok() {
            f64::from(bench.row(at).0[column])
        } else {
            f64::from(q)
        }
    });
    bench.is_sound(score).then(|| {
        let count = columns.len();
        let why = format!(
            "{count} of {} columns are zero in all {} rows of the sample, the first is {first}; without \
             them, {}",
            bench.width,
            bench.rows.len(),
            bench.score(score)
        );
        Diagnosis::certain(Cause::ColumnZeroed, why)
    })
}

/// Small values that became zero while the rest is right.
pub fn underflow(bench: &Bench) -> Option<Diagnosis> {
    let (mut lost, mut kept) = (0f32, f32::INFINITY);
    let mut count = 0;
    for (r, q) in bench.pairs() {
        for (&r, &q) in r.iter().zip(q) {
            if q == 0.0 && r != 0.0 {
                count += 1;
                lost = lost.max(r.abs());
            } else if q != 0.0 {
                kept = kept.min(r.abs());
            }
        }
    }
    let (mut r_kept, mut q_kept) = (Vec::new(), Vec::new());
    for (&r, &q) in bench.r.iter().zip(&bench.q).filter(|(_, q)| **q != 0.0) {
        r_kept.push(r);
        q_kept.push(q);
    }
    let float = matches!(&bench.subject.q().storage,
        Storage::Plain { ty, .. } if ty.info().class == Class::Float);
    let score = sqnr(&r_kept, &q_kept);
    // A threshold parts what is lost from what is kept; a few values on it may fall to either side.
    let parted = lost <= kept * 1.01;
    (float && count > 0 && parted && bench.is_sound(score) && !r_kept.is_empty()).then(|| {
        let why = format!(
            "all {count} values of the sample below {lost:e} became zero, all above it are right \
             ({score:.1} dB)"
        );
        Diagnosis::certain(Cause::Underflow, why)
    })
}

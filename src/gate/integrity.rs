/*!
Integrity gates: damage that no spec needs to foresee.

Every bound here is relative to the undamaged twin of the same rows, so that a coarse type, heavy
tails or tiny weights are no damage, and a fault that a whole tensor's average hides is.
*/

use super::check::{CheckOutcome, CheckRecord, Level, Number, Source};
use crate::measure::twin::{Both, RowTwin, RunSums, Twin};
use crate::metrics::{CONTRACT_COSINE, Locals, Moments, PIECE};
use crate::spec::{Gate, Setting};

/// What is known of one tensor.
pub struct Suspect<'a> {
    /// Tensor and qtype, for messages.
    pub subject: &'a str,
    /// Sums over the whole tensor.
    pub sums: &'a Moments,
    /// Where in it the extremes are.
    pub locals: &'a Locals,
    /// What is to be expected, if that is known.
    pub twin: Option<&'a Twin>,
}

/// Default bounds: |ln gain| beyond the twin's, offset in parts of the reference's rms, dB below the
/// twin, drop of a row's cosine below its twin's, ratio of a block's error to its twin's.
pub const fn default_bound(gate: Gate) -> f64 {
    match gate {
        Gate::Gain | Gate::Offset => 0.05,
        Gate::SqnrExpected => 1.5,
        Gate::WorstRow => 0.02,
        Gate::WorstBlock => 3.0,
        _ => 0.0,
    }
}

/// Least SQNR of a conversion between float types, in dB: bfloat16 gives 55.
const CONVERSION: f64 = 50.0;

/// What error feedback and clipping may cost, in dB, on top of the bound.
const TUNED: f64 = 4.0;

/// Runs every gate that is on; `setting` says what the spec says about it.
pub fn check_integrity<'s>(
    suspect: &Suspect,
    setting: impl Fn(Gate) -> Option<&'s Setting>,
    checks: &mut Vec<CheckRecord>,
) {
    // Of empty tensors there is nothing to say, of non-finite ones it has been said.
    if suspect.sums.n == 0 || suspect.sums.nonfinite() > 0 {
        return;
    }
    for (gate, judge) in [
        (Gate::Gain, gain as fn(&Suspect, f64) -> Verdict),
        (Gate::Offset, offset),
        (Gate::SqnrExpected, sqnr),
        (Gate::WorstRow, worst_row),
        (Gate::WorstBlock, worst_block),
        (Gate::Zero, zero),
    ] {
        let setting = setting(gate);
        let levels: &[(Level, Option<f64>)] = match setting {
            Some(Setting::Off { .. }) => &[],
            Some(Setting::Bound(bound)) => &[(Level::Fail, bound.fail), (Level::Warn, bound.warn)],
            Some(Setting::On { .. }) | None => &[(Level::Fail, Some(default_bound(gate)))],
        };
        for (level, bound) in levels {
            let Some(bound) = *bound else { continue };
            let Some(finding) = judge(suspect, bound) else { continue };
            checks.push(CheckRecord {
                check: format!("integrity.{gate}"),
                outcome: if finding.holds { CheckOutcome::Held } else { CheckOutcome::Violated },
                level: *level,
                value: finding.value.map(Number),
                bound: gate.least_bound().map(|_| Number(bound)),
                message: format!("{} ({})", finding.message, suspect.subject),
                source: match setting {
                    Some(Setting::Bound(bound)) => Some(Source::from(&bound.at)),
                    Some(Setting::On { at } | Setting::Off { at, .. }) => Some(Source::from(at)),
                    None => None,
                },
                reason: None,
                movement: None,
            });
        }
    }
}

/// What a gate found; none if it has nothing to look at.
type Verdict = Option<Finding>;

struct Finding {
    holds: bool,
    value: Option<f64>,
    message: String,
}

/// The norm is kept, as far as the twin keeps it.
fn gain(suspect: &Suspect, bound: f64) -> Verdict {
    let (rr, qq) = (suspect.sums.rr, suspect.sums.qq);
    if rr == 0.0 && qq == 0.0 {
        return None;
    }
    let gain = (qq / rr).sqrt();
    let twin = suspect.twin.map(|twin| &twin.sample.twin);
    let expected = twin.map_or(1.0, RunSums::gain);
    let distance = twin.map_or((gain - 1.0).abs(), |twin| twin.gain_distance(gain));
    Some(Finding {
        holds: distance <= bound,
        value: Some(distance),
        message: format!("gain {gain:.4}, {expected:.4} expected"),
    })
}

/// The mean is kept.
fn offset(suspect: &Suspect, bound: f64) -> Verdict {
    let n = suspect.sums.n as f64;
    let rms = (suspect.sums.rr / n).sqrt();
    if rms == 0.0 || n < 256.0 {
        return None;
    }
    let offset = (suspect.sums.e / n).abs() / rms;
    Some(Finding {
        holds: offset <= bound,
        value: Some(offset),
        message: format!("mean error is {offset:.4} of the reference's rms"),
    })
}

/// What a guessed grid may be off by, in dB: two bits.
const GUESSED: f64 = 12.0;

/// dB that an SQNR may be below its twin's, beyond the bound.
fn allowance(twin: &Twin) -> f64 {
    match (twin.guessed, twin.tuned) {
        (true, _) => GUESSED,
        (false, true) => TUNED,
        (false, false) => 0.0,
    }
}

/// The least SQNR that a twin's SQNR justifies.
fn least_sqnr(twin: &Twin, expected: f64, bound: f64) -> f64 {
    if twin.conversion {
        (expected - bound).min(CONVERSION)
    } else {
        expected - bound - allowance(twin)
    }
}

/// The noise is what the type gives.
fn sqnr(suspect: &Suspect, bound: f64) -> Verdict {
    let twin = suspect.twin?;
    let Both { actual, twin: expected } = &twin.sample;
    if actual.rr == 0.0 {
        return None;
    }
    let whole = 10.0 * (suspect.sums.rr / suspect.sums.ee).log10();
    let (sampled, expected) = (actual.sqnr_db(), expected.sqnr_db());
    let least = least_sqnr(twin, expected, bound);
    // The sample is compared with its own twin; the whole may differ from the sample by a little.
    let holds = suspect.sums.ee == 0.0
        || sampled >= least && (whole >= least - 1.5 || is_explained(twin, whole, sampled));
    Some(Finding {
        holds,
        value: Some((expected - sampled.min(whole)).max(0.0)),
        message: format!("SQNR {whole:.2} dB ({sampled:.2} in the sample), {expected:.2} expected"),
    })
}

/// Is the whole tensor worse than its sample because some rows are legitimately so? Then the rows
/// that stand out are as bad in their twin.
fn is_explained(twin: &Twin, whole: f64, sampled: f64) -> bool {
    whole >= sampled - 6.0
        && twin.rows.iter().all(|row| row.whole.actual.ee <= 2.0 * row.whole.twin.ee)
}

/// What noise beyond the expected by the default of `sqnr_expected` makes of a row's cosine, beyond the
/// default of `worst_row`: nothing for types of four bits and more, a little for coarser ones.
fn coarseness(expected: f64) -> f64 {
    let noisier = louder(expected, default_bound(Gate::SqnrExpected));
    (expected - noisier - default_bound(Gate::WorstRow)).max(0.0)
}

/// A cosine with the noise behind it louder by so many dB.
fn louder(cosine: f64, db: f64) -> f64 {
    let noise = (1.0 - cosine * cosine) * 10f64.powf(db / 10.0);
    (1.0 - noise).max(0.0).sqrt()
}

/// The contract's cosine gate for a tensor of which its type is known to give less: what the twin has,
/// with as much more noise as `sqnr_expected` allows. Types of four bits and more keep the contract's
/// own.
pub fn least_cosine(twin: Option<&Twin>) -> f64 {
    let Some(twin) = twin.filter(|twin| twin.sample.twin.rr > 0.0) else { return CONTRACT_COSINE };
    let slack = default_bound(Gate::SqnrExpected) + allowance(twin);
    louder(twin.sample.twin.cosine(), slack).min(CONTRACT_COSINE)
}

/// No row is further from its reference than its twin is.
fn worst_row(suspect: &Suspect, bound: f64) -> Verdict {
    let twin = suspect.twin.filter(|twin| !twin.guessed)?;
    let bound = if twin.tuned { bound * 3.0 } else { bound };
    let shortest = |row: &&RowTwin| row.whole.actual.n >= 32 && row.whole.actual.rr > 0.0;
    let drop = |row: &RowTwin| {
        let expected = row.whole.twin.cosine();
        let cosine = expected - row.whole.actual.cosine() - coarseness(expected);
        let gain = row.whole.twin.gain_distance(row.whole.actual.gain());
        // A row's gain may differ by more than its cosine: 0.05 where the cosine has 0.02.
        cosine.max(gain / 2.5 / if twin.tuned { 1.5 } else { 1.0 })
    };
    let worst = twin.rows.iter().filter(shortest).max_by(|a, b| drop(a).total_cmp(&drop(b)))?;
    let value = drop(worst);
    Some(Finding {
        holds: value <= bound,
        value: Some(value),
        message: format!(
            "row {} has cosine {:.4} and gain {:.4}, {:.4} and {:.4} expected",
            worst.row,
            worst.whole.actual.cosine(),
            worst.whole.actual.gain(),
            worst.whole.twin.cosine(),
            worst.whole.twin.gain()
        ),
    })
}

/// No block has a larger error than its twin's, or than the worst of the sample's.
fn worst_block(suspect: &Suspect, bound: f64) -> Verdict {
    let twin = suspect.twin.filter(|twin| !twin.guessed)?;
    let bound = if twin.tuned { bound * 2.0 } else { bound };
    let mut worst: Option<(f64, u64, usize, Both)> = None;
    for row in &twin.rows {
        for (index, piece) in row.pieces.iter().enumerate() {
            let n = piece.actual.n as f64;
            // Conversions are exact but for rounding: the last digits must not count.
            let floor = if twin.conversion { 1e-4 * (piece.actual.rr / n).sqrt() } else { 0.0 };
            let expected = piece.twin.rms().max(twin.worst_piece).max(floor);
            let actual = piece.actual.rms();
            let ratio = if actual == 0.0 { 0.0 } else { actual / expected };
            if worst.is_none_or(|(so_far, ..)| ratio > so_far) {
                worst = Some((ratio, row.row, index, *piece));
            }
        }
    }
    let (ratio, row, index, piece) = worst?;
    // An exact twin (a lattice) leaves nothing to divide by: then only the SQNR speaks.
    let holds = ratio <= bound || ratio.is_infinite() && piece.actual.sqnr_db() >= CONVERSION;
    Some(Finding {
        holds,
        value: Some(ratio),
        message: format!(
            "block {index} of row {row} (elements from {}) has an rms error of {:.3e}, {:.3e} expected",
            index * PIECE,
            piece.actual.rms(),
            piece.twin.rms().max(twin.worst_piece)
        ),
    })
}

/// Nothing is zero on one side only, unless its twin is, too.
#[allow(clippy::unnecessary_wraps, reason = "all gates of the table have one signature")]
fn zero(suspect: &Suspect, _: f64) -> Verdict {
    let rows = suspect.locals.rows.zero;
    let blocks = suspect.locals.blocks.zero;
    let row_len = suspect.locals.row_len.max(1);
    let excused = |element: u64| {
        let (row, piece) = (element / row_len, (element % row_len) as usize / PIECE);
        let twin = suspect.twin?.rows.iter().find(|it| it.row == row)?.pieces.get(piece)?;
        Some(twin.twin.n > 0 && twin.twin.xx == 0.0)
    };
    let found = if let Some(row) = rows.quantized.first {
        Some(format!(
            "{} rows are zero in the quantized tensor alone, first {row}",
            rows.quantized.count
        ))
    } else if let Some(row) = rows.reference.first {
        Some(format!("{} rows are zero in the reference alone, first {row}", rows.reference.count))
    } else if let Some(at) = blocks.reference.first {
        Some(format!(
            "{} blocks are zero in the reference alone, first at element {at}",
            blocks.reference.count
        ))
    } else {
        blocks.quantized.first.filter(|&at| excused(at) != Some(true)).map(|at| {
            let count = blocks.quantized.count;
            format!("{count} blocks are zero in the quantized tensor alone, first at element {at}")
        })
    };
    Some(Finding {
        holds: found.is_none(),
        value: None,
        message: found.unwrap_or_else(|| "nothing is zero on one side only".to_owned()),
    })
}

/*! No block has a larger error than its twin's, or than the worst of the sample's. */

use super::noise::CONVERSION;
use super::suspect::{Finding, NotJudged, Ruling, Suspect};
use crate::measure::twin::Both;
use crate::metrics::PIECE;

/// Judges the blocks of rows that stood out; `bound` is a ratio of rms errors.
pub fn judge(suspect: &Suspect, bound: f64) -> Ruling {
    let twin = suspect.expected()?;
    let bound = if twin.tuned { bound * 2.0 } else { bound };
    let mut worst: Option<(f64, u64, usize, Both)> = None;
    for row in &twin.rows {
        for (index, piece) in (row.first as usize..).zip(&row.pieces) {
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
    let Some((ratio, row, index, piece)) = worst else {
        return Err(NotJudged::because("no block has a twin"));
    };
    // An exact twin leaves nothing to divide by: then only the SQNR speaks.
    let holds = ratio <= bound || ratio.is_infinite() && piece.actual.sqnr_db() >= CONVERSION;
    Ok(Finding {
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

/*! The norm is kept, as far as the twin keeps it. */

use super::suspect::{Finding, NotJudged, Ruling, Suspect};
use crate::measure::twin::RunSums;

/// Judges the whole tensor's gain; `bound` is the largest distance from 1 or from the twin's.
pub fn judge(suspect: &Suspect, bound: f64) -> Ruling {
    let (rr, qq) = (suspect.sums.rr, suspect.sums.qq);
    if rr == 0.0 && qq == 0.0 {
        return Err(NotJudged::because("all values are zero on both sides"));
    }
    let gain = (qq / rr).sqrt();
    let twin = suspect.twin.ok().map(|twin| &twin.sample.twin);
    let expected = twin.map_or(1.0, RunSums::gain);
    let distance = twin.map_or((gain - 1.0).abs(), |twin| twin.gain_distance(gain));
    Ok(Finding {
        holds: distance <= bound,
        value: Some(distance),
        message: format!("gain {gain:.4}, {expected:.4} expected"),
    })
}

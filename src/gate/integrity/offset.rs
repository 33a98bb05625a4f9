/*! The mean is kept. */

use super::suspect::{Finding, NotJudged, Ruling, Suspect};

/// Fewest elements of which a mean error says something.
const FEWEST: u64 = 256;

/// Judges the whole tensor's mean error; `bound` is a part of the reference's rms.
pub fn judge(suspect: &Suspect, bound: f64) -> Ruling {
    let n = suspect.sums.n as f64;
    let rms = (suspect.sums.rr / n).sqrt();
    if rms == 0.0 {
        return Err(NotJudged::because("the reference is all zero"));
    }
    if suspect.sums.n < FEWEST {
        return Err(NotJudged(format!("fewer than {FEWEST} elements have no mean to speak of")));
    }
    let mean = (suspect.sums.e / n).abs() / rms;
    // Coarse types scatter: a tenth of the expected relative error is taken off.
    let noise = suspect.twin.ok().map_or(0.0, |twin| {
        let expected = &twin.sample.twin;
        if expected.rr == 0.0 { 0.0 } else { (expected.ee / expected.rr).sqrt() }
    });
    let offset = (mean - 0.1 * noise).max(0.0);
    Ok(Finding {
        holds: offset <= bound,
        value: Some(offset),
        message: format!("mean error is {mean:.4} of the reference's rms"),
    })
}

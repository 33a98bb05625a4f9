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
    let offset = (suspect.sums.e / n).abs() / rms;
    Ok(Finding {
        holds: offset <= bound,
        value: Some(offset),
        message: format!("mean error is {offset:.4} of the reference's rms"),
    })
}

/*!
The scales suit the weights: the nearest levels that they allow are about as near as those of plain
rounding. Poor scales are a choice, not damage.
*/

use super::suspect::{Finding, NotJudged, Ruling, Suspect};

/// Judges the evenly spaced rows; `bound` is in dB below plain rounding.
pub fn judge(suspect: &Suspect, bound: f64) -> Ruling {
    let twin = suspect.expected()?;
    let (Some(own), Some(plain)) = (&twin.own, &twin.plain) else {
        return Err(NotJudged::because("it has no grid of its own"));
    };
    let (nearest, plain) = (own.nearest.sqnr_db(), plain.sqnr_db());
    if !plain.is_finite() || own.nearest.rr == 0.0 {
        return Err(NotJudged::because("plain rounding leaves no error to compare with"));
    }
    let value = (plain - nearest).max(0.0);
    Ok(Finding {
        holds: value <= bound,
        value: Some(value),
        message: format!(
            "the nearest codes on its own scales give {nearest:.2} dB, plain rounding {plain:.2} dB"
        ),
    })
}

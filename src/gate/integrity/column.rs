/*! No input column died. */

use super::suspect::{Finding, NotJudged, Ruling, Suspect};

/// Judges the columns of every matrix; there is no bound.
pub fn judge(suspect: &Suspect, _: f64) -> Ruling {
    let Some(dead) = suspect.locals.dead_columns else {
        let reason = "it has too few rows, or the grid of its type is not known";
        return Err(NotJudged::because(reason));
    };
    let message = match dead.first {
        None => "no column is zero that its type does not round to zero".to_owned(),
        Some(first) => format!(
            "{} columns are zero in every row, and not in the reference, the first is {first}",
            dead.count
        ),
    };
    Ok(Finding { holds: dead.count == 0, value: None, message })
}

/*! No row is further from its reference than its twin is. */

use super::noise::coarseness;
use super::suspect::{Finding, NotJudged, Ruling, Suspect};
use crate::measure::twin::RowTwin;

/// Fewest elements of a row that is judged alone.
const SHORTEST: u64 = 32;

/// The part of the expected relative error that a trained row's gain may be off by, on top.
const OWN: f64 = 0.2;

/// Judges the rows that stood out; `bound` is the drop of a cosine below the twin's.
pub fn judge(suspect: &Suspect, bound: f64) -> Ruling {
    let twin = suspect.expected()?;
    let bound = if twin.tuned { bound * 3.0 } else { bound };
    let long_enough = |row: &&RowTwin| row.whole.actual.n >= SHORTEST && row.whole.actual.rr > 0.0;
    let drop = |row: &RowTwin| {
        let expected = row.whole.twin.cosine();
        let cosine = expected - row.whole.actual.cosine() - coarseness(expected);
        let expected = &row.whole.twin;
        // Codes that are kept while scales are trained pull the norm with them.
        let noise = if expected.rr > 0.0 { (expected.ee / expected.rr).sqrt() } else { 0.0 };
        let trained = if twin.own.is_some() && twin.tuned { OWN * noise } else { 0.0 };
        // What keeps the mean square error least shrinks a norm to its cosine.
        let room = trained.max(1.0 - expected.cosine());
        let gain = (expected.gain_distance(row.whole.actual.gain()) - room).max(0.0);
        // A row's gain may differ by more than its cosine: 0.05 where the cosine has 0.02.
        cosine.max(gain / 2.5 / if twin.tuned { 1.5 } else { 1.0 })
    };
    let rows = twin.rows.iter().filter(long_enough);
    let Some(worst) = rows.max_by(|a, b| drop(a).total_cmp(&drop(b))) else {
        let reason = format!("no row of {SHORTEST} elements or more has a twin");
        return Err(NotJudged(reason));
    };
    let value = drop(worst);
    Ok(Finding {
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

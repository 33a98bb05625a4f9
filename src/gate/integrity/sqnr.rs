/*! The noise is what the type gives. */

use super::noise::least_sqnr;
use super::suspect::{Finding, NotJudged, Ruling, Suspect};
use crate::measure::twin::{Both, Twin};
use crate::metrics::functions;

/// Judges sample and whole; `bound` is in dB below the twin's SQNR.
pub fn judge(suspect: &Suspect, bound: f64) -> Ruling {
    let twin = suspect.expected()?;
    let Both { actual, twin: expected } = &twin.sample;
    if actual.rr == 0.0 {
        return Err(NotJudged::because("the reference is all zero"));
    }
    let whole = 10.0 * functions::log10(suspect.sums.rr / suspect.sums.ee);
    // Zeros give 0 dB: whatever the scales allow, no quantization is expected to be worse.
    let (sampled, expected) = (actual.sqnr_db(), expected.sqnr_db().max(0.0));
    let least = least_sqnr(twin, expected, bound);
    // The sample is compared with its own twin; the whole may differ from the sample by a little.
    let holds = suspect.sums.ee == 0.0
        || sampled >= least && (whole >= least - 1.5 || is_explained(twin, whole, sampled));
    let least = match expected {
        f64::INFINITY => "no error at all".to_owned(),
        expected => format!("{expected:.2}"),
    };
    Ok(Finding {
        holds,
        value: Some((expected - sampled.min(whole)).max(0.0)),
        message: format!("SQNR {whole:.2} dB ({sampled:.2} in the sample), {least} expected"),
    })
}

/// Is the whole tensor worse than its sample because some rows are legitimately so? Then the rows
/// that stand out are as bad in their twin.
fn is_explained(twin: &Twin, whole: f64, sampled: f64) -> bool {
    whole >= sampled - 6.0
        && twin.all_rows().all(|row| row.whole.actual.ee <= 2.0 * row.whole.twin.ee)
}

/*! No input column lost what its reference says. */

use super::suspect::{Finding, NotJudged, Ruling, Suspect};

/// Judges the columns of every matrix; there is no bound.
pub fn judge(suspect: &Suspect, _: f64) -> Ruling {
    let Some(lost) = suspect.locals.columns else {
        let reason = "it has too few rows, or the grid of its type is not known";
        return Err(NotJudged::because(reason));
    };
    let are = |count: u64| {
        if count == 1 { "1 column is".to_owned() } else { format!("{count} columns are") }
    };
    let dead = lost.dead.first.map(|first| {
        format!("{} zero, and not in the reference, the first is {first}", are(lost.dead.count))
    });
    let unrelated = lost.unrelated.first.map(|first| {
        let [cosine, expected] = lost.cosines;
        format!(
            "{} not the reference's, the first is {first}, with cosine {cosine:.2}, {expected:.2} expected",
            are(lost.unrelated.count)
        )
    });
    let found: Vec<String> = dead.into_iter().chain(unrelated).collect();
    let message = if found.is_empty() {
        "every column is the reference's, as its type holds it".to_owned()
    } else {
        found.join("; ")
    };
    Ok(Finding { holds: found.is_empty(), value: None, message })
}

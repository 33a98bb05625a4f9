/*! Every element of a conversion is the reference's, as the type holds it. */

use super::suspect::{Finding, NotJudged, Ruling, Suspect};

/// Judges every element; there is no bound.
pub fn judge(suspect: &Suspect, _: f64) -> Ruling {
    let Some(unlike) = suspect.locals.unlike else {
        return Err(NotJudged::because("it is stored as codes, by whose type it is judged"));
    };
    let recovered = suspect.twin.ok().and_then(|twin| twin.recovered.as_ref());
    let row_len = suspect.locals.row_len.max(1);
    let place = |element: Option<u64>| {
        let element = element.unwrap_or_default();
        format!("row {}, column {}", element / row_len, element % row_len)
    };
    let message = match recovered {
        _ if unlike.count == 0 => EVERY_ELEMENT.to_owned(),
        Some(grid) if grid.off.count == 0 => {
            return Err(NotJudged::because("its values lie on a grid, by which it is judged"));
        }
        Some(grid) => format!(
            "{} groups do not lie on the grid of the others ({}), the first begins at {}",
            grid.off.count,
            grid.what,
            place(grid.off.first)
        ),
        None => format!(
            "{} of {} elements are not the reference's, the first is at {}, and they lie on no grid",
            unlike.count,
            suspect.sums.n,
            place(unlike.first)
        ),
    };
    Ok(Finding { holds: unlike.count == 0, value: Some(unlike.count as f64), message })
}

/// What is found where nothing but rounding differs.
pub const EVERY_ELEMENT: &str = "every element is the reference's, as its type holds it";

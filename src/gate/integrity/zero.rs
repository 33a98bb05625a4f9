/*! Nothing is zero on one side only, unless its type itself rounds it to nothing. */

use super::suspect::{Finding, Ruling, Suspect};

/// Judges rows and blocks; there is no bound.
#[allow(clippy::unnecessary_wraps, reason = "all gates of the table have one signature")]
pub fn judge(suspect: &Suspect, _: f64) -> Ruling {
    let rows = suspect.locals.rows.zero;
    let blocks = suspect.locals.blocks.zero;
    // Without an expectation nothing is excused.
    let lost = match suspect.twin {
        Ok(twin) => twin.lost,
        Err(_) => blocks.quantized.first,
    };
    let row_of = |element: u64| element / suspect.locals.row_len.max(1);
    let found = if let Some(at) = lost {
        let (rows, blocks) = (rows.quantized.count, blocks.quantized.count);
        Some(format!(
            "{blocks} blocks and {rows} whole rows are zero in the quantized tensor alone; the type itself \
             would not have made that of element {at} on, in row {}",
            row_of(at)
        ))
    } else if let Some(row) = rows.reference.first {
        Some(format!("{} rows are zero in the reference alone, first {row}", rows.reference.count))
    } else {
        blocks.reference.first.map(|at| {
            let count = blocks.reference.count;
            format!("{count} blocks are zero in the reference alone, first at element {at}")
        })
    };
    Ok(Finding {
        holds: found.is_none(),
        value: None,
        message: found.unwrap_or_else(|| "nothing is zero on one side only".to_owned()),
    })
}

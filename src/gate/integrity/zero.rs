/*! Nothing is zero on one side only, unless its twin is, too. */

use super::suspect::{Finding, Ruling, Suspect};
use crate::metrics::PIECE;

/// Judges rows and blocks; there is no bound.
#[allow(clippy::unnecessary_wraps, reason = "all gates of the table have one signature")]
pub fn judge(suspect: &Suspect, _: f64) -> Ruling {
    let rows = suspect.locals.rows.zero;
    let blocks = suspect.locals.blocks.zero;
    let row_len = suspect.locals.row_len.max(1);
    let excused = |element: u64| {
        let (row, piece) = (element / row_len, (element % row_len) as usize / PIECE);
        let twin = suspect.twin.ok()?.rows.iter().find(|it| it.row == row)?.pieces.get(piece)?;
        Some(twin.twin.n > 0 && twin.twin.xx == 0.0)
    };
    let found = if let Some(row) = rows.quantized.first {
        Some(format!(
            "{} rows are zero in the quantized tensor alone, first {row}",
            rows.quantized.count
        ))
    } else if let Some(row) = rows.reference.first {
        Some(format!("{} rows are zero in the reference alone, first {row}", rows.reference.count))
    } else if let Some(at) = blocks.reference.first {
        Some(format!(
            "{} blocks are zero in the reference alone, first at element {at}",
            blocks.reference.count
        ))
    } else {
        blocks.quantized.first.filter(|&at| excused(at) != Some(true)).map(|at| {
            let count = blocks.quantized.count;
            format!("{count} blocks are zero in the quantized tensor alone, first at element {at}")
        })
    };
    Ok(Finding {
        holds: found.is_none(),
        value: None,
        message: found.unwrap_or_else(|| "nothing is zero on one side only".to_owned()),
    })
}

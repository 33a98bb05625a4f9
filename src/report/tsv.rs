/*!
The contract's tab-separated values: one row a tensor, by RMSE, descending.
*/

use std::io::{self, Write};

use crate::suite::record::TensorRow;

/// The contract's columns.
const HEADER: &str = "tensor\tqtype\tnumel\trmse\tcosine\tmax_abs\tverdict";

/// Writes the header and one line a row, in the order of `rows`.
pub fn write_rows(out: &mut impl Write, rows: &[TensorRow]) -> io::Result<()> {
    writeln!(out, "{HEADER}")?;
    for row in rows {
        writeln!(
            out,
            "{}\t{}\t{}\t{:.6e}\t{:.6}\t{:.6e}\t{}",
            row.tensor.escape_debug(),
            row.qtype,
            row.numel,
            row.rmse.0,
            row.cosine.0,
            row.max_abs.0,
            row.verdict
        )?;
    }
    Ok(())
}

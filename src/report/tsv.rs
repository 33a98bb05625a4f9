/*!
The contract's tab-separated values, and its JSON for `diff`: one row a tensor, by RMSE, descending.

In `report.tsv`, which holds all pairs, the first column is the test's id, `SPEC::PAIR::TENSOR`: so
the header stays the contract's, every line has its seven fields, and no reader needs to know of
comments. Control characters in names are escaped (`\t`, `\n`, `\u{1b}`); nothing else is.
*/

use std::io::{self, Write};

use serde::Serialize;

use super::format::{Options, Rendered, Report, ReportError};
use super::located::pairs;
use super::text::one_line;
use crate::metrics::CONTRACT_COSINE;
use crate::suite::id;
use crate::suite::record::{Contract, FindingRecord, GlobalRow, TensorRow};

/// The contract's columns.
const HEADER: &str = "tensor\tqtype\tnumel\trmse\tcosine\tmax_abs\tverdict";

/// Renders `report.tsv`.
#[derive(Debug)]
pub struct Tsv;

impl Report for Tsv {
    fn name(&self) -> &'static str {
        "tsv"
    }

    fn file_name(&self) -> &'static str {
        "report.tsv"
    }

    fn about(&self) -> &'static str {
        "the contract's tab-separated rows, all pairs"
    }

    fn render(&self, contract: &Contract, _: &Options) -> Result<Rendered, ReportError> {
        let mut text = format!("{HEADER}\n");
        for (_, pair) in pairs(contract) {
            for row in &pair.tensors {
                text.push_str(&line(&id::of_tensor(&pair.id, &row.tensor), row));
            }
        }
        Ok(Rendered::from(text.into_bytes()))
    }
}

/// Writes the header and one line a row, in the order of `rows`, as the contract has them.
pub fn write_rows(out: &mut impl Write, rows: &[TensorRow]) -> io::Result<()> {
    writeln!(out, "{HEADER}")?;
    for row in rows {
        out.write_all(line(&row.tensor, row).as_bytes())?;
    }
    Ok(())
}

fn line(name: &str, row: &TensorRow) -> String {
    format!(
        "{}\t{}\t{}\t{:.6e}\t{:.6}\t{:.6e}\t{}\n",
        one_line(name),
        one_line(&row.qtype),
        row.numel,
        row.rmse.0,
        row.cosine.0,
        row.max_abs.0,
        one_line(&row.verdict),
    )
}

/// What `diff --json` prints; the contract's keys, then more.
#[derive(Debug, Serialize)]
pub struct Diff<'a> {
    /// The reference, as it was named.
    pub reference: &'a str,
    /// The quantized model, as it was named.
    pub quantized: &'a str,
    /// The least cosine that passes; none with `--no-threshold`.
    pub threshold: Option<f64>,
    /// The rows, by RMSE, descending.
    pub tensors: &'a [TensorRow],
    /// Is any row [below](is_below) the threshold, or the contract's where none makes the command
    /// fail?
    pub any_below_threshold: bool,
    /// All float tensors as one vector.
    pub global: Option<&'a GlobalRow>,
    /// What does not fit between the two models.
    pub findings: &'a [FindingRecord],
    /// What is worth knowing and no fault.
    pub notes: &'a [String],
}

impl<'a> Diff<'a> {
    /// The object of a comparison.
    pub fn new(
        reference: &'a str,
        quantized: &'a str,
        threshold: Option<f64>,
        tensors: &'a [TensorRow],
    ) -> Self {
        let reported = threshold.or(Some(CONTRACT_COSINE));
        let any_below_threshold = tensors.iter().any(|row| is_below(row, reported));
        let (global, findings, notes) = (None, [].as_slice(), [].as_slice());
        Self {
            reference,
            quantized,
            threshold,
            tensors,
            any_below_threshold,
            global,
            findings,
            notes,
        }
    }

    /// Writes it, pretty, with a line feed at the end.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

/// Is the row's cosine below the threshold? NaN is below every threshold; nothing is below none.
pub fn is_below(row: &TensorRow, threshold: Option<f64>) -> bool {
    threshold.is_some_and(|threshold| row.cosine.0.is_nan() || row.cosine.0 < threshold)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, HOSTILE, nan_row, row};
    use super::*;
    use crate::suite::record::Number;
    use crate::suite::sort_rows;

    #[test]
    fn rows_as_the_contract_formats_them() {
        let mut rows = vec![
            TensorRow {
                rmse: Number(0.000734635891),
                cosine: Number(0.99997),
                max_abs: Number(0.003032362),
                ..row("small", "F16", 4, 0.0)
            },
            TensorRow {
                rmse: Number(12.5),
                cosine: Number(-0.25),
                max_abs: Number(0.0),
                verdict: "red".to_owned(),
                ..row("large", "BF16", 1, 0.0)
            },
            nan_row("nan"),
        ];
        sort_rows(&mut rows);
        let mut out = Vec::new();
        write_rows(&mut out, &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "tensor\tqtype\tnumel\trmse\tcosine\tmax_abs\tverdict\n\
             nan\tQ4_0\t2\tNaN\tNaN\tNaN\tred\n\
             large\tBF16\t1\t1.250000e1\t-0.250000\t0.000000e0\tred\n\
             small\tF16\t4\t7.346359e-4\t0.999970\t3.032362e-3\tgreen\n"
        );
    }

    #[test]
    fn hostile_names_keep_every_line_whole() {
        let bytes = Tsv.render(&sample::contract(), &Options::default()).unwrap().bytes;
        let text = String::from_utf8(bytes).unwrap();
        let rows = pairs(&sample::contract()).map(|(_, pair)| pair.tensors.len()).sum::<usize>();
        assert_eq!(text.split('\n').count(), 1 + rows + 1, "{text}");
        assert!(!text.contains('\r') && !text.contains('\x1b') && !text.contains('\0'));
        for line in text.lines() {
            assert_eq!(line.split('\t').count(), 7, "{line:?}");
        }
        let mut names: Vec<&str> =
            text.lines().map(|line| line.split('\t').next().unwrap()).collect();
        names.dedup();
        assert_eq!(names.len(), 1 + rows, "names stay apart");
        assert!(text.contains(&format!("dir/hostile.v2::names.x::{}\t", HOSTILE[1])));
    }

    #[test]
    fn the_json_of_diff_has_the_contracts_keys() {
        for (threshold, below) in [(Some(0.95), true), (Some(-1.0), true), (None, true)] {
            let rows = [row("a", "Q8_0", 32, 0.001), nan_row("b")];
            let mut out = Vec::new();
            Diff::new("r.safetensors", "q.gguf", threshold, &rows).write(&mut out).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
            for key in ["reference", "quantized", "threshold", "tensors", "any_below_threshold"] {
                assert!(keys.contains(&key), "{key}");
            }
            for key in ["tensor", "qtype", "numel", "rmse", "cosine", "max_abs", "verdict"] {
                assert!(value["tensors"][0].get(key).is_some(), "{key}");
            }
            assert_eq!(value["any_below_threshold"], below, "NaN is below {threshold:?}");
            assert!(value["tensors"][1]["cosine"].is_null());
        }
    }
}

/*!
A pending snapshot against the accepted one, as a table that people read.
*/

use std::fmt::Write as _;

use super::snapshot::quote;
use super::{Comparison, Measurement, Move, Snapshot, Structure, TensorComparison};
use crate::metrics::Metric;
use crate::shown::width;

/// Most rows of a table.
const MOST_ROWS: usize = 200;

/// One row: what, which value, old, new, difference, judgement.
type Row = [String; 6];

/// What moved, aligned; what stayed is counted.
pub(super) fn movements(comparison: &Comparison, old: &Snapshot, new: &Snapshot) -> String {
    let mut rows = Vec::new();
    for tensor in comparison.all() {
        structure(tensor, &old.measurement, &new.measurement, &mut rows);
        for m in &tensor.moves {
            if matches!(m.kind, Move::Same | Move::Within) {
                continue;
            }
            let show = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:?}"));
            let difference = match (m.old, m.new) {
                (Some(old), Some(new)) if (new - old).is_finite() => format!("{:+.1e}", new - old),
                _ => String::new(),
            };
            rows.push([
                plain(&tensor.name),
                m.metric.name().to_owned(),
                show(m.old),
                show(m.new),
                difference,
                m.kind.name().to_owned(),
            ]);
        }
    }
    let mut out = align(["tensor", "value", "old", "new", "change", ""], &rows);
    let count = |kind| comparison.all().flat_map(|t| &t.moves).filter(|m| m.kind == kind).count();
    let (same, within) = (count(Move::Same), count(Move::Within));
    let _ = writeln!(out, "  {same} values the same, {within} within the tolerance");
    out
}

fn structure(tensor: &TensorComparison, old: &Measurement, new: &Measurement, rows: &mut Vec<Row>) {
    let brief = |m: &Measurement| match m.tensors.get(&tensor.name) {
        Some(entry) => format!("{} {:?}", plain(&entry.qtype), entry.shape),
        None => "-".to_owned(),
    };
    for s in &tensor.structure {
        let (value, was, is, judgement) = match s {
            Structure::Added => ("", "-".to_owned(), brief(new), "added"),
            Structure::Removed => ("", brief(old), "-".to_owned(), "removed"),
            Structure::Retyped { old, new } => ("type", plain(old), plain(new), "retyped"),
            Structure::Reshaped { old, new } => {
                ("shape", format!("{old:?}"), format!("{new:?}"), "reshaped")
            }
            Structure::Resized { old, new } => {
                ("elements", old.to_string(), new.to_string(), "changed")
            }
            Structure::Restored { old, new } => {
                ("bits_per_weight", format!("{old:?}"), format!("{new:?}"), "changed")
            }
            Structure::NonFinite { old, new } => {
                ("nonfinite", old.to_string(), new.to_string(), "changed")
            }
        };
        let (name, value) = (plain(&tensor.name), value.to_owned());
        rows.push([name, value, was, is, String::new(), judgement.to_owned()]);
    }
}

/// What a first baseline would hold.
pub(super) fn contents(new: &Snapshot) -> String {
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:?}"));
    let global = new.measurement.global.iter().map(|g| {
        let size = format!("{} tensors", g.tensors);
        ("(global)".to_owned(), String::new(), size, g.values)
    });
    let tensors = new
        .measurement
        .tensors
        .iter()
        .map(|(name, t)| (plain(name), plain(&t.qtype), format!("{:?}", t.shape), t.values));
    let rows: Vec<Row> = global
        .chain(tensors)
        .map(|(name, qtype, shape, values)| {
            let [cosine, rmse, max] =
                [Metric::Cosine, Metric::Rmse, Metric::MaxAbs].map(|m| show(values.get(m)));
            [name, qtype, shape, cosine, rmse, max]
        })
        .collect();
    align(["tensor", "qtype", "shape", "cosine", "rmse", "max_abs"], &rows)
}

/// A text on one line, with nothing in it that a terminal could obey.
pub(super) fn plain(text: &str) -> String {
    let quoted = quote(text);
    let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if inner == text { text.to_owned() } else { quoted }
}

fn align(head: [&str; 6], rows: &[Row]) -> String {
    let shown = rows.get(..MOST_ROWS).unwrap_or(rows);
    if shown.is_empty() {
        return String::new();
    }
    let head = head.map(str::to_owned);
    let column = |i: usize| {
        let cells = std::iter::once(&head).chain(shown).filter_map(|row| row.get(i));
        width(cells.map(String::as_str))
    };
    let widths: Vec<usize> = (0..6).map(column).collect();
    let mut out = String::new();
    for row in std::iter::once(&head).chain(shown) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            let _ = write!(line, "  {cell:<width$}");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    if rows.len() > shown.len() {
        let _ = writeln!(out, "  +{} more rows", rows.len() - shown.len());
    }
    out
}

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
            let [was, is] = readable(m.old, m.new);
            let difference = match (m.old, m.new) {
                (Some(old), Some(new)) if (new - old).is_finite() => format!("{:+.1e}", new - old),
                _ => String::new(),
            };
            rows.push([
                plain(&tensor.name),
                m.metric.name().to_owned(),
                was,
                is,
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

/// Two numbers with as many digits as it takes to tell them apart, but no fewer than six.
fn readable(old: Option<f64>, new: Option<f64>) -> [String; 2] {
    const LEAST: usize = 6;
    const ALL: usize = 17;
    let rounded = |value: f64, digits: usize| {
        let text = format!("{value:.*e}", digits - 1);
        text.parse::<f64>().unwrap_or(value)
    };
    let apart = |digits: &usize| match (old, new) {
        (Some(old), Some(new)) => old == new || rounded(old, *digits) != rounded(new, *digits),
        _ => true,
    };
    let digits = (LEAST..ALL).find(apart).unwrap_or(ALL);
    [old, new]
        .map(|value| value.map_or("-".to_owned(), |value| format!("{:?}", rounded(value, digits))))
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
            let [cosine, rmse, max] = [Metric::Cosine, Metric::Rmse, Metric::MaxAbs].map(|m| {
                let [shown, _] = readable(values.get(m), None);
                shown
            });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_tell_them_apart() {
        for (old, new, expected) in [
            (Some(0.951_200_340_001_2), Some(0.981_200_121_2), ["0.9512", "0.9812"]),
            (Some(1.234_567_891e-5), None, ["1.23457e-5", "-"]),
            (Some(0.123_456_789), Some(0.123_456_999), ["0.1234568", "0.123457"]),
            (Some(0.5), Some(0.5), ["0.5", "0.5"]),
            (None, Some(f64::NAN), ["-", "NaN"]),
            (Some(f64::INFINITY), Some(27.339_811_2), ["inf", "27.3398"]),
        ] {
            assert_eq!(readable(old, new), expected);
        }
        let next = f64::from_bits(0.95_f64.to_bits() + 1);
        let [old, new] = readable(Some(0.95), Some(next));
        assert_ne!(old, new, "one unit in the last place");
    }
}

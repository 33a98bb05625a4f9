/*!
`qualm diff REF QUANT`: the contract's surface, over any two formats.

Fails closed where the contract's first implementation does not: on NaN, on tensors that only one
side has, on shapes that differ, and when there is nothing to compare.
*/

use std::io::{self, Write};

use super::Failure;
use super::args::{DiffArgs, thread_count};
use crate::measure::{self, FindingKind, Policy, Progress};
use crate::model;
use crate::report;
use crate::suite::exit::Exit;
use crate::suite::record::TensorRow;
use crate::suite::{finding_record, global_row, sort_rows, tensor_row};

/// Compares two models and prints a row per tensor.
pub fn run(args: &DiffArgs) -> Result<Exit, Failure> {
    let reference = model::open(&args.reference)?;
    let quantized = model::open(&args.quantized)?;
    let policy = Policy {
        allow_missing: &|_| args.allow_missing,
        allow_extra: &|_| args.allow_missing,
        ..Policy::STRICT
    };
    let pairing = measure::pair_up(&reference, &quantized, &policy);
    let progress = Progress::default();
    let threads = thread_count(args.threads);
    let measured = measure::measure(&reference, &quantized, &pairing, threads, &progress);
    let mut rows: Vec<TensorRow> = pairing
        .matched
        .iter()
        .zip(&measured)
        .map(|(matched, measured)| {
            let r = &reference.tensors[matched.reference];
            tensor_row(r, &quantized.tensors[matched.quantized], measured, None)
        })
        .collect();
    sort_rows(&mut rows);

    let threshold = (!args.no_threshold).then_some(args.threshold);
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.json {
        let (r, q) = (args.reference.to_string_lossy(), args.quantized.to_string_lossy());
        let findings: Vec<_> = pairing.findings.iter().map(finding_record).collect();
        let global = global_row(&rows);
        let object = report::tsv::Diff::new(&r, &q, threshold, &rows);
        report::tsv::Diff { global: global.as_ref(), findings: &findings, ..object }
            .write(&mut out)?;
    } else {
        report::tsv::write_rows(&mut out, &rows)?;
    }
    out.flush()?;

    let mut problems = Problems::default();
    for finding in pairing.findings.iter().filter(|finding| !finding.allowed) {
        match (finding.kind, finding.tensor.as_str()) {
            (FindingKind::NothingInCommon | FindingKind::Empty, _) | (_, "") => {
                problems.invalid(&finding.message);
            }
            (_, tensor) => problems.invalid(&format!("{tensor:?}: {}", finding.message)),
        }
    }
    for row in &rows {
        judge(row, threshold, &mut problems);
    }
    Ok(problems.exit())
}

/// What is wrong, said on standard error as it is found.
#[derive(Default)]
struct Problems {
    invalid: bool,
    unreadable: bool,
}

impl Problems {
    fn invalid(&mut self, message: &str) {
        self.invalid = true;
        eprintln!("error: {message}");
    }

    /// A model that cannot be judged outweighs one that was judged bad.
    fn exit(&self) -> Exit {
        match (self.unreadable, self.invalid) {
            (true, _) => Exit::InputError,
            (false, true) => Exit::ValidationFailed,
            (false, false) => Exit::Ok,
        }
    }
}

fn judge(row: &TensorRow, threshold: Option<f64>, problems: &mut Problems) {
    let tensor = &row.tensor;
    if let Some(error) = &row.error {
        problems.unreadable = true;
        eprintln!("error: {tensor:?}: {error}");
    } else if let Some(at) = row.first_difference {
        problems.invalid(&format!("{tensor:?}: {} element {at} differs", row.qtype));
    } else if row.nonfinite > 0 {
        problems.invalid(&format!("{tensor:?}: {} NaN or infinite values", row.nonfinite));
    } else if report::tsv::is_below(row, threshold) {
        let (cosine, bound) = (row.cosine.0, threshold.unwrap_or(f64::NAN));
        problems.invalid(&format!("{tensor:?}: cosine {cosine:.6} is below {bound}"));
    }
}

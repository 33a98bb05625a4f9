/*!
`qualm diff REF QUANT`: the contract's surface, over any two formats.

Fails closed where the contract's first implementation does not: on NaN, on tensors that only one
side has, on shapes that differ, and when there is nothing to compare.
*/

use std::io::{self, Write};

use super::args::DiffArgs;
use super::progress::Bar;
use super::threads::thread_count;
use super::{Failure, streams};
use crate::counterpart::{self, Choice};
use crate::gate;
use crate::measure::{self, FindingKind, Measured, Pairing, Policy};
use crate::model::view::Recipe;
use crate::model::{self, Model, scheme};
use crate::report;
use crate::shown::{one_line, unsigned_zeros};
use crate::suite::exit::Exit;
use crate::suite::record::{FindingRecord, TensorRow};
use crate::suite::{finding_record, global_row, sort_rows, tensor_row};

/// Compares two models and prints a row per tensor.
pub fn run(args: &DiffArgs) -> Result<Exit, Failure> {
    let mut quantized = model::open(&args.quantized)?;
    let reference = model::open(&args.reference)?;
    let choice = Choice::named(args.reading.map.as_deref());
    let of_models = [("reference", &reference), ("quantized", &quantized)].into_iter();
    let mut notes: Vec<String> = of_models
        .flat_map(|(role, model)| model.notes.iter().map(move |note| format!("{role}: {note}")))
        .collect();
    let mapped = counterpart::pair_up(reference, &mut quantized, &choice)?;
    let reference = mapped.reference;
    notes.extend(mapped.notes);
    notes.append(&mut model::scheme::align(&reference, &mut quantized));
    let policy = Policy {
        allow_missing: &|_| args.allow_missing,
        allow_extra: &|_| args.allow_missing,
        ..Policy::STRICT
    };
    let pairing = measure::pair_up(&reference, &quantized, &policy);
    let threads = thread_count(args.reading.threads);
    measure::announce(&reference, &quantized, &pairing.matched);
    let measured = Bar::single(&args.quantized, |progress| {
        let bytes = measure::bytes_of(&reference, &quantized, &pairing.matched);
        progress.expect([bytes].into_iter());
        measure::measure(&reference, &quantized, &pairing.matched, threads, progress)
    });
    let mut rows = rows(&reference, &quantized, &pairing, measured);
    for row in &mut rows {
        row.made_of = mapped.recipes.get(&row.tensor).map(Recipe::json);
    }
    let planes = plane_findings(&quantized, &pairing, &rows);
    sort_rows(&mut rows);

    let threshold = (!args.no_threshold).then_some(args.threshold);
    let mut problems = Problems::default();
    problems.structure(&pairing);
    for finding in &planes {
        problems.say_once(&format!("{:?}: {}", finding.tensor, finding.message));
    }
    for row in &rows {
        problems.judge(row, threshold);
    }
    if problems.invalid() {
        notes.extend(folded(&reference, &quantized));
    }

    let findings: Vec<_> = pairing.findings.iter().map(finding_record).chain(planes).collect();
    let printed = print(args, threshold, &rows, &findings, &notes);
    for note in &notes {
        streams::tell(format_args!("note: {}", one_line(note)));
    }
    for message in &problems.messages {
        streams::tell(format_args!("error: {}", one_line(message)));
    }
    Ok(streams::printed(printed, problems.exit()))
}

/// Rows of a table before what was measured is given back, a batch at a time.
const BATCH: usize = 4096;

/// The rows of what was measured, in the order of the pairing. Both at once would be the run's peak of memory.
fn rows(
    reference: &Model,
    quantized: &Model,
    pairing: &Pairing,
    mut measured: Vec<Measured>,
) -> Vec<TensorRow> {
    let mut rows = Vec::with_capacity(measured.len());
    for matched in pairing.matched.iter().rev() {
        let Some(measured_last) = measured.pop() else { break };
        let r = &reference.tensors[matched.reference];
        let q = &quantized.tensors[matched.quantized];
        rows.push(tensor_row(r, q, &measured_last, None));
        if measured.len().is_multiple_of(BATCH) {
            measured.shrink_to_fit();
        }
    }
    rows.reverse();
    rows
}

fn print(
    args: &DiffArgs,
    threshold: Option<f64>,
    rows: &[TensorRow],
    findings: &[FindingRecord],
    notes: &[String],
) -> io::Result<()> {
    let mut out = streams::text_or_json(args.json);
    if args.json {
        let (r, q) = (args.reference.to_string_lossy(), args.quantized.to_string_lossy());
        let global = global_row(rows);
        let object = report::tsv::Diff::new(&r, &q, threshold, rows);
        report::tsv::Diff { global: global.as_ref(), findings, notes, ..object }.write(&mut out)?;
    } else {
        report::tsv::write_rows(&mut out, rows)?;
    }
    out.flush()
}

/// What is wrong with the planes of the quantized model's weights: those that are missing or do not
/// fit, and those of the compared weights that are zero or not finite.
fn plane_findings(model: &Model, pairing: &Pairing, rows: &[TensorRow]) -> Vec<FindingRecord> {
    let record = |tensor: &str, message: String| FindingRecord {
        kind: FindingKind::Companion.name().to_owned(),
        tensor: tensor.to_owned(),
        message,
        allowed: false,
    };
    let mut found: Vec<FindingRecord> = model
        .findings
        .iter()
        .map(|finding| record(&finding.tensor, format!("{} {}", finding.plane, finding.message)))
        .collect();
    for (matched, row) in pairing.matched.iter().zip(rows) {
        let rr = row.sums.as_ref().map_or(f64::NAN, |sums| sums.rr.0);
        let problems = gate::plane_problems(model, &model.tensors[matched.quantized], rr);
        let ours = problems.into_iter().filter(|problem| !problem.elsewhere);
        found.extend(ours.map(|problem| record(&row.tensor, problem.message)));
    }
    found
}

/// Scales that a quantizer folded into norms or other weights, so that tensors differ although the
/// models do not.
fn folded(reference: &Model, quantized: &Model) -> Vec<String> {
    let mut folds = scheme::folds(reference, quantized, &str::to_owned).unwrap_or_default();
    folds.retain(scheme::Fold::cancels);
    let remedy = "no damage by itself: `check` and specs take them out";
    folds.iter().map(|fold| format!("{}; {remedy}", fold.describe())).collect()
}

/// What is wrong, in the order in which it is found.
#[derive(Default)]
struct Problems {
    messages: Vec<String>,
    unreadable: bool,
}

impl Problems {
    fn invalid(&self) -> bool {
        !self.messages.is_empty()
    }

    fn say(&mut self, message: &str) {
        self.messages.push(message.to_owned());
    }

    /// What two lists of findings may hold.
    fn say_once(&mut self, message: &str) {
        if !self.messages.iter().any(|said| said == message) {
            self.say(message);
        }
    }

    /// What does not fit between the two models.
    fn structure(&mut self, pairing: &Pairing) {
        for finding in pairing.findings.iter().filter(|finding| !finding.allowed) {
            match finding.tensor.as_str() {
                "" => self.say(&finding.message),
                tensor => self.say(&format!("{tensor:?}: {}", finding.message)),
            }
        }
    }

    /// The values of one tensor.
    fn judge(&mut self, row: &TensorRow, threshold: Option<f64>) {
        let tensor = &row.tensor;
        if let Some(error) = &row.error {
            self.unreadable = true;
            self.say(&format!("{tensor:?}: {error}"));
        } else if let Some(at) = row.first_difference {
            self.say(&format!("{tensor:?}: {} element {at} differs", row.qtype));
        } else if row.nonfinite > 0 {
            self.say(&format!("{tensor:?}: {} NaN or infinite values", row.nonfinite));
        } else if report::tsv::is_below(row, threshold) {
            let (cosine, bound) = (row.cosine.0, threshold.unwrap_or(f64::NAN));
            let said = format!("{tensor:?}: cosine {cosine:.6} is below {bound}");
            self.say(&unsigned_zeros(said));
        }
    }

    /// A model that cannot be judged outweighs one that was judged bad.
    fn exit(&self) -> Exit {
        match (self.unreadable, self.invalid()) {
            (true, _) => Exit::InputError,
            (false, true) => Exit::ValidationFailed,
            (false, false) => Exit::Ok,
        }
    }
}

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
use crate::pairs::{self, Comparison};
use crate::report;
use crate::shown::{one_line, unsigned_zeros};
use crate::suite::exit::Exit;
use crate::suite::record::TensorRow;

/// Compares two models and prints a row per tensor.
pub fn run(args: &DiffArgs) -> Result<Exit, Failure> {
    let policy =
        pairs::Policy { map: args.reading.map.as_deref(), allow_missing: args.allow_missing };
    let threads = thread_count(args.reading.threads);
    let mut compared = Bar::single(&args.quantized, |progress| {
        pairs::compare(&args.reference, &args.quantized, &policy, threads, progress)
    })?;
    let threshold = (!args.no_threshold).then_some(args.threshold);
    let mut problems = Problems::default();
    for finding in compared.findings.iter().filter(|finding| !finding.allowed) {
        match finding.tensor.as_str() {
            "" => problems.say_once(&finding.message),
            tensor => problems.say_once(&format!("{tensor:?}: {}", finding.message)),
        }
    }
    for row in &compared.rows {
        problems.judge(row, threshold);
    }
    if problems.invalid() {
        compared.look_for_folds();
    }
    let printed = print(args, threshold, &compared);
    for note in &compared.notes {
        streams::tell(format_args!("note: {}", one_line(note)));
    }
    for message in &problems.messages {
        streams::tell(format_args!("error: {}", one_line(message)));
    }
    Ok(streams::printed(printed, problems.exit()))
}

fn print(args: &DiffArgs, threshold: Option<f64>, compared: &Comparison) -> io::Result<()> {
    let Comparison { rows, findings, notes, .. } = compared;
    let mut out = streams::text_or_json(args.json);
    if args.json {
        let (r, q) = (args.reference.to_string_lossy(), args.quantized.to_string_lossy());
        let global = compared.global();
        let object = report::tsv::Diff::new(&r, &q, threshold, rows);
        report::tsv::Diff { global: global.as_ref(), findings, notes, ..object }.write(&mut out)?;
    } else {
        report::tsv::write_rows(&mut out, rows)?;
    }
    out.flush()
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

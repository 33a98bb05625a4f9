/*! Two models measured against each other: a row for each tensor, and what does not fit. */

use std::path::Path;

use super::Error;
use crate::counterpart::{self, Choice};
use crate::gate;
use crate::measure::{self, FindingKind, Measured, Pairing, Progress};
use crate::model::view::Recipe;
use crate::model::{self, Model, scheme};
use crate::suite::record::{FindingRecord, GlobalRow, TensorRow};
use crate::suite::{finding_record, global_row, sort_rows, tensor_row};

/// How tensors are matched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy<'a> {
    /// A file of rules for converted tensors, or `none`.
    pub map: Option<&'a Path>,
    /// Tensors that only one side has are no problem.
    pub allow_missing: bool,
}

/// What was measured of two models.
#[derive(Debug)]
pub struct Comparison {
    /// The tensors that both have, worst first.
    pub rows: Vec<TensorRow>,
    /// What does not fit: tensors that one side lacks, other shapes, planes of quantized weights.
    pub findings: Vec<FindingRecord>,
    /// What is odd but no error.
    pub notes: Vec<String>,
    models: [Model; 2],
}

impl Comparison {
    /// All float tensors as one vector; none if there are none.
    pub fn global(&self) -> Option<GlobalRow> {
        global_row(&self.rows)
    }

    /// Notes scales that a quantizer folded into norms or other weights, so that tensors differ although the
    /// models do not.
    pub(crate) fn look_for_folds(&mut self) {
        let [reference, quantized] = &self.models;
        let mut folds = scheme::folds(reference, quantized, &str::to_owned).unwrap_or_default();
        folds.retain(scheme::Fold::cancels);
        let remedy = "no damage by itself: `check` and specs take them out";
        self.notes.extend(folds.iter().map(|fold| format!("{}; {remedy}", fold.describe())));
    }
}

/// Compares two models of any format; `progress` counts what is read.
pub fn compare(
    reference: &Path,
    quantized: &Path,
    policy: &Policy,
    threads: usize,
    progress: &Progress,
) -> Result<Comparison, Error> {
    let mut quantized = model::open(quantized)?;
    let reference = model::open(reference)?;
    let choice = Choice::named(policy.map);
    let of_models = [("reference", &reference), ("quantized", &quantized)].into_iter();
    let mut notes: Vec<String> = of_models
        .flat_map(|(role, model)| model.notes.iter().map(move |note| format!("{role}: {note}")))
        .collect();
    let mapped = counterpart::pair_up(reference, &mut quantized, &choice)?;
    let reference = mapped.reference;
    notes.extend(mapped.notes);
    notes.append(&mut scheme::align(&reference, &mut quantized));
    let matching = measure::Policy {
        allow_missing: &|_| policy.allow_missing,
        allow_extra: &|_| policy.allow_missing,
        ..measure::Policy::STRICT
    };
    let pairing = measure::pair_up(&reference, &quantized, &matching);
    measure::announce(&reference, &quantized, &pairing.matched);
    let bytes = measure::bytes_of(&reference, &quantized, &pairing.matched);
    progress.expect([bytes].into_iter());
    let measured = measure::measure(&reference, &quantized, &pairing.matched, threads, progress);
    let mut rows = rows(&reference, &quantized, &pairing, measured);
    for row in &mut rows {
        row.made_of = mapped.recipes.get(&row.tensor).map(Recipe::json);
    }
    let planes = plane_findings(&quantized, &pairing, &rows);
    let findings = pairing.findings.iter().map(finding_record).chain(planes).collect();
    sort_rows(&mut rows);
    Ok(Comparison { rows, findings, notes, models: [reference, quantized] })
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

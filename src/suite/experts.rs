/*!
Stacks, whose matrices are judged one by one. Where they are stored in unlike ways, as where one expert of many is
kept in higher precision, no one type says what the stack gives, so each of them is measured on its own as well.
*/

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::diagnose::{self, Diagnosis};
use crate::gate::{self, CheckOutcome, CheckRecord};
use crate::measure::experts::{in_a_row, matrices};
use crate::measure::twin::{Expectation, Expert, Twin, twins};
use crate::measure::{Matched, Measured, Progress, measure};
use crate::metrics::Locals;
use crate::model::{Model, Tensor};
use crate::spec::{Gate, Setting};

/// The matrices of such stacks, as tensors of their own.
#[derive(Default)]
pub struct Experts {
    /// The models of which they are tensors; none if no stack is unlike.
    pub models: Option<[Model; 2]>,
    pub matched: Vec<Matched>,
    /// In the order of `matched`, as are the twins.
    pub measured: Vec<Measured>,
    pub twins: Vec<Expectation>,
    /// Those of a stack, by its index among the tensors of the pass.
    of: HashMap<usize, Range<usize>>,
}

impl Experts {
    /// Measures the matrices of the unlike stacks among `matched`, tensors of models of so many elements.
    pub fn of(
        reference: &Model,
        quantized: &Model,
        matched: &[Matched],
        elements: u64,
        threads: usize,
    ) -> Self {
        let mut found = Self::default();
        let mut sides = [Vec::new(), Vec::new()];
        for (at, pair) in matched.iter().enumerate() {
            let (r, q) = (&reference.tensors[pair.reference], &quantized.tensors[pair.quantized]);
            if !is_unlike(q) {
                continue;
            }
            let Some(matrices) = matrices(r, q) else { continue };
            let first = found.matched.len();
            for matrix in matrices {
                let index = found.matched.len();
                found.matched.push(Matched { reference: index, quantized: index });
                sides[0].push(matrix.reference);
                sides[1].push(matrix.quantized);
            }
            found.of.insert(at, first..found.matched.len());
        }
        if found.of.is_empty() {
            return found;
        }
        let [of_reference, of_quantized] = sides;
        let reference = Model { tensors: of_reference, ..reference.clone() };
        let quantized = Model { tensors: of_quantized, ..quantized.clone() };
        let progress = Progress::default();
        found.measured = measure(&reference, &quantized, &found.matched, threads, &progress);
        let (all, of) = (&found.matched, &mut found.measured);
        found.twins = twins(&reference, &quantized, all, of, elements, threads);
        found.models = Some([reference, quantized]);
        found
    }

    /// The matrices of a tensor of the pass, if each is judged on its own.
    pub fn range(&self, at: usize) -> Option<Range<usize>> {
        self.of.get(&at).cloned()
    }

    /// Name and type of a matrix, for messages.
    pub fn subject(&self, index: usize) -> String {
        let tensor = self.models.as_ref().map(|[_, quantized]| &quantized.tensors[index]);
        tensor.map_or_else(String::new, |it| format!("{}, {}", it.name, it.qtype()))
    }
}

/// Whether a stack is made of tensors of unlike types.
fn is_unlike(tensor: &Tensor) -> bool {
    let Some(view) = tensor.view().filter(|_| tensor.shape.len() >= 3) else { return false };
    let types: HashSet<&str> = view.sources().map(Tensor::qtype).collect();
    types.len() > 1
}

/// What the gates find in each of the matrices of a stack of one type, as far as their samples show it: the sums
/// over all elements are the stack's.
pub fn checks_of_each<'s>(
    twin: &Twin,
    row_len: u64,
    setting: impl Fn(Gate) -> Option<&'s Setting>,
) -> Vec<Vec<CheckRecord>> {
    let locals = &Locals { row_len, ..Locals::default() };
    let of_one = |expert: &Expert| {
        let mut checks = Vec::new();
        let sums = &expert.twin.sample.actual.moments();
        let (subject, twin) = (&*expert.subject, Ok(&expert.twin));
        let suspect = gate::Suspect { subject, sums, locals, twin };
        gate::check_integrity(&suspect, &setting, &mut checks);
        checks
    };
    twin.experts.iter().map(of_one).collect()
}

/// The cause of what is wrong with one matrix of a stack of one type, found in it and its siblings alone.
pub fn cause_in(
    stack: &Twin,
    expert: usize,
    reference: &Model,
    quantized: &Model,
    at: Matched,
) -> Option<Diagnosis> {
    let own = &stack.experts.get(expert)?.twin;
    let (r, q) = (&reference.tensors[at.reference], &quantized.tensors[at.quantized]);
    let matrices = in_a_row(r, q)?.into_iter();
    let (r, q): (Vec<Tensor>, _) = matrices.map(|it| (it.reference, it.quantized)).unzip();
    let of_index = |index| Matched { reference: index, quantized: index };
    let all: Vec<Matched> = (0..r.len()).map(of_index).collect();
    let subject = diagnose::Subject {
        reference: &Model { tensors: r, ..reference.clone() },
        quantized: &Model { tensors: q, ..quantized.clone() },
        at: *all.get(expert)?,
        all: &all,
        locals: None,
        twin: Some(own),
    };
    diagnose::of_values(&subject, &own.sample.actual.moments())
}

/// What is said of the stack: of each gate, what it found in the matrix that fares worst. A gate that has
/// judged some of them has judged.
pub fn worst_of<'c>(of_each: impl Iterator<Item = &'c Vec<CheckRecord>>) -> Vec<CheckRecord> {
    let of_each: Vec<_> = of_each.collect();
    let rank = |check: &CheckRecord| match check.outcome {
        CheckOutcome::Violated => 2,
        CheckOutcome::NotJudged => 0,
        _ => 1,
    };
    let excess = |check: &CheckRecord| match (check.value, check.bound) {
        (Some(value), Some(bound)) => value.0 - bound.0,
        _ => 0.0,
    };
    let count = of_each.iter().map(|it| it.len()).min().unwrap_or(0);
    let worst = |gate: usize| {
        // Of equals the first.
        let by_rank = |a: &&CheckRecord, b: &&CheckRecord| {
            rank(a).cmp(&rank(b)).then_with(|| excess(a).total_cmp(&excess(b)))
        };
        of_each.iter().rev().map(|checks| &checks[gate]).max_by(by_rank).cloned()
    };
    (0..count).filter_map(worst).collect()
}

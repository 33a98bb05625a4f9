/*!
A pair that is one model without a reference (`verify`): what is wrong with it whatever it was made from.
*/

use std::collections::{HashMap, HashSet};

use super::judge;
use super::plan::{PlannedPair, PlannedTest};
use super::record::{CheckRecord, PairRecord, TestKind, TestRecord};
use super::rows::{model_record, plane_findings};
use super::run::{Listener, OpenError, Options, References, Usages, usage};
use crate::codec::Class;
use crate::gate::{self, Alone};
use crate::measure::{self, Depth, Scan};
use crate::model::{Model, ReadError, Tensor};
use crate::spec::{Diagnostic, Gate, Resolver};

/// Opens the model of a pair.
pub(super) fn open<'a>(
    planned: &PlannedPair<'a>,
    references: &mut References<'a>,
) -> Result<(Model, Resolver<'a>), OpenError> {
    let resolver = planned.spec.resolver(planned.pair)?;
    let written = &planned.pair.reference;
    let model = references.open(&written.path)?;
    match planned.difference(&model) {
        None => Ok((model, resolver)),
        Some(difference) => Err(OpenError::Changed { path: written.written.clone(), difference }),
    }
}

/// Judges every test of the pair that is run here, and records what it found.
pub(super) fn run<'a>(
    planned: &PlannedPair<'a>,
    options: &Options,
    last: bool,
    usages: &mut Usages<'a>,
    references: &mut References<'a>,
    listener: &dyn Listener,
    record: &mut PairRecord,
) -> Result<(), OpenError> {
    let (model, resolver) = open(planned, references)?;
    let usage = usage(&resolver, &model, &model);
    let mut unmatched = resolver.unmatched(&usage);
    usages.push((planned.pair, usage));
    if last {
        unmatched.extend(planned.spec.unmatched_shared(usages));
    }
    record.quantized = Some(model_record(&model, &planned.pair.reference.written));
    record.notes.extend(model.notes.iter().cloned());
    record.findings = plane_findings(&model, &resolver);
    let is_read = |test: &&PlannedTest| test.kind == TestKind::Tensor && test.ignored.is_none();
    let read: HashSet<&str> = planned.tests_here().filter(is_read).map(|it| &*it.part).collect();
    let tensors = model.tensors.iter().filter(|it| read.contains(it.name.as_str()));
    let tensors: Vec<&Tensor> = tensors.collect();
    let progress = listener.progress();
    let scans = measure::scan(&model, &tensors, Depth::Values, options.threads, &progress);
    let scanned = tensors.iter().map(|it| it.name.as_str()).zip(tensors.iter().copied().zip(scans));
    let judging = Judging { model: &model, resolver: &resolver, scanned: scanned.collect() };
    let judge = |test: &PlannedTest| match (&test.ignored, test.kind) {
        (Some(why), _) => judge::ignored(test, why),
        (None, TestKind::Tensor) => judging.tensor(test),
        (None, _) => judging.structure(test, &unmatched),
    };
    record.tests = planned.tests_here().map(judge).collect();
    Ok(())
}

/// A model that is judged.
struct Judging<'a> {
    model: &'a Model,
    resolver: &'a Resolver<'a>,
    /// The tensors whose values were looked at, by name.
    scanned: HashMap<&'a str, (&'a Tensor, Result<Scan, ReadError>)>,
}

impl Judging<'_> {
    /// One tensor: readable, finite, not zero, its planes of use, its type.
    fn tensor(&self, test: &PlannedTest) -> TestRecord {
        let name = &*test.part;
        let (tensor, scan) = match self.scanned.get(name) {
            Some((tensor, Ok(scan))) => (*tensor, scan),
            Some((_, Err(error))) => return judge::error(test, &error.to_string(), None),
            None => return judge::error(test, "the tensor is not in the model any more", None),
        };
        let mut checks = Vec::new();
        if tensor.class() != Class::Exact {
            let found = gate::check_values(self.model, tensor, scan);
            checks.extend(found.into_iter().map(|alone| self.excused(alone)));
        }
        gate::check_types(tensor, name, self.resolver, &mut checks);
        let mut record = judge::conclude(test, checks);
        record.trim();
        record
    }

    /// The model as a whole: planes, configuration, metadata, size.
    fn structure(&self, test: &PlannedTest, unmatched: &[Diagnostic]) -> TestRecord {
        let whole = gate::check_whole(self.model).into_iter().map(|mut alone| {
            if let Some(tensor) = &alone.tensor {
                alone.check.message = format!("{tensor}: {}", alone.check.message);
            }
            self.excused(alone)
        });
        let mut checks: Vec<CheckRecord> = whole.collect();
        gate::check_model(self.model, self.model, 0, self.resolver, &mut checks);
        checks.extend(unmatched.iter().map(judge::spec_check));
        judge::conclude(test, checks)
    }

    /// The check of a finding; a violation passes if the spec switched its gate off.
    fn excused(&self, alone: Alone) -> CheckRecord {
        let Alone { tensor, mut check } = alone;
        let name = check.check.strip_prefix("integrity.").unwrap_or(&check.check);
        if let Some(gate) = Gate::from_name(name) {
            let setting = match &tensor {
                Some(tensor) => self.resolver.tensor(tensor).integrity(gate),
                None => self.resolver.pair().integrity.get(gate),
            };
            gate::excuse(&mut check, setting);
        }
        check
    }
}

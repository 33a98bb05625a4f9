/*!
The run loop: one pair after the other is opened, matched, measured, gated and compared with its
baseline. It tells a listener what happens and knows no report.
*/

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::baseline::{self, Baselines};
use super::exit::Exit;
use super::experts::Experts;
use super::judge;
use super::plan::{Plan, PlannedPair, PlannedTest};
use super::record::{
    BaselineRecord, Contract, Examined, Harness, PairRecord, Partition, SCHEMA, SampleRecord,
    Source, SpecRecord, TensorRow, TestKind, TestOutcome, TestRecord, Time,
};
use super::rows::{
    finding_record, global_row, model_record, plane_findings, sort_rows, tensor_row,
};
use super::sample::Sample;
use super::{alone, folds, obligations, swapped, verdict};
use crate::counterpart::{self, Choice, Compared, Mapped};
use crate::diagnose;
use crate::internal::{self, InternalError};
use crate::measure::printed_stats::{self, PrintedStats};
use crate::measure::twin::Expectation;
use crate::measure::{self, Matched, Measured, Pairing, Policy, Progress};
use crate::model::view::Recipe;
use crate::model::{self, Model, ModelError, Storage};
use crate::spec::{Diagnostic, Pair, Quantized, Resolver, SpecErrors, Usage};

/// Why a shard does not judge the whole of a pair that it holds a part of.
pub const JUDGED_BY_MERGE: &str = "other shards hold a part of the pair: `qualm merge` judges it";

/// Hears what happens, in the order of the plan.
pub trait Listener {
    /// A pair's turn has come.
    fn pair(&mut self, _pair: &PlannedPair) {}
    /// A test is done.
    fn test(&mut self, _test: &TestRecord) {}
    /// What will be read of a pair whose values are not all looked at.
    fn sample(&self, _sample: &SampleRecord) {}
    /// All tests of a pair are done.
    fn pair_done(&mut self, _pair: &PairRecord) {}
    /// Where to count what is read, for whoever watches.
    fn progress(&self) -> Arc<Progress> {
        Arc::default()
    }
}

/// Hears nothing.
pub struct Silent;

impl Listener for Silent {}

/// Tensors that are measured and judged at a time: what was found out about them is kept for so many alone.
const BATCH: usize = 256;

/// Bytes of a batch of tensors that are not on this machine.
const NEAR: u64 = 8 << 20;

/// How to run.
#[derive(Debug)]
pub struct Options {
    /// Threads to measure with.
    pub threads: usize,
    /// The baselines, unless they are left alone.
    pub baselines: Option<Baselines>,
    /// Stop after so many failures.
    pub max_fail: Option<u64>,
    /// A warning fails its test.
    pub warnings_fail: bool,
    /// To run nothing at all is a success.
    pub nothing_passes: bool,
    /// Checks that hold are counted and dropped: what does not hold is all that is asked for.
    pub settle: bool,
}

impl Options {
    /// So many threads, no baselines, and all that is said of each test.
    pub fn of(threads: usize) -> Self {
        Self {
            threads,
            baselines: None,
            max_fail: None,
            warnings_fail: false,
            nothing_passes: false,
            settle: false,
        }
    }
}

/// Runs a plan, or this shard's part of it, and records what came out.
pub fn run(
    plan: &Plan,
    options: &Options,
    partition: Option<Partition>,
    listener: &mut dyn Listener,
) -> Contract {
    let started = Instant::now();
    let mut specs = Vec::new();
    let mut failures = 0;
    let mut usages: Usages = Vec::new();
    let mut references = References::default();
    for (index, planned) in plan.pairs.iter().enumerate() {
        let same_spec = |at: Option<usize>| {
            let other = at.and_then(|at| plan.pairs.get(at));
            other.is_some_and(|other| other.spec.name == planned.spec.name)
        };
        if !same_spec(index.checked_sub(1)) {
            usages.clear();
        }
        let last = !same_spec(Some(index + 1));
        references.next = plan.pairs.get(index + 1).map(|next| next.pair.reference.path.as_path());
        if !(planned.here && planned.runs_here()) && closes_here(plan, index) {
            usages.extend(usage_elsewhere(planned, &mut references));
        }
        if !planned.here {
            continue;
        }
        listener.pair(planned);
        let began = Instant::now();
        let stopped = options.max_fail.is_some_and(|most| failures >= most);
        let mut pair = match stopped {
            // Merge is to see that the shard is not whole.
            true if partition.is_some() => break,
            true => not_run(planned, &format!("not run: stopped after {failures} failures")),
            false if !planned.runs_here() => not_run(planned, ""),
            false => internal::guard(format_args!("judging {}", planned.id), || {
                let mut pair =
                    run_pair(planned, options, last, &mut usages, &mut references, listener);
                swapped::explain(planned, &mut pair, |turned| {
                    let (mut usages, mut references) = (Vec::new(), References::default());
                    run_pair(turned, options, false, &mut usages, &mut references, &Silent)
                });
                pair
            })
            .unwrap_or_else(|error| broken(planned, &error)),
        };
        pair.seconds = verdict::time(began).map_or(0.0, |time| time.seconds);
        pair.tests.iter().for_each(|test| listener.test(test));
        listener.pair_done(&pair);
        failures += pair
            .tests
            .iter()
            .filter(|test| matches!(test.outcome, TestOutcome::Failed | TestOutcome::Error))
            .count() as u64;
        push(&mut specs, planned, pair);
    }
    let nothing_passes = options.nothing_passes || partition.is_some();
    contract(specs, plan.filtered_out, partition, verdict::time(started), nothing_passes)
}

/// Adds a pair to the record of its spec; pairs come in the order of the plan.
pub fn push(specs: &mut Vec<SpecRecord>, planned: &PlannedPair, pair: PairRecord) {
    if specs.last().is_none_or(|spec| spec.name != planned.spec.name) {
        specs.push(spec_record(planned));
    }
    if let Some(spec) = specs.last_mut() {
        spec.pairs.push(pair);
    }
}

/// The record of a run from the records of its pairs; `nothing_passes` if it is no failure that no test
/// was run. Of a shard, `qualm merge` judges that.
pub fn contract(
    specs: Vec<SpecRecord>,
    filtered_out: u64,
    partition: Option<Partition>,
    time: Option<Time>,
    nothing_passes: bool,
) -> Contract {
    let pairs: Vec<&PairRecord> = specs.iter().flat_map(|spec| &spec.pairs).collect();
    let summary = verdict::summary(&pairs, filtered_out);
    let exit = match verdict::exit(&pairs) {
        Exit::NoTests if nothing_passes => Exit::Ok,
        exit => exit,
    };
    Contract {
        schema: SCHEMA,
        harness: Harness {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        time,
        partition,
        verdict: verdict::of(exit, &pairs),
        exit_code: exit.code(),
        summary,
        obligations: obligations::judge(&pairs),
        specs,
    }
}

fn spec_record(planned: &PlannedPair) -> SpecRecord {
    let spec = planned.spec;
    SpecRecord {
        name: spec.name.clone(),
        path: spec.path.to_string_lossy().into_owned(),
        sha256: spec.sha256.clone(),
        description: spec.description.clone(),
        tags: spec.tags.clone(),
        pairs: Vec::new(),
    }
}

/// A pair of which nothing is run; each test has its own reason, or this one.
fn not_run(planned: &PlannedPair, why: &str) -> PairRecord {
    let mut record = empty_record(planned);
    let reason = |test: &PlannedTest| test.ignored.clone().unwrap_or_else(|| why.to_owned());
    record.tests = planned.tests_here().map(|test| judge::ignored(test, &reason(test))).collect();
    record
}

/// A pair over which the program broke down: none of its tests has a verdict.
pub(super) fn broken(planned: &PlannedPair, error: &InternalError) -> PairRecord {
    let mut record = empty_record(planned);
    let reason = error.to_string();
    let judged = |test: &PlannedTest| match &test.ignored {
        Some(why) => judge::ignored(test, why),
        None => judge::internal(test, &reason),
    };
    record.tests = planned.tests_here().map(judged).collect();
    record.error = Some(reason);
    record
}

/// Which globs of a spec have matched something, by pair.
pub(super) type Usages<'a> = Vec<(&'a Pair, Usage)>;

/// Does this shard judge the globs that all pairs of a pair's spec share? It does if it judges the
/// structure of the spec's last pair.
fn closes_here(plan: &Plan, index: usize) -> bool {
    let rest = plan.pairs.get(index..).unwrap_or_default();
    let same = rest.iter().take_while(|it| it.spec.name == rest[0].spec.name);
    same.last().is_some_and(|last| {
        last.tests_here().any(|test| test.kind == TestKind::Structure && test.ignored.is_none())
    })
}

/// What a pair that another shard runs has matched.
fn usage_elsewhere<'a>(
    planned: &PlannedPair<'a>,
    references: &mut References<'a>,
) -> Option<(&'a Pair, Usage)> {
    if planned.tests.iter().all(|test| test.ignored.is_some()) {
        return None;
    }
    let usage = if planned.pair.is_alone() {
        let (model, resolver) = alone::open(planned, references).ok()?;
        usage(&resolver, &model, &model)
    } else {
        let (opened, resolver) = open(planned, references).ok()?;
        usage(&resolver, &opened.reference, &opened.quantized)
    };
    Some((planned.pair, usage))
}

/// Runs one pair; whatever goes wrong becomes the outcome of its tests. After the last pair of a spec
/// the globs that all of them share are judged as well.
fn run_pair<'a>(
    planned: &PlannedPair<'a>,
    options: &Options,
    last: bool,
    usages: &mut Usages<'a>,
    references: &mut References<'a>,
    listener: &dyn Listener,
) -> PairRecord {
    let mut record = empty_record(planned);
    let run = if planned.pair.is_alone() { alone::run } else { compare };
    if let Err(error) = run(planned, options, last, usages, references, listener, &mut record) {
        unopened(planned, &error, &mut record);
    }
    if options.warnings_fail {
        judge::fail_on_warnings(&mut record.tests);
    }
    record
}

/// Compares the two models of a pair.
fn compare<'a>(
    planned: &PlannedPair<'a>,
    options: &Options,
    last: bool,
    usages: &mut Usages<'a>,
    references: &mut References<'a>,
    listener: &dyn Listener,
    record: &mut PairRecord,
) -> Result<(), OpenError> {
    let (mut opened, resolver) = open(planned, references)?;
    usages.push((planned.pair, usage(&resolver, &opened.reference, &opened.quantized)));
    if last {
        opened.unmatched_shared = planned.spec.unmatched_shared(usages);
    }
    let (reference, quantized) = (&opened.reference, &opened.quantized);
    let (of_reference, of_quantized) = written(planned.pair);
    record.reference = Some(model_record(reference, of_reference));
    record.quantized = Some(model_record(quantized, of_quantized));
    record.notes.extend(reference.notes.iter().map(|note| format!("reference: {note}")));
    record.notes.extend(quantized.notes.iter().map(|note| format!("quantized: {note}")));
    record.notes.extend(opened.notes.iter().cloned());
    let pass = Pass::of(planned, &resolver, &opened);
    let sample = planned.pair.sample.as_ref().map(|share| {
        let Opened { reference, quantized, .. } = &mut opened;
        Sample::take(share.value, reference, quantized, &pass.matched)
    });
    let mut sample = sample.filter(|sample| !sample.is_whole());
    let (reference, quantized) = (&opened.reference, &opened.quantized);
    let (progress, threads) = (listener.progress(), options.threads);
    let total = measure::bytes_of(reference, quantized, &pass.matched);
    progress.total.store(total, Ordering::Relaxed);
    let requests = measure::announce(reference, quantized, &pass.matched);
    if let Some(sample) = &mut sample {
        sample.record.requests = requests;
        listener.sample(&sample.record);
    }
    let mut measure = |part: Range<usize>| {
        let results = opened.measure(&pass.matched[part], threads, &progress);
        (Cow::Owned(results.measured), Cow::Owned(results.twins))
    };
    let judging = Judging {
        planned,
        resolver: &resolver,
        opened: &opened,
        pass: &pass,
        threads,
        settle: options.settle,
    };
    judging.judge(&mut measure, options.baselines.as_ref(), record);
    if let Some(sample) = sample {
        sample.restore(&mut record.tensors);
        record.sample = Some(sample.record);
    }
    if !planned.pair.unfold {
        let found = folds::explain(reference, quantized, &resolver, &planned.id, &mut record.tests);
        record.notes.extend(found);
    }
    if !planned.is_split() {
        record.notes.extend(judge::unexamined(record.examined.len()));
    }
    Ok(())
}

/// None of the tests of a pair that cannot be opened has a verdict.
fn unopened(planned: &PlannedPair, error: &OpenError, record: &mut PairRecord) {
    let reason = error.to_string();
    if let OpenError::Model(error) = error {
        record.diagnosis = diagnose::of_error(error);
        let tensors = error.tensor.as_deref().into_iter().chain(error.other.as_deref());
        record.error_tensors = tensors.map(str::to_owned).collect();
    }
    record.tests = planned
        .tests_here()
        .map(|test| match &test.ignored {
            Some(why) => judge::ignored(test, why),
            None => judge::error(test, &reason, record.diagnosis.clone()),
        })
        .collect();
    record.error = Some(reason);
}

/// What the spec alone says about a pair.
pub(super) fn empty_record(planned: &PlannedPair) -> PairRecord {
    PairRecord {
        id: planned.id.clone(),
        name: planned.pair.name.clone(),
        description: planned.pair.description.clone(),
        tags: planned.pair.tags.clone(),
        source: Source::from(&planned.pair.at),
        reference: None,
        quantized: None,
        seconds: 0.0,
        roundtrip: match &planned.pair.quantized {
            Quantized::Roundtrip { ty, .. } => Some(ty.name().to_owned()),
            Quantized::File(_) | Quantized::Alone => None,
        },
        alone: planned.pair.is_alone(),
        error: None,
        error_tensors: Vec::new(),
        diagnosis: None,
        global: None,
        findings: Vec::new(),
        tensors: Vec::new(),
        tests: Vec::new(),
        baseline: BaselineRecord::default(),
        sample: None,
        falsified: None,
        notes: Vec::new(),
        examined: Vec::new(),
    }
}

/// The paths of both models as the spec writes them.
fn written(pair: &Pair) -> (&str, &str) {
    let reference = pair.reference.written.as_str();
    match &pair.quantized {
        Quantized::File(path) => (reference, &path.written),
        Quantized::Roundtrip { .. } | Quantized::Alone => (reference, reference),
    }
}

/// Why a pair cannot be judged.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Spec(#[from] SpecErrors),
    #[error("{path}: {difference}")]
    Changed { path: String, difference: String },
}

/// A pair, ready to be measured.
pub(super) struct Opened {
    pub reference: Model,
    pub quantized: Model,
    printed: Option<PrintedStats>,
    /// What was to be done to the models and could not be, by check name.
    undone: Vec<(&'static str, String)>,
    /// Scales that were folded out of some weights behind a norm, and not out of all: what is to be said of
    /// each tensor that they concern.
    pub broken_folds: HashMap<String, String>,
    /// Globs that all pairs of the spec share and that match nothing in any of them.
    unmatched_shared: Vec<Diagnostic>,
    notes: Vec<String>,
    /// Elements of all tensors of the reference.
    elements: u64,
    /// What the reference's tensors are made of, by name, where they are made of others.
    recipes: BTreeMap<String, Recipe>,
}

fn open<'a>(
    planned: &PlannedPair<'a>,
    references: &mut References<'a>,
) -> Result<(Opened, Resolver<'a>), OpenError> {
    let resolver = planned.spec.resolver(planned.pair)?;
    let Loaded { mapped, quantized, difference } = load(planned, references)?;
    if let Some(difference) = difference {
        let path = planned.pair.reference.written.clone();
        return Err(OpenError::Changed { path, difference });
    }
    let mut opened = prepare(mapped.reference, quantized, &resolver);
    for name in mapped.recipes.keys() {
        if let Some(transform) = resolver.tensor(name).transform() {
            let problem =
                "the map of the pair does what the converter did; leave out the transform at";
            opened.undone.push((
                "transform",
                format!("{name}: {problem} {}, or say map = \"none\"", transform.at),
            ));
        }
    }
    opened.notes.extend(mapped.notes);
    opened.recipes = mapped.recipes;
    if let (Quantized::Roundtrip { ty, .. }, Some(file)) =
        (&planned.pair.quantized, &planned.pair.quantize_stats)
    {
        opened.printed = Some(printed_stats::read(&file.path, *ty)?);
    }
    Ok((opened, resolver))
}

/// A pair's models.
pub(super) struct Loaded {
    /// The reference, as a converter would have written it where the pair has a map.
    pub mapped: Mapped,
    /// The quantized model, as it is stored.
    pub quantized: Model,
    /// How the reference differs from what it was when the tests were listed.
    difference: Option<String>,
}

/// The reference that was opened last, while the next pair has the same one.
#[derive(Default)]
pub(super) struct References<'a> {
    opened: Option<(PathBuf, Model)>,
    /// The next pair's reference.
    next: Option<&'a Path>,
}

impl References<'_> {
    pub(super) fn open(&mut self, path: &Path) -> Result<Model, ModelError> {
        let model = match self.opened.take().filter(|(of, _)| of == path) {
            Some((_, model)) => model,
            None => model::open(path)?,
        };
        if self.next == Some(path) {
            self.opened = Some((path.to_owned(), model.clone()));
        }
        Ok(model)
    }
}

/// Opens the models of a pair.
pub(super) fn load(
    planned: &PlannedPair,
    references: &mut References,
) -> Result<Loaded, ModelError> {
    let pair = planned.pair;
    let reference = references.open(&pair.reference.path)?;
    let difference = planned.difference(&reference);
    let mut quantized = match &pair.quantized {
        Quantized::File(path) => model::open(&path.path)?,
        // It is compared with nothing.
        Quantized::Alone => reference.clone(),
        Quantized::Roundtrip { ty, imatrix, .. } => {
            let imatrix = imatrix.as_ref().map(|it| model::imatrix::read(&it.path)).transpose()?;
            let mut model = model::open(&pair.reference.path)?;
            measure::round_trip(&mut model, *ty, imatrix.as_ref());
            let mapped = Mapped::unmapped(reference);
            return Ok(Loaded { mapped, quantized: model, difference });
        }
    };
    let compared = counterpart::compare(&reference, &quantized);
    let mut mapped = counterpart::pair_up(reference, &mut quantized, &Choice::of(pair))?;
    if let Some(Compared { findings, notes }) = compared {
        quantized.configuration.get_or_insert_default().extend(findings);
        mapped.notes.extend(notes);
    }
    Ok(Loaded { mapped, quantized, difference })
}

/// Makes the tensors of two models answer to each other.
pub(super) fn prepare(mut reference: Model, mut quantized: Model, resolver: &Resolver) -> Opened {
    let mut notes = model::scheme::align(&reference, &mut quantized);
    let problems = measure::transform(&mut reference, &mut quantized, resolver);
    let undone: Vec<_> = problems.into_iter().map(|problem| ("transform", problem)).collect();
    let mut broken_folds = HashMap::new();
    // What cannot be read is told of where it is measured.
    if let Ok((mut unfolded, broken)) = folds::unfold(&mut reference, &mut quantized, resolver) {
        notes.append(&mut unfolded);
        broken_folds = broken;
    }
    let (printed, unmatched_shared) = (None, Vec::new());
    let recipes = BTreeMap::new();
    let elements = measure::twin::elements_of(&reference);
    Opened {
        reference,
        quantized,
        printed,
        undone,
        broken_folds,
        unmatched_shared,
        notes,
        elements,
        recipes,
    }
}

/// Which of the pair's globs match something.
pub(super) fn usage(resolver: &Resolver, reference: &Model, quantized: &Model) -> Usage {
    fn names(model: &Model) -> impl Iterator<Item = &str> {
        model.tensors.iter().map(|tensor| tensor.name.as_str())
    }
    let planes = quantized.tensors.iter().flat_map(|tensor| match &tensor.storage {
        Storage::Joined(weight) => weight.planes(),
        _ => &[],
    });
    let loose = quantized.loose.iter().map(|tensor| tensor.name.as_str());
    let planes = planes.map(|plane| plane.name.as_str()).chain(loose);
    let keys = reference.metadata.iter().chain(&quantized.metadata);
    resolver.usage(names(reference), names(quantized), planes, keys.map(|(key, _)| key.as_str()))
}

/// Which tensors of a pair are compared, and which of them here.
pub(super) struct Pass {
    pub pairing: Pairing,
    /// The tensors whose values are read here.
    pub matched: Vec<Matched>,
    /// Whether the values of failing tensors are searched for a cause.
    pub seek_causes: bool,
}

impl Pass {
    /// Matches the tensors that the tests need.
    pub(super) fn of(planned: &PlannedPair, resolver: &Resolver, opened: &Opened) -> Self {
        let Opened { reference, quantized, .. } = opened;
        let policy = Policy {
            allow_missing: &|name| resolver.allows_missing(name),
            allow_extra: &|name| resolver.allows_extra(name),
            rename: &|name| resolver.rename(name),
        };
        let mut pairing = measure::pair_up(reference, quantized, &policy);
        let wanted = Wanted::of(planned);
        let name = |it: &Matched| &reference.tensors[it.reference].name;
        pairing.matched.retain(|it| wanted.compares(name(it), resolver));
        let reads = |it: &&Matched| wanted.reads(name(it));
        let matched = pairing.matched.iter().filter(reads).copied().collect();
        Self { pairing, matched, seek_causes: true }
    }
}

/// What was found out about tensors, in their order.
#[derive(Default)]
pub(super) struct Results {
    pub measured: Vec<Measured>,
    pub twins: Vec<Expectation>,
}

impl Results {
    /// These results as what a pair is judged by.
    pub(super) fn source<'s>(
        &'s self,
    ) -> impl FnMut(Range<usize>) -> (Cow<'s, [Measured]>, Cow<'s, [Expectation]>) {
        |part| (Cow::from(&self.measured[part.clone()]), Cow::from(&self.twins[part]))
    }
}

impl Opened {
    /// Where a batch ends. Gates look at values a second time: of a model that is far away, while they are still
    /// here.
    fn batch_end(&self, matched: &[Matched], start: usize) -> usize {
        let most = (start + BATCH).min(matched.len());
        if !self.reference.is_remote() && !self.quantized.is_remote() {
            return most;
        }
        let mut bytes = 0u64;
        let fits = |at: &usize| {
            let one = &matched[*at..=*at];
            bytes = bytes.saturating_add(measure::bytes_of(&self.reference, &self.quantized, one));
            bytes <= NEAR
        };
        (start..most).take_while(fits).last().map_or(start + 1, |last| last + 1)
    }

    /// Measures matched tensors, and what is to be expected of them.
    pub(super) fn measure(
        &self,
        matched: &[Matched],
        threads: usize,
        progress: &Progress,
    ) -> Results {
        let (reference, quantized) = (&self.reference, &self.quantized);
        let mut measured = measure::measure(reference, quantized, matched, threads, progress);
        let of = &mut measured;
        let twins = measure::twin::twins(reference, quantized, matched, of, self.elements, threads);
        Results { measured, twins }
    }
}

/// Gives what was found out about a part of the tensors that are read here.
pub(super) type Known<'s> =
    dyn FnMut(Range<usize>) -> (Cow<'s, [Measured]>, Cow<'s, [Expectation]>) + 's;

/// A pair whose tests are judged.
pub(super) struct Judging<'a> {
    pub planned: &'a PlannedPair<'a>,
    pub resolver: &'a Resolver<'a>,
    pub opened: &'a Opened,
    pub pass: &'a Pass,
    pub threads: usize,
    /// Whether checks that hold are counted and dropped.
    pub settle: bool,
}

impl Judging<'_> {
    /// Judges every test of a pair that is run here, and records what it found.
    pub(super) fn judge(
        &self,
        source: &mut Known<'_>,
        baselines: Option<&Baselines>,
        record: &mut PairRecord,
    ) {
        let Self { planned, resolver, opened, pass, .. } = *self;
        record.findings = pass.pairing.findings.iter().map(finding_record).collect();
        record.findings.extend(plane_findings(&opened.quantized, resolver));
        let examined = RefCell::default();
        let tensors = self.tensors(source, &examined, record);
        if !planned.is_split() {
            record.global = global_row(&record.tensors);
        }
        let mut tests = self.others(tensors, &examined, record);
        record.examined = examined.into_inner();
        if let Some(test) = baseline_to_judge(planned).filter(|_| !planned.is_split()) {
            let outcome = baseline_test(planned, test, baselines, record, &mut tests);
            tests.push(outcome);
        }
        record.tests = tests;
        sort_rows(&mut record.tensors);
    }

    /// Judges the tests of the tensors that are read here, each at its place in the plan, and records their
    /// rows.
    fn tensors(
        &self,
        source: &mut Known<'_>,
        examined: &RefCell<Vec<Examined>>,
        record: &mut PairRecord,
    ) -> Vec<Option<TestRecord>> {
        let Self { planned, opened, pass, .. } = *self;
        let judged = |test: &PlannedTest| test.here && test.ignored.is_none();
        let tests = planned.tests.iter().enumerate();
        let tests = tests.filter(|(_, it)| it.kind == TestKind::Tensor && judged(it));
        let test_of: HashMap<&str, usize> = tests.map(|(at, test)| (&*test.part, at)).collect();
        let mut records = vec![None; planned.tests.len()];
        let mut start = 0;
        while start < pass.matched.len() {
            let part = start..opened.batch_end(&pass.matched, start);
            start = part.end;
            let (measured, twins) = source(part.clone());
            let matched = &pass.matched[part];
            let mut rows = rows(opened, matched, &measured, &twins);
            let row_of = rows.iter().enumerate().map(|(at, row)| (row.tensor.as_str(), at));
            let row_of: HashMap<&str, usize> = row_of.collect();
            let mut due: Vec<usize> =
                row_of.keys().filter_map(|name| test_of.get(name).copied()).collect();
            due.sort_unstable();
            let (r, q) = (&opened.reference, &opened.quantized);
            let experts = Experts::of(r, q, matched, opened.elements, self.threads);
            let facts = self.facts(matched, &rows, &row_of, examined);
            let experts = Some(&experts);
            let facts = judge::Facts { measured: &measured, twins: &twins, experts, ..facts };
            for at in due {
                records[at] = Some(self.settled(facts.tensor(&planned.tests[at])));
            }
            record.tensors.append(&mut rows);
        }
        records
    }

    /// Judges all tests but the one against the snapshot, which comes last, in the order of the plan;
    /// those of `tensors` are judged already.
    fn others(
        &self,
        tensors: Vec<Option<TestRecord>>,
        examined: &RefCell<Vec<Examined>>,
        record: &PairRecord,
    ) -> Vec<TestRecord> {
        let Self { planned, resolver, opened, pass, .. } = *self;
        let usage = usage(resolver, &opened.reference, &opened.quantized);
        let mut unmatched = resolver.unmatched(&usage);
        unmatched.extend_from_slice(&opened.unmatched_shared);
        let none = HashMap::new();
        let facts = self.facts(&pass.matched, &record.tensors, &none, examined);
        let facts = judge::Facts { unmatched: &unmatched, ..facts };
        let split = planned.is_split();
        let judge = |test: &PlannedTest| match (&test.ignored, test.kind) {
            _ if !test.here => None,
            (Some(why), _) => Some(judge::ignored(test, why)),
            (None, TestKind::Tensor) => Some(self.settled(facts.tensor(test))),
            (None, TestKind::Structure) => Some(facts.structure(test)),
            (None, TestKind::Global | TestKind::Baseline) if split => {
                Some(judge::ignored(test, JUDGED_BY_MERGE))
            }
            (None, TestKind::Global) => {
                Some(judge::global(resolver, &record.tensors, record.global.as_ref(), test))
            }
            (None, TestKind::Baseline) => None,
        };
        let tests = tensors.into_iter().enumerate();
        tests.filter_map(|(at, judged)| judged.or_else(|| judge(&planned.tests[at]))).collect()
    }

    fn facts<'f>(
        &'f self,
        matched: &'f [Matched],
        rows: &'f [TensorRow],
        row_of: &'f HashMap<&'f str, usize>,
        examined: &'f RefCell<Vec<Examined>>,
    ) -> judge::Facts<'f> {
        judge::Facts {
            resolver: self.resolver,
            unmatched: &[],
            reference: &self.opened.reference,
            quantized: &self.opened.quantized,
            pairing: &self.pass.pairing,
            matched,
            measured: &[],
            twins: &[],
            experts: None,
            broken_folds: &self.opened.broken_folds,
            undone: &self.opened.undone,
            printed: self.opened.printed.as_ref(),
            rows,
            row_of,
            seek_causes: self.pass.seek_causes,
            split: self.planned.is_split(),
            examined,
        }
    }

    fn settled(&self, mut test: TestRecord) -> TestRecord {
        if self.settle {
            test.settle();
        } else {
            test.trim();
        }
        test
    }
}

/// The test against the snapshot, if it is to be judged.
pub(super) fn baseline_to_judge<'p>(planned: &'p PlannedPair) -> Option<&'p PlannedTest> {
    let judged = |test: &&PlannedTest| test.kind == TestKind::Baseline && test.ignored.is_none();
    planned.tests.iter().find(judged)
}

/// Which tensors the selected tests of a pair need.
struct Wanted<'a> {
    /// Tensors with a test of their own that is not ignored: is it run here?
    own: HashMap<&'a str, bool>,
    /// A test of the whole pair is run here, which needs the tensors without a test, too.
    whole_here: bool,
}

impl<'a> Wanted<'a> {
    fn of(planned: &'a PlannedPair) -> Self {
        let tests = || planned.tests.iter().filter(|test| test.ignored.is_none());
        let is_whole = |kind| kind != TestKind::Tensor;
        Self {
            own: tests()
                .filter(|test| test.kind == TestKind::Tensor)
                .map(|test| (&*test.part, test.here))
                .collect(),
            whole_here: tests().any(|test| test.here && is_whole(test.kind)),
        }
    }

    /// Is this tensor compared at all, in whatever shard?
    fn compares(&self, name: &str, resolver: &Resolver) -> bool {
        self.own.contains_key(name) || resolver.tensor(name).skip().is_none()
    }

    /// Are the values of this compared tensor read here?
    fn reads(&self, name: &str) -> bool {
        self.own.get(name).copied().unwrap_or(self.whole_here)
    }
}

fn rows(
    opened: &Opened,
    matched: &[Matched],
    measured: &[Measured],
    twins: &[Expectation],
) -> Vec<TensorRow> {
    let row = |(matched, (measured, twin)): (&Matched, (&Measured, &Expectation))| {
        let reference = &opened.reference.tensors[matched.reference];
        let quantized = &opened.quantized.tensors[matched.quantized];
        let made_of = opened.recipes.get(&reference.name).map(Recipe::json);
        let row = tensor_row(reference, quantized, measured, twin.as_ref().ok());
        TensorRow { made_of, ..row }
    };
    matched.iter().zip(measured.iter().zip(twins)).map(row).collect()
}

/// Compares the pair with its snapshot, and marks the tensors' checks with how they moved.
fn baseline_test(
    planned: &PlannedPair,
    test: &PlannedTest,
    baselines: Option<&Baselines>,
    record: &mut PairRecord,
    tests: &mut [TestRecord],
) -> TestRecord {
    match baselines {
        Some(baselines) => baseline::judge(baselines, planned, test, record, tests),
        None => judge::ignored(test, "--no-baseline"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::spec::{self, LoadOptions};
    use crate::suite::plan::{self, Choice};
    use crate::suite::record::Verdict;

    /// Breaks down when the first pair is measured.
    struct Broken(RefCell<u32>);

    impl Listener for Broken {
        fn progress(&self) -> Arc<Progress> {
            *self.0.borrow_mut() += 1;
            assert!(*self.0.borrow() > 1, "a mistake of the program");
            Arc::default()
        }
    }

    #[test]
    fn a_pair_that_breaks_the_program_leaves_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, ty, width) in [("r", "F32", 4), ("q", "BF16", 2)] {
            let header = format!(
                r#"{{"a":{{"dtype":"{ty}","shape":[2,64],"data_offsets":[0,{}]}}}}"#,
                128 * width
            );
            // One and two, alternately, in either type.
            let value = |i: usize| if i.is_multiple_of(2) { 1f32 } else { 2.0 };
            let data = (0..128).flat_map(|i| value(i).to_le_bytes()[4 - width..].to_vec());
            let bytes: Vec<u8> = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()]
                .concat()
                .into_iter()
                .chain(data)
                .collect();
            fs::write(path(&format!("{name}.safetensors")), bytes).unwrap();
        }
        let pair = |name: &str| {
            format!(
                "[[pair]]\nname = \"{name}\"\nreference = \"r.safetensors\"\n\
                 quantized = \"q.safetensors\"\n"
            )
        };
        let text = format!("schema = 1\n{}{}", pair("one"), pair("two"));
        let options = LoadOptions::default();
        let spec = spec::parse(text.as_bytes(), &path("s.toml"), Path::new(""), &options);
        let specs = [spec.unwrap_or_else(|errors| panic!("{}", errors.render(false)))];
        let choice = Choice::of_tensors();
        let plan = plan::plan(&specs, &choice).unwrap();
        let contract = run(&plan, &Options::of(1), None, &mut Broken(RefCell::new(0)));
        assert_eq!(contract.exit_code, Exit::Internal.code(), "it is no verdict");
        assert_eq!(contract.verdict, Verdict::Error);
        let [first, second] = contract.specs[0].pairs.as_slice() else { panic!("two pairs") };
        let says = |text: &str| first.error.as_ref().is_some_and(|error| error.contains(text));
        assert!(says("one") && says("a mistake of the program"), "{:?}", first.error);
        assert!(first.tests.iter().all(|test| test.outcome == TestOutcome::Error));
        assert!(second.error.is_none(), "{:?}", second.error);
        assert!(second.tests.iter().all(|test| test.outcome == TestOutcome::Passed));
    }
}

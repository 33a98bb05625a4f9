/*!
Proof that a suite can fail: faults are put into its pairs, in memory, and its own gates judge the
mutants as a run would.

A pair must pass as it is before anything is injected. Each mutant then differs from the pair in one
fault; only the tensors that the fault reaches, or that are decoded in another way for it, are measured again. A mutant that no gate fails has
survived. One whose fault changes no value at all proves nothing and is counted apart.
*/

mod differs;
pub mod record;
mod victims;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;

use self::differs::differs;
use self::record::{
    Counts, Falsification, FalsifiedPair, GateCounts, MutantOutcome, MutantRecord, SCHEMA,
};
use self::victims::{Victim, victims};
use super::baseline::Baselines;
use super::exit::Exit;
use super::plan::{Plan, PlannedPair};
use super::record::{
    BaselineStatus, CheckOutcome, Contract, Harness, Level, PairRecord, Source, TestKind,
    TestOutcome, TestRecord,
};
use super::rows::model_record;
use super::run::{
    Judging, Listener, Opened, Pass, References, Results, empty_record, load, prepare,
};
use crate::fault::{
    ATTEMPTS, FAULTS, Fault, FaultInfo, Injected, Models, Reach, Scope, Site, inject,
};
use crate::measure::twin::Expectation;
use crate::measure::{self, Matched, Measured, Progress};
use crate::model::{Model, ReadError, Storage};
use crate::spec::{Diagnostic, Quantized, Resolver};

/// How to falsify.
#[derive(Debug)]
pub struct Options {
    /// Threads.
    pub threads: usize,
    /// The baselines, unless they are left alone; nothing is written there.
    pub baselines: Option<Baselines>,
}

/// Falsifies the pairs of a plan, whose tests are filled in; `listener` hears of each whose turn has come and of
/// what is read, `done` of each as it is finished. Also returns warnings for allowances that nothing needs.
pub fn falsify(
    plan: &Plan,
    options: &Options,
    listener: &mut dyn Listener,
    done: &mut dyn FnMut(&FalsifiedPair),
) -> (Falsification, Vec<Diagnostic>) {
    let mut counts = Counts::default();
    let mut pairs = Vec::with_capacity(plan.pairs.len());
    let mut allowances = Allowances::default();
    let mut input_error = false;
    for planned in &plan.pairs {
        listener.pair(planned);
        let progress = listener.progress();
        let falsified = falsify_pair(planned, options, &mut allowances, &progress);
        let (pair, unreadable) = match falsified {
            Ok(pair) => (pair, false),
            Err(reason) => (unsound(planned, reason), true),
        };
        input_error |= unreadable;
        done(&pair);
        counts.add(&pair.counts);
        pairs.push(pair);
    }
    let bad = |pair: &FalsifiedPair| {
        let counts = pair.counts;
        pair.unsound.is_some() || counts.survived > 0 || counts.killed + counts.allowed == 0
    };
    let exit = match (pairs.is_empty(), input_error, pairs.iter().any(bad)) {
        (true, _, _) => Exit::NoTests,
        (_, true, _) => Exit::InputError,
        (_, _, true) => Exit::TestFailed,
        _ => Exit::Ok,
    };
    let harness = Harness {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let exit_code = exit.code();
    let falsification = Falsification { schema: SCHEMA, harness, exit_code, counts, pairs };
    (falsification, allowances.unneeded(plan))
}

/// Puts what was found into the record of a run over the same specs and models, as evidence.
pub fn attach(contract: &mut Contract, found: &Falsification) {
    for spec in &mut contract.specs {
        let falsified: Vec<_> = spec.pairs.iter().map(|pair| found.of(spec, pair)).collect();
        for (pair, falsified) in spec.pairs.iter_mut().zip(falsified) {
            pair.falsified = falsified;
        }
    }
    let pairs: Vec<&PairRecord> = contract.specs.iter().flat_map(|spec| &spec.pairs).collect();
    contract.obligations = super::obligations::judge(&pairs);
}

/// Which allowances of the specs a survivor needed, by spec and place.
#[derive(Default)]
struct Allowances(BTreeMap<(String, u32), bool>);

impl Allowances {
    fn note(&mut self, planned: &PlannedPair, used: &[usize]) {
        for (index, survivor) in planned.pair.allow_survivor.iter().enumerate() {
            let key = (planned.spec.name.clone(), survivor.at.start);
            *self.0.entry(key).or_default() |= used.contains(&index);
        }
    }

    /// Warnings for those that no survivor needed, if all pairs that have them were falsified.
    fn unneeded(&self, plan: &Plan) -> Vec<Diagnostic> {
        let mut warnings = BTreeMap::new();
        for planned in &plan.pairs {
            for survivor in &planned.pair.allow_survivor {
                let has = |pair: &crate::spec::Pair| {
                    pair.allow_survivor.iter().any(|it| it.at.start == survivor.at.start)
                };
                let falsified = |pair: &crate::spec::Pair| {
                    plan.pairs.iter().any(|it| std::ptr::eq(it.pair, pair))
                };
                let all = planned.spec.pairs.iter().filter(|pair| has(pair)).all(falsified);
                let key = (planned.spec.name.clone(), survivor.at.start);
                if all && self.0.get(&key) == Some(&false) {
                    let message = "the allowance is not needed: no such fault survives";
                    let warning =
                        Diagnostic::warning(&planned.spec.source, survivor.at.clone(), message);
                    warnings.insert(key, warning.help("remove it"));
                }
            }
        }
        warnings.into_values().collect()
    }
}

/// A pair into which nothing was injected.
fn unsound(planned: &PlannedPair, reason: String) -> FalsifiedPair {
    FalsifiedPair {
        id: planned.id.clone(),
        source: Source::from(&planned.pair.at),
        spec_sha256: planned.spec.sha256.clone(),
        with_baseline: false,
        reference: Vec::new(),
        quantized: Vec::new(),
        unsound: Some(reason),
        counts: Counts::default(),
        gates: BTreeMap::new(),
        mutants: Vec::new(),
        not_applicable: Vec::new(),
    }
}

/// Falsifies one pair; fails if it cannot be judged at all.
fn falsify_pair(
    planned: &PlannedPair,
    options: &Options,
    allowances: &mut Allowances,
    progress: &Progress,
) -> Result<FalsifiedPair, String> {
    let resolver = planned.spec.resolver(planned.pair).map_err(|error| error.to_string())?;
    let loaded = load(planned, &mut References::default()).map_err(|error| error.to_string())?;
    let (reference, quantized) = (loaded.mapped.reference, loaded.quantized);
    let mut result = unsound(planned, String::new());
    result.reference = model_record(&reference, "").files;
    result.quantized = model_record(&quantized, "").files;

    let mut sound = empty_record(planned);
    let opened = prepare(reference.clone(), quantized.clone(), &resolver);
    let pass = Pass::of(planned, &resolver, &opened);
    let victims = victims(&reference, &quantized, &resolver);
    let jobs = jobs(&victims);
    let all = measure::bytes_of(&opened.reference, &opened.quantized, &pass.matched);
    let bytes = |(_, victim): &Job| match victim {
        None => all,
        Some(victim) => {
            let answer = victim.answer.map_or(0, |at| reference.tensors[at].stored_bytes());
            answer.saturating_add(quantized.tensors[victim.target].stored_bytes())
        }
    };
    let bytes: Vec<u64> = jobs.iter().map(bytes).collect();
    progress.expect(std::iter::once(all).chain(bytes.iter().copied()));
    let results = opened.measure(&pass.matched, options.threads, progress);
    let mut planned = judged(planned, |_| true);
    let baselines = options.baselines.as_ref();
    let threads = options.threads;
    let settle = false;
    Judging {
        planned: &planned,
        resolver: &resolver,
        opened: &opened,
        pass: &pass,
        threads,
        settle,
    }
    .judge(&mut results.source(), baselines, &mut sound);
    if sound.baseline.status == BaselineStatus::New {
        // There is nothing yet that a mutant could differ from.
        planned.tests.retain(|test| test.kind != TestKind::Baseline);
        sound.tests.retain(|test| test.kind != TestKind::Baseline);
    }
    let has = |kind| planned.tests.iter().any(|test| test.kind == kind);
    result.with_baseline = options.baselines.is_some() && has(TestKind::Baseline);
    if let Some(test) = sound.tests.iter().find(|test| is_bad(test)) {
        let reason = test.reason.as_deref().unwrap_or("it fails");
        result.unsound = Some(format!("{}: {reason}", test.id));
        let errors = sound.tests.iter().find(|test| test.outcome == TestOutcome::Error);
        return errors.map_or(Ok(result), |test| {
            Err(format!("{}: {}", test.id, test.reason.as_deref().unwrap_or("unreadable")))
        });
    }
    result.unsound = None;

    let lab = Lab {
        known: known(&opened, &pass.matched, results),
        baselines: options.baselines.as_ref(),
        in_memory: matches!(planned.pair.quantized, Quantized::Roundtrip { .. }),
        sound: decoded(&opened, &pass.matched),
        planned,
        resolver,
        reference,
        quantized,
    };
    let done = |job: usize| {
        progress.bytes.fetch_add(bytes[job], Ordering::Relaxed);
    };
    let (mutants, used) = lab.mutants(&jobs, options.threads, &done);
    allowances.note(&lab.planned, &used);
    result.not_applicable = FAULTS
        .iter()
        .filter(|row| !mutants.iter().any(|mutant| mutant.fault == row.name))
        .map(|row| row.name.to_owned())
        .collect();
    for mutant in &mutants {
        result.counts.count(mutant);
        for gate in &mutant.gates {
            let counts: &mut GateCounts = result.gates.entry(gate.clone()).or_default();
            counts.killed += 1;
            counts.alone += u64::from(mutant.gates.len() == 1);
        }
    }
    result.mutants = mutants;
    Ok(result)
}

/// A fault, and the tensor that it is put into, unless it is one of the whole model.
type Job<'v> = (Fault, Option<&'v Victim>);

/// Every fault, put into every tensor that it is for.
fn jobs(victims: &[Victim]) -> Vec<Job<'_>> {
    let of_fault = |row: &FaultInfo| match row.scope {
        Scope::Model => vec![(row.fault, None)],
        Scope::Tensor => victims.iter().map(|it| (row.fault, Some(it))).collect(),
    };
    FAULTS.iter().flat_map(of_fault).collect()
}

/// A plan of the same pair with only some of its tests.
fn judged<'a>(planned: &PlannedPair<'a>, keep: impl Fn(&str) -> bool) -> PlannedPair<'a> {
    let wanted =
        planned.tests.iter().filter(|test| test.kind != TestKind::Tensor || keep(&test.part));
    PlannedPair {
        spec: planned.spec,
        pair: planned.pair,
        id: planned.id.clone(),
        granularity: planned.granularity,
        ignored: None,
        shard: planned.shard,
        here: planned.here,
        listing: None,
        tests: wanted.cloned().collect(),
    }
}

/// What is known of tensors from an earlier pass, by reference name.
type Known = HashMap<String, (Measured, Expectation)>;

fn known(opened: &Opened, matched: &[Matched], results: Results) -> Known {
    let names = matched.iter().map(|it| opened.reference.tensors[it.reference].name.clone());
    names.zip(results.measured.into_iter().zip(results.twins)).collect()
}

/// How both sides of a tensor are decoded, and the fold that does not cancel there.
struct Decoded {
    reference: Storage,
    quantized: Storage,
    broken_fold: Option<String>,
}

impl Decoded {
    fn of(opened: &Opened, matched: &Matched) -> Self {
        let reference = &opened.reference.tensors[matched.reference];
        Self {
            reference: reference.storage.clone(),
            quantized: opened.quantized.tensors[matched.quantized].storage.clone(),
            broken_fold: opened.broken_folds.get(&reference.name).cloned(),
        }
    }

    /// The same bytes of the same files, decoded in the same way. What the bytes are is another matter.
    fn is(&self, other: &Self) -> bool {
        self.reference.is(&other.reference)
            && self.quantized.is(&other.quantized)
            && self.broken_fold == other.broken_fold
    }
}

/// How tensors are decoded, by reference name.
fn decoded(opened: &Opened, matched: &[Matched]) -> HashMap<String, Decoded> {
    let name = |it: &Matched| opened.reference.tensors[it.reference].name.clone();
    matched.iter().map(|it| (name(it), Decoded::of(opened, it))).collect()
}

/// Measures what is not known.
fn measure(opened: &Opened, matched: &[Matched], known: &Known) -> Results {
    let find = |it: &Matched| known.get(&opened.reference.tensors[it.reference].name);
    let due: Vec<Matched> = matched.iter().filter(|it| find(it).is_none()).copied().collect();
    let Results { measured, twins } = opened.measure(&due, 1, &Progress::default());
    let mut fresh = measured.into_iter().zip(twins);
    let results = matched.iter().map(|it| find(it).cloned().or_else(|| fresh.next()));
    let (measured, twins) = results.flatten().unzip();
    Results { measured, twins }
}

fn is_bad(test: &TestRecord) -> bool {
    matches!(test.outcome, TestOutcome::Failed | TestOutcome::Error)
}

/// A sound pair, and what is needed to judge its mutants.
struct Lab<'a> {
    planned: PlannedPair<'a>,
    resolver: Resolver<'a>,
    /// Both models as they are stored.
    reference: Model,
    quantized: Model,
    known: Known,
    sound: HashMap<String, Decoded>,
    baselines: Option<&'a Baselines>,
    in_memory: bool,
}

impl Lab<'_> {
    /// Makes and judges all mutants, over all threads; also returns the allowances that were used. `done` hears
    /// of each, by its index.
    fn mutants(
        &self,
        jobs: &[Job],
        threads: usize,
        done: &(dyn Fn(usize) + Sync),
    ) -> (Vec<MutantRecord>, Vec<usize>) {
        let results = measure::in_parallel(
            jobs.len(),
            threads,
            || (),
            |index, ()| {
                let (fault, victim) = jobs[index];
                let result = self.mutant(fault, victim);
                done(index);
                result
            },
        );
        let (mutants, used): (Vec<_>, Vec<_>) = results.into_iter().flatten().unzip();
        (mutants, used.into_iter().flatten().collect())
    }

    /// Makes and judges one mutant; none if the fault cannot be put there. Also the index of the
    /// allowance that it needed.
    fn mutant(
        &self,
        fault: Fault,
        victim: Option<&Victim>,
    ) -> Option<(MutantRecord, Option<usize>)> {
        let mut mutant = MutantRecord {
            fault: fault.name().to_owned(),
            tensor: victim.map(|victim| victim.name.clone()),
            qtype: victim.map(|victim| victim.qtype.clone()),
            alike: victim.map_or(1, |victim| victim.alike),
            outcome: MutantOutcome::NoEffect,
            gates: Vec::new(),
            reason: None,
            allowed_at: None,
        };
        let (models, injected) = match self.effective(fault, victim) {
            Ok(Effect::NotApplicable) => return None,
            Ok(Effect::None) => return Some((mutant, None)),
            Ok(Effect::Mutant(models, injected)) => (models, injected),
            Err(error) => {
                // The sound tensor was readable, so that this is the mutant's own doing.
                mutant.outcome = MutantOutcome::Killed;
                mutant.gates.push("unreadable".to_owned());
                mutant.reason = Some(error.to_string());
                return Some((mutant, None));
            }
        };
        let tests = self.judge(*models, &injected.reach);
        let (gates, reason) = failed(&tests);
        (mutant.gates, mutant.reason) = (gates, reason);
        mutant.outcome = MutantOutcome::Killed;
        let mut used = None;
        if mutant.gates.is_empty() {
            mutant.outcome = MutantOutcome::Survived;
            used = self.resolver.survivor(fault, victim.map(|victim| victim.name.as_str()));
            if let Some(allowed) = used.and_then(|at| self.planned.pair.allow_survivor.get(at)) {
                mutant.outcome = MutantOutcome::Allowed;
                mutant.reason = Some(allowed.reason.clone());
                mutant.allowed_at = Some(Source::from(&allowed.at));
            }
        }
        Some((mutant, used))
    }

    /// Tries one place after the other, until the fault has an effect.
    fn effective(&self, fault: Fault, victim: Option<&Victim>) -> Result<Effect, ReadError> {
        let mut applicable = false;
        for attempt in 0..ATTEMPTS {
            let site = Site {
                target: victim.map_or(0, |victim| victim.target),
                answer: victim.and_then(|victim| victim.answer),
                in_memory: self.in_memory,
                attempt,
            };
            let mut models =
                Models { reference: self.reference.clone(), quantized: self.quantized.clone() };
            let Some(injected) = inject(fault, &mut models, &site)? else { break };
            applicable = true;
            let side = |model: &Model| model.tensors.get(site.target).cloned();
            if injected.evident
                || differs(
                    (side(&self.quantized), &self.quantized.files),
                    (side(&models.quantized), &models.quantized.files),
                )?
            {
                return Ok(Effect::Mutant(Box::new(models), injected));
            }
        }
        Ok(if applicable { Effect::None } else { Effect::NotApplicable })
    }

    /// Judges what the fault can have reached.
    fn judge(&self, models: Models, reach: &Reach) -> Vec<TestRecord> {
        let opened = prepare(models.reference, models.quantized, &self.resolver);
        let names = self.reached(&opened, reach);
        let reached = |name: &str| names.as_ref().is_none_or(|it| it.contains(name));
        let planned = judged(&self.planned, reached);
        let mut known = Known::new();
        if names.is_some() {
            let kept = self.known.iter().filter(|(name, _)| !reached(name));
            known.extend(kept.map(|(name, result)| (name.clone(), result.clone())));
        }
        let resolver = &self.resolver;
        // That a mutant is killed is all that is asked.
        let pass = Pass { seek_causes: false, ..Pass::of(&planned, resolver, &opened) };
        let results = measure(&opened, &pass.matched, &known);
        let mut record: PairRecord = empty_record(&planned);
        let (threads, settle) = (1, false);
        Judging { planned: &planned, resolver, opened: &opened, pass: &pass, threads, settle }
            .judge(&mut results.source(), self.baselines, &mut record);
        record.tests
    }

    /// The tensors, by reference name, that are not as they were in the sound pair: those that the fault may
    /// have changed, and those that are decoded in another way for it (a norm tells what was folded into the
    /// weights behind it). None if it may be any.
    fn reached(&self, opened: &Opened, reach: &Reach) -> Option<HashSet<String>> {
        let Reach::Tensors(names) = reach else { return None };
        let mut names: HashSet<String> =
            names.iter().map(|name| self.resolver.rename(name)).collect();
        // A tensor that is matched under yet another name may be a part of any.
        if !names.iter().all(|name| self.known.contains_key(name)) {
            return None;
        }
        let pass = Pass::of(&self.planned, &self.resolver, opened);
        for (name, now) in decoded(opened, &pass.matched) {
            if self.sound.get(&name).is_none_or(|before| !before.is(&now)) {
                names.insert(name);
            }
        }
        Some(names)
    }
}

/// What an injection came to.
enum Effect {
    /// The fault cannot be put there.
    NotApplicable,
    /// It changed nothing, wherever it was tried.
    None,
    /// A mutant that differs from the pair.
    Mutant(Box<Models>, Injected),
}

/// The gates that failed, each once, and what the first of them said.
fn failed(tests: &[TestRecord]) -> (Vec<String>, Option<String>) {
    let mut gates = Vec::new();
    for test in tests.iter().filter(|test| is_bad(test)) {
        if test.outcome == TestOutcome::Error {
            gates.push("unreadable".to_owned());
        }
        let violated = test
            .checks
            .iter()
            .filter(|check| check.outcome == CheckOutcome::Violated && check.level == Level::Fail);
        gates.extend(violated.map(|check| match test.kind {
            TestKind::Global => format!("global.{}", check.check),
            _ => check.check.clone(),
        }));
    }
    gates.sort();
    gates.dedup();
    // The baseline notices every change: what another gate has to say explains more.
    let by_kind = |baseline: bool| {
        let is_baseline = move |test: &&TestRecord| (test.kind == TestKind::Baseline) == baseline;
        tests.iter().filter(|test| is_bad(test)).find(is_baseline)
    };
    let first = by_kind(false).or_else(|| by_kind(true));
    (gates, first.and_then(|test| test.reason.clone()))
}

/*!
The shards of a run put together: the record that one process would have made of the whole suite.

Nothing is measured and no model is opened. What only the whole can say is judged here, in the order
that an unsharded run keeps: `(global)` from the sums of all tensors, folded in the order of their
names, and `(baseline)` against the snapshots of this checkout.
*/

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::baseline::{self, Baselines};
use super::blob::{Blob, PairPlan, PlanRecord, SpecText};
use super::id;
use super::judge;
use super::plan::{PlannedPair, PlannedTest};
use super::record::{
    BaselineRecord, Contract, Diagnosis, Examined, PairRecord, TestKind, TestOutcome, TestRecord,
    Time,
};
use super::rows::{global_row, sort_rows};
use super::run::{Listener, baseline_to_judge, broken, contract, empty_record, push};
use super::swapped;
use crate::internal;
use crate::spec::{self, Granularity, LoadOptions, Pair, Spec};

/// Missing shards that a message names.
const MOST_NAMED: usize = 20;

/// One shard's blob and the file that it was read from.
#[derive(Debug)]
pub struct Loaded {
    /// The file.
    pub path: PathBuf,
    /// What it holds, or why it cannot be used.
    pub blob: Result<Blob, String>,
}

impl Loaded {
    /// Reads a blob.
    pub fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), blob: Blob::read(path) }
    }
}

/// Why shards cannot be merged: one line a problem.
#[derive(Debug, PartialEq, Eq)]
pub struct MergeError(pub Vec<String>);

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the shards do not make a whole")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for MergeError {}

/// Shards that belong together, by index.
#[derive(Debug)]
pub struct Shards {
    by_index: BTreeMap<u64, Blob>,
    plan: PlanRecord,
}

/// Makes the record of the whole.
pub fn merge(
    shards: Shards,
    baselines: &Baselines,
    knows_qtype: fn(&str) -> bool,
    listener: &mut dyn Listener,
) -> Result<Contract, MergeError> {
    let specs = shards.specs(knows_qtype)?;
    let planned = shards.planned(&specs)?;
    let time = shards.time();
    let filtered_out = shards.plan.filtered_out;
    let warnings_fail = shards.plan.warnings_fail;
    let mut found = shards.records();
    let mut records = Vec::new();
    for planned in &planned {
        listener.pair(planned);
        let parts = found.remove(&planned.id).unwrap_or_default();
        let doing = format_args!("merging {}", planned.id);
        let mut pair = internal::guard(doing, || join(planned, parts, baselines))
            .unwrap_or_else(|error| broken(planned, &error));
        if warnings_fail {
            judge::fail_on_warnings(&mut pair.tests);
        }
        pair.tests.iter().for_each(|test| listener.test(test));
        listener.pair_done(&pair);
        push(&mut records, planned, pair);
    }
    Ok(contract(records, filtered_out, None, time, false))
}

/// Refuses what is broken, foreign, doubled or missing; with `allow_missing`, tests that no shard
/// reported become errors.
pub fn gather(loaded: Vec<Loaded>, allow_missing: bool) -> Result<Shards, MergeError> {
    let mut problems = Vec::new();
    let mut whole: Vec<(PathBuf, Blob)> = Vec::new();
    for Loaded { path, blob } in loaded {
        match blob {
            Ok(blob) => whole.push((path, blob)),
            Err(problem) => problems.push(format!("{} {problem}", path.display())),
        }
    }
    let Some((first_path, first)) = whole.first() else {
        problems.push("no shard was found (blob-M-of-N.json)".to_owned());
        return Err(MergeError(problems));
    };
    let (plan, total) = (first.plan.clone(), first.plan.total);
    for (path, blob) in &whole {
        if let Some(difference) = plan.difference(&blob.plan) {
            let (path, first) = (path.display(), first_path.display());
            problems.push(format!("{path} is of another run than {first}: {difference}"));
        }
    }
    if !problems.is_empty() {
        return Err(MergeError(problems));
    }
    let mut paths: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut by_index: BTreeMap<u64, Blob> = BTreeMap::new();
    for (path, blob) in whole {
        let index = blob.index;
        if index == 0 || index > total {
            problems.push(format!("{} is shard {index} of {total}", path.display()));
        } else if let Some(first) = paths.get(&index) {
            let (path, first) = (path.display(), first.display());
            problems.push(format!("shard {index}/{total} is there twice: {first} and {path}"));
        } else {
            paths.insert(index, path);
            by_index.insert(index, blob);
        }
    }
    let shards = Shards { by_index, plan };
    if !allow_missing {
        let missing = (1..=total).filter(|index| !shards.by_index.contains_key(index));
        let named = missing.take(MOST_NAMED);
        problems.extend(named.map(|index| format!("shard {index}/{total} is missing")));
        let more = (total - shards.by_index.len() as u64).saturating_sub(MOST_NAMED as u64);
        problems.extend((more > 0).then(|| format!("and {more} more are missing")));
    }
    problems.extend(shards.incomplete(&paths, allow_missing));
    if problems.is_empty() { Ok(shards) } else { Err(MergeError(problems)) }
}

impl Shards {
    /// How many tests there are, by what counts as one.
    pub fn count(&self) -> u64 {
        let count = |pair: &PairPlan| if pair.one_test { 1 } else { pair.tests.len() as u64 };
        self.plan.pairs.iter().map(count).sum()
    }

    /// Shards that did not report all the tests that they were dealt, or others.
    fn incomplete(&self, paths: &BTreeMap<u64, PathBuf>, allow_missing: bool) -> Vec<String> {
        let mut problems = Vec::new();
        for (index, blob) in &self.by_index {
            let path = paths.get(index).map(|path| path.display().to_string()).unwrap_or_default();
            let pairs = blob.contract.specs.iter().flat_map(|spec| &spec.pairs);
            let mut reported: HashMap<&str, u64> = HashMap::new();
            for test in pairs.flat_map(|pair| &pair.tests) {
                *reported.entry(test.id.as_str()).or_default() += 1;
            }
            let mut absent = 0u64;
            for id in self.plan.pairs.iter().flat_map(|pair| dealt(pair, *index)) {
                match reported.remove(id.as_str()) {
                    Some(1) => {}
                    Some(_) => problems.push(format!("{path} reports {id} twice")),
                    None => absent += 1,
                }
            }
            let mut foreign: Vec<&str> = reported.into_keys().collect();
            foreign.sort_unstable();
            if let Some(id) = foreign.first() {
                problems.push(format!("{path} reports {id}, which it was not dealt"));
            }
            if absent > 0 && !allow_missing {
                let total = self.plan.total;
                problems.push(format!(
                    "shard {index}/{total} ({path}) ended early: {absent} tests did not run"
                ));
            }
        }
        problems
    }

    /// The specs as the shards read them.
    fn specs(&self, knows_qtype: fn(&str) -> bool) -> Result<Vec<Spec>, MergeError> {
        // The places of the shard with the lowest number, as the reports of one process would have
        // those of one machine.
        let Some(first) = self.by_index.values().next() else { return Ok(Vec::new()) };
        let mut problems = Vec::new();
        let mut specs = Vec::new();
        for (text, place) in self.plan.specs.iter().zip(&first.places) {
            match parse(text, place, &self.plan, &first.today, knows_qtype) {
                Ok(spec) => specs.push(spec),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() && specs.len() == self.plan.specs.len() {
            Ok(specs)
        } else {
            Err(MergeError(problems))
        }
    }

    /// The plan over those specs.
    fn planned<'a>(&self, specs: &'a [Spec]) -> Result<Vec<PlannedPair<'a>>, MergeError> {
        let mut by_id: HashMap<String, (&Spec, &Pair)> = HashMap::new();
        for spec in specs {
            for pair in &spec.pairs {
                by_id.insert(format!("{}::{}", spec.name, pair.name), (spec, pair));
            }
        }
        let mut planned = Vec::new();
        for record in &self.plan.pairs {
            let Some((spec, pair)) = by_id.get(&record.id) else {
                return Err(MergeError(vec![format!("{} is in no spec", record.id)]));
            };
            planned.push(PlannedPair {
                spec,
                pair,
                id: record.id.clone(),
                granularity: if record.one_test { Granularity::Pair } else { Granularity::Tensor },
                ignored: None,
                shard: 1,
                here: true,
                listing: None,
                tests: record
                    .tests
                    .iter()
                    .map(|test| PlannedTest {
                        id: id::of(&record.id, test.kind, &test.part),
                        kind: test.kind,
                        part: test.part.clone().into(),
                        ignored: test.ignored.clone(),
                        bytes: 0,
                        shard: test.shard,
                        here: true,
                    })
                    .collect(),
            });
        }
        Ok(planned)
    }

    /// From the first shard's start; the seconds of all shards added up.
    fn time(&self) -> Option<Time> {
        let times = || self.by_index.values().filter_map(|blob| blob.contract.time.as_ref());
        let started = times().map(|time| &time.started).min()?.clone();
        Some(Time { started, seconds: times().map(|time| time.seconds).sum() })
    }

    /// The parts of each pair, by shard.
    fn records(self) -> HashMap<String, Parts> {
        let total = self.plan.total;
        let mut found: HashMap<String, Parts> = HashMap::new();
        for pair in &self.plan.pairs {
            found.insert(pair.id.clone(), Parts { total, ..Parts::default() });
        }
        for mut blob in self.by_index.into_values() {
            let mut examined = std::mem::take(&mut blob.examined);
            for mut pair in blob.contract.specs.into_iter().flat_map(|spec| spec.pairs) {
                if let Some(parts) = found.get_mut(&pair.id) {
                    let tests: HashSet<&str> = pair.tests.iter().map(|it| it.id.as_str()).collect();
                    let of_pair = |it: &mut Examined| tests.contains(it.test.as_str());
                    pair.examined = examined.extract_if(.., of_pair).collect();
                    parts.records.push(pair);
                }
            }
        }
        found
    }
}

/// The ids of a pair's tests that a shard was dealt.
fn dealt(pair: &PairPlan, shard: u64) -> impl Iterator<Item = String> {
    let mine = pair.tests.iter().filter(move |test| test.shard == shard);
    mine.map(|test| id::of(&pair.id, test.kind, &test.part))
}

/// A spec from its text, as of the day of the run.
fn parse(
    text: &SpecText,
    place: &Path,
    plan: &PlanRecord,
    today: &str,
    knows_qtype: fn(&str) -> bool,
) -> Result<Spec, String> {
    // Names and tags are those of the shards. No model is opened: in paths, whatever a variable stands for does.
    let env = |name: &str| {
        let known = text.variables.get(name).cloned();
        known.or_else(|| Some(format!("${{{name}}}")))
    };
    let mut options = LoadOptions {
        profile: plan.profile.clone(),
        env: &env,
        knows_qtype,
        ..LoadOptions::default()
    };
    options.today = today.parse()?;
    let depth = text.name.split('/').count();
    let root = place.ancestors().nth(depth).unwrap_or(Path::new(""));
    let spec = spec::parse(text.text.as_bytes(), place, root, &options)
        .map_err(|errors| errors.render(false))?;
    if spec.name == text.name {
        Ok(spec)
    } else {
        Err(format!("spec {} stands at {}", text.name, place.display()))
    }
}

/// What the shards say about one pair.
#[derive(Default)]
struct Parts {
    total: u64,
    records: Vec<PairRecord>,
}

/// One pair from its parts.
fn join(planned: &PlannedPair, parts: Parts, baselines: &Baselines) -> PairRecord {
    let Parts { total, records } = parts;
    let mut reported: HashMap<String, TestRecord> = HashMap::new();
    let mut rows = BTreeMap::new();
    let mut pair: Option<PairRecord> = None;
    let mut examined: HashMap<String, Option<Diagnosis>> = HashMap::new();
    let mut notes = Vec::new();
    let seconds = records.iter().map(|record| record.seconds).sum();
    for mut record in records {
        examined.extend(record.examined.drain(..).map(|it| (it.test, it.otherwise)));
        // A shard in which tensors failed adds to what all of them note.
        if record.notes.len() > notes.len() {
            notes.clone_from(&record.notes);
        }
        reported.extend(record.tests.drain(..).map(|test| (test.id.clone(), test)));
        rows.extend(record.tensors.drain(..).map(|row| (row.tensor.clone(), row)));
        match &mut pair {
            // A part that could not be opened does not hide what others saw.
            Some(first) if first.quantized.is_some() || record.quantized.is_none() => {
                first.error = first.error.take().or(record.error);
            }
            Some(first) => {
                record.error = first.error.take();
                *first = record;
            }
            None => pair = Some(record),
        }
    }
    let mut pair = pair.unwrap_or_else(|| empty_record(planned));
    pair.tensors = rows.into_values().collect();
    pair.baseline = BaselineRecord::default();
    pair.notes = notes;
    pair.seconds = seconds;
    let absent = planned
        .tests
        .iter()
        .find(|test| !reported.contains_key(&test.id))
        .map(|test| format!("shard {}/{total} did not report", test.shard));
    // What only the whole can say is not said of a part.
    let broken = pair.error.clone().or(absent);
    pair.global = if broken.is_none() { global_row(&pair.tensors) } else { None };
    let resolver = planned.spec.resolver(planned.pair);
    let mut tests: Vec<TestRecord> = Vec::new();
    let mut searched = 0;
    for test in &planned.tests {
        let mut judged = match (reported.remove(&test.id), test.kind, &broken) {
            (None, ..) => {
                judge::error(test, &format!("shard {}/{total} did not report", test.shard), None)
            }
            (Some(record), ..) if test.ignored.is_some() => record,
            (Some(_), TestKind::Global | TestKind::Baseline, Some(reason)) => {
                judge::error(test, reason, pair.diagnosis.clone())
            }
            (Some(_), TestKind::Global, None) => match &resolver {
                Ok(resolver) => judge::global(resolver, &pair.tensors, pair.global.as_ref(), test),
                Err(error) => judge::error(test, &error.to_string(), None),
            },
            (Some(_), TestKind::Baseline, None) => continue,
            (Some(record), TestKind::Structure, None) if record.outcome != TestOutcome::Error => {
                structure(planned, &pair, test, record)
            }
            (Some(record), ..) => record,
        };
        judged.checks.iter_mut().for_each(|check| check.movement = None);
        // Causes are looked for in the first failures of the pair, not of each shard.
        if let Some(otherwise) = examined.remove(&test.id) {
            searched += 1;
            if searched > judge::MOST_EXAMINED {
                judged.diagnosis = otherwise;
            }
        }
        tests.push(judged);
    }
    // Who ran all of it says it already.
    if planned.tests.windows(2).any(|tests| tests[0].shard != tests[1].shard) {
        pair.notes.extend(judge::unexamined(searched));
    }
    if let (Some(test), None) = (baseline_to_judge(planned), &broken) {
        let outcome = baseline::judge(baselines, planned, test, &mut pair, &mut tests);
        tests.push(outcome);
    }
    pair.tests = tests;
    swapped::spread(&mut pair);
    sort_rows(&mut pair.tensors);
    pair
}

/// The structure of a pair that several shards hold, with what only all of its tensors show.
fn structure(
    planned: &PlannedPair,
    pair: &PairRecord,
    test: &PlannedTest,
    record: TestRecord,
) -> TestRecord {
    let split = planned.tests.iter().any(|other| other.shard != test.shard);
    match planned.spec.resolver(planned.pair) {
        Ok(resolver) if split => {
            let mut checks = record.checks;
            let recovered = pair.tensors.iter().filter(|row| row.recovered.is_some()).count();
            for check in &mut checks {
                // Only the shards that read them know of floats that hold quantized values.
                if recovered > 0 && judge::says_nothing_was_quantized(check) {
                    *check = judge::quantized_check(recovered as u64, pair.tensors.len() as u64);
                }
            }
            checks.extend(judge::idle_waivers(&resolver, &pair.tensors));
            judge::conclude(test, checks)
        }
        _ => record,
    }
}

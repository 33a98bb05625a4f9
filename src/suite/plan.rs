/*!
What there is to run: every test of every pair, before anything is measured.

Listing needs the reference's header alone, and each header once, however many pairs share it.
*/

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::record::TestKind;
use super::select::{Ignored, Selection, Shard};
use crate::model;
use crate::spec::{Granularity, Location, Pair, Quantized, Resolver, Spec};

/// Names of the tests that a pair has beside its tensors'.
pub const PAIR_TESTS: [(TestKind, &str); 3] = [
    (TestKind::Structure, "(structure)"),
    (TestKind::Global, "(global)"),
    (TestKind::Baseline, "(baseline)"),
];

/// One test of a pair.
#[derive(Clone, Debug)]
pub struct PlannedTest {
    /// `SPEC::PAIR::TENSOR`.
    pub id: String,
    /// What it is about.
    pub kind: TestKind,
    /// The tensor's name, or `(structure)` and its like.
    pub part: String,
    /// Why it is not run, if it is not.
    pub ignored: Option<String>,
    /// Stored bytes behind it, to balance shards.
    pub bytes: u64,
}

/// A pair with the tests that were selected.
#[derive(Debug)]
pub struct PlannedPair<'a> {
    /// The spec.
    pub spec: &'a Spec,
    /// The pair.
    pub pair: &'a Pair,
    /// `SPEC::PAIR`.
    pub id: String,
    /// Selected tests, in the order in which they are reported.
    pub tests: Vec<PlannedTest>,
}

/// Everything that will run.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// Pairs with at least one selected test.
    pub pairs: Vec<PlannedPair<'a>>,
    /// Tests that filters left out.
    pub filtered_out: u64,
    /// Tests of all shards together.
    pub all_shards: u64,
}

impl Plan<'_> {
    /// Selected tests.
    pub fn tests(&self) -> impl Iterator<Item = &PlannedTest> {
        self.pairs.iter().flat_map(|pair| &pair.tests)
    }
}

/// What a plan depends on beside the specs.
#[derive(Clone, Debug)]
pub struct Choice {
    /// libtest's filters.
    pub selection: Selection,
    /// Only pairs with one of these tags; none means all.
    pub tags: Vec<String>,
    /// Only this shard.
    pub shard: Option<Shard>,
    /// Leave the baselines alone: there is no `(baseline)` test.
    pub no_baseline: bool,
    /// What filters, shards and lists count as one test.
    pub granularity: Granularity,
}

/// Two tests with one id.
#[derive(Debug, thiserror::Error)]
#[error("the id {id} is there twice: {first} and {second}")]
pub struct DuplicateId {
    /// The id.
    pub id: String,
    /// Where the first pair stands.
    pub first: Location,
    /// Where the second pair stands.
    pub second: Location,
}

/// Names and stored bytes of a reference's tensors; none if it cannot be opened, which the run
/// reports.
type Listing = Rc<Vec<(String, u64)>>;

/// Lists and selects the tests of `specs`.
pub fn plan<'a>(specs: &'a [Spec], choice: &Choice) -> Result<Plan<'a>, DuplicateId> {
    let mut plan = Plan::default();
    let mut listings: HashMap<PathBuf, Listing> = HashMap::new();
    let mut seen: HashMap<String, &Location> = HashMap::new();
    for spec in specs {
        for pair in &spec.pairs {
            let id = format!("{}::{}", spec.name, pair.name);
            if let Some(first) = seen.insert(id.clone(), &pair.at) {
                return Err(DuplicateId { id, first: first.clone(), second: pair.at.clone() });
            }
            let tagged =
                choice.tags.is_empty() || pair.tags.iter().any(|tag| choice.tags.contains(tag));
            if !tagged || !choice.selection.may_select_below(&id) {
                continue;
            }
            if choice.granularity == Granularity::Pair {
                if choice.selection.selects(&id, false) {
                    plan.pairs.push(PlannedPair { spec, pair, id, tests: Vec::new() });
                } else {
                    plan.filtered_out += 1;
                }
                continue;
            }
            let listing = listings
                .entry(pair.reference.path.clone())
                .or_insert_with(|| list(&pair.reference.path))
                .clone();
            let resolver = if pair.skip.is_empty() { None } else { spec.resolver(pair).ok() };
            let mut tests = tests_of(resolver.as_ref(), &id, &listing, choice.no_baseline);
            let before = tests.len();
            tests.retain_mut(|test| keep(test, &choice.selection));
            plan.filtered_out += (before - tests.len()) as u64;
            if !tests.is_empty() {
                plan.pairs.push(PlannedPair { spec, pair, id, tests });
            }
        }
    }
    plan.all_shards = match choice.granularity {
        Granularity::Pair => plan.pairs.len() as u64,
        Granularity::Tensor => plan.tests().count() as u64,
    };
    if let Some(shard) = choice.shard {
        deal(&mut plan, shard, choice.granularity);
    }
    Ok(plan)
}

/// Fills in the tests of pairs that were selected whole.
pub fn expand(plan: &mut Plan, no_baseline: bool) {
    for planned in plan.pairs.iter_mut().filter(|planned| planned.tests.is_empty()) {
        let resolver = planned.spec.resolver(planned.pair).ok();
        let listing = list(&planned.pair.reference.path);
        planned.tests = tests_of(resolver.as_ref(), &planned.id, &listing, no_baseline);
    }
}

fn list(path: &Path) -> Listing {
    let tensors = model::open(path).map(|model| model.tensors).unwrap_or_default();
    Rc::new(
        tensors
            .into_iter()
            .map(|tensor| {
                let bytes = tensor.stored_bytes();
                (tensor.name, bytes)
            })
            .collect(),
    )
}

/// Every test of a pair: its structure, its tensors by name, all of them as one, its baseline.
fn tests_of(
    resolver: Option<&Resolver>,
    id: &str,
    listing: &Listing,
    no_baseline: bool,
) -> Vec<PlannedTest> {
    let skipped = |name: &str| Some(resolver?.tensor(name).skip()?.reason.clone());
    let mut tests = Vec::with_capacity(listing.len() + PAIR_TESTS.len());
    for (name, bytes) in listing.iter() {
        tests.push(PlannedTest {
            id: format!("{id}::{name}"),
            kind: TestKind::Tensor,
            part: name.clone(),
            ignored: skipped(name),
            bytes: *bytes,
        });
    }
    for (kind, part) in PAIR_TESTS {
        if kind == TestKind::Baseline && no_baseline {
            continue;
        }
        let id = format!("{id}::{part}");
        let part = part.to_owned();
        tests.push(PlannedTest { id, kind, part, ignored: None, bytes: 0 });
    }
    tests
}

/// Applies the filters; a skipped test that is asked for loses its reason and runs.
fn keep(test: &mut PlannedTest, selection: &Selection) -> bool {
    let selected = selection.selects(&test.id, test.ignored.is_some());
    if selection.ignored != Ignored::Reported {
        test.ignored = None;
    }
    selected
}

/// Leaves only the tests of one shard.
fn deal(plan: &mut Plan, shard: Shard, granularity: Granularity) {
    if granularity == Granularity::Pair {
        let weight = |planned: &PlannedPair| {
            std::fs::metadata(&planned.pair.reference.path).map_or(0, |file| file.len())
        };
        let items: Vec<(&str, u64)> =
            plan.pairs.iter().map(|planned| (planned.id.as_str(), weight(planned))).collect();
        let mut taken = shard.takes(&items).into_iter();
        plan.pairs.retain(|_| taken.next().unwrap_or(false));
        return;
    }
    let items: Vec<(&str, u64)> =
        plan.pairs.iter().flat_map(|pair| &pair.tests).map(|t| (t.id.as_str(), t.bytes)).collect();
    let takes = shard.takes(&items);
    let mut taken = takes.into_iter();
    for pair in &mut plan.pairs {
        pair.tests.retain(|_| taken.next().unwrap_or(false));
    }
    plan.pairs.retain(|pair| !pair.tests.is_empty());
}

/// Every path that a plan reads, for messages and fingerprints.
pub fn paths<'a>(plan: &'a Plan) -> HashSet<&'a Path> {
    let mut paths = HashSet::new();
    for PlannedPair { pair, .. } in &plan.pairs {
        paths.insert(pair.reference.path.as_path());
        if let Quantized::File(model) = &pair.quantized {
            paths.insert(model.path.as_path());
        }
    }
    paths
}

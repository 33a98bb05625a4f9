/*!
What there is to run: every test of every pair, before anything is measured.

Listing needs the reference's header alone, and each header once, however many pairs share it.
*/

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::id::{self, PAIR_TESTS};
use super::listing::{Listing, Listings};
use super::record::TestKind;
use super::select::{Ignored, Selection};
use super::shard::{Item, Shard};
use crate::model::Model;
use crate::spec::{Granularity, Location, Pair, Resolver, Spec};

/// One test of a pair.
#[derive(Clone, Debug)]
pub struct PlannedTest {
    /// `SPEC::PAIR::TENSOR`.
    pub id: String,
    /// What it is about.
    pub kind: TestKind,
    /// The tensor's name, or `(structure)` and its like.
    pub part: Cow<'static, str>,
    /// Why it is not run, if it is not.
    pub ignored: Option<String>,
    /// Stored bytes behind it, to balance shards.
    pub bytes: u64,
    /// The shard that runs it, from 1; 1 without shards.
    pub shard: u64,
    /// Whether it is run here.
    pub here: bool,
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
    /// What counts as one test.
    pub granularity: Granularity,
    /// Why none of it is run, if that is so.
    pub ignored: Option<String>,
    /// The shard that runs it if it is one test, from 1.
    pub shard: u64,
    /// Whether any of it is run here.
    pub here: bool,
    /// What the reference held when the tests were listed; none if nothing is to be opened.
    pub listing: Option<Listing>,
    /// Selected tests of all shards, in the order in which they are reported; those of a pair that
    /// is one test are filled in by [`expand`].
    pub tests: Vec<PlannedTest>,
}

impl PlannedPair<'_> {
    /// The tests that are run here.
    pub fn tests_here(&self) -> impl Iterator<Item = &PlannedTest> {
        self.tests.iter().filter(|test| test.here)
    }

    /// An ignored pair's tests are ignored.
    fn pass_on_ignored(&mut self) {
        if let Some(reason) = &self.ignored {
            self.tests.iter_mut().for_each(|test| test.ignored = Some(reason.clone()));
        }
    }

    /// Whether anything of it is run here; if not, its models need not be there.
    pub fn runs_here(&self) -> bool {
        self.tests_here().any(|test| test.ignored.is_none())
    }

    /// How the reference differs from what it was when the tests were listed, if some of its tensors have no
    /// test for it.
    pub fn difference(&self, reference: &Model) -> Option<String> {
        let listed = match self.listing.as_ref()?.as_ref() {
            Ok(listed) => listed,
            Err(error) => {
                return Some(format!(
                    "a model could not be opened when the tests were listed: {error}"
                ));
            }
        };
        let known: HashSet<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        let tensors = &reference.tensors;
        let (then, now) = (listed.len(), tensors.len());
        let what = match tensors.iter().find(|tensor| !known.contains(tensor.name.as_str())) {
            Some(new) => format!("{} is new", new.name),
            None if then > now => "some of them are gone".to_owned(),
            None => return None,
        };
        Some(format!(
            "it is another than when the tests were listed: {then} tensors then, {now} now, and {what}"
        ))
    }

    /// Whether another shard runs some of its tests.
    pub fn is_split(&self) -> bool {
        self.tests.iter().any(|test| !test.here)
    }
}

/// Everything that will run, here or in other shards.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// Pairs with at least one selected test.
    pub pairs: Vec<PlannedPair<'a>>,
    /// Tests that filters left out.
    pub filtered_out: u64,
    /// Which part of it is run here, if it is dealt out.
    pub shard: Option<Shard>,
    listings: Listings,
}

impl<'a> Plan<'a> {
    /// The pairs of which something is run here.
    pub fn pairs_here(&self) -> impl Iterator<Item = &PlannedPair<'a>> {
        self.pairs.iter().filter(|pair| pair.here)
    }

    /// How many tests are run here, by what counts as one.
    pub fn count(&self) -> u64 {
        let count = |pair: &PlannedPair| match pair.granularity {
            Granularity::Pair => 1,
            Granularity::Tensor => pair.tests_here().count() as u64,
        };
        self.pairs_here().map(count).sum()
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
    /// What filters, shards and lists count as one test; none leaves it to the spec.
    pub granularity: Option<Granularity>,
    /// Benchmarks are asked for, of which there are none: every test is ignored.
    pub benchmarks: bool,
}

impl Choice {
    /// Every test of every tensor, but those against snapshots.
    pub fn of_tensors() -> Self {
        Self {
            selection: Selection::default(),
            tags: Vec::new(),
            shard: None,
            no_baseline: true,
            granularity: Some(Granularity::Tensor),
            benchmarks: false,
        }
    }
}

/// Two pairs that cannot be told from each other.
#[derive(Debug, thiserror::Error)]
#[error("the id {id} is there {how}: {first} and {second}")]
pub struct DuplicateId {
    /// The id.
    pub id: String,
    /// Twice, or once more in letters of another case.
    pub how: &'static str,
    /// Where the first pair stands.
    pub first: Location,
    /// Where the second pair stands.
    pub second: Location,
}

/// Lists and selects the tests of `specs`.
pub fn plan<'a>(specs: &'a [Spec], choice: &Choice) -> Result<Plan<'a>, DuplicateId> {
    let mut plan = Plan::default();
    // Neither name holds "::", so that two ids are equal if both of their names are.
    let mut seen: HashMap<(&str, &str), &Location> = HashMap::new();
    let mut folded: HashMap<String, &Location> = HashMap::new();
    for spec in specs {
        for pair in &spec.pairs {
            let id = format!("{}::{}", spec.name, pair.name);
            if let Some(first) = seen.insert((&spec.name, &pair.name), &pair.at) {
                let (first, second) = (first.clone(), pair.at.clone());
                return Err(DuplicateId { id, how: "twice", first, second });
            }
            // Where a file system does not tell `p` from `P`, two snapshots would be one.
            if !choice.no_baseline
                && !pair.baseline.off
                && let Some(first) = folded.insert(id.to_ascii_lowercase(), &pair.at)
            {
                let how = "once more in letters of another case, and some file systems would keep \
                           one snapshot for both; rename one, or run with --no-baseline";
                let (first, second) = (first.clone(), pair.at.clone());
                return Err(DuplicateId { id, how, first, second });
            }
            let tagged =
                choice.tags.is_empty() || pair.tags.iter().any(|tag| choice.tags.contains(tag));
            if tagged && choice.selection.may_select_below(&id) {
                add(&mut plan, spec, pair, id, choice);
            }
        }
    }
    if let Some(shard) = choice.shard {
        deal(&mut plan, shard);
    }
    Ok(plan)
}

/// Adds a pair with those of its tests that are selected, if there are any.
fn add<'a>(plan: &mut Plan<'a>, spec: &'a Spec, pair: &'a Pair, id: String, choice: &Choice) {
    let asked_for = choice.selection.ignored != Ignored::Reported;
    let ignored = match &pair.ignore {
        _ if choice.benchmarks => Some("not a benchmark".to_owned()),
        Some(reason) if !asked_for => Some(reason.clone()),
        _ => None,
    };
    let granularity = choice.granularity.or(spec.granularity).unwrap_or(Granularity::Pair);
    let (shard, here, listing, tests) = (1, true, None, Vec::new());
    let mut planned =
        PlannedPair { spec, pair, id, granularity, ignored, shard, here, listing, tests };
    if granularity == Granularity::Pair {
        if choice.selection.selects(&planned.id, pair.ignore.is_some()) {
            plan.pairs.push(planned);
        } else {
            plan.filtered_out += 1;
        }
        return;
    }
    let listing = plan.listings.of(pair);
    let resolver = if pair.skip.is_empty() { None } else { spec.resolver(pair).ok() };
    planned.tests = tests_of(pair, resolver.as_ref(), &planned.id, &listing, choice.no_baseline);
    planned.listing = Some(plan.listings.stored(pair));
    let before = planned.tests.len();
    planned.tests.retain_mut(|test| keep(test, pair.ignore.is_some(), &choice.selection));
    planned.pass_on_ignored();
    plan.filtered_out += (before - planned.tests.len()) as u64;
    if !planned.tests.is_empty() {
        plan.pairs.push(planned);
    }
}

/// Fills in the tests of pairs that were selected whole.
pub fn expand(plan: &mut Plan, no_baseline: bool) {
    for planned in plan.pairs.iter_mut().filter(|it| it.granularity == Granularity::Pair) {
        let resolver = planned.spec.resolver(planned.pair).ok();
        let listing = plan.listings.of(planned.pair);
        planned.tests =
            tests_of(planned.pair, resolver.as_ref(), &planned.id, &listing, no_baseline);
        planned.listing = Some(plan.listings.stored(planned.pair));
        for test in &mut planned.tests {
            test.shard = planned.shard;
            test.here = planned.here;
        }
        planned.pass_on_ignored();
    }
}

/// Every test of a pair: its structure, its tensors by name, and of two models all of them as one and its
/// baseline.
fn tests_of(
    pair: &Pair,
    resolver: Option<&Resolver>,
    id: &str,
    listing: &Listing,
    no_baseline: bool,
) -> Vec<PlannedTest> {
    let skipped = |name: &str| Some(resolver?.tensor(name).skip()?.reason.clone());
    let listed = listing.as_ref().as_ref().map_or(&[][..], Vec::as_slice);
    let mut tests = Vec::with_capacity(listed.len() + PAIR_TESTS.len());
    for (name, bytes) in listed {
        tests.push(PlannedTest {
            id: id::of_tensor(id, name),
            kind: TestKind::Tensor,
            part: Cow::Owned(name.clone()),
            ignored: skipped(name),
            bytes: *bytes,
            shard: 1,
            here: true,
        });
    }
    for (kind, part) in PAIR_TESTS {
        let absent = match kind {
            TestKind::Baseline => no_baseline || pair.baseline.off,
            TestKind::Global => pair.is_alone(),
            TestKind::Structure | TestKind::Tensor => false,
        };
        if absent {
            continue;
        }
        let id = id::of(id, kind, part);
        let part = Cow::Borrowed(part);
        let ignored = None;
        tests.push(PlannedTest { id, kind, part, ignored, bytes: 0, shard: 1, here: true });
    }
    tests
}

/// Applies the filters; a skipped test that is asked for loses its reason and runs.
fn keep(test: &mut PlannedTest, pair_ignored: bool, selection: &Selection) -> bool {
    let selected = selection.selects(&test.id, pair_ignored || test.ignored.is_some());
    if selection.ignored != Ignored::Reported {
        test.ignored = None;
    }
    selected
}

/// Says of each test which shard runs it, and whether that is this one.
fn deal(plan: &mut Plan, shard: Shard) {
    plan.shard = Some(shard);
    let mut items: Vec<Item> = Vec::new();
    for (pair, planned) in plan.pairs.iter().enumerate() {
        if planned.granularity == Granularity::Pair {
            let listing = plan.listings.of(planned.pair);
            let listed = listing.iter().flatten();
            let bytes = listed.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
            items.push(Item { id: &planned.id, bytes, pair });
        }
        let tests = planned.tests.iter();
        items.extend(tests.map(|test| Item { id: &test.id, bytes: test.bytes, pair }));
    }
    let mut owners = shard.deal.owners(&items, shard.total).into_iter();
    let mut next = || owners.next().unwrap_or(1);
    for planned in &mut plan.pairs {
        if planned.granularity == Granularity::Pair {
            planned.shard = next();
            planned.here = planned.shard == shard.index;
            continue;
        }
        for test in &mut planned.tests {
            test.shard = next();
            test.here = test.shard == shard.index;
        }
        planned.here = planned.tests.iter().any(|test| test.here);
    }
}

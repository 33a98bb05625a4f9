/*!
Which tests run: libtest's filters, and shards.

As in libtest, several filters are alternatives, `--skip` takes tests away again, and both mean
substrings unless `--exact` is given.
*/

use xxhash_rust::xxh64::xxh64;

/// How tests that the spec skips are treated, as libtest treats `#[ignore]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ignored {
    /// They are listed and reported, not run.
    #[default]
    Reported,
    /// They alone run (`--ignored`).
    Only,
    /// They run like the others (`--include-ignored`).
    Included,
}

/// libtest's selection.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Alternatives; none selects every test.
    pub filters: Vec<String>,
    /// Whole ids instead of substrings.
    pub exact: bool,
    /// Tests to leave out.
    pub skip: Vec<String>,
    /// What happens to skipped tests.
    pub ignored: Ignored,
}

impl Selection {
    /// Does a test of this id run? `ignored` says that the spec skips it.
    pub fn selects(&self, id: &str, ignored: bool) -> bool {
        let matches = |pattern: &String| {
            if self.exact { pattern == id } else { id.contains(pattern.as_str()) }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skip.iter().any(matches)
            && (self.ignored != Ignored::Only || ignored)
    }

    /// Could the test `id`, or one below it (`id::…`), be selected? Spares reading the specs and
    /// models of tests that `--exact` rules out.
    pub fn may_select_below(&self, id: &str) -> bool {
        let at_or_below = |filter: &String| {
            filter.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        !self.exact || self.filters.is_empty() || self.filters.iter().any(at_or_below)
    }
}

/// A way to deal tests out to shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deal {
    /// Round robin over the selected tests, in order.
    Slice,
    /// By a hash of the test's id: stable when tests come and go, and equal to nextest's.
    Hash,
    /// By stored bytes: the heaviest pair first, each to the lightest shard so far.
    Size,
}

impl Deal {
    /// The mode's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slice => "slice",
            Self::Hash => "hash",
            Self::Size => "size",
        }
    }
}

/// One shard of several: `slice:M/N`, `hash:M/N` or `size:M/N`, 1-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// How tests are dealt out.
    pub deal: Deal,
    /// This shard, from 1.
    pub index: u64,
    /// How many there are.
    pub total: u64,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage =
            || format!("{text:?} is not a partition: write slice:M/N, hash:M/N or size:M/N");
        let (mode, part) = text.split_once(':').ok_or_else(usage)?;
        let (index, total) = part.split_once('/').ok_or_else(usage)?;
        let deal = [Deal::Slice, Deal::Hash, Deal::Size]
            .into_iter()
            .find(|deal| deal.name() == mode)
            .ok_or_else(usage)?;
        let index: u64 = index.parse().map_err(|_| usage())?;
        let total: u64 = total.parse().map_err(|_| usage())?;
        if index == 0 || index > total {
            return Err(format!("shard {index} of {total} does not exist: shards count from 1"));
        }
        Ok(Self { deal, index, total })
    }
}

impl Shard {
    /// For each item, is it this shard's? Items are (id, weight), in suite order.
    pub fn takes(&self, items: &[(&str, u64)]) -> Vec<bool> {
        let mine = self.index - 1;
        match self.deal {
            Deal::Slice => (0..items.len() as u64).map(|at| at % self.total == mine).collect(),
            Deal::Hash => {
                items.iter().map(|(id, _)| xxh64(id.as_bytes(), 0) % self.total == mine).collect()
            }
            Deal::Size => self.lightest_first(items),
        }
    }

    /// Longest processing time first; ties by id, then by the lower shard.
    fn lightest_first(&self, items: &[(&str, u64)]) -> Vec<bool> {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by(|&a, &b| items[b].1.cmp(&items[a].1).then(items[a].0.cmp(items[b].0)));
        // A binary heap would do; the shards are few.
        let mut loads = vec![(0u64, 0u64); self.total.min(items.len() as u64) as usize];
        let mut takes = vec![false; items.len()];
        for item in order {
            let lightest = (0..loads.len()).min_by_key(|&shard| (loads[shard], shard)).unwrap_or(0);
            if let Some((bytes, count)) = loads.get_mut(lightest) {
                *bytes = bytes.saturating_add(items[item].1);
                *count += 1;
            }
            takes[item] = lightest as u64 == self.index - 1;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_are_libtests() {
        let selection = |filters: &[&str], exact, skip: &[&str]| Selection {
            filters: filters.iter().map(ToString::to_string).collect(),
            exact,
            skip: skip.iter().map(ToString::to_string).collect(),
            ignored: Ignored::Reported,
        };
        for (case, id, expected, why) in [
            (selection(&[], false, &[]), "s::p::t", true, "no filter selects all"),
            (selection(&["p::t"], false, &[]), "s::p::t", true, "substring"),
            (selection(&["x", "t"], false, &[]), "s::p::t", true, "several are alternatives"),
            (selection(&["t"], true, &[]), "s::p::t", false, "exact wants the whole id"),
            (selection(&["s::p::t"], true, &[]), "s::p::t", true, "exact"),
            (selection(&["t"], false, &["p"]), "s::p::t", false, "skip takes away"),
            (selection(&[], true, &["p"]), "s::p::t", true, "exact holds for skip, too"),
        ] {
            assert_eq!(case.selects(id, false), expected, "{why}");
        }
    }

    #[test]
    fn partitions_parse() {
        assert!("hash:2/3".parse::<Shard>().is_ok());
        for bad in ["hash:0/3", "hash:4/3", "count:1/2", "1/2", "slice:1", "slice:a/b"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_test_is_in_exactly_one_shard(
            weights in prop::collection::vec(0u64..1000, 0..40),
            total in 1u64..9,
        ) {
            let ids: Vec<String> = (0..weights.len()).map(|i| format!("s::p::{i}")).collect();
            let items: Vec<(&str, u64)> =
                ids.iter().map(String::as_str).zip(weights.iter().copied()).collect();
            for deal in [Deal::Slice, Deal::Hash, Deal::Size] {
                let mut count = vec![0; items.len()];
                for index in 1..=total {
                    let shard = Shard { deal, index, total };
                    for (at, taken) in shard.takes(&items).iter().enumerate() {
                        count[at] += usize::from(*taken);
                    }
                }
                prop_assert!(count.iter().all(|&n| n == 1), "{deal:?}: {count:?}");
            }
        }
    }
}

/*!
Shards: how the tests of a suite are dealt out to several processes.

Every shard makes the whole plan and deals it out the same way, so that no two of them have to talk.
What the shards found is put together by [`super::merge`].
*/

use xxhash_rust::xxh64::xxh64;

/// A way to deal tests out to shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deal {
    /// Round robin over the selected tests, in order.
    Slice,
    /// By a hash of the test's id: stable when tests come and go, and equal to cargo-nextest's.
    Hash,
    /// By stored bytes, the heaviest first, each to the lightest shard so far. A pair stays whole
    /// unless it is larger than a shard's share; then its tensors are dealt out.
    #[default]
    Size,
}

impl Deal {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Slice, Self::Hash, Self::Size];

    /// The mode's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slice => "slice",
            Self::Hash => "hash",
            Self::Size => "size",
        }
    }

    /// Looks a mode up by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|deal| deal.name() == name)
    }

    /// The shard, from 1, of each item. Items stand in suite order, those of a pair side by side.
    pub fn owners(self, items: &[Item], total: u64) -> Vec<u64> {
        match self {
            Self::Slice => (0..items.len() as u64).map(|at| at % total + 1).collect(),
            Self::Hash => {
                items.iter().map(|item| xxh64(item.id.as_bytes(), 0) % total + 1).collect()
            }
            Self::Size => by_size(items, total),
        }
    }
}

/// What is dealt out: a test, or a pair where pairs count as tests.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Its id.
    pub id: &'a str,
    /// Stored bytes behind it.
    pub bytes: u64,
    /// Which pair it belongs to: items with one number stay together if they can.
    pub pair: usize,
}

/// Longest processing time first; ties by id, then by the lower shard.
fn by_size(items: &[Item], total: u64) -> Vec<u64> {
    let sum = |items: &[Item]| items.iter().fold(0u64, |sum, it| sum.saturating_add(it.bytes));
    let share = sum(items).div_ceil(total);
    // Ranges of items that go to one shard, with their bytes.
    let mut units: Vec<(std::ops::Range<usize>, u64)> = Vec::new();
    let mut start = 0;
    for pair in items.chunk_by(|a, b| a.pair == b.pair) {
        let (end, bytes) = (start + pair.len(), sum(pair));
        if bytes > share {
            units.extend((start..end).map(|at| (at..at + 1, items[at].bytes)));
        } else {
            units.push((start..end, bytes));
        }
        start = end;
    }
    units.sort_by(|a, b| b.1.cmp(&a.1).then(items[a.0.start].id.cmp(items[b.0.start].id)));
    // No more shards than units get any. A binary heap would do; the shards are few.
    let mut loads = vec![0u64; total.min(units.len() as u64) as usize];
    let mut owners = vec![1; items.len()];
    for (range, bytes) in units {
        let lightest = (0..loads.len()).min_by_key(|&shard| (loads[shard], shard)).unwrap_or(0);
        if let Some(load) = loads.get_mut(lightest) {
            *load = load.saturating_add(bytes);
        }
        owners[range].fill(lightest as u64 + 1);
    }
    owners
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

impl Shard {
    /// A shard that exists.
    pub fn new(deal: Deal, index: u64, total: u64) -> Result<Self, String> {
        if index == 0 || index > total {
            return Err(format!("shard {index} of {total} does not exist: shards count from 1"));
        }
        Ok(Self { deal, index, total })
    }

    /// Reads `M/N`.
    pub fn of(deal: Deal, part: &str) -> Option<Result<Self, String>> {
        let (index, total) = part.split_once('/')?;
        Some(Self::new(deal, index.parse().ok()?, total.parse().ok()?))
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shard =
            text.split_once(':').and_then(|(mode, part)| Self::of(Deal::from_name(mode)?, part));
        shard.unwrap_or_else(|| {
            Err(format!("{text:?} is not a partition: write slice:M/N, hash:M/N or size:M/N"))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn partitions_parse() {
        assert_eq!("hash:2/3".parse(), Ok(Shard { deal: Deal::Hash, index: 2, total: 3 }));
        for bad in [
            "hash:0/3",
            "hash:4/3",
            "hash:0/0",
            "count:1/2",
            "1/2",
            "slice:1",
            "slice:a/b",
            "size:-1/2",
            "size:1/2/3",
            "",
        ] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    /// Python's xxhash: `xxhash.xxh64(name, seed=0).intdigest() % 3 + 1`, as cargo-nextest does.
    #[test]
    fn hash_is_nextests() {
        let names = [
            ("block0::q8_0", 3),
            ("block0::q4_k_m", 2),
            ("block0::q2_k", 1),
            ("attention::int8", 2),
            ("attention::bf16", 2),
        ];
        for (id, owner) in names {
            let item = Item { id, bytes: 0, pair: 0 };
            assert_eq!(Deal::Hash.owners(&[item], 3), [owner], "{id}");
        }
    }

    #[test]
    fn size_keeps_pairs_whole_unless_one_is_larger_than_a_shard() {
        let items = |pairs: &[&[u64]]| -> Vec<(usize, u64)> {
            let tensors = |(pair, bytes): (usize, &&[u64])| -> Vec<(usize, u64)> {
                bytes.iter().map(|&bytes| (pair, bytes)).collect()
            };
            pairs.iter().enumerate().flat_map(tensors).collect()
        };
        for (pairs, total, expected, why) in [
            (&[&[3, 3][..], &[2, 2], &[1, 1]][..], 2, vec![1, 1, 2, 2, 2, 2], "pairs stay whole"),
            (&[&[9, 1], &[1, 1]], 2, vec![1, 2, 2, 2], "the first pair is larger than a shard"),
            (&[&[1, 1, 1]], 4, vec![1, 2, 3], "more shards than tensors: the last is empty"),
            (&[&[0, 0], &[0]], 3, vec![1, 1, 1], "nothing to balance: pairs stay whole"),
            (&[], 3, vec![], "nothing at all"),
        ] {
            let weights = items(pairs);
            let ids: Vec<String> = (0..weights.len()).map(|at| format!("t{at}")).collect();
            let items: Vec<Item> = ids
                .iter()
                .zip(&weights)
                .map(|(id, &(pair, bytes))| Item { id, bytes, pair })
                .collect();
            assert_eq!(Deal::Size.owners(&items, total), expected, "{why}");
        }
    }

    proptest! {
        #[test]
        fn every_item_has_one_shard_and_shards_are_balanced(
            weights in prop::collection::vec((0u64..1000, 0usize..3), 0..40),
            total in 1u64..9,
        ) {
            let ids: Vec<String> = (0..weights.len()).map(|i| format!("s::p::{i}")).collect();
            let mut pair = 0;
            let mut items: Vec<Item> = Vec::new();
            for (id, &(bytes, step)) in ids.iter().zip(&weights) {
                pair += step / 2;
                items.push(Item { id, bytes, pair });
            }
            for deal in Deal::ALL {
                let owners = deal.owners(&items, total);
                prop_assert_eq!(owners.len(), items.len());
                prop_assert!(owners.iter().all(|owner| (1..=total).contains(owner)), "{:?}", deal);
            }
            let owners = Deal::Size.owners(&items, total);
            let load = |shard: u64| -> u64 {
                items.iter().zip(&owners).filter(|it| *it.1 == shard).map(|it| it.0.bytes).sum()
            };
            let sum: u64 = weights.iter().map(|it| it.0).sum();
            let share = sum.div_ceil(total);
            let largest = weights.iter().map(|it| it.0).max().unwrap_or(0);
            // No unit is heavier than a share, or it is a single item.
            let bound = share + largest.max(share);
            prop_assert!((1..=total).all(|shard| load(shard) <= bound));
        }
    }
}

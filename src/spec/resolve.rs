/*!
Which demands of a pair apply to a tensor: the first rule, the waiver, the skip, the gates; and
which globs of the pair apply to nothing.

A [`Resolver`] is built when a pair is run, not when its spec is read: compiling globs is the
costly part of a spec. It holds no state; what matched is the caller's to gather in a [`Usage`].
*/

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use regex::{RegexSet, RegexSetBuilder, SetMatches};

use super::pattern::glob_to_regex;
use super::{
    Bound, Companions, Diagnostic, Gate, Group, Pair, Pattern, QtypeRule, Rule, Scheme, Setting,
    Skip, Spec, SpecErrors, Transform, Waiver,
};
use crate::metrics::Metric;

/// A pair's demands, ready to be asked about tensors.
pub struct Resolver<'a> {
    spec: &'a Spec,
    pair: &'a Pair,
    /// All globs of the pair.
    set: RegexSet,
    /// The globs, by index into the set.
    patterns: Vec<Entry<'a>>,
    parts: Parts,
}

/// A glob of a pair and what it is used for.
struct Entry<'a> {
    pattern: &'a Pattern,
    use_: Use,
}

/// What a glob is used for.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    /// Reference tensors.
    Reference,
    /// Tensors of the quantized model, renamed.
    Quantized,
    /// Tensors of either.
    Either,
    /// Metadata keys.
    Metadata,
}

/// The indices of the globs of each part.
#[derive(Default)]
struct Parts {
    rules: Vec<Range<usize>>,
    waivers: Vec<Range<usize>>,
    groups: Vec<Range<usize>>,
    skip: Vec<Range<usize>>,
    qtype: Vec<Range<usize>>,
    transform: Vec<Range<usize>>,
    scheme: Vec<Range<usize>>,
    companions: Vec<Range<usize>>,
    allow_missing: Range<usize>,
    allow_extra: Range<usize>,
    nonzero: Range<usize>,
    metadata_equal: Range<usize>,
}

/// Where a bound comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The thresholds.
    Threshold,
    /// The pair's rule of this index.
    Rule(usize),
}

/// The bound that decides a metric of a tensor.
#[derive(Clone, Debug)]
pub struct Effective<'a> {
    /// The metric.
    pub metric: Metric,
    /// The bound.
    pub bound: &'a Bound,
    /// Where it comes from.
    pub origin: Origin,
    /// Index of the live waiver with the lowest floor, and the floor.
    pub waiver: Option<(usize, f64)>,
    /// Index of an expired waiver that would have applied.
    pub expired: Option<usize>,
}

/// What a value is worth against its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Within every bound.
    Pass,
    /// Beyond the warning bound, within the failing one.
    Warn,
    /// Beyond the failing bound, within the floor of the pair's waiver of this index.
    Waived(usize),
    /// Beyond the failing bound and any floor; NaN always is.
    Fail,
}

impl Bound {
    /// What a value of a metric is worth against this bound.
    pub fn judge(&self, metric: Metric, value: f64) -> Judgement {
        if value.is_nan() || self.fail.is_some_and(|fail| !metric.holds(value, fail)) {
            Judgement::Fail
        } else if self.warn.is_some_and(|warn| !metric.holds(value, warn)) {
            Judgement::Warn
        } else {
            Judgement::Pass
        }
    }
}

impl Effective<'_> {
    /// What a value is worth against the bound and its waiver.
    pub fn judge(&self, value: f64) -> Judgement {
        match (self.bound.judge(self.metric, value), self.waiver) {
            (Judgement::Fail, Some((waiver, floor))) if self.metric.holds(value, floor) => {
                Judgement::Waived(waiver)
            }
            (judgement, _) => judgement,
        }
    }
}

/// What applies to one tensor.
pub struct Tensor<'r, 'a> {
    resolver: &'r Resolver<'a>,
    matches: SetMatches,
}

/// Which globs and renames of a pair have matched something.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    globs: Vec<bool>,
    renames: Vec<bool>,
}

impl Spec {
    /// Prepares a pair of this spec for being asked about tensors.
    ///
    /// # Errors
    ///
    /// The pair's globs together are too large.
    pub fn resolver<'a>(&'a self, pair: &'a Pair) -> Result<Resolver<'a>, SpecErrors> {
        let mut patterns = Vec::new();
        let parts = enter(pair, &mut patterns);
        let too_large = |message: String| {
            let help = "write fewer or shorter globs";
            SpecErrors::new(vec![
                Diagnostic::error(&self.source, pair.at.clone(), message).help(help),
            ])
        };
        let regexes: Result<Vec<String>, _> =
            patterns.iter().map(|entry| glob_to_regex(&entry.pattern.text)).collect();
        let regexes = regexes.map_err(|error| too_large(format!("bad glob: {error}")))?;
        let set = RegexSetBuilder::new(regexes)
            .size_limit(64 << 20)
            .dfa_size_limit(64 << 20)
            .build()
            .map_err(|_| too_large("the globs of this pair are too large together".to_owned()))?;
        Ok(Resolver { spec: self, pair, set, patterns, parts })
    }

    /// Errors for the defaults of this file, and the globs of matrix pairs, that match nothing in
    /// any pair that has them. A pair that has them and is not given here may have matched: then
    /// nothing is said. What only one pair has is [`Resolver::unmatched`]'s to report.
    pub fn unmatched_shared(&self, of_pairs: &[(&Pair, Usage)]) -> Vec<Diagnostic> {
        // Patterns are told apart by where they are written.
        let mut verdicts: BTreeMap<u32, (&Pattern, &'static str, bool)> = BTreeMap::new();
        for pair in &self.pairs {
            let usage =
                of_pairs.iter().find(|(of, _)| std::ptr::eq(*of, pair)).map(|(_, usage)| usage);
            for (pattern, matched, noun) in patterns_of(pair, usage) {
                if pattern.shared {
                    let verdict =
                        verdicts.entry(pattern.at.start).or_insert((pattern, noun, false));
                    verdict.2 |= matched;
                }
            }
        }
        let unmatched = verdicts.into_values().filter(|(_, _, matched)| !matched);
        unmatched
            .map(|(pattern, noun, _)| {
                let message = format!("{} matches no {noun} of any pair", describe(pattern));
                Diagnostic::error(&self.source, pattern.at.clone(), message)
                    .help("remove it, or correct it")
            })
            .collect()
    }
}

fn describe(pattern: &Pattern) -> String {
    super::table::quoted(&pattern.text)
}

/// The globs and renames of a pair, whether they matched (unknown counts as yes), and what they
/// match.
fn patterns_of<'p>(
    pair: &'p Pair,
    usage: Option<&Usage>,
) -> Vec<(&'p Pattern, bool, &'static str)> {
    let mut entries = Vec::new();
    enter(pair, &mut entries);
    let matched = |list: fn(&Usage) -> &Vec<bool>, index: usize| {
        usage.is_none_or(|usage| list(usage).get(index).copied().unwrap_or(false))
    };
    let globs = entries.iter().enumerate().map(|(index, entry)| {
        let noun = if entry.use_ == Use::Metadata { "metadata key" } else { "tensor" };
        (entry.pattern, matched(|usage| &usage.globs, index), noun)
    });
    let renames =
        pair.rename.iter().enumerate().map(|(index, rename)| {
            (&rename.from, matched(|usage| &usage.renames, index), "tensor")
        });
    globs.chain(renames).collect()
}

/// Lists all globs of a pair, in one fixed order.
fn enter<'a>(pair: &'a Pair, patterns: &mut Vec<Entry<'a>>) -> Parts {
    let mut list = |globs: &'a [Pattern], use_: Use| {
        let start = patterns.len();
        patterns.extend(globs.iter().map(|pattern| Entry { pattern, use_ }));
        start..patterns.len()
    };
    Parts {
        rules: pair.rules.iter().map(|it| list(&it.globs, Use::Reference)).collect(),
        waivers: pair.waivers.iter().map(|it| list(&it.globs, Use::Reference)).collect(),
        groups: pair.groups.iter().map(|it| list(&it.globs, Use::Reference)).collect(),
        skip: pair.skip.iter().map(|it| list(&it.globs, Use::Either)).collect(),
        qtype: pair.qtype.iter().map(|it| list(&it.globs, Use::Either)).collect(),
        transform: pair.transform.iter().map(|it| list(&it.globs, Use::Reference)).collect(),
        scheme: pair.scheme.iter().map(|it| list(&it.globs, Use::Either)).collect(),
        companions: pair.companions.iter().map(|it| list(&it.globs, Use::Either)).collect(),
        allow_missing: list(&pair.allow_missing, Use::Reference),
        allow_extra: list(&pair.allow_extra, Use::Quantized),
        nonzero: list(&pair.nonzero, Use::Either),
        metadata_equal: list(&pair.metadata_equal, Use::Metadata),
    }
}

impl<'a> Resolver<'a> {
    /// The pair.
    pub fn pair(&self) -> &'a Pair {
        self.pair
    }

    /// What applies to a tensor, by its reference name.
    pub fn tensor(&self, name: &str) -> Tensor<'_, 'a> {
        Tensor { resolver: self, matches: self.set.matches(name) }
    }

    /// The bound of a metric for a tensor, if it has one.
    pub fn bound_for(&self, metric: Metric, name: &str) -> Option<Effective<'a>> {
        self.tensor(name).bound(metric)
    }

    /// The bound of a metric for all float tensors as one vector.
    pub fn global_bound(&self, metric: Metric) -> Option<Effective<'a>> {
        let bound = self.pair.thresholds.global.get(metric)?;
        let origin = Origin::Threshold;
        Some(Effective { metric, bound, origin, waiver: None, expired: None })
    }

    /// The reference name of a tensor of the quantized model.
    pub fn rename(&self, name: &str) -> String {
        self.pair.rename.iter().fold(name.to_owned(), |name, rename| {
            rename.regex.replace_all(&name, rename.to.as_str()).into_owned()
        })
    }

    /// Must this metadata key be equal on both sides?
    pub fn metadata_equal(&self, key: &str) -> bool {
        let matches = self.set.matches(key);
        self.parts.metadata_equal.clone().any(|index| matches.matched(index))
    }

    /// May this tensor of the reference be missing?
    pub fn allows_missing(&self, name: &str) -> bool {
        let matches = self.set.matches(name);
        self.parts.allow_missing.clone().any(|index| matches.matched(index))
    }

    /// May this tensor, by its renamed name, be in the quantized model alone?
    pub fn allows_extra(&self, name: &str) -> bool {
        let matches = self.set.matches(name);
        self.parts.allow_extra.clone().any(|index| matches.matched(index))
    }

    /// Which globs and renames match something, of the reference's tensors, the quantized model's
    /// stored names, and the metadata keys of both.
    pub fn usage<'n>(
        &self,
        reference: impl IntoIterator<Item = &'n str>,
        quantized: impl IntoIterator<Item = &'n str>,
        metadata: impl IntoIterator<Item = &'n str>,
    ) -> Usage {
        let mut usage = Usage {
            globs: vec![false; self.patterns.len()],
            renames: vec![false; self.pair.rename.len()],
        };
        for name in reference {
            self.note(&mut usage, name, &[Use::Reference, Use::Either]);
        }
        for name in quantized {
            let mut name = name.to_owned();
            for (rename, used) in self.pair.rename.iter().zip(&mut usage.renames) {
                if rename.regex.is_match(&name) {
                    *used = true;
                    name = rename.regex.replace_all(&name, rename.to.as_str()).into_owned();
                }
            }
            self.note(&mut usage, &name, &[Use::Quantized, Use::Either]);
        }
        for key in metadata {
            self.note(&mut usage, key, &[Use::Metadata]);
        }
        usage
    }

    fn note(&self, usage: &mut Usage, name: &str, uses: &[Use]) {
        for index in self.set.matches(name).iter() {
            let fits = self.patterns.get(index).is_some_and(|entry| uses.contains(&entry.use_));
            if let Some(used) = usage.globs.get_mut(index).filter(|_| fits) {
                *used = true;
            }
        }
    }

    /// Errors for the globs and renames that only this pair has and that match nothing.
    pub fn unmatched(&self, usage: &Usage) -> Vec<Diagnostic> {
        let mut unmatched: Vec<_> = patterns_of(self.pair, Some(usage))
            .into_iter()
            .filter(|(pattern, matched, _)| !pattern.shared && !matched)
            .map(|(pattern, _, noun)| {
                let message = format!("{} matches no {noun}", describe(pattern));
                let help = format!("correct or remove it; it applies to {:?}", self.pair.name);
                Diagnostic::error(&self.spec.source, pattern.at.clone(), message).help(help)
            })
            .collect();
        unmatched.sort_by_key(|finding| finding.location.start);
        unmatched
    }

    /// Warnings for rules that match tensors but decide none of their metrics, earlier rules
    /// deciding them all. `names` are the tensors of the reference.
    pub fn shadowed_rules<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Vec<Diagnostic> {
        // Per rule: does it match anything, does it decide anything?
        let mut matched = vec![(false, false); self.pair.rules.len()];
        for name in names {
            let tensor = self.tensor(name);
            let rules: Vec<usize> = tensor.rules().map(|(index, _)| index).collect();
            for (place, &index) in rules.iter().enumerate() {
                let earlier = || rules[..place].iter().filter_map(|&it| self.pair.rules.get(it));
                let Some(rule) = self.pair.rules.get(index) else { continue };
                let decides = rule
                    .bounds
                    .iter()
                    .any(|(metric, _)| earlier().all(|it| it.bounds.get(metric).is_none()))
                    || rule
                        .integrity
                        .iter()
                        .any(|(gate, _)| earlier().all(|it| it.integrity.get(gate).is_none()));
                if let Some(noted) = matched.get_mut(index) {
                    *noted = (true, noted.1 || decides);
                }
            }
        }
        let shadowed = self.pair.rules.iter().zip(&matched).filter(|(_, it)| **it == (true, false));
        shadowed
            .map(|(rule, _)| {
                let message = "the rule decides nothing: earlier rules match all its tensors";
                Diagnostic::warning(&self.spec.source, rule.at.clone(), message)
                    .help("rules are ordered: put the narrower one first, or remove this one")
            })
            .collect()
    }

    /// Warnings for the live waivers that were not needed: none of `used`, the indices that
    /// [`Judgement::Waived`] gave over all tensors of the pair.
    pub fn unused_waivers(&self, used: &[usize]) -> Vec<Diagnostic> {
        let waivers = self.pair.waivers.iter().enumerate();
        waivers
            .filter(|(index, waiver)| self.is_live(waiver) && !used.contains(index))
            .map(|(_, waiver)| {
                let message = "the waiver is not needed: every tensor holds its normal bound";
                Diagnostic::warning(&self.spec.source, waiver.at.clone(), message).help("remove it")
            })
            .collect()
    }

    fn is_live(&self, waiver: &Waiver) -> bool {
        self.spec.today <= waiver.until.value
    }
}

impl<'a> Tensor<'_, 'a> {
    fn any(&self, range: &Range<usize>) -> bool {
        range.clone().any(|index| self.matches.matched(index))
    }

    /// The items of a list that match the tensor, with their indices.
    fn matching<'s, T>(
        &'s self,
        items: &'a [T],
        ranges: &'s [Range<usize>],
    ) -> impl Iterator<Item = (usize, &'a T)> + 's {
        items
            .iter()
            .zip(ranges)
            .enumerate()
            .filter_map(|(index, (item, range))| self.any(range).then_some((index, item)))
    }

    /// The rules that match, in order.
    pub fn rules(&self) -> impl Iterator<Item = (usize, &'a Rule)> + '_ {
        self.matching(&self.resolver.pair.rules, &self.resolver.parts.rules)
    }

    /// The bound of a metric, if the tensor has one.
    pub fn bound(&self, metric: Metric) -> Option<Effective<'a>> {
        let of_rule = self.rules().find_map(|(index, rule)| {
            rule.bounds.get(metric).map(|bound| (bound, Origin::Rule(index)))
        });
        let of_threshold = || {
            let bound = self.resolver.pair.thresholds.tensor.get(metric)?;
            Some((bound, Origin::Threshold))
        };
        let (bound, origin) = of_rule.or_else(of_threshold)?;
        let mut effective = Effective { metric, bound, origin, waiver: None, expired: None };
        let waivers = self.matching(&self.resolver.pair.waivers, &self.resolver.parts.waivers);
        for (index, waiver) in waivers {
            let Some(floor) = waiver.bounds.get(metric).and_then(|bound| bound.fail) else {
                continue;
            };
            if !self.resolver.is_live(waiver) {
                effective.expired.get_or_insert(index);
            } else if effective.waiver.is_none_or(|(_, lowest)| {
                floor != lowest && metric.at_least_as_strict(lowest, floor)
            }) {
                effective.waiver = Some((index, floor));
            }
        }
        Some(effective)
    }

    /// All bounds of the tensor, in the order of [`Metric::ALL`].
    pub fn bounds(&self) -> impl Iterator<Item = Effective<'a>> + '_ {
        Metric::ALL.into_iter().filter_map(|metric| self.bound(metric))
    }

    /// The first skip that matches.
    pub fn skip(&self) -> Option<&'a Skip> {
        let mut skips = self.matching(&self.resolver.pair.skip, &self.resolver.parts.skip);
        skips.next().map(|(_, skip)| skip)
    }

    /// May the tensor be missing from the quantized model?
    pub fn may_be_missing(&self) -> bool {
        self.any(&self.resolver.parts.allow_missing)
    }

    /// May the tensor be in the quantized model alone?
    pub fn may_be_extra(&self) -> bool {
        self.any(&self.resolver.parts.allow_extra)
    }

    /// The first glob by which the tensor must not be all zero.
    pub fn nonzero(&self) -> Option<&'a Pattern> {
        let globs = self.resolver.pair.nonzero.iter().zip(self.resolver.parts.nonzero.clone());
        globs.into_iter().find(|(_, index)| self.matches.matched(*index)).map(|(glob, _)| glob)
    }

    /// What the spec says about the tensor's stored type; all of it must hold.
    pub fn qtypes(&self) -> impl Iterator<Item = (usize, &'a QtypeRule)> + '_ {
        self.matching(&self.resolver.pair.qtype, &self.resolver.parts.qtype)
    }

    /// What the converter did to the tensor: the first transformation that matches.
    pub fn transform(&self) -> Option<&'a Transform> {
        let parts = &self.resolver.parts.transform;
        self.matching(&self.resolver.pair.transform, parts).next().map(|(_, it)| it)
    }

    /// The storage scheme that the spec states: the first that matches.
    pub fn scheme(&self) -> Option<&'a Scheme> {
        self.matching(&self.resolver.pair.scheme, &self.resolver.parts.scheme)
            .next()
            .map(|(_, it)| it)
    }

    /// Planes that must exist beside the tensor; all of them must.
    pub fn companions(&self) -> impl Iterator<Item = &'a Companions> + '_ {
        self.matching(&self.resolver.pair.companions, &self.resolver.parts.companions)
            .map(|(_, it)| it)
    }

    /// The groups that the tensor is counted in, with their indices.
    pub fn groups(&self) -> impl Iterator<Item = (usize, &'a Group)> + '_ {
        self.matching(&self.resolver.pair.groups, &self.resolver.parts.groups)
    }

    /// What the spec says about an integrity gate for the tensor: the first rule that does, else
    /// the pair; `None` leaves the gate's default.
    pub fn integrity(&self, gate: Gate) -> Option<&'a Setting> {
        self.rules()
            .find_map(|(_, rule)| rule.integrity.get(gate))
            .or_else(|| self.resolver.pair.integrity.get(gate))
    }
}

impl Group {
    /// Does a tensor with these values hold all bounds of the group? A metric that it does not
    /// have is NaN and holds nothing.
    pub fn holds(&self, value: impl Fn(Metric) -> f64) -> bool {
        self.bounds
            .iter()
            .all(|(metric, bound)| bound.judge(metric, value(metric)) != Judgement::Fail)
    }
}

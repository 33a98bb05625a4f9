/*!
Which demands of a pair apply to a tensor: the first rule, the waiver, the skip, the gates.

A [`Resolver`] is built when a pair is run, not when its spec is read: compiling globs is the
costly part of a spec. It holds no state; what matched is the caller's to gather in a
[`super::Usage`].
*/

use std::ops::Range;

use regex::{RegexSet, RegexSetBuilder, SetMatches};

use super::pattern::glob_to_regex;
use super::{
    Companions, Diagnostic, Effective, Gate, Group, Origin, Pair, Pattern, QtypeRule, Rule, Scheme,
    Setting, Skip, Spec, SpecErrors, Transform, Waiver,
};
use crate::fault::Fault;
use crate::metrics::Metric;

/// A pair's demands, ready to be asked about tensors.
pub struct Resolver<'a> {
    pub(super) spec: &'a Spec,
    pub(super) pair: &'a Pair,
    /// All globs of the pair.
    pub(super) set: RegexSet,
    /// The globs, by index into the set.
    pub(super) patterns: Vec<Entry<'a>>,
    parts: Parts,
}

/// A glob of a pair and what it is used for.
pub(super) struct Entry<'a> {
    pub pattern: &'a Pattern,
    pub use_: Use,
}

/// What a glob is used for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Use {
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
pub(super) struct Parts {
    rules: Vec<Range<usize>>,
    waivers: Vec<Range<usize>>,
    groups: Vec<Range<usize>>,
    skip: Vec<Range<usize>>,
    qtype: Vec<Range<usize>>,
    transform: Vec<Range<usize>>,
    scheme: Vec<Range<usize>>,
    companions: Vec<Range<usize>>,
    survivors: Vec<Range<usize>>,
    allow_missing: Range<usize>,
    allow_extra: Range<usize>,
    nonzero: Range<usize>,
    metadata_equal: Range<usize>,
}

/// What applies to one tensor.
pub struct Tensor<'r, 'a> {
    resolver: &'r Resolver<'a>,
    matches: SetMatches,
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
}

/// Lists all globs of a pair, in one fixed order.
pub(super) fn enter<'a>(pair: &'a Pair, patterns: &mut Vec<Entry<'a>>) -> Parts {
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
        survivors: pair.allow_survivor.iter().map(|it| list(&it.globs, Use::Either)).collect(),
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

    /// What allows a fault of a tensor, or of the whole model, to go unnoticed: the index of the
    /// first that does.
    pub fn survivor(&self, fault: Fault, tensor: Option<&str>) -> Option<usize> {
        let matches = tensor.map(|name| self.set.matches(name));
        let survivors = self.pair.allow_survivor.iter().zip(&self.parts.survivors);
        survivors.into_iter().position(|(survivor, globs)| {
            let matches = matches.as_ref();
            let here = globs.is_empty()
                || matches.is_some_and(|it| globs.clone().any(|index| it.matched(index)));
            here && survivor.faults.contains(&fault)
        })
    }

    pub(super) fn is_live(&self, waiver: &Waiver) -> bool {
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

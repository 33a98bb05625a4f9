/*!
What of a spec was of no use: globs that match nothing, rules that decide nothing, waivers that
nothing needs.
*/

use std::collections::{BTreeMap, HashMap};

use super::resolve::{Use, enter};
use super::table::quoted;
use super::{Diagnostic, Pair, Pattern, Resolver, Spec};

/// Which globs and renames of a pair have matched something.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    globs: Vec<bool>,
    renames: Vec<bool>,
}

impl Spec {
    /// Errors for the defaults of this file, and the globs of matrix pairs, that match nothing in
    /// any pair that has them. A pair that has them and is not given here may have matched: then
    /// nothing is said. What only one pair has is [`Resolver::unmatched`]'s to report.
    pub fn unmatched_shared(&self, of_pairs: &[(&Pair, Usage)]) -> Vec<Diagnostic> {
        // Patterns are told apart by where they are written.
        let mut verdicts: BTreeMap<u32, (&Pattern, &'static str, bool)> = BTreeMap::new();
        let usages: HashMap<&str, &Usage> =
            of_pairs.iter().map(|(pair, usage)| (pair.name.as_str(), usage)).collect();
        for pair in &self.pairs {
            let usage = usages.get(pair.name.as_str()).copied();
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
    quoted(&pattern.text)
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

impl Resolver<'_> {
    /// Which globs and renames match something, of the reference's tensors, the quantized model's
    /// tensors, its stored `planes` (which only what is allowed to be extra may name), and the metadata
    /// keys of both.
    pub fn usage<'n>(
        &self,
        reference: impl IntoIterator<Item = &'n str>,
        quantized: impl IntoIterator<Item = &'n str>,
        planes: impl IntoIterator<Item = &'n str>,
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
        for name in planes {
            self.note(&mut usage, name, &[Use::Quantized]);
        }
        for key in metadata {
            self.note(&mut usage, key, &[Use::Metadata]);
        }
        usage
    }

    fn note(&self, usage: &mut Usage, name: &str, uses: &[Use]) {
        for index in &self.set.matches(name) {
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
    /// [`super::Judgement::Waived`] gave over all tensors of the pair.
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
}

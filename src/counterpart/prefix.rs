/*!
Names that differ by their beginnings only: `model.language_model.` in one checkpoint, and
`language_model.model.` in the other. Transformers has moved such prefixes more than once, and text-only
extractions drop them.

Names propose and values decide: the weights behind a prefix must be the reference's on a sample. GGUF
has one name for each tensor; a file with others is broken.
*/

use std::collections::{BTreeMap, HashMap, HashSet};

use super::sample::{Likeness, likeness};
use crate::model::{Format, Model};

/// Most parts of a prefix: `model.language_model.model.`.
const PARTS: usize = 4;

/// Fewest parts of what is behind a prefix: `.weight` alone is every tensor's.
const TAIL: usize = 2;

/// Weights of a prefix whose values are looked at.
const LOOKED_AT: usize = 8;

/// Most prefixes of the reference before one tail: a tail that more have says nothing about any of them.
const PREFIXES: usize = 64;

/// A prefix of the quantized model's names, and the reference's in its place.
type Prefixes = (String, String);

/// Gives `quantized` the reference's names where they differ by prefixes, and says so.
pub fn align(reference: &Model, quantized: &mut Model) -> Vec<String> {
    if [reference.format, quantized.format] != [Format::Safetensors; 2] {
        return Vec::new();
    }
    let mut notes = Vec::new();
    let mut taken = HashSet::new();
    let mut renamed: HashMap<String, String> = HashMap::new();
    let (tensors, known) = (quantized.by_name(), reference.by_name());
    for ((from, to), names) in proposals(reference, quantized) {
        let pairs: Vec<(usize, usize)> = names
            .iter()
            .filter(|(_, to)| !taken.contains(to))
            .map(|(from, to)| (tensors[from.as_str()], known[to.as_str()]))
            .collect();
        match judge(reference, quantized, &pairs) {
            Likeness::Same => {
                notes.push(format!(
                    "names differ by a prefix: {from:?} is {to:?} in the reference ({} tensors; \
                     inferred from names, and from values on a sample)",
                    pairs.len()
                ));
                for (index, counterpart) in pairs {
                    let name = &reference.tensors[counterpart].name;
                    renamed.insert(quantized.tensors[index].name.clone(), name.clone());
                    taken.insert(name.clone());
                }
            }
            Likeness::Other => notes.push(format!(
                "names of {} tensors differ by a prefix, {from:?} and {to:?} in the reference, but \
                 their values are others",
                pairs.len()
            )),
            Likeness::Unclear => notes.push(format!(
                "names of {} tensors differ by a prefix, {from:?} and {to:?} in the reference; \
                 their values do not say whether they are the same, and they are not compared: \
                 `rename` in a spec does it",
                pairs.len()
            )),
        }
    }
    rename(quantized, &renamed);
    notes
}

/// Gives tensors other names, also where something was found about them.
fn rename(model: &mut Model, names: &HashMap<String, String>) {
    if names.is_empty() {
        return;
    }
    let of_findings = model.findings.iter_mut().map(|finding| &mut finding.tensor);
    for name in model.tensors.iter_mut().map(|tensor| &mut tensor.name).chain(of_findings) {
        if let Some(other) = names.get(name) {
            name.clone_from(other);
        }
    }
    model.tensors.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Tensors that one side only has, by the prefixes in which their names differ: names of the
/// quantized model and of the reference.
fn proposals(reference: &Model, quantized: &Model) -> BTreeMap<Prefixes, Vec<(String, String)>> {
    let (own, other) = (names(reference), names(quantized));
    let mut tails: HashMap<&str, Vec<&str>> = HashMap::new();
    for name in own.difference(&other) {
        for (prefix, tail) in cuts(name) {
            tails.entry(tail).or_default().push(prefix);
        }
    }
    // For each name the longest tail; of several prefixes before it, the one that most names have.
    let mut candidates: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    let mut votes: HashMap<(&str, &str), usize> = HashMap::new();
    for name in other.difference(&own) {
        let found = cuts(name).find_map(|(prefix, tail)| Some((prefix, tail, tails.get(tail)?)));
        let few = found.filter(|(.., counterparts)| counterparts.len() <= PREFIXES);
        let Some((prefix, tail, counterparts)) = few else { continue };
        for counterpart in counterparts {
            *votes.entry((prefix, *counterpart)).or_default() += 1;
        }
        candidates.push((prefix, tail, counterparts.clone()));
    }
    let mut proposals: BTreeMap<Prefixes, Vec<(String, String)>> = BTreeMap::new();
    candidates.sort_unstable();
    for (prefix, tail, counterparts) in candidates {
        let most = counterparts.iter().max_by_key(|to| (votes[&(prefix, **to)], **to));
        if let Some(to) = most {
            let key = (prefix.to_owned(), (*to).to_owned());
            let names = (format!("{prefix}{tail}"), format!("{to}{tail}"));
            proposals.entry(key).or_default().push(names);
        }
    }
    proposals
}

fn names(model: &Model) -> HashSet<&str> {
    model.tensors.iter().map(|tensor| tensor.name.as_str()).collect()
}

/// A name as prefix and tail, the shortest prefix first.
fn cuts(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let dots = name.match_indices('.').map(|(at, _)| at + 1);
    let parts = dots.clone().count() + 1;
    let most = PARTS.min(parts.saturating_sub(TAIL));
    std::iter::once(0).chain(dots).take(most + 1).map(|at| name.split_at(at))
}

/// Whether the weights are the reference's: most of those that are looked at must be.
fn judge(reference: &Model, quantized: &Model, pairs: &[(usize, usize)]) -> Likeness {
    let fits = |(index, counterpart): &&(usize, usize)| {
        let (own, other) = (&reference.tensors[*counterpart], &quantized.tensors[*index]);
        own.shape == other.shape && own.shape.len() >= 2
    };
    let fitting: Vec<&(usize, usize)> = pairs.iter().filter(fits).collect();
    let step = fitting.len().div_ceil(LOOKED_AT).max(1);
    let (mut same, mut others) = (0, 0);
    for (index, counterpart) in fitting.into_iter().step_by(step) {
        let own = (reference, &reference.tensors[*counterpart]);
        match likeness(own, (quantized, &quantized.tensors[*index])) {
            Ok(Likeness::Same) => same += 1,
            Ok(Likeness::Other) => others += 1,
            // A tensor that cannot be read is reported where it is measured.
            Ok(Likeness::Unclear) | Err(_) => {}
        }
    }
    match (same, others) {
        (0, 0) => Likeness::Unclear,
        _ if same > others => Likeness::Same,
        _ => Likeness::Other,
    }
}

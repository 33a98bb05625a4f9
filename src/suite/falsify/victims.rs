/*!
Which tensors get faults: one of each class that is stored and judged alike.
*/

use std::collections::{BTreeMap, HashMap};

use crate::model::{Model, Storage};
use crate::spec::{Gate, Resolver, Tensor};

/// A tensor that faults are put into.
#[derive(Clone, Debug)]
pub struct Victim {
    /// Index into the quantized model's tensors.
    pub target: usize,
    /// Index of the tensor of the reference that it answers to.
    pub answer: Option<usize>,
    /// Its reference name.
    pub name: String,
    /// Its type or scheme.
    pub qtype: String,
    /// Tensors of its class.
    pub alike: u64,
}

/// One tensor of each class: the smallest, of equals the first by name. Tensors that the spec skips
/// are not compared, and have no part in this.
pub fn victims(reference: &Model, quantized: &Model, resolver: &Resolver) -> Vec<Victim> {
    let answers: HashMap<&str, usize> = reference.by_name();
    let mut classes: BTreeMap<String, (u64, Victim)> = BTreeMap::new();
    for (target, tensor) in quantized.tensors.iter().enumerate() {
        let name = resolver.rename(&tensor.name);
        let of_spec = resolver.tensor(&name);
        if of_spec.skip().is_some() || matches!(tensor.storage, Storage::Undecodable { .. }) {
            continue;
        }
        let answer = answers.get(name.as_str()).copied();
        let of_reference = answer.map_or("", |at| reference.tensors[at].qtype());
        let wide = tensor.shape.iter().filter(|&&extent| extent > 1).count();
        let class =
            format!("{} {of_reference} {} {}", tensor.qtype(), wide.clamp(1, 3), demands(&of_spec));
        let size = tensor.stored_bytes();
        let qtype = tensor.qtype().to_owned();
        let victim = Victim { target, answer, name, qtype, alike: 1 };
        match classes.get_mut(&class) {
            None => {
                classes.insert(class, (size, victim));
            }
            Some((smallest, chosen)) => {
                let alike = chosen.alike + 1;
                if (size, &victim.name) < (*smallest, &chosen.name) && size > 0 || *smallest == 0 {
                    (*smallest, *chosen) = (size, victim);
                }
                chosen.alike = alike;
            }
        }
    }
    let mut victims: Vec<Victim> = classes.into_values().map(|(_, victim)| victim).collect();
    victims.sort_by(|a, b| a.name.cmp(&b.name));
    victims
}

/// Everything that the spec demands of a tensor, as a key: equal keys mean equal demands.
fn demands(tensor: &Tensor) -> String {
    use std::fmt::Write as _;
    let mut key = String::new();
    for effective in tensor.bounds() {
        let (bound, waiver) = (effective.bound, effective.waiver);
        let _ = write!(key, "{}{:?}{:?}{waiver:?};", effective.metric, bound.fail, bound.warn);
    }
    for gate in Gate::ALL {
        if let Some(setting) = tensor.integrity(gate) {
            let _ = write!(key, "{gate}{setting:?};");
        }
    }
    for (index, _) in tensor.qtypes() {
        let _ = write!(key, "qtype{index};");
    }
    if let Some(glob) = tensor.nonzero() {
        let _ = write!(key, "nonzero{:?};", glob.text);
    }
    for companions in tensor.companions() {
        let _ = write!(key, "companions{:?};", companions.suffixes);
    }
    if let Some(transform) = tensor.transform() {
        let _ = write!(key, "{:?};", transform.apply);
    }
    let _ = write!(key, "{}", tensor.may_be_missing());
    key
}

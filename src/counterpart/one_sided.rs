/*!
What one of two models of the same layout may lack: buffers that a model computes when it is built, and an
output head that its configuration ties to the embedding.
*/

use std::collections::{BTreeMap, HashMap, HashSet};

use super::apply::{Depth, Mapped, list, same_values};
use super::facts::Facts;
use super::map::applies;
use super::names;
use super::table::Table;
use crate::model::view::View;
use crate::model::{Model, Tensor};

/// Whether a model has tensors that another of the same layout may lack.
pub fn may_lack(model: &Model) -> bool {
    let table = Table::built_in();
    model.tensors.iter().any(|tensor| buffer(table, tensor).is_some())
}

/// Why a tensor is a buffer, if it is one.
fn buffer<'a>(table: &'a Table, tensor: &Tensor) -> Option<&'a str> {
    let facts = Facts::default();
    let found = table.buffers().find(|(_, one)| applies(one, table, &facts, tensor));
    found.map(|(why, _)| why)
}

/// Sets aside what only one side has and need not have.
pub fn apply(reference: Model, quantized: &Model, depth: Depth) -> Mapped {
    let mut mapped = Mapped::unmapped(reference);
    buffers(&mut mapped, quantized);
    tied(&mut mapped, quantized, depth);
    mapped
}

fn buffers(mapped: &mut Mapped, quantized: &Model) {
    let table = Table::built_in();
    let alone = |model: &Model, other: &Model| {
        let known: HashSet<&str> = other.tensors.iter().map(|it| it.name.as_str()).collect();
        let mut alone: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for tensor in model.tensors.iter().filter(|it| !known.contains(it.name.as_str())) {
            if let Some(why) = buffer(table, tensor) {
                alone.entry(why).or_default().push(tensor.name.clone());
            }
        }
        alone
    };
    let of_reference = alone(&mapped.reference, quantized);
    let of_quantized = alone(quantized, &mapped.reference);
    for (side, all) in [("reference", &of_reference), ("quantized model", &of_quantized)] {
        for (why, names) in all {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            mapped.notes.push(list(&format!("in the {side} alone, not compared: {why}"), &names));
        }
    }
    let lacking: HashSet<String> = of_reference.into_values().flatten().collect();
    mapped.reference.tensors.retain(|tensor| !lacking.contains(&tensor.name));
    mapped.set_aside.extend(of_quantized.into_values().flatten());
}

fn tied(mapped: &mut Mapped, quantized: &Model, depth: Depth) {
    let sides = [&mapped.reference, quantized];
    let says = |model: &Model| Facts::beside(Some(model)).number("tie_word_embeddings", None);
    if !sides.into_iter().any(|model| says(model) == Some(1.0)) {
        return;
    }
    let index = |model: &Model| names::index(model.tensors.iter().map(|it| it.name.as_str()));
    let (of_reference, of_quantized) = (index(&mapped.reference), index(quantized));
    let own = |index: &HashMap<String, usize>, name: &str| index.get(name).copied();
    let mut gone = None;
    for (copy, of) in Table::built_in().copies() {
        let in_reference = (own(&of_reference, copy), own(&of_reference, of));
        let in_quantized = (own(&of_quantized, copy), own(&of_quantized, of));
        match (in_reference, in_quantized) {
            ((None, Some(of)), (Some(copy), _)) => {
                let (copy, of) = (&quantized.tensors[copy], mapped.reference.tensors[of].clone());
                mapped.notes.push(format!(
                    "{} is tied to {} (tie_word_embeddings): it is compared with it",
                    copy.name, of.name
                ));
                mapped.recipes.insert(copy.name.clone(), View::of(&of).recipe());
                mapped.reference.tensors.push(Tensor { name: copy.name.clone(), ..of });
            }
            ((Some(copy), Some(of)), (None, Some(_))) => {
                let repeats = depth == Depth::Names
                    || same_values(&mapped.reference, copy, of).unwrap_or(false);
                let (copy, of) =
                    (&mapped.reference.tensors[copy].name, &mapped.reference.tensors[of].name);
                let tie = format!("{copy} is tied to {of} (tie_word_embeddings)");
                if repeats {
                    mapped.notes.push(format!("{tie}: the quantized model need not repeat it"));
                    gone = Some(copy.clone());
                } else {
                    mapped.notes.push(format!("{tie}, but the reference's differs from it"));
                }
            }
            _ => {}
        }
    }
    mapped.reference.tensors.retain(|tensor| Some(&tensor.name) != gone.as_ref());
    mapped.reference.tensors.sort_by(|a, b| a.name.cmp(&b.name));
}

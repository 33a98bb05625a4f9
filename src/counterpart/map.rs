/*!
The map of a pair: what each tensor of the converted model is made of, and what only one side has.
*/

use std::collections::{BTreeMap, HashMap, HashSet};

use super::facts::{Facts, Names};
use super::names;
use super::resolve::{Checkpoint, Unresolved};
use super::table::{OneSided, Rules, Table};
use crate::model::view::View;
use crate::model::{Model, Tensor};

/// What each tensor of a converted model is made of.
#[derive(Debug, Default)]
pub struct Map {
    /// The class whose rules these are.
    pub class: String,
    /// Every tensor of the converted model that has a rule, in the order of its tensors.
    pub entries: Vec<Entry>,
    /// Tensors of the converted model for which there is no rule, by index.
    pub unknown: Vec<usize>,
    /// Tensors of the checkpoint that may be left out, by reason.
    pub left_out: BTreeMap<String, Vec<usize>>,
    /// Tensors of the checkpoint that may be left out if they repeat another, and that other.
    pub copies: Vec<(usize, usize)>,
    /// Tensors of the checkpoint that nothing is made of.
    pub unused: Vec<usize>,
}

/// What a tensor of the converted model is made of.
#[derive(Debug)]
pub struct Entry {
    /// The tensor, by index.
    pub tensor: usize,
    /// What it may be made of, the first unless its values say otherwise; or why that cannot be said.
    pub views: Result<Vec<View>, String>,
}

impl Map {
    /// Applies rules to a pair.
    pub fn new(
        table: &Table,
        rules: &Rules,
        facts: &Facts,
        checkpoint: &Model,
        converted: &Model,
    ) -> Self {
        let index = index(table, rules, facts, checkpoint);
        let asked = Checkpoint { model: checkpoint, index: &index, facts, table };
        let mut map = Self { class: rules.class.clone(), ..Self::default() };
        let mut used = HashSet::new();
        for (at, tensor) in converted.tensors.iter().enumerate() {
            let Some(views) = views(&asked, rules, &tensor.name, &tensor.shape) else {
                map.unknown.push(at);
                continue;
            };
            let sources = views.iter().flatten().flat_map(View::sources);
            used.extend(sources.map(|source| source.name.clone()));
            map.entries.push(Entry { tensor: at, views });
        }
        map.sort_out(rules, table, facts, (checkpoint, &index, &used));
        map
    }

    /// Says of everything that is on one side only whether that is as it should be.
    fn sort_out(
        &mut self,
        rules: &Rules,
        table: &Table,
        facts: &Facts,
        (checkpoint, index, used): (&Model, &HashMap<String, usize>, &HashSet<String>),
    ) {
        let left_out: Vec<(&str, &OneSided)> = rules.left_out().collect();
        for (at, tensor) in checkpoint.tensors.iter().enumerate() {
            if used.contains(&tensor.name) {
                continue;
            }
            let plain = names::plain(&tensor.name);
            let mut copies = rules.copies().filter(|(copy, _)| *copy == plain);
            let original = copies.find_map(|(_, of)| index.get(of));
            if let Some(original) = original {
                self.copies.push((at, *original));
            } else if let Some((why, _)) =
                left_out.iter().find(|(_, one)| applies(one, table, facts, tensor))
            {
                self.left_out.entry((*why).to_owned()).or_default().push(at);
            } else {
                self.unused.push(at);
            }
        }
    }
}

/// Whether a tensor, by its plain name, is one that one side may lack; `rank` is the number of its axes.
pub fn applies(one: &OneSided, table: &Table, facts: &Facts, tensor: &Tensor) -> bool {
    let Some(mut captures) = one.pattern.captures(&names::plain(&tensor.name)) else {
        return false;
    };
    captures.numbers.push(("rank".to_owned(), tensor.shape.len() as f64));
    let names = Names { facts, variables: &table.variables, own: &captures.numbers };
    let holds = |when| number_of(when, &names) != 0.0;
    one.when.as_ref().is_none_or(holds)
}

/// A condition's value; one that is not known does not hold.
fn number_of(number: &super::number::Number, names: &Names) -> f64 {
    number.value(&|name| names.number(name)).unwrap_or(0.0)
}

/// Indices of the checkpoint's tensors by plain name and by the other names that the rules give them.
fn index(
    table: &Table,
    rules: &Rules,
    facts: &Facts,
    checkpoint: &Model,
) -> HashMap<String, usize> {
    let mut index = names::index(checkpoint.tensors.iter().map(|tensor| tensor.name.as_str()));
    for (pattern, other) in rules.other_names() {
        let found: Vec<(String, usize)> = index
            .iter()
            .filter_map(|(name, at)| {
                let captures = pattern.captures(name)?;
                let names = Names { facts, variables: &table.variables, own: &captures.numbers };
                Some((other.fill(&captures.star, &|name| names.number(name))?, *at))
            })
            .collect();
        for (name, at) in found {
            index.entry(name).or_insert(at);
        }
    }
    index
}

/// What a tensor may be made of: the first rule that applies and gives its shape, or every such rule of
/// one choice where the values decide. Without one, the first that applies says what is wrong. `None` if
/// no rule is for this tensor and checkpoint.
fn views(
    checkpoint: &Checkpoint,
    rules: &Rules,
    name: &str,
    shape: &[u64],
) -> Option<Result<Vec<View>, String>> {
    let mut misfit = None;
    let mut problem = None;
    for (pattern, choice) in rules.choices() {
        let Some(captures) = pattern.captures(name) else { continue };
        let mut fitting = Vec::new();
        for rule in &choice.rules {
            match checkpoint.resolve(rule, &captures, shape) {
                Ok(view) if view.shape() == shape => {
                    fitting.push(view);
                    if !choice.by_values {
                        break;
                    }
                }
                Ok(view) => misfit = misfit.or(Some(view)),
                Err(Unresolved::Problem(why)) => problem = problem.or(Some(why)),
                Err(Unresolved::NotHere) => {}
            }
        }
        if !fitting.is_empty() {
            return Some(Ok(fitting));
        }
    }
    misfit.map(|view| Ok(vec![view])).or_else(|| problem.map(Err))
}

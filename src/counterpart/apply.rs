/*!
A map, applied: a pair's reference with its tensors as the converter would have written them.
*/

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::align::align;
use super::facts::Facts;
use super::infer::{Inferred, infer};
use super::inverse;
use super::map::Map;
use super::one_sided;
use super::table::Table;
use crate::model::view::{Recipe, View};
use crate::model::{Format, Model, ModelError, ReadError, Scratch, Storage, Tensor, place};
use crate::spec::{MapChoice, Pair};

/// Which map a pair uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The built-in table's, where one is needed.
    #[default]
    Automatic,
    /// None.
    Off,
    /// The built-in table's with this file before it.
    File(PathBuf),
}

/// Whether values may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Only names and shapes are needed.
    Names,
    /// Where the values decide, they do.
    Values,
}

/// What became of a pair's reference.
#[derive(Debug)]
pub struct Mapped {
    /// The reference under the quantized model's names; tensors that only it has keep theirs.
    pub reference: Model,
    /// The class whose rules were used; none if no map was.
    pub class: Option<String>,
    /// What each of its tensors is made of, by name, and how.
    pub recipes: BTreeMap<String, Recipe>,
    /// Why there is no way to make a tensor that has a rule, by name.
    pub problems: BTreeMap<String, String>,
    /// Tensors of the quantized model that are not compared.
    pub set_aside: HashSet<String>,
    /// What is left out, and what the values decided, for people.
    pub notes: Vec<String>,
}

impl Choice {
    /// What a spec says: where it renames, names are its own, and nothing is mapped.
    pub fn of(pair: &Pair) -> Self {
        match &pair.map {
            _ if !pair.rename.is_empty() => Self::Off,
            MapChoice::Automatic => Self::Automatic,
            MapChoice::Off => Self::Off,
            MapChoice::File(file) => Self::File(file.path.clone()),
        }
    }

    /// Whether a map may be used between these paths, as far as names of files tell; the quantized model's
    /// header need not be read where not.
    pub fn may_apply(&self, reference: &Path, quantized: &Path) -> bool {
        let configured = |path: &Path| {
            // Of a web server, only the file itself says whether it is there.
            let is_directory = place::is_directory(path).unwrap_or_default();
            let directory = if is_directory { Some(path) } else { path.parent() };
            directory.is_some_and(|directory| place::exists(&directory.join("config.json")))
        };
        match self {
            Self::Off => false,
            Self::Automatic => configured(reference) || configured(quantized),
            Self::File(_) => true,
        }
    }

    /// What a command line says: `none`, or a file.
    pub fn named(map: Option<&Path>) -> Self {
        match map {
            None => Self::Automatic,
            Some(word) if word == Path::new("none") => Self::Off,
            Some(file) => Self::File(file.to_owned()),
        }
    }
}

/// Makes the tensors of a pair answer to each other: aligns the names and layouts of two checkpoints, applies
/// the map, and takes out of the quantized model what is not compared. Values are read where they decide.
pub fn pair_up(
    reference: Model,
    quantized: &mut Model,
    choice: &Choice,
) -> Result<Mapped, ModelError> {
    let mut notes = if *choice == Choice::Off { Vec::new() } else { align(&reference, quantized) };
    let mut mapped = apply(reference, quantized, choice, Depth::Values)?;
    quantized.tensors.retain(|tensor| !mapped.set_aside.contains(&tensor.name));
    notes.append(&mut mapped.notes);
    mapped.notes = notes;
    Ok(mapped)
}

impl Mapped {
    /// A reference that is used as it is.
    pub fn unmapped(reference: Model) -> Self {
        Self {
            reference,
            class: None,
            recipes: BTreeMap::new(),
            problems: BTreeMap::new(),
            set_aside: HashSet::new(),
            notes: Vec::new(),
        }
    }
}

/// Finds the map of a pair and applies it to its reference. A map is used between a checkpoint and a GGUF
/// file whose names do not agree, or where one is named.
pub fn apply(
    reference: Model,
    quantized: &Model,
    choice: &Choice,
    depth: Depth,
) -> Result<Mapped, ModelError> {
    let own;
    let table = match choice {
        Choice::Off => return Ok(Mapped::unmapped(reference)),
        Choice::Automatic => Table::built_in(),
        Choice::File(path) => {
            own = Table::with_file(path).map_err(|problem| ModelError::new(path, problem))?;
            &own
        }
    };
    let asked_for = *choice != Choice::Automatic;
    let formats = reference.format != quantized.format;
    if !asked_for && (!formats || names_agree(&reference, quantized)) {
        return Ok(one_sided::apply(reference, quantized, depth));
    }
    let facts = Facts::of(&reference, quantized);
    let problem = facts.problem.iter().map(|problem| format!("no map: {problem}"));
    let Some(rules) = table.rules(&facts) else {
        let unknown: Vec<String> = problem.chain(no_rules(&facts)).collect();
        let mut mapped = inferred(reference, quantized);
        mapped.notes.splice(0..0, unknown);
        return Ok(mapped);
    };
    let backward = formats && quantized.format == Format::Safetensors;
    if backward {
        let map = Map::new(table, &rules, &facts, quantized, &reference);
        return Ok(inverse::apply(&reference, quantized, map));
    }
    let map = Map::new(table, &rules, &facts, &reference, quantized);
    Ok(forward(&reference, quantized, map, depth))
}

/// Whether as many names are the same as there would be without any conversion.
fn names_agree(reference: &Model, quantized: &Model) -> bool {
    let known: HashSet<&str> =
        reference.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let same = quantized.tensors.iter().filter(|tensor| known.contains(tensor.name.as_str()));
    2 * same.count() >= reference.tensors.len().min(quantized.tensors.len())
}

/// Says that there is no entry for a class, if the configuration names one.
fn no_rules(facts: &Facts) -> Option<String> {
    let classes = facts.classes();
    (!classes.is_empty()).then(|| {
        let known =
            format!("{} (general.architecture {:?})", classes.join(", "), facts.architecture());
        format!("no map: the table of architectures has no entry for {known}")
    })
}

/// Without rules, what values say on a sample; the rest is left as it is.
fn inferred(reference: Model, quantized: &Model) -> Mapped {
    let Inferred { mut views, unmatched } = infer(&reference, quantized);
    let known = reference.by_name();
    views.retain(|name, _| !known.contains_key(name.as_str()));
    let mut mapped = Mapped::unmapped(reference);
    if views.is_empty() {
        return mapped;
    }
    mapped.notes.push(format!(
        "this map is inferred: {} of {} tensors of the quantized model are matched by shape and by values \
         on a sample",
        views.len(),
        quantized.tensors.len()
    ));
    let unmatched: Vec<&str> = unmatched.iter().map(String::as_str).collect();
    if !unmatched.is_empty() {
        mapped.notes.push(list("values do not say what these are", &unmatched));
    }
    let used: HashSet<String> =
        views.values().flat_map(View::sources).map(|source| source.name.clone()).collect();
    mapped.reference.tensors.retain(|tensor| !used.contains(&tensor.name));
    for (name, view) in views {
        mapped.recipes.insert(name.clone(), view.recipe());
        mapped.reference.tensors.push(view.into_tensor(name));
    }
    mapped.reference.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    mapped
}

fn forward(checkpoint: &Model, converted: &Model, map: Map, depth: Depth) -> Mapped {
    let mut mapped = Mapped::unmapped(Model { tensors: Vec::new(), ..checkpoint.clone() });
    mapped.notes.push(format!(
        "the reference is read as a converter of {} would write it: `qualm map` shows how",
        map.class
    ));
    let mut decided: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for entry in map.entries {
        let tensor = &converted.tensors[entry.tensor];
        let made = match entry.views {
            Ok(views) => {
                let open = views.len() > 1;
                let view = match depth {
                    Depth::Values if open => closest(views, checkpoint, tensor, converted),
                    _ => views.into_iter().next(),
                };
                let Some(view) = view else { continue };
                let recipe = view.recipe();
                if open {
                    let how = recipe.to_string();
                    let how = how.split_once(": ").map_or("as they are", |(_, how)| how).to_owned();
                    decided.entry(how).or_default().push(&tensor.name);
                }
                mapped.recipes.insert(tensor.name.clone(), recipe);
                // Where a part is taken, the file may hold another: a diagnosis looks at the others.
                let whole = view.sources().all(|source| source.numel() <= view.numel());
                if whole {
                    view.into_tensor(&tensor.name)
                } else {
                    view.into_expression(&tensor.name)
                }
            }
            Err(problem) => {
                mapped.problems.insert(tensor.name.clone(), problem.clone());
                let (what, reason) = ("no counterpart".to_owned(), format!("its rule: {problem}"));
                let storage = Storage::Undecodable { what, reason, at: None };
                Tensor { name: tensor.name.clone(), shape: tensor.shape.clone(), storage }
            }
        };
        mapped.reference.tensors.push(made);
    }
    for (how, names) in decided {
        let note =
            format!("config.json leaves open how these were converted; their values say {how}");
        mapped.notes.push(list(&note, &names));
    }
    let name = |at: &usize| checkpoint.tensors[*at].name.as_str();
    for (why, all) in &map.left_out {
        let names: Vec<&str> = all.iter().map(name).collect();
        mapped
            .notes
            .push(list(&format!("not in the quantized model, and need not be: {why}"), &names));
    }
    let mut missing = map.unused;
    for (copy, of) in &map.copies {
        let repeats = depth == Depth::Names || same_values(checkpoint, *copy, *of).unwrap_or(false);
        if repeats {
            mapped.notes.push(format!("{} is tied: it repeats {}", name(copy), name(of)));
        } else {
            let differs = "which the quantized model has in its place, but differs from it";
            mapped.notes.push(format!("{} is tied to {}, {differs}", name(copy), name(of)));
            missing.push(*copy);
        }
    }
    mapped.reference.tensors.extend(missing.iter().map(|at| checkpoint.tensors[*at].clone()));
    mapped.reference.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    mapped.class = Some(map.class);
    mapped
}

/// A note with the first of the tensors that it is about.
pub(super) fn list(note: &str, names: &[&str]) -> String {
    match names {
        [] => note.to_owned(),
        [one] => format!("{note}: {one}"),
        [first, .., last] => format!("{note}: {} tensors, {first} to {last}", names.len()),
    }
}

/// Rows that the values are compared on.
const SAMPLE: u64 = 64;
/// Most elements of such a row.
const LONGEST: u64 = 1 << 14;

/// The view that is closest to the converted tensor on a sample of rows; the first if it cannot be read.
fn closest(
    views: Vec<View>,
    checkpoint: &Model,
    tensor: &Tensor,
    converted: &Model,
) -> Option<View> {
    let mut least = f64::INFINITY;
    let mut best = None;
    for view in views {
        let candidate = view.clone().into_tensor(&tensor.name);
        let error = distance(&candidate, checkpoint, tensor, converted).unwrap_or(f64::INFINITY);
        if best.is_none() || error < least {
            least = error;
            best = Some(view);
        }
    }
    best
}

/// Sum of the squared differences on a sample of rows.
fn distance(
    one: &Tensor,
    of_one: &Model,
    other: &Tensor,
    of_other: &Model,
) -> Result<f64, ReadError> {
    let row = one.shape.last().copied().unwrap_or(1).clamp(1, LONGEST);
    let rows = (one.numel() / row).max(1);
    let mut scratch = Scratch::default();
    let (mut a, mut b) = (vec![0.0; row as usize], vec![0.0; row as usize]);
    let mut sum = 0.0;
    let count = rows.min(SAMPLE);
    for nth in 0..count {
        let start = (u128::from(nth) * u128::from(rows) / u128::from(count)) as u64 * row;
        let range = start..start + row.min(one.numel());
        one.decode(&of_one.files, range.clone(), &mut scratch, &mut a)?;
        other.decode(&of_other.files, range, &mut scratch, &mut b)?;
        sum += a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    }
    Ok(sum)
}

/// Elements that are compared at a time.
const PIECE: u64 = 1 << 16;

/// Whether two tensors of a model have the same values.
pub(super) fn same_values(model: &Model, one: usize, other: usize) -> Result<bool, ReadError> {
    let (one, other) = (&model.tensors[one], &model.tensors[other]);
    if one.shape != other.shape {
        return Ok(false);
    }
    let mut scratch = Scratch::default();
    let len = one.numel().min(PIECE) as usize;
    let (mut a, mut b) = (vec![0.0; len], vec![0.0; len]);
    let mut at = 0;
    while at < one.numel() {
        let next = (at + PIECE).min(one.numel());
        let len = (next - at) as usize;
        one.decode(&model.files, at..next, &mut scratch, &mut a[..len])?;
        other.decode(&model.files, at..next, &mut scratch, &mut b[..len])?;
        if a[..len].iter().zip(&b[..len]).any(|(a, b)| a.to_bits() != b.to_bits()) {
            return Ok(false);
        }
        at = next;
    }
    Ok(true)
}

/*!
Experts under the reference's names: stacks that are split, experts that are stacked, gate and up that
are joined or parted, matrices that are turned, where the two models leave no doubt about it.

Knows the ways in which Hugging Face checkpoints and MLX keep experts; dense weights are never turned
or renamed here, because a transposed matrix is damage.
*/

use std::collections::{BTreeMap, HashSet};

use super::cut::{cut_biases, padded_outputs};
use crate::model::view::View;
use crate::model::{Format, Model, ModelFinding, PlaneFault, Storage, Tensor};

/// What an expert's matrix does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Gate,
    Up,
    Down,
}

/// Names of a matrix of a single expert, in `PREFIX.experts.N.NAME.weight`.
const SINGLE: &[(&str, Kind)] = &[
    ("gate_proj", Kind::Gate),
    ("up_proj", Kind::Up),
    ("down_proj", Kind::Down),
    ("w1", Kind::Gate),
    ("w3", Kind::Up),
    ("w2", Kind::Down),
];

/// Names of a stack of experts, in `PREFIXNAME`, and the matrices that lie below each other in it.
const STACKED: &[(&str, &[Kind])] = &[
    (".experts.gate_up_proj", &[Kind::Gate, Kind::Up]),
    (".experts.gate_up_proj.weight", &[Kind::Gate, Kind::Up]),
    (".experts.down_proj", &[Kind::Down]),
    (".experts.down_proj.weight", &[Kind::Down]),
    (".input_linear.weight", &[Kind::Gate, Kind::Up]),
    (".output_linear.weight", &[Kind::Down]),
    (".switch_mlp.gate_proj.weight", &[Kind::Gate]),
    (".switch_mlp.up_proj.weight", &[Kind::Up]),
    (".switch_mlp.down_proj.weight", &[Kind::Down]),
];

/// A tensor that holds experts' matrices.
#[derive(Clone, Debug)]
struct Holder {
    /// Index into the model's tensors.
    index: usize,
    /// The expert, if it holds one only.
    expert: Option<u64>,
    kinds: &'static [Kind],
}

/// The experts of one layer.
#[derive(Debug, Default)]
struct Layer {
    holders: Vec<Holder>,
}

/// Gives `quantized` the reference's names and shapes where it keeps experts in another way, and says
/// what was done.
pub fn align(reference: &Model, quantized: &mut Model) -> Vec<String> {
    let mut notes = Vec::new();
    take_back(reference, quantized);
    let padded = padded_outputs(reference, quantized);
    adopt_shapes(reference, quantized, &mut notes);
    cut_biases(reference, quantized, &padded);
    adopt_leading_ones(reference, quantized);
    let wanted = layers(reference);
    let stored = layers(quantized);
    let known: HashSet<&str> = reference.tensors.iter().map(|t| t.name.as_str()).collect();
    let mut added: Vec<Tensor> = Vec::new();
    let mut replaced: HashSet<usize> = HashSet::new();
    for (prefix, layer) in &wanted {
        let Some(from) = stored.get(prefix) else { continue };
        let same = layer.holders.iter().all(|holder| {
            let Tensor { name, shape, .. } = &reference.tensors[holder.index];
            from.holders.iter().any(|other| {
                let other = &quantized.tensors[other.index];
                (&other.name, &other.shape) == (name, shape)
            })
        });
        if same {
            continue;
        }
        let Some(units) = units(quantized, prefix, from) else { continue };
        let mut fit = Fit::default();
        let Some(mut views) = views(reference, prefix, layer, &units, &mut fit) else { continue };
        let unused = from.holders.iter().flat_map(|holder| fit.unused(quantized, holder));
        let unused: Vec<ModelFinding> = unused.collect();
        quantized.findings.append(&mut fit.lost);
        quantized.findings.extend(unused);
        let leaving = from.holders.iter().filter(|holder| fit.uses(quantized, holder));
        let leaving = leaving.map(|holder| holder.index);
        replaced.extend(leaving.filter(|&index| !known.contains(&*quantized.tensors[index].name)));
        added.append(&mut views);
    }
    if !added.is_empty() {
        notes.push(format!(
            "experts of {} tensors are compared as the reference keeps them, in {}",
            replaced.len(),
            added.len()
        ));
        let names: HashSet<&str> = added.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut index = 0;
        quantized.tensors.retain(|tensor| {
            index += 1;
            !replaced.contains(&(index - 1)) && !names.contains(tensor.name.as_str())
        });
        quantized.tensors.append(&mut added);
        quantized.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    }
    notes
}

/// What looks like a plane of no weight is a tensor where the reference has it.
fn take_back(reference: &Model, quantized: &mut Model) {
    let known = reference.by_name();
    let Model { loose, tensors, findings, .. } = quantized;
    let mut back: Vec<Tensor> =
        loose.extract_if(.., |tensor| known.contains_key(tensor.name.as_str())).collect();
    if !back.is_empty() {
        let names: HashSet<&str> = back.iter().map(|tensor| tensor.name.as_str()).collect();
        findings.retain(|finding| !names.contains(finding.plane.as_str()));
        tensors.append(&mut back);
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

/// Where the planes leave a weight's shape open, or say only how many elements it has, it is the
/// reference's.
fn adopt_shapes(reference: &Model, quantized: &mut Model, notes: &mut Vec<String>) {
    let by_name = reference.by_name();
    let (mut adopted, mut reread) = (0, 0);
    for tensor in &mut quantized.tensors {
        let Storage::Joined(weight) = &tensor.storage else { continue };
        let Some(&index) = by_name.get(tensor.name.as_str()) else { continue };
        let shape = &reference.tensors[index].shape;
        let same_size = reference.tensors[index].numel() == tensor.numel();
        if !weight.shape_is_known() && same_size && *shape != tensor.shape {
            tensor.shape.clone_from(shape);
            adopted += 1;
        } else if *shape != tensor.shape
            && let Some(other) = weight.reshaped(shape)
        {
            tensor.shape.clone_from(shape);
            tensor.storage = Storage::Joined(other);
            reread += 1;
        }
    }
    if reread > 0 {
        notes.push(format!(
            "the planes of {reread} weights leave their shape open (width, group size or padding); \
             read as the reference's shape asks for"
        ));
    }
    if adopted > 0 {
        notes.push(format!(
            "the shapes of {adopted} weights are not stored; taken as the reference's"
        ));
    }
}

/// GGUF cannot hold the leading extents of one that the reference may have: such shapes are the same.
fn adopt_leading_ones(reference: &Model, quantized: &mut Model) {
    fn inner(shape: &[u64]) -> &[u64] {
        let ones = shape.iter().take_while(|&&extent| extent == 1).count();
        &shape[ones..]
    }
    if ![reference.format, quantized.format].contains(&Format::Gguf) {
        return;
    }
    let by_name = reference.by_name();
    for tensor in &mut quantized.tensors {
        let Some(&index) = by_name.get(tensor.name.as_str()) else { continue };
        let shape = &reference.tensors[index].shape;
        if *shape != tensor.shape && inner(shape) == inner(&tensor.shape) {
            tensor.shape.clone_from(shape);
        }
    }
}

/// The layers of a model that have experts, by the prefix of their names.
fn layers(model: &Model) -> BTreeMap<String, Layer> {
    let mut layers: BTreeMap<String, Layer> = BTreeMap::new();
    for (index, tensor) in model.tensors.iter().enumerate() {
        let Some((prefix, expert, kinds)) = holder(tensor) else { continue };
        let holder = Holder { index, expert, kinds };
        layers.entry(prefix.to_owned()).or_default().holders.push(holder);
    }
    layers
}

/// Prefix, expert and matrices of a tensor's name, if it holds experts.
fn holder(tensor: &Tensor) -> Option<(&str, Option<u64>, &'static [Kind])> {
    let name = tensor.name.as_str();
    if tensor.shape.len() == 3 {
        let (suffix, kinds) = STACKED.iter().find(|(suffix, _)| name.ends_with(suffix))?;
        return Some((name.strip_suffix(suffix)?, None, kinds));
    }
    let (prefix, rest) = name.split_once(".experts.")?;
    let (expert, rest) = rest.split_once('.')?;
    let kind = rest.strip_suffix(".weight")?;
    let (_, kind) = SINGLE.iter().find(|(name, _)| *name == kind)?;
    let kinds = match kind {
        Kind::Gate => &[Kind::Gate][..],
        Kind::Up => &[Kind::Up],
        Kind::Down => &[Kind::Down],
    };
    (tensor.shape.len() == 2).then_some((prefix, Some(expert.parse().ok()?), kinds))
}

/// Whether a layer's stacks keep inputs as rows; `None` if their shapes do not say.
fn orientation(model: &Model, layer: &Layer) -> Option<bool> {
    let stack = |wanted: &[Kind]| {
        let holder = layer.holders.iter().find(|h| h.expert.is_none() && h.kinds == wanted)?;
        let shape = &model.tensors[holder.index].shape;
        Some((shape[1], shape[2]))
    };
    if let (Some((a, b)), Some((c, d))) = (stack(&[Kind::Gate, Kind::Up]), stack(&[Kind::Down])) {
        // [2 ff, in] with [in, ff], or [in, 2 ff] with [ff, in].
        let (plain, turned) = (a == d * 2 && b == c, b == c * 2 && a == d);
        return (plain != turned).then_some(turned);
    }
    // MLX's parted stacks are never turned.
    Some(false)
}

/// An expert, and one of its matrices.
type Key = (u64, Kind);

/// Every expert's matrices [out, in] of a layer.
type Units = BTreeMap<Key, View>;

fn units(model: &Model, prefix: &str, layer: &Layer) -> Option<Units> {
    let transposed = orientation(model, layer)?;
    // gpt-oss, which alone interleaves gate and up, is also alone in having biases for them.
    let bias = format!("{prefix}.experts.gate_up_proj_bias");
    let interleaved = model.tensors.binary_search_by(|tensor| tensor.name.cmp(&bias)).is_ok();
    let mut units = Units::new();
    for holder in &layer.holders {
        let source = View::of(&model.tensors[holder.index]);
        if let Some(expert) = holder.expert {
            if units.insert((expert, holder.kinds[0]), source).is_some() {
                return None;
            }
            continue;
        }
        let parts = holder.kinds.len() as u64;
        for expert in 0..source.shape()[0] {
            let stored = source.select(0, expert).ok()?;
            let matrix = if transposed { stored.transpose(&[1, 0]).ok()? } else { stored };
            let outs = matrix.shape()[0];
            if !outs.is_multiple_of(parts) {
                return None;
            }
            for (part, kind) in (0..).zip(holder.kinds) {
                let unit = if interleaved && parts > 1 {
                    matrix.slice(0, part..outs, parts)
                } else {
                    let len = outs / parts;
                    matrix.slice(0, part * len..(part + 1) * len, 1)
                };
                if units.insert((expert, *kind), unit.ok()?).is_some() {
                    return None;
                }
            }
        }
    }
    Some(units)
}

/// What became of the matrices of a layer.
#[derive(Default)]
struct Fit {
    /// Those that the reference has as well.
    used: HashSet<(u64, Kind)>,
    /// Findings on those that are missing from a stack.
    lost: Vec<ModelFinding>,
}

impl Holder {
    /// The matrices that it holds.
    fn keys(&self, model: &Model) -> impl Iterator<Item = (u64, Kind)> {
        let experts = match self.expert {
            Some(expert) => expert..expert + 1,
            None => 0..model.tensors[self.index].shape[0],
        };
        experts.flat_map(|expert| self.kinds.iter().map(move |kind| (expert, *kind)))
    }
}

impl Fit {
    fn uses(&self, model: &Model, holder: &Holder) -> bool {
        holder.keys(model).any(|key| self.used.contains(&key))
    }

    /// Matrices of a stack that the reference has not, where it has others of the stack.
    fn unused(&self, model: &Model, holder: &Holder) -> Vec<ModelFinding> {
        let Tensor { name, .. } = &model.tensors[holder.index];
        if !self.uses(model, holder) {
            return Vec::new();
        }
        let unused = holder.keys(model).filter(|key| !self.used.contains(key));
        let finding = |(expert, kind): (u64, Kind)| ModelFinding {
            tensor: name.clone(),
            plane: format!("{name}[{expert}] ({kind:?})").to_lowercase(),
            fault: PlaneFault::Extra,
            message: "is in the quantized model alone".to_owned(),
        };
        unused.map(finding).collect()
    }
}

/// Name of a single expert's matrix, as most checkpoints call it.
fn single_name(prefix: &str, (expert, kind): (u64, Kind), units: &Units) -> String {
    // As the matrices beside it are called.
    let mut beside = units.iter().filter(|((_, other), _)| *other == kind);
    let known = beside.find_map(|((other, _), unit)| {
        let source = &unit.sources().next()?.name;
        let (before, after) = source.split_once(&format!(".experts.{other}."))?;
        Some(format!("{before}.experts.{expert}.{after}"))
    });
    let name = SINGLE.iter().find(|(_, own)| *own == kind).map_or("", |(name, _)| name);
    known.unwrap_or_else(|| format!("{prefix}.experts.{expert}.{name}.weight"))
}

/// A stack of which some matrices are not there, and which of them.
fn incomplete(
    tensor: &Tensor,
    prefix: &str,
    missing: &[(u64, Kind)],
    units: &Units,
) -> (Tensor, Vec<ModelFinding>) {
    let name = |key: &(u64, Kind)| single_name(prefix, *key, units);
    let finding = |key: &(u64, Kind)| ModelFinding {
        tensor: tensor.name.clone(),
        plane: name(key),
        fault: PlaneFault::Missing,
        message: "is missing; the other experts have theirs".to_owned(),
    };
    let names: Vec<String> = missing.iter().map(name).collect();
    let storage = Storage::Undecodable {
        what: "incomplete".to_owned(),
        reason: format!("is not whole: {} is missing", names.join(", ")),
        at: None,
    };
    let lost = Tensor { name: tensor.name.clone(), shape: tensor.shape.clone(), storage };
    (lost, missing.iter().map(finding).collect())
}

/// The layer's tensors as the reference keeps them; `None` if a matrix does not fit. Where matrices of a
/// stack are missing, they are `lost`, and the stack cannot be read.
fn views(
    reference: &Model,
    prefix: &str,
    layer: &Layer,
    units: &Units,
    fit: &mut Fit,
) -> Option<Vec<Tensor>> {
    let transposed = orientation(reference, layer)?;
    let bias = format!("{prefix}.experts.gate_up_proj_bias");
    let interleaved = reference.tensors.binary_search_by(|t| t.name.cmp(&bias)).is_ok();
    let mut views = Vec::new();
    for holder in &layer.holders {
        let tensor = &reference.tensors[holder.index];
        let experts = match holder.expert {
            Some(expert) => expert..expert + 1,
            None => 0..tensor.shape[0],
        };
        if interleaved && holder.kinds.len() > 1 {
            // Gate and up row by row: nobody has split a gpt-oss stack and kept its name.
            return None;
        }
        let turned = transposed && holder.expert.is_none();
        let all =
            experts.clone().flat_map(|expert| holder.kinds.iter().map(move |kind| (expert, *kind)));
        let (found, missing): (Vec<Key>, Vec<Key>) = all.partition(|key| units.contains_key(key));
        fit.used.extend(&found);
        if !missing.is_empty() {
            // A matrix that the reference keeps alone is simply missing.
            if holder.expert.is_none() && !found.is_empty() {
                let (tensor, mut findings) = incomplete(tensor, prefix, &missing, units);
                views.push(tensor);
                fit.lost.append(&mut findings);
            }
            continue;
        }
        let matrix = |expert: u64| {
            let parts = holder.kinds.iter().map(|kind| {
                let unit = units.get(&(expert, *kind))?;
                if turned { unit.transpose(&[1, 0]).ok() } else { Some(unit.clone()) }
            });
            let parts: Vec<View> = parts.collect::<Option<_>>()?;
            match &parts[..] {
                [single] => Some(single.clone()),
                _ => View::concat(&parts, usize::from(turned)).ok(),
            }
        };
        let matrices: Vec<View> = experts.map(matrix).collect::<Option<_>>()?;
        let view = match (&matrices[..], holder.expert) {
            ([single], Some(_)) => single.clone(),
            _ => View::stack(&matrices, 0).ok()?,
        };
        if *view.shape() != tensor.shape[..] {
            return None;
        }
        views.push(view.into_tensor(&tensor.name));
    }
    Some(views)
}

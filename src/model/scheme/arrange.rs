/*!
Planes that stand elsewhere than beside their weight, put beside it before the schemes are tried: one
scale for a table that is stored in pieces, the factors that `AutoAWQ` keeps in the activation before a
matrix, and scales of stacks whose outputs are the last axis.
*/

use std::collections::{BTreeMap, BTreeSet};

use super::fp8;
use super::grid::is_number;
use super::group::Group;
use super::loose;
use crate::codec::{Class, TensorType};
use crate::model::{Extent, Plane, Storage, Tensor};

/// Groups of planes by base name.
type Groups = BTreeMap<String, Group>;

/// Suffix under which the factors of an activation stand beside the matrix that they belong to.
pub const ACTIVATION_FACTORS: &str = ".(activation factors)";

/// Moves planes to where they belong; says what it had to guess.
pub fn arrange(groups: &mut Groups, tensors: &[Tensor]) -> Vec<String> {
    share_scales(groups, tensors);
    move_activation_factors(groups);
    turn_scales(groups)
}

/// The module that a module lies in.
fn parent(base: &str) -> &str {
    base.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// Whether a suffix is that of scales or zero points over a weight.
fn spreads(suffix: &str) -> bool {
    let over = suffix.contains("scale") || suffix.contains("zero");
    let whole =
        suffix.ends_with("scale_2") || suffix.contains("global") || suffix.contains("pre_quant");
    over && !whole && loose::row_of(suffix).is_none()
}

/// A table in pieces: `TABLE.weight_scale` belongs to `TABLE.0.weight` or `TABLE.shards.0.weight` and so on.
fn share_scales(groups: &mut Groups, tensors: &[Tensor]) {
    let lonely = |group: &Group| {
        let scales = group
            .planes
            .iter()
            .all(|(suffix, _)| spreads(suffix) || loose::row_of(suffix).is_some());
        scales && group.planes.iter().any(|(suffix, _)| spreads(suffix))
    };
    let bases: BTreeSet<String> = groups
        .values()
        .filter(|group| !group.bare && lonely(group))
        .map(|it| it.base.clone())
        .collect();
    if bases.is_empty() {
        return;
    }
    let mut pieces: BTreeMap<&str, Vec<(u64, &str, Plane)>> = BTreeMap::new();
    for tensor in tensors {
        let Storage::Plain { ty, at } = tensor.storage else { continue };
        let codes = fp8::values(ty).is_some() || matches!(ty, TensorType::I8 | TensorType::U8);
        let Some(base) = tensor.name.strip_suffix(".weight").filter(|_| codes) else { continue };
        let Some((above, number)) = base.rsplit_once('.') else { continue };
        let Ok(number) = number.parse() else { continue };
        let table = [above, parent(above)].into_iter().find(|table| bases.contains(*table));
        if let Some(table) = table {
            let Tensor { name, shape, .. } = tensor;
            let plane = Plane { name: name.clone(), ty, shape: shape.clone(), at };
            pieces.entry(table).or_default().push((number, base, plane));
        }
    }
    for (table, mut pieces) in pieces {
        pieces.sort_by_key(|(number, ..)| *number);
        let rows: Vec<u64> =
            pieces.iter().map(|(.., plane)| plane.shape.first().copied().unwrap_or(1)).collect();
        let whole = pieces
            .iter()
            .map(|(number, ..)| *number)
            .eq(pieces[0].0..pieces[0].0 + pieces.len() as u64);
        let Some(shared) = groups.get(table) else { continue };
        let shared: Vec<(&'static str, Vec<Plane>)> = shared
            .planes
            .iter()
            .filter(|(suffix, _)| spreads(suffix))
            .filter_map(|(suffix, plane)| Some((*suffix, parts(plane, &rows, whole)?)))
            .collect();
        if shared.is_empty() {
            continue;
        }
        for (index, (_, base, plane)) in pieces.into_iter().enumerate() {
            let group = groups
                .entry(base.to_owned())
                .or_insert_with(|| Group { base: base.to_owned(), ..Group::default() });
            if group.get(".weight").is_none() {
                group.planes.push((".weight", plane));
            }
            for (suffix, parts) in &shared {
                if !group.has(suffix) {
                    group.planes.push((suffix, parts[index].clone()));
                }
            }
        }
        if let Some(group) = groups.get_mut(table) {
            group.planes.retain(|(suffix, _)| !shared.iter().any(|(taken, _)| taken == suffix));
        }
    }
    groups.retain(|_, group| !group.planes.is_empty());
}

/// What of a table's scales belongs to each of its pieces: all of one scale, one of as many as there are
/// pieces, or those of its rows.
fn parts(plane: &Plane, rows: &[u64], whole: bool) -> Option<Vec<Plane>> {
    if plane.numel() == 1 {
        return Some(vec![plane.clone(); rows.len()]);
    }
    let info = plane.ty.info();
    let each: Vec<u64> = if plane.numel() == rows.len() as u64 {
        vec![1; rows.len()]
    } else if rows.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows)) == Some(plane.numel())
    {
        rows.to_vec()
    } else {
        return None;
    };
    if !whole || info.block_len != 1 {
        return None;
    }
    let mut first = 0;
    let part = |len: &u64| {
        let bytes = info.block_bytes as u64;
        let at = Extent { offset: plane.at.offset + first * bytes, len: len * bytes, ..plane.at };
        first += len;
        Plane { shape: vec![*len], at, ..plane.clone() }
    };
    Some(each.iter().map(part).collect())
}

/// Names of the matrix that an activation feeds, where the shapes of several fit.
const AFTER_ACTIVATION: &[&str] =
    &["down_proj", "dense_4h_to_h", "c_proj", "fc2", "fc_out", "w2", "wo", "proj_out"];

/// `AutoAWQ`'s `ScaledActivation`: `MLP.act.scales` divides what the activation gives, and the columns of
/// the matrix behind it were multiplied by the same factors.
fn move_activation_factors(groups: &mut Groups) {
    let factors = |group: &Group| match group.planes.as_slice() {
        [(".scales", plane)] if plane.shape.len() == 1 && is_number(plane.ty) => {
            (plane.ty.info().class == Class::Float).then(|| plane.clone())
        }
        _ => None,
    };
    let found: Vec<(String, Plane)> =
        groups.values().filter_map(|group| Some((group.base.clone(), factors(group)?))).collect();
    if found.is_empty() {
        return;
    }
    let fed = fed_by_activation(groups);
    for (base, plane) in found {
        let Some(target) = fed.get(&(parent(&base).to_owned(), plane.numel())) else { continue };
        if let Some(group) = groups.get_mut(target) {
            group.planes.push((ACTIVATION_FACTORS, plane));
            groups.remove(&base);
        }
    }
}

/// The matrix of each module that takes so many inputs from an activation: the only one whose shape fits,
/// or the first of those with a name for it.
fn fed_by_activation(groups: &Groups) -> BTreeMap<(String, u64), String> {
    let mut fitting: BTreeMap<(&str, u64), Vec<&str>> = BTreeMap::new();
    for group in groups.values().filter(|group| group.has(".qzeros")) {
        let Some([rows, words]) = group.get(".qweight").map(|codes| &codes.shape[..]) else {
            continue;
        };
        // The words hold eight codes, along the one axis or the other.
        let inputs: BTreeSet<u64> =
            [Some(*rows), words.checked_mul(8)].into_iter().flatten().collect();
        for inputs in inputs {
            fitting.entry((parent(&group.base), inputs)).or_default().push(&group.base);
        }
    }
    let named =
        |base: &&&str| AFTER_ACTIVATION.contains(&base.rsplit('.').next().unwrap_or_default());
    let target = |bases: &[&str]| match bases {
        [one] => Some((*one).to_owned()),
        several => several.iter().find(named).map(|base| (*base).to_owned()),
    };
    let targets = fitting.iter().filter_map(|((module, inputs), bases)| {
        Some((((*module).to_owned(), *inputs), target(bases)?))
    });
    targets.collect()
}

/// Scales [experts, out] of a stack [experts, in, out] run along the last axis. Where the matrices are
/// square, the stacks beside it say which axis is meant.
fn turn_scales(groups: &mut Groups) -> Vec<String> {
    let axis = |group: &Group| {
        let main = group.get(".weight")?;
        let &[experts, rows, cols] = &main.shape[..] else { return None };
        let channels = |plane: &Plane| match plane.shape[..] {
            [first, len] | [first, len, 1] if first == experts && len > 1 => Some(len),
            _ => None,
        };
        let mut planes = group.planes.iter().filter(|(suffix, _)| spreads(suffix));
        let len = planes.find_map(|(_, plane)| channels(plane))?;
        match (len == rows, len == cols) {
            (true, true) => Some(Axis::Either),
            (false, true) => Some(Axis::Columns),
            (true, false) => Some(Axis::Rows),
            (false, false) => None,
        }
    };
    let axes: BTreeMap<String, Axis> =
        groups.values().filter_map(|group| Some((group.base.clone(), axis(group)?))).collect();
    let clear: BTreeSet<(&str, Axis)> =
        axes.iter().map(|(base, axis)| (parent(base), *axis)).collect();
    let mut notes = Vec::new();
    for (base, axis) in &axes {
        let beside = |wanted: Axis| clear.contains(&(parent(base), wanted));
        let columns = match axis {
            Axis::Columns => true,
            Axis::Rows => false,
            Axis::Either => {
                let (columns, rows) = (beside(Axis::Columns), beside(Axis::Rows));
                if columns == rows {
                    notes.push(format!(
                        "{base}: its matrices are square and no stack beside it says along which axis \
                         its scales run, which is ambiguous; taken as one for each row"
                    ));
                }
                columns && !rows
            }
        };
        let Some(group) = groups.get_mut(base).filter(|_| columns) else { continue };
        for (_, plane) in group.planes.iter_mut().filter(|(suffix, _)| spreads(suffix)) {
            if let [experts, len] | [experts, len, 1] = plane.shape[..] {
                plane.shape = vec![experts, 1, len];
            }
        }
    }
    notes
}

/// Along which axis of a matrix there is one scale for each place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Axis {
    Rows,
    Columns,
    /// Both are as long as there are scales.
    Either,
}

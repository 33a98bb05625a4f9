/*!
The other direction: a GGUF file as the reference of a checkpoint. What the converter did to each tensor is
undone, where it can be.
*/

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::apply::{Mapped, list};
use super::map::Map;
use crate::model::view::{Recipe, Step, View, ViewError};
use crate::model::{Model, Storage, Tensor};

/// The reference's tensors as the checkpoint has them.
pub fn apply(reference: &Model, checkpoint: &Model, map: Map) -> Mapped {
    let shapes: HashMap<&str, &[u64]> =
        checkpoint.tensors.iter().map(|it| (it.name.as_str(), it.shape.as_slice())).collect();
    let mut parts: BTreeMap<String, Vec<Part>> = BTreeMap::new();
    let mut problems = BTreeMap::new();
    let mut used = HashSet::new();
    let mut computed = Vec::new();
    for entry in &map.entries {
        let converted = &reference.tensors[entry.tensor];
        let Some(view) = entry.views.iter().flatten().next() else { continue };
        used.insert(converted.name.as_str());
        let sources: Vec<String> = view.sources().map(|source| source.name.clone()).collect();
        if sources.is_empty() {
            computed.push(converted.name.as_str());
        }
        match take_apart(&view.recipe(), View::of(converted), &shapes) {
            Ok(found) => found.into_iter().for_each(|part| {
                parts.entry(part.source.clone()).or_default().push(part);
            }),
            Err(why) => {
                let why = format!("{} cannot be undone: {why}", converted.name);
                problems.extend(sources.into_iter().map(|source| (source, why.clone())));
            }
        }
    }
    let mut mapped = Mapped::unmapped(Model { tensors: Vec::new(), ..reference.clone() });
    mapped.notes.push(format!(
        "the reference is read as the checkpoint of {} that it was converted from: `qualm map` shows how",
        map.class
    ));
    if !computed.is_empty() {
        mapped.notes.push(list("computed by the converter, not in a checkpoint", &computed));
    }
    for (source, parts) in parts {
        let shape = shapes.get(source.as_str()).copied().unwrap_or_default();
        match put_together(parts, shape) {
            Ok(view) => {
                mapped.recipes.insert(source.clone(), view.recipe());
                mapped.reference.tensors.push(view.into_tensor(source));
            }
            Err(why) => {
                problems.entry(source).or_insert_with(|| why.to_string());
            }
        }
    }
    for (source, why) in problems {
        if mapped.recipes.contains_key(&source) {
            continue;
        }
        let shape = shapes.get(source.as_str()).map(|shape| shape.to_vec()).unwrap_or_default();
        let storage =
            Storage::Undecodable { what: "no counterpart".into(), reason: why.clone(), at: None };
        mapped.reference.tensors.push(Tensor { name: source.clone(), shape, storage });
        mapped.problems.insert(source, why);
    }
    let rest = reference.tensors.iter().filter(|tensor| !used.contains(tensor.name.as_str()));
    mapped.reference.tensors.extend(rest.cloned());
    mapped.reference.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    for (why, all) in &map.left_out {
        let names: Vec<&str> = all.iter().map(|at| checkpoint.tensors[*at].name.as_str()).collect();
        mapped.notes.push(list(&format!("not in the reference, and need not be: {why}"), &names));
        mapped.set_aside.extend(names.into_iter().map(str::to_owned));
    }
    mapped.class = Some(map.class);
    mapped
}

/// What a converted tensor, or a part of it, says of a tensor of the checkpoint.
struct Part {
    /// The tensor.
    source: String,
    /// What is done to the tensor before the part is taken.
    before: Vec<Step>,
    /// Which part: axis, first, and distance; none for the whole.
    slice: Option<(usize, u64, u64)>,
    /// The part's values, undone as far as the slice.
    view: View,
}

type Shapes<'a> = HashMap<&'a str, &'a [u64]>;

/// What a view of the checkpoint's tensors says of them, given what it equals.
fn take_apart(recipe: &Recipe, equals: View, shapes: &Shapes) -> Result<Vec<Part>, Fault> {
    match recipe {
        Recipe::Single { source: None, .. } => Ok(Vec::new()),
        Recipe::Single { source: Some(source), ops } => {
            let shape = shapes.get(source.as_str()).ok_or(Fault::Operation("source"))?;
            let at = ops.iter().position(|op| op.op == "slice");
            let (before, after) = ops.split_at(at.unwrap_or(ops.len()));
            let source = source.clone();
            let Some((slice, after)) = after.split_first() else {
                let view = undo(before, shape, equals)?;
                return Ok(vec![Part { source, before: Vec::new(), slice: None, view }]);
            };
            let mut middle = shape.to_vec();
            for op in before {
                middle = shape_after(op, &middle)?;
            }
            let view = undo(after, &shape_after(slice, &middle)?, equals)?;
            let start = number(slice, "start").unwrap_or(0);
            let step = number(slice, "step").unwrap_or(1);
            let axis = number(slice, "axis").unwrap_or(0) as usize;
            let slice = Some((axis, start, step));
            Ok(vec![Part { source, before: before.to_vec(), slice, view }])
        }
        Recipe::Joined { pieces, join, ops } => {
            let of_pieces = pieces
                .iter()
                .map(|piece| shape_of(piece, shapes))
                .collect::<Result<Vec<_>, _>>()?;
            let whole = undo(ops, &joined(join, &of_pieces)?, equals)?;
            let axis = number(join, "axis").unwrap_or(0) as usize;
            let mut at = 0;
            let mut parts = Vec::new();
            for (nth, (piece, shape)) in pieces.iter().zip(&of_pieces).enumerate() {
                let view = if join.op == "stack" {
                    whole.select(axis, nth as u64)?
                } else {
                    let len = *shape.get(axis).ok_or(Fault::Operation("concat"))?;
                    at += len;
                    whole.slice(axis, at - len..at, 1)?
                };
                parts.extend(take_apart(piece, view, shapes)?);
            }
            Ok(parts)
        }
    }
}

/// The tensor of the checkpoint, from what is known of its parts.
fn put_together(mut parts: Vec<Part>, shape: &[u64]) -> Result<View, Fault> {
    if let Some(at) = parts.iter().position(|part| part.slice.is_none()) {
        return Ok(parts.swap_remove(at).view);
    }
    parts.sort_by_key(|part| part.slice);
    parts.dedup_by_key(|part| part.slice);
    let first = parts.first().ok_or(Fault::Parts)?;
    let (axis, _, step) = first.slice.ok_or(Fault::Parts)?;
    if parts.iter().any(|part| {
        part.before != first.before || part.slice.map(|it| (it.0, it.2)) != Some((axis, step))
    }) {
        return Err(Fault::Parts);
    }
    let mut middle = shape.to_vec();
    for op in &first.before {
        middle = shape_after(op, &middle)?;
    }
    let views: Vec<View> = parts.iter().map(|part| part.view.clone()).collect();
    let whole = if step == 1 {
        let mut next = 0;
        for part in &parts {
            if part.slice.map(|it| it.1) != Some(next) {
                return Err(Fault::Parts);
            }
            next += part.view.shape().get(axis).copied().unwrap_or(0);
        }
        View::concat(&views, axis)?
    } else {
        if views.len() as u64 != step {
            return Err(Fault::Parts);
        }
        // Turn and turn about: a new axis behind the sliced one, and both become one.
        View::stack(&views, axis + 1)?.reshape(&middle)?
    };
    if whole.shape() != middle {
        return Err(Fault::Parts);
    }
    undo(&first.before, shape, whole)
}

/// Why a conversion cannot be undone.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0} loses values")]
    Operation(&'static str),
    #[error("parts of the tensor are in no converted tensor")]
    Parts,
    #[error(transparent)]
    View(#[from] ViewError),
}

/// Undoes operations that were done to a tensor of a shape.
fn undo(ops: &[Step], shape: &[u64], equals: View) -> Result<View, Fault> {
    let mut shapes = vec![shape.to_vec()];
    for op in ops {
        let next = shape_after(op, &shapes[shapes.len() - 1])?;
        shapes.push(next);
    }
    let mut view = equals;
    for (op, before) in ops.iter().zip(&shapes).rev() {
        view = match op.op {
            "reshape" => view.reshape(before)?,
            "transpose" => {
                let axes = numbers(op, "axes");
                let mut back = vec![0; axes.len()];
                for (to, from) in axes.iter().enumerate() {
                    if let Some(place) = back.get_mut(*from as usize) {
                        *place = to;
                    }
                }
                view.transpose(&back)?
            }
            "permute_qk" => view.unpermute_qk(number(op, "n_head").unwrap_or(1))?,
            "add" => view.add(-value(op)),
            "mul" => view.div(value(op)),
            "neg_exp" => view.ln_neg(),
            "pad_zero_rows" | "pad_zero" => {
                view.slice(0, 0..before.first().copied().unwrap_or(0), 1)?
            }
            "cast" => view,
            other => return Err(Fault::Operation(other)),
        };
    }
    Ok(view)
}

/// The shape after an operation.
fn shape_after(op: &Step, shape: &[u64]) -> Result<Vec<u64>, Fault> {
    let mut after = shape.to_vec();
    match op.op {
        "reshape" => after = numbers(op, "shape"),
        "transpose" => {
            let extent = |axis: &u64| shape.get(*axis as usize).copied().unwrap_or(0);
            after = numbers(op, "axes").iter().map(extent).collect();
        }
        "slice" => {
            let axis = number(op, "axis").unwrap_or(0) as usize;
            let (start, stop) = (number(op, "start").unwrap_or(0), number(op, "stop").unwrap_or(0));
            let step = number(op, "step").unwrap_or(1).max(1);
            *after.get_mut(axis).ok_or(Fault::Operation("slice"))? =
                stop.saturating_sub(start).div_ceil(step);
        }
        "pad_zero_rows" | "pad_zero" => {
            let rows = number(op, "rows").or_else(|| number(op, "extent"));
            *after.first_mut().ok_or(Fault::Operation("pad_zero"))? = rows.unwrap_or(0);
        }
        "permute_qk" | "add" | "mul" | "neg_exp" | "cast" => {}
        other => return Err(Fault::Operation(other)),
    }
    Ok(after)
}

fn shape_of(recipe: &Recipe, shapes: &Shapes) -> Result<Vec<u64>, Fault> {
    let (mut shape, ops) = match recipe {
        Recipe::Single { source, ops } => {
            let shape = source.as_deref().and_then(|source| shapes.get(source));
            (shape.ok_or(Fault::Operation("constant"))?.to_vec(), ops)
        }
        Recipe::Joined { pieces, join, ops } => {
            let pieces: Vec<_> =
                pieces.iter().map(|piece| shape_of(piece, shapes)).collect::<Result<_, _>>()?;
            (joined(join, &pieces)?, ops)
        }
    };
    for op in ops {
        shape = shape_after(op, &shape)?;
    }
    Ok(shape)
}

fn joined(join: &Step, pieces: &[Vec<u64>]) -> Result<Vec<u64>, Fault> {
    let axis = number(join, "axis").unwrap_or(0) as usize;
    let mut shape = pieces.first().ok_or(Fault::Parts)?.clone();
    match join.op {
        "stack" if axis <= shape.len() => shape.insert(axis, pieces.len() as u64),
        "concat" => {
            let sum = pieces.iter().filter_map(|piece| piece.get(axis)).sum();
            *shape.get_mut(axis).ok_or(Fault::Operation("concat"))? = sum;
        }
        other => return Err(Fault::Operation(other)),
    }
    Ok(shape)
}

fn argument<'a>(op: &'a Step, name: &str) -> Option<&'a Value> {
    op.args.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

fn number(op: &Step, name: &str) -> Option<u64> {
    argument(op, name)?.as_u64()
}

fn numbers(op: &Step, name: &str) -> Vec<u64> {
    let list = argument(op, name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_u64).collect()
}

fn value(op: &Step) -> f32 {
    argument(op, "value").and_then(Value::as_f64).unwrap_or(0.0) as f32
}

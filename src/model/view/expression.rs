/*!
The expression itself, and its movements: what a view is made of, and the checks that make it sound.
*/

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::ViewError;
use super::arithmetic::Op;
use super::join::Join;
use super::layout::{self, Axis, Group, Layout};
use super::round_trip::RoundTrip;
use super::step::{Recipe, Step};
use super::summary::Summary;
use super::tile::Tiles;
use crate::model::tensor::checked_numel;
use crate::model::{Extent, Storage, Tensor};

/// Elements that a reader asks for at a time.
const CHUNK: u64 = 64 * 1024;

/// A logical tensor: an expression over stored tensors of one model. A clone is cheap.
#[derive(Clone, Debug)]
pub struct View {
    /// Outermost dimension first.
    pub(super) shape: Arc<[u64]>,
    pub(super) node: Arc<Node>,
    /// What was done since the stored tensor or the join at the bottom.
    steps: Arc<[Step]>,
    /// The scales of the activations are not the view's.
    pub(super) bare: bool,
}

/// An expression, whose elements are in an order but have no shape.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) body: Body,
    pub(super) summary: OnceLock<Summary>,
}

#[derive(Debug)]
pub(super) enum Body {
    /// A stored tensor.
    Stored(Tensor),
    /// One value everywhere.
    Constant(f32),
    /// Elements from other places, with the tiles in which they are decoded where that pays.
    Moved { source: View, layout: Layout, tiles: Option<Tiles> },
    /// Parts beside each other.
    Joined { parts: Vec<View>, join: Join, step: Step },
    /// Values that are computed.
    Computed { source: View, op: Op },
    /// Values that have been through a type.
    RoundTrip { source: View, trip: RoundTrip },
}

impl View {
    fn new(shape: Vec<u64>, body: Body, steps: Vec<Step>) -> Self {
        let node = Arc::new(Node { body, summary: OnceLock::new() });
        Self { shape: shape.into(), node, steps: steps.into(), bare: false }
    }

    /// A tensor as it is stored; one that is a view already is that view.
    pub fn of(tensor: &Tensor) -> Self {
        match tensor.view() {
            Some(view) => Self { shape: tensor.shape.clone().into(), ..view.clone() },
            None => Self::new(tensor.shape.clone(), Body::Stored(tensor.clone()), Vec::new()),
        }
    }

    /// One value everywhere.
    pub fn constant(value: f32, shape: &[u64]) -> Result<Self, ViewError> {
        checked(shape)?;
        let step = Step::new("constant", vec![("value", value.into()), ("shape", shape.into())]);
        Ok(Self::new(shape.to_vec(), Body::Constant(value), vec![step]))
    }

    /// Outermost dimension first; empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Number of elements.
    pub fn numel(&self) -> u64 {
        // The constructors have checked the product.
        checked_numel(&self.shape).unwrap_or(0)
    }

    /// The view as a tensor: one that is a stored tensor, or a run of whole blocks of a plain one, is
    /// stored that way, and costs nothing.
    pub fn into_tensor(self, name: impl Into<String>) -> Tensor {
        let storage = self.plain().unwrap_or_else(|| Storage::Joined(Arc::new(self.clone())));
        Tensor { name: name.into(), shape: self.shape.to_vec(), storage }
    }

    /// The view as a tensor that knows what it is made of, even if it is stored in one piece.
    pub fn into_expression(self, name: impl Into<String>) -> Tensor {
        let (name, shape) = (name.into(), self.shape.to_vec());
        Tensor { name, shape, storage: Storage::Joined(Arc::new(self)) }
    }

    /// The storage of a view that needs none of its own.
    fn plain(&self) -> Option<Storage> {
        let (stored, run) = match &self.node.body {
            Body::Stored(tensor) if !self.bare => return Some(tensor.storage.clone()),
            Body::Moved { source, layout, .. } => match &source.node.body {
                Body::Stored(tensor) if !self.bare => (tensor, layout.run()?),
                _ => return None,
            },
            _ => return None,
        };
        let Storage::Plain { ty, at } = stored.storage else { return None };
        let len = ty.info().block_len as u64;
        let (offset, bytes) = (ty.bytes_for(run.start)?, ty.bytes_for(run.end - run.start)?);
        let whole = run.start.is_multiple_of(len) && run.end.is_multiple_of(len) && bytes > 0;
        let at = Extent { file: at.file, offset: at.offset + offset, len: bytes };
        whole.then_some(Storage::Plain { ty, at })
    }

    /// The same values without the scales of the activations that belong to the weight's module.
    #[must_use]
    pub fn without_activations(mut self) -> Self {
        self.bare = true;
        self
    }

    /// What the view does, in the order in which it does it.
    pub fn recipe(&self) -> Recipe {
        let ops = self.steps.to_vec();
        match &self.bottom().node.body {
            Body::Stored(tensor) => Recipe::Single { source: Some(tensor.name.clone()), ops },
            Body::Joined { parts, step, .. } => {
                let pieces = parts.iter().map(Self::recipe).collect();
                Recipe::Joined { pieces, join: step.clone(), ops }
            }
            _ => Recipe::Single { source: None, ops },
        }
    }

    /// The parts of a join to which nothing was done since, in order; none of any other view.
    pub fn pieces(&self) -> &[Self] {
        match &self.node.body {
            Body::Joined { parts, .. } => parts,
            _ => &[],
        }
    }

    /// What the operations of [`Self::recipe`] begin with.
    fn bottom(&self) -> &Self {
        match self.source() {
            Some(source) => source.bottom(),
            None => self,
        }
    }

    /// What a movement or a computation is one of.
    pub(super) fn source(&self) -> Option<&Self> {
        match &self.node.body {
            Body::Stored(_) | Body::Constant(_) | Body::Joined { .. } => None,
            Body::Moved { source, .. }
            | Body::Computed { source, .. }
            | Body::RoundTrip { source, .. } => Some(source),
        }
    }

    /// The steps so far and one more.
    fn steps_and(&self, step: Step) -> Vec<Step> {
        self.steps.iter().cloned().chain(std::iter::once(step)).collect()
    }

    /// The same elements in another shape, which is not worth a step.
    pub(super) fn shaped(&self, shape: &[u64]) -> Self {
        Self { shape: shape.into(), ..self.clone() }
    }

    /// Makes all steps since `before` one.
    fn named(mut self, before: &Self, step: Step) -> Self {
        self.steps = before.steps_and(step).into();
        self
    }

    /// The extent of an axis.
    pub(super) fn extent(&self, axis: usize) -> Result<u64, ViewError> {
        let missing = || ViewError::Axis { axis, shape: self.shape.to_vec() };
        self.shape.get(axis).copied().ok_or_else(missing)
    }

    /// What a movement starts from: source, offset, and the axes of each dimension.
    fn axes(&self) -> (Self, u64, Vec<Group>) {
        if let Body::Moved { source, layout, .. } = &self.node.body
            && let Some(groups) = layout.groups(&self.shape)
        {
            return (source.clone(), layout.offset, groups);
        }
        (self.clone(), 0, layout::row_major(&self.shape))
    }

    /// A movement.
    fn moved(&self, source: Self, layout: Layout, shape: Vec<u64>, step: Step) -> Self {
        let tiles = layout.tiling(CHUNK).map(|(row, rows)| Tiles::new(row, rows));
        self.then(shape, Body::Moved { source, layout, tiles }, step)
    }

    /// What one more step makes of the view.
    pub(super) fn then(&self, shape: Vec<u64>, body: Body, step: Step) -> Self {
        Self { bare: self.bare, ..Self::new(shape, body, self.steps_and(step)) }
    }

    /// A movement of no elements.
    fn nothing(&self, shape: Vec<u64>, step: Step) -> Self {
        self.moved(self.clone(), Layout { offset: 0, axes: Vec::new() }, shape, step)
    }

    /// The same elements in another shape.
    pub fn reshape(&self, shape: &[u64]) -> Result<Self, ViewError> {
        let to = checked(shape)?;
        if to != self.numel() {
            let from = self.shape.to_vec();
            return Err(ViewError::Reshape { from, to: shape.to_vec() });
        }
        let step = Step::new("reshape", vec![("shape", shape.into())]);
        Ok(self.shaped(shape).named(self, step))
    }

    /// Axes in another order: axis `axes[i]` becomes axis i.
    pub fn transpose(&self, axes: &[usize]) -> Result<Self, ViewError> {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.shape.len()) {
            let shape = self.shape.to_vec();
            return Err(ViewError::Transpose { axes: axes.to_vec(), shape });
        }
        let step = Step::new("transpose", vec![("axes", axes.into())]);
        let shape: Vec<u64> = axes.iter().map(|&axis| self.shape[axis]).collect();
        if self.numel() == 0 {
            return Ok(self.nothing(shape, step));
        }
        let (source, offset, groups) = self.axes();
        let groups = axes.iter().map(|&axis| groups[axis].clone()).collect();
        Ok(self.moved(source, Layout::new(offset, groups), shape, step))
    }

    /// The indices `range` of an axis, each `step` apart.
    pub fn slice(&self, axis: usize, range: Range<u64>, step: u64) -> Result<Self, ViewError> {
        let Range { start, end: stop } = range;
        if start > stop || stop > self.extent(axis)? || step == 0 {
            let shape = self.shape.to_vec();
            return Err(ViewError::Slice { axis, start, stop, step, shape });
        }
        let mut args: Vec<(&'static str, Value)> =
            vec![("axis", axis.into()), ("start", start.into()), ("stop", stop.into())];
        if step != 1 {
            args.push(("step", step.into()));
        }
        let done = Step::new("slice", args);
        let count = (stop - start).div_ceil(step);
        let mut shape = self.shape.to_vec();
        shape[axis] = count;
        if shape.contains(&0) {
            return Ok(self.nothing(shape, done));
        }
        let (source, offset, mut groups) = self.axes();
        if let Some((first, group)) = layout::slice(&groups[axis], start, count, step) {
            groups[axis] = group;
            return Ok(self.moved(source, Layout::new(offset + first, groups), shape, done));
        }
        // An axis that is no step in the source is one in the movement.
        let mut groups = layout::row_major(&self.shape);
        let (first, part) = groups[axis][0].slice(start, count, step);
        groups[axis] = vec![part];
        Ok(self.moved(self.clone(), Layout::new(first, groups), shape, done))
    }

    /// One index of an axis, which is gone then.
    pub fn select(&self, axis: usize, index: u64) -> Result<Self, ViewError> {
        if index >= self.extent(axis)? {
            return Err(ViewError::Index { axis, index, shape: self.shape.to_vec() });
        }
        let mut shape = self.shape.to_vec();
        shape.remove(axis);
        let step = Step::new("select", vec![("axis", axis.into()), ("index", index.into())]);
        Ok(self.slice(axis, index..index + 1, 1)?.shaped(&shape).named(self, step))
    }

    /// Any indices of an axis in any order, as often as they are named.
    pub fn gather(&self, axis: usize, indices: &[u64]) -> Result<Self, ViewError> {
        let extent = self.extent(axis)?;
        if let Some(&index) = indices.iter().find(|&&index| index >= extent) {
            return Err(ViewError::Index { axis, index, shape: self.shape.to_vec() });
        }
        let step = Step::new("gather", vec![("axis", axis.into()), ("indices", indices.into())]);
        let mut shape = self.shape.to_vec();
        shape[axis] = indices.len() as u64;
        checked(&shape)?;
        if shape.contains(&0) {
            return Ok(self.nothing(shape, step));
        }
        let (source, offset, mut groups) = self.axes();
        let (first, group) = relocated(&groups[axis], indices);
        groups[axis] = group;
        Ok(self.moved(source, Layout::new(offset + first, groups), shape, step))
    }

    /// llama.cpp's order of query and key rows, from the half-split one of `heads` heads of d rows:
    /// row h·d + 2j + t of the result is row h·d + t·(d/2) + j.
    pub fn permute_qk(&self, heads: u64) -> Result<Self, ViewError> {
        let rows = self.extent(0)?;
        if heads == 0 || !rows.is_multiple_of(heads) || !(rows / heads).is_multiple_of(2) {
            return Err(ViewError::Heads { rows, heads });
        }
        let step = Step::new("permute_qk", vec![("n_head", heads.into())]);
        self.pairs_swapped(&[heads, 2, rows / heads / 2], step)
    }

    /// The way back from [`Self::permute_qk`].
    pub fn unpermute_qk(&self, heads: u64) -> Result<Self, ViewError> {
        let rows = self.extent(0)?;
        if heads == 0 || !rows.is_multiple_of(heads) || !(rows / heads).is_multiple_of(2) {
            return Err(ViewError::Heads { rows, heads });
        }
        let step = Step::new("unpermute_qk", vec![("n_head", heads.into())]);
        self.pairs_swapped(&[heads, rows / heads / 2, 2], step)
    }

    /// Takes rows as three axes and swaps the last two of these.
    fn pairs_swapped(&self, rows: &[u64; 3], step: Step) -> Result<Self, ViewError> {
        let split: Vec<u64> = rows.iter().chain(&self.shape[1..]).copied().collect();
        let mut axes: Vec<usize> = (0..split.len()).collect();
        axes.swap(1, 2);
        let turned = self.shaped(&split).transpose(&axes)?;
        Ok(turned.shaped(&self.shape).named(self, step))
    }

    /// The whole, `times` times after each other along an axis.
    pub fn repeat(&self, axis: usize, times: u64) -> Result<Self, ViewError> {
        let extent = self.extent(axis)?;
        let mut shape = self.shape.to_vec();
        let too_large = || ViewError::TooLarge { shape: self.shape.to_vec() };
        shape[axis] = extent.checked_mul(times).ok_or_else(too_large)?;
        checked(&shape)?;
        let step = Step::new("repeat", vec![("axis", axis.into()), ("times", times.into())]);
        if shape.contains(&0) {
            return Ok(self.nothing(shape, step));
        }
        let (source, offset, mut groups) = self.axes();
        groups[axis] = layout::repeated(std::mem::take(&mut groups[axis]), times);
        Ok(self.moved(source, Layout::new(offset, groups), shape, step))
    }

    /// Zeros behind an axis, up to an extent.
    pub fn pad_zero(&self, axis: usize, extent: u64) -> Result<Self, ViewError> {
        let shape = self.shape.to_vec();
        let Some(missing) = extent.checked_sub(self.extent(axis)?) else {
            return Err(ViewError::Pad { axis, extent, shape });
        };
        let step = match axis {
            0 => Step::new("pad_zero_rows", vec![("rows", extent.into())]),
            _ => Step::new("pad_zero", vec![("axis", axis.into()), ("extent", extent.into())]),
        };
        let mut zeros = shape;
        zeros[axis] = missing;
        let parts = [self.clone(), Self::constant(0.0, &zeros)?];
        Self::join(parts.to_vec(), axis, step)
    }

    /// Parts one behind the other along an axis.
    pub fn concat(parts: &[Self], axis: usize) -> Result<Self, ViewError> {
        Self::join(parts.to_vec(), axis, Step::new("concat", vec![("axis", axis.into())]))
    }

    /// Parts of one shape along a new axis.
    pub fn stack(parts: &[Self], axis: usize) -> Result<Self, ViewError> {
        let first = parts.first().ok_or(ViewError::Empty)?;
        let raised = |part: &Self| {
            if part.shape != first.shape || axis > part.shape.len() {
                let (first, other) = (first.shape.to_vec(), part.shape.to_vec());
                return Err(ViewError::Ragged { axis, first, other });
            }
            let mut shape = part.shape.to_vec();
            shape.insert(axis, 1);
            Ok(part.shaped(&shape))
        };
        let parts: Vec<Self> = parts.iter().map(raised).collect::<Result<_, _>>()?;
        Self::join(parts, axis, Step::new("stack", vec![("axis", axis.into())]))
    }

    fn join(parts: Vec<Self>, axis: usize, step: Step) -> Result<Self, ViewError> {
        let shapes: Vec<&[u64]> = parts.iter().map(Self::shape).collect();
        let (join, shape) = Join::new(&shapes, axis)?;
        checked(&shape)?;
        Ok(Self::new(shape, Body::Joined { parts, join, step }, Vec::new()))
    }

    /// The same movements, sums and factors over other stored tensors of the same numbers of elements;
    /// `None` where values are computed in another way, or where `replace` has nothing for a tensor.
    pub fn over(&self, replace: &mut dyn FnMut(&Tensor) -> Option<Tensor>) -> Option<Self> {
        let body = match &self.node.body {
            Body::Stored(tensor) => {
                let other = replace(tensor).filter(|other| other.numel() == tensor.numel())?;
                return Some(Self::of(&other).shaped(&self.shape));
            }
            Body::Constant(value) => Body::Constant(*value),
            Body::Moved { source, layout, .. } => {
                let tiles = layout.tiling(CHUNK).map(|(row, rows)| Tiles::new(row, rows));
                Body::Moved { source: source.over(replace)?, layout: layout.clone(), tiles }
            }
            Body::Joined { parts, join, step } => {
                let parts = parts.iter().map(|part| part.over(replace)).collect::<Option<_>>()?;
                Body::Joined { parts, join: join.clone(), step: step.clone() }
            }
            Body::Computed { source, op } => {
                Body::Computed { op: op.affine()?, source: source.over(replace)? }
            }
            Body::RoundTrip { .. } => return None,
        };
        let steps = self.steps.to_vec();
        Some(Self { bare: self.bare, ..Self::new(self.shape.to_vec(), body, steps) })
    }
}

/// The number of elements of a shape that may be asked for.
fn checked(shape: &[u64]) -> Result<u64, ViewError> {
    checked_numel(shape).ok_or_else(|| ViewError::TooLarge { shape: shape.to_vec() })
}

/// A dimension of any of its indices, and where the first lies.
fn relocated(group: &[Axis], indices: &[u64]) -> (u64, Group) {
    let places = indices.iter().map(|&index| layout::at(group, index)).collect();
    let (first, axis) = Axis::table(places);
    (first, vec![axis])
}

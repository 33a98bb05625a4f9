/*!
Where the elements of a movement come from: an offset, and for each axis how far apart its indices lie
in the source. Index arithmetic only; nothing is read here.

The axes are those of the movement, not of the shape: adjacent ones that lie like one are merged, and
one is split where a shape asks for it, so that a reshape costs nothing.
*/

use std::ops::Range;
use std::sync::Arc;

/// Where the indices of an axis lie, from the first element of the axis on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// So many elements apart; 0 repeats one place.
    Step(u64),
    /// Anywhere.
    Table(Arc<[u64]>),
}

/// One axis of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Number of indices.
    pub extent: u64,
    /// Where they lie.
    pub place: Place,
}

impl Axis {
    fn step(extent: u64, step: u64) -> Self {
        Self { extent, place: Place::Step(step) }
    }

    /// An axis whose indices lie at these places; a plain step where they are evenly spaced.
    pub fn table(places: Vec<u64>) -> (u64, Self) {
        let extent = places.len() as u64;
        let first = places.first().copied().unwrap_or(0);
        let step = places.get(1).and_then(|second| second.checked_sub(first)).unwrap_or(0);
        let even = places.windows(2).all(|pair| pair[1].checked_sub(pair[0]) == Some(step));
        if even {
            return (first, Self::step(extent, step));
        }
        (0, Self { extent, place: Place::Table(places.into()) })
    }

    /// Where an index lies.
    pub fn at(&self, index: u64) -> u64 {
        match &self.place {
            Place::Step(step) => index * step,
            Place::Table(places) => places[index as usize],
        }
    }

    /// The axis as `outer` indices of an inner axis each; `None` for a table.
    fn split(self, outer: u64) -> Option<(Self, Self)> {
        let inner = self.extent / outer;
        match self.place {
            Place::Step(step) => Some((Self::step(outer, inner * step), Self::step(inner, step))),
            Place::Table(_) => None,
        }
    }

    /// `count` of the indices from `start` on, each `step` apart; and where the first of them lies.
    pub fn slice(&self, start: u64, count: u64, step: u64) -> (u64, Self) {
        match &self.place {
            Place::Step(pitch) => (start * pitch, Self::step(count, pitch * step)),
            Place::Table(places) => {
                let wanted = places[start as usize..].iter().step_by(step as usize);
                Self::table(wanted.take(count as usize).copied().collect())
            }
        }
    }
}

/// The axes of one dimension of a shape, the outermost first.
pub type Group = Vec<Axis>;

/// Number of indices of a group.
fn extent(group: &[Axis]) -> u64 {
    group.iter().map(|axis| axis.extent).product()
}

/// Where an index of a dimension lies.
pub fn at(group: &[Axis], mut index: u64) -> u64 {
    let mut place = 0;
    for axis in group.iter().rev() {
        place += axis.at(index % axis.extent);
        index /= axis.extent;
    }
    place
}

/// `count` (at least one) indices of a dimension from `start` on, each `step` apart, and where the
/// first lies; `None` if they are no axes.
pub fn slice(group: &[Axis], start: u64, count: u64, step: u64) -> Option<(u64, Group)> {
    let Some((outer, rest)) = group.split_first() else { return Some((0, Group::new())) };
    if rest.is_empty() {
        let (offset, axis) = outer.slice(start, count, step);
        return Some((offset, vec![axis]));
    }
    let inner = extent(rest);
    let last = start + (count - 1) * step;
    if start / inner == last / inner {
        let (offset, group) = slice(rest, start % inner, count, step)?;
        return Some((outer.at(start / inner) + offset, group));
    }
    if step == 1 && start.is_multiple_of(inner) && count.is_multiple_of(inner) {
        let (offset, axis) = outer.slice(start / inner, count / inner, 1);
        let group = std::iter::once(axis).chain(rest.iter().cloned()).collect();
        return Some((offset, group));
    }
    None
}

/// A group of one axis that repeats everything behind it.
pub fn repeated(group: Group, times: u64) -> Group {
    std::iter::once(Axis::step(times, 0)).chain(group).collect()
}

/// One axis for each dimension of a shape in row-major order.
pub fn row_major(shape: &[u64]) -> Vec<Group> {
    let mut step = 1u64;
    let mut groups: Vec<Group> = Vec::with_capacity(shape.len());
    for &extent in shape.iter().rev() {
        groups.push(vec![Axis::step(extent, step)]);
        step = step.saturating_mul(extent);
    }
    groups.reverse();
    groups
}

/// Where the elements of a movement lie in its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the first element lies.
    pub offset: u64,
    /// Axes in row-major order, none of one index, none that could be merged with the next.
    pub axes: Vec<Axis>,
}

impl Layout {
    /// Of the axes of all dimensions, in order.
    pub fn new(mut offset: u64, groups: Vec<Group>) -> Self {
        let mut axes: Vec<Axis> = Vec::new();
        for axis in groups.into_iter().flatten() {
            if axis.extent == 1 {
                offset += axis.at(0);
                continue;
            }
            if let (Some(outer), Place::Step(inner)) = (axes.last_mut(), &axis.place)
                && outer.place == Place::Step(axis.extent * inner)
            {
                *outer = Axis::step(outer.extent * axis.extent, *inner);
                continue;
            }
            axes.push(axis);
        }
        Self { offset, axes }
    }

    /// The axes as those of a shape's dimensions; `None` where a dimension is no product of them.
    pub fn groups(&self, shape: &[u64]) -> Option<Vec<Group>> {
        let mut rest: Vec<Axis> = self.axes.iter().rev().cloned().collect();
        let mut groups = Vec::with_capacity(shape.len());
        for &extent in shape {
            let mut need = extent;
            let mut group = Group::new();
            while need > 1 {
                let axis = rest.pop()?;
                if need.is_multiple_of(axis.extent) {
                    need /= axis.extent;
                    group.push(axis);
                } else if axis.extent.is_multiple_of(need) {
                    let (outer, inner) = axis.split(need)?;
                    group.push(outer);
                    rest.push(inner);
                    need = 1;
                } else {
                    return None;
                }
            }
            groups.push(group);
        }
        Some(groups)
    }

    /// The run of the source that the elements are, if they are one in order.
    pub fn run(&self) -> Option<Range<u64>> {
        match &self.axes[..] {
            [] => Some(self.offset..self.offset + 1),
            [Axis { extent, place: Place::Step(1) }] => Some(self.offset..self.offset + extent),
            _ => None,
        }
    }

    /// Number of elements that differ in their place, as far as steps say it.
    pub fn distinct(&self) -> u64 {
        let moving = self.axes.iter().filter(|axis| axis.place != Place::Step(0));
        moving.map(|axis| axis.extent).product()
    }

    /// The lowest place.
    pub fn lowest(&self) -> u64 {
        let lowest = |axis: &Axis| match &axis.place {
            Place::Step(_) => 0,
            Place::Table(places) => places.iter().copied().min().unwrap_or(0),
        };
        self.offset + self.axes.iter().map(lowest).sum::<u64>()
    }
}

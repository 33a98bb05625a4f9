/*! Reading a view: values of any range, what is read for them, and what is known without reading. */

use std::ops::Range;
use std::sync::Arc;

use super::View;
use super::expression::Body;
use super::layout::Layout;
use super::summary::{Leaf, Summary};
use crate::codec::Class;
use crate::model::{
    Extent, OwnGrid, Plane, PlaneFinding, ReadError, Rounding, Scratch, SourceFile, Storage,
    Tensor, Weight,
};

/// Elements that are followed at a time.
const PIECE: u64 = 64 * 1024;

impl View {
    /// Decodes a range.
    fn read(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let of = |source: &Self| {
            let source = source.clone();
            move |range: Range<u64>, scratch: &mut Scratch, values: &mut [f32]| {
                source.read(files, range, scratch, values)
            }
        };
        match &self.node.body {
            Body::Stored(tensor) => tensor.decode(files, range, scratch, values),
            Body::Constant(value) => {
                values.fill(*value);
                Ok(())
            }
            Body::Moved { source, layout, tiles: None } => {
                layout.gather(range, scratch, values, &mut of(source))
            }
            Body::Moved { source, layout, tiles: Some(tiles) } => {
                let fetch = &mut of(source);
                tiles.decode(range, scratch, values, &mut |range, scratch, values| {
                    layout.gather(range, scratch, values, fetch)
                })
            }
            Body::Joined { parts, join, .. } => {
                join.read(range, scratch, values, &mut |part, range, scratch, values| {
                    parts[part].read(files, range, scratch, values)
                })
            }
            Body::Computed { source, op } => {
                source.read(files, range.clone(), scratch, values)?;
                op.apply(range.start, source.numel(), values, &mut of(source))
            }
            Body::RoundTrip { source, trip } => trip.read(&range, scratch, values, &mut of(source)),
        }
    }

    /// The stored tensors that values come from.
    pub fn sources(&self) -> impl Iterator<Item = &Tensor> {
        self.summary().leaves.iter().map(|leaf| &leaf.tensor)
    }

    /// What is read of each of [`Self::sources`] for a range: ranges in ascending order that do not
    /// touch. An operation that needs a first pass reads its whole source.
    pub fn reads(&self, range: Range<u64>) -> Vec<(usize, Range<u64>)> {
        let mut reads = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let end = (start + PIECE).min(range.end);
            self.follow(start..end, &mut reads);
            start = end;
        }
        reads.sort_by_key(|(leaf, range)| (*leaf, range.start));
        reads.dedup_by(|next, last| {
            let touches = last.0 == next.0 && next.1.start <= last.1.end;
            if touches {
                last.1.end = last.1.end.max(next.1.end);
            }
            touches
        });
        reads
    }

    /// Follows a range down to what is stored.
    fn follow(&self, range: Range<u64>, reads: &mut Vec<(usize, Range<u64>)>) {
        self.trace(range, &mut |tensor, range| {
            let leaf = self.summary().leaves.iter().position(|leaf| leaf.is_same(tensor));
            reads.extend(leaf.map(|leaf| (leaf, range)));
        });
    }

    fn trace(&self, range: Range<u64>, each: &mut dyn FnMut(&Tensor, Range<u64>)) {
        let mut scratch = Scratch::default();
        let mut values = vec![0.0; (range.end - range.start) as usize];
        // Nothing is read, so nothing can fail.
        let _: Result<(), ReadError> = match &self.node.body {
            Body::Stored(tensor) => {
                each(tensor, range);
                Ok(())
            }
            Body::Constant(_) => Ok(()),
            Body::Moved { source, layout, .. } => {
                layout.gather(range, &mut scratch, &mut values, &mut |range, _, _| {
                    source.trace(range, each);
                    Ok(())
                })
            }
            Body::Joined { parts, join, .. } => {
                join.read(range, &mut scratch, &mut values, &mut |part, range, _, _| {
                    parts[part].trace(range, each);
                    Ok(())
                })
            }
            Body::Computed { source, op } => {
                source.trace(if op.needs_all() { 0..source.numel() } else { range }, each);
                Ok(())
            }
            Body::RoundTrip { source, trip } => {
                source.trace(trip.whole(&range), each);
                Ok(())
            }
        };
    }

    pub(super) fn summary(&self) -> &Summary {
        self.node.summary.get_or_init(|| {
            let mut summary = Summary::new(self.leaves());
            if let Body::RoundTrip { source, trip } = &self.node.body {
                trip.ty.name().clone_into(&mut summary.scheme);
                summary.class = Class::Quantized;
                if trip.is_cast {
                    summary.class = Class::Float;
                } else if let (Some(len), Some(first)) =
                    (trip.ty.bytes_for(self.numel()), summary.planes.first())
                {
                    let (ty, shape) = (trip.ty, source.shape().to_vec());
                    let plane = first.clone();
                    let at = Extent { len, ..plane.at };
                    summary.planes = vec![Plane { ty, shape, at, ..plane }];
                }
            } else if let Some(source) = self.source() {
                // A type that the source has been given.
                source.summary().scheme.clone_into(&mut summary.scheme);
                summary.class = source.summary().class;
            }
            summary
        })
    }

    /// The stored tensors at the bottom, each once, and how much of each is used.
    fn leaves(&self) -> Vec<Leaf> {
        let mut leaves: Vec<Leaf> = Vec::new();
        match &self.node.body {
            Body::Stored(tensor) => {
                leaves.push(Leaf {
                    tensor: tensor.clone(),
                    used: tensor.numel(),
                    from_start: true,
                });
            }
            Body::Constant(_) => {}
            Body::Moved { source, layout, .. } => leaves = moved(source, layout),
            Body::Computed { source, .. } | Body::RoundTrip { source, .. } => {
                leaves.clone_from(&source.summary().leaves);
            }
            Body::Joined { parts, .. } => {
                for leaf in parts.iter().flat_map(|part| &part.summary().leaves) {
                    match leaves.iter_mut().find(|known| known.is_same(&leaf.tensor)) {
                        Some(known) => {
                            known.used = known.used.saturating_add(leaf.used);
                            known.from_start |= leaf.from_start;
                        }
                        None => leaves.push(leaf.clone()),
                    }
                }
            }
        }
        leaves
    }
}

/// The stored tensors behind a movement.
fn moved(source: &View, layout: &Layout) -> Vec<Leaf> {
    let whole = u128::from(source.numel().max(1));
    let part = u128::from(layout.distinct());
    let is_stored = matches!(source.node.body, Body::Stored(_));
    let leaf = |leaf: &Leaf| Leaf {
        tensor: leaf.tensor.clone(),
        used: (u128::from(leaf.used) * part / whole) as u64,
        from_start: leaf.from_start && (!is_stored || layout.lowest() == 0),
    };
    source.summary().leaves.iter().map(leaf).collect()
}

impl Weight for View {
    fn scheme(&self) -> &str {
        &self.summary().scheme
    }

    fn class(&self) -> Class {
        self.summary().class
    }

    fn planes(&self) -> &[Plane] {
        &self.summary().planes
    }

    fn activation_planes(&self) -> &[Plane] {
        if self.bare { &[] } else { &self.summary().activations }
    }

    fn shape_is_known(&self) -> bool {
        self.summary().shape_is_known
    }

    fn view(&self) -> Option<&View> {
        Some(self)
    }

    fn computes(&self) -> bool {
        match &self.node.body {
            Body::Stored(tensor) => match &tensor.storage {
                Storage::Joined(weight) => weight.computes(),
                _ => false,
            },
            Body::Constant(_) => false,
            Body::Moved { source, .. } | Body::RoundTrip { source, .. } => source.computes(),
            Body::Computed { .. } => true,
            Body::Joined { parts, .. } => parts.iter().any(Weight::computes),
        }
    }

    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        self.read(files, range, scratch, values)
    }

    fn has_column_factors(&self) -> bool {
        let has = |tensor: &Tensor| matches!(&tensor.storage, Storage::Joined(weight) if weight.has_column_factors());
        self.summary().leaves.iter().any(|leaf| has(&leaf.tensor))
    }

    fn own_grid(&self) -> Option<OwnGrid> {
        let mut levels: Option<Arc<[f32]>> = None;
        let mut rounding = Rounding::default();
        let mut end = |pick: fn(OwnGrid) -> Tensor| {
            let view = self.over(&mut |leaf| {
                let grid = leaf.own_grid()?;
                rounding.scale = rounding.scale.max(grid.rounding.scale);
                rounding.offset = rounding.offset.max(grid.rounding.offset);
                // What rescales columns rescales this, too.
                rounding.least = 0.0;
                let known = levels.get_or_insert_with(|| Arc::clone(&grid.levels));
                (*known == grid.levels).then(|| pick(grid))
            })?;
            Some(view.into_tensor(String::new()))
        };
        let (lowest, highest) = (end(|grid| grid.lowest)?, end(|grid| grid.highest)?);
        Some(OwnGrid { levels: levels?, lowest, highest, rounding })
    }

    /// Each source's planes are looked through for the view that uses its beginning, so that those of
    /// a stack are read once and not for each expert.
    fn check_planes(
        &self,
        files: &[SourceFile],
        scratch: &mut Scratch,
    ) -> Result<Vec<PlaneFinding>, ReadError> {
        let mut findings = Vec::new();
        for leaf in self.summary().leaves.iter().filter(|leaf| leaf.from_start) {
            if let Storage::Joined(weight) = &leaf.tensor.storage {
                findings.append(&mut weight.check_planes(files, scratch)?);
            }
        }
        Ok(findings)
    }
}

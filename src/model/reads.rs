/*! What is read of a model's files to decode a tensor: known before it is read, so that it can be fetched. */

use std::ops::Range;

use super::view::View;
use super::{Extent, Model, Storage, Tensor};
use crate::remote::{self, Stretch};

impl Model {
    /// Whether any of its files is behind an address.
    pub fn is_remote(&self) -> bool {
        self.files.iter().any(|file| file.remote().is_some())
    }

    /// Says which tensors will be decoded next, in their order; `side` is 0 for a reference, 1 for what is
    /// compared with it. Returns in how many requests; none of files on this machine.
    pub fn announce<'a>(&self, side: usize, tensors: impl Iterator<Item = &'a Tensor>) -> usize {
        if self.is_remote() {
            let extents = tensors.flat_map(self::extents);
            let stretch = |at: Extent| -> Option<Stretch> {
                Some((self.files.get(at.file)?.remote()?.clone(), at.offset, at.len))
            };
            remote::plan(side, &extents.filter_map(stretch).collect::<Vec<_>>())
        } else {
            0
        }
    }
}

/// Where the bytes of a tensor lie.
pub fn extents(tensor: &Tensor) -> Vec<Extent> {
    match &tensor.storage {
        Storage::Plain { at, .. } => vec![*at],
        Storage::Joined(weight) => match weight.view() {
            Some(view) => of_view(view),
            None => weight.planes().iter().map(|plane| plane.at).collect(),
        },
        Storage::Undecodable { .. } => Vec::new(),
    }
}

/// Of a view of whole tensors, all of them; of one that takes parts, the parts, as far as it is known where in a
/// tensor they lie.
fn of_view(view: &View) -> Vec<Extent> {
    let sources: Vec<&Tensor> = view.sources().collect();
    let stored = sources.iter().fold(0u64, |sum, tensor| sum.saturating_add(tensor.numel()));
    if view.numel() >= stored {
        return sources.into_iter().flat_map(extents).collect();
    }
    let reads = view.reads(0..view.numel());
    reads.into_iter().filter_map(|(source, range)| part(sources.get(source)?, range)).collect()
}

/// The bytes of some elements.
fn part(tensor: &Tensor, range: Range<u64>) -> Option<Extent> {
    let Storage::Plain { ty, at } = &tensor.storage else { return None };
    let info = ty.info();
    let (len, bytes) = (info.block_len as u64, info.block_bytes as u64);
    let (first, last) = (range.start / len, range.end.div_ceil(len));
    Some(Extent { file: at.file, offset: at.offset + first * bytes, len: (last - first) * bytes })
}

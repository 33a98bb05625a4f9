/*!
A quantized tensor's own grid: the values that its stored scales and zero points allow each element to
have, whatever its code is.

Every element's values are the levels of one list, scaled and shifted. So it is enough to know what
the weight decodes to with all codes at the lowest level, and with all at the highest; and whatever
reroutes or scales a weight does the same to both of them.
*/

use std::ops::Range;
use std::sync::Arc;

use super::{Extent, Plane, ReadError, Scratch, SourceFile, Storage, Tensor, Weight};
use crate::codec::{End, Levels, TensorType};

/// The values that each element of a weight could have.
#[derive(Clone, Debug)]
pub struct OwnGrid {
    /// The levels, ascending; at least two.
    pub levels: Arc<[f32]>,
    /// The weight with every code at the first level.
    pub lowest: Tensor,
    /// The weight with every code at the last level.
    pub highest: Tensor,
    /// How far the stored scales may be from those that the codes were chosen with.
    pub rounding: Rounding,
}

/// Half a unit in the last place of the types in which scales and offsets are stored, relative to them; 0 where
/// the codes are chosen with them as they are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rounding {
    /// Of what codes are multiplied with.
    pub scale: f64,
    /// Of what is added to them.
    pub offset: f64,
    /// Scales below this are stored as zero.
    pub least: f64,
}

impl OwnGrid {
    /// The grid of a weight that is `change` of the weight whose grid this is.
    #[must_use]
    pub fn map(self, change: impl Fn(Tensor) -> Tensor) -> Self {
        Self { lowest: change(self.lowest), highest: change(self.highest), ..self }
    }
}

impl Tensor {
    /// The values that the stored scales and zero points allow; none for floats, codebooks, and
    /// whatever else has no list of levels.
    pub fn own_grid(&self) -> Option<OwnGrid> {
        match &self.storage {
            Storage::Joined(weight) => weight.own_grid(),
            Storage::Plain { ty, at } => {
                let levels = Levels::of(*ty)?;
                let plane =
                    Plane { name: self.name.clone(), ty: *ty, shape: self.shape.clone(), at: *at };
                let filled = |end| Filled { plane: [plane.clone()], levels, end };
                Some(OwnGrid {
                    levels: levels.values().into(),
                    lowest: self.with(filled(End::Lowest)),
                    highest: self.with(filled(End::Highest)),
                    rounding: Rounding::default(),
                })
            }
            Storage::Undecodable { .. } => None,
        }
    }

    /// The same tensor with other values.
    pub(super) fn with(&self, weight: impl Weight + 'static) -> Self {
        Self {
            name: self.name.clone(),
            shape: self.shape.clone(),
            storage: Storage::Joined(Arc::new(weight)),
        }
    }
}

/// Blocks of a ggml type with every code at one end of the levels.
struct Filled {
    plane: [Plane; 1],
    levels: &'static Levels,
    end: End,
}

impl std::fmt::Debug for Filled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {:?}", self.plane[0], self.end)
    }
}

impl Weight for Filled {
    fn scheme(&self) -> &str {
        self.plane[0].ty.name()
    }

    fn planes(&self) -> &[Plane] {
        &self.plane
    }

    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let [Plane { ty, at, .. }] = &self.plane;
        decode_filled(*ty, *at, (self.levels, self.end), files, range, scratch, values)
    }
}

/// Reads the blocks that hold `range`, sets all their codes to one end of the levels, and decodes them.
pub fn decode_filled(
    ty: TensorType,
    at: Extent,
    (levels, end): (&Levels, End),
    files: &[SourceFile],
    range: Range<u64>,
    scratch: &mut Scratch,
    values: &mut [f32],
) -> Result<(), ReadError> {
    let row = ty.info();
    let decode =
        row.decode.ok_or_else(|| ReadError::Undecodable(format!("{ty} is not decoded")))?;
    let len = row.block_len as u64;
    let (first, last) = (range.start / len, range.end.div_ceil(len));
    let mut blocks = scratch.take_bytes();
    blocks.resize((last - first) as usize * row.block_bytes, 0);
    files[at.file].read_at(at.offset + first * row.block_bytes as u64, &mut blocks)?;
    levels.fill(end, &mut blocks);
    let mut whole = scratch.take_floats();
    whole.resize(((last - first) * len) as usize, 0.0);
    decode(&blocks, &mut whole);
    let skip = (range.start - first * len) as usize;
    values.copy_from_slice(&whole[skip..skip + values.len()]);
    scratch.give_floats(whole);
    scratch.give_bytes(blocks);
    Ok(())
}

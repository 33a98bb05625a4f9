/*! The directory of a model: its tensors, where their bytes lie, and how to read their values. */

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::configuration::ConfigFinding;
use super::view::{Tile, View};
use super::{OwnGrid, ReadError, SourceFile};
use crate::codec::{Class, TensorType};

/// The container of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One safetensors file, or a sharded checkpoint of them.
    Safetensors,
    /// One GGUF file, or a split one.
    Gguf,
}

impl Format {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
        }
    }
}

/// A range of bytes in one of the model's files; in bounds when the model was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Index into [`Model::files`].
    pub file: usize,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Number of elements of a shape whose product was checked when the model was opened; an empty
/// extent makes it zero before a large one beside it can overflow.
fn numel(shape: &[u64]) -> u64 {
    if shape.contains(&0) { 0 } else { shape.iter().product() }
}

/// Number of elements of a shape that a file claims. `None` if the product of its extents, zeros
/// left out, reaches 2^63: no part of such a product can overflow afterwards, in whatever order
/// it is computed, and no element count is negative in a signed number.
pub(super) fn checked_numel(shape: &[u64]) -> Option<u64> {
    let product = shape.iter().try_fold(1u64, |n, &extent| n.checked_mul(extent.max(1)))?;
    i64::try_from(product).is_ok().then(|| numel(shape))
}

/// One stored tensor, as the container lists it.
#[derive(Clone, Debug)]
pub struct Plane {
    /// Its name in the container.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// Outermost dimension first, as numpy and torch print it.
    pub shape: Vec<u64>,
    /// Where its bytes lie.
    pub at: Extent,
}

impl Plane {
    /// Number of elements.
    pub fn numel(&self) -> u64 {
        numel(&self.shape)
    }

    /// Decodes the elements of `range`, in row-major order, into `values`.
    pub fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        decode_plain(self.ty, self.at, files, range, scratch, values)
    }
}

/// A weight that several stored planes make up: codes, scales, zero points, indices.
///
/// Implementations decode any range of the logical weight, in row-major order, in memory that does
/// not grow with the weight.
pub trait Weight: Send + Sync + fmt::Debug {
    /// Name of the scheme in reports, as in `FP8`, `GPTQ4`, `NVFP4`.
    fn scheme(&self) -> &str;

    /// The stored planes, codes first.
    fn planes(&self) -> &[Plane];

    /// Decodes the elements of `range` into `values` (`values.len() == range.len()`).
    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError>;

    /// Planes that belong to the weight's module but not to its values: scales of activations.
    fn activation_planes(&self) -> &[Plane] {
        &[]
    }

    /// Whether the planes say the weight's shape; if not, only its number of elements is sure.
    fn shape_is_known(&self) -> bool {
        true
    }

    /// The weight as one of `shape`, where the planes leave open which of several shapes it has;
    /// `None` if they cannot make up that one.
    fn reshaped(&self, _shape: &[u64]) -> Option<Arc<dyn Weight>> {
        None
    }

    /// How the values are to be compared.
    fn class(&self) -> Class {
        Class::Quantized
    }

    /// The expression, if the weight is one over other tensors.
    fn view(&self) -> Option<&View> {
        None
    }

    /// Whether decoding does arithmetic on stored values beyond what their codec does, so that values are
    /// rounded on the way: a factor that is taken out, a one that is added.
    fn computes(&self) -> bool {
        false
    }

    /// Whether factors of its columns are stored beside the codes: those by which a weight was smoothed.
    fn has_column_factors(&self) -> bool {
        false
    }

    /// Planes of scales, zero points and code books, as far as they are known.
    fn grids(&self) -> Vec<Grid> {
        Vec::new()
    }

    /// The values that the stored scales and zero points allow; none if they are not levels of one
    /// list.
    fn own_grid(&self) -> Option<OwnGrid> {
        None
    }

    /// What sound quantization onto the weight's own scales, code books and places makes of values of a
    /// reference: those of `range` (whole rows, or a part of one) are in `values` and are replaced; `read`
    /// gives others, by element. `false` if that is not known.
    fn requantized(
        &self,
        _files: &[SourceFile],
        _range: Range<u64>,
        _read: ReadReference,
        _scratch: &mut Scratch,
        _values: &mut [f32],
    ) -> Result<bool, ReadError> {
        Ok(false)
    }

    /// Looks through the scale, zero-point and index planes for what decoding alone does not show:
    /// planes that are zero throughout, and values that are not finite. Reads each plane once, in
    /// constant memory.
    fn check_planes(
        &self,
        _files: &[SourceFile],
        _scratch: &mut Scratch,
    ) -> Result<Vec<PlaneFinding>, ReadError> {
        Ok(Vec::new())
    }
}

/// Reads values of a reference, by element of the weight that answers to it.
pub type ReadReference<'a> =
    &'a mut dyn FnMut(Range<u64>, &mut Scratch, &mut [f32]) -> Result<(), ReadError>;

/// What a plane beside the codes does to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GridRole {
    /// It multiplies.
    Scale,
    /// It is added or subtracted.
    Zero,
    /// Codes stand for its vectors.
    Book,
}

/// A plane of scales or zero points.
#[derive(Clone, Debug)]
pub struct Grid {
    /// What it does.
    pub role: GridRole,
    /// The type that its bits have, whatever the container calls it.
    pub ty: TensorType,
    /// Where its bytes lie.
    pub at: Extent,
}

/// What is wrong with a plane of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaneFault {
    /// It should be there and is not.
    Missing,
    /// It is there and should not be: nothing uses it.
    Extra,
    /// Its type or shape does not fit the codes.
    Shape,
    /// Every value is zero. No fault if the weight is zero in the reference as well.
    Zero,
    /// Some values are NaN or infinite.
    NonFinite,
    /// Packed values ran into their neighbours.
    Borrowed,
}

/// A fault of one plane, as [`Weight::check_planes`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaneFinding {
    /// Name of the plane.
    pub plane: String,
    /// The kind of fault.
    pub fault: PlaneFault,
    /// What is wrong, as a fragment that reads after the plane's name.
    pub message: String,
}

/// A fault of a plane of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFinding {
    /// The logical weight.
    pub tensor: String,
    /// Name of the plane.
    pub plane: String,
    /// The kind of fault.
    pub fault: PlaneFault,
    /// What is wrong, as a fragment that reads after the plane's name.
    pub message: String,
}

/// How the values of a tensor are stored.
#[derive(Clone, Debug)]
pub enum Storage {
    /// One contiguous run of elements or blocks.
    Plain {
        /// The element or block type.
        ty: TensorType,
        /// Where its bytes lie.
        at: Extent,
    },
    /// Several planes, joined by a quantization scheme.
    Joined(Arc<dyn Weight>),
    /// The container is sound, but these bytes cannot be decoded; the others go on.
    Undecodable {
        /// The type's or scheme's name, or its id.
        what: String,
        /// Why, and what to do.
        reason: String,
        /// Where its bytes lie, if that is known.
        at: Option<Extent>,
    },
}

impl Storage {
    /// Is it this very one, or a copy of it?
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain { ty, at }, Self::Plain { ty: of, at: there }) => ty == of && at == there,
            (Self::Joined(weight), Self::Joined(other)) => Arc::ptr_eq(weight, other),
            (Self::Undecodable { at, .. }, Self::Undecodable { at: there, .. }) => at == there,
            _ => false,
        }
    }
}

/// One tensor of a model.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Unique in the model.
    pub name: String,
    /// Outermost dimension first, as numpy and torch print it; empty for a scalar.
    pub shape: Vec<u64>,
    /// How its values are stored.
    pub storage: Storage,
}

impl Tensor {
    /// Number of elements.
    pub fn numel(&self) -> u64 {
        numel(&self.shape)
    }

    /// The expression, if the tensor is one over other tensors.
    pub fn view(&self) -> Option<&View> {
        match &self.storage {
            Storage::Joined(weight) => weight.view(),
            _ => None,
        }
    }

    /// The type or scheme, as the `qtype` column prints it.
    pub fn qtype(&self) -> &str {
        match &self.storage {
            Storage::Plain { ty, .. } => ty.name(),
            Storage::Joined(weight) => weight.scheme(),
            Storage::Undecodable { what, .. } => what,
        }
    }

    /// How the values are to be compared.
    pub fn class(&self) -> Class {
        match &self.storage {
            Storage::Plain { ty, .. } => ty.info().class,
            Storage::Joined(weight) => weight.class(),
            Storage::Undecodable { .. } => Class::Quantized,
        }
    }

    /// Where the bytes lie: the codes' extent, if several planes make the tensor up.
    pub fn extent(&self) -> Option<Extent> {
        match &self.storage {
            Storage::Plain { at, .. } => Some(*at),
            Storage::Joined(weight) => weight.planes().first().map(|plane| plane.at),
            Storage::Undecodable { at, .. } => *at,
        }
    }

    /// Stored bytes, every plane counted.
    pub fn stored_bytes(&self) -> u64 {
        match &self.storage {
            Storage::Plain { at, .. } => at.len,
            Storage::Joined(weight) => weight.planes().iter().map(|plane| plane.at.len).sum(),
            Storage::Undecodable { at, .. } => at.map_or(0, |at| at.len),
        }
    }

    /// Stored bits per element, every plane counted; `None` for an empty tensor.
    pub fn bits_per_weight(&self) -> Option<f64> {
        let numel = self.numel();
        (numel > 0).then(|| self.stored_bytes() as f64 * 8.0 / numel as f64)
    }

    /// Decodes the elements of `range`, in row-major order, into `values`.
    pub fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        match &self.storage {
            Storage::Plain { ty, at } => decode_plain(*ty, *at, files, range, scratch, values),
            Storage::Joined(weight) => weight.decode(files, range, scratch, values),
            Storage::Undecodable { reason, .. } => Err(ReadError::Undecodable(reason.clone())),
        }
    }
}

/// Reads and decodes a run of elements of a plain tensor; a range that does not begin or end on a
/// block boundary costs one copy.
fn decode_plain(
    ty: TensorType,
    at: Extent,
    files: &[SourceFile],
    range: Range<u64>,
    scratch: &mut Scratch,
    values: &mut [f32],
) -> Result<(), ReadError> {
    let row = ty.info();
    let decode = row.decode.ok_or_else(|| {
        ReadError::Undecodable(format!("{ty} values are compared bit for bit, not decoded"))
    })?;
    let len = row.block_len as u64;
    let (first, last) = (range.start / len, range.end.div_ceil(len));
    let bytes = (last - first) as usize * row.block_bytes;
    let blocks = scratch.bytes(bytes);
    files[at.file].read_at(at.offset + first * row.block_bytes as u64, blocks)?;
    if first * len == range.start && last * len == range.end {
        decode(blocks, values);
        return Ok(());
    }
    let mut whole = vec![0.0; ((last - first) * len) as usize];
    decode(blocks, &mut whole);
    let skip = (range.start - first * len) as usize;
    values.copy_from_slice(&whole[skip..skip + values.len()]);
    Ok(())
}

/// Buffers that a reader keeps from one chunk to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Whether rows are taken here and there, and perhaps again.
    pub(super) is_for_samples: bool,
    bytes: Vec<u8>,
    spare_bytes: Vec<Vec<u8>>,
    spare_floats: Vec<Vec<f32>>,
    /// Tiles of transposed weights, the last used first.
    pub(super) tiles: Vec<Tile>,
    /// Code books of vectors, the last used first.
    pub(super) books: Vec<super::scheme::Loaded>,
}

impl Scratch {
    /// Of a reader that takes rows here and there, so that decoded runs are worth finding again.
    pub fn for_samples() -> Self {
        Self { is_for_samples: true, ..Self::default() }
    }

    /// A buffer of `len` bytes with unspecified contents.
    pub fn bytes(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        &mut self.bytes[..len]
    }

    /// A buffer of bytes with unspecified length and contents, to be given back.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        self.spare_bytes.pop().unwrap_or_default()
    }

    /// Gives a buffer back for the next taker.
    pub fn give_bytes(&mut self, buffer: Vec<u8>) {
        self.spare_bytes.push(buffer);
    }

    /// A buffer of values with unspecified length and contents, to be given back.
    pub fn take_floats(&mut self) -> Vec<f32> {
        self.spare_floats.pop().unwrap_or_default()
    }

    /// Gives a buffer back for the next taker.
    pub fn give_floats(&mut self, buffer: Vec<f32>) {
        self.spare_floats.push(buffer);
    }
}

/// A model: its files and its tensors. A clone shares the open files.
#[derive(Clone, Debug)]
pub struct Model {
    /// The path that was opened.
    pub path: PathBuf,
    /// Its container.
    pub format: Format,
    /// Its files, in order of their names.
    pub files: Vec<SourceFile>,
    /// Its tensors, sorted by name.
    pub tensors: Vec<Tensor>,
    /// Stored tensors that are no weights: scales of activations and caches, markers of a layout.
    pub loose: Vec<Tensor>,
    /// Key/value metadata of the container, each value in its JSON form. Long GGUF arrays and
    /// strings are described by length and SHA-256 (see `gguf/metadata.rs`), so that equal JSON
    /// means equal values. A split model's `split.*` keys are left out.
    pub metadata: Vec<(String, Value)>,
    /// What is odd but no error, for people to read.
    pub notes: Vec<String>,
    /// Planes of quantized weights that are missing, superfluous or misshapen.
    pub findings: Vec<ModelFinding>,
    /// Where the checkpoint's configuration of its quantization contradicts what is stored; none if it
    /// states no quantization.
    pub configuration: Option<Vec<ConfigFinding>>,
}

impl Model {
    /// Index of every tensor by name.
    pub fn by_name(&self) -> HashMap<&str, usize> {
        self.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect()
    }

    /// Sum of the files' lengths in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }
}

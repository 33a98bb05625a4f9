/*!
The GGUF container, versions 2 and 3: key/value pairs, tensor infos, and the data section.

Every limit of the format is checked here, once, and against the file's own length before anything
is allocated: counts, names, shapes, types, alignment, offsets, overlaps, the end of the file. A
tensor of a type that cannot be read is kept as such and does not stop the others; a file whose
structure is wrong is refused. The layout is that of the GGUF description in the ggml project.

Split models are put together in [`split`], NVFP4 weights with their factors in [`nvfp4`]; types whose
rows have a form of their own are read in [`rows`].
*/

mod metadata;
mod native_shape;
mod nvfp4;
mod reader;
mod refused;
mod rows;
mod split;

use std::path::Path;

use serde_json::Value;

use self::metadata::{Entry, ValueType};
use self::reader::HeaderReader;
use self::split::Split;
use super::tensor::{Extent, Storage, Tensor, checked_numel};
use super::{FileFault, ModelError, SourceFile};
use crate::codec::TensorType;

pub use native_shape::restore as restore_shapes;
pub use nvfp4::join as join_nvfp4;
pub use split::{is_one_model, is_raw_piece, shard_name, shards};

/// The first bytes of every GGUF file.
pub const MAGIC: &[u8; 4] = b"GGUF";
/// Alignment of the data where `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Bytes of the shortest possible key/value pair: an empty key, a type and one byte.
const MIN_ENTRY: u64 = 13;
/// Bytes of the shortest possible tensor info: an empty name, no extents, a type and an offset.
const MIN_INFO: u64 = 24;
/// Longest name that ggml itself accepts (its buffer holds 64 bytes with the terminator).
const GGML_NAME: usize = 63;

/// What one file holds.
pub struct Contents {
    pub tensors: Vec<Tensor>,
    pub metadata: Vec<(String, Value)>,
    pub notes: Vec<String>,
    /// Its place in a split model.
    split: Option<Split>,
}

impl Contents {
    /// Checks that the file is number `index` of a model of `count` files, of which those before
    /// hold `tensors_before`.
    pub fn check_place(
        &self,
        source: &SourceFile,
        index: usize,
        count: usize,
        tensors_before: usize,
    ) -> Result<(), ModelError> {
        split::check_shard(source, self.split, index, count)?;
        match self.split {
            Some(split) if index + 1 == count => {
                split::check_total(source, split, tensors_before + self.tensors.len())
            }
            _ => Ok(()),
        }
    }
}

/// Reads and checks the header of `source`, and fills in its header digest; `file` is the file's
/// index in the model.
pub fn read(source: &mut SourceFile, file: usize) -> Result<Contents, ModelError> {
    let mut reader = HeaderReader::new(source);
    check_version(&mut reader)?;
    let tensor_count = reader.count(MIN_INFO, "the number of tensors")?;
    let entry_count = reader.count(MIN_ENTRY, "the number of metadata keys")?;
    let entries = metadata::read(&mut reader, entry_count)?;
    let alignment = alignment(&reader, &entries)?;
    let mut infos = Vec::new();
    for index in 0..tensor_count {
        infos.push(Info::read(&mut reader, index, alignment)?);
    }
    refuse_duplicates(source, &infos)?;
    // The padding before the data belongs to the header, as far as the file has it.
    let data_start = reader.position().next_multiple_of(alignment);
    let padding = (data_start - reader.position()).min(reader.remaining());
    reader.skip(padding, "the padding before the data")?;
    let header_sha256 = reader.finish();
    let mut notes = long_names(&infos);
    let nested = entries.iter().filter(|entry| metadata::is_nested(&entry.value));
    notes.extend(nested.map(|entry| {
        format!(
            "metadata key {:?} is an array of arrays, which ggml itself does not read",
            entry.key
        )
    }));
    notes.extend(check_layout(source, &infos, data_start, alignment)?);
    let split = Split::from_metadata(source, &entries)?;
    source.header_sha256 = header_sha256;
    let len = source.len;
    let tensors = infos.into_iter().map(|info| info.into_tensor(file, data_start, len)).collect();
    let metadata = entries
        .into_iter()
        .filter(|entry| !split::is_key(&entry.key))
        .map(|entry| (entry.key, entry.value))
        .collect();
    Ok(Contents { tensors, metadata, notes, split })
}

/// What a file says it is, if that is no model: `general.architecture` and `general.type` tell, not its
/// name. `None` for a model, and for a file that cannot be read.
pub fn kind_beside(path: &Path) -> Option<&'static str> {
    let mut source = SourceFile::open(path).ok()?;
    let metadata = read(&mut source, 0).ok()?.metadata;
    let word = |key: &str| {
        let (_, value) = metadata.iter().find(|(name, _)| name == key)?;
        Some(value.as_str()?.to_ascii_lowercase())
    };
    let (architecture, kind) = (word("general.architecture"), word("general.type"));
    let row = BESIDE.iter().find(|(key, value, _)| match *key {
        "general.type" => kind.as_deref() == Some(value),
        _ => architecture.as_deref() == Some(value),
    });
    row.map(|(.., name)| *name)
}

/// Files that are no model: the key that tells, its value, and what they are.
const BESIDE: &[(&str, &str, &str)] = &[
    ("general.type", "mmproj", "a projector"),
    ("general.type", "adapter", "an adapter"),
    ("general.type", "imatrix", "an importance matrix"),
    ("general.type", "vocab", "a vocabulary"),
    ("general.architecture", "clip", "a projector"),
    ("general.architecture", "controlvector", "a control vector"),
];

/// Magic and version: what is not GGUF 2 or 3 is refused by name.
/// Hands every string of an array in the metadata to `visit`, in order; of one that is longer than a token
/// can be, its beginning. `false` if there is no such array.
pub fn strings(
    source: &SourceFile,
    key: &str,
    visit: &mut dyn FnMut(&[u8]),
) -> Result<bool, ModelError> {
    let mut reader = HeaderReader::new(source);
    check_version(&mut reader)?;
    reader.count(MIN_INFO, "the number of tensors")?;
    let entries = reader.count(MIN_ENTRY, "the number of metadata keys")?;
    metadata::strings(&mut reader, entries, key, visit)
}

fn check_version(reader: &mut HeaderReader) -> Result<(), ModelError> {
    let magic = reader.take(MAGIC.len(), "the magic number")?;
    if magic != MAGIC {
        return Err(reader.error("is not a GGUF file: it does not begin with \"GGUF\"").at(0));
    }
    let version = reader.u32("the version")?;
    let problem = match version {
        2 | 3 => return Ok(()),
        1 => "is GGUF version 1 (August 2023), which nothing reads any more; convert the model \
              again"
            .to_owned(),
        _ if version != 0 && version.trailing_zeros() >= 16 => {
            "is a big-endian GGUF file (made for s390x and the like); convert it to little-endian \
             with `gguf-py/gguf/scripts/gguf_convert_endian.py FILE little`"
                .to_owned()
        }
        _ => format!("is GGUF version {version}; qualm reads versions 2 and 3"),
    };
    Err(reader.error(problem).at(MAGIC.len() as u64))
}

/// `general.alignment`: a power of two from 8 bytes to 1 MiB.
fn alignment(reader: &HeaderReader, entries: &[Entry]) -> Result<u64, ModelError> {
    let Some(entry) = entries.iter().find(|entry| entry.key == "general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let value = entry.value.as_u64().filter(|_| entry.ty == ValueType::U32);
    match value {
        Some(bytes) if bytes.is_power_of_two() && (8..=1 << 20).contains(&bytes) => Ok(bytes),
        _ => {
            let problem = format!(
                "metadata key \"general.alignment\" is {} (type {}); it must be a u32, a power of \
                 two, from 8 to 1048576",
                entry.value,
                entry.ty.name()
            );
            Err(reader.error(problem).at(entry.position))
        }
    }
}

/// One tensor as the header lists it.
struct Info {
    name: String,
    /// Outermost dimension first.
    shape: Vec<u64>,
    type_id: u32,
    /// From the start of the data section.
    offset: u64,
    /// Stored bytes, if the type is known.
    bytes: Option<u64>,
    /// Position of the info in the file.
    position: u64,
}

impl Info {
    fn read(reader: &mut HeaderReader, index: u64, alignment: u64) -> Result<Self, ModelError> {
        let position = reader.position();
        let name = reader.name(&format!("the name of tensor {index}"))?;
        let in_tensor = |error: ModelError| error.tensor(&name);
        let at = reader.position();
        let rank = reader.u32("the number of dimensions").map_err(in_tensor)?;
        if rank > 4 {
            let problem = format!("has {rank} dimensions; GGUF allows 4 at most");
            return Err(in_tensor(reader.error(problem).at(at)));
        }
        let mut shape = Vec::with_capacity(rank as usize);
        for _ in 0..rank {
            shape.push(reader.u64("an extent").map_err(in_tensor)?);
        }
        // The file has the fastest dimension first.
        shape.reverse();
        let type_id = reader.u32("the type").map_err(in_tensor)?;
        let offset_at = reader.position();
        let offset = reader.u64("the offset").map_err(in_tensor)?;
        if checked_numel(&shape).is_none() {
            let problem = format!("the product of its shape {shape:?} overflows");
            return Err(in_tensor(reader.error(problem).at(at)));
        }
        if !offset.is_multiple_of(alignment) {
            let problem =
                format!("its offset {offset} is not a multiple of the alignment ({alignment})");
            return Err(in_tensor(reader.error(problem).at(offset_at)));
        }
        let bytes = match TensorType::from_ggml_id(type_id) {
            Some(ty) => Some(ty.bytes_of(&shape).map_err(|error| {
                let error = reader.error(error.to_string()).at(at);
                in_tensor(error.because(FileFault::RaggedRow))
            })?),
            None => None,
        };
        Ok(Self { name, shape, type_id, offset, bytes, position })
    }

    /// End of the bytes in the data section. A tensor of unknown size has one byte at least, so
    /// that another tensor at the same place is an overlap.
    fn end(&self) -> Option<u64> {
        let empty = self.shape.contains(&0);
        self.offset.checked_add(self.bytes.unwrap_or(u64::from(!empty)))
    }

    fn into_tensor(self, file: usize, data_start: u64, file_len: u64) -> Tensor {
        let known = TensorType::from_ggml_id(self.type_id).zip(self.bytes);
        let storage = if let Some((ty, len)) = known {
            // The clamp concerns empty tensors alone: the padding before them may be missing.
            let offset = data_start.saturating_add(self.offset).min(file_len);
            let at = Extent { file, offset, len };
            let rows = rows::storage(&self.name, ty, &self.shape, at);
            rows.unwrap_or(Storage::Plain { ty, at })
        } else {
            let (what, reason) = refused::explain(self.type_id);
            Storage::Undecodable { what, reason, at: None }
        };
        Tensor { name: self.name, shape: self.shape, storage }
    }
}

fn refuse_duplicates(source: &SourceFile, infos: &[Info]) -> Result<(), ModelError> {
    let mut order: Vec<&Info> = infos.iter().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    match order.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(ModelError::new(&source.path, "the header lists it twice")
            .tensor(&pair[0].name)
            .at(pair[0].position.max(pair[1].position))
            .because(FileFault::DuplicateName)),
        None => Ok(()),
    }
}

fn long_names(infos: &[Info]) -> Vec<String> {
    let mut long = infos.iter().filter(|info| info.name.len() > GGML_NAME);
    let Some(first) = long.next() else { return Vec::new() };
    vec![format!(
        "{} tensor names are longer than the {GGML_NAME} bytes that ggml accepts ({:?}, …)",
        1 + long.count(),
        first.name
    )]
}

/// Holds every tensor against the file's end and its neighbours. Gaps are legal, and noted.
fn check_layout(
    source: &SourceFile,
    infos: &[Info],
    data_start: u64,
    alignment: u64,
) -> Result<Vec<String>, ModelError> {
    let mut order: Vec<&Info> = infos.iter().collect();
    order.sort_by_key(|info| (info.offset, info.end()));
    let data_len = source.len.saturating_sub(data_start);
    let mut gaps = Vec::new();
    let mut before: Option<(&Info, u64)> = None;
    for info in order {
        let error = |problem: String| ModelError::new(&source.path, problem).tensor(&info.name);
        let end = info.end().filter(|end| {
            // An empty last tensor begins after padding that the file need not have.
            *end <= data_len || (*end == info.offset && *end < data_len + alignment)
        });
        let Some(end) = end else {
            let beyond = info.end().map(|end| end.saturating_sub(data_len));
            // Data that were written for ggml's own alignment lie a little before their places.
            let early = beyond.is_some_and(|by| {
                by + DEFAULT_ALIGNMENT <= alignment && by.is_multiple_of(DEFAULT_ALIGNMENT)
            });
            let fault = if early { FileFault::Misaligned } else { FileFault::Truncated };
            let problem = past_the_end(info, data_start, data_len);
            return Err(error(problem).at(info.position).because(fault));
        };
        let due = before.map_or(0, |(_, end)| end);
        if let Some((other, _)) = before
            && info.offset < due
        {
            let problem = format!(
                "its data, bytes {} to {due} of the data section, run into those of {:?}, which \
                 begin at {}",
                other.offset, info.name, info.offset
            );
            let position = data_start + info.offset;
            let missing = due - info.offset;
            let short = other.bytes.is_some_and(|bytes| missing * 4 <= bytes);
            let fault = if short { FileFault::ShortRegion } else { FileFault::Overlap };
            let error = error(problem).tensor(&other.name).at(position).because(fault);
            return Err(if short { error } else { error.beside(info.name.as_str()) });
        }
        let size_known = before.is_none_or(|(other, _)| other.bytes.is_some());
        if size_known && info.offset > due.next_multiple_of(alignment) {
            gaps.push((info, info.offset - due));
        }
        if end > due || before.is_none() {
            before = Some((info, end));
        }
    }
    let (last_known, end) = before.map_or((true, 0), |(info, end)| (info.bytes.is_some(), end));
    let mut notes = Vec::new();
    if let Some((first, bytes)) = gaps.first() {
        notes.push(format!(
            "{} gaps between tensors; the first, of {bytes} bytes, is before {:?}",
            gaps.len(),
            first.name
        ));
    }
    let trailing = data_len.saturating_sub(end.next_multiple_of(alignment));
    if last_known && trailing > 0 {
        notes.push(format!("{trailing} bytes follow the last tensor"));
    }
    Ok(notes)
}

fn past_the_end(info: &Info, data_start: u64, data_len: u64) -> String {
    let begin = data_start.saturating_add(info.offset);
    let has = format!("the file has {data_len} bytes of data, from byte {data_start} on");
    match info.bytes {
        Some(bytes) => format!(
            "its {bytes} bytes at byte {begin} run past the file's end ({has}): \
             the file is truncated or its header is wrong"
        ),
        None => format!(
            "its data begin at byte {begin}, past the file's end ({has}): \
             the file is truncated or its header is wrong"
        ),
    }
}

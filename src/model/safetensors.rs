/*!
The safetensors container: a length, a JSON header, and the data.

Every rule of the format is checked here, once: header length and encoding, duplicate names, shapes
whose product overflows, offsets that overlap, leave gaps or run past the end. The layout is that of
the safetensors format description; the names and widths of element types are the `safetensors`
crate's. Nothing is allocated that the file itself is not long enough to fill.
*/

use std::fmt;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::tensor::{Extent, Storage, Tensor, checked_numel};
use super::{FileFault, ModelError, SourceFile};
use crate::codec::TensorType;

/// The format's own limit for a header.
const MAX_HEADER: u64 = 100_000_000;
/// Longest tensor name that is accepted, in bytes; as in GGUF.
const MAX_NAME: usize = 0xFFFF;
/// Most dimensions that are accepted, as many as torch and numpy have.
const MAX_RANK: usize = 64;
/// Most `__metadata__` keys that are accepted, far above any real file's.
const MAX_KEYS: usize = 1 << 16;

/// Tensors and `__metadata__` of one file; `file` is its index in the model.
pub struct Contents {
    pub tensors: Vec<Tensor>,
    pub metadata: Vec<(String, Value)>,
}

/// Reads and checks the header of `source`, and fills in its header digest.
pub fn read(source: &mut SourceFile, file: usize) -> Result<Contents, ModelError> {
    let (header, data_start) = read_header(source)?;
    let text = std::str::from_utf8(&header).map_err(|e| {
        ModelError::new(&source.path, "the safetensors header is not UTF-8")
            .at(8 + e.valid_up_to() as u64)
    })?;
    let parsed: Header = serde_json::from_str(text).map_err(|e| {
        let at = 8 + byte_of(text, e.line(), e.column());
        ModelError::new(&source.path, format!("the safetensors header is malformed: {e}")).at(at)
    })?;
    if let Some(name) = parsed.twice {
        return Err(ModelError::new(&source.path, "the header lists it twice")
            .tensor(name)
            .because(FileFault::DuplicateName));
    }
    let entries = check_layout(source, parsed.tensors, data_start)?;
    let tensors = entries
        .into_iter()
        .map(|(name, entry)| tensor(source, file, name, entry, data_start))
        .collect::<Result<_, _>>()?;
    let metadata = parsed.metadata.into_iter().map(|(k, v)| (k, Value::String(v))).collect();
    Ok(Contents { tensors, metadata })
}

/// The header's bytes and where the data begin.
fn read_header(source: &mut SourceFile) -> Result<(Vec<u8>, u64), ModelError> {
    let short = |source: &SourceFile| {
        ModelError::new(
            &source.path,
            format!("is too short for a safetensors file ({} bytes)", source.len),
        )
    };
    if source.len < 8 {
        return Err(short(source));
    }
    let prefix = source.read_range(0, 8, "the header length")?;
    let length = prefix.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    if length > MAX_HEADER {
        let problem = format!(
            "claims a header of {length} bytes, over safetensors' limit of {MAX_HEADER}; \
             is it a safetensors file?"
        );
        return Err(ModelError::new(&source.path, problem).at(0));
    }
    source.check_range(8, length, "the safetensors header")?;
    let start = source.read_range(8, length.min(64), "the safetensors header")?;
    if start.trim_ascii_start().first() != Some(&b'{') {
        let problem = "is not a safetensors file: its header does not begin with `{`";
        return Err(ModelError::new(&source.path, problem).at(8));
    }
    let header = source.read_range(8, length, "the safetensors header")?;
    let mut digest = Sha256::new();
    digest.update(&prefix);
    digest.update(&header);
    source.header_sha256 = crate::model::file::hex(&digest.finalize());
    Ok((header, 8 + length))
}

/// Byte offset of a 1-based line and column, as `serde_json` counts them.
fn byte_of(text: &str, line: usize, column: usize) -> u64 {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (start + column.saturating_sub(1)) as u64
}

/// Checks sizes, and that the data are contiguous from the first byte to the file's last.
fn check_layout(
    source: &SourceFile,
    mut entries: Vec<(String, Entry)>,
    data_start: u64,
) -> Result<Vec<(String, Entry)>, ModelError> {
    let data_len = source.len - data_start;
    let error = |name: &str, problem: String| ModelError::new(&source.path, problem).tensor(name);
    for (name, entry) in &entries {
        let [begin, end] = entry.data_offsets;
        if begin > end {
            return Err(error(
                name,
                format!("its data_offsets end ({end}) before they begin ({begin})"),
            ));
        }
        if end > data_len {
            let problem = format!(
                "its data end at byte {end} of the data section, which has {data_len} bytes: \
                 the file is truncated or its header is wrong"
            );
            let error = error(name, problem).at(data_start.saturating_add(begin));
            return Err(error.because(FileFault::Truncated));
        }
        let numel = checked_numel(&entry.shape).ok_or_else(|| {
            error(name, format!("the product of its shape {:?} overflows", entry.shape))
        })?;
        let Some(bits) = entry.bits() else { continue };
        let stored = numel.checked_mul(bits).filter(|bits| bits % 8 == 0).map(|bits| bits / 8);
        if stored != Some(end - begin) {
            let problem = format!(
                "its shape {:?} of {} does not fill its {} bytes",
                entry.shape,
                entry.dtype,
                end - begin
            );
            return Err(error(name, problem).at(data_start + begin));
        }
    }
    entries.sort_by(|(a, x), (b, y)| x.data_offsets.cmp(&y.data_offsets).then_with(|| a.cmp(b)));
    let (mut expected, mut before): (u64, Option<&String>) = (0, None);
    for (name, entry) in &entries {
        let [begin, end] = entry.data_offsets;
        if begin != expected {
            let overlap = begin < expected;
            let what = if overlap { "overlap the tensor before" } else { "leave a gap" };
            let problem = format!(
                "its data begin at {begin} of the data section where {expected} was due: they {what}"
            );
            let error = error(name, problem).at(data_start + begin);
            return Err(match before {
                Some(before) if overlap => {
                    error.beside(before.as_str()).because(FileFault::Overlap)
                }
                _ => error,
            });
        }
        expected = end;
        before = Some(name);
    }
    if expected != data_len {
        let problem = format!(
            "has {} bytes after the last tensor's data; the header accounts for {expected}",
            data_len - expected
        );
        return Err(ModelError::new(&source.path, problem).at(data_start + expected));
    }
    Ok(entries)
}

/// Turns a checked entry into a tensor; a type that qualm does not know is kept, not fatal.
fn tensor(
    source: &SourceFile,
    file: usize,
    name: String,
    entry: Entry,
    data_start: u64,
) -> Result<Tensor, ModelError> {
    let [begin, end] = entry.data_offsets;
    let at = Extent { file, offset: data_start + begin, len: end - begin };
    let storage = match TensorType::from_safetensors(&entry.dtype) {
        Some(ty) => match checked_numel(&entry.shape).and_then(|numel| ty.bytes_for(numel)) {
            Some(bytes) if bytes == at.len => Storage::Plain { ty, at },
            _ => {
                let problem = format!("its shape {:?} is not whole {ty} blocks", entry.shape);
                return Err(ModelError::new(&source.path, problem).tensor(name).at(at.offset));
            }
        },
        None => Storage::Undecodable {
            reason: format!("safetensors dtype {:?} is not supported", entry.dtype),
            what: entry.dtype,
            at: Some(at),
        },
    };
    Ok(Tensor { name, shape: entry.shape, storage })
}

/// The JSON header.
struct Header {
    tensors: Vec<(String, Entry)>,
    metadata: Vec<(String, String)>,
    /// The first name that is there twice.
    twice: Option<String>,
}

/// One tensor's entry in the header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    #[serde(deserialize_with = "shape")]
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Extents, of which there are never many.
fn shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    struct ShapeVisitor;
    impl<'de> Visitor<'de> for ShapeVisitor {
        type Value = Vec<u64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of extents")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut extents: A) -> Result<Vec<u64>, A::Error> {
            let mut shape = Vec::new();
            while let Some(extent) = extents.next_element()? {
                if shape.len() == MAX_RANK {
                    let problem = format_args!("has more than {MAX_RANK} dimensions");
                    return Err(de::Error::custom(problem));
                }
                shape.push(extent);
            }
            Ok(shape)
        }
    }
    deserializer.deserialize_seq(ShapeVisitor)
}

impl Entry {
    /// Bits of an element, by the safetensors crate; `None` for a type that it does not know.
    fn bits(&self) -> Option<u64> {
        let dtype = Dtype::deserialize(Value::String(self.dtype.clone())).ok()?;
        Some(dtype.bitsize() as u64)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header { tensors: Vec::new(), metadata: Vec::new(), twice: None };
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.len() > MAX_NAME {
                let problem = format_args!("a tensor's name is {} bytes long", name.len());
                return Err(de::Error::custom(problem));
            }
            if !seen.insert(name.clone()) {
                map.next_value::<IgnoredAny>()?;
                header.twice.get_or_insert(name);
                continue;
            }
            if name == "__metadata__" {
                header.metadata = map.next_value::<Strings>()?.0;
            } else {
                let entry = map
                    .next_value::<Entry>()
                    .map_err(|e| de::Error::custom(format_args!("tensor {name:?}: {e}")))?;
                header.tensors.push((name, entry));
            }
        }
        Ok(header)
    }
}

/// `__metadata__`: strings to strings, in file order.
struct Strings(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringsVisitor;
        impl<'de> Visitor<'de> for StringsVisitor {
            type Value = Strings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Strings, E> {
                Ok(Strings(Vec::new()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strings, A::Error> {
                let mut strings = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        let problem = format_args!("__metadata__ key {key:?} is there twice");
                        return Err(de::Error::custom(problem));
                    }
                    if strings.len() == MAX_KEYS {
                        let problem = format_args!("__metadata__ has more than {MAX_KEYS} keys");
                        return Err(de::Error::custom(problem));
                    }
                    strings.push((key, map.next_value::<String>()?));
                }
                Ok(Strings(strings))
            }
        }
        deserializer.deserialize_any(StringsVisitor)
    }
}

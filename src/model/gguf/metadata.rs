/*!
GGUF's key/value pairs, in a JSON form that is small and can be compared.

Scalars are JSON scalars; an f32 becomes the shortest decimal that reads back as the same f32, and
NaN and the infinities become the strings `"NaN"`, `"inf"`, `"-inf"`. Strings of up to 1024 bytes
are JSON strings, arrays of up to 16 short elements are JSON arrays. What is longer is described
instead of kept, because a vocabulary alone can be many megabytes:

- an array: `{"type": "array", "of": "string", "len": 32000, "sha256": "…", "first": [… four]}`, in which
  an element that is an array in its turn is quoted by its type and length alone;
- a string, or one that is not UTF-8: `{"type": "string", "len": 5120, "sha256": "…", "first": "…"}`.

The digest is of the value's bytes as stored (an array's elements with their lengths, without the
element type and the count), so that two descriptions are equal just when the values are.
*/

use serde_json::{Value, json};

use super::reader::HeaderReader;
use crate::model::ModelError;

/// Longest string that is kept whole, in bytes.
const SHORT_STRING: u64 = 1024;
/// Longest array that is kept whole, in elements.
const SHORT_ARRAY: u64 = 16;
/// Longest string that is kept whole inside an array, in bytes.
const SHORT_ELEMENT: u64 = 256;
/// Longest string that is accepted, in bytes.
const MAX_STRING: u64 = 64 << 20;
/// Most elements of an array that are accepted; the limit of ggml's own reader.
const MAX_ARRAY: u64 = 1 << 30;
/// Elements and characters that a description quotes.
const QUOTED_ELEMENTS: u64 = 4;
const QUOTED_CHARS: usize = 64;
/// How deep arrays may lie in arrays.
const MAX_DEPTH: u32 = 8;
/// Most keys that are accepted, far above any real file's.
const MAX_KEYS: u64 = 1 << 16;

/// One key and its value.
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value's stored type.
    pub ty: ValueType,
    /// Its JSON form.
    pub value: Value,
    /// Position of the key in the file.
    pub position: u64,
}

/// Type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// Every type with its id, its name and the bytes of one value (of an empty one, if the
    /// length varies).
    const TABLE: [(Self, &'static str, u64); 13] = [
        (Self::U8, "u8", 1),
        (Self::I8, "i8", 1),
        (Self::U16, "u16", 2),
        (Self::I16, "i16", 2),
        (Self::U32, "u32", 4),
        (Self::I32, "i32", 4),
        (Self::F32, "f32", 4),
        (Self::Bool, "bool", 1),
        (Self::String, "string", 8),
        (Self::Array, "array", 12),
        (Self::U64, "u64", 8),
        (Self::I64, "i64", 8),
        (Self::F64, "f64", 8),
    ];

    fn read(reader: &mut HeaderReader, what: &str) -> Result<Self, ModelError> {
        let at = reader.position();
        let id = reader.u32(what)?;
        match Self::TABLE.get(id as usize) {
            Some((ty, ..)) => Ok(*ty),
            None => Err(reader.error(format!("{what} is {id}, which is no GGUF type")).at(at)),
        }
    }

    /// Name in messages and in the JSON form.
    pub fn name(self) -> &'static str {
        Self::TABLE[self as usize].1
    }

    fn min_bytes(self) -> u64 {
        Self::TABLE[self as usize].2
    }
}

/// Reads all key/value pairs and refuses a key that is there twice.
pub fn read(reader: &mut HeaderReader, count: u64) -> Result<Vec<Entry>, ModelError> {
    if count > MAX_KEYS {
        let problem = format!("has {count} metadata keys; more than {MAX_KEYS} are not believed");
        return Err(reader.error(problem));
    }
    let mut entries = Vec::new();
    for index in 0..count {
        let position = reader.position();
        let key = reader.name(&format!("metadata key {index}"))?;
        let ty = ValueType::read(reader, &format!("the value type of {key:?}"))?;
        let value = match ty {
            ValueType::Array => array(reader, &format!("the array {key:?}"), 1)?,
            ValueType::String => string(reader, &format!("the value of {key:?}"), SHORT_STRING)?,
            _ => scalar(reader, ty, &format!("the value of {key:?}"))?,
        };
        entries.push(Entry { key, ty, value, position });
    }
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by(|a, b| a.key.cmp(&b.key));
    match order.windows(2).find(|pair| pair[0].key == pair[1].key) {
        Some(pair) => {
            let problem = format!("metadata key {:?} is there twice", pair[1].key);
            Err(reader.error(problem).at(pair[0].position.max(pair[1].position)))
        }
        None => Ok(entries),
    }
}

/// Hands every element of the array of strings under a key to `visit`, of a long one its beginning; whether
/// there is such an array.
pub fn strings(
    reader: &mut HeaderReader,
    count: u64,
    wanted: &str,
    visit: &mut dyn FnMut(&[u8]),
) -> Result<bool, ModelError> {
    for index in 0..count {
        let key = reader.name(&format!("metadata key {index}"))?;
        let what = format!("the value of {key:?}");
        match ValueType::read(reader, &what)? {
            ValueType::Array => {
                let (of, len) = array_head(reader, &what, 1)?;
                if key != wanted || of != ValueType::String {
                    skip_elements(reader, of, len, &what, 1)?;
                    continue;
                }
                for _ in 0..len {
                    let len = reader.string_len(MAX_STRING, &what)?;
                    let kept = len.min(SHORT_STRING);
                    visit(reader.take(kept as usize, &what)?);
                    reader.skip(len - kept, &what)?;
                }
                return Ok(true);
            }
            ty => skip_elements(reader, ty, 1, &what, 1)?,
        }
    }
    Ok(false)
}

fn scalar(reader: &mut HeaderReader, ty: ValueType, what: &str) -> Result<Value, ModelError> {
    Ok(match ty {
        ValueType::U8 => reader.u8(what)?.into(),
        ValueType::I8 => reader.i8(what)?.into(),
        ValueType::U16 => reader.u16(what)?.into(),
        ValueType::I16 => reader.i16(what)?.into(),
        ValueType::U32 => reader.u32(what)?.into(),
        ValueType::I32 => reader.i32(what)?.into(),
        ValueType::U64 => reader.u64(what)?.into(),
        ValueType::I64 => reader.i64(what)?.into(),
        ValueType::F32 => float(f64_as_printed(reader.f32(what)?)),
        ValueType::F64 => float(reader.f64(what)?),
        ValueType::Bool => {
            let at = reader.position();
            match reader.u8(what)? {
                0 => false.into(),
                1 => true.into(),
                byte => {
                    let problem = format!("{what} is a bool of {byte}; only 0 and 1 are valid");
                    return Err(reader.error(problem).at(at));
                }
            }
        }
        ValueType::String => string(reader, what, SHORT_ELEMENT)?,
        ValueType::Array => array(reader, what, MAX_DEPTH)?,
    })
}

/// The f64 whose shortest decimal is that of the f32, so that 1e-12 is not printed with the noise
/// of its conversion. Distinct f32 stay distinct.
fn f64_as_printed(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn float(value: f64) -> Value {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}

/// A string, whole if it is UTF-8 of at most `short` bytes, else its description.
fn string(reader: &mut HeaderReader, what: &str, short: u64) -> Result<Value, ModelError> {
    let len = reader.string_len(MAX_STRING, what)?;
    reader.begin_digest();
    let quoted = reader.take(len.min(short) as usize, what)?.to_vec();
    reader.skip(len - quoted.len() as u64, what)?;
    let sha256 = reader.end_digest();
    if len <= short
        && let Ok(text) = std::str::from_utf8(&quoted)
    {
        return Ok(text.into());
    }
    Ok(json!({ "type": "string", "len": len, "sha256": sha256, "first": quote(&quoted) }))
}

/// The beginning of a string, for people.
fn quote(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(QUOTED_CHARS).collect()
}

/// An array at the given depth, whole if it is short, else its description.
fn array(reader: &mut HeaderReader, what: &str, depth: u32) -> Result<Value, ModelError> {
    let (of, len) = array_head(reader, what, depth)?;
    // Only the innermost arrays of two levels are kept whole, so that their number is bounded.
    if len <= SHORT_ARRAY && (depth == 1 || of != ValueType::Array) {
        let elements = (0..len).map(|_| match of {
            ValueType::Array => array(reader, what, depth + 1),
            _ => scalar(reader, of, what),
        });
        return Ok(Value::Array(elements.collect::<Result<_, _>>()?));
    }
    reader.begin_digest();
    let mut first = Vec::new();
    let quoted = len.min(QUOTED_ELEMENTS);
    for _ in 0..quoted {
        first.push(match of {
            ValueType::String => quoted_string(reader, what)?,
            ValueType::Array => {
                let (of, len) = array_head(reader, what, depth + 1)?;
                skip_elements(reader, of, len, what, depth + 1)?;
                json!({ "type": "array", "of": of.name(), "len": len })
            }
            _ => scalar(reader, of, what)?,
        });
    }
    skip_elements(reader, of, len - quoted, what, depth)?;
    let sha256 = reader.end_digest();
    Ok(json!({ "type": "array", "of": of.name(), "len": len, "sha256": sha256, "first": first }))
}

/// Whether a value's JSON form is that of an array of arrays, which ggml's own reader refuses.
pub fn is_nested(value: &Value) -> bool {
    let is_array = |value: &Value| value.is_array() || value["type"] == "array";
    match value {
        Value::Array(elements) => elements.iter().any(is_array),
        described => described["type"] == "array" && described["of"] == "array",
    }
}

/// The type of an array's elements, and their number.
fn array_head(
    reader: &mut HeaderReader,
    what: &str,
    depth: u32,
) -> Result<(ValueType, u64), ModelError> {
    if depth > MAX_DEPTH {
        let problem = format!("{what} has arrays in arrays more than {MAX_DEPTH} deep");
        return Err(reader.error(problem));
    }
    let of = ValueType::read(reader, &format!("the element type of {what}"))?;
    let len = reader.count(of.min_bytes(), &format!("the length of {what}"))?;
    if len > MAX_ARRAY {
        let problem = format!("{what} claims {len} elements, over the limit of {MAX_ARRAY}");
        return Err(reader.error(problem));
    }
    Ok((of, len))
}

/// Passes over the elements of an array at the given depth.
fn skip_elements(
    reader: &mut HeaderReader,
    of: ValueType,
    len: u64,
    what: &str,
    depth: u32,
) -> Result<(), ModelError> {
    match of {
        ValueType::String => {
            for _ in 0..len {
                let len = reader.string_len(MAX_STRING, what)?;
                reader.skip(len, what)?;
            }
        }
        ValueType::Array => {
            for _ in 0..len {
                let (of, len) = array_head(reader, what, depth + 1)?;
                skip_elements(reader, of, len, what, depth + 1)?;
            }
        }
        _ => reader.skip(len * of.min_bytes(), what)?,
    }
    Ok(())
}

/// The beginning of an array's string element; the array's digest covers all of it.
fn quoted_string(reader: &mut HeaderReader, what: &str) -> Result<Value, ModelError> {
    let len = reader.string_len(MAX_STRING, what)?;
    let kept = len.min(SHORT_ELEMENT);
    let text = quote(reader.take(kept as usize, what)?);
    reader.skip(len - kept, what)?;
    Ok(text.into())
}

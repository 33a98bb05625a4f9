/*!
JSON whose shape is not known, read in memory that stays in proportion: a few megabytes of small
objects would otherwise take a hundred times as much.
*/

use std::cell::Cell;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Most bytes, about, that a value may take in memory.
const MOST: usize = 48 << 20;

/// Bytes that an object takes beside its entries, an entry beside its key, and any value.
const OBJECT: usize = 640;
const ENTRY: usize = 64;
const VALUE: usize = 40;

/// Reads a JSON text; refuses one that would take too much memory.
pub fn value(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(bytes).map(|Bounded(value)| value)
}

/// A value that takes a bounded amount of memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounded(pub Value);

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Budget(&Cell::new(MOST)).deserialize(deserializer).map(Self)
    }
}

/// What is left of the memory.
#[derive(Clone, Copy)]
struct Budget<'a>(&'a Cell<usize>);

impl Budget<'_> {
    fn take<E: de::Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(bytes).ok_or_else(|| {
            E::custom(format_args!("it holds more than {} MiB of values", MOST >> 20))
        })?;
        self.0.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Budget<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.take(VALUE)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Budget<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.take(text.len())?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        self.take(OBJECT)?;
        while let Some(key) = entries.next_key::<String>()? {
            self.take(ENTRY + key.len())?;
            map.insert(key, entries.next_value_seed(self)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_are_read_and_large_ones_refused() {
        let text = r#"{"a":[1,-2,0.5,null,true,"x"],"b":{"c":{}},"a2":18446744073709551615}"#;
        let plain: Value = serde_json::from_str(text).unwrap();
        assert_eq!(value(text.as_bytes()).unwrap(), plain);
        for (what, item) in [("objects", r#"{"":0}"#), ("numbers", "0"), ("lists", "[]")] {
            let text = format!("[{}]", vec![item; 3_000_000].join(","));
            let error = value(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("more than 48 MiB of values"), "{what}: {error}");
        }
    }
}

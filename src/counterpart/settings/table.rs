/*!
The table of settings: for each key of a GGUF file's metadata what `config.json` makes of it.
*/

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::value::MapAccessDeserializer};
use serde_json::Value;

use crate::counterpart::number::Number;

/// The file.
const FILE: &str = include_str!("settings.toml");

/// What `config.json` makes of a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setting {
    /// Numbers, the first with a value first.
    pub numbers: Vec<Number>,
    /// One of the numbers must be it, whichever.
    pub any: bool,
    /// What loaders take where the metadata do not have the key.
    pub absent: Option<Number>,
    /// How tensors begin of which a layer with 0 has none.
    pub zeros: Vec<String>,
    /// What a word of `config.json` is called in the metadata.
    pub words: BTreeMap<String, Value>,
    /// Keys of lists, the first that is there first.
    pub list: Vec<String>,
}

/// What the converters of some architectures do otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Converter {
    /// `general.architecture` of what they make.
    of: Vec<String>,
    #[serde(default)]
    settings: BTreeMap<String, Setting>,
    /// Why a key is not compared.
    #[serde(default)]
    not_compared: BTreeMap<String, String>,
}

/// The table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(deserialize_with = "spellings")]
    spellings: BTreeMap<String, Vec<Number>>,
    #[serde(rename = "settings")]
    common: BTreeMap<String, Setting>,
    converters: Vec<Converter>,
}

impl Settings {
    /// The table that comes with qualm.
    pub fn built_in() -> &'static Self {
        static TABLE: OnceLock<Settings> = OnceLock::new();
        TABLE.get_or_init(|| {
            let table = toml::from_str(FILE);
            // A test reads the file.
            debug_assert!(table.is_ok(), "settings.toml: {:?}", table.as_ref().err());
            table.unwrap_or_default()
        })
    }

    /// Spellings of a name; none if it is none.
    pub fn spellings(&self, name: &str) -> Option<&[Number]> {
        self.spellings.get(name).map(Vec::as_slice)
    }

    /// Every key that is compared in files of an architecture, with what is made of it.
    pub fn of(&self, architecture: &str) -> BTreeMap<&str, &Setting> {
        let own = self.converters.iter().filter(|it| it.of.iter().any(|of| of == architecture));
        let mut of: BTreeMap<&str, Option<&Setting>> = BTreeMap::new();
        for converter in own {
            for (key, setting) in &converter.settings {
                of.entry(key).or_insert(Some(setting));
            }
            for key in converter.not_compared.keys() {
                of.entry(key).or_insert(None);
            }
        }
        for (key, setting) in &self.common {
            of.entry(key).or_insert(Some(setting));
        }
        of.into_iter().filter_map(|(key, setting)| Some((key, setting?))).collect()
    }

    /// Whether a key of the tokenizer is compared in files of an architecture.
    pub fn compares(&self, architecture: &str, key: &str) -> bool {
        let mut own = self.converters.iter().filter(|it| it.of.iter().any(|of| of == architecture));
        !own.any(|converter| converter.not_compared.contains_key(key))
    }

    /// The keys that are compared in files of most architectures.
    #[cfg(test)]
    pub fn common(&self) -> &BTreeMap<String, Setting> {
        &self.common
    }

    /// Every exception: an architecture and a key that is compared in another way.
    #[cfg(test)]
    pub fn exceptions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.converters.iter().flat_map(|converter| {
            let keys = converter.settings.keys();
            keys.flat_map(|key| converter.of.iter().map(move |of| (of.as_str(), key.as_str())))
        })
    }
}

fn spellings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<Number>>, D::Error> {
    let written = BTreeMap::<String, Vec<String>>::deserialize(deserializer)?;
    let read = |(name, texts): (String, Vec<String>)| Ok((name, numbers(&texts)?));
    written.into_iter().map(read).collect::<Result<_, String>>().map_err(de::Error::custom)
}

fn numbers(texts: &[String]) -> Result<Vec<Number>, String> {
    let read = |text: &String| text.parse().map_err(|why| format!("{text:?}: {why}"));
    texts.iter().map(read).collect()
}

/// How the file writes a setting that is more than numbers.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    first: Vec<String>,
    any: Vec<String>,
    absent: Option<String>,
    zeros: Vec<String>,
    words: BTreeMap<String, Value>,
    list: Vec<String>,
}

impl TryFrom<Written> for Setting {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { first, any, absent, zeros, words, list } = written;
        let one = [first.is_empty(), any.is_empty(), list.is_empty()];
        if one.into_iter().filter(|is_empty| !is_empty).count() != 1 {
            return Err("a setting has one of first, any and list".to_owned());
        }
        let numbers = numbers(if first.is_empty() { &any } else { &first })?;
        let absent = absent.map(|text| text.parse()).transpose()?;
        Ok(Self { numbers, any: !any.is_empty(), absent, zeros, words, list })
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsWritten;
        impl<'de> Visitor<'de> for AsWritten {
            type Value = Written;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, a list of numbers, or a table")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written { first: vec![text.to_owned()], ..Written::default() })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Written, A::Error> {
                let mut first = Vec::new();
                while let Some(text) = seq.next_element()? {
                    first.push(text);
                }
                Ok(Written { first, ..Written::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map))
            }
        }
        let written = deserializer.deserialize_any(AsWritten)?;
        Self::try_from(written).map_err(de::Error::custom)
    }
}

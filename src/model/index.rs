/*!
`*.safetensors.index.json`: which shard holds which tensor.

An index decides what the model is: a tensor belongs to the one shard that the index gives it to, and
what a shard holds beyond that is no part of the model.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::{ModelError, SourceFile, Tensor};

/// The end of an index's file name.
pub const SUFFIX: &str = ".safetensors.index.json";

/// Longest index that is read, in bytes; safetensors' own limit for a header.
const MAX_INDEX: u64 = 100_000_000;

/// Names that a note quotes.
const QUOTED: usize = 3;

/// An index of shards.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
    /// What a shard holds that the index does not give it: tensor and shard.
    left_out: Vec<(String, String)>,
}

/// The file. Its `metadata` (a total size, which writers compute in several ways) are not used.
#[derive(Deserialize)]
struct File {
    #[serde(deserialize_with = "weight_map")]
    weight_map: BTreeMap<String, String>,
}

/// A map that refuses a key that is there twice.
fn weight_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct MapVisitor;
    impl<'de> Visitor<'de> for MapVisitor {
        type Value = BTreeMap<String, String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of file names")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut names = BTreeMap::new();
            while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                if names.contains_key(&tensor) {
                    let problem = format_args!("tensor {tensor:?} is there twice");
                    return Err(de::Error::custom(problem));
                }
                names.insert(tensor, file);
            }
            Ok(names)
        }
    }
    deserializer.deserialize_map(MapVisitor)
}

impl Index {
    /// Reads and checks an index; whether its shards are there is seen when they are opened.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let source = SourceFile::open(path)?;
        if source.len > MAX_INDEX {
            let problem = format!("is too long for an index of shards ({} bytes)", source.len);
            return Err(ModelError::new(path, problem));
        }
        let text = source.read_range(0, source.len, "the index")?;
        let File { weight_map } = serde_json::from_slice(&text)
            .map_err(|e| ModelError::new(path, format!("is not an index of shards: {e}")))?;
        if weight_map.is_empty() {
            return Err(ModelError::new(path, "its weight_map is empty"));
        }
        if let Some(shard) = weight_map.values().find(|shard| !is_plain_name(shard)) {
            let problem = format!("names the shard {shard:?}, which is not a plain file name");
            return Err(ModelError::new(path, problem));
        }
        Ok(Self { path: path.to_owned(), weight_map, left_out: Vec::new() })
    }

    /// The index's own path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the shards, sorted.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Opens one of the shards.
    pub fn open(&self, shard: &str) -> Result<SourceFile, ModelError> {
        SourceFile::open(&self.path.with_file_name(shard)).map_err(|mut error| {
            let index = self.path.file_name().unwrap_or_default().to_string_lossy();
            error.problem = format!("{} ({index} names it as a shard)", error.problem);
            error
        })
    }

    /// Takes the tensors of `shard` that the index does not give to it out of `tensors`.
    pub fn take_out(&mut self, shard: &str, tensors: &mut Vec<Tensor>) {
        let listed = |tensor: &mut Tensor| {
            let own = self.weight_map.get(&tensor.name).is_some_and(|file| file == shard);
            if !own {
                self.left_out.push((tensor.name.clone(), shard.to_owned()));
            }
            own
        };
        tensors.retain_mut(listed);
    }

    /// Checks that every tensor was in its shard, once all shards were read; `has` says what the
    /// model holds. Returns what was taken out, in notes for people.
    pub fn finish(self, has: impl Fn(&str) -> bool) -> Result<Vec<String>, ModelError> {
        for (name, shard) in &self.weight_map {
            if !has(name) {
                let elsewhere = self.left_out.iter().find(|(other, _)| other == name);
                let elsewhere =
                    elsewhere.map_or_else(String::new, |(_, file)| format!("; {file} does"));
                let problem =
                    format!("the index says that {shard} holds it, but it does not{elsewhere}");
                return Err(ModelError::new(&self.path, problem).tensor(name));
            }
        }
        let mut by_shard: BTreeMap<&str, [Vec<&str>; 2]> = BTreeMap::new();
        for (name, shard) in &self.left_out {
            let stale = self.weight_map.contains_key(name);
            by_shard.entry(shard).or_default()[usize::from(stale)].push(name);
        }
        let why = ["are not in the index", "are given to another shard by the index"];
        let notes = by_shard.iter().flat_map(|(shard, lists)| {
            let lists = lists.iter().zip(why).filter(|(names, _)| !names.is_empty());
            lists.map(move |(names, why)| {
                let more = if names.len() > QUOTED { ", …" } else { "" };
                let quoted = names[..names.len().min(QUOTED)].join(", ");
                format!("{shard}: {} tensors {why} and are left out ({quoted}{more})", names.len())
            })
        });
        Ok(notes.collect())
    }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0'])
}

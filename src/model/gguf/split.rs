/*!
Split GGUF models: `{stem}-{no:05}-of-{count:05}.gguf`, each shard a complete GGUF file.

From one shard's name to all of them, and the checks that they belong together. Raw byte pieces of
one file are another thing; they are recognised here so that they can be refused by name.
*/

use std::path::{Path, PathBuf};

use super::Entry;
use crate::model::{ModelError, SourceFile, place};

/// What a file says about its place in a split model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Number of the shard, from 0.
    pub no: u64,
    /// Number of shards.
    pub count: u64,
    /// Tensors in all shards together, if the shard says so.
    pub tensors: Option<u64>,
}

impl Split {
    /// Reads the `split.*` keys; `None` for a model in one piece.
    pub fn from_metadata(
        source: &SourceFile,
        entries: &[Entry],
    ) -> Result<Option<Self>, ModelError> {
        let number = |key: &str| {
            let Some(entry) = entries.iter().find(|entry| entry.key == key) else {
                return Ok(None);
            };
            let problem = || format!("metadata key {key:?} is {}, not a count", entry.value);
            let number = entry.value.as_u64();
            number
                .map(Some)
                .ok_or_else(|| ModelError::new(&source.path, problem()).at(entry.position))
        };
        let (no, count) = (number("split.no")?, number("split.count")?);
        let tensors = number("split.tensors.count")?;
        match count {
            None | Some(0 | 1) => Ok(None),
            Some(count) => Ok(Some(Self { no: no.unwrap_or(0), count, tensors })),
        }
    }
}

/// Whether a key says how the model is stored rather than what it is. Such keys are left out of
/// the metadata, so that a split model and a whole one can be compared.
pub fn is_key(key: &str) -> bool {
    key.starts_with("split.")
}

/// A file name of the form `{stem}-{no:05}-of-{count:05}.gguf`, taken apart; `no` is from 1.
fn parse_name(name: &str) -> Option<(&str, u64, u64)> {
    shard_name(name.strip_suffix(".gguf")?)
}

/// A shard's file name without its extension, `{stem}-{no:05}-of-{count:05}`, taken apart; `no` is from
/// 1.
pub fn shard_name(name: &str) -> Option<(&str, u64, u64)> {
    let (rest, count) = name.rsplit_once("-of-")?;
    let (stem, no) = rest.rsplit_once('-')?;
    let number = |digits: &str| {
        let plain = digits.len() >= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok())?
    };
    Some((stem, number(no)?, number(count)?))
}

/// All shards of the model that a path belongs to, in order; just the path itself if its name is
/// not that of a shard. Whether they are there is seen when they are opened.
pub fn shards(path: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some((stem, no, count)) = name.as_deref().and_then(parse_name) else {
        return Ok(vec![path.to_owned()]);
    };
    // The container stores the count in 16 bits.
    if no == 0 || no > count || count > 0xFFFF {
        let problem = format!("its name says shard {no} of {count}, which cannot be");
        return Err(ModelError::new(path, problem));
    }
    let mut paths = Vec::new();
    for shard in 1..=count {
        let path = if shard == no {
            path.to_owned()
        } else {
            path.with_file_name(format!("{stem}-{shard:05}-of-{count:05}.gguf"))
        };
        if !place::exists(&path) {
            let problem = format!(
                "is missing: shard {shard} of the {count} of {stem}; all of them must be in one \
                 directory"
            );
            return Err(ModelError::new(&path, problem));
        }
        paths.push(path);
    }
    Ok(paths)
}

/// Whether every file name of the list is a shard of one and the same model.
pub fn is_one_model(names: &[&str]) -> bool {
    let mut models = names.iter().map(|name| parse_name(name).map(|(stem, _, n)| (stem, n)));
    match models.next() {
        Some(Some(first)) => models.all(|other| other == Some(first)),
        _ => false,
    }
}

/// Whether a name is that of a raw piece (`x.gguf.part-aa`, `x.gguf-split-a`, `x.gguf.part1of2`):
/// bytes cut out of one GGUF file, without a header of their own.
pub fn is_raw_piece(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
    name.is_some_and(|name| {
        let numbered = name.rsplit_once(".gguf.").is_some_and(|(_, rest)| {
            rest.len() >= 2 && rest.bytes().all(|byte| byte.is_ascii_digit())
        });
        let infixes = [".gguf.part", ".gguf-part", ".gguf-split-", ".gguf.split-"];
        numbered || infixes.iter().any(|infix| name.contains(infix))
    })
}

/// Checks that a file is the shard that its place among the opened files says; `index` counts
/// from 0, `count` is the number of files opened.
pub fn check_shard(
    source: &SourceFile,
    split: Option<Split>,
    index: usize,
    count: usize,
) -> Result<(), ModelError> {
    let error = |problem: String| Err(ModelError::new(&source.path, problem));
    match split {
        None if count == 1 => Ok(()),
        None => error(format!(
            "is named like shard {} of {count}, but its metadata have no split.count",
            index + 1
        )),
        Some(split) if count == 1 => error(format!(
            "is shard {} of a model split into {}, but its name does not say so; \
             name the shards NAME-00001-of-{:05}.gguf and so on",
            split.no.saturating_add(1),
            split.count,
            split.count
        )),
        Some(split) if split.count != count as u64 => {
            error(format!("its split.count is {}, but its name says {count} shards", split.count))
        }
        Some(split) if split.no != index as u64 => error(format!(
            "its split.no is {} (from 0), but its name says shard {} (from 1)",
            split.no,
            index + 1
        )),
        Some(_) => Ok(()),
    }
}

/// Checks the number of tensors in all shards against what the shards say of it.
pub fn check_total(source: &SourceFile, split: Split, tensors: usize) -> Result<(), ModelError> {
    match split.tensors {
        Some(claimed) if claimed != tensors as u64 => {
            let problem = format!(
                "its split.tensors.count is {claimed}, but the {} shards hold {tensors} tensors",
                split.count
            );
            Err(ModelError::new(&source.path, problem))
        }
        _ => Ok(()),
    }
}

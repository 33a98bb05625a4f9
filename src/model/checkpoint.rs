/*!
From a path to a model: one file, a directory, or an index of shards.

What a file is, its first bytes say, never its name. A directory must leave no doubt about which of
its files are the model.
*/

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::{FileFault, Format, Model, ModelError, SourceFile, Tensor, gguf, safetensors, scheme};

/// Opens a model: a weight file, a directory (a Hugging Face checkpoint), or a
/// `*.safetensors.index.json`. The planes of quantized weights are joined.
pub fn open(path: &Path) -> Result<Model, ModelError> {
    let mut model = open_stored(path)?;
    if model.format == Format::Safetensors {
        let directory = model.files.first().and_then(|file| file.path.parent());
        let directory = directory.map(Path::to_owned);
        scheme::join(&mut model, directory.as_deref());
    }
    Ok(model)
}

/// Opens a model as it is stored.
fn open_stored(path: &Path) -> Result<Model, ModelError> {
    let metadata = std::fs::metadata(path).map_err(|e| ModelError::io(path, "open", e))?;
    if metadata.is_dir() {
        return open_directory(path);
    }
    if path.to_string_lossy().ends_with(".index.json") {
        return open_index(path);
    }
    open_files(path, &gguf::shards(path)?)
}

/// What the first bytes of a file say it is.
fn sniff(source: &SourceFile) -> Result<Format, ModelError> {
    let refuse = |problem: &str| Err(ModelError::new(&source.path, problem).at(0));
    if gguf::is_raw_piece(&source.path) {
        return refuse(
            "is a raw piece of a GGUF file, cut by bytes; put the pieces together in order \
             (`cat x.gguf.part-* > x.gguf`)",
        );
    }
    let start = source.read_range(0, source.len.min(64), "the file's start")?;
    if start.is_empty() {
        return refuse("is empty (zero bytes)");
    }
    if start.starts_with(gguf::MAGIC) {
        return Ok(Format::Gguf);
    }
    if start.starts_with(b"version https://git-lfs") {
        let problem =
            "is a Git LFS pointer, not the model itself; fetch the file with `git lfs pull`";
        return Err(ModelError::new(&source.path, problem).at(0).because(FileFault::LfsPointer));
    }
    if [b"lmgg", b"fmgg", b"tjgg", b"algg"].iter().any(|magic| start.starts_with(*magic)) {
        return refuse(
            "is a GGML file of before GGUF (August 2023), which nothing reads any more; \
             convert the model again",
        );
    }
    if is_pickle(&start) {
        return refuse(
            "is a pickle (a PyTorch .bin or .pt file), which qualm never loads; \
             convert it to safetensors",
        );
    }
    Ok(Format::Safetensors)
}

/// Reads a model that is in memory already; `name` stands for its path in errors.
pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Result<Model, ModelError> {
    let source = SourceFile::from_bytes(name, bytes);
    let mut model = open_sources(name, 1, std::iter::once(Ok(source)))?;
    if model.format == Format::Safetensors {
        scheme::join(&mut model, None);
    }
    Ok(model)
}

/// Whether a file begins like a pickle or the zip file around one, and not like a safetensors file,
/// whose header length may happen to have the same lower bytes.
fn is_pickle(start: &[u8]) -> bool {
    let pickle = start.starts_with(b"PK\x03\x04") || matches!(start, [0x80, 2..=5, ..]);
    let safetensors = start.get(4..8) == Some(&[0; 4])
        && start.get(8..).is_some_and(|header| header.trim_ascii_start().starts_with(b"{"));
    pickle && !safetensors
}

/// Opens the given files, in their order, as one model.
fn open_files(path: &Path, paths: &[PathBuf]) -> Result<Model, ModelError> {
    open_sources(path, paths.len(), paths.iter().map(|path| SourceFile::open(path)))
}

fn open_sources(
    path: &Path,
    count: usize,
    sources: impl Iterator<Item = Result<SourceFile, ModelError>>,
) -> Result<Model, ModelError> {
    let mut model = Model {
        path: path.to_owned(),
        format: Format::Safetensors,
        files: Vec::new(),
        tensors: Vec::new(),
        metadata: Vec::new(),
        notes: Vec::new(),
        findings: Vec::new(),
    };
    for source in sources {
        add_file(&mut model, source?, count)?;
    }
    sort_tensors(&mut model)?;
    if model.format == Format::Gguf {
        gguf::join_nvfp4(&mut model.tensors, &mut model.notes);
    }
    Ok(model)
}

/// Reads one file as the next of a model of `count` files.
fn add_file(model: &mut Model, mut source: SourceFile, count: usize) -> Result<(), ModelError> {
    let index = model.files.len();
    let format = sniff(&source)?;
    if index > 0 && format != model.format {
        let problem = format!("is a {} file among {} files", format.name(), model.format.name());
        return Err(ModelError::new(&source.path, problem));
    }
    let (tensors, metadata) = match format {
        Format::Safetensors => {
            let contents = safetensors::read(&mut source, index)?;
            (contents.tensors, contents.metadata)
        }
        Format::Gguf => {
            let contents = gguf::read(&mut source, index)?;
            contents.check_place(&source, index, count, model.tensors.len())?;
            model.notes.extend(contents.notes);
            (contents.tensors, contents.metadata)
        }
    };
    model.format = format;
    model.tensors.extend(tensors);
    merge_metadata(model, metadata, &source);
    model.files.push(source);
    Ok(())
}

/// Adds a file's metadata to the model's. Where two files disagree, the first decides and a note
/// says so.
fn merge_metadata(model: &mut Model, more: Vec<(String, Value)>, source: &SourceFile) {
    if model.metadata.is_empty() {
        model.metadata = more;
        return;
    }
    let known: HashMap<String, usize> =
        model.metadata.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
    let mut different = Vec::new();
    for (key, value) in more {
        match known.get(&key) {
            None => model.metadata.push((key, value)),
            Some(&index) if model.metadata[index].1 == value => {}
            Some(_) => different.push(key),
        }
    }
    if let Some(first) = different.first() {
        model.notes.push(format!(
            "{}: {} metadata keys differ from the first file's ({first:?}, …)",
            source.path.display(),
            different.len()
        ));
    }
}

/// Sorts by name and refuses a name that two shards hold.
fn sort_tensors(model: &mut Model) -> Result<(), ModelError> {
    model.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    match model.tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(ModelError::new(&model.path, "two of the model's files hold it")
            .tensor(&pair[0].name)
            .because(FileFault::DuplicateName)),
        None => Ok(()),
    }
}

/// Chooses the model in a directory: its one index, or its one weight file.
fn open_directory(path: &Path) -> Result<Model, ModelError> {
    let mut names = Vec::new();
    let entries = std::fs::read_dir(path).map_err(|e| ModelError::io(path, "list", e))?;
    for entry in entries {
        let entry = entry.map_err(|e| ModelError::io(path, "list", e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let ending = |suffix: &str| -> Vec<&String> {
        names.iter().filter(|name| name.ends_with(suffix)).collect()
    };
    // The name that Hugging Face loads comes first: a checkpoint may hold other weights beside it.
    let preferred = ["model.safetensors.index.json", "model.safetensors"];
    if let Some(name) = preferred.iter().find(|name| names.iter().any(|n| n == *name)) {
        return open_stored(&path.join(name));
    }
    let candidates = [".safetensors.index.json", ".safetensors", ".gguf"].map(ending);
    for candidates in &candidates {
        let (beside, models): (Vec<&str>, Vec<&str>) =
            candidates.iter().map(|name| name.as_str()).partition(|name| gguf::is_beside(name));
        let names = if models.is_empty() { &beside } else { &models };
        match names.as_slice() {
            [] => {}
            [first, rest @ ..] if rest.is_empty() || gguf::is_one_model(names) => {
                let mut model = open_stored(&path.join(first))?;
                if names.len() < candidates.len() {
                    model.notes.push(format!("left out: {}", beside.join(", ")));
                }
                return Ok(model);
            }
            many => {
                let problem =
                    format!("holds several models; name one of its files: {}", many.join(", "));
                return Err(ModelError::new(path, problem));
            }
        }
    }
    let pickles = !ending(".bin").is_empty() || !ending(".pt").is_empty();
    Err(ModelError::new(
        path,
        if pickles {
            "holds pickles (.bin, .pt) only, which qualm never loads; convert them to safetensors"
        } else {
            "holds no model: no *.safetensors and no *.gguf"
        },
    ))
}

/// Longest index that is read, in bytes; safetensors' own limit for a header.
const MAX_INDEX: u64 = 100_000_000;

/// `model.safetensors.index.json`: which file holds which tensor. Its `metadata` (a total size,
/// which writers compute in several ways) are not used.
#[derive(Deserialize)]
struct Index {
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

fn open_index(path: &Path) -> Result<Model, ModelError> {
    let source = SourceFile::open(path)?;
    if source.len > MAX_INDEX {
        let problem = format!("is too long for an index of shards ({} bytes)", source.len);
        return Err(ModelError::new(path, problem));
    }
    let text = source.read_range(0, source.len, "the index")?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| ModelError::new(path, format!("is not an index of shards: {e}")))?;
    if index.weight_map.is_empty() {
        return Err(ModelError::new(path, "its weight_map is empty"));
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut shards: Vec<&String> = index.weight_map.values().collect();
    shards.sort();
    shards.dedup();
    for shard in &shards {
        if !is_plain_name(shard) {
            let problem = format!("names the shard {shard:?}, which is not a plain file name");
            return Err(ModelError::new(path, problem));
        }
    }
    let paths: Vec<PathBuf> = shards.iter().map(|shard| directory.join(shard)).collect();
    let mut model = open_files(path, &paths)?;
    check_index(path, &index, &mut model)?;
    Ok(model)
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0'])
}

/// Every mapped tensor must be in its file; a tensor that the map leaves out is noted.
fn check_index(path: &Path, index: &Index, model: &mut Model) -> Result<(), ModelError> {
    let file_of: HashMap<&str, String> = model
        .tensors
        .iter()
        .filter_map(|tensor| Some((tensor.name.as_str(), file_name(model, tensor)?)))
        .collect();
    for (name, shard) in &index.weight_map {
        if file_of.get(name.as_str()) != Some(shard) {
            let problem = format!("the index says that {shard} holds it, but it does not");
            return Err(ModelError::new(path, problem).tensor(name));
        }
    }
    let unlisted: Vec<&str> = model
        .tensors
        .iter()
        .map(|tensor| tensor.name.as_str())
        .filter(|name| !index.weight_map.contains_key(*name))
        .collect();
    if let Some(first) = unlisted.first() {
        let note = format!("{} tensors are not in the index ({first}, …)", unlisted.len());
        model.notes.push(note);
    }
    Ok(())
}

/// Name of the file that holds a tensor.
fn file_name(model: &Model, tensor: &Tensor) -> Option<String> {
    let file = &model.files[tensor.extent()?.file];
    Some(file.path.file_name()?.to_string_lossy().into_owned())
}

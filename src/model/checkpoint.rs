/*!
From a path to a model: one file, a directory, or an index of shards.

What a file is, its first bytes say, never its name. Which files of a directory are the model, says
`directory.rs`; which tensors of a shard are part of it, the index.
*/

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::directory::{self, Chosen, Source};
use super::index::Index;
use super::{
    FileFault, Format, Model, ModelError, SourceFile, Tensor, gguf, place, safetensors, scheme,
};
use crate::remote;

/// Opens a model: a weight file, a directory (a Hugging Face checkpoint), a
/// `*.safetensors.index.json`, or an address of one of these. The planes of quantized weights are joined.
pub fn open(path: &Path) -> Result<Model, ModelError> {
    let path = &remote::without_query(path);
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
    if place::is_directory(path).map_err(|e| ModelError::open(path, e))? {
        return open_directory(path);
    }
    if path.to_string_lossy().ends_with(".index.json") {
        return open_index(Index::read(path)?);
    }
    open_files(path, &gguf::shards(path)?)
}

/// Hands every string of an array in the metadata of a GGUF model to `visit`, in order; of one that is longer
/// than a token can be, its beginning. They are read again, since a model keeps long arrays by their digest.
pub fn strings(model: &Model, key: &str, visit: &mut dyn FnMut(&[u8])) -> Result<bool, ModelError> {
    match model.files.first() {
        Some(file) if model.format == Format::Gguf => gguf::strings(file, key, visit),
        _ => Ok(false),
    }
}

/// Opens what is the model in a directory.
fn open_directory(path: &Path) -> Result<Model, ModelError> {
    let Chosen { source, notes } = directory::choose(path)?;
    let mut model = match source {
        Source::Files(paths) => match paths.as_slice() {
            [one] => open_files(one, &paths)?,
            _ => open_files(path, &paths)?,
        },
        Source::Index(index) => open_index(index)?,
        // A snapshot is not the root of a cache, so that this ends here.
        Source::Directory(snapshot) => open_directory(&snapshot)?,
    };
    model.notes.splice(0..0, notes);
    Ok(model)
}

/// Opens the shards of an index, and of each what the index gives to it.
fn open_index(mut index: Index) -> Result<Model, ModelError> {
    let shards: Vec<String> = index.shards().into_iter().map(str::to_owned).collect();
    let mut model = empty(index.path());
    let mut tensors = Vec::new();
    for shard in &shards {
        add_file(&mut model, index.open(shard)?, shards.len())?;
        index.take_out(shard, &mut model.tensors);
        tensors.append(&mut model.tensors);
    }
    model.tensors = tensors;
    complete(&mut model)?;
    let has = |name: &str| {
        model.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).is_ok()
    };
    let left_out = index.finish(has)?;
    model.notes.extend(left_out);
    Ok(model)
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
    let mut model = empty(path);
    for source in sources {
        add_file(&mut model, source?, count)?;
    }
    complete(&mut model)?;
    Ok(model)
}

/// A model before any of its files is read.
fn empty(path: &Path) -> Model {
    Model {
        path: path.to_owned(),
        format: Format::Safetensors,
        files: Vec::new(),
        tensors: Vec::new(),
        loose: Vec::new(),
        metadata: Vec::new(),
        notes: Vec::new(),
        findings: Vec::new(),
        configuration: None,
    }
}

/// What is left to do once all files are read.
fn complete(model: &mut Model) -> Result<(), ModelError> {
    sort_tensors(model)?;
    if model.format == Format::Gguf {
        gguf::join_nvfp4(&mut model.tensors, &mut model.notes);
        gguf::restore_shapes(model);
    }
    Ok(())
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
    let Some(pair) = model.tensors.windows(2).find(|pair| pair[0].name == pair[1].name) else {
        return Ok(());
    };
    let file = |tensor: &Tensor| {
        let name = tensor.extent().and_then(|at| model.files[at.file].path.file_name());
        name.map_or_else(|| "a file".to_owned(), |name| name.to_string_lossy().into_owned())
    };
    let (first, second) = (file(&pair[0]), file(&pair[1]));
    let problem = format!("two of the model's files hold it: {first} and {second}");
    let error = ModelError::new(&model.path, problem).tensor(&pair[0].name);
    Err(error.because(FileFault::DuplicateName))
}

/*!
Which of a directory's files are the model.

One rule of precedence, that of the loaders of the ecosystem (`docs/formats.md` states it for users):
safetensors before GGUF; the name that loaders look for first (`model`) before any other; of one name, the
single file before an index, and an index before numbered shards without one. What is left out is noted
by name. Where the rule does not decide, nothing is chosen.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::index::{self, Index};
use super::{ModelError, gguf, place};

/// What of a directory is the model.
pub struct Chosen {
    /// Where it is.
    pub source: Source,
    /// What was left out and why, for people.
    pub notes: Vec<String>,
}

/// Where a model is.
pub enum Source {
    /// Files, in order.
    Files(Vec<PathBuf>),
    /// An index of shards.
    Index(Index),
    /// Another directory.
    Directory(PathBuf),
}

/// Stems that loaders look for by name (transformers, diffusers): they come before all others.
const PREFERRED: [&str; 2] = ["model", "diffusion_pytorch_model"];

/// Stems of what training leaves beside a model. They are a model only if nothing else is.
const BESIDE: [&str; 3] = ["adapter_model", "optimizer", "scheduler"];

/// Endings of weights that qualm never loads, with the stems that models have.
const PICKLES: [(&str, &str); 3] =
    [("pytorch_model", ".bin"), ("consolidated", ".pth"), ("model", ".ckpt")];

/// File names that a note lists.
const LISTED: usize = 12;

/// Chooses the model of a directory.
pub fn choose(path: &Path) -> Result<Chosen, ModelError> {
    let listing = Listing::read(path)?;
    let safetensors = Checkpoints::find(&listing);
    if let Some(stem) = safetensors.first(&listing)? {
        return safetensors.choose(&listing, &stem);
    }
    if let Some(chosen) = choose_gguf(&listing)? {
        return Ok(chosen);
    }
    if let Some(snapshot) = snapshot(path)? {
        let below = snapshot.strip_prefix(path).unwrap_or(&snapshot).display();
        let notes =
            vec![format!("is the root of a cached repository; its refs/main, {below}, is read")];
        return Ok(Chosen { source: Source::Directory(snapshot), notes });
    }
    Err(listing.nothing())
}

/// The names in a directory, sorted.
struct Listing {
    path: PathBuf,
    /// Each name as text and as it is.
    names: BTreeMap<String, OsString>,
}

impl Listing {
    fn read(path: &Path) -> Result<Self, ModelError> {
        let mut names = BTreeMap::new();
        for name in place::names(path).map_err(|e| ModelError::io(path, "list", e))? {
            names.insert(name.to_string_lossy().into_owned(), name);
        }
        Ok(Self { path: path.to_owned(), names })
    }

    fn place(&self, name: &str) -> PathBuf {
        self.path.join(self.names.get(name).map_or_else(|| OsString::from(name), Clone::clone))
    }

    fn ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = &'a str> {
        self.names.keys().map(String::as_str).filter(move |name| name.ends_with(suffix))
    }

    /// Everything that may be weights, but for `used`: names of files that are left out.
    fn left_out(&self, used: &BTreeSet<String>) -> Vec<&str> {
        let weights = |name: &&str| {
            [".safetensors", index::SUFFIX, ".gguf"].iter().any(|end| name.ends_with(end))
                || PICKLES.iter().any(|(stem, end)| name.starts_with(stem) && name.ends_with(end))
        };
        let names = self.names.keys().map(String::as_str).filter(weights);
        names.filter(|name| !used.contains(*name)).collect()
    }

    /// A directory without a model: says what is there instead.
    fn nothing(&self) -> ModelError {
        let error = |problem: String| ModelError::new(&self.path, problem);
        let piece = self.names.keys().find(|name| gguf::is_raw_piece(Path::new(name)));
        if let Some(piece) = piece {
            return error(format!(
                "holds raw pieces of a GGUF file, cut by bytes ({piece}, …); put the pieces together \
                 in order (`cat x.gguf.part-* > x.gguf`)"
            ));
        }
        if self.names.contains_key("snapshots") {
            let mut below = names_in(&self.path.join("snapshots"));
            below.truncate(LISTED);
            return error(format!(
                "is the root of a cached repository, and its refs/main leads to no snapshot; its \
                 models are below snapshots: {}",
                if below.is_empty() { "none is there".to_owned() } else { below.join(", ") }
            ));
        }
        let pickle =
            |name: &String| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end));
        if self.names.keys().any(pickle) {
            let problem = "holds pickles (.bin, .pt) only, which qualm never loads; convert them to \
                           safetensors";
            return error(problem.to_owned());
        }
        let is_model =
            |name: &String| [".safetensors", ".gguf"].iter().any(|it| name.ends_with(it));
        let folders =
            self.names.keys().filter(|name| names_in(&self.place(name)).iter().any(is_model));
        let folders: Vec<&str> = folders.map(String::as_str).take(LISTED).collect();
        let mut problem = "holds no model: no *.safetensors and no *.gguf".to_owned();
        if !folders.is_empty() {
            problem = format!("{problem}; there are models in its folders {}", folders.join(", "));
        }
        error(problem)
    }
}

/// The names in a folder, sorted; none if it cannot be listed.
fn names_in(path: &Path) -> Vec<String> {
    let names = place::names(path).unwrap_or_default();
    let mut names: Vec<String> =
        names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The snapshot that `refs/main` of a cached repository names, if this is the root of one.
fn snapshot(path: &Path) -> Result<Option<PathBuf>, ModelError> {
    const LONGEST: u64 = 256;
    let reference = path.join("refs").join("main");
    let small = std::fs::metadata(&reference).is_ok_and(|it| it.is_file() && it.len() <= LONGEST);
    if !small || !path.join("snapshots").is_dir() {
        return Ok(None);
    }
    let revision =
        std::fs::read_to_string(&reference).map_err(|e| ModelError::io(&reference, "read", e))?;
    let revision = revision.trim();
    let plain = !revision.is_empty() && revision.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let snapshot = path.join("snapshots").join(revision);
    Ok((plain && snapshot.is_dir()).then_some(snapshot))
}

/// The files of one stem.
#[derive(Default)]
struct Checkpoint {
    /// `STEM.safetensors`.
    single: Option<String>,
    /// `STEM.safetensors.index.json`.
    index: Option<String>,
    /// `STEM-00001-of-00002.safetensors`, by the number of shards.
    shards: BTreeMap<u64, BTreeMap<u64, String>>,
}

/// The safetensors checkpoints of a directory by stem.
struct Checkpoints {
    by_stem: BTreeMap<String, Checkpoint>,
    /// The indices that can be read, by stem.
    indices: BTreeMap<String, Index>,
}

impl Checkpoints {
    fn find(listing: &Listing) -> Self {
        let mut by_stem: BTreeMap<String, Checkpoint> = BTreeMap::new();
        for name in listing.ending(index::SUFFIX) {
            let stem = name.strip_suffix(index::SUFFIX).unwrap_or(name);
            by_stem.entry(stem.to_owned()).or_default().index = Some(name.to_owned());
        }
        for name in listing.ending(".safetensors") {
            let stem = name.strip_suffix(".safetensors").unwrap_or(name);
            if let Some((stem, no, count)) = gguf::shard_name(stem) {
                let checkpoint = by_stem.entry(stem.to_owned()).or_default();
                checkpoint.shards.entry(count).or_default().insert(no, name.to_owned());
            } else {
                by_stem.entry(stem.to_owned()).or_default().single = Some(name.to_owned());
            }
        }
        let readable = |(stem, checkpoint): (&String, &Checkpoint)| {
            let name = checkpoint.index.as_ref()?;
            Some((stem.clone(), Index::read(&listing.place(name)).ok()?))
        };
        let indices = by_stem.iter().filter_map(readable).collect();
        Self { by_stem, indices }
    }

    /// The stem that comes first; `None` if there is no checkpoint.
    fn first(&self, listing: &Listing) -> Result<Option<String>, ModelError> {
        if let Some(stem) = PREFERRED.iter().find(|stem| self.by_stem.contains_key(**stem)) {
            return Ok(Some((*stem).to_owned()));
        }
        // The shards of an index are no models of their own.
        let claimed: BTreeSet<&str> = self.indices.values().flat_map(Index::shards).collect();
        let is_claimed = |checkpoint: &Checkpoint| {
            checkpoint.index.is_none() && checkpoint.files().all(|name| claimed.contains(name))
        };
        let stems = self.by_stem.iter().filter(|(_, checkpoint)| !is_claimed(checkpoint));
        let (beside, models): (Vec<&String>, Vec<&String>) =
            stems.map(|(stem, _)| stem).partition(|stem| BESIDE.contains(&stem.as_str()));
        match if models.is_empty() { beside } else { models }.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            many => {
                let names = many.iter().filter_map(|stem| self.by_stem[*stem].name());
                Err(several(&listing.path, names))
            }
        }
    }

    /// Chooses among the files of a stem.
    fn choose(mut self, listing: &Listing, stem: &str) -> Result<Chosen, ModelError> {
        let Some(checkpoint) = self.by_stem.get(stem) else { return Err(listing.nothing()) };
        let mut notes = Vec::new();
        let index = self.indices.remove(stem);
        let names_single = |index: &Index| {
            checkpoint.single.as_deref().is_some_and(|single| index.shards().contains(single))
        };
        let mut used: BTreeSet<String> = BTreeSet::new();
        let source = match (&checkpoint.single, index) {
            (_, Some(index)) if checkpoint.single.is_none() || names_single(&index) => {
                used.extend(index.shards().into_iter().map(str::to_owned));
                used.extend(checkpoint.index.clone());
                Source::Index(index)
            }
            (Some(single), index) => {
                used.insert(single.clone());
                if let Some(name) = &checkpoint.index {
                    notes.push(shadowed(listing, single, name, index.as_ref()));
                } else if !checkpoint.shards.is_empty() {
                    notes.push(format!("{single} comes before the numbered shards of its name"));
                }
                Source::Files(vec![listing.place(single)])
            }
            (None, _) if checkpoint.index.is_some() => {
                // The index cannot be read; opening it says why.
                let name = checkpoint.index.as_deref().unwrap_or_default();
                Source::Index(Index::read(&listing.place(name))?)
            }
            (None, _) => {
                let shards = whole_set(listing, stem, &checkpoint.shards)?;
                used.extend(shards.iter().cloned());
                if shards.len() > 1 {
                    let count = shards.len();
                    notes.push(format!(
                        "has no index; its {count} numbered shards are taken together"
                    ));
                }
                Source::Files(shards.iter().map(|name| listing.place(name)).collect())
            }
        };
        notes.extend(left_out(listing, &used));
        Ok(Chosen { source, notes })
    }
}

impl Checkpoint {
    fn files(&self) -> impl Iterator<Item = &str> {
        let shards = self.shards.values().flat_map(BTreeMap::values);
        self.single.iter().chain(shards).map(String::as_str)
    }

    /// The file that stands for it in a message.
    fn name(&self) -> Option<&str> {
        self.single.as_deref().or(self.index.as_deref()).or_else(|| self.files().next())
    }
}

/// An index beside the single file that comes before it.
fn shadowed(listing: &Listing, single: &str, name: &str, index: Option<&Index>) -> String {
    let Some(index) = index else {
        return format!("{name} is left out: {single} comes before it, and it cannot be read");
    };
    let shards = index.shards();
    let gone = shards.iter().filter(|shard| !listing.names.contains_key(**shard)).count();
    let gone = match gone {
        0 => String::new(),
        n if n == shards.len() => ", none of which is there".to_owned(),
        n => format!(", {n} of which are not there"),
    };
    format!(
        "{name} is left out: {single} comes before it, and nothing is said of the {} shards that it \
         names{gone}; name the index to judge those",
        shards.len()
    )
}

/// A note on all weights that are not `used`.
fn left_out(listing: &Listing, used: &BTreeSet<String>) -> Option<String> {
    let names = listing.left_out(used);
    (!names.is_empty()).then(|| {
        let more = names.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names = &names[..names.len().min(LISTED)];
        format!("left out: {}{more}", names.join(", "))
    })
}

/// All shards of a stem that no index lists.
fn whole_set(
    listing: &Listing,
    stem: &str,
    sets: &BTreeMap<u64, BTreeMap<u64, String>>,
) -> Result<Vec<String>, ModelError> {
    let mut all = sets.iter();
    let (Some((&count, shards)), None) = (all.next(), all.next()) else {
        let firsts = sets.values().filter_map(|set| set.values().next()).map(String::as_str);
        return Err(several(&listing.path, firsts));
    };
    if !shards.keys().copied().eq(1..=count) {
        let missing = (1..=count).find(|no| !shards.contains_key(no)).unwrap_or(count);
        let problem = format!(
            "holds {} of the {count} shards of {stem} and no index ({stem}{}): {} is missing",
            shards.len(),
            index::SUFFIX,
            format_args!("{stem}-{missing:05}-of-{count:05}.safetensors"),
        );
        return Err(ModelError::new(&listing.path, problem));
    }
    Ok(shards.values().cloned().collect())
}

/// Candidates between which nothing decides.
fn several<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> ModelError {
    let names: Vec<&str> = names.collect();
    let problem = format!("holds several models; name one of its files: {}", names.join(", "));
    ModelError::new(path, problem)
}

/// The GGUF model of a directory. Headers say which files are none; of what they leave, names that
/// llama.cpp gives to draft heads.
fn choose_gguf(listing: &Listing) -> Result<Option<Chosen>, ModelError> {
    // One candidate a split model: its first file.
    let mut candidates: Vec<(&str, Vec<&str>)> = Vec::new();
    for name in listing.ending(".gguf") {
        match candidates.last_mut() {
            Some((first, all)) if gguf::is_one_model(&[*first, name]) => all.push(name),
            _ => candidates.push((name, vec![name])),
        }
    }
    let (mut beside, mut models) = (Vec::new(), Vec::new());
    let alone = candidates.len() == 1;
    for (first, all) in candidates {
        let kind = if alone { None } else { gguf::kind_beside(&listing.place(first)) };
        match kind {
            Some(kind) => beside.push((first, kind, all)),
            None => models.push((first, "draft heads", all)),
        }
    }
    if models.len() > 1 {
        let (drafts, rest): (Vec<_>, Vec<_>) =
            models.into_iter().partition(|(first, ..)| first.starts_with("mtp-"));
        models = rest;
        beside.extend(drafts);
    }
    let (chosen, rest) = match (models.as_slice(), beside.as_slice()) {
        ([], []) => return Ok(None),
        ([model], _) => (model, &beside[..]),
        ([], [one]) => (one, &[][..]),
        ([], many) | (many, _) => {
            return Err(several(&listing.path, many.iter().map(|(first, ..)| *first)));
        }
    };
    let mut used: BTreeSet<String> = chosen.2.iter().map(|name| (*name).to_owned()).collect();
    let mut notes = Vec::new();
    if !rest.is_empty() {
        let rest_names = rest.iter().map(|(first, kind, _)| format!("{first} ({kind})"));
        notes.push(format!("left out: {}", rest_names.collect::<Vec<_>>().join(", ")));
        used.extend(rest.iter().flat_map(|(.., all)| all).map(|name| (*name).to_owned()));
    }
    notes.extend(left_out(listing, &used));
    Ok(Some(Chosen { source: Source::Files(gguf::shards(&listing.place(chosen.0))?), notes }))
}

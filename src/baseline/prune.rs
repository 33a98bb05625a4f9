/*!
Removing snapshots that nothing refers to any more.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{BaselineError, Snapshot, file};

/// What a suite, or the part of it that was selected, says about snapshots.
///
/// A snapshot that no pair refers to belongs to the spec file that its header names. It is taken for
/// unused if that spec is here and has no such pair, or if the spec is gone; the snapshots of other
/// specs are not this suite's to judge.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// Snapshots of pairs.
    snapshots: BTreeSet<PathBuf>,
    /// The specs, and what the name of a pair's snapshot ends with, wherever the suite begins.
    pairs: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Where the specs were looked for; none if everywhere.
    roots: Option<Vec<PathBuf>>,
}

/// What became of a snapshot that nothing refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// Removed, or would be.
    Removed(PathBuf),
    /// Left alone, as it is no baseline that could be read, or may be somebody else's.
    Kept(PathBuf, String),
}

impl References {
    /// Of a whole suite, or, given the files and directories that were selected, of a part.
    pub fn new(selected: Option<&[PathBuf]>) -> Self {
        let roots = selected.map(|roots| roots.iter().map(|root| absolute(root)).collect());
        Self { roots, ..Self::default() }
    }

    /// Adds a spec, which may have no pair.
    pub fn spec(&mut self, spec: &Path) {
        self.pairs.entry(absolute(spec)).or_default();
    }

    /// Adds the snapshot of a pair of a spec.
    pub fn pair(&mut self, spec: &Path, snapshot: &Path) {
        self.snapshots.insert(absolute(snapshot));
        self.pairs.entry(absolute(spec)).or_default().insert(pair_part(snapshot));
    }

    /// Why a snapshot that no pair refers to stays; `None` if it goes, an empty reason if it is none
    /// of the selection's business.
    fn keeps(&self, path: &Path, source: &str) -> Option<String> {
        let spec = absolute(Path::new(source));
        if let Some(pairs) = self.pairs.get(&spec) {
            let other_root = pairs.contains(&pair_part(path));
            return other_root.then(|| {
                format!("{source} has its pair: it is of a run that begins at another directory")
            });
        }
        if spec.exists() {
            let others = || format!("it belongs to {source}, which is not among these specs");
            return Some(if self.roots.is_none() { others() } else { String::new() });
        }
        let within = |roots: &Vec<PathBuf>| roots.iter().any(|root| spec.starts_with(root));
        let selected = self.roots.as_ref().is_none_or(within);
        if selected { None } else { Some(String::new()) }
    }
}

/// The end of a snapshot's name, which is made of the pair's.
fn pair_part(snapshot: &Path) -> String {
    let name = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.split(".snap").next().unwrap_or_default();
    stem.rsplit_once("__").map_or(stem, |(_, pair)| pair).to_owned()
}

/// Removes the baselines of a directory that are not used any more, and what is pending for them; with
/// `dry_run`, only says which. Other files, and snapshots that are not this program's, stay.
///
/// # Errors
///
/// No pair at all: a suite without pairs is more likely one that was not found.
pub fn prune(
    directory: &Path,
    references: &References,
    dry_run: bool,
) -> Result<Vec<Pruned>, BaselineError> {
    if references.snapshots.is_empty() {
        let message = "no pair in any spec: nothing is pruned, as everything would go";
        return Err(BaselineError::Usage(message.to_owned()));
    }
    let list = |error| BaselineError::io("list", directory)(error);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(list)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(list)?.path());
    }
    paths.sort();
    let mut pruned = Vec::new();
    for path in paths {
        // `a.snap.new` belongs to `a.snap`, which may not be there yet.
        let name = path.to_string_lossy();
        let snapshot = PathBuf::from(name.strip_suffix(".new").unwrap_or(&name));
        if !snapshot.to_string_lossy().ends_with(".snap")
            || references.snapshots.contains(&absolute(&snapshot))
        {
            continue;
        }
        let keeps = match Snapshot::read(&path) {
            Ok(read) => {
                references.keeps(&path, &read.map(|it| it.header.source).unwrap_or_default())
            }
            Err(error) => Some(error.to_string()),
        };
        match keeps {
            Some(why) if why.is_empty() => {}
            Some(why) => pruned.push(Pruned::Kept(path, why)),
            None => {
                if !dry_run {
                    file::remove_if_present(&path)?;
                }
                pruned.push(Pruned::Removed(path));
            }
        }
    }
    Ok(pruned)
}

/// One name for each file, whether it is there or not.
fn absolute(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (parent.canonicalize(), path.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::sample::Checkout;

    #[test]
    fn removes_what_nothing_refers_to() {
        let checkout = Checkout::new();
        for pair in ["used", "unused"] {
            checkout.accepted(pair, 0.9, "");
            checkout.pending(pair, 0.9, "");
        }
        checkout.pending("used_new", 0.9, "");
        checkout.write("snapshots/unit__test.snap", "---\nsource: src/lib.rs\n---\nhello\n");
        checkout.write("snapshots/README.md", "not a snapshot");
        let spec = checkout.path("specs/tiny.toml");
        checkout.write("specs/tiny.toml", "");
        let mut references = References::new(None);
        for pair in ["used", "used_new"] {
            references.pair(&spec, &checkout.path(&format!("snapshots/./tiny__{pair}.snap")));
        }
        let directory = checkout.path("snapshots");
        let before = checkout.files();
        let planned = prune(&directory, &references, true).unwrap();
        assert_eq!(checkout.files(), before, "a dry run");
        let unused = ["tiny__unused.snap", "tiny__unused.snap.new"].map(|n| directory.join(n));
        let removed: Vec<_> = unused.iter().cloned().map(Pruned::Removed).collect();
        assert_eq!(planned[..2], removed);
        assert!(
            matches!(&planned[2], Pruned::Kept(path, _) if path.ends_with("unit__test.snap")),
            "a snapshot of somebody's unit tests"
        );
        assert_eq!(prune(&directory, &references, false).unwrap(), planned);
        assert_eq!(checkout.files().len(), before.len() - 2);
        assert_eq!(prune(&checkout.path("none"), &references, false).unwrap(), []);
    }

    #[test]
    fn the_baselines_of_other_specs_stay() {
        // what was selected, the spec that the snapshot names, whether that is there; goes, why
        for (selected, source, there, goes, why) in [
            (None, "specs/a.toml", true, true, "its spec has no such pair any more"),
            (None, "specs/b.toml", false, true, "its spec is gone"),
            (None, "other/b.toml", true, false, "another suite's"),
            (Some("specs/a.toml"), "specs/a.toml", true, true, "the selected spec's"),
            (Some("specs/a.toml"), "specs/b.toml", true, false, "another spec's"),
            (Some("specs/a.toml"), "specs/b.toml", false, false, "gone, but not selected"),
            (Some("specs"), "specs/b.toml", false, true, "gone from the selected directory"),
            (Some("specs"), "other/b.toml", false, false, "gone from another"),
        ] {
            let checkout = Checkout::new();
            checkout.write("specs/a.toml", "");
            if there {
                checkout.write(source, "");
            }
            let mut snapshot = crate::baseline::sample::snapshot(0.9, "", None);
            snapshot.header.source = checkout.path(source).to_string_lossy().into_owned();
            snapshot.write(&checkout.path("snapshots/x__gone.snap")).unwrap();
            snapshot.write(&checkout.path("snapshots/deep__a__p.snap")).unwrap();
            let selected = selected.map(|path| vec![checkout.path(path)]);
            let mut references = References::new(selected.as_deref());
            references.pair(&checkout.path("specs/a.toml"), &checkout.path("snapshots/a__p.snap"));
            let pruned = prune(&checkout.path("snapshots"), &references, false).unwrap();
            let gone = !checkout.path("snapshots/x__gone.snap").exists();
            assert_eq!(gone, goes, "{why}: {pruned:?}");
            if source == "specs/a.toml" {
                let other_root = checkout.path("snapshots/deep__a__p.snap");
                assert!(other_root.exists(), "{why}: the pair is there, from another directory");
            }
        }
    }

    #[test]
    fn an_empty_suite_prunes_nothing() {
        let checkout = Checkout::new();
        prune(&checkout.path(""), &References::new(None), false).expect_err("everything would go");
    }
}

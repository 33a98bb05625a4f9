/*!
Where pending files lie, and which snapshot each of them is for.

A pending file lies beside its snapshot, or below a directory of pending files (`OUT/pending`,
`INSTA_PENDING_DIR`, the artefact of a CI run) at its snapshot's path. Such a directory may come
from another machine: a pending file is only ever taken for a snapshot directly inside one of the
suite's own directories, whatever path it bears.
*/

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::search::{DEEPEST, ENDING, files};
use super::store::relative_to;
use super::{BaselineError, Snapshot, artefact};

/// The directories of a suite's snapshots, and where else pending files may lie.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// What names in lists are relative to.
    pub workspace: PathBuf,
    /// Directories of snapshots.
    pub snapshots: Vec<PathBuf>,
    /// Directories of pending files.
    pub pending: Vec<PathBuf>,
}

/// Where a pending snapshot was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A pending file of this checkout; accepting or rejecting it removes it.
    File(PathBuf),
    /// A file of an artefact, which stays as it is: path of the directory or ZIP file, and the name
    /// within it.
    Artefact(PathBuf, String),
}

/// A pending snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The snapshot's path within the workspace, with `/`: `snapshots/tiny__q8_0.snap`.
    pub name: String,
    /// The snapshot's path.
    pub snapshot: PathBuf,
    /// Where it was found.
    pub origin: Origin,
    /// The text, for what does not lie in a file of its own.
    pub(super) text: Option<String>,
}

impl Pending {
    /// Reads it.
    pub fn read(&self) -> Result<Snapshot, BaselineError> {
        let missing =
            |path: &Path| BaselineError::io("read", path)(io::Error::from(io::ErrorKind::NotFound));
        match (&self.origin, &self.text) {
            (Origin::File(path), _) => Snapshot::read(path)?.ok_or_else(|| missing(path)),
            (Origin::Artefact(path, name), text) => {
                let text = text.as_deref().ok_or_else(|| missing(path))?;
                Snapshot::parse(&path.join(name), text)
            }
        }
    }

    /// Where it was found, for people.
    pub fn place(&self) -> String {
        match &self.origin {
            Origin::File(path) => path.display().to_string(),
            Origin::Artefact(path, name) => format!("{}: {name}", path.display()),
        }
    }
}

/// Keeps what at least one of the words is part of, by name or by place; everything if there are no
/// words. A word that is part of nothing is an error: it was meant to select something.
pub fn select(pending: Vec<Pending>, words: &[String]) -> Result<Vec<Pending>, BaselineError> {
    let meant = |p: &Pending, word: &String| {
        p.name.contains(word.as_str()) || p.place().contains(word.as_str())
    };
    if let Some(word) = words.iter().find(|word| !pending.iter().any(|p| meant(p, word))) {
        let names: Vec<&str> = pending.iter().map(|p| p.name.as_str()).collect();
        return Err(BaselineError::Usage(format!(
            "the filter {word:?} matches no pending snapshot; pending: {}",
            if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
        )));
    }
    let chosen = |p: &Pending| words.is_empty() || words.iter().any(|word| meant(p, word));
    Ok(pending.into_iter().filter(chosen).collect())
}

impl Places {
    /// Everything pending in this checkout, sorted by name.
    pub fn pending(&self) -> Result<Vec<Pending>, BaselineError> {
        let mut found = Vec::new();
        for directory in &self.snapshots {
            for path in files(directory, 0)? {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.push(self.target(directory, &file, Origin::File(path), None));
            }
        }
        let own = |p: &Pending| match &p.origin {
            Origin::File(path) | Origin::Artefact(path, _) => path.clone(),
        };
        let mut known: HashSet<PathBuf> = found.iter().map(own).collect();
        let directories = self.directories();
        for directory in &self.pending {
            for path in files(directory, DEEPEST)? {
                // `OUT/pending` may lie inside a directory of snapshots, or the other way round.
                if known.insert(path.clone()) {
                    let within = path.strip_prefix(directory).unwrap_or(&path);
                    let (target, file) = locate(&directories, directory, within)?;
                    found.push(self.target(target, &file, Origin::File(path.clone()), None));
                }
            }
        }
        found.sort_by(|a, b| (&a.name, a.place()).cmp(&(&b.name, b.place())));
        Ok(found)
    }

    /// Everything pending in an artefact of a CI run, a directory or a ZIP file, sorted by name.
    pub fn from_artefact(&self, path: &Path) -> Result<Vec<Pending>, BaselineError> {
        let mut found = Vec::new();
        let directories = self.directories();
        for (name, text) in artefact::read(path)? {
            let (target, file) = locate(&directories, path, Path::new(&name))?;
            let origin = Origin::Artefact(path.to_path_buf(), name);
            found.push(self.target(target, &file, origin, Some(text)));
        }
        if found.is_empty() {
            let message = format!("{}: no {ENDING} file in it", path.display());
            return Err(BaselineError::Usage(message));
        }
        found.sort_by(|a, b| (&a.name, a.place()).cmp(&(&b.name, b.place())));
        Ok(found)
    }

    /// The directories of snapshots with their names.
    fn directories(&self) -> Vec<(String, &Path)> {
        self.snapshots.iter().map(|path| (self.name(path), path.as_path())).collect()
    }

    fn target(
        &self,
        directory: &Path,
        file: &str,
        origin: Origin,
        text: Option<String>,
    ) -> Pending {
        let file = file.strip_suffix(".new").unwrap_or(file);
        let snapshot = directory.join(file);
        Pending { name: self.name(&snapshot), snapshot, origin, text }
    }

    /// A path within the workspace, with `/`.
    pub(super) fn name(&self, path: &Path) -> String {
        let within = relative_to(path, &self.workspace).unwrap_or_else(|| path.to_path_buf());
        within.to_string_lossy().replace('\\', "/")
    }
}

/// The directory of snapshots, of those with these names, that a path below a directory of pending
/// files means, and the file's name.
///
/// Tools that store artefacts put directories above the files or cut off those that all files share,
/// so that only the common end of the two paths is compared.
fn locate<'a>(
    directories: &[(String, &'a Path)],
    origin: &Path,
    within: &Path,
) -> Result<(&'a Path, String), BaselineError> {
    let file = within.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = within.parent().unwrap_or(Path::new(""));
    // A file at the top of `pending` says as little as one at the top of the artefact.
    let parent = parent.strip_prefix("pending").unwrap_or(parent);
    let means = |(name, _): &&(String, &Path)| {
        let directory = Path::new(name);
        parent.as_os_str().is_empty() || parent.ends_with(directory) || directory.ends_with(parent)
    };
    let mut meant = directories.iter().filter(means);
    match (meant.next(), meant.next()) {
        (Some((_, directory)), None) => Ok((directory, file)),
        (first, _) => {
            let names: Vec<&str> = directories.iter().map(|(name, _)| name.as_str()).collect();
            Err(BaselineError::Usage(format!(
                "{}: {} {} of the suite's directories of snapshots ({})",
                origin.display(),
                within.display(),
                if first.is_some() { "could belong to several" } else { "belongs to none" },
                names.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::sample::Checkout;

    #[test]
    fn finds_pending_files_wherever_they_lie() {
        let checkout = Checkout::new();
        assert_eq!(checkout.places().pending().unwrap(), [], "no directory, nothing pending");
        checkout.accepted("a", 0.9, "");
        checkout.pending("b", 0.9, "");
        checkout.pending_in("out/pending/snapshots", "a", 0.8, "");
        checkout.write("snapshots/deep/x.snap.new", "somebody else's");
        let found = checkout.places().pending().unwrap();
        let names: Vec<&str> = found.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["snapshots/tiny__a.snap", "snapshots/tiny__b.snap"]);
        assert_eq!(found[0].snapshot, checkout.path("snapshots/tiny__a.snap"));
        let at = checkout.path("out/pending/snapshots/tiny__a.snap.new");
        assert_eq!(found[0].origin, Origin::File(at));
    }

    #[test]
    fn an_artefact_may_have_more_or_fewer_directories() {
        // the suite's directories, path in the artefact, target or part of the error, why
        for (directories, within, expected, why) in [
            (&["snapshots"][..], "t.snap.new", Ok("snapshots/t.snap"), "all cut off"),
            (&["snapshots"], "pending/t.snap.new", Ok("snapshots/t.snap"), "nearly all"),
            (&["snapshots"], "snapshots/t.snap.new", Ok("snapshots/t.snap"), "as it is"),
            (&["snapshots"], "run/pending/snapshots/t.snap.new", Ok("snapshots/t.snap"), "more"),
            (&["q/snapshots"], "snapshots/t.snap.new", Ok("q/snapshots/t.snap"), "some cut off"),
            (&["a", "b"], "b/t.snap.new", Ok("b/t.snap"), "of two suites"),
            (&["a", "b"], "t.snap.new", Err("several"), "of which suite?"),
            (&["snapshots"], "src/t.snap.new", Err("none"), "no place for snapshots"),
            (&["snapshots"], "snapshots/x/t.snap.new", Err("none"), "below, not in it"),
            (&["snapshots"], "osnapshots/t.snap.new", Err("none"), "half a name"),
        ] {
            let checkout = Checkout::new();
            checkout.write(&format!("art/{within}"), "text");
            let places = Places {
                snapshots: directories.iter().map(|d| checkout.path(d)).collect(),
                ..checkout.places()
            };
            match (places.from_artefact(&checkout.path("art")), expected) {
                (Ok(found), Ok(target)) => {
                    assert_eq!(found[0].name, target, "{why}");
                    assert_eq!(found[0].snapshot, checkout.path(target), "{why}");
                }
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{why}: {error}");
                }
                (found, _) => panic!("{why}: {found:?}"),
            }
        }
        let checkout = Checkout::new();
        checkout.write("art/junit.xml", "");
        checkout.places().from_artefact(&checkout.path("art")).expect_err("nothing pending in it");
        checkout.places().from_artefact(&checkout.path("none")).expect_err("not there");
    }

    #[test]
    fn filters() {
        let checkout = Checkout::new();
        for pair in ["q4_0", "q4_1", "q8_0"] {
            checkout.pending(pair, 0.9, "");
        }
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            select(checkout.places().pending().unwrap(), &words).map(|found| found.len())
        };
        assert_eq!(of(&[]).unwrap(), 3);
        assert_eq!(of(&["q4"]).unwrap(), 2);
        assert_eq!(of(&["q4_0", "q8"]).unwrap(), 2);
        assert_eq!(of(&["tiny__q8_0.snap"]).unwrap(), 1);
        let error = of(&["q4", "q5"]).expect_err("q5 is part of nothing").to_string();
        assert!(error.contains("\"q5\""), "{error}");
    }
}

/*!
Removing snapshots that nothing refers to any more.
*/

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{BaselineError, Snapshot, file};

/// Every snapshot that a suite refers to.
///
/// The list must be complete: of all pairs of all specs, no filter, no tag, no shard. What is not in
/// it is taken for unused.
#[derive(Clone, Debug)]
pub struct References(BTreeSet<PathBuf>);

/// What became of a snapshot that nothing refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// Removed, or would be.
    Removed(PathBuf),
    /// Left alone, as it is no baseline that could be read: it may be somebody else's.
    Kept(PathBuf, String),
}

impl References {
    /// The snapshot paths of all pairs of all specs.
    ///
    /// No path at all is an error: a suite without pairs is more likely one that was not found.
    pub fn of_whole_suite(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, BaselineError> {
        let paths: BTreeSet<PathBuf> = paths.into_iter().map(|p| absolute(&p)).collect();
        if paths.is_empty() {
            let message = "no pair in any spec: nothing is pruned, as everything would go";
            return Err(BaselineError::Usage(message.to_owned()));
        }
        Ok(Self(paths))
    }
}

/// Removes the baselines of a directory that are not referred to, and what is pending for them; with
/// `dry_run`, only says which. Other files, and snapshots that are not this program's, stay.
pub fn prune(
    directory: &Path,
    references: &References,
    dry_run: bool,
) -> Result<Vec<Pruned>, BaselineError> {
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
            || references.0.contains(&absolute(&snapshot))
        {
            continue;
        }
        match Snapshot::read(&path) {
            Ok(_) => {
                if !dry_run {
                    file::remove_if_present(&path)?;
                }
                pruned.push(Pruned::Removed(path));
            }
            Err(error) => pruned.push(Pruned::Kept(path, error.to_string())),
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
        let used = ["used", "used_new"];
        let used = used.map(|pair| checkout.path(&format!("snapshots/./tiny__{pair}.snap")));
        let references = References::of_whole_suite(used).unwrap();
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
    fn an_empty_suite_prunes_nothing() {
        References::of_whole_suite([]).expect_err("everything would go");
    }
}

/*!
Looking for pending files below a directory.
*/

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::BaselineError;
use crate::disk;

/// What pending files are called.
pub(super) const ENDING: &str = ".snap.new";

/// How deep directories of pending files are searched.
pub(super) const DEEPEST: usize = 32;

/// Pending files of a directory and, so many levels deep, of the directories in it; sorted. A
/// directory that is not there has none. Symbolic links are not followed.
pub(super) fn files(directory: &Path, deep: usize) -> Result<Vec<PathBuf>, BaselineError> {
    let mut found = Vec::new();
    let mut next = vec![(directory.to_path_buf(), deep)];
    while let Some((directory, deep)) = next.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(BaselineError::io("list", &directory)(error)),
        };
        for entry in entries {
            let list = BaselineError::io("list", &directory);
            let (path, kind) = entry.and_then(|e| Ok((e.path(), e.file_type()?))).map_err(list)?;
            let pending = path.to_string_lossy().ends_with(ENDING);
            if kind.is_dir() && deep > 0 {
                next.push((path, deep - 1));
            } else if kind.is_file() && pending {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The pending files of a directory as names within it, with `/`, and texts.
pub(super) fn texts(directory: &Path) -> Result<Vec<(String, String)>, BaselineError> {
    let text = |path: PathBuf| {
        let text =
            disk::read_text(&path, disk::PENDING).map_err(BaselineError::io("read", &path))?;
        let name = path.strip_prefix(directory).unwrap_or(&path);
        Ok((name.to_string_lossy().replace('\\', "/"), text))
    };
    files(directory, DEEPEST)?.into_iter().map(text).collect()
}

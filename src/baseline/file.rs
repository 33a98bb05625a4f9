/*!
Writing and removing snapshots, with errors that name the file.
*/

use std::path::Path;

use super::BaselineError;
use crate::disk;

/// Writes a file beside its place and moves it there; makes the directory if need be.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), BaselineError> {
    disk::replace(path, bytes).map_err(BaselineError::io("write", path))
}

/// Removes a file; true if there was one.
pub(super) fn remove_if_present(path: &Path) -> Result<bool, BaselineError> {
    disk::remove_if_present(path).map_err(BaselineError::io("remove", path))
}

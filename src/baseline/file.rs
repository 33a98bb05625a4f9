/*!
Writing a file so that it is, at any moment, either old or new and whole.
*/

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::BaselineError;

/// Writes a file beside its place and moves it there; makes the directory if need be.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), BaselineError> {
    replace(path, bytes).map_err(BaselineError::io("write", path))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A bare file name has the empty path for its parent.
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".qualm-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Temporary files are private by default; a snapshot is as readable as the umask allows.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Removes a file; true if there was one.
pub(super) fn remove_if_present(path: &Path) -> Result<bool, BaselineError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(BaselineError::io("remove", path)(error)),
    }
}

/*!
Writing files so that each is, at any moment, either old or new, and whole.
*/

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::temporary::{Temporary, sweep};

/// Writes a file beside its place and moves it there; makes the directory if need be.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    prepare(parent(path))?;
    Temporary::write(parent(path), |out| out.write_all(bytes))?.persist(path)?;
    sync_directory(parent(path))
}

/// As [`replace`], with the path in the error.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), (PathBuf, io::Error)> {
    replace(path, bytes).map_err(|error| (path.to_owned(), error))
}

/// A set of files of a directory. All of them are on disk under temporary names before the first one gets
/// its own, so that the moment in which some are old and others new is short.
#[derive(Debug)]
pub struct Files<'d> {
    directory: &'d Path,
    written: Vec<(PathBuf, Temporary)>,
}

/// What cannot be written, and why.
type Failed = (PathBuf, io::Error);

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Failed {
    let path = path.to_owned();
    move |error| (path, error)
}

impl<'d> Files<'d> {
    /// Makes the directory if need be.
    pub fn new(directory: &'d Path) -> Result<Self, Failed> {
        prepare(directory).map_err(failed(directory))?;
        Ok(Self { directory, written: Vec::new() })
    }

    /// Writes one more file, which has no name yet.
    pub fn add(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), Failed> {
        let path = self.directory.join(name);
        let file = Temporary::write(parent(&path), write).map_err(failed(&path))?;
        self.written.push((path, file));
        Ok(())
    }

    /// Gives them their names.
    pub fn persist(self) -> Result<(), Failed> {
        for (path, file) in self.written {
            file.persist(&path).map_err(failed(&path))?;
        }
        sync_directory(self.directory).map_err(failed(self.directory))
    }
}

/// Writes a set of files, as [`Files`] does.
pub fn write_files(directory: &Path, files: &[(&str, &[u8])]) -> Result<(), Failed> {
    let mut set = Files::new(directory)?;
    for (name, bytes) in files {
        set.add(name, |out| out.write_all(bytes))?;
    }
    set.persist()
}

/// Makes a directory if need be, and removes what killed processes left in it, once a process.
fn prepare(directory: &Path) -> io::Result<()> {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    fs::create_dir_all(directory)?;
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if swept.insert(directory.to_owned()) {
        sweep(directory);
    }
    Ok(())
}

/// Removes a file; true if there was one.
pub fn remove_if_present(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directory that a file lies in.
pub fn parent(path: &Path) -> &Path {
    // A bare file name has the empty path for its parent.
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes renames durable where directories can be synchronized.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

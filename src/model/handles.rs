/*!
Open files of models, within what the system allows a process: a checkpoint may have more shards than that.

The first files stay open, half as many as the process may have. Those beyond are opened for each read, and
refused if they are not the files that they were.
*/

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Files that are kept open now.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Most files that are kept open.
static MOST: LazyLock<u64> = LazyLock::new(|| {
    #[cfg(unix)]
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let allowed = Some(512);
    allowed.unwrap_or(8192) / 2
});

/// A file of a model.
#[derive(Debug)]
pub enum Handle {
    /// It is kept open.
    Kept(Kept),
    /// It is opened for each read.
    OnDemand(PathBuf, Identity),
}

/// A file that is kept open, and counted.
#[derive(Debug)]
pub struct Kept(File);

impl Drop for Kept {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What tells a file from another that has taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    len: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    inode: (u64, u64),
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt as _;
                (metadata.dev(), metadata.ino())
            },
        })
    }
}

impl Handle {
    /// Keeps a file open if there is room for it.
    pub fn new(path: &Path, file: File) -> io::Result<Self> {
        if OPEN.fetch_add(1, Ordering::Relaxed) < *MOST {
            return Ok(Self::Kept(Kept(file)));
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
        Ok(Self::OnDemand(path.to_owned(), Identity::of(&file)?))
    }

    /// Fills `buffer` from `offset`.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Kept(Kept(file)) => read_exact_at(file, buffer, offset),
            Self::OnDemand(path, identity) => {
                let file = File::open(path)?;
                if Identity::of(&file)? != *identity {
                    return Err(io::Error::other("the file is another than when it was opened"));
                }
                read_exact_at(&file, buffer, offset)
            }
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buffer = &mut buffer[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_opened_for_each_read_must_stay_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shard");
        std::fs::write(&path, b"0123").unwrap();
        let file = File::open(&path).unwrap();
        let handle = Handle::OnDemand(path.clone(), Identity::of(&file).unwrap());
        let mut read = [0; 2];
        handle.read_exact_at(&mut read, 1).unwrap();
        assert_eq!(&read, b"12");
        std::fs::write(directory.path().join("other"), b"4567").unwrap();
        std::fs::rename(directory.path().join("other"), &path).unwrap();
        let error = handle.read_exact_at(&mut read, 1).unwrap_err();
        assert!(error.to_string().contains("another"), "{error}");
    }
}

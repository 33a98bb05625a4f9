/*!
An open file of tensor data, read at positions into the caller's buffers.

Never mapped into memory: a file that another process cuts short while it is read must end in an
error, not in a signal.
*/

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::backing::{Backing, Edited};
use super::handles::Handle;
use super::{Edit, ModelError, ReadError};
use crate::remote::{self, Object, Opened};

/// One file of a model. A clone shares the open file.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// As it was opened.
    pub path: PathBuf,
    /// Length in bytes when it was opened.
    pub len: u64,
    /// SHA-256 of the header (everything before the data), lower-case hex.
    pub header_sha256: String,
    /// What pins a file that is not on this machine: a commit, or what its server calls this version of it.
    pub revision: Option<String>,
    backing: Arc<Backing>,
}

impl SourceFile {
    /// Opens a regular file or an address; the header digest is filled in by the container's reader.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if !remote::is_address(path) {
            return Self::open_local(path);
        }
        match remote::open(path).map_err(|e| ModelError::io(path, "open", e))? {
            Opened::Local(copy, revision) => {
                let file = Self::open_local(&copy)?;
                Ok(Self { path: path.to_owned(), revision: Some(revision), ..file })
            }
            Opened::Remote(object) => Ok(Self {
                path: path.to_owned(),
                len: object.len(),
                header_sha256: String::new(),
                revision: Some(object.revision()).filter(|it| !it.is_empty()),
                backing: Arc::new(Backing::Remote(object)),
            }),
        }
    }

    fn open_local(path: &Path) -> Result<Self, ModelError> {
        // Asked before opening, because to open a pipe is to wait for its writer.
        let metadata = std::fs::metadata(path).map_err(|e| ModelError::open(path, e))?;
        if !metadata.is_file() {
            return Err(ModelError::new(path, "is not a regular file"));
        }
        let file = File::open(path).map_err(|e| ModelError::io(path, "open", e))?;
        let metadata = file.metadata().map_err(|e| ModelError::io(path, "inspect", e))?;
        let handle = Handle::new(path, file).map_err(|e| ModelError::io(path, "inspect", e))?;
        let backing = Arc::new(Backing::File(handle));
        let len = metadata.len();
        let (path, header_sha256) = (path.to_owned(), String::new());
        Ok(Self { path, len, header_sha256, revision: None, backing })
    }

    /// A file that is in memory already; `name` stands for its path in errors.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Self {
        Self {
            path: name.to_owned(),
            len: bytes.len() as u64,
            header_sha256: String::new(),
            revision: None,
            backing: Arc::new(Backing::Memory(bytes)),
        }
    }

    /// The same file with other bytes in some places, changed as they are read: nothing is written,
    /// and nothing is copied.
    #[must_use]
    pub fn edited(&self, edit: Edit) -> Self {
        let backing = Backing::Edited(Edited { under: Arc::clone(&self.backing), edit });
        Self { backing: Arc::new(backing), ..self.clone() }
    }

    /// The file behind an address, if it is one.
    pub(super) fn remote(&self) -> Option<&Arc<Object>> {
        self.backing.remote()
    }

    /// Fills `buffer` from `offset`.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.backing.read_exact_at(buffer, offset).map_err(|e| ReadError::Io {
            path: self.path.clone(),
            offset,
            len: buffer.len() as u64,
            problem: if e.kind() == io::ErrorKind::UnexpectedEof {
                "the file has become shorter since it was opened".to_owned()
            } else {
                e.to_string()
            },
        })
    }

    /// Refuses a range beyond the file's end.
    pub fn check_range(&self, offset: u64, len: u64, what: &str) -> Result<(), ModelError> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            let problem = format!("{what} of {len} bytes runs past the file's end ({})", self.len);
            return Err(ModelError::new(&self.path, problem).at(offset));
        }
        Ok(())
    }

    /// Reads the whole range into a new buffer, refusing a range beyond the file's end before
    /// anything is allocated. For headers; tensor data go through [`SourceFile::read_at`].
    pub fn read_range(&self, offset: u64, len: u64, what: &str) -> Result<Vec<u8>, ModelError> {
        self.check_range(offset, len, what)?;
        let mut buffer = vec![0; len as usize];
        self.backing
            .read_exact_at(&mut buffer, offset)
            .map_err(|e| ModelError::io(&self.path, "read", e).at(offset))?;
        Ok(buffer)
    }
}

/// Lower-case hex of a digest.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        text
    })
}

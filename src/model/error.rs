/*! What can be wrong with a model file, and with a read of it. */

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The faults of files that have a name of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// The file ends before its header or its data do.
    Truncated,
    /// The file is a Git LFS pointer.
    LfsPointer,
    /// One tensor's data lie inside another's.
    Overlap,
    /// A tensor's data end a little too late: the next begins before they can have ended.
    ShortRegion,
    /// The header lists a name twice.
    DuplicateName,
    /// Rows are not whole blocks of their type.
    RaggedRow,
    /// The header's alignment is not the one that the data were written with.
    Misaligned,
}

/// A model that cannot be opened: which file, where in it, and why.
#[derive(Debug)]
pub struct ModelError {
    /// The file or directory at fault.
    pub path: PathBuf,
    /// The tensor at fault, if the problem belongs to one.
    pub tensor: Option<String>,
    /// Byte position in the file, if known.
    pub position: Option<u64>,
    /// What is wrong, as a fragment that reads after the place.
    pub problem: String,
    /// The kind of fault, where it has a name.
    pub fault: Option<FileFault>,
    /// The other tensor, if two get in each other's way.
    pub other: Option<Box<str>>,
    source: Option<io::Error>,
}

impl ModelError {
    /// A problem with a whole file.
    pub fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            tensor: None,
            position: None,
            problem: problem.into(),
            fault: None,
            other: None,
            source: None,
        }
    }

    /// The operating system refused; `doing` reads after "cannot": "open", "read the header of".
    pub fn io(path: &Path, doing: &str, source: io::Error) -> Self {
        let mut error = Self::new(path, format!("cannot {doing} it: {source}"));
        error.source = Some(source);
        error
    }

    /// The operating system could not open it; says where a link leads that leads to nothing.
    pub fn open(path: &Path, source: io::Error) -> Self {
        match std::fs::read_link(path) {
            Ok(target) if source.kind() == io::ErrorKind::NotFound => {
                let problem = format!(
                    "is a link to {}, which is not there: the download did not finish, or the cache \
                     was cleared",
                    target.display()
                );
                Self { source: Some(source), ..Self::new(path, problem) }
            }
            _ => Self::io(path, "open", source),
        }
    }

    /// Names the tensor at fault.
    #[must_use]
    pub fn tensor(mut self, name: impl Into<String>) -> Self {
        self.tensor = Some(name.into());
        self
    }

    /// Says what kind of fault it is.
    #[must_use]
    pub fn because(mut self, fault: FileFault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Names the other tensor of two that get in each other's way.
    #[must_use]
    pub fn beside(mut self, name: impl Into<Box<str>>) -> Self {
        self.other = Some(name.into());
        self
    }

    /// Gives the byte position in the file.
    #[must_use]
    pub fn at(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(tensor) = &self.tensor {
            write!(f, "tensor {tensor:?}: ")?;
        }
        f.write_str(&self.problem)?;
        match self.position {
            Some(position) => write!(f, " (at byte {position})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ModelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Values that could not be read although the header promised them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The file ended, or the device failed, while its data were read.
    #[error("cannot read {len} bytes at byte {offset} of {}: {problem}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Where the read began.
        offset: u64,
        /// How long it was to be.
        len: u64,
        /// The operating system's word.
        problem: String,
    },
    /// The type or scheme is known by name only, or not at all.
    #[error("{0}")]
    Undecodable(String),
    /// The stored planes contradict each other.
    #[error("{0}")]
    Corrupt(String),
}

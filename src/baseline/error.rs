/*!
What can go wrong with baselines. Every error names the file, and the line where there is one.
*/

use std::io;
use std::path::{Path, PathBuf};

/// An error of the baseline room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaselineError {
    /// A file could not be read, written, moved or removed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb: `read`, `write`, `remove`, `list`, …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is there but is no snapshot. It is never taken for a missing one.
    #[error("{}:{line}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// What is wrong, and what to do.
        message: String,
    },
    /// An environment variable holds something that it cannot.
    #[error("invalid value {value:?} for the environment variable {name}: expected {expected}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A snapshot lies where its pending file has no place.
    #[error(
        "{} is not below {}: keep snapshots inside the workspace, or set INSTA_WORKSPACE_ROOT",
        path.display(),
        workspace.display()
    )]
    Outside {
        /// The snapshot.
        path: PathBuf,
        /// The workspace.
        workspace: PathBuf,
    },
    /// A baseline under `ratchet` would get worse.
    #[error(
        "{}: under `ratchet` a baseline may only improve; to accept this all the same, give \
         `--allow-worse --reason TEXT` ({regressions})",
        path.display()
    )]
    Ratchet {
        /// The snapshot.
        path: PathBuf,
        /// What got worse.
        regressions: String,
    },
    /// The request makes no sense as it stands.
    #[error("{0}")]
    Usage(String),
}

impl BaselineError {
    /// Turns an I/O error into one that names its file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }

    pub(super) fn parse(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self::Parse { path: path.to_path_buf(), line, message: message.into() }
    }
}

/*! What ends a command early: a message, and the exit code that goes with it. */

use std::fmt::Display;

use crate::codec::simd::LevelError;
use crate::model::ModelError;
use crate::pairs;
use crate::suite::exit::Exit;

/// An error that ends the command.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// For people; may span lines.
    pub message: String,
    /// Whether the message holds the program's own colours.
    pub rendered: bool,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string(), rendered: false }
    }

    /// A failure with a message that was rendered for standard error.
    pub fn rendered(exit: Exit, message: &str) -> Self {
        Self { exit, message: message.to_owned(), rendered: true }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::new(Exit::InputError, error)
    }
}

impl From<pairs::Error> for Failure {
    fn from(error: pairs::Error) -> Self {
        Self::new(error.exit, error)
    }
}

impl From<LevelError> for Failure {
    fn from(error: LevelError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

/// Standard output is gone (`qualm … | head`), or the disk is full.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Internal, format_args!("cannot write the output: {error}"))
    }
}

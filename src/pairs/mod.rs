/*!
Two models, or one against several, with no spec: measured as they are, and judged.
*/

mod compared;
mod judged;
mod request;

use std::fmt;

pub use compared::{Comparison, Policy, compare};
pub use judged::{Finding, Judged, Object, exit, judge};
pub use request::{QtypeRule, Request, Watch, measure};

use crate::model::ModelError;
use crate::suite::exit::Exit;
use crate::suite::plan::Plan;
use crate::suite::{Listener, Silent};

/// Why there is no verdict: a model cannot be read, or what was asked for makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The exit code that the command line ends with.
    pub exit: Exit,
    message: String,
}

impl Error {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        Self::new(Exit::InputError, error)
    }
}

/// Nobody watches.
pub fn unwatched(_: &Plan, run: &mut dyn FnMut(&mut dyn Listener)) {
    run(&mut Silent);
}

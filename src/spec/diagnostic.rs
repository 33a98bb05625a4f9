/*!
Findings about a spec, each with its place, shown with the source line, a caret and a suggestion.
*/

use std::fmt;
use std::sync::Arc;

use super::{Location, Source};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Valid but suspicious.
    Warning,
    /// The spec is invalid.
    Error,
}

/// One finding about a spec file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong; a lower-case fragment.
    pub message: String,
    /// The place; `None` if the file could not be read at all.
    pub location: Option<Location>,
    /// Text under the caret.
    pub label: Option<String>,
    /// A second place that plays a part, with its label.
    pub related: Option<(Location, String)>,
    /// What to do next.
    pub help: Option<String>,
    /// The text that the place lies in.
    pub source: Option<Arc<Source>>,
}

/// Everything that is wrong with a spec file.
#[derive(Debug)]
pub struct SpecErrors {
    /// At least one error, and the warnings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{}", diagnostic.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

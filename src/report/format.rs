/*!
What a report is.
*/

use std::path::PathBuf;

use crate::internal::InternalError;
use crate::suite::record::Contract;

/// A rendering of the record of a run. It knows nothing of how the run was made.
pub trait Report: Sync {
    /// The name on the command line (`junit`).
    fn name(&self) -> &'static str;
    /// The name of the file in the output directory (`junit.xml`).
    fn file_name(&self) -> &'static str;
    /// What it is, in one line.
    fn about(&self) -> &'static str;
    /// The variable that the one CI system sets which reads it; none if people and any system do. A run writes
    /// it in that system alone, `qualm report` anywhere.
    fn system(&self) -> Option<&'static str> {
        None
    }
    /// Renders the record. The same record and options give the same bytes.
    fn render(&self, contract: &Contract, options: &Options) -> Result<Rendered, ReportError>;
}

/// Whether the program runs in a CI system, by the variable that this system sets.
pub fn runs_in(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "true")
}

/// What a document may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Properties of suites and cases, places, counts: for readers that take what they know.
    #[default]
    Rich,
    /// Valid by the schemas `junit-10.xsd` of Jenkins' xunit plugin and `junit-4.xsd`: metrics are
    /// in `system-out`.
    Strict,
}

/// Which tests are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cases {
    /// All of them, in the order of the run.
    #[default]
    All,
    /// All but those that passed with nothing to say, the worst first.
    Failed,
}

/// What a user may choose about reports.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What `junit.xml` may hold.
    pub junit_dialect: Dialect,
    /// Which tests `junit.xml` lists.
    pub junit_cases: Cases,
    /// Size of `junit.xml`, in bytes, beyond which readers balk (GitLab: 30 MB): beyond it `all`
    /// warns, and `failed` leaves out the least grave failures.
    pub junit_limit: usize,
    /// Size of a Markdown report in bytes.
    pub markdown_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            junit_dialect: Dialect::Rich,
            junit_cases: Cases::All,
            junit_limit: 25_000_000,
            markdown_limit: 512 * 1024,
        }
    }
}

/// A report's bytes, and what its reader should know about how it came out.
#[derive(Debug)]
pub struct Rendered {
    /// The file.
    pub bytes: Vec<u8>,
    /// For people, one line each.
    pub warnings: Vec<String>,
}

impl From<Vec<u8>> for Rendered {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, warnings: Vec::new() }
    }
}

/// Why a report cannot be rendered or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The record cannot be written as JSON, or not be read back.
    #[error("cannot render contract.json: {0}")]
    Json(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The XML cannot be built.
    #[error("cannot render junit.xml: {0}")]
    Junit(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The program broke down.
    #[error(transparent)]
    Internal(#[from] InternalError),
}

impl ReportError {
    pub(super) fn write((path, source): (PathBuf, std::io::Error)) -> Self {
        Self::Write { path, source }
    }

    pub(super) fn json(error: serde_json::Error) -> Self {
        Self::Json(error.into())
    }

    pub(super) fn junit(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Junit(error.into())
    }
}

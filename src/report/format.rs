/*!
What a report is, and the table of reports.
*/

use std::path::PathBuf;

use super::contract_json::{ContractError, ContractJson};
use super::contract_md::ContractMd;
use super::html::ReportHtml;
use super::junit::{Cases, Dialect, Junit};
use super::tsv::Tsv;
use crate::suite::record::Contract;

/// A rendering of the record of a run. It knows nothing of how the run was made.
pub trait Report: Sync {
    /// The name on the command line (`junit`).
    fn name(&self) -> &'static str;
    /// The name of the file in the output directory (`junit.xml`).
    fn file_name(&self) -> &'static str;
    /// What it is, in one line.
    fn about(&self) -> &'static str;
    /// Renders the record. The same record and options give the same bytes.
    fn render(&self, contract: &Contract, options: &Options) -> Result<Rendered, ReportError>;
}

/// Every report that a run writes; the first is the truth, the others are made from it.
pub static REPORTS: [&dyn Report; 5] = [&ContractJson, &ContractMd, &ReportHtml, &Junit, &Tsv];

/// Looks a report up by its name.
pub fn by_name(name: &str) -> Option<&'static dyn Report> {
    REPORTS.into_iter().find(|report| report.name() == name)
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
}

impl ReportError {
    pub(super) fn json(error: serde_json::Error) -> Self {
        Self::Json(error.into())
    }

    pub(super) fn junit(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Junit(error.into())
    }
}

impl From<ContractError> for ReportError {
    fn from(error: ContractError) -> Self {
        Self::Json(error.into())
    }
}

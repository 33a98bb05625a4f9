/*!
Renderings of the record, one file a format.
*/

pub mod compare;
pub mod contract_json;
mod contract_md;
pub mod draft;
mod failure;
mod format;
pub mod github;
mod html;
mod junit;
mod junit_repair;
mod markdown;
pub mod numbers;
#[cfg(test)]
mod sample;
mod table;
pub mod text;
pub mod tsv;
mod write;

pub use contract_json::{ContractError, ContractJson};
pub use contract_md::ContractMd;
pub use failure::{
    Located, excess, failure_kind, failure_lines, gravity, movement_text, note_lines, place,
    waiver_lines, worst_first,
};
pub use format::{Cases, Dialect, Options, Rendered, Report, ReportError};
pub use html::ReportHtml;
pub use junit::Junit;
pub use table::{REPORTS, by_name};
pub use tsv::Tsv;
pub use write::{write_all, write_file, write_files};

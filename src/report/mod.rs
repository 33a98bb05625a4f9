/*!
Renderings of the record, one file a format.
*/

mod code_quality;
pub mod compare;
pub mod contract_json;
mod contract_md;
mod decision;
pub mod draft;
mod failure;
mod format;
pub mod github;
mod gravity;
mod groups;
mod html;
mod issue;
mod junit;
mod junit_repair;
mod located;
mod markdown;
pub mod numbers;
mod place;
mod ranking;
#[cfg(test)]
mod sample;
mod sarif;
mod table;
pub mod text;
pub mod tsv;
mod write;

pub use contract_json::{ContractError, ContractJson};
pub use contract_md::ContractMd;
pub use failure::{
    cause_first, failure_kind, failure_lines, movement_text, note_lines, place, sample_line,
    waiver_lines,
};
pub use format::{Cases, Dialect, Options, Rendered, Report, ReportError, runs_in};
pub use gravity::{Gravity, excess, gravity, natural, worst_first};
pub use groups::group_lines;
pub use html::{ReportHtml, ranking_page};
pub use junit::Junit;
pub use located::Located;
pub use ranking::markdown as ranking_markdown;
pub use table::{REPORTS, by_name};
pub use tsv::Tsv;
pub use write::{write_all, write_file, write_files};

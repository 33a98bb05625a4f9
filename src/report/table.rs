/*!
The table of reports.
*/

use super::code_quality::CodeQuality;
use super::contract_json::ContractJson;
use super::contract_md::ContractMd;
use super::format::Report;
use super::html::ReportHtml;
use super::junit::Junit;
use super::sarif::Sarif;
use super::tsv::Tsv;

/// Every report that a run writes; the first is the truth, the others are made from it.
pub static REPORTS: [&dyn Report; 7] =
    [&ContractJson, &ContractMd, &ReportHtml, &Junit, &Tsv, &Sarif, &CodeQuality];

/// Looks a report up by its name.
pub fn by_name(name: &str) -> Option<&'static dyn Report> {
    REPORTS.into_iter().find(|report| report.name() == name)
}

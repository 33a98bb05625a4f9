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

#[cfg(test)]
mod tests {
    use super::super::format::Options;
    use super::super::sample;
    use super::*;

    /// What is odd about a pair is told wherever there is a place for it.
    #[test]
    fn every_report_has_the_notes_of_a_pair() {
        let contract = sample::contract();
        for report in REPORTS {
            let bytes = report.render(&contract, &Options::default()).unwrap().bytes;
            let text = String::from_utf8(bytes).unwrap();
            // The contract's columns are seven, and its readers know of no comments.
            let expected = report.name() != "tsv";
            let (name, plain) = (report.name(), text.replace('\\', ""));
            assert_eq!(plain.contains("file_type says Q4_1"), expected, "{name}: {text}");
        }
    }
}

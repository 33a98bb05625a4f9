/*!
`report.html`: the contract report for people, in one file that asks nothing of the network.
*/

mod decision;
mod failures;
mod heat_map;
mod markup;
mod pairs;
mod plot;
mod ranking;
mod report;

pub use ranking::page as ranking_page;
pub use report::ReportHtml;

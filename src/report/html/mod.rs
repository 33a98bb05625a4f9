/*!
`report.html`: the contract report for people, in one file that asks nothing of the network.
*/

mod failures;
mod heat_map;
mod markup;
mod pairs;
mod plot;
mod report;

pub use report::ReportHtml;

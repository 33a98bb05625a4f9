/*!
Renderings of the record, one file a format.
*/

pub mod tsv;

use std::path::Path;

use crate::suite::record::{Contract, TestRecord};

/// Lines.
pub fn failure_lines(test: &TestRecord) -> Vec<String> {
    test.reason.iter().cloned().collect()
}

/// Write.
pub fn write_all(_: &Path, _: &Contract) -> std::io::Result<()> {
    Ok(())
}

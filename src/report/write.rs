/*!
Writing reports into the output directory.
*/

use std::io::Write;
use std::path::Path;

use super::contract_json::ContractJson;
use super::format::{Options, Rendered, Report, ReportError, runs_in};
use super::table::REPORTS;
use crate::suite::record::Contract;
use crate::{disk, internal};

/// Whether a run writes a report where it runs.
fn is_wanted(report: &dyn Report) -> bool {
    report.system().is_none_or(runs_in)
}

/// Renders every report of [`REPORTS`] that somebody reads here, and writes them into a directory, which is made if
/// need be. One of an earlier run that is not wanted any more is removed.
///
/// `contract.json` is the truth: the others are rendered from what it says when it is read back, so
/// that they can be made again from it to the byte; that is what `contract` holds afterwards. Returns
/// warnings for people.
///
/// # Errors
///
/// A report that cannot be rendered does not keep the others from being written, but for
/// `contract.json`.
pub fn write_all(
    directory: &Path,
    contract: &mut Contract,
    options: &Options,
) -> Result<Vec<String>, ReportError> {
    let mut files = disk::Files::new(directory).map_err(ReportError::write)?;
    let json = ContractJson.file_name();
    internal::guard(format_args!("rendering {json}"), || {
        files.add(json, |out| ContractJson::write(contract, out)).map_err(ReportError::write)?;
        contract.read_back().map_err(ReportError::json)
    })??;
    let mut warnings = Vec::new();
    let mut unrendered = None;
    let (wanted, idle): (Vec<&dyn Report>, _) = REPORTS.into_iter().partition(|it| is_wanted(*it));
    for report in wanted.into_iter().filter(|report| report.name() != ContractJson.name()) {
        match render(report, contract, options) {
            Ok(mut rendered) => {
                let write = |out: &mut dyn Write| out.write_all(&rendered.bytes);
                files.add(report.file_name(), write).map_err(ReportError::write)?;
                warnings.append(&mut rendered.warnings);
            }
            Err(error) => unrendered = unrendered.or(Some(error)),
        }
    }
    files.persist().map_err(ReportError::write)?;
    for report in idle {
        let path = directory.join(report.file_name());
        disk::remove_if_present(&path).map_err(|error| ReportError::write((path, error)))?;
    }
    unrendered.map_or(Ok(warnings), Err)
}

/// Renders a report; a panic is an error of this report alone.
fn render(
    report: &dyn Report,
    contract: &Contract,
    options: &Options,
) -> Result<Rendered, ReportError> {
    internal::guard(format_args!("rendering {}", report.file_name()), || {
        report.render(contract, options)
    })?
}

/// Writes a set of files into a directory, as [`disk::write_files`] does.
pub fn write_files(directory: &Path, files: &[(&str, &[u8])]) -> Result<(), ReportError> {
    disk::write_files(directory, files).map_err(ReportError::write)
}

/// Writes one file, wherever it is; makes its directory if need be.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    disk::write_file(path, bytes).map_err(ReportError::write)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::sample;
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_report_that_is_wanted_is_written_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("a/b");
        for _ in 0..2 {
            // Of an earlier run, in another system.
            fs::create_dir_all(&out).unwrap();
            for report in REPORTS {
                fs::write(out.join(report.file_name()), "old").unwrap();
            }
            write_all(&out, &mut sample::contract(), &Options::default()).unwrap();
            let wanted = REPORTS.into_iter().filter(|it| is_wanted(*it));
            let mut expected: Vec<&str> = wanted.map(Report::file_name).collect();
            expected.sort_unstable();
            assert_eq!(names(&out), expected);
        }
    }

    #[test]
    fn two_runs_differ_in_their_time_alone() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| directory.path().join(name));
        let mut contract = sample::contract();
        contract.time = None;
        write_all(&first, &mut contract, &Options::default()).unwrap();
        write_all(&second, &mut contract, &Options::default()).unwrap();
        for name in names(&first) {
            let [one, other] = [&first, &second].map(|it| fs::read(it.join(&name)).unwrap());
            assert_eq!(one, other, "{name}");
        }
    }

    #[test]
    fn every_report_can_be_made_again_from_contract_json() {
        let directory = tempfile::tempdir().unwrap();
        write_all(directory.path(), &mut sample::contract(), &Options::default()).unwrap();
        let contract = Contract::read(&directory.path().join("contract.json")).unwrap();
        for report in REPORTS.into_iter().filter(|it| is_wanted(*it)) {
            let again = report.render(&contract, &Options::default()).unwrap().bytes;
            let written = fs::read(directory.path().join(report.file_name())).unwrap();
            assert_eq!(again, written, "{}", report.name());
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_all_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), "old").unwrap();
        let files: [(&str, &[u8]); 2] = [("a", b"new"), ("no/such/b", b"new")];
        let error = write_files(directory.path(), &files).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("no/such/b"), "{error}");
        assert_eq!(names(directory.path()), ["a"], "no temporary file stays");
        assert_eq!(fs::read(directory.path().join("a")).unwrap(), b"old");

        let file = directory.path().join("a");
        let error = write_files(&file, &files).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}

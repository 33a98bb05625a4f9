/*!
Writing reports into the output directory: whenever the process is killed, each file is either old
or new, and whole.
*/

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::contract_json::ContractJson;
use super::format::{Options, REPORTS, Rendered, Report, ReportError};
use crate::suite::record::Contract;

/// Renders every report of [`REPORTS`] and writes them into a directory, which is made if need be.
///
/// `contract.json` is the truth: the others are rendered from what it says when it is read back, so
/// that they can be made again from it to the byte. Returns warnings for people.
pub fn write_all(
    directory: &Path,
    contract: &Contract,
    options: &Options,
) -> Result<Vec<String>, ReportError> {
    let json = ContractJson.render(contract, options)?;
    let contract = Contract::from_json(&json.bytes, Path::new(ContractJson.file_name()))?;
    let mut files = vec![(ContractJson.file_name(), json)];
    for report in REPORTS.iter().filter(|report| report.name() != ContractJson.name()) {
        files.push((report.file_name(), report.render(&contract, options)?));
    }
    let contents: Vec<(&str, &[u8])> =
        files.iter().map(|(name, Rendered { bytes, .. })| (*name, bytes.as_slice())).collect();
    write_files(directory, &contents)?;
    Ok(files.into_iter().flat_map(|(_, rendered)| rendered.warnings).collect())
}

/// Writes a set of files. All of them are on disk under temporary names before the first one gets
/// its own, so that the moment in which some are old and others new is short.
pub fn write_files(directory: &Path, files: &[(&str, &[u8])]) -> Result<(), ReportError> {
    let failed = |path: PathBuf| move |source| ReportError::Write { path, source };
    fs::create_dir_all(directory).map_err(failed(directory.to_owned()))?;
    let mut written = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let path = directory.join(name);
        let file = temporary(&path, bytes).map_err(failed(path.clone()))?;
        written.push((path, file));
    }
    for (path, file) in written {
        file.persist(&path).map_err(|error| failed(path)(error.error))?;
    }
    sync_directory(directory).map_err(failed(directory.to_owned()))
}

/// Writes one file, wherever it is; makes its directory if need be.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let write = || {
        fs::create_dir_all(parent(path))?;
        temporary(path, bytes)?.persist(path)?;
        sync_directory(parent(path))
    };
    write().map_err(|source| ReportError::Write { path: path.to_owned(), source })
}

fn parent(path: &Path) -> &Path {
    // A bare file name has the empty path for its parent.
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file beside `path`, its bytes on disk; it is gone again unless it gets that name.
fn temporary(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".qualm-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Temporary files are private by default; a report is as readable as the umask allows.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(parent(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes renames durable where directories can be synchronized.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
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
    fn every_report_of_the_table_is_written_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("a/b");
        for _ in 0..2 {
            write_all(&out, &sample::contract(), &Options::default()).unwrap();
            let mut expected: Vec<&str> = REPORTS.iter().map(|it| it.file_name()).collect();
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
        write_all(&first, &contract, &Options::default()).unwrap();
        write_all(&second, &contract, &Options::default()).unwrap();
        for name in names(&first) {
            let [one, other] = [&first, &second].map(|it| fs::read(it.join(&name)).unwrap());
            assert_eq!(one, other, "{name}");
        }
    }

    #[test]
    fn every_report_can_be_made_again_from_contract_json() {
        let directory = tempfile::tempdir().unwrap();
        write_all(directory.path(), &sample::contract(), &Options::default()).unwrap();
        let contract = Contract::read(&directory.path().join("contract.json")).unwrap();
        for report in REPORTS {
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

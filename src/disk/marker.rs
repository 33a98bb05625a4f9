/*!
A mark on reports that a later run was to replace and did not: they must not be taken for its own.

A run that finds older reports in its output directory puts a file beside them, locked while it runs,
and removes it once its own are written. Killed, or failed before that, it leaves the file behind.
*/

use std::io;
use std::path::{Path, PathBuf};

use super::temporary::{create, left_over, own};
use super::write::remove_if_present;

/// Ending of the mark's name.
const ENDING: &str = ".unfinished";

/// How the reports of a directory stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They are of the last run.
    Current,
    /// A run is under way that will replace them.
    InProgress,
    /// A run was to replace them and did not.
    Stale,
}

/// A run that is to replace the reports of a directory.
#[derive(Debug)]
pub struct Unfinished {
    directory: PathBuf,
    /// Its own mark, locked.
    mark: Option<tempfile::NamedTempFile>,
}

impl Unfinished {
    /// Marks older reports, if any of these files is there.
    pub fn begin(directory: &Path, reports: &[&str]) -> io::Result<Self> {
        let older = reports.iter().any(|name| directory.join(name).exists());
        let mark = if older { Some(create(directory, ENDING)?) } else { None };
        Ok(Self { directory: directory.to_owned(), mark })
    }

    /// The new reports are there: its mark goes, and so do those of runs that did not come so far.
    pub fn finish(mut self) -> io::Result<()> {
        for path in own(&self.directory, ENDING) {
            if let Some(_locked) = left_over(&path) {
                remove_if_present(&path)?;
            }
        }
        self.mark.take().map_or(Ok(()), tempfile::NamedTempFile::close)
    }
}

impl Unfinished {
    /// The run has nothing to report: what is there stays what it was.
    pub fn withdraw(mut self) -> io::Result<()> {
        self.mark.take().map_or(Ok(()), tempfile::NamedTempFile::close)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It was not finished: the mark stays.
        if let Some(mark) = self.mark.take() {
            let _ = mark.keep();
        }
    }
}

/// How the reports of a directory stand.
pub fn standing(directory: &Path) -> Standing {
    let marks = own(directory, ENDING);
    match marks.iter().any(|path| left_over(path).is_some()) {
        true => Standing::Stale,
        false if marks.is_empty() => Standing::Current,
        false => Standing::InProgress,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn reports_are_stale_until_a_run_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let begin = || Unfinished::begin(at, &["contract.json"]).unwrap();
        drop(begin());
        assert_eq!(standing(at), Standing::Current, "there was nothing to replace");
        fs::write(at.join("contract.json"), "old").unwrap();
        let failed = begin();
        assert_eq!(standing(at), Standing::InProgress);
        drop(failed);
        assert_eq!(standing(at), Standing::Stale);
        let (first, second) = (begin(), begin());
        second.finish().unwrap();
        assert_eq!(standing(at), Standing::InProgress, "the other run is still under way");
        first.finish().unwrap();
        assert_eq!(standing(at), Standing::Current);
        assert_eq!(fs::read_dir(at).unwrap().count(), 1);
        assert_eq!(standing(&at.join("none")), Standing::Current);
    }
}

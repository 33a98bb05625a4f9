/*!
The run as GitHub Actions shows it, when it is GitHub Actions that runs it.
*/

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::streams;
use crate::disk;
use crate::report::{github, runs_in};
use crate::suite::record::Contract;

/// Bytes that a step's summary may have: beyond 1 MiB GitHub shows none of it.
const SUMMARY: u64 = 1024 * 1024;
/// Less than this is not worth writing.
const LEAST: u64 = 4096;

/// Prints annotations and adds to the job summary, if GitHub Actions is there. `out` gets the
/// annotations.
pub fn tell(contract: &Contract, out: &mut impl Write) -> io::Result<()> {
    if !runs_in("GITHUB_ACTIONS") {
        return Ok(());
    }
    for line in github::annotations(contract, in_checkout) {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let path = PathBuf::from(path);
    if let Err(error) = add_summary(contract, &path) {
        streams::tell(format_args!(
            "warning: cannot write the job summary to {}: {error}",
            path.display()
        ));
    }
    Ok(())
}

/// A spec's path relative to the checkout, which is what annotations go by.
fn in_checkout(file: &str) -> String {
    let relative = || {
        let root = std::env::var_os("GITHUB_WORKSPACE")?;
        let file = std::path::absolute(file).ok()?;
        Some(file.strip_prefix(Path::new(&root)).ok()?.to_str()?.to_owned())
    };
    relative().unwrap_or_else(|| file.to_owned())
}

/// Adds to what earlier commands of the step have written, as far as there is room.
fn add_summary(contract: &Contract, path: &Path) -> io::Result<()> {
    let used = fs::metadata(path).map_or(0, |file| file.len());
    let room = SUMMARY.saturating_sub(used);
    if room < LEAST {
        streams::tell(format_args!("warning: the job summary is full; qualm's is left out"));
        return Ok(());
    }
    let text = github::summary(contract, room as usize);
    disk::append(path, text.as_bytes())
}

/*!
From a file's bytes to a valid [`Spec`], or to everything that is wrong with it.
*/

use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use sha2::{Digest, Sha256};
use toml::de::DeTable;

use super::discover::spec_name;
use super::read::read_spec;
use super::table::Findings;
use super::{Diagnostic, LoadOptions, Source, Spec, SpecErrors};
use crate::disk;

/// Reads and validates one spec file below a suite's root.
///
/// Relative paths of models are resolved against the spec's directory. No model is opened, and
/// whether one exists is not looked up.
///
/// # Errors
///
/// All problems of the file at once.
pub fn load(path: &Path, root: &Path, options: &LoadOptions) -> Result<Spec, SpecErrors> {
    let bytes = disk::read(path, disk::SPEC).map_err(|error| {
        let source = Arc::new(Source::new(path, ""));
        let message = format!("cannot read {}: {error}", path.display());
        let at = source.locate(0..0);
        SpecErrors::new(vec![Diagnostic::error(&source, at, message)])
    })?;
    parse(&bytes, path, root, options)
}

/// Loads many specs on all cores, each as [`load()`] does; what comes back is in the order of `files`,
/// which are paths and the directories below which their names begin.
pub fn load_all(
    files: &[(PathBuf, &Path)],
    options: &LoadOptions,
) -> Vec<Result<Spec, SpecErrors>> {
    let one = |(path, root): &(PathBuf, &Path)| load(path, root, options);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = files.len().div_ceil(threads).max(LEAST_SHARE);
    let mut shares = files.chunks(share);
    let first = shares.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(one).collect::<Vec<_>>()))
            .collect();
        let mut loaded: Vec<_> = first.iter().map(one).collect();
        for other in others {
            loaded.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        loaded
    })
}

/// Specs that are not worth a thread of their own.
const LEAST_SHARE: usize = 8;

/// Validates the bytes of a spec file as [`load()`] does.
pub fn parse(
    bytes: &[u8],
    path: &Path,
    root: &Path,
    options: &LoadOptions,
) -> Result<Spec, SpecErrors> {
    let Some(name) = spec_name(path, root) else {
        return Err(fatal(path, "", 0..0, "the path of a spec must be UTF-8", None));
    };
    if bytes.len() > Source::MAX_BYTES {
        let message = format!("the file is larger than {} MiB", Source::MAX_BYTES >> 20);
        return Err(fatal(path, "", 0..0, &message, Some("this is no spec; or split it")));
    }
    if name.contains("::") || name.contains(char::is_control) {
        let help = "rename the file: \"::\" separates the parts of a test id";
        let message = format!("{name:?} cannot be the name of a spec");
        return Err(fatal(path, "", 0..0, &message, Some(help)));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let place = error.valid_up_to();
            let text = String::from_utf8_lossy(bytes);
            let help = "save the file as UTF-8";
            return Err(fatal(path, &text, place..place + 1, "not valid UTF-8", Some(help)));
        }
    };
    if let Some((at, line)) = long_line(text) {
        let message = format!("a line of {} bytes, more than {LONGEST_LINE}", line.len());
        return Err(fatal(path, &text[..at], at..at, &message, Some("break the line")));
    }
    let source = Arc::new(Source::new(path, text));
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut findings = Findings::new(source);
    if !syntax.is_empty() {
        for error in syntax.into_iter().take(MOST_SYNTAX_ERRORS) {
            let span = error.span().unwrap_or(text.len()..text.len());
            let finding = findings.error(span, error.message());
            findings.push(finding);
        }
        return Err(findings.into_errors());
    }
    let spec = read_spec(document.get_ref(), &mut findings, name, options);
    match spec {
        Some(mut spec) if !findings.has_errors() => {
            let mut warnings = findings.into_errors().diagnostics;
            spec.warnings.append(&mut warnings);
            spec.sha256 = hex(&Sha256::digest(bytes));
            Ok(spec)
        }
        _ => Err(findings.into_errors()),
    }
}

/// Longest line of a spec, in bytes: every finding shows its line.
const LONGEST_LINE: usize = 256 << 10;

/// One mistake in a document's syntax makes many; the first tell it.
const MOST_SYNTAX_ERRORS: usize = 20;

/// The first line that is too long, and where it begins.
fn long_line(text: &str) -> Option<(usize, &str)> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.len() > LONGEST_LINE {
            return Some((at, line));
        }
        at += line.len();
    }
    None
}

/// A problem that leaves nothing to read.
fn fatal(
    path: &Path,
    text: &str,
    span: std::ops::Range<usize>,
    message: &str,
    help: Option<&str>,
) -> SpecErrors {
    let source = Arc::new(Source::new(path, text));
    let mut finding = Diagnostic::error(&source, source.locate(span), message);
    finding.help = help.map(str::to_owned);
    SpecErrors::new(vec![finding])
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| DIGITS[usize::from(digit)]).collect()
}

/*!
`qualm init REF QUANT`: a spec for a pair, with bounds drawn from what it measures.
*/

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use super::args::InitArgs;
use super::progress::watched;
use super::{Failure, streams};
use crate::pairs::{self, Request};
use crate::report;
use crate::report::draft::{DraftError, Words, draft};
use crate::report::numbers;
use crate::shown::one_line;
use crate::suite::exit::Exit;
use crate::suite::record::{PairRecord, TestOutcome};

/// Where specs are, if `--out` does not say otherwise.
const DIRECTORY: &str = "specs";

/// Measures the pairs, drafts a spec and writes it.
pub fn run(args: &InitArgs) -> Result<Exit, Failure> {
    let to_stdout = args.out.as_deref() == Some(Path::new("-"));
    let out = match (&args.out, args.quantized.as_slice()) {
        (Some(path), _) if !to_stdout => path.clone(),
        (_, [only]) => Path::new(DIRECTORY).join(format!("{}.toml", stem(only))),
        _ => Path::new(DIRECTORY).join(format!("{}.toml", stem(&args.reference))),
    };
    // Before the work, not after it.
    if !to_stdout && !args.force && fs::symlink_metadata(&out).is_ok() {
        let problem = format!("{} exists; --force overwrites it", out.display());
        return Err(Failure::new(Exit::Usage, problem));
    }
    refuse_equal_names(args)?;
    let pairs = pairs::measure(
        &Request { settle: false, ..args.reading.request(&args.reference, &args.quantized) },
        &watched,
    )?;
    let directory = out.parent().unwrap_or(Path::new(""));
    let reference = seen_from(directory, &args.reference)?;
    let mut named: Vec<(String, String)> = Vec::new();
    for (pair, path) in pairs.iter().zip(&args.quantized) {
        if let Some(error) = unreadable(pair) {
            return Err(Failure::new(Exit::InputError, error));
        }
        let name = match &args.name {
            Some(name) => name.clone(),
            None if pairs.len() > 1 => stem(path),
            None => dominant_type(pair),
        };
        named.push((name, seen_from(directory, path)?));
    }
    let words =
        named.iter().map(|(name, quantized)| Words { name, reference: &reference, quantized });
    let items: Vec<(&PairRecord, Words)> = pairs.iter().zip(words).collect();
    let draft = draft(&items).map_err(|error| {
        let exit = match &error {
            DraftError::Damaged { .. } => Exit::ValidationFailed,
            DraftError::Nameless => Exit::InputError,
            DraftError::DoesNotHold(_) => Exit::Internal,
        };
        Failure::new(exit, error)
    })?;
    pairs.iter().for_each(warn_of_one_sided);
    if to_stdout {
        let mut out = streams::text();
        out.write_all(draft.as_bytes())?;
        out.flush()?;
        return Ok(Exit::Ok);
    }
    report::write_file(&out, draft.as_bytes()).map_err(|e| Failure::new(Exit::Internal, e))?;
    let mut stdout = streams::text();
    writeln!(
        stdout,
        "wrote {} with bounds for {} tensors; next: look at it, then `qualm run` and `qualm accept`",
        out.display(),
        pairs.iter().map(|pair| pair.tensors.len()).sum::<usize>()
    )?;
    stdout.flush()?;
    Ok(Exit::Ok)
}

/// Several pairs are called after their files, and no two may be called the same.
fn refuse_equal_names(args: &InitArgs) -> Result<(), Failure> {
    if args.quantized.len() < 2 {
        return Ok(());
    }
    if args.name.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            "--name is for one model; several are called after their files",
        ));
    }
    let names: Vec<String> = args.quantized.iter().map(|path| stem(path)).collect();
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, name)) => {
            Err(Failure::new(Exit::Usage, format_args!("two of the models are called {name}")))
        }
        None => Ok(()),
    }
}

/// The draft allows by name what only one of the models has: nobody should learn that from the spec
/// alone.
fn warn_of_one_sided(pair: &PairRecord) {
    for (kind, words) in [("missing", "lacks"), ("extra", "alone has")] {
        let mut tensors = pair.findings.iter().filter(|finding| finding.kind == kind);
        if let Some(first) = tensors.next() {
            let count = numbers::counted(tensors.count() as u64 + 1, "tensor");
            let first = one_line(&first.tensor);
            streams::tell(format_args!(
                "warning: the quantized model {words} {count} ({first}, …); the spec allows it"
            ));
        }
    }
}

fn unreadable(pair: &PairRecord) -> Option<String> {
    let error = pair.tests.iter().find(|test| test.outcome == TestOutcome::Error);
    pair.error.clone().or_else(|| error?.reason.clone())
}

/// The name of a file or directory without what follows the last dot of a file's.
fn stem(path: &Path) -> String {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or_else(|| "pair".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The type that most bytes are stored in, in lower case.
fn dominant_type(pair: &PairRecord) -> String {
    let mut types: Vec<(&str, u64)> = Vec::new();
    for row in &pair.tensors {
        match types.iter_mut().find(|(ty, _)| *ty == row.qtype) {
            Some((_, bytes)) => *bytes += row.stored_bytes,
            None => types.push((&row.qtype, row.stored_bytes)),
        }
    }
    let most = types.into_iter().max_by_key(|(_, bytes)| *bytes);
    most.map_or_else(|| "pair".to_owned(), |(ty, _)| ty.to_lowercase())
}

/// A path as a file in `directory` has to write it: relative, with `/`, unless it was given as an
/// absolute path.
fn seen_from(directory: &Path, path: &Path) -> Result<String, Failure> {
    let text = |path: &Path| {
        let slashes =
            |text: &str| if cfg!(windows) { text.replace('\\', "/") } else { text.to_owned() };
        path.to_str().map(slashes).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format_args!("{}: no UTF-8, which TOML needs", path.display()),
            )
        })
    };
    if path.is_absolute() {
        return text(path);
    }
    let directory = plain(&std::path::absolute(directory.join("."))?);
    let path = plain(&std::path::absolute(path)?);
    let shared = directory.components().zip(path.components()).take_while(|(a, b)| a == b).count();
    let up = directory.components().skip(shared).map(|_| Component::ParentDir);
    text(&up.chain(path.components().skip(shared)).collect::<PathBuf>())
}

/// An absolute path without `..`, as it is written: links are not followed.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_the_spec_sees_them() {
        for (directory, path, expected) in [
            ("specs", "models/a.gguf", "../models/a.gguf"),
            ("specs/deep", "specs/models/a.gguf", "../models/a.gguf"),
            ("", "a.gguf", "a.gguf"),
            ("specs", "specs/../b", "../b"),
            ("specs", "/models/a.gguf", "/models/a.gguf"),
        ] {
            assert_eq!(seen_from(Path::new(directory), Path::new(path)).unwrap(), expected);
        }
    }
}

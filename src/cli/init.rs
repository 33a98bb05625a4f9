/*!
`qualm init REF QUANT`: a spec for a pair, with bounds drawn from what it measures.
*/

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use super::args::InitArgs;
use super::{Failure, one_pair, streams};
use crate::report;
use crate::report::draft::{DraftError, Words, draft};
use crate::report::numbers;
use crate::shown::one_line;
use crate::suite::exit::Exit;
use crate::suite::record::{PairRecord, TestOutcome};

/// Where specs are, if `--out` does not say otherwise.
const DIRECTORY: &str = "specs";

/// Measures the pair, drafts a spec and writes it.
pub fn run(args: &InitArgs) -> Result<Exit, Failure> {
    let to_stdout = args.out.as_deref() == Some(Path::new("-"));
    let out = match &args.out {
        Some(path) if !to_stdout => path.clone(),
        _ => Path::new(DIRECTORY).join(format!("{}.toml", stem(&args.quantized))),
    };
    // Before the work, not after it.
    if !to_stdout && !args.force && fs::symlink_metadata(&out).is_ok() {
        let problem = format!("{} exists; --force overwrites it", out.display());
        return Err(Failure::new(Exit::Usage, problem));
    }
    let path = |path: &Path| one_pair::literal(&path.to_string_lossy());
    let mut text = format!(
        "schema = 1\n[[pair]]\nname = \"pair\"\nreference = {}\nquantized = {}\n",
        path(&args.reference),
        path(&args.quantized)
    );
    one_pair::push_map(&mut text, args.map.as_deref());
    let pair = one_pair::measure(&text, &args.reference, &args.quantized, args.threads, false)?;
    if let Some(error) = unreadable(&pair) {
        return Err(Failure::new(Exit::InputError, error));
    }
    let directory = out.parent().unwrap_or(Path::new(""));
    let name = args.name.clone().unwrap_or_else(|| dominant_type(&pair));
    let reference = seen_from(directory, &args.reference)?;
    let quantized = seen_from(directory, &args.quantized)?;
    let words = Words { name: &name, reference: &reference, quantized: &quantized };
    let draft = draft(&pair, &words).map_err(|error| {
        let exit = match &error {
            DraftError::Damaged(_) => Exit::ValidationFailed,
            DraftError::Nameless => Exit::InputError,
            DraftError::DoesNotHold(_) => Exit::Internal,
        };
        Failure::new(exit, error)
    })?;
    warn_of_one_sided(&pair);
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
        pair.tensors.len()
    )?;
    stdout.flush()?;
    Ok(Exit::Ok)
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
